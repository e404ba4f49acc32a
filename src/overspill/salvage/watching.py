"""Watching queues from outside, beside their owners: how much waits, and how fast it comes and goes.

Rates come from the log alone: every item that is written gets the next number, so the greatest number says how many ever came, and what came and does not wait any more
has gone. What lives only in the owner's memory (resident items, drops, sync latency) is what the owner said at its last sync, in its lock file; a queue under `MEMORY` writes
nothing until it spills, and is told of by what its owner said.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from .._store.inspection import Inspection, inspect

__all__ = ["Glance", "Watch"]

HISTORY: Final = 60


@dataclass(frozen=True)
class Glance:
    """One look at a queue."""

    found: Inspection
    waiting: int
    oldest_age: float | None
    """Seconds since the first waiting item of the log was enqueued."""
    in_rate: float | None
    """Items a second since the look before; None at the first."""
    out_rate: float | None
    """However they left: taken, expired, dropped."""
    owner: Mapping[str, Any] | None
    """What the owner last said of itself; None if there is none, or it has not said anything yet."""


class Watch:
    """Look at one queue again and again. Changes nothing."""

    def __init__(self, path: str | os.PathLike[str], monotonic: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time) -> None:
        self.path = os.fspath(path)
        self._monotonic, self._wall = monotonic, wall
        self._before: tuple[float, int, int] | None = None
        self.ins: deque[float] = deque(maxlen=HISTORY)
        self.outs: deque[float] = deque(maxlen=HISTORY)

    def look(self) -> Glance:
        """Raises what `inspect` raises; the queue may have gone."""
        found = inspect(self.path)
        now = self._monotonic()
        owner = found.owner
        came, waiting = found.next_sequence - 1, found.waiting
        if owner is not None and owner.get("durability") == "memory":
            came, waiting = owner["enqueued"], owner["waiting"]
        gone = came - waiting
        in_rate = out_rate = None
        if self._before is not None:
            then, came_then, gone_then = self._before
            span = max(now - then, 1e-9)
            in_rate, out_rate = max(0.0, (came - came_then) / span), max(0.0, (gone - gone_then) / span)
            self.ins.append(in_rate)
            self.outs.append(out_rate)
        self._before = now, came, gone
        return Glance(found, waiting, found.oldest_age(self._wall()), in_rate, out_rate, owner)
