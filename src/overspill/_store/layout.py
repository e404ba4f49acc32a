"""Which byte means what: docs/format.md as constants, structs and typed values.

Every size and every field here is tied to a table of the format page by an assert or by the order of the fields in a
named tuple, which is the order of the table. Nothing here opens a file. What lies outside a single segment's bytes, such as what
an observation is to be answered with, is the recovery's business.

`parse` takes bytes of any origin and answers with the value, or with an `Unreadable` that names why there is none; it raises
nothing. A value that `parse` returned has passed its check code *and* its bounds: its offsets lie inside the file and its
areas do not overlap, so a caller may use them without looking again, even where somebody wrote the bytes to harm.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import Enum
from struct import Struct
from typing import Final, NamedTuple

from .._core.record import crc32c as crc32c  # also for who checks an index or a payload

Bytes = bytes | bytearray | memoryview

VERSION: Final = 1

# Sizes and places that all segments share.
PAGE: Final = 4096
SLOT: Final = 64
MARKS_START: Final = 512
MARKS_PER_WORD: Final = 32
ATTEMPTS_PER_WORD: Final = 4
WORD: Final = Struct("<II")  # marks or counts, check code
INDEX_ENTRY: Final = Struct("<I")  # an offset in units of 8 bytes
PLACE_UNIT: Final = 8
FILE_SIZE_MAX: Final = PLACE_UNIT << 32  # offsets are kept as u32 in units of 8 bytes
ATTEMPTS_DOMAIN: Final = 1 << 31  # keeps a word of counts from passing as a word of marks
ATTEMPTS_MAX: Final = 255

HEADER_MAGIC: Final = b"OVSPSEG\n"
FOOTER_MAGIC: Final = b"OVSPEND\n"

HEADER: Final = Struct("<8sHHI16sQQQQQQIQ32sI")
RECORD_HEADER: Final = Struct("<IIQ16sqqIIIIBBBBBBH")
DIRECTORY_ENTRY: Final = Struct("<HHIQqqQqIIQ")
FOOTER: Final = Struct("<8sQQQIIQQqIIQQ36sI")
assert WORD.size == 8 and INDEX_ENTRY.size == 4
assert HEADER.size == 128  # format page, table 1
assert RECORD_HEADER.size == 72  # format page, table 2
assert DIRECTORY_ENTRY.size == 64  # format page, table 4
assert FOOTER.size == 128  # format page, table 5
assert RECORD_HEADER.size > SLOT  # no two records share a slot
assert HEADER.size <= MARKS_START < PAGE

# The overflow file of a stream, in the byte order of the program that it comes from.
OVERFLOW_SUFFIX: Final = ".overflow"
MESSAGE_LENGTH: Final = Struct(">I")
MESSAGE_MAX: Final = 10 << 20
DRAINED_MARK: Final = Struct(">IQ")  # DRAINED_FAR, where the first message begins
DRAINED_FAR: Final = 0xFFFFFFFF
DRAINED_NEAR: Final = 0xFFFFFF00  # + where the first message begins, alone, where that leaves no room for the longer mark
assert MESSAGE_LENGTH.size == 4 and DRAINED_MARK.size == 12  # format page, table 6
assert MESSAGE_MAX < DRAINED_NEAR  # no length can be taken for a mark

HEADER_FLAG_COMPACTED: Final = 1
RECORD_FLAG_FRONT: Final = 1
RECORD_FLAG_COPIED: Final = 2
RECORD_FLAG_DELAYED: Final = 4
RECORD_FLAG_DEAD: Final = 8
RECORD_FLAG_MOVED: Final = 16

DELAYED_LINE: Final = 256  # lines 0 to 255 are the priorities
DEAD_LINE: Final = 257
LINES: Final = 258

TIME: Final = Struct("<q")  # format page, table 6: the front of the extension of a record in a line ordered by time
DEATH: Final = Struct("<qHHI")  # table 7: when, reason, length of the text that follows
ORIGIN: Final = Struct("<QQ")  # table 8: the end of the extension of a moved record
EXTENSION_MAX: Final = 255 * PLACE_UNIT
assert TIME.size == 8 and DEATH.size == 16 and ORIGIN.size == 16
ERROR_BYTES_MAX: Final = EXTENSION_MAX - DEATH.size - ORIGIN.size

_CRC = Struct("<I")
_CRC_AT = 124  # in header and footer alike
assert _CRC_AT + _CRC.size == HEADER.size == FOOTER.size


class Origin(NamedTuple):
    """The record that a moved one replaces."""

    number: int
    offset: int


class Death(NamedTuple):
    """Why an item is a dead letter."""

    dead_ns: int
    reason: int
    error: str


def cut_to_fit(error: str) -> str:
    """As much of a text as an extension has room for, whatever else is in it."""
    return error.encode("utf-8", "replace")[:ERROR_BYTES_MAX].decode("utf-8", "ignore")


def pack_extension(*, due_ns: int | None = None, death: Death | None = None, origin: Origin | None = None) -> bytes:
    """The extension of a record, a multiple of 8 bytes; b"" if there is nothing to say. A text that is too long is cut."""
    parts = b""
    if due_ns is not None:
        parts = TIME.pack(due_ns)
    if death is not None:
        error = cut_to_fit(death.error).encode()
        parts = DEATH.pack(death.dead_ns, death.reason, len(error), 0) + error
        parts += bytes(-len(parts) % PLACE_UNIT)
    if origin is not None:
        parts += ORIGIN.pack(*origin)
    assert len(parts) <= EXTENSION_MAX and len(parts) % PLACE_UNIT == 0
    return parts


def origin_of(extension: Bytes) -> Origin | None:
    """The address at the end of a moved record's extension; None if there is no room for one."""
    return Origin(*ORIGIN.unpack(extension[-ORIGIN.size :])) if len(extension) >= ORIGIN.size else None


def death_of(extension: Bytes) -> Death | None:
    """What a dead letter's extension says; None if it says nothing that can be understood."""
    if len(extension) < DEATH.size:
        return None
    dead_ns, reason, length, _ = DEATH.unpack(extension[: DEATH.size])
    if DEATH.size + length > len(extension):
        return None
    return Death(dead_ns, reason, bytes(extension[DEATH.size : DEATH.size + length]).decode("utf-8", "replace"))


class Unreadable(Enum):
    """Why bytes are not the header, directory or footer that was looked for."""

    ABSENT = "all zero: never written, or lost in a power cut"
    FOREIGN = "nothing says that these are this file's own bytes"
    BAD = "ours, and damaged"
    NEWER = "ours, whole, and of a version that is not known here"


class SegmentHeader(NamedTuple):
    """Table 1, without magic, version, reserved bytes and check code."""

    flags: int
    salt: int
    queue: bytes
    number: int
    through: int
    base_sequence: int
    created_ns: int
    records_start: int
    file_size: int
    slots: int
    previous_end: int

    @property
    def compacted(self) -> bool:
        return bool(self.flags & HEADER_FLAG_COMPACTED)

    @property
    def in_use(self) -> bool:
        """False for a prepared segment, which gets its number, counted from 1, when it is put to use."""
        return self.number > 0

    @property
    def attempts_start(self) -> int:
        return attempts_start(self.slots)

    def pack(self) -> bytes:
        body = HEADER.pack(HEADER_MAGIC, VERSION, *self, b"", 0)[:_CRC_AT]
        return body + _CRC.pack(crc32c(body))

    @staticmethod
    def parse(data: Bytes) -> SegmentHeader | Unreadable:
        """The header in the first 128 bytes of a file.

        Every version keeps magic, version and a CRC of the first 124 bytes where they are, so that a newer
        segment can be told from a damaged one.
        """
        block = bytes(data[: HEADER.size])
        if not block.strip(b"\0"):
            return Unreadable.ABSENT
        if len(block) < HEADER.size:
            return Unreadable.BAD if block.startswith(HEADER_MAGIC) else Unreadable.FOREIGN
        magic, version, *fields, _reserved, crc = HEADER.unpack(block)
        if magic != HEADER_MAGIC:
            # A damaged magic is still ours if the check code says that ours was there.
            ours = crc == crc32c(HEADER_MAGIC + block[8:_CRC_AT])
            return Unreadable.BAD if ours else Unreadable.FOREIGN
        if crc != crc32c(block[:_CRC_AT]):
            return Unreadable.BAD
        if version > VERSION:
            return Unreadable.NEWER
        header = SegmentHeader(*fields)
        return header if version == VERSION and header._is_sound() else Unreadable.BAD

    def _is_sound(self) -> bool:
        return (
            self.number <= self.through
            and self.records_start % PAGE == 0
            and self.records_start < self.file_size <= FILE_SIZE_MAX
            and self.slots == slots_between(self.records_start, self.file_size)
            and areas_end(self.slots) <= self.records_start
        )


class DirectoryEntry(NamedTuple):
    """Table 4, without reserved bytes. Its check code is the footer's `directory_crc`."""

    line: int
    count: int  # type: ignore[assignment]  # hides tuple.count, with which nobody counts fields
    index_start: int
    first_place: int
    last_place: int
    payload_bytes: int
    greatest_expiry_ns: int
    without_expiry: int
    index_crc: int

    @property
    def index_size(self) -> int:
        return self.count * INDEX_ENTRY.size

    def pack(self) -> bytes:
        return DIRECTORY_ENTRY.pack(self.line, 0, *self[1:], 0)

    @staticmethod
    def parse(data: Bytes) -> DirectoryEntry:
        """One entry of a directory that has been checked as a whole; see `parse_directory`."""
        line, _, *fields, _ = DIRECTORY_ENTRY.unpack(data)
        return DirectoryEntry(line, *fields)

    def vouches_for(self, index: Bytes, salt: int) -> bool:
        """Whether these are the bytes of this entry's index, as they were written."""
        return len(index) == self.index_size and crc32c(index, salt) == self.index_crc


class Footer(NamedTuple):
    """Table 5, without magic, reserved bytes and check code."""

    number: int
    records_end: int
    directory_start: int
    lines: int
    count: int  # type: ignore[assignment]  # hides tuple.count, with which nobody counts fields
    least_sequence: int
    greatest_sequence: int
    greatest_expiry_ns: int
    without_expiry: int
    directory_crc: int
    payload_bytes: int
    next_sequence: int

    @property
    def directory_size(self) -> int:
        return self.lines * DIRECTORY_ENTRY.size

    def pack(self, salt: int) -> bytes:
        body = FOOTER.pack(FOOTER_MAGIC, *self, b"", 0)[:_CRC_AT]
        return body + _CRC.pack(crc32c(body, salt))

    @staticmethod
    def parse(data: Bytes, header: SegmentHeader, size: int) -> Footer | Unreadable:
        """The footer in the last 128 bytes of a file of `size` bytes.

        `FOREIGN` is the normal look of an unsealed segment in a recycled file: the remains of its earlier life.
        """
        block = bytes(data[-FOOTER.size :])
        if not block.strip(b"\0"):
            return Unreadable.ABSENT
        if len(block) < FOOTER.size:
            return Unreadable.BAD
        _magic, *fields, _reserved, crc = FOOTER.unpack(block)
        footer = Footer(*fields)
        own_name = FOOTER_MAGIC + header.number.to_bytes(8, "little")
        if crc != crc32c(block[:_CRC_AT], header.salt):
            # Damaged in its first 16 bytes or elsewhere, or another segment's.
            ours = block.startswith(own_name) or crc == crc32c(own_name + block[16:_CRC_AT], header.salt)
            return Unreadable.BAD if ours else Unreadable.FOREIGN
        if not block.startswith(own_name):
            return Unreadable.FOREIGN
        return footer if footer._is_sound(header, size) else Unreadable.BAD

    def _is_sound(self, header: SegmentHeader, size: int) -> bool:
        return (
            header.records_start <= self.records_end <= self.directory_start
            and self.records_end + self.count * INDEX_ENTRY.size <= self.directory_start
            and self.directory_start % PLACE_UNIT == 0
            and self.directory_start + self.directory_size + FOOTER.size <= size <= FILE_SIZE_MAX
            and self.lines <= min(LINES, self.count)
            and (self.lines > 0) == (self.count > 0)
            and self.count * RECORD_HEADER.size <= self.records_end - header.records_start
            and self.greatest_sequence < self.next_sequence
            and self.without_expiry <= self.count
        )


def pack_directory(entries: Iterable[DirectoryEntry]) -> bytes:
    return b"".join(entry.pack() for entry in entries)


def parse_directory(data: Bytes, footer: Footer, salt: int) -> tuple[DirectoryEntry, ...] | Unreadable:
    """The directory of a segment with this footer; `data` begins at `footer.directory_start`."""
    block = bytes(data[: footer.directory_size])
    if len(block) < footer.directory_size or crc32c(block, salt) != footer.directory_crc:
        return Unreadable.BAD
    size = DIRECTORY_ENTRY.size
    entries = tuple(DirectoryEntry.parse(block[at : at + size]) for at in range(0, len(block), size))
    index_at, line, count = footer.records_end, -1, 0
    for entry in entries:
        if not line < entry.line < LINES or entry.count == 0 or entry.first_place > entry.last_place:
            return Unreadable.BAD
        if entry.index_start < index_at or entry.index_start % INDEX_ENTRY.size:
            return Unreadable.BAD
        line, count, index_at = entry.line, count + entry.count, entry.index_start + entry.index_size
    return entries if index_at <= footer.directory_start and count == footer.count else Unreadable.BAD


# Where things are.


def slots_between(records_start: int, file_size: int) -> int:
    return -(-(file_size - records_start) // SLOT)


def attempts_start(slots: int) -> int:
    return MARKS_START + WORD.size * -(-slots // MARKS_PER_WORD)


def areas_end(slots: int) -> int:
    """The first byte behind settle marks and attempt counts."""
    return attempts_start(slots) + WORD.size * -(-slots // ATTEMPTS_PER_WORD)


class Geometry(NamedTuple):
    slots: int
    marks_start: int
    attempts_start: int
    records_start: int


def geometry(file_size: int) -> Geometry:
    """The areas of a new segment file: the least `records_start` in front of which its own marks and counts fit."""
    assert PAGE < file_size <= FILE_SIZE_MAX, file_size
    # A later start means fewer slots, so everything behind one start that fits would fit as well: find the least
    # by going up from one that is certainly not too late, the fixed point of the areas without their rounding.
    bytes_per_slot = WORD.size / MARKS_PER_WORD + WORD.size / ATTEMPTS_PER_WORD
    exact = (MARKS_START + file_size / SLOT * bytes_per_slot) / (1 + bytes_per_slot / SLOT)
    start = max(PAGE, int(exact) // PAGE * PAGE)
    while areas_end(slots_between(start, file_size)) > start:
        start += PAGE
    assert start < file_size, "a segment file has room for at least one slot"
    slots = slots_between(start, file_size)
    return Geometry(slots, MARKS_START, attempts_start(slots), start)


def record_size(length: int) -> int:
    """Bytes in the file of a record with `length` bytes behind its header."""
    return -(-(RECORD_HEADER.size + length) // PLACE_UNIT) * PLACE_UNIT


def blocks(size: int) -> int:
    """What a file of this size takes of the disk: whole blocks."""
    return -(-size // PAGE) * PAGE


def slot_of(offset: int, records_start: int) -> int:
    return (offset - records_start) // SLOT


# Settle marks and attempt counts: one aligned word each, with its own check code.


def mark_word(salt: int, i: int, marks: int) -> bytes:
    """Word `i` of the settle marks."""
    return WORD.pack(marks, crc32c(WORD.pack(marks, i), salt))


def attempt_word(salt: int, i: int, counts: int) -> bytes:
    """Word `i` of the attempt counts; the count of slot 4 i is the lowest byte."""
    return WORD.pack(counts, crc32c(WORD.pack(counts, i + ATTEMPTS_DOMAIN), salt))


def marks_of(word: Bytes, salt: int, i: int) -> int | None:
    """What word `i` of the settle marks holds; None if it does not check, which counts as no mark."""
    marks = int.from_bytes(word[:4], "little")
    return marks if bytes(word) == mark_word(salt, i, marks) else None


def attempts_of(word: Bytes, salt: int, i: int) -> int | None:
    """What word `i` of the attempt counts holds; None if it does not check, which counts as four zeros."""
    counts = int.from_bytes(word[:4], "little")
    return counts if bytes(word) == attempt_word(salt, i, counts) else None


# Names in a queue's folder.

LOCK_NAME: Final = "lock"
QUARANTINE_NAME: Final = "quarantine"
REPORT_NAME: Final = "report.jsonl"


class Kind(Enum):
    """What a name in the folder stands for."""

    LOCK = LOCK_NAME
    QUARANTINE = QUARANTINE_NAME
    SEGMENT = ".seg"
    PREPARED = ".seg.tmp"
    SPARE = ".spare"
    FOREIGN = ""  # not in the table: left alone and reported


class Name(NamedTuple):
    kind: Kind
    number: int | None = None  # of a segment in any of its three states


_NUMBERED = re.compile(r"([0-9]{20})(\.seg|\.seg\.tmp|\.spare)", re.ASCII)
_NUMBER_MAX = (1 << 64) - 1


def segment_name(number: int) -> str:
    return _name(number, Kind.SEGMENT)


def prepared_name(number: int) -> str:
    return _name(number, Kind.PREPARED)


def spare_name(number: int) -> str:
    return _name(number, Kind.SPARE)


def _name(number: int, kind: Kind) -> str:
    assert 1 <= number <= _NUMBER_MAX, number
    return f"{number:020}{kind.value}"


def parse_name(name: str) -> Name:
    """What a name in the folder stands for; names that we would not write ourselves are foreign."""
    if name == LOCK_NAME:
        return Name(Kind.LOCK)
    if name == QUARANTINE_NAME:
        return Name(Kind.QUARANTINE)
    match = _NUMBERED.fullmatch(name)
    if match and 1 <= int(match[1]) <= _NUMBER_MAX:
        return Name(Kind(match[2]), int(match[1]))
    return Name(Kind.FOREIGN)
