"""The awaiting face: the same queue for tasks.

Every verb of `HybridQueue` is awaited here, and means and raises the same; everything without parentheses (`size`, `pressure`, …) is read as it is. Threads and tasks may use one queue at once,
each through its own face, and wait in the same lines: first come, first served among those who wait, while whoever finds an item (or room) without waiting takes it. A verb that need
not wait does not suspend, so a loop of nothing but such verbs lets no other task run; `await asyncio.sleep(0)` does.

Cancelling an await neither loses nor doubles an item: what was taken is back at its place, durably so under `POWER`, when `CancelledError` comes out; what was being enqueued is in the
queue once or not at all.

What may hold up the event loop, and for how long: the work of the verb itself, reading a cold item from disk, and a millisecond of waiting for another thread. A sync, a further segment, opening and
closing go to other threads.

There is no policy here. What a verb does is in `_runtime`, as steps that a thread or a task may take.
"""
from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from datetime import timedelta
from itertools import islice
from os import PathLike
from types import TracebackType
from typing import Any, Self
from uuid import UUID

from ._runtime.awaiting import awaiting
from ._runtime.dead_letters import DeadLetter, DeadLetters
from ._runtime.delivery import Delivery, Heartbeat
from .errors import QueueClosed
from .hybrid import HybridQueue
from .options import Durability
from .stats import QueueStats

__all__ = ["AsyncDeadLetters", "AsyncDelivery", "AsyncHybridQueue"]

_Time = float | timedelta
_NOTHING = object()


class AsyncHybridQueue:
    """A hybrid memory/disk queue whose verbs are awaited.

    `AsyncHybridQueue("segments", "/var/lib/mirror/queues", …)` takes what `HybridQueue` takes and opens the queue in place, which reads the folder; `await AsyncHybridQueue.open(…)` does so in
    a thread. `q.aio` of a queue that is open already is its awaiting face. `async with` closes the queue at the end.
    """

    def __init__(self, name: str | None = None, disk_path: str | PathLike[str] | None = None, **options: Any) -> None:
        self._queue = HybridQueue(name, disk_path, **options)

    @classmethod
    async def open(cls, name: str | None = None, disk_path: str | PathLike[str] | None = None, **options: Any) -> Self:
        """Open a queue without holding up the event loop."""
        return cls.over(await asyncio.to_thread(HybridQueue, name, disk_path, **options))

    @classmethod
    def from_config(cls, source: Mapping[str, Any] | str | PathLike[str]) -> Self:
        """As `HybridQueue.from_config`: opens in place."""
        return cls.over(HybridQueue.from_config(source))

    @classmethod
    def over(cls, queue: Any) -> Self:
        """The awaiting face of an open queue; `queue.aio` is the same."""
        face = cls.__new__(cls)
        face._queue = queue
        return face

    @property
    def queue(self) -> Any:
        """The same queue, for threads."""
        return self._queue

    @property
    def _accounts(self) -> Any:
        """What shows it among other queues (see `metrics/watched.py`)."""
        return self._queue

    # --- putting

    async def enqueue(
        self, item: Any, *, priority: int = 128, ttl: _Time | None = None, delay: _Time | None = None, durability: Durability | None = None, timeout: _Time | None = None,
    ) -> None:
        """As `HybridQueue.enqueue`. Awaits room (or the rate limit) where that would block, and under `POWER` the sync."""
        queue = self._queue
        if not queue._enqueue_hot(item, priority, ttl, delay, durability):
            await awaiting(queue._enqueueing(item, priority, ttl, delay, durability, timeout))
        elif queue._commits:
            await awaiting(queue._covering())

    async def enqueue_batch(
        self, items: Iterable[Any], *, priority: int = 128, ttl: _Time | None = None, delay: _Time | None = None, durability: Durability | None = None, timeout: _Time | None = None,
    ) -> None:
        """As `HybridQueue.enqueue_batch`: all of them or none."""
        queue = self._queue
        if not queue._enqueue_batch_hot(items, priority, ttl, delay, durability):
            await awaiting(queue._enqueueing_batch(items, priority, ttl, delay, durability, timeout))
        elif queue._commits:
            await awaiting(queue._covering())

    async def enqueue_front(self, item: Any, *, priority: int = 128, ttl: _Time | None = None) -> None:
        """As `HybridQueue.enqueue_front`."""
        await awaiting(self._queue._enqueueing_front(item, priority, ttl))

    # --- taking

    async def dequeue(self, timeout: _Time | None = None) -> Any:
        """As `HybridQueue.dequeue`: awaits an item, `timeout` seconds at most."""
        item = self._queue._dequeue_hot(_NOTHING)
        return item if item is not _NOTHING else await awaiting(self._queue._dequeueing(timeout))

    async def try_dequeue(self) -> Any:
        """As `dequeue`, but raises `QueueEmpty` at once where there is nothing. (Under `POWER` it awaits the sync.)"""
        return await self.dequeue(0)

    async def dequeue_batch(self, max_items: int | None = None, *, timeout: _Time | None = 0) -> list[Any]:
        """As `HybridQueue.dequeue_batch`."""
        return await awaiting(self._queue._dequeueing_batch([], max_items, timeout))

    async def lease(self, timeout: _Time | None = None) -> AsyncDelivery:
        """As `HybridQueue.lease`; what it gives is acknowledged by `await delivery.ack()`, or at the end of `async with delivery`."""
        return AsyncDelivery(self._queue, await awaiting(self._queue._leasing(timeout)))

    async def lease_batch(self, n: int | None = None, *, timeout: _Time | None = 0) -> list[AsyncDelivery]:
        """As `HybridQueue.lease_batch`."""
        return [AsyncDelivery(self._queue, delivery) for delivery in await awaiting(self._queue._leasing_batch(n, timeout))]

    def __aiter__(self) -> Self:
        """`async for item in q` takes the items one by one, waits for more, and ends when the queue is closed and empty. An item that the body does not finish is gone: see `lease`."""
        return self

    async def __anext__(self) -> Any:
        try:
            return await self.dequeue()
        except QueueClosed:
            raise StopAsyncIteration from None

    def batches(self, n: int | None = None, linger: _Time | None = None) -> AsyncIterator[list[Any]]:
        """As `HybridQueue.batches`, for `async for`. Cancelled while a batch is being collected, its items are back at their old places."""
        return self._batches(*self._queue._terms_of_batches(n, linger))

    async def _batches(self, n: int, linger_s: float) -> AsyncIterator[list[Any]]:
        while True:
            try:
                batch = await awaiting(self._queue._collecting(n, linger_s))
            except QueueClosed:
                return
            yield batch

    @property
    def dead_letters(self) -> AsyncDeadLetters:
        """As `HybridQueue.dead_letters`, with verbs that are awaited."""
        return AsyncDeadLetters(self._queue.dead_letters)

    # --- looking

    async def peek(self) -> Any:
        """As `HybridQueue.peek`."""
        return await asyncio.to_thread(self._queue.peek)

    def snapshot(self) -> AsyncIterator[Any]:
        """`async for item in q.snapshot()`: the items in line, as `HybridQueue.snapshot`, without taking any."""
        return _in_order(self._queue.snapshot())

    async def stats(self) -> QueueStats:
        """As `HybridQueue.stats`."""
        return await asyncio.to_thread(self._queue.stats)

    def __len__(self) -> int:
        return len(self._queue)

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        return f"<{type(self).__name__} over {self._queue!r}>"

    def __getattr__(self, name: str) -> Any:
        """Whatever else the queue has: a property is read, a verb is run in a thread."""
        if name.startswith("_"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        thing = getattr(self._queue, name)
        return _in_a_thread(thing) if callable(thing) else thing

    def on_memory_pressure(self, callback: Callable[[float], object], thresholds: Iterable[float] = (0.7, 0.9)) -> Callable[[], None]:
        """As `HybridQueue.on_memory_pressure`, and not awaited. The callback runs in the thread that crossed the threshold, which may be that of the event loop."""
        return self._queue.on_memory_pressure(callback, thresholds)

    # --- beside the verbs

    async def sync(self) -> None:
        """As `HybridQueue.sync`; shares the sync of whoever else waits for one."""
        await awaiting(self._queue._syncing())

    async def close(self, drain: _Time | None = None) -> None:
        """As `HybridQueue.close`. Cancelling it does not stop it: the queue is closed all the same."""
        await awaiting(self._queue._closing(drain))

    async def __aenter__(self) -> Self:
        self._queue._refuse(taking=False)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class AsyncDelivery:
    """A `Delivery` for tasks: one item on lease.

    As an asynchronous context manager it acknowledges on success and returns the item to its old place on an exception, cancellation included::

        async with await q.lease() as delivery:
            await upload(delivery.item)

    `ack` is as durable as the queue promises when it returns. Cancelled while it waits for its sync, an `ack` holds all the same.
    """

    __slots__ = ("_delivery", "_queue")

    def __init__(self, queue: Any, delivery: Delivery) -> None:
        self._queue = queue
        self._delivery = delivery

    @property
    def item(self) -> Any:
        """The item itself."""
        return self._delivery.item

    @property
    def id(self) -> UUID:
        """UUIDv7: the same at every delivery of this item."""
        return self._delivery.id

    @property
    def attempts(self) -> int:
        """Which attempt this is, from 1."""
        return self._delivery.attempts

    @property
    def enqueued_at(self) -> float:
        """When it was enqueued, in seconds since the epoch."""
        return self._delivery.enqueued_at

    @property
    def priority(self) -> int:
        return self._delivery.priority

    async def ack(self) -> None:
        """Done: the item leaves the queue. Raises `LeaseExpired` if the lease had ended."""
        await awaiting(self._delivery._acking())

    async def nack(self, delay: _Time = 0, *, error: BaseException | str | None = None) -> None:
        """Not done: the item goes back to its old place, or to the dead letters if this was its last attempt. Raises `LeaseExpired` if the lease had ended."""
        await awaiting(self._delivery._nacking(delay, error))

    async def reject(self, error: BaseException | str | None = None) -> None:
        """Not done, and another attempt would be in vain: the item becomes a dead letter at once. Raises `LeaseExpired` if the lease had ended."""
        await awaiting(self._delivery._rejecting(error))

    def heartbeat(self, every: _Time | None = None) -> Heartbeat:
        """As `Delivery.heartbeat`, for a plain `with` inside the task: the queue's background thread extends the lease meanwhile."""
        return self._delivery.heartbeat(every)

    async def extend(self, seconds: _Time) -> None:
        """Hold it for this long from now. Raises `LeaseExpired` if the lease had ended."""
        await awaiting(self._delivery._extending(seconds))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        await awaiting(self._delivery._ending(error))

    def __repr__(self) -> str:
        return f"<AsyncDelivery {self.id} attempt {self.attempts}>"


class AsyncDeadLetters:
    """The dead letters of a queue, for tasks: the verbs of `DeadLetters`, awaited. A predicate runs in another thread."""

    __slots__ = ("_letters",)

    def __init__(self, letters: DeadLetters) -> None:
        self._letters = letters

    def __len__(self) -> int:
        return len(self._letters)

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        return repr(self._letters)

    def __aiter__(self) -> AsyncIterator[DeadLetter]:
        """`async for letter in q.dead_letters`: the letters as they were when the iteration began, first to die first. Takes nothing."""
        return _in_order(iter(self._letters))

    async def peek(self) -> DeadLetter:
        """As `DeadLetters.peek`."""
        return await asyncio.to_thread(self._letters.peek)

    async def try_dequeue(self) -> DeadLetter:
        """As `DeadLetters.try_dequeue`. Cancelled while it waits for its sync, the letter is back."""
        return await awaiting(self._letters._dequeueing())

    async def clear(self) -> int:
        """As `DeadLetters.clear`."""
        return await awaiting(self._letters._clearing())

    async def remove_where(self, predicate: Callable[[DeadLetter], bool]) -> int:
        """As `DeadLetters.remove_where`."""
        return await awaiting(self._letters._removing_where(predicate))

    async def replay(self, predicate: Callable[[DeadLetter], bool] | None = None, max_items: int | None = None) -> int:
        """As `DeadLetters.replay`. Cancelled, it comes to its end all the same."""
        return await awaiting(self._letters._replaying(predicate, max_items))


_AT_ONCE = 64
"""How many items of a snapshot are read by a thread in one go."""


async def _in_order(items: Iterator[Any]) -> AsyncIterator[Any]:
    while some := await asyncio.to_thread(lambda: list(islice(items, _AT_ONCE))):
        for item in some:
            yield item


def _in_a_thread(verb: Callable[..., Any]) -> Callable[..., Any]:
    async def run(*args: Any, **options: Any) -> Any:
        return await asyncio.to_thread(verb, *args, **options)

    run.__name__, run.__doc__ = getattr(verb, "__name__", "run"), verb.__doc__
    return run
