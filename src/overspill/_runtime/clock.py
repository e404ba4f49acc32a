"""The time, handed in.

A queue asks its clock for monotonic seconds (timeouts, leases, syncs) and tells the compiled core which wall-clock time to use. `ManualClock` stands still until a
test moves it, for every queue that was opened with it.
"""
from __future__ import annotations

import time
import weakref
from typing import Any, Protocol

__all__ = ["Clock", "ManualClock", "SystemClock"]


class Clock(Protocol):
    """What a queue needs of a clock."""

    def monotonic(self) -> float: ...

    def attach(self, queue: Any) -> None: ...


class SystemClock:
    """The machine's own."""

    monotonic = staticmethod(time.monotonic)

    def attach(self, queue: Any) -> None:
        queue._frozen_ns = 0


class ManualClock:
    """A clock that moves when it is told to. The wall clock may also jump by itself."""

    def __init__(self, wall_ns: int = 1_700_000_000_000_000_000, monotonic: float = 1000.0) -> None:
        self.wall_ns = wall_ns
        self._monotonic = monotonic
        self._queues: weakref.WeakSet[Any] = weakref.WeakSet()

    def monotonic(self) -> float:
        return self._monotonic

    def attach(self, queue: Any) -> None:
        self._queues.add(queue)
        queue._frozen_ns = self.wall_ns

    def advance(self, seconds: float) -> None:
        """Time passes, and what is due by then is done before this returns."""
        self._monotonic += seconds
        self.jump(seconds)
        for queue in list(self._queues):
            queue._work()

    def jump(self, seconds: float) -> None:
        """Only the wall clock is set forward, or back."""
        self.wall_ns += round(seconds * 1e9)
        for queue in list(self._queues):
            queue._frozen_ns = self.wall_ns
