"""How many files a queue keeps open, pinned: what docs/howto/streams.md and docs/faq.md say of `ulimit -n`.

Counted are the descriptors of this process that lie under the test's folder; the clock is moved by hand, and with it what the background would do.
"""
from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from overspill import HybridQueue, KiB, MiB, StreamQueue
from overspill._runtime.clock import ManualClock

FOLDER_AND_LOCK = 2
WITH_ITEMS = 4
"""The segment that is written to, and the one after it, prepared."""
OF_A_STREAM = 2
"""The folder of the overflow files, and its own."""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the open files of a process are read from /proc")


def open_files(below: Path) -> list[str]:
    found = []
    for each in Path("/proc/self/fd").iterdir():
        try:
            target = os.readlink(each)
        except FileNotFoundError:  # that of the listing itself
            continue
        if target == str(below) or target.startswith(f"{below}/"):
            found.append(target)
    return found


def test_a_queue_has_two_files_open_and_four_once_it_has_items(tmp_path: Path) -> None:
    clock = ManualClock()
    queues = [HybridQueue(str(n), tmp_path, memory_size=2, _background=False, _clock=clock) for n in range(10)]
    assert len(open_files(tmp_path)) == FOLDER_AND_LOCK * len(queues)
    for q in queues:
        q.enqueue_batch([bytes(KiB)] * 10)
        clock.advance(60)
        q.enqueue_batch([bytes(KiB)] * 10)
    clock.advance(60)
    assert len(open_files(tmp_path)) == WITH_ITEMS * len(queues)
    for q in queues:
        q.close()
    assert open_files(tmp_path) == []


def test_a_backlog_that_is_synced_and_not_read_needs_no_more(tmp_path: Path) -> None:
    clock = ManualClock()
    with HybridQueue("q", tmp_path, memory_size=2, max_disk_size=8 * MiB, _background=False, _clock=clock) as q:
        for n in range(600):
            q.enqueue(n.to_bytes(2, "big") * 5000)
        segments = [file for file in (tmp_path / "q").iterdir() if file.suffix == ".seg"]
        assert len(open_files(tmp_path)) == FOLDER_AND_LOCK + len(segments) > WITH_ITEMS
        for _ in segments:
            clock.advance(1)  # each time one is sealed
        assert len(open_files(tmp_path)) <= WITH_ITEMS
        assert len(list(q)) == 600
        assert len(open_files(tmp_path)) == FOLDER_AND_LOCK + len(segments), "one for each that is read"


def test_a_stream_has_two_files_open_whether_it_has_overflowed_or_not(tmp_path: Path) -> None:
    streams = [StreamQueue(str(n), 2, tmp_path) for n in range(10)]
    assert len(open_files(tmp_path)) == OF_A_STREAM * len(streams)
    for stream in streams:
        for _ in range(10):
            stream.enqueue(b"a packet")
        assert stream.has_disk_data()
    assert len(open_files(tmp_path)) == OF_A_STREAM * len(streams)
    for stream in streams:
        stream.close()
    assert open_files(tmp_path) == []
