"""An item that has expired is never handed out, wherever it lies, and is counted exactly once."""
from __future__ import annotations

from datetime import timedelta

from pathlib import Path

import pytest
from conftest import Place, drained, items_upto

from overspill import HybridQueue, KiB, QueueEmpty
from overspill._runtime.clock import ManualClock


def test_an_expired_item_at_the_head_is_skipped(place: Place) -> None:
    q = place.open()
    q.enqueue("short", ttl=10)
    q.enqueue("long", ttl=timedelta(seconds=100))
    q.enqueue("for ever")
    place.clock.advance(11)
    assert q.peek() == "long"
    assert q.dequeue() == "long"
    assert drained(q) == ["for ever"]
    assert q.stats().expired == 1


def test_expired_items_in_the_middle_are_skipped_in_every_way_of_taking_and_looking(place: Place) -> None:
    q = place.open()
    for i, item in enumerate(items_upto(12)):
        q.enqueue(item, ttl=10 if i % 3 == 1 else None)
    place.clock._monotonic += 11
    place.clock.jump(11)  # nothing that is due has been done yet
    rest = [item for i, item in enumerate(items_upto(12)) if i % 3 != 1]
    assert list(q) == rest
    assert [q.dequeue(), q.lease().item, *q.dequeue_batch(2)] == rest[:4]
    assert drained(q) == rest[4:]


def test_when_everything_has_expired_the_queue_is_empty(place: Place) -> None:
    q = place.open(ttl=10)
    q.enqueue_batch(items_upto(9))
    place.clock.advance(11)
    for take in (q.peek, q.try_dequeue, lambda: q.lease(timeout=0)):
        with pytest.raises(QueueEmpty):
            take()
    assert q.dequeue_batch(5) == []
    assert len(q) == 0
    assert q.stats().expired == 9


def test_the_queue_has_a_default_that_an_item_may_override(place: Place) -> None:
    q = place.open(ttl=10)
    q.enqueue("default")
    q.enqueue("longer", ttl=60)
    q.enqueue_batch(["batch", "batch too"], ttl=60)
    place.clock.advance(11)
    assert drained(q) == ["longer", "batch", "batch too"]


def test_cleanup_lets_all_that_has_expired_leave_now(place: Place) -> None:
    q = place.open()
    for i, item in enumerate(items_upto(20)):
        q.enqueue(item, ttl=10 if i % 2 else 100)
    q.enqueue_front("front", ttl=10)
    place.clock.advance(11)
    assert q.cleanup() >= 0
    assert len(q) == 10
    assert q.stats().expired == 11
    assert drained(q) == items_upto(20)[::2]


def test_expiry_is_written_down_and_holds_after_reopening(disk_place: Place) -> None:
    q = disk_place.open()
    q.enqueue("short", ttl=10)
    q.enqueue("long", ttl=100)
    q = disk_place.reopen(q)
    disk_place.clock.advance(11)
    assert drained(q) == ["long"]
    assert q.stats().expired == 1


def test_what_expired_while_the_queue_was_closed_does_not_come_back(disk_place: Place) -> None:
    q = disk_place.open(ttl=10)
    q.enqueue_batch(items_upto(5))
    q.close()
    disk_place.clock.advance(3600)
    q = disk_place.open(ttl=10)
    q.cleanup()
    assert len(q) == 0 and list(q) == []


def test_a_clock_that_goes_back_revives_nothing_that_was_reported_expired(disk_place: Place) -> None:
    q = disk_place.open()
    q.enqueue("gone", ttl=10)
    q.enqueue("there", ttl=1000)
    disk_place.clock.advance(11)
    q.cleanup()
    assert q.stats().expired == 1
    disk_place.clock.jump(-500)
    assert list(q) == ["there"]
    assert drained(disk_place.after_a_kill(disk_place.reopen(q))) == ["there"]


def test_a_leased_item_may_be_acknowledged_after_its_time(place: Place) -> None:
    q = place.open(lease_timeout=100)
    q.enqueue("in hand", ttl=10)
    delivery = q.lease()
    place.clock.advance(11)
    delivery.ack()
    assert (q.stats().dequeued, q.stats().expired) == (1, 0)


def test_a_leased_item_that_is_returned_after_its_time_is_not_handed_out_again(place: Place) -> None:
    q = place.open(lease_timeout=100)
    q.enqueue("too late", ttl=10)
    q.enqueue("next")
    delivery = q.lease()
    place.clock.advance(11)
    delivery.nack()
    assert q.dequeue() == "next"
    q.cleanup()
    assert len(q) == 0 and q.stats().expired == 1


def test_a_front_item_may_expire(place: Place) -> None:
    q = place.open()
    q.enqueue("stays")
    q.enqueue_front("goes", ttl=10)
    place.clock.advance(11)
    assert drained(q) == ["stays"]


def test_on_expired_is_told_of_each_item_once_and_may_call_the_queue(place: Place) -> None:
    told: list[tuple[str, int]] = []
    q = place.open(on_expired=lambda item: told.append((item, len(q))))
    for i, item in enumerate(items_upto(8)):
        q.enqueue(item, ttl=10 if i % 2 else None)
    place.clock.advance(11)
    assert drained(q) == items_upto(8)[::2]
    q.cleanup()
    assert sorted(item for item, _ in told) == sorted(items_upto(8)[1::2])
    assert q.stats().expired == 4


def test_a_whole_expired_segment_leaves_unread_and_gives_its_space_back(tiny_place: Place) -> None:
    q = tiny_place.open(max_disk_size=256 * KiB, ttl=10)
    for i in range(8):
        q.enqueue(bytes([i]) * 12 * KiB)
    q.flush_to_disk()
    tiny_place.clock.advance(5)
    q.enqueue_batch([b"stays"] * 3)
    for _ in range(9):  # seal what is full
        tiny_place.clock._monotonic += 2
        q._work()
    used = q.stats().disk_bytes
    tiny_place.clock.jump(6)
    assert q.cleanup() > 0
    assert q.stats().disk_bytes < used
    assert q.stats().expired == 8
    assert drained(q) == [b"stays"] * 3


def test_survivors_keep_their_order_whatever_expired_between_them(place: Place) -> None:
    q = place.open()
    for i in range(30):
        q.enqueue(i, ttl=None if i % 5 == 0 else 5, priority=(100, 150)[i % 2])
    place.clock.advance(6)
    q.enqueue("after", priority=100)
    assert drained(q) == [5, 15, 25, 0, 10, 20, "after"]


def test_a_segment_in_which_all_has_expired_leaves_unread_while_an_item_of_another_is_leased(quick_path: Path) -> None:
    clock = ManualClock()
    with HybridQueue("q", quick_path, ttl=60, memory_size=1, lease_timeout=10_000, _clock=clock, _background=False) as q:
        for _ in range(1200):
            q.enqueue(b"old" + bytes(3000))
        while q._log.seal_next(q._next_sequence):
            pass
        sealed = [segment for segment in q._log.in_order() if segment.footer is not None]
        assert sealed
        q.enqueue(b"young", priority=200, ttl=10_000)
        clock.advance(61)
        with q.lease() as leased:
            assert leased.item == b"young"
            assert q._expire_segments() == sum(segment.footer.count for segment in sealed)
        q.cleanup()
        assert len(q) == 0 and q.stats().expired == 1200
