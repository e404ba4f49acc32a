"""The queues that somebody looks at, by the name under which they are shown.

They are held weakly and asked for `stats()` when somebody looks, so being watched costs a queue nothing and keeps none alive. One that has been closed is gone
at the next look, and so is everything in a forked child, whose queues are its parent's.
"""
from __future__ import annotations

import logging
import os
import threading
import weakref
from typing import Protocol

from ..errors import InvalidOption
from ..stats import QueueStats

__all__ = ["Look", "Observable", "Watched", "accounts_of"]


class Accounted(Protocol):
    """What is needed of a queue."""

    @property
    def name(self) -> str | None: ...

    def stats(self) -> QueueStats: ...


class Fronted(Protocol):
    """A face that is shown by the accounts of the queue beneath: a stream, whose own `stats()` are a short list, a drop-in, an awaiting face."""

    @property
    def _accounts(self) -> Accounted: ...


Observable = Accounted | Fronted


def accounts_of(queue: Observable) -> Accounted:
    return getattr(queue, "_accounts", queue)  # type: ignore[arg-type]


Look = list[tuple[str, QueueStats | None]]
"""What each queue said of itself; None for one that could not (the log says why)."""


class Watched:
    """A set of queues, each under a name of its own. Any thread may add, remove and look."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._queues: dict[str, weakref.ref[Accounted]] = {}
        self._pid = os.getpid()
        self._mute: set[str] = set()

    def add(self, queue: Observable, name: str | None = None) -> None:
        """Watch the queue from now on. Again is no error; another open queue under the same name is."""
        queue = accounts_of(queue)
        name = name or queue.name
        if name is None:
            raise InvalidOption("name", None, "given for a queue that is measured: it is the label that tells it from others")
        with self._lock:
            if self._pid != os.getpid():
                self._queues, self._pid = {}, os.getpid()
            there = self._queues.get(name)
            other = there() if there is not None else None
            if other is not None and other is not queue and other.stats().state != "closed":
                raise InvalidOption("name", name, "another than that of a queue that is measured already",
                                    hint=f"register(queue, name=…) tells two queues called {name!r} apart")  # fmt: skip
            self._forget(queue)
            self._queues[name] = weakref.ref(queue)

    def remove(self, queue: Observable) -> None:
        with self._lock:
            self._forget(accounts_of(queue))

    def _forget(self, queue: Accounted) -> None:
        others = {name: reference for name, reference in self._queues.items() if reference() is not queue}
        self._queues = {name: reference for name, reference in others.items() if reference() is not None}

    def look(self) -> Look:
        if self._pid != os.getpid():
            return []
        with self._lock:
            queues = [(name, queue) for name, reference in self._queues.items() if (queue := reference()) is not None]
        seen: Look = []
        for name, queue in queues:
            try:
                stats = queue.stats()
            except Exception:
                # One queue that cannot answer must not hide all the others. The log hears of it once, not at every scrape.
                if name not in self._mute:
                    logging.getLogger("overspill").exception("%r could not be asked for its stats", queue)
                    self._mute.add(name)
                seen.append((name, None))
                continue
            self._mute.discard(name)
            if stats.state == "closed":
                self.remove(queue)
            else:
                seen.append((name, stats))
        return seen
