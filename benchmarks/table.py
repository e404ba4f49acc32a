"""The results as a page to read (Markdown) and as one to compute with (JSON). Both say the same."""
from __future__ import annotations

import json
import math
from collections.abc import Set
from pathlib import Path
from typing import Any

from .measures import Durations, Sample
from .outcome import Outcome
from .sizes import Sizes
from .targets import BY_KEY, TARGETS

BAR = 40


def as_json(outcome: Outcome, machine: dict[str, str], sizes: Sizes, command: str) -> dict[str, Any]:
    return {
        "command": command,
        "sizes": sizes.name,
        "machine": machine,
        "throughput": [
            {
                "name": row.name,
                "put_ns": _sample(row.put),
                "get_ns": _sample(row.get),
                "survives_kill": row.kill,
                "survives_power_cut": row.power,
                "note": row.note,
            }
            for row in outcome.rows
        ],
        "targets": [
            {
                "key": key,
                "what": BY_KEY[key].what,
                "measured": found.value,
                "median": found.median,
                "spread": list(found.spread),
                "unit": BY_KEY[key].unit,
                "sense": BY_KEY[key].sense,
                "limit": BY_KEY[key].limit,
                "met": BY_KEY[key].is_met(found.value),
                "verdict": BY_KEY[key].verdict(found.value),
                "figures": found.beside,
                "how": found.how,
            }
            for key, found in _in_order(outcome)
        ],
        "figures": [figure.__dict__ for figure in outcome.figures],
        "stalls": {
            name: {
                "slowest_ns": durations.slowest,
                "points_ns": durations.points,
                "histogram": [
                    [round(Durations.edge(i)), count] for i, count in enumerate(durations.counts) if count
                ],
            }
            for name, durations in outcome.stalls.items()
        },
    }


def as_markdown(outcome: Outcome, machine: dict[str, str], sizes: Sizes, command: str) -> str:
    parts = [
        "# Overspill beside its peers",
        f"`{command}`, sizes `{sizes.name}`. What a row means and what each peer survives: `benchmarks/README.md`.",
        _table(["machine", ""], [[name, value] for name, value in machine.items()]),
    ]
    if outcome.rows:
        parts += [
            "## Nanoseconds an operation",
            "100-byte `bytes`, one thread. 900 items in and 900 out, again and again (100 for those that sync every "
            "operation), a new folder each round, contestants in turns. Median of the rounds, and their middle half.",
            _table(
                ["queue", "put", "", "get", "", "survives kill -9", "survives a power cut", "note"],
                [
                    [row.name, *_cell(row.put), *_cell(row.get), row.kill, row.power, row.note]
                    for row in outcome.rows
                ],
                right={1, 3},
            ),
        ]
    if outcome.measured:
        parts += [
            "## Targets",
            "`measured` is all time over all time, so that rare stalls are in it; beside it the median of the rounds "
            "and their middle half. The figures are ours : theirs.",
            _table(
                ["target", "measured", "", "limit", "", "figures", "median", "spread"],
                [
                    [
                        BY_KEY[key].what,
                        f"{found.value:.2f} {BY_KEY[key].unit}",
                        f"**{BY_KEY[key].verdict(found.value)}**",
                        BY_KEY[key].sense,
                        f"{BY_KEY[key].limit:g}",
                        found.beside,
                        f"{found.median:.2f}",
                        f"{found.spread[0]:.2f}–{found.spread[1]:.2f}",
                    ]
                    for key, found in _in_order(outcome)
                ],
                right={1, 4},
            ),
            "How each was measured:\n\n"
            + "\n".join(f"- *{BY_KEY[key].what}*: {found.how}." for key, found in _in_order(outcome)),
        ]
    if outcome.figures:
        parts += [
            "## Figures beside the targets",
            _table(
                ["figure", "value", "unit", "how"],
                [[f.name, f"{f.value:,.2f}", f.unit, f.how] for f in outcome.figures],
                right={1},
            ),
        ]
    if outcome.stalls:
        parts += [
            "## Every enqueue of a million",
            _table(
                ["µs", "p50", "p99", "p99.9", "p99.99", "p99.999", "slowest (median round)", "slowest of each round"],
                [
                    [
                        name,
                        *(f"{d.point(p) / 1000:.2f}" for p in ("p50", "p99", "p99.9", "p99.99", "p99.999")),
                        f"{d.slowest_median / 1000:,.0f}",
                        ", ".join(f"{ns / 1000:,.0f}" for ns in d.slowest),
                    ]
                    for name, d in outcome.stalls.items()
                ],
                right={1, 2, 3, 4, 5, 6},
            ),
            *(f"{name}:\n\n```\n{histogram(d)}\n```" for name, d in outcome.stalls.items()),
        ]
    return "\n\n".join(parts) + "\n"


def histogram(durations: Durations) -> str:
    """Counts by third of a decade, bars on a log scale: a single stall among millions is to be seen."""
    step = Durations.PER_DECADE
    edges = [1, 2, 5]
    bounds = [Durations.LOWEST_NS * 10**d * e for d in range(Durations.BINS // step) for e in edges]
    counts = [0] * len(bounds)
    for place, count in enumerate(durations.counts):
        if count:
            # A bin of a tenth of a decade belongs to where its middle lies.
            middle = Durations.edge(place) * 10 ** (0.5 / step)
            counts[max(i for i, bound in enumerate(bounds) if bound <= middle)] += count
    used = [i for i, count in enumerate(counts) if count]
    most = math.log10(max(counts) + 1)
    lines = []
    for i in range(used[0], used[-1] + 1):
        bar = "█" * max(1, round(BAR * math.log10(counts[i] + 1) / most)) if counts[i] else ""
        lines.append(f"from {_duration(bounds[i]):>7} {counts[i]:>10,} {bar}".rstrip())
    return "\n".join(lines)


def write(folder: Path, name: str, outcome: Outcome, machine: dict[str, str], sizes: Sizes, command: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.md").write_text(as_markdown(outcome, machine, sizes, command))
    (folder / f"{name}.json").write_text(json.dumps(as_json(outcome, machine, sizes, command), indent=1) + "\n")


def _in_order(outcome: Outcome) -> list[tuple[str, Any]]:
    return [(target.key, outcome.measured[target.key]) for target in TARGETS if target.key in outcome.measured]


def _sample(sample: Sample | None) -> dict[str, Any] | None:
    if sample is None:
        return None
    return {"median": sample.median_ns, "mean": sample.mean_ns, "spread": list(sample.spread), "rounds": sample.per_op}


def _cell(sample: Sample | None) -> tuple[str, str]:
    if sample is None:
        return "not installed", ""
    low, high = sample.spread
    digits = 1 if sample.median_ns < 100 else 0
    return f"{sample.median_ns:,.{digits}f}", f"{low:,.{digits}f}–{high:,.{digits}f}"


def _duration(ns: float) -> str:
    for unit, size in (("s", 1e9), ("ms", 1e6), ("µs", 1e3)):
        if ns >= size:
            return f"{ns / size:g} {unit}"
    return f"{ns:g} ns"


def _table(head: list[str], rows: list[list[str]], right: Set[int] = frozenset()) -> str:
    """A Markdown table that can be read as text, too: every column as wide as its widest cell, but for the last."""
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]

    def line(cells: list[str]) -> str:
        padded = [
            cell.rjust(width) if i in right else cell if i == len(head) - 1 else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(cells, widths))
        ]
        return "| " + " | ".join(padded) + " |"

    rule = "|".join("-" * (width + 1) + (":" if i in right else "-") for i, width in enumerate(widths))
    return "\n".join([line(head), f"|{rule}|", *map(line, rows)])
