"""The judge of the compiled code: docs/format.md once more, in plain Python, from the page alone.

It shares nothing with the package but the page: its own structs, a CRC from another library, files read whole. It is slow, and it is
written to be compared with the page line by line; where it and the package differ, one of the three is wrong.

* `read_segment(bytes)` says what is in one segment file, and lists in `problems` whatever is not as the page has it.
* `write_segment(records, ...)` makes one, sealed or not, as bytes: for golden files and for inputs to be damaged.
* `read_folder(path)` reads a folder as "Reading a folder" says; `live_items(path)` are its items in the order of leaving.

Where the page leaves room, the reading taken here is marked ASSUMED.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from crc32c import crc32c as _castagnoli

FRONT = 1
COPIED = 2
DELAYED = 4
DEAD = 8
MOVED = 16


def crc(data: bytes, seed: int = 0) -> int:
    """CRC-32C of `data`, continued from a seed."""
    return _castagnoli(data, seed)


def up_to(multiple: int, n: int) -> int:
    return (n + multiple - 1) // multiple * multiple


# --- what a segment holds, named as in the tables


@dataclass(frozen=True)
class Header:  # table 1
    version: int
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


@dataclass(frozen=True)
class Record:  # table 2
    offset: int
    header_crc: int
    length: int
    sequence: int
    id: bytes
    enqueued_ns: int
    expiry_ns: int
    raw_length: int
    payload_crc: int
    synced: int
    batch_left: int
    priority: int
    flags: int
    codec: int
    kind: int
    attempts: int
    extension: int
    stored: bytes  # `length` bytes: extension and payload
    ok: bool  # the header checks, or this would not be here; whether the payload does

    @property
    def payload(self) -> bytes:
        return self.stored[8 * self.extension :]

    @property
    def end(self) -> int:
        return up_to(8, self.offset + 72 + self.length)

    @property
    def extension_bytes(self) -> bytes:
        return self.stored[: 8 * self.extension]

    @property
    def line(self) -> int:
        if self.extension and self.flags & DELAYED:
            return 256
        return 257 if self.extension and self.flags & DEAD else self.priority

    @property
    def place(self) -> int:
        if self.line > 255:  # tables 6 and 7: the time comes first
            return int(struct.unpack("<q", self.stored[:8])[0])
        return -self.sequence if self.flags & FRONT else self.sequence

    @property
    def origin(self) -> tuple[int, int] | None:  # table 8
        return struct.unpack("<QQ", self.extension_bytes[-16:]) if self.flags & MOVED and self.extension >= 2 else None


@dataclass(frozen=True)
class DirectoryEntry:  # table 4
    line: int
    count: int
    index_start: int
    first_place: int
    last_place: int
    payload_bytes: int
    greatest_expiry_ns: int
    without_expiry: int
    index_crc: int


@dataclass(frozen=True)
class Footer:  # table 5
    number: int
    records_end: int
    directory_start: int
    lines: int
    count: int
    least_sequence: int
    greatest_sequence: int
    greatest_expiry_ns: int
    without_expiry: int
    directory_crc: int
    payload_bytes: int
    next_sequence: int


@dataclass
class Segment:
    header: Header | None = None
    footer: Footer | None = None
    directory: list[DirectoryEntry] = field(default_factory=list)
    index: dict[int, list[int]] = field(default_factory=dict)
    """Offsets by line, in the order of their places. Of an unsealed segment: as it would be."""
    records: list[Record] = field(default_factory=list)
    """What counts, in the order of the file; `ok` is False where the payload is damaged."""
    marks: set[int] = field(default_factory=set)
    """Offsets of the records that are done."""
    attempts: dict[int, int] = field(default_factory=dict)
    """Counts that are not zero, by offset of the record."""
    damage: list[tuple[int, int]] = field(default_factory=list)
    """(offset, length) of the stretches that do not check and should."""
    records_end: int = 0
    synced: int = 0
    """The synced position, in bytes."""
    cut: list[Record] = field(default_factory=list)
    """What checks and is cut nevertheless: behind a tear, or of an incomplete batch."""
    torn: bool = False
    """Something was cut, or began and is not whole."""
    problems: list[str] = field(default_factory=list)
    """Everything that is not as the page has it, damage included; a torn tail is not one."""

    @property
    def sealed(self) -> bool:
        return self.footer is not None

    @property
    def live(self) -> list[Record]:
        return [record for record in self.records if record.ok and record.offset not in self.marks]


# --- reading a segment


def read_segment(data: bytes, *, vouched: bool = False) -> Segment:
    """What is in these bytes of a file. `vouched`: something in a later segment says that this one was synced as a whole."""
    segment = Segment()
    segment.header = header = _read_header(data, segment.problems)
    if header is None:
        return segment
    found = _all_records(data, header)
    footer = _read_footer(data, header)
    if footer is not None:
        segment.footer = footer
        _read_sealed(data, header, footer, found, segment)
    else:
        _read_unsealed(data, header, found, vouched, segment)
    _check_padding(data, segment)
    _read_marks(data, header, segment)
    _read_attempts(data, header, segment)
    return segment


def _read_header(data: bytes, problems: list[str]) -> Header | None:
    if len(data) < 128:
        problems.append("header: the file is too short")
        return None
    magic, version, *fields = struct.unpack("<8sHHI16sQQQQQQIQ", data[:92])
    reserved, (check,) = data[92:124], struct.unpack("<I", data[124:128])
    if magic != b"OVSPSEG\n":
        problems.append("header: magic")
        return None
    if check != crc(data[:124]):
        problems.append("header: check code")
        return None
    if version != 1:
        problems.append(f"header: version {version}")
        return None
    header = Header(version, *fields)
    if any(reserved):
        problems.append("header: reserved bytes")
    if header.flags & ~1:
        problems.append("header: flags")
    if header.number < 1 or header.through < header.number:
        problems.append("header: number, through")
    if header.through > header.number and not header.flags & 1:
        problems.append("header: stands for others and was not written by compaction")
    if header.records_start % 4096:
        problems.append("header: records_start")
        return None
    if header.slots != (header.file_size - header.records_start + 63) // 64:
        problems.append("header: slots")
        return None
    if _areas_end(header.slots) > header.records_start or header.records_start > len(data):
        problems.append("header: marks and counts have no room")
        return None
    return header


def _areas_end(slots: int) -> int:
    return 512 + 8 * ((slots + 31) // 32) + 8 * ((slots + 3) // 4)


def _read_footer(data: bytes, header: Header) -> Footer | None:
    block = data[-128:]
    (check,) = struct.unpack("<I", block[124:])
    if len(data) < header.records_start + 128 or check != crc(block[:124], header.salt):
        return None
    magic, *fields = struct.unpack("<8sQQQIIQQqIIQQ", block[:88])
    footer = Footer(*fields)
    return footer if magic == b"OVSPEND\n" and footer.number == header.number else None


def _record_at(data: bytes, header: Header, offset: int, end: int) -> Record | None:
    """The record at this offset if its header checks."""
    if offset + 72 > end:
        return None
    head = data[offset : offset + 72]
    header_crc, length, *fields = struct.unpack("<IIQ16sqqIIIIBBBBBB", head[:70])
    if header_crc != crc(head[4:], header.salt ^ (offset // 8)) or offset + 72 + length > end:
        return None
    stored = data[offset + 72 : offset + 72 + length]
    record = Record(*(offset, header_crc, length, *fields, stored, False))
    return replace(record, ok=record.payload_crc == crc(stored, header.salt))


def _all_records(data: bytes, header: Header) -> list[Record]:
    """Every record of this file whose header checks, one after the other; after what does not check, the next that does."""
    found = []
    offset = header.records_start
    while offset + 72 <= len(data):
        record = _record_at(data, header, offset, len(data))
        if record is None:
            offset += 8
        else:
            found.append(record)
            offset = record.end
    return found


def _read_sealed(data: bytes, header: Header, footer: Footer, found: list[Record], segment: Segment) -> None:
    """A good footer: the segment is as the footer says."""
    problems = segment.problems
    segment.records_end = segment.synced = footer.records_end
    if any(data[-40:-4]):
        problems.append("footer: reserved bytes")
    if not header.records_start <= footer.records_end <= footer.directory_start <= len(data) - 128:
        problems.append("footer: offsets")
        return
    directory = data[footer.directory_start : footer.directory_start + 64 * footer.lines]
    if footer.directory_start + 64 * footer.lines != len(data) - 128:
        problems.append("footer: the directory does not end where the footer begins")
    here = [record for record in found if record.offset < footer.records_end]
    if crc(directory, header.salt) != footer.directory_crc or len(directory) != 64 * footer.lines:
        problems.append("directory: check code")
    else:
        for at in range(0, len(directory), 64):
            line, r1, *fields, r2 = struct.unpack("<HHIQqqQqIIQ", directory[at : at + 64])
            segment.directory.append(DirectoryEntry(line, *fields))
            if r1 or r2:
                problems.append("directory: reserved bytes")
    by_offset = {record.offset: record for record in here}
    index_at = up_to(8, footer.records_end)
    broken_index = len(segment.directory) != footer.lines
    for entry in segment.directory:
        index = data[entry.index_start : entry.index_start + 4 * entry.count]
        if entry.index_start != index_at:
            problems.append(f"directory: index of line {entry.line} is not where the one before it ends")
        index_at = entry.index_start + 4 * entry.count
        if crc(index, header.salt) != entry.index_crc or len(index) != 4 * entry.count:
            problems.append(f"index of line {entry.line}: check code")
            broken_index = True
            continue
        segment.index[entry.line] = [8 * unit for (unit,) in struct.iter_unpack("<I", index)]
    if [entry.line for entry in segment.directory] != sorted({entry.line for entry in segment.directory}):
        problems.append("directory: lines are not in order")
    if broken_index:
        # ASSUMED: without its index a sealed segment still has its records, which vouch for themselves.
        segment.records = here
        segment.index = _index_of(here)
        segment.damage += _gaps(header.records_start, footer.records_end, here)
    else:
        if not up_to(8, index_at) == footer.directory_start:
            problems.append("directory: it does not begin where the index ends")
        listed = sorted(offset for offsets in segment.index.values() for offset in offsets)
        # What the index does not list is not there: recovery has set it aside, or cut it.
        segment.records = [by_offset[offset] for offset in listed if offset in by_offset]
        lost = [offset for offset in listed if offset not in by_offset]
        for offset in lost:
            after = [record.offset for record in here if record.offset > offset]
            after += [other for other in listed if other > offset]
            segment.damage.append((offset, min(after, default=footer.records_end) - offset))
    for record in segment.records:
        if not record.ok:
            segment.damage.append((record.offset, record.end - record.offset))
    segment.damage = _joined(segment.damage)
    problems += [f"record at {offset}: {length} bytes do not check" for offset, length in segment.damage]
    if not broken_index and not lost:
        _check_totals(segment, footer)


def _check_totals(segment: Segment, footer: Footer) -> None:
    """What footer and directory say of the records, against the records."""
    problems, records = segment.problems, segment.records
    sequences = [record.sequence for record in records]
    expected: dict[str, int] = {
        "count": len(records),
        "lines": len({record.line for record in records}),
        "least_sequence": min(sequences, default=0),  # ASSUMED: 0 if there is no record, as greatest_sequence
        "greatest_sequence": max(sequences, default=0),
        **_totals(records),
    }
    problems += [
        f"footer: {name} is {getattr(footer, name)}, the records say {value}"
        for name, value in expected.items()
        if getattr(footer, name) != value
    ]
    if footer.next_sequence <= max(sequences, default=0):
        problems.append("footer: next_sequence is taken")
    if records and records[-1].end > footer.records_end:
        problems.append("footer: records_end")
    for entry in segment.directory:
        lane = [record for record in records if record.line == entry.line]
        places = [record.place for record in lane]
        if segment.index[entry.line] != _index_of(lane).get(entry.line):
            problems.append(f"index of line {entry.line}: not this priority's records by place")
            continue
        expected = {"count": len(lane), "first_place": min(places), "last_place": max(places), **_totals(lane)}
        problems += [
            f"directory: {name} of line {entry.line} is {getattr(entry, name)}, the records say {value}"
            for name, value in expected.items()
            if getattr(entry, name) != value
        ]


def _totals(records: list[Record]) -> dict[str, int]:
    return {
        "payload_bytes": sum(record.raw_length for record in records),
        "greatest_expiry_ns": max((record.expiry_ns for record in records), default=0),
        "without_expiry": sum(not record.expiry_ns for record in records),
    }


def _index_of(records: Iterable[Record]) -> dict[int, list[int]]:
    index: dict[int, list[int]] = {}
    for record in sorted(records, key=lambda record: (record.line, record.place, record.offset)):
        index.setdefault(record.line, []).append(record.offset)
    return index


def _gaps(start: int, end: int, records: list[Record]) -> list[tuple[int, int]]:
    gaps = []
    for record in records:
        if record.offset > start:
            gaps.append((start, record.offset - start))
        start = record.end
    if end > start:
        gaps.append((start, end - start))
    return gaps


def _joined(stretches: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """In order, and those that touch as one."""
    joined: list[tuple[int, int]] = []
    for offset, length in sorted(stretches):
        if joined and sum(joined[-1]) == offset:
            offset, length = joined[-1][0], joined.pop()[1] + length
        joined.append((offset, length))
    return joined


def _read_unsealed(data: bytes, header: Header, found: list[Record], vouched: bool, segment: Segment) -> None:
    """No good footer: the records, one after the other, each vouched for by its header's CRC."""
    # "The synced position is the greatest `synced` of any of them." ASSUMED: of any that checks, also of those behind
    # a tear or damage, for they were written later; and a position outside the file says nothing.
    segment.synced = max((8 * record.synced for record in found if 8 * record.synced <= len(data)), default=0)
    if vouched:
        segment.synced = len(data)
    position = header.records_start
    kept: list[Record] = []
    for n, record in enumerate(found):
        if record.offset > position:  # from `position` to here nothing checks
            if position >= segment.synced:
                segment.torn, segment.cut = True, found[n:]
                break
            below = min(record.offset, segment.synced)
            segment.damage.append((position, below - position))
            if below < record.offset:  # a record was known to end there, and the next one does not check
                segment.torn, segment.cut = True, found[n:]
                break
        if not record.ok:
            if record.offset >= segment.synced:
                segment.torn, segment.cut = True, found[n + 1 :]
                break
            segment.damage.append((record.offset, record.end - record.offset))
        kept.append(record)
        position = record.end
    # ASSUMED: where nothing checks behind `position` either, there is the end, which is no tear by itself; but below the
    # synced position something was there once.
    if not segment.torn and not vouched and position < segment.synced:
        segment.damage.append((position, segment.synced - position))
    batch = _open_batch(kept)
    if batch:
        segment.torn = True
        segment.cut = batch + segment.cut
        kept = kept[: -len(batch)]
    segment.records = kept
    segment.records_end = kept[-1].end if kept else header.records_start
    segment.index = _index_of(kept)
    segment.damage = _joined(segment.damage)
    segment.problems += [f"record at {offset}: {length} bytes do not check" for offset, length in segment.damage]


def _open_batch(records: list[Record]) -> list[Record]:
    """The records at the end whose batch goes on behind the end."""
    if not records or not records[-1].batch_left:
        return []
    first = len(records) - 1
    while first and records[first - 1].batch_left == records[first].batch_left + 1:
        first -= 1
    return records[first:]


def _check_padding(data: bytes, segment: Segment) -> None:
    header = segment.header
    assert header is not None
    if any(data[128:512]):
        segment.problems.append("not zero between header and marks")
    for record in segment.records:
        if any(data[record.offset + 72 + record.length : record.end]):
            segment.problems.append(f"record at {record.offset}: padding")
        if any(data[record.offset + 70 : record.offset + 72]):
            segment.problems.append(f"record at {record.offset}: reserved bytes")
        if record.flags & ~31 or (record.flags & DELAYED and record.flags & DEAD) or not _extension_is_right(record) or record.codec > 3 or record.kind > 6 or 8 * record.extension > record.length:
            segment.problems.append(f"record at {record.offset}: flags, codec, kind or extension")
        if record.ok and record.codec == 0 and record.raw_length != len(record.payload):
            segment.problems.append(f"record at {record.offset}: raw_length")
        if 8 * record.synced > record.offset:
            segment.problems.append(f"record at {record.offset}: synced before it was written")


def _extension_is_right(record: Record) -> bool:
    """Tables 6 to 8, and nothing besides."""
    said = record.extension_bytes
    if record.flags & MOVED:
        if len(said) < 16:
            return False
        said = said[:-16]
    if record.flags & DELAYED:
        return len(said) == 8
    if record.flags & DEAD:
        if len(said) < 16:
            return False
        _, reason, length, reserved = struct.unpack("<qHHI", said[:16])
        return reason in (1, 2) and not reserved and len(said) == up_to(8, 16 + length) and not any(said[16 + length :])
    return not said or record.extension_bytes == said  # ASSUMED: without any of these flags, what is in it is not ours to judge


def _slot(header: Header, offset: int) -> int:
    return (offset - header.records_start) // 64


def _read_marks(data: bytes, header: Header, segment: Segment) -> None:
    done: set[int] = set()
    for i in range((header.slots + 31) // 32):
        marks, check = struct.unpack_from("<II", data, 512 + 8 * i)
        if check != crc(struct.pack("<II", marks, i), header.salt):
            segment.problems.append(f"settle marks: word {i} does not check")
            continue
        done |= {32 * i + bit for bit in range(32) if marks >> bit & 1}
    offsets = {_slot(header, record.offset): record.offset for record in segment.records}
    segment.marks = {offsets[slot] for slot in done if slot in offsets}


def _read_attempts(data: bytes, header: Header, segment: Segment) -> None:
    start = 512 + 8 * ((header.slots + 31) // 32)
    for record in segment.records:
        slot = _slot(header, record.offset)
        i = slot // 4
        counts, check = struct.unpack_from("<II", data, start + 8 * i)
        if check == crc(struct.pack("<II", counts, i + (1 << 31)), header.salt):
            count = counts >> 8 * (slot % 4) & 255
            if count:
                segment.attempts[record.offset] = count
        # A word that does not check means four zeros, and a fresh segment's words are such.


# --- writing a segment


def write_segment(
    records: Iterable[Mapping[str, Any]],
    *,
    sealed: bool = True,
    number: int = 1,
    through: int | None = None,
    flags: int | None = None,
    salt: int = 0x5EED5A17,
    queue: bytes = b"overspill-oracle",
    base_sequence: int = 1,
    created_ns: int = 1_700_000_000_000_000_000,
    file_size: int | None = None,
    next_sequence: int | None = None,
    previous_end: int = 0,
) -> bytes:
    """A segment file with these records. What a record does not say is made up: see `_DEFAULTS`.

    Apart from the fields of table 2, a record may say `done` (its settle mark), `leases` (its attempt count), `extension_bytes`, and
    `gap` (bytes of nothing in front of it). Fields that are given are written as they are, wrong ones too: `length`, `raw_length`,
    `payload_crc` and `header_crc` are for building damage.
    """
    items: list[dict[str, Any]] = [{**_DEFAULTS, **record} for record in records]
    for record in items:
        unknown = set(record) - set(_DEFAULTS) - _COMPUTED
        assert not unknown, unknown
    room = sum(record["gap"] + up_to(8, 72 + len(_stored(record))) + 4 for record in items)
    if file_size is None:
        file_size = up_to(4096, 4096 + (room + 64 * 256 + 256) * 26 // 25)
    through = number if through is None else through
    flags = int(through > number) if flags is None else flags
    start = 4096
    while _areas_end((file_size - start + 63) // 64) > start:
        start += 4096
    slots = (file_size - start + 63) // 64
    header = Header(1, flags, salt, queue, number, through, base_sequence, created_ns, start, file_size, slots, previous_end)

    body = bytearray()
    written: list[Record] = []
    marks = [0] * ((slots + 31) // 32)
    counts = [0] * ((slots + 3) // 4)
    for n, record in enumerate(items):
        body += bytes(up_to(8, record["gap"]))
        offset = start + len(body)
        if record["sequence"] is None:
            record["sequence"] = base_sequence + n
        raw = _raw_record(record, salt, offset)
        body += raw
        written.append(_record_of(raw, offset))
        slot = _slot(header, offset)
        if record["done"]:
            marks[slot // 32] |= 1 << slot % 32
        counts[slot // 4] |= record["leases"] << 8 * (slot % 4)

    head = struct.pack(
        "<8sHHI16sQQQQQQIQ32s",
        b"OVSPSEG\n", 1, flags, salt, queue, number, through, base_sequence, created_ns, start, file_size, slots, previous_end, b"",
    )
    head += struct.pack("<I", crc(head))
    out = bytearray(head.ljust(512, b"\0"))
    for i, word in enumerate(marks):
        out += struct.pack("<II", word, crc(struct.pack("<II", word, i), salt))
    for i, word in enumerate(counts):
        out += struct.pack("<II", word, crc(struct.pack("<II", word, i + (1 << 31)), salt)) if word else bytes(8)
    out += bytes(start - len(out)) + body
    if sealed:
        out += _end_of(written, header, len(out), next_sequence)
        assert len(out) <= file_size, "file_size is too small for these records and their index"
        return bytes(out)
    assert len(out) <= file_size, "file_size is too small for these records"
    return bytes(out.ljust(file_size, b"\0"))


_DEFAULTS: dict[str, Any] = {
    "payload": b"",
    "extension_bytes": b"",
    "sequence": None,  # base_sequence and on
    "id": bytes(16),
    "enqueued_ns": 1_700_000_000_000_000_000,
    "expiry_ns": 0,
    "synced": 0,
    "batch_left": 0,
    "priority": 128,
    "flags": 0,
    "codec": 0,
    "kind": 0,
    "attempts": 0,
    "done": False,
    "leases": 0,
    "gap": 0,
}
_COMPUTED = {"length", "raw_length", "payload_crc", "header_crc"}


def _stored(record: Mapping[str, Any]) -> bytes:
    extension: bytes = record["extension_bytes"]
    payload: bytes = record["payload"]
    assert len(extension) % 8 == 0
    return extension + payload


def _raw_record(record: Mapping[str, Any], salt: int, offset: int) -> bytes:
    stored = _stored(record)
    tail = struct.pack(
        "<IQ16sqqIIIIBBBBBBH",
        record.get("length", len(stored)),
        record["sequence"],
        record["id"],
        record["enqueued_ns"],
        record["expiry_ns"],
        record.get("raw_length", len(record["payload"])),
        record.get("payload_crc", crc(stored, salt)),
        record["synced"],
        record["batch_left"],
        record["priority"],
        record["flags"],
        record["codec"],
        record["kind"],
        record["attempts"],
        len(record["extension_bytes"]) // 8,
        0,
    )
    check = record.get("header_crc", crc(tail, salt ^ (offset // 8)))
    raw = struct.pack("<I", check) + tail + stored
    return raw + bytes(up_to(8, len(raw)) - len(raw))


def _record_of(raw: bytes, offset: int) -> Record:
    header_crc, length, *fields = struct.unpack("<IIQ16sqqIIIIBBBBBB", raw[:70])
    return Record(*(offset, header_crc, length, *fields, raw[72 : 72 + length], True))


def _end_of(records: list[Record], header: Header, records_end: int, next_sequence: int | None) -> bytes:
    """Index, directory and footer, behind the records."""
    index = bytearray()
    directory = bytearray()
    for line, offsets in sorted(_index_of(records).items()):
        lane = [record for record in records if record.line == line]
        entries = b"".join(struct.pack("<I", offset // 8) for offset in offsets)
        totals = _totals(lane)
        directory += struct.pack(
            "<HHIQqqQqIIQ",
            line,
            0,
            len(lane),
            records_end + len(index),
            min(record.place for record in lane),
            max(record.place for record in lane),
            totals["payload_bytes"],
            totals["greatest_expiry_ns"],
            totals["without_expiry"],
            crc(entries, header.salt),
            0,
        )
        index += entries
    index += bytes(up_to(8, len(index)) - len(index))
    sequences = [record.sequence for record in records]
    totals = _totals(records)
    footer = struct.pack(
        "<8sQQQIIQQqIIQQ36s",
        b"OVSPEND\n",
        header.number,
        records_end,
        records_end + len(index),
        len(directory) // 64,
        len(records),
        min(sequences, default=0),
        max(sequences, default=0),
        totals["greatest_expiry_ns"],
        totals["without_expiry"],
        crc(bytes(directory), header.salt),
        totals["payload_bytes"],
        max(sequences, default=header.base_sequence - 1) + 1 if next_sequence is None else next_sequence,
        b"",
    )
    return bytes(index) + bytes(directory) + footer + struct.pack("<I", crc(footer, header.salt))


# --- reading a folder


class Item(NamedTuple):
    priority: int
    place: int
    payload: bytes  # decompressed
    kind: int
    sequence: int
    id: bytes
    enqueued_ns: int
    expiry_ns: int
    attempts: int
    segment: int
    offset: int
    line: int
    time_ns: int  # of the lines ordered by time
    said: bytes  # the extension


@dataclass
class Folder:
    segments: dict[int, Segment] = field(default_factory=dict)
    """By number; without those that another one replaces."""
    replaced: list[int] = field(default_factory=list)
    cut: list[int] = field(default_factory=list)
    """Numbers of segments that lie behind a tear in an earlier one, with nothing to vouch for them."""
    unreadable: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)
    items: list[Item] = field(default_factory=list)
    delayed: list[Item] = field(default_factory=list)
    dead_letters: list[Item] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


_KNOWN = re.compile(r"lock|quarantine|[0-9]{20}\.(seg|seg\.tmp|spare)")


def live_items(path: str | Path) -> list[Item]:
    """The items in a folder, in the order in which they will leave it. Expired ones are among them: the clock is not here."""
    return read_folder(path).items


def read_folder(path: str | Path) -> Folder:
    folder = Folder()
    raw: dict[int, bytes] = {}
    headers: dict[int, Header] = {}
    for file in sorted(Path(path).iterdir()):
        if not _KNOWN.fullmatch(file.name):
            folder.foreign.append(file.name)
        if not re.fullmatch(r"[0-9]{20}\.seg", file.name):
            continue
        data = file.read_bytes()
        header = read_segment(data).header
        if header is None or header.number < 1:
            folder.unreadable.append(file.name)
            folder.problems += [f"{file.name}: {problem}" for problem in read_segment(data).problems]
            continue
        if header.number in headers:
            folder.problems.append(f"{file.name}: another file has number {header.number}")
            continue  # ASSUMED: the first by name counts
        if int(file.name[:20]) != header.number:
            folder.problems.append(f"{file.name}: its header says {header.number}")
        raw[header.number], headers[header.number] = data, header
    # 1. A segment whose number lies within `number … through` of another is replaced by it.
    for number in sorted(headers):
        if any(other.number <= number <= other.through for other in headers.values() if other.number != number):
            folder.replaced.append(number)
            continue
        # ASSUMED: a compacted segment has the number of the first that it stands for, and is renamed over that one.
    numbers = [number for number in sorted(headers) if number not in folder.replaced]
    if len({headers[number].queue for number in numbers}) > 1:
        folder.problems.append("segments of several queues")
    # 2. and 3., from the last to the first, for a later segment may vouch for the earlier ones: ASSUMED, as syncs happen in
    # the order of the log, a good footer or a record that was known to be synced says that all segments before it were.
    vouched = False
    for number in reversed(numbers):
        segment = read_segment(raw[number], vouched=vouched)
        folder.segments[number] = segment
        vouched = vouched or _vouches(segment)
    folder.segments = dict(sorted(folder.segments.items()))
    torn = False
    for number, segment in folder.segments.items():
        if torn:
            folder.cut.append(number)
            continue
        folder.problems += [f"{number}: {problem}" for problem in segment.problems]
        # A later segment that vouches would have made this one vouched for, and it could not be torn; but an open batch can.
        later = [folder.segments[other] for other in folder.segments if other > number]
        if segment.torn and not any(other.sealed or _vouches(other) for other in later):
            torn = True
    # Of two records with one sequence number the later one counts: ASSUMED, it is a copy that the queue made before it
    # could mark the original.
    last: dict[int, tuple[int, Segment, Record]] = {}
    # 4. What has moved is done where it was.
    for number, segment in folder.segments.items():
        if number not in folder.cut and not segment.sealed:
            for record in segment.records:
                if record.ok and record.origin is not None and record.origin < (number, record.offset):
                    source = folder.segments.get(record.origin[0])
                    if source is not None and any(each.offset == record.origin[1] and each.id == record.id for each in source.records):
                        source.marks.add(record.origin[1])
    for number, segment in folder.segments.items():
        if number not in folder.cut:
            for record in segment.records:
                if record.ok:
                    if record.sequence in last and not record.flags & (COPIED | MOVED):
                        folder.problems.append(f"{number}: sequence {record.sequence} was used before")
                    last[record.sequence] = number, segment, record
    for number, segment, record in last.values():
        if record.offset not in segment.marks:
            line = {256: folder.delayed, 257: folder.dead_letters}.get(record.line, folder.items)
            line.append(_item(number, segment, record))
    folder.items.sort(key=lambda item: (-item.priority, item.place))
    folder.delayed.sort(key=lambda item: item.time_ns)
    folder.dead_letters.sort(key=lambda item: item.time_ns)
    return folder


def _vouches(segment: Segment) -> bool:
    """For the segments before this one."""
    assert segment.header is not None
    return segment.sealed or segment.synced > segment.header.records_start


def _item(number: int, segment: Segment, record: Record) -> Item:
    return Item(
        record.priority,
        record.place,
        _decompressed(record),
        record.kind,
        record.sequence,
        record.id,
        record.enqueued_ns,
        record.expiry_ns,
        # ASSUMED: both counts together, 255 standing for more.
        min(255, record.attempts + segment.attempts.get(record.offset, 0)),
        number,
        record.offset,
        record.line,
        record.place if record.line > 255 else 0,
        record.extension_bytes,
    )


def _decompressed(record: Record) -> bytes:
    if record.codec == 0:
        return record.payload
    import cramjam

    if record.codec == 1:
        raw = cramjam.snappy.decompress_raw(record.payload)
    elif record.codec == 2:
        raw = cramjam.lz4.decompress_block(record.payload, output_len=record.raw_length)
    else:
        raw = cramjam.zstd.decompress(record.payload)
    payload = bytes(raw)
    assert len(payload) == record.raw_length, "raw_length"
    return payload
