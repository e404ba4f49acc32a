"""Items from stdin and to stdout: what goes in comes out, and what could not be handed over stays."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from patience import until
import pytest

from overspill import HybridQueue

from .conftest import OVERSPILL, Run, fingerprint


def test_lines_come_out_as_they_went_in(run: Run, tmp_path: Path) -> None:
    data = b"one\n\n\xff\x00 bytes\r\nlast without newline"
    run("put", tmp_path / "q", stdin=data)
    assert run("get", tmp_path / "q").stdout_bytes == data + b"\n"
    run("get", tmp_path / "q", code=1)


def test_raw_is_all_of_stdin_or_each_file(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1\n2\n")
    (tmp_path / "b").write_bytes(b"")
    run("put", tmp_path / "q", "--raw", stdin=b"x\ny")
    run("put", tmp_path / "q", "--raw", tmp_path / "a", tmp_path / "b")
    with HybridQueue("q", tmp_path) as q:
        assert list(q) == [b"x\ny", b"1\n2\n", b""]
    assert run("get", tmp_path / "q", "--raw").stdout_bytes == b"x\ny1\n2\n"


def test_priority_and_ttl_are_those_that_were_asked_for(run: Run, tmp_path: Path) -> None:
    run("put", tmp_path / "q", stdin=b"normal")
    run("put", tmp_path / "q", "--priority", "high", "--ttl", "2h", stdin=b"high")
    first, second = [json.loads(line) for line in run("export", tmp_path / "q").stdout.splitlines()]
    assert (first["priority"], second["priority"]) == (192, 128)
    assert "expires_at" in first and "expires_at" not in second


@pytest.mark.parametrize("batch", [1, 3, 7])
def test_batches_hold_so_many_lines(run: Run, tmp_path: Path, batch: int) -> None:
    run("put", tmp_path / "q", "--batch", batch, "--json", stdin=b"".join(b"%d\n" % n for n in range(10)))
    from overspill._core.record import parse_header
    from overspill._store.inspection import items

    lefts = []
    for item in items(tmp_path / "q"):
        data = (tmp_path / "q" / item.segment).read_bytes()
        header = parse_header(data[item.offset : item.offset + 72], 0, int.from_bytes(data[12:16], "little"), item.offset)
        assert header is not None
        lefts.append(header["batch_left"])
    expected = [left for at in range(0, 10, batch) for left in range(min(batch, 10 - at) - 1, -1, -1)]
    assert lefts == expected


def test_count_takes_no_more(run: Run, jobs: Path) -> None:
    assert run("get", jobs, "--count", 2).stdout.splitlines() == ["ü text", '{"job": 7, "tags": ["a", null]}']
    with HybridQueue("jobs", jobs.parent) as q:
        assert len(q) == 11


def test_json_lines_tell_everything_about_an_item(run: Run, jobs: Path) -> None:
    found = [json.loads(line) for line in run("get", jobs, "--json").stdout.splitlines()]
    assert [each["priority"] for each in found] == [192, 192, *[128] * 10, 64]
    assert found[0]["text"] == "ü text" and found[0]["attempts"] == 2 and found[1]["item"] == {"job": 7, "tags": ["a", None]}
    assert found[12]["kind"] == "auto" and "base64" in found[12]


def test_pickles_are_never_read_and_come_out_raw(run: Run, tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return os.abort, ()

    with HybridQueue("q", tmp_path, serializer="pickle") as q:
        q.enqueue(Bomb())
    assert "only its own program can read" in run("get", tmp_path / "q", code=2).output
    assert run("get", tmp_path / "q", "--raw").stdout_bytes.startswith(b"\x80")


def test_a_folder_that_is_no_queue_is_left_alone(run: Run, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letter").write_text("dear")
    before = fingerprint(tmp_path)
    for verb in ("get", "put", "stats", "verify", "export", "compact", "peek"):
        assert "overspill: " in run(verb, tmp_path / "home", code=2, stdin=b"").output
    assert "there is no folder" in run("get", tmp_path / "none", code=2).output
    assert "must be" in run("put", tmp_path / "-bad", code=2).output
    assert fingerprint(tmp_path) == before


def test_who_holds_the_queue_is_said_with_its_pid(tmp_path: Path) -> None:
    with HybridQueue("q", tmp_path) as q:
        q.enqueue(b"mine")
        for verb in ("get", "put", "compact"):
            ran = subprocess.run([*OVERSPILL, verb, tmp_path / "q"], input=b"", capture_output=True, timeout=30)
            assert ran.returncode == 2 and f"process {os.getpid()}".encode() in ran.stderr and ran.stderr.count(b"\n") == 1
        assert len(q) == 1


def test_mistakes_are_one_line_and_exit_with_2(run: Run, jobs: Path) -> None:
    for words in (["get"], ["get", jobs, "--count", 0], ["put", jobs, "--ttl", "soon"], ["put", jobs, "--priority", 256], ["put", jobs, "--max-disk", "1"], ["nothing"], ["drain", jobs]):
        said = run(*words, code=2, stdin=b"x").output
        assert said.startswith("overspill: ") and said.count("\n") == 1, said


def test_full_queue_says_how_many_items_are_in(run: Run, tmp_path: Path) -> None:
    lines = b"".join(b"%0200d\n" % n for n in range(5000))
    said = run("put", tmp_path / "q", "--max-disk", "256KiB", "--batch", 10, code=2, stdin=lines).output
    n = int(said.split("after ")[1].split(" items")[0].replace(",", ""))
    with HybridQueue("q", tmp_path) as q:
        assert len(q) == n > 0 and list(q) == lines.splitlines()[:n]


def test_reader_that_goes_away_gets_no_item_it_was_not_written(tmp_path: Path) -> None:
    with HybridQueue("q", tmp_path) as q:
        q.enqueue_batch([b"%01000d" % n for n in range(3000)])
    getting = subprocess.Popen([*OVERSPILL, "get", tmp_path / "q"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert getting.stdout is not None and getting.stderr is not None
    got = getting.stdout.readline()
    getting.stdout.close()
    assert (getting.wait(30), getting.stderr.read(), got) == (0, b"", b"%01000d\n" % 0)
    getting.stderr.close()
    with HybridQueue("q", tmp_path) as q:
        left = [int(item) for item in q]
    assert left == list(range(3000 - len(left), 3000)) and 2000 < len(left) < 3000


def test_interrupted_get_exits_with_130_and_keeps_what_was_not_written(tmp_path: Path, started: Any) -> None:
    with HybridQueue("q", tmp_path) as q:
        q.enqueue_batch([b"%01000d" % n for n in range(3000)])
    getting = started("get", tmp_path / "q")
    assert getting.stdout.readline() == b"%01000d\n" % 0
    getting.send_signal(signal.SIGINT)  # it is writing into a pipe that is full
    rest = getting.stdout.read()
    assert getting.wait(30) == 130 and getting.stderr.read() == b"stopped\n"
    whole = 1 + rest.count(b"\n")
    with HybridQueue("q", tmp_path) as q:
        left = [int(item) for item in q]
    assert left == list(range(3000 - len(left), 3000)) and 3000 - len(left) <= whole


def test_killed_get_loses_nothing_that_was_not_written(tmp_path: Path, started: Any) -> None:
    with HybridQueue("q", tmp_path) as q:
        q.enqueue_batch([b"%01000d" % n for n in range(3000)])
    getting = started("get", tmp_path / "q")
    getting.stdout.readline()
    getting.kill()
    written = 1 + getting.stdout.read().count(b"\n")
    with HybridQueue("q", tmp_path) as q:
        left = [int(item) for item in q]
    assert left == list(range(3000 - len(left), 3000)) and 3000 - len(left) <= written


def test_acknowledged_items_leave_and_the_others_stay(tmp_path: Path, started: Any) -> None:
    with HybridQueue("q", tmp_path) as q:
        q.enqueue_batch([b"%d" % n for n in range(5)])
    os.mkfifo(tmp_path / "acks")
    getting = started("get", tmp_path / "q", "--ack-file", tmp_path / "acks")
    assert [getting.stdout.readline() for _ in range(5)] == [b"%d\n" % n for n in range(5)]
    with open(tmp_path / "acks", "w") as acks:
        acks.write("done\ndone\n")
    assert getting.wait(30) == 2 and b"3 items, back in the queue" in getting.stderr.read()
    with HybridQueue("q", tmp_path) as q:
        assert list(q) == [b"2", b"3", b"4"]


def test_waiting_get_gets_what_another_process_puts(tmp_path: Path, started: Any) -> None:
    with HybridQueue("q", tmp_path) as q:
        q.enqueue(b"first")
    getting = started("get", tmp_path / "q", "--wait", "--count", 3)
    assert getting.stdout.readline() == b"first\n"
    for text in (b"second", b"third"):
        subprocess.run([*OVERSPILL, "put", "--wait", tmp_path / "q"], input=text, timeout=30, check=True)
        assert getting.stdout.readline() == text + b"\n"
    assert getting.wait(30) == 0


def test_interrupted_put_says_how_much_is_in(tmp_path: Path, started: Any) -> None:
    putting = started("put", tmp_path / "q")
    putting.stdin.write(b"whole\nbegun")
    putting.stdin.flush()
    until(lambda: putting.poll() is not None or HybridQueue.inspect(tmp_path / "q").waiting >= 1, not_yet=FileNotFoundError)
    assert putting.poll() is None
    putting.send_signal(signal.SIGINT)
    assert putting.wait(30) == 130 and putting.stderr.read() == f"stopped\n1 item put into {tmp_path / 'q'}\n".encode()
    with HybridQueue("q", tmp_path) as q:
        assert list(q) == [b"whole"]


def test_put_interrupted_right_behind_a_batch_counts_it(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    put = HybridQueue.enqueue_batch

    def put_and_be_interrupted(self: HybridQueue, *args: Any, **options: Any) -> None:
        put(self, *args, **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(HybridQueue, "enqueue_batch", put_and_be_interrupted)
    assert "2 items put into" in run("put", tmp_path / "q", stdin=b"one\ntwo\n", code=130).output


def test_waiting_get_gets_a_delayed_item_when_it_is_due(run: Run, tmp_path: Path) -> None:
    run("put", tmp_path / "q", "--delay", "300ms", stdin=b"later")
    assert run("get", tmp_path / "q", "--wait", "--count", 1).stdout_bytes == b"later\n"


def test_without_click_the_way_out_is_named(tmp_path: Path) -> None:
    (tmp_path / "click.py").write_text("raise ModuleNotFoundError('click')")
    ran = subprocess.run([sys.executable, "-c", "from overspill.cli import main"], env=os.environ | {"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, timeout=30)
    assert ran.returncode == 2 and 'pip install "overspill[cli]"' in ran.stderr and "Traceback" not in ran.stderr
