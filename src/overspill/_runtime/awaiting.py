"""The steps of a verb, taken by a task: where they wait the task is suspended, and its event loop goes on.

Wake-ups come from whatever thread took, put or synced something. They are left at the *desk* of the task's loop, which the loop is told of once for all that have gathered:
a thousand tasks that wait for the same sync cost one such call, not a thousand.

An errand goes to a thread of the loop's default executor. Cancelling its task does not end work that has begun; what comes of it is then undone.
"""
from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Callable, Generator
from functools import partial
from types import coroutine
from typing import Any, TypeVar

from .._core.waiters import Waiter
from .waiting import Errand, Steps

__all__ = ["awaiting"]

_T = TypeVar("_T")


@coroutine
def awaiting(steps: Steps[_T]) -> Generator[Any, Any, _T]:
    """Take all the steps, suspending this task where they wait."""
    try:
        waitable, timeout = next(steps)
        while True:
            try:
                if isinstance(waitable, Errand):
                    yield from asyncio.get_running_loop().run_in_executor(None, waitable.wait)
                else:
                    assert isinstance(waitable, Waiter)
                    yield from _woken(waitable, timeout)
            except BaseException as interruption:
                waitable, timeout = steps.throw(interruption)
            else:
                waitable, timeout = next(steps)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]


def _woken(waiter: Waiter, timeout: float | None) -> Generator[Any, Any, None]:
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()
    waiter.call(_desk_of(loop).bell(future))
    if timeout is None:
        yield from future
        return
    timer = loop.call_later(timeout, _resume, future)
    try:
        yield from future
    finally:
        timer.cancel()


def _resume(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


class _Desk:
    """Where wake-ups for the tasks of one loop are left."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = weakref.ref(loop)
        self._mutex = threading.Lock()
        self._woken: list[asyncio.Future[None]] = []

    def bell(self, future: asyncio.Future[None]) -> Callable[[], bool]:
        """What resumes the task that waits for this future: callable from any thread; False when its loop is gone."""
        return partial(self._ring, future)

    def _ring(self, future: asyncio.Future[None]) -> bool:
        loop = self._loop()
        if loop is None or loop.is_closed():
            return False
        if asyncio._get_running_loop() is loop:
            _resume(future)
            return True
        with self._mutex:
            self._woken.append(future)
            if len(self._woken) > 1:
                return True  # the loop has been told, and will find this one as well
        try:
            loop.call_soon_threadsafe(self._resume_all)
        except RuntimeError:  # closed just now
            return False
        except BaseException:  # interrupted: who comes next takes it that the loop has been told
            loop.call_soon_threadsafe(self._resume_all)
            raise
        return True

    def _resume_all(self) -> None:
        with self._mutex:
            woken, self._woken = self._woken, []
        for future in woken:
            _resume(future)


_desks: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Desk] = weakref.WeakKeyDictionary()


def _desk_of(loop: asyncio.AbstractEventLoop) -> _Desk:
    desk = _desks.get(loop)
    if desk is None:
        desk = _desks.setdefault(loop, _Desk(loop))
    return desk
