"""Opening and closing: the parts of a queue are put together here and nowhere else.

Opening: check the options, create or check the folder, lock it, recover what is there, hand the recovered runs to their lines, start. Closing: refuse what is new, let what is left be
dequeued for as long as was asked, persist, unlock. Both leave nothing half done: an opening that fails has let go of everything it took.
"""
from __future__ import annotations

import atexit
import json
import os
import secrets
import threading
import uuid
import weakref
from collections import Counter, deque
from datetime import timedelta
from typing import Any

from .._core.lane import Run, lane_over
from .._core.limiter import Limiter
from .._core.turns import Turns
from .._engine.leases import Leases
from .._store import layout
from .._store.files import Disk
from .._store.folder import FolderLock, Quarantine
from .._store.log import Log, NoRoom
from .._store.recovery import Recovered, RecoveryReport, recover
from ..codecs import codec_number
from ..options import Durability, Options, OverflowStrategy, seconds
from ..serializers import ANY_OBJECT, resolve
from ..stats import REFUSALS, QueueStats
from .clock import Clock, SystemClock
from .commit import GroupCommit
from .dead_letters import DeadLetters
from .keeping import Keeping
from .pump import the_pump
from .sync_times import SyncTimes
from .waiting import Steps, blocking

__all__ = ["Assembled"]

_SAID = (
    "waiting", "in_flight", "delayed", "memory_items", "memory_bytes", "memory_ratio", "disk_items", "disk_ratio", "pressure", "enqueued", "dequeued", "redelivered", "expired", "dropped",
    "quarantined", "spilled", "syncs", "sync_seconds_last", "sync_seconds_max", "sync_seconds_total",
)  # fmt: skip

_open_queues: weakref.WeakSet[Assembled] = weakref.WeakSet()


class Assembled(Keeping):
    """A queue with everything it needs. The faces derive from it."""

    def _open(self, options: Options, *, clock: Clock | None = None, disk_class: type[Disk] = Disk, plain: bool | None = None, background: bool = True) -> None:
        """Put the queue together. `clock`, `disk_class`, `plain` and `background` are the tests' ways in: time, faults, the other writer, no pump."""
        self._state = "closed"
        self._options = options
        self._pid = os.getpid()
        self._clock = clock or SystemClock()
        self._clock.attach(self)
        self._codec = resolve(options.serializer)
        self._compression = codec_number(options.compression)
        self._log = self._disk = self._lock = self._quarantine = None
        self._pump = None
        self._leases = Leases()
        self._deaths, self._exhausted, self._heartbeats = {}, [], {}
        self._dead_letters = DeadLetters(self)
        self._limiter = Limiter(options.rate_limit) if options.rate_limit is not None else None
        self._turns = Turns(self._limiter) if self._limiter is not None else None
        self._dropped, self._refused = Counter(), dict.fromkeys(REFUSALS, 0)
        self._to_tell = deque()
        self._subscriptions, self._by_size = [], []
        self._recovery: RecoveryReport | None = None
        self._compacting = threading.RLock()
        self._cursors = weakref.WeakSet()
        self._sync_times = SyncTimes()
        self._commit = GroupCommit(self._timed_sync)
        self._max_item_size = options.max_item_size
        self._ttl_ns = round(options.ttl * 1e9) if options.ttl else 0
        self._id_base = secrets.randbits(61)
        self._takes_bytes = options.serializer in ("auto", "raw")
        self._takes_str = options.serializer in ("auto", "str")
        self._takes_any = self._codec is ANY_OBJECT
        self._set_budget(options.memory_size, options.memory_limit)
        if options.max_items is not None:
            self._most_items = options.max_items
        self._overwrites = options.rings and options.on_dropped is None
        self._spills_oldest = options.overflow_strategy is OverflowStrategy.OLDEST
        self._open_lane(128)
        if options.disk_path is not None:
            self._open_folder(options, disk_class, plain)
        self._logs = self._log is not None and options.durability >= Durability.PROCESS
        self._state = "open"
        self._opened_ns = self._now_ns()
        if background:
            self._pump = the_pump()
            self._pump.register(self)
        hot = self._log is None or not self._log.plain
        self._commits = self._is_power(options.durability)
        self._head.allow(hot)
        self._plain_items = hot and (self._log is None or not self._compression) and options.overflow_strategy is not OverflowStrategy.LARGEST
        self._tail.allow(self._plain_items)
        if self._ttl_ns:
            self._plan_sweep()
        with self._head:
            self._promote_due()
        self._plan_due()
        if options.rings:
            self._overwrite()  # there may be one too many, or more than max_items is now
        _open_queues.add(self)

    def _open_folder(self, options: Options, disk_class: type[Disk], plain: bool | None) -> None:
        assert options.disk_path is not None and options.name is not None
        disk = disk_class.create_folder(options.disk_path, options.name)
        lock = None
        try:
            lock = FolderLock(disk)
            if plain is None:
                plain = not disk.preallocation_holds()
            quarantine = Quarantine(disk)
            found = recover(disk, quarantine, plain=plain, now_ns=self._now_ns())
            log = Log(
                disk, queue=found.queue or uuid.uuid4().bytes, max_bytes=options.max_disk_size, plain=plain, rings=options.rings,
                recycles=options.durability is Durability.POWER, now_ns=self._now_ns, on_damage=self._damaged, on_rebuilt=self._rebuilt, on_broken=self._broke,
            )
            log.adopt(found.segments, found.next_number, found.other_bytes)
            self._log, self._disk, self._lock, self._quarantine = log, disk, lock, quarantine
            self._recovery = found.report
            self._take_over(found)
        except BaseException:
            if lock is not None:
                lock.release()
            disk.close()
            raise

    def _take_over(self, found: Recovered) -> None:
        """Hand what recovery found to the lines: one run for each segment and priority."""
        self._next_sequence = max(1, found.next_sequence)
        self._count_waiting(found.report.items)
        self._count_in(layout.DELAYED_LINE, found.report.delayed)
        self._count_in(layout.DEAD_LINE, found.report.dead_letters)
        lanes: dict[int, list[Run]] = {}
        for segment in found.segments:
            if segment.map.live == 0:
                continue
            self._list(segment)
            for line, entry in segment.directory.items():
                if line < layout.DELAYED_LINE:
                    lanes.setdefault(line, []).append(Run(segment.map, line, 0, 0, entry.first_place, entry.last_place))
        for priority, runs in lanes.items():
            ordered = all(a.last_place < b.bound for a, b in zip(runs, runs[1:], strict=False))
            self._recovered_runs(priority, runs, not ordered)
        self._n_recovered = self._waiting + self._delayed + self._dead

    _n_recovered: int = 0
    _opened_ns: int = 0

    # --- closing

    def close(self, drain: float | timedelta | None = None) -> None:
        """Close the queue: nothing new is accepted from now on; what is left is kept for the next opening, and everything is on stable storage on return.

        `drain`: give consumers up to this many seconds to empty the queue first. Waiting consumers get what is left, then `QueueClosed`. Leased items come back at the next opening.
        Closing twice does nothing.
        """
        blocking(self._closing(drain))

    def _closing(self, drain: float | timedelta | None) -> Steps[None]:
        if self._is_parents or self._state == "closed":
            return
        deadline = None if drain is None else self._clock.monotonic() + seconds("drain", drain)
        yield from self._errand(self._stop_intake).steps()
        if deadline is not None:
            yield from self._draining(deadline)
        yield from self._errand(self._end).steps()

    def _end(self) -> None:
        """The second half of `close`."""
        self._takers.wake_all()
        self._last_orders()
        with self._tail:
            self._stage_all()
        if self._pump is not None:
            self._pump.forget(self)
        with self._tail, self._head:
            if self._state != "closing":
                return
            self._tail.allowed = self._head.allowed = False
            try:
                self._persist()
            finally:
                self._state = "closed"
                if self._lock is not None:
                    self._lock.release()
                if self._disk is not None:
                    self._disk.close()
        _open_queues.discard(self)
        self._takers.wake_all()
        self._tell_makers()
        self._tell()

    def _stop_intake(self) -> None:
        """Nothing comes in any more; what is in line can still be taken."""
        with self._tail:
            if self._state == "open":
                self._state = "closing"
            self._tail.allowed = False
        self._tell_makers()
        self._takers.wake_all()  # whoever lingers over a batch hands out what there is

    def _entrusted(self) -> int:
        """Items that were found or put and that somebody has to deal with, or has: neither expired nor given up. Of a closed queue, what was taken."""
        gone = self._n_expired + self._n_removed + self._n_cleared + self._n_quarantined + sum(self._drops().values())
        there = self._waiting + self._passing if self._state == "closed" else 0
        return self._n_recovered + self._n_enqueued + self._dropped_unseen - gone - there

    def _last_orders(self) -> None:
        """Before the store is closed. What is left in it is there at the next opening, so nobody has to be waited for."""

    def _stage_all(self) -> None:
        """MEMORY: write what is only in memory to the log. On a full disk the queue stays as it is, refusing new items: make room, take items out, and close again."""
        if self._log is None or self._log.broken is not None or self._logs or self._destroys:
            return
        try:
            while self._resident:
                if not self._spill_first(self._oldest_resident_lane(), self._resident):
                    break
        except NoRoom as shortage:
            raise self._full_error(shortage) from None

    def _draining(self, deadline: float) -> Steps[None]:
        """Wait until consumers have taken everything, or the time is up."""
        with self._makers.place() as place:
            while self._in_line() or self._out:
                left = deadline - self._clock.monotonic()
                if left <= 0:
                    return
                if not place.take():
                    yield place.waiter, left

    def _persist(self) -> None:
        log = self._log
        if log is None:
            return
        if self._destroys:
            log.abandon()
            self._disk.remove_folder()  # type: ignore[union-attr]
            return
        if log.broken is not None:
            log.abandon()
            return
        for token in list(self._leases._held):
            self._leases.end(token)
        self._bury_all_exhausted()
        self._let_go(self._claims_out())  # leased, or taken by somebody who waits for the sync; he may have it while another goes back
        self._stage_all()
        self._tail_map = None
        log.close(self._next_sequence)

    def destroy(self) -> None:
        """Close the queue and delete its folder with everything in it, damaged parts included. There is no way back."""
        if self._is_parents:
            self._refuse(taking=True)
        if self._options.disk_path is None:
            self.close()
            return
        if self._state == "closed":
            # Somebody else may have it by now: only who holds the lock may delete.
            disk = Disk.open_folder(os.path.join(self._options.disk_path, self._options.name or ""))
            try:
                lock = FolderLock(disk)
                try:
                    disk.remove_folder()
                finally:
                    lock.release()
            finally:
                disk.close()
            return
        self._destroys = True
        self.close()

    _destroys: bool = False

    def _at_exit(self) -> None:
        """The interpreter ends and the queue is open."""
        self.close()

    def __enter__(self) -> Any:
        self._refuse(taking=False)
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        options = getattr(self, "_options", None)
        if options is None:
            return f"<{type(self).__name__} (not opened)>"
        state = "" if self._state == "open" else f", {self._state}"
        on_disk = f" + {self.disk_size:,} on disk only" if options.disk_path is not None else ""
        return f"<{type(self).__name__} {options.name or 'in memory'!s}: {self._waiting:,} waiting = {self._resident:,} in memory{on_disk}{state}>"

    # --- what it says of itself

    @property
    def name(self) -> str | None:
        """The queue's name."""
        return self._options.name

    @property
    def closed(self) -> bool:
        """Whether `close` has begun."""
        return self._state != "open"

    @property
    def recovery(self) -> RecoveryReport | None:
        """What opening found: items, segments scanned, torn bytes cut, quarantined. None for a queue without a disk."""
        return self._recovery

    @property
    def dead_letters(self) -> DeadLetters:
        """What ran out of attempts or was rejected, with the reason; `.replay()` puts it back."""
        return self._dead_letters

    def stats(self) -> QueueStats:
        """The queue's accounts, as one frozen `QueueStats`."""
        if self._is_parents:
            self._refuse(taking=True)
        with self._tail, self._head:
            log, latency = self._log, self._sync_times.look()
            disk_bytes = log.used_bytes if log is not None else 0
            oldest_ns = self._oldest_enqueued_ns() if log is None or self._state == "closed" or log.broken is not None else self._oldest_cold_ns()
            return QueueStats(
                name=self._options.name, waiting=self._waiting, in_flight=len(self._out) + self._passing, memory_items=self.memory_size, memory_bytes=self._resident_bytes,
                disk_items=self.disk_size, disk_bytes=disk_bytes, memory_ratio=self._usage(),
                disk_ratio=disk_bytes / log.max_bytes if log is not None else 0.0, pressure=self.pressure,
                enqueued=self._n_enqueued + self._dropped_unseen, dequeued=self._n_dequeued, leased=self._n_leased, redelivered=self._n_redelivered,
                expired=self._n_expired, dropped=self._drops(), removed=self._n_removed, cleared=self._n_cleared, quarantined=self._n_quarantined,
                recovered=self._n_recovered, spilled=self._n_spilled, delayed=self._delayed, dead_letters=self._dead,
                oldest_age=None if not oldest_ns else max(0.0, (self._now_ns() - oldest_ns) / 1e9),
                segments=len(log) if log is not None else 0, syncs=log.sync_count if log is not None else 0,
                sync_seconds_last=latency.last, sync_seconds_max=latency.longest, sync_seconds_total=latency.total, recovery=self._recovery,
                refused=dict(self._refused), sync_latency=latency, disk_limit=log.max_bytes if log is not None else None, opened_at=self._opened_ns / 1e9,
                state="broken" if log is not None and log.broken is not None and self._state != "closed" else self._state,
            )

    def _say_how_it_is(self) -> None:
        """What only the owner knows, for who looks at the folder from outside; at most once a sync, where the pump is anyway."""
        if self._lock is not None and self._lock.held:
            now = self.stats()
            said = {key: getattr(now, key) for key in _SAID} | {"at_ns": self._now_ns(), "durability": self._options.durability.name.lower(), "max_disk_size": self._options.max_disk_size}
            self._lock.say(json.dumps(said).encode())

    def _drops(self) -> dict[str, int]:
        drops = Counter(self._dropped)
        for reason, n in (("full_oldest", self._n_overwritten), ("dead_letters_full", self._n_dead_dropped)):
            if n:
                drops[reason] += n
        return dict(drops)

    def _oldest_cold_ns(self) -> int:
        """When the oldest item was enqueued, the cold ones included: the first record of every line's first run tells."""
        least = self._oldest_enqueued_ns()
        for lane in self._lanes():
            if lane.runs:
                claim = self._read(lane_over([lane.runs[0].clone()], False))
                if claim is not None and (least == 0 or claim.enqueued_ns < least):
                    least = claim.enqueued_ns
        return int(least)


def _close_all() -> None:
    for queue in list(_open_queues):
        try:
            queue._at_exit()
        except Exception:
            import logging

            logging.getLogger("overspill").exception("closing %r at exit failed", queue)


def _after_fork_in_child() -> None:
    for queue in list(_open_queues):
        # The child shares files and mapping with its parent: whatever it did here would be done to the parent's queue.
        queue._belongs_to_parent()
    _open_queues.clear()


atexit.register(_close_all)
os.register_at_fork(after_in_child=_after_fork_in_child)


