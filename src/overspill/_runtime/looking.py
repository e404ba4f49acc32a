"""Looking: at what comes next, at everything in line, or at a part of it by place or by age.

Nothing is taken and nothing moves. `snapshot` reads the disk as it goes; a view by place or by age is of one moment: the line stands still until the items are copied, be it from the disk. What is
in memory is found without reading through the disk in front of it. An item that has expired is not shown, and what stands first and has expired leaves.
"""
from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator
from itertools import chain
from operator import attrgetter
from typing import Any

from .._core.lane import lane_over
from .._core.lanes import Claim
from ..errors import QueueClosed, QueueEmpty
from .parts import Parts, Reading

__all__ = ["Looking"]

_READ_AT_ONCE = 16
_READ_BYTES = 65536
"""How much an iteration reads while it keeps others from reading: so many items, or up to one of so many bytes."""


class Looking(Parts):
    """`peek`, `snapshot`, and views of a line for the faces that have them."""

    # --- at what comes next, and at all of it

    def peek(self) -> Any:
        """The item that `dequeue` would give, left where it is. Raises `QueueEmpty`."""
        self._refuse(taking=True)
        try:
            with self._head:
                seen = self._peek()
            if self._n_takers and self._waiting:
                self._takers.wake()  # whoever looked while the item was out of line has gone to wait for it
            if seen is None:
                if self._state != "open":
                    raise QueueClosed(f"{self!r} is closed and empty", hint="open it again to go on")
                raise QueueEmpty
            return self._unpack(*seen)
        finally:
            self._tell()

    def snapshot(self) -> Iterator[Any]:
        """The items in line, in order, from both tiers, as they were when the iteration began; what leaves meanwhile may or may not be seen.

        Takes nothing. Memory: one reference per resident item, one read-ahead buffer for the disk.
        """
        self._refuse(taking=True)
        return self._items_of(self._waiting_claims(), self._now_ns())

    def _items_of(self, claims: Iterator[Claim], now_ns: int) -> Iterator[Any]:
        for claim in claims:
            if not claim.expiry_ns or claim.expiry_ns > now_ns:
                yield self._item_of(claim)

    def __iter__(self) -> Iterator[Any]:
        return self.snapshot()

    def _waiting_claims(self) -> Iterator[Claim]:
        """Copies of everything in line, in order. They must be neither settled nor given back."""
        with self._head:
            self._promote_due()
            reading = self._begin_reading()
            parts = []
            for lane in self._lanes():
                runs = [run.clone() for run in lane.runs]
                parts.append((self._in_heap(lane.line), runs, lane.merge, self._in_ring(lane.line)))
        return self._claims_of(parts, reading)

    def _begin_reading(self) -> Reading:
        """Called before runs are copied: while the caller keeps what this returns, compaction leaves their segments alone. Caller holds the head."""
        reading = Reading()
        self._cursors.add(reading)
        return reading

    def _claims_of(self, parts: list[Any], reading: Reading) -> Iterator[Claim]:
        try:
            for heap, runs, merge, ring in parts:
                behind = chain(self._in_runs(runs, merge), chain.from_iterable(map(self._still_there, ring)))
                for claim in heapq.merge(heap, behind, key=attrgetter("place")):
                    yield from self._still_there(claim)
        finally:
            self._cursors.discard(reading)  # takes no lock: a generator may be closed anywhere

    def _timed_claims(self, line: int) -> Iterator[Claim]:
        """Copies of everything in a line ordered by time, in order; as `_waiting_claims`."""
        with self._head:
            reading = self._begin_reading()
            heap = self._in_heap(line)
            runs = [run.clone() for lane in self._timed_lanes() if lane.line == line for run in lane.runs]
        return self._timed_claims_of(heap, runs, reading)

    def _timed_claims_of(self, heap: list[Claim], runs: list[Any], reading: Reading) -> Iterator[Claim]:
        in_runs = (claim for claim in self._in_runs(runs, True) if claim.sequence not in self._departed)
        try:
            for claim in heapq.merge(heap, in_runs, key=attrgetter("time_ns")):
                yield from self._still_there(claim)
        finally:
            self._cursors.discard(reading)

    def _still_there(self, claim: Claim) -> Iterator[Claim]:
        """A copy taken from memory may be a stub: read its payload, if it has not left meanwhile."""
        if not claim.has_payload:
            map, offset = self._locate_copy(claim)
            if map is None or map.settled(offset):
                return
            payload = map.owner.recall(offset)
            if payload is None:
                return
            claim.fill_in(payload)
        yield claim

    def _in_runs(self, runs: list[Any], merge: bool) -> Iterator[Claim]:
        """Read on through copies of runs. Whoever made them keeps a `Reading` meanwhile."""
        if not runs:
            return
        cursor = lane_over(runs, merge)
        while True:
            claims: list[Claim] = []
            with self._head:
                while len(claims) < _READ_AT_ONCE and sum(claim.nbytes for claim in claims[-1:]) < _READ_BYTES:
                    claim = self._read(cursor)
                    if claim is None:
                        break
                    claims.append(claim)
            if not claims:
                return
            yield from claims
            self._head.let_others_in()

    # --- by place and by age

    def _expire_due(self) -> None:
        """Let what stands first in its line leave if it has expired. Where every item lives equally long, that is all that have."""
        if not self._ttl_ns or self._state == "closed" or (self._log is not None and self._log.broken is not None):
            return
        with self._head:
            for lane in self._lanes():
                self._expire_first(lane.line)

    def _items_at(self, chosen: slice) -> list[Any]:
        """The items at these places of the line, counted as a list counts."""
        self._expire_due()
        with self._tail, self._head:
            self._refuse(taking=True)
            self._promote_due()
            places = range(*chosen.indices(self._waiting))
            if not places:
                return []
            first, last = sorted((places[0], places[-1]))
            claims = list(itertools.islice(self._claims_from(first, last - first + 1), 0, None, abs(places.step)))
        items = list(self._items_of(iter(claims), 0))
        self._tell()
        return items if places.step > 0 else items[::-1]

    def _items_since(self, since_ns: int) -> list[Any]:
        """The items that were enqueued at this wall-clock time or later, in order."""
        self._expire_due()
        with self._tail, self._head:
            self._refuse(taking=True)
            self._promote_due()
            reading = self._begin_reading()
            parts = []
            for lane in self._lanes():
                ring = self._in_ring(lane.line, since_ns=since_ns)
                # What lies on disk came before what stands in memory behind it: if even some of that is too old, it need not be read.
                runs = [run.clone() for run in lane.runs] if len(ring) == self._count_ring(lane.line) else []
                parts.append((self._in_heap(lane.line), runs, lane.merge, ring))
            claims = [claim for claim in self._claims_of(parts, reading) if claim.enqueued_ns >= since_ns]
        items = list(self._items_of(iter(claims), self._now_ns()))
        self._tell()
        return items

    def _claims_from(self, first: int, n: int) -> Iterator[Claim]:
        """Copies of `n` items of the line from the `first`th on. The caller holds tail and head."""
        lanes = self._lanes()
        if sum(bool(lane.runs) for lane in lanes) > 1 or any(self._in_heap(lane.line) for lane in lanes):
            return itertools.islice(self._waiting_claims(), first, first + n)  # nobody knows how many stand where: read
        on_disk = self._waiting - sum(self._count_ring(lane.line) for lane in lanes)
        reading = self._begin_reading()
        parts: list[Any] = []
        end, unread, at = first + n, 0, 0
        for lane in lanes:
            cold = on_disk if lane.runs else 0
            runs = [run.clone() for run in lane.runs] if first < at + cold and end > at else []
            if runs:
                unread = max(0, first - at)  # of its first items; they have to be read past
            at += cold
            ring = self._in_ring(lane.line, max(0, first - at), max(0, min(n, end - at)))
            at += self._count_ring(lane.line)
            parts.append(([], runs, lane.merge, ring))
        return itertools.islice(self._claims_of(parts, reading), unread, unread + n)
