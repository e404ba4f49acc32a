"""Batches by time: up to n items, or what came within `linger` seconds of the first one; what was not handed out is at its place.

Where a batch waits, its steps are taken here by hand, so that the time is handed in and nobody sleeps.
"""
from __future__ import annotations

import threading
from datetime import timedelta
from typing import Any

from patience import until
import pytest
from conftest import Place, drained, items_upto

from overspill import Durability, HybridQueue, InvalidOption, QueueClosed
from overspill._runtime.clock import ManualClock
from overspill._runtime.commit import Follower


class Collecting:
    """A batch on its way, and whom it waits for."""

    def __init__(self, queue: HybridQueue, n: int, linger_s: float) -> None:
        self._steps = queue._collecting(n, linger_s)
        self.timeout: float | None = None
        self.batch: list[Any] | None = None

    def go_on(self) -> Collecting:
        """Up to where it waits for an item, or to its end; a sync is waited for."""
        try:
            waiter, self.timeout = next(self._steps)
            while isinstance(waiter, Follower):
                waiter.wait()
                waiter, self.timeout = next(self._steps)
        except StopIteration as end:
            self.batch = end.value
        return self

    def interrupt(self, interruption: BaseException) -> None:
        self._steps.throw(interruption)

    def abandon(self) -> None:
        self._steps.close()


def test_a_full_batch_does_not_linger_and_what_is_left_comes_when_the_queue_closes(place: Place) -> None:
    q = place.open()
    line = items_upto(8)
    q.enqueue_batch(line)
    batches = q.batches(3, linger=3600)
    assert next(batches) == line[:3]
    assert next(batches) == line[3:6]
    q._stop_intake()
    assert list(batches) == [line[6:]]
    assert q.stats().dequeued == 8


def test_without_linger_a_batch_is_what_is_there(place: Place) -> None:
    q = place.open()
    line = items_upto(5)
    q.enqueue_batch(line[:3])
    batches = q.batches()
    assert next(batches) == line[:3]
    q.enqueue_batch(line[3:])
    assert next(batches) == line[3:]


def test_an_unfinished_batch_is_handed_out_when_its_time_is_up(place: Place) -> None:
    q = place.open()
    collecting = Collecting(q, 10, 5.0).go_on()
    assert collecting.timeout is None, "the first item is waited for as long as it takes"
    q.enqueue("first")
    assert collecting.go_on().timeout == 5.0
    place.clock.advance(2)
    q.enqueue("second")
    assert collecting.go_on().timeout == 3.0
    assert len(q) == 0 and q.stats().in_flight == 2
    place.clock.advance(3)
    q.enqueue("in the very moment")
    assert collecting.go_on().batch == ["first", "second", "in the very moment"]
    assert q.stats().in_flight == 0 and q.stats().dequeued == 3


def test_a_batch_is_complete_as_soon_as_it_has_n_items(place: Place) -> None:
    q = place.open()
    line = items_upto(6)
    q.enqueue_batch(line[:2])
    collecting = Collecting(q, 4, 5.0).go_on()
    q.enqueue_batch(line[2:])
    assert collecting.go_on().batch == line[:4]
    assert drained(q) == line[4:]


def test_priority_decides_within_what_is_there(place: Place) -> None:
    q = place.open()
    q.enqueue_with_priority("low", 10)
    collecting = Collecting(q, 9, 1.0).go_on()
    q.enqueue_with_priority("normal", 100)
    q.enqueue_with_priority("high", 200)
    place.clock.advance(1)
    assert collecting.go_on().batch == ["low", "high", "normal"]


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, GeneratorExit])
def test_a_batch_that_is_interrupted_puts_everything_back_in_its_old_place(place: Place, interruption: type[BaseException]) -> None:
    q = place.open()
    line = items_upto(5)
    q.enqueue_batch(line[:3])
    collecting = Collecting(q, 10, 5.0).go_on()
    q.enqueue_batch(line[3:])
    if interruption is GeneratorExit:
        collecting.abandon()
    else:
        with pytest.raises(KeyboardInterrupt):
            collecting.interrupt(KeyboardInterrupt())
    assert list(q) == line
    assert q.stats().in_flight == 0 and len(q._takers) == 0
    assert drained(q) == line


def test_a_batch_under_power_that_is_interrupted_before_its_sync_is_back_in_line(quick_path: Any) -> None:
    clock = ManualClock()
    with HybridQueue("q", quick_path, durability=Durability.POWER, _clock=clock, _background=False) as q:
        line = items_upto(3)
        q.enqueue_batch(line)
        steps = q._collecting(10, 5.0)
        next(steps)
        clock.advance(5)
        waiter, _ = next(steps)
        assert isinstance(waiter, Follower), "the batch is settled and waits for its sync"
        with pytest.raises(KeyboardInterrupt):
            waiter, _ = steps.throw(KeyboardInterrupt())
            while True:
                waiter.wait()
                waiter, _ = next(steps)
        assert list(q) == line and q.stats().in_flight == 0
        assert drained(q) == line


def test_leaving_the_loop_loses_nothing_that_was_not_handed_out(place: Place) -> None:
    q = place.open()
    line = items_upto(7)
    q.enqueue_batch(line)
    for batch in q.batches(2, linger=1):
        assert batch == line[:2]
        break
    assert drained(q) == line[2:]


def test_a_queue_that_is_draining_does_not_linger(place: Place) -> None:
    q = place.open()
    line = items_upto(3)
    q.enqueue_batch(line)
    got: list[list[Any]] = []
    consumer = threading.Thread(target=lambda: got.extend(q.batches(10, linger=timedelta(hours=1))))
    consumer.start()
    until(lambda: len(q) == 0 and len(q._takers) == 1)
    q.close(drain=3600)
    consumer.join()
    assert got == [line]
    if place.setting.on_disk:
        assert drained(place.open()) == []


def test_what_is_being_collected_when_the_queue_closes_is_delivered_or_there_at_the_next_opening(place: Place) -> None:
    q = place.open()
    line = items_upto(4)
    q.enqueue_batch(line)
    collecting = Collecting(q, 10, 5.0).go_on()
    q.close()
    if place.setting.on_disk:
        with pytest.raises(QueueClosed):
            collecting.go_on()
        assert drained(place.open()) == line
    else:
        assert collecting.go_on().batch == line


def test_what_is_being_collected_when_the_process_is_killed_is_there_afterwards(disk_place: Place) -> None:
    if not disk_place.setting.logs:
        return
    q = disk_place.open()
    line = items_upto(4)
    q.enqueue_batch(line)
    collecting = Collecting(q, 10, 5.0).go_on()
    assert drained(disk_place.after_a_kill(q)) == line
    disk_place.clock.advance(5)
    assert collecting.go_on().batch == line
    assert drained(disk_place.after_a_kill(q)) == []


def test_a_drain_waits_for_an_item_that_is_leased(place: Place) -> None:
    q = place.open()
    q.enqueue("tried in vain")
    delivery = q.lease()
    collecting = Collecting(q, 10, 0.0)
    q._stop_intake()
    assert collecting.go_on().batch is None
    delivery.nack()
    assert collecting.go_on().batch == ["tried in vain"]


def test_an_item_that_expires_while_a_batch_lingers_was_taken_in_time(place: Place) -> None:
    q = place.open()
    q.enqueue("short-lived", ttl=1)
    collecting = Collecting(q, 10, 5.0).go_on()
    place.clock.advance(5)
    assert collecting.go_on().batch == ["short-lived"]


def test_collecting_does_not_count_as_an_attempt(place: Place) -> None:
    q = place.open(max_attempts=1) if place.setting.on_disk else place.open()
    q.enqueue("x")
    for _ in range(3):
        Collecting(q, 10, 5.0).go_on().abandon()
    assert q.lease().attempts == 1
    assert len(q.dead_letters) == 0


@pytest.mark.parametrize("bad", [{"n": 0}, {"n": True}, {"n": 1.5}, {"linger": -1}, {"linger": "soon"}, {"linger": float("nan")}, {"linger": float("inf")}])
def test_wrong_numbers_are_refused_before_anything_is_taken(memory_place: Place, bad: dict[str, Any]) -> None:
    q = memory_place.open()
    q.enqueue("x")
    with pytest.raises(InvalidOption):
        q.batches(**bad)
    assert len(q) == 1


def test_a_batch_under_power_costs_one_sync(quick_path: Any) -> None:
    with HybridQueue("q", quick_path, durability=Durability.POWER) as q:
        q.enqueue_batch(items_upto(50))
        before = q.stats().syncs
        assert next(q.batches(60)) == items_upto(50)
        assert q.stats().syncs == before + 1
        q.enqueue_batch(items_upto(50))
        assert next(q.batches(60, linger=0.001)) == items_upto(50)
        assert q.stats().syncs == before + 3


def test_two_consumers_share_a_line_and_nobody_gets_an_item_twice(place: Place) -> None:
    q = place.open()
    got: list[list[Any]] = [[], []]

    def consume(mine: list[Any]) -> None:
        for batch in q.batches(4, linger=0):
            mine += batch

    consumers = [threading.Thread(target=consume, args=(mine,)) for mine in got]
    for consumer in consumers:
        consumer.start()
    line = list(range(60))
    for item in line:
        q.enqueue(item)
    q.close(drain=3600)
    for consumer in consumers:
        consumer.join()
    assert sorted(got[0] + got[1]) == line
    assert got[0] == sorted(got[0]) and got[1] == sorted(got[1])
