"""`StreamQueue`, row by row of the second origin document, and what became of its faults: nothing overtakes, nothing polls, nothing loops."""
from __future__ import annotations

import os
import random
import shutil
import signal
import stat
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from patience import until
import pytest
from faults import SHORT, faulty

import overspill
from overspill import (
    CorruptedData, InvalidOption, ItemTooLarge, MiB, NotSerializable, QueueClosed, QueueEmpty, QueueFull, QueueLocked, RateLimit, RateLimited, StreamQueue, UnsafeFolder,
)  # fmt: skip
from overspill._runtime.clock import ManualClock
from overspill._runtime.pump import the_pump
from overspill._runtime.streaming import Streaming
from overspill._runtime import taking
from overspill._runtime.waiting import Steps, blocking

SCRIPTS = {**os.environ, "PYTHONPATH": str(Path(overspill.__file__).parents[1])}  # with what a sanitizer must be loaded by


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "streams"


@pytest.fixture
def open_stream(folder: Path) -> Iterator[Callable[..., StreamQueue]]:
    opened: list[StreamQueue] = []

    def open_stream(memory_size: int = 3, *, rate_limit: RateLimit | None = None, **options: Any) -> StreamQueue:
        opened.append(StreamQueue("cam", memory_size, folder, rate_limit=rate_limit, **options))
        return opened[-1]

    yield open_stream
    for stream in opened:
        stream.close()
        assert stream.stats().balance == 0


def on_disk(*messages: bytes) -> bytes:
    """The file as the origin's program writes it."""
    return b"".join(struct.pack(">I", len(message)) + message for message in messages)


def packets(n: int) -> list[bytes]:
    return [b"packet %d " % i + b"x" * (i * 7 % 50) for i in range(n)]


def taken(stream: StreamQueue) -> list[bytes]:
    items = []
    while True:
        try:
            items.append(stream.try_dequeue())
        except QueueEmpty:
            assert stream.get_depth() == 0
            return items




def waiting(stream: StreamQueue) -> int:
    """How many consumers wait."""
    return len(stream._stream._takers)


def background(run: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=run)
    thread.start()
    return thread


# --- row 25: memory first, one file behind it


def test_row_25_memory_takes_n_items_and_the_file_the_rest_as_length_and_data(open_stream: Any, folder: Path) -> None:
    stream = open_stream(memory_size=3)
    for packet in packets(3):
        stream.enqueue(packet)
    assert not stream.has_disk_data() and (folder / "cam.overflow").read_bytes() == b""
    for packet in packets(6)[3:]:
        stream.enqueue(packet)
    assert stream.has_disk_data() and (folder / "cam.overflow").read_bytes() == on_disk(*packets(6)[3:])
    assert taken(stream) == packets(6)


def test_no_more_than_512_mib_are_in_memory_however_many_items_may_be(open_stream: Any) -> None:
    """One message again and again: as often as it is in line its bytes are counted, and they are in memory once."""
    stream = open_stream(memory_size=1000, _background=False)
    packet = bytes(10 * MiB)
    for _ in range(53):
        stream.enqueue(packet)
    stats = stream.stats()
    assert (stats.memory_items, stats.depth) == (51, 53) and stream.has_disk_data()
    for _ in range(53):
        assert stream.dequeue() == packet
        assert stream.stats().memory_items * len(packet) <= 512 * MiB


def test_row_25_nothing_overtakes_what_is_on_disk(open_stream: Any) -> None:
    stream = open_stream(memory_size=2, _background=False)
    for packet in packets(5):
        stream.enqueue(packet)
    assert [stream.dequeue(), stream.dequeue()] == packets(5)[:2]
    stream.enqueue(b"there is room in memory, and three wait on disk")
    assert stream.stats().memory_items == 0
    assert taken(stream) == [*packets(5)[2:], b"there is room in memory, and three wait on disk"]
    stream.enqueue(b"the file is empty")
    assert stream.stats().memory_items == 1 and not stream.has_disk_data()


def test_row_25_messages_of_every_size_come_back_as_they_were(open_stream: Any) -> None:
    stream = open_stream(memory_size=1)
    messages = [b"", b"x", bytes(4), b"\xff" * 5, os.urandom(32 * 1024), os.urandom(32 * 1024 + 1), os.urandom(300_000), b"", os.urandom(10 * MiB), b"last"]
    for message in messages * 2:
        stream.enqueue(message)
    assert taken(stream) == messages * 2
    for message in (bytearray(b"mutable"), memoryview(b"view")):
        stream.enqueue(message)
    assert taken(stream) == [b"mutable", b"view"]


def test_an_item_on_disk_is_in_the_kernel_when_enqueue_returns(open_stream: Any, folder: Path) -> None:
    stream = open_stream(memory_size=1)
    stream.enqueue(b"in memory")
    for n in range(1, 20):
        stream.enqueue(b"on disk")
        assert (folder / "cam.overflow").stat().st_size == n * 11


def test_memory_is_bounded_in_bytes_too(open_stream: Any) -> None:
    stream = open_stream(memory_size=1000)
    stream._stream._set_budget(1000, 25 * MiB)
    items = [bytes([n]) * (4 * MiB) for n in range(20)]
    for item in items:
        stream.enqueue(item)
    assert (stream.stats().memory_items, stream.stats().disk_items) == (6, 14)
    got = []
    for _ in items:
        got.append(stream.dequeue())
        assert stream._stream._resident_bytes <= 25 * MiB
    assert got == items


# --- row 26: back to memory, without polling


def test_row_26_items_return_to_memory_as_room_appears_and_the_file_is_cut_to_nothing(open_stream: Any, folder: Path) -> None:
    stream = open_stream(memory_size=10)
    for packet in packets(15):
        stream.enqueue(packet)
    for packet in packets(5):
        assert stream.dequeue() == packet
    until(lambda: not stream.has_disk_data())
    assert stream.stats().memory_items == 10 and (folder / "cam.overflow").stat().st_size == 0
    assert taken(stream) == packets(15)[5:]


def test_row_26_a_waiting_consumer_is_woken_directly_and_an_idle_stream_does_nothing(open_stream: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float | None] = []
    works: list[object] = []
    work = Streaming._work

    def noted(steps: Steps[Any]) -> Steps[Any]:
        try:
            step = next(steps)
            while True:
                waits.append(step[1])
                yield step
                step = next(steps)
        except StopIteration as end:
            return end.value

    monkeypatch.setattr(taking, "blocking", lambda steps: blocking(noted(steps)))
    monkeypatch.setattr(Streaming, "_work", lambda self: (works.append(self), work(self))[1])
    stream = open_stream()
    got: list[bytes] = []
    consumer = background(lambda: got.extend(stream.dequeue() for _ in range(3)))
    for n in range(3):
        until(lambda: waiting(stream))
        assert len(waits) == n + 1
        stream.enqueue(b"packet")
        until(lambda: len(got) == n + 1)
    consumer.join()
    assert waits == [None] * 3  # one sleep for each item, and none of them with a timer
    assert works == [] and not any(reference() is stream._stream for _, _, reference in the_pump()._due)


def test_row_26_the_space_of_a_file_that_is_never_empty_is_given_back(open_stream: Any, folder: Path) -> None:
    stream = open_stream(memory_size=10, _background=False)
    packet = b"x" * 20_000
    for _ in range(200):
        stream.enqueue(packet)
    most = 0
    for _ in range(1500):
        stream.enqueue(packet)
        stream.dequeue()
        most = max(most, (folder / "cam.overflow").stat().st_blocks * 512)
    assert (folder / "cam.overflow").stat().st_size > 30 * MiB
    assert most < 10 * MiB  # 4 MB wait there


# --- row 27: the rate


def test_row_27_ten_thousand_a_second_a_thousand_at_once(folder: Path) -> None:
    clock = ManualClock()
    with StreamQueue("cam", 10, folder, _clock=clock, _background=False) as stream:
        for _ in range(1000):
            stream.enqueue(b"burst")
        with pytest.raises(RateLimited) as caught:
            stream.enqueue(b"too fast")
        assert caught.value.retry_after == pytest.approx(0.0001)
        clock.advance(0.0625)
        for _ in range(625):
            stream.enqueue(b"in time")
        with pytest.raises(RateLimited):
            stream.enqueue(b"too fast")
        assert stream.get_depth() == 1625 and stream.stats().refused["rate"] == 2


def test_row_27_the_limit_is_the_same_in_memory_and_on_disk_and_a_full_disk_costs_no_token(open_stream: Any) -> None:
    disk = faulty("pwrite", error=28, sticky=True)
    stream = open_stream(memory_size=1, rate_limit=RateLimit(0.001, burst=3), _disk_class=disk)
    stream.enqueue(b"memory")
    for _ in range(5):
        with pytest.raises(QueueFull):
            stream.enqueue(b"no room")
    disk.heal()
    stream.enqueue(b"disk")
    stream.enqueue(b"disk")
    with pytest.raises(RateLimited):
        stream.enqueue(b"too fast")


def test_row_27_a_producer_may_wait_for_the_rate_and_close_ends_that(open_stream: Any) -> None:
    stream = open_stream(rate_limit=RateLimit(0.001, burst=1, on_limit="wait"))
    stream.enqueue(b"burst")
    refused: list[BaseException] = []

    def produce() -> None:
        try:
            stream.enqueue(b"in a thousand seconds")
        except QueueClosed as error:
            refused.append(error)

    producer = background(produce)
    until(lambda: stream._stream._limiter.queued)
    stream.close()
    producer.join()
    assert len(refused) == 1


# --- row 28: the verbs


def test_row_28_dequeue_waits_dequeue_timeout_gives_up_and_try_dequeue_does_neither(open_stream: Any) -> None:
    clock = ManualClock()
    stream = open_stream(_clock=clock, _background=False)
    with pytest.raises(QueueEmpty):
        stream.try_dequeue()
    with pytest.raises(QueueEmpty):
        stream.dequeue_timeout(0)
    with pytest.raises(InvalidOption):
        stream.dequeue_timeout(-1)
    got: list[bytes] = []
    consumer = background(lambda: got.append(stream.dequeue_timeout(3600)))
    until(lambda: waiting(stream))
    stream.enqueue(b"at last")
    consumer.join()
    assert got == [b"at last"]


def test_row_28_close_removes_the_file_ends_the_work_and_says_what_it_threw_away(open_stream: Any, folder: Path) -> None:
    stream = open_stream()
    for packet in packets(10):
        stream.enqueue(packet)
    stream.dequeue()
    assert stream.close() == 9
    assert os.listdir(folder) == [] and stream._stream not in the_pump()._queues
    assert (stream.get_depth(), stream.has_disk_data(), stream.closed) == (0, False, True)
    for call in (stream.dequeue, stream.try_dequeue, lambda: stream.dequeue_timeout(1), lambda: stream.enqueue(b"late")):
        with pytest.raises(QueueClosed):
            call()
    assert stream.close() == 9  # again: nothing happens


def test_row_28_consumers_who_wait_at_close_get_what_they_were_woken_for(open_stream: Any) -> None:
    for _ in range(50):
        stream = open_stream(memory_size=1)
        got: list[bytes] = []
        consumers = [background(lambda: got.append(stream.dequeue())) for _ in range(3)]
        until(lambda: waiting(stream) == 3)
        for packet in packets(3):
            stream.enqueue(packet)
        assert stream.close() == 0
        for consumer in consumers:
            consumer.join()
        assert sorted(got) == packets(3)


def test_row_28_waiting_consumers_hear_of_close(open_stream: Any) -> None:
    stream = open_stream()
    ends: list[type[BaseException]] = []

    def consume() -> None:
        try:
            stream.dequeue()
        except QueueClosed as error:
            ends.append(type(error))

    consumers = [background(consume) for _ in range(3)]
    until(lambda: waiting(stream) == 3)
    stream.close()
    for consumer in consumers:
        consumer.join()
    assert ends == [QueueClosed] * 3


def test_row_28_close_with_drain_lets_consumers_finish(open_stream: Any) -> None:
    stream = open_stream()
    for packet in packets(500):
        stream.enqueue(packet)
    got: list[bytes] = []

    def consume() -> None:
        while True:
            try:
                got.append(stream.dequeue())
            except QueueClosed:
                return

    closing = background(lambda: stream.close(drain=600))
    until(lambda: stream.closed)
    with pytest.raises(QueueClosed):
        stream.enqueue(b"late")
    consumer = background(consume)
    closing.join()
    consumer.join()
    assert got == packets(500) and stream.stats().discarded == 0


def test_a_signal_handler_may_close_the_stream_over_its_own_wait(open_stream: Any) -> None:
    stream = open_stream()
    before = signal.signal(signal.SIGUSR1, lambda *_: stream.close())
    main = threading.main_thread().ident
    assert main is not None
    try:
        def interrupt() -> None:
            until(lambda: waiting(stream))
            signal.pthread_kill(main, signal.SIGUSR1)

        sender = background(interrupt)
        with pytest.raises(QueueClosed):
            stream.dequeue()
        sender.join()
    finally:
        signal.signal(signal.SIGUSR1, before)


# --- row 29: what it says of itself


def test_row_29_depth_pressure_and_statistics(open_stream: Any) -> None:
    stream = open_stream(memory_size=10)
    assert (stream.get_depth(), stream.get_pressure()) == (0, 0.0)
    for n in range(10):
        stream.enqueue(b"12345")
    assert (stream.get_depth(), stream.get_pressure(), stream.has_disk_data()) == (10, 1.0, False)
    for n in range(5):
        stream.enqueue(b"12345")
    assert (stream.get_depth(), stream.get_pressure(), stream.has_disk_data()) == (15, 1.5, True)
    stats = stream.stats()
    assert (stats.stream_id, stats.depth, stats.memory_items, stats.disk_bytes, stats.pressure) == ("cam", 15, 10, 45, 1.5)
    assert (stats.disk_items, stats.enqueued, stats.dequeued, stats.balance) == (5, 15, 0, 0)
    assert len(stream) == 15 and stream and repr(stream) == "<StreamQueue cam: 15 waiting = 10 in memory + 5 on disk>"


# --- row 30: errors


def test_row_30_what_is_not_bytes_or_too_long_is_refused_in_both_tiers(open_stream: Any) -> None:
    stream = open_stream(memory_size=1)
    for _ in range(2):
        with pytest.raises(NotSerializable, match="cam.*a stream takes bytes"):
            stream.enqueue("text")
        with pytest.raises(ItemTooLarge, match="in pieces"):
            stream.enqueue(bytes(10 * MiB + 1))
        stream.enqueue(b"fine")
        stream.enqueue(b"fine")
    assert taken(stream) == [b"fine"] * 4


def test_row_30_a_corrupt_length_is_told_once_kept_aside_and_gone_on_from(open_stream: Any, folder: Path) -> None:
    folder.mkdir(mode=0o700)
    rest = struct.pack(">I", 10 * MiB + 1) + b"and what is behind it"
    (folder / "cam.overflow").write_bytes(on_disk(*packets(5)) + rest)
    stream = open_stream(memory_size=2)
    at = len(on_disk(*packets(5)))
    assert (stream.recovery.items, stream.recovery.damaged_at, stream.recovery.kept_in) == (5, at, "cam.overflow.corrupt")
    stream.enqueue(b"new")
    assert [stream.dequeue() for _ in range(5)] == packets(5)
    with pytest.raises(CorruptedData) as caught:
        stream.dequeue()
    assert (caught.value.path, caught.value.offset, caught.value.found) == (str(folder / "cam.overflow"), at, 10 * MiB + 1)
    assert "cam.overflow.corrupt" in str(caught.value)
    assert taken(stream) == [b"new"]
    assert (folder / "cam.overflow.corrupt").read_bytes() == rest
    stream.close()
    assert os.listdir(folder) == ["cam.overflow.corrupt"]  # what could not be understood is never deleted


@pytest.mark.parametrize("background", [False, True])
def test_row_30_damage_under_an_open_stream_is_met_in_its_place(open_stream: Any, folder: Path, background: bool) -> None:
    stream = open_stream(memory_size=2, _background=background)
    for packet in packets(8):
        stream.enqueue(packet)
    with open(folder / "cam.overflow", "r+b") as file:
        file.seek(len(on_disk(*packets(8)[2:5])))
        file.write(b"\xff\xff\xff\xf0")
    got = []
    with pytest.raises(CorruptedData, match="the 2 items behind it"):
        while True:
            got.append(stream.dequeue_timeout(0))
    assert got == packets(5)
    stream.enqueue(b"new")
    assert taken(stream) == [b"new"] and stream.stats().lost == 3
    assert (folder / "cam.overflow.corrupt").read_bytes()[4:] == on_disk(*packets(8)[5:])[4:]


def test_a_consumer_waits_in_peace_after_the_damage_was_told(open_stream: Any, folder: Path) -> None:
    folder.mkdir(mode=0o700)
    (folder / "cam.overflow").write_bytes(b"\xff" * 100)
    stream = open_stream()
    with pytest.raises(CorruptedData):
        stream.try_dequeue()
    got: list[bytes] = []
    consumer = background(lambda: got.append(stream.dequeue()))
    until(lambda: waiting(stream))
    stream.enqueue(b"new")
    consumer.join()
    assert got == [b"new"] and (folder / "cam.overflow.corrupt").read_bytes() == b"\xff" * 100


def test_a_file_that_somebody_cut_short_is_damage_and_no_loop(open_stream: Any, folder: Path) -> None:
    stream = open_stream(memory_size=2, _background=False)
    for packet in packets(8):
        stream.enqueue(packet)
    os.truncate(folder / "cam.overflow", len(on_disk(*packets(8)[2:5])) + 6)
    got = []
    with pytest.raises(CorruptedData):
        while True:
            got.append(stream.try_dequeue())
    assert got == packets(5) and taken(stream) == []
    for packet in packets(8):
        stream.enqueue(packet)
    assert taken(stream) == packets(8)


# --- a file that was there


def test_a_foreign_file_is_delivered_first(open_stream: Any, folder: Path) -> None:
    folder.mkdir(mode=0o700)
    (folder / "cam.overflow").write_bytes(on_disk(*packets(20)))
    stream = open_stream(memory_size=4)
    assert stream.get_depth() == stream.stats().recovered == stream.recovery.items == 20
    stream.enqueue(b"new")
    assert taken(stream) == [*packets(20), b"new"]


@pytest.mark.parametrize("torn", [b"\0", b"\0\0\0", struct.pack(">I", 5), struct.pack(">I", 5) + b"four", struct.pack(">I", 10 * MiB) + b"x" * 1000])
def test_a_torn_last_message_is_cut_and_the_ones_before_survive(open_stream: Any, folder: Path, torn: bytes) -> None:
    folder.mkdir(mode=0o700)
    (folder / "cam.overflow").write_bytes(on_disk(*packets(4)) + torn)
    stream = open_stream()
    assert (stream.recovery.items, stream.recovery.torn_bytes) == (4, len(torn))
    stream.enqueue(b"new")
    assert taken(stream) == [*packets(4), b"new"]


@pytest.mark.parametrize("size", [0, 1, 3, 500])
def test_a_kill_leaves_what_was_in_the_file_and_not_in_memory(folder: Path, size: int) -> None:
    """Whatever the size of the first messages: the mark that says where the rest begins finds room in what has been read."""
    script = f"""
import os, signal
from overspill import StreamQueue
stream = StreamQueue("cam", 2, {str(folder)!r}, rate_limit=None, _background=False)
for i in range(20):
    stream.enqueue(b"%d" % (i % 10) * {size})
for n in range(7):
    stream.dequeue()
    print(n + 1 + stream.stats().memory_items, flush=True)
    if os.fork() == 0:
        os._exit(os.system("cp {folder}/cam.overflow {folder}/" + str(n)) != 0)
    os.wait()
os.kill(os.getpid(), signal.SIGKILL)
"""
    run = subprocess.run([sys.executable, "-c", script], env=SCRIPTS, capture_output=True, text=True)
    assert run.returncode == -signal.SIGKILL, run.stderr
    items = [b"%d" % (i % 10) * size for i in range(20)]
    out_of_the_file = [int(line) for line in run.stdout.split()]
    with StreamQueue("cam", 5, folder) as stream:
        assert taken(stream) == items[out_of_the_file[-1] :]
    for n, out in enumerate(out_of_the_file):
        os.rename(folder / str(n), folder / f"copy-{n}.overflow")
        with StreamQueue(f"copy-{n}", 5, folder) as stream:
            assert taken(stream) == items[out:]


BUSY = """
import os, sys, threading
from overspill import StreamQueue

sys.setswitchinterval(1e-5)  # take turns often
stream = StreamQueue("cam", 7, sys.argv[1], rate_limit=None)

def consume():
    while True:
        os.write(1, b"got " + stream.dequeue()[:8] + b"\\n")

threading.Thread(target=consume, daemon=True).start()
for n in range(10**6):
    stream.enqueue(b"%08d" % n + bytes(n * 37 % 3000))
    os.write(1, b"put %08d\\n" % n)
    if stream.get_depth() > 80:
        while stream.get_depth() > n % 50:
            pass
"""


def killed_while_busy(folder: Path, rng: random.Random) -> None:
    """Kill a process that puts and takes, after so many of its lines, and read what it left."""
    with subprocess.Popen([sys.executable, "-c", BUSY, str(folder)], env=SCRIPTS, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        lines = [child.stdout.readline() for _ in range(rng.randrange(20, 4000))]
        child.kill()
        lines += child.stdout.readlines()
    words = [line.split() for line in lines if line.endswith(b"\n")]
    put = [int(number) for verb, number in words if verb == b"put"]
    got = [int(number) for verb, number in words if verb == b"got"]
    assert put == list(range(len(put))) and got == list(range(len(got)))
    with StreamQueue("cam", 100, folder, rate_limit=None) as stream:
        left = taken(stream)
        assert stream.recovery.damaged_at is None
    numbers = [int(item[:8]) for item in left]
    assert [item[8:] for item in left] == [bytes(n * 37 % 3000) for n in numbers]
    assert numbers == list(range(numbers[0], numbers[-1] + 1)) if numbers else True
    if numbers:
        assert numbers[0] >= len(got)  # nothing comes back that was taken
        assert numbers[-1] >= len(put) - 1  # the newest is at the end of the file, where it was acknowledged


@pytest.mark.parametrize("round", [*range(3), *(pytest.param(n, marks=pytest.mark.battery) for n in range(3, 200))])
def test_a_busy_process_killed_at_any_moment_leaves_the_end_of_its_line_and_nothing_twice(folder: Path, round: int) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    killed_while_busy(folder, random.Random(seed))


def test_a_program_that_ends_without_close_leaves_the_file(folder: Path) -> None:
    script = f"""
from overspill import StreamQueue
stream = StreamQueue("cam", 2, {str(folder)!r}, rate_limit=None)
for i in range(5):
    stream.enqueue(b"%d" % i)
"""
    subprocess.run([sys.executable, "-c", script], env=SCRIPTS, check=True)
    with StreamQueue("cam", 2, folder) as stream:
        assert taken(stream) == [b"2", b"3", b"4"]


# --- the disk fails


def test_a_full_disk_refuses_the_item_while_taking_goes_on(open_stream: Any) -> None:
    disk = faulty("pwrite", error=28, sticky=True, armed=False)
    stream = open_stream(memory_size=2, _disk_class=disk, _background=False)
    for packet in packets(6):
        stream.enqueue(packet)
    disk.arm(1)
    with pytest.raises(QueueFull, match="cam.overflow.*the disk has no room"):
        stream.enqueue(b"no room")
    assert [stream.dequeue() for _ in range(4)] == packets(6)[:4]  # the drained mark finds no room either
    disk.heal()
    stream.enqueue(b"room")
    assert taken(stream) == [*packets(6)[4:], b"room"] and stream.stats().refused["full"] == 1


def test_on_a_device_that_is_really_full_taking_goes_on_and_makes_room(tmp_path: Path) -> None:
    mount = tmp_path / "small"
    mount.mkdir()
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,mode=700", "tmpfs", str(mount)], check=False).returncode:
        pytest.skip("NOT TESTED: a full device, because a small tmpfs could not be mounted here")
    try:
        with StreamQueue("cam", 3, mount, rate_limit=None, _background=False) as stream:
            put = 0
            with pytest.raises(QueueFull):
                while True:
                    stream.enqueue(b"%06d" % put + bytes(3000))
                    put += 1
            assert put > 300
            got = [stream.dequeue() for _ in range(50)]
            with pytest.raises(QueueFull):  # the front is given back a MiB at a time, or when it is all
                for _ in range(300):
                    stream.enqueue(bytes(3000))
                    put += 1
            got += [stream.dequeue() for _ in range(stream.get_depth())]
            assert [item[:6] for item in got[: 300]] == [b"%06d" % n for n in range(300)] and len(got) == put
            stream.enqueue(b"room again")
            assert taken(stream) == [b"room again"]
    finally:
        subprocess.run(["umount", str(mount)], check=True)


def test_a_message_of_which_half_was_written_leaves_no_trace(open_stream: Any, folder: Path) -> None:
    disk = faulty("pwrite", error=SHORT, armed=False)
    stream = open_stream(memory_size=1, _disk_class=disk, _background=False)
    for packet in packets(3):
        stream.enqueue(packet)
    for length in (100, 50_000):
        disk.arm(1 if length == 100 else 2)
        with pytest.raises(QueueFull):
            stream.enqueue(b"y" * length)
        disk.heal()
        assert (folder / "cam.overflow").read_bytes() == on_disk(*packets(3)[1:])
    stream.enqueue(b"z")
    assert (folder / "cam.overflow").read_bytes() == on_disk(*packets(3)[1:], b"z")
    assert taken(stream) == [*packets(3), b"z"]


def test_an_error_of_the_disk_while_reading_loses_nothing(open_stream: Any) -> None:
    disk = faulty("pread", error=5, armed=False)
    stream = open_stream(memory_size=1, _disk_class=disk, _background=False)
    for packet in packets(4):
        stream.enqueue(packet)
    assert stream.dequeue() == packets(4)[0]
    disk.arm(1)
    with pytest.raises(OSError, match="injected"):
        stream.dequeue()
    assert taken(stream) == packets(4)[1:]


def test_an_interrupt_between_file_and_line_neither_loses_nor_doubles(open_stream: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = open_stream(memory_size=2, _background=False)
    for packet in packets(8):
        stream.enqueue(packet)
    assert [stream.dequeue(), stream.dequeue()] == packets(2)
    join_back = Streaming._join_back

    def interrupted(self: Streaming, *args: Any) -> None:
        join_back(self, *args)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Streaming, "_join_back", interrupted)
        with pytest.raises(KeyboardInterrupt):
            stream.dequeue()
    assert taken(stream) == packets(8)[2:]


# --- whose it is


def test_one_owner_at_a_time_by_name(open_stream: Any, folder: Path) -> None:
    stream = open_stream()
    with pytest.raises(QueueLocked, match=f"cam.overflow is already open in this process.*{os.getpid()}"):
        open_stream()
    with StreamQueue("another", 1, folder):
        assert sorted(os.listdir(folder)) == ["another.overflow", "cam.overflow"]
    script = f"""
from overspill import StreamQueue, QueueLocked
try:
    StreamQueue("cam", 2, {str(folder)!r})
except QueueLocked as error:
    print(error)
"""
    run = subprocess.run([sys.executable, "-c", script], env=SCRIPTS, capture_output=True, text=True, check=True)
    assert "cam.overflow is held open by another owner" in run.stdout
    stream.close()
    open_stream().close()


def test_a_forked_child_is_told_so_and_changes_nothing(open_stream: Any, folder: Path) -> None:
    stream = open_stream(memory_size=1)
    for packet in packets(4):
        stream.enqueue(packet)
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        told = []
        for call in (lambda: stream.enqueue(b"child"), stream.try_dequeue):
            try:
                call()
            except QueueClosed as error:
                told.append("child of it" in str(error))
        stream.close()
        os.write(write, repr(told).encode())
        os._exit(0)
    os.waitpid(pid, 0)
    assert os.read(read, 100) == b"[True, True]"
    os.close(read)
    os.close(write)
    assert (folder / "cam.overflow").exists() and taken(stream) == packets(4)


@pytest.mark.parametrize("name", ["", "a/b", "../up", ".hidden", "a\0b", "x" * 200, 5, None])
def test_a_name_that_leads_elsewhere_is_refused(folder: Path, name: Any) -> None:
    with pytest.raises(InvalidOption, match="stream_id"):
        StreamQueue(name, 1, folder)
    assert not folder.exists()


def test_other_arguments_that_cannot_be_are_refused(folder: Path) -> None:
    for size in (0, -1, True, 1.5, "10", None):
        with pytest.raises(InvalidOption, match="memory_size"):
            StreamQueue("cam", size, folder)
    for path in (None, "", 5):
        with pytest.raises(InvalidOption, match="disk_path"):
            StreamQueue("cam", 1, path)
    for name in ("ttl", "clock"):
        with pytest.raises(InvalidOption, match=name):
            StreamQueue("cam", 1, folder, **{name: 1})
    assert not folder.exists()


def test_the_file_is_private_and_a_planted_link_is_not_followed(open_stream: Any, folder: Path, tmp_path: Path) -> None:
    open_stream(rate_limit=None)
    assert stat.S_IMODE((folder / "cam.overflow").stat().st_mode) == 0o600 and stat.S_IMODE(folder.stat().st_mode) == 0o700
    (tmp_path / "precious").write_bytes(b"precious")
    (folder / "planted.overflow").symlink_to(tmp_path / "precious")
    with pytest.raises(UnsafeFolder, match="symlink"):
        StreamQueue("planted", 1, folder)
    assert (tmp_path / "precious").read_bytes() == b"precious"


def test_close_removes_only_its_own_file(open_stream: Any, folder: Path) -> None:
    stream = open_stream()
    os.unlink(folder / "cam.overflow")
    (folder / "cam.overflow").write_bytes(on_disk(b"somebody else's"))
    stream.close()
    assert (folder / "cam.overflow").read_bytes() == on_disk(b"somebody else's")


# --- against a list, and with threads


@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("memory_size", [1, 2, 3, 50])
def test_a_random_history_is_that_of_a_list(folder: Path, memory_size: int, background: bool) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    stream = StreamQueue("cam", memory_size, folder, rate_limit=None, _background=background)
    model: list[bytes] = []
    kills = 0
    for _ in range(3000):
        step = rng.random()
        if step < (0.7 if len(model) < 5 * memory_size and rng.random() < 0.9 else 0.45):
            item = rng.randbytes(rng.choice((0, 1, 2, 5, 8, 100, 1000, 5000)) if rng.random() < 0.99 else 400_000)
            stream.enqueue(item)
            model.append(item)
        elif step < 0.98:
            if model:
                assert stream.dequeue_timeout(0) == model.pop(0)
            else:
                with pytest.raises(QueueEmpty):
                    stream.try_dequeue()
        elif step < 0.995:
            stats = stream.stats()
            assert stats.depth == len(model) == stats.memory_items + stats.disk_items
            assert stats.memory_items <= memory_size and stats.balance == 0
            assert (stream.get_pressure() > 1.0) == stream.has_disk_data() or background
        elif not background:
            kills += 1
            in_file = stream.stats().disk_items
            copy = f"copy-{kills}"
            shutil.copy(folder / f"{stream.stream_id}.overflow", folder / f"{copy}.overflow")
            stream.close()
            stream = StreamQueue(copy, memory_size, folder, rate_limit=None, _background=False)
            model = model[len(model) - in_file :]
            assert stream.get_depth() == in_file
    assert taken(stream) == model
    stream.close()
    assert os.listdir(folder) == []


@pytest.mark.parametrize("memory_size", [1, 10, 10_000])
def test_many_producers_and_consumers_each_item_once_each_producer_in_order(folder: Path, memory_size: int) -> None:
    each, producers, consumers = 1500, 3, 3
    got: list[list[tuple[int, int]]] = [[] for _ in range(consumers)]
    with StreamQueue("cam", memory_size, folder, rate_limit=None) as stream:
        def produce(who: int) -> None:
            for n in range(each):
                stream.enqueue(struct.pack(">II", who, n) + bytes(n % 300))

        def consume(mine: list[tuple[int, int]]) -> None:
            while True:
                try:
                    mine.append(struct.unpack_from(">II", stream.dequeue()))  # type: ignore[arg-type]
                except QueueClosed:
                    return

        threads = [background(lambda who=who: produce(who)) for who in range(producers)]  # type: ignore[misc]
        takers = [background(lambda mine=mine: consume(mine)) for mine in got]  # type: ignore[misc]
        for thread in threads:
            thread.join()
        stream.close(drain=600)
        for taker in takers:
            taker.join()
        assert stream.stats().discarded == 0
    for mine in got:
        for who in range(producers):
            numbers = [n for producer, n in mine if producer == who]
            assert numbers == sorted(numbers)
    assert sorted(pair for mine in got for pair in mine) == [(who, n) for who in range(producers) for n in range(each)]
