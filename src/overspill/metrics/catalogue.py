"""Every metric of a queue, once: name, kind, unit, meaning, and where in `QueueStats` it stands.

Both faces (Prometheus and OpenTelemetry), the page for operators and the tests that tie them together read this list. Names follow the conventions of
Prometheus: base units, the unit last, `_total` for what only rises. OpenTelemetry gets the same names with dots and without the unit, so that its
exporter for Prometheus makes the same names of them again.

Counters belong to the process: they begin at zero with every opening, which is what `rate()` and `increase()` expect. What a queue *holds* is derived from the
log and is right again after a restart.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

from ..stats import DROPS, QueueStats

__all__ = ["METRICS", "STATES", "SYNC_DURATION", "After", "Kind", "Metric"]

STATES: Final = ("open", "closing", "closed", "broken", "unreadable")
"""Those of `QueueStats.state`, and one for a queue that could not even be asked."""

Reading = float | Mapping[str, float] | None
"""One value, or one for each value of the metric's label; None where the queue has no such thing."""


class Kind(Enum):
    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class After(Enum):
    """What a metric is after the queue was closed, or its process killed, and opened again."""

    ZERO = "from 0"
    LOG = "as the log has it"
    OPENING = "of this opening"


@dataclass(frozen=True, slots=True)
class Metric:
    name: str
    """As Prometheus shows it, without the `_total` of a counter."""
    kind: Kind
    unit: str
    """`items`, `calls`, `bytes`, `seconds`, `ratio`, or nothing."""
    meaning: str
    after: After
    read: Callable[[QueueStats], Reading]
    label: str | None = None

    @property
    def shown(self) -> str:
        """The name in Prometheus' text."""
        return f"{self.name}_total" if self.kind is Kind.COUNTER else self.name

    @property
    def dotted(self) -> str:
        """The name in OpenTelemetry, where the unit is told apart."""
        stem = self.name.removesuffix(f"_{self.unit}") if self.unit in ("bytes", "seconds", "ratio") else self.name
        return stem.replace("_", ".")


def _recovery(field: str) -> Callable[[QueueStats], float]:
    # A queue without a disk has nothing to recover.
    return lambda stats: 0 if stats.recovery is None else getattr(stats.recovery, field)


def _counter(name: str, unit: str, meaning: str, read: Callable[[QueueStats], Reading], label: str | None = None) -> Metric:
    return Metric(f"overspill_{name}", Kind.COUNTER, unit, meaning, After.ZERO, read, label)


def _gauge(name: str, unit: str, meaning: str, read: Callable[[QueueStats], Reading], after: After = After.LOG, label: str | None = None) -> Metric:
    return Metric(f"overspill_{name}", Kind.GAUGE, unit, meaning, after, read, label)


SYNC_DURATION: Final = Metric(
    "overspill_sync_duration_seconds", Kind.HISTOGRAM, "seconds", "How long syncs took; one that failed is not counted but breaks the queue",
    After.ZERO, lambda stats: stats.sync_latency.total,
)  # fmt: skip

METRICS: Final[tuple[Metric, ...]] = (
    _counter("items_enqueued", "items", "Accepted, those dropped at once by `when_full` included", lambda s: s.enqueued),
    _counter("items_dequeued", "items", "Delivered for good: dequeued, or leased and acknowledged", lambda s: s.dequeued),
    _counter("items_leased", "items", "Deliveries begun", lambda s: s.leased),
    _counter("items_redelivered", "items", "Leases that ended without an ack: given back, or timed out", lambda s: s.redelivered),
    _counter("items_expired", "items", "Left because their time to live was over", lambda s: s.expired),
    _counter("items_dropped", "items", "Given up, by reason", lambda s: dict.fromkeys(DROPS, 0) | dict(s.dropped), "reason"),
    _counter("items_removed", "items", "Taken out by `remove_where`", lambda s: s.removed),
    _counter("items_cleared", "items", "Taken out by `clear`", lambda s: s.cleared),
    _counter("items_quarantined", "items", "Set aside because their bytes did not check", lambda s: s.quarantined),
    _counter("items_spilled", "items", "Moved out of memory", lambda s: s.spilled),
    _counter("refusals", "calls", "Calls of `enqueue` and its kind that raised, by reason", lambda s: s.refused, "reason"),
    SYNC_DURATION,
    _gauge("items_waiting", "items", "In line, in memory and on disk", lambda s: s.waiting),
    _gauge("items_in_flight", "items", "Leased and not yet acknowledged; after a restart they wait again", lambda s: s.in_flight),
    _gauge("items_delayed", "items", "Not to be delivered yet", lambda s: s.delayed),
    _gauge("dead_letters", "items", "Given up after `max_attempts`, or rejected, and kept to be looked at", lambda s: s.dead_letters),
    _gauge("memory_items", "items", "Waiting with their payload in memory; what is recovered begins on disk", lambda s: s.memory_items),
    _gauge("memory_bytes", "bytes", "Payload of the items in memory", lambda s: s.memory_bytes),
    _gauge("memory_use_ratio", "ratio", "Share of the memory budget in use, items or bytes, whichever is greater", lambda s: s.memory_ratio),
    _gauge("disk_items", "items", "Waiting with their payload only on disk", lambda s: s.disk_items),
    _gauge("disk_bytes", "bytes", "What the folder takes, preallocation and quarantine included", lambda s: s.disk_bytes),
    _gauge("disk_limit_bytes", "bytes", "`max_disk_size`; not there without a disk", lambda s: s.disk_limit, After.OPENING),
    _gauge("disk_use_ratio", "ratio", "Share of `max_disk_size` in use", lambda s: s.disk_ratio),
    _gauge("pressure_ratio", "ratio", "Up to 1 the share of the memory budget in use; above 1 when items wait on disk only", lambda s: s.pressure),
    _gauge("oldest_age_seconds", "seconds", "Since the oldest item in line was enqueued; 0 when nothing waits", lambda s: s.oldest_age or 0),
    _gauge("segments", "", "Files of the log", lambda s: s.segments),
    _gauge("state", "", "1 for the state that the queue is in", lambda s: {state: float(state == s.state) for state in STATES}, After.OPENING, "state"),
    _gauge("opened_timestamp_seconds", "seconds", "When the queue was opened, since the epoch: when the counters began", lambda s: s.opened_at, After.OPENING),
    _gauge("recovery_items", "items", "Found waiting by the last opening", lambda s: s.recovered, After.OPENING),
    _gauge("recovery_rescanned_segments", "", "Files that had to be read record by record", _recovery("rescanned"), After.OPENING),
    _gauge("recovery_torn_bytes", "bytes", "Cut off the end of the log, never known to have been synced", _recovery("torn_bytes"), After.OPENING),
    _gauge("recovery_quarantined_items", "items", "Damaged records set aside by the last opening", _recovery("quarantined"), After.OPENING),
    _gauge("recovery_quarantined_bytes", "bytes", "Of damaged data set aside by the last opening", _recovery("quarantined_bytes"), After.OPENING),
)
