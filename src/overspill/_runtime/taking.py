"""The slow half of dequeue, and the leases.

wait → claim (the item leaves its line) → decode → settle (its record is marked) → commit → tell. A claim is always settled or given back: an item whose decoding fails, whose taker
is interrupted or whose lease runs out goes back to its old place.
"""
from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterator
from datetime import timedelta
from itertools import chain
from operator import attrgetter
from typing import Any, TypeVar

from .._core.hot import Claim
from .._core.lane import lane_over
from ..errors import CorruptedData, InvalidOption, LeaseExpired, QueueClosed, QueueEmpty, UnknownFormat
from ..options import seconds
from .apart import MAX_ATTEMPTS, REJECTED, Apart
from .delivery import Delivery, Heartbeat
from .parts import Reading, Restored
from .waiting import Errand, Steps, blocking, within

__all__ = ["Taking"]

_T = TypeVar("_T")

_READ_AT_ONCE = 16
_READ_BYTES = 65536
"""How much an iteration reads while it keeps others from reading: so many items, or up to one of so many bytes."""


def _text_of(error: BaseException | str | None) -> str:
    """What is kept of an error."""
    if error is None or isinstance(error, str):
        return error or ""
    if not isinstance(error, BaseException):
        raise InvalidOption("error", error, "an exception, a str, or None")
    try:
        return repr(error)
    except Exception:
        return type(error).__name__


class Taking(Apart):
    """`dequeue`, `dequeue_batch`, `lease`, `peek` where the hot way declined."""

    # --- dequeue

    def _dequeue_slow(self, timeout: float | timedelta | None) -> Any:
        return blocking(self._dequeueing(timeout))

    def _dequeueing(self, timeout: float | timedelta | None) -> Steps[Any]:
        self._refuse(taking=True)
        try:
            taken = yield from self._taking(self._until(timeout), self._settled, self._untaken)
            if self._is_power() or not self._confirm(taken[0]):
                return (yield from self._handing_out([taken]))[0]
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
        with self._head:
            if self._holds(taken[0]):
                self._return(taken[0])

    def _handing_out(self, taken: list[tuple[Claim, Any]]) -> Steps[list[Any]]:
        """The items, which nobody else gets from now on: under POWER once a sync covers that.

        Interrupted before, they go back to their places, and no power cut makes them go again once that is said.
        """
        if self._is_power():
            try:
                yield from self._covering()
            except Exception:
                for claim, _ in taken:
                    self._confirm(claim)  # the disk failed: the next opening will tell whether they are there
                raise
            except BaseException as interruption:
                for one in taken:
                    self._untaken(one)
                if not isinstance(interruption, GeneratorExit):
                    yield from self._covering()
                raise
        items = [item for claim, item in taken if self._confirm(claim)]
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
                if claimed and not self._is_power():
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

    # --- batches by time

    def batches(self, n: int | None = None, linger: float | timedelta | None = None) -> Iterator[list[Any]]:
        """Take the items in lists, one after the other: up to `n` items (default: the queue's `default_batch_size`), or what came within `linger` seconds of the first one.

            for batch in events.batches(n=1000, linger=0.05):
                database.insert(batch)

        Waits for the first item of a batch as long as it takes. `linger=None` waits for no more: a batch is what is there then. Ends when the queue is closed and drained; a queue that is
        closing does not linger. Under `Durability.POWER` one sync covers a batch.

        The items of a batch that you were given are settled. Those of a batch that was still being collected when you were interrupted, or the queue was closed, are at their old places.
        For batches that must be *done*, see `lease_batch`.
        """
        return self._batches(*self._terms_of_batches(n, linger))

    def _terms_of_batches(self, n: int | None, linger: float | timedelta | None) -> tuple[int, float]:
        """Items at most, and seconds to linger; wrong ones are refused at the call, not at the first batch."""
        n, linger_s = self._batch_size(n), seconds("linger", 0 if linger is None else linger)
        self._refuse(taking=True)
        return n, linger_s

    def _batches(self, n: int, linger_s: float) -> Iterator[list[Any]]:
        while True:
            try:
                batch = blocking(self._collecting(n, linger_s))
            except QueueClosed:
                return
            yield batch

    def _collecting(self, n: int, linger_s: float) -> Steps[list[Any]]:
        """One batch. What is being collected is leased until the batch is handed out, so that `close` knows of it."""
        self._refuse(taking=True)
        if self._waiting >= (n if linger_s else 1) and self._state == "open":
            batch = yield from self._dequeueing_batch([], n, 0)
            if batch:
                return batch
        tokens: list[int] = []
        items: list[Any] = []

        def collect(claim: Claim | None) -> bool:
            while claim is not None:
                item = self._decoded(claim)
                tokens.append(self._leases.grant(claim, math.inf))
                items.append(item)
                claim = self._claim() if len(items) < n else None
            return True

        try:
            deadline = None
            while len(items) < n:
                try:
                    yield from self._taking(deadline, collect, lambda _: self._give_back_collected(tokens), wanting_more=deadline is not None)
                except QueueEmpty:
                    break
                except (CorruptedData, UnknownFormat, QueueClosed):
                    # As for a batch of `dequeue_batch`: what was collected before is delivered, and the next one meets this again.
                    if not items:
                        raise
                    break
                if deadline is None:
                    deadline = self._clock.monotonic() + linger_s
            return (yield from self._handing_out(self._settled_of_batch(tokens, items)))
        finally:
            self._give_back_collected(tokens)
            self._wake_if_closing()
            self._tell()

    def _settled_of_batch(self, tokens: list[int], items: list[Any]) -> list[tuple[Claim, Any]]:
        """A batch is about to be handed out: what of it is settled, for now. That is all but where the disk fails on the way, which the next batch meets again."""
        taken: list[tuple[Claim, Any]] = []
        with self._head:
            if self._log is not None:
                self._refuse(taking=True)  # closed: its folder has the items
            for token, item in zip(tokens, items, strict=True):
                claim = self._leases.end(token)
                try:
                    self._settle_for_now(claim)
                except BaseException:
                    self._return(claim)
                    if not taken:
                        raise
                    break
                taken.append((claim, item))
        return taken

    def _give_back_collected(self, tokens: list[int]) -> None:
        """Whatever of these is still leased goes back to its place."""
        claims = [claim for token in tokens if (claim := self._leases.end(token)) is not None]
        if claims:
            with self._head:
                for claim in claims:
                    self._return(claim)
            self._keep_to_budget()
    def _at_once(self, finish: Callable[[Claim], _T | None]) -> _T | None:
        """The first item, if there is one and nobody is in the way."""
        if not (self._in_line() or self._is_due()) or not self._head.enter_soon():
            return None
        try:
            return self._first(finish)
        finally:
            self._head.leave()

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

    def _return(self, claim: Claim) -> None:
        """Give a claim back to its old place, in memory if there is room."""
        keep = self._resident < self._budget_items and self._resident_bytes + claim.nbytes <= self._budget_bytes
        self._give_back(claim, keep)
        if self._n_takers:
            self._takers.wake()

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
        self._settle(claim)
        self._n_expired += 1

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
                self._settle(claim, True)
        if claims and self._is_power():
            self._covered()
        self._tell()
        return len(claims)

    def _restored(self, claim: Claim) -> Restored:
        map, offset = self._locate(claim)
        attempts = claim.attempts
        if map is not None:
            map.owner.attach()
            attempts = min(255, attempts + map.attempts(offset))
        return Restored(self._item_of(claim), claim.id, claim.priority, claim.enqueued_ns, claim.expiry_ns, attempts)

    # --- lease

    def lease(self, timeout: float | timedelta | None = None) -> Delivery:
        """Take the first item on lease; waits as `dequeue` does.

        The item is yours for `lease_timeout` seconds: `ack()` it, `nack()` it, or `extend()` the time. An item whose lease runs out, or whose process dies, is
        delivered again, at its old place and with `attempts` one higher.
        """
        return blocking(self._leasing(timeout))

    def _leasing(self, timeout: float | timedelta | None) -> Steps[Delivery]:
        self._refuse(taking=True)
        try:
            delivery = yield from self._taking(self._until(timeout), self._deliver, self._undelivered)
            return (yield from self._delivering([delivery]))[0]
        finally:
            self._tell()

    def lease_batch(self, n: int | None = None, *, timeout: float | timedelta | None = 0) -> list[Delivery]:
        """Take up to `n` items on lease, each to be acknowledged by itself; `[]` when there is none."""
        return blocking(self._leasing_batch(n, timeout))

    def _leasing_batch(self, n: int | None, timeout: float | timedelta | None) -> Steps[list[Delivery]]:
        self._refuse(taking=True)
        n = self._batch_size(n)
        deliveries: list[Delivery] = []
        try:
            try:
                deliveries.append((yield from self._taking(self._until(timeout), self._deliver, self._undelivered)))
            except QueueEmpty:
                return deliveries
            while len(deliveries) < n:
                try:
                    one = self._at_once(self._deliver)
                    if one is None and self._exhausted:
                        self._bury_exhausted()
                        continue
                except (CorruptedData, UnknownFormat, QueueClosed):
                    break  # for the next call to meet
                if one is None:
                    break
                deliveries.append(one)
            return (yield from self._delivering(deliveries))
        finally:
            self._tell()

    def _deliver(self, claim: Claim) -> Delivery | None:
        """Enter the lease. None: the item has had all its attempts (the process ended in the last one), and is to be given up."""
        if self._is_exhausted(claim):
            self._exhausted.append((claim, "the process ended while the item was leased"))
            return None
        item = self._decoded(claim)
        # The attempt is on record before the item is handed out: one that kills its consumer must not be tried for ever.
        attempts = self._count_attempt(claim)
        self._n_leased += 1
        until = self._clock.monotonic() + self._options.lease_timeout
        token = self._leases.grant(claim, until)
        if self._pump is not None:
            self._wake_for_leases(until)
        return Delivery(self, token, item, claim.id, attempts, claim.enqueued_ns, claim.priority)

    def _undelivered(self, delivery: Delivery) -> None:
        """Nobody got it: the lease ends and the item goes back to its old place. The attempt is on record all the same."""
        with self._head:
            claim = self._leases.end(delivery._token)
            if claim is not None:
                self._n_redelivered += 1
                self._return(claim)

    def _delivering(self, deliveries: list[Delivery]) -> Steps[list[Delivery]]:
        """Hand them out: under POWER once a sync covers that they are on their way. Interrupted before, they go back."""
        if deliveries and self._is_power():
            try:
                yield from self._covering()
            except BaseException:
                for delivery in deliveries:
                    self._undelivered(delivery)
                raise
        return deliveries

    def _count_attempt(self, claim: Claim) -> int:
        """Put this attempt on record; returns which it is. A record says how many came before it was written, its segment how many since."""
        map, offset = self._locate(claim)
        if map is None:
            claim.attempts = min(claim.attempts + 1, 255)
            return claim.attempts
        try:
            map.owner.attach()
            since = min(map.attempts(offset) + 1, 255 - claim.attempts)
            map.set_attempts(offset, since)
        except BaseException:
            self._return(claim)
            raise
        if not map.dirty:
            self._dirtied(map)
        return claim.attempts + since

    _n_leased: int = 0
    _n_redelivered: int = 0
    _lease_wake: float = float("inf")

    def _wake_for_leases(self, until: float) -> None:
        """Have the pump look when the first lease may be overdue; one appointment at a time."""
        if until < self._lease_wake:
            self._lease_wake = until
            assert self._pump is not None
            self._pump.at(until, self)

    def _end_lease(self, token: int, verb: str) -> Claim:
        claim: Claim | None = self._leases.end(token)
        if claim is None:
            raise LeaseExpired(
                f"{verb} came too late: the lease had ended and the item may be with somebody else", where=self._options.name,
                hint="make the handler idempotent, raise lease_timeout, or extend() the lease while it works",
            )
        return claim

    def _acking(self, token: int) -> Steps[None]:
        yield from within(self._head, lambda: self._acked(token))
        yield from self._burying()
        if self._is_power():
            yield from self._covering()
        self._wake_if_closing()
        yield from self._keeping_to_budget()
        self._tell()

    def _acked(self, token: int) -> None:
        """The caller holds the head."""
        self._refuse(taking=True)
        self._end_overdue()
        self._settle(self._end_lease(token, "ack"), True)

    def _nacking(self, token: int, delay: float | timedelta, error: BaseException | str | None) -> Steps[None]:
        self._refuse(taking=True)
        wait_s, text = seconds("delay", delay), _text_of(error)
        if not wait_s and self._options.max_attempts is None:
            yield from within(self._head, lambda: self._return(self._given_up(token, "nack")))
        else:
            yield from Errand(lambda: self._nacked(token, wait_s, text)).steps()
            if self._is_power():
                yield from self._covering()
        yield from self._after_nacking()

    def _nacked(self, token: int, wait_s: float, text: str) -> None:
        with self._tail, self._head:  # it may have to be written
            claim = self._given_up(token, "nack")
            if self._is_exhausted(claim):
                self._bury(claim, MAX_ATTEMPTS, text)
            elif wait_s:
                self._postpone(claim, wait_s)
            else:
                self._return(claim)

    def _rejecting(self, token: int, error: BaseException | str | None) -> Steps[None]:
        self._refuse(taking=True)
        text = _text_of(error)
        yield from Errand(lambda: self._rejected(token, text)).steps()
        if self._is_power():
            yield from self._covering()
        yield from self._after_nacking()

    def _rejected(self, token: int, text: str) -> None:
        with self._tail, self._head:
            self._bury(self._given_up(token, "reject"), REJECTED, text)

    def _given_up(self, token: int, verb: str) -> Claim:
        """The claim of a lease that ends without an ack."""
        self._refuse(taking=True)
        self._end_overdue()
        claim = self._end_lease(token, verb)
        self._n_redelivered += 1
        return claim

    def _after_nacking(self) -> Steps[None]:
        yield from self._burying()
        self._wake_if_closing()
        yield from self._keeping_to_budget()
        self._tell()

    def _burying(self) -> Steps[None]:
        """Give up whatever has had its last attempt."""
        if self._exhausted:
            yield from Errand(self._bury_exhausted).steps()

    def _keeping_to_budget(self) -> Steps[None]:
        """After something came back. Not under the head: spilling takes the tail, which comes first."""
        if self._resident > self._soft_items or self._resident_bytes > self._soft_bytes:
            yield from Errand(self._relieve).steps()

    def _keep_to_budget(self) -> None:
        """After something came back. Not under the head: spilling takes the tail, which comes first."""
        if self._resident > self._soft_items or self._resident_bytes > self._soft_bytes:
            self._relieve()

    def _extending(self, token: int, time_s: float | timedelta) -> Steps[None]:
        yield from within(self._head, lambda: self._extended(token, time_s))
        yield from self._burying()

    def _extended(self, token: int, time_s: float | timedelta) -> None:
        """The caller holds the head."""
        self._refuse(taking=True)
        self._end_overdue()
        until = self._clock.monotonic() + seconds("seconds", time_s, above_0=True)
        if not self._leases.extend(token, until):
            self._end_lease(token, "extend")
        if self._pump is not None:
            self._wake_for_leases(until)

    # --- heartbeats: one appointment for all of them, with the pump

    _heartbeats: dict[int, tuple[float, float, Heartbeat]]
    """By token: every how many seconds, when next, and whom to tell that the lease is lost."""

    def _begin_heartbeat(self, token: int, every: float | timedelta | None, heartbeat: Heartbeat) -> None:
        every_s = self._options.lease_timeout / 3 if every is None else seconds("every", every, above_0=True)
        if every_s >= self._options.lease_timeout:
            raise InvalidOption("every", every, f"less than lease_timeout={self._options.lease_timeout:g}: the lease would end between two beats")
        if token in self._heartbeats:
            raise InvalidOption("heartbeat", token, "one at a time for a lease")
        blocking(self._extending(token, self._options.lease_timeout))
        when = self._clock.monotonic() + every_s
        self._heartbeats[token] = every_s, when, heartbeat
        if self._pump is not None:
            self._pump.at(when, self)

    def _end_heartbeat(self, token: int) -> None:
        self._heartbeats.pop(token, None)

    def _beat(self, now: float, due: list[float]) -> None:
        """The pump: extend the leases whose turn it is."""
        for token, (every_s, when, heartbeat) in list(self._heartbeats.items()):
            if when <= now:
                with self._head:
                    self._end_overdue()
                    lost = not self._leases.extend(token, now + self._options.lease_timeout)
                if lost:
                    heartbeat.lost = self._heartbeats.pop(token, None) is not None
                    continue
                when = now + every_s
                if token in self._heartbeats:
                    self._heartbeats[token] = every_s, when, heartbeat
            due.append(when)

    def _end_overdue(self) -> None:
        """Leases end by the clock, whether or not the pump has come round: an ack that is late is late. Who has no attempt left is buried once the tail can be taken."""
        with self._head:
            for claim in self._leases.overdue(self._clock.monotonic()):
                self._n_redelivered += 1
                if self._is_exhausted(claim):
                    self._exhausted.append((claim, "the lease ran out"))
                else:
                    self._return(claim)

    def _cover_and_tell(self) -> None:
        """What was done is as durable as the queue promises; then the callbacks."""
        if self._is_power():
            self._covered()
        self._wake_if_closing()
        self._tell()

    def _wake_if_closing(self) -> None:
        """The last lease may have ended, or the last item left: `close` and those who wait for an item want to know."""
        if self._state == "closing":
            self._takers.wake_all()
            self._makers.wake_all()

    # --- looking

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
            map, offset = self._locate(claim)
            assert map is not None  # only a record's payload can be away from memory
            if map.settled(offset):
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
