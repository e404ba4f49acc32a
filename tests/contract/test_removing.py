"""Leaving the queue by another door than dequeue: counted, durable, and nobody else is touched."""
from __future__ import annotations

import pytest
from conftest import Place, drained, items_upto

from overspill import InvalidOption, KiB, Priority


def test_clear_removes_all_that_waits_and_says_how_many(place: Place) -> None:
    q = place.open()
    q.enqueue_batch(items_upto(9))
    q.enqueue("high", priority=Priority.HIGH)
    q.enqueue_front("front")
    assert q.clear() == 11
    assert len(q) == 0 and list(q) == []
    assert q.stats().cleared == 11
    assert q.clear() == 0
    q.enqueue("new")
    assert drained(q) == ["new"]


def test_clear_leaves_what_is_leased(place: Place) -> None:
    q = place.open()
    q.enqueue_batch(items_upto(4))
    kept, done = q.lease_batch(2)
    assert q.clear() == 2
    done.ack()
    kept.nack()
    assert drained(q) == items_upto(1)


def test_cleared_items_do_not_come_back(disk_place: Place) -> None:
    q = disk_place.open()
    q.enqueue_batch(items_upto(9))
    q.clear()
    q.enqueue("after")
    assert list(disk_place.after_a_kill(q)) in ([["after"]] if disk_place.setting.logs else [["after"], []])
    assert drained(disk_place.reopen(q)) == ["after"]


def test_remove_where_takes_what_matches_out_of_both_tiers(place: Place) -> None:
    q = place.open()
    for i in range(15):
        q.enqueue(i, priority=100 + i % 2)
    q.enqueue_front(100)
    assert q.remove_where(lambda item: item % 3 == 0) == 5
    assert q.stats().removed == 5
    assert q.remove_where(lambda item: item % 3 == 0) == 0
    assert drained(q) == [100, 1, 5, 7, 11, 13, 2, 4, 8, 10, 14]


def test_remove_where_sees_each_waiting_item_once_and_in_order(place: Place) -> None:
    q = place.open()
    q.enqueue_batch(range(12))
    delivery = q.lease()
    seen: list[int] = []
    assert q.remove_where(lambda item: bool(seen.append(item))) == 0
    assert seen == list(range(1, 12))
    delivery.nack()
    assert len(q) == 12


def test_removed_items_do_not_come_back(disk_place: Place) -> None:
    q = disk_place.open()
    q.enqueue_batch(range(10))
    q.flush_to_disk()
    q.enqueue_batch(range(10, 14))
    assert q.remove_where(lambda item: item % 2 == 0) == 7
    killed = disk_place.after_a_kill(q)
    survivors = drained(killed)
    assert survivors == [1, 3, 5, 7, 9, 11, 13][: len(survivors)]
    assert len(survivors) >= (7 if disk_place.setting.logs else 5)
    assert drained(disk_place.reopen(q)) == [1, 3, 5, 7, 9, 11, 13]


def test_an_item_removed_just_before_its_turn_is_not_handed_out(disk_place: Place) -> None:
    """A line of several segments compares their next records, so it holds a record that is removed under it."""
    q = disk_place.open()
    q.enqueue("b")
    q = disk_place.reopen(q)
    q.enqueue_front("a")
    q.enqueue("c")
    q.enqueue("d")
    q = disk_place.reopen(q)
    taken = [q.dequeue(), q.dequeue()]
    assert q.remove_where(lambda item: item == "c") == 1
    assert taken + drained(q) == ["a", "b", "d"]


def test_a_predicate_that_raises_stops_there_and_harms_nothing(place: Place) -> None:
    q = place.open()
    q.enqueue_batch(range(6))

    def predicate(item: int) -> bool:
        if item == 4:
            raise RuntimeError("the caller's own fault")
        return item == 1

    with pytest.raises(RuntimeError, match="own fault"):
        q.remove_where(predicate)
    assert drained(q) in ([0, 2, 3, 4, 5], [0, 1, 2, 3, 4, 5])


def test_a_predicate_may_look_at_the_queue(place: Place) -> None:
    q = place.open()
    q.enqueue_batch(range(6))
    assert q.remove_where(lambda item: item == 3 and len(q) > 0 and q.peek() == 0) == 1
    assert drained(q) == [0, 1, 2, 4, 5]


def test_an_expired_item_is_not_removed_but_expires(place: Place) -> None:
    q = place.open()
    q.enqueue("expired", ttl=5)
    q.enqueue("there")
    place.clock._monotonic += 6
    place.clock.jump(6)
    assert q.remove_where(lambda item: True) == 1
    q.cleanup()
    stats = q.stats()
    assert (stats.removed, stats.expired) == (1, 1)


def test_what_is_no_predicate_is_refused(memory_place: Place) -> None:
    with pytest.raises(InvalidOption):
        memory_place.open().remove_where("a string")


# --- space


def test_cleanup_returns_the_space_of_what_is_settled(tiny_place: Place) -> None:
    q = tiny_place.open(max_disk_size=256 * KiB)
    q.enqueue_batch([bytes([i]) * 10 * KiB for i in range(6)])
    for i in range(6, 12):
        q.enqueue(bytes([i]) * 10 * KiB)
    q.flush_to_disk()
    used = q.stats().disk_bytes
    q.dequeue_batch(9)
    assert q.cleanup() > 0
    assert q.stats().disk_bytes < used
    assert [item[0] for item in drained(q)] == [9, 10, 11]


def test_compact_frees_the_space_that_a_few_stuck_items_pin(tiny_place: Place) -> None:
    q = tiny_place.open(max_disk_size=512 * KiB)
    for i in range(32):
        q.enqueue(bytes([i]) * 10 * KiB)
    q.flush_to_disk()
    assert q.remove_where(lambda item: item[0] % 8 != 0) == 28
    q.cleanup()
    used = q.stats().disk_bytes
    assert q.compact() > 0
    assert q.stats().disk_bytes < used
    assert q.stats().disk_bytes < 200 * KiB, "four items of 10 KiB are left"
    assert [item[0] for item in drained(tiny_place.reopen(q, max_disk_size=512 * KiB))] == [0, 8, 16, 24]


def test_compaction_keeps_order_priorities_front_leases_attempts_and_expiry(tiny_place: Place) -> None:
    options = {"max_disk_size": 512 * KiB, "lease_timeout": 1000}
    q = tiny_place.open(**options)
    for i in range(24):
        q.enqueue(bytes([i]) * 8 * KiB, priority=100 + i % 2, ttl=500 if i % 3 == 0 else None)
    q.enqueue_front(b"\xff" * 8 * KiB, priority=100)
    q.flush_to_disk()
    q.lease().nack()
    held = q.lease()
    assert held.item[0] == 1 and held.attempts == 2
    q.remove_where(lambda item: item[0] % 4 == 0 and item[0] != 0xFF)
    order = [item[0] for item in q]
    q.compact()
    assert [item[0] for item in q] == order
    held.nack()
    q = tiny_place.reopen(q, **options)
    assert [item[0] for item in q] == [1, *order]
    again = q.lease()
    assert (again.item[0], again.attempts, again.id) == (1, 3, held.id)
    again.nack()
    tiny_place.clock.advance(501)
    assert [item[0] for item in drained(q)] == [i for i in [1, *order] if i == 0xFF or i % 3]


def test_compacting_and_cleaning_an_untouched_queue_changes_nothing(place: Place) -> None:
    q = place.open()
    assert q.cleanup() == 0 and q.compact() == 0
    q.enqueue_batch(items_upto(9))
    assert q.cleanup() == 0
    q.compact()
    assert drained(q) == items_upto(9)
