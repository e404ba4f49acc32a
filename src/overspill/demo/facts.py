"""What is known while the demo runs, folded from the reports of its processes, and how it is told at the end.

`Facts.hear` is the only place where figures change. Counts of events are exact across a kill. Sizes, and `spilled`,
come from pulses and are a lower bound: what the queue did in the last tenth of a second before a kill is not in.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from .plan import Plan
from .reports import Report
from .verify import Verdict


@dataclass
class Tiers:
    """The queue's sizes at its last pulse."""

    waiting: int = 0
    in_flight: int = 0
    memory_items: int = 0
    memory_bytes: int = 0
    disk_items: int = 0
    disk_bytes: int = 0


@dataclass
class Flow:
    """Made and stored of one stream."""

    made: int = 0
    stored: int = 0


@dataclass
class Facts:
    plan: Plan
    begun: float = field(default_factory=time.monotonic)
    tiers: Tiers = field(default_factory=Tiers)
    flows: dict[str, Flow] = field(default_factory=dict)
    encoding: bool = False
    encoded: bool = False
    origin_is_up: bool = False
    mirror_is_up: bool = False
    drained: bool = False
    happened: list[tuple[float, str]] = field(default_factory=list)

    segments: int = 0
    playlists: int = 0
    produced_bytes: int = 0
    frames: int = 0
    spilled: int = 0
    dropped: int = 0
    peak_disk_items: int = 0
    peak_disk_bytes: int = 0
    peak_waiting: int = 0
    requeued: dict[str, int] = field(default_factory=dict)
    already_queued: int = 0
    recovered: list[int] = field(default_factory=list)  # at each opening, the first included
    torn_bytes: int = 0
    quarantined: int = 0
    kills: int = 0
    outages: int = 0
    outage_s: float = 0.0
    unavailable: int = 0
    stored_bytes: int = 0
    base_resident_bytes: int = 0
    peak_resident_bytes: int = 0
    ended_s: float | None = None

    _spilled_by_the_dead: int = 0
    _dropped_by_the_dead: int = 0
    _down_since: float = 0.0

    def __post_init__(self) -> None:
        self.flows = {stream.name: Flow() for stream in self.plan.streams}

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self.begun if self.ended_s is None else self.ended_s

    @property
    def produced(self) -> int:
        return self.segments + self.playlists

    @property
    def stored(self) -> int:
        return sum(flow.stored for flow in self.flows.values())

    @property
    def recovered_after_kills(self) -> int:
        return sum(self.recovered[1:])

    def note(self, text: str) -> None:
        self.happened.append((self.elapsed_s, text))

    def hear(self, report: Report) -> None:
        match report["event"]:
            case "produced":
                self._produced(report)
            case "stored":
                self.flows[report["stream"]].stored += 1
                self.stored_bytes += report["size"]
            case "pulse":
                self._pulse(report)
            case "requeued":
                reason = report["reason"]
                self.requeued[reason] = self.requeued.get(reason, 0) + 1
            case "unavailable":
                self.unavailable += 1
            case "already_queued":
                self.already_queued += 1
            case "encoding":
                self.encoding = True
                self.begun = time.monotonic()  # from here on it is the story; before, processes were starting
            case "encoded":
                self.encoded = True
                self.note(f"the encoder is done: {self.segments} segments")
            case "up":
                self._origin_up()
            case "down":
                self._origin_down()
            case "started":
                self.base_resident_bytes = max(self.base_resident_bytes, report["peak_resident_bytes"])
            case "opened":
                self._opened(report)
            case "drained":
                self.drained = True
                self.mirror_is_up = False
                self.note("the queue is empty and closed")

    def killed(self) -> None:
        """The queue's process is gone; what its last pulse counted stays counted."""
        self.kills += 1
        self.mirror_is_up = False
        self._spilled_by_the_dead = self.spilled
        self._dropped_by_the_dead = self.dropped
        self.note(f"SIGKILL to the queue's process; {self.tiers.waiting} waiting, {self.tiers.disk_items} on disk only")

    def _produced(self, report: Report) -> None:
        if report["kind"] == "playlist":
            self.playlists += 1
        else:
            self.segments += 1
        self.frames += report["frames"]
        self.produced_bytes += report["size"]
        self.flows[report["stream"]].made += 1

    def _pulse(self, report: Report) -> None:
        self.tiers = Tiers(**{name: report[name] for name in Tiers.__dataclass_fields__})
        self.spilled = self._spilled_by_the_dead + report["spilled"]
        self.dropped = self._dropped_by_the_dead + report["dropped"]
        self.peak_disk_items = max(self.peak_disk_items, self.tiers.disk_items)
        self.peak_disk_bytes = max(self.peak_disk_bytes, self.tiers.disk_bytes)
        self.peak_waiting = max(self.peak_waiting, self.tiers.waiting)
        self.peak_resident_bytes = max(self.peak_resident_bytes, report["peak_resident_bytes"])

    def _opened(self, report: Report) -> None:
        self.mirror_is_up = True
        self.recovered.append(report["recovered"])
        self.torn_bytes += report["torn_bytes"]
        self.quarantined += report["quarantined"]
        if len(self.recovered) > 1:
            self.note(f"queue opened again: {report['recovered']} items recovered")

    def _origin_up(self) -> None:
        self.origin_is_up = True
        if self.outages:
            self.outage_s += self.elapsed_s - self._down_since
            self.note("the origin is back")

    def _origin_down(self) -> None:
        self.origin_is_up = False
        self.outages += 1
        self._down_since = self.elapsed_s
        self.note("the origin is down: connections are refused")


def summary_fields(facts: Facts, verdict: Verdict) -> dict[str, object]:
    """For machines: `overspill demo --json`. Names stay."""
    return {
        "ok": verdict.ok,
        "seed": facts.plan.seed,
        "streams": len(facts.plan.streams),
        "premium_streams": sum(stream.premium for stream in facts.plan.streams),
        "wall_seconds": round(facts.elapsed_s, 1),
        "stream_seconds": facts.segments,  # each is one second, see encoder.SEGMENT_S
        "segments": facts.segments,
        "playlists": facts.playlists,
        "bytes": facts.produced_bytes,
        "queued": facts.produced,
        "spilled": facts.spilled,
        "peak_waiting": facts.peak_waiting,
        "peak_disk_items": facts.peak_disk_items,
        "peak_disk_bytes": facts.peak_disk_bytes,
        "requeued": sum(facts.requeued.values()),
        "requeued_by_reason": facts.requeued,
        "kills": facts.kills,
        "recovered": facts.recovered_after_kills,
        "already_queued": facts.already_queued,
        "torn_bytes": facts.torn_bytes,
        "quarantined": facts.quarantined,
        "outages": facts.outages,
        "outage_seconds": round(facts.outage_s, 1),
        "answers_503": facts.unavailable,
        "repeated_puts": verdict.repeated,
        "start_resident_bytes": facts.base_resident_bytes,
        "peak_resident_bytes": facts.peak_resident_bytes,
        "on_origin": verdict.identical,
        "out_of_order": verdict.out_of_order,
        "unexpected": verdict.unexpected,
        "frames_encoded": verdict.frames_encoded,
        "frames_decoded": verdict.frames_decoded,
        "dropped": facts.dropped,
        "lost": verdict.lost,
        "problems": verdict.problems,
    }


def summary_lines(facts: Facts, verdict: Verdict) -> list[str]:
    """For people, at most 80 wide."""
    streams = len(facts.plan.streams)
    reasons = ", ".join(f"{count} x {reason}" for reason, count in sorted(facts.requeued.items()))
    rows = [
        ("streams", f"{streams} of live HLS, {clock(facts.segments)} of video in {facts.elapsed_s:.0f} s"),
        (
            "queued",
            f"{facts.produced}: {facts.segments} segments, {facts.playlists} playlists, {mib(facts.produced_bytes)}",
        ),
        ("spilled", f"{facts.spilled}; at the peak {facts.peak_disk_items} on disk only, {mib(facts.peak_disk_bytes)}"),
        ("re-queued", f"{sum(facts.requeued.values())} failed: {reasons or 'none'}"),
        ("outages", f"{facts.outages}, {facts.outage_s:.1f} s; {facts.unavailable} answers were 503"),
        ("killed", f"{facts.kills} x SIGKILL to the queue's process"),
        (
            "recovered",
            f"{' + '.join(map(str, facts.recovered[1:])) or '0'} items when opened again; {verdict.repeated} sent twice",
        ),
        (
            "peak memory",
            f"{mib(facts.peak_resident_bytes)} of the queue's process, {mib(facts.base_resident_bytes)} before it opened",
        ),
        (
            "verified",
            f"{verdict.identical} of {verdict.expected} identical by SHA-256, "
            f"{streams - verdict.out_of_order} of {streams} in order",
        ),
        ("", f"{verdict.frames_decoded} of {verdict.frames_encoded} pictures decode from the origin's copy"),
        ("lost", f"{verdict.lost}"),
    ]
    lines = [f"  {name:<12} {text}" for name, text in rows]
    return lines + [f"  PROBLEM      {problem}" for problem in verdict.problems]


def mib(nbytes: int) -> str:
    return f"{nbytes / (1 << 20):.1f} MiB"


def clock(seconds: float) -> str:
    return f"{int(seconds) // 60} min {int(seconds) % 60:02d} s"
