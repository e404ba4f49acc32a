"""The background thread: one for all queues of a process, started with the first work and gone with the last queue.

A queue asks to be looked at, soon or at a time; the pump calls its `_work()`, which does what is due (sync, prepare, seal, retire, expire, leases) and
returns when it wants to be looked at again. Nothing here polls: with nothing due, the thread sleeps without a timer.

Beside it, from the first queue that writes, a thread that backs pages ahead of the tails. All of it is in the core and never needs the interpreter lock, for which the pump must wait.

The main thread may be interrupted by a signal anywhere. The lock is therefore taken as such: the condition's own `with` is Python code, and may be left with the lock held.

After a fork the child has no such threads and no queue that it may use: the hook below forgets them.
"""
from __future__ import annotations

import heapq
import itertools
import logging
import os
import threading
import time
import weakref
from typing import Any

from .._core.segmap import back_pages, forget_pages_after_fork, stop_back_pages

__all__ = ["Pump", "the_pump"]

_log = logging.getLogger("overspill")


class Pump:
    """Runs `queue._work()` when asked to. Holds its queues weakly."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._condition = threading.Condition(self._lock)
        self._due: list[tuple[float, int, weakref.ref[Any]]] = []
        self._soon: dict[int, weakref.ref[Any]] = {}
        self._order = itertools.count()
        self._thread: threading.Thread | None = None
        self._pages: threading.Thread | None = None
        self._queues: weakref.WeakSet[Any] = weakref.WeakSet()
        self._working_on: int | None = None

    def register(self, queue: Any) -> None:
        with self._lock:
            self._queues.add(queue)

    def forget(self, queue: Any) -> None:
        """The queue closes: it will not be called any more once this returns (unless the pump itself closes it)."""
        with self._lock:
            self._queues.discard(queue)
            self._soon.pop(id(queue), None)
            self._condition.notify_all()
            if not self._queues and self._pages is not None:
                self._pages = None  # first: interrupted in between, it leaves one that works for nobody, and not none that is taken to work
                stop_back_pages()
            while self._working_on == id(queue) and self._thread is not threading.current_thread():
                self._condition.wait()

    def back_pages(self) -> None:
        """A queue has begun to write: have pages backed ahead of its tail."""
        if self._pages is None:
            with self._lock:
                if self._pages is None:
                    thread = threading.Thread(target=back_pages, name="overspill-pages", daemon=True)
                    thread.start()
                    self._pages = thread

    def soon(self, queue: Any) -> None:
        """Look at the queue as soon as possible."""
        with self._lock:
            if queue in self._queues and id(queue) not in self._soon:
                self._soon[id(queue)] = weakref.ref(queue)
                self._wake()

    def at(self, when: float, queue: Any) -> None:
        """Look at the queue at this monotonic time."""
        with self._lock:
            if queue in self._queues:
                heapq.heappush(self._due, (when, next(self._order), weakref.ref(queue)))
                if self._due[0][0] == when:
                    self._wake()

    def _wake(self) -> None:
        if self._thread is None:
            # Entered when it runs: an interruption in between leaves one too many, which goes again, and never none.
            thread = threading.Thread(target=self._run, name="overspill-pump", daemon=True)
            thread.start()
            self._thread = thread
        self._condition.notify_all()

    def _run(self) -> None:
        with self._lock:
            if self._thread not in (None, threading.current_thread()):
                return
            self._thread = threading.current_thread()
        while True:
            queue = self._next()
            if queue is None:
                return
            try:
                again = queue._work()
            except Exception:
                _log.exception("background work of %r failed", queue)
                again = None
            with self._lock:
                self._working_on = None
                self._condition.notify_all()
                if again is not None and queue in self._queues:
                    heapq.heappush(self._due, (again, next(self._order), weakref.ref(queue)))
            del queue

    def _next(self) -> Any:
        with self._lock:
            while True:
                now = time.monotonic()
                while self._due and self._due[0][0] <= now:
                    reference = heapq.heappop(self._due)[2]
                    queue = reference()
                    if queue is not None and queue in self._queues:
                        self._soon.setdefault(id(queue), reference)
                    del queue
                while self._soon:
                    _, reference = self._soon.popitem()
                    queue = reference()
                    if queue is not None and queue in self._queues:
                        self._working_on = id(queue)
                        return queue
                    del queue
                if not self._queues:
                    self._due.clear()
                    self._thread = None
                    return None
                self._condition.wait(self._due[0][0] - time.monotonic() if self._due else None)


_pump = Pump()


def the_pump() -> Pump:
    return _pump


def _after_fork_in_child() -> None:
    global _pump
    _pump = Pump()
    forget_pages_after_fork()


os.register_at_fork(after_in_child=_after_fork_in_child)
