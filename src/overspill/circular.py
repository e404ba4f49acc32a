"""The last so many items: a ring that forgets its oldest, in memory or as a flight recorder on disk."""
from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, overload

from ._runtime.assemble import Assembled
from .opening import open_with
from .options import WhenFull
from .options import seconds as in_seconds
from .serializers import ANY_OBJECT
from .stats import QueueStats

__all__ = ["CircularBuffer"]

class CircularBuffer(Assembled):
    """The newest `capacity` items, in the order in which they were pushed; a push into a full buffer overwrites the oldest, which is counted (`overwritten`).

    In memory it takes any object, keeps it as it is and never serialises it. With a `disk_path` (and a `name`) it is a flight recorder: a push is in the log before it returns, an
    overwritten item is settled there, and what was last in the buffer is there again when it is opened after a `kill -9`; after a power cut without `Durability.POWER`,
    the last `sync_interval` may be missing from its end and as much that had been overwritten may be back at its front. Disk use follows what is in the buffer.

    `ttl`: seconds after which an item is gone from every view. The other options are those of `HybridQueue`, but for `when_full` and `max_items`, which are what makes this a ring;
    `memory_size` is `capacity` unless a recorder is to keep less of it in memory.

    Any number of threads may push and look. Every view, iteration included, is of one moment: what is pushed or overwritten while one goes through it does not disturb it. (`snapshot()`
    reads the disk as it goes instead, for a recorder of more than fits into memory.) `dequeue` and the other verbs of a queue work here, too.
    """

    def __init__(
        self, capacity: int, *, ttl: float | timedelta | None = None, disk_path: str | os.PathLike[str] | None = None, name: str | None = None, **options: Any,
    ) -> None:
        options = {"memory_size": capacity, **options}
        if disk_path is None:
            options = {"serializer": ANY_OBJECT, "memory_limit": None, **options}
        open_with(self, name=name, disk_path=disk_path, ttl=ttl, max_items=capacity, when_full=WhenFull.DROP_OLDEST, **options)

    push = Assembled._push

    @property
    def capacity(self) -> int:
        """How many items the buffer holds at most."""
        return self._most_items

    @property
    def overwritten(self) -> int:
        """How many items have given way to newer ones since the buffer was opened."""
        return self._drops().get("full_oldest", 0)

    # --- looking

    def __len__(self) -> int:
        self._expire_due()
        return self._waiting

    @property
    def size(self) -> int:
        """Items in the buffer."""
        return len(self)

    def stats(self) -> QueueStats:
        """The buffer's accounts, as one frozen `QueueStats`; what was overwritten is `dropped["full_oldest"]`."""
        self._expire_due()
        return super().stats()

    @overload
    def __getitem__(self, at: int) -> Any: ...
    @overload
    def __getitem__(self, at: slice) -> list[Any]: ...
    def __getitem__(self, at: int | slice) -> Any:
        """`buffer[0]` is the oldest, `buffer[-1]` the newest; a slice is a list. Raises `IndexError` where there is no item."""
        if isinstance(at, slice):
            return self._items_at(at)
        found = self._items_at(slice(at, at + 1 or None))
        if not found:
            raise IndexError(f"no item {at} in a buffer of {len(self)}")
        return found[0]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._items_at(slice(None)))

    def __reversed__(self) -> Iterator[Any]:
        return iter(self._items_at(slice(None, None, -1)))

    def get_last(self, n: int) -> list[Any]:
        """The newest `n` items (or as many as there are), the oldest of them first."""
        return self._items_at(slice(-n, None)) if n > 0 else []

    def get_recent(self, seconds: float | timedelta) -> list[Any]:
        """What was pushed within the last so many seconds (by the wall clock, to some 4 ms), the oldest first."""
        return self._items_since(self._now_ns() - round(in_seconds("seconds", seconds) * 1e9))

    def for_each(self, fn: Callable[[Any], object]) -> None:
        """Call `fn(item)` for every item, the oldest first, until it returns `False`."""
        for item in self:
            if fn(item) is False:
                return
