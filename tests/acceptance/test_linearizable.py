"""Histories of many threads on one queue, each judged as a whole: could one thread at a time have told it?

The judge (`histories.py`) is itself on trial first: it finds a violation of each kind, and it agrees with a search through all orders on thousands of small histories.

A seed says who does what; when, the scheduler decides. OVERSPILL_SEED=n gives a run its seed again.
"""
from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
import sys
import threading
import time
from collections.abc import Callable, Hashable, Iterator
from pathlib import Path
from typing import Any

import pytest
from faults import Disk
from histories import Back, Broken, Call, Put, Take, broken_rules

from overspill import Durability, HybridQueue, PriorityQueue, QueueEmpty

CLOCK_TICK_S = 0.02
"""The hot way reads a clock that is behind by no more than this; a delayed item may come so much later."""

SEED = int(os.environ.get("OVERSPILL_SEED", random.SystemRandom().randrange(1 << 32)))


def rules(*history: Call) -> set[str]:
    return {broken.rule for broken in broken_rules(history)}


# --- the judge on trial


def test_a_queue_used_by_one_thread_breaks_no_rule() -> None:
    assert rules() == set()
    assert rules(Take(0, 1), Put(2, 3, ("a",)), Put(4, 5, ("b",)), Take(6, 7, ("a",)), Take(8, 9, ("b",)), Take(10, 11)) == set()
    assert rules(Put(0, 1, ("a", "b", "c")), Take(2, 3, ("a", "b")), Take(4, 5, ("c",))) == set()
    assert rules(Put(0, 1, ("low",), 1), Put(2, 3, ("high",), 9), Take(4, 5, ("high", "low"))) == set()


def test_calls_that_overlap_may_have_taken_effect_in_either_order() -> None:
    a, b = Put(0, 3, ("a",)), Put(1, 2, ("b",))
    assert rules(a, b, Take(4, 5, ("a",)), Take(6, 7, ("b",))) == rules(a, b, Take(4, 5, ("b",)), Take(6, 7, ("a",))) == set()
    assert rules(Put(0, 5, ("a",)), Take(1, 2)) == rules(Put(0, 1, ("a",)), Take(2, 5), Take(3, 4, ("a",))) == set()
    assert rules(Put(0, 9, ("a",)), Take(1, 2, ("a",))) == set()
    assert rules(Put(0, 3, ("high",), 9), Put(0, 1, ("low",), 1), Take(2, 4, ("low",)), Take(5, 6, ("high",))) == set()


def test_what_is_given_back_takes_its_old_place_and_what_is_put_in_front_goes_before() -> None:
    a, b, f, g = Put(0, 1, ("a",)), Put(2, 3, ("b",)), Put(4, 5, ("f",), front=True), Put(6, 7, ("g",), front=True)
    assert rules(a, b, f, g, *(Take(10 + n, 10.5 + n, (value,)) for n, value in enumerate("gfab")), Take(20, 21)) == set()
    assert rules(a, b, Take(4, 5, ("a",)), Take(6, 7, ("b",)), Back(8, 9, "a"), Take(10, 11, ("a",)), Take(12, 13)) == set()
    assert rules(a, b, Take(4, 5, ("a",)), Take(6, 9, ("b",)), Back(7, 8, "a"), Take(10, 11, ("a",))) == set(), "before it was given back"
    assert rules(a, Take(4, 5, ("a",)), Take(6, 7), Back(6, 8, "a"), Take(9, 10, ("a",))) == set()


VIOLATIONS: list[tuple[str, list[Call]]] = [
    ("never put", [Put(0, 1, ("a",)), Take(2, 3, ("b",))]),
    ("taken twice", [Put(0, 1, ("a",)), Take(2, 3, ("a",)), Take(2, 3, ("a",))]),
    ("taken twice", [Put(0, 1, ("a",)), Take(2, 3, ("a", "a"))]),
    ("taken before it was put", [Take(0, 1, ("a",)), Put(2, 3, ("a",))]),
    ("order", [Put(0, 1, ("a",)), Put(2, 3, ("b",)), Take(4, 5, ("b",)), Take(6, 7, ("a",))]),
    ("order", [Put(0, 1, ("a",)), Put(2, 3, ("b",)), Take(4, 5, ("b",))]),
    ("order", [Put(0, 1, ("a",), 5), Put(0, 1, ("x",), 9), Put(2, 3, ("b",), 5), Take(4, 5, ("x", "b")), Take(6, 7, ("a",))]),
    ("order in a batch", [Put(0, 1, ("a", "b", "c")), Take(2, 3, ("a",)), Take(4, 5, ("c",)), Take(6, 7, ("b",))]),
    ("order in a batch", [Put(0, 1, ("a", "b")), Take(2, 3, ("b",))]),
    ("order in an answer", [Put(0, 1, ("a",)), Put(2, 3, ("b",)), Take(4, 5, ("b", "a"))]),
    ("order in an answer", [Put(0, 1, ("a", "b")), Take(4, 5, ("b", "a"))]),
    ("not empty", [Put(0, 1, ("a",)), Take(2, 3), Take(4, 5, ("a",))]),
    ("not empty", [Put(0, 1, ("lost",)), Take(2, 3)]),
    ("not empty", [Put(0, 1, ("a",)), Take(2, 7), Put(3, 4, ("b",)), Take(5, 6, ("a",)), Take(8, 9, ("b",))]),  # first one, then the other was there
    ("priority", [Put(0, 1, ("high",), 9), Put(0, 1, ("low",), 1), Take(2, 3, ("low",)), Take(4, 5, ("high",))]),
    ("priority", [Put(0, 1, ("h",), 9), Put(0, 1, ("low",), 1), Take(2, 7, ("low",)), Put(3, 4, ("i",), 8), Take(5, 6, ("h",)), Take(8, 9, ("i",))]),
    ("taken twice", [Put(0, 1, ("a",)), Take(2, 3, ("a",)), Take(4, 5, ("a",)), Back(6, 7, "a")]),
    ("taken twice", [Put(0, 1, ("a",)), Take(2, 3, ("a",)), Back(4, 5, "a"), Take(6, 7, ("a",)), Take(8, 9, ("a",))]),
    ("not empty", [Put(0, 1, ("a",)), Take(2, 3, ("a",)), Back(4, 5, "a"), Take(6, 7), Take(8, 9, ("a",))]),
    ("order", [Put(0, 1, ("a",)), Put(2, 3, ("b",)), Take(4, 5, ("a",)), Back(6, 7, "a"), Take(8, 9, ("b",)), Take(10, 11, ("a",))]),
    ("order", [Put(0, 1, ("a",)), Put(2, 3, ("b",), front=True), Take(4, 5, ("a",)), Take(6, 7, ("b",))]),
    ("order", [Put(0, 1, ("a",), front=True), Put(2, 3, ("b",), front=True), Take(4, 5, ("a",)), Take(6, 7, ("b",))]),
    ("order", [Put(0, 1, ("b",), front=True), Put(2, 3, ("a",)), Take(4, 5, ("a",)), Take(6, 7, ("b",))]),
    ("priority", [Put(0, 1, ("h",), 9), Put(0, 1, ("low",), 1), Take(2, 3, ("h",)), Back(4, 5, "h"), Take(6, 7, ("low",)), Take(8, 9, ("h",))]),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "history"), VIOLATIONS, ids=[f"{rule}-{n}" for n, (rule, _) in enumerate(VIOLATIONS)])
def test_the_judge_finds_each_kind_of_violation_also_in_a_long_history(rule: str, history: list[Call]) -> None:
    assert rules(*history) == {rule}
    before = [call for n in range(200) for call in (Put(4 * n, 4 * n + 1, (n,)), Take(4 * n + 2, 4 * n + 3, (n,)))]
    later = [call._replace(invoked=call.invoked + 1000, responded=call.responded + 1000) for call in history]
    assert rules(*before) == set() and rules(*before, *later) == {rule}


def can_be_put_in_a_line(history: list[Call]) -> bool:
    """The definition: some order of the calls, in keeping with time, is what one thread could have done. Tries them all; single values only."""
    seen = set()
    Line = tuple[tuple[tuple[int, int], Hashable], ...]

    def go_on(left: frozenset[int], line: Line, out: Line) -> bool:
        """`line` in its order, and what was taken `out` with its place, in case that it comes back."""
        if not left:
            return True
        if (left, line, out) in seen:
            return False
        seen.add((left, line, out))
        first_end = min(history[n].responded for n in left)
        return any(history[n].invoked <= first_end and after(n, left - {n}, line, out) for n in left)

    def after(n: int, left: frozenset[int], line: Line, out: Line) -> bool:
        call = history[n]
        if isinstance(call, Put):
            place = len(history) - len(left)
            return go_on(left, tuple(sorted([*line, ((-call.priority, -place if call.front else place), call.values[0])])), out)
        if isinstance(call, Back):
            back = [entry for entry in out if entry[1] == call.value]
            return bool(back) and go_on(left, tuple(sorted([*line, *back])), tuple(entry for entry in out if entry not in back))
        return [value for _, value in line[:1]] == list(call.values) and go_on(left, line[1:], tuple(sorted([*out, *line[:1]])))

    return go_on(frozenset(range(len(history))), (), ())


def small_history(rng: random.Random, levels: int, moves: bool) -> list[Call]:
    """Calls at random times with answers that a queue might have given, or nearly. `moves`: values are put in front and given back, too."""
    calls: list[Call] = []
    values = list(range(rng.randrange(1, 5)))
    width = rng.choice([0.3, 1, 3])
    instants: list[tuple[float, Any]] = [(rng.uniform(0, 10), value) for value in values]
    instants += [(rng.uniform(0, 12), None) for _ in range(rng.randrange(1, 6))]

    def around(at: float) -> tuple[float, float]:
        return at - rng.uniform(0, width), at + rng.uniform(0, width)

    line: list[tuple[tuple[int, int], int]] = []
    instants.sort(key=lambda instant: instant[0])
    places = itertools.count(1)
    while instants:
        at, what = instants.pop(0)
        if isinstance(what, int):
            front, priority, place = moves and rng.random() < 0.3, rng.randrange(levels), next(places)
            calls.append(Put(*around(at), (what,), priority, front))
            line = sorted([*line, ((-priority, -place if front else place), what)])
        elif isinstance(what, tuple):
            line = sorted([*line, what])
        else:
            answer = [line.pop(0)] if line else []
            calls.append(take := Take(*around(at), tuple(value for _, value in answer)))
            if moves and answer and rng.random() < 0.4:  # the same thread gives it back: afterwards
                back = Back(begun := take.responded + rng.uniform(0, 1), begun + rng.uniform(0, width), answer[0][1])
                calls.append(back)
                instants = sorted([*instants, (rng.uniform(back.invoked, back.responded), answer[0])], key=lambda instant: instant[0])
    takes = [n for n, call in enumerate(calls) if isinstance(call, Take)]
    if rng.random() < 0.6:  # a lie: two answers are exchanged, or one call is moved
        n, m = rng.choice(takes), rng.choice(takes)
        calls[n], calls[m] = calls[n]._replace(values=calls[m].values), calls[m]._replace(values=calls[n].values)
    if rng.random() < 0.4:
        n, by = rng.randrange(len(calls)), rng.uniform(-4, 4)
        calls[n] = calls[n]._replace(invoked=calls[n].invoked + by, responded=calls[n].responded + by)
    return calls if all(has_it_to_give(calls, back) for back in calls if isinstance(back, Back)) else small_history(rng, levels, moves)


def has_it_to_give(calls: list[Call], back: Back) -> bool:
    """Whoever gives a value back was given it first, as often as it has been given back: also a thread that was lied to."""
    before = sum(isinstance(call, Take) and back.value in call.values and call.responded <= back.invoked for call in calls)
    return before >= sum(isinstance(call, Back) and call.value == back.value and call.invoked <= back.invoked for call in calls)


@pytest.mark.parametrize(("levels", "moves"), [(1, False), (3, False), (1, True), (3, True)])
def test_the_judge_agrees_with_a_search_through_all_orders(levels: int, moves: bool) -> None:
    print(f"OVERSPILL_SEED={SEED}")
    rng = random.Random(f"{SEED} judge {levels} {moves}")
    right = wrong = missed = 0
    for _ in range(1500):
        history = small_history(rng, levels, moves)
        in_line, broken = can_be_put_in_a_line(history), broken_rules(history)
        assert not (in_line and broken), f"a right history is called wrong: {history}\n{broken}"
        assert levels > 1 or moves or in_line or broken, f"a wrong history is called right: {history}"
        right, wrong, missed = right + in_line, wrong + (not in_line), missed + (not in_line and not broken)
    print(f"{right} right, {wrong} wrong, {missed} of these missed")
    assert right > 150 and wrong > 150, "the histories are too easy"
    assert missed <= wrong * 0.1, "of wrong histories with priorities, returns or fronts, the judge misses few"


# --- queues on trial


class Workers:
    """Threads that put, take and write down when; what each does is drawn from the seed, and its values are its own."""

    def __init__(self, queue: HybridQueue, n: int, calls: int, seed: str, *, levels: int = 1, batches: bool = True, leases: bool = True, moves: bool = False) -> None:
        self.queue, self.n, self.calls, self.seed = queue, n, calls, seed
        self.levels, self.batches, self.leases = levels, batches, leases
        self.moves = moves
        """Whether items are given back, at once or with a delay, and put in front."""
        self.written: list[list[Call]] = [[] for _ in range(n)]
        self.failed: list[BaseException] = []
        self.start = threading.Barrier(n)

    def history(self) -> list[Call]:
        threads = [threading.Thread(target=self.work, args=(mine,), daemon=True) for mine in range(self.n)]
        before = sys.getswitchinterval()
        sys.setswitchinterval(2e-5)
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(120)
                assert not thread.is_alive(), "somebody waits for ever"
        finally:
            sys.setswitchinterval(before)
        assert not self.failed, self.failed
        return [*itertools.chain.from_iterable(self.written), *self.rest()]

    def rest(self) -> Iterator[Take]:
        """What is left, to the last item: one that is lost was there when the queue said that it is empty."""
        while True:
            delayed = self.queue.stats().delayed
            take = self.call(lambda: self.queue.dequeue_batch(500, timeout=60 if delayed else 0))
            yield take
            if not take.values and not delayed:
                return

    def work(self, mine: int) -> None:
        try:
            self.start.wait()
            rng, written, value = random.Random(f"{self.seed} {mine}"), self.written[mine], 0
            rising = True
            for n in range(self.calls // self.n):
                if n % 100 == 0:
                    rising = rng.random() < 0.5  # now the queue fills, now it is empty most of the time
                if rng.random() < (0.6 if rising else 0.15 if self.moves else 0.35):
                    level = rng.randrange(self.levels)
                    many = rng.randrange(1, 6) if self.batches and rng.random() < 0.1 else 1
                    values = tuple((mine, value + k) for k in range(many))
                    value += many
                    front = self.moves and many == 1 and rng.random() < 0.1
                    invoked = time.perf_counter_ns()
                    if many > 1:
                        self.queue.enqueue_batch(values, priority=level)
                    elif front:
                        self.queue.enqueue_front(values[0], priority=level)
                    else:
                        self.queue.enqueue(values[0], priority=level)
                    written.append(Put(invoked, time.perf_counter_ns(), values, level, front))
                elif self.moves and rng.random() < 0.2:
                    written += self.given_back(rng.choice([0, 0, 0, 0.001]))
                else:
                    written.append(self.call(rng.choice(self.ways)))
        except BaseException as error:
            self.failed.append(error)
            self.start.abort()

    @property
    def ways(self) -> list[Callable[[], list[Any]]]:
        q = self.queue
        ways: list[Callable[[], list[Any]]] = [lambda: [q.try_dequeue()]] * 6 + [lambda: [q.dequeue(timeout=0)], lambda: [q.dequeue(timeout=0.0005)]]
        if self.batches:
            ways += [lambda: q.dequeue_batch(3), lambda: q.dequeue_batch(2, timeout=0.0005)]
        if self.leases:
            ways.append(self.leased)
        return ways

    def given_back(self, delay: float) -> list[Call]:
        """An item is leased and not done: it is in line again, once the delay has passed and the clock of the hot way has ticked."""
        invoked = time.perf_counter_ns()
        try:
            delivery = self.queue.lease(timeout=0)
        except QueueEmpty:
            return [Take(invoked, time.perf_counter_ns())]
        take = Take(invoked, time.perf_counter_ns(), (delivery.item,))
        invoked = time.perf_counter_ns()
        delivery.nack(delay=delay)
        responded = time.perf_counter_ns()
        return [take, Back(invoked + delay * 1e9, responded + ((delay + CLOCK_TICK_S) * 1e9 if delay else 0), delivery.item)]

    def leased(self) -> list[Any]:
        with self.queue.lease(timeout=0) as delivery:
            return [delivery.item]

    def call(self, way: Callable[[], list[Any]]) -> Take:
        invoked = time.perf_counter_ns()
        values: list[Any] = []
        with contextlib.suppress(QueueEmpty):
            values = way()
        return Take(invoked, time.perf_counter_ns(), tuple(values))


def judged(queue: HybridQueue, n: int, calls: int, *, workers: type[Workers] = Workers, **options: Any) -> list[Call]:
    seed = f"{SEED} {n} {calls}"
    print(f"OVERSPILL_SEED={SEED}")
    history = workers(queue, n, calls, seed, **options).history()
    broken: list[Broken] = broken_rules(history)
    if workers is TasksThatGiveUp:
        broken = [one for one in broken if one.rule in ("never put", "taken twice", "taken before it was put")]
    assert not broken, f"OVERSPILL_SEED={SEED}: {len(broken)} violations, first {sorted(broken, key=lambda one: one.at)[:5]}"
    stats = queue.stats()
    n_put, n_taken = (sum(len(call.values) for call in history if isinstance(call, kind)) for kind in (Put, Take))
    n_back = sum(isinstance(call, Back) for call in history)
    assert (n_back > 0) == options.get("moves", False)
    assert n_put == n_taken - n_back == stats.enqueued == stats.dequeued and len(queue) == stats.in_flight == 0
    assert any(isinstance(call, Take) and not call.values for call in history[:-1]), "the queue was never empty: too easy"
    return history


class Willing(Disk):
    """A sync costs a moment in which others run, and not the time of a disk: what is judged is who sees what meanwhile."""

    def datasync(self, fd: int) -> None:
        os.sched_yield()


KINDS: dict[str, tuple[type[HybridQueue], dict[str, Any]]] = {
    "memory_only": (HybridQueue, {"memory_size": 1_000_000}),
    "spilling": (HybridQueue, {"memory_size": 3, "durability": Durability.PROCESS}),
    "staged": (HybridQueue, {"memory_size": 3, "durability": Durability.MEMORY}),
    "power": (HybridQueue, {"memory_size": 3, "durability": Durability.POWER, "_disk_class": Willing}),
    "levels_in_memory": (PriorityQueue, {"memory_size": 1_000_000}),
    "levels_spilling": (PriorityQueue, {"memory_size": 3, "durability": Durability.PROCESS}),
}


def on_trial(kind: str, where: Path, n: int, calls: int, *, workers: type[Workers] = Workers, **how: Any) -> None:
    face, options = KINDS[kind]
    on_disk = "durability" in options
    if kind == "power":
        calls //= 4  # each waits for others
    levels = 256 if face is PriorityQueue and n == 8 else 3 if face is PriorityQueue else 1
    with face("q", where if on_disk else None, **options) as queue:
        judged(queue, n, calls, workers=workers, levels=levels, **how)
        assert not on_disk or queue.stats().spilled > 0, "nothing was spilled: too easy"


@pytest.mark.parametrize("n", [2, 8, 32])
@pytest.mark.parametrize("kind", KINDS)
def test_what_many_threads_see_could_have_been_seen_by_one(tmp_path: Path, kind: str, n: int) -> None:
    on_trial(kind, tmp_path, n, 10_000)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_given_back_or_put_in_front_has_one_place_for_all(tmp_path: Path, kind: str) -> None:
    on_trial(kind, tmp_path, 8, 5_000, moves=True)


@pytest.mark.battery
@pytest.mark.parametrize("n", [2, 8, 32])
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_given_back_or_put_in_front_for_long(tmp_path: Path, kind: str, n: int) -> None:
    on_trial(kind, tmp_path, n, 100_000, moves=True)


class TasksToo(Workers):
    """Half of the workers are tasks of one event loop, on the same queue."""

    cancels = False

    def history(self) -> list[Call]:
        self.n_tasks = self.n // 2
        self.start = threading.Barrier(self.n - self.n_tasks + 1)
        loop = threading.Thread(target=self.run_tasks, daemon=True)
        loop.start()
        self.n, n = self.n - self.n_tasks, self.n
        self.calls //= 2
        history = super().history()
        loop.join(120)
        assert not loop.is_alive(), "a task waits for ever"
        assert not self.failed, self.failed
        self.n = n
        return [*history, *self.rest(), *itertools.chain.from_iterable(self.written_by_tasks)]

    def run_tasks(self) -> None:
        self.written_by_tasks: list[list[Call]] = [[] for _ in range(self.n_tasks)]

        async def all_of_them() -> None:
            await asyncio.gather(*(self.task(mine) for mine in range(self.n_tasks)))

        try:
            self.start.wait()
            asyncio.run(all_of_them())
        except BaseException as error:
            self.failed.append(error)
            self.start.abort()

    async def task(self, mine: int) -> None:
        rng, written, q = random.Random(f"{self.seed} task {mine}"), self.written_by_tasks[mine], self.queue.aio
        for n in range(self.calls // self.n_tasks):
            if n % 7 == 0:
                await asyncio.sleep(0)
            invoked = time.perf_counter_ns()
            if rng.random() < 0.47:
                level, values = rng.randrange(self.levels), tuple(("task", mine, n, k) for k in range(rng.choice([1, 1, 1, 1, 4])))
                if len(values) > 1:
                    await q.enqueue_batch(values, priority=level)
                else:
                    await q.enqueue(values[0], priority=level)
                written.append(Put(invoked, time.perf_counter_ns(), values, level))
                continue
            way = rng.randrange(8)
            try:
                if way == 0 and self.cancels:
                    got = await asyncio.wait_for(q.dequeue(), rng.choice([0, 0.0005]))
                elif way == 1:
                    written.append(Take(invoked, 0, tuple(await q.dequeue_batch(3)))._replace(responded=time.perf_counter_ns()))
                    continue
                elif way == 2:
                    async with await q.lease(timeout=0) as delivery:
                        got = delivery.item
                else:
                    got = await q.dequeue(timeout=rng.choice([0, 0, 0, 0.0005]))
            except QueueEmpty:
                written.append(Take(invoked, time.perf_counter_ns()))
            except TimeoutError:
                pass  # cancelled: an item that it took along would be missed at the end
            else:
                written.append(Take(invoked, time.perf_counter_ns(), (got,)))


class TasksThatGiveUp(TasksToo):
    """Now and then a task gives up waiting, and is cancelled. An item that it had in hand goes back to its old place, as from a lease: meanwhile others may have come first, or found nothing."""

    cancels = True


TASKS_ON = ["memory_only", "spilling", "power", "levels_spilling"]


@pytest.mark.parametrize("kind", TASKS_ON)
def test_threads_and_tasks_on_one_queue_tell_one_story(tmp_path: Path, kind: str) -> None:
    on_trial(kind, tmp_path, 8, 5_000, workers=TasksToo)


@pytest.mark.battery
@pytest.mark.parametrize("kind", KINDS)
def test_threads_and_tasks_tell_one_story_for_long(tmp_path: Path, kind: str) -> None:
    on_trial(kind, tmp_path, 16, 100_000, workers=TasksToo)


@pytest.mark.parametrize("kind", TASKS_ON)
def test_a_task_that_is_cancelled_takes_no_item_along_and_leaves_none_twice(tmp_path: Path, kind: str) -> None:
    on_trial(kind, tmp_path, 8, 5_000, workers=TasksThatGiveUp)


@pytest.mark.battery
@pytest.mark.parametrize("kind", KINDS)
def test_tasks_that_are_cancelled_for_long(tmp_path: Path, kind: str) -> None:
    on_trial(kind, tmp_path, 16, 100_000, workers=TasksThatGiveUp)


class Overtaking(HybridQueue):
    """A faulty queue: one item in a hundred goes before the others."""

    put_so_far = itertools.count()

    def enqueue(self, item: Any, **how: Any) -> None:
        if next(self.put_so_far) % 100 == 99:
            self.enqueue_front(item)
        else:
            super().enqueue(item, **how)


class Losing(HybridQueue):
    """A faulty queue: one item in a thousand is thrown away when it is taken."""

    taken_so_far = itertools.count()

    def try_dequeue(self) -> Any:
        if next(self.taken_so_far) % 1000 == 999:
            super().try_dequeue()
        return super().try_dequeue()


class NotInFront(HybridQueue):
    """A faulty queue: what is to be in front is at the end."""

    def enqueue_front(self, item: Any, **how: Any) -> None:
        self.enqueue(item, **how)


class Misplacing(HybridQueue):
    """A faulty queue: what is given back goes to the end."""

    def _nacking(self, token: int, *_: Any) -> Iterator[Any]:
        item = self._item_of(self._leases._held[token][0])
        yield from self._acking(token)
        self.enqueue(item)


@pytest.mark.parametrize(("faulty", "rule"), [(Overtaking, "order"), (Losing, "not empty"), (NotInFront, "order"), (Misplacing, "order")])
def test_a_faulty_queue_is_caught_in_the_act(faulty: type[HybridQueue], rule: str) -> None:
    with faulty("q", memory_size=1_000_000) as queue:
        history = Workers(queue, 4, 8_000, f"{SEED} faulty", moves=faulty in (NotInFront, Misplacing)).history()
    assert rule in rules(*history), f"OVERSPILL_SEED={SEED}"


@pytest.mark.battery
@pytest.mark.parametrize("n", [2, 8, 32])
@pytest.mark.parametrize("kind", KINDS)
def test_what_many_threads_see_for_long_could_have_been_seen_by_one(tmp_path: Path, kind: str, n: int) -> None:
    on_trial(kind, tmp_path, n, 200_000)
