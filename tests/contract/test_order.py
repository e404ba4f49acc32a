"""Spilling changes an item's address, never its place in line."""
from __future__ import annotations

import pytest
from conftest import Place, drained, items_upto

from overspill import Priority, QueueEmpty


def test_what_came_first_leaves_first(place: Place) -> None:
    q = place.open()
    for item in items_upto(12):
        q.enqueue(item)
    assert len(q) == 12
    assert drained(q) == items_upto(12)


def test_turns_of_putting_and_taking_keep_the_order(place: Place) -> None:
    q = place.open()
    line = items_upto(40)
    put, taken = iter(line), []
    for puts, takes in ((3, 1), (1, 2), (5, 2), (2, 5), (7, 3), (4, 9)):
        for _ in range(puts):
            q.enqueue(next(put))
        for _ in range(takes):
            taken.append(q.dequeue(timeout=0))
    assert taken == line[: len(taken)]
    assert taken + drained(q) == line[:22]


def test_higher_priority_first_and_first_in_first_out_within_one(place: Place) -> None:
    q = place.open()
    for turn in range(4):
        for priority in (Priority.LOW, 255, Priority.NORMAL, 0, Priority.HIGH):
            q.enqueue((int(priority), turn), priority=priority)
    assert drained(q) == [(priority, turn) for priority in (255, 192, 128, 64, 0) for turn in range(4)]


def test_front_comes_before_everything_of_its_priority_and_the_last_one_put_there_comes_first(place: Place) -> None:
    q = place.open()
    q.enqueue("high", priority=Priority.HIGH)
    for item in ("a", "b", "c"):
        q.enqueue(item)
    q.enqueue_front("first")
    q.enqueue_front("second")
    q.enqueue("d")
    assert drained(q) == ["high", "second", "first", "a", "b", "c", "d"]


def test_an_item_put_in_front_again_and_again_is_always_first(place: Place) -> None:
    q = place.open()
    q.enqueue_batch(items_upto(5))
    for _ in range(5):
        item = q.dequeue(timeout=0)
        assert item == items_upto(1)[0]
        q.enqueue_front(item)
    assert drained(q) == items_upto(5)


def test_front_items_that_spill_stay_in_front(place: Place) -> None:
    q = place.open()
    q.enqueue_batch(["a", "b"])
    for item in ("3", "2", "1", "0"):
        q.enqueue_front(item)
    q.flush_to_disk()
    q.enqueue_front("before all")
    assert list(q) == ["before all", "0", "1", "2", "3", "a", "b"]
    assert drained(q) == ["before all", "0", "1", "2", "3", "a", "b"]


def test_a_batch_is_its_items_in_their_order(place: Place) -> None:
    q = place.open()
    q.enqueue("before")
    q.enqueue_batch(items_upto(7))
    q.enqueue_batch([])
    q.enqueue_batch(iter(["from", "an", "iterator"]))
    q.enqueue("after")
    assert drained(q) == ["before", *items_upto(7), "from", "an", "iterator", "after"]


def test_a_batch_may_have_a_priority(place: Place) -> None:
    q = place.open()
    q.enqueue_batch(["n0", "n1"])
    q.enqueue_batch(["h0", "h1"], priority=Priority.HIGH)
    q.enqueue_batch(("l0", "l1"), priority=Priority.LOW)
    assert drained(q) == ["h0", "h1", "n0", "n1", "l0", "l1"]


def test_a_batch_with_one_bad_item_puts_nothing(place: Place) -> None:
    q = place.open()
    q.enqueue("there")
    with pytest.raises(TypeError):
        q.enqueue_batch(["good", object(), "good too"])
    assert list(q) == ["there"]
    assert q.stats().enqueued == 1


def test_a_taken_batch_is_in_order_across_both_tiers_and_priorities(place: Place) -> None:
    q = place.open()
    q.enqueue_batch(items_upto(10))
    q.enqueue("urgent", priority=200)
    assert q.dequeue_batch(4) == ["urgent", *items_upto(3)]
    assert q.dequeue_batch(100) == items_upto(10)[3:]
    assert q.dequeue_batch(100) == []
    assert q.dequeue_batch(1, timeout=0) == []


def test_the_default_batch_size_is_an_option(place: Place) -> None:
    q = place.open(default_batch_size=3)
    q.enqueue_batch(items_upto(7))
    assert [len(q.dequeue_batch()) for _ in range(4)] == [3, 3, 1, 0]


def test_nothing_there_is_said_and_never_none(place: Place) -> None:
    q = place.open()
    for take in (q.try_dequeue, q.peek, lambda: q.dequeue(timeout=0), lambda: q.lease(timeout=0)):
        with pytest.raises(QueueEmpty):
            take()
    q.enqueue(None)
    assert q.peek() is None
    assert q.dequeue(timeout=0) is None
    assert q.lease_batch(3) == []


def test_a_queue_that_was_emptied_is_as_good_as_new(place: Place) -> None:
    q = place.open()
    for turn in range(6):
        q.enqueue_batch([(turn, i) for i in range(5)])
        assert drained(q) == [(turn, i) for i in range(5)]
        assert len(q) == 0
        assert q.memory_size == q.disk_size == 0
        assert q.pressure == 0.0


def test_the_value_is_the_one_at_the_time_of_the_enqueue(place: Place) -> None:
    q = place.open()
    mutable = {"list": [1]}
    q.enqueue(mutable)
    mutable["list"].append(2)
    assert q.peek() == {"list": [1]}
    assert q.dequeue() == {"list": [1]}


def test_large_and_small_items_keep_their_order(place: Place) -> None:
    q = place.open()
    line = [bytes([i]) * size for i, size in enumerate((1, 100_000, 0, 33_000, 5, 32_768, 32_769, 300_000, 9))]
    for item in line[:5]:
        q.enqueue(item)
    q.enqueue_batch(line[5:])
    assert list(q) == line
    assert drained(q) == line
