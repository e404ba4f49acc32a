"""The slow half of dequeue.

wait → claim (the item leaves its line) → decode → settle (its record is marked) → commit → tell. A claim is always settled or given back: an item whose decoding fails, or whose taker
is interrupted, goes back to its old place, if need be by itself (`Claim`).
"""
from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

from .._core.lanes import DEQUEUED, EXPIRED, Claim
from ..errors import CorruptedData, InvalidOption, QueueClosed, QueueEmpty, UnknownFormat
from ..options import seconds
from .apart import Apart
from .parts import Restored
from .waiting import Steps, blocking, within

__all__ = ["Taking"]

_T = TypeVar("_T")


class Taking(Apart):
    """`dequeue` and `dequeue_batch` where the hot way declined, and what every verb that takes is made of."""

    # --- dequeue

    def _dequeue_slow(self, timeout: float | timedelta | None) -> Any:
        return blocking(self._dequeueing(timeout))

    def _dequeueing(self, timeout: float | timedelta | None) -> Steps[Any]:
        self._refuse(taking=True)
        try:
            taken = yield from self._taking(self._until(timeout), self._settled, self._untaken)
            if self._commits:
                return (yield from self._handing_out([taken]))[0]
            if not self._confirm(taken[0]):
                raise self._closed_error()
            return taken[1]
        finally:
            self._tell()

    def _settled(self, claim: Claim) -> tuple[Claim, Any]:
        """A claim and its item, and done with it, for now."""
        item = self._decoded(claim)
        self._settle_for_now(claim)
        return claim, item

    def _untaken(self, taken: tuple[Claim, Any]) -> None:
        """What was to be handed out goes back to its old place, unless `close` has seen to that."""
        self._let_go([taken[0]])

    def _handing_out(self, taken: list[tuple[Claim, Any]]) -> Steps[list[Any]]:
        """The items, which nobody else gets from now on: under POWER once a sync covers that.

        Interrupted before, they go back to their places, and no power cut makes them go again once that is said.
        """
        if self._commits:
            try:
                yield from self._covering()
            except Exception:
                for claim, _ in taken:
                    self._confirm(claim)  # the disk failed: the next opening will tell whether they are there
                raise
            except BaseException as interruption:
                self._let_go([claim for claim, _ in taken])
                if not isinstance(interruption, GeneratorExit):
                    yield from self._covering()
                raise
        items = self._confirm_all(taken)
        if not items:
            raise self._closed_error()
        return items

    def _closed_error(self) -> QueueClosed:
        return QueueClosed(f"{self!r} is closed and empty" if self._state == "closing" else f"{self!r} is closed", hint="open it again to go on")

    def _dequeue_batch_slow(self, taken: list[Any], max_items: Any, timeout: float | timedelta | None) -> list[Any]:
        return blocking(self._dequeueing_batch(taken, max_items, timeout))

    def _dequeueing_batch(self, taken: list[Any], max_items: Any, timeout: float | timedelta | None) -> Steps[list[Any]]:
        """Go on with a batch that the hot way began (`taken` is settled already); `max_items` more at most."""
        claimed: list[tuple[Claim, Any]] = []
        try:
            self._refuse(taking=True)
            if not taken:
                max_items = self._batch_size(max_items)
                if self._state == "closing" and not self._in_line():
                    raise self._closed_error()
                try:
                    claimed.append((yield from self._taking(self._until(timeout), self._settled, self._untaken)))
                except QueueEmpty:
                    return taken
                max_items -= 1
            while max_items > 0:
                # With something in hand there is no waiting any more, and what cannot be had now is for the next call. So is an error.
                if claimed and not self._commits:
                    taken.extend((yield from self._handing_out(claimed)))
                    claimed = []
                max_items -= self._take_many_hot(taken, max_items)
                try:
                    one = self._at_once(self._settled) if max_items > 0 else None
                except (CorruptedData, UnknownFormat, QueueClosed):
                    break
                if one is None:
                    break
                claimed.append(one)
                max_items -= 1
            if claimed:
                taken.extend((yield from self._handing_out(claimed)))
            return taken
        finally:
            self._tell()

    def _batch_size(self, n: Any) -> int:
        if n is None:
            return self._options.default_batch_size
        if isinstance(n, bool) or not isinstance(n, int) or n < 1:
            raise InvalidOption("max_items", n, "an int from 1, or None for default_batch_size")
        return n

    def _until(self, timeout: float | timedelta | None) -> float | None:
        """The monotonic time up to which to wait; None = for ever."""
        return None if timeout is None else self._clock.monotonic() + seconds("timeout", timeout)

    def _taking(self, deadline: float | None, finish: Callable[[Claim], _T | None], undo: Callable[[_T], object], *, wanting_more: bool = False) -> Steps[_T]:
        """Take the first item out of line and hand it to `finish`; waits for one until the deadline. `undo` is for one whose taker is interrupted.
        Whoever is `wanting_more` has some already, which a closing queue waits for.

        The claim and what is done with it are one step for `close`, which would otherwise take the segments away in between.
        """
        taken = self._at_once(finish)
        if taken is not None:
            return taken
        with self._takers.place() as place:
            while True:
                yield from self._burying()
                if self._in_line() or self._is_due():
                    taken = yield from within(self._head, lambda: self._first(finish), lambda taken: taken and undo(taken))
                    if taken is not None:
                        return taken
                    if self._exhausted:
                        continue
                self._refuse(taking=True)
                if self._state == "closing" and (wanting_more or not self._out):
                    raise self._closed_error()
                now = self._clock.monotonic()
                if deadline is not None and now >= deadline:
                    raise QueueEmpty
                if not place.take():
                    yield place.waiter, None if deadline is None else deadline - now

    # --- what every verb that takes is made of

    def _at_once(self, finish: Callable[[Claim], _T | None]) -> _T | None:
        """The first item, if there is one and nobody is in the way."""
        if not (self._in_line() or self._is_due()):
            return None
        with self._head.soon() as entered:
            return self._first(finish) if entered else None

    def _first(self, finish: Callable[[Claim], _T | None]) -> _T | None:
        """Claim the first item, and finish. The caller holds the head."""
        self._refuse(taking=True)
        claim = self._claim()
        return None if claim is None else finish(claim)

    def _decoded(self, claim: Claim) -> Any:
        """The claimed item as the user knows it; on failure it is back in its place."""
        try:
            return self._item_of(claim)
        except BaseException:
            self._return(claim)
            raise

    def _expire(self, claim: Claim) -> None:
        """Called by the core for an item that expired in line: settled, counted, told."""
        if self._options.on_expired is not None:
            if not claim.has_payload:
                map, offset = self._locate(claim)
                assert map is not None  # only a record's payload can be away from memory
                payload = map.owner.recall(offset)  # before it is settled: then its segment may go
                if payload is not None:
                    claim.fill_in(payload)
            if claim.has_payload:
                self._tell_later(lambda: self._options.on_expired(self._item_of(claim)))  # type: ignore[misc]
        self._settle(claim, EXPIRED)

    def _hand_over(self, deliver: Callable[[list[Restored]], object], items: int, nbytes: int) -> int:
        """Take up to so many items and about so many bytes out of line, and settle them when `deliver` has returned; if it raises they go back to their places. Returns how many.

        For tools that move a queue: a process that dies in between finds them waiting.
        """
        claims: list[Claim] = []
        try:
            with self._head:
                self._refuse(taking=True)
                while len(claims) < items and nbytes > 0:
                    claim = self._claim()
                    if claim is None:
                        break
                    claims.append(claim)
                    nbytes -= claim.nbytes
            if claims:
                deliver([self._restored(claim) for claim in claims])
        except BaseException:
            with self._head:
                for claim in reversed(claims):
                    self._return(claim)
            raise
        with self._head:
            for claim in claims:
                self._settle(claim, DEQUEUED)
        if claims and self._commits:
            self._covered()
        self._tell()
        return len(claims)

    def _restored(self, claim: Claim) -> Restored:
        return Restored(self._item_of(claim), claim.id, claim.priority, claim.enqueued_ns, claim.expiry_ns, self._attempts_of(claim))

    # --- afterwards

    def _burying(self) -> Steps[None]:
        """Give up whatever has had its last attempt."""
        if self._exhausted:
            yield from self._errand(self._bury_exhausted).steps()

    def _keeping_to_budget(self) -> Steps[None]:
        """After something came back. Not under the head: spilling takes the tail, which comes first."""
        if self._resident > self._soft_items or self._resident_bytes > self._soft_bytes:
            yield from self._errand(self._relieve).steps()

    def _wake_if_closing(self) -> None:
        """The last lease may have ended, or the last item left: `close` and those who wait for an item want to know."""
        if self._state == "closing":
            self._takers.wake_all()
            self._makers.wake_all()
