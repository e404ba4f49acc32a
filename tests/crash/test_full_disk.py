"""The disk is full, or lies, or fails: the budget holds to the byte, a full disk is an error at enqueue and nothing else, a failed sync ends the queue and not its data."""
from __future__ import annotations

import errno
import itertools
import os
import random
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from faults import CHANGING_VERBS, SHORT, FaultyDisk, faulty, recording, stepping

from overspill import Durability, HybridQueue, KiB, MiB, QueueBroken, QueueClosed, QueueEmpty, QueueError, QueueFull

from .ledger import Ledger, look
from .test_power_cut import cut_and_judge
from .worker import Worker, random_work

PROCESS, POWER, MEMORY = Durability.PROCESS, Durability.POWER, Durability.MEMORY
WRITERS = pytest.mark.parametrize("plain", [False, True], ids=["mapped", "plain"])
TESTS = Path(__file__).resolve().parent.parent


# --- the budget


def taken(path: Path) -> tuple[int, int]:
    """What the folder takes: sizes, and blocks."""
    sizes = blocks = 0
    for folder, _, names in os.walk(path):
        for name in names:
            try:
                at = os.lstat(os.path.join(folder, name))
            except FileNotFoundError:
                continue
            sizes += at.st_size
            blocks += at.st_blocks * 512
    return sizes, blocks


def _watched(path: Path, limit: int) -> Callable[[str], None]:
    def watch(label: str) -> None:
        sizes, blocks = taken(path)
        assert sizes <= limit, f"after {label}: {sizes} bytes of {limit}"
        assert blocks <= limit, f"after {label}: {blocks} bytes in blocks, of {limit}"

    return watch


@WRITERS
@pytest.mark.parametrize("limit", [256 * KiB, 300_001, 1 * MiB])
def test_the_budget_is_never_exceeded_by_a_byte(tmp_path: Path, seed: int, limit: int, plain: bool) -> None:
    """Looked at after every call, and at every change of a file in the middle of one."""
    _budget(tmp_path, random.Random(seed), limit, plain, 250)


def _budget(path: Path, rng: random.Random, limit: int, plain: bool, steps: int) -> None:
    watch = _watched(path / "q", limit)
    ledger = Ledger(power=rng.random() < 0.3)
    worker = Worker(path, ledger, told=watch, max_disk_size=limit, _plain=plain, _disk_class=stepping(watch))
    worker.open()
    random_work(worker, rng, steps, sizes=(10, 1000, 5000, 20_000, 90_000))
    worker.check()
    worker.reopen()
    while ledger.line:
        worker.get_batch(7)
    worker.close()


@WRITERS
@pytest.mark.parametrize("durability", [MEMORY, PROCESS])
def test_full_by_budget_and_room_again(tmp_path: Path, durability: Durability, plain: bool) -> None:
    watch = _watched(tmp_path / "q", 256 * KiB)
    with HybridQueue("q", tmp_path, max_disk_size=256 * KiB, memory_size=2, durability=durability, _plain=plain, _background=False) as q:
        put = _fill(q)
        watch("filling")
        for _ in range(3):
            with pytest.raises(QueueFull):
                q.enqueue(bytes(9000))
        taken_items = [q.dequeue(0) for _ in range(put // 2)]
        watch("taking")
        more = _fill(q, first=put)
        assert more > put // 4
        rest = [q.dequeue(0) for _ in range(len(q))]
        assert [_number(item) for item in taken_items + rest] == list(range(put + more))
        watch("the end")


def _fill(q: HybridQueue, first: int = 0, size: int = 4000) -> int:
    n = 0
    while True:
        try:
            q.enqueue(_item(first + n, size))
        except QueueFull:
            return n
        n += 1
        assert n < 100_000


def _item(n: int, size: int = 4000) -> bytes:
    return n.to_bytes(4, "big") * (size // 4)


def _number(item: Any) -> int:
    n = int.from_bytes(item[:4], "big")
    assert item == _item(n, len(item))
    return n


# --- no room on the device, by injection


@WRITERS
@pytest.mark.parametrize("sticky", [False, True], ids=["once", "for_a_while"])
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EDQUOT, SHORT], ids=["ENOSPC", "EDQUOT", "short"])
@pytest.mark.parametrize("verb", ["allocate", "create", "pwrite"])
def test_no_room_at_any_call(fast_path: Path, seed: int, verb: str, error: int | str, sticky: bool, plain: bool) -> None:
    if error == SHORT and verb != "pwrite":
        pytest.skip("only a write is short")
    for at in (1, 2, 3, 5, 8, 13):
        for durability in (PROCESS, MEMORY) if at % 2 else (POWER,):
            _one_shortage(fast_path / f"{at}{durability.name}", random.Random(seed), faulty(verb, at, error, sticky=sticky, armed=False, words=False), durability, plain)


def _one_shortage(path: Path, rng: random.Random, disk: type[FaultyDisk], durability: Durability, plain: bool) -> None:
    options: dict[str, Any] = {"max_disk_size": 4 * MiB, "memory_size": 3, "durability": durability, "sync_interval": None, "_plain": plain, "_background": False}
    q = HybridQueue("q", path, _disk_class=disk, **options)
    line: list[int] = []
    for n in range(8):
        q.enqueue(_item(n, 2000))
        line.append(n)
    disk.arm()
    full = 0
    for n in range(8, 60):
        kind = n % 5
        try:
            if kind == 0:
                q.enqueue_batch([_item(1000 + 3 * n + i, 3000) for i in range(3)])
                line += [1000 + 3 * n + i for i in range(3)]
            elif kind == 4:
                q.enqueue(_item(n, 40_000))
                line.append(n)
            else:
                q.enqueue(_item(n, 2500))
                line.append(n)
        except QueueFull:
            full += 1
        # Taking goes on, whatever the disk says of new files.
        if n % 3 == 0 and line:
            assert _number(q.dequeue(0)) == line.pop(0)
        if n % 7 == 0 and line:
            with q.lease(0) as delivery:
                assert _number(delivery.item) == line.pop(0)
        assert len(q) == len(line) and q.stats().balance == 0
        if n == 30:
            disk.heal()  # somebody made room
    disk.heal()
    q.enqueue(_item(9999))  # without reopening
    line.append(9999)
    assert [_number(item) for item in q] == line
    q.close()
    with HybridQueue("q", path, **options) as q:
        assert [_number(q.dequeue(0)) for _ in range(len(q))] == line
        assert q.recovery is not None and not q.recovery.quarantined


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("verb", ["dequeue", "lease", "ack"])
def test_a_settle_mark_that_cannot_be_written(fast_path: Path, verb: str, number: int) -> None:
    """Only the plain writer can meet that. A named error; the item is to be had again, and nothing else is lost."""
    disk = faulty("pwrite", 1, number, armed=False)
    q = HybridQueue("q", fast_path, max_disk_size=256 * KiB, _plain=True, _background=False, _disk_class=disk)
    for n in range(3):
        q.enqueue(_item(n))
    delivery = q.lease(0) if verb == "ack" else None
    disk.arm()
    with pytest.raises(QueueError):
        delivery.ack() if delivery is not None else getattr(q, verb)(0)
    disk.heal()
    assert q.stats().balance == 0
    q.close()
    with HybridQueue("q", fast_path, max_disk_size=256 * KiB, _plain=True, _background=False) as q:
        assert [_number(item) for item in q] == [0, 1, 2]


def test_no_room_for_what_recovery_writes(fast_path: Path) -> None:
    """The queue opens all the same, or says that the disk is full; then it opens later with everything in it."""
    for verb in ("allocate", "create", "pwrite"):
        for at in range(1, 8):
            path = fast_path / f"{verb}{at}"
            q = HybridQueue("q", path, max_disk_size=256 * KiB, _background=False)
            for n in range(20):
                q.enqueue(_item(n))
            _drop(q)
            disk = faulty(verb, at, errno.ENOSPC, sticky=True)
            try:
                q = HybridQueue("q", path, max_disk_size=256 * KiB, _background=False, _disk_class=disk)
            except OSError as raised:
                assert raised.errno == errno.ENOSPC
            except QueueError:
                pass
            else:
                assert [_number(item) for item in q] == list(range(20))
                _drop(q)
            disk.heal()
            with HybridQueue("q", path, max_disk_size=256 * KiB, _background=False) as q:
                assert [_number(item) for item in q] == list(range(20)), (verb, at, q.recovery)


def _drop(q: HybridQueue) -> None:
    """As if the process had died."""
    q._log.abandon()
    q._lock.release()
    q._state = "closed"


# --- a disk that fails


@WRITERS
@pytest.mark.parametrize("verb", ["datasync", "sync_folder"])
def test_a_failed_sync_breaks_the_queue_and_nothing_acknowledged_is_lost(fast_path: Path, new_place: Callable[[], Path], verb: str, plain: bool) -> None:
    for at in range(1, 6):
        path = fast_path / f"{verb}{at}"
        disk = faulty(verb, at, errno.EIO, armed=False)
        q = HybridQueue("q", path, durability=POWER, max_disk_size=512 * KiB, memory_size=3, _plain=plain, _background=False, _disk_class=disk)
        disk.arm()
        acked: list[int] = []
        with pytest.raises(QueueBroken):
            for n in range(500):
                q.enqueue(_item(n))
                acked.append(n)
        assert disk.tripped == 1
        # The next sync of the same bytes would succeed: it must never be believed.
        calls: list[Callable[[], object]] = [
            lambda: q.enqueue(b"x"), lambda: q.enqueue_batch([b"x"]), lambda: q.enqueue_front(b"x"), lambda: q.dequeue(0), q.try_dequeue, lambda: q.dequeue_batch(3),
            lambda: q.lease(0), q.lease_batch, q.peek, lambda: list(q), q.sync, q.flush_to_disk, q.cleanup, q.compact, q.clear,
        ]
        for call in calls:
            with pytest.raises(QueueBroken):
                call()
        before = disk.calls["datasync"]
        q.close()
        assert disk.calls["datasync"] == before, "close() synced after a failed sync"
        with pytest.raises((QueueClosed, QueueBroken)):
            q.enqueue(b"x")
        with HybridQueue("q", path, durability=POWER, max_disk_size=512 * KiB, _plain=plain, _background=False) as q:
            found = [_number(item) for item in q]
            assert found[: len(acked)] == acked and len(found) <= len(acked) + 1


@WRITERS
def test_what_a_failed_sync_lost_is_lost_without_a_hole(fast_path: Path, new_place: Callable[[], Path], seed: int, plain: bool) -> None:
    """The kernel may drop what it could not write. The judge's worst case: nothing since the last good sync is there."""
    rng = random.Random(seed)
    for at in (2, 5, 9):
        path = fast_path / f"run{at}"
        path.mkdir(mode=0o700)
        remembering = recording()
        count = {"syncs": 0}

        class Failing(remembering):  # type: ignore[valid-type, misc]
            def datasync(self, fd: int) -> None:
                count["syncs"] += 1  # noqa: B023
                if count["syncs"] == at:  # noqa: B023
                    raise OSError(errno.EIO, "injected")
                super().datasync(fd)

        ledger = Ledger(power=True)
        worker = Worker(path, ledger, _plain=plain, _disk_class=Failing)
        worker.open()
        try:
            for _ in range(40):
                items = ledger.begin_put([3000])
                worker.q.enqueue(items[0])
                ledger.acked_put()
        except QueueBroken:
            pass
        from .test_power_cut import Known

        moments = [Known(remembering.recording.moment("the failed sync"), ledger)]
        worker.q.close()
        moments.append(Known(remembering.recording.moment("closed after it"), ledger))
        cut_and_judge(moments, rng, 25, new_place, plain=plain, options={})


@WRITERS
@pytest.mark.parametrize("verb", CHANGING_VERBS)
def test_every_call_fails_once(fast_path: Path, verb: str, plain: bool) -> None:
    """EIO, at any place: a named error, at once or never; whatever was acknowledged is there afterwards."""
    for at in range(1, 15):
        path = fast_path / f"{verb}{at}"
        disk = faulty(verb, at, errno.EIO)
        ledger = Ledger(power=False)
        worker = Worker(path, ledger, _plain=plain, _disk_class=disk)
        path.mkdir(mode=0o700)
        try:
            worker.open()
        except OSError as raised:
            assert raised.errno == errno.EIO
            continue
        errors: list[Exception] = []

        def attempt(call: Callable[[], object]) -> None:
            if not errors:
                try:
                    call()
                except (QueueFull, QueueBroken) as raised:  # by name: a bare OSError says nothing of what has become of the item
                    errors.append(raised)  # noqa: B023

        for n in range(25):
            attempt(lambda n=n: worker.put(3000 if n % 4 else 35_000))  # type: ignore[misc]
            if n % 3 == 2:
                attempt(worker.get)
            if n % 6 == 5:
                attempt(worker.sync)
                attempt(worker.work)
        attempt(worker.close)
        if worker.q is not None and not worker.q._state == "closed":
            try:
                worker.q.close()
            except (QueueError, OSError):
                pass
        disk.heal()
        with HybridQueue("q", path, max_disk_size=256 * KiB, _background=False, _plain=plain) as q:
            ledger.judge(look(q), kill=True)
            assert q.stats().balance == 0


@WRITERS
@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC], ids=["EIO", "ENOSPC"])
@pytest.mark.parametrize("verb", [verb for verb in CHANGING_VERBS if verb != "allocate"])
def test_a_compaction_whose_disk_fails(fast_path: Path, verb: str, number: int, plain: bool) -> None:
    """At each of its calls: it is put off, or the queue breaks by name. What waits is there, in order, in this life or the next."""
    failed = 0
    for at in itertools.count(1):
        path = fast_path / f"{at}"
        disk = faulty(verb, at, number, armed=False)
        options: dict[str, Any] = {"max_disk_size": 256 * KiB, "memory_size": 3, "_plain": plain, "_background": False}
        q = HybridQueue("q", path, _disk_class=disk, **options)
        for n in range(34):
            q.enqueue(_item(n, 4000))
        held = []
        for n, delivery in enumerate(q.lease_batch(26)):
            held.append(delivery) if n % 8 == 0 else delivery.ack()
        before = len(os.listdir("/proc/self/fd"))
        disk.arm()
        try:
            q.compact()
        except QueueBroken:
            disk.heal()
            with pytest.raises(QueueBroken):
                q.peek()
        else:
            disk.heal()
            assert [_number(item) for item in q] == list(range(26, 34))
            assert q.stats().balance == 0
        tripped = disk.tripped
        failed += tripped
        q.close()
        assert len(os.listdir("/proc/self/fd")) < before
        with HybridQueue("q", path, **options) as q:
            assert [_number(item) for item in q] == [0, 8, 16, 24, *range(26, 34)]
            assert q.recovery is not None and not q.recovery.quarantined and not q.recovery.quarantined_files
        if not tripped:
            break
    assert failed >= 1


# --- the real thing


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "tiny"
    path.mkdir(mode=0o700)
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,mode=700", "tmpfs", str(path)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"NO REAL FULL DISK WAS TESTED: mount says {done.stderr.strip()!r}")
    yield path
    subprocess.run(["umount", str(path)], check=True)


STORY = """
    import os, sys
    from overspill import *
    place, plain, durability, large = sys.argv[1], sys.argv[2] == "plain", Durability[sys.argv[3]], sys.argv[4] == "large"
    size = 50_000 if large else 700
    def item(n): return n.to_bytes(4, "big") * (size // 4)
    q = HybridQueue("q", place, max_disk_size=64 * MiB, memory_size=5, durability=durability, max_item_size=1 * MiB, _plain=plain, sync_interval=0.01)
    line, n = [], 0
    def fill():
        global n
        while True:
            try:
                q.enqueue(item(n))
            except QueueFull as error:
                return str(error)
            line.append(n); n += 1
    print(fill(), len(line))
    first = len(line)
    assert first > (5 if large else 200), first
    dry = 0
    for round in range(6):
        for _ in range(3):
            try:
                q.enqueue(item(n)); line.append(n); n += 1
            except QueueFull: pass
        for _ in range(max(1, len(line) // 2)):
            assert q.dequeue(0) == item(line[0]); del line[0]
        with q.lease(0) as d:
            assert d.item == item(line[0]); del line[0]
        q.cleanup()
        before = len(line)
        fill()
        print("round", round, "put", len(line) - before, "after taking half")
        # Room comes by whole files: half of the line may lie in one that still holds the other half, but not twice in a row.
        dry = 0 if len(line) > before else dry + 1
        assert dry < 2, "there is room again, and nothing goes in"
        assert q.stats().balance == 0 and len(q) == len(line)
    # Somebody else fills the rest, and gives it back.
    for _ in range(len(line) // 2):
        assert q.dequeue(0) == item(line[0]); del line[0]
    q.cleanup()
    ballast = os.open(os.path.join(place, "ballast"), os.O_CREAT | os.O_WRONLY)
    try:
        while True: os.write(ballast, bytes(4096))
    except OSError: pass
    fill()
    for _ in range(min(3, len(line))):
        assert q.dequeue(0) == item(line[0]); del line[0]
    held = os.fstat(ballast).st_size  # nothing, if none of the queue's files could go before
    os.close(ballast); os.unlink(os.path.join(place, "ballast"))
    before = len(line); fill(); assert len(line) > before or held < 128 * KiB
    if durability is Durability.MEMORY:
        while len(line) > 4: assert q.dequeue(0) == item(line[0]); del line[0]
        q.cleanup()
    q.close()
    q = HybridQueue("q", place, max_disk_size=64 * MiB, max_item_size=1 * MiB, _plain=plain)
    assert list(q) == [item(i) for i in line], (len(q), len(line), q.recovery)
    print("ok", len(line), q.recovery)
    q.close()
"""


@WRITERS
@pytest.mark.parametrize("large", [False, True], ids=["small", "large"])
@pytest.mark.parametrize("durability", ["PROCESS", "POWER", "MEMORY"])
def test_a_real_full_disk(tiny: Path, durability: str, plain: bool, large: bool) -> None:
    """In a child, because a store into a page without a block would be the death of it."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(STORY), str(tiny), "plain" if plain else "mapped", durability, "large" if large else "small"],
        capture_output=True, text=True, timeout=60, check=False,
    )
    assert done.returncode == 0, f"exit {done.returncode}\n{done.stdout}\n{done.stderr[-2000:]}"
    assert "ok" in done.stdout


def test_waiting_producers_go_on_when_there_is_room(tmp_path: Path) -> None:
    """`WhenFull.BLOCK` against a full budget: everybody's items go in, in their own order, and the budget holds."""
    from overspill import WhenFull

    limit = 256 * KiB
    with HybridQueue("q", tmp_path, max_disk_size=limit, memory_size=2, when_full=WhenFull.BLOCK) as q:
        def produce(who: int) -> None:
            for n in range(60):
                q.enqueue(_item(who * 1000 + n), timeout=30)

        threads = [threading.Thread(target=produce, args=(who,)) for who in range(3)]
        for thread in threads:
            thread.start()
        got: list[int] = []
        until = time.monotonic() + 30
        while len(got) < 180 and time.monotonic() < until:
            try:
                got.append(_number(q.dequeue(1)))
            except QueueEmpty:
                continue
            _watched(tmp_path / "q", limit)("a dequeue")
        for thread in threads:
            thread.join()
        assert len(got) == 180
        for who in range(3):
            assert [n for n in got if n // 1000 == who] == [who * 1000 + n for n in range(60)]


@pytest.mark.battery
@WRITERS
@pytest.mark.parametrize("part", range(5))
def test_the_budget_over_many_histories(tmp_path: Path, seed: int, part: int, plain: bool) -> None:
    rng = random.Random(seed + part)
    for i in range(20):
        _budget(tmp_path / str(i), rng, rng.choice((256 * KiB, 260 * KiB, 300_001, 512 * KiB, 1 * MiB, 3 * MiB)), plain, 300)


@pytest.mark.battery
@WRITERS
@pytest.mark.parametrize("verb", ["allocate", "create", "pwrite"])
def test_no_room_at_every_call(fast_path: Path, seed: int, verb: str, plain: bool) -> None:
    for at in range(1, 80):
        for durability in (PROCESS, POWER, MEMORY):
            for sticky in (False, True):
                for error in (errno.ENOSPC, SHORT) if verb == "pwrite" else (errno.ENOSPC,):
                    _one_shortage(fast_path / f"{at}{durability.name}{sticky}{error}", random.Random(seed), faulty(verb, at, error, sticky=sticky, armed=False, words=False), durability, plain)

