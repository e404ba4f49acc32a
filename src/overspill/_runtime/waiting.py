"""Waiting is written once: a verb that may have to wait is a generator of steps.

The steps decide everything and never block: where they cannot go on, they yield whom to wait for and how long at most, and look again when they are resumed, whether
woken or not. They know neither threads nor tasks. Two drivers know how to wait: `blocking`, here, holds the calling thread up; `awaiting`, in `awaiting.py`,
suspends the calling task.

An interruption (KeyboardInterrupt in a thread, cancellation of a task) is raised in the steps where they wait, and a driver that is itself thrown away closes them. So there is
one place for each verb, its `finally`, where it leaves its line and hands on the wake-up that it may have had; a step never waits with a gate held.

In the main thread a signal's handler may raise between any two instructions. What takes many of them to be whole again is an errand, and goes to a thread that sees no signals; what is brief is
done in such an order, or in one step of the core, that it may end anywhere.
"""
from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Generator
from contextlib import nullcontext
from traceback import clear_frames
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

from .._core.gate import Gate
from .._core.waiters import Waiter
from .standby import runner

__all__ = ["Errand", "Steps", "Waitable", "blocking", "holds_up_a_loop", "within"]

_T = TypeVar("_T")


class Waitable(Protocol):
    """Whom steps wait for: a `Waiter`, a `Follower` of the group commit, an `Errand`."""

    def wait(self, timeout: float | None) -> None:
        """Block this thread until it is time to look again."""


Steps: TypeAlias = Generator[tuple[Waitable, float | None], None, _T]
"""What waits in a verb, ending in its result. By convention, a method that returns the steps of a verb is called by the verb's gerund."""


class Errand(Generic[_T]):
    """Work that has to wait for a gate or for the disk, or that must not be interrupted on its way. A thread does it itself; a task, and the main thread, have another one do it.

    `here`: a thread does it itself in any case, for it changes nothing, and calls what belongs there. `outcome` is what the work returned, or raises what it raised. Whoever is interrupted
    before it has the outcome abandons the errand: what the work returned, or still returns, is then undone.
    """

    __slots__ = ("_abandoned", "_done", "_error", "_gate", "_here", "_result", "_undo", "_work")

    def __init__(self, work: Callable[[], _T], gate: Gate | None = None, undo: Callable[[_T], object] | None = None, *, here: bool = False) -> None:
        self._here = here
        self._work = work
        self._gate = gate
        self._undo = [undo] if undo is not None else []
        self._result: Any = None
        self._error: BaseException | None = None
        self._done = False
        self._abandoned = False

    def wait(self, timeout: float | None = None) -> None:
        """Return when it is done."""
        if self._here or not _signals_are_seen_here() or _is_inside_another_call():
            self._do()
            return
        done = Waiter()
        try:
            runner.do(lambda: self._do_for(done))
        except RuntimeError:  # the interpreter ends: no thread can be started any more
            self._do()
        else:
            done.wait(None)

    def _do_for(self, waiter: Waiter) -> None:
        try:
            if not self._abandoned:
                self._do()
        finally:
            waiter.wake()

    def _do(self) -> None:
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
        error, self._error = self._error, None
        if error is not None:
            try:
                raise error
            finally:
                del error  # or it would refer to this frame, which refers to it, and what its frames hold would be held until the collector comes
        return self._result  # type: ignore[no-any-return]

    def steps(self) -> Steps[_T]:
        """Have it done, waiting for that."""
        try:
            yield self, None
        except BaseException:
            self.abandon()
            raise
        return self.outcome()


def within(gate: Gate, work: Callable[[], _T], undo: Callable[[_T], object] | None = None, *, inner: Gate | None = None) -> Steps[_T]:
    """Do brief work, which may be interrupted, with a gate held: here if the gate is free or soon will be, as an errand if it is not. So it is with the `inner` one, which the work takes itself."""
    with gate.soon() as entered, (inner or gate).soon() as entered_both:
        if entered and entered_both:
            return work()
    return (yield from Errand(work, gate, undo, here=True).steps())


def holds_up_a_loop() -> bool:
    """Whether an event loop runs in this thread, and would stand still while it waits."""
    events = sys.modules.get("asyncio.events")  # who has a loop has imported it
    return events is not None and events._get_running_loop() is not None


def _signals_are_seen_here() -> bool:
    """Whether this is the thread in which handlers of signals run."""
    return threading.get_ident() == threading.main_thread().ident


def _is_inside_another_call() -> bool:
    """Whether a call of a queue is under way in this thread beneath the one that asks: this is a callback, or the handler of a signal. It may hold what another thread would wait for."""
    frame = sys._getframe(1)
    outside = False
    while frame.f_back is not None:
        frame = frame.f_back
        ours = frame.f_globals.get("__name__", "").startswith(_INSIDE)
        if ours and outside:
            return True
        outside = outside or not ours
    return False


_INSIDE = (__name__.rpartition(".")[0] + ".", "overspill._store.", "overspill._engine.")


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
    except Exception:
        raise
    except BaseException as interruption:
        clear_frames(interruption.__traceback__)  # a claim that was in hand goes back now, and not when somebody is done with the error
        raise
