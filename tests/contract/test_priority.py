"""256 levels: the highest first, first in first out within each, whichever tier an item waits in; and the choice costs the same for one level as for all."""
from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from conftest import Place, drained

from overspill import HybridQueue, InvalidOption, OverflowStrategy, Priority, PriorityQueue, QueueFull
from overspill._store.files import Disk

MILLION = 1_000_000


def test_the_priority_is_the_second_argument_and_normal_without_one(place: Place) -> None:
    q = place.open()
    q.enqueue_with_priority("low", Priority.LOW)
    q.enqueue_with_priority("normal")
    q.enqueue_with_priority("high", priority=Priority.HIGH)
    q.enqueue_with_priority("highest", 255)
    q.enqueue_with_priority("lowest", 0)
    q.enqueue("normal, too")
    assert drained(q) == ["highest", "high", "normal", "normal, too", "low", "lowest"]


def test_a_priority_queue_takes_it_in_enqueue(tmp_path: Path) -> None:
    for q in (PriorityQueue("jobs"), PriorityQueue("jobs", tmp_path, memory_size=2)):
        with q:
            q.enqueue("later", 10)
            q.enqueue("now", Priority.HIGH)
            q.enqueue("now, second", Priority.HIGH, ttl=60)
            q.enqueue("meanwhile")
            assert "PriorityQueue" in repr(q)
            assert drained(q) == ["now", "now, second", "meanwhile", "later"]


def test_what_is_no_priority_is_refused_by_every_verb(place: Place) -> None:
    q = place.open()
    strange: list[Any] = [-1, 256, 10**30, -(10**30), True, 1.0, "high", None]
    for priority in strange:
        for put in (
            lambda: q.enqueue("x", priority=priority), lambda: q.enqueue_with_priority("x", priority), lambda: q.enqueue_batch(["x"], priority=priority),
            lambda: q.enqueue_front("x", priority=priority),
        ):  # fmt: skip
            with pytest.raises(InvalidOption, match="0 to 255"):
                put()
    assert len(q) == 0


def test_either_class_opens_the_folder_of_the_other(tmp_path: Path) -> None:
    with PriorityQueue("jobs", tmp_path) as q:
        q.enqueue("b", 1)
        q.enqueue("a", 2)
    with HybridQueue("jobs", tmp_path) as plain:
        assert list(plain) == ["a", "b"]
    with PriorityQueue("jobs", tmp_path) as q:
        assert drained(q) == ["a", "b"]


def test_in_memory_only_full_is_full_whatever_the_priority(memory_place: Place) -> None:
    q = memory_place.open(memory_size=2)
    q.enqueue_with_priority("a", 1)
    q.enqueue_with_priority("b", 2)
    with pytest.raises(QueueFull):
        q.enqueue_with_priority("urgent", 255)
    assert drained(q) == ["b", "a"]


def test_by_priority_keeps_the_urgent_ones_in_memory(tmp_path: Path) -> None:
    with PriorityQueue("jobs", tmp_path, memory_size=4, overflow_strategy=OverflowStrategy.BY_PRIORITY) as q:
        for n in range(12):
            q.enqueue(n, n % 3)
        assert [q.memory_size, q.disk_size] == [4, 8]
        assert [q.dequeue() for _ in range(4)] == [2, 5, 8, 11]
        assert q.disk_size == 8, "the urgent ones were those in memory"
        assert drained(q) == [1, 4, 7, 10, 0, 3, 6, 9]


def test_a_stream_of_urgent_items_starves_the_rest_and_the_accounts_show_it(place: Place) -> None:
    """Strict, as documented: nothing ages. Whoever cares looks at the age of the oldest."""
    q = place.open()
    q.enqueue_with_priority("patient", Priority.LOW)
    for n in range(30):
        place.clock.advance(1)
        q.enqueue_with_priority(n, Priority.HIGH)
        assert q.dequeue(timeout=0) == n
    age = q.stats().oldest_age
    assert age is not None and age >= 30
    assert drained(q) == ["patient"]


# --- a great many


def put_at_random(q: PriorityQueue, n: int, seed: int) -> list[bytes]:
    """Put `n` items over all levels; the order in which they must come out."""
    print(f"seed {seed}")
    levels = random.Random(seed).choices(range(256), k=n)
    for i, level in enumerate(levels):
        q.enqueue(b"%d" % i, level)
    return [b"%d" % i for _, i in sorted((-level, i) for i, level in enumerate(levels))]


def in_exact_order(path: Path, n: int) -> None:
    seed = random.randrange(1 << 32)
    with PriorityQueue("many", path, memory_size=n // 2) as q:
        expected = put_at_random(q, n, seed)
        assert (q.memory_size, q.disk_size) == (n // 2, n - n // 2)
        out: list[bytes] = []
        while len(q):
            out += q.dequeue_batch(1000)
        assert out == expected
        assert q.stats().balance == 0


def test_a_great_many_over_all_levels_half_of_them_spilled_come_out_in_exact_order(quick_path: Path) -> None:
    in_exact_order(quick_path, 200_000)


@pytest.mark.battery
def test_a_million_over_all_levels_half_of_them_spilled_come_out_in_exact_order(quick_path: Path) -> None:
    in_exact_order(quick_path, MILLION)


def test_a_great_many_come_back_in_exact_order_after_reopening(quick_path: Path) -> None:
    seed = random.randrange(1 << 32)
    with PriorityQueue("many", quick_path) as q:
        expected = put_at_random(q, 20_000, seed)
    with PriorityQueue("many", quick_path) as q:
        assert drained(q) == expected


# --- counted, not timed


@pytest.mark.parametrize("levels", [[0], [255], [63, 64], range(0, 256, 51), range(256)], ids=["lowest", "highest", "two", "some", "all"])
def test_the_level_is_found_in_no_more_than_four_looks_however_many_are_in_use(memory_place: Place, levels: Any) -> None:
    q = memory_place.open(memory_size=10_000)
    for level in levels:
        q.enqueue_batch(["x"] * 3, priority=level)
    while len(q):
        _, looks = q._choose()
        assert looks <= 4
        q.dequeue()
    assert q._choose() == (-1, 4)


class CountingDisk(Disk):
    """Counts the reads of one queue."""

    reads = 0

    def pread(self, fd: int, length: int, offset: int) -> bytes:
        self.reads += 1
        return super().pread(fd, length, offset)


def test_to_take_from_one_of_256_spilled_levels_reads_as_much_as_from_the_only_one(quick_path: Path) -> None:
    def reads_of_the_first_take(name: str, levels: range) -> int:
        with PriorityQueue(name, quick_path, memory_size=1, _disk_class=CountingDisk, _background=False) as q:
            for level in levels:
                q.enqueue(b"x", level)
            q.flush_to_disk()
            disk = q._disk
            assert isinstance(disk, CountingDisk)
            disk.reads = 0
            assert q.dequeue() == b"x"
            return disk.reads

    alone = reads_of_the_first_take("one", range(255, 256))
    assert alone >= 1
    assert reads_of_the_first_take("all", range(256)) == alone
