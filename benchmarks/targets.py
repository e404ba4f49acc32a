"""The promises about speed, as data: one row a target, and what it means to miss one.

The limits are ratios to something measured in the same run, because a number in nanoseconds says more about the
machine than about the queue. Where the promise can be read in two ways, both are here and the harder one says so.
"""
from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Target:
    key: str
    what: str
    sense: Literal["at most", "at least"]
    limit: float
    unit: str

    def is_met(self, value: float) -> bool:
        return value <= self.limit if self.sense == "at most" else value >= self.limit

    def verdict(self, value: float) -> str:
        if self.is_met(value):
            return "met"
        short = value / self.limit - 1 if self.sense == "at most" else 1 - value / self.limit
        return f"missed by {short:.0%}" if short >= 0.005 else f"missed by {short:.1%}"


X_APPEND = "× deque.append"
X_POPLEFT = "× deque.popleft"

TARGETS = (
    Target("enqueue_resident", "PROCESS enqueue, items stay in memory", "at most", 6, X_APPEND),
    Target("enqueue_spilling", "PROCESS enqueue, far more items than memory (harder)", "at most", 6, X_APPEND),
    Target("dequeue_resident", "PROCESS dequeue of a resident item", "at most", 2.5, X_POPLEFT),
    Target("memory_pair", "MEMORY enqueue + dequeue", "at most", 2, "× SimpleQueue put + get"),
    Target("push", "CircularBuffer push in memory, full", "at most", 3, "× deque(maxlen).append"),
    Target("dequeue_spilled", "dequeue of spilled items", "at most", 10, X_POPLEFT),
    Target("dequeue_reopened", "dequeue of spilled items after reopening", "at most", 10, X_POPLEFT),
    Target("batch_in", "enqueue_batch of 1,000, per item", "at most", 3, X_APPEND),
    Target("batch_out", "dequeue_batch of 1,000, per item", "at most", 3, X_APPEND),
    Target("batch_in_spilling", "enqueue_batch, far more items than memory (harder)", "at most", 3, X_APPEND),
    Target("batch_out_spilled", "dequeue_batch of spilled items (harder)", "at most", 3, X_APPEND),
    Target("large_in", "2 MiB enqueue, rate", "at least", 0.7, "× os.pwrite"),
    Target("large_out", "2 MiB spilled dequeue, rate", "at least", 0.7, "× os.pread"),
    Target("power_one", "POWER enqueue, one caller", "at most", 1.3, "× append + fdatasync"),
    Target("power_many", "POWER enqueue, 64 threads, rate", "at least", 5, "× one caller"),
    Target("power_tasks", "POWER enqueue, 1,000 tasks, rate", "at least", 20, "× one caller"),
    Target("power_batch", "POWER enqueue_batch of 1,000", "at most", 1.3, "× the same bytes and one sync"),
    Target("stall", "slowest enqueue in a million", "at most", 1, "× slowest bare population step"),
    Target("stall_even", "slowest enqueue in a million (harder)", "at most", 1, "× slowest bare even step"),
    Target("open_time", "time to open a large backlog, over an empty queue", "at most", 100, "ms"),
    Target("open_memory", "memory to open a large backlog, over an empty queue", "at most", 32, "MiB"),
    # "Flat" has no figure in the promise; this is room for an allocator's habits and none for a leak of one byte an item.
    Target("flow", "memory growth while all items pass through", "at most", 8, "MiB"),
)

BY_KEY = {target.key: target for target in TARGETS}
