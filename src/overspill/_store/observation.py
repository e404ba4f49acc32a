"""What is in a queue's folder, observed: every segment as a row of enums, with the numbers that go with them. Changes nothing.

`observe` looks at every segment, newest first, because only what comes later can vouch for what came before: syncs happen in the order of the
log, so a good footer, or a record that was written after a sync, proves that every segment before it was synced as a whole. A sealed
segment costs its header, footer, directory and settle marks; an unsealed one is read from end to end.

What is done about it is `recovery`'s business, and what is told of it `inspection`'s. Nothing is trusted that does not check, and no
answer depends on anything but the bytes.

Memory: the written bytes of one unsealed segment at a time, and the index of each.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from mmap import MAP_ANONYMOUS, MAP_PRIVATE, mmap
from typing import Any, Final, NamedTuple

from .._core.record import build_index, check_words, moved_records, parse_header, scan
from . import layout
from .files import Disk
from .layout import Unreadable

READ_STEP: Final = 1 << 20
_ZEROS: Final = bytes(READ_STEP)


# The observations.


class Header(Enum):
    """What the first bytes of a segment's file are."""

    GOOD = "ours, whole, this queue's"
    UNNUMBERED = "ours, whole, and from before it was put to use"
    BLANK = "and all of the file: zeros, or nothing"
    LOST = "zeros, but more than zeros behind them"
    SHORT = "ours, but the file ends before its first record"
    BAD = "ours, and damaged"
    FOREIGN = "not ours"
    OTHER_QUEUE = "ours, of another queue"
    NEWER = "of a version that is not known here"


class Standing(Enum):
    """What it is among the others."""

    CURRENT = "the only one of its number"
    REPLACED = "within what a compacted segment stands for"
    TWIN = "it has the same number as another file"
    RECYCLED = "the earlier life of a file whose new header was never durable: a later name, and marks that do not check"


class Ending(Enum):
    """What its last bytes say."""

    SEALED = "a good footer, a good directory, no more marks than records"
    UNLISTED = "a good footer, but directory, marks, or the index of a line ordered by time do not fit"
    BROKEN = "its own footer, damaged"
    OPEN = "no footer of its own"


class Later(Enum):
    """Whether a later segment proves that this one was completely synced: by a good footer, or by a record that knew of a sync."""

    VOUCHES = "yes"
    SILENT = "no"


class Tail(Enum):
    """What comes behind the last record that stays."""

    CLEAN = "zeros, or remains of a recycled file"
    TORN = "records, or pieces of them, that nothing vouches for"
    HALF_BATCH = "the first records of a batch"


class Damage(Enum):
    """Whether something was lost below the position that was known to be synced."""

    NONE = "no"
    FOUND = "yes"


class Before(Enum):
    """Whether an earlier segment lost something that nothing vouches for: what was written after it must go, or there would be a hole."""

    WHOLE = "no"
    TORN = "yes"


class Observed(NamedTuple):
    """Everything a decision about one segment depends on."""

    header: Header
    standing: Standing
    ending: Ending
    later: Later
    tail: Tail
    damage: Damage
    before: Before


# Reading the records of a segment without a footer: what stays, what is torn, what is damaged.


class Known(NamedTuple):
    """What is known from elsewhere about where a segment's records end."""

    synced_upto: int = 0
    """Everything below was on stable storage; as far as a later segment or a footer says so."""
    end: int = 0
    """Where they end exactly; 0 if nothing says."""
    base_sequence: int = 0
    """What has a lower sequence number is from the earlier life of a recycled file."""
    seal: bytes = b""
    """How its own footer begins: where that follows, it was being sealed. Empty: nothing is known of what follows its records."""
    index_follows: bool = False
    """Its own footer is there, damaged: what follows its last record is its index."""


class Stretch(NamedTuple):
    offset: int
    length: int
    reason: str
    records: int = 1
    """How many records were in it, as far as their headers still tell."""


@dataclass
class Reading:
    """What the records of a segment are, once it is known what they are vouched for by."""

    records: array[int]
    end: int
    """Behind the last record that stays, and behind what was damaged before it."""
    tail: Tail = Tail.CLEAN
    torn: Stretch | None = None
    torn_records: int = 0
    short: bool = False
    """Something is missing at the end that nothing vouches for."""
    damaged: list[Stretch] = field(default_factory=list)
    synced: int = 0
    greatest_sequence: int = 0
    lanes: list[tuple[Any, ...]] = field(default_factory=list)
    moved: list[tuple[int, bytes, int, int]] = field(default_factory=list)
    """Records that stand in another one's place: (offset, id, number of the segment that the other is in, offset there)."""

    @property
    def damage(self) -> Damage:
        return Damage.FOUND if self.damaged else Damage.NONE


def read_records(data: Any, salt: int, start: int, known: Known) -> Reading:
    """Judge the bytes of a record area, `data`, which begins at offset `start`. Pure.

    Everything that checks is found first; then the stretches between are judged by the position below which all was synced:
    below they are damage and the reading goes on behind them, above they are where the log was torn. `data` is bytes or a mapping.
    """
    size = start + len(data)
    found = scan(data, salt, start, start, True, size)
    stretches = [Stretch(*stretch) for stretch in found.bad]
    good_end = found.end
    if stretches and not (found.records and found.records[-1] > stretches[-1].offset) and stretches[-1].reason == "header":
        # Nothing that checks follows: zeros or remains, unless somebody knows that there was more, or it shows.
        remains = stretches.pop()
        good_end = remains.offset
        begun = known.end - remains.offset if known.end else _begun_record(data, start, remains, known, found.records)
        if begun > 0:
            stretches.append(Stretch(remains.offset, begun, "header"))
            good_end += begun
    elif good_end < known.end:
        stretches.append(Stretch(good_end, known.end - good_end, "header"))
        good_end = known.end
    synced = max(found.synced, known.synced_upto)

    reading = Reading(found.records, good_end, synced=found.synced, greatest_sequence=found.greatest_sequence)
    cut = torn_reason = None
    for stretch in stretches:
        if stretch.offset < synced:
            below = min(stretch.length, synced - stretch.offset)
            damaged = stretch._replace(length=below)
            reading.damaged.append(damaged._replace(records=_records_in(data, salt, start, damaged)))
        if stretch.offset + stretch.length > synced:
            cut, torn_reason = max(stretch.offset, synced), stretch.reason
            break
    if known.end and known.end < good_end and (cut is None or known.end <= cut):
        cut = known.end  # a write that failed and was not undone; what was written after it went to the next segment
    if cut is not None:
        reading.tail = Tail.TORN
        _cut(reading, cut, good_end)
    if reading.end != known.end and reading.end >= synced and (batch := _open_batch(data, salt, start, reading)):
        if reading.tail is Tail.CLEAN:
            reading.tail = Tail.HALF_BATCH
        _cut(reading, batch, good_end)
    if reading.tail is not Tail.CLEAN:
        # A record that was begun, alone at the end, may be one whose write failed: it was never acknowledged, and what follows was.
        reading.short = reading.end < known.end if known.end else reading.torn_records > 0 or torn_reason == "payload"
    reading.lanes = build_index(data, start, reading.records)
    reading.moved = moved_records(data, start, reading.records)
    return reading


def _begun_record(data: Any, start: int, remains: Stretch, known: Known, records: array[int]) -> int:
    """How many bytes a record has that begins behind the last good one and does not check: half written, or damaged; 0 if there is none."""
    at = remains.offset - start
    head = data[at : at + layout.RECORD_HEADER.size]
    _, length, sequence, *_ = layout.RECORD_HEADER.unpack(head)
    if known.index_follows:
        one, two = (8 * int.from_bytes(head[i : i + 4], "little") for i in (0, 4))
        if (start <= one < remains.offset and (start <= two < remains.offset or not two)) or head.startswith(layout.FOOTER_MAGIC):
            return 0  # the index, or of a segment without records the footer
    elif not any(head) or sequence < known.base_sequence or not known.seal or data.find(known.seal, at) >= 0:
        return 0
    else:
        index = b"".join(lane[1].tobytes() for lane in build_index(data, start, records))
        if index and head[:8] == index[:8].ljust(8, b"\0"):
            return 0  # it was being sealed: a write that the kill or the power cut ended between two pages
    size = layout.record_size(length)
    return size if size <= remains.length else len(head)


def _records_in(data: Any, salt: int, start: int, stretch: Stretch) -> int:
    at, end, count, in_the_dark = stretch.offset, stretch.offset + stretch.length, 0, False
    while at < end:
        fields = parse_header(data, at - start, salt, at)
        count += fields is not None or not in_the_dark
        in_the_dark = fields is None
        at += layout.record_size(fields["length"]) if fields else layout.PLACE_UNIT
    return count


def _cut(reading: Reading, at: int, good_end: int) -> None:
    keep = bisect_left(reading.records, at)
    reading.torn_records += len(reading.records) - keep
    reading.records = reading.records[:keep]
    reading.end = at
    reading.torn = Stretch(at, max(0, good_end - at), "torn")


def _open_batch(data: Any, salt: int, start: int, reading: Reading) -> int:
    """Where an incomplete batch begins that breaks off at the end; 0 if there is none."""
    records = reading.records

    def fields(i: int) -> dict[str, Any]:
        found = parse_header(data, records[i] - start, salt, records[i])
        assert found is not None  # it was found by its check code
        return found

    if not records:
        return 0
    first = len(records) - 1
    last = fields(first)
    here = last["batch_left"]
    if not here or records[first] + layout.record_size(last["length"]) != reading.end:
        return 0  # complete; or what completed it was synced, and is damaged
    while first > 0:
        before = fields(first - 1)
        if before["batch_left"] != here + 1 or records[first - 1] + layout.record_size(before["length"]) != records[first]:
            break  # another batch, which may have lost its end to damage: it was complete once
        first, here = first - 1, here + 1
    return records[first]


# Settle marks.


class Marks(NamedTuple):
    """The settle marks that count."""

    marked: int
    rotten: int
    cleared: bytes | None = None
    """The area as it has to be before a footer is written; None if it is so already."""


def marks_over(area: bytes, salt: int, start: int, end: int) -> Marks:
    """The marks of a segment that a footer describes: those below its `records_end`."""
    words = -(-(end - start) // (layout.SLOT * layout.MARKS_PER_WORD))
    return Marks(*check_words(area[: layout.WORD.size * words], salt))


def marks_of_records(area: bytes, salt: int, start: int, records: array[int]) -> Marks:
    """The marks of exactly these records. Any others must not be there when a footer counts the records."""
    words = len(area) // layout.WORD.size
    expected = array("I", bytes(4 * words))
    for offset in records:
        slot = (offset - start) >> 6
        expected[slot >> 5] |= 1 << (slot & 31)
    assert layout.SLOT == 64 and layout.MARKS_PER_WORD == 32
    marked = rotten = 0
    changed: list[tuple[int, int]] = []
    for i, mask in enumerate(expected):
        word = area[8 * i : 8 * i + 8]
        marks = layout.marks_of(word, salt, i)
        if marks is None:
            rotten += mask != 0
            changed.append((i, 0))
            continue
        marked += (marks & mask).bit_count()
        if marks & ~mask:
            changed.append((i, marks & mask))
    if not changed:
        return Marks(marked, rotten)
    cleared = bytearray(area)
    for i, marks in changed:
        cleared[8 * i : 8 * i + 8] = layout.mark_word(salt, i, marks)
    return Marks(marked, rotten, bytes(cleared))


# Observing one folder.


@dataclass
class Found:
    """A segment's file, and what became known about it."""

    name: str
    named: int
    size: int = 0
    header_is: Header = Header.GOOD
    header: layout.SegmentHeader | None = None
    standing: Standing = Standing.CURRENT
    ending: Ending = Ending.OPEN
    later: Later = Later.SILENT
    before: Before = Before.WHOLE
    footer: layout.Footer | None = None
    directory: tuple[layout.DirectoryEntry, ...] = ()
    reading: Reading | None = None
    """What its records are; None if the footer says so."""
    marks: Marks = Marks(0, 0)  # noqa: RUF009 - a tuple
    version: int = 0
    """Of a segment that is newer than this code."""
    missing_bytes: int = 0
    """An unsealed file is shorter than it was made, by so much."""
    moved_away: frozenset[int] = frozenset()
    """Offsets of records that others, which are there, take the place of, and that are not marked yet: they count as done."""
    remarked: bytes | None = None
    """The settle marks with those of them, as they have to be before any of the others is sealed."""

    @property
    def whole(self) -> layout.SegmentHeader:
        assert self.header is not None
        return self.header

    @property
    def position(self) -> int:
        """Its place in the log; by its name if its header does not say."""
        if self.header_is is Header.GOOD and self.standing is not Standing.RECYCLED:
            return self.whole.number
        return self.named

    @property
    def current(self) -> bool:
        return self.header_is is Header.GOOD and self.standing is Standing.CURRENT

    @property
    def vouches(self) -> bool:
        """Whether it proves that everything before it was synced."""
        return self.current and (self.ending is not Ending.OPEN or (self.reading is not None and self.reading.synced > 0))

    @property
    def tears(self) -> bool:
        """Whether something is missing from it that nothing vouches for."""
        if self.later is Later.VOUCHES:
            return False
        if self.header_is in (Header.BLANK, Header.UNNUMBERED, Header.LOST, Header.SHORT) or self.standing is Standing.RECYCLED:
            return True
        return self.current and self.reading is not None and self.reading.short

    @property
    def observed(self) -> Observed:
        tail = self.reading.tail if self.reading else Tail.CLEAN
        damage = self.reading.damage if self.reading else Damage.NONE
        return Observed(self.header_is, self.standing, self.ending, self.later, tail, damage, self.before)

    @property
    def count(self) -> int:
        """Records that stay."""
        return len(self.reading.records) if self.reading else self.footer.count if self.footer else 0

    @property
    def live(self) -> int:
        return self.count - self.marks.marked

    def all_expired(self, now_ns: int) -> bool:
        if self.reading:
            lanes = self.reading.lanes
            greatest, without = max((lane[5] for lane in lanes), default=0), sum(lane[6] for lane in lanes)
        elif self.footer:
            greatest, without = self.footer.greatest_expiry_ns, self.footer.without_expiry
        else:
            return False
        return without == 0 and greatest <= now_ns

    @property
    def next_sequence(self) -> int:
        """No record that it knows of has this sequence number or a greater one."""
        if self.header is None or self.header_is is Header.OTHER_QUEUE:
            return 0
        return max(
            self.header.base_sequence,
            self.footer.next_sequence if self.footer else 0,
            self.reading.greatest_sequence + 1 if self.reading else 0,
        )


def observe(disk: Disk, names: Iterable[tuple[str, int]], *, may_vanish: bool = False) -> tuple[list[Found], bytes | None]:
    """Every segment among the names (name, number in it), in log order, and the queue's UUID.

    `may_vanish`: beside a running owner, a file that has gone since the folder was listed is left out.
    """
    found: list[Found] = []
    for name, number in names:
        each = Found(name, number)
        if _seen(_look_at_header, disk, each, may_vanish):
            found.append(each)
    queue = _tell_queues_apart(found)
    for each in found:
        # The name was given later than the header was written: renamed by hand, or the file's earlier life.
        if each.header_is is Header.GOOD and each.named > each.whole.number:
            _seen(_look_for_earlier_life, disk, each, may_vanish)
    _tell_generations_apart(found)
    found.sort(key=lambda each: (each.position, each.name))
    vouched, follower = Later.SILENT, None
    for each in found[::-1]:
        each.later = vouched
        if each.current:
            if not _seen(partial(_look_at_contents, follower=follower), disk, each, may_vanish):
                found.remove(each)
                continue
            follower = each
        if each.vouches:
            vouched = Later.VOUCHES
    torn_from = min(_tears(found), default=None)
    for each in found:
        if torn_from is not None and each.position > torn_from:
            each.before = Before.TORN
    for each, offsets in _unfinished_moves(disk, found):
        _seen(partial(_count_as_done, offsets=offsets), disk, each, may_vanish)
    return found, queue


def _unfinished_moves(disk: Disk, found: list[Found]) -> list[tuple[Found, list[int]]]:
    """The records whose places have been taken, but which are not marked. Only an unsealed segment can be the one that a record has just moved to (I12)."""
    by_number = {each.whole.number: each for each in found if each.current}
    away: dict[int, list[tuple[int, bytes]]] = {}
    for each in found:
        if not each.current or each.reading is None or each.ending is not Ending.OPEN or each.whole.compacted:
            continue
        if each.later is Later.SILENT and each.before is Before.TORN:
            continue  # it goes, and what it took the place of stays
        for offset, id, number, origin in each.reading.moved:
            if (number, origin) < (each.whole.number, offset) and number in by_number:
                away.setdefault(number, []).append((origin, id))
    return [(by_number[number], _still_there(disk, by_number[number], some)) for number, some in away.items()]


def _still_there(disk: Disk, each: Found, moved: list[tuple[int, bytes]]) -> list[int]:
    """Those of the records that are at their addresses, by their ids."""
    header, offsets = each.whole, []
    end = each.reading.end if each.reading else each.footer.records_end if each.footer else 0
    try:
        file = Reader(disk, each.name)
    except FileNotFoundError:
        return []
    with file:
        for offset, id in sorted(moved):
            if header.records_start <= offset < end and offset % layout.PLACE_UNIT == 0:
                fields = parse_header(file.read(offset, layout.RECORD_HEADER.size), 0, header.salt, offset)
                if fields is not None and fields["id"] == id:
                    offsets.append(offset)
    return offsets


def _count_as_done(disk: Disk, each: Found, offsets: list[int]) -> None:
    header = each.whole
    with Reader(disk, each.name) as file:
        area = bytearray(file.marks(header))
        away = []
        for offset in offsets:
            word, bit = divmod(layout.slot_of(offset, header.records_start), layout.MARKS_PER_WORD)
            at = layout.WORD.size * word
            marks = layout.marks_of(area[at : at + layout.WORD.size], header.salt, word) or 0
            if not marks >> bit & 1:
                away.append(offset)
                area[at : at + layout.WORD.size] = layout.mark_word(header.salt, word, marks | 1 << bit)
        if not away:
            return
        each.moved_away, each.remarked = frozenset(away), bytes(area)
        rotten = each.marks.rotten
        if each.ending is Ending.SEALED and each.footer is not None:
            marks_now = marks_over(each.remarked, header.salt, header.records_start, each.footer.records_end)
            each.marks = marks_now
            if marks_now.marked >= each.footer.count and not _marks_fit(each, each.remarked, file):
                marks_now = marks_now._replace(marked=each.footer.count - 1)  # it stays, for somebody to look at what is in it
        else:
            assert each.reading is not None
            marks_now = marks_of_records(each.remarked, header.salt, header.records_start, each.reading.records)
        each.marks = marks_now._replace(rotten=rotten)


def _tears(found: list[Found]) -> Iterator[int]:
    """Places in the log where something is missing that nothing vouches for: what is behind them must go, or there would be a hole."""
    vouched_upto = max((each.position for each in found if each.vouches), default=0)
    for each in found:
        if each.tears:
            yield each.position
        if each.current and each.named > max(each.whole.number, vouched_upto):
            yield each.named  # that one's header was never durable: its file still has the one of its earlier life


def _seen(look: Callable[[Disk, Found], None], disk: Disk, each: Found, may_vanish: bool) -> bool:
    try:
        look(disk, each)
    except FileNotFoundError:
        if may_vanish:
            return False
        raise
    return True


def _look_at_header(disk: Disk, each: Found) -> None:
    with Reader(disk, each.name) as file:
        each.size = file.size
        block = file.read(0, layout.HEADER.size)
        parsed = layout.SegmentHeader.parse(block)
        if isinstance(parsed, layout.SegmentHeader):
            each.header = parsed
            if parsed.number == 0:
                each.header_is = Header.UNNUMBERED
            elif each.size < parsed.records_start:
                each.header_is = Header.SHORT
        elif parsed is Unreadable.ABSENT:
            each.header_is = Header.BLANK if file.is_blank() else Header.LOST
        elif parsed is Unreadable.NEWER:
            each.header_is, each.version = Header.NEWER, int.from_bytes(block[8:10], "little")
        else:
            each.header_is = Header.BAD if parsed is Unreadable.BAD else Header.FOREIGN


def _tell_queues_apart(found: list[Found]) -> bytes | None:
    """The queue is the one that most segments belong to; among equals, the one of the oldest."""
    ours = [each for each in found if each.header_is is Header.GOOD]
    if not ours:
        return None
    counted = Counter(each.whole.queue for each in ours)
    most = max(counted.values())
    queue = min((each.whole.number, each.whole.queue) for each in ours if counted[each.whole.queue] == most)[1]
    for each in ours:
        if each.whole.queue != queue:
            each.header_is = Header.OTHER_QUEUE
    return queue


def _look_for_earlier_life(disk: Disk, each: Found) -> None:
    """A segment is recycled when everything in it is settled. If its new header was lost, some of its marks may have been
    overwritten nevertheless, and its records must not come back."""
    with Reader(disk, each.name) as file:
        if check_words(file.marks(each.whole), each.whole.salt)[1]:
            each.standing = Standing.RECYCLED


def _tell_generations_apart(found: list[Found]) -> None:
    ours = [each for each in found if each.current]
    # The one that stands for more goes first; among equals, the one that has its name.
    ours.sort(key=lambda each: (each.whole.number, -each.whole.through, each.named != each.whole.number, each.name))
    reach, last = 0, None
    for each in ours:
        header = each.whole
        if header.number <= reach:
            assert last is not None
            twin = (header.number, header.through) == (last.number, last.through)
            each.standing = Standing.TWIN if twin else Standing.REPLACED
            continue
        reach, last = header.through, header


def _look_at_contents(disk: Disk, each: Found, follower: Found | None) -> None:
    header = each.whole
    with Reader(disk, each.name) as file:
        area = file.marks(header)
        footer = layout.Footer.parse(file.read(max(0, file.size - layout.FOOTER.size), layout.FOOTER.size), header, file.size)
        if isinstance(footer, layout.Footer):
            each.footer, each.ending = footer, Ending.UNLISTED
            directory = layout.parse_directory(file.read(footer.directory_start, footer.directory_size), footer, header.salt)
            if not isinstance(directory, Unreadable):
                each.directory = directory
                each.marks = marks_over(area, header.salt, header.records_start, footer.records_end)
                if (each.marks.marked < footer.count or _marks_fit(each, area, file)) and _is_counted_by_its_index(each, file):
                    each.ending = Ending.SEALED
                    return
        elif footer is Unreadable.BAD:
            each.ending = Ending.BROKEN
        known = _known(each, follower)
        if each.ending is Ending.OPEN and not 0 < known.end <= file.size:
            each.missing_bytes = max(0, header.file_size - file.size)
        upto = each.footer.records_end if each.footer else file.size
        with file.map_of(header.records_start, upto) as data:
            each.reading = read_records(data, header.salt, header.records_start, known)
        each.marks = marks_of_records(area, header.salt, header.records_start, each.reading.records)


def _is_counted_by_its_index(each: Found, file: Reader) -> bool:
    """Whether the indexes check that say how many items are delayed, and how many dead: those are read at every opening, the others when their items are."""
    by_time = [entry for entry in each.directory if entry.line >= layout.DELAYED_LINE]
    return all(entry.vouches_for(file.read(entry.index_start, entry.index_size), each.whole.salt) for entry in by_time)


def _marks_fit(each: Found, area: bytes, file: Reader) -> bool:
    """Whether the marks are those of the records. Looked at where a segment seems to be settled, for then it is going to be removed."""
    header = each.whole
    records = array("Q")
    for entry in each.directory:
        index = file.read(entry.index_start, entry.index_size)
        if not entry.vouches_for(index, header.salt):
            return False
        records.extend(layout.PLACE_UNIT * offset for offset in array("I", index))
    exact = marks_of_records(area, header.salt, header.records_start, records)
    return exact.marked == each.marks.marked == len(records)


def _known(each: Found, follower: Found | None) -> Known:
    if each.footer is not None:
        return Known(each.footer.records_end, each.footer.records_end)
    header, end = each.whole, 0
    if follower is not None and follower.whole.number == header.through + 1 and not header.compacted:
        end = follower.whole.previous_end
    seal = layout.FOOTER_MAGIC + header.number.to_bytes(8, "little")
    vouched = each.ending is Ending.BROKEN or each.later is Later.VOUCHES
    return Known(end or each.size if vouched else 0, end, header.base_sequence, seal, each.ending is Ending.BROKEN)


class Reader:
    """One file, open for reading, for as long as it is looked at."""

    def __init__(self, disk: Disk, name: str) -> None:
        self._disk = disk
        self._fd = disk.open_ro(name)
        self.size = disk.size(self._fd)

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self._disk.close_file(self._fd)

    def read(self, offset: int, length: int) -> bytes:
        return self._disk.pread(self._fd, length, offset)

    def marks(self, header: layout.SegmentHeader) -> bytes:
        return self.read(layout.MARKS_START, header.attempts_start - layout.MARKS_START)

    def is_blank(self) -> bool:
        return next(self._steps(0, self.size), None) is None

    def map_of(self, start: int, end: int) -> mmap | _Nothing:
        """The file's bytes between two offsets, in memory that takes room only where they are not zero."""
        if end <= start:
            return _Nothing()
        data = mmap(-1, end - start, flags=MAP_PRIVATE | MAP_ANONYMOUS)
        for at, part in self._steps(start, end):
            data[at - start : at - start + len(part)] = part
        return data

    def _steps(self, start: int, end: int) -> Iterator[tuple[int, bytes]]:
        """What is not zero."""
        for at in range(start, end, READ_STEP):
            data = self.read(at, min(READ_STEP, end - at))
            if data != _ZEROS[: len(data)]:
                yield at, data


class _Nothing(bytes):
    """An empty stretch of a file; a mapping cannot be empty."""

    def __enter__(self) -> _Nothing:
        return self

    def __exit__(self, *_: object) -> None:
        pass
