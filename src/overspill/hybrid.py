"""The queue that most people want: memory while there is room, disk when there is not, one order, and everything there again after a crash."""
from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

from ._runtime.assemble import Assembled
from ._store.inspection import Inspection, inspect
from .config import load_config
from .opening import open_with

if TYPE_CHECKING:
    from .aio import AsyncHybridQueue

__all__ = ["HybridQueue"]

class HybridQueue(Assembled):
    """A hybrid memory/disk queue.

    `HybridQueue("segments", "/var/lib/mirror/queues")` opens (or creates) the folder `segments` there; with `disk_path=None` the queue is in memory only and full when
    memory is. All options are keyword-only from the third on and are listed, with units and ranges, in `Options`.

    Any number of threads may use one queue; a second opener of the same folder gets `QueueLocked`. Higher priority first, first in first out within a priority, whatever was
    spilled, returned or recovered. What an acknowledged operation survives is the `durability`: see the promises page.

    Raises `InvalidOption`, `QueueLocked`, `UnsafeFolder`, `UnknownFormat`, and `OSError` when the disk refuses.
    """

    def __init__(self, name: str | None = None, disk_path: str | os.PathLike[str] | None = None, **options: Any) -> None:
        open_with(self, name=name, disk_path=disk_path, **options)

    @classmethod
    def from_config(cls, source: Mapping[str, Any] | str | os.PathLike[str], *, name: str | None = None) -> Self:
        """Open a queue as a mapping, a TOML file or a JSON file says; the keys are the options. Unknown keys are errors.

        A source with several queues (`[queues.NAME]`, and `[defaults]` for all) is asked for one by its `name`; `open_queues` opens them all.
        """
        return cls(**load_config(source, name))

    @property
    def aio(self) -> AsyncHybridQueue:
        """The same queue for `asyncio`: every verb is awaited. Threads and tasks may use the queue at once."""
        from .aio import AsyncHybridQueue

        return AsyncHybridQueue.over(self)

    @staticmethod
    def inspect(path: str | os.PathLike[str], *, deep: bool = False) -> Inspection:
        """Look at a queue's folder without opening it: beside a running owner, or at a copy. Changes nothing.

        `deep` checks every checksum and settle mark instead of headers and footers only.
        """
        return inspect(path, deep=deep)
