"""`pipe`: a durable pipe."""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import click

from ..errors import counted
from ..options import Durability, MiB
from ..pipe import DurablePipe, Report
from .program import command, json_option
from .words import DURABILITY, NEW_FOLDER, PIPE_DISK_SIZE, SIZE, count_text, duration_text, size_text

__all__ = ["pipe"]

_EVERY_S: Final = 0.5


@command(example="seq 100000 | overspill pipe --memory 64MiB --max-disk 10GiB queues/log | tail -1")
@click.argument("folder", metavar="DIR", type=NEW_FOLDER)
@click.option("--memory", type=SIZE, default="64MiB", show_default=True, help="How much waits in memory; the rest waits on disk only.")
@click.option("--max-disk", type=PIPE_DISK_SIZE, default="10GiB", show_default=True, help="The folder never takes more: then the producer waits.")
@click.option("--frame", type=click.Choice(["line", "length"]), default="line", show_default=True, help="An item is a line, or four bytes of big-endian length and so many more.")
@click.option("--ack", is_flag=True, help="An item leaves when it is written, not before: a kill loses nothing, and the consumer may get the last few again.")
@click.option("--durability", type=DURABILITY, default="process", show_default=True, help="What an item survives from when it was read.")
@click.option("--stop-with-consumer", is_flag=True, help="When the consumer goes away, stop reading too.")
@click.option("--quiet", "-q", is_flag=True, help="No status line on a terminal.")
@json_option
def pipe(folder: Path, memory: int, max_disk: int, frame: str, ack: bool, durability: Durability, stop_with_consumer: bool, quiet: bool, as_json: bool) -> None:
    """A durable pipe: stdin to stdout through a queue.

    As in `producer | overspill pipe DIR | consumer`. The producer is read on when the consumer is slow; when it has gone, everything is
    kept to the producer's end. The next run begins with what was kept, after a kill too. --json prints a summary on stderr.
    """
    for fd in (0, 1):
        with suppress(OSError):  # not a pipe, or more than this user may have
            fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, MiB)
    carrying = DurablePipe(
        folder, frame=frame, memory=memory, max_disk=max_disk, ack=ack, durability=durability, stop_with_consumer=stop_with_consumer,
    )  # fmt: skip
    ended_by = 0

    def end(number: int, _: Any) -> None:
        nonlocal ended_by
        if ended_by:
            os._exit(128 + number)  # asked twice: what is in the log is safe, as after a kill
        ended_by = number
        carrying.interrupt()

    carrying.hear_signals()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end)
    if quiet or as_json or not sys.stderr.isatty():
        report = carrying.run()
    else:
        with _StatusLine(carrying):
            report = carrying.run()
    _tell(report, folder, as_json)
    if ended_by:
        raise SystemExit(128 + ended_by)


def _tell(report: Report, folder: Path, as_json: bool) -> None:
    import json

    if as_json:
        click.echo(json.dumps(report._asdict()), err=True)
        return
    if report.unfinished_bytes:
        click.echo(f"overspill: the stream broke off inside a frame; {counted(report.unfinished_bytes, 'byte')} of it not kept", err=True)
    if report.kept:
        why = "the consumer has gone" if report.consumer_gone else "stopped"
        click.echo(f"overspill: {why}; {counted(report.kept, 'item')} kept in {folder}: the next run begins there", err=True)


class _StatusLine:
    """One line on stderr, twice a second, of as many columns as there are."""

    def __init__(self, carrying: DurablePipe) -> None:
        self._carrying = carrying
        self._began = time.monotonic()
        self._before = (self._began, 0, 0)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._show, name="overspill-status", daemon=True)

    def __enter__(self) -> _StatusLine:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        with suppress(OSError):
            os.write(2, b"\r\x1b[K")

    def _show(self) -> None:
        while not self._over.wait(_EVERY_S):
            with suppress(OSError):
                columns = os.get_terminal_size(2).columns
                os.write(2, f"\r\x1b[K{self.line()[: columns - 1]}".encode())

    def line(self) -> str:
        now, read, written = time.monotonic(), self._carrying.bytes_in, self._carrying.bytes_out
        then, read_then, written_then = self._before
        self._before = now, read, written
        span = max(now - then, 1e-6)
        q = self._carrying.queue
        waiting, on_disk = self._carrying.waiting, q.disk_size
        tiers = f"{count_text(waiting)} waiting" + (f", {count_text(on_disk)} on disk only" if on_disk else "")
        rates = f"in {size_text((read - read_then) / span)}/s  out {size_text((written - written_then) / span)}/s"
        return f"{size_text(read)} {duration_text(now - self._began)}  {rates}  {tiers}"
