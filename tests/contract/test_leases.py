"""A lease is an item in somebody's hands: it is theirs until it is acknowledged, returned, or its time is up, and then it is first in line again."""
from __future__ import annotations

import time
import uuid
from datetime import timedelta

import pytest
from conftest import Place, drained, items_upto

from overspill import InvalidOption, LeaseExpired, Priority, QueueEmpty


def test_an_acknowledged_item_is_gone(place: Place) -> None:
    q = place.open()
    q.enqueue_batch(items_upto(4))
    delivery = q.lease()
    assert delivery.item == items_upto(1)[0]
    assert len(q) == 3 and q.stats().in_flight == 1
    delivery.ack()
    assert q.stats().in_flight == 0
    assert q.stats().dequeued == 1
    assert drained(q) == items_upto(4)[1:]


def test_a_delivery_says_what_was_delivered(place: Place) -> None:
    q = place.open()
    q.enqueue("task", priority=Priority.HIGH)
    enqueued_at = place.clock.wall_ns / 1e9
    place.clock.advance(5)
    delivery = q.lease()
    assert delivery.item == "task"
    assert isinstance(delivery.id, uuid.UUID) and delivery.id.version == 7
    assert delivery.attempts == 1
    assert delivery.enqueued_at == pytest.approx(enqueued_at, abs=0.01)
    assert delivery.priority == Priority.HIGH


def test_ids_are_the_same_at_every_delivery_and_differ_between_items(place: Place) -> None:
    q = place.open()
    q.enqueue_batch(items_upto(5))
    first = {delivery.item: delivery.id for delivery in nacked(q.lease_batch(5))}
    q.flush_to_disk()
    second = {delivery.item: delivery.id for delivery in nacked(q.lease_batch(5))}
    assert first == second
    assert len(set(first.values())) == 5


def test_a_returned_item_takes_its_old_place(place: Place) -> None:
    q = place.open()
    line = items_upto(8)
    q.enqueue_batch(line)
    deliveries = q.lease_batch(5)
    q.enqueue("new")
    for i in (3, 0, 4, 1):
        deliveries[i].nack()
    assert list(q) == [line[0], line[1], line[3], line[4], *line[5:], "new"]
    deliveries[2].nack()
    assert drained(q) == [*line, "new"]


def test_returned_items_of_several_priorities_and_from_the_front_find_their_places(place: Place) -> None:
    q = place.open()
    for item in ("n1", "n2"):
        q.enqueue(item)
    for item in ("h1", "h2"):
        q.enqueue(item, priority=200)
    q.enqueue_front("f1")
    q.enqueue_front("f2")
    order = ["h1", "h2", "f2", "f1", "n1", "n2"]
    deliveries = q.lease_batch(6)
    assert [delivery.item for delivery in deliveries] == order
    q.enqueue_front("f3")
    for delivery in (deliveries[i] for i in (5, 2, 0, 4, 1, 3)):
        delivery.nack()
        q.flush_to_disk()
    assert drained(q) == ["h1", "h2", "f3", "f2", "f1", "n1", "n2"]


def test_a_with_block_acknowledges_on_success_and_returns_on_an_exception(place: Place) -> None:
    q = place.open()
    q.enqueue_batch(["good", "bad"])
    with q.lease() as delivery:
        assert delivery.item == "good"
    with pytest.raises(RuntimeError, match="upload failed"), q.lease() as delivery:
        raise RuntimeError("upload failed")
    assert q.lease().attempts == 2
    assert q.stats().dequeued == 1


@pytest.mark.parametrize("verb", ["ack", "nack"])
def test_a_with_block_leaves_alone_what_was_settled_inside(tiny_place: Place, verb: str) -> None:
    q = tiny_place.open()
    q.enqueue("decided inside")
    with q.lease() as delivery:
        getattr(delivery, verb)()
    assert len(q) == (0 if verb == "ack" else 1)
    assert q.stats().in_flight == 0


def test_attempts_count_every_delivery_whatever_happened_in_between(place: Place) -> None:
    q = place.open()
    q.enqueue_batch(["again and again", "second", "third", "fourth"])
    for attempt in range(1, 5):
        delivery = q.lease()
        assert (delivery.item, delivery.attempts) == ("again and again", attempt)
        delivery.nack()
        if attempt == 2:
            q.flush_to_disk()
    other = q.lease_batch(2)
    assert [delivery.attempts for delivery in other] == [5, 1]


def test_attempts_survive_reopening(disk_place: Place) -> None:
    q = disk_place.open()
    q.enqueue_batch(items_upto(3))
    q.lease().nack()
    q.lease().nack()
    q = disk_place.reopen(q)
    assert [delivery.attempts for delivery in q.lease_batch(3)] == [3, 1, 1]
    q = disk_place.reopen(q)
    assert [delivery.attempts for delivery in q.lease_batch(3)] == [4, 2, 2]


def test_attempts_survive_a_kill(disk_place: Place) -> None:
    q = disk_place.open()
    q.enqueue_batch(items_upto(3))
    q.flush_to_disk()
    q.lease().nack()
    killer = q.lease()
    assert killer.attempts == 2
    q = disk_place.after_a_kill(q)
    assert q.lease().attempts == 3, "an item that kills its consumer must not be tried for ever"


def test_attempts_stop_counting_at_255_and_stay_there(tiny_place: Place) -> None:
    q = tiny_place.open()
    q.enqueue("x")
    for _ in range(257):
        delivery = q.lease()
        delivery.nack()
    assert delivery.attempts == 255


def test_a_lease_runs_out_and_the_item_is_first_in_line_again(place: Place) -> None:
    q = place.open(lease_timeout=30.0)
    q.enqueue_batch(items_upto(4))
    delivery = q.lease()
    place.clock.advance(29.9)
    assert len(q) == 3
    place.clock.advance(0.2)
    assert len(q) == 4
    assert q.stats().redelivered == 1
    again = q.lease()
    assert (again.item, again.attempts, again.id) == (delivery.item, 2, delivery.id)


@pytest.mark.parametrize("verb", ["ack", "nack", "extend"])
def test_whoever_is_late_is_told(tiny_place: Place, verb: str) -> None:
    q = tiny_place.open(lease_timeout=10)
    q.enqueue("slow work")
    delivery = q.lease()
    tiny_place.clock.advance(11)
    with pytest.raises(LeaseExpired, match=verb):
        getattr(delivery, verb)(*([5] if verb == "extend" else []))
    assert drained(q) == ["slow work"]


def test_a_late_ack_is_late_even_if_nobody_has_looked_yet(place: Place) -> None:
    q = place.open(lease_timeout=10)
    q.enqueue("slow work")
    delivery = q.lease()
    place.clock._monotonic += 11  # time passes, and nothing that is due has been done
    with pytest.raises(LeaseExpired):
        delivery.ack()
    assert q.lease(timeout=0).attempts == 2


def test_a_late_ack_cannot_take_the_item_from_its_next_holder(place: Place) -> None:
    q = place.open(lease_timeout=10)
    q.enqueue("contested")
    late = q.lease()
    place.clock.advance(11)
    current = q.lease()
    for verb in (late.ack, late.nack):
        with pytest.raises(LeaseExpired):
            verb()
    current.ack()
    assert len(q) == 0 and q.stats().dequeued == 1


def test_settling_twice_is_late_the_second_time(place: Place) -> None:
    q = place.open()
    q.enqueue_batch(["a", "b"])
    first, second = q.lease_batch(2)
    first.ack()
    second.nack()
    for verb in (first.ack, first.nack, second.ack, second.nack, lambda: first.extend(1)):
        with pytest.raises(LeaseExpired):
            verb()
    assert drained(q) == ["b"]


def test_extending_holds_an_item_from_now_on(place: Place) -> None:
    q = place.open(lease_timeout=10)
    q.enqueue("long work")
    delivery = q.lease()
    for extra in (30, timedelta(seconds=30)):
        place.clock.advance(9)
        delivery.extend(extra)
        place.clock.advance(20)
        assert len(q) == 0
    delivery.ack()
    assert q.stats().dequeued == 1


def test_an_extended_lease_runs_out_as_well_and_may_be_shortened(tiny_place: Place) -> None:
    q = tiny_place.open(lease_timeout=100)
    q.enqueue("long work")
    delivery = q.lease()
    delivery.extend(5)
    tiny_place.clock.advance(6)
    assert len(q) == 1
    with pytest.raises(LeaseExpired):
        delivery.ack()


def test_leases_end_one_by_one_each_at_its_own_time(place: Place) -> None:
    q = place.open(lease_timeout=10)
    q.enqueue_batch(items_upto(4))
    for _ in range(4):
        q.lease()
        place.clock.advance(3)
    assert list(q) == items_upto(1)
    place.clock.advance(3)
    assert list(q) == items_upto(2)
    place.clock.advance(30)
    assert drained(q) == items_upto(4)


def test_a_wall_clock_that_is_set_moves_no_lease(place: Place) -> None:
    q = place.open(lease_timeout=10)
    q.enqueue("held")
    delivery = q.lease()
    place.clock.jump(3600)
    q._work()
    place.clock.jump(-7200)
    q._work()
    assert len(q) == 0
    delivery.ack()


def test_lease_batch_is_in_order_at_most_that_long_and_each_is_settled_by_itself(place: Place) -> None:
    q = place.open()
    line = items_upto(7)
    q.enqueue_batch(line)
    deliveries = q.lease_batch(5)
    assert [delivery.item for delivery in deliveries] == line[:5]
    for delivery in deliveries[::2]:
        delivery.ack()
    for delivery in deliveries[1::2]:
        delivery.nack()
    assert drained(q) == [line[1], line[3], line[5], line[6]]
    assert q.lease_batch(5) == []


def test_leases_out_at_a_kill_come_back_and_settled_ones_do_not(disk_place: Place) -> None:
    q = disk_place.open()
    line = items_upto(6)
    q.enqueue_batch(line)
    q.flush_to_disk()
    acked, returned, *held = q.lease_batch(4)
    acked.ack()
    returned.nack()
    q = disk_place.after_a_kill(q)
    assert q.recovery.items == 5
    assert drained(q) == line[1:]


def test_what_was_leased_at_the_close_comes_back_in_its_place(disk_place: Place) -> None:
    q = disk_place.open()
    line = items_upto(6)
    q.enqueue_batch(line)
    held = q.lease_batch(3)
    held[1].ack()
    q = disk_place.reopen(q)
    assert drained(q) == [line[0], *line[2:]]


def test_a_lease_outlives_its_queue_as_an_error_and_nothing_else(disk_place: Place) -> None:
    from overspill import QueueClosed

    q = disk_place.open()
    q.enqueue("x")
    delivery = q.lease()
    q.close()
    for verb in (delivery.ack, delivery.nack, lambda: delivery.extend(5)):
        with pytest.raises((QueueClosed, LeaseExpired)):
            verb()
    assert len(disk_place.open()) == 1


def test_dropping_a_delivery_object_settles_nothing(place: Place) -> None:
    q = place.open(lease_timeout=10)
    q.enqueue("x")
    q.lease()
    assert q.stats().in_flight == 1
    place.clock.advance(11)
    assert drained(q) == ["x"]


def test_an_empty_queue_has_nothing_to_lease(place: Place) -> None:
    q = place.open()
    with pytest.raises(QueueEmpty):
        q.lease(timeout=0)
    q.enqueue("only")
    q.lease()
    with pytest.raises(QueueEmpty):
        q.lease(timeout=0)
    with pytest.raises(QueueEmpty):
        q.dequeue(timeout=0)


def test_bad_times_are_refused_and_leave_the_lease_as_it_was(tiny_place: Place) -> None:
    q = tiny_place.open()
    q.enqueue("x")
    delivery = q.lease()
    for bad in (0, -1, float("nan"), "soon"):
        with pytest.raises(InvalidOption):
            delivery.extend(bad)
    with pytest.raises(InvalidOption):
        delivery.nack(delay=-1)
    delivery.ack()


def test_a_lease_that_runs_out_wakes_the_background_without_polling(tmp_path) -> None:
    """The one test here with a real clock and the real background thread: it waits for an event, not for a time."""
    from overspill import HybridQueue

    with HybridQueue("q", tmp_path, lease_timeout=0.05) as q:
        q.enqueue("x")
        q.lease()
        began = time.monotonic()
        again = q.lease(timeout=30)
        assert again.attempts == 2
        assert time.monotonic() - began >= 0.04


def nacked(deliveries: list) -> list:
    for delivery in deliveries:
        delivery.nack()
    return deliveries
