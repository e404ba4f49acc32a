"""KeyboardInterrupt at every place where one can come out of a verb, one by one: nothing is lost, doubled, held or forgotten.

Each story prepares a queue, interrupts one call at one place, and judges from another thread what is left: whoever waits for ever there has met a lock that the
interrupted call has kept. Then every item must be accounted for: it comes out once, in order, or it left in a way that is counted. Every second time that is
judged after closing and opening again.

The default run takes places at random (the seed is printed); the whole enumeration is a battery.
"""
from __future__ import annotations

import random
import shutil
import subprocess
import sys
import textwrap
import threading
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import folders
import pytest
from interrupting import count_places, handled, interrupt_at

from overspill import CircularBuffer, Durability, HybridQueue, PriorityQueue, Queue, QueueEmpty, WhenFull
from overspill._runtime.clock import ManualClock
from overspill._runtime.standby import runner

quick_path = folders.quick_path

PATIENCE_S = 60
SEED = random.randrange(1 << 32)

SETTINGS: dict[str, dict[str, Any]] = {
    "in memory": {},
    "MEMORY": {"durability": Durability.MEMORY, "memory_size": 3},
    "PROCESS": {"durability": Durability.PROCESS, "memory_size": 3},
    "plain": {"durability": Durability.PROCESS, "memory_size": 3, "_plain": True},
    "POWER": {"durability": Durability.POWER, "memory_size": 3},
}
ITEMS: list[Any] = [f"item {n}" if n % 2 else {"item": n} for n in range(8)]
"""Such as the hot way takes, and such as it leaves to the slow one."""


@dataclass
class Scene:
    """One queue, before and after one call."""

    path: Path
    options: dict[str, Any]
    face: Callable[..., Any] = HybridQueue
    clock: ManualClock = field(default_factory=ManualClock)
    known: list[Any] = field(default_factory=list)
    """What was put before."""
    maybe: list[Any] = field(default_factory=list)
    """What the call puts: all of it, or nothing."""
    ordered: bool = True
    q: Any = None
    held: Any = None

    def open(self) -> Any:
        on_disk = "durability" in self.options
        self.q = self.face("q", self.path if on_disk else None, _clock=self.clock, _background=False, **{"lease_timeout": 30, **self.options})
        return self.q

    def put(self, *items: Any, **how: Any) -> None:
        for item in items:
            self.q.enqueue(item, **how)
            self.known.append(item)

    @property
    def on_disk(self) -> bool:
        return "durability" in self.options


Story = Callable[[Scene], Callable[[], Any]]
STORIES: dict[str, Story] = {}


def story(tell: Story) -> Story:
    STORIES[tell.__name__] = tell
    return tell


def begun(scene: Scene, items: list[Any] = ITEMS) -> Any:
    scene.open()
    scene.put(*items)
    return scene.q


@story
def enqueue(scene: Scene) -> Callable[[], Any]:
    q = begun(scene)
    scene.maybe = ["new"]
    return lambda: q.enqueue("new")


@story
def enqueue_what_must_be_encoded(scene: Scene) -> Callable[[], Any]:
    q = begun(scene)
    scene.maybe = [("new", 1)]
    return lambda: q.enqueue(("new", 1))


@story
def enqueue_the_first(scene: Scene) -> Callable[[], Any]:
    q = scene.open()
    scene.maybe = ["new"]
    return lambda: q.enqueue("new")


@story
def enqueue_a_large_item(scene: Scene) -> Callable[[], Any]:
    q = begun(scene)
    scene.maybe = ["x" * 40_000]
    return lambda: q.enqueue(scene.maybe[0])


@story
def enqueue_batch(scene: Scene) -> Callable[[], Any]:
    q = begun(scene)
    scene.maybe = ["new", ("new", 1), "newer"]
    return lambda: q.enqueue_batch(scene.maybe)


@story
def enqueue_a_plain_batch(scene: Scene) -> Callable[[], Any]:
    q = begun(scene)
    scene.maybe = ["new", "newer", "newest"]
    return lambda: q.enqueue_batch(scene.maybe)


@story
def enqueue_front(scene: Scene) -> Callable[[], Any]:
    q = begun(scene)
    scene.maybe = ["new"]
    return lambda: q.enqueue_front("new")


@story
def enqueue_with_a_delay(scene: Scene) -> Callable[[], Any]:
    q = begun(scene)
    scene.maybe = ["new"]
    return lambda: q.enqueue("new", delay=5)


@story
def dequeue(scene: Scene) -> Callable[[], Any]:
    return begun(scene).dequeue


@story
def dequeue_from_memory(scene: Scene) -> Callable[[], Any]:
    return begun(scene, ITEMS[:2]).dequeue


@story
def dequeue_what_was_opened(scene: Scene) -> Callable[[], Any]:
    q = begun(scene)
    if scene.on_disk:
        q.close()
        q = scene.open()
    return q.try_dequeue


@story
def dequeue_the_last(scene: Scene) -> Callable[[], Any]:
    return begun(scene, ITEMS[:1]).try_dequeue


@story
def dequeue_from_an_empty_queue(scene: Scene) -> Callable[[], Any]:
    q = scene.open()

    def verb() -> None:
        try:
            q.dequeue(0)
        except QueueEmpty:
            pass

    return verb


@story
def dequeue_batch(scene: Scene) -> Callable[[], Any]:
    q = begun(scene)
    return lambda: q.dequeue_batch(6)


@story
def lease(scene: Scene) -> Callable[[], Any]:
    return begun(scene).lease


@story
def lease_batch(scene: Scene) -> Callable[[], Any]:
    q = begun(scene)
    return lambda: q.lease_batch(4)


@story
def lease_past_its_last_attempt(scene: Scene) -> Callable[[], Any]:
    scene.options = scene.options | {"max_attempts": 1}
    q = begun(scene)
    if scene.on_disk:
        q.lease_batch(2)
        q.close()
        q = scene.open()
    scene.ordered = False
    return lambda: q.lease(0)


def on_lease(scene: Scene, **options: Any) -> Any:
    scene.options = scene.options | options
    return begun(scene).lease()


@story
def ack(scene: Scene) -> Callable[[], Any]:
    return on_lease(scene).ack  # type: ignore[no-any-return]


@story
def nack(scene: Scene) -> Callable[[], Any]:
    return on_lease(scene).nack  # type: ignore[no-any-return]


@story
def nack_with_a_delay(scene: Scene) -> Callable[[], Any]:
    delivery = on_lease(scene)
    return lambda: delivery.nack(delay=5)


@story
def nack_for_good(scene: Scene) -> Callable[[], Any]:
    delivery = on_lease(scene, max_attempts=1)
    return lambda: delivery.nack(error="no")


@story
def reject(scene: Scene) -> Callable[[], Any]:
    delivery = on_lease(scene)
    return lambda: delivery.reject("no")


@story
def extend(scene: Scene) -> Callable[[], Any]:
    delivery = on_lease(scene)
    return lambda: delivery.extend(5)


@story
def a_block_on_lease(scene: Scene) -> Callable[[], Any]:
    q = begun(scene)

    def verb() -> None:
        with q.lease() as delivery:
            assert delivery.item == ITEMS[0]

    return verb


@story
def peek(scene: Scene) -> Callable[[], Any]:
    return begun(scene).peek


@story
def iterate(scene: Scene) -> Callable[[], Any]:
    q = begun(scene)
    return lambda: len(list(q))


@story
def clear(scene: Scene) -> Callable[[], Any]:
    return begun(scene).clear


@story
def remove_where(scene: Scene) -> Callable[[], Any]:
    q = begun(scene)
    return lambda: q.remove_where(lambda item: isinstance(item, dict))


@story
def flush_to_disk(scene: Scene) -> Callable[[], Any]:
    return begun(scene).flush_to_disk


@story
def set_memory_limit(scene: Scene) -> Callable[[], Any]:
    q = begun(scene)
    return lambda: q.set_memory_limit(8 if scene.on_disk else 100)


@story
def sync(scene: Scene) -> Callable[[], Any]:
    return begun(scene).sync


@story
def compact(scene: Scene) -> Callable[[], Any]:
    return begun(scene).compact


@story
def cleanup_of_what_has_expired(scene: Scene) -> Callable[[], Any]:
    q = begun(scene)
    scene.put("old", "older", ttl=1)
    scene.clock.jump(5)
    return q.cleanup


@story
def dequeue_past_what_has_expired(scene: Scene) -> Callable[[], Any]:
    q = scene.open()
    scene.put("old", "older", ttl=1)
    scene.put(*ITEMS)
    scene.clock.jump(5)
    return q.try_dequeue


@story
def dequeue_what_was_delayed(scene: Scene) -> Callable[[], Any]:
    q = scene.open()
    scene.put(*ITEMS, delay=1)
    scene.clock.jump(5)
    return q.try_dequeue


@story
def a_batch_by_time(scene: Scene) -> Callable[[], Any]:
    batches = begun(scene).batches(5)
    return lambda: next(batches)


def with_dead_letters(scene: Scene) -> Any:
    q = begun(scene)
    for delivery in q.lease_batch(4):
        delivery.reject("no")
    scene.ordered = False
    return q.dead_letters


@story
def replay(scene: Scene) -> Callable[[], Any]:
    return with_dead_letters(scene).replay  # type: ignore[no-any-return]


@story
def replay_some(scene: Scene) -> Callable[[], Any]:
    letters = with_dead_letters(scene)
    return lambda: letters.replay(lambda letter: isinstance(letter.item, str))


@story
def take_a_dead_letter(scene: Scene) -> Callable[[], Any]:
    return with_dead_letters(scene).try_dequeue  # type: ignore[no-any-return]


@story
def clear_dead_letters(scene: Scene) -> Callable[[], Any]:
    return with_dead_letters(scene).clear  # type: ignore[no-any-return]


@story
def enqueue_where_the_oldest_gives_way(scene: Scene) -> Callable[[], Any]:
    scene.options = scene.options | {"max_items": len(ITEMS), "when_full": WhenFull.DROP_OLDEST}
    q = begun(scene)
    scene.maybe = ["new"]
    return lambda: q.enqueue("new")


@story
def enqueue_at_a_priority(scene: Scene) -> Callable[[], Any]:
    scene.face = PriorityQueue
    q = begun(scene)
    scene.maybe = ["new"]
    return lambda: q.enqueue("new", 200)


@story
def close(scene: Scene) -> Callable[[], Any]:
    return begun(scene).close


# --- the other faces


@story
def push(scene: Scene) -> Callable[[], Any]:
    scene.options = scene.options | {"memory_size": 8}

    def face(name: str, path: Path | None, **options: Any) -> CircularBuffer:
        return CircularBuffer(len(ITEMS), name=name, disk_path=path, **options)

    scene.face = face
    buffer = scene.open()
    for item in ITEMS:
        buffer.push(item)
    scene.known += ITEMS
    scene.maybe = ["new"]
    return lambda: buffer.push("new")


@story
def look_at_the_last(scene: Scene) -> Callable[[], Any]:
    push(scene)
    scene.maybe = []
    return lambda: (scene.q.get_last(3), len(scene.q), scene.q[0])


def drop_in(scene: Scene) -> Queue:
    def face(name: str, path: Path | None, **options: Any) -> Any:
        queue = Queue(len(ITEMS), name=name, disk_path=path, **options)
        queue._line.put, queue._line.face = queue.put, queue  # for those who judge: they see the line
        return queue._line

    scene.face = face
    begun(scene, ITEMS[:-1])
    return scene.q.face  # type: ignore[no-any-return]


@story
def put(scene: Scene) -> Callable[[], Any]:
    queue = drop_in(scene)
    scene.maybe = ["new"]
    return lambda: queue.put("new")


@story
def get_and_be_done(scene: Scene) -> Callable[[], Any]:
    queue = drop_in(scene)

    def verb() -> None:
        queue.get()
        queue.task_done()

    return verb


# --- judging


def elsewhere(judge: Callable[[], None], what: str) -> None:
    """In another thread, which gets no lock that the interrupted call has kept."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            judge()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(PATIENCE_S)
    if thread.is_alive():
        frames = sys._current_frames()[thread.ident or 0]
        raise AssertionError(f"{what}: it waits for ever\n" + "".join(traceback.format_stack(frames)))
    if errors:
        raise AssertionError(f"{what}: {errors[0]!r}") from errors[0]


def come_to_rest() -> None:
    """What an interrupted call had given to another thread may still be on its way."""
    done = threading.Event()
    runner.do(done.set)
    assert done.wait(PATIENCE_S)


def taken_from(q: Any) -> list[Any]:
    items = []
    while True:
        try:
            items.append(q.try_dequeue())
        except QueueEmpty:
            return items


def gone_from(q: Any) -> int:
    """How many items the queue says have left it, in whatever way."""
    stats = q.stats()
    return int(stats.dequeued + stats.removed + stats.cleared + stats.expired + sum(stats.dropped.values()))


def judge(scene: Scene, again: bool) -> None:
    come_to_rest()
    q, gone = scene.q, 0
    if scene.on_disk and (again or q.closed):
        q.close()
        gone = gone_from(q)
        q = scene.open()
    elif q.closed:
        return
    scene.clock.advance(60)  # leases end, delayed items are due
    scene.clock.advance(60)
    assert q.stats().in_flight == 0, "an item is with nobody"
    assert q.stats().balance == 0, q.stats()
    dead = [letter.item for letter in q.dead_letters]
    listed = list(q)
    taken = taken_from(q)
    assert listed == taken and len(q) == 0
    assert q.stats().balance == 0 and q.stats().in_flight == 0
    gone += gone_from(q) - len(taken)
    found = Counter(map(repr, taken + dead))
    assert all(n == 1 for n in found.values()), f"twice: {found}"
    new = [item for item in scene.maybe if repr(item) in found]
    assert new in ([], scene.maybe), f"half of it: {new}"
    lost = [item for item in scene.known if repr(item) not in found]
    assert len(lost) == gone, f"{lost} are gone, {gone} are counted"
    assert not found.keys() - {repr(item) for item in scene.known + scene.maybe}
    if scene.ordered:
        places = [scene.known.index(item) for item in taken if item in scene.known]
        assert places == sorted(places), taken
    q.enqueue("one more")
    assert q.dequeue(0) == "one more"
    q.close()


def interrupted_story(tell: Story, options: dict[str, Any], path: Path, at: int) -> None:
    path.mkdir(mode=0o700)
    scene = Scene(path, dict(options))
    verb = tell(scene)
    interrupt_at(verb, at)
    elsewhere(lambda: judge(scene, at % 2 == 0), f"{scene.options} interrupted at {at}")
    shutil.rmtree(path)


def places_of(tell: Story, options: dict[str, Any], path: Path) -> int:
    path.mkdir(mode=0o700)
    scene = Scene(path, dict(options))
    places = count_places(tell(scene))
    elsewhere(lambda: judge(scene, False), "not interrupted")
    shutil.rmtree(path)
    return places


# What is looked at in a finaliser, Python tells and swallows: then the call has come to its end.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.mark.parametrize("tell", STORIES)
def test_a_verb_interrupted_at_some_places(tell: str, quick_path: Path) -> None:
    rng = random.Random(f"{SEED} {tell}")
    print("seed", SEED)
    with handled():
        for setting in rng.sample(list(SETTINGS), 2):
            places = places_of(STORIES[tell], SETTINGS[setting], quick_path / setting)
            for at in rng.sample(range(1, places + 1), min(2, places)):
                interrupted_story(STORIES[tell], SETTINGS[setting], quick_path / f"{setting} at {at}", at)


@pytest.mark.parametrize("setting", SETTINGS)
def test_who_waits_for_an_item_gets_it_though_its_enqueue_is_interrupted(setting: str, quick_path: Path) -> None:
    rng = random.Random(f"{SEED} waiting {setting}")
    print("seed", SEED)

    def waiting(path: Path) -> tuple[Scene, threading.Thread, list[Any]]:
        path.mkdir(mode=0o700)
        scene = Scene(path, dict(SETTINGS[setting]))
        q, got = scene.open(), list[Any]()
        taker = threading.Thread(target=lambda: got.append(q.dequeue()), daemon=True)
        taker.start()
        while not q._n_takers:
            taker.join(0.001)
        return scene, taker, got

    def served(scene: Scene, taker: threading.Thread, got: list[Any]) -> None:
        come_to_rest()
        if not scene.q.stats().enqueued:
            scene.q.enqueue("another")
        taker.join(PATIENCE_S)
        assert got in (["new"], [("new", 1)], ["another"])
        scene.q.close()

    with handled():
        for item in ("new", ("new", 1)):
            scene, *others = waiting(quick_path / f"{item}")
            places = count_places(lambda: scene.q.enqueue(item))
            served(scene, *others)
            for at in rng.sample(range(1, places + 1), min(6, places)):
                scene, *others = waiting(quick_path / f"{item} {at}")
                interrupt_at(lambda: scene.q.enqueue(item), at)
                elsewhere(lambda: served(scene, *others), f"interrupted at {at}")


@pytest.mark.battery
@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("tell", STORIES)
def test_a_verb_interrupted_at_every_place(tell: str, setting: str, quick_path: Path) -> None:
    failures = []
    with handled():
        places = places_of(STORIES[tell], SETTINGS[setting], quick_path / "whole")
        for at in range(1, places + 1):
            try:
                interrupted_story(STORIES[tell], SETTINGS[setting], quick_path / f"at {at}", at)
            except AssertionError as error:
                failures.append(str(error).split("\n")[0])
    assert not failures, f"{len(failures)} of {places} places:\n" + "\n".join(failures[:20])


STORM = """
    import random, signal, sys
    from overspill import Durability, HybridQueue, QueueEmpty

    seed, durability, path = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    rng = random.Random(seed)

    def strike(signum, frame):
        raise KeyboardInterrupt

    signal.signal(signal.SIGALRM, strike)
    q = HybridQueue("q", path, memory_size=5, durability=Durability[durability], lease_timeout=0.05)
    tried, put, got, n, hits = [], [], [], 0, 0

    def one(verb):
        if verb == "enqueue":
            tried.append(n)
            q.enqueue(n)
            put.append(n)
        elif verb == "batch":
            items = [n + i / 10 for i in range(3)]
            tried.extend(items)
            q.enqueue_batch(items)
            put.extend(items)
        elif verb == "front":
            tried.append(n)
            q.enqueue_front(n)
            put.append(n)
        elif verb == "dequeue":
            got.append(q.try_dequeue())
        elif verb == "lease":
            with q.lease(0) as delivery:
                item = delivery.item
            got.append(item)
        elif verb == "peek":
            q.peek(), list(q)
        else:
            q.sync()

    while hits < 300:
        n += 1
        verb = rng.choice(["enqueue", "enqueue", "batch", "dequeue", "dequeue", "lease", "peek", "sync", "front"])
        try:
            signal.setitimer(signal.ITIMER_REAL, rng.uniform(0.00002, 0.0004))
            try:
                one(verb)
            except QueueEmpty:
                pass
            signal.setitimer(signal.ITIMER_REAL, 0)
        except KeyboardInterrupt:
            hits += 1
    dequeued = q.stats().dequeued
    q.close()
    with HybridQueue("q", path, lease_timeout=0.05) as q:
        assert q.stats().balance == 0, q.stats()
        left = q.dequeue_batch(10**6)
    assert len(left) == len(set(left)) and len(got) == len(set(got)) and not set(got) & set(left), "twice"
    out = set(got) | set(left)
    assert out <= set(tried), out - set(tried)
    lost = set(put) - out
    assert len(lost) <= dequeued - len(got), (lost, dequeued, len(got))
"""


@pytest.mark.battery
@pytest.mark.parametrize("durability", Durability, ids=lambda durability: durability.name)
def test_a_storm_of_real_signals(durability: Durability, quick_path: Path) -> None:
    """As a cross-check of the places that are counted: signals by a timer, at any moment, in a program that goes on."""
    for n in range(5):
        print("seed", SEED + n)
        path = quick_path / str(n)
        path.mkdir(mode=0o700)
        done = subprocess.run([sys.executable, "-c", textwrap.dedent(STORM), str(SEED + n), durability.name, str(path)], capture_output=True, text=True, check=False, timeout=300)
        assert done.returncode == 0, f"exit {done.returncode}\n{done.stderr[-3000:]}"


# --- smallest histories


class Interrupting(HybridQueue):
    """Interrupted once, where the core tells it something: `at` names what is told."""

    at = ""

    def _dirtied(self, map: Any) -> None:
        self._perhaps("dirtied")
        super()._dirtied(map)

    def _emptied(self, map: Any) -> None:
        self._perhaps("emptied")
        super()._emptied(map)

    def _perhaps(self, what: str) -> None:
        if self.at == what:
            self.at = ""
            raise KeyboardInterrupt


def test_an_item_whose_removal_was_interrupted_can_be_removed(quick_path: Path) -> None:
    """It had gone back into line, and the place that it had left was found in its stead: it was counted out, and delivered all the same."""
    with Interrupting("q", quick_path, _background=False) as q:
        q.enqueue_batch([b"%d" % n for n in range(5)])
        q.sync()
        q.at = "dirtied"
        with pytest.raises(KeyboardInterrupt):
            q.remove_where(lambda item: item == b"2")
        assert q.remove_where(lambda item: item == b"2") == 1 and len(q) == 4
        assert q.dequeue_batch(10) == [b"0", b"1", b"3", b"4"] and len(q) == 0
        assert q.stats().balance == 0


def test_an_item_whose_expiry_was_interrupted_expires(quick_path: Path) -> None:
    clock = ManualClock()
    with Interrupting("q", quick_path, _background=False, _clock=clock) as q:
        q.enqueue_batch([b"stays"] * 2)
        q.enqueue(b"short", ttl=1)
        q.sync()
        clock.advance(2)
        q.at = "dirtied"
        with pytest.raises(KeyboardInterrupt):
            q.cleanup()
        q.cleanup()
        assert q.stats().expired == 1 and q.dequeue_batch(10) == [b"stays"] * 2


def test_the_last_item_of_a_segment_is_counted_and_let_go_when_its_dequeue_is_interrupted(quick_path: Path) -> None:
    with Interrupting("q", quick_path, memory_size=1000, _background=False) as q:
        items = [b"%03d" % n + bytes(9000) for n in range(200)]
        q.enqueue_batch(items[:20])
        for item in items[20:]:
            q.enqueue(item)
        references = list(map(sys.getrefcount, items))
        q.at = "emptied"
        interrupted = 0
        for _ in range(len(items)):
            try:
                q.dequeue()
            except KeyboardInterrupt:
                interrupted += 1
        assert interrupted == 1 and len(q) == 0
        assert q.stats().dequeued == len(items) and q.stats().balance == 0
        assert [now - before for before, now in zip(references, map(sys.getrefcount, items), strict=True)] == [-1] * len(items)
