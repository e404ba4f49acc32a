"""`export`, `import` and `drain`."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import IO

import click

from .. import salvage
from ..hybrid import HybridQueue
from ..errors import counted
from ..salvage.jsonlines import BATCH_ITEMS
from .output import progress
from .program import FOUND, Failure, command, json_option, print_json, telling_how_many
from .words import DISK_SIZE, FOLDER, NEW_FOLDER

__all__ = ["drain", "export", "import_"]


@command(example="overspill export queues/jobs --output jobs.jsonl")
@click.argument("folder", metavar="DIR", type=FOLDER)
@click.option("--output", "-o", type=click.Path(dir_okay=False, path_type=Path), help="Write to this file.  [default: stdout]")
@click.option("--dead-letters", is_flag=True, help="Behind the others, what ran out of attempts.")
@click.option("--resume", is_flag=True, help="Go on with a file that was cut short: behind its last complete line.")
@json_option
def export(folder: Path, output: Path | None, dead_letters: bool, resume: bool, as_json: bool) -> None:
    """Print what waits as JSON Lines, and take nothing.

    With ids, priorities, dates and attempts. Works beside a running owner and on a damaged copy: damage is named on stderr, damaged items
    are left out, and a wrong payload is never written. Exits with 1 if there was any.
    """
    if resume and output is None:
        raise Failure("--resume needs --output, the file to go on with")
    salvage.require_queue(folder)  # before a file is made

    def total() -> int | None:
        if resume:
            return None
        found = HybridQueue.inspect(folder)
        return found.waiting + found.delayed + (found.dead_letters if dead_letters else 0)

    with progress("export", total=total) as bar:
        out = _export_file(output, resume)
        try:
            done = salvage.export(folder, out, resume=resume, dead_letters=dead_letters, on_step=bar, on_problem=lambda problem: click.echo(f"overspill: damaged: {problem}", err=True))
        finally:
            if output is not None:
                out.close()
    if as_json:
        click.echo(_summary(done), err=output is None)
    elif output is not None and sys.stderr.isatty():
        click.echo(f"{counted(done.items, 'item')} written to {output}", err=True)
    raise SystemExit(FOUND if done.problems else 0)


def _export_file(output: Path | None, resume: bool) -> IO[bytes]:
    if output is None:
        return sys.stdout.buffer
    if resume:
        return open(output, "r+b" if output.exists() else "w+b")
    try:
        return open(output, "xb")
    except FileExistsError:
        raise Failure(f"{output} is there already: --resume goes on with it, or choose another name") from None


def _summary(done: salvage.Exported) -> str:
    return json.dumps({"items": done.items, "skipped": done.skipped, "problems": [problem._asdict() for problem in done.problems]})


@command("import", example="overspill import queues/copy jobs.jsonl")
@click.argument("folder", metavar="DIR", type=NEW_FOLDER)
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path), required=False)
@click.option("--resume", is_flag=True, help="Pass over the lines that an import which was cut short has put.")
@click.option("--max-disk", type=DISK_SIZE, default="10GiB", show_default=True, help="The folder never takes more.")
@json_option
def import_(folder: Path, file: Path | None, resume: bool, max_disk: int, as_json: bool) -> None:
    """Put the items of an export, FILE or stdin, into a queue.

    The queue is made if it is not there. Every item keeps its id, dates, priority and attempts. A line needs only one of the keys text, item and base64.
    """
    if resume and file is None:
        raise Failure("--resume needs FILE: it is read twice")
    source: IO[bytes] = sys.stdin.buffer if file is None else open(file, "rb")
    read = 0

    def step(n: int) -> None:
        nonlocal read
        if file is not None:  # whose end is known: told by how much of it has been read
            n, read = source.tell() - read, source.tell()
        bar(n)

    with source, salvage.open_queue(folder, create=True, max_disk_size=max_disk) as q, progress(
        "import", total=lambda: file.stat().st_size if file is not None else None, unit="items" if file is None else "bytes"
    ) as bar:  # fmt: skip
        with telling_how_many(q, folder, to_go_on="with --resume the next import goes on behind them" if file is not None else ""):
            n, passed = salvage.import_lines(q, source, resume=resume, on_step=step)
    if as_json:
        print_json({"imported": n, "passed_over": passed})
    elif sys.stderr.isatty():
        click.echo(f"{counted(n, 'item')} put" + (f", {counted(passed, 'line')} passed over" if passed else ""), err=True)


@command(example="overspill drain queues/old queues/new")
@click.argument("folder", metavar="DIR", type=FOLDER)
@click.argument("target", type=NEW_FOLDER, required=False)
@click.option("--exec", "run", metavar="COMMAND", help="Run COMMAND for every batch, with the items on its stdin, a line each; a batch is done when it ends with 0.")
@click.option("--batch", type=click.IntRange(1), default=BATCH_ITEMS, show_default=True, help="At most so many items at once.")
@click.option("--max-disk", type=DISK_SIZE, default="10GiB", show_default=True, help="The folder TARGET never takes more.")
@json_option
def drain(folder: Path, target: Path | None, run: str | None, batch: int, max_disk: int, as_json: bool) -> None:
    """Move everything to another queue, or to a command.

    Everything that is in line. An item leaves DIR when its batch has arrived. Killed and run again, a drain into TARGET loses nothing and repeats nothing; a command may get its last batch again.
    """
    if (target is None) == (run is None):
        raise Failure("drain needs TARGET or --exec COMMAND, and not both")
    if target is not None and os.path.realpath(target) == os.path.realpath(folder):
        raise Failure(f"{folder} cannot be drained into itself: name another TARGET")
    with salvage.open_queue(folder) as source, progress("drain", total=lambda: len(source)) as bar:
        try:
            if run is not None:
                fields = {"moved": salvage.drain_to_command(source, run, on_step=bar, batch_items=batch)}
            else:
                assert target is not None
                with salvage.open_queue(target, create=True, max_disk_size=max_disk) as into:
                    fields = salvage.drain(source, into, on_step=bar, batch_items=batch)._asdict()
        except KeyboardInterrupt as stopped:
            stopped.add_note(f"{counted(len(source), 'item')} still in {folder}: the same command goes on with them")
            raise
    if as_json:
        print_json(fields)
        return
    if sys.stderr.isatty():
        click.echo(f"{counted(fields['moved'], 'item')} moved", err=True)
    if stays := [f"{fields[key]:,} {key.replace('_', ' ')}" for key in ("delayed", "dead_letters") if fields.get(key)]:
        click.echo(f"overspill: not in line, and still in {folder}: {', '.join(stays)}", err=True)
