"""The process dies at any instant, three times over the same folder, and nothing that it acknowledged is undone.

A case is three lives of one queue. Each life is a forked child that works at random and is killed: 40 % of the time by the clock, otherwise right after an acknowledged call or at the Nth
change of a file, which for a later life is often in the middle of its recovery. Half of the cases have the background thread beside them; half of the lives change threads at every turn, and
seal and compact as soon as they can. The parent keeps the book from what the child wrote before and after each call, judges what the next life found, and goes on
from there. At the end it opens the queue itself.
"""
from __future__ import annotations

import json
import os
import random
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from faults import State, taken_from

from overspill import Durability, HybridQueue, KiB, MiB, QueueFull
from overspill._runtime.clock import ManualClock

from .evidence import keep
from .ledger import DEAD, Broken, Ledger, Seen, key_of, look

TESTS = Path(__file__).resolve().parent.parent
HANGS_AFTER_S = 60.0
"""Without a word, and without waiting for a processor. How long a life takes in all says more of the machine than of the queue."""


def waited_for_processor(pid: int) -> float:
    """For how many seconds a process has been ready to run and was not run, as long as its unluckiest thread."""
    delays = [0.0]
    for task in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        with suppress(OSError):
            delays.append(int(task.read_text().split()[1]) / 1e9)
    return max(delays)


class Zygote:
    """Makes children, and hears what they say."""

    def __init__(self) -> None:
        self._events, theirs = os.pipe()
        os.set_blocking(self._events, False)
        environment = {**os.environ, "PYTHONPATH": str(TESTS)}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "crash.child", str(theirs)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=[theirs], env=environment, bufsize=0,
        )
        os.close(theirs)
        self._buffer = b""

    def life(self, order: dict[str, Any], kill_after_s: float | None) -> list[list[Any]]:
        """Let a child live and die; what it said, in order."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        pid = int(self._process.stdout.readline().split()[1])
        began = heard = time.monotonic()
        events: list[list[Any]] = []
        with selectors.DefaultSelector() as selector:
            selector.register(self._events, selectors.EVENT_READ)
            out = selector.register(self._process.stdout, selectors.EVENT_READ)
            while True:
                now = time.monotonic() - began
                if kill_after_s is not None and now >= kill_after_s:
                    with suppress(ProcessLookupError):  # it came to its end by itself
                        os.kill(pid, signal.SIGKILL)
                    kill_after_s = None
                if began + now > heard + HANGS_AFTER_S and began + now > heard + HANGS_AFTER_S + waited_for_processor(pid):
                    os.kill(pid, signal.SIGKILL)
                    raise Broken(f"a child hung: {order}, it said {events[-5:]}")
                ready = selector.select(0.5 if kill_after_s is None else max(0.0, kill_after_s - now))
                if more := self._read():
                    events += more
                    heard = time.monotonic()
                if any(key.fd == out.fd for key, _ in ready):
                    self._process.stdout.readline()
                    events += self._read()
                    self._buffer = b""  # a line that it could not finish
                    return events

    def _read(self) -> list[list[Any]]:
        while True:
            try:
                data = os.read(self._events, 1 << 16)
            except BlockingIOError:
                break
            if not data:
                break
            self._buffer += data
        *lines, self._buffer = self._buffer.split(b"\n")
        return [json.loads(line) for line in lines]

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()
        os.close(self._events)


@pytest.fixture
def zygote() -> Iterator[Zygote]:
    made = Zygote()
    yield made
    made.close()


def replay(ledger: Ledger, events: list[list[Any]]) -> None:
    """Enter in the parent's book what the child said."""
    for name, *args in events:
        if name == "error":
            raise Broken(f"the child failed:\n{args[0]}")
        if name == "found":
            told, set_aside, report, notes = args
            found = [Seen(key, size, where, attempts, tuple(rank), due_ns, reason) for key, size, where, attempts, rank, due_ns, reason in told]
            cut = ledger.judge(found, kill=True)
            if set_aside:
                raise Broken(f"a kill is not damage: {report}: {notes}")
            ledger.settle_on(found, cut)
        else:
            given, named = args
            getattr(ledger, name)(*given, **named)


def one_case(zygote: Zygote, path: Path, rng: random.Random, *, durability: str, plain: bool, lives: int = 3) -> list[str]:
    path.mkdir(mode=0o700)
    ledger = Ledger(power=durability == "POWER", memory=durability == "MEMORY")
    ledger.now_ns = ManualClock().wall_ns
    background = rng.random() < 0.5
    options: dict[str, Any] = {"max_disk_size": rng.choice((256 * KiB, 256 * KiB, 512 * KiB, 2 * MiB)), "memory_size": rng.choice((1, 5, 50)), "max_attempts": rng.choice((None, 1, 2, 4))}
    if background:
        options["sync_interval"] = rng.choice((0.002, 0.05))
    else:
        options["lease_timeout"] = rng.choice((5, 1e6))
    told = [f"{durability} plain={plain} background={background} {options}"]
    heard: list[str] = []
    folders: dict[str, State] = {}
    try:
        for life in range(lives):
            if (path / "q").exists():
                folders[f"before-life-{life}"] = taken_from(path / "q")
            one_life(zygote, path, rng, life, ledger, told, heard, durability=durability, plain=plain, background=background, options=options)
        if (path / "q").exists():
            folders["at-the-end"] = taken_from(path / "q")
        last_look(ledger, path, plain=plain, options=options)
    except Exception as error:
        said = "\n".join([*told, repr(error)])
        if (path / "q").exists():
            folders["as-it-is-now"] = taken_from(path / "q")
        kept = keep("kill", folders, "\n".join([said, *heard]))
        raise Broken(f"{said}\nthe folder at every stage, and all that was heard, is kept in {kept}") from error
    shutil.rmtree(path)
    return told


def one_life(
    zygote: Zygote, path: Path, rng: random.Random, life: int, ledger: Ledger, told: list[str], heard: list[str],
    *, durability: str, plain: bool, background: bool, options: dict[str, Any],
) -> None:
    order: dict[str, Any] = {
        "path": str(path), "seed": rng.randrange(1 << 32), "durability": durability, "plain": plain, "background": background, "options": options, "steps": 400,
        "restless": rng.random() < 0.5, "levels": rng.random() < 0.3, "next_key": ledger.next_key, "now_ns": ledger.now_ns,
    }
    kill_after_s = None
    chance = rng.random()
    if chance < 0.4:
        kill_after_s = rng.uniform(0.001, 0.01) if rng.random() < 0.3 else rng.uniform(0.003, 0.08)
    elif chance < 0.7:
        order["after_acks"] = rng.randrange(1, rng.choice((20, 80, 250)))
    else:
        order["at_step"] = rng.randrange(1, 25) if rng.random() < 0.5 else rng.randrange(1, 200)
    told.append(f"life {life}: seed {order['seed']}, after {kill_after_s} s, {order.get('after_acks')} acks, {order.get('at_step')} steps")
    events = zygote.life(order, kill_after_s)
    told.append(f"  {len(events)} events, the last of them {events[-2:]}"[:300])
    heard.append(f"life {life}: {json.dumps(order)}")
    heard.extend(map(str, events))
    replay(ledger, events)
    # The next life begins later, or so soon that what was delayed still is.
    ledger.time(ledger.now_ns + rng.choice((10**9, 10**9, 20 * 10**9, 3600 * 10**9)))


def last_look(ledger: Ledger, path: Path, *, plain: bool, options: dict[str, Any]) -> None:
    clock = ManualClock(ledger.now_ns)
    given = {**options, "sync_interval": None, "max_attempts": None, "_plain": plain, "_background": False, "_clock": clock, "durability": Durability.PROCESS}
    with HybridQueue("q", path, **given) as q:
        found = look(q)
        ledger.judge(found, kill=True)
        assert q.recovery is not None and not q.recovery.quarantined and not q.recovery.quarantined_files, q.recovery.notes
        clock.advance(10_000)
        items = list(q)
        assert [key_of(item) for item in items] == [each.key for each in sorted(found, key=lambda each: each.rank) if each.where != DEAD], "what was delayed is in line, at its place"
        half = q.dequeue_batch(max(1, len(items) // 2))
        q.compact()
        with suppress(QueueFull):
            q.enqueue(b"again", priority=0)
            items.append(b"again")
    with HybridQueue("q", path, **given) as q:
        assert q.recovery is not None and q.recovery.clean, q.recovery.notes
        assert [*half, *(q.try_dequeue() for _ in range(len(q)))] == items
        dead = [each.key for each in found if each.where == DEAD]
        assert [key_of(letter.item) for letter in q.dead_letters] == dead
        assert q.dead_letters.replay() == len(dead)
        assert sorted(key_of(q.try_dequeue()) for _ in range(len(q))) == sorted(dead)
        assert len(q) == 0 and q.stats().balance == 0


def many(zygote: Zygote, fast_path: Path, seed: int, n: int, durability: str, plain: bool) -> None:
    rng = random.Random(seed)
    for i in range(n):
        one_case(zygote, fast_path / f"case{i}", rng, durability=durability, plain=plain)


MODES = pytest.mark.parametrize("durability", ["PROCESS", "POWER", "MEMORY"])
WRITERS = pytest.mark.parametrize("plain", [False, True], ids=["mapped", "plain"])


@MODES
@WRITERS
def test_killed_three_times_and_nothing_acknowledged_is_undone(zygote: Zygote, fast_path: Path, seed: int, durability: str, plain: bool) -> None:
    many(zygote, fast_path, seed, 12, durability, plain)


def test_evidence_of_two_runs_never_meets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two runs beside each other once laid their folders out under one name, and failed because of each other."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    first, second = keep("kill", {"q": {"1.seg": b"one"}}, "first"), keep("kill", {"q": {"1.seg": b"two"}}, "second")
    assert taken_from(first) == {"q": None, "q/1.seg": b"one", "said": b"first"}
    assert taken_from(second) == {"q": None, "q/1.seg": b"two", "said": b"second"}


@pytest.mark.battery
@MODES
@WRITERS
@pytest.mark.parametrize("part", range(4))
def test_thousands_of_kills(zygote: Zygote, fast_path: Path, seed: int, durability: str, plain: bool, part: int) -> None:
    many(zygote, fast_path, seed + part, 150, durability, plain)


@pytest.mark.battery
@WRITERS
def test_kills_on_a_real_disk(zygote: Zygote, tmp_path: Path, seed: int, plain: bool) -> None:
    many(zygote, tmp_path, seed, 60, "POWER", plain)
