"""A signal at one exact place: in front of the Nth instruction of a call that may look at signals.

CPython runs the handlers of signals in the main thread, and looks whether one has come when a function begins, when a loop turns back, and after a call. So
there is no use in raising an exception from a trace function, which would come out where none can; here the trace function lets the signal *arrive* (as the C
half of a signal's handler does, without a single instruction of Python code), and the interpreter raises it wherever it looks next. To go through every N is to
go through every place where KeyboardInterrupt can come out of a call, one by one.
"""
from __future__ import annotations

import ctypes
import dis
import functools
import gc
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import overspill

__all__ = ["Interruption", "count_places", "handled", "interrupt_at"]

SIGNAL = signal.SIGUSR1
PACKAGE = str(Path(overspill.__file__).parent) + os.sep

_MAY_LOOK = ("CALL", "CALL_FUNCTION_EX", "JUMP_BACKWARD", "RETURN_VALUE", "YIELD_VALUE")
"""Instructions at, or behind, which it is looked; when a frame ends, by whoever runs next."""


class Interruption(KeyboardInterrupt):
    """What the handler raises."""


_python = ctypes.PyDLL(None)
_traced_with = [ctypes.py_object] * 3  # what a trace function is given; these look at none of it
_python.PyErr_SetInterruptEx.argtypes = [ctypes.c_int, *_traced_with]
_python.PyErr_SetInterruptEx.restype = None
_arrive = functools.partial(_python.PyErr_SetInterruptEx, int(SIGNAL))
"""As a trace function: the signal arrives, and no Python code has run."""
_ignore = _python.Py_IsInitialized
"""As a trace function: nothing."""
_ignore.argtypes, _ignore.restype = _traced_with, None


def _raise(signum: int, frame: FrameType | None) -> None:
    sys.settrace(None)
    raise Interruption


@contextmanager
def handled() -> Iterator[None]:
    """The signal's handler raises, within the block."""
    before = signal.signal(SIGNAL, _raise)
    try:
        yield
    finally:
        signal.signal(SIGNAL, before)


@functools.cache
def _in_front_of_looks(code: CodeType) -> frozenset[int]:
    """The offsets of the instructions that are followed by one that may look."""
    instructions = [instruction for instruction in dis.get_instructions(code) if instruction.opname != "CACHE"]
    return frozenset(a.offset for a, b in zip(instructions, instructions[1:]) if b.opname in _MAY_LOOK or "JUMP_BACKWARD" in b.opname)


class _Tracer:
    def __init__(self, at: int) -> None:
        self.at = at
        self.places = 0

    def enter(self, frame: FrameType, event: str, arg: Any) -> Callable[..., Any] | None:
        code = frame.f_code
        if not code.co_filename.startswith(PACKAGE) and code is not _call.__code__:
            return None
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        return self.step

    def step(self, frame: FrameType, event: str, arg: Any) -> Callable[..., Any] | None:
        if event == "opcode" and frame.f_lasti in _in_front_of_looks(frame.f_code):
            self.places += 1
            if self.places == self.at:
                # In front of the next instruction. No Python code of ours may run from then on, or the signal would be looked at in there.
                outer = frame.f_back
                while outer is not None:
                    if outer.f_trace is not None:
                        outer.f_trace = _ignore
                    outer = outer.f_back
                sys.settrace(_ignore)
                return _arrive
        return self.step


def _call(verb: Callable[[], Any]) -> Any:
    """Whoever calls: the last place is between the end of the call and the assignment of what it returned."""
    result = verb()
    return result


def _traced(verb: Callable[[], Any], at: int) -> tuple[int, Any]:
    tracer = _Tracer(at)
    before = sys.gettrace()
    gc.collect()
    gc.disable()  # a signal that is looked at in somebody's finaliser comes out nowhere
    sys.settrace(tracer.enter)
    try:
        result = _call(verb)
    finally:
        sys.settrace(before)
        gc.enable()
    return tracer.places, result


def count_places(verb: Callable[[], Any]) -> int:
    """How many places the call has."""
    return _traced(verb, 0)[0]


def interrupt_at(verb: Callable[[], Any], at: int) -> tuple[bool, Any]:
    """Interrupt the call at that place. (True, its result) if it came to its end all the same."""
    try:
        return True, _traced(verb, at)[1]
    except Interruption:
        return False, None
