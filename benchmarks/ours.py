"""Overspill as it is measured: default options unless the name says otherwise, and only the public contract.

`open_queue` is the one place where the harness makes a queue. `check` is how a trial says what must be true for its
number to mean what it says: a "spilled" dequeue that came out of memory would be a lie.
"""
from __future__ import annotations

from pathlib import Path
from typing import Any

from overspill import Durability, HybridQueue, StreamQueue

from .peers import Contestant
from .sizes import RESIDENT

NAME = "bench"


class NotWhatWasMeant(Exception):
    """The queue was not in the state that this trial is about, so its number would be wrong."""


def open_queue(folder: Path, **options: Any) -> HybridQueue:
    return HybridQueue(NAME, str(folder), **options)


def check(holds: bool, what: str) -> None:
    if not holds:
        raise NotWhatWasMeant(what)


class Memory(Contestant):
    name = "Overspill, MEMORY"
    module = "overspill"
    note = "what has spilled, or was closed, survives"
    durability = Durability.MEMORY

    def __init__(self, folder: Path) -> None:
        self.queue = open_queue(folder, durability=self.durability)
        self.put, self.get = self.queue.enqueue, self.queue.dequeue

    def close(self) -> None:
        self.queue.close()


class Process(Memory):
    name = "Overspill, PROCESS (default)"
    kill = "yes"
    note = "every operation in the log before it returns; a power cut costs at most sync_interval, 1 s"
    durability = Durability.PROCESS


class Power(Memory):
    name = "Overspill, POWER"
    kill = "yes"
    power = "yes"
    note = "every operation synced before it returns"
    durability = Durability.POWER


class Stream(Contestant):
    name = "Overspill, StreamQueue"
    module = "overspill"
    note = "no rate limit; all of it in memory"
    memory_size = RESIDENT

    def __init__(self, folder: Path) -> None:
        self.queue = StreamQueue(NAME, self.memory_size, str(folder), rate_limit=None)
        self.put, self.get = self.queue.enqueue, self.queue.dequeue

    def close(self) -> None:
        self.queue.close()


class StreamOnDisk(Stream):
    name = "Overspill, StreamQueue behind"
    note = "all but ten items go through the overflow file"
    memory_size = 10


OURS: tuple[type[Contestant], ...] = (Memory, Process, Stream, StreamOnDisk)
OURS_SYNCED: tuple[type[Contestant], ...] = (Power,)
