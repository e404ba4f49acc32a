"""The power fails: what is left is opened, judged against the book, and opened again.

A scenario is run once on a disk that remembers (`faults.recording`). After every acknowledged call, and before and after every change of a file in the middle of a call, the moment is
kept with a copy of the book. Then outcomes of power cuts are drawn from the moments, laid out, recovered and judged. See `faults` for the model, `ledger` for the bar.
"""
from __future__ import annotations

import hashlib
import itertools
import os
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from faults import MODELS, Moment, State, lay_out, recording, taken_from

from overspill import Durability, HybridQueue, KiB, MiB, QueueFull
from overspill._runtime.clock import ManualClock
from overspill._store.files import Disk

from .evidence import keep
from .ledger import DEAD, Broken, Ledger, Seen, key_of, look, payload
from .worker import Worker, random_work

# --- the scenarios


def first_open(w: Worker) -> None:
    w.open()
    w.put()
    w.put(5000)
    w.get()


def puts(w: Worker) -> None:
    w.open()
    for i in range(12):
        w.put(60 + 700 * (i % 5))
        if i == 6:
            w.sync()


def batches(w: Worker) -> None:
    w.open()
    w.batch([100] * 4)
    w.batch([3000, 4000, 100])
    w.sync()
    w.batch([10] * 40)
    w.put()
    w.batch([6000, 6000, 6000, 6000])
    w.batch([7000, 7000])


def large(w: Worker) -> None:
    w.open()
    w.put(100)
    w.put(40_000)
    w.batch([100, 35_000, 100])
    w.sync()
    w.put(33_000)
    w.get_batch(3)
    w.put(50_000)


def settled(w: Worker) -> None:
    w.open()
    for _ in range(10):
        w.put(300)
    w.sync()
    for i in range(4):
        w.get()
        w.put(200)
        if i == 1:
            w.sync()
    w.get_batch(3)


def leases(w: Worker) -> None:
    w.open()
    for _ in range(6):
        w.put(300)
    a, b = w.lease(), w.lease()
    w.ack(a)
    w.sync()
    w.nack(b)
    c = w.lease()
    w.lease()
    w.ack(c)
    w.put()
    w.lease()


def lines(w: Worker) -> None:
    w.open()
    for i in range(9):
        w.put(400, (64, 128, 192)[i % 3])
        if i % 4 == 0:
            w.front(100, 128)
    w.sync()
    w.get_batch(4)
    w.front(200, 192)
    w.batch([50, 60, 70], 7)
    w.get()


def rolls(w: Worker) -> None:
    w.open()
    for i in range(28):
        w.put(4000 if i % 3 else 2500)
        if i == 9:
            w.sync()
        if i == 15:
            w.work(0)
        if i % 5 == 4:
            w.get()


def seals(w: Worker) -> None:
    w.open()
    for i in range(30):
        w.put(3500, 128 if i % 4 else 200)
        if i % 7 == 6:
            w.work()
    w.get_batch(9)
    w.work()
    w.put(3500)
    w.get_batch(9)
    w.work()


def closes(w: Worker) -> None:
    w.open()
    for _ in range(12):
        w.put(4000)
    w.get_batch(3)
    w.lease()
    w.close()
    w.open()
    w.put()
    w.get_batch(4)
    w.reopen()
    w.front()
    w.get_batch(20)
    w.close()


def churns(w: Worker) -> None:
    """Everything is consumed, again and again: files are retired, and those that are large enough are recycled."""
    w.open()
    for i in range(7):
        for _ in range(4):
            w.put(7000)
        w.get_batch(4 if i % 3 else 3)
        if i == 3:
            w.sync()
        w.work()


def compacts(w: Worker) -> None:
    w.open()
    for i in range(24):
        w.put(4000, 64 if i % 6 == 0 else 128)
    w.get_batch(18)
    w.sync()
    w.work()
    w.compact()
    w.put()
    w.get()
    w.compact()


def compacts_beside(w: Worker) -> None:
    """While the segments are copied, some of what is copied leaves, and some is leased: the copy must know it before it takes their place."""
    w.open()
    for i in range(34):
        w.put(4000, 64 if i == 30 else 128)
    held = [w.lease() for _ in range(26)]
    for i, key in enumerate(held):
        if i not in (0, 4, 8, 14):
            w.ack(key)
    w.sync()

    def meanwhile() -> None:
        w.ack(held[0])
        w.nack(held[8])
        w.lease()
        w.sync()

    w.meanwhile = meanwhile
    w.compact()
    assert w.meanwhile is None, "nothing was compacted"
    w.put()


def delays(w: Worker) -> None:
    """Put off when they are put, and when they failed; some are due while others are put off again."""
    w.open()
    w.put(300)
    w.put(200, 200, delay=30)
    w.batch([100, 2000, 100], delay=5)
    w.put(400)
    w.lease()
    w.nack(delay=10)
    w.sync()
    w.work(6)
    w.lease()
    w.lease()
    w.nack(delay=3)
    w.ack()
    w.put(5000, delay=1)
    w.remove()
    w.work(20)
    w.get_batch(2)
    w.reopen()
    w.lease()
    w.nack(delay=100)
    w.work(100)
    w.get_batch(3)


def gives_up(w: Worker) -> None:
    """Three attempts: each fails, some put off the next; then the letters are put back, taken, or fail again."""
    w.open()
    for i in range(6):
        w.put(500 + i)
    for i in range(9):
        w.lease()
        if i % 3 == 2:
            w.extend()
        w.nack(delay=4 if i % 4 == 1 else 0)
        if i == 4:
            w.sync()
    w.work(5)
    for _ in range(9):
        w.lease()
        w.nack()
    w.replay(2)
    w.front(50)
    w.lease()
    w.reject()
    w.lease()
    w.ack()
    w.take_dead()
    w.sync()
    w.lease()
    w.reopen()
    for _ in range(4):
        w.lease()
        w.nack()
    w.replay()
    w.get()


def attempts_end(w: Worker) -> None:
    """Leases run out, or their process ends, in the last attempt as in the first; a handler that asks for more time keeps its own."""
    w.open()
    for _ in range(5):
        w.put(700)
    for _ in range(2):
        first = w.lease()
        w.lease()
        w.work(6)
        w.extend(first, 20)
        w.work(6)
        w.nack(first)
        w.put(3000)
    w.sync()
    w.lease()
    w.lease()
    w.reopen()
    w.lease()
    w.work(11)
    w.lease()
    w.replay(1)
    w.get_batch(2)


def moves_over_segments(w: Worker) -> None:
    """The records that take the place of others stand in other segments, which are sealed, compacted and removed between."""
    w.open()
    for i in range(16):
        w.put(4000, delay=7 if i % 3 == 0 else 0)
        w.lease()
        w.nack(delay=9 if i % 4 == 1 else 0)
        if i % 4 == 3:
            w.lease()
            w.reject()
        if i % 5 == 4:
            w.get_batch(2)
            w.work()
        if i % 6 == 5:
            w.replay(1)
            w.compact()
    w.get_batch(3)
    w.work(20)
    w.sync()
    w.compact()
    w.get_batch(9)
    w.compact()
    w.clear_dead()
    w.put()


def leaves_the_log_at_once(w: Worker) -> None:
    """What is put off and given up is settled in its new segment before the mark of the old one is known to be durable."""
    w.open()
    for i in range(8):
        w.batch([6000, 6000])
        w.lease()
        w.nack(delay=3)
        w.get()
        w.work(4)
        w.lease()
        w.reject()
        if i % 2:
            w.replay()
            w.get()
        else:
            w.take_dead()
    w.put()


def gives_back(w: Worker) -> None:
    """The segment that is written to is left early, for its space: compacted, removed because nothing is left in it, and left at the end, when the queue closes empty."""
    w.open()
    w.batch([3000] * 60)
    w.get_batch(54)
    w.lease()
    w.nack(delay=5)
    w.lease()
    w.reject()
    kept = w.lease()
    w.compact()
    assert w.q._log.compactions == 1, "the segment that was written to is compacted"
    w.put(200, 64)
    w.ack(kept)
    w.sync()
    w.get_batch(9)
    w.compact()
    w.work(10)
    w.replay()
    w.get_batch(9)
    w.batch([5000] * 30)
    w.get_batch(30)
    w.cleanup()
    assert w.q._log.used_bytes < 64 * KiB
    w.batch([3000] * 30)
    w.get_batch(29)
    w.get()
    w.reopen()
    assert w.q._log.used_bytes < 64 * KiB
    w.put()
    w.compact()
    w.batch([9000] * 8)
    w.get_batch(9)
    w.cleanup()


SCENARIOS: dict[str, Callable[[Worker], None]] = {
    scenario.__name__: scenario
    for scenario in (
        first_open, puts, batches, large, settled, leases, lines, rolls, seals, closes, churns, compacts, compacts_beside,
        delays, gives_up, attempts_end, moves_over_segments, leaves_the_log_at_once, gives_back,
    )
}  # fmt: skip
OPTIONS: dict[str, dict[str, Any]] = {
    "gives_up": {"max_attempts": 3}, "attempts_end": {"max_attempts": 3, "lease_timeout": 10}, "moves_over_segments": {"max_attempts": 3, "max_disk_size": 512 * KiB},
    "gives_back": {"max_disk_size": 2 * MiB},
}  # fmt: skip


def spills(w: Worker) -> None:
    """MEMORY: what leaves memory is there after a kill, however it stands; what was synced, after a power cut."""
    w.open()
    for i in range(12):
        w.put(900, delay=20 if i % 5 == 4 else 0)
    w.get()
    w.lease()
    w.nack()
    w.lease()
    w.nack(delay=5)
    w.lease()
    w.reject()
    w.sync()
    w.put(3000)
    w.flush()
    w.work(6)
    w.lease()
    w.nack(delay=50)
    w.replay()
    w.get_batch(2)
    w.work(15)
    w.lease()
    w.nack()
    w.sync()
    w.get_batch(3)
    w.reopen()
    w.lease()
    w.reject()
    w.put(500)
    w.work(60)
    w.get_batch(2)


def recycles(w: Worker) -> None:
    """As `churns`, with files so large that their settle marks take more than a page, and are all used."""
    w.open()
    told, w.told = w.told, lambda _: None
    for i in range(6):
        while w.q.stats().disk_bytes < (1 + i) * 200 * KiB or len(w.ledger.line) < 34:
            w.put(30_000)
        w.told = told
        w.put(10)
        if i % 2:
            w.sync()
        w.told = lambda _: None
        while len(w.ledger.line) > 1:
            w.get_batch(20)
        w.told = told
        w.sync()
        w.put(10)
        w.told = lambda _: None
        w.get()
    w.told = told
    for _ in range(3):
        w.put(30_000)


def drawn_options(rng: random.Random) -> dict[str, Any]:
    """Of a random history."""
    return {"max_attempts": rng.choice((None, 1, 2, 4)), "lease_timeout": rng.choice((5, 1e6)), "max_disk_size": rng.choice((256 * KiB, 1 * MiB))}


# --- what is judged


class Known(NamedTuple):
    moment: Moment
    ledger: Ledger


class Cut(AssertionError):
    pass


def record(path: Path, scenario: Callable[[Worker], None], *, power: bool, plain: bool, options: dict[str, Any], ledger: Ledger | None = None, inside: bool = True) -> list[Known]:
    """Run a scenario; every moment of it at which the power may fail, with what had been promised by then."""
    moments: list[Known] = []
    ledger = ledger or Ledger(power=power)

    def keep(label: str) -> None:
        moments.append(Known(disk_class.recording.moment(label), ledger.copy()))
        # The copy of a compaction is created when what is left has been listed, and before it is read.
        if label.startswith("create") and worker.meanwhile is not None:
            meanwhile, worker.meanwhile = worker.meanwhile, None
            meanwhile()

    disk_class = recording(keep if inside else None)
    path.mkdir(mode=0o700, exist_ok=True)
    worker = Worker(path, ledger, told=keep, _plain=plain, _disk_class=disk_class, **options)
    scenario(worker)
    if worker.q is not None and not worker.q.closed:
        worker.check()
        worker.q.close()
    return moments


def verify(state: State, ledger: Ledger, place: Path, *, kill: bool, plain: bool, options: dict[str, Any]) -> None:
    """The queue opens, holds what was promised, works, and is then as an orderly close leaves it."""
    place.mkdir(mode=0o700)
    lay_out(state, place / "q")
    clock = ManualClock(ledger.now_ns)
    try:
        given = {"max_disk_size": 256 * KiB, "memory_size": 5, "_plain": plain, "_background": False, "_clock": clock} | options | {"max_attempts": None}
        with HybridQueue("q", place, **given) as q:
            found = look(q)
            report = q.recovery
            try:
                ledger.judge(found, kill=kill)
            except Broken as broken:
                raise Broken(f"{broken}; {report}: {report and report.notes}") from None
            dead = [each for each in found if each.where == DEAD]
            assert report is not None and (report.items + report.delayed, report.dead_letters) == (len(found) - len(dead), len(dead)), (report, found)
            # A file whose header never came to the disk cannot be understood, and is set aside; a record below the synced position cannot be damaged.
            if report.quarantined:
                raise Broken(f"a power cut is not damage: {report}: {report.notes}")
            line = _take(q, found, clock)
            with suppress(QueueFull):
                q.enqueue(again := b"\xff" * 20, priority=0)
                line.append((0, again))
            with suppress(QueueFull):
                n = q.dead_letters.replay()
                line += [(-each.rank[0], payload(each.key, each.size)) for each in dead[:n]]
            items = [item for _, item in sorted(line, key=lambda one: -one[0])]
            assert list(q) == items, "what was put back is at the end of its line"
            assert q.stats().balance == 0
        with HybridQueue("q", place, **given) as q:
            assert q.recovery is not None and q.recovery.clean, q.recovery.notes
            assert [q.dequeue(0) for _ in range(len(q))] == items, "the second opening holds something else"
            assert q.stats().balance == 0
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _take(q: HybridQueue, found: list[Seen], clock: ManualClock) -> list[tuple[int, bytes]]:
    """Take one item on lease, if there is any: its attempts are on record. Then what is delayed comes; returns priorities and items of the line."""
    if q.stats().waiting:
        with q.lease(0) as delivery:
            assert (key_of(delivery.item), delivery.attempts) == (found[0].key, found[0].attempts + 1)
        found = found[1:]
    clock.advance(100_000)
    line = sorted((each for each in found if each.where != DEAD), key=lambda each: each.rank)
    assert [key_of(item) for item in q] == [each.key for each in line], "what was delayed is in line, at its place"
    return [(-each.rank[0], payload(each.key, each.size)) for each in line]


def drawn(moments: list[Known], rng: random.Random, n: int) -> Iterator[tuple[str, State, Ledger]]:
    """`n` different states, as evenly over the moments as it goes."""
    seen: set[bytes] = set()
    order = list(range(len(moments)))
    rng.shuffle(order)
    tries = 0
    while len(seen) < n and tries < 6 * n + 20:
        known = moments[order[tries % len(order)]]
        model = MODELS[(tries // len(order) + tries) % len(MODELS)] if tries % 2 else rng.choice(MODELS)
        tries += 1
        draw_seed = rng.randrange(1 << 32)
        state = known.moment.state(model, random.Random(draw_seed))
        # The book belongs to the state: the same bytes may be fine a moment earlier.
        digest = hashlib.blake2b((known.ledger.says() + str(model == "kill")).encode(), digest_size=16)
        for name in sorted(state):
            digest.update(name.encode() + b"\0" + (state[name] or b""))
        if digest.digest() in seen:
            continue
        seen.add(digest.digest())
        yield f"{model} at {known.moment.label!r} (moment {moments.index(known)} of {len(moments)}, pending {known.moment.pending}, draw {draw_seed})", state, known.ledger


def cut_and_judge(moments: list[Known], rng: random.Random, n: int, new_place: Callable[[], Path], *, plain: bool, options: dict[str, Any]) -> int:
    judged = 0
    for label, state, ledger in drawn(moments, rng, n):
        try:
            verify(state, ledger, new_place(), kill=label.startswith("kill"), plain=plain, options=options)
        except Exception as error:
            raise Cut(f"{label}: {error!r}\nthe state is kept in {keep('power-cut', {'q': state}, f'{label}: {error!r}')}") from error
        judged += 1
    return judged


# --- the tests

MODES = pytest.mark.parametrize("power", [False, True], ids=["PROCESS", "POWER"])
WRITERS = pytest.mark.parametrize("plain", [False, True], ids=["mapped", "plain"])


@MODES
@WRITERS
@pytest.mark.parametrize("name", SCENARIOS)
def test_power_cut(name: str, plain: bool, power: bool, fast_path: Path, new_place: Callable[[], Path], seed: int) -> None:
    options = OPTIONS.get(name, {})
    moments = record(fast_path / "run", SCENARIOS[name], power=power, plain=plain, options=options)
    assert cut_and_judge(moments, random.Random(seed), 24, new_place, plain=plain, options=options) >= 10


@WRITERS
def test_power_cut_of_what_had_spilled(plain: bool, fast_path: Path, new_place: Callable[[], Path], seed: int) -> None:
    moments = record(fast_path / "run", spills, power=False, plain=plain, options={}, ledger=Ledger(power=False, memory=True))
    assert cut_and_judge(moments, random.Random(seed), 40, new_place, plain=plain, options={}) >= 10


@MODES
@WRITERS
def test_power_cut_in_a_random_history(plain: bool, power: bool, fast_path: Path, new_place: Callable[[], Path], seed: int) -> None:
    rng = random.Random(seed)
    for i in range(3):
        options = drawn_options(rng)
        moments = record(fast_path / f"run{i}", lambda w: (w.open(), random_work(w, rng, 40)), power=power, plain=plain, options=options)  # type: ignore[func-returns-value, return-value]
        cut_and_judge(moments, rng, 20, new_place, plain=plain, options=options)


@MODES
@WRITERS
def test_numbers_go_on_after_a_power_cut_while_everything_is_given_back(plain: bool, power: bool, fast_path: Path, new_place: Callable[[], Path], seed: int) -> None:
    """Only the newest segment remembers them, and it is being replaced."""
    options = {"max_disk_size": 2 * MiB}
    numbers = []

    def story(w: Worker) -> None:
        w.open()
        w.batch([3000] * 60)
        w.get_batch(60)
        w.sync()
        numbers.append(w.q._next_sequence)
        w.compact()
        w.put()
        w.get()
        w.sync()
        w.cleanup()

    moments = record(fast_path / "run", story, power=power, plain=plain, options=options)
    after = [known.moment for known in moments][[known.moment.label for known in moments].index("sync") :]
    rng = random.Random(seed)
    for moment, model in itertools.product(after, MODELS):
        place = new_place()
        place.mkdir(mode=0o700)
        lay_out(moment.state(model, rng), place / "q")
        with HybridQueue("q", place, _background=False, _plain=plain, **options) as q:
            assert q._next_sequence >= numbers[0] > 60, f"{model} at {moment.label!r}"
        shutil.rmtree(place)


RECYCLING = {"max_disk_size": 8 * MiB, "max_item_size": 1 * MiB}


@MODES
def test_power_cut_where_files_are_recycled(power: bool, fast_path: Path, new_place: Callable[[], Path], seed: int) -> None:
    moments = record(fast_path / "run", recycles, power=power, plain=False, options=RECYCLING, inside=False)
    cut_and_judge(moments, random.Random(seed), 20, new_place, plain=False, options=RECYCLING)


@MODES
@WRITERS
def test_power_cut_in_the_recovery_from_a_power_cut(plain: bool, power: bool, fast_path: Path, new_place: Callable[[], Path], seed: int) -> None:
    """The book says the same before and after: what a recovery does must be fit to be done again from any point of it."""
    rng = random.Random(seed)
    _nested(fast_path, new_place, rng, plain=plain, power=power, crashes=3, cuts=12)


def _nested(fast_path: Path, new_place: Callable[[], Path], rng: random.Random, *, plain: bool, power: bool, crashes: int, cuts: int) -> None:
    for i in range(crashes):
        scenario = rng.choice(list(SCENARIOS.values()))
        moments = record(fast_path / f"run{i}", scenario, power=power, plain=plain, options=(options := OPTIONS.get(scenario.__name__, {})))
        for label, state, ledger in drawn(moments, rng, 2):
            second = fast_path / f"second{rng.randrange(1 << 60)}"
            second.mkdir(mode=0o700)
            lay_out(state, second / "q")
            # What a recovery has handed out it has synced: nothing that it found may go, so whatever is here now is judged as before.
            again = record(second, lambda w: (w.open(), w.close()), power=power, plain=plain, options=options, ledger=_only_judging(ledger))  # type: ignore[func-returns-value, return-value]
            killed_before = label.startswith("kill")
            for inner, second_state, _ in drawn(again, rng, cuts):
                try:
                    verify(second_state, ledger, new_place(), kill=killed_before and inner.startswith("kill"), plain=plain, options=options)
                except Exception as error:
                    said = f"{scenario.__name__}: {label}, then {inner}: {error!r}"
                    raise Cut(f"{said}\nthe states are kept in {keep('power-cut', {'first': state, 'second': second_state}, said)}") from error
            shutil.rmtree(second)
        shutil.rmtree(fast_path / f"run{i}")


def _only_judging(ledger: Ledger) -> Ledger:
    copy = ledger.copy()
    copy.closed = lambda: None  # type: ignore[method-assign]
    return copy


@MODES
@WRITERS
def test_work_goes_on_after_a_power_cut(plain: bool, power: bool, fast_path: Path, new_place: Callable[[], Path], seed: int) -> None:
    """Crash, go on, crash, go on: the book follows what was found."""
    rng = random.Random(seed)
    _resumed(fast_path, new_place, rng, plain=plain, power=power, lives=4, cuts=6)


def _resumed(fast_path: Path, new_place: Callable[[], Path], rng: random.Random, *, plain: bool, power: bool, lives: int, cuts: int) -> None:
    state: State = {}
    ledger = Ledger(power=power)
    size = {"max_disk_size": rng.choice((256 * KiB, 1 * MiB))}
    for life in range(lives):
        path = fast_path / f"life{rng.randrange(1 << 60)}"
        path.mkdir(mode=0o700)
        if life:
            lay_out(state, path / "q")
            with HybridQueue("q", path, **size, _plain=plain, _background=False, _clock=ManualClock(ledger.now_ns)) as q:
                found = look(q)
            ledger.settle_on(found, ledger.judge(found, kill=False))
            ledger.synced()  # the close just now
            ledger.time(ledger.now_ns + rng.choice((10**9, 20 * 10**9, 3600 * 10**9)))

        def live(w: Worker) -> None:
            w.open()
            random_work(w, rng, 25)

        moments = record(path, live, power=power, plain=plain, options=drawn_options(rng) | size, ledger=ledger)
        cut_and_judge(moments, rng, cuts, new_place, plain=plain, options=size)
        label, state, ledger = next(drawn(moments, rng, 1))
        verify(state, ledger, new_place(), kill=label.startswith("kill"), plain=plain, options=size)
        # A kill state is judged as such above; from here on it is what a power cut could have left as well.
        shutil.rmtree(path)


def test_every_folder_that_was_made_is_durable_before_the_first_acknowledgement(tmp_path: Path) -> None:
    made: list[tuple[int, str]] = []
    synced: set[int] = set()

    class Watched(Disk):
        @classmethod
        def make_folder(cls, name: str, parent: int) -> bool:
            done = super().make_folder(name, parent)
            if done:
                made.append((os.fstat(parent).st_ino, name))
                synced.discard(os.fstat(parent).st_ino)
            return done

        @classmethod
        def sync(cls, folder: int) -> None:
            super().sync(folder)
            synced.add(os.fstat(folder).st_ino)

    with HybridQueue("q", tmp_path / "a" / "b" / "c", durability=Durability.POWER, _disk_class=Watched, _background=False) as q:
        q.enqueue(b"first")
        assert [name for _, name in made] == ["a", "b", "c", "q"]
        assert all(parent in synced for parent, _ in made)


# --- the battery


@pytest.mark.battery
@MODES
@WRITERS
@pytest.mark.parametrize("name", SCENARIOS)
def test_many_power_cuts(name: str, plain: bool, power: bool, fast_path: Path, new_place: Callable[[], Path], seed: int) -> None:
    options = OPTIONS.get(name, {})
    moments = record(fast_path / "run", SCENARIOS[name], power=power, plain=plain, options=options)
    print(cut_and_judge(moments, random.Random(seed), 800, new_place, plain=plain, options=options), "states of", len(moments), "moments")


@pytest.mark.battery
@WRITERS
def test_many_power_cuts_of_what_had_spilled(plain: bool, fast_path: Path, new_place: Callable[[], Path], seed: int) -> None:
    rng = random.Random(seed)
    for i in range(12):
        ledger = Ledger(power=False, memory=True)
        story = spills if not i else lambda w: (w.open(), random_work(w, rng, 60, reopen=False))
        options = drawn_options(rng) if i else {}
        moments = record(fast_path / f"run{i}", story, power=False, plain=plain, options=options, ledger=ledger)  # type: ignore[arg-type]
        print(cut_and_judge(moments, rng, 60, new_place, plain=plain, options=options), "states of", len(moments), "moments")
        shutil.rmtree(fast_path / f"run{i}")


@pytest.mark.battery
@MODES
@WRITERS
@pytest.mark.parametrize("part", range(10))
def test_many_random_histories(part: int, plain: bool, power: bool, fast_path: Path, new_place: Callable[[], Path], seed: int) -> None:
    rng = random.Random(seed + part)
    for i in range(20):
        options = drawn_options(rng)
        moments = record(fast_path / f"run{i}", lambda w: (w.open(), random_work(w, rng, 60)), power=power, plain=plain, options=options)  # type: ignore[func-returns-value, return-value]
        cut_and_judge(moments, rng, 40, new_place, plain=plain, options=options)
        shutil.rmtree(fast_path / f"run{i}")


@pytest.mark.battery
@MODES
def test_many_recycled_files(power: bool, fast_path: Path, new_place: Callable[[], Path], seed: int) -> None:
    moments = record(fast_path / "run", recycles, power=power, plain=False, options=RECYCLING, inside=False)
    cut_and_judge(moments, random.Random(seed), 600, new_place, plain=False, options=RECYCLING)


@pytest.mark.battery
@MODES
@WRITERS
def test_many_cuts_in_recovery(plain: bool, power: bool, fast_path: Path, new_place: Callable[[], Path], seed: int) -> None:
    _nested(fast_path, new_place, random.Random(seed), plain=plain, power=power, crashes=40, cuts=25)


@pytest.mark.battery
@MODES
@WRITERS
def test_many_lives(plain: bool, power: bool, fast_path: Path, new_place: Callable[[], Path], seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(25):
        _resumed(fast_path, new_place, rng, plain=plain, power=power, lives=5, cuts=10)


def test_the_recording_knows_the_folder_as_it_is(fast_path: Path) -> None:
    """The fake is honest: what it says is there now, is there."""
    disk_class = recording()
    ledger = Ledger(power=True)
    worker = Worker(fast_path, ledger, _disk_class=disk_class)
    worker.open()
    random_work(worker, random.Random(7), 60)
    state = disk_class.recording.moment().state("kill", random.Random(0))
    assert state == taken_from(fast_path / "q")
    worker.q.close()
