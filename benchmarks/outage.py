"""An outage absorbed and drained: a steady producer, a consumer that goes away and comes back, and where the items are meanwhile.

Nothing is judged here; the picture is for people. It runs in real time, so that what it shows is what one would see.
"""
from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from overspill import HybridQueue, QueueClosed

ITEM_BYTES = 10_000
MEMORY_ITEMS = 500
PRODUCED_PER_S = 1000
CONSUMED_PER_S = 2500
BEFORE_S, OUTAGE_S = 1.0, 3.0
PRODUCER_S = BEFORE_S + OUTAGE_S + 1.0
LOOK_EVERY_S = 0.02


@dataclass
class Timeline:
    """What was seen every 20 ms: seconds since the beginning, items in memory, items on disk only, items delivered so far."""

    outage_s: tuple[float, float]
    at_s: list[float] = field(default_factory=list)
    in_memory: list[int] = field(default_factory=list)
    on_disk: list[int] = field(default_factory=list)
    delivered: list[int] = field(default_factory=list)
    produced: int = 0
    in_order: bool = True


def watch(folder: Path) -> Timeline:
    """Produce, consume and look, until everything has been delivered."""
    queue = HybridQueue("outage", folder, memory_size=MEMORY_ITEMS)
    seen = Timeline((BEFORE_S, BEFORE_S + OUTAGE_S))
    began = time.perf_counter()
    delivered = [0]

    def pace(n: int, per_s: float, since: float) -> None:
        ahead = n / per_s - (time.perf_counter() - since)
        if ahead > 0:
            time.sleep(ahead)

    def produce() -> None:
        n = 0
        while time.perf_counter() - began < PRODUCER_S:
            queue.enqueue(n.to_bytes(8) + bytes(ITEM_BYTES - 8))
            n += 1
            pace(n, PRODUCED_PER_S, began)
        seen.produced = n
        queue.close(drain=60)

    def consume() -> None:
        try:
            since, n = began, 0
            while True:
                now = time.perf_counter() - began
                if seen.outage_s[0] <= now < seen.outage_s[1]:
                    time.sleep(seen.outage_s[1] - now)
                    since, n = time.perf_counter(), 0
                item = queue.dequeue()
                seen.in_order &= int.from_bytes(item[:8]) == delivered[0]
                delivered[0] += 1
                n += 1
                pace(n, CONSUMED_PER_S, since)
        except QueueClosed:
            pass

    threads = [threading.Thread(target=produce), threading.Thread(target=consume)]
    for thread in threads:
        thread.start()
    going_on = True
    while going_on:
        going_on = any(thread.is_alive() for thread in threads)  # asked first, so that the last look is behind the last item
        seen.at_s.append(time.perf_counter() - began)
        seen.in_memory.append(queue.memory_size)
        seen.on_disk.append(queue.disk_size)
        seen.delivered.append(delivered[0])
        time.sleep(LOOK_EVERY_S)
    return seen
