"""Frames that pass the line: in the log from the first moment, in nobody's way, and there again if they were not settled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from overspill import Durability, HybridQueue, MiB
from overspill._core.frames import Frames


def frames(*lines: bytes) -> Frames:
    block = b"".join(each + b"\n" for each in lines)
    return Frames(block, len(block), False)


def passed_by(q: HybridQueue, *lines: bytes) -> Any:
    return q._pass_by(frames(*lines), bytearray(MiB))


def settle(q: HybridQueue, passed: Any) -> None:
    with q._head:
        q._settle_passed(passed)


def test_what_is_settled_is_gone_and_the_rest_waits_at_the_next_opening(tmp_path: Path) -> None:
    with HybridQueue("q", tmp_path) as q:
        one, two = passed_by(q, b"one", b""), passed_by(q, b"two", b"three")
        assert (len(one), len(two), len(q), q.stats().in_flight) == (2, 2, 0, 4)
        settle(q, one)
        assert (len(one), q.stats().in_flight, q.stats().dequeued) == (0, 2, 2)
    with HybridQueue("q", tmp_path) as q:
        assert list(q) == [b"two", b"three"]


def test_they_come_before_what_was_put_later_and_never_after_it(tmp_path: Path) -> None:
    with HybridQueue("q", tmp_path) as q:
        assert passed_by(q, b"first") is not None
        q.enqueue(b"second")
        assert passed_by(q, b"third") is None  # what is in line would be overtaken
        q.enqueue(b"third")
        assert q.dequeue() == b"second"
    with HybridQueue("q", tmp_path) as q:
        assert list(q) == [b"first", b"third"]


def test_neighbours_that_go_cold_leave_out_what_passed_between_them(tmp_path: Path) -> None:
    """I2: a run in which they were would hand them out a second time."""
    with HybridQueue("q", tmp_path, memory_size=1) as q:
        q.enqueue(b"before")
        assert q.dequeue() == b"before"
        passed = passed_by(q, b"past", b"past too")
        for n in range(5):
            q.enqueue(b"%d" % n)
        assert q.stats().disk_items and q.dequeue_batch(10) == [b"0", b"1", b"2", b"3", b"4"]
        settle(q, passed)
    with HybridQueue("q", tmp_path) as q:
        assert list(q) == []


def test_segments_follow_one_another_and_go_when_all_is_settled(tmp_path: Path) -> None:
    with HybridQueue("q", tmp_path, max_disk_size=2 * MiB) as q:
        for _ in range(100):
            passed = passed_by(q, *[b"x" * 1000] * 100)
            assert passed is not None
            settle(q, passed)
            q.cleanup()
        assert q.stats().segments <= 3


def test_no_room_changes_nothing(tmp_path: Path) -> None:
    with HybridQueue("q", tmp_path, max_disk_size=MiB) as q:
        kept = 0
        while passed_by(q, *[b"x" * 1000] * 100) is not None:
            kept += 100
        assert q.stats().in_flight == kept and kept >= 500
    with HybridQueue("q", tmp_path) as q:
        assert len(q) == kept


@pytest.mark.parametrize("durability", [Durability.MEMORY, Durability.POWER])
def test_only_under_process(tmp_path: Path, durability: Durability) -> None:
    with HybridQueue("q", tmp_path, durability=durability) as q:
        assert passed_by(q, b"one") is None and len(q) == 0


def test_compaction_moves_what_passed_and_it_is_settled_where_it_went(tmp_path: Path) -> None:
    with HybridQueue("q", tmp_path, max_disk_size=8 * MiB) as q:
        keep = passed_by(q, b"keep", b"settle")
        for _ in range(40):
            settle(q, passed_by(q, *[b"x" * 1000] * 100))
        q.compact()
        settle(q, keep)
        again = passed_by(q, b"last")
        assert again is not None
    with HybridQueue("q", tmp_path) as q:
        assert list(q) == [b"last"]
