"""What the two origin documents ask of `HybridQueue`, row by row of the feature table, in words that their reader would recognise.

The rows of the other classes (circular buffer, stream queue, …) and of metrics are tested where those live.
"""
from __future__ import annotations

import queue
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest

from overspill import (
    Durability, HybridQueue, KiB, OverflowStrategy, Priority, QueueClosed, QueueEmpty, QueueFull, RateLimit, RateLimited, WhenFull,
)  # fmt: skip
from overspill._runtime.clock import ManualClock


@pytest.fixture(params=[Durability.MEMORY, Durability.PROCESS], ids=lambda durability: durability.name)
def open_queue(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    opened: list[HybridQueue] = []

    def open_queue(name: str = "queue", **options: Any) -> HybridQueue:
        opened.append(HybridQueue(name, tmp_path, **{"durability": request.param, **options}))
        return opened[-1]

    yield open_queue
    for q in opened:
        q.close()


# --- the origin's own tests


def test_overflow_ten_in_memory_the_eleventh_on_disk_and_the_first_comes_first(open_queue: Any) -> None:
    q = open_queue(memory_size=10)
    for i in range(10):
        q.enqueue(f"item {i}")
    assert (q.memory_size, q.disk_size) == (10, 0)
    q.enqueue("item 10")
    assert (q.memory_size, q.disk_size) == (10, 1)
    assert q.dequeue() == "item 0"


def test_persistence_five_items_close_reopen_the_same_five_in_order(open_queue: Any) -> None:
    q = open_queue()
    for i in range(5):
        q.enqueue(f"item {i}")
    q.close()
    q = open_queue()
    assert q.size == 5
    assert [q.dequeue() for _ in range(5)] == [f"item {i}" for i in range(5)]


# --- the feature table


def test_row_1_memory_and_disk_behind_one_api_with_overflow_at_a_threshold(open_queue: Any) -> None:
    q = open_queue(memory_size=100, overflow_ratio=0.8)
    for i in range(200):
        q.enqueue(i)
    assert q.memory_size <= 80 and q.disk_size >= 120
    assert [q.dequeue() for _ in range(200)] == list(range(200))


def test_row_2_every_operation_is_logged_before_it_returns_and_replayed_on_start(tmp_path: Path) -> None:
    with HybridQueue("q", tmp_path, memory_size=1000) as q:
        for i in range(20):
            q.enqueue(i)
        for _ in range(5):
            q.dequeue()
        # What the kernel holds now is what a kill -9 leaves.
        shutil.copytree(tmp_path / "q", tmp_path / "killed" / "q", ignore=shutil.ignore_patterns("lock"))
    (tmp_path / "killed").chmod(0o700)
    with HybridQueue("q", tmp_path / "killed") as q:
        assert q.recovery.items == 15
        assert list(q) == list(range(5, 20))


def test_row_3_batches_and_their_default_size(open_queue: Any) -> None:
    q = open_queue(memory_size=10, default_batch_size=25)
    q.enqueue_batch(range(60))
    assert q.dequeue_batch(10) == list(range(10))
    assert q.dequeue_batch() == list(range(10, 35))
    assert q.dequeue_batch(1000) == list(range(35, 60))


def test_row_4_priorities_low_normal_high_and_any_from_0_to_255(open_queue: Any) -> None:
    q = open_queue(memory_size=3)
    for priority in (Priority.NORMAL, Priority.LOW, Priority.HIGH, 0, 255):
        for i in range(2):
            q.enqueue((int(priority), i), priority=priority)
    assert (Priority.LOW, Priority.NORMAL, Priority.HIGH) == (64, 128, 192)
    assert [q.dequeue() for _ in range(10)] == [(p, i) for p in (255, 192, 128, 64, 0) for i in range(2)]


def test_row_5_first_in_first_out_is_the_type_of_this_queue(open_queue: Any) -> None:
    q = open_queue(memory_size=2)
    for i in range(30):
        q.enqueue(i)
    assert list(q) == [q.dequeue() for _ in range(30)] == list(range(30))


def test_row_6_backpressure_full_make_space_retry(tmp_path: Path) -> None:
    q = HybridQueue("q", memory_size=5, when_full=WhenFull.RAISE)
    for i in range(5):
        q.enqueue(i)
    with pytest.raises(QueueFull):
        q.enqueue(5)
    assert q.pressure == 1.0
    assert q.dequeue() == 0
    q.enqueue(5)
    q.close()
    with HybridQueue("on_disk", tmp_path, memory_size=5) as q:
        for i in range(5):
            q.enqueue(i)
        assert q.flush_oldest(3) == 3
        assert (q.memory_size, q.disk_size) == (2, 3)
        q.enqueue(5)
        assert list(q) == list(range(6))


def test_row_7_memory_pressure_callbacks_and_giving_memory_back(open_queue: Any) -> None:
    q = open_queue(memory_size=10, memory_limit=10 * KiB)
    heard: list[float] = []
    unsubscribe = q.on_memory_pressure(heard.append, thresholds=(0.7, 0.9))
    for i in range(9):
        q.enqueue(bytes([i]) * 100)
    assert [round(usage, 1) for usage in heard] == [0.7, 0.9]
    unsubscribe()
    assert q.flush_to_disk(2) == 2
    q.set_memory_limit(300)
    assert q.stats().memory_bytes <= 300
    q.compact_memory()
    q.shrink_memory()
    assert q.memory_size == 0
    assert [item[0] for item in q] == list(range(9))


@pytest.mark.parametrize(("strategy", "stays"), [
    (OverflowStrategy.OLDEST, {"medium size", "low"}),
    (OverflowStrategy.LARGEST, {"old", "low"}),
    (OverflowStrategy.BY_PRIORITY, {"old", "medium size"}),
])  # fmt: skip
def test_row_8_overflow_strategies(open_queue: Any, strategy: OverflowStrategy, stays: set[str]) -> None:
    q = open_queue(memory_size=2, overflow_strategy=strategy)
    q.enqueue("old", priority=Priority.HIGH)
    q.enqueue("medium size", priority=Priority.NORMAL)
    q.enqueue("low", priority=Priority.LOW)
    assert (q.memory_size, q.disk_size) == (2, 1)
    assert q.stats().memory_bytes == sum(map(len, stays))
    assert list(q) == ["old", "medium size", "low"]


def test_row_9_threads_share_a_queue_and_nothing_is_lost_or_doubled(open_queue: Any) -> None:
    q = open_queue(memory_size=10)
    taken: list[int] = []

    def produce(first: int) -> None:
        for i in range(first, first + 200):
            q.enqueue(i)

    def consume() -> None:
        while True:
            try:
                taken.append(q.dequeue(timeout=10))
            except (QueueClosed, QueueEmpty):
                return

    producers = [threading.Thread(target=produce, args=(k * 200,)) for k in range(4)]
    consumers = [threading.Thread(target=consume) for _ in range(2)]
    for thread in producers + consumers:
        thread.start()
    for thread in producers:
        thread.join(60)
    q.close(drain=60)
    for thread in consumers:
        thread.join(60)
    assert sorted(taken) == list(range(800))


def test_row_10_items_expire_by_themselves(tmp_path: Path) -> None:
    clock = ManualClock()
    with HybridQueue("q", tmp_path, memory_size=2, ttl=60, _clock=clock, _background=False) as q:
        q.enqueue_batch(["old"] * 5)
        clock.advance(50)
        q.enqueue_batch(["new"] * 3)
        clock.advance(20)
        assert q.dequeue_batch(10) == ["new"] * 3
        assert q.stats().expired == 5


def test_row_11_disk_data_is_compressed_with_snappy(tmp_path: Path) -> None:
    text = "the same line of a log, again and again\n" * 500
    for name, compression in (("plain", None), ("packed", "snappy")):
        with HybridQueue(name, tmp_path, compression=compression) as q:
            q.enqueue_batch([text] * 10)
    sizes = {name: sum(path.stat().st_size for path in (tmp_path / name).glob("*.seg")) for name in ("plain", "packed")}
    assert sizes["packed"] < sizes["plain"] / 4
    with HybridQueue("packed", tmp_path) as q:
        assert q.dequeue_batch(10) == [text] * 10


def test_row_12_a_serializer_of_ones_own(open_queue: Any) -> None:
    class Point:
        def __init__(self, x: int, y: int) -> None:
            self.x, self.y = x, y

    class Points:
        def encode(self, item: Point) -> bytes:
            return item.x.to_bytes(4, "big") + item.y.to_bytes(4, "big")

        def decode(self, data: bytes) -> Point:
            return Point(int.from_bytes(data[:4], "big"), int.from_bytes(data[4:], "big"))

    q = open_queue(memory_size=1, serializer=Points())
    for i in range(3):
        q.enqueue(Point(i, i * i))
    assert [(point.x, point.y) for point in q] == [(0, 0), (1, 1), (2, 4)]


def test_row_13_segments_on_disk_can_be_looked_at_and_every_checksum_checked(tmp_path: Path) -> None:
    with HybridQueue("q", tmp_path, memory_size=1) as q:
        q.enqueue_batch([b"x" * 1000] * 20)
    found = HybridQueue.inspect(tmp_path / "q", deep=True)
    assert found.ok and found.waiting == 20
    [segment] = (tmp_path / "q").glob("*.seg")
    damaged = bytearray(segment.read_bytes())
    damaged[damaged.index(b"x" * 1000) + 500] ^= 1
    segment.write_bytes(damaged)
    assert not HybridQueue.inspect(tmp_path / "q", deep=True).ok


def test_row_14_a_disk_maximum_cleanup_and_compaction_that_lose_nothing_unread(tmp_path: Path) -> None:
    with HybridQueue("q", tmp_path, memory_size=2, max_disk_size=512 * KiB) as q:
        n = 0
        with pytest.raises(QueueFull):
            for n in range(1000):
                q.enqueue(n.to_bytes(2, "big") * 4096)
        assert q.stats().disk_bytes <= 512 * KiB
        q.remove_where(lambda item: int.from_bytes(item[:2], "big") % 10 != 0)
        q.cleanup()
        q.compact()
        q.enqueue(b"room again")
        assert [int.from_bytes(item[:2], "big") for item in q][:-1] == list(range(0, n, 10))


def test_row_16_failed_items_go_to_the_front_drain_on_shutdown_and_sync(open_queue: Any) -> None:
    q = open_queue(memory_size=2)
    q.enqueue_batch(["upload 1", "upload 2", "upload 3"])
    failed = q.dequeue()
    q.enqueue_front(failed)
    assert q.peek() == "upload 1"
    with pytest.raises(ConnectionError), q.lease():
        raise ConnectionError("the origin is down")
    assert list(q) == ["upload 1", "upload 2", "upload 3"]
    q.sync()
    worker_saw: list[str] = []

    def worker() -> None:
        while True:
            try:
                worker_saw.append(q.dequeue())
            except QueueClosed:
                return

    thread = threading.Thread(target=worker)
    thread.start()
    q.close(drain=30)
    thread.join(30)
    assert worker_saw == ["upload 1", "upload 2", "upload 3"]


def test_row_18_size_memory_size_disk_size_stats(open_queue: Any) -> None:
    q = open_queue(memory_size=3)
    q.enqueue_batch(["x"] * 8)
    stats = q.stats()
    assert (q.size, q.memory_size, q.disk_size) == (len(q), 3, 5) == (8, stats.memory_items, stats.disk_items)
    assert stats.enqueued == 8 and stats.memory_bytes == 3 and stats.memory_ratio == 1.0 and 0 < stats.disk_ratio < 1


def test_row_19_errors_empty_full_closed() -> None:
    q = HybridQueue("q", memory_size=1)
    with pytest.raises(QueueEmpty) as empty:
        q.try_dequeue()
    q.enqueue("x")
    with pytest.raises(QueueFull) as full:
        q.enqueue("y")
    q.close()
    with pytest.raises(QueueClosed):
        q.enqueue("z")
    assert isinstance(empty.value, queue.Empty) and isinstance(full.value, queue.Full)


def test_row_27_a_rate_limit_with_a_burst() -> None:
    clock = ManualClock()
    q = HybridQueue("q", memory_size=20_000, rate_limit=RateLimit(10_000, burst=1000), _clock=clock, _background=False)
    q.enqueue_batch(range(1000))
    with pytest.raises(RateLimited):
        q.enqueue("the thousand and first at once")
    clock.advance(0.1)
    q.enqueue_batch(range(1000))
    q.close()


def test_row_28_dequeue_blocks_or_times_out_or_tries(open_queue: Any) -> None:
    q = open_queue()
    with pytest.raises(QueueEmpty):
        q.try_dequeue()
    with pytest.raises(QueueEmpty):
        q.dequeue(timeout=0.001)
    got: list[Any] = []
    thread = threading.Thread(target=lambda: got.append(q.dequeue()))
    thread.start()
    q.enqueue("arrives later")
    thread.join(30)
    assert got == ["arrives later"]


def test_row_29_pressure_is_above_one_when_there_is_disk_overflow(open_queue: Any) -> None:
    q = open_queue(memory_size=4)
    q.enqueue_batch(["x"] * 3)
    assert q.pressure == 0.75
    q.enqueue_batch(["x"] * 3)
    assert q.pressure > 1.0
