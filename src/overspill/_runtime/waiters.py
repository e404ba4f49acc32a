"""Who waits for an item, or for room: first come, first served.

Nothing polls. A waiter enters the line, looks once more (so that nothing that happened in between is missed), and sleeps until it is woken. Whoever was woken and
leaves without taking what it was woken for wakes the next, so no wake-up is lost.

A waiter may be a thread, which blocks in `wait`, or a task, which says by `call` what is to be called. The line does not know which; `waiting.py` says how a verb
comes to be either.

The hot verbs look at a number only (`_n_takers`, `_n_makers` of the queue): it is the length of the line, kept here.
"""
from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

__all__ = ["Waiter", "Waiters"]


class Waiter:
    """One who waits, once."""

    __slots__ = ("_call", "_lock", "woken")

    def __init__(self) -> None:
        self.woken = False
        self._call: Callable[[], bool] | None = None
        self._lock = threading.Lock()
        self._lock.acquire()

    def wait(self, timeout: float | None) -> None:
        """Block this thread until woken or until so many seconds have passed."""
        if timeout is None:
            self._lock.acquire()
        else:
            self._lock.acquire(timeout=min(max(timeout, 0.0), threading.TIMEOUT_MAX))

    def call(self, wake_up: Callable[[], bool]) -> None:
        """Do not block: `wake_up` is called when it is time, in whatever thread; perhaps at once, perhaps twice. It returns whether there is anybody left to wake."""
        self._call = wake_up
        if self.woken:  # before it was heard; `wake` looks in the other order, so one of the two calls
            wake_up()

    def wake(self) -> bool:
        """Wake it; False if there is nobody any more (a task whose loop has been closed)."""
        self.woken = True
        self._lock.release()
        return self._call is None or self._call()


class Waiters:
    """A line of waiters. `count` is told the length whenever it changes; `is_there` says whether there may be what they wait for."""

    def __init__(self, count: Callable[[int], object], is_there: Callable[[], object]) -> None:
        self._line: deque[Waiter] = deque()
        self._mutex = threading.RLock()  # a finaliser may call a queue at any moment
        self._count = count
        self._is_there = is_there

    def place(self) -> Place:
        """A place in this line, for one who may have to wait."""
        return Place(self)

    def enter(self, waiter: Waiter, *, first: bool = False) -> None:
        with self._mutex:
            if first:
                self._line.appendleft(waiter)
            else:
                self._line.append(waiter)
            self._count(len(self._line))

    def leave(self, waiter: Waiter) -> None:
        """Step out of the line, whether woken, in line, or interrupted before it had entered; what is there is for the next."""
        with self._mutex:
            if waiter in self._line:
                self._line.remove(waiter)
            self._count(len(self._line))
            if self._line and self._is_there():
                self.wake()

    def wake(self) -> None:
        """Wake the first in line."""
        with self._mutex:
            while self._line:
                waiter = self._line.popleft()
                self._count(len(self._line))
                if waiter.wake():
                    break

    def wake_all(self) -> None:
        with self._mutex:
            while self._line:
                self._line.popleft().wake()
            self._count(0)

    def __len__(self) -> int:
        return len(self._line)


class Place:
    """Somebody's place in a line: taken when it turns out that one must wait, left at the end of the block, however that comes about.

        with line.place() as place:
            while not (found := look()):
                if not place.take():
                    yield place.waiter, timeout
    """

    __slots__ = ("_line", "_waiter")

    def __init__(self, line: Waiters) -> None:
        self._line = line
        self._waiter: Waiter | None = None

    @property
    def waiter(self) -> Waiter:
        assert self._waiter is not None
        return self._waiter

    def take(self) -> bool:
        """Stand in line; who was woken in vain stands first again. True if one did not stand there yet: look once more, then, for what one waits for may have come before."""
        before = self._waiter
        if before is not None and not before.woken:
            return False
        self._waiter = Waiter()
        self._line.enter(self._waiter, first=before is not None)
        return True

    def __enter__(self) -> Place:
        return self

    def __exit__(self, *_: object) -> None:
        if self._waiter is not None:
            self._line.leave(self._waiter)
