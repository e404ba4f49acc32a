"""`top`: a full-screen live view of queues, beside their owners."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import click

from ..errors import QueueError, counted
from ..salvage import NoQueue, queues_below
from ..salvage.watching import Glance, Watch
from .looking import inspection_fields
from .program import INTERRUPTED, command, json_option, print_json
from .words import DURATION, FOLDER, count_text, duration_text, size_text

__all__ = ["top"]

_BARS: Final = "▁▂▃▄▅▆▇█"
_HISTORY: Final = 32
_LINES_EACH: Final = 7


@command(example="overspill top queues --once")
@click.argument("folders", metavar="DIR...", nargs=-1, required=True, type=FOLDER)
@click.option("--interval", type=DURATION, default="1s", show_default=True, help="How often to look.")
@click.option("--once", is_flag=True, help="Look once, as without a terminal: no rates then.")
@json_option
def top(folders: tuple[Path, ...], interval: float, once: bool, as_json: bool) -> None:
    """Watch queues live, beside their owners. Ctrl-C ends it.

    Each DIR is a queue, or a folder of queues. In and out count what the log shows. What lives only in the owner's memory (what is resident, drops, sync times) is as the owner said at its last sync.
    """
    watches = [Watch(path) for folder in folders for path in queues_below(folder)]
    if not watches:
        raise NoQueue(f"there is no queue below {', '.join(map(str, folders))}")
    if as_json:
        print_json([_fields(watch.path, glance) for watch, glance in looked(watches)])
    elif once or not sys.stdout.isatty():
        from rich.console import Console

        console = Console(width=None if sys.stdout.isatty() else 100, highlight=False)
        console.print(screen(looked(watches), height=10_000, width=console.width))
    else:
        _live(watches, max(0.1, interval))


Looked = Sequence[tuple[Watch, Glance | Exception]]


def looked(watches: Iterable[Watch]) -> Looked:
    seen: list[tuple[Watch, Glance | Exception]] = []
    for watch in watches:
        try:
            seen.append((watch, watch.look()))
        except (QueueError, OSError) as error:
            seen.append((watch, error))
    return seen


def _live(watches: list[Watch], interval: float) -> None:
    from rich.console import Console
    from rich.live import Live

    console = Console()
    try:
        with Live(console=console, screen=True, auto_refresh=False) as live:
            while True:
                began = time.monotonic()
                live.update(screen(looked(watches), height=console.height, width=console.width), refresh=True)
                # Large unsealed segments take a while to look at: no more than a fifth of a processor.
                time.sleep(max(interval, 4 * (time.monotonic() - began)))
    except KeyboardInterrupt:
        raise SystemExit(INTERRUPTED) from None


def screen(seen: Looked, *, height: int, width: int) -> Any:
    """What the terminal shows: a line for each queue, then as many in detail as there is room for."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    waiting = sum(glance.waiting for _, glance in seen if isinstance(glance, Glance))
    head = Text(f"overspill top   {time.strftime('%H:%M:%S')}   {len(seen)} {'queue' if len(seen) == 1 else 'queues'}, {count_text(waiting)} waiting", style="bold", no_wrap=True)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="reverse", expand=True)
    table.add_column("queue", no_wrap=True, overflow="ellipsis", ratio=1)
    for title in ("waiting", "on disk", "in/s", "out/s", "oldest", "press", "owner"):
        table.add_column(title, justify="right", no_wrap=True)
    rows = min(len(seen), max(1, height - 3))
    for watch, glance in seen[:rows]:
        table.add_row(Path(watch.path).name, *_cells(glance))
    parts: list[Any] = [head, table]
    left = height - 3 - rows
    for watch, glance in seen:
        if left < _LINES_EACH or not isinstance(glance, Glance):
            break
        parts.append(_detail(watch, glance, width))
        left -= _LINES_EACH
    return Group(*parts)


def _cells(glance: Glance | Exception) -> list[Any]:
    from rich.text import Text

    if isinstance(glance, Exception):
        return ["-", "-", "-", "-", "-", "-", Text("gone" if isinstance(glance, FileNotFoundError) else str(glance)[:20], style="red")]
    owner, found = glance.owner, glance.found
    pressure = f"{owner['pressure']:.2f}" if owner else "-"
    hot = owner is not None and owner["pressure"] >= 0.9
    state = Text("damaged", style="red") if found.problems else _pid(found.holder) if found.holder else Text("nobody", style="dim")
    return [
        count_text(glance.waiting), size_text(found.bytes), _rate(glance.in_rate), _rate(glance.out_rate), duration_text(glance.oldest_age) if glance.oldest_age is not None else "-",
        Text(pressure, style="yellow" if hot else ""), state,
    ]  # fmt: skip


def _detail(watch: Watch, glance: Glance, width: int) -> Any:
    from rich.text import Text

    owner, found = glance.owner, glance.found
    if owner is not None:
        memory = f"memory {count_text(owner['memory_items'])} items, {size_text(owner['memory_bytes'])}, {owner['memory_ratio']:.0%} of its budget"
        disk = f"disk only {count_text(owner['disk_items'])} items; folder {size_text(found.bytes)}, {owner['disk_ratio']:.0%} of its limit"
        drops = ", ".join(f"{n:,} {reason}" for reason, n in owner["dropped"].items() if n) or "none"
        own = f"dropped {drops}   expired {owner['expired']:,}   redelivered {owner['redelivered']:,}   dead {count_text(found.dead_letters)}"
        last, most = owner["sync_seconds_last"], owner["sync_seconds_max"]
        took = f", last {duration_text(last)}, most {duration_text(most)}" if owner["syncs"] else ""
        syncs = f"syncs {owner['syncs']:,}{took}   in flight {owner['in_flight']:,}   delayed {count_text(found.delayed)}"
    else:
        memory, disk = "memory: only its owner knows", f"disk {count_text(found.waiting)} items; folder {size_text(found.bytes)}, {counted(len(found.segments), 'segment')}"
        syncs = ""
        own = "nobody has it open" if not found.holder else "its owner has not said anything yet: it speaks at a sync"
    lines = [
        Text(f"{Path(watch.path).name} ", style="bold").append("─" * max(0, width - len(Path(watch.path).name) - 1), style="dim"),
        Text(f"{memory}; {disk}" if len(memory) + len(disk) + 2 <= width else f"{memory}"),
        Text("in  ", style="green").append(sparkline(watch.ins)).append(f"  {_rate(glance.in_rate)}/s, most {_rate(max(watch.ins, default=None))}/s"),
        Text("out ", style="cyan").append(sparkline(watch.outs)).append(f"  {_rate(glance.out_rate)}/s, most {_rate(max(watch.outs, default=None))}/s"),
        Text(own),
        Text(syncs),
    ]
    if len(memory) + len(disk) + 2 > width:
        lines.insert(2, Text(disk))
    for line in lines:
        line.no_wrap, line.overflow = True, "ellipsis"
    return Text("\n", no_wrap=True, overflow="ellipsis").join(lines)


def sparkline(rates: Iterable[float], width: int = _HISTORY) -> str:
    """The last rates as bars, the newest at the right."""
    shown = list(rates)[-width:]
    most = max(shown, default=0.0)
    bars = "".join(_BARS[min(len(_BARS) - 1, int(rate / most * len(_BARS)))] if rate and most else _BARS[0] for rate in shown)
    return bars.rjust(width)


def _rate(rate: float | None) -> str:
    return "-" if rate is None else count_text(rate)


def _pid(holder: str) -> str:
    return holder.split(" ", 1)[0].replace("=", " ")


def _fields(path: str, glance: Glance | Exception) -> dict[str, Any]:
    if isinstance(glance, Exception):
        return {"folder": path, "error": str(glance)}
    return {"folder": path, **inspection_fields(glance.found), "waiting": glance.waiting, "in_rate": glance.in_rate, "out_rate": glance.out_rate}
