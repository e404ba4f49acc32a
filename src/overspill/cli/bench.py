"""`bench`: a short measurement of this machine and this disk, with what the disk alone can do beside it."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

import click

from ..hybrid import HybridQueue
from ..options import Durability, GiB, KiB, MiB
from .output import columns, progress
from .program import Failure, command, json_option, print_json
from .words import DURATION, SIZE, count_text, duration_text, size_text

__all__ = ["bench"]

_BATCH: Final = 100
_BYTES_MAX: Final = 256 * MiB
"""So much is put at the most before it is taken out again."""


class Measured(NamedTuple):
    what: str
    items: int
    seconds: float
    nbytes: int

    @property
    def rate(self) -> float:
        return self.items / self.seconds


@command(example="overspill bench . --seconds 1 --size 1KiB")
@click.argument("folder", metavar="[DIR]", default=".", type=click.Path(exists=True, file_okay=False, writable=True, path_type=Path))
@click.option("--seconds", type=DURATION, default="6s", show_default=True, help="About how long to measure in all.")
@click.option("--size", type=SIZE, default="1KiB", show_default=True, help="Bytes of an item.")
@json_option
def bench(folder: Path, seconds: float, size: int, as_json: bool) -> None:
    """Measure queues on the disk of DIR, shortly and honestly.

    In a folder of its own, which is removed again. One thread; figures of a busy machine are those of a busy
    machine. `make bench` in a clone compares with others.
    """
    if not 1 <= size <= 16 * MiB:
        raise Failure("--size must be from 1 to 16MiB")
    if not seconds > 0:
        raise Failure("--seconds must be above 0")
    place = Path(tempfile.mkdtemp(prefix="overspill-bench-", dir=folder))
    try:
        found = []
        with progress("bench", total=lambda: _STEPS, unit="steps") as bar:
            for measured in _all(place, os.urandom(size), seconds / _STEPS):
                found.append(measured)
                bar(1)
    finally:
        shutil.rmtree(place)
    if as_json:
        print_json([each._asdict() | {"rate": each.rate} for each in found])
        return
    rows = [["", "items/s", "each", "bytes/s"]]
    rows += [[each.what, count_text(each.rate), duration_text(1 / each.rate), size_text(each.nbytes * each.rate)] for each in found]
    click.echo(columns(rows, "lrrr"))


_STEPS: Final = 2 + 3 * len(Durability)


def _all(place: Path, item: bytes, span_s: float) -> Iterator[Measured]:
    bare: deque[bytes] = deque(maxlen=_BYTES_MAX // len(item) + 1)
    yield _measured("bare deque.append", lambda: bare.append(item), 1, span_s, len(item), 2**63)
    bare.clear()
    fd = os.open(place / "bare", os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        yield _measured("bare write and fdatasync", lambda: _written(fd, item), 1, span_s, len(item), 2**63)
    finally:
        os.close(fd)
    for durability in Durability:
        yield from _queue(place, durability, item, span_s)


def _written(fd: int, item: bytes) -> None:
    os.pwrite(fd, item, 0)
    os.fdatasync(fd)


def _queue(place: Path, durability: Durability, item: bytes, span_s: float) -> Iterator[Measured]:
    most = _BYTES_MAX // len(item)
    batch = [item] * _BATCH
    with HybridQueue(durability.name.lower(), place, durability=durability, memory_size=10**7, memory_limit=2 * _BYTES_MAX + 64 * KiB, max_disk_size=4 * GiB) as q:
        name = durability.name
        yield _measured(f"{name} enqueue", lambda: q.enqueue(item), 1, span_s, len(item), most)
        yield _measured(f"{name} dequeue", q.try_dequeue, 1, span_s, len(item), len(q))
        q.clear()
        yield _measured(f"{name} enqueue_batch of {_BATCH}", lambda: q.enqueue_batch(batch), _BATCH, span_s, len(item), most)
        q.destroy()


def _measured(what: str, act: Callable[[], object], items: int, span_s: float, nbytes: int, most: int) -> Measured:
    """Act again and again until the time is up or there is nothing more to do."""
    n = 0
    began = now = time.perf_counter()
    end = began + span_s
    while now < end and n < most:
        for _ in range(min(16, max(1, (most - n) // items))):
            act()
            n += items
        now = time.perf_counter()
    return Measured(what, n, now - began, nbytes)
