"""How many files a queue keeps open, pinned: what docs/howto/streams.md and docs/faq.md say of `ulimit -n`.

Counted are the descriptors of this process that lie under the test's folder; the clock is moved by hand, and with it what the background would do.
"""
from __future__ import annotations

import os
import subprocess
import sys
import textwrap
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


RUN_OUT = """
    import os, resource, sys
    from overspill import *

    def out_of_files(do):
        held = []
        try:
            while True:
                held.append(os.open("/dev/null", os.O_RDONLY))
        except OSError:
            pass
        try:
            do()
        except (OSError, QueueBroken) as error:
            return type(error), getattr(error, "errno", None)
        finally:
            for fd in held:
                os.close(fd)

    def fill(n):
        while True:
            q.enqueue(b"%d " % (n[0] + 1) + bytes(20_000))
            n[0] += 1

    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    with HybridQueue("q", sys.argv[1], memory_size=1) as q:
        n = [-1]
        for _ in range(400):
            n[0] += 1
            q.enqueue(b"%d " % n[0] + bytes(20_000))
    q = HybridQueue("q", sys.argv[1], memory_size=1)
    for look in (q.peek, q.dequeue, lambda: next(iter(q))):
        assert out_of_files(look) == (OSError, 24), look
    assert int(q.dequeue().split()[0]) == 0 and len(q) == 399, "what could not be read stays where it is"
    broken, _ = out_of_files(lambda: fill(n))
    assert broken is QueueBroken
    try:
        q.enqueue(b"more")
    except QueueBroken:
        pass
    else:
        raise AssertionError("it goes on")
    try:
        q.close()
    except QueueBroken:
        pass
    with HybridQueue("q", sys.argv[1]) as q:
        assert [int(item.split()[0]) for item in q] == list(range(1, n[0] + 1)), "what was acknowledged is there"
    print("fine")
"""


def test_where_files_run_out_a_spilled_item_comes_later_and_what_was_put_is_there_when_the_queue_is_opened_again(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(RUN_OUT), str(tmp_path)], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0 and done.stdout == "fine\n", f"exit {done.returncode}\n{done.stdout}\n{done.stderr[-3000:]}"
