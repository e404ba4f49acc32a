"""What a queue says of itself: `stats()` and `recovery`.

The accounts balance at every quiet moment, and `QueueStats.balance` is zero then:

    recovered + enqueued = dequeued + expired + Σ dropped + quarantined + cleared + removed + in_flight + delayed + dead letters + waiting

All counts are of items since the queue was opened, derived where the items pass, never adjusted beside.
"""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, Final

__all__ = ["DROPS", "REFUSALS", "SYNC_BOUNDS_S", "QueueStats", "StreamStats", "SyncLatency"]

DROPS: Final = ("full_oldest", "full_newest", "dead_letters_full")
"""Why an item may be given up."""

REFUSALS: Final = ("full", "rate", "too_large", "not_serializable")
"""Why `enqueue` and its kind may refuse an item that they had room or time to look at."""

SYNC_BOUNDS_S: Final = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""The classes into which durations of syncs are counted: each up to and including its bound, one more for what is longer."""


@dataclass(frozen=True)
class SyncLatency:
    """How long the syncs of a queue took since it was opened. A sync that failed is not among them: it broke the queue."""

    counts: tuple[int, ...] = (0,) * (len(SYNC_BOUNDS_S) + 1)
    """By class of `SYNC_BOUNDS_S`, the last one without a bound."""
    last: float = 0.0
    longest: float = 0.0
    total: float = 0.0

    @property
    def count(self) -> int:
        return sum(self.counts)

    def upto(self) -> list[int]:
        """How many took no longer than each bound; at last, how many there were."""
        return list(accumulate(self.counts))


@dataclass(frozen=True)
class QueueStats:
    """One consistent look at a queue. Sizes are items unless the name says bytes; times are seconds."""

    name: str | None
    waiting: int
    """In line, in memory and on disk."""
    in_flight: int
    """Leased, not yet acknowledged."""
    memory_items: int
    memory_bytes: int
    """Payload bytes of the resident items."""
    disk_items: int
    """In line and only on disk."""
    disk_bytes: int
    """What the folder takes, preallocation included."""
    memory_ratio: float
    """Share of the memory budget in use, items or bytes, whichever is greater."""
    disk_ratio: float
    """Share of `max_disk_size` in use; 0 without a disk."""
    pressure: float
    enqueued: int
    dequeued: int
    """Delivered for good: dequeued, or leased and acknowledged."""
    leased: int
    """Deliveries begun."""
    redelivered: int
    """Leases that ended without an ack: nacked, rejected, timed out."""
    expired: int
    dropped: Mapping[str, int]
    """By reason, as far as there were any: those of `DROPS`."""
    removed: int
    cleared: int
    quarantined: int
    """Set aside because their bytes did not check."""
    recovered: int
    """Found waiting when the queue was opened."""
    spilled: int
    """Moved out of memory."""
    delayed: int
    """Waiting for their time; not in line, and not among `waiting`."""
    oldest_age: float | None
    """Seconds since the oldest item in line was enqueued; None if nothing waits."""
    segments: int
    syncs: int
    sync_seconds_last: float
    sync_seconds_max: float
    sync_seconds_total: float
    recovery: Any = field(repr=False, default=None)
    refused: Mapping[str, int] = field(default_factory=dict)
    """Calls of `enqueue` and its kind that raised, by reason: those of `REFUSALS`. A batch counts once."""
    sync_latency: SyncLatency = field(repr=False, default=SyncLatency())
    state: str = "open"
    """`open`, `closing` (nothing more comes in), `closed`, or `broken` (the disk failed: nothing works until it is opened again)."""
    disk_limit: int | None = None
    """`max_disk_size`; None without a disk."""
    dead_letters: int = 0
    """Given up: out of attempts, or rejected."""
    opened_at: float = 0.0
    """When the queue was opened, in seconds since the epoch; the counts are from then on."""

    @property
    def balance(self) -> int:
        """Zero, unless an item is being moved at this very moment."""
        return self.recovered + self.enqueued - (
            self.dequeued + self.expired + sum(self.dropped.values()) + self.removed + self.cleared + self.quarantined
            + self.in_flight + self.delayed + self.dead_letters + self.waiting
        )


@dataclass(frozen=True)
class StreamStats:
    """One consistent look at a `StreamQueue`. The counts are since it was opened."""

    stream_id: str
    depth: int
    """Items waiting, in memory and on disk."""
    memory_items: int
    disk_bytes: int
    """What the items on disk take in the overflow file, their lengths included."""
    pressure: float
    """0.0 to 1.0: how full memory is. Above 1.0 while anything is on disk: 1 + how many memories full."""
    disk_items: int = 0
    recovered: int = 0
    """Found in the overflow file when the stream was opened."""
    enqueued: int = 0
    dequeued: int = 0
    lost: int = 0
    """Could not be read any more because the overflow file was damaged while the stream was open."""
    discarded: int = 0
    """Were left when the stream was closed."""
    refused: Mapping[str, int] = field(default_factory=dict)
    """Calls of `enqueue` that raised, by reason."""

    @property
    def balance(self) -> int:
        """Zero, unless an item is being moved at this very moment."""
        return self.recovered + self.enqueued - (self.dequeued + self.lost + self.discarded + self.depth)
