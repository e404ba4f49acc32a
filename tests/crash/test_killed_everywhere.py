"""Killed at every single call to the disk, one after the other, and again at every call of the recovery from each.

What the death of a process leaves is what its files hold at that moment, mapped stores included, so nobody need be killed: before and after each call, and wherever a long write may be cut short
(the kernel looks for a fatal signal between two pages), the folder is taken, laid out elsewhere, opened and judged by the book as it stands in the middle of that call. A put
through the mapping makes no call; its stores are taken back one by one instead.

Not at random: the story below compacts beside a consumer, leases, gives back, rolls, seals, reopens and compacts again, and every instant of it is looked at.
"""
from __future__ import annotations

import hashlib
import itertools
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from faults import State, StepDisk, lay_out, stepping, taken_from

from overspill import Durability, HybridQueue, KiB, MiB
from overspill._store import layout

from .evidence import keep
from .ledger import Broken, Ledger
from .test_power_cut import gives_back, verify
from .worker import Worker

PAGE = 4096
OPTIONS: dict[str, Any] = {"max_disk_size": 256 * KiB, "memory_size": 3, "max_attempts": 3}

MODES = pytest.mark.parametrize("durability", [Durability.PROCESS, Durability.POWER], ids=["PROCESS", "POWER"])
WRITERS = pytest.mark.parametrize("plain", [False, True], ids=["mapped", "plain"])


def story(w: Worker) -> None:
    w.open()
    for i in range(34):
        w.put(4000 if i < 30 else 900, 64 if i == 31 else 128)
    held = [w.lease() for _ in range(26)]
    for i, key in enumerate(held):
        if i not in (0, 4, 8, 14):
            w.ack(key)

    def meanwhile() -> None:
        w.ack(held[0])
        w.nack(held[8])
        w.lease()

    w.meanwhile = meanwhile
    w.compact()
    assert w.meanwhile is None and w.q._log.compactions == 1, "nothing was compacted beside somebody"
    w.front(300)
    w.batch([100, 9000, 10, 3000])
    w.nack(held[4])
    w.lease()
    w.work()
    w.put(35_000)
    w.put(200, delay=5)
    w.lease()
    w.nack(delay=3)
    w.lease()
    w.reject()
    w.work(4)
    w.reopen()
    w.work(4)
    w.replay()
    w.get_batch(3)
    w.lease()
    w.nack()
    w.lease()
    w.nack()
    for _ in range(3):
        w.lease()
    w.ack()
    w.work()
    w.compact()
    w.put(6000)
    w.nack()
    w.get_batch(8)
    w.work()
    w.reopen()
    w.get_batch(2)
    w.close()


STORIES: dict[str, tuple[Callable[[Worker], None], dict[str, Any]]] = {"story": (story, OPTIONS), "gives_back": (gives_back, OPTIONS | {"max_disk_size": 2 * MiB})}


def cut_at_pages(step: Callable[[str], None]) -> type[StepDisk]:
    """A `Disk` that steps before and after every change, and at every page that a write comes to."""

    class Paged(stepping(step)):  # type: ignore[misc]
        def write_some(self, fd: int, data: memoryview, offset: int) -> int:
            left = PAGE - offset % PAGE
            if len(data) <= left:
                return int(super().write_some(fd, data, offset))
            written = int(super().write_some(fd, data[:left], offset))
            step(f"in the middle of a pwrite, at {offset + written}")
            return written

    return Paged


NESTED_EVERY = 16
"""Of so many places at which the default run kills, it kills the recovery behind one."""


class Judge:
    """Opens what a kill would leave, now, and sees whether it is what the book says."""

    def __init__(self, base: Path, ledger: Ledger, *, plain: bool, nested: Callable[[], bool], options: dict[str, Any]) -> None:
        self.base, self.ledger, self.plain, self.nested, self.options = base, ledger, plain, nested, options
        self.kills = self.kills_in_recovery = 0
        self._seen: set[bytes] = set()
        self._places = itertools.count()

    def is_new(self, state: State) -> bool:
        digest = hashlib.blake2b(self.ledger.says().encode(), digest_size=16)
        for name in sorted(state):
            digest.update(name.encode() + b"\0" + (state[name] or b"") + b"\0")
        new = digest.digest() not in self._seen
        self._seen.add(digest.digest())
        return new

    def killed(self, label: str, state: State) -> None:
        if not self.is_new(state):
            return
        self.kills += 1
        self._verify(state, label)
        if self.nested():
            self._kill_the_recovery(state, label)

    def _verify(self, state: State, label: str, first: State | None = None) -> None:
        try:
            verify(state, self.ledger, self.base / f"place{next(self._places)}", kill=True, plain=self.plain, options=self.options)
        except Exception as error:
            said = f"killed {label}: {error!r}"
            states = {"q": state} if first is None else {"first": first, "q": state}
            raise Broken(f"{said}\nthe folder is kept in {keep('killed', states, said)}") from error

    def _kill_the_recovery(self, state: State, label: str) -> None:
        path = self.base / f"again{next(self._places)}"
        path.mkdir(mode=0o700)
        lay_out(state, path / "q")

        def step(inner: str) -> None:
            second = taken_from(path / "q")
            if self.is_new(second):
                self.kills_in_recovery += 1
                self._verify(second, f"{label}, and in the recovery {inner}", state)

        with HybridQueue("q", path, _plain=self.plain, _background=False, _disk_class=cut_at_pages(step), **self.options):
            pass
        shutil.rmtree(path)


def torn_puts(before: State, after: State) -> list[tuple[str, State]]:
    """What a kill in the middle of a put through the mapping leaves: its stores go payload first, then the header, the header's first word last."""
    found = []
    for name, new in after.items():
        old = before.get(name)
        header = layout.SegmentHeader.parse(new[: layout.HEADER.size]) if new and name.endswith(".seg") else None
        if not old or not new or old == new or len(old) != len(new) or not isinstance(header, layout.SegmentHeader):
            continue
        start = next((at for at in range(header.records_start, len(new)) if old[at] != new[at]), len(new)) // 8 * 8
        end = max((at + 1 for at in range(start, min(start + 40_000, len(new))) if old[at] != new[at]), default=0)
        if end - start < layout.RECORD_HEADER.size:
            continue
        behind = start + layout.RECORD_HEADER.size
        middle = (behind + end) // 2
        for text, here in (
            ("half of its bytes are there", old[:behind] + new[behind:middle] + old[middle:]),
            ("its header is not there", old[:behind] + new[behind:]),
            ("the last store is not made", old[: start + 8] + new[start + 8 :]),
        ):
            found.append((text, {**after, name: here}))
    return found


def judge_everywhere(base: Path, name: str, durability: Durability, *, plain: bool, nested: Callable[[], bool]) -> Judge:
    story, options = STORIES[name]
    ledger = Ledger(power=durability is Durability.POWER)
    judge = Judge(base, ledger, plain=plain, nested=nested, options=options)
    path = base / "run"
    path.mkdir(mode=0o700)
    last: State = {}

    def now(label: str) -> State:
        nonlocal last
        state = taken_from(path / "q") if (path / "q").exists() else {}
        judge.killed(label, state)
        last = state
        return state

    def step(verb: str) -> None:
        now(verb)
        if verb == "after create" and worker.meanwhile is not None:
            meanwhile, worker.meanwhile = worker.meanwhile, None
            meanwhile()

    def told(what: str) -> None:
        before = last
        state = now(f"after {what}")
        if what in ("put", "front", "batch") and not plain:
            flying(before, state)

    def flying(before: State, state: State) -> None:
        # In the middle of the put it was not acknowledged yet.
        judge.ledger = ledger.newest_unsure()
        for text, torn in torn_puts(before, state):
            judge.killed(f"in a put: {text}", torn)
        judge.ledger = ledger

    worker = Worker(path, ledger, told=told, _plain=plain, _disk_class=cut_at_pages(step), durability=durability, **options)
    story(worker)
    return judge


@pytest.mark.parametrize(
    ("name", "durability", "plain"), [("story", durability, plain) for durability in (Durability.PROCESS, Durability.POWER) for plain in (False, True)] + [("gives_back", Durability.POWER, False)],
)
def test_killed_at_every_call_and_at_calls_of_the_recovery(name: str, fast_path: Path, seed: int, durability: Durability, plain: bool) -> None:
    turns = itertools.count(random.Random(seed).randrange(NESTED_EVERY))
    judge = judge_everywhere(fast_path, name, durability, plain=plain, nested=lambda: next(turns) % NESTED_EVERY == 0)
    print(judge.kills, "kills,", judge.kills_in_recovery, "more in their recoveries")
    assert judge.kills > 100 and judge.kills_in_recovery > 10


@pytest.mark.battery
@MODES
@WRITERS
@pytest.mark.parametrize("name", STORIES)
def test_killed_at_every_call_and_at_every_call_of_each_recovery(name: str, fast_path: Path, durability: Durability, plain: bool) -> None:
    judge = judge_everywhere(fast_path, name, durability, plain=plain, nested=lambda: True)
    print(judge.kills, "kills,", judge.kills_in_recovery, "more in their recoveries")
