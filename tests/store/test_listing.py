"""Reading a segment that still takes records: its records are listed as far as somebody reads, and no further."""
from __future__ import annotations

import random
from pathlib import Path

import pytest

from overspill import HybridQueue

MANY = 20_000
WINDOW = 4096
"""Records that are listed at once."""


def queue(path: Path, **options: object) -> HybridQueue:
    q = HybridQueue("q", path, memory_size=1, memory_limit=None, _background=False, **options)
    while q._log.active is None or q._log.active.header.file_size < 4 << 20:  # the small segments that a log begins with
        q.enqueue(b"x" * 8000)
        q.dequeue()
    return q


def item(i: int) -> bytes:
    return b"%06d" % i


def fill(q: HybridQueue, start: int, stop: int, **options: int) -> None:
    for at in range(start, stop, 1000):
        q.enqueue_batch([item(i) for i in range(at, min(at + 1000, stop))], **options)


def listing(q: HybridQueue) -> int:
    return sum(segment._listing.length for segment in q._log.in_order())


def test_the_first_item_of_a_large_segment_does_not_wait_for_a_look_at_all_of_it(tmp_path: Path) -> None:
    with queue(tmp_path) as q:
        fill(q, 0, MANY)
        assert q.dequeue() == item(0)
        assert listing(q) <= WINDOW
        assert [q.dequeue() for _ in range(MANY - 1)] == [item(i) for i in range(1, MANY)]


def test_items_that_spill_late_in_a_segment_are_read_without_a_look_at_what_was_before(tmp_path: Path) -> None:
    with queue(tmp_path) as q:
        for i in range(MANY):  # these never leave memory
            q.enqueue(item(i))
            assert q.dequeue() == item(i)
        assert listing(q) == 0
        fill(q, MANY, MANY + 100)
        assert [q.dequeue() for _ in range(100)] == [item(i) for i in range(MANY, MANY + 100)]
        assert listing(q) <= 100


def test_a_line_that_begins_earlier_in_a_segment_is_read_after_one_that_begins_later(tmp_path: Path) -> None:
    with queue(tmp_path) as q:
        fill(q, 0, 6000, priority=10)
        fill(q, 6000, 12_000, priority=20)
        first = [q.dequeue() for _ in range(3000)]  # lists from the middle of the segment on
        looked_at = q.snapshot()  # goes through both lines
        assert first == [item(i) for i in range(6000, 9000)]
        assert list(looked_at) == [item(i) for i in [*range(9000, 12_000), *range(6000)]]
        assert [q.dequeue() for _ in range(9000)] == [item(i) for i in [*range(9000, 12_000), *range(6000)]]


def test_a_cursor_goes_on_where_it_was_when_another_has_the_records_listed_anew(tmp_path: Path) -> None:
    seed = random.randrange(1 << 32)
    print("seed", seed)
    dice = random.Random(seed)
    with queue(tmp_path) as q:
        fill(q, 0, 5000, priority=10)
        fill(q, 5000, 15_000, priority=20)
        looks = [q.snapshot() for _ in range(3)]
        wanted = [item(i) for i in [*range(5000, 15_000), *range(5000)]]
        seen: list[list[bytes]] = [[] for _ in looks]
        left = list(range(len(looks)))
        while left:
            k = dice.choice(left)
            for _ in range(dice.randrange(1, 6000)):
                one = next(looks[k], None)
                if one is None:
                    left.remove(k)
                    break
                seen[k].append(one)
        assert all(one == wanted for one in seen)


@pytest.mark.parametrize("taken", [1, WINDOW - 1, WINDOW, WINDOW + 1, 10_000])
def test_a_cursor_goes_on_where_it_was_when_the_segment_is_sealed_under_it(tmp_path: Path, taken: int) -> None:
    with queue(tmp_path) as q:
        fill(q, 0, 15_000)
        log = q._log
        segment = log.active
        got = [q.dequeue() for _ in range(taken)]
        while log.active is segment:
            q.enqueue_batch([b"more" * 1000] * 100)
        while (sealed := log.seal_next(q._next_sequence)) is not None and sealed is not segment:
            pass
        assert segment.footer is not None and segment._listing.length == 0
        got += [q.dequeue() for _ in range(15_000 - taken)]
        assert got == [item(i) for i in range(15_000)]


def test_a_segment_that_waits_for_its_sync_is_read_from_its_file(tmp_path: Path) -> None:
    """Sealing gives its mapping back before the sync; a record may be longer than what is read at once."""
    with queue(tmp_path) as q:
        fill(q, 0, 5000)
        q.enqueue(bytes(700_000))
        fill(q, 5000, 6000)
        segment = q._log.active
        while q._log.active is segment:
            q.enqueue_batch([b"more" * 1000] * 100)
        segment.map.close_tail()
        assert [q.dequeue() for _ in range(5000)] == [item(i) for i in range(5000)]
        assert q.dequeue() == bytes(700_000)
        assert [q.dequeue() for _ in range(1000)] == [item(i) for i in range(5000, 6000)]
        assert segment.footer is None
