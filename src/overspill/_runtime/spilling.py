"""Out of memory: which item gives up its payload when the memory budget is reached, and who is told of the pressure.

Under `PROCESS` and `POWER` an item is in the log before it is in memory, so spilling writes nothing: the payload is forgotten, the address kept. Under `MEMORY` it is
staged first, that is written to the log then.
"""
from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from .._core.parcel import Parcel
from .._store import layout
from .._store.log import NoRoom
from ..errors import InvalidOption
from ..options import OverflowStrategy, check_thresholds
from .apart import Apart
from .parts import NO_LIMIT
from .waiting import holds_up_a_loop

__all__ = ["Spilling"]

_THRESHOLDS = (0.7, 0.9)
_HYSTERESIS = 0.05
"""How far usage must fall below a threshold before crossing it counts again."""

_STAGE_ITEMS = 256
_STAGE_BYTES = 1 << 20
_CHUNKED_FROM = 1024
"""From this many items in memory on, a MEMORY queue spills a sixteenth at a time: staging by the piece costs some µs each."""


class _Subscription:
    def __init__(self, callback: Callable[[float], object], thresholds: tuple[float, ...]) -> None:
        self.callback = callback
        self.thresholds = thresholds
        self.crossed: set[float] = set()


class Spilling(Apart):
    """The overflow strategies, the memory verbs, memory pressure."""

    _subscriptions: list[_Subscription]
    _by_size: list[tuple[int, int, int]]
    """LARGEST: a heap of (-bytes, sequence, priority), some of which have left meanwhile."""
    _by_size_upto: int = 0

    # --- the budget

    def _set_budget(self, items: int, nbytes: int | None) -> None:
        ratio = self._options.overflow_ratio
        self._memory_items = items
        self._memory_bytes = nbytes
        self._budget_items = max(1, int(items * ratio))
        self._budget_bytes = NO_LIMIT if nbytes is None else max(1, int(nbytes * ratio))
        self._watch()

    def _usage(self) -> float:
        """Share of the memory budget in use: items or bytes, whichever is greater."""
        usage = self._resident / self._memory_items
        if self._memory_bytes is not None:
            usage = max(usage, self._resident_bytes / self._memory_bytes)
        return usage

    @property
    def memory_size(self) -> int:
        """Items in line that are resident in memory."""
        return self._resident - self._held

    @property
    def pressure(self) -> float:
        """0.0 to 1.0: the share of the memory budget in use. Above 1.0 when items wait on disk: 1 + how many memories full."""
        on_disk = self.disk_size
        if on_disk > 0:
            return 1.0 + on_disk / self._memory_items
        return min(1.0, self._usage())

    def _relieve(self) -> None:
        """Called when memory use has crossed what the core watches for: tell of the pressure, spill what is over the budget."""
        self._feel_pressure()
        if self._log is not None and self._is_over_budget():
            if holds_up_a_loop():
                with self._tail.soon() as tail, self._head.soon() as head:
                    if tail and head:
                        self._spill_over()
                if self._is_over_budget():
                    self._soon()  # somebody is long about something, perhaps a sync: the background thread spills when it is done
            else:
                with self._tail:
                    self._spill_over()
        self._watch()
        self._tell()

    def _is_over_budget(self) -> bool:
        return self._resident > self._budget_items or self._resident_bytes > self._budget_bytes

    def _spill_over(self) -> None:
        """Down to the budget. The caller holds the tail."""
        try:
            self._spill_to(self._budget_items, self._budget_bytes)
        except NoRoom:
            pass  # only what is not in the log yet stays; the next enqueue meets the full disk and says so

    # --- strategies (the caller holds the tail)

    def _spill_to(self, items: int, nbytes: int) -> int:
        """Spill until no more than this is resident; returns how many items were. Raises NoRoom if one must be staged and cannot be."""
        with self._head:  # nothing may leave its line between being looked at and being folded or written
            return self._spill_down(items, nbytes)

    def _spill_down(self, items: int, nbytes: int) -> int:
        spilled = 0
        if self._resident > items and not self._logs and self._memory_items >= _CHUNKED_FROM:
            items = max(0, items - self._memory_items // 16)
        while self._resident > items or self._resident_bytes > nbytes:
            n = self._spill_some(self._resident - items)
            if not n:
                break
            spilled += n
        return spilled

    def _spill_some(self, most: int) -> int:
        strategy = self._options.overflow_strategy
        if strategy is OverflowStrategy.LARGEST:
            return self._spill_largest()
        priority = self._lowest_resident_lane() if strategy is OverflowStrategy.BY_PRIORITY else self._oldest_resident_lane()
        return self._spill_first(priority, most)

    def _spill_first(self, priority: int, most: int) -> int:
        """Fold the first ring item of a line; without a ring, forget from the heap."""
        if priority < 0:
            return self._spill_heap()
        if not self._fold_first(priority):
            self._stage_ring(priority, max(1, most))
            if not self._fold_first(priority):
                raise AssertionError("I1: a staged item can be folded")
        return 1

    def _spill_heap(self) -> int:
        unlogged = self._unlogged_heap()
        if unlogged is not None:
            line, description = unlogged
            self._stage(line, [description])
        return int(self._forget_heap())

    def _spill_largest(self) -> int:
        """Forget the payload of the largest item in memory; the item keeps its place as a stub."""
        self._note_sizes()
        while self._by_size:
            _, sequence, priority = heapq.heappop(self._by_size)
            description = self._find(priority, sequence)
            if description is None:
                continue
            if not self._logs and not self._logged(priority, sequence):
                self._stage(priority, [description])
            if self._forget(priority, sequence):
                self._fold_stubs(priority)
                return 1
        return self._spill_first(self._oldest_resident_lane(), 1)

    def _note_sizes(self) -> None:
        """Enter what came in since the last look; built anew when most of the book has left."""
        if self._by_size_upto == 0 or len(self._by_size) > 4 * self._resident + 64:
            self._by_size = []
            self._by_size_upto = 0
        first_new = self._by_size_upto
        for lane in self._lanes():
            for nbytes, sequence in self._ring_sizes(lane.line, first_new):
                heapq.heappush(self._by_size, (-nbytes, sequence, lane.line))
        self._by_size_upto = self._next_sequence

    def _fold_stubs(self, priority: int) -> None:
        """Stubs at the front of a line need no memory at all: fold them. A line of too many stubs gives up its oldest resident item as well."""
        while self._first_is_stub(priority):
            self._fold_first(priority)
        while self._logs and self._ring_length(priority) > 2 * self._memory_items + 1024:
            self._fold_first(priority)

    def _would_go_first(self, parcels: list[Parcel]) -> bool:
        """MEMORY: whether the strategy would spill the newcomers rather than anything that is in memory; then they are logged at once."""
        if self._resident + len(parcels) <= self._budget_items and self._resident_bytes + sum(parcel.nbytes for parcel in parcels) <= self._budget_bytes:
            return False
        strategy = self._options.overflow_strategy
        if strategy is OverflowStrategy.LARGEST:
            self._note_sizes()
            while self._by_size and self._find(self._by_size[0][2], self._by_size[0][1]) is None:
                heapq.heappop(self._by_size)
            return not self._by_size or max(parcel.nbytes for parcel in parcels) > -self._by_size[0][0]
        if strategy is OverflowStrategy.BY_PRIORITY:
            return min(parcel.priority for parcel in parcels) < self._lowest_resident_lane()
        return False

    # --- staging: MEMORY items on their way to the log

    def _stage_ring(self, priority: int, most: int) -> None:
        """Write the first unlogged items of a line to the log, some at a time."""
        batch: list[tuple[Any, ...]] = []
        nbytes = 0
        for description in self._unlogged_in_ring(priority, min(most, _STAGE_ITEMS)):
            nbytes += description[4]
            if batch and nbytes > _STAGE_BYTES:
                break
            batch.append(description)
        while True:
            try:
                self._stage(priority, batch)
                return
            except NoRoom:
                if len(batch) == 1:
                    raise
                batch = batch[: len(batch) // 2]

    def _stage(self, line: int, descriptions: Iterable[tuple[Any, ...]]) -> None:
        parcels = []
        for sequence, item, direct, kind, nbytes, enqueued_ns, expiry_ns, id, attempts, flags, time_ns, priority in descriptions:
            if direct:
                kind, payload = self._codec.encode(item)
            else:
                payload = item
            codec, stored = self._compressed(payload)
            extension = b""
            if flags & layout.RECORD_FLAG_DELAYED:
                extension = layout.pack_extension(due_ns=time_ns)
            elif flags & layout.RECORD_FLAG_DEAD:
                extension = layout.pack_extension(death=self._deaths.get(sequence))
            parcel = Parcel(item, direct, kind, codec, extension + stored, nbytes, priority, expiry_ns)
            parcel.sequence, parcel.id, parcel.enqueued_ns = sequence, id, enqueued_ns
            parcel.attempts, parcel.flags, parcel.extension = attempts, flags, len(extension) // layout.PLACE_UNIT
            parcels.append(parcel)
        if not parcels:
            return
        segment, _ = self._write(parcels, partial(self._append_and_stage, line))
        for parcel in parcels:
            self._deaths.pop(parcel.sequence, None)
        self._grown(segment.map)

    # --- the memory verbs

    def flush_to_disk(self, n: int | None = None) -> int:
        """Move the `n` oldest resident items (None: all) out of memory, whatever the strategy; returns how many moved.

        They keep their places in line. A queue without a disk_path moves nothing.
        """
        self._refuse(taking=True)
        if n is not None and (isinstance(n, bool) or not isinstance(n, int) or n < 0):
            raise InvalidOption("n", n, "an int from 0, or None for all")
        if self._log is None:
            return 0
        before = self._resident
        keep = 0 if n is None else max(0, before - n)
        with self._tail, self._head:
            try:
                while self._resident > keep:
                    if not self._spill_first(self._oldest_resident_lane(), self._resident - keep):
                        break
            except NoRoom as shortage:
                if before == self._resident:
                    raise self._full_error(shortage) from None
        self._feel_pressure()
        self._watch()
        self._tell()
        return max(0, before - self._resident)

    def flush_oldest(self, n: int) -> int:
        """Move the `n` oldest resident items out of memory; returns how many moved."""
        return self.flush_to_disk(n)

    def compact_memory(self) -> int:
        """Give back memory that holds nothing any more (places of removed items, free blocks); returns the bytes."""
        self._refuse(taking=True)
        with self._tail, self._head:
            return self._compact_lanes()

    def shrink_memory(self) -> int:
        """Move everything to disk and give the memory back; returns the bytes, payloads included."""
        before = self._resident_bytes
        self.flush_to_disk()
        return before - self._resident_bytes + self.compact_memory()

    def set_memory_limit(self, nbytes: int | None) -> None:
        """Change `memory_limit`; it holds when this returns (what is over it has been spilled)."""
        self._refuse(taking=True)
        if nbytes is not None and (isinstance(nbytes, bool) or not isinstance(nbytes, int) or nbytes < 1):
            raise InvalidOption("nbytes", nbytes, "an int from 1, or None for no limit")
        self._set_budget(self._memory_items, nbytes)
        self._relieve()

    # --- pressure

    def on_memory_pressure(self, callback: Callable[[float], object], thresholds: Iterable[float] = _THRESHOLDS) -> Callable[[], None]:
        """Call `callback(usage)` whenever memory use crosses a threshold upwards; returns a function that ends the subscription.

        `usage` is the share of the memory budget (items or bytes, whichever is greater). A threshold counts again after usage fell 0.05 below it. The callback runs
        in the thread that crossed it, after the crossing call's work and outside any lock: it may call the queue.

        Where spilling begins below a threshold (`overflow_ratio`), memory use never reaches it: one that was chosen is refused, of the default ones those stay that are reached.
        """
        if not callable(callback):
            raise InvalidOption("callback", callback, "a callable that takes the usage")
        checked = check_thresholds(thresholds)
        ratio = self._options.overflow_ratio
        if self._log is not None and thresholds is _THRESHOLDS:
            checked = tuple(threshold for threshold in checked if threshold <= ratio) or (ratio,)
        elif self._log is not None and checked[-1] > ratio:
            raise InvalidOption("thresholds", checked, f"at most overflow_ratio={ratio}: spilling begins there, and memory use never gets further",
                                hint="lower the thresholds, or raise overflow_ratio")  # fmt: skip
        subscription = _Subscription(callback, checked)
        self._subscriptions.append(subscription)
        self._relieve()

        def unsubscribe() -> None:
            if subscription in self._subscriptions:
                self._subscriptions.remove(subscription)
            self._watch()

        return unsubscribe

    def _feel_pressure(self) -> None:
        usage = self._usage()
        for subscription in list(self._subscriptions):
            crossed = [t for t in subscription.thresholds if usage >= t and t not in subscription.crossed]
            if crossed:
                subscription.crossed.update(crossed)
                callback = subscription.callback
                self._tell_later(lambda callback=callback: callback(usage))  # type: ignore[misc]
            subscription.crossed -= {t for t in subscription.crossed if usage < t - _HYSTERESIS}

    def _eased(self) -> None:
        """Called by the core when memory use has fallen to what it watches for."""
        self._feel_pressure()
        self._watch()

    def _watch(self) -> None:
        """Have the core call when the next threshold is crossed, up or down."""
        up = [t for s in self._subscriptions for t in s.thresholds if t not in s.crossed]
        items, nbytes = self._budget_items, self._budget_bytes
        if up:
            # "Above soft" is "at least threshold" for whole items.
            items = min(items, max(0, -int(-min(up) * self._memory_items // 1) - 1))
            if self._memory_bytes is not None:
                nbytes = min(nbytes, max(0, -int(-min(up) * self._memory_bytes // 1) - 1))
        self._soft_items, self._soft_bytes = items, nbytes
        down = [t for s in self._subscriptions for t in s.crossed]
        if down:
            level = max(down) - _HYSTERESIS
            self._low_items = int(level * self._memory_items)
            self._low_bytes = NO_LIMIT if self._memory_bytes is None else int(level * self._memory_bytes)
        else:
            self._low_items = self._low_bytes = -1

    _memory_items: int = 1
    _memory_bytes: int | None = None
