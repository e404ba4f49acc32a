"""What is left in memory of a segment that has been consumed."""
from __future__ import annotations

from pathlib import Path

import pytest

from overspill import Durability, HybridQueue


@pytest.mark.parametrize("durability", [Durability.PROCESS, Durability.POWER])
def test_a_consumed_segment_leaves_nothing_of_its_index_behind(tmp_path: Path, durability: Durability) -> None:
    """Its list of offsets was 4 bytes for each item that passed, until the garbage collector came round, which a loop that makes no containers hardly ever calls."""
    with HybridQueue("q", tmp_path, memory_size=1, durability=durability, _background=False) as q:
        segments = []
        for _ in range(40):
            q.enqueue_batch([b"x" * 100] * 2000)
            segments += [segment for segment in q._log.in_order() if segment not in segments]
            for _ in range(2000):
                q.dequeue()
            q._work()
        consumed = [segment for segment in segments if segment.retired]
        assert consumed and not any(segment._listing.length for segment in consumed)
