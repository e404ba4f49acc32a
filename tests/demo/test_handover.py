"""From the spool through the queue to the origin, exactly once, wherever the mirror is killed."""

from __future__ import annotations

import hashlib
import os
import random
import select
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

pytest.importorskip("aiohttp")

from overspill import HybridQueue, MiB
from overspill.demo.ingest import Ingest
from overspill.demo.journal import read_journal
from overspill.demo.mirror import MirrorOrder
from overspill.demo.origin import OriginOrder
from overspill.demo.places import Places
from overspill.demo.plan import Stream
from overspill.demo.reports import Report, read_report
from overspill.demo.segment import Segment, kind_of
from overspill.demo.spool import Spool

STREAMS = (
    Stream(name="normal-1", premium=False, picture=0, seed=1),
    Stream(name="premium-1", premium=True, picture=0, seed=1),
)


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(str(tmp_path))


@pytest.fixture
def spool(places: Places) -> Spool:
    return Spool(places.spool, [stream.name for stream in STREAMS])


def hand_over(places: Places, spool: Spool, stream: str, sequence: int) -> bytes:
    body = f"{stream} {sequence} ".encode() * 500
    path = Path(places.root, f"{sequence:06d}.ts")
    path.write_bytes(body)
    spool.hand_over(stream, sequence, path)
    return body


def open_queue(places: Places) -> HybridQueue:
    places.queues.mkdir(mode=0o700, exist_ok=True)
    return HybridQueue("segments", places.queues, memory_size=2, serializer=Segment)


def in_queue(queue: HybridQueue) -> list[tuple[str, int]]:
    return [(segment.stream, segment.sequence) for segment in queue if segment.kind != "end"]


def test_premium_goes_first_and_the_spool_is_empty_afterwards(places: Places, spool: Spool) -> None:
    for sequence in range(3):
        for stream in STREAMS:
            hand_over(places, spool, stream.name, sequence)
    spool.finish()
    with open_queue(places) as queue:
        Ingest(queue, spool, STREAMS, threading.Event()).run()
        assert in_queue(queue) == [(name, n) for name in ("premium-1", "normal-1") for n in range(3)]
        assert [segment.kind for segment in queue][-1] == "end"
    assert [spool.waiting(stream.name) for stream in STREAMS] == [[], []]


def test_what_was_enqueued_but_not_settled_when_killed_is_not_enqueued_again(places: Places, spool: Spool) -> None:
    bodies = [hand_over(places, spool, "normal-1", sequence) for sequence in range(4)]
    spool.finish()
    with open_queue(places) as queue:
        for sequence in range(2):  # number 0 was settled, for number 1 the kill came first
            name, body = f"{sequence:06d}.ts", bodies[sequence]
            queue.enqueue(Segment("normal-1", sequence, name, kind_of(name), hashlib.sha256(body).hexdigest(), body))
        spool.settle("normal-1", 0, "000000.ts")
    with open_queue(places) as queue:
        ingest = Ingest(queue, spool, STREAMS, threading.Event())
        ingest.learn()
        ingest.run()
        assert in_queue(queue) == [("normal-1", n) for n in range(4)]
        assert [segment.body for segment in queue if segment.kind != "end"] == bodies


def test_the_end_is_queued_once(places: Places, spool: Spool) -> None:
    spool.finish()
    for _ in range(2):
        with open_queue(places) as queue:
            ingest = Ingest(queue, spool, STREAMS, threading.Event())
            ingest.learn()
            ingest.run()
            assert [segment.kind for segment in queue] == ["end"]


class Heard:
    """A process of the demo and what it reports."""

    def __init__(self, name: str, order: msgspec.Struct, log: Path) -> None:
        with open(log, "ab") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-m", f"overspill.demo.{name}", msgspec.json.encode(order).decode()],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                bufsize=0,
            )

    def reports(self) -> Iterator[Report]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            yield read_report(line)

    def wait_for(self, event: str) -> Report:
        return next(report for report in self.reports() if report["event"] == event)

    def has_ended_within(self, seconds: float) -> bool:
        pidfd = os.pidfd_open(self.process.pid)
        try:
            return bool(select.select([pidfd], [], [], seconds)[0])
        finally:
            os.close(pidfd)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()


@pytest.mark.slow
def test_killed_at_any_moment_each_arrives_once_and_in_order(places: Places, spool: Spool) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    origin = Heard("origin", OriginOrder(os.getpid(), places, seed=seed), places.log("origin"))
    port = origin.wait_for("up")["port"]
    listening = threading.Thread(target=lambda: list(origin.reports()))
    listening.start()
    order = MirrorOrder(os.getpid(), places, STREAMS, port, memory_size=3, memory_limit=MiB, max_disk_size=256 * MiB)
    made: dict[str, list[str]] = {stream.name: [] for stream in STREAMS}
    try:
        for _kill in range(12):
            mirror = Heard("mirror", order, places.log("mirror"))
            mirror.wait_for("opened")
            ends = time.monotonic() + dice.uniform(0, 0.25)
            while time.monotonic() < ends:  # files come while it runs, so that the kill falls among them
                for stream in STREAMS:
                    body = hand_over(places, spool, stream.name, len(made[stream.name]))
                    made[stream.name].append(hashlib.sha256(body).hexdigest())
                mirror.has_ended_within(0.02)
            mirror.kill()
        spool.finish()
        mirror = Heard("mirror", order, places.log("mirror"))
        mirror.wait_for("drained")
        assert mirror.process.wait(10) == 0
        mirror.kill()
    finally:
        origin.process.kill()
        listening.join()
        origin.kill()
    arrived = list(read_journal(places.journal))
    for stream in STREAMS:
        first = dict.fromkeys(entry.sha256 for entry in arrived if entry.stream == stream.name)
        assert list(first) == made[stream.name]
    assert [spool.waiting(stream.name) for stream in STREAMS] == [[], []]
    assert places.log("mirror").read_text() == ""
