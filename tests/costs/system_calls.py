"""Counts the system calls of a program, thread by thread, with nothing but `ptrace`: exact, and no tool has to be installed.

`traced(program)` runs a Python program under this file as its tracer. In the program, `section(name)` says what the calls from here on belong to, `section(None)` that they
belong to nothing, and `rest()` that all threads are expected to come to rest now: once every one of them sleeps in the kernel and nobody is left who could wake another,
what each waits for, and until when, is written down, and the program is ended. So to be idle is judged by what the kernel was asked for, not by watching for some time.

The time of day is read without a system call (vDSO) on most machines and with one on the others: those calls are left out everywhere.
"""
from __future__ import annotations

import ctypes
import json
import os
import platform
import signal
import struct
import subprocess
import sys
import textwrap
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

# Linux numbers system calls for each machine anew. What is not here is shown by its number.
_NUMBERS = {
    "x86_64": {
        "read": 0, "write": 1, "close": 3, "fstat": 5, "lseek": 8, "mmap": 9, "mprotect": 10, "munmap": 11, "brk": 12, "pread64": 17, "pwrite64": 18, "sched_yield": 24, "msync": 26,
        "madvise": 28, "pause": 34, "getpid": 39, "fsync": 74, "fdatasync": 75, "truncate": 76, "ftruncate": 77, "chdir": 80, "rename": 82, "unlink": 87, "futex": 202, "epoll_wait": 232,
        "clock_gettime": 228, "clock_nanosleep": 230, "openat": 257, "unlinkat": 263, "renameat": 264, "sync_file_range": 277, "fallocate": 285, "getrandom": 318, "clone3": 435, "clone": 56,
    },
    "aarch64": {
        "read": 63, "write": 64, "close": 57, "fstat": 80, "lseek": 62, "mmap": 222, "mprotect": 226, "munmap": 215, "brk": 214, "pread64": 67, "pwrite64": 68, "sched_yield": 124, "msync": 227,
        "madvise": 233, "ppoll": 73, "getpid": 172, "fsync": 82, "fdatasync": 83, "truncate": 45, "ftruncate": 46, "chdir": 49, "futex": 98, "epoll_pwait": 22, "clock_gettime": 113,
        "clock_nanosleep": 115, "openat": 56, "unlinkat": 35, "renameat": 38, "sync_file_range": 84, "fallocate": 47, "getrandom": 278, "clone3": 435, "clone": 220,
    },
}.get(platform.machine(), {})
NAMES = {number: name for name, number in _NUMBERS.items()}

_CLOCKS = {"clock_gettime"}
_SECTION, _REST = "section:", "rest:"


# --- in the program


def section(name: str | None) -> None:
    """The calls of all threads from here on belong to this section."""
    _tell(_SECTION + (name or ""))


def rest(at_least_s: int = 10) -> None:
    """Wait for ever. The tracer ends the program once all its threads sleep, and none of them will wake by itself within so many seconds."""
    _tell(f"{_REST}{at_least_s}")
    while True:
        signal.pause()


def _tell(what: str) -> None:
    try:
        os.chdir(what)  # a call with a string that is nobody else's; it fails
    except FileNotFoundError:
        pass


# --- in the test


@dataclass
class Section:
    """What was called in one section: by the thread that opened it, and by all others."""

    own: Counter[str] = field(default_factory=Counter)
    others: Counter[str] = field(default_factory=Counter)

    def each(self, n: int) -> dict[str, float]:
        """The calls that each of n operations cost its caller, to a tenth: what happens once in a while (a next segment, more memory, more pages) is not a cost of each."""
        each = {name: round(count / n, 1) for name, count in self.own.items()}
        return {name: cost for name, cost in each.items() if cost}


@dataclass
class Asleep:
    """A thread at rest: the call it sleeps in, and for how many more seconds; None: until it is woken."""

    call: str
    wakes_in_s: float | None


@dataclass
class Trace:
    sections: dict[str, Section]
    asleep: list[Asleep]
    printed: str


def traced(program: str, *args: object) -> Trace:
    """Run the program to its end, or until it rests."""
    program = "from system_calls import rest, section\n" + textwrap.dedent(program)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    run = subprocess.run([sys.executable, __file__, program, *map(str, args)], stdout=subprocess.PIPE, env=environment, timeout=120)
    assert run.returncode == 0, "the traced program failed; its message is above"
    told = json.loads(run.stdout)
    sections = {name: Section(Counter(own), Counter(others)) for name, (own, others) in told["sections"].items()}
    return Trace(sections, [Asleep(*each) for each in told["asleep"]], told["printed"])


def why_not() -> str | None:
    """Why nothing can be traced here; None if it can."""
    if sys.platform != "linux" or not _NUMBERS:
        return f"no table of system calls for {sys.platform} on {platform.machine()}"
    try:
        traced("section('it'); section(None)")
    except Exception as error:
        return f"this system lets no process trace its own child: {error!r}"
    return None


# --- the tracer

_TRACEME, _CONT, _SYSCALL, _SETOPTIONS, _GETEVENTMSG, _SYSCALL_INFO = 0, 7, 24, 0x4200, 0x4201, 0x420E
_TRACESYSGOOD, _TRACECLONE, _EXITKILL = 1, 8, 0x100000
_WALL = 0x40000000
_ENTRY, _EXIT = 1, 2
_SYSCALL_STOP = signal.SIGTRAP | 0x80
_PATIENCE_S = 60


class Tracer:
    def __init__(self, leader: int) -> None:
        self.libc = ctypes.CDLL(None, use_errno=True)
        self.libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
        self.libc.ptrace.restype = ctypes.c_long
        self.leader = leader
        self.memory = -1
        self.sections: dict[str, tuple[Counter[str], Counter[str]]] = {}
        self.current: tuple[int, str] | None = None
        self.inside: dict[int, tuple[str, tuple[int, ...]] | None] = {leader: None}
        self.status: int | None = None
        self.resting: int | None = None

    def ptrace(self, request: int, thread: int, address: object = None, data: object = None) -> None:
        if self.libc.ptrace(request, thread, address, data) < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))

    def run(self) -> list[tuple[str, float | None]]:
        os.waitpid(self.leader, 0)  # it has begun, and stands still
        self.ptrace(_SETOPTIONS, self.leader, None, _TRACESYSGOOD | _TRACECLONE | _EXITKILL)
        self.memory = os.open(f"/proc/{self.leader}/mem", os.O_RDONLY)
        self.ptrace(_SYSCALL, self.leader)
        began = time.monotonic()
        while self.status is None:
            if time.monotonic() > began + _PATIENCE_S:
                raise TimeoutError(f"it neither ends nor rests: {self.inside}")
            thread, status = os.waitpid(-1, _WALL | (os.WNOHANG if self.resting is not None else 0))
            if thread:
                self.stopped(thread, status)
            elif asleep := self.all_asleep():
                os.kill(self.leader, signal.SIGKILL)
                return asleep
            else:
                time.sleep(0.001)
        return []

    def stopped(self, thread: int, status: int) -> None:
        if os.WIFEXITED(status) or os.WIFSIGNALED(status):
            self.inside.pop(thread, None)
            if thread == self.leader:
                self.status = os.waitstatus_to_exitcode(status)
            return
        self.inside.setdefault(thread, None)
        signal_number = os.WSTOPSIG(status)
        pass_on = 0
        if signal_number == _SYSCALL_STOP:
            self.at_call(thread)
        elif signal_number not in (signal.SIGTRAP, signal.SIGSTOP):
            pass_on = signal_number
        try:
            self.ptrace(_SYSCALL, thread, None, pass_on)
        except ProcessLookupError:
            self.inside.pop(thread, None)

    def at_call(self, thread: int) -> None:
        told = ctypes.create_string_buffer(88)
        try:
            self.ptrace(_SYSCALL_INFO, thread, len(told), told)
        except ProcessLookupError:
            return
        if told.raw[0] != _ENTRY:
            self.inside[thread] = None
            return
        number, *arguments = struct.unpack_from("7Q", told.raw, 24)
        name = NAMES.get(number, f"call {number}")
        self.inside[thread] = name, tuple(arguments)
        if name == "chdir":
            text = os.pread(self.memory, 100, arguments[0]).split(b"\0")[0].decode()
            if text.startswith(_SECTION):
                self.current = (thread, text.removeprefix(_SECTION)) if text != _SECTION else None
                if self.current:
                    self.sections.setdefault(self.current[1], (Counter(), Counter()))
                return
            if text.startswith(_REST):
                self.resting = int(text.removeprefix(_REST))
        if self.current is not None and name not in _CLOCKS:
            self.sections[self.current[1]][self.current[0] != thread][name] += 1

    def all_asleep(self) -> list[tuple[str, float | None]]:
        """What every thread sleeps in; nothing if some thread is at work or soon will be."""
        assert self.resting is not None
        if not all(self.sleeps(each) for each in self.inside):
            return []
        asleep = [self.asleep(each) for each in self.inside]
        return asleep if all(wakes_in_s is None or wakes_in_s >= self.resting for _, wakes_in_s in asleep) else []

    def sleeps(self, thread: int) -> bool:
        """Whether it is in a call and the kernel has it sleep there: not running, not stopped for us."""
        if self.inside[thread] is None:
            return False
        with open(f"/proc/{self.leader}/task/{thread}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] == "S"

    def asleep(self, thread: int) -> tuple[str, float | None]:
        name, arguments = self.inside[thread]  # type: ignore[misc]
        if name == "futex" and arguments[3]:
            seconds, nanoseconds = struct.unpack("qq", os.pread(self.memory, 16, arguments[3]))
            at = seconds + nanoseconds / 1e9
            absolute = arguments[1] & 0x7F == 9  # FUTEX_WAIT_BITSET
            clock = time.CLOCK_REALTIME if arguments[1] & 0x100 else time.CLOCK_MONOTONIC
            return name, at - time.clock_gettime(clock) if absolute else at
        if name in ("epoll_wait", "epoll_pwait"):
            left = ctypes.c_int(arguments[3]).value
            return name, None if left < 0 else left / 1e3
        if name in ("futex", "pause", "ppoll"):
            return name, None
        return name, 0.0  # in no call of which it is known that it waits for ever


def _main() -> None:
    program, *args = sys.argv[1:]
    reading, writing = os.pipe()
    leader = os.fork()
    if not leader:
        ctypes.CDLL(None).ptrace(_TRACEME, 0, None, None)
        os.dup2(writing, 1)
        os.execv(sys.executable, [sys.executable, "-c", program, *args])
    os.close(writing)
    tracer = Tracer(leader)
    asleep = tracer.run()
    with open(reading) as file:
        printed = file.read()
    json.dump({"sections": tracer.sections, "asleep": asleep, "printed": printed}, sys.stdout)
    sys.exit(1 if tracer.status else 0)


if __name__ == "__main__":
    _main()
