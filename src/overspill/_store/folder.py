"""A queue's folder as a whole: who has it, and what was set aside in it.

`FolderLock` is a `flock` on the open file `lock` (`FileLock`: on any file of a folder): the kernel gives it back when its holder dies, however it dies. What the file says
(pid, host, since when) is for people and error messages, and is never believed. Two things a `flock` does not do by itself:

* A second open in the same process is refused from a registry by device, inode and name, with an error that says so.
* A forked child would share its parent's lock and keep it alive past the parent's death. It closes its copy before
  it runs anything else, without unlocking: what it inherits is an object that holds nothing.

The lock file of a folder is never removed. Whoever removes another file does so while holding it, and whoever gets a lock looks whether the file still has its
name, so that nobody can hold the lock of a file that the name no longer leads to.

`Quarantine` keeps what was damaged. It is on stable storage, with a line that says what it is and why, before the caller may
touch the original. If there is no room for that it raises, and the original is still there. It never replaces anything, and a
repetition after a kill finds what is already kept.

Locks: `_taking` covers registry and flock together, and is held over a fork. Nothing else is taken inside of it.
"""

from __future__ import annotations

import json
import os
import re
import socket
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timezone
from typing import Final

from ..errors import QueueLocked
from .files import Access, Disk
from .layout import LOCK_NAME, QUARANTINE_NAME, REPORT_NAME

Clock = Callable[[], int]

_HOLDER_BYTES_MAX: Final = 512

_taking = threading.RLock()
_held: weakref.WeakValueDictionary[tuple[int, int, str], FileLock] = weakref.WeakValueDictionary()


class FileLock:
    """The right to write to a file of a folder, from construction to `release`. The file is made if it is not there; `fd` is it, open, or -1 where nothing is held."""

    def __init__(self, disk: Disk, name: str) -> None:
        self.name = name
        self.fd = -1
        self.pid = os.getpid()
        self._disk = disk
        file = (*disk.identity(), name)
        with _taking:
            holder = _held.get(file)
            if holder is not None and holder.held:
                raise QueueLocked(self._shown(), pid=holder.pid)
            self.fd = self._locked_file()
            _held[file] = self

    @property
    def held(self) -> bool:
        """False after `release`, and in a forked child from the start."""
        return self.fd >= 0

    def release(self) -> None:
        """Let go. A forked child, which holds nothing, may call it too."""
        with _taking:
            fd, self.fd = self.fd, -1
            if fd < 0:
                return
            with suppress(OSError):
                self._leave(fd)
            with suppress(OSError):
                self._disk.unlock(fd)  # closing alone would leave it with a child forked a moment ago
            self._disk.close_file(fd)

    def __del__(self) -> None:
        fd, self.fd = getattr(self, "fd", -1), -1
        if fd >= 0:
            os.close(fd)

    def _leave_to_parent(self) -> None:
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)  # not LOCK_UN, which would take the lock away from the parent as well

    def _locked_file(self) -> int:
        disk, name = self._disk, self.name
        while True:
            try:
                fd = disk.create(name, 0)
            except FileExistsError:
                try:
                    fd = disk.open_rw(name)
                except FileNotFoundError:
                    continue  # removed in between
            try:
                if not disk.try_lock(fd):
                    raise self._locked_by(fd)
                if disk.names(name, fd):
                    return fd
            except BaseException:
                disk.close_file(fd)
                raise
            # Somebody removed or replaced the file while we came: a lock on a file without its name keeps nobody out.
            disk.close_file(fd)

    def _shown(self) -> str:
        """What is held, for messages."""
        return self._disk.path_of(self.name)

    def _locked_by(self, fd: int) -> QueueLocked:
        return QueueLocked(self._shown(), hint="close it there first, or use another name")

    def _leave(self, fd: int) -> None:
        """Last of all, while it is still held."""


class FolderLock(FileLock):
    """The right to write to a folder: the lock of its lock file, which says whose it is."""

    def __init__(self, disk: Disk, clock: Clock = time.time_ns) -> None:
        super().__init__(disk, LOCK_NAME)
        self._line = _holder_line(self.pid, clock()).encode()
        self.say(b"")

    def say(self, text: bytes) -> None:
        """Write a line below the one that says who holds the folder, for people beside the owner: it is neither synced nor believed, and a full disk keeps nobody from opening."""
        with suppress(OSError):
            said = self._line + text + b"\n" if text else self._line
            self._disk.pwrite(self.fd, said, 0)
            self._disk.truncate(self.fd, len(said))

    def _shown(self) -> str:
        return self._disk.path

    def _locked_by(self, fd: int) -> QueueLocked:
        return _said_by(self._disk, fd)

    def _leave(self, fd: int) -> None:
        self._disk.truncate(fd, 0)  # nobody has it now, and nobody is named


def _holder_line(pid: int, now_ns: int) -> str:
    return f"pid={pid} since={_iso(now_ns)} host={socket.gethostname()}\n"


def _said_by(disk: Disk, fd: int) -> QueueLocked:
    line = disk.pread(fd, _HOLDER_BYTES_MAX, 0).decode("ascii", "replace")
    match = re.match(r"(pid=([0-9]{1,10}) since=[0-9TZ:-]{1,40} host=([A-Za-z0-9._-]{1,255}))\n", line)
    if not match:
        return QueueLocked(disk.path)  # it has the lock and has not come to write its line
    pid = int(match[2])
    if match[3] != socket.gethostname() or pid == os.getpid():
        # Another host or another container, where that number is not the process that has it here.
        return QueueLocked(disk.path, hint=f"its lock file says {match[1]}")
    return QueueLocked(disk.path, pid=pid)


def _iso(now_ns: int) -> str:
    return datetime.fromtimestamp(now_ns // 1_000_000_000, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def _start_in_child() -> None:
    global _taking
    _taking = threading.RLock()  # the parent's was taken by a thread that is not here
    for lock in list(_held.values()):
        lock._leave_to_parent()
    _held.clear()


# With `_taking` held over the fork there is no lock that is taken and not yet in the registry.
os.register_at_fork(
    before=lambda: _taking.acquire() and None,
    after_in_parent=lambda: _taking.release(),
    after_in_child=_start_in_child,
)


class Quarantine:
    """What was damaged and set aside: `quarantine/` in the queue's folder, made when it is first needed."""

    def __init__(self, disk: Disk, clock: Clock = time.time_ns) -> None:
        self._disk = disk
        self._clock = clock

    def keep(self, segment: str, offset: int, data: bytes | bytearray | memoryview, reason: str) -> str:
        """Keep a copy of damaged bytes of a segment; returns its name. When this returns the original may go."""
        with self._opened() as aside:
            listed = {name for name, _ in aside.listing()}
            name = stem = f"{segment}-{offset}"
            again = 1
            while f"{name}.bad" in listed:
                if self._holds(aside, f"{name}.bad", data):
                    aside.sync_folder()  # kept before a kill, and reported, for the line comes first
                    return f"{name}.bad"
                again += 1
                name = f"{stem}+{again}"
            name += ".bad"
            prepared = f"{name}.tmp"
            if prepared in listed:
                aside.unlink(prepared)  # of a killed attempt: incomplete, and its original is still there
            fd = aside.create(prepared, len(data))
            try:
                try:
                    aside.pwrite(fd, data, 0)
                    aside.datasync(fd)
                finally:
                    aside.close_file(fd)
                # The line goes first, or a kill between the two could leave something that nothing reports.
                self._report(aside, file=name, segment=segment, offset=offset, length=len(data), reason=reason)
                aside.rename(prepared, name)
            except BaseException:
                with suppress(OSError):
                    aside.unlink(prepared)
                raise
            aside.sync_folder()
            return name

    def keep_file(self, file: str, reason: str) -> str:
        """Move a whole file of the queue's folder aside; returns its name there. It takes no more room than before."""
        with self._opened() as aside:
            listed = {name for name, _ in aside.listing()}
            name, again = file, 1
            while name in listed:
                again += 1
                name = f"{file}+{again}"
            length = dict(self._disk.listing())[file]
            self._report(aside, file=name, segment=file, offset=0, length=length, reason=reason)
            self._disk.rename(file, name, aside)
            aside.sync_folder()  # before the other one: in two places after a power cut, never in none
            self._disk.sync_folder()
            return name

    def bytes_held(self) -> int:
        """The size of everything in quarantine, the report included."""
        if QUARANTINE_NAME not in {name for name, _ in self._disk.listing()}:
            return 0
        with self._opened() as aside:
            return sum(size for _, size in aside.listing())

    def _opened(self) -> Disk:
        return self._disk.subfolder(QUARANTINE_NAME)

    @staticmethod
    def _holds(aside: Disk, name: str, data: bytes | bytearray | memoryview) -> bool:
        fd = aside.open_ro(name)
        try:
            return aside.size(fd) == len(data) and aside.pread(fd, len(data), 0) == data
        finally:
            aside.close_file(fd)

    def _report(self, aside: Disk, **what: str | int) -> None:
        """Add a line to the report, durable when this returns. The line names bytes and never shows them."""
        assert aside.access is Access.OWN
        line = json.dumps({"at": _iso(self._clock()), **what}).encode() + b"\n"
        try:
            fd = aside.create(REPORT_NAME, 0)
            aside.sync_folder()
        except FileExistsError:
            fd = aside.open_rw(REPORT_NAME)
        try:
            end = aside.size(fd)
            if end and aside.pread(fd, 1, end - 1) != b"\n":
                line = b"\n" + line  # the last line was torn
            try:
                aside.pwrite(fd, line, end)
                aside.datasync(fd)
            except BaseException:
                with suppress(OSError):
                    aside.truncate(fd, end)
                raise
        finally:
            aside.close_file(fd)
