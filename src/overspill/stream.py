"""A lean queue for one stream of packets: memory first, one file when memory is full, gone when it is closed."""
from __future__ import annotations

import os
from datetime import timedelta
from types import TracebackType
from typing import Any, Final

from ._runtime.streaming import Streaming
from ._store.layout import MESSAGE_MAX
from ._store.overflow import OverflowReport
from .errors import InvalidOption
from .options import Durability, Options, RateLimit, folder_path, validate_name
from .stats import StreamStats

__all__ = ["StreamQueue"]

_ORIGINS_RATE: Final = RateLimit(10_000, burst=1000)
_PRIVATE: Final = ("_clock", "_disk_class", "_background")


class StreamQueue:
    """The queue between one producer of packets and whoever ships them: bytes, first in first out.

        with StreamQueue("camera-7", 500, "overflow") as stream:
            stream.enqueue(packet)
            stream.dequeue()

    Up to `memory_size` items, and 512 MiB, are in memory. What comes when memory is full goes to the file `<stream_id>.overflow` in the folder `disk_path`, and returns to memory, in order, as room is
    made there. Nothing here is durable: `close` removes the file. After a kill, what was in the file and not in memory is delivered first by the next `StreamQueue` of this
    name; so is what another program has left there in the same format.

    Any number of threads may put and take. For what must not be lost with the process, use a `HybridQueue`.

    `rate_limit`: how fast items may come in; None for no limit.

    Raises `InvalidOption`, `QueueLocked` if the stream is open elsewhere, `UnsafeFolder`, and `OSError` when the disk refuses.
    """

    __slots__ = ("__weakref__", "_stream")

    def __init__(self, stream_id: str, memory_size: int, disk_path: str | os.PathLike[str], *, rate_limit: RateLimit | None = _ORIGINS_RATE, **private: Any) -> None:
        options = Options.build(
            name=validate_name(stream_id, "stream_id"), memory_size=memory_size, max_item_size=MESSAGE_MAX, serializer="raw", durability=Durability.MEMORY, rate_limit=rate_limit,
        )  # fmt: skip
        path = folder_path("disk_path", disk_path)
        if path is None:
            raise InvalidOption("disk_path", None, "the folder for the overflow file", hint="a HybridQueue without a disk_path is in memory only")
        if stranger := next((key for key in private if key not in _PRIVATE), None):
            raise InvalidOption(stranger, private[stranger], "left out: a stream has no such option")
        self._stream = Streaming()
        self._stream._open_stream(options, path, **{key[1:]: value for key, value in private.items()})

    # --- items

    def enqueue(self, data: bytes) -> None:
        """Put `data` at the end of the line: in memory, or in the kernel if memory is full.

        Raises `RateLimited`, `QueueFull` (memory and disk are full), `QueueClosed`, `NotSerializable` (not bytes), `ItemTooLarge` (over 10 MiB); then the item is not in the stream.
        """
        self._stream.enqueue(data)

    def dequeue(self) -> bytes:
        """Take the first item; waits for one as long as it takes. Raises `QueueClosed` when the stream is closed and nothing is left.

        Raises `CorruptedData` once when the overflow file turns out to be damaged; the next call goes on with what can be read.
        """
        return self._stream.dequeue()  # type: ignore[no-any-return]

    def dequeue_timeout(self, seconds: float | timedelta) -> bytes:
        """As `dequeue`, but waits no longer than this, then raises `QueueEmpty`."""
        return self._stream.dequeue(seconds)  # type: ignore[no-any-return]

    def try_dequeue(self) -> bytes:
        """As `dequeue`, but never waits: raises `QueueEmpty` at once."""
        return self._stream.try_dequeue()  # type: ignore[no-any-return]

    # --- looking

    @property
    def stream_id(self) -> str:
        """The stream's name, which is the file's."""
        return self._stream.name or ""

    def get_depth(self) -> int:
        """Items waiting, in memory and on disk."""
        return self._stream.depth()

    def __len__(self) -> int:
        return self._stream.depth()

    def __bool__(self) -> bool:
        return True

    def get_pressure(self) -> float:
        """0.0 to 1.0: how full memory is. Above 1.0 while anything is on disk: 1 + how many memories full."""
        return self._stream.pressure

    def has_disk_data(self) -> bool:
        """Whether any item is on disk."""
        return self._stream._overflow.items > 0

    def stats(self) -> StreamStats:
        """The stream's accounts, as one frozen `StreamStats`."""
        return self._stream.stream_stats()

    @property
    def _accounts(self) -> Streaming:
        """What shows the stream among other queues: `stats()` in their terms (see `metrics/watched.py`)."""
        return self._stream

    @property
    def recovery(self) -> OverflowReport:
        """What opening found in the overflow file: items, torn bytes, damage."""
        return self._stream._overflow.report

    @property
    def closed(self) -> bool:
        """Whether `close` has begun."""
        return self._stream.closed

    # --- closing

    def close(self, drain: float | timedelta | None = None) -> int:
        """Close the stream and remove its file; returns how many items were thrown away with it. Closing twice does nothing.

        New items are refused at once. Consumers that wait get what is left, then `QueueClosed`. With `drain`, all consumers may go on for up to so many seconds, until nothing is
        left. Whatever background work is under way has ended on return.
        """
        self._stream.close(drain)
        return self._stream.discarded

    def __enter__(self) -> StreamQueue:
        self._stream.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        return repr(self._stream)
