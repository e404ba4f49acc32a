"""Folders damaged in every way that seeds find: verify finds it or it does no harm, repair makes the folder whole and everything intact comes out, export never writes a wrong payload."""

from __future__ import annotations

import importlib.util
import io
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import oracle
import pytest
from faults import State, lay_out, taken_from

from overspill import HybridQueue, KiB, UnknownFormat, salvage
from overspill._runtime.clock import ManualClock
from overspill._store.inspection import items
from overspill.codecs import decompress
from overspill.salvage.jsonlines import parse_line, payload_of

from .conftest import Run, fingerprint

GOLDEN = Path(__file__).parents[1] / "golden"
WALL_NS = 1_700_000_000_000_000_000


Item = tuple[bytes, bytes]
"""Id and payload."""


class Patient(NamedTuple):
    state: State
    older: State
    known: set[Item]
    """Every record that ever was."""
    line: list[Item]
    """What waits, in order."""


def _golden(name: str) -> Patient:
    spec = importlib.util.spec_from_file_location("golden_directories", GOLDEN / "directories.py")
    assert spec is not None and spec.loader is not None
    directories: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(directories)
    state = directories.unpacked(json.loads((GOLDEN / f"{name}.json").read_text())["files"])
    return _patient(state, state)


def _fresh(path: Path) -> Patient:
    rng = random.Random(1)
    how: dict[str, Any] = {"max_disk_size": 256 * KiB, "memory_size": 5, "_background": False, "_clock": ManualClock(WALL_NS)}
    for _ in range(2):
        with HybridQueue("q", path, **how) as q:
            for n in range(25):
                q.enqueue(rng.randbytes(rng.randrange(1, 400)), priority=rng.choice((1, 128, 200)))
            q.enqueue_front(b"in front")
            q.dequeue_batch(3)
            q.lease(0).nack()
    q = HybridQueue("q", path, **how)
    q.enqueue_batch([rng.randbytes(100) for _ in range(8)])
    q.sync()
    older = taken_from(path / "q")
    q.enqueue_batch([rng.randbytes(50) for _ in range(8)])
    q.dequeue_batch(2)
    state = taken_from(path / "q")  # as a kill leaves it
    q.close()
    for each in (state, older):
        each["lock"] = b""
    return _patient(state, older)


def _patient(state: State, older: State) -> Patient:
    known: set[Item] = set()
    for each in (older, state):
        for name, data in each.items():
            if name.endswith(".seg") and data:
                segment = oracle.read_segment(data)
                records = [record for record in [*segment.records, *segment.cut] if record.ok]
                known |= {(record.id, decompress(record.codec, record.stored[8 * record.extension :], record.raw_length, 1 << 20)) for record in records}
    return Patient(state, older, known, [])


@pytest.fixture(scope="module", params=["fresh", "v1_several_segments", "v1_bytes_and_str", "v1_killed", "v1_zstd", "v1_from_the_page"])
def patient(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Patient:
    place = tmp_path_factory.mktemp("patient")
    found = _fresh(place) if request.param == "fresh" else _golden(request.param)
    lay_out(found.state, place / "whole")
    ids = [item.id for item in oracle.live_items(place / "whole")]
    payloads = [payload_of(item) for item in items(place / "whole", on_problem=lambda _: None)]
    return found._replace(line=list(zip(ids, payloads, strict=True)))


# --- harm


def _segments(state: State) -> list[str]:
    return [name for name in sorted(state) if name.endswith(".seg")]


def _pick(state: State, rng: random.Random) -> tuple[str, bytearray]:
    name = rng.choice(_segments(state))
    return name, bytearray(state[name] or b"")


def _somewhere(data: bytearray, rng: random.Random) -> int:
    """Among the bytes that are not zero, mostly: there is more to hit."""
    at = rng.randrange(len(data))
    for _ in range(20):
        if data[at]:
            break
        at = rng.randrange(len(data))
    return at


def flipped(patient: Patient, rng: random.Random) -> State:
    name, data = _pick(patient.state, rng)
    for _ in range(rng.choice((1, 1, 1, 3, 30))):
        data[_somewhere(data, rng)] ^= 1 << rng.randrange(8)
    return {**patient.state, name: bytes(data)}


def zeroed_sector(patient: Patient, rng: random.Random) -> State:
    name, data = _pick(patient.state, rng)
    start = _somewhere(data, rng) // 512 * 512
    end = min(len(data), start + 512 * rng.choice((1, 1, 8)))
    data[start:end] = bytes(end - start)
    return {**patient.state, name: bytes(data)}


def garbage_sector(patient: Patient, rng: random.Random) -> State:
    name, data = _pick(patient.state, rng)
    start = _somewhere(data, rng) // 512 * 512
    end = min(len(data), start + 512)
    data[start:end] = rng.randbytes(end - start)
    return {**patient.state, name: bytes(data)}


def truncated(patient: Patient, rng: random.Random) -> State:
    name, data = _pick(patient.state, rng)
    return {**patient.state, name: bytes(data[: rng.randrange(len(data))])}


def junk_behind(patient: Patient, rng: random.Random) -> State:
    name, data = _pick(patient.state, rng)
    return {**patient.state, name: bytes(data) + (rng.randbytes(rng.randrange(1, 9000)) if rng.random() < 0.7 else bytes(rng.randrange(1, 9000)))}


def swapped(patient: Patient, rng: random.Random) -> State:
    one, other = rng.choice(_segments(patient.state)), rng.choice(_segments(patient.state))
    return {**patient.state, one: patient.state[other], other: patient.state[one]}


def doubled(patient: Patient, rng: random.Random) -> State:
    name, data = _pick(patient.state, rng)
    return {**patient.state, f"{int(name[:20]) + rng.choice((1, 5, 1000)):020}.seg": bytes(data)} | patient.state


def stale(patient: Patient, rng: random.Random) -> State:
    name = rng.choice(_segments(patient.older))
    return {**patient.state, name: patient.older[name]}


def deleted(patient: Patient, rng: random.Random) -> State:
    state = dict(patient.state)
    del state[rng.choice(_segments(state))]
    return state


def littered(patient: Patient, rng: random.Random) -> State:
    name = rng.choice(("notes.txt", f"{7:020}.seg.tmp", f"{8:020}.spare", "x.seg", f"{9:020}.seg"))
    return {**patient.state, name: rng.randbytes(rng.randrange(9000))} | patient.state


HARMS: list[Callable[[Patient, random.Random], State]] = [
    flipped, zeroed_sector, garbage_sector, truncated, junk_behind, swapped, doubled, stale, deleted, littered,
]  # fmt: skip

CANNOT_BE_SEEN = {stale, deleted}
"""An earlier state of a file checks, and a file that is gone looks like one that was consumed: no log can tell. What is left must be right all the same."""

ROUNDS = 2


@pytest.mark.parametrize("rounds", [ROUNDS, pytest.param(60, marks=pytest.mark.battery)])
@pytest.mark.parametrize("harm", HARMS, ids=lambda harm: harm.__name__)
def test_damage_is_found_mended_and_never_delivered(patient: Patient, harm: Any, rounds: int, tmp_path: Path) -> None:
    for seed in range(rounds):
        state = harm(patient, random.Random(f"{harm.__name__} {seed}"))
        folder = tmp_path / f"q{seed}"
        lay_out(state, folder)
        try:
            _judge(patient, folder, harm not in CANNOT_BE_SEEN and not _as_if_never_written(patient.state, state))
        except AssertionError as error:
            raise AssertionError(f"{harm.__name__}, seed {seed}: {error}") from error


def _as_if_never_written(before: State, after: State) -> bool:
    """Whether all that is behind the change is zeros now: that is how the end of a log looks which nothing vouches for."""
    for name in _segments(after):
        old, new = before.get(name) or b"", after[name] or b""
        if old != new and len(old) == len(new):
            return not any(new[next(at for at in range(len(new)) if old[at] != new[at]) :])
    return False


def _judge(patient: Patient, folder: Path, must_be_seen: bool) -> None:
    before = fingerprint(folder)
    damage = salvage.damage_of(salvage.verify(folder))
    plan = salvage.plan_of(folder)
    exported = io.BytesIO()
    salvage.export(folder, exported)
    assert fingerprint(folder) == before, "a look has changed something"

    lines = [(line.id, _payload(line.item)) for line in (parse_line(line, None) for line in exported.getvalue().splitlines())]
    assert set(lines) <= patient.known, "a wrong payload was exported"
    try:
        done = salvage.repair(folder)
    except UnknownFormat:
        assert damage and fingerprint(folder) == before
        return
    if damage:
        assert plan, "there is damage and nothing is going to be done about it"

    again = salvage.damage_of(salvage.verify(folder))
    assert not again, f"still damaged after the repair: {again}; before: {damage}; done: {done}"
    with salvage.open_queue(folder, _background=False, _clock=ManualClock(WALL_NS)) as q:
        delivered = []
        while deliveries := q.lease_batch(100):
            for delivery in deliveries:
                delivered.append((delivery.id.bytes, _payload(delivery.item)))
                delivery.ack()
        assert q.stats().balance == 0
    assert set(delivered) <= patient.known, "a wrong payload was delivered"
    assert len(set(delivered)) == len(delivered), "twice"
    assert [line for line in lines if line in set(delivered)] == lines, "what could be exported is not delivered"
    if delivered != patient.line and must_be_seen:
        assert damage, f"items are missing or came back, and verify was content: {len(delivered)} of {len(patient.line)}"
    kept = {name for name in before if name.startswith("quarantine/")}
    assert kept <= set(fingerprint(folder)), "quarantine is for keeping"


def _payload(item: Any) -> bytes:
    return item if isinstance(item, bytes) else item.encode() if isinstance(item, str) else item.payload


def test_commands_say_what_is_wrong_and_end_with_1(run: Run, jobs: Path) -> None:
    (segment,) = jobs.glob("*.seg")
    data = bytearray(segment.read_bytes())
    data[data.index(b"line 3")] ^= 1
    segment.write_bytes(data)
    said = run("verify", jobs, code=1).stdout
    assert f"{segment.name}, offset " in said and "do not check (payload)" in said and "1 problem;" in said
    assert json.loads(run("verify", jobs, "--json", code=1).stdout)["damage"][0]["file"] == segment.name
    assert "overspill: damaged: " in run("export", jobs, code=1).output
    before = fingerprint(jobs)
    assert "keep the bytes in quarantine" in run("repair", jobs, code=1).stdout
    assert fingerprint(jobs) == before
    said = run("repair", jobs, "--apply").stdout
    assert "1 more damaged record set aside" in said and "kept: " in said and "12 items waiting" in said
    (kept,) = (jobs / "quarantine").glob("*.bad")
    assert b"mine 3" in kept.read_bytes()
    assert "every checksum is right" in run("verify", jobs).stdout and "nothing to do" in run("repair", jobs).stdout


def test_segment_that_is_gone_before_it_is_measured_is_no_failure(run: Run, jobs: Path) -> None:
    """As beside an owner, who removes one between the listing and the look at it."""
    (jobs / "consumed.seg").symlink_to("gone")
    assert "every checksum is right" in run("verify", jobs).output
    assert run("repair", jobs).output == "nothing to do\n"


def test_newer_format_is_left_alone(run: Run, jobs: Path) -> None:
    (segment,) = jobs.glob("*.seg")
    data = bytearray(segment.read_bytes())
    data[8] = 2
    data[124:128] = oracle.crc(bytes(data[:124])).to_bytes(4, "little")
    segment.write_bytes(data)
    before = fingerprint(jobs)
    assert "newer format" in run("repair", jobs, "--apply", code=2).output
    assert fingerprint(jobs) == before
