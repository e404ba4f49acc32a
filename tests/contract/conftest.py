"""The settings under which one contract holds.

Every test here that takes `place` runs once for each setting: in memory only and on disk, three durabilities, both writers, memories of one, two, three and a thousand items, and some
options that change where items lie and never what a queue does. A `place` opens queues, opens them again as a new process would, and judges them at the end: every queue that a test
leaves behind must balance its accounts and tell the same story by `len`, `size`, the two tiers and iteration.

Time stands still unless a test moves it (`place.clock`), and there is no background thread: what is due is done when `place.clock.advance` says so.
"""
from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import folders
import pytest

from awaited import Awaited
from overspill import Durability, HybridQueue, OverflowStrategy, PriorityQueue, QueueEmpty
from overspill._runtime.clock import ManualClock

quick_path = folders.quick_path

MEMORY, PROCESS, POWER = Durability.MEMORY, Durability.PROCESS, Durability.POWER


@dataclass(frozen=True)
class Setting:
    """One way to configure a queue. `durability=None`: in memory only."""

    durability: Durability | None
    plain: bool = False
    memory_size: int = 1000
    options: dict[str, Any] = field(default_factory=dict, hash=False)
    note: str = ""
    face: type[HybridQueue] = HybridQueue
    awaited: bool = False
    """Driven through the awaiting face."""

    @property
    def on_disk(self) -> bool:
        return self.durability is not None

    @property
    def logs(self) -> bool:
        """Whether every operation is in the log before it returns."""
        return self.durability in (PROCESS, POWER)

    def __str__(self) -> str:
        face = "awaited" if self.awaited else ""
        if self.durability is None:
            return "-".join(filter(None, ["memory_only" + self.note, face]))
        parts = [self.durability.name, "plain" if self.plain else "mapped", str(self.memory_size), self.note, face]
        return "-".join(part for part in parts if part)


_WRITERS = [(durability, plain) for durability in Durability for plain in (False, True)]
_SIZES = [Setting(durability, plain, size) for size in (1, 2, 3) for durability, plain in _WRITERS]
_ROOMY = [Setting(durability, plain) for durability, plain in _WRITERS if durability is not POWER]

_OPTIONS: dict[str, dict[str, Any]] = {
    "zstd": {"compression": "zstd"},
    "largest": {"overflow_strategy": OverflowStrategy.LARGEST},
    "by_priority": {"overflow_strategy": OverflowStrategy.BY_PRIORITY},
    "few_bytes": {"memory_limit": 12},
    "half": {"overflow_ratio": 0.5},
}

_VARIED = [
    Setting(durability, plain, 3, options, note)
    for note, options in _OPTIONS.items()
    for durability, plain in ((MEMORY, False), (PROCESS, True))
]

_FACES = [Setting(None, face=PriorityQueue, note="-priority_queue"), Setting(PROCESS, memory_size=2, face=PriorityQueue, note="priority_queue")]
"""Whoever derives from `HybridQueue` keeps its contract."""

_AWAITED = [
    Setting(durability, plain, size, awaited=True)
    for durability, plain, size in [(None, False, 1000), (MEMORY, False, 2), (PROCESS, False, 3), (PROCESS, True, 1), (POWER, False, 2), (POWER, True, 1000)]
]

SETTINGS = [Setting(None), *_SIZES, *_ROOMY, *_VARIED, *_FACES, *_AWAITED]
ON_DISK = [setting for setting in SETTINGS if setting.on_disk]
TINY = [setting for setting in _SIZES if setting.memory_size == 2]
"""One for each durability and writer: for tests that choose the other options themselves."""


class Place:
    """Where the queues of one test live."""

    def __init__(self, setting: Setting, path: Path) -> None:
        self.setting = setting
        self.path = path
        self.clock = ManualClock()
        self.queues: list[HybridQueue] = []
        self._under: dict[int, Path] = {}
        self._copies = itertools.count(1)

    def options(self, **more: Any) -> dict[str, Any]:
        own: dict[str, Any] = {"memory_size": self.setting.memory_size, **self.setting.options}
        if self.setting.durability is not None:
            own |= {"durability": self.setting.durability, "_plain": self.setting.plain}
        return own | {"_background": False, "_clock": self.clock} | more

    def open(self, name: str = "q", *, under: Path | None = None, **more: Any) -> HybridQueue:
        under = under or self.path
        queue = self.setting.face(name, under if self.setting.on_disk else None, **self.options(**more))
        if self.setting.awaited:
            queue = Awaited(queue)  # type: ignore[assignment]
        self.queues.append(queue)
        self._under[id(queue)] = under
        return queue

    def folder(self, queue: HybridQueue) -> Path:
        return self._under[id(queue)] / queue.name

    def reopen(self, queue: HybridQueue, **more: Any) -> HybridQueue:
        """Close the queue and open its folder again."""
        queue.close()
        return self.open(queue.name, under=self._under[id(queue)], **more)

    def after_a_kill(self, queue: HybridQueue, **more: Any) -> HybridQueue:
        """A queue opened on what a `kill -9` at this moment would leave: the files as the kernel has them now, the lock gone with its process."""
        killed = self.path / f"killed-{next(self._copies)}"
        killed.mkdir(mode=0o700)
        shutil.copytree(self.folder(queue), killed / queue.name, ignore=shutil.ignore_patterns("lock"))
        (killed / queue.name).chmod(0o700)
        return self.open(queue.name, under=killed, **more)

    def judge(self) -> None:
        for queue in self.queues:
            if not queue.closed:
                tells_one_story(queue)
            queue.close()


def tells_one_story(queue: HybridQueue) -> None:
    """What a queue says of itself agrees with itself."""
    stats = queue.stats()
    assert stats.balance == 0, stats
    assert len(queue) == queue.size == stats.waiting
    assert queue.memory_size == stats.memory_items
    assert queue.disk_size == stats.disk_items
    assert queue.memory_size + queue.disk_size == queue.size
    assert queue.pressure == stats.pressure
    assert (queue.pressure > 1.0) == (queue.disk_size > 0)


@pytest.fixture(params=SETTINGS, ids=str)
def place(request: pytest.FixtureRequest, quick_path: Path) -> Iterator[Place]:
    """A place in every setting."""
    yield from _used(Place(request.param, quick_path))


@pytest.fixture(params=ON_DISK, ids=str)
def disk_place(request: pytest.FixtureRequest, quick_path: Path) -> Iterator[Place]:
    """A place in every setting that has a disk."""
    yield from _used(Place(request.param, quick_path))


@pytest.fixture(params=TINY, ids=str)
def tiny_place(request: pytest.FixtureRequest, quick_path: Path) -> Iterator[Place]:
    """A place with a memory of two items: each durability, each writer."""
    yield from _used(Place(request.param, quick_path))


@pytest.fixture
def memory_place(quick_path: Path) -> Iterator[Place]:
    """A place without a disk."""
    yield from _used(Place(Setting(None), quick_path))


def _used(place: Place) -> Iterator[Place]:
    yield place
    place.judge()


def drained(queue: HybridQueue) -> list[Any]:
    """Everything that can be taken now, in the order in which it is given."""
    items = []
    while True:
        try:
            items.append(queue.try_dequeue())
        except QueueEmpty:
            assert len(queue) == 0
            return items


def items_upto(n: int) -> list[str]:
    """Items of different sizes, so that LARGEST has a choice."""
    return [f"item {i} " + "x" * (i * 7 % 5) for i in range(n)]


