"""Checking a queue's folder, and making it whole.

`verify` looks at everything that has a check code. `plan_of` says what `repair` would do; `repair` does it. What it does is what opening the queue does
(`_store/recovery.py`), and more: every waiting record, index and mark word is read, what is damaged is dealt with now, and the bytes that are replaced are kept in `quarantine/`
first. Nothing is thrown away but what is proven obsolete.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from .._store import inspection, layout
from .._store.files import Access, Disk
from .._store.folder import FolderLock, Quarantine
from .._store.inspection import Inspection, OnStep, Problem
from .._store.observation import Ending, Found, Reader, observe
from .._store.recovery import JOINS, RecoveryReport, decide
from ..errors import UnknownFormat
from ..hybrid import HybridQueue
from .folders import open_queue, require_queue

__all__ = ["Change", "Repaired", "compact", "damage_of", "plan_of", "repair", "verify"]

_SAYS: Final = {
    "REFUSE": "nothing: it is of a newer format, and the whole folder is left alone",
    "SET_FILE_ASIDE": "move the file to quarantine: nothing in it can be told",
    "REMOVE_OBSOLETE": "remove the file: what it held is in another one, or settled",
    "REMOVE_EMPTY": "remove the file: it never held anything",
    "CUT_WHOLE": "keep a copy of up to 1 MiB in quarantine and remove the file: it follows a torn end",
    "SET_RECORDS_ASIDE": "copy the damaged records to quarantine and go on behind them",
    "CUT": "keep a copy of up to 1 MiB of what is behind the last good record, and cut it",
    "SEAL": "write index and footer",
}
"""What the steps of a recovery are to a person. TAKE is nothing to tell."""


class Change(NamedTuple):
    """Something that `repair` would do."""

    file: str
    what: str

    def __str__(self) -> str:
        return f"{self.file}: {self.what}"


class Repaired(NamedTuple):
    """What `repair` did."""

    changes: tuple[Change, ...]
    recovery: RecoveryReport
    records_set_aside: int
    """Damaged records found beyond those that `recovery` tells of."""
    waiting: int
    kept: tuple[str, ...]
    """What is in quarantine now that was not there before."""


def verify(path: str | os.PathLike[str], *, on_step: OnStep = lambda nbytes: None) -> Inspection:
    """Check every checksum, mark word and footer of a queue's folder. Changes nothing; works beside a running owner and on a copy. `on_step` is told the bytes of every segment."""
    require_queue(path)
    return inspection.inspect(path, deep=True, on_step=on_step)


def damage_of(found: Inspection) -> tuple[Problem, ...]:
    """What a check found that is not as it was written, torn ends included: those of a power cut, and damage that cannot be told from one."""
    torn = (
        Problem(each.name, None, "all zeros" if "REMOVE_EMPTY" in each.plan else f"torn at its end: {each.torn_bytes:,} bytes, {each.torn_records:,} whole records among them, will be cut")
        for each in found.segments
        if each.name in found.torn
    )
    return (*found.problems, *torn)


def plan_of(path: str | os.PathLike[str], *, on_step: OnStep = lambda nbytes: None) -> tuple[Change, ...]:
    """What `repair` would do to the folder. Changes nothing; beside a running owner it is told of a moment, and repairing would be refused."""
    return _changes(verify(path, on_step=on_step))


def _changes(found: Inspection) -> tuple[Change, ...]:
    changes = [Change(each.name, _SAYS[step]) for each in found.segments for step in each.plan if step in _SAYS]
    sealed = {each.name for each in found.segments if "TAKE" in each.plan}
    changes += [Change(problem.file, f"{problem.what}: keep the bytes in quarantine and make it right") for problem in found.problems if problem.file in sealed]
    return (*changes, *(Change(name, "remove it: left over from a segment that was being made") for name in found.leftovers))


def repair(path: str | os.PathLike[str], *, on_step: Callable[[int], None] = lambda n: None) -> Repaired:
    """Make the folder whole and say what was done; `on_step` is told of the items that were read.

    Raises `QueueLocked`, and `UnknownFormat` before anything is changed if a segment is of a newer format. A repair that is killed may be run again.
    """
    found = verify(path)
    if any("REFUSE" in each.plan for each in found.segments):
        raise UnknownFormat(found.path, what="written in a newer format", hint="use the version of overspill that wrote it, or a later one; nothing was changed")
    with Disk.open_folder(path) as disk:
        lock = FolderLock(disk)
        try:
            before = _kept(disk)
            _keep_what_is_replaced(disk)
        finally:
            lock.release()
    with open_queue(path) as q:
        damaged = _read_everything(q, on_step)
        recovery, waiting = q.recovery, len(q)
        q.sync()
    assert recovery is not None
    with Disk.open_folder(path, Access.LOOK) as disk:
        kept = tuple(sorted(_kept(disk) - before))
    return Repaired(_changes(found), recovery, damaged, waiting, kept)


def compact(path: str | os.PathLike[str]) -> int:
    """Let what has expired leave, rewrite segments that are mostly settled; returns the bytes given back to the disk. Raises `QueueLocked`."""
    with open_queue(path) as q:
        return int(q.compact())


def _kept(disk: Disk) -> set[str]:
    if layout.QUARANTINE_NAME not in {entry.name for entry in disk.listing()}:
        return set()
    with disk.subfolder(layout.QUARANTINE_NAME) as aside:
        return {entry.name for entry in aside.listing() if entry.name != layout.REPORT_NAME}


def _keep_what_is_replaced(disk: Disk) -> None:
    """Copies of the marks, counts, indexes and footers that are going to be written anew. Damaged records are kept by whoever meets them."""
    quarantine = Quarantine(disk)
    names = [(layout.parse_name(entry.name), entry.name) for entry in disk.listing()]
    found, _ = observe(disk, ((name, parsed.number or 0) for parsed, name in names if parsed.kind is layout.Kind.SEGMENT))
    for each in found:
        if JOINS.isdisjoint(decide(each.observed)):
            continue
        with Reader(disk, each.name) as file:
            for offset, data, reason in _replaced(each, file):
                quarantine.keep(each.name, offset, data, reason)


def _replaced(each: Found, file: Reader) -> Iterator[tuple[int, bytes, str]]:
    header = each.whole
    if each.marks.rotten:
        yield layout.MARKS_START, file.marks(header), "settle marks do not check"
    counts, rotten = inspection.rotten_counts(header, file.read)
    if rotten:
        yield header.attempts_start, counts, "attempt counts do not check"
    if each.ending in (Ending.BROKEN, Ending.UNLISTED):
        end = each.reading.end if each.reading else header.records_start
        yield end, file.read(end, max(0, each.size - end)), each.ending.value
    elif each.footer is not None and any(
        not entry.vouches_for(file.read(entry.index_start, entry.index_size), header.salt) for entry in each.directory
    ):
        yield each.footer.records_end, file.read(each.footer.records_end, each.size - each.footer.records_end), "an index does not check"


def _read_everything(q: HybridQueue, on_step: Callable[[int], None]) -> int:
    """Attach every segment (which makes mark words right), use every index, read every waiting record: what is damaged is dealt with when it is met. Returns how many records were set aside."""
    before: int = q.stats().quarantined
    assert q._log is not None
    for segment in q._log.in_order():
        segment.attach()
        for offset in inspection.rotten_counts(segment.header, segment.read)[1]:
            segment.map.set_attempts(offset, 0)
        for priority in list(segment.directory):
            segment.offsets(priority, 0, 0)
    for _ in q._waiting_claims():
        on_step(1)
    return q.stats().quarantined - before
