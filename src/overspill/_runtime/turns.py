"""Who waits for the rate limit: each in turn, in the order of the calls.

Only the first in line may take tokens, and the hot way asks for none while anybody stands there (`queued` of the limiter): otherwise a batch that needs many tokens would wait for ever, while
single items took each as it came. The first sleeps until its tokens are there, the others until they are first; whoever leaves, served or not, wakes the next.
"""
from __future__ import annotations

import threading
from collections import deque
from itertools import takewhile

from .._core.limiter import Limiter
from .waiters import Waiter

__all__ = ["Turn", "Turns"]


class Turns:
    """The line."""

    def __init__(self, limiter: Limiter) -> None:
        self._limiter = limiter
        self._line: deque[Turn] = deque()
        self._mutex = threading.RLock()  # a finaliser may call a queue at any moment

    def turn(self, n: int) -> Turn:
        """A turn for `n` items; it stands in line from the beginning of its `with` block to the end."""
        return Turn(self, n)

    def enter(self, turn: Turn) -> None:
        with self._mutex:
            self._line.append(turn)
            self._limiter.queued = len(self._line)

    def leave(self, turn: Turn) -> None:
        with self._mutex:
            if turn in self._line:
                self._line.remove(turn)
            self._limiter.queued = len(self._line)
            self.wake_first()

    def ahead_of(self, turn: Turn) -> int:
        """How many items are to pass before it."""
        with self._mutex:
            return sum(other.n for other in takewhile(lambda other: other is not turn, self._line))

    def wake_first(self) -> None:
        """There may be more tokens than it sleeps for."""
        with self._mutex:
            if self._line:
                self._line[0].wake()

    def wake_all(self) -> None:
        with self._mutex:
            for turn in self._line:
                turn.wake()


class Turn:
    """One call that waits.

        with turns.turn(n) as turn:
            while turn.ahead() or not look():
                yield turn.waiter, timeout
    """

    __slots__ = ("_line", "_waiter", "n")

    def __init__(self, line: Turns, n: int) -> None:
        self._line = line
        self._waiter = Waiter()
        self.n = n

    def ahead(self) -> int:
        """How many items are to pass before. Asked before every sleep: a wake-up that comes after this is not missed."""
        if self._waiter.woken:
            self._waiter = Waiter()
        return self._line.ahead_of(self)

    @property
    def waiter(self) -> Waiter:
        return self._waiter

    def wake(self) -> None:
        if not self._waiter.woken:
            self._waiter.wake()

    def __enter__(self) -> Turn:
        self._line.enter(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._line.leave(self)
