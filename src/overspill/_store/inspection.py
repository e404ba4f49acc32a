"""Looking at a queue's folder without changing a byte of it: beside a running owner, at a copy, on a read-only file system.

`inspect` says what is there from headers, footers, directories and settle marks, and reads only the records of unsealed segments;
`deep` checks every checksum there is. `items` yields what waits, in the order in which it would leave, as it is stored.

It promises: nothing is opened for writing, nothing is locked, nothing is made. Beside an owner the answer is about a moment that never was
exactly: files may come and go while they are looked at. What looks wrong is therefore looked at again, and told only if it stays.
"""

from __future__ import annotations

import heapq
import json
import os
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, Final, NamedTuple

from .._core.record import build_index, count_marked, parse_header, scan
from ..errors import CorruptedData, counted
from . import layout
from .files import Access, Disk
from .layout import Kind
from .observation import Ending, Found, Header, Known, Reader, Standing, observe, read_records
from .recovery import JOINS, Step, decide

__all__ = ["Inspection", "Problem", "SegmentView", "StoredItem", "inspect", "items", "newest_ids"]

_LOOKS_MAX: Final = 4
"""How often a folder is looked at before what looks wrong is believed."""

_WINDOW_ENTRIES: Final = 4096
_READ_AHEAD: Final = 256 * 1024


OnStep = Callable[[int], object]


class Problem(NamedTuple):
    """Something that is not as it was written."""

    file: str
    offset: int | None
    what: str

    def __str__(self) -> str:
        return f"{self.file}: {self.what}" if self.offset is None else f"{self.file}, offset {self.offset}: {self.what}"


@dataclass(frozen=True)
class SegmentView:
    """One segment as it was found."""

    name: str
    number: int
    through: int
    """More than `number` only after compaction."""
    size: int
    state: str
    """"sealed", "open", "damaged" (its end is), or "unreadable" (nothing in it can be told)."""
    records: int
    waiting: int
    """In line."""
    delayed: int
    dead_letters: int
    by_priority: Mapping[int, int]
    """Waiting items by priority."""
    payload_bytes: int
    """Of all its records, before compression."""
    torn_bytes: int
    torn_records: int
    created_ns: int
    plan: tuple[str, ...]
    """What opening the queue would do about it."""
    tail: str = "clean"
    """What is behind its last record: "clean", "torn" (records, or pieces of them, that nothing vouches for) or "half_batch" (a batch that was never completed)."""


@dataclass(frozen=True)
class Inspection:
    """What a look at a folder found."""

    path: str
    queue: str | None
    """The queue's UUID."""
    segments: tuple[SegmentView, ...]
    records: int
    waiting: int
    """Items that would be in line after opening, expired ones included."""
    delayed: int
    """Items that wait for their time, those included for which it has come."""
    dead_letters: int
    by_priority: Mapping[int, int]
    oldest_ns: int | None
    """When the first waiting item in the log was enqueued."""
    newest_ns: int | None
    bytes: int
    """Of all files, quarantine included."""
    quarantined_bytes: int
    quarantined_files: int
    torn_bytes: int
    torn_records: int
    next_sequence: int
    problems: tuple[Problem, ...]
    leftovers: tuple[str, ...]
    """Temporary files, removed at the next opening."""
    unknown_names: tuple[str, ...]
    holder: str | None
    """What the lock file says of who has the queue open. For people: it may have gone without saying so."""
    owner: Mapping[str, Any] | None
    """What the owner said of itself at its last sync, which only it can know: what is in memory, drops, sync latency. For people, like `holder`."""
    clean: bool
    """As an orderly close leaves it."""
    deep: bool

    @property
    def ok(self) -> bool:
        return not self.problems

    def oldest_age(self, now_s: float) -> float | None:
        """Seconds from when the first waiting item in the log was enqueued to this moment of the wall clock; None if nothing waits."""
        return None if self.oldest_ns is None else max(0.0, now_s - self.oldest_ns / 1e9)

    @property
    def torn(self) -> tuple[str, ...]:
        """Segments at whose end something is missing that nothing vouches for, as a power cut leaves it. A batch that a kill left incomplete does not count."""
        return tuple(each.name for each in self.segments if each.tail == "torn" or not {"CUT_WHOLE", "REMOVE_EMPTY"}.isdisjoint(each.plan))

    def __str__(self) -> str:
        lines = [
            f"{self.path}: {counted(self.waiting, 'item')} waiting of {counted(self.records, 'record')} in {counted(len(self.segments), 'segment')}, {counted(self.bytes, 'byte')}"
            + (f", {self.delayed:,} delayed" if self.delayed else "") + (f", {counted(self.dead_letters, 'dead letter')}" if self.dead_letters else "")
            + (", closed in order" if self.clean else "")
        ]
        if len(self.by_priority) > 1:
            levels = sorted(self.by_priority.items(), reverse=True)
            lines.append("by priority: " + ", ".join(f"{priority}: {n:,}" for priority, n in levels))
        if self.oldest_ns is not None and self.newest_ns is not None:
            lines.append(f"enqueued from {_time(self.oldest_ns)} to {_time(self.newest_ns)}")
        if self.torn_bytes:
            lines.append(f"torn at its end: {counted(self.torn_bytes, 'byte')}, {counted(self.torn_records, 'record')}")
        if self.quarantined_files:
            lines.append(f"quarantine: {counted(self.quarantined_files, 'file')}, {counted(self.quarantined_bytes, 'byte')}")
        if self.holder:
            lines.append(f"open: {self.holder}")
        if self.unknown_names:
            lines.append("unknown names: " + ", ".join(self.unknown_names))
        lines += [f"problem: {problem}" for problem in self.problems]
        if not self.problems:
            lines.append("every checksum is right" if self.deep else "no damage found (deep=True checks every checksum)")
        return "\n".join(lines)


def _time(ns: int) -> str:
    try:
        return datetime.fromtimestamp(ns / 1e9, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    except (OverflowError, ValueError):
        return f"{ns} ns"  # a clock that was far off


def inspect(path: str | os.PathLike[str], *, deep: bool = False, on_step: OnStep = lambda nbytes: None) -> Inspection:
    """Look at the folder of a queue; `on_step` is told of every segment, with its bytes. Raises FileNotFoundError if there is none, `UnsafeFolder` if something else is in its place."""
    with Disk.open_folder(path, Access.LOOK) as disk:
        before = _look(disk, deep, on_step)
        for _ in range(_LOOKS_MAX - 1):
            if not before.problems and not before.torn_bytes:
                break
            # A batch, a seal or a compaction that was under way looks like damage for as long as it takes.
            again = _look(disk, deep, lambda nbytes: None)
            if again.problems == before.problems and again.torn_bytes == before.torn_bytes:
                break
            before = again
        return before


def _look(disk: Disk, deep: bool, on_step: OnStep) -> Inspection:
    listing = disk.listing()
    names = [(layout.parse_name(entry.name), entry) for entry in listing]
    segments = [(entry.name, parsed.number or 0) for parsed, entry in names if parsed.kind is Kind.SEGMENT]
    found, queue = observe(disk, segments, may_vanish=True)
    problems: list[Problem] = []
    views = []
    for each in found:
        problems += _problems_of(each)
        levels: Counter[int] = Counter()
        try:
            with Reader(disk, each.name) as file:
                if deep and each.current:
                    problems += _check_all(each, file)
                levels = _left_by_line(each, file)
        except FileNotFoundError:
            pass
        views.append(_view(each, levels))
        on_step(each.size)
    leftovers = tuple(entry.name for parsed, entry in names if parsed.kind in (Kind.PREPARED, Kind.SPARE))
    quarantined = _quarantined(disk, listing)
    by_priority: Counter[int] = Counter()
    for view in views:
        by_priority.update(view.by_priority)
    joined = [(each, view) for each, view in zip(found, views, strict=True) if view.waiting]
    oldest, newest = _times(disk, joined)
    holder, owner = _lock_file(disk)
    return Inspection(
        path=disk.path,
        queue=queue.hex() if queue else None,
        segments=tuple(views),
        records=sum(view.records for view in views),
        waiting=sum(view.waiting for view in views),
        delayed=sum(view.delayed for view in views),
        dead_letters=sum(view.dead_letters for view in views),
        by_priority=dict(sorted(by_priority.items())),
        oldest_ns=oldest,
        newest_ns=newest,
        bytes=sum(entry.size for parsed, entry in names if parsed.kind is not Kind.QUARANTINE) + sum(quarantined),
        quarantined_bytes=sum(quarantined),
        quarantined_files=len(quarantined),
        torn_bytes=sum(view.torn_bytes for view in views),
        torn_records=sum(view.torn_records for view in views),
        next_sequence=max((each.next_sequence for each in found), default=0) or 1,
        problems=tuple(problems),
        leftovers=leftovers,
        unknown_names=tuple(entry.name for parsed, entry in names if parsed.kind is Kind.FOREIGN),
        holder=holder,
        owner=owner,
        clean=not problems and not leftovers and all(each.ending is Ending.SEALED for each in found),
        deep=deep,
    )


def _quarantined(disk: Disk, listing: list[Any]) -> list[int]:
    if layout.QUARANTINE_NAME not in {entry.name for entry in listing}:
        return []
    try:
        with disk.subfolder(layout.QUARANTINE_NAME) as aside:
            return [entry.size for entry in aside.listing() if entry.name != layout.REPORT_NAME]
    except FileNotFoundError:
        return []


def _lock_file(disk: Disk) -> tuple[str | None, Mapping[str, Any] | None]:
    """Who holds the folder, and what the owner last said of itself."""
    try:
        with Reader(disk, layout.LOCK_NAME) as file:
            first, _, rest = file.read(0, 4096).partition(b"\n")
    except FileNotFoundError:
        return None, None
    holder = "".join(character for character in first[:512].decode("ascii", "replace") if character.isprintable()) or None
    line, end, _ = rest.partition(b"\n")
    try:
        owner = json.loads(line) if end else None
    except ValueError:
        owner = None  # half written
    return holder, owner if holder and isinstance(owner, dict) else None


def _joins(each: Found) -> bool:
    return not JOINS.isdisjoint(decide(each.observed))


def _view(each: Found, levels: Counter[int]) -> SegmentView:
    header, reading = each.header, each.reading
    plan = decide(each.observed)
    states = {Ending.SEALED: "sealed", Ending.OPEN: "open"}
    lanes = reading.lanes if reading else []
    torn = reading.torn if reading else None
    torn_bytes, torn_records = (torn.length, reading.torn_records) if reading and torn else (0, 0)
    if reading and Step.CUT_WHOLE in plan and header:
        torn_bytes, torn_records = torn_bytes + reading.end - header.records_start, torn_records + len(reading.records)
    joins = _joins(each)
    delayed, dead = levels.pop(layout.DELAYED_LINE, 0), levels.pop(layout.DEAD_LINE, 0)
    return SegmentView(
        name=each.name,
        number=header.number if header else each.named,
        through=header.through if header else each.named,
        size=each.size,
        state=states.get(each.ending, "damaged") if each.current else "unreadable",
        records=each.count if joins else 0,
        waiting=each.live - delayed - dead if joins else 0,
        delayed=delayed,
        dead_letters=dead,
        by_priority=dict(sorted(levels.items())),
        payload_bytes=sum(lane[4] for lane in lanes) if reading else each.footer.payload_bytes if each.footer else 0,
        torn_bytes=torn_bytes,
        torn_records=torn_records,
        created_ns=header.created_ns if header else 0,
        plan=tuple(step.name for step in plan),
        tail=reading.tail.name.lower() if reading else "clean",
    )


def _problems_of(each: Found) -> Iterator[Problem]:
    """What headers, footers, directories and settle marks tell."""
    if each.header_is is Header.BLANK:
        return  # a name that was made durable before its file was
    if each.header_is is not Header.GOOD:
        yield Problem(each.name, 0, f"header: {each.header_is.value}")
        return
    if each.standing is Standing.TWIN:
        yield Problem(each.name, 0, each.standing.value)
    if not each.current:
        return
    if each.ending in (Ending.BROKEN, Ending.UNLISTED):
        yield Problem(each.name, None, each.ending.value)
    if each.missing_bytes:
        yield Problem(each.name, each.size, f"{counted(each.missing_bytes, 'byte')} missing")
    if each.marks.rotten:
        yield Problem(each.name, layout.MARKS_START, f"{counted(each.marks.rotten, 'damaged word')} of settle marks")
    if each.reading:
        for stretch in each.reading.damaged:
            yield Problem(each.name, stretch.offset, f"{counted(stretch.length, 'byte')} of records do not check ({stretch.reason})")


def _check_all(each: Found, file: Reader) -> Iterator[Problem]:
    """Every record and every index of a segment that has a good footer (the others have been read already), and every word of attempt counts."""
    if rotten := sum(1 for _ in _Leases(each.whole, file.read).rotten()):
        yield Problem(each.name, each.whole.attempts_start, f"{counted(rotten, 'damaged word')} of attempt counts")
    footer, header = each.footer, each.whole
    if each.ending is not Ending.SEALED or footer is None:
        return
    start, end = header.records_start, footer.records_end
    with file.map_of(start, end) as data:
        reading = read_records(data, header.salt, start, Known(end, end))
    if file.read(end, 1) == b"":
        return  # it went, or was rewritten, while it was read
    indexes = {entry.line: file.read(entry.index_start, entry.index_size) for entry in each.directory}
    good = all(entry.vouches_for(indexes[entry.line], header.salt) for entry in each.directory)
    done = _Done(each, file)
    waiting = [8 * at for index in indexes.values() for at in array("I", index) if 8 * at not in done] if good else []
    listed = sum(len(index) for index in indexes.values()) // layout.INDEX_ENTRY.size
    for stretch in reading.damaged:
        # What is settled, or was set aside and marked, is no loss any more.
        if not good or any(stretch.offset <= offset < stretch.offset + stretch.length for offset in waiting):
            yield Problem(each.name, stretch.offset, f"{counted(stretch.length, 'byte')} of records do not check ({stretch.reason})")
    if listed > len(reading.records) and not reading.damaged:
        yield Problem(each.name, start, f"{counted(listed - len(reading.records), 'record')} missing")
    lanes = {lane[0]: lane[1].tobytes() for lane in reading.lanes}
    for entry in each.directory:
        index = indexes[entry.line]
        if not entry.vouches_for(index, header.salt):
            yield Problem(each.name, entry.index_start, f"the index of {_line_named(entry.line)} does not check")
        elif not reading.damaged and lanes.get(entry.line) != index:
            yield Problem(each.name, entry.index_start, f"the index of {_line_named(entry.line)} does not list the records that are there")


def _line_named(line: int) -> str:
    return {layout.DELAYED_LINE: "the delayed items", layout.DEAD_LINE: "the dead letters"}.get(line, f"priority {line}")


# Settle marks against indexes.


class _Done:
    """The settle marks of a segment, as they were when they were read."""

    def __init__(self, each: Found, file: Reader) -> None:
        header = each.whole
        area = each.remarked or file.marks(header)
        self._start = header.records_start
        words = len(area) // layout.WORD.size
        self._words = [
            layout.marks_of(area[8 * i : 8 * i + 8], header.salt, i) or 0 for i in range(words)
        ]

    def __contains__(self, offset: int) -> bool:
        word, bit = divmod(layout.slot_of(offset, self._start), layout.MARKS_PER_WORD)
        return word < len(self._words) and bool(self._words[word] >> bit & 1)


class _Leases:
    """The attempt counts of a segment, as they were when they were read."""

    def __init__(self, header: layout.SegmentHeader, read: Callable[[int, int], bytes]) -> None:
        self._header = header
        words = -(-header.slots // layout.ATTEMPTS_PER_WORD)
        self.area = read(header.attempts_start, layout.WORD.size * words)

    def of(self, offset: int) -> int:
        i, place = divmod(layout.slot_of(offset, self._header.records_start), layout.ATTEMPTS_PER_WORD)
        word = self.area[layout.WORD.size * i : layout.WORD.size * (i + 1)]
        if not any(word):
            return 0  # never leased
        return (layout.attempts_of(word, self._header.salt, i) or 0) >> 8 * place & 0xFF

    def rotten(self) -> Iterator[int]:
        """Where the first record of each word would be that does not check."""
        if not any(self.area):
            return
        for i in range(len(self.area) // layout.WORD.size):
            word = self.area[layout.WORD.size * i : layout.WORD.size * (i + 1)]
            if any(word) and layout.attempts_of(word, self._header.salt, i) is None:
                yield self._header.records_start + layout.SLOT * layout.ATTEMPTS_PER_WORD * i


def rotten_counts(header: layout.SegmentHeader, read: Callable[[int, int], bytes]) -> tuple[bytes, list[int]]:
    """The attempt counts of a segment, and where the first record of each word would be that does not check."""
    leases = _Leases(header, read)
    return leases.area, list(leases.rotten())


def _left_by_line(each: Found, file: Reader) -> Counter[int]:
    levels: Counter[int] = Counter()
    if not _joins(each) or each.live == 0:
        return levels
    if each.reading:
        counts = {lane[0]: len(lane[1]) for lane in each.reading.lanes}
    else:
        counts = {entry.line: entry.count for entry in each.directory}
    if each.marks.marked == 0:
        levels.update(counts)
    elif len(counts) == 1:
        levels[next(iter(counts))] = each.live
    else:
        header, area = each.whole, each.remarked or file.marks(each.whole)
        for line in counts:
            levels[line] = sum(len(window) - count_marked(area, header.salt, header.records_start, window) for window in _index_of(each, file, line))
    return +levels


def _index_of(each: Found, file: Reader, line: int) -> Iterator[array[int]]:
    """Windows of a lane's offsets, in units of 8, in the order of their places."""
    if each.reading:
        yield from (lane[1] for lane in each.reading.lanes if lane[0] == line)
        return
    entry = next(entry for entry in each.directory if entry.line == line)
    assert each.footer is not None
    crc = each.whole.salt
    for at in range(0, entry.index_size, 4 * _WINDOW_ENTRIES):
        part = file.read(entry.index_start + at, min(4 * _WINDOW_ENTRIES, entry.index_size - at))
        crc = layout.crc32c(part, crc)
    if crc == entry.index_crc:
        for at in range(0, entry.index_size, 4 * _WINDOW_ENTRIES):
            window = array("I")
            window.frombytes(file.read(entry.index_start + at, min(4 * _WINDOW_ENTRIES, entry.index_size - at)) or b"")
            yield window
        return
    # A damaged index is no loss: the records say what it must be.
    start, end = each.whole.records_start, each.footer.records_end
    with file.map_of(start, end) as data:
        records = scan(data, each.whole.salt, start, start, False, end).records
        windows = [lane[1] for lane in build_index(data, start, records) if lane[0] == line]
    yield from windows


def _times(disk: Disk, waiting: list[tuple[Found, SegmentView]]) -> tuple[int | None, int | None]:
    """When the first and the last waiting item of the log were enqueued."""
    oldest = newest = None
    if waiting:
        oldest = min(_enqueued(disk, waiting[0][0], waiting[0][1], False), default=None)
        newest = max(_enqueued(disk, waiting[-1][0], waiting[-1][1], True), default=None)
    return oldest, newest


def _enqueued(disk: Disk, each: Found, view: SegmentView, last: bool) -> Iterator[int]:
    """Of the first (or last) waiting item of each priority in a segment."""
    try:
        with Reader(disk, each.name) as file:
            done = _Done(each, file)
            for priority in view.by_priority:
                offset = None
                for window in _index_of(each, file, priority):
                    live = (8 * at for at in (reversed(window) if last else window) if 8 * at not in done)
                    candidate = next(live, None)
                    if candidate is not None:
                        offset = candidate
                        if not last:
                            break
                if offset is not None:
                    fields = parse_header(file.read(offset, layout.RECORD_HEADER.size), 0, each.whole.salt, offset)
                    if fields is not None:
                        yield fields["enqueued_ns"]
    except FileNotFoundError:
        return


# The items themselves.


class StoredItem(NamedTuple):
    """A waiting item as it is stored."""

    payload: bytes
    kind: int
    codec: int
    raw_length: int
    priority: int
    sequence: int
    id: bytes
    enqueued_ns: int
    expiry_ns: int
    attempts: int
    """Leases before and since it was written; 255 stands for more."""
    segment: str
    offset: int
    place: int
    """Where it stands in its priority's line: its sequence number, negative if it was put in front."""
    due_ns: int = 0
    """When it is to be in line; 0 = it is."""
    death: layout.Death | None = None
    """Of a dead letter: when and why."""


def items(
    path: str | os.PathLike[str], on_problem: Callable[[Problem], None] | None = None, *, delayed: bool = False, dead_letters: bool = False
) -> Iterator[StoredItem]:
    """What is in line, in the order in which it would leave; expired items too. Memory: a window of each segment that is being read.

    With `delayed`, then the delayed items, those included whose time has come, in the order of when they are due; with `dead_letters`, then those.

    A damaged record raises `CorruptedData`, or with `on_problem` is told there and left out. Beside a running owner, items that are taken
    meanwhile may or may not be among them.
    """
    with Disk.open_folder(path, Access.LOOK) as disk:
        names = [(layout.parse_name(entry.name), entry.name) for entry in disk.listing()]
        found, _ = observe(disk, ((name, parsed.number or 0) for parsed, name in names if parsed.kind is Kind.SEGMENT), may_vanish=True)

        def tell(problem: Problem) -> None:
            if on_problem is None:
                raise CorruptedData(disk.path_of(problem.file), offset=problem.offset, what=problem.what, hint="inspect the folder with deep=True")
            on_problem(problem)

        for each in found:
            for problem in _problems_of(each):
                tell(problem)
        lanes: dict[int, list[tuple[int, int, Found]]] = {}
        for i, each in enumerate(found):
            if _joins(each) and each.live:
                for line, first_place in _lanes_of(each):
                    lanes.setdefault(line, []).append((first_place, i, each))
        wanted = sorted((line for line in lanes if line < layout.DELAYED_LINE), reverse=True)
        wanted += [line for line, asked in ((layout.DELAYED_LINE, delayed), (layout.DEAD_LINE, dead_letters)) if asked and line in lanes]
        for line in wanted:
            yield from _line(disk, line, sorted(lanes[line], key=lambda run: run[:2]), tell)


def newest_ids(path: str | os.PathLike[str], most: int) -> list[tuple[bytes, bool]]:
    """The ids of the last records of the log, the newest last, each with whether the item is still there (settled: False); at most `most` of them."""
    ids: list[tuple[bytes, bool]] = []
    with Disk.open_folder(path, Access.LOOK) as disk:
        names = [(layout.parse_name(entry.name), entry.name) for entry in disk.listing()]
        found, _ = observe(disk, ((name, parsed.number or 0) for parsed, name in names if parsed.kind is Kind.SEGMENT), may_vanish=True)
        for each in reversed(found):
            if len(ids) >= most:
                break
            if _joins(each) and each.count:
                ids[:0] = _ids_of(disk, each, most - len(ids))
    return ids


def _ids_of(disk: Disk, each: Found, most: int) -> list[tuple[bytes, bool]]:
    with Reader(disk, each.name) as file:
        done = _Done(each, file)
        offsets = sorted(8 * at for priority, _ in _lanes_of(each) for window in _index_of(each, file, priority) for at in window)[-most:]
        heads = ((file.read(offset, layout.RECORD_HEADER.size), offset) for offset in offsets)
        fields = ((parse_header(head, 0, each.whole.salt, offset), offset) for head, offset in heads)
        return [(found["id"], offset not in done) for found, offset in fields if found is not None]


def _lanes_of(each: Found) -> list[tuple[int, int]]:
    if each.reading:
        return [(lane[0], lane[2]) for lane in each.reading.lanes]
    return [(entry.line, entry.first_place) for entry in each.directory]


def _line(disk: Disk, line: int, runs: list[tuple[int, int, Found]], tell: Callable[[Problem], None]) -> Iterator[StoredItem]:
    """One line: the segments' runs merged by place. A run is opened only when the line has come to its first place."""
    heap: list[tuple[int, int, StoredItem, Iterator[tuple[int, StoredItem]]]] = []
    runs = runs[::-1]
    while heap or runs:
        while runs and (not heap or runs[-1][0] <= heap[0][0]):
            _, i, each = runs.pop()
            run = _run(disk, each, line, tell)
            if (first := next(run, None)) is not None:
                heapq.heappush(heap, (first[0], i, first[1], run))
        if not heap:
            continue
        _, i, item, run = heap[0]
        if (following := next(run, None)) is not None:
            heapq.heapreplace(heap, (following[0], i, following[1], run))
        else:
            heapq.heappop(heap)
        yield item


class _Ahead:
    """Reads records that lie one behind the other in few large pieces."""

    def __init__(self, file: Reader) -> None:
        self._file = file
        self._at = 0
        self._piece = b""

    def read(self, offset: int, length: int) -> bytes:
        if not self._at <= offset <= offset + length <= self._at + len(self._piece):
            self._at, self._piece = offset, self._file.read(offset, max(length, _READ_AHEAD))
        return self._piece[offset - self._at : offset - self._at + length]


def _run(disk: Disk, each: Found, line: int, tell: Callable[[Problem], None]) -> Iterator[tuple[int, StoredItem]]:
    """What is left of one line in one segment, with the places."""
    header = each.whole
    try:
        file = Reader(disk, each.name)
    except FileNotFoundError:
        return  # consumed by the owner since
    with file:
        done, leases, ahead = _Done(each, file), _Leases(header, file.read), _Ahead(file)
        for window in _index_of(each, file, line):
            for offset8 in window:
                offset = 8 * offset8
                if offset in done:
                    continue
                head = ahead.read(offset, layout.RECORD_HEADER.size)
                fields = parse_header(head, 0, header.salt, offset)
                stored = ahead.read(offset + layout.RECORD_HEADER.size, fields["length"]) if fields else b""
                if fields is None or len(stored) != fields["length"] or layout.crc32c(stored, header.salt) != fields["payload_crc"]:
                    tell(Problem(each.name, offset, "the record does not check"))
                    continue
                attempts = fields["attempts"] + leases.of(offset)
                time_ns = layout.TIME.unpack_from(stored)[0] if line >= layout.DELAYED_LINE else 0
                yield time_ns or fields["place"], StoredItem(
                    stored[8 * fields["extension"] :], fields["kind"], fields["codec"], fields["raw_length"], fields["priority"], fields["sequence"],
                    fields["id"], fields["enqueued_ns"], fields["expiry_ns"], min(layout.ATTEMPTS_MAX, attempts), each.name, offset, fields["place"],
                    time_ns if line == layout.DELAYED_LINE else 0, layout.death_of(stored[: 8 * fields["extension"]]) if line == layout.DEAD_LINE else None,
                )
