"""An item that moves within the log (delayed by a nack, given up, put back) is in it once, whenever the process is killed or the power fails.

A scenario runs on a disk that remembers. At every moment the book says which states each item may be found in: those since the last sync for a power cut, the one that was acknowledged
last (and the one under way) for a kill. The folder is opened by a clock that stands still, so what is delayed shows as such whenever it is due.
"""
from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from faults import MODELS, Moment, State, lay_out, recording

from overspill import Durability, HybridQueue, KiB
from overspill._runtime.clock import ManualClock

DISK = 512 * KiB

ABSENT, LINE, DELAYED, DEAD, GONE = "absent", "in line", "delayed", "dead", "gone"


class Book:
    def __init__(self, power: bool) -> None:
        self.power = power
        self.now: dict[int, str] = {}
        self.since: dict[int, set[str]] = {}
        self.flying: dict[int, str] = {}

    def begin(self, state: str, *keys: int) -> None:
        self.flying = dict.fromkeys(keys, state)

    def done(self) -> None:
        for key, state in self.flying.items():
            self.since.setdefault(key, {ABSENT}).add(state)
            self.now[key] = state
            if self.power:
                self.since[key] = {state}
        self.flying = {}

    def synced(self) -> None:
        self.since = {key: {state} for key, state in self.now.items()}

    def copy(self) -> Book:
        other = Book(self.power)
        other.now, other.flying = dict(self.now), dict(self.flying)
        other.since = {key: set(states) for key, states in self.since.items()}
        return other

    def may(self, key: int, kill: bool) -> set[str]:
        known = {self.now.get(key, ABSENT)} if kill else self.since.get(key, {ABSENT})
        return known | {self.flying[key]} if key in self.flying else known


class Known(NamedTuple):
    moment: Moment
    book: Book


class Mover:
    """A queue with its book; every verb is one call."""

    def __init__(self, path: Path, book: Book, told: Callable[[str], None], plain: bool, disk_class: Any) -> None:
        self.book, self.told, self.clock, self.n = book, told, ManualClock(), 0
        self.q = HybridQueue(
            "q", path, max_disk_size=DISK, memory_size=3, sync_interval=None, durability=Durability.POWER if book.power else Durability.PROCESS, max_attempts=None, lease_timeout=1e6,
            _plain=plain, _disk_class=disk_class, _background=False, _clock=self.clock,
        )  # fmt: skip

    def _do(self, what: str, state: str, keys: list[int], call: Callable[[], object]) -> None:
        self.book.begin(state, *keys)
        call()
        self.book.done()
        self.told(what)

    def put(self, n: int = 1, size: int = 800, delay: float | None = None) -> None:
        keys = list(range(self.n, self.n + n))
        self.n += n
        self._do("put", DELAYED if delay else LINE, keys, lambda: self.q.enqueue_batch([(key, b"x" * size) for key in keys], delay=delay))

    def nack(self, delay: float) -> None:
        delivery = self.q.lease(0)
        self._do("nack", DELAYED, [delivery.item[0]], lambda: delivery.nack(delay))

    def reject(self) -> None:
        delivery = self.q.lease(0)
        self._do("reject", DEAD, [delivery.item[0]], lambda: delivery.reject("in vain"))

    def ack(self) -> None:
        delivery = self.q.lease(0)
        self._do("ack", GONE, [delivery.item[0]], delivery.ack)

    def replay(self) -> None:
        self._do("replay", LINE, [self.q.dead_letters.peek().item[0]], lambda: self.q.dead_letters.replay(max_items=1))

    def take_dead(self) -> None:
        self._do("take a dead letter", GONE, [self.q.dead_letters.peek().item[0]], self.q.dead_letters.try_dequeue)

    def sync(self) -> None:
        self.q.sync()
        self.book.synced()
        self.told("sync")

    def pass_time(self, seconds: float = 20.0) -> None:
        self.clock.advance(seconds)
        self.told("time")

    def compact(self) -> None:
        self.q.compact()
        self.told("compact")


def nacked(m: Mover) -> None:
    m.put(4)
    m.sync()
    m.nack(10)
    m.put()
    m.nack(10)
    m.sync()
    m.pass_time()
    m.nack(10)
    m.ack()
    m.pass_time()
    m.ack()


def given_up(m: Mover) -> None:
    m.put(5)
    m.reject()
    m.reject()
    m.sync()
    m.replay()
    m.nack(10)
    m.take_dead()
    m.pass_time()
    m.reject()
    m.replay()
    m.ack()


def over_segments(m: Mover) -> None:
    for i in range(18):
        m.put(3, 3000)
        m.put(1, 3000, delay=10)
        m.nack(10)
        if i % 2:
            m.reject()
            m.ack()
        if i % 5 == 4:
            m.pass_time()
        if i % 6 == 5:
            m.replay()
            m.compact()
    while len(m.q):
        m.ack()
    m.pass_time()
    m.compact()


def consumed_at_once(m: Mover) -> None:
    """The copies are settled, and their segments emptied, before anything was synced."""
    for _ in range(12):
        m.put(2, 6000)
        m.nack(10)
        m.ack()
        m.pass_time()
        m.ack()
    m.put()


SCENARIOS = {scenario.__name__: scenario for scenario in (nacked, given_up, over_segments, consumed_at_once)}


def record(path: Path, scenario: Callable[[Mover], None], power: bool, plain: bool) -> list[Known]:
    moments: list[Known] = []
    book = Book(power)

    def keep(label: str) -> None:
        moments.append(Known(disk_class.recording.moment(label), book.copy()))

    disk_class = recording(keep)
    path.mkdir(mode=0o700)
    mover = Mover(path, book, keep, plain, disk_class)
    scenario(mover)
    assert mover.q.stats().balance == 0
    mover.q.close()
    book.synced()
    keep("closed")
    return moments


def judge(state: State, book: Book, place: Path, *, kill: bool, plain: bool) -> None:
    place.mkdir(mode=0o700)
    lay_out(state, place / "q")
    options: dict[str, Any] = {"max_disk_size": DISK, "_plain": plain, "_background": False, "_clock": ManualClock()}
    try:
        with HybridQueue("q", place, **options) as q:
            found = [(LINE, item[0]) for item in q]
            found += [(DELAYED, q._item_of(claim)[0]) for claim in q._timed_claims(256)]
            found += [(DEAD, letter.item[0]) for letter in q.dead_letters]
            keys = [key for _, key in found]
            assert len(set(keys)) == len(keys), f"there twice: {sorted(key for key in set(keys) if keys.count(key) > 1)}"
            where = {key: state for state, key in found}
            for key in {*book.since, *book.flying, *where}:
                may = book.may(key, kill)
                here = where.get(key)
                assert here in may if here else may & {ABSENT, GONE}, f"item {key} is {here or 'not there'}, and may be {may}; {q.recovery.notes}"
            assert q.stats().balance == 0 and q.recovery.quarantined == 0
        with HybridQueue("q", place, **options) as q:
            assert q.recovery.clean and len(q) + q.stats().delayed + q.stats().dead_letters == len(keys), q.recovery.notes
    finally:
        shutil.rmtree(place)


MODES = pytest.mark.parametrize("power", [False, True], ids=["PROCESS", "POWER"])
WRITERS = pytest.mark.parametrize("plain", [False, True], ids=["mapped", "plain"])


def _judge_all(moments: list[Known], new_place: Callable[[], Path], *, plain: bool, models: Callable[[int], list[str]], seed: int) -> int:
    rng, judged = random.Random(seed), 0
    for i, known in enumerate(moments):
        for model in models(i):
            draw = rng.randrange(1 << 32)
            try:
                judge(known.moment.state(model, random.Random(draw)), known.book, new_place(), kill=model == "kill", plain=plain)
            except AssertionError as error:
                raise AssertionError(f"{model} at {known.moment.label!r} (moment {i} of {len(moments)}, draw {draw}): {error}") from error
            judged += 1
    return judged


@MODES
@WRITERS
@pytest.mark.parametrize("name", ["nacked", "given_up"])
def test_a_kill_at_every_operation_of_the_disk(name: str, plain: bool, power: bool, fast_path: Path, new_place: Callable[[], Path], seed: int) -> None:
    moments = record(fast_path / "run", SCENARIOS[name], power, plain)
    assert _judge_all(moments, new_place, plain=plain, models=lambda _: ["kill"], seed=seed) == len(moments) > 10


@MODES
@WRITERS
@pytest.mark.parametrize("name", SCENARIOS)
def test_the_power_fails_while_items_move(name: str, plain: bool, power: bool, fast_path: Path, new_place: Callable[[], Path], seed: int) -> None:
    moments = record(fast_path / "run", SCENARIOS[name], power, plain)
    step = max(1, len(moments) // 30)
    chosen = moments[seed % step :: step]
    _judge_all(chosen, new_place, plain=plain, models=lambda i: [MODELS[(i + seed) % len(MODELS)]], seed=seed)


@pytest.mark.battery
@MODES
@WRITERS
@pytest.mark.parametrize("name", SCENARIOS)
def test_every_model_at_every_operation(name: str, plain: bool, power: bool, fast_path: Path, new_place: Callable[[], Path], seed: int) -> None:
    moments = record(fast_path / "run", SCENARIOS[name], power, plain)
    print(_judge_all(moments, new_place, plain=plain, models=lambda _: list(MODELS), seed=seed), "states of", len(moments), "moments")
