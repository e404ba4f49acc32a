"""What the operating system alone charges for the same bytes: the other side of the ratios that are not about deques.

Each of these is the shortest program that gives the promise in question. They are Python calls like ours, so the
interpreter's share is on both sides.
"""
from __future__ import annotations

import mmap
import os
import threading
from pathlib import Path
from time import perf_counter_ns
from types import TracebackType

SEGMENT_BYTES = 64 << 20  # the largest segment of the queue
STEP_BYTES = 256 << 10  # what the queue asks for at once when it populates pages ahead of its tail
MADV_POPULATE_WRITE = 23  # Linux 5.14; Python does not name it before 3.14


class BareFile:
    """A file, its descriptor and the place where the next bytes go."""

    def __init__(self, path: Path, *, preallocate: int = 0, initialise: bool = False, append: bool = False) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | (os.O_APPEND if append else 0)
        self.fd = os.open(path, flags, 0o600)
        self.offset = 0
        if preallocate:
            os.posix_fallocate(self.fd, 0, preallocate)
        if initialise:
            zeros = bytes(1 << 20)
            for offset in range(0, preallocate, len(zeros)):
                os.pwrite(self.fd, zeros[: preallocate - offset], offset)
        os.fsync(self.fd)

    def append_and_sync(self, item: bytes) -> None:
        os.write(self.fd, item)
        os.fdatasync(self.fd)

    def write_and_sync(self, item: bytes) -> None:
        self.write(item)
        os.fdatasync(self.fd)

    def write(self, item: bytes) -> None:
        os.pwrite(self.fd, item, self.offset)
        self.offset += len(item)

    def rewind(self) -> None:
        self.offset = 0

    def close(self) -> None:
        os.close(self.fd)


def population_steps(folder: Path, total_bytes: int, *, zeros_first: bool) -> list[int]:
    """The time of each step when `total_bytes` of freshly preallocated, mapped file are populated one step at a time.

    Asked for by the mapping alone, pages come through the kernel's read-ahead: most steps find theirs there already and
    one in many pays for megabytes. With `zeros_first` each step writes its own zeros before it asks: the same
    total, spread evenly.
    """
    steps: list[int] = []
    zeros = bytes(STEP_BYTES)
    number = 0
    while len(steps) * STEP_BYTES < total_bytes:
        number += 1
        fd = os.open(folder / f"populated-{number}", os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(fd, 0, SEGMENT_BYTES)
            with mmap.mmap(fd, SEGMENT_BYTES) as pages:
                for offset in range(0, SEGMENT_BYTES, STEP_BYTES):
                    began = perf_counter_ns()
                    if zeros_first:
                        os.pwrite(fd, zeros, offset)
                    pages.madvise(MADV_POPULATE_WRITE, offset, STEP_BYTES)
                    steps.append(perf_counter_ns() - began)
        finally:
            os.close(fd)
    return steps


class SyncingThread:
    """A thread that does nothing but make some bytes durable now and then.

    What it does to a loop over `deque.append` in another thread is what *any* background sync does to it: hand-offs of
    the interpreter lock and a busy disk.
    """

    def __init__(self, folder: Path, interval_s: float) -> None:
        self._path = folder / "synced-beside"
        self._interval_s = interval_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        block = bytes(1 << 20)
        file = BareFile(self._path, append=True)
        while not self._stop.wait(self._interval_s):
            file.append_and_sync(block)
        file.close()

    def __enter__(self) -> SyncingThread:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()
