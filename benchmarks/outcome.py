"""What trials hand back: rows to compare, measurements to judge, figures to explain, and every stall.

Trials fill it, `table` and `plot` show it; neither needs the other.
"""
from __future__ import annotations

from dataclasses import dataclass, field

from .measures import Durations, Ratio, Sample
from .outage import Timeline


@dataclass(frozen=True)
class Row:
    """One line of the throughput table."""

    name: str
    put: Sample | None  # None: the peer is not installed
    get: Sample | None
    kill: str
    power: str
    note: str


@dataclass(frozen=True)
class Measured:
    """What a target is judged by."""

    value: float
    median: float
    spread: tuple[float, float]
    how: str
    beside: str = ""  # the figures that it was made of


@dataclass(frozen=True)
class Figure:
    """A number that no target speaks of and that explains one."""

    name: str
    value: float
    unit: str
    how: str


@dataclass
class Outcome:
    rows: list[Row] = field(default_factory=list)
    measured: dict[str, Measured] = field(default_factory=dict)
    figures: list[Figure] = field(default_factory=list)
    stalls: dict[str, Durations] = field(default_factory=dict)
    timeline: Timeline | None = None

    def compare(self, key: str, of: Ratio, how: str, beside: str = "") -> None:
        self.measured[key] = Measured(of.value, of.median, of.spread, how, beside)

    def join(self, other: Outcome) -> None:
        self.rows += other.rows
        self.measured |= other.measured
        self.figures += other.figures
        self.stalls |= other.stalls
        self.timeline = other.timeline or self.timeline


def ns(sample: Sample) -> str:
    value = sample.mean_ns
    if value < 1000:
        return f"{value:.1f} ns"
    if value < 1_000_000:
        return f"{value / 1000:.1f} µs"
    return f"{value / 1_000_000:.2f} ms"
