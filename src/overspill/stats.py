"""What a queue says of itself: `stats()` and `recovery`.

The accounts balance at every quiet moment, and `QueueStats.balance` is zero then:

    recovered + enqueued = dequeued + expired + Σ dropped + quarantined + cleared + removed + in_flight + delayed + waiting

All counts are of items since the queue was opened, derived where the items pass, never adjusted beside.
"""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["QueueStats"]


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
    """Leases that ended without an ack: nacked, timed out."""
    expired: int
    dropped: Mapping[str, int]
    """By reason: `full_oldest`, `full_newest`, `attempts`."""
    removed: int
    cleared: int
    quarantined: int
    """Set aside because their bytes did not check."""
    recovered: int
    """Found waiting when the queue was opened."""
    spilled: int
    """Moved out of memory."""
    delayed: int
    oldest_age: float | None
    """Seconds since the oldest item in line was enqueued; None if nothing waits."""
    segments: int
    syncs: int
    sync_seconds_last: float
    sync_seconds_max: float
    sync_seconds_total: float
    recovery: Any = field(repr=False, default=None)

    @property
    def balance(self) -> int:
        """Zero, unless an item is being moved at this very moment."""
        return self.recovered + self.enqueued - (
            self.dequeued + self.expired + sum(self.dropped.values()) + self.removed + self.cleared + self.quarantined
            + self.in_flight + self.delayed + self.waiting
        )
