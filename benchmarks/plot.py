"""Three pictures: what an operation costs, how long the slowest took, and an outage. SVG, the same bytes for the same numbers."""
from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")  # no display is asked for; set before pyplot is loaded
matplotlib.rcParams["svg.hashsalt"] = "overspill"  # or every run would rename all ids

from matplotlib import pyplot  # noqa: E402

from .measures import Durations  # noqa: E402
from .outage import Timeline  # noqa: E402
from .outcome import Outcome, Row  # noqa: E402

PUT, GET = "#1b6ca8", "#8fc1e3"
PUT_OURS, GET_OURS = "#c2410c", "#fdba74"
LINES = {"Overspill enqueue": PUT_OURS, "deque.append": "#999999", "deque.append beside a thread that syncs": PUT}
STEPS = {
    "one bare population step, median": ":",
    "one bare population step, slowest": "--",
    "one bare even step, slowest": "-.",
}


def throughput(rows: list[Row], path: Path) -> None:
    shown = [row for row in rows if row.put is not None and row.get is not None and row.kill != "–"]
    shown.sort(key=lambda row: -(row.put.median_ns + row.get.median_ns))  # type: ignore[union-attr]
    figure, axes = pyplot.subplots(figsize=(9, 0.42 * len(shown) + 1.4), layout="constrained")
    for place, row in enumerate(shown):
        assert row.put is not None and row.get is not None  # filtered above
        ours = row.name.startswith("Overspill")
        for offset, sample, colour in (
            (0.2, row.put, PUT_OURS if ours else PUT),
            (-0.2, row.get, GET_OURS if ours else GET),
        ):
            axes.barh(place + offset, sample.median_ns, height=0.38, color=colour)
            axes.text(sample.median_ns * 1.08, place + offset, f"{sample.median_ns:,.0f}", va="center", fontsize=7)
    labels = {("yes", "yes"): "power cut", ("yes", "no"): "kill -9"}
    axes.set_yticks(
        range(len(shown)), [f"{row.name}  [{labels.get((row.kill, row.power), 'nothing')}]" for row in shown], fontsize=8
    )
    axes.set_xscale("log")
    axes.set_xlim(left=10)
    axes.margins(y=0.01)
    axes.set_xlabel(
        "ns an operation, log scale: put (dark) and get (light), 100 bytes, one thread; in brackets: what it survives",
        fontsize=8,
    )
    axes.spines[["top", "right"]].set_visible(False)
    _save(figure, path)


def stalls(outcome: Outcome, path: Path) -> None:
    figure, axes = pyplot.subplots(figsize=(9, 4.5), layout="constrained")
    edges = [Durations.edge(i) / 1000 for i in range(Durations.BINS + 1)]
    for name, durations in outcome.stalls.items():
        axes.stairs(
            durations.counts, edges, label=f"{name}, slowest {max(durations.slowest) / 1000:,.0f} µs",
            color=LINES.get(name), linewidth=2 if name.startswith("Overspill") else 1.2, baseline=0.5,
        )  # fmt: skip
    found = {figure.name: figure.value for figure in outcome.figures}
    named = {name: found[name] for name in STEPS}
    for name, value in named.items():
        axes.axvline(value, color="#444444", linestyle=STEPS[name], linewidth=1, label=f"{name}, {value:,.0f} µs")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_ylim(bottom=0.5)
    used = [i for d in outcome.stalls.values() for i, count in enumerate(d.counts) if count]
    axes.set_xlim(edges[min(used)], max(edges[max(used) + 1], *named.values()) * 1.5)
    axes.set_xlabel("µs from the end of one call to the end of the next, log scale")
    axes.set_ylabel("calls, log scale")
    axes.legend(fontsize=8, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    _save(figure, path)


def outage(seen: Timeline, path: Path) -> None:
    figure, (where, rate) = pyplot.subplots(2, 1, figsize=(9, 5), sharex=True, height_ratios=(2, 1), layout="constrained")
    where.stackplot(seen.at_s, seen.in_memory, seen.on_disk, labels=("in memory", "on disk only"), colors=(PUT, GET))
    where.set_ylabel("items waiting")
    step = 10
    times = seen.at_s[step::step]
    rates = [(b - a) / (t - s) for a, b, s, t in zip(seen.delivered[::step], seen.delivered[step::step], seen.at_s[::step], times, strict=False)]
    rate.plot(times[: len(rates)], rates, color=PUT_OURS, linewidth=1.5)
    rate.set_ylabel("delivered a second")
    rate.set_xlabel("seconds")
    for axes in (where, rate):
        axes.axvspan(*seen.outage_s, color="#999999", alpha=0.25, linewidth=0, zorder=0, label="the consumer is away")
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_ylim(bottom=0)
    where.legend(fontsize=8, frameon=False, loc="upper right")
    _save(figure, path)


def write(folder: Path, outcome: Outcome) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if outcome.rows:
        throughput(outcome.rows, folder / "throughput.svg")
    if outcome.stalls:
        stalls(outcome, folder / "stall-histogram.svg")
    if outcome.timeline:
        outage(outcome.timeline, folder / "outage.svg")


def _save(figure: Any, path: Path) -> None:
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
