"""Who waits for an item, or for room: first come, first served.

Nothing polls. A waiter enters the line, looks once more (so that nothing that happened in between is missed), and sleeps until it is woken. Whoever was woken and
leaves without taking what it was woken for wakes the next, so no wake-up is lost.

The hot verbs look at a number only (`_n_takers`, `_n_makers` of the queue): it is the length of the line, kept here.
"""
from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

__all__ = ["Waiter", "Waiters"]


class Waiter:
    """One who waits: a thread by default, or whatever `notify` reaches."""

    __slots__ = ("_lock", "_notify", "woken")

    def __init__(self, notify: Callable[[], object] | None = None) -> None:
        self.woken = False
        self._notify = notify
        self._lock = threading.Lock()
        self._lock.acquire()

    def wait(self, timeout: float | None) -> bool:
        """Sleep until woken; False if the time ran out first."""
        if timeout is None:
            return self._lock.acquire()
        return self._lock.acquire(timeout=min(max(timeout, 0.0), threading.TIMEOUT_MAX))

    def wake(self) -> None:
        self.woken = True
        if self._notify is not None:
            self._notify()
        self._lock.release()


class Waiters:
    """A line of waiters. `count` is told the length whenever it changes."""

    def __init__(self, count: Callable[[int], object]) -> None:
        self._line: deque[Waiter] = deque()
        self._mutex = threading.RLock()  # a finaliser may call a queue at any moment
        self._count = count

    def enter(self, waiter: Waiter) -> None:
        with self._mutex:
            self._line.append(waiter)
            self._count(len(self._line))

    def leave(self, waiter: Waiter) -> None:
        """Step out of the line, whether woken or not."""
        with self._mutex:
            if not waiter.woken:
                self._line.remove(waiter)
                self._count(len(self._line))

    def wake(self) -> None:
        """Wake the first in line."""
        with self._mutex:
            if self._line:
                waiter = self._line.popleft()
                self._count(len(self._line))
                waiter.wake()

    def wake_all(self) -> None:
        with self._mutex:
            while self._line:
                self._line.popleft().wake()
            self._count(0)

    def __len__(self) -> int:
        return len(self._line)
