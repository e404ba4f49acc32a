"""Any number of threads on one queue: every item once, each producer's items in its order, and nobody waits for ever.

The memory is small, so that every item takes the way over the disk and the two tiers change places all the time. The threads meet at a barrier and hand over by events; no test
sleeps to be right. Whatever fails in a thread fails the test.
"""
from __future__ import annotations

import itertools
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from faults import stepping
from patience import until
from overspill import Durability, HybridQueue, KiB, LeaseExpired, OverflowStrategy, QueueClosed, QueueEmpty, WhenFull

PATIENCE_S = 20


class Crew:
    """Threads that start together; `finish` waits for them and raises what the first of them raised, without waiting for those whom it left in the lurch."""

    def __init__(self) -> None:
        self._errors: list[BaseException] = []
        self._at_work = 0
        self._changed = threading.Condition()
        self._start = threading.Event()

    def hire(self, work: Callable[..., object], *args: Any) -> None:
        def run() -> None:
            self._start.wait()
            try:
                work(*args)
            except BaseException as error:
                self._errors.append(error)
            with self._changed:
                self._at_work -= 1
                self._changed.notify_all()

        self._at_work += 1
        threading.Thread(target=run, daemon=True).start()

    def go(self) -> None:
        self._start.set()

    def finish(self) -> None:
        self.go()
        with self._changed:
            done = self._changed.wait_for(lambda: self._errors or not self._at_work, PATIENCE_S)
        if self._errors:
            raise self._errors[0]
        assert done, "somebody waits for ever"


@pytest.fixture(autouse=True)
def frequent_switches() -> Iterator[None]:
    """Switch threads a hundred times as often as usual: more histories in the same time."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(5e-5)
    yield
    sys.setswitchinterval(before)


WAYS = [
    pytest.param({"durability": durability, "_plain": plain, "memory_size": size} | more, id="-".join(filter(None, [durability.name, "plain" if plain else "mapped", str(size), note])))
    for durability, plain, size, note, more in [
        (Durability.MEMORY, False, 2, "", {}),
        (Durability.MEMORY, True, 1, "", {}),
        (Durability.MEMORY, False, 64, "", {}),
        (Durability.PROCESS, False, 1, "", {}),
        (Durability.PROCESS, False, 50, "", {}),
        (Durability.PROCESS, False, 1000, "", {}),
        (Durability.PROCESS, True, 3, "", {}),
        (Durability.POWER, False, 2, "", {}),
        (Durability.PROCESS, False, 8, "largest", {"overflow_strategy": OverflowStrategy.LARGEST}),
        (Durability.MEMORY, False, 8, "by_priority", {"overflow_strategy": OverflowStrategy.BY_PRIORITY}),
        (Durability.PROCESS, False, 8, "zstd", {"compression": "zstd"}),
    ]
]


@pytest.fixture(params=WAYS)
def q(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[HybridQueue]:
    queue = HybridQueue("q", tmp_path, **request.param)
    yield queue
    queue.close()


def items_for(q: HybridQueue) -> int:
    return 150 if q._options.durability is Durability.POWER else 600


def in_producers_order(taken: list[tuple[int, int]]) -> bool:
    """What one consumer saw: the items of each producer must be in the order in which they were put."""
    last: dict[int, int] = {}
    for producer, i in taken:
        if i <= last.get(producer, -1):
            return False
        last[producer] = i
    return True


def payload(producer: int, i: int) -> bytes:
    return b"%d %d " % (producer, i) + b"x" * (i * 7 % 90)


def parsed(item: bytes) -> tuple[int, int]:
    producer, i, filling = item.split(b" ", 2)
    assert filling == b"x" * (int(i) * 7 % 90), "a wrong payload"
    return int(producer), int(i)


def test_every_item_once_and_each_producers_items_in_its_order(q: HybridQueue) -> None:
    producers, consumers, n = 4, 3, items_for(q)
    taken: list[list[tuple[int, int]]] = [[] for _ in range(consumers)]
    left = threading.Semaphore(producers * n)

    def produce(producer: int) -> None:
        i = 0
        while i < n:
            if i % 5 == 0:
                q.enqueue_batch([payload(producer, k) for k in range(i, min(i + 3, n))])
                i += 3
            else:
                q.enqueue(payload(producer, i))
                i += 1

    def consume(mine: list[tuple[int, int]]) -> None:
        for turn in itertools.count():
            if not left.acquire(blocking=False):
                return
            if turn % 4 == 3:
                with q.lease(timeout=PATIENCE_S) as delivery:
                    mine.append(parsed(delivery.item))
            else:
                mine.append(parsed(q.dequeue(timeout=PATIENCE_S)))

    crew = Crew()
    for producer in range(producers):
        crew.hire(produce, producer)
    for mine in taken:
        crew.hire(consume, mine)
    crew.finish()
    everything = sorted(itertools.chain(*taken))
    assert everything == [(producer, i) for producer in range(producers) for i in range(n)]
    assert all(map(in_producers_order, taken))
    assert len(q) == 0 and q.stats().balance == 0


@pytest.mark.parametrize("options", [{"compression": "zstd"}, {"_plain": True}, {"overflow_strategy": OverflowStrategy.BY_PRIORITY}], ids=["zstd", "plain", "by_priority"])
def test_takers_that_empty_a_line_while_it_spills(tmp_path: Path, options: dict[str, Any]) -> None:
    """Where enqueue takes the slow way, takers run between any two of its steps; many short histories find more than a long one."""
    for attempt in range(20):
        with HybridQueue(f"q{attempt}", tmp_path, memory_size=8, **options) as q:
            n, taken = 300, []

            def consume(q: HybridQueue = q, n: int = n, taken: list[tuple[int, int]] = taken) -> None:
                for _ in range(n):
                    taken.append(parsed(q.dequeue(timeout=PATIENCE_S)))

            crew = Crew()
            for producer in range(2):
                crew.hire(lambda producer=producer, q=q: [q.enqueue(payload(producer, i)) for i in range(300)])
                crew.hire(consume)
            crew.finish()
            assert sorted(taken) == [(producer, i) for producer in range(2) for i in range(n)]
            assert q.stats().balance == 0 and list(q) == []


def test_batches_of_several_threads_never_mix(q: HybridQueue) -> None:
    crew = Crew()
    rounds = items_for(q) // 20
    for producer in range(4):
        crew.hire(lambda producer=producer: [q.enqueue_batch([(producer, turn, i) for i in range(5)]) for turn in range(rounds)])
    crew.finish()
    line = q.dequeue_batch(10_000)
    assert len(line) == 4 * rounds * 5
    for at in range(0, len(line), 5):
        producer, turn, _ = line[at]
        assert line[at : at + 5] == [(producer, turn, i) for i in range(5)]


def test_leases_from_many_threads_each_item_acknowledged_once(q: HybridQueue) -> None:
    n = items_for(q)
    done: list[int] = []
    returned = set(range(0, n, 7))

    def work() -> None:
        while True:
            try:
                deliveries = q.lease_batch(3)
            except QueueClosed:
                return
            if not deliveries and len(done) >= n:
                return
            for delivery in deliveries:
                if delivery.item in returned and delivery.attempts == 1:
                    delivery.nack()
                else:
                    delivery.ack()
                    done.append(delivery.item)

    q.enqueue_batch(range(n))
    crew = Crew()
    for _ in range(4):
        crew.hire(work)
    crew.finish()
    assert sorted(done) == list(range(n))
    assert q.stats().redelivered == len(returned)


def test_of_two_who_settle_the_same_lease_one_is_told_that_it_is_late(q: HybridQueue) -> None:
    n = items_for(q) // 10
    q.enqueue_batch(range(n))
    deliveries = q.lease_batch(n)
    late = itertools.count()
    told = []

    def settle(verb: str) -> None:
        for delivery in deliveries:
            try:
                getattr(delivery, verb)()
            except LeaseExpired:
                told.append(next(late))

    crew = Crew()
    for verb in ("ack", "nack", "ack"):
        crew.hire(settle, verb)
    crew.finish()
    assert len(told) == 2 * n
    assert q.stats().dequeued + len(q) == n


def test_looking_and_moving_items_about_disturbs_nobody(q: HybridQueue) -> None:
    n = items_for(q)
    taken: list[tuple[int, int]] = []
    finished = threading.Event()

    def produce() -> None:
        for i in range(n):
            q.enqueue(payload(0, i))

    def consume() -> None:
        while len(taken) < n:
            taken.append(parsed(q.dequeue(timeout=PATIENCE_S)))
        finished.set()

    def look() -> None:
        while not finished.is_set():
            seen = [parsed(item) for item in itertools.islice(q, 50)]
            assert seen == sorted(set(seen)), "iteration showed an item twice or out of order"
            try:
                parsed(q.peek())
            except QueueEmpty:
                pass
            q.stats()

    def move() -> None:
        for turn in itertools.count():
            if finished.is_set():
                return
            (lambda: q.flush_oldest(2), q.compact_memory, lambda: q.remove_where(lambda item: False), q.cleanup, q.sync, q.compact)[turn % 6]()

    crew = Crew()
    for work in (produce, consume, look, move):
        crew.hire(work)
    crew.finish()
    assert taken == [(0, i) for i in range(n)], "one consumer, one producer: the order is exact"
    assert q.stats().balance == 0


def test_a_blocked_consumer_is_woken_by_the_item_it_waits_for(q: HybridQueue) -> None:
    got: list[Any] = []
    crew = Crew()
    for _ in range(3):
        crew.hire(lambda: got.append(q.dequeue(timeout=PATIENCE_S)))
    crew.go()  # whether they wait already when the items come makes no difference to what must happen
    for item in ("a", "b", "c"):
        q.enqueue(item)
    crew.finish()
    assert sorted(got) == ["a", "b", "c"]


def test_ping_pong_never_loses_a_wake_up(tmp_path: Path) -> None:
    with HybridQueue("there", tmp_path, memory_size=1) as there, HybridQueue("back", tmp_path, memory_size=1) as back:

        def echo() -> None:
            for _ in range(1000):
                back.enqueue(there.dequeue(timeout=PATIENCE_S))

        crew = Crew()
        crew.hire(echo)
        crew.go()
        for i in range(1000):
            there.enqueue(i)
            assert back.dequeue(timeout=PATIENCE_S) == i
        crew.finish()


@pytest.mark.parametrize("on_disk", [False, True], ids=["memory_only", "disk"])
def test_producers_that_wait_for_room_all_get_it(tmp_path: Path, on_disk: bool) -> None:
    options: dict[str, Any] = {"disk_path": tmp_path, "max_disk_size": 256 * KiB, "memory_size": 2} if on_disk else {"memory_size": 3}
    n = 60
    with HybridQueue("q", when_full=WhenFull.BLOCK, **options) as q:
        crew = Crew()
        for producer in range(3):
            crew.hire(lambda producer=producer: [q.enqueue(b"%d %d " % (producer, i) + b"y" * 8000) for i in range(n)])
        crew.go()
        taken = [tuple(map(int, q.dequeue(timeout=PATIENCE_S).split(b" ")[:2])) for _ in range(3 * n)]
        crew.finish()
        assert in_producers_order(taken)
        assert len(set(taken)) == 3 * n
        assert q.stats().disk_bytes <= 256 * KiB


def test_closing_under_load_loses_nothing_and_leaves_nobody_waiting(tmp_path: Path) -> None:
    for durability, plain in itertools.product(Durability, (False, True)):
        name = f"{durability.name}-{plain}"
        q = HybridQueue(name, tmp_path, memory_size=4, durability=durability, _plain=plain)
        put: list[list[int]] = [[], []]
        taken: list[list[int]] = [[], []]
        enough = threading.Barrier(3, timeout=PATIENCE_S)

        def produce(mine: list[int], first: int, q: HybridQueue = q, enough: threading.Barrier = enough) -> None:
            try:
                for i in itertools.count(first, 2):
                    q.enqueue(i)
                    mine.append(i)
                    if len(mine) == 50:
                        enough.wait()
            except QueueClosed:
                return

        def consume(mine: list[int], q: HybridQueue = q) -> None:
            try:
                while True:
                    mine.append(q.dequeue())
            except QueueClosed:
                return

        crew = Crew()
        for k in range(2):
            crew.hire(produce, put[k], k)
            crew.hire(consume, taken[k])
        crew.go()
        enough.wait()
        q.close()
        crew.finish()
        with HybridQueue(name, tmp_path) as q:
            left = q.dequeue_batch(1_000_000)
        assert sorted([*taken[0], *taken[1], *left]) == sorted([*put[0], *put[1]]), name


def test_draining_under_power_delivers_what_it_settles(tmp_path: Path) -> None:
    for attempt in range(15):
        q = HybridQueue(f"q{attempt}", tmp_path, memory_size=2, durability=Durability.POWER)
        q.enqueue_batch(range(30))
        taken: list[int] = []

        def consume(q: HybridQueue = q, taken: list[int] = taken) -> None:
            try:
                while True:
                    taken.append(q.dequeue())
            except QueueClosed:
                return

        crew = Crew()
        crew.hire(consume)
        crew.hire(consume)
        crew.go()
        q.close(drain=PATIENCE_S)
        crew.finish()
        assert sorted(taken) == list(range(30))


def test_power_callers_share_their_syncs(tmp_path: Path) -> None:
    """While one caller's sync is under way all the others come, and the next one covers them."""
    syncing, all_are_there = threading.Event(), threading.Event()
    syncs: list[int] = []

    def step(verb: str) -> None:
        if verb == "datasync" and syncing.is_set():
            syncs.append(len(q))
            assert all_are_there.wait(PATIENCE_S)

    with HybridQueue("q", tmp_path, durability=Durability.POWER, _background=False, _disk_class=stepping(step)) as q:
        q.enqueue("makes the first segment")
        syncing.set()
        crew = Crew()
        for producer in range(16):
            crew.hire(lambda producer=producer: q.enqueue(producer))
        crew.go()
        until(lambda: len(q) == 17)  # an item is in line before its sync
        all_are_there.set()
        crew.finish()
        assert len(syncs) == 2 and syncs[1] == 17, "one that was under way, and one for all who came meanwhile"


def test_a_priority_item_overtakes_in_whoever_takes_next(q: HybridQueue) -> None:
    n = items_for(q) // 4
    crew = Crew()
    crew.hire(lambda: [q.enqueue(("n", i)) for i in range(n)])
    crew.hire(lambda: [q.enqueue(("h", i), priority=200) for i in range(n)])
    crew.hire(lambda: [q.enqueue(("l", i), priority=5) for i in range(n)])
    crew.finish()
    assert q.dequeue_batch(10_000) == [(level, i) for level in "hnl" for i in range(n)]


def test_a_pressure_callback_in_one_thread_and_takers_in_others(tmp_path: Path) -> None:
    heard: list[float] = []
    with HybridQueue("q", tmp_path, memory_size=20) as q:
        q.on_memory_pressure(lambda usage: heard.append(usage) or q.flush_oldest(5), thresholds=(0.5,))
        taken: list[int] = []
        crew = Crew()
        crew.hire(lambda: [q.enqueue(i) for i in range(1000)])
        crew.hire(lambda: [taken.append(q.dequeue(timeout=PATIENCE_S)) for _ in range(1000)])
        crew.finish()
        assert taken == list(range(1000))
        assert q.stats().balance == 0


def test_one_folder_opened_by_many_threads_at_once_has_one_owner(tmp_path: Path) -> None:
    from overspill import QueueLocked

    owners: list[HybridQueue] = []
    refused: list[QueueLocked] = []

    def open_it() -> None:
        try:
            owners.append(HybridQueue("q", tmp_path))
        except QueueLocked as error:
            refused.append(error)

    crew = Crew()
    for _ in range(6):
        crew.hire(open_it)
    crew.finish()
    assert (len(owners), len(refused)) == (1, 5)
    owners[0].close()
