"""How long syncs take: the last, the longest, all together, and how many took up to how long.

Paid once a sync, never once an item. Threads that lead a group commit and the pump may report at the same moment, and a sum that two of them add to at once could
fall; so there is a lock, held over a handful of additions.
"""
from __future__ import annotations

import threading
from bisect import bisect_left

from ..stats import SYNC_BOUNDS_S, SyncLatency

__all__ = ["SyncTimes"]


class SyncTimes:
    """Takes the durations of syncs; `look` says what they were."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts = [0] * (len(SYNC_BOUNDS_S) + 1)
        self._last_s = self._longest_s = self._total_s = 0.0

    def took(self, time_s: float) -> None:
        with self._lock:
            self._counts[bisect_left(SYNC_BOUNDS_S, time_s)] += 1
            self._last_s = time_s
            self._longest_s = max(self._longest_s, time_s)
            self._total_s += time_s

    def look(self) -> SyncLatency:
        with self._lock:
            return SyncLatency(tuple(self._counts), self._last_s, self._longest_s, self._total_s)
