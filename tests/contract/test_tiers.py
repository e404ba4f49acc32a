"""Memory has a budget in items and in bytes; what is over it lies on disk and nowhere else changes."""
from __future__ import annotations

from typing import Any

import pytest
from conftest import Place, drained, items_upto

from overspill import KiB, MiB, OverflowStrategy, Priority


def within_budget(place: Place, q: Any) -> bool:
    limit = place.setting.options.get("memory_limit")
    ratio = place.setting.options.get("overflow_ratio", 1.0)
    return q.memory_size <= max(1, int(place.setting.memory_size * ratio)) and (limit is None or q.stats().memory_bytes <= limit)


def test_the_memory_budget_holds_after_every_step(disk_place: Place) -> None:
    q = disk_place.open()
    held = []
    for i, item in enumerate(items_upto(12)):
        q.enqueue(item, priority=100 + i % 3)
        assert within_budget(disk_place, q)
    for step in range(4):
        held += q.lease_batch(2)
        q.enqueue_front(f"front {step}")
        assert within_budget(disk_place, q)
        q.peek()
        assert within_budget(disk_place, q)
    for delivery in held:
        delivery.nack()
        assert within_budget(disk_place, q)
    while len(q):
        q.dequeue_batch(3)
        assert within_budget(disk_place, q)


def test_with_memory_for_ten_the_eleventh_lies_on_disk(tiny_place: Place) -> None:
    q = tiny_place.open(memory_size=10)
    q.enqueue_batch(items_upto(10))
    assert (q.memory_size, q.disk_size, q.size) == (10, 0, 10)
    q.enqueue("the eleventh")
    assert (q.memory_size, q.disk_size, q.size) == (10, 1, 11)
    assert q.dequeue() == items_upto(1)[0]


def test_overflow_begins_at_its_share_of_the_budget(tiny_place: Place) -> None:
    q = tiny_place.open(memory_size=10, overflow_ratio=0.5)
    q.enqueue_batch(items_upto(5))
    assert q.disk_size == 0
    q.enqueue("one more")
    assert q.memory_size == 5 and q.disk_size == 1


def test_bytes_count_as_well_as_items(tiny_place: Place) -> None:
    q = tiny_place.open(memory_size=1000, memory_limit=10 * KiB)
    for i in range(10):
        q.enqueue(bytes([i]) * 3 * KiB)
        assert q.stats().memory_bytes <= 10 * KiB
    assert q.memory_size == 3 and q.disk_size == 7
    assert [item[0] for item in drained(q)] == list(range(10))


def test_an_item_larger_than_the_memory_limit_goes_to_disk_at_once(tiny_place: Place) -> None:
    q = tiny_place.open(memory_size=1000, memory_limit=1 * KiB)
    q.enqueue(b"small")
    q.enqueue(b"L" * 5000)
    q.enqueue(b"small too")
    assert q.stats().memory_bytes <= 1 * KiB
    assert drained(q) == [b"small", b"L" * 5000, b"small too"]


def test_oldest_spills_what_has_waited_longest(tiny_place: Place) -> None:
    q = tiny_place.open(memory_size=3, overflow_strategy=OverflowStrategy.OLDEST)
    q.enqueue("high", priority=Priority.HIGH)
    q.enqueue_batch(["a", "b", "c", "d"])
    q.enqueue("low", priority=Priority.LOW)
    assert (q.memory_size, q.disk_size) == (3, 3)
    assert q.stats().memory_bytes == len("c" + "d" + "low")
    assert drained(q) == ["high", "a", "b", "c", "d", "low"]


def test_largest_spills_the_greatest_payloads(tiny_place: Place) -> None:
    q = tiny_place.open(memory_size=3, overflow_strategy=OverflowStrategy.LARGEST)
    for size in (10, 500, 1, 300, 5, 400):
        q.enqueue(b"x" * size)
    assert (q.memory_size, q.disk_size) == (3, 3)
    assert q.stats().memory_bytes == 10 + 1 + 5
    assert [len(item) for item in drained(q)] == [10, 500, 1, 300, 5, 400]


@pytest.mark.parametrize("memory_size", [2, 50])
def test_a_line_of_many_stubs_gives_up_its_oldest_whenever_it_spills(tiny_place: Place, memory_size: int) -> None:
    """The smallest items stand in front and stay in memory; behind each of them a line of stubs would grow without end."""
    if not tiny_place.setting.logs:
        pytest.skip("under MEMORY stubs stay")
    q = tiny_place.open(memory_size=memory_size, overflow_strategy=OverflowStrategy.LARGEST, max_disk_size=8 * MiB)
    most = 2 * memory_size + 1024
    lengths = []
    for n in range(most + 200):
        before = q.memory_size
        q.enqueue(b"%05d" % n if n < memory_size else b"%05d and more" % n)
        assert q.memory_size <= memory_size
        lengths.append(q._ring_length(Priority.NORMAL))
        assert lengths[-1] <= most or q.memory_size > before, "it has spilled"
    assert most <= max(lengths) <= most + memory_size
    assert [int(item[:5]) for item in drained(q)] == list(range(most + 200))


def test_by_priority_spills_the_lowest_first_and_the_oldest_of_it(tiny_place: Place) -> None:
    q = tiny_place.open(memory_size=3, overflow_strategy=OverflowStrategy.BY_PRIORITY)
    q.enqueue("high 1", priority=Priority.HIGH)
    q.enqueue("low: 1", priority=Priority.LOW)
    q.enqueue("normal", priority=Priority.NORMAL)
    q.enqueue("low: number 2", priority=Priority.LOW)
    assert q.stats().memory_bytes == len("high 1" + "normal" + "low: number 2")
    q.enqueue("high 2", priority=Priority.HIGH)
    assert q.stats().memory_bytes == len("high 1" + "normal" + "high 2")
    assert drained(q) == ["high 1", "high 2", "normal", "low: 1", "low: number 2"]


def test_flush_to_disk_moves_everything_and_says_how_many(disk_place: Place) -> None:
    q = disk_place.open()
    q.enqueue_batch(items_upto(8))
    resident = q.memory_size
    assert q.flush_to_disk() == resident
    assert (q.memory_size, q.disk_size) == (0, 8)
    assert q.stats().memory_bytes == 0
    assert q.flush_to_disk() == 0
    assert drained(q) == items_upto(8)


def test_flush_to_disk_moves_as_many_as_asked(disk_place: Place) -> None:
    q = disk_place.open()
    q.enqueue_batch(items_upto(8))
    for n in (0, 1, 2):
        before = q.memory_size
        assert q.flush_to_disk(n) == min(n, before)
        assert q.memory_size == before - min(n, before)
    assert drained(q) == items_upto(8)


def test_flush_oldest_moves_the_oldest(tiny_place: Place) -> None:
    q = tiny_place.open(memory_size=10)
    for item, priority in (("older", 128), ("oldest of high", 200), ("n", 128), ("h", 200)):
        q.enqueue(item, priority=priority)
    assert q.flush_oldest(2) == 2
    assert q.stats().memory_bytes == len("n" + "h")
    assert drained(q) == ["oldest of high", "h", "older", "n"]


def test_a_flushed_queue_takes_new_items_into_memory(disk_place: Place) -> None:
    q = disk_place.open()
    q.enqueue_batch(items_upto(4))
    q.flush_to_disk()
    q.enqueue("hi")
    assert q.memory_size == 1 and q.disk_size == 4
    assert drained(q) == [*items_upto(4), "hi"]


def test_memory_only_moves_nothing_and_loses_nothing(memory_place: Place) -> None:
    q = memory_place.open()
    q.enqueue_batch(items_upto(4))
    assert q.flush_to_disk() == q.flush_to_disk(2) == q.flush_oldest(1) == 0
    assert q.compact_memory() >= 0
    q.shrink_memory()
    assert q.memory_size == 4
    assert drained(q) == items_upto(4)


def test_compact_memory_gives_back_places_and_keeps_items(place: Place) -> None:
    q = place.open()
    q.enqueue_batch(items_upto(400))
    q.dequeue_batch(390)
    assert q.compact_memory() >= 0
    assert drained(q) == items_upto(400)[390:]


def test_shrink_memory_leaves_nothing_resident(disk_place: Place) -> None:
    q = disk_place.open()
    q.enqueue_batch(items_upto(8))
    before = q.stats().memory_bytes
    assert q.shrink_memory() >= before
    assert q.memory_size == 0 and q.stats().memory_bytes == 0
    assert drained(q) == items_upto(8)


def test_a_lower_memory_limit_holds_at_once(tiny_place: Place) -> None:
    q = tiny_place.open(memory_size=100)
    for i in range(20):
        q.enqueue(bytes([i]) * 100)
    q.set_memory_limit(550)
    assert q.stats().memory_bytes <= 550
    assert q.memory_size == 5
    q.enqueue(b"\x14" * 100)
    assert q.stats().memory_bytes <= 550
    q.set_memory_limit(None)
    q.enqueue_batch([bytes([i]) * 100 for i in range(21, 30)])
    assert q.memory_size == 14
    assert [item[0] for item in drained(q)] == list(range(30))


def test_in_memory_only_a_lower_limit_refuses_and_takes_nothing_away(memory_place: Place) -> None:
    from overspill import QueueFull

    q = memory_place.open(memory_limit=1000)
    q.enqueue_batch([b"x" * 100] * 5)
    q.set_memory_limit(200)
    with pytest.raises(QueueFull):
        q.enqueue(b"one more")
    assert len(drained(q)) == 5
    q.enqueue(b"room again")


def test_pressure_is_the_share_of_memory_and_above_one_when_items_lie_on_disk(tiny_place: Place) -> None:
    q = tiny_place.open(memory_size=10)
    assert q.pressure == 0.0
    q.enqueue_batch(items_upto(5))
    assert q.pressure == pytest.approx(0.5)
    q.enqueue_batch(items_upto(5))
    assert q.pressure == pytest.approx(1.0)
    q.enqueue("over")
    assert q.pressure > 1.0
    q.dequeue_batch(2)
    assert q.pressure < 1.0


def test_pressure_counts_bytes_when_they_are_scarcer(memory_place: Place) -> None:
    q = memory_place.open(memory_size=100, memory_limit=1000)
    q.enqueue(b"x" * 800)
    assert q.pressure == pytest.approx(0.8)
    assert q.stats().memory_ratio == pytest.approx(0.8)


# --- callbacks


def test_a_pressure_callback_fires_once_when_a_threshold_is_crossed_upwards(memory_place: Place) -> None:
    q = memory_place.open(memory_size=10)
    heard: list[float] = []
    q.on_memory_pressure(heard.append)
    for i in range(6):
        q.enqueue(i)
    assert heard == []
    q.enqueue(6)
    assert heard == [pytest.approx(0.7)]
    q.enqueue(7)
    assert len(heard) == 1
    q.enqueue(8)
    assert heard[1:] == [pytest.approx(0.9)]
    q.enqueue(9)
    assert len(heard) == 2


def test_a_threshold_counts_again_only_after_usage_has_clearly_fallen(memory_place: Place) -> None:
    q = memory_place.open(memory_size=100)
    heard: list[float] = []
    q.on_memory_pressure(heard.append, thresholds=(0.5,))
    q.enqueue_batch(range(50))
    assert len(heard) == 1
    for _ in range(5):
        q.dequeue()
        q.enqueue("to and fro")
    assert len(heard) == 1, "trembling at a threshold is not crossing it"
    q.dequeue_batch(30)
    q.enqueue_batch(range(30))
    assert len(heard) == 2


def test_pressure_is_felt_on_disk_backed_queues_too(tiny_place: Place) -> None:
    q = tiny_place.open(memory_size=4)
    heard: list[float] = []
    q.on_memory_pressure(heard.append, thresholds=(0.5, 1.0))
    for i in range(12):
        q.enqueue(i)
    assert heard[0] == pytest.approx(0.5)
    assert len(heard) == 2
    q.flush_to_disk()
    for i in range(12, 14):
        q.enqueue(i)
    assert len(heard) == 3
    assert drained(q) == list(range(14))


def test_bytes_may_be_what_crosses_the_threshold(memory_place: Place) -> None:
    q = memory_place.open(memory_size=1000, memory_limit=1000)
    heard: list[float] = []
    q.on_memory_pressure(heard.append, thresholds=(0.8,))
    q.enqueue(b"x" * 799)
    assert heard == []
    q.enqueue(b"x")
    assert heard == [pytest.approx(0.8)]


def test_a_callback_may_call_the_queue(tiny_place: Place) -> None:
    q = tiny_place.open(memory_size=10)
    seen: list[tuple[int, int, str]] = []

    def relieve(usage: float) -> None:
        seen.append((len(q), q.flush_oldest(3), q.peek()))
        q.enqueue("from the callback")
        q.stats()

    q.on_memory_pressure(relieve, thresholds=(0.7,))
    for i in range(7):
        q.enqueue(f"item {i}")
    assert seen == [(7, 3, "item 0")]
    assert drained(q) == [*(f"item {i}" for i in range(7)), "from the callback"]


def test_an_ended_subscription_is_silent_and_ending_it_twice_is_no_error(memory_place: Place) -> None:
    q = memory_place.open(memory_size=10)
    heard: list[float] = []
    unsubscribe = q.on_memory_pressure(heard.append, thresholds=(0.5,))
    unsubscribe()
    unsubscribe()
    q.enqueue_batch(range(10))
    assert heard == []


def test_each_subscriber_has_its_own_thresholds(memory_place: Place) -> None:
    q = memory_place.open(memory_size=10)
    low: list[float] = []
    high: list[float] = []
    q.on_memory_pressure(low.append, thresholds=(0.2,))
    q.on_memory_pressure(high.append, thresholds=(0.8,))
    for i in range(10):
        q.enqueue(i)
    assert (low, high) == ([pytest.approx(0.2)], [pytest.approx(0.8)])


def test_a_callback_that_raises_does_not_undo_the_enqueue(memory_place: Place, caplog: pytest.LogCaptureFixture) -> None:
    q = memory_place.open(memory_size=2)

    def fails(usage: float) -> None:
        raise RuntimeError("a subscriber's own fault")

    q.on_memory_pressure(fails, thresholds=(0.5,))
    q.enqueue("kept")
    assert list(q) == ["kept"]
    assert "a subscriber's own fault" in caplog.text, "nothing is swallowed"
