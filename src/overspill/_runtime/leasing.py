"""Leases: an item is somebody's until it is acknowledged, returned, or its time is up.

deliver (the attempt is on record, the claim in the book) → ack (settled), or nack, reject, the end of its time (back to its place, or apart: `apart.py`). Who holds which item until when is
in `_engine/leases.py`; what the holder has in his hands is in `delivery.py`.
"""
from __future__ import annotations

from datetime import timedelta

from .._core.lanes import DEQUEUED, Claim
from ..errors import CorruptedData, InvalidOption, LeaseExpired, QueueClosed, QueueEmpty, UnknownFormat
from ..options import seconds
from .apart import ATTEMPTS_MAX, MAX_ATTEMPTS, REJECTED
from .delivery import Delivery, Heartbeat
from .taking import Taking
from .waiting import Steps, blocking, within

__all__ = ["Leasing"]


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


class Leasing(Taking):
    """`lease`, `lease_batch`, and what a `Delivery` calls."""

    # --- taking on lease

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
                        yield from self._burying()
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
        try:
            attempts = self._attempts_of(claim)
            if self._is_exhausted(attempts):
                self._exhausted.append((claim, "the process ended while the item was leased"))
                return None
            item = self._item_of(claim)
            # The attempt is on record before the item is handed out: one that kills its consumer must not be tried for ever.
            attempts = min(attempts + 1, ATTEMPTS_MAX)
            self._put_attempt_on_record(claim, attempts)
        except BaseException:
            if self._holds(claim):
                self._return(claim)
            raise
        self._n_leased += 1
        until = self._clock.monotonic() + self._options.lease_timeout
        token = self._leases.grant(claim, until)
        if self._pump is not None:
            self._wake_for_leases(until)
        return Delivery(self, token, item, claim.id, attempts, claim.enqueued_ns, claim.priority)

    def _undelivered(self, delivery: Delivery) -> None:
        """Nobody got it: the lease ends and the item goes back to its old place. The attempt is on record all the same."""
        claim = self._leases.end(delivery._token)
        if claim is not None:
            self._n_redelivered += 1
            self._let_go([claim])

    def _delivering(self, deliveries: list[Delivery]) -> Steps[list[Delivery]]:
        """Hand them out: under POWER once a sync covers that they are on their way. Interrupted before, they go back."""
        if deliveries and self._commits:
            try:
                yield from self._covering()
            except BaseException:
                for delivery in deliveries:
                    self._undelivered(delivery)
                raise
        return deliveries

    def _put_attempt_on_record(self, claim: Claim, attempts: int) -> None:
        """So many attempts, this one included. A record says how many came before it was written, its segment how many since."""
        map, offset = self._locate(claim)
        if map is None:
            claim.attempts = attempts
            return
        map.set_attempts(offset, attempts - claim.attempts)
        if not map.dirty:
            self._dirtied(map)

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

    # --- ending a lease

    def _acking(self, token: int) -> Steps[None]:
        yield from within(self._head, lambda: self._acked(token))
        yield from self._burying()
        if self._commits:
            yield from self._covering()
        self._wake_if_closing()
        yield from self._keeping_to_budget()
        self._tell()

    def _acked(self, token: int) -> None:
        """The caller holds the head."""
        self._refuse(taking=True)
        self._end_overdue()
        self._settle(self._end_lease(token, "ack"), DEQUEUED)

    def _nacking(self, token: int, delay: float | timedelta, error: BaseException | str | None) -> Steps[None]:
        self._refuse(taking=True)
        wait_s, text = seconds("delay", delay), _text_of(error)
        if not wait_s and self._options.max_attempts is None:
            yield from within(self._head, lambda: self._return(self._given_up(token, "nack")))
        else:
            yield from self._errand(lambda: self._nacked(token, wait_s, text)).steps()
            if self._commits:
                yield from self._covering()
        yield from self._after_nacking()

    def _nacked(self, token: int, wait_s: float, text: str) -> None:
        with self._tail, self._head:  # it may have to be written
            claim = self._given_up(token, "nack")
            if self._is_exhausted(self._attempts_of(claim)):
                self._bury(claim, MAX_ATTEMPTS, text)
            elif wait_s:
                self._postpone(claim, wait_s)
            else:
                self._return(claim)

    def _rejecting(self, token: int, error: BaseException | str | None) -> Steps[None]:
        self._refuse(taking=True)
        text = _text_of(error)
        yield from self._errand(lambda: self._rejected(token, text)).steps()
        if self._commits:
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
                if self._is_exhausted(self._attempts_of(claim)):
                    self._exhausted.append((claim, "the lease ran out"))
                else:
                    self._return(claim)
