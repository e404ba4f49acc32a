"""The durable pipe: nothing lost between a producer and a consumer, through slow ones, dead ones, kills and Ctrl-C."""

from __future__ import annotations

import fcntl
import io
import itertools
import json
import os
import random
import signal
import subprocess
import termios
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from patience import until
import pytest

from overspill import CorruptedData, Durability, HybridQueue, ItemTooLarge, KiB, MiB
from overspill._core.frames import Frames
from overspill.pipe import DurablePipe, Framing, Lengths, Lines
from overspill.pipe.frames import Cutter

from .conftest import OVERSPILL, Run


WAYS: dict[str, dict[str, Any]] = {"ordinary": {}, "ack": {"ack": True}, "memory": {"durability": "memory"}, "power": {"durability": "power"}}


def line(n: int, size: int = 100) -> bytes:
    return b"%010d " % n + b"x" * (size - 12) + b"\n"


def numbers(data: bytes) -> list[int]:
    """Of the complete lines."""
    return [int(each[:10]) for each in data.split(b"\n")[:-1]]


def words(options: dict[str, Any]) -> list[str]:
    return [word for key, value in options.items() for word in (f"--{key.replace('_', '-')}", str(value)) if word != "True"]


def carried(folder: Path, data: bytes, **options: Any) -> bytes:
    """What a run makes of this input."""
    ran = subprocess.run([*OVERSPILL, "pipe", folder, *words(options)], input=data, capture_output=True, timeout=60)
    assert (ran.returncode, ran.stderr) == (0, b"")
    return ran.stdout


# --- frames


def blocks_of(cutter: Cutter, data: bytes, steps: Iterator[int]) -> Iterator[tuple[bytes, Frames]]:
    """A stream that comes in such steps, as blocks up to the ends of their last complete frames."""
    stream = io.BytesIO(data)
    while (read := cutter.read(lambda into: stream.readinto(into[: next(steps)]))) is not None:
        _, block, frames = read
        yield bytes(block[: frames.stop]), frames
        cutter.give_back(block)


@pytest.mark.parametrize("framing", [Lines(), Lengths()], ids=["lines", "lengths"])
@pytest.mark.parametrize("seed", range(20))
def test_frames_are_the_same_however_the_stream_was_read(framing: Framing, seed: int) -> None:
    rng = random.Random(seed)
    frames = [rng.randbytes(rng.choice((0, 1, 3, 50))).replace(b"\n", b".") for _ in range(rng.randrange(30))]
    data = framing.join(frames)
    cutter = Cutter(framing, rng.choice((1, 5, 64, 1000)), 100)
    found, passed = [], b""
    for stretch, each in blocks_of(cutter, data, iter(lambda: rng.choice((1, 2, 7, 60)), 0)):
        found += (payloads := each.payloads())
        passed += stretch
        for nbytes in range(len(stretch) + 1):  # a write may end anywhere
            whole = each.whole_in(nbytes)
            assert len(framing.join(payloads[:whole])) <= nbytes and (whole == len(payloads) or len(framing.join(payloads[: whole + 1])) > nbytes)
    assert found == frames and passed == data and cutter.rest() == b""
    assert sum(map(framing.size_of, frames)) == len(data)


def test_line_that_never_ends_is_refused_before_it_fills_the_memory() -> None:
    with pytest.raises(ItemTooLarge, match="a line is too long"):
        for _ in blocks_of(Cutter(Lines(), 100, 1000), b"x" * 10_000, itertools.repeat(100)):
            pass


def test_stream_that_is_not_framed_by_length_is_refused() -> None:
    with pytest.raises(CorruptedData, match="byte 5 claims to be"):
        for _ in blocks_of(Cutter(Lengths(), 100, 1000), b"\0\0\0\1xGET / HTTP/1.1\r\n", itertools.repeat(100)):
            pass


# --- whole runs


@pytest.mark.parametrize("data", [b"", b"\n", b"a", b"a\n", b"a\nb", b"\n\n\xff\x00\r\n", b"".join(line(n) for n in range(20_000)), b"\n" * 300_000, b"x" * 9_000_000 + b"\ny"], ids=len)
@pytest.mark.parametrize("how", WAYS, ids=WAYS)
def test_what_comes_out_is_what_went_in(tmp_path: Path, data: bytes, how: str) -> None:
    assert carried(tmp_path / "q", data, **WAYS[how]) == data


def test_frames_by_length(tmp_path: Path) -> None:
    data = Lengths().join([b"", b"one\ntwo", bytes(range(256)) * 10])
    assert carried(tmp_path / "q", data, frame="length") == data


def test_spilled_and_small_it_comes_out_in_order(tmp_path: Path) -> None:
    data = b"".join(line(n, 1000) for n in range(20_000))
    assert carried(tmp_path / "q", data, memory="4KiB", max_disk="1MiB") == data


def test_stream_broken_off_inside_a_frame_is_told(tmp_path: Path) -> None:
    ran = subprocess.run([*OVERSPILL, "pipe", "--frame", "length", tmp_path / "q"], input=b"\0\0\0\4four\0\0\0\4fo", capture_output=True, timeout=60)
    assert (ran.returncode, ran.stdout) == (0, b"\0\0\0\4four") and b"6 bytes of it not kept" in ran.stderr


def test_producer_is_read_while_the_consumer_does_not_read(tmp_path: Path, started: Any) -> None:
    """A pipe holds a MiB at the most; twenty go in before anybody reads."""
    data = [line(n, 1000) for n in range(20_000)]
    carrying = started("pipe", tmp_path / "q", "--memory", "64KiB")
    carrying.stdin.write(b"".join(data))
    carrying.stdin.close()
    until(lambda: HybridQueue.inspect(tmp_path / "q").next_sequence > 20_000, not_yet=FileNotFoundError)
    assert carrying.stdout.read() == b"".join(data) and carrying.wait(30) == 0


@pytest.mark.parametrize("how", WAYS, ids=WAYS)
def test_gone_consumer_loses_nothing_and_the_next_run_goes_on(tmp_path: Path, started: Any, how: str) -> None:
    carrying = started("pipe", tmp_path / "q", *words(WAYS[how]))
    carrying.stdin.write(b"".join(line(n) for n in range(1000)))
    carrying.stdin.flush()
    got = carrying.stdout.readline()
    carrying.stdout.close()
    for start in range(1000, 60_000, 1000):  # read on to its end, long after the consumer died
        carrying.stdin.write(b"".join(line(n) for n in range(start, start + 1000)))
    carrying.stdin.close()
    assert carrying.wait(30) == 0 and b"the consumer has gone" in carrying.stderr.read()
    rest = numbers(carried(tmp_path / "q", b""))
    assert got == line(0) and rest == list(range(60_000 - len(rest), 60_000)) and len(rest) >= 50_000


def test_stopping_with_the_consumer(tmp_path: Path, started: Any) -> None:
    carrying = started("pipe", tmp_path / "q", "--stop-with-consumer")
    carrying.stdout.close()
    carrying.stdin.write(line(0))
    carrying.stdin.flush()
    assert carrying.wait(30) == 0  # although its source has not ended
    assert numbers(carried(tmp_path / "q", b"")) == [0]


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.battery) for seed in range(1, 40))])
@pytest.mark.parametrize("ack", [False, True], ids=["ordinary", "ack"])
def test_killed_it_goes_on_where_it_was(tmp_path: Path, started: Any, ack: bool, seed: int) -> None:
    rng = random.Random(seed)
    how = ["--memory", rng.choice(("4KiB", "64MiB")), *(["--ack"] if ack else [])]
    n, last = 0, -1
    in_hand = 0 if ack else 256 * KiB // 100  # what a kill may take
    for _ in range(3):
        carrying = started("pipe", tmp_path / "q", *how)
        amount = rng.randrange(5_000, 20_000)
        carrying.stdin.write(b"".join(line(i) for i in range(n, n + amount)))
        carrying.stdin.flush()
        n += amount
        # All of it is in the log: what a kill takes now is what it has in hand on its way out.
        until(lambda: HybridQueue.inspect(tmp_path / "q").next_sequence > n, not_yet=FileNotFoundError)
        got = os.read(carrying.stdout.fileno(), rng.randrange(1, MiB))
        carrying.kill()
        got += carrying.stdout.read()
        found = numbers(got)
        assert found == list(range(found[0], found[0] + len(found)))
        assert found[0] <= last + 1 + in_hand, (seed, found[0], last)
        last = found[-1]
    rest = numbers(carried(tmp_path / "q", b"", **({"ack": True} if ack else {})))
    assert rest == list(range(n - len(rest), n)) and n - len(rest) <= last + 1 + in_hand, (seed, rest[:1], last, n)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("how", WAYS, ids=WAYS)
def test_interrupted_it_keeps_everything_and_the_line_that_was_begun(tmp_path: Path, started: Any, number: int, code: int, how: str) -> None:
    carrying = started("pipe", tmp_path / "q", *words(WAYS[how]))
    ready = line(0)
    carrying.stdin.write(ready)
    carrying.stdin.flush()
    assert carrying.stdout.readline() == ready
    carrying.stdin.write(b"".join(line(n) for n in range(1, 30_000)) + b"0000030000 begun")
    carrying.stdin.flush()
    if how == "memory":
        until(lambda: fcntl.ioctl(carrying.stdin.fileno(), termios.FIONREAD, b"1234") == bytes(4))  # it has read everything
    else:
        until(lambda: HybridQueue.inspect(tmp_path / "q").next_sequence > 30_000, not_yet=FileNotFoundError)
    carrying.send_signal(number)  # it is writing into a pipe that nobody reads
    assert carrying.wait(30) == code
    found = [0, *numbers(carrying.stdout.read())]
    rest = carried(tmp_path / "q", b"")
    assert rest.endswith(b"0000030000 begun\n")
    assert found == list(range(len(found))) and (after := numbers(rest)) == list(range(after[0], 30_001)) and len(found) - 3000 < after[0] <= len(found)
    if how != "ack":
        assert after[0] == len(found)


def test_interrupted_when_the_disk_limit_is_reached_it_keeps_what_it_has_in_hand(tmp_path: Path, started: Any) -> None:
    carrying = started("pipe", tmp_path / "q", "--max-disk", "1MiB", "--memory", "4KiB")
    written = 0

    def produce() -> None:
        nonlocal written
        try:
            while True:
                written += os.write(carrying.stdin.fileno(), line(written // 100))
        except BrokenPipeError:
            pass

    producer = threading.Thread(target=produce)
    producer.start()
    before = -1

    def is_stuck() -> bool:
        nonlocal before
        stuck, before = before == written > MiB, written
        return stuck

    until(is_stuck, every_s=0.3)
    carrying.send_signal(signal.SIGINT)
    assert carrying.wait(30) == 130
    found = numbers(carrying.stdout.read())
    carrying.stdin.close()
    producer.join()
    assert sum(file.stat().st_size for file in (tmp_path / "q").iterdir()) <= MiB
    carried_on = carried(tmp_path / "q", b"", max_disk="1MiB")
    *whole, last = carried_on.split(b"\n")[:-1]
    if len(last) < 99:  # the interruption came in the middle of a line: what had been read of it is kept as well
        assert line(len(found) + len(whole)).startswith(last)
        carried_on = b"".join(each + b"\n" for each in whole)
    rest = numbers(carried_on)
    assert found + rest == list(range(len(found) + len(rest))) and len(rest) > 3000


def test_summary_in_json(run: Run, tmp_path: Path) -> None:
    ran = subprocess.run([*OVERSPILL, "pipe", "--json", tmp_path / "q"], input=b"a\nb\n", capture_output=True, timeout=60)
    told = json.loads(ran.stderr)
    assert (told["frames_in"], told["frames_out"], told["bytes_out"], told["kept"]) == (2, 2, 4, 0)


# --- past the line


def in_a_thread(carrying: DurablePipe) -> tuple[threading.Thread, list[Any]]:
    reports: list[Any] = []
    thread = threading.Thread(target=lambda: reports.append(carrying.run()))
    thread.start()
    return thread, reports


def read_upto(fd: int, n: int) -> bytes:
    parts = []
    while n and (part := os.read(fd, n)):
        parts.append(part)
        n -= len(part)
    return b"".join(parts)


def test_no_line_becomes_an_object_while_the_consumer_keeps_pace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    into, source = os.pipe()[::-1]
    sink, out = os.pipe()
    carrying = DurablePipe(tmp_path / "q", source=source, sink=out)
    monkeypatch.setattr(carrying, "_place", lambda frames: pytest.fail("through the line") if frames else None)
    thread, reports = in_a_thread(carrying)
    for start in range(0, 10_000, 100):
        block = b"".join(line(n) for n in range(start, start + 100))
        os.write(into, block[:-30])
        os.write(into, block[-30:])
        assert read_upto(sink, len(block)) == block
    stats = carrying.queue.stats()
    os.close(into)
    thread.join(30)
    assert reports[0].frames_out == 10_000 and (stats.enqueued, stats.dequeued, stats.waiting, stats.spilled) == (10_000, 10_000, 0, 0)
    for fd in (source, sink, out):
        os.close(fd)


@pytest.mark.parametrize("seed", range(6))
def test_order_is_kept_from_past_the_line_to_through_the_line_and_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """A consumer in bursts, a producer in bursts, and memory for a few blocks only."""
    rng = random.Random(seed)
    into, source = os.pipe()[::-1]
    sink, out = os.pipe()
    carrying = DurablePipe(tmp_path / "q", source=source, sink=out, memory=rng.choice((KiB, 64 * KiB, 512 * KiB)), ack=seed % 3 == 1, durability=Durability(seed % 2))
    ways = {"past": 0, "through": 0}
    passing, placing = carrying._pass, carrying._place
    def pass_counted(*block: Any) -> bool:
        passed = passing(*block)
        ways["past"] += passed
        return passed
    def place_counted(frames: list[bytes]) -> None:
        ways["through"] += bool(frames)
        placing(frames)
    monkeypatch.setattr(carrying, "_pass", pass_counted)
    monkeypatch.setattr(carrying, "_place", place_counted)
    thread, reports = in_a_thread(carrying)
    sent, got = bytearray(), bytearray()
    for n in range(40):
        burst = b"".join(line(len(sent) // 100 + i) for i in range(rng.choice((1, 500, 20_000 if n % 5 == 0 else 50))))
        writer = threading.Thread(target=lambda burst=burst: write_all(into, burst))
        writer.start()
        sent += burst
        writer.join()  # it takes everything, whether or not anybody reads
        got += read_upto(sink, len(sent) - len(got) if n % 3 == 0 else rng.randrange(len(sent) - len(got)))
    os.close(into)
    got += read_upto(sink, len(sent) - len(got))
    thread.join(30)
    assert got == sent, seed
    assert reports[0].kept == 0 and ways["past"] and ways["through"], (seed, ways)
    for fd in (source, sink, out):
        os.close(fd)


def write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


@pytest.mark.parametrize("durability", [Durability.MEMORY, Durability.PROCESS])
def test_what_waits_to_be_written_is_counted_whether_or_not_it_is_in_the_log(tmp_path: Path, durability: Durability) -> None:
    into, source = os.pipe()[::-1]
    sink, out = os.pipe()
    carrying = DurablePipe(tmp_path / "q", source=source, sink=out, durability=durability, ack=True)
    thread, reports = in_a_thread(carrying)
    write_all(into, b"".join(line(n) for n in range(5_000)))
    until(lambda: carrying.frames_in == 5_000)
    waiting, missing = carrying.waiting, 5_000 - carrying.frames_out  # nobody reads, and the pipe is full
    os.close(into)
    read_upto(sink, 500_000)
    thread.join(30)
    assert waiting == missing > 0
    assert reports[0].frames_out == 5_000 and reports[0].kept == 0
    for fd in (source, sink, out):
        os.close(fd)


def test_run_that_was_interrupted_says_so_although_its_source_had_ended(tmp_path: Path) -> None:
    into, source = os.pipe()[::-1]
    sink, out = os.pipe()
    carrying = DurablePipe(tmp_path / "q", source=source, sink=out)
    thread, reports = in_a_thread(carrying)
    write_all(into, b"".join(line(n) for n in range(5_000)))  # more than the sink holds, and nobody reads
    os.close(into)
    until(lambda: carrying._ended)
    carrying.interrupt()
    thread.join(30)
    assert reports[0].interrupted and reports[0].kept > 0
    for fd in (source, sink, out):
        os.close(fd)


@pytest.mark.parametrize("lines", [0, 5_000], ids=["waits for its source", "waits for its sink"])
def test_signal_that_interrupts_no_system_call_ends_the_run(tmp_path: Path, lines: int) -> None:
    """As one that comes just before the call: here another thread gets it, and the main thread's handler is due when that runs Python code again."""
    into, source = os.pipe()[::-1]
    sink, out = os.pipe()
    carrying = DurablePipe(tmp_path / "q", source=source, sink=out)
    over = threading.Event()

    def send() -> None:
        write_all(into, b"".join(line(n) for n in range(lines)) + b"begun")
        until(lambda: carrying.bytes_in == 100 * lines + len(b"begun"))
        signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)
        if not over.wait(20):  # it was not heard: let the run end nevertheless
            os.close(into)
            read_upto(sink, 100 * lines + len(b"begun"))

    before = signal.signal(signal.SIGUSR1, lambda *_: carrying.interrupt())
    sending = threading.Thread(target=send)
    sending.start()
    try:
        carrying.hear_signals()
        report = carrying.run()
    finally:
        over.set()
        signal.signal(signal.SIGUSR1, before)
        sending.join()
    assert report.interrupted and report.frames_out + report.kept == lines + 1
    for fd in (into, source, sink, out):
        os.close(fd)


def test_reader_hears_of_the_end_before_it_gets_the_reserve(tmp_path: Path) -> None:
    """Or it reads on into the half that is the writer's, for as long as the thread that ends the run is not scheduled."""
    into, source = os.pipe()[::-1]
    sink, out = os.pipe()
    carrying = DurablePipe(tmp_path / "q", source=source, sink=out, memory=4 * KiB, max_disk=MiB)
    allow_disk = carrying.queue._allow_disk

    def allow_and_lose_the_processor(nbytes: int) -> None:
        allow_disk(nbytes)
        until(lambda: carrying._ended)

    carrying.queue._allow_disk = allow_and_lose_the_processor

    def produce() -> None:
        with suppress(BrokenPipeError):
            write_all(into, b"".join(line(n) for n in range(30_000)))

    producer = threading.Thread(target=produce)
    producer.start()
    thread, reports = in_a_thread(carrying)
    until(lambda: carrying.queue._makers)  # the limit is reached
    carrying.interrupt()
    thread.join(30)
    assert reports[0].kept > 0 and carrying.queue.closed
    os.close(source)
    producer.join()
    for fd in (into, sink, out):
        os.close(fd)


def test_run_that_stopped_with_its_consumer_was_not_interrupted(tmp_path: Path) -> None:
    into, source = os.pipe()[::-1]
    sink, out = os.pipe()
    os.close(sink)
    os.write(into, line(0))
    carrying = DurablePipe(tmp_path / "q", source=source, sink=out, stop_with_consumer=True)
    report = carrying.run()
    carrying.interrupt()  # a signal that comes too late
    assert report.consumer_gone and report.kept == 1 and not report.interrupted
    for fd in (into, source, out):
        os.close(fd)


def test_pipe_is_there_for_programs(tmp_path: Path) -> None:
    into, source = os.pipe()[::-1]
    sink, out = os.pipe()
    carrying = DurablePipe(tmp_path / "q", source=source, sink=out)
    os.write(into, b"one\ntwo\n")
    os.close(into)
    report = carrying.run()
    os.close(out)
    assert os.read(sink, 100) == b"one\ntwo\n" and report.frames_out == 2 and carrying.queue.closed
    os.close(sink)
    os.close(source)
