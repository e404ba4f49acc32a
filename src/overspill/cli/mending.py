"""`verify`, `repair` and `compact`."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import click

from .. import salvage
from .looking import inspection_fields
from ..errors import counted
from ..hybrid import HybridQueue
from .output import progress
from .program import FOUND, command, json_option, print_json
from .words import FOLDER, size_text

__all__ = ["compact", "repair", "verify"]


def _segment_bytes(folder: Path) -> int:
    return sum(each.size for each in HybridQueue.inspect(folder).segments)


def _quoted(folder: Path) -> str:
    """As a shell takes it, from where the user is if that is shorter."""
    return shlex.quote(min(str(folder), os.path.relpath(folder), key=len))


@command(example="overspill verify queues/jobs")
@click.argument("folder", metavar="DIR", type=FOLDER)
@json_option
def verify(folder: Path, as_json: bool) -> None:
    """Check every checksum, mark word and footer of a queue.

    Says what is wrong, and where. Changes nothing, and works beside a running owner and on a copy. Exits with 1 if it finds damage.
    """
    with progress("verify", total=lambda: _segment_bytes(folder), unit="bytes") as bar:
        found = salvage.verify(folder, on_step=bar)
    damage = salvage.damage_of(found)
    if as_json:
        print_json(inspection_fields(found) | {"damage": [problem._asdict() for problem in damage], "ok": not damage})
    else:
        for problem in damage:
            click.echo(problem)
        half = sum(each.tail == "half_batch" for each in found.segments)
        if half:
            click.echo("a batch at the end was never completed: opening cuts it, as is promised")
        there = f"{counted(found.waiting, 'item')} waiting, {counted(found.records, 'record')} in {counted(len(found.segments), 'segment')}, {size_text(found.bytes)}"
        click.echo(f"{there}: {counted(len(damage), 'problem')}; to see what can be done: overspill repair {_quoted(folder)}" if damage else f"{there}: every checksum is right")
    raise SystemExit(FOUND if damage else 0)


@command(example="overspill repair queues/jobs --apply")
@click.argument("folder", metavar="DIR", type=FOLDER)
@click.option("--apply", "applies", is_flag=True, help="Do it. What is replaced is kept in DIR/quarantine.")
@json_option
def repair(folder: Path, applies: bool, as_json: bool) -> None:
    """Show what would make a queue whole; with --apply, do it.

    Opening the queue does the same where it must; repair also reads every item now. Exits with 1 if there is something to do and --apply is not given.
    """
    if not applies:
        with progress("look", total=lambda: _segment_bytes(folder), unit="bytes") as bar:
            plan = salvage.plan_of(folder, on_step=bar)
        if as_json:
            print_json({"applied": False, "plan": [change._asdict() for change in plan]})
        else:
            for change in plan:
                click.echo(change)
            click.echo(f"to do it: overspill repair {_quoted(folder)} --apply" if plan else "nothing to do")
        raise SystemExit(FOUND if plan else 0)
    with progress("read", total=lambda: HybridQueue.inspect(folder).waiting) as bar:
        done = salvage.repair(folder, on_step=bar)
    if as_json:
        fields = {"applied": True, "plan": [change._asdict() for change in done.changes], "recovery": str(done.recovery), "notes": done.recovery.notes}
        print_json(fields | {"records_set_aside": done.records_set_aside, "waiting": done.waiting, "kept": done.kept})
        return
    for change in done.changes:
        click.echo(f"done: {change}")
    for note in done.recovery.notes:
        click.echo(note)
    if done.records_set_aside:
        click.echo(f"{counted(done.records_set_aside, 'more damaged record')} set aside")
    for name in done.kept:
        click.echo(f"kept: {folder / 'quarantine' / name}")
    click.echo(f"{counted(done.waiting, 'item')} waiting")


@command(example="overspill compact queues/jobs")
@click.argument("folder", metavar="DIR", type=FOLDER)
@json_option
def compact(folder: Path, as_json: bool) -> None:
    """Give disk space back.

    Expired items leave, and segments of which little is left are rewritten.
    """
    with progress("compact"):
        given_back = salvage.compact(folder)
    if as_json:
        print_json({"bytes_given_back": given_back})
    else:
        click.echo(f"{size_text(given_back)} given back")
