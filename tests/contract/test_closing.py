"""Closing: new items are refused at once, what is left can still be taken, everything is kept."""
from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from patience import until
import pytest
from conftest import Place, drained, items_upto

from overspill import HybridQueue, QueueClosed


def test_five_items_closed_and_opened_again_are_the_same_five_in_order(disk_place: Place) -> None:
    q = disk_place.open()
    q.enqueue_batch(items_upto(5))
    q = disk_place.reopen(q)
    assert q.recovery.items == 5
    assert q.stats().recovered == 5
    assert drained(q) == items_upto(5)


def test_closing_twice_does_nothing(place: Place) -> None:
    q = place.open()
    q.enqueue("x")
    q.close()
    q.close()
    q.close(drain=1)


def test_every_verb_of_a_closed_queue_says_closed(place: Place) -> None:
    q = place.open()
    q.enqueue("left behind")
    q.close()
    verbs: list[Any] = [
        lambda: q.enqueue("x"), lambda: q.enqueue_batch(["x"]), lambda: q.enqueue_front("x"), q.dequeue, lambda: q.dequeue(timeout=0), q.try_dequeue,
        lambda: q.dequeue_batch(1), q.peek, lambda: list(q), lambda: list(q.snapshot()), q.lease, lambda: q.lease(timeout=0), lambda: q.lease_batch(1), q.batches, q.flush_to_disk,
        lambda: q.flush_oldest(1), q.compact_memory, q.shrink_memory, lambda: q.set_memory_limit(1000), q.sync, q.cleanup, q.compact, q.clear,
        lambda: q.remove_where(bool), q.__enter__,
    ]
    for verb in verbs:
        with pytest.raises(QueueClosed):
            verb()
    assert "closed" in repr(q)
    if place.setting.on_disk:
        assert drained(place.open()) == ["left behind"]


def test_a_with_block_closes(disk_place: Place) -> None:
    with disk_place.open() as q:
        q.enqueue_batch(items_upto(3))
    with pytest.raises(QueueClosed):
        q.enqueue("late")
    with disk_place.open() as q:
        assert drained(q) == items_upto(3)


def test_a_with_block_closes_after_an_exception_too(place: Place) -> None:
    with pytest.raises(RuntimeError, match="in the block"), place.open() as q:
        q.enqueue("kept")
        raise RuntimeError("in the block")
    assert q.closed
    if place.setting.on_disk:
        assert drained(place.open()) == ["kept"]


def test_opening_and_closing_without_an_item_leaves_an_empty_queue(disk_place: Place) -> None:
    q = disk_place.open()
    for _ in range(3):
        q = disk_place.reopen(q)
        assert len(q) == 0 and q.recovery.items == 0
        assert q.recovery.torn_bytes == q.recovery.quarantined == 0


def test_many_generations_keep_what_each_put(disk_place: Place) -> None:
    q = disk_place.open()
    expected: list[Any] = []
    for generation in range(6):
        new = [(generation, i) for i in range(5)]
        q.enqueue_batch(new)
        expected += new
        assert q.dequeue_batch(3) == expected[:3]
        del expected[:3]
        q = disk_place.reopen(q)
        assert list(q) == expected
    assert drained(q) == expected


def test_every_kind_of_place_in_line_survives_reopening(disk_place: Place) -> None:
    q = disk_place.open()
    for i, item in enumerate(items_upto(12)):
        q.enqueue(item, priority=100 + i % 3)
    q.enqueue_front("front", priority=102)
    q.flush_oldest(3)
    q.enqueue_front("front of front", priority=102)
    for delivery in q.lease_batch(4)[::-1]:
        delivery.nack()
    assert q.dequeue() == "front of front"
    order = list(q)
    assert order[0] == "front"
    q = disk_place.reopen(q)
    assert list(q) == order
    q.enqueue("at the end", priority=100)
    q.enqueue_front("before all", priority=102)
    assert drained(disk_place.reopen(q)) == ["before all", *order, "at the end"]


def test_an_item_put_in_front_after_reopening_comes_before_earlier_front_items(disk_place: Place) -> None:
    q = disk_place.open()
    q.enqueue_batch(["a", "b"])
    q.enqueue_front("1")
    q = disk_place.reopen(q)
    q.enqueue_front("2")
    q = disk_place.reopen(q)
    q.enqueue_front("3")
    assert drained(q) == ["3", "2", "1", "a", "b"]


# --- consumers and producers that wait while the queue closes: real threads, real events


@pytest.fixture
def threads() -> Any:
    """Start functions in threads; their outcomes are looked at when all are done."""
    started: list[tuple[threading.Thread, list[Any]]] = []

    def start(function: Any) -> list[Any]:
        outcome: list[Any] = []

        def run() -> None:
            try:
                outcome.append(function())
            except BaseException as error:
                outcome.append(error)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        started.append((thread, outcome))
        return outcome

    start.join = lambda: [thread.join(30) for thread, _ in started]  # type: ignore[attr-defined]
    yield start
    start.join()  # type: ignore[attr-defined]
    assert not [thread for thread, _ in started if thread.is_alive()], "somebody waits for ever"


@pytest.mark.parametrize("wait", [lambda q: q.dequeue(), lambda q: q.lease(), lambda q: q.dequeue_batch(3, timeout=None), lambda q: q.lease_batch(3, timeout=None)])
def test_waiting_consumers_are_told_when_the_queue_closes(tiny_place: Place, threads: Any, wait: Any) -> None:
    q = tiny_place.open()
    outcomes = [threads(lambda: wait(q)) for _ in range(3)]
    until(lambda: q._n_takers == 3)
    q.close()
    threads.join()
    assert [type(outcome[0]) for outcome in outcomes] == [QueueClosed] * 3


def test_what_is_left_can_be_taken_until_close_returns(tiny_place: Place, threads: Any) -> None:
    q = tiny_place.open()
    q.enqueue_batch(items_upto(6))
    closing = threads(lambda: q.close(drain=30))
    until(lambda: q.closed)
    with pytest.raises(QueueClosed):
        q.enqueue("too late")
    taken = [q.dequeue(timeout=0), q.try_dequeue(), *q.dequeue_batch(2)]
    with q.lease() as delivery:
        taken.append(delivery.item)
    taken.append(q.dequeue())
    threads.join()
    assert closing == [None]
    assert taken == items_upto(6)
    with pytest.raises(QueueClosed):
        q.dequeue()


def test_draining_consumers_get_what_is_left_and_then_closed(tiny_place: Place, threads: Any) -> None:
    q = tiny_place.open()
    q.enqueue_batch(range(50))

    def consume() -> list[Any]:
        taken = []
        while True:
            try:
                taken.append(q.dequeue())
            except QueueClosed:
                return taken

    outcomes = [threads(consume) for _ in range(2)]
    q.close(drain=30)
    threads.join()
    assert sorted(outcomes[0][0] + outcomes[1][0]) == list(range(50))


def test_a_drain_that_runs_out_of_time_keeps_the_rest(disk_place: Place) -> None:
    q = disk_place.open()
    q.enqueue_batch(items_upto(5))
    q.close(drain=0)
    assert drained(disk_place.open()) == items_upto(5)


def test_a_drain_waits_for_leases_to_be_settled(tiny_place: Place, threads: Any) -> None:
    q = tiny_place.open()
    q.enqueue("in work")
    delivery = q.lease()
    closing = threads(lambda: q.close(drain=30))
    until(lambda: q.closed)
    delivery.ack()
    threads.join()
    assert closing == [None]
    assert len(tiny_place.open()) == 0


def test_an_item_returned_during_a_drain_goes_to_another_consumer(tiny_place: Place, threads: Any) -> None:
    q = tiny_place.open()
    q.enqueue("second chance")
    delivery = q.lease()
    other = threads(q.dequeue)
    until(lambda: q._n_takers == 1)
    threads(lambda: q.close(drain=30))
    until(lambda: q.closed)
    delivery.nack()
    threads.join()
    assert other == ["second chance"]


def test_a_producer_that_waits_for_room_is_told(memory_place: Place, threads: Any) -> None:
    from overspill import WhenFull

    q = memory_place.open(memory_size=1, when_full=WhenFull.BLOCK)
    q.enqueue("full")
    waiting = threads(lambda: q.enqueue("waits for room"))
    until(lambda: q._n_makers == 1)
    q.close()
    threads.join()
    assert type(waiting[0]) is QueueClosed


def test_a_producer_that_waits_for_the_rate_is_told(memory_place: Place, threads: Any) -> None:
    from overspill import RateLimit
    from overspill._runtime.clock import SystemClock

    q = memory_place.open(_clock=SystemClock(), rate_limit=RateLimit(1e-6, burst=1, on_limit="wait"))
    q.enqueue("the burst")
    waiting = threads(lambda: q.enqueue("waits for days"))
    until(lambda: q._limiter.queued == 1)
    q.close()
    threads.join()
    assert type(waiting[0]) is QueueClosed


# --- destroy and exit


def test_destroy_deletes_the_folder_and_nothing_beside_it(disk_place: Place) -> None:
    q, other = disk_place.open("q"), disk_place.open("other")
    q.enqueue_batch(items_upto(5))
    other.enqueue("stays")
    q.lease()
    q.destroy()
    assert not (disk_place.path / "q").exists()
    assert list(other) == ["stays"]
    with pytest.raises(QueueClosed):
        q.enqueue("x")
    assert len(disk_place.open("q")) == 0


def test_a_closed_queue_can_be_destroyed(disk_place: Place) -> None:
    q = disk_place.open()
    q.enqueue("x")
    q.close()
    q.destroy()
    assert not (disk_place.path / "q").exists()


def test_a_memory_only_queue_can_be_destroyed(memory_place: Place) -> None:
    q = memory_place.open()
    q.enqueue("x")
    q.destroy()
    assert q.closed


def test_a_process_that_ends_in_order_keeps_even_what_was_in_memory_only(tmp_path: Path) -> None:
    import subprocess
    import sys

    program = "import sys; from overspill import *; q = HybridQueue('q', sys.argv[1], durability=Durability.MEMORY); q.enqueue_batch(['a', 'b'])"
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True, timeout=60)
    with HybridQueue("q", tmp_path) as q:
        assert drained(q) == ["a", "b"]


def test_a_queue_that_is_dropped_without_closing_unlocks_its_folder(tmp_path: Path) -> None:
    import gc

    q = HybridQueue("q", tmp_path)
    q.enqueue("x")
    del q
    gc.collect()
    with HybridQueue("q", tmp_path) as q:
        assert drained(q) == ["x"]
