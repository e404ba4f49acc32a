"""The live view: its rates, and that it fits."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import time
from pathlib import Path

import pytest

from overspill import Durability, HybridQueue
from overspill._runtime.clock import ManualClock
from overspill.cli.top import Signals, Watches, looked, screen, sparkline
from overspill.salvage.watching import Watch

from .conftest import OVERSPILL, Run


def drawn(watches: list[Watch], width: int = 80, height: int = 24) -> list[str]:
    from rich.console import Console

    console = Console(width=width, height=height, force_terminal=True, color_system=None)
    return ["".join(segment.text for segment in line) for line in console.render_lines(screen(looked(watches), height=height, width=width), pad=False)]


def test_rates_are_what_came_and_went_between_two_looks(tmp_path: Path) -> None:
    clock = ManualClock()
    with HybridQueue("q", tmp_path, _background=False, _clock=clock) as q:
        watch = Watch(tmp_path / "q", clock.monotonic, lambda: clock.wall_ns / 1e9)
        q.enqueue_batch([b"x"] * 10)
        first = watch.look()
        assert (first.waiting, first.in_rate, first.out_rate) == (10, None, None)
        q.enqueue_batch([b"y"] * 30)
        q.dequeue_batch(8)
        clock.advance(2)
        second = watch.look()
        assert (second.waiting, second.in_rate, second.out_rate, second.oldest_age) == (32, 15.0, 4.0, 2.0)
        clock.advance(1)
        third = watch.look()
        assert (third.in_rate, third.out_rate, list(watch.ins)) == (0.0, 0.0, [15.0, 0.0])


@pytest.mark.parametrize("durability", [Durability.MEMORY, Durability.PROCESS])
def test_owner_says_at_its_sync_what_only_it_knows(tmp_path: Path, durability: Durability) -> None:
    clock = ManualClock()
    with HybridQueue("q", tmp_path, durability=durability, memory_size=5, _clock=clock) as q:
        q.enqueue_batch([b"x" * 10] * 30)
        q.dequeue_batch(2)
        assert HybridQueue.inspect(tmp_path / "q").owner is None
        clock.advance(2)
        owner = HybridQueue.inspect(tmp_path / "q").owner
        assert owner is not None and (owner["waiting"], owner["enqueued"], owner["dequeued"], owner["syncs"]) == (28, 30, 2, q.stats().syncs)
        assert owner["memory_items"] == q.memory_size <= 5
        assert Watch(tmp_path / "q").look().waiting == 28
    found = HybridQueue.inspect(tmp_path / "q")
    assert (found.owner, found.holder) == (None, None)


def test_half_written_words_of_an_owner_are_no_words(tmp_path: Path) -> None:
    with HybridQueue("q", tmp_path) as q:
        lock = tmp_path / "q" / "lock"
        for said in (b'{"waiting": 1', b'{"waiting"\n', b"[]\n", b"\xff\n", b"\n"):
            lock.write_bytes(b"pid=1 since=2026-01-01T00:00:00Z host=h\n" + said)
            found = HybridQueue.inspect(tmp_path / "q")
            assert found.owner is None and found.holder == "pid=1 since=2026-01-01T00:00:00Z host=h"
        q.enqueue(b"x")


def test_it_fits_80_by_24_with_one_queue_and_with_many(tmp_path: Path) -> None:
    clock = ManualClock()
    queues = [HybridQueue(f"a-queue-with-quite-a-long-name-{n}", tmp_path, memory_size=2, _clock=clock) for n in range(30)]
    for q in queues:
        q.enqueue_batch([b"x" * 100] * 50)
    clock.advance(2)
    watches = [Watch(tmp_path / (q.name or "")) for q in queues]
    for some in (watches[:1], watches[:4], watches):
        for _ in range(2):
            lines = drawn(some)
        assert len(lines) <= 24 and max(map(len, lines)) <= 80, lines
        assert [line for line in lines if "…" in line and "a-queue" not in line] == []
    assert sum("50" in line for line in drawn(watches)) >= 20 and "30 queues, 1,500 waiting, 9 below the edge" in drawn(watches)[0]
    for width, titles in ((60, "queue waiting in/s out/s oldest owner"), (50, "queue waiting in/s out/s oldest"), (40, "queue waiting in/s out/s")):
        lines = drawn(watches[:1], width)
        assert lines[1].split() == titles.split() and max(map(len, lines)) <= width and "a-queue" in lines[2]
    for q in queues:
        q.close()


def test_queue_that_goes_away_is_said_to_be_gone(tmp_path: Path) -> None:
    with HybridQueue("q", tmp_path) as q:
        watch = Watch(tmp_path / "q")
        watch.look()
        q.destroy()
    assert "gone" in "\n".join(drawn([watch]))


def test_queues_of_a_folder_come_and_go_and_one_that_was_named_stays(tmp_path: Path) -> None:
    first, second = HybridQueue("first", tmp_path / "many"), HybridQueue("named", tmp_path)
    watches = Watches([tmp_path / "many", tmp_path / "named"])
    before = list(watches)
    assert [Path(watch.path).name for watch in before] == ["named", "first"]
    with HybridQueue("another", tmp_path / "many"):
        assert [Path(watch.path).name for watch in watches] == ["named", "another", "first"]
        assert set(before) < set(watches)  # and go on with the rates that they had
    first.destroy()
    second.destroy()
    assert [Path(watch.path).name for watch in watches] == ["named", "another"]


def test_new_size_of_the_terminal_and_ctrl_c_end_the_wait(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGWINCH), signal.getsignal(signal.SIGINT)
    with Signals() as signals:
        assert not signals.come_within(-1)
        signal.raise_signal(signal.SIGWINCH)
        signal.raise_signal(signal.SIGWINCH)
        assert signals.come_within(3600) and not signals.come_within(0) and not signals.end
        signal.raise_signal(signal.SIGINT)
        assert signals.come_within(3600) and signals.end
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert (signal.getsignal(signal.SIGWINCH), signal.getsignal(signal.SIGINT)) == before


def test_bars_show_the_newest_at_the_right() -> None:
    assert sparkline([0, 1, 4, 8], width=6) == "  ▁▂▅█"
    assert sparkline([], width=3) == "   " and sparkline([0.0, 0.0], width=2) == "▁▁" and len(sparkline(range(100))) == 32


def test_without_a_terminal_it_looks_once(run: Run, jobs: Path) -> None:
    assert "\x1b" not in run("top", jobs).stdout and "13 waiting" in run("top", jobs.parent).stdout
    assert json.loads(run("top", jobs, "--json").stdout)[0]["waiting"] == 13
    (jobs.parent.parent / "none").mkdir()
    run("top", jobs.parent.parent / "none", code=2)


def test_on_a_terminal_it_draws_and_ctrl_c_ends_it_and_gives_the_screen_back(jobs: Path) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen([*OVERSPILL, "top", jobs, "--interval", "100ms"], stdin=theirs, stdout=theirs, stderr=theirs, env=os.environ | {"TERM": "xterm", "COLUMNS": "80", "LINES": "24"})
    os.close(theirs)
    said = b""

    def hear(until: bytes) -> None:
        nonlocal said
        deadline = time.monotonic() + 30
        while until not in said and time.monotonic() < deadline:
            if select.select([ours], [], [], 1)[0]:
                try:
                    said += os.read(ours, 65536)
                except OSError:
                    return  # it has gone

    hear(b"13 waiting")
    process.send_signal(signal.SIGINT)
    hear(b"\x1b[?1049l")  # nobody who writes to a terminal that is not read can end
    assert process.wait(30) == 130
    os.close(ours)
    assert b"\x1b[?1049h" in said and b"\x1b[?1049l" in said and b"Traceback" not in said
