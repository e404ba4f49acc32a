"""Waiting is written once: a verb that may have to wait is a generator of steps.

The steps decide everything and never block: where they cannot go on, they yield whom to wait for and how long at most, and look again when they are resumed, whether
woken or not. They know neither threads nor tasks. Two drivers know how to wait: `blocking`, here, holds the calling thread up; `awaiting`, in `awaiting.py`,
suspends the calling task.

An interruption (KeyboardInterrupt in a thread, cancellation of a task) is raised in the steps where they wait, and a driver that is itself thrown away closes them. So there is
one place for each verb, its `finally`, where it leaves its line and hands on the wake-up that it may have had; a step never waits with a gate held.
"""
from __future__ import annotations

from collections.abc import Generator
from typing import TypeAlias, TypeVar

from .waiters import Waiter

__all__ = ["Steps", "blocking"]

_T = TypeVar("_T")

Steps: TypeAlias = Generator[tuple[Waiter, float | None], None, _T]
"""What waits in a verb, ending in its result. By convention, a method that returns the steps of a verb is called by the verb's gerund."""


def blocking(steps: Steps[_T]) -> _T:
    """Take all the steps, blocking this thread where they wait."""
    try:
        waiter, timeout = next(steps)
        while True:
            try:
                waiter.wait(timeout)
            except BaseException as interruption:
                waiter, timeout = steps.throw(interruption)
            else:
                waiter, timeout = next(steps)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
