"""The awaiting face where it is more than the blocking one with another word: cancellation, the event loop that goes on, threads and tasks at once.

That every verb means the same is judged by tests/contract, which runs through both faces. Seeds are printed.
"""
from __future__ import annotations

import asyncio
import importlib
import importlib.util
import inspect
import itertools
import random
import threading
import unittest
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

from cancelling import cancelled_at, gate_held, nothing_held, settled_down
import folders
from patience import until
import pytest

from overspill import AsyncHybridQueue, Durability, HybridQueue, QueueClosed, QueueEmpty, QueueFull, WhenFull
from overspill._store.files import Disk

quick_path = folders.quick_path
WAYS: dict[str, dict[str, Any]] = {
    "memory only": {"memory_size": 3, "when_full": WhenFull.BLOCK},
    "MEMORY": {"durability": Durability.MEMORY, "memory_size": 2},
    "PROCESS": {"memory_size": 2},
    "POWER": {"durability": Durability.POWER, "memory_size": 2},
    "POWER, plain": {"durability": Durability.POWER, "memory_size": 1, "_plain": True},
}


@pytest.fixture(params=WAYS)
def face(request: pytest.FixtureRequest, quick_path: Path) -> Iterator[AsyncHybridQueue]:
    yield from opened(request.param, quick_path)


@pytest.fixture(params=WAYS)
def face_alone(request: pytest.FixtureRequest, quick_path: Path) -> Iterator[AsyncHybridQueue]:
    """Without the background thread, which may hold a gate as well: how often a verb waits is known."""
    yield from opened(request.param, quick_path, _background=False)


def opened(way: str, quick_path: Path, **more: Any) -> Iterator[AsyncHybridQueue]:
    options = WAYS[way] | more
    queue = HybridQueue("q", None if way == "memory only" else quick_path, **options)
    yield queue.aio
    assert queue.closed or queue.stats().balance == 0
    queue.close()


# --- cancelling at every await


VERBS: dict[str, Callable[[AsyncHybridQueue], Coroutine[Any, Any, Any]]] = {
    "dequeue": lambda q: q.dequeue(),
    "dequeue_batch": lambda q: q.dequeue_batch(2, timeout=None),
    "lease": lambda q: q.lease(),
    "lease_batch": lambda q: q.lease_batch(2, timeout=None),
}


@pytest.mark.parametrize("held", ["free", "head held by a thread"])
@pytest.mark.parametrize("verb", VERBS)
def test_a_taker_cancelled_at_any_await_leaves_the_items_where_they_were(face_alone: AsyncHybridQueue, verb: str, held: str) -> None:
    """Also where the gate is held by a thread, so that another thread does the taking: what it took is put back."""

    face = face_alone

    async def story() -> None:
        await face.enqueue_batch(["a", "b"])
        for at in itertools.count():
            with gate_held(face.queue._head) if held != "free" else nothing_held():
                done, result = await cancelled_at(VERBS[verb](face), at)
            await settled_down(face)
            left = [item async for item in face.snapshot()]
            if not done:
                assert left == ["a", "b"], at
                continue
            taken = result if isinstance(result, list) else [result]
            assert [getattr(one, "item", one) for one in taken] + left == ["a", "b"]
            assert at == (held != "free") + (face.queue._options.durability is Durability.POWER), "it waits for the gate, and for its sync"
            for one in taken:
                if hasattr(one, "ack"):
                    await one.ack()
            return

    asyncio.run(story())


@pytest.mark.parametrize("verb", ["enqueue", "enqueue_batch", "enqueue_front"])
def test_a_putter_cancelled_at_any_await_has_put_once_or_not_at_all(face_alone: AsyncHybridQueue, verb: str) -> None:
    face = face_alone

    async def story() -> None:
        for at in itertools.count():
            call = {"enqueue": lambda: face.enqueue({"a": 1}), "enqueue_batch": lambda: face.enqueue_batch([{"a": 1}]), "enqueue_front": lambda: face.enqueue_front({"a": 1})}
            with gate_held(face.queue._tail):
                done, _ = await cancelled_at(call[verb](), at)
            await settled_down(face)
            there = await face.dequeue_batch(10)
            assert there == [{"a": 1}] if done else there in ([], [{"a": 1}])
            if done:
                assert at == 1 + (face.queue._options.durability is Durability.POWER), "it waits for the gate, and for its sync"
                return

    asyncio.run(story())


@pytest.mark.parametrize("seed", range(6))
def test_a_storm_of_cancellations_neither_loses_nor_doubles_an_item(face: AsyncHybridQueue, seed: int) -> None:
    """Producers, consumers and lessees are cancelled at random; whoever was cancelled goes on. Each item acknowledged as put comes out once; one whose put was cancelled at most once."""
    print(f"seed {seed}")
    draw = random.Random(seed)
    put: Counter[int] = Counter()
    unsure: Counter[int] = Counter()
    got: Counter[int] = Counter()
    numbers = itertools.count()

    async def produce() -> None:
        for _ in range(25):
            n = next(numbers)
            item: Any = n if draw.random() < 0.5 else str(n)
            try:
                await face.enqueue(item)
            except asyncio.CancelledError:
                unsure[n] += 1
            else:
                put[n] += 1

    async def consume() -> None:
        while True:
            try:
                if draw.random() < 0.4:
                    got[int(await face.dequeue())] += 1
                elif draw.random() < 0.5:
                    got.update(int(item) for item in await face.dequeue_batch(3, timeout=None))
                else:
                    delivery = await face.lease()
                    n = int(delivery.item)
                    try:
                        await delivery.ack()
                    except asyncio.CancelledError:
                        pass  # it holds all the same
                    got[n] += 1
            except asyncio.CancelledError:
                continue
            except QueueClosed:
                return

    async def story() -> None:
        producers = [asyncio.create_task(produce()) for _ in range(4)]
        consumers = [asyncio.create_task(consume()) for _ in range(4)]
        await asyncio.sleep(0)  # all have begun
        while not all(task.done() for task in producers):
            for task in draw.sample([*producers, *consumers], 3):
                task.cancel()
            for _ in range(draw.randrange(1, 5)):
                await asyncio.sleep(0)
        await face.close(drain=30)
        await asyncio.gather(*producers, *consumers)

    asyncio.run(story())
    assert max(got.values(), default=0) <= 1, "an item came twice"
    assert set(put) <= set(got), f"lost: {set(put) - set(got)}"
    assert set(got) <= set(put) | set(unsure)


def test_what_a_cancelled_taker_gave_back_is_there_after_a_power_cut(quick_path: Path) -> None:
    async def story() -> None:
        async with AsyncHybridQueue("q", quick_path, durability=Durability.POWER) as q:
            await q.enqueue_batch(["a", "b"])
            done, _ = await cancelled_at(q.dequeue(), 0)
            assert not done
            # Nothing is dirty any more: the mark that was taken back has been synced as well.
            assert not q.queue._log.is_dirty
            assert [item async for item in q.snapshot()] == ["a", "b"]

    asyncio.run(story())


# --- the loop goes on


class SlowDisk(Disk):
    """A disk whose syncs take until they are let through."""

    let_through: threading.Event
    begun: threading.Event
    syncs: int

    def datasync(self, fd: int) -> None:
        cls = type(self)
        cls.syncs += 1
        cls.begun.set()
        assert cls.let_through.wait(60)
        super().datasync(fd)


@pytest.fixture
def slow_disk() -> type[SlowDisk]:
    SlowDisk.let_through, SlowDisk.begun, SlowDisk.syncs = threading.Event(), threading.Event(), 0
    return SlowDisk


def test_the_loop_goes_on_while_a_sync_is_under_way(quick_path: Path, slow_disk: type[SlowDisk]) -> None:
    async def story() -> None:
        slow_disk.let_through.set()
        q = await AsyncHybridQueue.open("q", quick_path, durability=Durability.POWER, _disk_class=slow_disk)
        await q.enqueue_batch(["a", "b", "c"])
        slow_disk.let_through.clear()
        slow_disk.begun.clear()
        waiting = [asyncio.create_task(call) for call in (q.enqueue("x"), q.enqueue({"y": 1}), q.dequeue(), q.lease(), q.sync())]
        ticks = 0
        while ticks < 100 or not slow_disk.begun.is_set():
            await asyncio.sleep(0)
            ticks += 1
        assert not any(task.done() for task in waiting), "acknowledged before the sync"
        slow_disk.let_through.set()
        await asyncio.gather(*waiting)
        await q.close()

    asyncio.run(story())


def test_the_loop_goes_on_while_the_queue_is_closed(quick_path: Path, slow_disk: type[SlowDisk]) -> None:
    async def story() -> None:
        slow_disk.let_through.set()
        q = await AsyncHybridQueue.open("q", quick_path, _disk_class=slow_disk)
        await q.enqueue("a")
        slow_disk.let_through.clear()
        slow_disk.begun.clear()
        closing = asyncio.create_task(q.close())
        taking = None
        while not slow_disk.begun.is_set():
            await asyncio.sleep(0)
        taking = asyncio.create_task(q.dequeue())  # its gate is held over the sync: another thread waits for it
        for _ in range(100):
            await asyncio.sleep(0)
        assert not closing.done()
        slow_disk.let_through.set()
        await closing
        with pytest.raises(QueueClosed):
            await taking

    asyncio.run(story())


def test_a_thousand_tasks_share_a_sync(quick_path: Path, slow_disk: type[SlowDisk]) -> None:
    """While one sync is under way a thousand come; the next one is for all of them."""

    async def rounds_of(q: AsyncHybridQueue, calls: list[Coroutine[Any, Any, Any]]) -> tuple[int, list[Any]]:
        slow_disk.let_through.clear()
        slow_disk.begun.clear()
        before = q.queue._commit.rounds
        tasks = [asyncio.create_task(call) for call in calls]
        for _ in range(5):  # all of them are at their await
            await asyncio.sleep(0)
        while not slow_disk.begun.is_set():
            await asyncio.sleep(0)
        slow_disk.let_through.set()
        results = await asyncio.gather(*tasks)
        return q.queue._commit.rounds - before, results

    async def story() -> None:
        slow_disk.let_through.set()
        async with AsyncHybridQueue("q", quick_path, durability=Durability.POWER, _disk_class=slow_disk, _background=False) as q:
            await q.enqueue("first")
            rounds, _ = await rounds_of(q, [q.enqueue(b"%d" % n) for n in range(1000)])
            assert rounds <= 2
            assert q.size == 1001
            rounds, taken = await rounds_of(q, [q.dequeue() for _ in range(1001)])
            assert rounds <= 2
            assert Counter(taken) == Counter(["first", *(b"%d" % n for n in range(1000))])

    asyncio.run(story())


def test_threads_and_tasks_share_the_rounds_of_the_group_commit(quick_path: Path) -> None:
    q = HybridQueue("q", quick_path, durability=Durability.POWER)
    threads = [threading.Thread(target=lambda t=t: [q.enqueue(f"thread {t} {n}") for n in range(50)]) for t in range(3)]

    async def put(t: int) -> None:
        for n in range(50):
            await q.aio.enqueue(f"task {t} {n}")

    async def story() -> None:
        await asyncio.gather(*(put(t) for t in range(20)))

    for thread in threads:
        thread.start()
    asyncio.run(story())
    for thread in threads:
        thread.join()
    assert Counter(item.split()[0] for item in q) == {"thread": 150, "task": 1000}
    assert q.stats().syncs < 1150
    q.close()


def test_no_thread_is_left_behind_where_nobody_syncs(quick_path: Path) -> None:
    async def story() -> None:
        async with AsyncHybridQueue("q", quick_path, durability=Durability.POWER) as q:
            await asyncio.gather(*(q.enqueue(b"x") for _ in range(10)))

    asyncio.run(story())
    for thread in threading.enumerate():
        if thread.name == "overspill-committer":
            thread.join(60)
            assert not thread.is_alive()


# --- threads and tasks at once


def test_threads_and_tasks_put_and_take_side_by_side(face: AsyncHybridQueue) -> None:
    q = face.queue
    got: list[str] = []

    def produce(t: int) -> None:
        for n in range(60):
            q.enqueue(f"thread {t} {n}", timeout=60)

    def consume() -> None:
        try:
            while True:
                got.append(q.dequeue())
        except QueueClosed:
            return

    async def produce_awaiting(t: int) -> None:
        for n in range(60):
            await face.enqueue(f"task {t} {n}")
            await asyncio.sleep(0)

    async def consume_awaiting() -> None:
        async for item in face:
            got.append(item)
            await asyncio.sleep(0)

    async def story() -> None:
        takers = [asyncio.create_task(consume_awaiting()) for _ in range(3)]
        await asyncio.gather(*(produce_awaiting(t) for t in range(3)))
        await asyncio.to_thread(lambda: [thread.join() for thread in putters])
        await face.close(drain=60)
        await asyncio.gather(*takers)

    putters = [threading.Thread(target=produce, args=(t,)) for t in range(2)]
    takers = [threading.Thread(target=consume) for _ in range(2)]
    for thread in [*putters, *takers]:
        thread.start()
    asyncio.run(story())
    for thread in [*putters, *takers]:
        thread.join()
    assert Counter(got) == Counter([f"thread {t} {n}" for t in range(2) for n in range(60)] + [f"task {t} {n}" for t in range(3) for n in range(60)])


def test_a_task_on_a_loop_that_was_closed_does_not_keep_the_wake_up(quick_path: Path) -> None:
    q = HybridQueue()
    loop = asyncio.new_event_loop()
    task = loop.create_task(q.aio.dequeue())
    loop.run_until_complete(_a_turn())
    loop.close()
    got: list[str] = []
    thread = threading.Thread(target=lambda: got.append(q.dequeue()))
    thread.start()
    until(lambda: len(q._takers) == 2)
    q.enqueue("a")
    thread.join(60)
    assert got == ["a"]
    task._log_destroy_pending = False  # type: ignore[attr-defined]


async def _a_turn() -> None:
    await asyncio.sleep(0)
    await asyncio.sleep(0)


# --- what the words mean


def test_async_for_takes_until_the_queue_is_closed_and_empty() -> None:
    async def story() -> None:
        async with AsyncHybridQueue() as q:
            for n in range(3):
                await q.enqueue(n)
            seen = []
            async for item in q:
                seen.append(item)
                if item == 2:
                    await q.close()
            assert seen == [0, 1, 2]

    asyncio.run(story())


def test_back_pressure_is_awaited() -> None:
    async def story() -> None:
        async with AsyncHybridQueue(memory_size=1, when_full=WhenFull.BLOCK) as q:
            await q.enqueue("a")
            second = asyncio.create_task(q.enqueue("b"))
            await _a_turn()
            assert not second.done()
            assert await q.dequeue() == "a"
            await second
            with pytest.raises(QueueFull):
                await q.enqueue("c", timeout=0)
            assert await q.dequeue() == "b"
            with pytest.raises(QueueEmpty):
                await q.dequeue(timeout=0.001)

    asyncio.run(story())


def test_a_delivery_acks_on_success_and_gives_back_on_an_exception_and_on_cancellation() -> None:
    async def story() -> None:
        async with AsyncHybridQueue() as q:
            await q.enqueue_batch(["a", "b"])
            async with await q.lease() as delivery:
                assert (delivery.item, delivery.attempts) == ("a", 1)
            with pytest.raises(ZeroDivisionError):
                async with await q.lease() as delivery:
                    1 / 0  # noqa: B018

            async def handle() -> None:
                async with await q.lease():
                    await asyncio.Event().wait()

            task = asyncio.create_task(handle())
            await _a_turn()
            assert q.size == 0
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await q.peek() == "b"

    asyncio.run(story())


def test_what_needs_no_wait_does_not_suspend(quick_path: Path) -> None:
    q = HybridQueue("q", quick_path)
    q.enqueue(b"a segment to write into")
    for call in (q.aio.enqueue(b"x"), q.aio.enqueue({"x": 1}), q.aio.enqueue_batch([b"x", b"y"]), q.aio.dequeue(), q.aio.dequeue_batch(2)):
        with pytest.raises(StopIteration):
            call.send(None)  # no loop is running, and none is needed
    q.close()


def test_every_verb_of_the_queue_has_an_awaiting_form_with_the_same_parameters() -> None:
    q = HybridQueue()
    for name in dir(HybridQueue):
        if name.startswith("_") or name in ("aio", "inspect", "from_config"):
            continue
        blocking = getattr(q, name)
        awaiting = getattr(q.aio, name)
        if not callable(blocking) or name in ("snapshot", "on_memory_pressure", "batches"):
            continue
        assert inspect.iscoroutinefunction(awaiting), name
        assert inspect.getdoc(awaiting), name
        if name in vars(AsyncHybridQueue):
            assert [p.name for p in inspect.signature(awaiting).parameters.values()] == [p.name for p in inspect.signature(blocking).parameters.values()], name
    q.close()


# --- CPython's own tests of asyncio.Queue


class _Queue:
    """An `asyncio.Queue` made of ours, for CPython's tests."""

    def __init__(self, maxsize: float = 0) -> None:
        self._maxsize = maxsize
        self._inner = HybridQueue(memory_size=max(1, int(-(-maxsize // 1))) if maxsize > 0 else 1 << 20, when_full=WhenFull.BLOCK)

    maxsize = property(lambda self: self._maxsize)

    def qsize(self) -> int:
        return len(self._inner)

    def empty(self) -> bool:
        return not len(self._inner)

    def full(self) -> bool:
        return 0 < self._maxsize <= len(self._inner)

    async def put(self, item: Any) -> None:
        await self._inner.aio.enqueue(item)

    async def get(self) -> Any:
        return await self._inner.aio.dequeue()

    def put_nowait(self, item: Any) -> None:
        try:
            self._inner.enqueue(item, timeout=0)
        except QueueFull:
            raise asyncio.QueueFull from None

    def get_nowait(self) -> Any:
        try:
            return self._inner.try_dequeue()
        except QueueEmpty:
            raise asyncio.QueueEmpty from None


_NOT_APPLICABLE = {
    "test_repr": "the format of asyncio's repr",
    "test_str": "the format of asyncio's repr",
    "test_generic_alias": "a type for annotations only",
    "test_cancelled_getters_not_being_held_in_self_getters": "looks into a private list",
    "test_cancelled_puts_not_being_held_in_self_putters": "looks into a private list",
    "test_cancelled_put_silence_value_error_exception": "looks into a private list",
    "test_get_with_putters": "looks into a private list",
}


def _cpython_tests() -> list[tuple[str, str]]:
    if importlib.util.find_spec("test.test_asyncio") is None:
        return []
    queues = importlib.import_module("test.test_asyncio.test_queues")
    return [
        (group, name)
        for group in ("QueueBasicTests", "QueueGetTests", "QueuePutTests")
        for name in unittest.TestLoader().getTestCaseNames(getattr(queues, group))
        if name not in _NOT_APPLICABLE
    ]


@pytest.mark.parametrize(("group", "name"), _cpython_tests() or [pytest.param("", "", marks=pytest.mark.skip(reason="this Python comes without its test package"))])
def test_cpythons_own_tests_of_asyncio_queue_pass(group: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    queues = importlib.import_module("test.test_asyncio.test_queues")
    monkeypatch.setattr(asyncio, "Queue", _Queue)
    result = unittest.TestResult()
    getattr(queues, group)(name).run(result)
    asyncio.set_event_loop_policy(None)
    assert result.testsRun == 1
    assert not result.errors and not result.failures, "\n".join(text for _, text in result.errors + result.failures)


# --- batches by time


def test_batches_come_while_the_loop_goes_on_and_end_with_the_queue(face: AsyncHybridQueue) -> None:
    async def story() -> None:
        async def produce() -> None:
            for n in range(7):
                await face.enqueue(n, timeout=60)
                await asyncio.sleep(0)
            await face.close(drain=60)

        producer = asyncio.create_task(produce())
        got = [batch async for batch in face.batches(n=3, linger=30)]
        await producer
        assert [item for batch in got for item in batch] == list(range(7))
        assert all(1 <= len(batch) <= 3 for batch in got)

    asyncio.run(story())


def test_cancelled_while_it_lingers_what_had_been_collected_is_back_in_order(face: AsyncHybridQueue) -> None:
    async def story() -> None:
        await face.enqueue_batch(["a", "b"])
        collecting = asyncio.create_task(anext(aiter(face.batches(n=5, linger=3600))))
        while len(face):  # both are in its hands
            await asyncio.sleep(0)
        collecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await collecting
        assert await face.dequeue_batch(5) == ["a", "b"]

    asyncio.run(story())


def test_terms_of_batches_are_refused_at_the_call(face: AsyncHybridQueue) -> None:
    with pytest.raises(ValueError, match="linger"):
        face.batches(linger=-1)
