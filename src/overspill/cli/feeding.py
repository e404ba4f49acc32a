"""`put` and `get`: items from stdin, items to stdout."""

from __future__ import annotations

import os
import select
import stat
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import click

from ..errors import LeaseExpired, QueueError, QueueLocked, counted
from ..hybrid import HybridQueue
from ..options import Durability
from ..salvage import open_queue
from ..salvage.handover import await_items, await_release
from ..salvage.jsonlines import delivery_fields
from ..salvage.moving import line_of
from ..salvage.stored import kind_and_payload
from .program import FOUND, Failure, command, json_option, print_json, telling_how_many
from .output import Output, progress
from .words import DISK_SIZE, DURABILITY, DURATION, FOLDER, NEW_FOLDER, PRIORITY

__all__ = ["get", "open_or_wait", "put"]

_READ: Final = 1 << 18
_LINES_AT_ONCE: Final = 4096
_LEASED_AT_ONCE: Final = 256
_LEASE_S: Final = 7 * 86400.0
"""Nobody else can take what this process has leased, so its leases need no short end."""


def open_or_wait(folder: Path, wait: bool, **options: Any) -> HybridQueue:
    """Open a queue; with `wait`, once whoever has it has let go."""
    while True:
        try:
            return open_queue(folder, **options)
        except QueueLocked:
            if not wait:
                raise
        await_release(folder)


@command(example="seq 1000 | overspill put queues/jobs --priority high --ttl 2h")
@click.argument("folder", metavar="DIR", type=NEW_FOLDER)
@click.argument("files", nargs=-1, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--raw", is_flag=True, help="All of stdin, or each of FILES, is one item.")
@click.option("--priority", type=PRIORITY, default="normal", show_default=True, help="0 to 255, or low, normal, high.")
@click.option("--ttl", type=DURATION, help="How long the items live: 30s, 5m, 2h.  [default: for ever]")
@click.option("--delay", type=DURATION, help="They are in line after so long.  [default: at once]")
@click.option("--batch", type=click.IntRange(1), help="So many lines go in all or none.  [default: as they arrive]")
@click.option("--durability", type=DURABILITY, default="process", show_default=True, help="What an item survives from when it was put.")
@click.option("--max-disk", type=DISK_SIZE, default="10GiB", show_default=True, help="The folder never takes more.")
@click.option("--wait", is_flag=True, help="If another process has the queue, wait until it lets go.")
@json_option
def put(
    folder: Path, files: tuple[Path, ...], raw: bool, priority: int, ttl: float | None, delay: float | None, batch: int | None, durability: Durability, max_disk: int, wait: bool, as_json: bool
) -> None:
    """Put items into a queue: each line of stdin, or of FILES.

    An item is the bytes of its line without the newline. The queue is made if it is not there.
    """
    with open_or_wait(folder, wait, create=True, serializer="raw", durability=durability, max_disk_size=max_disk, memory_size=1) as q:
        with telling_how_many(q, folder) as put_so_far, progress("put", total=lambda: _size_of(files), unit="bytes") as bar:
            for items in _whole(files, bar) if raw else _lines(files, batch, bar):
                q.enqueue_batch(items, priority=priority, ttl=ttl, delay=delay)
        n = put_so_far()
    if as_json:
        print_json({"put": n})
    elif sys.stderr.isatty():
        click.echo(f"{counted(n, 'item')} put", err=True)


def _size_of(files: tuple[Path, ...]) -> int | None:
    """Of all that is going to be read, if that is known."""
    found = [os.stat(path) for path in files] or [os.fstat(0)]
    return sum(each.st_size for each in found) if all(stat.S_ISREG(each.st_mode) for each in found) else None


def _sources(files: tuple[Path, ...]) -> Iterator[int]:
    if not files:
        yield 0 if sys.stdin is sys.__stdin__ else -1
    for path in files:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            yield fd
        finally:
            os.close(fd)


def _blocks(fd: int, bar: Callable[[int], None]) -> Iterator[bytes]:
    """What is there, as soon as it is there."""
    stream = sys.stdin.buffer if fd < 0 else None
    while block := stream.read(_READ) if stream is not None else os.read(fd, _READ):
        yield block
        bar(len(block))


def _whole(files: tuple[Path, ...], bar: Callable[[int], None]) -> Iterator[list[bytes]]:
    for fd in _sources(files):
        yield [b"".join(_blocks(fd, bar))]


def _lines(files: tuple[Path, ...], batch: int | None, bar: Callable[[int], None]) -> Iterator[list[bytes]]:
    """Lists of lines: of exactly `batch` but for the last, or whatever has arrived."""
    waiting: list[bytes] = []
    size = batch or _LINES_AT_ONCE
    for fd in _sources(files):
        begun: list[bytes] = []
        for block in _blocks(fd, bar):
            first, *rest = block.split(b"\n")
            begun.append(first)
            if rest:
                waiting.append(b"".join(begun))
                begun = [rest.pop()]
                waiting += rest
            while len(waiting) >= size or (waiting and batch is None):
                yield waiting[:size]
                del waiting[:size]
        if last := b"".join(begun):
            waiting.append(last)
    if waiting:
        yield waiting


@command(example="overspill get queues/jobs --count 10")
@click.argument("folder", metavar="DIR", type=FOLDER)
@click.option("--count", type=click.IntRange(1), help="Take so many and stop.  [default: until the queue is empty]")
@click.option("--wait", is_flag=True, help="When it is empty, or another process has it, wait for more.")
@click.option("--raw", is_flag=True, help="Nothing between the items, and the bytes of what cannot be shown.")
@click.option("--ack-file", type=click.Path(path_type=Path), help="A FIFO (made if missing): each line read from it acknowledges the oldest item that is out.")
@json_option
def get(folder: Path, count: int | None, wait: bool, raw: bool, ack_file: Path | None, as_json: bool) -> None:
    """Take items and print them, a line each, until none is left.

    Text and bytes are printed as they are, anything else as JSON; --json prints a line of JSON for each item, with id, priority and attempts. An item leaves the queue when
    it has been written, or with --ack-file when the consumer says so: if this process dies first, or the consumer goes away, it stays. What a pipe holds has been
    written, so `get DIR | head -3` may take more than it shows: say --count 3. Exits with 1 if there was nothing.
    """
    show = _as_json if as_json else _as_payload if raw else _as_line
    given = 0
    with _Acknowledged(ack_file) if ack_file is not None else _Written() as done:
        while True:
            with open_or_wait(folder, wait, lease_timeout=_LEASE_S) as q:
                while count is None or given < count:
                    deliveries = q.lease_batch(min(_LEASED_AT_ONCE, (count or sys.maxsize) - given))
                    if not deliveries:
                        break
                    given += _hand_out(deliveries, show, done)
            if not wait or given == count:
                break
            await_items(folder)
    raise SystemExit(0 if given else FOUND)


def _hand_out(deliveries: list[Any], show: Callable[[Any], bytes], done: _Written) -> int:
    """Write items and settle them; returns how many. Whatever happens, those that were not written whole go back to their places."""
    left = deliveries[::-1]
    output = Output()
    try:
        chunks: list[bytes] = []
        for delivery in deliveries:
            try:
                chunks.append(show(delivery))
            except QueueError:
                if not chunks:
                    raise
                break  # the ones before it go out; the next call meets this one again and says so
        output.write(chunks)
    finally:
        for _ in range(output.whole):
            done.written(left.pop())
        for delivery in left:
            with suppress(LeaseExpired):
                delivery.nack()
        done.settle()
    return output.whole


class _Written:
    """An item is done when it is written."""

    def __enter__(self) -> _Written:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def written(self, delivery: Any) -> None:
        delivery.ack()

    def settle(self) -> None:
        """Wait until everything that was written is done."""


class _Acknowledged(_Written):
    """An item is done when its consumer has written a line to a FIFO."""

    def __init__(self, path: Path) -> None:
        with suppress(FileExistsError):
            os.mkfifo(path, 0o600)
        if not stat.S_ISFIFO(os.stat(path).st_mode):
            raise Failure(f"{path} is not a FIFO: remove it, or name one that mkfifo made")
        self._fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        self._outstanding: deque[Any] = deque()

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    def written(self, delivery: Any) -> None:
        self._outstanding.append(delivery)

    def settle(self) -> None:
        wait = select.poll()
        wait.register(self._fd, select.POLLIN)
        wait.register(1, 0)  # says when whoever reads our output has gone
        try:
            while self._outstanding:
                events = dict(wait.poll())
                if events.get(self._fd, 0) & select.POLLIN:
                    for _ in range(os.read(self._fd, _READ).count(b"\n")):
                        if self._outstanding:
                            self._outstanding.popleft().ack()
                else:
                    n = len(self._outstanding)
                    raise Failure(f"the consumer went away without acknowledging {counted(n, 'item')}, back in the queue now")
        finally:
            for delivery in reversed(self._outstanding):
                with suppress(LeaseExpired):
                    delivery.nack()
            self._outstanding.clear()


def _as_payload(delivery: Any) -> bytes:
    return kind_and_payload(delivery.item)[1]


def _as_line(delivery: Any) -> bytes:
    return line_of(delivery.item)


def _as_json(delivery: Any) -> bytes:
    return delivery_fields(delivery) + b"\n"
