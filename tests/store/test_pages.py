"""Pages ahead of the tail: one thread for all queues of a process, which needs no interpreter lock, and what happens where it fails or is not there."""
from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

from patience import until
import pytest

from overspill import HybridQueue, KiB, MiB
from overspill._core.segmap import SegmentMap, back_pages, stop_back_pages
from overspill._runtime import pump
from overspill._runtime.pump import Pump, the_pump
from overspill._store import layout

NAME = "overspill-pages"


def pages_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == NAME]


def end_all(threads: list[threading.Thread]) -> None:
    """Whatever backs pages in this process ends; for queues that other tests have left open, the pump begins anew."""
    until(lambda: stop_back_pages() or not any(thread.is_alive() for thread in threads))  # one stop ends all that have begun
    the_pump()._pages = None


def ahead(q: HybridQueue) -> bool:
    """Whether the tail's pages are backed further than its caller had to."""
    map = q._log.active.map
    return map.populated == map.file_size or map.populated > map.tail + 4 * MiB


def state(q: HybridQueue) -> str:
    map = q._log.active.map
    return f"pages to {map.populated:,}, tail {map.tail:,}, end {map.file_size:,}; threads {pages_threads()}, the pump's {the_pump()._pages}"


def fill(q: HybridQueue, n: int = 30) -> None:
    """So much that the active segment is a large one."""
    for _ in range(n):
        q.enqueue_batch([bytes(10_000)] * 100)


def test_many_queues_share_one_thread_and_each_has_pages_ahead(tmp_path: Path) -> None:
    queues = [HybridQueue(f"q{i}", tmp_path, memory_size=1) for i in range(6)]
    for q in queues:
        fill(q)
    for q in queues:
        until(lambda q=q: ahead(q), why=lambda q=q: state(q))
    assert len(pages_threads()) == 1
    for q in queues[:3]:
        q.close()
    for q in queues[3:]:
        fill(q, 3)
        until(lambda q=q: ahead(q), why=lambda q=q: state(q))
    assert len(pages_threads()) == 1
    for q in queues[3:]:
        assert sum(1 for _ in q) == 3300
        q.close()


ENDS = """
    import sys, threading
    from overspill import HybridQueue

    for turn in range(5):
        q = HybridQueue("q", sys.argv[1], memory_size=1)
        q.enqueue_batch([bytes(10_000)] * 100)
        [thread] = [thread for thread in threading.enumerate() if thread.name == "overspill-pages"]
        q.clear()
        q.close()
        thread.join(30)
        assert not thread.is_alive(), turn
    print("fine")
"""


def test_the_thread_ends_with_the_last_queue_and_another_one_begins_with_the_next(tmp_path: Path) -> None:
    """In a process of its own: here another test may have left a queue to the garbage collector."""
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(ENDS), str(tmp_path)], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0 and done.stdout == "fine\n", f"exit {done.returncode}\n{done.stdout}\n{done.stderr[-3000:]}"


def test_of_several_that_were_started_the_last_one_works_whoever_is_woken(tmp_path: Path) -> None:
    """As after a queue was closed and another opened at once: the first one notices when somebody is asked for the next time, which it was not meant for."""
    threads = [threading.Thread(target=back_pages, daemon=True) for _ in range(8)]
    for thread in threads:
        thread.start()
    map, fd = a_map(tmp_path)
    q = HybridQueue("q", tmp_path, memory_size=1)  # its first enqueue asks for pages
    try:
        fill(q, 3)
        until(lambda: map.populated >= 8 * MiB)
    finally:
        q.close()
        end_all(threads)
        map.detach()
        os.close(fd)


def test_a_close_that_is_interrupted_where_it_ends_the_thread_leaves_none_that_is_taken_to_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usual, alone = the_pump(), Pump()
    monkeypatch.setattr(pump, "_pump", alone)

    def stop_and_be_interrupted() -> None:
        stop_back_pages()
        raise KeyboardInterrupt

    q = HybridQueue("q", tmp_path, memory_size=1)
    fill(q, 1)
    with monkeypatch.context() as patch:
        patch.setattr(pump, "stop_back_pages", stop_and_be_interrupted)
        with pytest.raises(KeyboardInterrupt):
            alone.forget(q)
    alone.register(q)
    fill(q)
    until(lambda: ahead(q), why=lambda: state(q))
    q.close()
    usual._pages = None  # its thread, if another test left it a queue, gave way to this one's


# --- fork

FORKS = """
    import os, sys, threading
    from overspill import HybridQueue
    path = sys.argv[1]
    q = HybridQueue("q", path, memory_size=1)
    stop = threading.Event()
    n = 0

    def produce():
        global n
        while not stop.is_set():
            q.enqueue_batch([b"%d " % i + bytes(5000) for i in range(n, n + 40)])
            n += 40
            if len(q) > 4000:
                q.dequeue_batch(3000)

    producer = threading.Thread(target=produce)
    producer.start()
    for turn in range(12):
        # No interpreter lock keeps the thread that backs pages from being in the middle of a step, with its locks held, just now.
        pid = os.fork()
        if pid == 0:
            with HybridQueue(f"child{turn}", path, memory_size=1) as mine:
                for i in range(20):
                    mine.enqueue_batch([bytes(9000)] * 40)
                assert sum(1 for _ in mine) == 800
                assert any(t.name == "overspill-pages" for t in threading.enumerate())
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0, turn
    stop.set()
    producer.join()
    numbers = [int(item.split()[0]) for item in q]
    assert numbers == list(range(n - len(numbers), n)), "what the children did has touched the parent's file"
    q.close()
    with HybridQueue("q", path) as q:
        assert q.recovery.clean and [int(item.split()[0]) for item in q] == numbers
    print("fine", n)
"""


def test_a_fork_while_it_works_harms_neither_parent_nor_child(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(FORKS), str(tmp_path)], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0 and done.stdout.startswith("fine"), f"exit {done.returncode}\n{done.stdout}\n{done.stderr[-3000:]}"


# --- where it fails


def a_map(path: Path, size: int = 8 * MiB) -> tuple[SegmentMap, int]:
    """The memory of a segment file that was allocated and holds nothing."""
    slots, _, _, records_start = layout.geometry(size)
    fd = os.open(path / "segment", os.O_RDWR | os.O_CREAT, 0o600)
    os.ftruncate(fd, size)
    map = SegmentMap(1, 7, slots, records_start, size, False)
    map.attach_fresh(fd)
    map.open_tail(fd)
    return map, fd


@pytest.fixture
def backing() -> threading.Thread:
    thread = threading.Thread(target=back_pages, daemon=True)
    thread.start()
    yield thread  # type: ignore[misc]
    end_all([thread])


def test_a_step_that_fails_is_left_to_a_caller_who_can_say_so(tmp_path: Path, backing: threading.Thread) -> None:
    """The thread has nobody to tell: it leaves that segment alone, and goes on with the others."""
    (tmp_path / "good").mkdir()
    failing, fd = a_map(tmp_path)
    reading = os.open(os.devnull, os.O_RDONLY)
    os.dup2(reading, fd)  # from here on zeros cannot be written: EBADF
    with pytest.raises(OSError, match="Bad file descriptor"):
        failing.back(1 * MiB)
    assert failing.populated == failing.records_start
    good, other = a_map(tmp_path / "good")
    q = HybridQueue("q", tmp_path, memory_size=1)  # its first enqueue asks for pages
    fill(q, 3)
    until(lambda: good.populated >= 8 * MiB)
    assert failing.populated == failing.records_start
    q.close()
    for map, each in ((failing, fd), (good, other)):
        map.detach()
        os.close(each)
    os.close(reading)


SHIM = """
    #define _GNU_SOURCE
    #include <dlfcn.h>
    #include <errno.h>
    #include <stddef.h>
    int refused = 0, refusing = 0, number = EINVAL;
    int madvise(void *addr, size_t length, int advice) {
        static int (*real)(void *, size_t, int);
        if (!real) real = dlsym(RTLD_NEXT, "madvise");
        if (advice == 23 && refusing) {
            refused++;
            errno = number;
            return -1;
        }
        return real(addr, length, advice);
    }
"""

STORY = """
    import ctypes, errno, os, sys
    shim = ctypes.CDLL(sys.argv[2])
    refused, refusing, number = (ctypes.c_int.in_dll(shim, name) for name in ("refused", "refusing", "number"))
    from overspill import *
    path, what = sys.argv[1], sys.argv[3]
    if what == "unknown":  # a kernel before 5.14
        refusing.value = 1
        with HybridQueue("q", path, memory_size=1) as q:
            for i in range(40):
                q.enqueue_batch([b"%d " % n + bytes(9000) for n in range(100 * i, 100 * i + 100)])
            assert refused.value > 3, "it was never asked"
            assert [int(item.split()[0]) for item in q] == list(range(4000))
    else:
        q = HybridQueue("q", path, memory_size=1)
        q.enqueue_batch([b"%d" % n for n in range(100)])
        number.value, refusing.value = errno.EFAULT, 1
        n = 100
        try:
            while True:
                q.enqueue(b"%d " % n + bytes(9000))
                n += 1
        except (QueueBroken, QueueFull) as error:
            print(type(error).__name__, error)
        assert refused.value
        q.close()
        refusing.value = 0
        with HybridQueue("q", path) as q:
            found = [int(item.split()[0]) for item in q]
            assert found in (list(range(n)), list(range(n + 1))), (len(found), n)
            assert not q.recovery.quarantined
    print("fine")
"""


@pytest.mark.parametrize("what", ["unknown", "failing"])
def test_a_kernel_that_does_not_back_pages_when_asked(tmp_path: Path, what: str) -> None:
    """Unknown there, the allocated file is guard enough; failing, it is an error of a call, and neither a signal nor a loss."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("NO KERNEL WITHOUT MADV_POPULATE_WRITE WAS TRIED: there is no C compiler to make one with")
    shim = tmp_path / "shim.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-xc", "-", "-o", str(shim), "-ldl"], input=textwrap.dedent(SHIM), text=True, check=True)
    preloaded = " ".join(filter(None, [os.environ.get("LD_PRELOAD"), str(shim)]))  # sanitizers come first
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(STORY), str(tmp_path), str(shim), what],
        capture_output=True, text=True, timeout=300, check=False, env={**os.environ, "LD_PRELOAD": preloaded},
    )
    assert done.returncode == 0 and done.stdout.endswith("fine\n"), f"exit {done.returncode}\n{done.stdout}\n{done.stderr[-3000:]}"
    if what == "failing":
        assert "QueueBroken" in done.stdout


def test_what_is_written_past_the_pages_needs_none(tmp_path: Path) -> None:
    """Large payloads go to the file: no zeros are written over them, and no pages backed in vain."""
    with HybridQueue("q", tmp_path, memory_size=1) as q:
        for i in range(40):
            q.enqueue(bytes([i]) * 500 * KiB)
            q.enqueue(b"small %d" % i)
        got = [q.dequeue() for _ in range(80)]
        assert got[::2] == [bytes([i]) * 500 * KiB for i in range(40)]
        assert got[1::2] == [b"small %d" % i for i in range(40)]
