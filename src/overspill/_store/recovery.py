"""Opening a folder that somebody else left: what is there, what it means, what is done about it.

It goes in three parts, and only the last one changes anything:

1. *Observe.* Every segment is looked at, newest first, because only what comes later can vouch for what came before. A sealed
   one costs its header, footer, directory and settle marks; an unsealed one is read from end to end.
2. *Decide.* What was observed about a segment is a row of enums, and `TABLE` has exactly one answer to each such row; `CONTENTS`
   says what becomes of a segment that stays in the log. The `if`s of recovery are these two tables.
3. *Act.* Files are set aside; then what is cut as a whole or obsolete goes, newest first; then the names are synced; then the unsealed
   segments are cut and sealed, oldest first.

What holds (and a recovery that was killed at any instant starts again and ends the same):

* Nothing is removed but what is proven obsolete, empty, expired or never durable; what is damaged goes to quarantine first.
* A segment is sealed only when everything cut behind it has durably gone, and everything before it was synced: its footer vouches for both.
* A recovered segment is never appended to.
* Settle marks of records that are no more are cleared before the footer is written, so that count and marks agree from then on.

Memory: one unsealed segment's written bytes at a time, and its index.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from mmap import MAP_ANONYMOUS, MAP_PRIVATE, mmap
from typing import Any, Final, NamedTuple

from .._core.record import build_index, check_words, parse_header, scan
from ..errors import UnknownFormat
from . import layout
from .files import Disk
from .folder import Quarantine
from .layout import Kind, Unreadable
from .segment import Segment

__all__ = ["Recovered", "RecoveryReport", "recover"]

_READ_STEP: Final = 1 << 20
_TORN_KEPT_MAX: Final = 1 << 20
"""How much of a torn tail is copied to quarantine before it is cut."""

_NOTES_MAX: Final = 100


@dataclass(frozen=True)
class RecoveryReport:
    """What opening the folder found; `q.recovery`."""

    items: int = 0
    """Items waiting on disk."""
    segments: int = 0
    rescanned: int = 0
    """Segments without a good footer, read record by record."""
    torn_bytes: int = 0
    """Bytes cut that were never known to be on stable storage."""
    torn_records: int = 0
    quarantined: int = 0
    """Damaged stretches of records set aside."""
    quarantined_bytes: int = 0
    quarantined_files: int = 0
    rotten_marks: int = 0
    """Words of settle marks that did not check: up to 32 items each may be delivered again."""
    removed: int = 0
    """Files removed: settled, replaced by compaction, empty, or temporary."""
    expired_segments: int = 0
    expired_items: int = 0
    """Items in segments that were dropped unread because everything in them had expired."""
    unknown_names: tuple[str, ...] = ()
    """Names in the folder that are not ours: left alone."""
    notes: tuple[str, ...] = ()
    """One sentence for each thing that was not as an orderly close leaves it."""
    clean: bool = True
    """Every segment had been sealed by an orderly close, and nothing was wrong."""

    def __str__(self) -> str:
        parts = [f"{self.items:,} items in {self.segments:,} segments"]
        if self.clean and not self.unknown_names:
            return f"{parts[0]}, closed in order"
        for n, text in (
            (self.rescanned, "{:,} segments read record by record"),
            (self.torn_bytes, "{:,} torn bytes cut"),
            (self.torn_records, "{:,} torn records"),
            (self.quarantined, "{:,} damaged stretches set aside"),
            (self.quarantined_files, "{:,} damaged files set aside"),
            (self.rotten_marks, "{:,} damaged words of settle marks"),
            (self.removed, "{:,} files removed"),
            (self.expired_items, "{:,} expired items dropped"),
            (len(self.unknown_names), "{:,} unknown names"),
        ):
            if n:
                parts.append(text.format(n))
        return ", ".join(parts)


class Recovered(NamedTuple):
    """What the log takes over."""

    segments: list[Segment]
    queue: bytes | None
    next_number: int
    next_sequence: int
    other_bytes: int
    report: RecoveryReport


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
    TWIN = "of the same number as another file"
    RECYCLED = "the earlier life of a file whose new header was never durable: a later name, and marks that do not check"


class Ending(Enum):
    """What its last bytes say."""

    SEALED = "a good footer, a good directory, no more marks than records"
    UNLISTED = "a good footer, but directory or marks do not fit"
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


# The decisions.


class Step(Enum):
    """What is done to one segment."""

    REFUSE = "raise UnknownFormat before anything is changed"
    SET_FILE_ASIDE = "move the file to quarantine"
    REMOVE_OBSOLETE = "remove the file: what it held is in another one, or settled"
    REMOVE_EMPTY = "remove the file: it never held anything that was synced"
    CUT_WHOLE = "keep a bounded copy, remove the file"
    SET_RECORDS_ASIDE = "copy the damaged stretches to quarantine"
    CUT = "keep a bounded copy of what is behind the last good record, and cut it"
    SEAL = "write index and footer, and take it into the log"
    TAKE = "take it into the log as it is"


JOINS: Final = frozenset({Step.SEAL, Step.TAKE})

Some = frozenset[Any]


class Row(NamedTuple):
    """One line of the decision table: what it answers, and how. None stands for whatever it is."""

    do: tuple[Step, ...]
    header: Some
    standing: Some | None = None
    ending: Some | None = None
    later: Some | None = None
    tail: Some | None = None
    damage: Some | None = None
    before: Some | None = None

    def answers(self, seen: Observed) -> bool:
        return all(allowed is None or found in allowed for allowed, found in zip(self[1:], seen, strict=True))


def _of(*values: Enum) -> Some:
    return frozenset(values)


_GOOD = _of(Header.GOOD)
_CURRENT = _of(Standing.CURRENT)
_VOUCHED_SELF = _of(Ending.BROKEN)  # a footer, even a damaged one, is written only over records that were synced
_OPEN = _of(Ending.OPEN)
_SILENT, _VOUCHES = _of(Later.SILENT), _of(Later.VOUCHES)
_ENDS, _CUT = _of(Tail.CLEAN), _of(Tail.TORN, Tail.HALF_BATCH)
_SOUND, _DAMAGED = _of(Damage.NONE), _of(Damage.FOUND)

TABLE: Final[tuple[Row, ...]] = (
    # What cannot be read as a segment of this queue. Never deleted, unless it is empty and nothing says that it ever was not.
    Row((Step.REFUSE,), _of(Header.NEWER)),
    Row((Step.SET_FILE_ASIDE,), _of(Header.LOST, Header.SHORT, Header.BAD, Header.FOREIGN, Header.OTHER_QUEUE)),
    Row((Step.REMOVE_EMPTY,), _of(Header.BLANK), later=_SILENT),
    Row((Step.SET_FILE_ASIDE,), _of(Header.BLANK), later=_VOUCHES),
    Row((Step.CUT_WHOLE,), _of(Header.UNNUMBERED), later=_SILENT),
    Row((Step.SET_FILE_ASIDE,), _of(Header.UNNUMBERED), later=_VOUCHES),
    # What stands beside the log.
    Row((Step.REMOVE_OBSOLETE,), _GOOD, _of(Standing.REPLACED)),
    Row((Step.SET_FILE_ASIDE,), _GOOD, _of(Standing.TWIN)),
    Row((Step.REMOVE_OBSOLETE,), _GOOD, _of(Standing.RECYCLED), later=_SILENT),
    Row((Step.SET_FILE_ASIDE,), _GOOD, _of(Standing.RECYCLED), later=_VOUCHES),
    # A good footer vouches for every record, whatever is around it.
    Row((Step.TAKE,), _GOOD, _CURRENT, _of(Ending.SEALED)),
    Row((Step.SEAL,), _GOOD, _CURRENT, _of(Ending.UNLISTED), damage=_SOUND),
    Row((Step.SET_RECORDS_ASIDE, Step.SEAL), _GOOD, _CURRENT, _of(Ending.UNLISTED), damage=_DAMAGED),
    # Its own broken footer, or a later segment, says that all of it was synced: nothing of it is torn but what a failed write left.
    Row((Step.SEAL,), _GOOD, _CURRENT, _VOUCHED_SELF, tail=_ENDS, damage=_SOUND),
    Row((Step.SET_RECORDS_ASIDE, Step.SEAL), _GOOD, _CURRENT, _VOUCHED_SELF, tail=_ENDS, damage=_DAMAGED),
    Row((Step.CUT, Step.SEAL), _GOOD, _CURRENT, _VOUCHED_SELF, tail=_CUT, damage=_SOUND),
    Row((Step.SET_RECORDS_ASIDE, Step.CUT, Step.SEAL), _GOOD, _CURRENT, _VOUCHED_SELF, tail=_CUT, damage=_DAMAGED),
    Row((Step.SEAL,), _GOOD, _CURRENT, _OPEN, _VOUCHES, _ENDS, _SOUND),
    Row((Step.SET_RECORDS_ASIDE, Step.SEAL), _GOOD, _CURRENT, _OPEN, _VOUCHES, _ENDS, _DAMAGED),
    Row((Step.CUT, Step.SEAL), _GOOD, _CURRENT, _OPEN, _VOUCHES, _CUT, _SOUND),
    Row((Step.SET_RECORDS_ASIDE, Step.CUT, Step.SEAL), _GOOD, _CURRENT, _OPEN, _VOUCHES, _CUT, _DAMAGED),
    # The end of the log, where a kill or a power cut leaves its traces.
    Row((Step.SEAL,), _GOOD, _CURRENT, _OPEN, _SILENT, _ENDS, _SOUND, _of(Before.WHOLE)),
    Row((Step.SET_RECORDS_ASIDE, Step.SEAL), _GOOD, _CURRENT, _OPEN, _SILENT, _ENDS, _DAMAGED, _of(Before.WHOLE)),
    Row((Step.CUT, Step.SEAL), _GOOD, _CURRENT, _OPEN, _SILENT, _CUT, _SOUND, _of(Before.WHOLE)),
    Row((Step.SET_RECORDS_ASIDE, Step.CUT, Step.SEAL), _GOOD, _CURRENT, _OPEN, _SILENT, _CUT, _DAMAGED, _of(Before.WHOLE)),
    Row((Step.CUT_WHOLE,), _GOOD, _CURRENT, _OPEN, _SILENT, before=_of(Before.TORN)),
)


def decide(seen: Observed) -> tuple[Step, ...]:
    """The one answer of the table."""
    answers = [row.do for row in TABLE if row.answers(seen)]
    assert len(answers) == 1, (seen, answers)
    return answers[0]


class Content(Enum):
    """What is left in a segment that joins the log."""

    WAITING = "items that wait"
    NOTHING = "nothing: everything in it is settled"
    EXPIRED = "items, all of which have expired"


class Place(Enum):
    NEWEST = "the last of the log: it remembers the sequence number"
    OLDER = "a later one follows"


class Stay(Enum):
    KEEP = "it stays"
    REMOVE = "it goes, in place of being sealed or taken"
    DROP_EXPIRED = "it goes unread, and its items are counted as expired"


CONTENTS: Final[dict[tuple[Content, Place], Stay]] = {
    (Content.WAITING, Place.OLDER): Stay.KEEP,
    (Content.WAITING, Place.NEWEST): Stay.KEEP,
    (Content.NOTHING, Place.OLDER): Stay.REMOVE,
    (Content.NOTHING, Place.NEWEST): Stay.KEEP,
    (Content.EXPIRED, Place.OLDER): Stay.DROP_EXPIRED,
    (Content.EXPIRED, Place.NEWEST): Stay.KEEP,
}


# Reading the records of a segment without a footer: what stays, what is torn, what is damaged.


class Known(NamedTuple):
    """What is known from outside about where a segment's records end."""

    synced_upto: int = 0
    """Everything below was on stable storage; as far as a later segment or a footer says so."""
    end: int = 0
    """Where they end exactly; 0 if nothing says."""


class Stretch(NamedTuple):
    offset: int
    length: int
    reason: str


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

    @property
    def damage(self) -> Damage:
        return Damage.FOUND if self.damaged else Damage.NONE


def read_records(data: Any, salt: int, start: int, known: Known) -> Reading:
    """Judge the bytes of a record area, `data`, which begins at offset `start`. Pure.

    Everything that checks is found first; then the stretches between are judged by the position below which all was synced:
    below they are damage and the reading goes on behind them, above they are where the log was torn.
    """
    size = start + len(data)
    found = scan(data, salt, start, start, True, size)
    stretches = [Stretch(*stretch) for stretch in found.bad]
    good_end = found.end
    if stretches and not (found.records and found.records[-1] > stretches[-1].offset) and stretches[-1].reason == "header":
        # Nothing that checks follows: zeros or remains, unless somebody knows that there was more.
        remains = stretches.pop()
        good_end = remains.offset
        if remains.offset < known.end:
            stretches.append(Stretch(remains.offset, known.end - remains.offset, "header"))
            good_end = known.end
    elif good_end < known.end:
        stretches.append(Stretch(good_end, known.end - good_end, "header"))
        good_end = known.end
    synced = max(found.synced, known.synced_upto)

    reading = Reading(found.records, good_end, synced=found.synced, greatest_sequence=found.greatest_sequence)
    cut = None
    for stretch in stretches:
        if stretch.offset < synced:
            below = min(stretch.length, synced - stretch.offset)
            reading.damaged.append(stretch._replace(length=below))
        if stretch.offset + stretch.length > synced:
            cut = max(stretch.offset, synced)
            reading.short = True
            break
    if known.end and known.end < good_end and (cut is None or known.end <= cut):
        # A write that failed and was not undone; what was written after it went to the next segment.
        cut, reading.short = known.end, False
    if cut is not None:
        reading.tail = Tail.TORN
        _cut(reading, cut, good_end)
    if reading.end != known.end and reading.end >= synced and (batch := _open_batch(data, salt, start, reading.records)):
        reading.short = True
        if reading.tail is Tail.CLEAN:
            reading.tail = Tail.HALF_BATCH
        _cut(reading, batch, good_end)
    reading.lanes = build_index(data, start, reading.records)
    return reading


def _cut(reading: Reading, at: int, good_end: int) -> None:
    keep = bisect_left(reading.records, at)
    reading.torn_records += len(reading.records) - keep
    reading.records = reading.records[:keep]
    reading.end = at
    reading.torn = Stretch(at, max(0, good_end - at), "torn")


def _open_batch(data: Any, salt: int, start: int, records: array[int]) -> int:
    """Where an incomplete batch begins that the last record belongs to; 0 if it completes its own."""

    def left(i: int) -> int:
        fields = parse_header(data, records[i] - start, salt, records[i])
        assert fields is not None  # it was found by its check code
        return int(fields["batch_left"])

    if not records or not (here := left(len(records) - 1)):
        return 0
    first = len(records) - 1
    while first > 0 and (before := left(first - 1)) == here + 1:
        first, here = first - 1, before
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
class _Found:
    """A segment's file, and what became known about it. Nothing here has changed it."""

    name: str
    named: int
    size: int
    header_is: Header = Header.GOOD
    header: layout.SegmentHeader | None = None
    standing: Standing = Standing.CURRENT
    ending: Ending = Ending.OPEN
    later: Later = Later.SILENT
    before: Before = Before.WHOLE
    footer: layout.Footer | None = None
    directory: tuple[layout.DirectoryEntry, ...] = ()
    reading: Reading | None = None
    marks: Marks = Marks(0, 0)
    version: int = 0
    missing_bytes: int = 0
    do: tuple[Step, ...] = ()

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
        """Whether something that nothing vouches for is missing from it, so that what follows it must go."""
        if self.later is Later.VOUCHES:
            return False
        if self.header_is in (Header.BLANK, Header.UNNUMBERED) or self.standing is Standing.RECYCLED:
            return True
        return self.current and self.reading is not None and self.reading.short

    @property
    def observed(self) -> Observed:
        tail = self.reading.tail if self.reading else Tail.CLEAN
        damage = self.reading.damage if self.reading else Damage.NONE
        return Observed(self.header_is, self.standing, self.ending, self.later, tail, damage, self.before)

    @property
    def live(self) -> int:
        count = len(self.reading.records) if self.reading else self.footer.count if self.footer else 0
        return count - self.marks.marked

    def all_expired(self, now_ns: int) -> bool:
        if self.reading:
            lanes = self.reading.lanes
            greatest, without = max((lane[5] for lane in lanes), default=0), sum(lane[6] for lane in lanes)
        elif self.footer:
            greatest, without = self.footer.greatest_expiry_ns, self.footer.without_expiry
        else:
            return False
        return without == 0 and greatest <= now_ns

    def content(self, now_ns: int) -> Content:
        if self.live == 0:
            return Content.NOTHING
        return Content.EXPIRED if self.all_expired(now_ns) else Content.WAITING

    @property
    def next_sequence(self) -> int:
        if self.header is None:
            return 0
        return max(
            self.header.base_sequence,
            self.footer.next_sequence if self.footer else 0,
            self.reading.greatest_sequence + 1 if self.reading else 0,
        )


class _Observer:
    """Looks at every segment of a folder; opens for reading only."""

    def __init__(self, disk: Disk, found: list[_Found]) -> None:
        self._disk = disk
        self.found = found

    def observe(self) -> bytes | None:
        """Fill in everything about every file; returns the queue's UUID."""
        for each in self.found:
            self._headers(each)
        queue = self._tell_queues_apart()
        for each in self.found:
            if each.header_is is Header.GOOD and each.named > each.whole.number and self._marks_area_rots(each):
                each.standing = Standing.RECYCLED
        self._tell_generations_apart()
        self.found.sort(key=lambda each: (each.position, each.name))
        vouched, follower = Later.SILENT, None
        for each in reversed(self.found):
            each.later = vouched
            if each.current:
                self._contents(each, follower)
                follower = each
            if each.vouches:
                vouched = Later.VOUCHES
        before = Before.WHOLE
        for each in self.found:
            each.before = before
            if each.tears:
                before = Before.TORN
        return queue

    def _opened(self, name: str) -> _Reader:
        return _Reader(self._disk, name)

    def _headers(self, each: _Found) -> None:
        with self._opened(each.name) as file:
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

    def _tell_queues_apart(self) -> bytes | None:
        """The queue is the one that most segments belong to, or the oldest of them."""
        ours = [each for each in self.found if each.header_is is Header.GOOD]
        if not ours:
            return None
        counted = Counter(each.whole.queue for each in ours)
        most = max(counted.values())
        oldest = min((each for each in ours if counted[each.whole.queue] == most), key=lambda each: each.whole.number)
        queue = oldest.whole.queue
        for each in ours:
            if each.whole.queue != queue:
                each.header_is = Header.OTHER_QUEUE
        return queue

    def _tell_generations_apart(self) -> None:
        ours = [each for each in self.found if each.current]
        # The one that stands for more goes first; among equals, the one that has its name.
        ours.sort(key=lambda each: (each.whole.number, -each.whole.through, each.named != each.whole.number, each.name))
        reach, last = 0, None
        for each in ours:
            header = each.whole
            if header.number <= reach:
                twin = last is not None and (header.number, header.through) == (last.whole.number, last.whole.through)
                each.standing = Standing.TWIN if twin else Standing.REPLACED
                continue
            reach, last = header.through, each

    def _marks_area_rots(self, each: _Found) -> bool:
        with self._opened(each.name) as file:
            return bool(check_words(self._marks_area(file, each.whole), each.whole.salt)[1])

    @staticmethod
    def _marks_area(file: _Reader, header: layout.SegmentHeader) -> bytes:
        return file.read(layout.MARKS_START, header.attempts_start - layout.MARKS_START)

    def _contents(self, each: _Found, follower: _Found | None) -> None:
        header = each.whole
        with self._opened(each.name) as file:
            area = self._marks_area(file, header)
            end = layout.Footer.parse(file.read(max(0, file.size - layout.FOOTER.size), layout.FOOTER.size), header, file.size)
            if isinstance(end, layout.Footer):
                each.footer, each.ending = end, Ending.UNLISTED
                directory = layout.parse_directory(file.read(end.directory_start, end.directory_size), end, header.salt)
                each.marks = marks_over(area, header.salt, header.records_start, end.records_end)
                if not isinstance(directory, Unreadable) and each.marks.marked <= end.count:
                    each.directory, each.ending = directory, Ending.SEALED
                    return
            elif end is Unreadable.BAD:
                each.ending = Ending.BROKEN
            known = self._known(each, follower)
            upto = each.footer.records_end if each.footer else file.size
            with file.map_of(header.records_start, upto) as data:
                each.reading = read_records(data, header.salt, header.records_start, known)
            each.marks = marks_of_records(area, header.salt, header.records_start, each.reading.records)
            if each.ending is not Ending.UNLISTED:
                each.missing_bytes = max(0, header.file_size - file.size) if each.ending is Ending.OPEN else 0

    @staticmethod
    def _known(each: _Found, follower: _Found | None) -> Known:
        if each.footer is not None:
            return Known(each.footer.records_end, each.footer.records_end)
        end = 0
        if follower is not None and follower.whole.number == each.whole.through + 1:
            end = getattr(follower.whole, "previous_end", 0)
        vouched = each.ending is Ending.BROKEN or each.later is Later.VOUCHES
        return Known(end or each.size if vouched else 0, end)


class _Reader:
    """One file, open for reading, for as long as it is looked at."""

    def __init__(self, disk: Disk, name: str) -> None:
        self._disk = disk
        self._fd = disk.open_ro(name)
        self.size = disk.size(self._fd)

    def __enter__(self) -> _Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self._disk.close_file(self._fd)

    def read(self, offset: int, length: int) -> bytes:
        return self._disk.pread(self._fd, length, offset)

    def _steps(self, start: int, end: int) -> Iterator[tuple[int, bytes]]:
        for at in range(start, end, _READ_STEP):
            data = self.read(at, min(_READ_STEP, end - at))
            if data.count(0) != len(data):
                yield at, data

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


class _Nothing(bytes):
    """An empty stretch of a file; a mapping cannot be empty."""

    def __enter__(self) -> _Nothing:
        return self

    def __exit__(self, *_: object) -> None:
        pass


# Acting.


class _Recovery:
    def __init__(self, disk: Disk, quarantine: Quarantine, plain: bool, now_ns: int) -> None:
        self._disk = disk
        self._quarantine = quarantine
        self._plain = plain
        self._now_ns = now_ns
        self._counts: Counter[str] = Counter()
        self._notes: list[str] = []
        self._segments: list[Segment] = []
        self._clean = True
        self._names_changed = False
        self._next_sequence = 1

    def run(self) -> Recovered:
        names = [(layout.parse_name(entry.name), entry.name) for entry in self._disk.listing()]
        found = [_Found(name, parsed.number or 0, 0) for parsed, name in names if parsed.kind is Kind.SEGMENT]
        queue = _Observer(self._disk, found).observe()
        for each in found:
            each.do = decide(each.observed)
            if Step.REFUSE in each.do:
                self._refuse(each)
            if each.header_is is not Header.OTHER_QUEUE:
                self._next_sequence = max(self._next_sequence, each.next_sequence)
        numbers = [parsed.number or 0 for parsed, _ in names]
        numbers += [each.header.through for each in found if each.header]
        leftovers = [name for parsed, name in names if parsed.kind in (Kind.PREPARED, Kind.SPARE)]
        unknown = [name for parsed, name in names if parsed.kind is Kind.FOREIGN]

        self._set_files_aside(found)
        self._remove(found, leftovers, unknown)
        if self._names_changed:
            # What was cut must be gone for good before the footer of what stays vouches for there being nothing behind it.
            self._disk.sync_folder()
        self._join(found)
        report = RecoveryReport(
            items=sum(segment.map.live for segment in self._segments),
            segments=len(found),
            unknown_names=tuple(sorted(unknown)),
            notes=tuple(self._notes[:_NOTES_MAX]),
            clean=self._clean,
            **self._counts,
        )
        return Recovered(self._segments, queue, max(numbers, default=0) + 1, self._next_sequence, self._other_bytes(), report)

    def _refuse(self, each: _Found) -> None:
        raise UnknownFormat(
            self._disk.path_of(each.name), offset=8, found=each.version, expected=layout.VERSION,
            what="written in a newer format", hint="open this folder with the version of overspill that wrote it, or a later one; nothing was changed",
        )

    def _note(self, each: _Found | str, text: str) -> None:
        """Something is not as an orderly close leaves it."""
        self._clean = False
        name = each if isinstance(each, str) else each.name
        if len(self._notes) < _NOTES_MAX:
            self._notes.append(f"{name}: {text}")

    # --- whole files

    def _set_files_aside(self, found: list[_Found]) -> None:
        for each in found:
            if Step.SET_FILE_ASIDE in each.do:
                what = each.header_is if each.header_is is not Header.GOOD else each.standing
                reason = f"header: {what.value}" if isinstance(what, Header) else what.value
                self._note(each, f"set aside as a whole ({reason})")
                self._quarantine.keep_file(each.name, reason)
                self._counts["quarantined_files"] += 1
                self._counts["quarantined_bytes"] += each.size

    def _remove(self, found: list[_Found], leftovers: Iterable[str], unknown: list[str]) -> None:
        """Newest first: as long as one that was cut is there, so is the torn one before it that says why."""
        if any(each.standing is Standing.REPLACED for each in found):
            self._disk.sync_folder()  # the name of what replaces them, before they go
        for each in reversed(found):
            if Step.CUT_WHOLE in each.do:
                self._cut_whole(each)
            elif Step.REMOVE_EMPTY in each.do:
                self._note(each, "never written to, removed")
                self._unlink(each.name)
            elif Step.REMOVE_OBSOLETE in each.do:
                self._note(each, f"removed ({each.standing.value})")
                self._unlink(each.name)
        for name in leftovers:
            try:
                self._unlink(name)
            except IsADirectoryError:
                unknown.append(name)
            else:
                self._note(name, "left over, removed")

    def _unlink(self, name: str) -> None:
        self._disk.unlink(name)
        self._names_changed = True
        self._counts["removed"] += 1

    def _cut_whole(self, each: _Found) -> None:
        header = each.whole
        reading = each.reading
        if reading is None:  # it was never numbered; its salt still tells its records
            with _Reader(self._disk, each.name) as file, file.map_of(header.records_start, file.size) as data:
                reading = read_records(data, header.salt, header.records_start, Known())
        end = reading.torn.offset + reading.torn.length if reading.torn else reading.end
        records = len(reading.records) + reading.torn_records
        self._count_torn(each, Stretch(header.records_start, end - header.records_start, "torn"), records)
        self._unlink(each.name)

    # --- what joins the log

    def _join(self, found: list[_Found]) -> None:
        joining = [each for each in found if not JOINS.isdisjoint(each.do)]
        for each in joining:
            place = Place.NEWEST if each is joining[-1] else Place.OLDER
            stay = CONTENTS[each.content(self._now_ns), place]
            self._tell_what_it_was(each)
            for step in each.do:
                self._steps[step](self, each, stay)
            if stay is not Stay.KEEP:
                self._unlink(each.name)
                if stay is Stay.DROP_EXPIRED:
                    self._counts["expired_segments"] += 1
                    self._counts["expired_items"] += each.live
        self._name_by_number(found)
        if self._names_changed:
            self._disk.sync_folder()

    def _tell_what_it_was(self, each: _Found) -> None:
        if each.ending is Ending.OPEN:
            self._note(each, "not sealed")
        elif each.ending is not Ending.SEALED:
            self._note(each, f"its end is damaged ({each.ending.value})")
        if each.reading is not None:
            self._counts["rescanned"] += 1
        if each.marks.rotten:
            self._note(each, f"{each.marks.rotten} words of settle marks do not check: items may be delivered again")
            self._counts["rotten_marks"] += each.marks.rotten
        if each.missing_bytes:
            self._note(each, f"{each.missing_bytes} of {each.whole.file_size} bytes are missing at its end")

    def _take(self, each: _Found, stay: Stay) -> None:
        if stay is Stay.KEEP:
            assert each.footer is not None
            segment = self._segment(each, each.whole)
            segment.trust(each.footer, each.directory, each.marks.marked)

    def _seal(self, each: _Found, stay: Stay) -> None:
        if stay is not Stay.KEEP:
            return
        assert each.reading is not None
        lanes, each.reading.lanes = each.reading.lanes, []
        segment = self._segment(each, each.whole)
        try:
            fd = segment.fd()
            if each.marks.cleared is not None:
                self._disk.pwrite(fd, each.marks.cleared, layout.MARKS_START)
            # The footer is written only over what is on stable storage.
            self._disk.datasync(fd)
            size = segment.write_footer(fd, lanes, each.reading.end, self._next_sequence)
            self._disk.truncate(fd, size)
        finally:
            segment.let_go_of_fd()
        segment.allocated = size
        assert segment.footer is not None
        segment.trust(segment.footer, segment.directory.values(), each.marks.marked)

    def _segment(self, each: _Found, header: layout.SegmentHeader) -> Segment:
        segment = Segment(self._disk, each.name, header, each.size, None, self._plain)
        self._segments.append(segment)
        return segment

    def _set_records_aside(self, each: _Found, stay: Stay) -> None:
        assert each.reading is not None
        with _Reader(self._disk, each.name) as file:
            for stretch in each.reading.damaged:
                text = f"{stretch.length} bytes at {stretch.offset} are damaged ({stretch.reason})"
                kept = self._keep(each, file, stretch, stretch.length)
                self._note(each, f"{text}, {kept}")
                self._counts["quarantined"] += 1
                self._counts["quarantined_bytes"] += stretch.length

    def _cut(self, each: _Found, stay: Stay) -> None:
        assert each.reading is not None and each.reading.torn is not None
        self._count_torn(each, each.reading.torn, each.reading.torn_records)

    _steps: Final[dict[Step, Callable[[_Recovery, _Found, Stay], None]]] = {
        Step.SET_RECORDS_ASIDE: _set_records_aside,
        Step.CUT: _cut,
        Step.SEAL: _seal,
        Step.TAKE: _take,
    }

    def _count_torn(self, each: _Found, torn: Stretch, records: int) -> None:
        self._counts["torn_bytes"] += torn.length
        self._counts["torn_records"] += records
        text = f"{torn.length} bytes at {torn.offset} were torn off, {records} records among them"
        if torn.length:
            with _Reader(self._disk, each.name) as file:
                text += f", {self._keep(each, file, torn, min(torn.length, _TORN_KEPT_MAX))}"
        self._note(each, text)

    def _keep(self, each: _Found, file: _Reader, stretch: Stretch, length: int) -> str:
        try:
            name = self._quarantine.keep(each.name, stretch.offset, file.read(stretch.offset, length), stretch.reason)
        except OSError as error:
            # A full disk must not keep the queue from opening. Counted and told all the same.
            return f"no room to keep them ({error.strerror})"
        return f"kept as {layout.QUARANTINE_NAME}/{name}"

    def _name_by_number(self, found: Iterable[_Found]) -> None:
        taken = {entry.name for entry in self._disk.listing()}
        for segment in self._segments:
            name = layout.segment_name(segment.number)
            if name != segment.name and name not in taken:
                self._note(segment.name, f"is segment {segment.number} by its header, renamed")
                self._disk.rename(segment.name, name)
                taken.add(name)
                segment.name = name
                self._names_changed = True

    def _other_bytes(self) -> int:
        if layout.QUARANTINE_NAME not in {entry.name for entry in self._disk.listing()}:
            return 0
        with self._disk.subfolder(layout.QUARANTINE_NAME) as aside:
            return sum(-(-entry.size // layout.PAGE) * layout.PAGE for entry in aside.listing())


def recover(disk: Disk, quarantine: Quarantine, *, plain: bool, now_ns: int) -> Recovered:
    """Make the folder whole and say what it holds. The caller holds its lock.

    Raises `UnknownFormat` and has changed nothing if a segment is of a newer version; raises `OSError` if the disk fails, and may then be
    called again. Items of the returned segments are all on stable storage.
    """
    return _Recovery(disk, quarantine, plain, now_ns).run()
