"""Opening a folder that somebody else left: what is done about what is there.

It goes in three parts, and only the last one changes anything. *Observe*: every segment becomes a row of enums (`observation`). *Decide*:
`TABLE` has exactly one answer to each such row, `CONTENTS` says what becomes of a segment that stays in the log; the `if`s of
recovery are these two tables. *Act*: files are set aside; then what is cut as a whole or obsolete goes, newest first; then
the names are synced; then the unsealed segments are cut and sealed, oldest first.

What holds (and a recovery that was killed at any instant starts again and ends the same):

* Nothing is removed but what is proven obsolete, empty, expired or never durable; what is damaged goes to quarantine first.
* A segment is sealed only when everything cut behind it has durably gone, and everything before it was synced: its footer vouches for both.
* A recovered segment is never appended to.
* Settle marks of records that are no more are cleared before the footer is written, so that count and marks agree from then on.
"""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, NamedTuple

from ..errors import UnknownFormat, counted
from . import layout
from .files import Disk
from .folder import Quarantine
from .layout import Kind
from .observation import Before, Damage, Ending, Found, Header, Later, Observed, Reader, Standing, Stretch, Tail, Known, observe, read_records
from .segment import Segment

__all__ = ["Recovered", "RecoveryReport", "recover"]

_TORN_KEPT_MAX: Final = 1 << 20
"""How much of a torn tail is copied to quarantine before it is cut."""

_NOTES_MAX: Final = 100

_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


@dataclass(frozen=True)
class RecoveryReport:
    """What opening the folder found; `q.recovery`."""

    items: int = 0
    """Items in line."""
    segments: int = 0
    rescanned: int = 0
    """Segments without a good footer, read record by record."""
    torn_bytes: int = 0
    """Bytes cut that were never known to be on stable storage."""
    torn_records: int = 0
    missing_bytes: int = 0
    """By which files were shorter than they had been made: what was in there is gone."""
    quarantined: int = 0
    """Damaged records set aside, as far as they can be told apart."""
    quarantined_bytes: int = 0
    quarantined_files: int = 0
    rotten_marks: int = 0
    """Words of settle marks that did not check: up to 32 items each may be delivered again."""
    removed: int = 0
    """Files removed: settled, replaced by compaction, empty, or temporary."""
    moves_finished: int = 0
    """Items that were being moved within the log (delayed, given up, replayed) when the process ended: their old records are done with."""
    delayed: int = 0
    """Items that wait for their time; not among `items`."""
    dead_letters: int = 0
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
        parts = [f"{counted(self.items, 'item')} in {counted(self.segments, 'segment')}"]
        parts += [said for n, said in ((self.delayed, f"{self.delayed:,} delayed"), (self.dead_letters, counted(self.dead_letters, "dead letter"))) if n]
        if self.clean and not self.unknown_names:
            return ", ".join([*parts, "closed in order"])
        for n, what, became in (
            (self.moves_finished, "move", " finished"),
            (self.rescanned, "segment", " read record by record"),
            (self.torn_bytes, "torn byte", " cut"),
            (self.torn_records, "torn record", ""),
            (self.missing_bytes, "byte", " missing at the ends of files"),
            (self.quarantined, "damaged record", " set aside"),
            (self.quarantined_files, "damaged file", " set aside"),
            (self.rotten_marks, "damaged word", " of settle marks"),
            (self.removed, "file", " removed"),
            (self.expired_items, "expired item", " dropped"),
            (len(self.unknown_names), "unknown name", ""),
        ):
            if n:
                parts.append(counted(n, what) + became)
        return ", ".join(parts)


class Recovered(NamedTuple):
    """What the log takes over."""

    segments: list[Segment]
    queue: bytes | None
    next_number: int
    next_sequence: int
    other_bytes: int
    report: RecoveryReport


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


def content_of(each: Found, now_ns: int) -> Content:
    if each.live == 0:
        return Content.NOTHING
    return Content.EXPIRED if each.all_expired(now_ns) else Content.WAITING


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


# Acting.

Plan = list[tuple[Found, tuple[Step, ...]]]
"""In log order."""


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
        found, queue = observe(self._disk, ((name, parsed.number or 0) for parsed, name in names if parsed.kind is Kind.SEGMENT))
        plan = [(each, decide(each.observed)) for each in found]
        for each, do in plan:
            if Step.REFUSE in do:
                self._refuse(each)
        self._next_sequence = max((each.next_sequence for each in found), default=0) or 1
        numbers = [parsed.number or 0 for parsed, _ in names if parsed.kind in (Kind.SEGMENT, Kind.SPARE)]
        numbers += [each.header.through for each in found if each.header]
        leftovers = [name for parsed, name in names if parsed.kind in (Kind.PREPARED, Kind.SPARE)]
        unknown = [name for parsed, name in names if parsed.kind is Kind.FOREIGN]

        self._finish_moves(plan)
        self._set_files_aside(each for each, do in plan if Step.SET_FILE_ASIDE in do and not each.tears)
        self._remove(plan, leftovers, unknown)
        if self._names_changed:
            # What was cut must be gone for good before the footer of what stays vouches for there being nothing behind it.
            self._disk.sync_folder()
            self._names_changed = False
        # As long as one that was cut is there, so must be the one before it that says why.
        self._set_files_aside(each for each, do in plan if Step.SET_FILE_ASIDE in do and each.tears)
        self._join(plan)
        delayed, dead = (sum(segment.waiting_in(line) for segment in self._segments) for line in (layout.DELAYED_LINE, layout.DEAD_LINE))
        report = RecoveryReport(
            items=sum(segment.map.live for segment in self._segments) - delayed - dead,
            delayed=delayed,
            dead_letters=dead,
            segments=len(found),
            unknown_names=tuple(sorted(unknown)),
            notes=tuple(self._notes[:_NOTES_MAX]),
            clean=self._clean,
            **self._counts,
        )
        return Recovered(self._segments, queue, max(numbers, default=0) + 1, self._next_sequence, self._other_bytes(), report)

    def _refuse(self, each: Found) -> None:
        raise UnknownFormat(
            self._disk.path_of(each.name), offset=8, found=each.version, expected=layout.VERSION,
            what="written in a newer format", hint="open this folder with the version of overspill that wrote it, or a later one; nothing was changed",
        )

    def _note(self, each: Found | str, text: str) -> None:
        """Something is not as an orderly close leaves it."""
        self._clean = False
        name = each if isinstance(each, str) else each.name
        if len(self._notes) < _NOTES_MAX:
            self._notes.append(f"{name}: {text}")

    def _finish_moves(self, plan: Plan) -> None:
        """Before any segment is sealed that a record has moved to, the mark of the old record is on stable storage (I12)."""
        for each, _ in plan:
            if each.remarked is not None:
                fd = self._disk.open_rw(each.name)
                try:
                    self._disk.pwrite(fd, each.remarked, layout.MARKS_START)
                    self._disk.datasync(fd)
                finally:
                    self._disk.close_file(fd)
                self._counts["moves_finished"] += len(each.moved_away)

    # --- whole files

    def _set_files_aside(self, found: Iterable[Found]) -> None:
        for each in found:
            what = each.header_is if each.header_is is not Header.GOOD else each.standing
            reason = f"header: {what.value}" if isinstance(what, Header) else what.value
            self._note(each, f"set aside as a whole ({reason})")
            self._quarantine.keep_file(each.name, reason)
            self._counts["quarantined_files"] += 1
            self._counts["quarantined_bytes"] += each.size

    def _remove(self, plan: Plan, leftovers: Iterable[str], unknown: list[str]) -> None:
        """Newest first: as long as one that was cut is there, so is the torn one before it that says why."""
        if any(each.standing is Standing.REPLACED for each, _ in plan):
            self._disk.sync_folder()  # the name of what replaces them, before they go
        for each, do in reversed(plan):
            if Step.CUT_WHOLE in do:
                self._cut_whole(each)
            elif Step.REMOVE_EMPTY in do:
                self._note(each, "never written to, removed")
                self._unlink(each.name)
            elif Step.REMOVE_OBSOLETE in do:
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

    def _cut_whole(self, each: Found) -> None:
        header = each.whole
        reading = each.reading
        if reading is None:  # it was never numbered; its salt still tells its records
            with Reader(self._disk, each.name) as file, file.map_of(header.records_start, file.size) as data:
                reading = read_records(data, header.salt, header.records_start, Known())
        end = reading.torn.offset + reading.torn.length if reading.torn else reading.end
        records = len(reading.records) + reading.torn_records
        self._count_torn(each, Stretch(header.records_start, end - header.records_start, "torn"), records)
        self._unlink(each.name)

    # --- what joins the log

    def _join(self, plan: Plan) -> None:
        joining = [(each, do) for each, do in plan if not JOINS.isdisjoint(do)]
        for each, do in joining:
            place = Place.NEWEST if each is joining[-1][0] else Place.OLDER
            stay = CONTENTS[content_of(each, self._now_ns), place]
            self._tell_what_it_was(each)
            for step in do:
                self._steps[step](self, each, stay)
            if stay is not Stay.KEEP:
                self._unlink(each.name)
                if stay is Stay.DROP_EXPIRED:
                    self._counts["expired_segments"] += 1
                    self._counts["expired_items"] += each.live
        self._name_by_number()
        if self._names_changed:
            self._disk.sync_folder()

    def _tell_what_it_was(self, each: Found) -> None:
        if each.ending is Ending.OPEN:
            self._note(each, "not sealed")
        elif each.ending is not Ending.SEALED:
            self._note(each, f"its end is damaged ({each.ending.value})")
        if each.reading is not None:
            self._counts["rescanned"] += 1
        if each.marks.rotten:
            self._note(each, f"{counted(each.marks.rotten, 'damaged word')} of settle marks: items may be delivered again")
            self._counts["rotten_marks"] += each.marks.rotten
        if each.missing_bytes:
            self._counts["missing_bytes"] += each.missing_bytes
            self._note(each, f"{each.missing_bytes} of {each.whole.file_size} bytes are missing at its end")

    def _take(self, each: Found, stay: Stay) -> None:
        if stay is Stay.KEEP:
            assert each.footer is not None
            segment = self._segment(each, each.whole)
            segment.trust(each.footer, each.directory, each.marks.marked)

    def _seal(self, each: Found, stay: Stay) -> None:
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
            size = self._write_footer(segment, fd, lanes, each.reading.end)
            self._disk.truncate(fd, size)
        finally:
            segment.let_go_of_fd()
        segment.allocated = layout.blocks(size)
        assert segment.footer is not None
        segment.trust(segment.footer, segment.directory.values(), each.marks.marked)

    def _write_footer(self, segment: Segment, fd: int, lanes: list[tuple[Any, ...]], end: int) -> int:
        try:
            return segment.write_footer(fd, lanes, end, self._next_sequence)
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
        # Copy on write, and a full disk. What was preallocated behind the records is room that this file can give back.
        self._disk.truncate(fd, end)
        return segment.write_footer(fd, lanes, end, self._next_sequence)

    def _segment(self, each: Found, header: layout.SegmentHeader) -> Segment:
        segment = Segment(self._disk, each.name, header, layout.blocks(each.size), None, self._plain)
        self._segments.append(segment)
        return segment

    def _set_records_aside(self, each: Found, stay: Stay) -> None:
        assert each.reading is not None
        with Reader(self._disk, each.name) as file:
            for stretch in each.reading.damaged:
                text = f"{stretch.length} bytes at {stretch.offset} are damaged ({stretch.reason})"
                kept = self._keep(each, file, stretch, stretch.length)
                self._note(each, f"{text}, {kept}")
                self._counts["quarantined"] += stretch.records
                self._counts["quarantined_bytes"] += stretch.length

    def _cut(self, each: Found, stay: Stay) -> None:
        assert each.reading is not None and each.reading.torn is not None
        self._count_torn(each, each.reading.torn, each.reading.torn_records)

    _steps: Final[dict[Step, Callable[[_Recovery, Found, Stay], None]]] = {
        Step.SET_RECORDS_ASIDE: _set_records_aside,
        Step.CUT: _cut,
        Step.SEAL: _seal,
        Step.TAKE: _take,
    }

    def _count_torn(self, each: Found, torn: Stretch, records: int) -> None:
        self._counts["torn_bytes"] += torn.length
        self._counts["torn_records"] += records
        text = f"{torn.length} bytes at {torn.offset} were torn off, {records} records among them"
        if torn.length:
            with Reader(self._disk, each.name) as file:
                text += f", {self._keep(each, file, torn, min(torn.length, _TORN_KEPT_MAX))}"
        self._note(each, text)

    def _keep(self, each: Found, file: Reader, stretch: Stretch, length: int) -> str:
        try:
            name = self._quarantine.keep(each.name, stretch.offset, file.read(stretch.offset, length), stretch.reason)
        except OSError as error:
            # A full disk must not keep the queue from opening. Counted and told all the same.
            return f"no room to keep them ({error.strerror})"
        return f"kept as {layout.QUARANTINE_NAME}/{name}"

    def _name_by_number(self) -> None:
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
