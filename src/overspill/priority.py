"""The queue that people ask for when some items are more urgent than others: 256 levels, first in first out within each."""
from __future__ import annotations

from .hybrid import HybridQueue

__all__ = ["PriorityQueue"]


class PriorityQueue(HybridQueue):
    """A `HybridQueue` whose `enqueue` takes the priority as its second argument.

    `q.enqueue(item, priority)`: an int from 0 to 255 (`Priority.LOW`, `NORMAL`, `HIGH` are 64, 128, 192), higher first, first in first out within a level, whatever was spilled
    or recovered. `PriorityQueue("jobs")` is in memory only, `PriorityQueue("jobs", "/var/lib/app/queues")` a hybrid; options, verbs and errors are those of `HybridQueue`, and either
    class opens the folder of the other. To choose the level costs the same for one level in use as for 256.

    The order is strict: as long as a higher level has an item, a lower one gets nothing, however old its items are. Nothing ages by itself. Where a steady stream of urgent items
    could starve the rest, watch `stats().oldest_age`, give items a `ttl`, or put what has waited too long back in with a higher priority. `OverflowStrategy.BY_PRIORITY` keeps
    the urgent ones in memory.
    """

    enqueue = HybridQueue.enqueue_with_priority
