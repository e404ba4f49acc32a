"""Shows the facts: on a terminal a live picture of 80 x 24, through a pipe plain lines without colour.

Both views only read. What has happened (outage, kill, recovery) is said once, with its time.
"""

from __future__ import annotations

from collections import deque
from types import TracebackType
from typing import Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from .facts import Facts, mib

WIDTH = 79
BAR_WIDTH = 34
RATE_WINDOW_S = 2.0
EVENTS_SHOWN = 7
PLAIN_EVERY_S = 1.0


class View(Protocol):
    def refresh(self, facts: Facts) -> None: ...

    def __enter__(self) -> View: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None: ...


class Rates:
    """Made and stored a second, over the last moments."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int, int]] = deque()

    def measure(self, facts: Facts) -> tuple[float, float]:
        now = (facts.elapsed_s, facts.produced, facts.stored)
        self._samples.append(now)
        while len(self._samples) > 2 and self._samples[0][0] < now[0] - RATE_WINDOW_S:
            self._samples.popleft()
        then = self._samples[0]
        passed_s = max(now[0] - then[0], 1e-3)
        return (now[1] - then[1]) / passed_s, (now[2] - then[2]) / passed_s


class PlainView:
    """A line a second, and a line for everything that happens."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._rates = Rates()
        self._said = 0
        self._next_s = 0.0

    def refresh(self, facts: Facts) -> None:
        if not facts.encoding:
            return
        made, stored = self._rates.measure(facts)
        for at_s, text in facts.happened[self._said :]:
            self._say(at_s, f"-- {text}")
        self._said = len(facts.happened)
        if facts.elapsed_s < self._next_s:
            return
        self._next_s = facts.elapsed_s + PLAIN_EVERY_S
        tiers = facts.tiers
        queue = (
            f"memory {tiers.memory_items:3d}, disk {tiers.disk_items:3d}"
            if facts.mirror_is_up
            else "queue is not running "
        )
        self._say(
            facts.elapsed_s,
            f"made {facts.produced:4d} | {queue} | stored {facts.stored:4d} | "
            f"in {made:4.1f}/s out {stored:4.1f}/s | origin {'up' if facts.origin_is_up else 'DOWN'}",
        )

    def _say(self, at_s: float, text: str) -> None:
        self._console.print(f"{at_s:5.1f}s {text}", markup=False, highlight=False, soft_wrap=True)

    def __enter__(self) -> PlainView:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        pass


class LiveView:
    """Both tiers as bars that fill and drain, the two ends of the way, and what happened last."""

    def __init__(self, console: Console, *, memory_size: int) -> None:
        self._memory_size = memory_size
        self._rates = Rates()
        self._live = Live(console=console, auto_refresh=False, transient=True)

    def refresh(self, facts: Facts) -> None:
        self._live.update(self.draw(facts), refresh=True)

    def draw(self, facts: Facts) -> RenderableType:
        made, stored = self._rates.measure(facts)
        rows = [self._head(facts), Text("")]
        rows.append(
            self._end(
                "encoder", "done" if facts.encoded else "live", "green", f"{facts.produced:5d} made    {made:5.1f}/s"
            )
        )
        rows.append(self._mirror(facts))
        rows += self._tiers(facts)
        origin = ("up", "green") if facts.origin_is_up else ("DOWN", "bold red")
        rows.append(
            self._end("origin", *origin, f"{facts.stored:5d} stored  {stored:5.1f}/s   503: {facts.unavailable}")
        )
        rows.append(Text(""))
        rows += self._streams(facts)
        rows.append(Text(""))
        for at_s, text in facts.happened[-EVENTS_SHOWN:]:
            rows.append(
                Text(f" {at_s:5.1f}s  {text}"[:WIDTH], style="red" if "SIGKILL" in text or "down" in text else "cyan")
            )
        rows += [Text("")] * (EVENTS_SHOWN - len(facts.happened))
        return Group(*rows)

    def _head(self, facts: Facts) -> Text:
        title = f" overspill demo   {len(facts.plan.streams)} HLS streams   {mib(facts.produced_bytes)}   seed {facts.plan.seed}"
        return Text(f"{title:<70}{facts.elapsed_s:6.1f} s ", style="reverse")

    def _end(self, name: str, state: str, style: str, text: str) -> Text:
        return Text.assemble(f" {name:<9}", (f"{state:<6}", style), text)

    def _mirror(self, facts: Facts) -> Text:
        state, style = (
            ("up", "green") if facts.mirror_is_up else ("done", "green") if facts.drained else ("DEAD", "bold red")
        )
        requeued = sum(facts.requeued.values())
        return self._end(
            "queue",
            state,
            style,
            f"{facts.tiers.waiting:5d} waiting  re-queued {requeued}, recovered {facts.recovered_after_kills}",
        )

    def _tiers(self, facts: Facts) -> list[Text]:
        tiers = facts.tiers
        alive = facts.mirror_is_up or facts.drained
        disk_full = max(40, facts.peak_disk_items)  # the bar's end is the most so far
        return [
            bar(
                "memory",
                tiers.memory_items if alive else 0,
                self._memory_size,
                "blue",
                mib(tiers.memory_bytes) if alive else "gone",
            ),
            bar("disk", tiers.disk_items, disk_full, "yellow", mib(tiers.disk_bytes)),
        ]

    def _streams(self, facts: Facts) -> list[Text]:
        rows = []
        for stream in facts.plan.streams[:6]:
            flow = facts.flows[stream.name]
            rows.append(
                bar(
                    stream.name,
                    flow.stored,
                    max(1, flow.made),
                    "magenta" if stream.premium else "green",
                    f"of {flow.made}",
                )
            )
        return rows

    def __enter__(self) -> LiveView:
        self._live.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._live.__exit__(kind, error, at)


class SilentView:
    """For `--json`: the summary is all there is to say."""

    def refresh(self, facts: Facts) -> None:
        pass

    def __enter__(self) -> SilentView:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        pass


def bar(name: str, count: int, full: int, style: str, text: str) -> Text:
    filled = min(BAR_WIDTH, round(BAR_WIDTH * count / full))
    return Text.assemble(
        f"   {name:<11} ", ("█" * filled, style), ("·" * (BAR_WIDTH - filled), "dim"), f" {count:5d}  {text}"
    )


def choose_view(console: Console, *, memory_size: int) -> View:
    return LiveView(console, memory_size=memory_size) if console.is_terminal else PlainView(console)
