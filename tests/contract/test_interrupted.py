"""An interruption wherever a verb waits: KeyboardInterrupt in a thread, cancellation of a task, or the end of whoever was waiting.

The verbs are generators of steps (`_runtime/waiting.py`), so every place where one waits can be visited by counting. Whatever is interrupted, an item is delivered or it is in line, at its
place; what was enqueued is there once or not at all; and the next in line is woken.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from conftest import POWER, Place, drained

from overspill import HybridQueue, QueueClosed, QueueEmpty, WhenFull
from overspill._runtime.waiting import Steps

INTERRUPTIONS = [KeyboardInterrupt, GeneratorExit]


def interrupted(steps: Steps[Any], at: int, kind: type[BaseException]) -> tuple[bool, Any]:
    """Take the steps and interrupt the `at`-th wait. (True, the result) if there was no such wait, (False, None) if it was interrupted."""
    waits = 0
    interrupts = False
    try:
        waitable, timeout = next(steps)
        while True:
            if waits == at:
                interrupts = True
                waitable, timeout = steps.throw(kind())
            else:
                waitable.wait(timeout)
                waitable, timeout = next(steps)
            waits += 1
    except StopIteration as end:
        assert not interrupts, "an interruption was swallowed"
        return True, end.value
    except kind:
        assert interrupts
        return False, None


def at_every_wait(queue: HybridQueue, begin: Callable[[], Steps[Any]], judge: Callable[[bool, Any], None], kind: type[BaseException]) -> int:
    """Interrupt a verb at its first wait, at its second, … until it comes to its end; returns how many waits it had."""
    for at in range(20):
        done, result = interrupted(begin(), at, kind)
        judge(done, result)
        if done:
            return at
    raise AssertionError("it never came to an end")


@pytest.mark.parametrize("kind", INTERRUPTIONS)
def test_an_interrupted_dequeue_leaves_the_item_where_it_was(place: Place, kind: type[BaseException]) -> None:
    queue = place.open()
    queue.enqueue_batch(["a", "b", "c"])

    def judge(done: bool, result: Any) -> None:
        assert list(queue) == (["b", "c"] if done else ["a", "b", "c"])
        assert result == ("a" if done else None)
        assert queue.stats().in_flight == 0
        assert queue.stats().balance == 0

    waits = at_every_wait(queue, lambda: queue._dequeueing(0), judge, kind)
    assert waits == (place.setting.durability is POWER)
    assert drained(queue) == ["b", "c"]


@pytest.mark.parametrize("kind", INTERRUPTIONS)
def test_an_interrupted_batch_leaves_all_of_it_where_it_was(place: Place, kind: type[BaseException]) -> None:
    queue = place.open()
    items = [f"item {i}" for i in range(7)]
    queue.enqueue_batch(items)

    def judge(done: bool, result: Any) -> None:
        assert list(queue) == (items[5:] if done else items)
        assert result == (items[:5] if done else None)

    waits = at_every_wait(queue, lambda: queue._dequeueing_batch([], 5, 0), judge, kind)
    assert waits == (place.setting.durability is POWER)


@pytest.mark.parametrize("kind", INTERRUPTIONS)
def test_an_interrupted_lease_leaves_the_item_where_it_was(place: Place, kind: type[BaseException]) -> None:
    queue = place.open()
    queue.enqueue_batch(["a", "b"])

    def judge(done: bool, result: Any) -> None:
        assert list(queue) == (["b"] if done else ["a", "b"])
        if done:
            assert result.item == "a"
            result.ack()

    waits = at_every_wait(queue, lambda: queue._leasing(0), judge, kind)
    assert waits == (place.setting.durability is POWER)
    assert drained(queue) == ["b"]


def test_what_was_taken_back_is_there_after_a_kill_and_after_closing(tiny_place: Place) -> None:
    queue = tiny_place.open()
    items = [f"item {i}" for i in range(6)]
    queue.enqueue_batch(items)
    for _ in range(3):
        interrupted(queue._dequeueing(0), 0, KeyboardInterrupt) if tiny_place.setting.durability is POWER else None
    if tiny_place.setting.logs:
        assert list(tiny_place.after_a_kill(queue)) == items
    queue = tiny_place.reopen(queue)
    assert list(queue) == items


def test_closing_puts_back_what_is_on_its_way_to_a_taker(disk_place: Place) -> None:
    if disk_place.setting.durability is not POWER:
        pytest.skip("only POWER waits with an item in hand")
    queue = disk_place.open()
    queue.enqueue_batch(["a", "b"])
    steps = queue._dequeueing(None)
    follower, _ = next(steps)
    follower.wait(None)
    queue = disk_place.reopen(queue)
    with pytest.raises(QueueClosed):
        next(steps)
    assert list(queue) == ["a", "b"]


def test_a_segment_stays_while_its_last_item_is_on_its_way(disk_place: Place) -> None:
    """All but one item are gone and the last one may still come back: neither retiring nor compaction may take its file."""
    if disk_place.setting.durability is not POWER:
        pytest.skip("only POWER waits with an item in hand")
    queue = disk_place.open(max_disk_size=512 * 1024)
    queue.enqueue("kept")
    steps = queue._dequeueing(0)
    next(steps)
    for _ in range(40):  # several segments
        queue.enqueue("x" * 9000)
        assert queue.dequeue() == "x" * 9000
    queue.cleanup()
    queue.compact()
    with pytest.raises(KeyboardInterrupt):
        waitable, _ = steps.throw(KeyboardInterrupt())
        while True:
            waitable.wait(None)
            waitable, _ = next(steps)
    assert list(disk_place.after_a_kill(queue)) == ["kept"]
    assert queue.dequeue() == "kept"


@pytest.mark.parametrize("kind", INTERRUPTIONS)
def test_an_interrupted_enqueue_has_put_its_item_in_once_or_not_at_all(place: Place, kind: type[BaseException]) -> None:
    queue = place.open()
    seen: list[str] = []

    def judge(done: bool, result: Any) -> None:
        now = drained(queue)
        assert now == ["a"] if done else now in (["a"], [])
        seen.extend(now)

    waits = at_every_wait(queue, lambda: queue._enqueueing("a", 128, None, None, None, None), judge, kind)
    assert waits == place.setting.logs + (place.setting.durability is POWER), "for the first segment, and for the sync"
    assert seen


def test_an_interrupted_waiter_hands_its_wake_up_on(memory_place: Place) -> None:
    queue = memory_place.open()
    first, second = queue._dequeueing(None), queue._dequeueing(None)
    next(first)
    waiter, _ = next(second)
    queue.enqueue("a")
    assert not waiter.woken
    with pytest.raises(KeyboardInterrupt):
        first.throw(KeyboardInterrupt())
    assert waiter.woken
    with pytest.raises(StopIteration) as end:
        next(second)
    assert end.value.value == "a"


def test_an_interrupted_waiter_for_room_hands_its_wake_up_on(memory_place: Place) -> None:
    queue = memory_place.open(memory_size=1, when_full=WhenFull.BLOCK)
    queue.enqueue("a")
    first, second = (queue._enqueueing(item, 128, None, None, None, None) for item in "bc")
    next(first)
    waiter, _ = next(second)
    assert queue.dequeue() == "a"
    assert not waiter.woken
    first.close()
    assert waiter.woken
    with pytest.raises(StopIteration):
        next(second)
    assert drained(queue) == ["c"]


def test_who_is_woken_in_vain_stands_first_again(memory_place: Place) -> None:
    queue = memory_place.open()
    first, second = queue._dequeueing(None), queue._dequeueing(None)
    next(first)
    next(second)
    queue.enqueue("gone")
    assert queue.dequeue() == "gone"  # overtaken by one who did not have to wait
    next(first)
    queue.enqueue("a")
    with pytest.raises(StopIteration) as end:
        next(first)
    assert end.value.value == "a"
    second.close()
    with pytest.raises(QueueEmpty):
        queue.try_dequeue()
