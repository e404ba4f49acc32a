"""Whether a queue is well: judged from its `stats()`, or from a look at its folder, at the moment somebody asks.

Two questions are kept apart. *Alive*: would starting the process again help? Only if a queue is broken. *Well*: can it do what it is there for? A queue whose disk is nearly
full is alive and not well.
"""
from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from .watched import Observable, accounts_of

__all__ = ["Health", "QueueHealth", "of_queues"]


@dataclass(frozen=True)
class QueueHealth:
    """One queue, and what is the matter with it: nothing if `why` is empty."""

    queue: str
    state: str
    why: tuple[str, ...] = ()
    waiting: int | None = None
    """None where it could not be found out."""
    oldest_age: float | None = None
    """Seconds; None if nothing waits."""
    is_alive: bool = True


@dataclass(frozen=True)
class Health:
    queues: tuple[QueueHealth, ...]

    @property
    def is_well(self) -> bool:
        return not any(queue.why for queue in self.queues)

    @property
    def is_alive(self) -> bool:
        return all(queue.is_alive for queue in self.queues)

    def as_dict(self) -> dict[str, Any]:
        shown = [{key: value for key, value in asdict(queue).items() if key != "is_alive"} for queue in self.queues]
        return {"healthy": self.is_well, "queues": shown}


def of_queues(queues: Iterable[Observable], full_at: float | None) -> Health:
    """The health of open queues. One that was closed in order is named, and is not ill."""
    return Health(tuple(_of_queue(queue, full_at) for queue in queues))


def _of_queue(queue: Observable, full_at: float | None) -> QueueHealth:
    queue = accounts_of(queue)
    name = queue.name or "in memory"
    try:
        stats = queue.stats()
    except Exception as error:
        return QueueHealth(name, "unreadable", (f"it could not be asked: {error}",))
    why = []
    if stats.state == "broken":
        why.append("a write or a sync failed: close the queue and open it again")
    if full_at is not None and stats.disk_limit is not None and stats.disk_ratio > full_at:
        why.append(f"{stats.disk_ratio:.0%} of max_disk_size ({stats.disk_bytes:,} of {stats.disk_limit:,} bytes) are in use")
    return QueueHealth(name, stats.state, tuple(why), stats.waiting, stats.oldest_age, stats.state != "broken")
