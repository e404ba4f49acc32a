"""What `lease` hands out."""
from __future__ import annotations

import uuid
from datetime import timedelta
from types import TracebackType
from typing import Any

from ..errors import LeaseExpired, QueueClosed
from .waiting import Steps, blocking

__all__ = ["Delivery", "Heartbeat"]


class Heartbeat:
    """Extends a lease while a block runs; see `Delivery.heartbeat`."""

    __slots__ = ("_every", "_queue", "_token", "lost")

    def __init__(self, queue: Any, token: int, every: float | timedelta | None) -> None:
        self._queue = queue
        self._token = token
        self._every = every
        self.lost = False
        """Whether the lease ended although it was to be extended: somebody else may have the item by now."""

    def __enter__(self) -> Heartbeat:
        self._queue._begin_heartbeat(self._token, self._every, self)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._queue._end_heartbeat(self._token)
        if self.lost and kind is None:
            self._queue._end_lease(self._token, "the end of the heartbeat")


class Delivery:
    """One item on lease: yours until it is acknowledged, returned, or its time is up.

    As a context manager it acknowledges on success and returns the item to its old place on an exception::

        with q.lease() as delivery:
            upload(delivery.item)

    The item stays in the queue's folder until the ack; if the process dies first, it comes back when the queue is opened again.
    """

    __slots__ = ("_ended", "_queue", "_token", "attempts", "enqueued_at", "id", "item", "priority")

    def __init__(self, queue: Any, token: int, item: Any, id: bytes, attempts: int, enqueued_ns: int, priority: int) -> None:
        self._queue = queue
        self._token = token
        self._ended = False
        self.item = item
        """The item itself."""
        self.id = uuid.UUID(bytes=id)
        """UUIDv7: the same at every delivery of this item, and never used again."""
        self.attempts = attempts
        """Which attempt this is, from 1; it survives a crash and the trip to disk."""
        self.enqueued_at = enqueued_ns / 1e9
        """When it was enqueued, in seconds since the epoch."""
        self.priority = priority

    def ack(self) -> None:
        """Done: the item leaves the queue, as durably as the queue promises. Raises `LeaseExpired` if the lease had ended."""
        blocking(self._acking())

    def nack(self, delay: float | timedelta = 0, *, error: BaseException | str | None = None) -> None:
        """Not done: the item goes back to its old place, with a `delay` once so many seconds have passed.

        If this was its last attempt (`max_attempts`), it becomes a dead letter, and `error` says why. Raises `LeaseExpired` if the lease had ended.
        """
        blocking(self._nacking(delay, error))

    def reject(self, error: BaseException | str | None = None) -> None:
        """Not done, and another attempt would be in vain: the item becomes a dead letter at once. Raises `LeaseExpired` if the lease had ended."""
        blocking(self._rejecting(error))

    def extend(self, seconds: float | timedelta) -> None:
        """Hold it for this long from now. Raises `LeaseExpired` if the lease had ended."""
        blocking(self._extending(seconds))

    def heartbeat(self, every: float | timedelta | None = None) -> Heartbeat:
        """Hold the item for as long as a block takes, by extending the lease `every` so many seconds (default: a third of `lease_timeout`)::

            with q.lease() as delivery, delivery.heartbeat():
                transcode(delivery.item)

        The queue's background thread does it; the block need do nothing. A block that hangs keeps its item until the process ends. Where the lease was lost all the same (the process
        was stopped for longer than `lease_timeout`), the end of the block raises `LeaseExpired`.
        """
        return Heartbeat(self._queue, self._token, every)

    def __enter__(self) -> Delivery:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        blocking(self._ending(error))

    # --- the same as steps

    def _acking(self) -> Steps[None]:
        yield from self._queue._acking(self._token)
        self._ended = True

    def _nacking(self, delay: float | timedelta, error: BaseException | str | None) -> Steps[None]:
        yield from self._queue._nacking(self._token, delay, error)
        self._ended = True

    def _rejecting(self, error: BaseException | str | None) -> Steps[None]:
        yield from self._queue._rejecting(self._token, error)
        self._ended = True

    def _extending(self, seconds: float | timedelta) -> Steps[None]:
        yield from self._queue._extending(self._token, seconds)

    def _ending(self, error: BaseException | None) -> Steps[None]:
        """The end of a `with` block."""
        if self._ended:
            return  # the handler said so itself
        if error is None:
            yield from self._acking()
            return
        try:
            yield from self._nacking(0, error)
        except (LeaseExpired, QueueClosed):
            pass  # a lease that is gone must not hide the error

    def __repr__(self) -> str:
        return f"<Delivery {self.id} attempt {self.attempts}>"
