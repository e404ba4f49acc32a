"""`stats`, `ls` and `peek`: looking, beside a running owner or at a copy, without changing a byte."""

from __future__ import annotations

import itertools
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from ..config import load_queues
from ..errors import CorruptedData, QueueError, UnknownFormat, counted
from ..item import KIND_NAMES, KIND_RAW, KIND_STR
from ..salvage import Inspection, orphans, queues_below, require_queue
from ..salvage.jsonlines import item_fields, payload_of, time_text
from ..salvage.moving import shown
from ..salvage.stored import Stored, value_of
from .output import columns
from .program import FOUND, command, json_option, print_json
from .words import FOLDER, duration_text, size_text

__all__ = ["ls", "peek", "stats"]


@command(example="overspill stats queues/jobs")
@click.argument("folder", metavar="DIR", type=FOLDER)
@json_option
def stats(folder: Path, as_json: bool) -> None:
    """Tell what is in a queue: how much, how old, who has it.

    Reads headers, footers and settle marks, and what is not sealed yet; `verify` reads everything.
    """
    found = _looked_at(folder)
    if as_json:
        print_json(inspection_fields(found))
    else:
        click.echo(columns([[name, value] for name, value in _lines(found)], "ll"))
    raise SystemExit(0 if found.ok else FOUND)


def _looked_at(folder: Path) -> Inspection:
    from .._store.inspection import inspect

    require_queue(folder)
    return inspect(folder)


def inspection_fields(found: Inspection) -> dict[str, Any]:
    """An inspection for machines."""
    fields = asdict(found)
    fields["problems"] = [problem._asdict() for problem in found.problems]
    fields["oldest_age"] = found.oldest_age(time.time())
    return fields | {"ok": found.ok}


def _lines(found: Inspection) -> list[tuple[str, str]]:
    age = found.oldest_age(time.time())
    lines = [
        ("waiting", counted(found.waiting, "item")),
        *([("not in line", f"{found.delayed:,} delayed, {found.dead_letters:,} dead letters")] if found.delayed or found.dead_letters else []),
        ("oldest", f"{duration_text(age)}, since {time_text(found.oldest_ns or 0)}" if age is not None else "-"),
        ("by priority", ", ".join(f"{priority}: {n:,}" for priority, n in sorted(found.by_priority.items(), reverse=True)) or "-"),
        ("on disk", f"{size_text(found.bytes)} in {counted(len(found.segments), 'segment')}, {counted(found.records, 'record')}"),
        ("numbered", f"up to {found.next_sequence - 1:,}: so many were ever written"),
        ("open", found.holder or "by nobody"),
    ]
    if found.torn_bytes:
        lines.append(("torn", f"{size_text(found.torn_bytes)}, {counted(found.torn_records, 'record')} at the end"))
    if found.quarantined_files:
        lines.append(("quarantine", f"{counted(found.quarantined_files, 'file')}, {size_text(found.quarantined_bytes)}"))
    if found.unknown_names:
        lines.append(("unknown names", ", ".join(found.unknown_names)))
    lines += [("problem", str(problem)) for problem in found.problems]
    return lines


@command(example="overspill ls queues")
@click.argument("folder", metavar="DIR", type=FOLDER)
@click.option("--config", "configs", multiple=True, type=click.Path(exists=True, dir_okay=False, path_type=Path), help="List only orphans: queues that none of these TOML or JSON files configures.")
@json_option
def ls(folder: Path, configs: tuple[Path, ...], as_json: bool) -> None:
    """List the queues below DIR, or DIR itself if it is one.

    With --config, those that no configuration knows any more: their items wait for nobody. Exits with 1 if there are any then, or if a queue looks damaged.
    """
    folders = orphans(folder, _configured(configs)) if configs else list(queues_below(folder))
    looks = [(each, _look_or_error(each)) for each in folders]
    if as_json:
        print_json([{"folder": str(each), **(inspection_fields(found) if isinstance(found, Inspection) else {"error": str(found)})} for each, found in looks])
    elif looks:
        rows = [["queue", "waiting", "on disk", "oldest", "state"]]
        rows += [_row(each.name, found) for each, found in looks]
        click.echo(columns(rows, "lrrrl"))
    else:
        click.echo("no orphans" if configs else f"no queues in {folder}", err=True)
    bad = any(not isinstance(found, Inspection) or not found.ok for _, found in looks)
    raise SystemExit(FOUND if bad or (configs and looks) else 0)


def _configured(configs: tuple[Path, ...]) -> list[Path]:
    """The folders of all queues in these files; a relative disk_path begins where this process runs, as for the program that opens it."""
    known = []
    for path in configs:
        for name, options in load_queues(path).items():
            if options.get("disk_path") is not None:
                known.append(Path(options["disk_path"], options.get("name", name)))
    return known


def _look_or_error(folder: Path) -> Inspection | Exception:
    try:
        return _looked_at(folder)
    except (QueueError, OSError) as error:
        return error


def _row(name: str, found: Inspection | Exception) -> list[str]:
    if isinstance(found, Exception):
        return [name, "-", "-", "-", str(found)]
    age = found.oldest_age(time.time())
    state = "damaged: overspill verify" if found.problems else "open" if found.holder else "closed" if found.clean else "left open: its process died"
    return [name, f"{found.waiting:,}", size_text(found.bytes), duration_text(age) if age is not None else "-", state]


@command(example="overspill peek queues/jobs --count 3")
@click.argument("folder", metavar="DIR", type=FOLDER)
@click.option("--count", type=click.IntRange(1), default=1, show_default=True, help="The first so many.")
@click.option("--raw", is_flag=True, help="Only the payload of each item, with nothing added.")
@json_option
def peek(folder: Path, count: int, raw: bool, as_json: bool) -> None:
    """Show what would come out next, and leave it there.

    Exits with 1 if nothing waits.
    """
    from .._store.inspection import items

    require_queue(folder)
    n = 0
    out = sys.stdout.buffer
    for item in itertools.islice(items(folder, on_problem=lambda problem: click.echo(f"overspill: {problem}", err=True)), count):
        n += 1
        if raw:
            out.write(payload_of(item))
            out.flush()
        elif as_json:
            click.echo(json.dumps(item_fields(item), ensure_ascii=False))
        else:
            age = max(0.0, time.time() - item.enqueued_ns / 1e9)
            click.echo(f"{item.priority:>3}  {duration_text(age):>8}  {size_text(item.raw_length):>8}  {_first_words(item)}")
    raise SystemExit(0 if n else FOUND)


def _first_words(item: Any, width: int = 100) -> str:
    """An item on one line: text as it is, bytes if they are text, everything else as JSON; cut at the width."""
    try:
        payload = payload_of(item)
        value = payload if item.kind == KIND_RAW else payload.decode() if item.kind == KIND_STR else value_of(Stored(item.kind, payload))
    except UnknownFormat:
        return f"<{KIND_NAMES.get(item.kind, item.kind)}, {item.raw_length:,} bytes>"
    except (CorruptedData, UnicodeDecodeError) as error:
        return f"<damaged: {error}>"
    if isinstance(value, bytes):
        try:
            value = value.decode()
        except UnicodeDecodeError:
            return _cut(repr(value[:width]), width)
    text = value if isinstance(value, str) else shown(value)
    return _cut(text if text.isprintable() else repr(text[: 2 * width])[1:-1], width)


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"
