"""What another thread does in the middle of a roll, a compaction, a look: at one exact call to the disk, not at random.

A `Disk` that calls back before and after each of its verbs stands for the scheduler: whatever drops the interpreter lock there lets another thread run for as long as it likes. Each test is the
smallest history of a bug, or of one that was feared.
"""
from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from faults import Disk, stepping
from patience import until

from overspill import Durability, HybridQueue, KiB, QueueClosed

PATIENCE_S = 20


class Scheduler:
    """Makes a `Disk` class; `at("rename", n, act)` has `act` called in the middle of things, at the Nth call of that verb from then on."""

    def __init__(self) -> None:
        self._due: list[tuple[str, int, Callable[[], object]]] = []
        self.disk_class = stepping(self._step)
        self.acted = 0

    def at(self, verb: str, n: int, act: Callable[[], object]) -> None:
        self._due.append((verb, n, act))

    def _step(self, verb: str) -> None:
        due, self._due = self._due, []
        for wanted, n, act in due:
            if wanted != verb:
                self._due.append((wanted, n, act))
            elif n > 1:
                self._due.append((wanted, n - 1, act))
            else:
                self.acted += 1
                act()


def beside(q: HybridQueue, call: Callable[[], object]) -> Callable[[], None]:
    """Run this in another thread until it is done or waits for a gate of the queue; returns what waits for its end."""
    done = threading.Event()
    errors: list[BaseException] = []

    def run() -> None:
        try:
            call()
        except BaseException as error:
            errors.append(error)
        done.set()

    threading.Thread(target=run, daemon=True).start()
    until(lambda: done.is_set() or q._head._waiting or q._tail._waiting)

    def join() -> None:
        assert done.wait(PATIENCE_S), "it waits for ever"
        if errors:
            raise errors[0]

    return join


def item(n: int, size: int = 4000) -> bytes:
    return b"%06d" % n + b"x" * (size - 6)


def number(payload: bytes) -> int:
    return int(payload[:6])


def stuck(path: Path, disk_class: type[Disk], **options: Any) -> tuple[HybridQueue, list[Any]]:
    """A queue in whose first segments nothing is left but an item each, on lease; what waits is behind them. Ready to be compacted."""
    q = HybridQueue("q", path, **{"max_disk_size": 384 * KiB, "memory_size": 3, "_background": False, "_disk_class": disk_class} | options)
    for n in range(44):
        q.enqueue(item(n))
    held = []
    for n, delivery in enumerate(q.lease_batch(36)):
        held.append(delivery) if n % 9 == 0 else delivery.ack()
    return q, held


def test_what_spills_while_a_compaction_switches_keeps_its_place(tmp_path: Path) -> None:
    """The first item of a new segment goes cold, and so gets a cursor of its own, while the cursors are being exchanged."""
    scheduler = Scheduler()
    q, held = stuck(tmp_path, scheduler.disk_class)
    n = 44
    active = q._log.active
    while q._log.active is active or q._log.active.map.count < 3:  # until the ring begins with the first item of the last segment
        q.enqueue(item(n))
        n += 1
    joins = []
    scheduler.at("rename", 1, lambda: joins.append(beside(q, lambda: q.enqueue(item(n)))))
    q.compact()
    assert scheduler.acted == 1 and q._log.compactions == 1
    joins[0]()
    assert [number(q.try_dequeue()) for _ in range(len(q))] == list(range(36, n + 1))
    assert len(q) == 0 and q.stats().balance == 0
    q.close()


def test_a_snapshot_misses_nothing_that_spills_while_it_is_taken(tmp_path: Path) -> None:
    """The first item in memory goes cold after the cursors have been copied, and before what is in memory is."""
    q = HybridQueue("q", tmp_path, max_disk_size=256 * KiB, memory_size=3, _background=False)
    for n in range(6):
        q.enqueue(item(n, 100))
    joins: list[Callable[[], None]] = []
    look = q._in_ring

    def in_ring(priority: int) -> Any:
        if not joins:
            joins.append(beside(q, lambda: q.enqueue(item(6, 100))))
        return look(priority)

    q._in_ring = in_ring
    seen = [number(payload) for payload in q]
    joins[0]()
    assert seen[:6] == list(range(6))
    q.close()


def test_an_iteration_misses_nothing_that_is_compacted_before_it_reads_on(tmp_path: Path) -> None:
    """It has only been begun, or is between two priorities, and does not read just now."""
    for after in (0, 1):
        q, held = stuck(tmp_path / str(after), Disk, memory_size=50)
        for delivery in held[1:]:
            delivery.nack()
        q.enqueue(item(99, 10), priority=210)
        q.flush_to_disk()
        q.close()
        q = HybridQueue("q", tmp_path / str(after), max_disk_size=384 * KiB, _background=False)
        seen = iter(q)
        first = [number(next(seen)) for _ in range(after)]
        q.compact()
        assert first + [number(payload) for payload in seen] == [99, 0, 9, 18, 27, *range(36, 44)]
        q.compact()
        assert q._log.compactions == 1, "what nobody reads can be compacted"
        q.close()


def test_a_segment_that_is_emptied_while_the_next_is_begun_is_retired(tmp_path: Path) -> None:
    """Its last items leave when it is not the active one any more, and the core does not know that yet."""
    scheduler = Scheduler()
    q = HybridQueue("q", tmp_path, max_disk_size=256 * KiB, _background=False, _disk_class=scheduler.disk_class)
    q.enqueue(item(0))
    first = q._log.active
    scheduler.at("after rename", 1, lambda: scheduler.at("create", 1, lambda: q.dequeue_batch(100)))
    n = 1
    while q._log.active is first:
        q.enqueue(item(n))
        n += 1
    assert scheduler.acted == 2 and len(q) == 1
    q.cleanup()
    assert first.retired
    q.close()


def test_a_segment_that_is_retired_while_it_is_copied_is_not_compacted(tmp_path: Path) -> None:
    """Its last lease is acknowledged, and whoever needs room removes it, while the compaction is about to read it."""
    scheduler = Scheduler()
    q, held = stuck(tmp_path, scheduler.disk_class)

    def empty_one() -> None:
        held.pop(2).ack()
        assert q._log.retire_emptied() > 0

    scheduler.at("create", 1, empty_one)
    beside(q, q.compact)()
    assert scheduler.acted == 1
    assert [number(q.try_dequeue()) for _ in range(len(q))] == list(range(36, 44))
    for delivery in held:
        delivery.ack()
    q.cleanup()
    assert q.stats().balance == 0 and q.stats().quarantined == 0
    q.close()
    assert not list((tmp_path / "q").glob("*.tmp"))


def test_a_segment_that_is_kept_to_go_on_in_is_not_sealed(tmp_path: Path) -> None:
    """It is consumed after the sync that comes before its seal, which would have cut the file under the next life."""
    q = HybridQueue("q", tmp_path, max_disk_size=256 * KiB, durability=Durability.POWER, memory_size=100, _background=False)
    q.enqueue(item(0))
    first = q._log.active
    n = 1
    while q._log.active is first:
        q.enqueue(item(n))
        n += 1
    sync_below = q._log._sync_below

    def then_it_is_consumed(limit: int | None) -> None:
        sync_below(limit)
        if limit is None:
            return  # the sync of what is taken below
        assert [number(payload) for payload in q.dequeue_batch(first.map.live)] == list(range(n - 1))

    q._log._sync_below = then_it_is_consumed
    q._log.seal_next(q._next_sequence)
    q._log._sync_below = sync_below
    assert q._log._spares == [first] and first.footer is None and first.recyclable
    for more in range(n, n + 8):
        q.enqueue(item(more))
    assert first.retired and not q._log._spares
    assert [number(q.try_dequeue()) for _ in range(len(q))] == list(range(n - 1, n + 8))
    q.close()


def test_a_compaction_that_comes_after_the_close_changes_nothing(tmp_path: Path) -> None:
    """The folder may be somebody else's by then."""
    scheduler = Scheduler()
    q, _ = stuck(tmp_path, scheduler.disk_class)
    scheduler.at("create", 1, lambda: beside(q, q.close)())
    with pytest.raises(QueueClosed):
        q.compact()
    assert scheduler.acted == 1
    with HybridQueue("q", tmp_path, max_disk_size=384 * KiB, _background=False) as q:
        assert [number(payload) for payload in q] == [0, 9, 18, 27, *range(36, 44)]


def test_a_segment_that_two_threads_would_seal_keeps_what_is_to_be_synced(tmp_path: Path) -> None:
    """The second finds it sealed. What was settled since the first is still to be made durable, and somebody may be about to ask for that."""
    scheduler = Scheduler()
    q = HybridQueue("q", tmp_path, max_disk_size=256 * KiB, _background=False, _disk_class=scheduler.disk_class)
    for n in range(8):
        q.enqueue(item(n))
    first = q._log.unsealed[0]
    assert q._log.seal_next(q._next_sequence) and first.footer is not None
    q.sync()
    q.try_dequeue()
    q._log.seal(first, q._next_sequence)
    scheduler.at("datasync", 1, lambda: None)
    q.sync()
    assert scheduler.acted == 1
    q.close()


LISTED_WHILE_RETIRED = """
    import sys, threading
    from overspill import HybridQueue, MiB
    from overspill._store import log

    log.SMALL_SEGMENT = 16 * MiB
    for i in range(3):
        q = HybridQueue(f"q{i}", sys.argv[1], max_disk_size=256 * MiB, _background=False)
        q._log._planned = 16 * MiB
        q.enqueue_batch([b"x"] * 100_000)
        segment, begun = q._log.active, threading.Event()

        def look():
            begun.set()
            segment.offsets(128, 0, 0)

        looking = threading.Thread(target=look)
        looking.start()
        begun.wait()
        segment.retire()
        looking.join()
        q.destroy()
"""


def test_a_segment_is_not_unmapped_under_whoever_reads_its_records(tmp_path: Path) -> None:
    """Listing a large segment takes milliseconds without the interpreter lock. In a child, because that was the death of it."""
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(LISTED_WHILE_RETIRED), str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"exit {done.returncode}\n{done.stderr[-2000:]}"


@pytest.mark.parametrize("who", ["the one whose item it is", "the next one"])
def test_a_taker_whose_item_goes_back_as_the_queue_closes_does_not_have_it_as_well(who: str, tmp_path: Path) -> None:
    """Two takers wait for their sync; `close` puts their items back. A plain segment writes the word of marks, and one of the takers, whose sync has come, runs meanwhile."""
    scheduler = Scheduler()
    q = HybridQueue("q", tmp_path, durability=Durability.POWER, _plain=True, _background=False, _disk_class=scheduler.disk_class)
    q.enqueue_batch(["a", "b", "c"])
    takers = [q._dequeueing(None) for _ in range(2)]
    for taker in takers:
        follower, timeout = next(taker)
        follower.wait(timeout)
    got: list[str] = []

    def goes_on() -> None:
        try:
            next(takers[who == "the next one"])
        except StopIteration as end:
            got.append(end.value)
        except QueueClosed:
            got.append("closed")

    scheduler.at("pwrite", 1, goes_on)
    q.close()
    assert scheduler.acted == 1
    assert got == (["b"] if who == "the next one" else ["closed"])
    for taker in takers:
        taker.close()
    assert q.stats().balance == 0
    with HybridQueue("q", tmp_path) as q:
        assert list(q) == (["a", "c"] if who == "the next one" else ["a", "b", "c"])
