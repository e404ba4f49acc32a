"""Waiting for another process: until it lets go of a queue, until it has put something in. Without polling.

The lock is waited for in the kernel. That something changed in a folder the kernel tells by a signal, SIGIO, so `await_items` is for the main thread of a program of
its own, like the command line.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import time

from .._store import inspection
from .._store.files import Access, Disk
from .._store.layout import LOCK_NAME

__all__ = ["await_items", "await_release"]


def await_release(path: str | os.PathLike[str]) -> None:
    """Return once nobody has the queue open. Somebody else may be quicker to open it then."""
    with Disk.open_folder(path, Access.LOOK) as disk:
        fd = disk.open_ro(LOCK_NAME)
        try:
            disk.await_lock(fd)
        finally:
            disk.close_file(fd)


def await_items(path: str | os.PathLike[str]) -> None:
    """Return once something waits in the queue, or a delayed item is due, and nobody has it open.

    Looks when something changes in the folder: another process opens or closes the queue, or makes a file in it.
    """
    heard, told = socket.socketpair()
    told.setblocking(False)
    earlier_fd = signal.set_wakeup_fd(told.fileno(), warn_on_full_buffer=False)
    earlier = signal.signal(signal.SIGIO, lambda *_: None)
    try:
        with Disk.open_folder(path, Access.LOOK) as disk:
            disk.signal_changes()
            while not inspection.inspect(path).waiting:
                due_ns = next((item.due_ns for item in inspection.items(path, on_problem=lambda _: None, delayed=True) if item.due_ns), None)
                wait_s = None if due_ns is None else (due_ns - time.time_ns()) / 1e9
                if wait_s is not None and wait_s <= 0:
                    return
                if select.select([heard], [], [], wait_s)[0]:
                    heard.recv(4096)
                    await_release(path)
    finally:
        signal.signal(signal.SIGIO, earlier)
        signal.set_wakeup_fd(earlier_fd)
        heard.close()
        told.close()
