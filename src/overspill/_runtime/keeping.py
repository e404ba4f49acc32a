"""Beside the verbs: syncing, sealing, reclaiming, expiring, and taking out of the middle.

`_work` is what the pump calls; it does what is due and says when to come back. Everything it does may also be asked for by name (`sync`, `cleanup`, `compact`), and a queue that is never
worked on is correct all the same: it only keeps more files and pages than it needs to.
"""
from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable
from itertools import chain
from typing import Any

from .._core.lane import Run
from .._core.lanes import CLEARED, EXPIRED
from .._core.segmap import SegmentMap
from .._store import compaction, layout
from .._store.log import NoRoom
from .._store.segment import Segment
from ..errors import InvalidOption
from .batching import Batching
from .leasing import Leasing
from .looking import Looking
from .parts import NEVER, NO_LIMIT
from .spilling import Spilling
from .sync_times import SyncTimes
from .waiting import Steps, blocking

__all__ = ["Keeping"]

"""What `poke_at` is once the core has asked for the next segment."""

_SEAL_AFTER_S = 1.0
_LEFT_AT_MOST = 0.25
_LEFT_WHEN_ASKED = 0.5
"""Compaction takes segments of which no more than this is left: by itself, and asked for by name."""
_SWEEP_MOST = 1024
_COMPACT_EVERY_S = 1.0


class Keeping(Spilling, Batching, Leasing, Looking):
    """The background half of a queue."""

    _compacting: threading.RLock
    """One compaction at a time."""
    _sync_due: float | None = None
    _seal_due: float | None = None
    _sweep_due: float | None = None
    _n_quarantined: int = 0
    _sync_times: SyncTimes

    # --- what the core and the log call

    def _dirtied(self, map: SegmentMap) -> None:
        """Something changed in a segment for the first time since its last sync."""
        assert self._log is not None
        interval = self._options.sync_interval
        if interval is not None and self._sync_due is None and self._pump is not None:
            due = self._clock.monotonic() + interval
            self._pump.at(due, self)
            self._sync_due = due
        self._log.dirtied(map.owner)  # last, for then the core does not ask again

    def _emptied(self, map: SegmentMap) -> None:
        """Everything in a segment that is not the active one is settled."""
        assert self._log is not None
        segment = map.owner
        if not segment.retired and not self._log.spare(segment):
            self._log.emptied[segment.number] = segment
            self._soon()
            if self._n_makers:
                self._makers.wake()

    def _room_made(self) -> None:
        """Called by the core after an item left, if somebody waits for room (or, in `close`, for the last item to leave)."""
        if self._log is None or self._log.emptied or self._most_items < NO_LIMIT or self._state == "closing":
            self._makers.wake()

    def _set_aside_stub(self, map: SegmentMap, offset: int) -> None:
        """Called by the core: the record of a stub does not check."""
        map.owner.set_aside(offset, None)  # it has left its line already
        map.settle(offset)

    def _damaged(self, segment: Segment, offset: int, what: str, data: bytes, line: int | None) -> None:
        """Called by a segment: keep the bytes before the record is settled, count, report. `line`: the one that it stands in, and now leaves."""
        assert self._log is not None and self._quarantine is not None
        before = self._quarantine.bytes_held()
        try:
            self._quarantine.keep(segment.name, offset, data, f"the {what} does not check")
        finally:
            self._log.count_other_bytes(self._quarantine.bytes_held() - before)
        if what != "stretch":  # those are counted when the whole segment has been read
            if line is not None:
                self._count_in(line, -1)
            self._n_quarantined += 1
        import logging

        logging.getLogger("overspill").error("%r: damaged record in %s at offset %d set aside in %s/quarantine", self, segment.name, offset, segment.disk.path)

    def _rebuilt(self, segment: Segment, lost: dict[int, int]) -> None:
        """Called by a segment whose index had to be made anew: so many waiting records of these lines were damaged as well."""
        for line, n in lost.items():
            self._count_in(line, -n)
            self._n_quarantined += n

    def _broke(self, error: BaseException) -> None:
        """Called by the log when a write or sync failed: every call says so from now on."""
        assert self._log is not None
        self._log.broken = error
        self._log.broken = self._broken_error()
        self._hot_in = self._hot_out = False
        self._tail.allowed = self._head.allowed = False
        self._takers.wake_all()
        self._tell_makers()

    # --- the pump's call

    def _work(self) -> float | None:
        """Do what is due; returns when to be called again, None if nothing is due by itself."""
        if self._state == "closed":
            return None
        now = self._clock.monotonic()
        due: list[float] = []
        if self._log is not None and self._log.broken is None:
            self._reclaim()
            self._stay_ahead()
            self._seal(now, due)
            self._sync_if_due(now, due)
            self._compact_if_due(now, due)
            self._log.limit_descriptors()
        self._beat(now, due)
        self._end_leases(now, due)
        self._let_in(now, due)
        self._sweep(now, due)
        self._wake_if_closing()
        self._tell()
        return min(due, default=None)

    def _reclaim(self) -> None:
        assert self._log is not None
        if self._log.emptied:
            self._log.retire_emptied()
            if self._n_makers:
                self._makers.wake()

    def _stay_ahead(self) -> None:
        """Have the next segment ready before this one is full."""
        assert self._log is not None
        if self._log.active is not None and self._state == "open":
            self._log.prepare_next(lambda: self._poke_at == NEVER)

    def _seal(self, now: float, due: list[float]) -> None:
        """Seal what was rolled a while ago; what has been consumed by then never needs to be."""
        assert self._log is not None
        if not self._log.unsealed:
            self._seal_due = None
            return
        if self._seal_due is None:
            self._seal_due = now + _SEAL_AFTER_S
        if now < self._seal_due:
            due.append(self._seal_due)
            return
        if self._seal_one():
            due.append(now)
        else:
            self._seal_due = None

    def _seal_one(self) -> bool:
        """Seal the oldest rolled segment that still holds something; False if there is none."""
        assert self._log is not None
        sealed = self._log.seal_next(self._next_sequence)
        self._list_sealed()
        return sealed is not None

    def _list_sealed(self) -> None:
        """What was sealed has its part of the lines ordered by time in its index: let them read it there, and forget what they have in memory of it."""
        if not any(lane.heap_n for lane in self._timed_lanes()):
            return
        assert self._log is not None
        for segment in self._log.in_order():
            if segment.footer is not None and not segment.listed and not segment.retired:
                with self._head:
                    self._list(segment)

    def _list(self, segment: Segment) -> None:
        """As `_list_sealed`, of one segment. Caller holds the head. A record that has moved away and is not marked yet would be listed again (I12): then later."""
        if segment.listed or segment.moving:
            return
        segment.listed = True
        for line in (layout.DELAYED_LINE, layout.DEAD_LINE):
            entry = segment.directory.get(line)
            if entry is not None:
                self._listed_by_run(line, Run(segment.map, line, 0, 0, entry.first_place, entry.last_place))

    def _sync_if_due(self, now: float, due: list[float]) -> None:
        assert self._log is not None
        if self._sync_due is None:
            return
        if now < self._sync_due:
            due.append(self._sync_due)
            return
        self._sync_due = None
        # What was rolled meanwhile is sealed rather than synced: that comes to the same, and unmaps it first.
        while self._seal_one():
            pass
        self._timed_sync()
        self._list_sealed()
        self._say_how_it_is()
        if self._log.next_number == self._last_number:
            self._log.drop_spares()  # nothing was rolled for a while: nobody needs them
        self._last_number = self._log.next_number

    _last_number: int = 0

    def _compact_if_due(self, now: float, due: list[float]) -> None:
        """One step at most each time, and no look at the segments more than once a second."""
        if now < self._compact_next:
            return
        self._compact_next = now + _COMPACT_EVERY_S
        if self._compact_step():
            self._compact_next = now
            due.append(now)

    _compact_next: float = 0.0

    def _timed_sync(self) -> None:
        assert self._log is not None
        began = time.perf_counter()
        self._log.sync()
        self._sync_times.took(time.perf_counter() - began)

    def _end_leases(self, now: float, due: list[float]) -> None:
        self._end_overdue()
        self._bury_exhausted()
        if self._resident > self._soft_items or self._resident_bytes > self._soft_bytes:
            self._relieve()
        deadline = self._leases.next_deadline()
        self._lease_wake = float("inf") if deadline is None else deadline
        if deadline is not None:
            due.append(deadline)

    def _sweep(self, now: float, due: list[float]) -> None:
        """Expire in the middle of the lines, now and then, while anything that can expire may be waiting."""
        if self._sweep_due is None:
            return
        if now < self._sweep_due:
            due.append(self._sweep_due)
            return
        self._expire_in_memory()
        self._expire_segments()
        self._sweep_due = None
        if self._waiting:
            self._plan_sweep()
            if self._sweep_due is not None:
                due.append(self._sweep_due)

    def _plan_sweep(self) -> None:
        ttl_s = self._options.ttl
        if ttl_s is None or self._pump is None:
            return
        due = self._clock.monotonic() + max(1.0, ttl_s / 4)
        if self._sweep_due is None or due < self._sweep_due:
            self._sweep_due = due
            self._pump.at(due, self)

    # --- expiry

    def _expire_in_memory(self) -> int:
        """Items in memory that have expired leave, wherever in line they are."""
        n = 0
        while True:
            with self._head:
                expired = self._expired_in_memory(self._now_ns(), _SWEEP_MOST)
                for priority, sequence in expired:
                    claim = self._pull_out(priority, sequence)
                    if claim is not None:
                        self._expire(claim)
                        n += 1
            if len(expired) < _SWEEP_MOST:
                return n

    def _expire_segments(self) -> int:
        """A cold segment in which everything has expired leaves as a whole, unread."""
        if self._log is None or self._options.on_expired is not None:
            return 0
        n = 0
        now = self._now_ns()
        for segment in self._log.in_order():
            footer = segment.footer
            if footer is None or footer.count == 0 or footer.without_expiry or footer.greatest_expiry_ns > now or segment.moving:
                continue
            with self._head:
                if self._uses(segment.map) or self._is_out_of(segment.map):
                    continue
                self._drop_runs(segment.map)
                live, delayed = segment.map.live, segment.waiting_in(layout.DELAYED_LINE)
                segment.map.live = 0
                self._count_waiting(delayed - live)
                self._count_in(layout.DELAYED_LINE, -delayed)
                self._n_expired += live
                n += live
            self._log.emptied[segment.number] = segment
        return n

    def _expire_cold(self) -> int:
        """Read every cold record and let the expired ones leave."""
        n = 0
        with self._head:
            reading = self._begin_reading()
            cursors = [([run.clone() for run in lane.runs], lane.merge) for lane in [*self._lanes(), *self._timed_lanes()]]
        for runs, merge in cursors:
            for claim in self._in_runs(runs, merge):
                if claim.expiry_ns and claim.expiry_ns <= self._now_ns():
                    with self._head:
                        if self._remove_cold(claim, EXPIRED):
                            self._tell_expired(claim)
                            n += 1
        self._cursors.discard(reading)
        return n

    def _tell_expired(self, claim: Any) -> None:
        if self._options.on_expired is not None:
            item = self._item_of(claim)
            self._tell_later(lambda: self._options.on_expired(item))  # type: ignore[misc]

    # --- the verbs

    def sync(self) -> None:
        """Everything acknowledged so far is on stable storage when this returns, whatever the durability of the queue.

        Under `MEMORY` that is what has been spilled; what is only in memory stays there.
        """
        blocking(self._syncing())

    def _syncing(self) -> Steps[None]:
        self._refuse(taking=True)
        if self._log is not None:
            yield from self._covering()

    def cleanup(self) -> int:
        """Let everything expired leave and return the space of what is settled; returns the bytes given back to the disk.

        Of an empty queue a folder of some 40 KiB is left. Where a file still holds something, it stays as it is: see `compact`.
        """
        return blocking(self._cleaning_up())

    def _cleaning_up(self) -> Steps[int]:
        try:
            return (yield from self._errand(self._clean_up).steps())
        finally:
            self._tell()

    def _clean_up(self) -> int:
        self._refuse(taking=True)
        before = 0 if self._log is None else self._log.used_bytes
        self._expire_in_memory()
        if self._log is not None:
            self._expire_segments()
            self._expire_cold()
            self._leave_active(0)
            self._log.retire_emptied()
            self._give_back_prepared()
        return 0 if self._log is None else max(0, before - self._log.used_bytes)

    def compact(self) -> int:
        """`cleanup`, then rewrite segments that are mostly settled, the one that is being written to as well; returns the bytes given back to the disk."""
        return blocking(self._compacting_all())

    def _compacting_all(self) -> Steps[int]:
        try:
            return (yield from self._errand(self._compact).steps())
        finally:
            self._tell()

    def _compact(self) -> int:
        before = 0 if self._log is None else self._log.used_bytes
        self._clean_up()
        if self._log is None:
            return 0
        self._leave_active(_LEFT_WHEN_ASKED)
        while self._seal_one():
            pass
        while self._compact_step(_LEFT_WHEN_ASKED, lambda segment: False):
            pass
        return max(0, before - self._log.used_bytes)

    def _leave_active(self, share: float) -> None:
        """If no more than this share is left of the segment that is being written to, go on in another, so that its space can be returned as that of any other."""
        log = self._log
        assert log is not None
        if not log.is_worth_leaving(share):
            return
        with self._tail:
            self._refuse(taking=True)
            if log.is_worth_leaving(share):
                old = log.active
                try:
                    segment = log.leave(self._next_sequence)
                except NoRoom:
                    return  # it needs some 32 KiB for a while
                self._go_on_in(segment, old)

    def _give_back_prepared(self) -> None:
        """What was made ready for more goes too, unless something is in the segment that comes before it."""
        log = self._log
        assert log is not None
        with self._tail:
            self._refuse(taking=True)
            if log.active is not None and log.active.map.live:
                log.drop_spares()
                return
            self._poke_at = 0  # the next hot enqueue has it made ready again; a pump that was about to make it does not
            log.drop_prepared()

    def _compact_step(self, share: float = _LEFT_AT_MOST, leave_alone: Callable[[Segment], bool] | None = None) -> bool:
        """Merge one group of adjacent, mostly settled segments; False if there is none, or no room to do it in."""
        log = self._log
        assert log is not None
        with self._compacting:
            group = compaction.choose(log, leave_alone or self._is_being_read, share)
            if not group:
                return False
            taken_back = [segment.map.unmarked for segment in group]
            try:
                merger = compaction.copy(log, group)
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT):
                    return False
                self._refuse(taking=True)  # closed meanwhile: the disk is not to blame
                log.break_down(error)
                raise self._broken_error() from error
            if merger is None:
                return False
            with self._head, log.still():
                if self._state == "closed":
                    merger.new.close()
                    self._refuse(taking=True)
                for segment in group:
                    self._list(segment)
                unsettled = any(segment.map.held for segment in group) or taken_back != [segment.map.unmarked for segment in group]
                if len(self._cursors) or unsettled or any(segment.retired or segment.moving for segment in group):
                    # Somebody iterates over these runs, has emptied one or moved something out of it; or what was settled for now, and so not copied, is not settled for good: another time.
                    log.discard(merger.new)
                    return False
                lines = [(lane, self._runs_on_copy(lane, merger)) for lane in self._lanes()]
                lines += [(lane, self._timed_runs_on_copy(lane, merger)) for lane in self._timed_lanes()]
                merger.new.listed = True
                compaction.publish(log, merger)
                for lane, runs in lines:
                    self._replace_runs(lane.line, runs)
            if merger.new.map.live == 0:
                self._emptied(merger.new.map)
            return True

    def _is_being_read(self, segment: Segment) -> bool:
        """The segment that dequeue reads from now will soon be consumed by itself."""
        for lane in self._lanes():
            if lane.runs:
                return bool(lane.runs[0].map is segment.map)
        return False

    def _runs_on_copy(self, lane: Any, merger: compaction.Merger) -> list[Run | None]:
        """The lane's runs as they are to be after the switch: None for one of which nothing is left."""
        old = {segment.map: segment for segment in merger.old}
        runs: list[Run | None] = []
        for run in lane.runs:
            segment = old.get(run.map)
            runs.append(run if segment is None else self._run_on_copy(run, segment, merger))
        return runs

    @staticmethod
    def _timed_runs_on_copy(lane: Any, merger: compaction.Merger) -> list[Run | None]:
        """A line ordered by time has one run over all that the copy lists."""
        old = {segment.map for segment in merger.old}
        runs: list[Run | None] = [run for run in lane.runs if run.map not in old]
        entry = merger.new.directory.get(lane.line)
        if entry is not None:
            runs.append(Run(merger.new.map, lane.line, 0, 0, entry.first_place, entry.last_place))
        return runs

    @staticmethod
    def _run_on_copy(run: Run, segment: Segment, merger: compaction.Merger) -> Run | None:
        here, there = merger.moved[segment.number]
        copied = dict(zip(here, there, strict=True))
        order: list[int] = []
        position = 0
        while True:
            position, window, _ = segment.offsets(run.line, position, 0)
            if not window:
                break
            order.extend(8 * offset for offset in window)
            position += len(window)
        if run.is_at_end():
            return None
        passed, begin, end = run.last_passed(), run.next_offset(), run.last
        start = order.index(passed) + 1 if passed else order.index(begin) if begin else 0
        stretch = order[start : order.index(end) + 1 if end else len(order)]
        left = [copied[offset] for offset in stretch if offset in copied and not segment.map.settled(offset)]
        if not left:
            return None
        return Run(merger.new.map, run.line, left[0], left[-1], run.bound, run.last_place, run.last_ordinal)

    def _allow_disk(self, nbytes: int) -> None:
        """From now on the folder may take so much; whoever waits for room looks again."""
        assert self._log is not None
        self._log.max_bytes = nbytes
        self._makers.wake_all()

    def clear(self) -> int:
        """Remove everything that waits, in line or for its time, as durably as the queue promises; returns how many items. Leased ones and dead letters stay."""
        return blocking(self._clearing())

    def _clearing(self) -> Steps[int]:
        try:
            n = yield from self._errand(self._clear).steps()
            if n and self._commits:
                yield from self._covering()
            return n
        finally:
            self._tell()

    def _clear(self) -> int:
        n = 0
        with self._head:
            self._refuse(taking=True)
            while (claim := self._claim() or self._claim_from(layout.DELAYED_LINE, unread=True)) is not None:
                self._settle(claim, CLEARED)
                n += 1
        return n

    def remove_where(self, predicate: Callable[[Any], bool]) -> int:
        """Remove every item, in line or waiting for its time, for which `predicate(item)` is true, as durably as the queue promises; returns how many.

        The predicate runs outside any lock; items that leave meanwhile are left alone.
        """
        self._refuse(taking=True)
        if not callable(predicate):
            raise InvalidOption("predicate", predicate, "a callable that takes an item")
        n = 0
        now = self._now_ns()
        for claim in chain(self._waiting_claims(), self._timed_claims(layout.DELAYED_LINE)):
            if (claim.expiry_ns and claim.expiry_ns <= now) or not predicate(self._item_of(claim)):
                continue
            with self._head:
                n += self._remove(claim)
        if n and self._commits:
            self._covered()
        self._tell()
        return n
