"""An event loop goes on while another thread holds the gates of a queue for long, as one that compacts does while the disk syncs.

The gates are held until the loop has turned many times with the verb under way: a verb that blocked the loop would wait for what only the loop can bring about. Then the verb comes to its end, or is
cancelled, and every item is accounted for.
"""
from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from cancelling import cancelled_at, gate_held, settled_down
import folders
import pytest

from overspill import Durability, HybridQueue, OverflowStrategy, WhenFull
from overspill._runtime.clock import ManualClock

quick_path = folders.quick_path
PATIENCE_S = 60
TURNS = 50


class Holder:
    """A thread that holds the head of a queue, and the tail if so wished, until it is told to let go."""

    def __init__(self, q: HybridQueue, *, tail: bool) -> None:
        self._q = q
        self._tail = tail
        self._holding, self._let_go = threading.Event(), threading.Event()
        self.was_kept_waiting = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._holding.wait(PATIENCE_S)

    def _run(self) -> None:
        with self._q._tail if self._tail else nullcontext(), self._q._head:
            self._holding.set()
            self.was_kept_waiting = not self._let_go.wait(PATIENCE_S)

    def let_go(self) -> None:
        self._let_go.set()
        self._thread.join(PATIENCE_S)


@contextmanager
def opened(path: Path, **options: Any) -> Iterator[HybridQueue]:
    with HybridQueue("q", path, **{"memory_size": 3, "_background": False, "_clock": ManualClock(), **options}) as q:
        for n in range(6):
            q.enqueue(f"item {n}")
        yield q


def exhausted(q: HybridQueue) -> None:
    delivery = q.lease()
    claim = q._leases.end(delivery._token)
    q._exhausted.append((claim, "the lease ran out"))


def with_letters(q: HybridQueue) -> None:
    for delivery in q.lease_batch(3):
        delivery.reject("no")


async def next_batch(q: HybridQueue) -> Any:
    return await anext(q.aio.batches(2))


Verb = Callable[[HybridQueue], Awaitable[Any]]
CASES: dict[str, tuple[dict[str, Any], Callable[[HybridQueue], object], Verb]] = {
    "enqueue": ({}, lambda q: None, lambda q: q.aio.enqueue("new")),
    "enqueue_slow": ({}, lambda q: None, lambda q: q.aio.enqueue(("new", 1))),
    "enqueue_that_spills": ({"overflow_strategy": OverflowStrategy.LARGEST}, lambda q: None, lambda q: q.aio.enqueue("new, and the largest")),
    "enqueue_that_stages": ({"durability": Durability.MEMORY}, lambda q: None, lambda q: q.aio.enqueue("new")),
    "enqueue_that_drops": ({"when_full": WhenFull.DROP_OLDEST, "max_items": 6}, lambda q: None, lambda q: q.aio.enqueue("new")),
    "enqueue_under_power": ({"durability": Durability.POWER}, lambda q: None, lambda q: q.aio.enqueue("new")),
    "dequeue": ({}, lambda q: None, lambda q: q.aio.dequeue()),
    "dequeue_batch": ({}, lambda q: None, lambda q: q.aio.dequeue_batch(4)),
    "dequeue_under_power": ({"durability": Durability.POWER}, lambda q: None, lambda q: q.aio.dequeue()),
    "lease": ({}, lambda q: None, lambda q: q.aio.lease()),
    "lease_and_bury": ({"max_attempts": 1}, exhausted, lambda q: q.aio.lease()),
    "lease_batch": ({}, lambda q: None, lambda q: q.aio.lease_batch(3)),
    "batches": ({}, lambda q: None, next_batch),
    "replay": ({}, with_letters, lambda q: q.aio.dead_letters.replay()),
    "replay_some": ({}, with_letters, lambda q: q.aio.dead_letters.replay(lambda letter: letter.item != "item 1")),
    "take_a_letter": ({}, with_letters, lambda q: q.aio.dead_letters.try_dequeue()),
    "clear_letters": ({}, with_letters, lambda q: q.aio.dead_letters.clear()),
    "remove_letters": ({}, with_letters, lambda q: q.aio.dead_letters.remove_where(lambda letter: True)),
}  # fmt: skip


async def turn(times: int) -> None:
    for _ in range(times):
        await asyncio.sleep(0)


@pytest.mark.parametrize("tail", [True, False], ids=["tail and head", "head"])
@pytest.mark.parametrize("cancelled", [False, True], ids=["to its end", "cancelled"])
@pytest.mark.parametrize("case", CASES)
def test_a_verb_leaves_the_loop_free_while_the_gates_are_held(case: str, cancelled: bool, tail: bool, tmp_path: Path) -> None:
    options, prepare, verb = CASES[case]

    async def main(q: HybridQueue) -> None:
        holder = Holder(q, tail=tail)
        task = asyncio.ensure_future(verb(q))
        await turn(TURNS)
        if cancelled:
            task.cancel()
            await turn(TURNS)
        holder.let_go()
        assert not holder.was_kept_waiting, "the loop stood still"
        await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled() or task.exception() is None
        assert cancelled or not task.cancelled()

    with opened(tmp_path, **options) as q:
        prepare(q)
        before = q.stats()
        asyncio.run(main(q))
        q._clock.advance(60)  # what nobody waited for, the background does
        stats = q.stats()
        assert stats.balance == 0 and stats.in_flight == 0
        assert stats.memory_items <= 3
        there = len(list(q)) + len(list(q.dead_letters))
        put = stats.enqueued - before.enqueued
        gone = stats.dequeued + stats.removed + stats.cleared + sum(stats.dropped.values())
        assert there == 6 + put - gone


@pytest.mark.parametrize("held", [False, True], ids=["free", "head held by a thread"])
def test_a_letter_whose_taking_is_cancelled_is_back(held: bool, quick_path: Path) -> None:
    """Under POWER the letter waits for its sync, and before that perhaps for the gate; cancelled at any of these, it is there again, and the next one who comes takes it."""

    async def main(q: HybridQueue) -> None:
        for at in itertools.count():
            with gate_held(q._head) if held else nullcontext():
                done, letter = await cancelled_at(q.aio.dead_letters.try_dequeue(), at)
            await settled_down(q.aio)
            assert q.stats().in_flight == 0 and q.stats().balance == 0
            left = [letter.item for letter in q.dead_letters]
            if not done:
                assert left == ["item 0", "item 1", "item 2"], at
                continue
            assert letter.item == "item 0" and left == ["item 1", "item 2"]
            assert at == 1 + held, "it waits for its sync"
            return

    with opened(quick_path, durability=Durability.POWER) as q:
        with_letters(q)
        asyncio.run(main(q))
