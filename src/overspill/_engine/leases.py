"""Who holds which item, and until when.

A lease is a claim with a deadline and a token. The token fences: an ack with a token that is no longer in the book is late, whatever happened since, and two leases
never hold the same item because an item enters the book when it leaves its line and leaves the book before it goes back.

Each method may be interrupted between any two of its steps: a deadline that nobody has is passed over, a lease without one would be held for ever, so the deadline comes first and goes last
(whoever grants or extends keeps others from doing so meanwhile).

No clock: `now` is monotonic seconds, handed in. No thread: whoever keeps time asks `next_deadline`. Not locked: each method is a few dictionary operations that
take or give the lease as a whole, so that of two who want the same lease one gets it and the other is told that it is gone.
"""
from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator
from itertools import chain, compress
from operator import itemgetter
from typing import Any

__all__ = ["Leases"]

_ENDED_MOST = 1000
"""So many deadlines of ended leases may be kept, and as many again as there are leases."""


class Leases:
    """The book of leases of one queue. A claim is whatever the caller keeps; it is not looked at."""

    def __init__(self) -> None:
        self._held: dict[int, tuple[Any, float]] = {}
        self._deadlines: list[tuple[float, int]] = []
        self._tokens = itertools.count(1)

    def __len__(self) -> int:
        return len(self._held)

    def grant(self, claim: Any, until: float) -> int:
        """Enter a lease; returns its token."""
        token = next(self._tokens)
        heapq.heappush(self._deadlines, (until, token))
        self._held[token] = (claim, until)
        if len(self._deadlines) > 2 * len(self._held) + _ENDED_MOST:
            self._forget_ended()
        return token

    def _forget_ended(self) -> None:
        """Drop the deadlines of leases that have ended: most end long before their time.

        One assignment that runs no Python code, so that no deadline can be added half way through and be lost. What is sorted is a heap.
        """
        in_book = map(self._held.__contains__, map(itemgetter(1), self._deadlines))
        self._deadlines[:] = chain.from_iterable(map(sorted, [compress(self._deadlines, in_book)]))

    def end(self, token: int) -> Any:
        """Take the lease out of the book: its claim, or None if it is not there any more."""
        held = self._held.pop(token, None)
        return None if held is None else held[0]

    def extend(self, token: int, until: float) -> bool:
        """Move the deadline; False if the lease is not there any more."""
        held = self._held.get(token)
        if held is None:
            return False
        heapq.heappush(self._deadlines, (until, token))
        self._held[token] = (held[0], until)
        return True

    def overdue(self, now: float) -> Iterator[Any]:
        """End every lease whose time is up, and yield its claim."""
        while self._deadlines and self._deadlines[0][0] <= now:
            entry = self._deadlines[0]
            held = self._held.get(entry[1])
            # An entry may be of an ended lease, or of a deadline that has been moved since.
            overdue = held is not None and held[1] <= now and self._held.pop(entry[1], None) is not None
            if self._deadlines and self._deadlines[0] is entry:
                heapq.heappop(self._deadlines)
            if overdue:
                assert held is not None
                yield held[0]

    def next_deadline(self) -> float | None:
        """When the next lease may be overdue; None if no lease is out."""
        while self._deadlines and self._deadlines[0][1] not in self._held:
            heapq.heappop(self._deadlines)
        return self._deadlines[0][0] if self._deadlines else None
