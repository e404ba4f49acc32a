"""Overspill: a hybrid memory/disk queue.

Items live in memory while there is room, spill to disk when there is not, come back in order, and are still there after a crash.

    >>> from overspill import HybridQueue
    >>> with HybridQueue("jobs", "/var/lib/app/queues") as q:   # doctest: +SKIP
    ...     q.enqueue(b"one")
    ...     q.dequeue()
    b'one'
"""
from typing import TYPE_CHECKING, Any

from ._runtime.delivery import Delivery
from .circular import CircularBuffer
from .compat import Queue
from .configured import Queues, open_queues
from .errors import (
    CorruptedData,
    InvalidOption,
    ItemRejected,
    ItemTooLarge,
    LeaseExpired,
    NotSerializable,
    QueueBroken,
    QueueClosed,
    QueueEmpty,
    QueueError,
    QueueFull,
    QueueLocked,
    RateLimited,
    UnknownFormat,
    UnsafeFolder,
)
from .hybrid import HybridQueue
from .item import Priority
from .options import Durability, GiB, KiB, MiB, OverflowStrategy, RateLimit, WhenFull
from .priority import PriorityQueue
from .serializers import Serializer
from .stats import QueueStats, StreamStats
from .stream import StreamQueue

if TYPE_CHECKING:
    from .aio import AsyncDelivery, AsyncHybridQueue

__version__ = "0.1.0"

__all__ = [
    "AsyncDelivery", "AsyncHybridQueue", "CircularBuffer", "CorruptedData", "Delivery", "Durability", "GiB", "HybridQueue", "InvalidOption", "ItemRejected", "ItemTooLarge", "KiB", "LeaseExpired",
    "MiB", "NotSerializable", "open_queues", "OverflowStrategy", "Priority", "PriorityQueue", "Queue", "QueueBroken", "QueueClosed", "QueueEmpty", "QueueError", "QueueFull",
    "QueueLocked", "Queues", "QueueStats", "RateLimit", "RateLimited", "Serializer", "StreamQueue", "StreamStats", "UnknownFormat", "UnsafeFolder", "WhenFull",
]


def __getattr__(name: str) -> Any:
    """The awaiting face brings `asyncio` with it, which costs more than all the rest: only for who asks for it."""
    if name in ("AsyncDelivery", "AsyncHybridQueue"):
        from . import aio

        return getattr(aio, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
