"""`top`: a full-screen live view of queues, beside their owners."""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import compress
from pathlib import Path
from typing import Any, Final

import click

from ..errors import QueueError, counted
from ..salvage import NoQueue, is_queue, queues_below
from ..salvage.watching import Glance, Watch
from .looking import inspection_fields
from .program import INTERRUPTED, command, json_option, print_json
from .words import DURATION, FOLDER, count_text, duration_text, size_text

__all__ = ["top"]

_BARS: Final = "▁▂▃▄▅▆▇█"
_HISTORY: Final = 32
_LINES_EACH: Final = 7
_COLUMNS: Final = (("waiting", 0), ("on disk", 64), ("in/s", 0), ("out/s", 0), ("oldest", 48), ("press", 72), ("owner", 56))
"""What the table says of a queue, and how wide a terminal must be for it."""


@command(example="overspill top queues --once")
@click.argument("folders", metavar="DIR...", nargs=-1, required=True, type=FOLDER)
@click.option("--interval", type=DURATION, default="1s", show_default=True, help="How often to look.")
@click.option("--once", is_flag=True, help="Look once, as without a terminal: no rates then.")
@json_option
def top(folders: tuple[Path, ...], interval: float, once: bool, as_json: bool) -> None:
    """Watch queues live, beside their owners. Ctrl-C ends it.

    Each DIR is a queue, or a folder of queues, which may come and go. In and out count what the log shows. What lives only in the owner's memory (what is resident, drops, sync
    times) is as the owner said at its last sync.
    """
    watches = Watches(folders)
    if not list(watches):
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


class Watches:
    """The queues that were named, and those below the folders that were named: at every look those that are there then."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self._queues = [folder for folder in folders if is_queue(folder)]
        self._folders = [folder for folder in folders if folder not in self._queues]
        self._known: dict[Path, Watch] = {}

    def __iter__(self) -> Iterator[Watch]:
        there = list(self._queues)
        for folder in self._folders:
            with suppress(OSError):
                there += queues_below(folder)
        self._known = {path: self._known.get(path) or Watch(path) for path in there}
        return iter(list(self._known.values()))


def looked(watches: Iterable[Watch]) -> Looked:
    seen: list[tuple[Watch, Glance | Exception]] = []
    for watch in watches:
        try:
            seen.append((watch, watch.look()))
        except (QueueError, OSError) as error:
            seen.append((watch, error))
    return seen


def _live(watches: Watches, interval: float) -> None:
    from rich.console import Console
    from rich.live import Live

    console = Console()
    with Signals() as signals, Live(console=console, screen=True, auto_refresh=False) as live:
        while not signals.end:
            began = time.monotonic()
            seen = looked(watches)
            # Large unsealed segments take a while to look at: no more than a fifth of a processor.
            now = time.monotonic()
            due = now + max(interval, 4 * (now - began))
            resized = True
            while resized and not signals.end:
                live.update(screen(seen, height=console.height, width=console.width), refresh=True)
                resized = signals.come_within(due - time.monotonic())
    raise SystemExit(INTERRUPTED)


class Signals:
    """Waiting that ends early when the terminal gets another size, which is drawn at once and looked at when it is time, or when Ctrl-C asks for the `end`.

    Ctrl-C is noted, not raised: an exception would come wherever drawing and collecting garbage happen to be, and be lost in a place that forgives everything. Asked again, it is raised.
    """

    end = False

    def __enter__(self) -> Signals:
        self._signalled, self._woken = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._before = {number: signal.signal(number, self._come) for number in (signal.SIGWINCH, signal.SIGINT)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        os.close(self._signalled)
        os.close(self._woken)

    def _come(self, number: int, _: object) -> None:
        if number == signal.SIGINT:
            if self.end:
                raise KeyboardInterrupt
            self.end = True
        with suppress(BlockingIOError):
            os.write(self._woken, b".")

    def come_within(self, span_s: float) -> bool:
        """Whether a signal came within so many seconds, or since the last time."""
        if not select.select([self._signalled], [], [], max(0.0, span_s))[0]:
            return False
        os.read(self._signalled, 1 << 16)
        return True


def screen(seen: Looked, *, height: int, width: int) -> Any:
    """What the terminal shows: a line for each queue, then as many in detail as there is room for."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    waiting = sum(glance.waiting for _, glance in seen if isinstance(glance, Glance))
    rows = min(len(seen), max(1, height - 3))
    hidden = f", {len(seen) - rows:,} below the edge" if rows < len(seen) else ""
    head = Text(f"overspill top   {time.strftime('%H:%M:%S')}   {counted(len(seen), 'queue')}, {count_text(waiting)} waiting{hidden}", style="bold", no_wrap=True, overflow="ellipsis")
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="reverse", expand=True)
    table.add_column("queue", no_wrap=True, overflow="ellipsis", ratio=1)
    shown = [width >= least for _, least in _COLUMNS]
    for title, least in _COLUMNS:
        if width >= least:
            table.add_column(title, justify="right", no_wrap=True)
    for watch, glance in seen[:rows]:
        table.add_row(Path(watch.path).name, *compress(_cells(glance), shown))
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
    lines = [Text(f"{Path(watch.path).name} ", style="bold").append("─" * max(0, width - len(Path(watch.path).name) - 1), style="dim")]
    lines += [Text(f"{memory}; {disk}")] if len(memory) + len(disk) + 2 <= width else [Text(memory), Text(disk)]
    for title, style, rate, rates in (("in  ", "green", glance.in_rate, watch.ins), ("out ", "cyan", glance.out_rate, watch.outs)):
        if rate is not None:
            bars = sparkline(rates, min(_HISTORY, max(0, width - 30)))
            lines.append(Text(title, style=style).append(bars).append(f"  {_rate(rate)}/s, most {_rate(max(rates))}/s"))
    lines += [Text(each) for each in (own, syncs) if each]
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
