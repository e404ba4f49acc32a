"""Waiting is written once: a verb that may have to wait is a generator of steps.

The steps decide everything and never block: where they cannot go on, they yield whom to wait for and how long at most, and look again when they are resumed, whether
woken or not. They know neither threads nor tasks. Two drivers know how to wait: `blocking`, here, holds the calling thread up; `awaiting`, in `awaiting.py`,
suspends the calling task.

An interruption (KeyboardInterrupt in a thread, cancellation of a task) is raised in the steps where they wait, and a driver that is itself thrown away closes them. So there is
one place for each verb, its `finally`, where it leaves its line and hands on the wake-up that it may have had; a step never waits with a gate held.
"""
from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import nullcontext
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

from .gate import Gate

__all__ = ["Errand", "Steps", "Waitable", "blocking", "within"]

_T = TypeVar("_T")


class Waitable(Protocol):
    """Whom steps wait for: a `Waiter`, a `Follower` of the group commit, an `Errand`."""

    def wait(self, timeout: float | None) -> None:
        """Block this thread until it is time to look again."""


Steps: TypeAlias = Generator[tuple[Waitable, float | None], None, _T]
"""What waits in a verb, ending in its result. By convention, a method that returns the steps of a verb is called by the verb's gerund."""


class Errand(Generic[_T]):
    """Work that has to wait for a gate or for the disk. A thread does it itself; a task has another thread do it.

    `outcome` is what the work returned, or raises what it raised. Whoever is interrupted before it has the outcome abandons the errand: what the work returned, or still
    returns, is then undone.
    """

    __slots__ = ("_abandoned", "_done", "_error", "_gate", "_result", "_undo", "_work")

    def __init__(self, work: Callable[[], _T], gate: Gate | None = None, undo: Callable[[_T], object] | None = None) -> None:
        self._work = work
        self._gate = gate
        self._undo = [undo] if undo is not None else []
        self._result: Any = None
        self._error: BaseException | None = None
        self._done = False
        self._abandoned = False

    def wait(self, timeout: float | None = None) -> None:
        """Do it here."""
        with self._gate or nullcontext():
            try:
                self._result = self._work()
            except BaseException as error:
                self._error = error
                return
            self._done = True
            if self._abandoned:
                self._take_back()

    def abandon(self) -> None:
        self._abandoned = True
        if self._done:
            self._take_back()

    def _take_back(self) -> None:
        try:
            undo = self._undo.pop()  # both sides may come here at once: one of them gets it
        except IndexError:
            return
        undo(self._result)

    def outcome(self) -> _T:
        if self._error is not None:
            raise self._error
        return self._result  # type: ignore[no-any-return]

    def steps(self) -> Steps[_T]:
        """Have it done, waiting for that."""
        try:
            yield self, None
        except BaseException:
            self.abandon()
            raise
        return self.outcome()


def within(gate: Gate, work: Callable[[], _T], undo: Callable[[_T], object] | None = None) -> Steps[_T]:
    """Do brief work with a gate held: here if the gate is free or soon will be, as an errand if it is not."""
    if not gate.enter_soon():
        return (yield from Errand(work, gate, undo).steps())
    try:
        return work()
    finally:
        gate.leave()


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
