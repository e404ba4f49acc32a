"""How fast items may come in: `RateLimit`, which has one meaning whatever the queue is and wherever its items lie.

Where time stands still, who waits is followed step by step: a verb that may wait is a generator of whom it waits for and how long, whichever face drives it.
"""
from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest
from conftest import Place, drained, items_upto

from overspill import (
    AsyncHybridQueue, Durability, HybridQueue, ItemTooLarge, NotSerializable, PriorityQueue, QueueClosed, QueueFull, RateLimit, RateLimited, StreamQueue, WhenFull,
)  # fmt: skip
from overspill._runtime.clock import ManualClock
from overspill._core.waiters import Waiter


def tokens(q: Any) -> float:
    return q._limiter.available(q._clock.monotonic())


THROUGH = "through"


def pass_on(steps: Any) -> float | str | None:
    """Let a verb go on; how long it waits now (None: until it is woken), or that it is through."""
    for waiter, timeout in steps:
        if type(waiter) is Waiter:
            return timeout  # type: ignore[no-any-return]
        waiter.wait(timeout)  # an errand, a sync: what a thread does itself
    return THROUGH


def enqueueing(q: HybridQueue, item: Any, timeout: float | None = None) -> Any:
    return q._enqueueing(item, 128, None, None, None, timeout)


# --- what costs a token


def test_the_rate_limit_lets_a_burst_in_and_then_says_when_to_come_back(place: Place) -> None:
    q = place.open(rate_limit=RateLimit(10, burst=3))
    for item in items_upto(3):
        q.enqueue(item)
    with pytest.raises(RateLimited) as caught:
        q.enqueue("too fast")
    assert caught.value.retry_after == pytest.approx(0.1)
    place.clock.advance(caught.value.retry_after)
    q.enqueue("in time")
    with pytest.raises(RateLimited):
        q.enqueue_front("too fast")
    with pytest.raises(RateLimited):
        q.enqueue_batch(["too fast"])
    assert drained(q) == [*items_upto(3), "in time"]
    assert q.stats().enqueued == 4


def test_every_verb_takes_a_token_for_every_item(place: Place) -> None:
    q = place.open(rate_limit=RateLimit(1, burst=20))
    q.enqueue("one")
    q.enqueue_batch(items_upto(5))
    q.enqueue_front("first")
    q.enqueue("urgent", priority=200)
    q.enqueue("for later", delay=10)
    q.enqueue_batch([])
    assert tokens(q) == 20 - 9
    place.clock.advance(10)  # ten tokens; the delayed item comes in line, and it has paid
    assert len(q) == 9 and tokens(q) == 20
    with q.lease() as delivery:
        delivery.nack()
    q.lease().nack(delay=1)
    place.clock.advance(1)
    assert drained(q)[:2] == ["urgent", "first"] and tokens(q) == 20, "coming back costs nothing, nor does leaving"


def test_a_batch_beyond_the_tokens_is_refused_as_a_whole(place: Place) -> None:
    q = place.open(rate_limit=RateLimit(10, burst=5))
    q.enqueue_batch(items_upto(3))
    with pytest.raises(RateLimited) as caught:
        q.enqueue_batch(["two", "are", "left"])
    assert caught.value.retry_after == pytest.approx(0.1) and tokens(q) == 2
    q.enqueue_batch(["exactly", "two"])
    assert drained(q) == [*items_upto(3), "exactly", "two"]


def test_a_batch_larger_than_the_burst_waits_for_a_full_bucket_and_is_worked_off(place: Place) -> None:
    q = place.open(rate_limit=RateLimit(10, burst=5))
    q.enqueue("one")
    with pytest.raises(RateLimited) as caught:
        q.enqueue_batch(items_upto(20))
    assert caught.value.retry_after == pytest.approx(0.1)
    place.clock.advance(caught.value.retry_after)
    q.enqueue_batch(items_upto(20))
    assert tokens(q) == -15
    with pytest.raises(RateLimited) as caught:
        q.enqueue("when the debt is paid, and one more")
    assert caught.value.retry_after == pytest.approx(1.6)
    assert len(q) == 21


def test_the_limit_is_one_for_both_tiers_and_dead_letters_come_back_free(tiny_place: Place) -> None:
    q = tiny_place.open(rate_limit=RateLimit(1, burst=6), max_attempts=1)
    q.enqueue_batch(items_upto(5))
    assert q.memory_size <= 2 < 5 == len(q) and tokens(q) == 1
    for _ in range(5):
        q.lease().nack()
    assert q.dead_letters.replay() == 5 and tokens(q) == 1
    q.enqueue("the sixth")
    with pytest.raises(RateLimited):
        q.enqueue("the seventh")
    assert len(q) == 6


def test_a_priority_queue_and_a_stream_are_limited_alike(tmp_path: Path) -> None:
    clock = ManualClock()
    limit = RateLimit(10, burst=3)
    levels = PriorityQueue("levels", rate_limit=limit, _clock=clock, _background=False)
    stream = StreamQueue("cam", 1, tmp_path, rate_limit=limit, _clock=clock, _background=False)
    levels.enqueue("a", 1), levels.enqueue_with_priority("b", 2), levels.enqueue("c", priority=3)
    for data in (b"a", b"b", b"c"):
        stream.enqueue(data)
    for refused in (lambda: levels.enqueue("d", 255), lambda: levels.enqueue_with_priority("d", 255), lambda: stream.enqueue(b"d")):
        with pytest.raises(RateLimited) as caught:
            refused()
        assert caught.value.retry_after == pytest.approx(0.1)
    assert len(levels) == stream.get_depth() == 3
    levels.close(), stream.close()


# --- what does not


def test_what_is_refused_costs_no_token(place: Place) -> None:
    q = place.open(rate_limit=RateLimit(1, burst=3), max_item_size=2000)
    for bad, error in ((b"x" * 2001, ItemTooLarge), ("x" * 2001, ItemTooLarge), (object(), NotSerializable), ("\ud800", NotSerializable)):
        with pytest.raises(error):
            q.enqueue(bad)
        with pytest.raises(error):
            q.enqueue_front(bad)
        with pytest.raises(error):
            q.enqueue_batch(["fine", bad])
    assert tokens(q) == 3
    q.enqueue_batch(items_upto(3))
    for _ in range(3):
        with pytest.raises(RateLimited):
            q.enqueue("too fast")
    assert tokens(q) == 0 and drained(q) == items_upto(3)
    limiter = q._limiter
    place.clock.advance(3)
    q.close()
    with pytest.raises(QueueClosed):
        q.enqueue("too late")
    assert limiter.available(place.clock.monotonic()) == 3


@pytest.mark.parametrize("when_full", [WhenFull.RAISE, WhenFull.BLOCK, WhenFull.DROP_NEWEST], ids=lambda when_full: when_full.name)
def test_what_finds_no_room_costs_no_token(memory_place: Place, when_full: WhenFull) -> None:
    q = memory_place.open(rate_limit=RateLimit(1, burst=2), memory_size=1, when_full=when_full)
    q.enqueue("a")
    for _ in range(5):
        for put in (lambda: q.enqueue("no room", timeout=0), lambda: q.enqueue_batch(["no room"], timeout=0)):
            if when_full is WhenFull.DROP_NEWEST:
                put()
            else:
                with pytest.raises(QueueFull):
                    put()
    assert tokens(q) == 1
    assert q.dequeue() == "a"
    q.enqueue("the second of the burst")
    assert len(q) == 1 and tokens(q) == 0


def test_whoever_waits_for_room_has_paid_once_however_often_it_looks(memory_place: Place) -> None:
    q = memory_place.open(rate_limit=RateLimit(1, burst=9), memory_size=1, when_full=WhenFull.BLOCK)
    q.enqueue("a")
    steps = enqueueing(q, "waits for room")
    next(steps)
    for _ in range(5):
        q._makers.wake_all()
        next(steps)
        assert tokens(q) == 7
    q.dequeue()
    assert pass_on(steps) == THROUGH and tokens(q) == 7
    given_up = enqueueing(q, "is interrupted")
    next(given_up)
    assert tokens(q) == 6
    given_up.close()
    assert tokens(q) == 7 and list(q) == ["waits for room"]


# --- the hot way


@pytest.mark.parametrize("durability", [Durability.MEMORY, Durability.PROCESS], ids=lambda durability: durability.name)
def test_the_hot_way_keeps_to_the_limit_too_and_stays_hot_within_it(tmp_path: Path, durability: Durability) -> None:
    slow: list[Any] = []

    class Watched(HybridQueue):
        def _enqueue_slow(self, item: Any, *rest: Any) -> None:
            slow.append(item)
            super()._enqueue_slow(item, *rest)

    with Watched("q", tmp_path, durability=durability, rate_limit=RateLimit(0.001, burst=7)) as q:
        q.enqueue(b"made the first segment")
        q.enqueue_batch([b"and", b"brought it here"])
        slow.clear()
        for _ in range(2):
            q.enqueue(b"hot")
        q.enqueue_batch([b"hot"])
        assert slow == []
        with pytest.raises(RateLimited) as caught:
            q.enqueue_batch([b"two", b"too many"])
        assert caught.value.retry_after == pytest.approx(1000, rel=0.01)
        q.enqueue(b"the seventh")
        with pytest.raises(RateLimited):
            q.enqueue(b"too fast")
        assert slow == [b"too fast"] and len(q) == 7


# --- waiting


def test_with_wait_each_producer_is_told_how_long_and_passes_then(tiny_place: Place) -> None:
    q = tiny_place.open(rate_limit=RateLimit(8, burst=2, on_limit="wait"))
    q.enqueue_batch(["a", "b"])
    steps = enqueueing(q, "c")
    assert pass_on(steps) == 1 / 8
    tiny_place.clock.advance(1 / 16)
    assert pass_on(steps) == 1 / 16, "woken too early, it waits for the rest"
    assert len(q) == 2
    tiny_place.clock.advance(1 / 16)
    assert pass_on(steps) == THROUGH
    assert drained(q) == ["a", "b", "c"]


def test_with_wait_those_who_wait_are_served_in_their_order(tiny_place: Place) -> None:
    """A batch that needs many tokens is not starved by single items that would each have been content with one."""
    q = tiny_place.open(rate_limit=RateLimit(8, burst=4, on_limit="wait"))
    q.enqueue_batch(items_upto(4))
    batch = q._enqueueing_batch(["1", "2", "3"], 128, None, None, None, None)
    fourth, fifth = enqueueing(q, "4"), enqueueing(q, "5")
    assert [pass_on(each) for each in (batch, fourth, fifth)] == [3 / 8, None, None], "the others until it is their turn"
    tiny_place.clock.advance(2 / 8)
    with pytest.raises(RateLimited) as caught:
        q.enqueue("no time to wait", timeout=0)
    assert caught.value.retry_after == 4 / 8, "six tokens are needed; two are there"
    assert [pass_on(each) for each in (fourth, fifth)] == [None, None], "and not for these"
    tiny_place.clock.advance(1 / 8)
    assert pass_on(fifth) is None and pass_on(batch) == THROUGH
    assert pass_on(fifth) is None and pass_on(fourth) == 1 / 8
    tiny_place.clock.advance(1 / 8)
    assert pass_on(fifth) is None and pass_on(fourth) == THROUGH
    tiny_place.clock.advance(1 / 8)
    assert pass_on(fifth) == THROUGH
    assert drained(q) == [*items_upto(4), "1", "2", "3", "4", "5"]
    assert q._limiter.queued == 0


def test_whoever_gives_up_waiting_takes_nothing_along_and_the_next_moves_up(memory_place: Place) -> None:
    q = memory_place.open(rate_limit=RateLimit(1, burst=100, on_limit="wait"))
    q.enqueue_batch(items_upto(100))
    large = q._enqueueing_batch(items_upto(100), 128, None, None, None, None)
    small = enqueueing(q, "small")
    assert next(large)[1] == pytest.approx(100)
    waiter, timeout = next(small)
    assert timeout is None and not waiter.woken
    large.close()
    assert waiter.woken and next(small)[1] == pytest.approx(1) and tokens(q) == 0
    memory_place.clock.advance(1)
    assert pass_on(small) == THROUGH and q._limiter.queued == 0


def test_waiting_for_the_rate_ends_at_the_timeout(memory_place: Place) -> None:
    q = memory_place.open(rate_limit=RateLimit(1, burst=1, on_limit="wait"))
    q.enqueue("burst")
    with pytest.raises(RateLimited, match=r"another 1 s.*raise the timeout") as caught:
        q.enqueue("would take a second", timeout=0.5)
    assert caught.value.retry_after == pytest.approx(1) and q._limiter.queued == 0
    first, second, third = (enqueueing(q, name, timeout=timeout) for name, timeout in (("first", 1), ("second", 2), ("third", 3.5)))
    assert [pass_on(each) for each in (first, second, third)] == [1, 2, 3.5], "in line, no longer than they have time"
    memory_place.clock.advance(1)
    assert pass_on(first) == THROUGH
    memory_place.clock.advance(1.5)  # the second one's thread is late: its time is over, and its token is there
    assert pass_on(second) == THROUGH
    assert pass_on(third) == 1
    memory_place.clock.advance(1)
    assert pass_on(third) == THROUGH
    assert q.stats().refused["rate"] == 1 and tokens(q) == 0


def test_the_hot_way_does_not_overtake_who_waits(tmp_path: Path) -> None:
    with HybridQueue("q", tmp_path, rate_limit=RateLimit(0.001, burst=5, on_limit="wait")) as q:
        q.enqueue_batch([b"three"] * 3)
        batch = q._enqueueing_batch([b"five"] * 5, 128, None, None, None, None)
        assert next(batch)[1] == pytest.approx(3000, rel=0.01)
        with pytest.raises(RateLimited) as caught:
            q.enqueue(b"two tokens are there", timeout=0)
        assert caught.value.retry_after == pytest.approx(4000, rel=0.01) and len(q) == 3
        batch.close()
        q.enqueue(b"and now they are free", timeout=0)
        assert len(q) == 4


def test_with_wait_threads_are_slowed_down_and_nothing_is_refused(tmp_path: Path) -> None:
    with HybridQueue("q", tmp_path, rate_limit=RateLimit(400, burst=1, on_limit="wait")) as q:

        def produce(mine: int) -> None:
            for n in range(10):
                q.enqueue_batch([(mine, n)] * 2) if n % 5 == 0 else q.enqueue((mine, n))

        threads = [threading.Thread(target=produce, args=(mine,)) for mine in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        out = drained(q)
        assert len(out) == 36 and all([n for m, n in out if m == mine] == [0, 0, 1, 2, 3, 4, 5, 5, 6, 7, 8, 9] for mine in range(3))
        assert q._limiter.queued == 0 and q.stats().refused["rate"] == 0


def test_with_wait_tasks_pass_in_their_order() -> None:
    async def story() -> list[int]:
        async with AsyncHybridQueue("q", rate_limit=RateLimit(400, burst=1, on_limit="wait")) as q:
            await q.enqueue(0)
            tasks = [asyncio.create_task(q.enqueue(n)) for n in range(1, 8)]
            await asyncio.wait(tasks[:1])  # the others stand in line by now
            tasks[3].cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            return await q.dequeue_batch(10)

    assert asyncio.run(story()) == [0, 1, 2, 3, 5, 6, 7]
