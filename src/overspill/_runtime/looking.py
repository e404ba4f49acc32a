"""Looking at a part of the line, by place or by age: the newest few, what came within the last minute.

Nothing is taken and nothing moves. A view is of one moment: the line stands still until the items are copied, be it from the disk. What is in memory is found without reading through
the disk in front of it. An item that has expired is not shown, and what stands first and has expired leaves.
"""
from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from .._core.hot import Claim
from .taking import Taking

__all__ = ["Looking"]


class Looking(Taking):
    """Views of a line, for the faces that have them."""

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
