"""Cancelling an awaiting verb at every place where it waits, one by one, also while a thread holds the gate that it needs."""
from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any

from patience import until

from overspill import AsyncHybridQueue
from overspill._core.gate import Gate

__all__ = ["cancelled_at", "gate_held", "nothing_held", "settled_down"]


async def cancelled_at(coroutine: Coroutine[Any, Any, Any], at: int) -> tuple[bool, Any]:
    """Drive a coroutine by hand and cancel it at its `at`-th suspension: (True, its result) if it has no such suspension, (False, None) if it was cancelled there."""
    suspensions = 0
    cancelled = False
    try:
        future = coroutine.send(None)
        while True:
            if suspensions == at:
                cancelled = True
                future = coroutine.throw(asyncio.CancelledError())
            else:
                if future is not None:
                    future._asyncio_future_blocking = False
                    await asyncio.wait([future])
                future = coroutine.send(None)
            suspensions += 1
    except StopIteration as end:
        assert not cancelled, "a cancellation was swallowed"
        return True, end.value
    except asyncio.CancelledError:
        assert cancelled
        return False, None


class gate_held:
    """A thread holds a gate until another waits for it, which is the one that does an errand for the loop; or to the end of the block."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._hold, self._free = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        with self._gate:
            self._hold.set()
            until(lambda: self._gate._waiting or self._free.is_set())

    def __enter__(self) -> None:
        self._thread.start()
        self._hold.wait()

    def __exit__(self, *_: object) -> None:
        self._free.set()
        self._thread.join()


class nothing_held:
    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


async def settled_down(face: AsyncHybridQueue) -> None:
    """Until what a cancelled verb had another thread do has been done, and undone."""
    await asyncio.get_running_loop().shutdown_default_executor()
    asyncio.get_running_loop()._executor_shutdown_called = False  # type: ignore[attr-defined]
    asyncio.get_running_loop()._default_executor = None  # type: ignore[attr-defined]
