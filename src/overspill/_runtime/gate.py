"""A lock that turns a hot way off while it is held.

The hot verbs take no lock: they are atomic because they run no Python code. Whoever must keep the tail (or the head) of a queue still over a call
that drops the interpreter lock holds its gate; the hot verbs see their switch off and go the slow way, which waits for the gate.
"""
from __future__ import annotations

import threading
import time
from typing import Any

__all__ = ["Gate"]

_SOON_S = 0.001


class Gate:
    """`with gate:` — re-entrant. `allowed` says whether the hot way may be on when nobody holds it."""

    __slots__ = ("_depth", "_queue", "_switch", "_waiting", "allowed", "lock")

    def __init__(self, queue: Any, switch: str) -> None:
        self.lock = threading.RLock()
        """Taken without the gate by whoever only keeps other slow ways out."""
        self.allowed = False
        self._queue = queue
        self._switch = switch
        self._depth = 0
        self._waiting = 0

    def __enter__(self) -> None:
        if not self.lock.acquire(blocking=False):
            self._waiting += 1  # a hint only: it need not be exact
            try:
                self.lock.acquire()
            finally:
                self._waiting -= 1
        self._depth += 1
        setattr(self._queue, self._switch, False)

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        if self._depth == 0:
            setattr(self._queue, self._switch, self.allowed)
        self.lock.release()

    def enter_soon(self) -> bool:
        """Enter if that takes no more than a millisecond; False otherwise. For who holds up an event loop."""
        if not self.lock.acquire(timeout=_SOON_S):
            return False
        self._depth += 1
        setattr(self._queue, self._switch, False)
        return True

    def leave(self) -> None:
        """The other half of `enter_soon`."""
        self.__exit__()

    def let_others_in(self) -> None:
        """Between two holds of a long loop. A lock goes to whoever asks first, which would always be the loop again."""
        if self._waiting > 0 and self._depth == 0:
            time.sleep(0.0001)

    def allow(self, allowed: bool) -> None:
        with self:
            self.allowed = allowed
