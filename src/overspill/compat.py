"""A drop-in for the standard library's `queue`: `from overspill import compat as queue`, or just `from overspill import Queue`.

What `queue.Queue` promises is kept, with two more things to be had: nothing in the way of a put or get takes a lock, and with a `disk_path` what was put is there after a crash.
"""
from __future__ import annotations

import os
import threading
from types import GenericAlias, TracebackType
from typing import Any, Self

from ._core.lanes import Claim
from ._core.parcel import Parcel
from ._runtime.assemble import Assembled
from ._runtime.putting import TooManyItems
from .errors import QueueClosed, QueueEmpty, QueueFull
from .opening import open_with
from .options import ITEMS_MAX, Durability, WhenFull
from .serializers import ANY_OBJECT
from .stats import QueueStats

__all__ = ["Empty", "Full", "Queue", "ShutDown"]

Empty, Full, ShutDown = QueueEmpty, QueueFull, QueueClosed
"""The names that the standard library gives them, for `except queue.Empty` and the like; each is also the standard library's own (`ShutDown` where there is one, from 3.13 on)."""

_LOCKED_AWAY = {
    "queue": "`q.queue` is CPython's deque; here: qsize(), get(), or stats()",
    "mutex": "nothing here is guarded by a mutex; every method is atomic by itself",
    "not_empty": "wait with get(timeout=...)",
    "not_full": "wait with put(item, timeout=...)",
    "all_tasks_done": "wait with join()",
}


class Queue:
    """As `queue.Queue`: first in first out, any number of producers and consumers, `task_done` and `join`, `shutdown` as of Python 3.13.

    Without a `disk_path` it is in memory and takes any object, which comes out as the very object that went in. With one (and a `name`) it is durable: items must be such as the
    `serializer` can write (`serializer="pickle"` takes most things), what is left when the program ends or is killed is there when the queue is opened again, and as many tasks are
    unfinished then. `maxsize` counts all items, wherever they are; 0 is without end, and may be set at any time. The other options are those of `HybridQueue`.

    Beyond `queue.Queue`: `close()` (a `with` block does it), after which a durable queue's folder is free, and `stats()`. `Empty`, `Full` and `ShutDown` are `QueueEmpty`, `QueueFull` and
    `QueueClosed`, which are also the standard library's. A subclass may extend `_put` and `_get`, which run with the place or the item already there. The inner parts of CPython's
    implementation (`queue`, `mutex`, `not_empty`, `not_full`, `all_tasks_done`, `_init`, `_qsize`) do not exist: who uses them gets an `AttributeError` that says what to do.
    """

    def __init__(self, maxsize: int = 0, *, name: str | None = None, disk_path: str | os.PathLike[str] | None = None, **options: Any) -> None:
        if disk_path is None:
            options = {"serializer": ANY_OBJECT, "memory_size": ITEMS_MAX, "memory_limit": None, **options}
        hooked = type(self)._put is not Queue._put or type(self)._get is not Queue._get
        self._line: Assembled = _Hooked(self) if hooked else Assembled()
        open_with(self._line, name=name, disk_path=disk_path, when_full=WhenFull.BLOCK, **options)
        if isinstance(self._line, _Hooked):
            self._line.go_slow()
        self._finished = 0
        self._finishing = threading.Condition()
        self.maxsize = maxsize

    def __class_getitem__(cls, item: Any) -> GenericAlias:
        return GenericAlias(cls, item)

    @property
    def maxsize(self) -> int:
        """How many items the queue takes; 0 or less: without end."""
        return self._maxsize

    @maxsize.setter
    def maxsize(self, maxsize: int) -> None:
        self._maxsize = maxsize
        self._line._limit_items(maxsize if maxsize > 0 else None)

    # --- putting and getting

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Put an item in; waits for a place, for ever or up to `timeout` seconds, unless `block` is false. Raises `Full`, `ShutDown`, and `NotSerializable` where there is a disk."""
        self._line.enqueue(item, timeout=_how_long(block, timeout))

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Take the first item out; waits for one, for ever or up to `timeout` seconds, unless `block` is false. Raises `Empty`, and `ShutDown` when nothing can come any more."""
        return self._line.dequeue(_how_long(block, timeout))

    def put_nowait(self, item: Any) -> None:
        """`put(item, block=False)`."""
        self._line.enqueue(item, timeout=0)

    def get_nowait(self) -> Any:
        """`get(block=False)`."""
        return self._line.try_dequeue()

    def qsize(self) -> int:
        """How many items are in it, at this moment."""
        return len(self._line)

    def empty(self) -> bool:
        """Whether nothing is in it, at this moment."""
        return not self.qsize()

    def full(self) -> bool:
        """Whether `maxsize` items are in it, at this moment."""
        return 0 < self._maxsize <= self.qsize()

    def _put(self, item: Any) -> None:
        """Where an item goes in. A subclass may extend it; what it raises comes out of `put`, and the item is not in."""
        self._line.enqueue(item, timeout=0)

    def _get(self) -> Any:
        """Where an item comes out. A subclass may extend it; if it raises, the item is still there."""
        return self._line.try_dequeue()

    # --- tasks

    @property
    def unfinished_tasks(self) -> int:
        """Items that were put (or found, at opening) and for which `task_done` has not been called. What expired or was dropped is nobody's task."""
        return self._line._entrusted() - self._finished

    def task_done(self) -> None:
        """An item that was taken has been dealt with. Raises `ValueError` when called more often than there were items."""
        with self._finishing:
            if self.unfinished_tasks <= 0:
                raise ValueError("task_done() called too many times")
            self._finished += 1
            if not self.unfinished_tasks:
                self._finishing.notify_all()

    def join(self) -> None:
        """Wait until every item that was put has been taken and dealt with."""
        with self._finishing:
            while self.unfinished_tasks > 0:
                self._finishing.wait()

    # --- the end

    @property
    def is_shutdown(self) -> bool:
        """Whether `shutdown` or `close` has been called."""
        return self._line.closed

    def shutdown(self, immediate: bool = False) -> None:
        """Nothing more can be put: `put` raises `ShutDown`, and `get` does once nothing is left. Whoever waits is woken.

        `immediate`: `get` raises at once, too, and what is left counts as done for `join`. In memory it is let go of; a durable queue keeps it for the next time it is opened.
        """
        if not immediate:
            self._line._stop_intake()
            self._line._takers.wake_all()
            return
        if self._line._options.disk_path is None:
            self._line._stop_intake()
            self._line.clear()
            self._line._takers.wake_all()
        else:
            self._line.close()
        with self._finishing:
            self._finishing.notify_all()

    def close(self) -> None:
        """End it: nothing can be put or taken any more. What is left of a durable queue is kept and its folder given back; in memory it is let go of. Closing twice does nothing."""
        self._line.close()
        with self._finishing:
            self._finishing.notify_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()

    # --- what it says of itself

    def stats(self) -> QueueStats:
        """The accounts of the queue beneath."""
        return self._line.stats()

    @property
    def _accounts(self) -> Assembled:
        """What shows it among other queues (see `metrics/watched.py`)."""
        return self._line

    def __repr__(self) -> str:
        limit = f" of {self._maxsize:,}" if self._maxsize > 0 else ""
        return f"<Queue {self._line.name or 'in memory'}: {self.qsize():,}{limit}{', shut down' if self.is_shutdown else ''}>"

    def __getattr__(self, name: str) -> Any:
        hint = _LOCKED_AWAY.get(name)
        raise AttributeError(f"overspill.Queue has no {name!r}{f' ({hint})' if hint else ''}", name=name, obj=self)


def _how_long(block: bool, timeout: float | None) -> float | None:
    """The engine's timeout for the standard library's two arguments."""
    if not block:
        return 0
    if timeout is not None and timeout < 0:
        raise ValueError("'timeout' must be a non-negative number")
    return timeout


class _Hooked(Assembled):
    """The line of a subclass that extends `_put` or `_get`: they stand where the engine would place or take the item, with the line held still."""

    def __init__(self, face: Queue) -> None:
        self._face = face
        self._in_put = self._in_get = False
        self._handed: set[Claim] = set()
        """Claims whose item `_get` has taken: there is nothing left to confirm."""

    def go_slow(self) -> None:
        """No hot way: it knows no hooks."""
        self._tail.allow(False)
        self._head.allow(False)

    def _place(self, parcels: list[Parcel], promise: Durability) -> None:
        if self._in_put:
            super()._place(parcels, promise)
            return
        if self._waiting >= self._most_items:
            raise TooManyItems
        self._in_put = True  # nobody else sees it: the tail is held
        try:
            for parcel in parcels:
                self._face._put(parcel.item if parcel.direct else self._codec.decode(parcel.kind, parcel.item))
        finally:
            self._in_put = False

    def _settled(self, claim: Claim) -> tuple[Claim, Any]:
        if self._in_get:
            return super()._settled(claim)
        self._return(claim)  # for `_get` to take, or to leave there if it fails
        self._in_get = True
        try:
            item = self._face._get()
        finally:
            self._in_get = False
        self._handed.add(claim)
        return claim, item

    def _confirm(self, claim: Claim) -> bool:
        if claim in self._handed:
            self._handed.discard(claim)
            return True
        return super()._confirm(claim)
