"""Threads that stand by for what another thread must not, or cannot, do itself.

Two of them serve the process. The *committer* leads a sync where only tasks wait for it. The *runner* does the errands of the main thread: Python looks at signals in that thread only,
between any two instructions, so what is done by another is whole whenever a KeyboardInterrupt comes out.

A thread is started when there is something to do and goes when there was nothing for a while; after a fork the child starts its own.
"""
from __future__ import annotations

import os
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue

__all__ = ["Standby", "committer", "runner"]

_LINGER_S = 1.0


class Standby:
    """One thread, and what it is to do."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._forget()

    def _forget(self) -> None:
        self._jobs: SimpleQueue[Callable[[], object]] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def do(self, job: Callable[[], object]) -> None:
        """Have it done, in turn. Does not block. Raises `RuntimeError` where no thread can be started any more."""
        self._begin()
        self._jobs.put(job)
        self._begin()  # it may just have gone

    def _begin(self) -> None:
        if self._thread is None:
            # Entered when it runs, so that an interruption in between leaves one too many for a while, and never none.
            thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            thread.start()
            self._thread = thread

    def _run(self) -> None:
        while True:
            try:
                job = self._jobs.get(timeout=_LINGER_S)
            except Empty:
                if self._thread is threading.current_thread():
                    self._thread = None
                # Whoever has seen this thread there has put his job in before this look, or looks again himself.
                try:
                    job = self._jobs.get_nowait()
                except Empty:
                    return
            job()
            del job


committer, runner = Standby("overspill-committer"), Standby("overspill-runner")


def _after_fork_in_child() -> None:
    for standby in (committer, runner):
        standby._forget()


os.register_at_fork(after_in_child=_after_fork_in_child)
