"""Bytes change at rest: flipped, zeroed, cut off, deleted, swapped, stale. Never a wrong item, never a silent loss, never a nameless error.

The folder holds one of everything: sealed segments with several priorities and front items, settled and leased records, an unsealed one with a batch at its end, and a quarantine. It was left
by a killed process, so that the unsealed segment is at the end of the log, where damage and a torn tail are hardest to tell apart.

What is judged, for every change: the queue opens, or refuses with a `QueueError`; what comes out was put, is intact, comes once and in order; what is missing is accounted for; what
was settled comes back only where a settle mark was hit, and then that is counted.
"""
from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import oracle
import pytest
from faults import State, lay_out, taken_from

from overspill import HybridQueue, KiB, MiB, QueueEmpty, QueueError
from overspill._runtime.clock import ManualClock
from overspill._store import layout

from .evidence import keep
from .ledger import Ledger, key_of, payload
from .worker import Worker


class Harm(NamedTuple):
    text: str
    state: State
    exact: bool = False
    """Every missing item must be counted one by one."""


class Patient(NamedTuple):
    state: State
    ledger: Ledger
    older: State
    """The same folder, some calls earlier."""


def _make(path: Path, plain: bool) -> Patient:
    ledger = Ledger(power=True)
    w = Worker(path, ledger, memory_size=100, _plain=plain)
    path.mkdir(mode=0o700)
    w.open()
    _fill(w)
    w.close()  # sealed
    # Something damaged, so that there is a quarantine: one record of the first segment, by hand.
    state = taken_from(path / "q")
    name = min(name for name in state if name.endswith(".seg"))
    data = bytearray(state[name] or b"")
    victim = next(entry for entry in ledger.line if entry.size == 130)
    at = data.index(victim.key.to_bytes(6, "big") + victim.size.to_bytes(4, "big"))
    data[at + 50] ^= 4
    (path / "q" / name).write_bytes(data)
    w.open()
    ledger.line.remove(victim)
    del ledger.entries[victim.key]
    while w.ledger.line and w.ledger.line[0].priority == 200:
        w.get()
    w.lease()
    w.nack()
    while len(list(w.q)) > len(ledger.line):
        raise AssertionError("the damaged one is still there")
    w.put(90, 200)
    w.put(300)
    w.close()
    w.open()
    w.put(210)
    w.front(33)
    w.put(45, 64)
    w.get()
    older = taken_from(path / "q")
    w.batch([40, 41, 42])
    w.get_batch(2)
    w.lease()
    w.batch([50, 51])
    state = taken_from(path / "q")
    state["lock"] = b""
    ledger = ledger.copy()
    w.q._log.abandon()
    w.q._lock.release()
    w.q._state = "closed"
    assert {name.split("/")[0] for name in state} >= {"lock", "quarantine"}
    return Patient(state, ledger, older)


def _fill(w: Worker) -> None:
    for i in range(12):
        w.put(130 + i % 3, (64, 128, 200)[i % 3])
    w.front(77)
    w.batch([20, 30, 40], 128)
    w.get()
    w.lease()
    w.ack()
    w.batch([70, 71, 72], 64, delay=1000)
    w.put(80, 200)
    w.lease()
    w.nack(delay=2000)
    for _ in range(3):
        w.put(50, 201)
        w.lease()
        w.reject()
    w.take_dead()
    w.sync()
    w.reopen()
    for _ in range(3):
        w.put(60, 64)
    w.get_batch(2)


@pytest.fixture(scope="module", params=[False, True], ids=["mapped", "plain"])
def patient(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Patient:
    return _make(tmp_path_factory.mktemp("patient") / "here", request.param)


def _drained(q: HybridQueue) -> list[object]:
    items: list[object] = []
    while len(q):
        with suppress(QueueEmpty):  # the last one may turn out to be damaged
            items.append(q.dequeue(0))
    return items


def _all_of(q: HybridQueue, clock: ManualClock) -> list[list[object]]:
    """What is in line; what was delayed; the dead letters. All of it is taken out."""
    in_line = _drained(q)
    clock.advance(10_000)
    delayed, dead = _drained(q), []
    while len(q.dead_letters):
        with suppress(QueueEmpty):
            dead.append(q.dead_letters.try_dequeue().item)
    return [in_line, delayed, dead]


def judge(harm: Harm, patient: Patient, place: Path, plain: bool) -> str:
    place.mkdir(mode=0o700)
    lay_out(harm.state, place / "q")
    ledger = patient.ledger
    try:
        try:
            clock = ManualClock(ledger.now_ns)
            with HybridQueue("q", place, max_disk_size=256 * KiB, _plain=plain, _background=False, _clock=clock) as q:
                found = _all_of(q, clock)
                stats, report = q.stats(), q.recovery
                assert (stats.waiting, stats.delayed, stats.dead_letters) == (0, 0, 0), stats
                assert stats.balance == 0, stats
        except QueueError as error:
            assert str(error)
            return "refused"
    finally:
        shutil.rmtree(place, ignore_errors=True)
    assert report is not None
    in_groups = [[key_of(item) for item in items] for items in found]
    keys = [key for group in in_groups for key in group]
    assert all(key in ledger.entries for key in keys), f"never put: {[key for key in keys if key not in ledger.entries]}"
    twice = {key for key in keys if keys.count(key) > 1}
    # An item that has moved is there twice when the mark of its old record is lost: one delivery more, as for any mark.
    assert not twice or (report.rotten_marks and all(len(ledger.entries[key].records) > 1 for key in twice)), f"twice: {twice}; {report}: {report.notes}"
    for group in in_groups[:2]:
        assert group == sorted(group, key=lambda key: ledger.entries[key].place), f"out of order: {group}"
    back = [key for key in keys if ledger.entries[key].removed]
    if back:
        assert report.rotten_marks or not report.clean, f"settled and back without a word: {back}; {report}"
        assert report.rotten_marks, f"settled and back, and no mark was hit: {back}; {report}: {report.notes}"
    missing = [entry.key for entry in ledger.entries.values() if not entry.removed and entry.key not in keys]
    if missing:
        counted = report.quarantined + report.torn_records + stats.quarantined
        # A last segment that is all zeros is what a power cut may leave of one that was never synced: removed, counted as such, noted.
        blank = report.removed and any("never written to" in note for note in report.notes)
        short = getattr(report, "missing_bytes", 0)
        assert counted or report.torn_bytes or report.quarantined_files or blank or short, f"silently lost: {missing}; {report}: {report.notes}"
        # Of a torn tail only the records that check are counted one by one, and the bytes of all of it.
        if not report.quarantined_files and not blank and not report.torn_bytes and harm.exact:
            assert counted >= len(missing), f"lost {missing}, counted {counted}; {report}: {report.notes}"
        assert not report.clean or stats.quarantined
        return "lost and told"
    return "redelivered and told" if back else "harmless"


def each(harms: Iterable[Harm], patient: Patient, new_place: Callable[[], Path]) -> dict[str, int]:
    plain = False
    outcomes: dict[str, int] = {}
    for i, harm in enumerate(harms):
        plain = i % 2 == 1
        try:
            outcome = judge(harm, patient, new_place(), plain)
        except BaseException as error:
            said = f"{harm.text} (plain={plain}): {error!r}"
            raise AssertionError(f"{said}\nthe state is kept in {keep('damage', {'q': harm.state}, said)}") from error
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
    print(outcomes)
    return outcomes


def changed(state: State, name: str, data: bytes) -> State:
    return {**state, name: data}


def files_of(state: State) -> list[str]:
    return sorted(name for name, data in state.items() if data)


def interesting(state: State) -> Iterator[tuple[str, int]]:
    """Every byte of every file, but only some of the long stretches of zeros."""
    for name in files_of(state):
        data = state[name] or b""
        for at in range(len(data)):
            if any(data[max(0, at - 64) : at + 64]) or at % 1024 == 7:
                yield name, at


def flips(state: State, places: Iterable[tuple[str, int]], rng: random.Random) -> Iterator[Harm]:
    for name, at in places:
        data = bytearray(state[name] or b"")
        bit = rng.randrange(8)
        data[at] ^= 1 << bit
        yield Harm(f"bit {bit} of byte {at} of {name} flipped", changed(state, name, bytes(data)), exact=True)


def zeroed(state: State, places: Iterable[tuple[str, int]]) -> Iterator[Harm]:
    for name, at in places:
        data = bytearray(state[name] or b"")
        if data[at]:
            data[at] = 0
            yield Harm(f"byte {at} of {name} zeroed", changed(state, name, bytes(data)), exact=True)


def sectors(state: State, rng: random.Random) -> Iterator[Harm]:
    for name in files_of(state):
        data = state[name] or b""
        for at in range(0, len(data), 512):
            if any(data[at : at + 512]):
                yield Harm(f"sector {at} of {name} zeroed", changed(state, name, data[:at] + bytes(len(data[at : at + 512])) + data[at + 512 :]))
                yield Harm(f"sector {at} of {name} is garbage", changed(state, name, data[:at] + rng.randbytes(len(data[at : at + 512])) + data[at + 512 :]))


def truncations(state: State, step: int, rng: random.Random) -> Iterator[Harm]:
    for name in files_of(state):
        data = state[name] or b""
        for at in range(rng.randrange(step), len(data), step):
            yield Harm(f"{name} cut to {at} of {len(data)} bytes", changed(state, name, data[:at]))


def files(state: State, older: State, rng: random.Random) -> Iterator[Harm]:
    segments = [name for name in files_of(state) if name.endswith(".seg")]
    for name in files_of(state):
        data = state[name] or b""
        if not name.endswith(".seg"):
            yield Harm(f"{name} deleted", {other: content for other, content in state.items() if other != name})
        yield Harm(f"{name} has junk at its end", changed(state, name, data + rng.randbytes(700)))
        yield Harm(f"{name} has zeros at its end", changed(state, name, data + bytes(5000)))
        yield Harm(f"{name} is junk", changed(state, name, rng.randbytes(len(data))))
        yield Harm(f"{name} is zeros", changed(state, name, bytes(len(data))))
        yield Harm(f"{name} is empty", changed(state, name, b""))
    for a in segments:
        for b in segments:
            if a < b:
                yield Harm(f"{a} and {b} swapped", {**state, a: state[b], b: state[a]})
    yield Harm("a copy under a later name", changed(state, layout.segment_name(99), state[segments[0]] or b""))
    yield Harm("a leftover", changed(state, layout.prepared_name(77), rng.randbytes(5000)))
    yield Harm("a spare", changed(state, layout.spare_name(78), state[segments[0]] or b""))
    yield Harm("a stranger", changed(state, "README", b"not ours"))


def sample(places: Iterator[tuple[str, int]], n: int, rng: random.Random) -> list[tuple[str, int]]:
    found = list(places)
    return rng.sample(found, min(n, len(found)))


def test_it_is_all_there_undamaged(patient: Patient, new_place: Callable[[], Path]) -> None:
    for plain in (False, True):
        assert judge(Harm("nothing", patient.state), patient, new_place(), plain) == "harmless"
    names = {name.rsplit(".")[-1] for name in patient.state}
    assert names >= {"lock", "seg", "bad", "jsonl"}, patient.state.keys()


def test_a_flipped_bit_anywhere(patient: Patient, new_place: Callable[[], Path], seed: int) -> None:
    rng = random.Random(seed)
    outcomes = each(flips(patient.state, sample(interesting(patient.state), 700, rng), rng), patient, new_place)
    assert outcomes["harmless"] and outcomes["lost and told"]


def test_a_byte_of_zero_anywhere(patient: Patient, new_place: Callable[[], Path], seed: int) -> None:
    rng = random.Random(seed)
    each(zeroed(patient.state, sample(interesting(patient.state), 500, rng)), patient, new_place)


def test_a_lost_or_rotten_sector(patient: Patient, new_place: Callable[[], Path], seed: int) -> None:
    each(sectors(patient.state, random.Random(seed)), patient, new_place)


def test_a_file_cut_short(patient: Patient, new_place: Callable[[], Path], seed: int) -> None:
    each(truncations(patient.state, 131, random.Random(seed)), patient, new_place)


def test_whole_files(patient: Patient, new_place: Callable[[], Path], seed: int) -> None:
    each(files(patient.state, patient.older, random.Random(seed)), patient, new_place)


# What no checksum can tell: a file that is gone with its name, or is an older copy of itself. Neither may break anything else.


def test_a_segment_that_is_gone_or_stale_takes_only_its_own_items(patient: Patient, new_place: Callable[[], Path]) -> None:
    state, older = patient.state, patient.older
    for name in [name for name in files_of(state) if name.endswith(".seg")]:
        for what, harmed in (("gone", {other: data for other, data in state.items() if other != name}), ("stale", changed(state, name, older.get(name) or b""))):
            place = new_place()
            place.mkdir(mode=0o700)
            lay_out(harmed, place / "q")
            clock = ManualClock(patient.ledger.now_ns)
            with HybridQueue("q", place, max_disk_size=256 * KiB, _background=False, _clock=clock) as q:
                in_groups = [[key_of(item) for item in items] for items in _all_of(q, clock)]
                assert q.stats().balance == 0
            entries = patient.ledger.entries
            keys = [key for group in in_groups for key in group]
            assert len(set(keys)) == len(keys), (what, name)
            for group in in_groups[:2]:
                assert group == sorted(group, key=lambda key: entries[key].place), (what, name, group)
            others = {
                record.payload for other, data in harmed.items() if other != name and other.endswith(".seg") for record in oracle.read_segment(data or b"").records if record.ok
            }
            for entry in entries.values():
                if not entry.removed and payload(entry.key, entry.size) in others:
                    assert entry.key in keys, f"{name} is {what}, and item {entry.key} of another segment is missing"


@pytest.mark.parametrize("plain", [False, True], ids=["mapped", "plain"])
def test_a_damaged_record_whose_item_is_on_lease_is_no_business_of_compaction(fast_path: Path, plain: bool) -> None:
    """The item is in somebody's hands and can be acknowledged; one that only waits is set aside by whoever reads it."""
    q = HybridQueue("q", fast_path, max_disk_size=256 * KiB, memory_size=2, _plain=plain, _background=False)
    for n in range(34):
        q.enqueue(payload(n, 4000))
    held = [delivery for n, delivery in enumerate(q.lease_batch(26)) if n in (4, 14) or delivery.ack()]
    while q._log.seal_next(q._next_sequence):
        pass
    for n in (4, 30):
        for file in (fast_path / "q").glob("*.seg"):
            data = file.read_bytes()
            at = data.find(payload(n, 4000))
            if at >= 0:
                with open(file, "r+b") as opened:
                    opened.seek(at + 100)
                    opened.write(bytes([data[at + 100] ^ 1]))
    q.compact()
    assert len(q) == 7 and q.stats().balance == 0 and q.stats().quarantined == 1, "the one that waits was read on the way, the one on lease was not"
    for delivery in held:
        delivery.ack()
    assert [key_of(q.try_dequeue()) for _ in range(7)] == [26, 27, 28, 29, 31, 32, 33]
    assert len(q) == 0 and q.stats().balance == 0 and q.stats().quarantined == 1
    q.close()
    with HybridQueue("q", fast_path, max_disk_size=256 * KiB, _plain=plain, _background=False) as q:
        assert len(q) == 0


# Damage to an index and to a record at once, and to what a line ordered by time has of an unsealed segment.

SETS = [(128,), (256,), (257,), (128, 256), (256, 257), (128, 256, 257)]


@pytest.mark.parametrize("record", [b"waits", b"delayed", b"dead", b"settled"])
@pytest.mark.parametrize("lines", SETS, ids=str)
def test_a_damaged_record_of_a_segment_whose_index_is_damaged_too_is_counted_in_its_own_line(fast_path: Path, lines: tuple[int, ...], record: bytes) -> None:
    """It was told as lost (or, by a damaged index of the delayed or dead ones, not at all), and from another line than its own, until the queue was opened again."""
    clock = ManualClock()
    with HybridQueue("q", fast_path, memory_size=3, _background=False, _clock=clock) as q:
        for what in (b"dead", b"dead 2", b"settled"):
            q.enqueue(what.ljust(100, b"."))
            delivery = q.lease(0)
            delivery.ack() if what == b"settled" else delivery.reject()
        q.enqueue_batch([what.ljust(100, b".") for what in (b"waits", b"waits 2", b"waits 3")])
        q.enqueue_batch([what.ljust(100, b".") for what in (b"delayed", b"delayed 2")], delay=100)
    [path] = (fast_path / "q").glob("*.seg")
    data = bytearray(path.read_bytes())
    header = layout.SegmentHeader.parse(bytes(data[: layout.HEADER.size]))
    assert isinstance(header, layout.SegmentHeader)
    footer = layout.Footer.parse(bytes(data[-layout.FOOTER.size :]), header, len(data))
    assert isinstance(footer, layout.Footer)
    directory = layout.parse_directory(bytes(data[footer.directory_start :][: footer.directory_size]), footer, header.salt)
    assert not isinstance(directory, layout.Unreadable)
    for entry in directory:
        if entry.line in lines:
            data[entry.index_start] ^= 1
    data[data.rindex(record.ljust(100, b".")) + 50] ^= 1
    path.write_bytes(data)
    with HybridQueue("q", fast_path, memory_size=3, _background=False, _clock=clock) as q:
        left = {"waiting": 3 - (record == b"waits"), "delayed": 2 - (record == b"delayed"), "dead_letters": 2 - (record == b"dead")}
        assert (len(list(q)), len(list(q._timed_claims(256))), len(list(q.dead_letters))) == tuple(left.values())
        stats = q.stats()
        assert {name: getattr(stats, name) for name in left} == left and stats.balance == 0
        assert q.recovery is not None and q.recovery.quarantined + stats.quarantined == (record != b"settled" or q.recovery.quarantined)
        assert len(list((fast_path / "q" / "quarantine").iterdir())) == 2, "its bytes, and a line in the report"
        clock.advance(100)
        assert len(_drained(q)) == left["waiting"] + left["delayed"]


@pytest.mark.parametrize("plain", [False, True], ids=["mapped", "plain"])
@pytest.mark.parametrize("sealed", [False, True], ids=["unsealed", "sealed"])
@pytest.mark.parametrize("what", ["rejected", "nacked", "delayed", "due"])
def test_a_damaged_record_of_an_item_that_stood_apart_leaves_its_own_line(fast_path: Path, what: str, sealed: bool, plain: bool) -> None:
    """It left the priority's line instead, of which there was less than nothing then."""
    clock = ManualClock()
    q = HybridQueue("q", fast_path, memory_size=1, max_disk_size=64 * MiB, _background=False, _clock=clock, _plain=plain)
    q.enqueue(b"one" * 100, delay=5 if what in ("delayed", "due") else None)
    q.enqueue(b"two")
    if what == "rejected":
        q.lease(0).reject()
    elif what == "nacked":
        q.lease(0).nack(delay=5)
    q.flush_to_disk()
    if sealed:
        q.enqueue(bytes(300_000), priority=0)
        q.compact()
    if what == "due":
        clock.advance(6)
        q.flush_to_disk()
    for path in (fast_path / "q").glob("*.seg"):
        if (at := path.read_bytes().rfind(b"one" * 100)) >= 0:
            with open(path, "r+b") as file:
                file.seek(at)
                file.write(b"!")
    clock.advance(6)
    if what == "rejected":
        with pytest.raises(QueueEmpty):
            q.dead_letters.try_dequeue()
    assert q.dequeue(0) == b"two"
    stats = q.stats()
    assert (len(q), stats.delayed, stats.dead_letters, stats.quarantined, stats.balance) == (int(sealed), 0, 0, 1, 0)
    q.close()


@pytest.mark.battery
@pytest.mark.parametrize("part", range(8))
def test_every_bit(patient: Patient, new_place: Callable[[], Path], seed: int, part: int) -> None:
    rng = random.Random(seed)
    each(flips(patient.state, list(interesting(patient.state))[part::8], rng), patient, new_place)


@pytest.mark.battery
def test_every_byte_zeroed(patient: Patient, new_place: Callable[[], Path]) -> None:
    each(zeroed(patient.state, interesting(patient.state)), patient, new_place)


@pytest.mark.battery
@pytest.mark.parametrize("part", range(8))
def test_every_length(patient: Patient, new_place: Callable[[], Path], seed: int, part: int) -> None:
    each(list(truncations(patient.state, 1, random.Random(seed)))[part::8], patient, new_place)


@pytest.mark.battery
def test_several_things_at_once(patient: Patient, new_place: Callable[[], Path], seed: int) -> None:
    rng = random.Random(seed)
    places = list(interesting(patient.state))

    def harms() -> Iterator[Harm]:
        for _ in range(4000):
            state, texts = dict(patient.state), []
            for _ in range(rng.randrange(2, 6)):
                [harm] = flips(state, [rng.choice(places)], rng)
                state = harm.state
                texts.append(harm.text)
            yield Harm("; ".join(texts), state)

    each(harms(), patient, new_place)
