"""Export, import and drain: everything comes over as it was, and a kill in between costs nothing."""

from __future__ import annotations

import gc
import io
import json
import random
import signal
import tracemalloc
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from patience import until
import pytest

from overspill import HybridQueue, KiB, MiB, salvage
from overspill._store.inspection import items
from overspill.salvage import drain, open_queue
from overspill.salvage.jsonlines import BATCH_ITEMS, last_complete_line, payload_of

from .conftest import Run

VALUES = [None, True, 0, -(1 << 62), 1 << 80, 1.5, float("inf"), "text", "ü\n\u2028", b"bytes\xff", (1, (2, "three")), [1, [2, None]], {"a": 1, "b": [b"c"]}, {1: 2},
          datetime(2026, 1, 31, tzinfo=timezone.utc)]  # fmt: skip


def facts(folder: Path) -> list[tuple[Any, ...]]:
    """Everything about every item but its sequence number and where it lies."""
    return [(payload_of(item), item.kind, item.priority, item.id, item.enqueued_ns, item.expiry_ns, item.attempts) for item in items(folder)]


@pytest.fixture
def all_kinds(tmp_path: Path) -> Path:
    with HybridQueue("all", tmp_path, compression="zstd") as q:
        for n, value in enumerate(VALUES):
            q.enqueue(value, priority=(64, 128, 200)[n % 3], ttl=None if n % 2 else 1e6)
        q.enqueue(b"long enough to be compressed " * 50)
        q.enqueue_front("first")
        q.lease(0).nack()
        q.lease(0).nack()
    for n, name in enumerate(("json", "msgpack", "pickle")):
        with HybridQueue("all", tmp_path, serializer=name) as q:
            q.enqueue([n, "two"])
    return tmp_path / "all"


def test_everything_comes_back_as_it_was(run: Run, all_kinds: Path, tmp_path: Path) -> None:
    lines = run("export", all_kinds).stdout_bytes
    assert len(lines.splitlines()) == len(VALUES) + 5
    run("import", tmp_path / "copy", stdin=lines)
    assert facts(tmp_path / "copy") == facts(all_kinds)
    run("drain", tmp_path / "copy", tmp_path / "third")
    assert facts(tmp_path / "third") == facts(all_kinds) and facts(tmp_path / "copy") == []


def test_what_json_can_say_is_readable(run: Run, jobs: Path) -> None:
    found = [json.loads(line) for line in run("export", jobs).stdout.splitlines()]
    assert found[0]["text"] == "ü text" and found[1]["item"] == {"job": 7, "tags": ["a", None]}
    assert all("base64" in each for each in found[2:])
    assert found[0]["attempts"] == 1 and found[1]["expires_at"] > found[1]["enqueued_at"] > "2026"


def test_line_written_by_hand_needs_only_the_item(run: Run, tmp_path: Path) -> None:
    run("import", tmp_path / "q", stdin=b'{"text": "one"}\n\n{"item": {"job": 2}, "priority": 200}\n{"base64": "AAE="}\n')
    with HybridQueue("q", tmp_path) as q:
        assert list(q) == [{"job": 2}, "one", b"\0\1"]


@pytest.mark.parametrize(
    "line",
    [b"nonsense", b"[]", b"{}", b'{"text": 1}', b'{"text": "a", "item": 1}', b'{"base64": "A"}', b'{"text": "a", "priority": 256}', b'{"text": "a", "id": "x"}', b'{"text": "a", "new": 1}',
     b'{"text": "a", "enqueued_at": "yesterday"}', b'{"text": "a", "attempts": true}', b'{"base64": "AA==", "kind": "what"}', b"\xff", b'{"item": ' + b"[" * 5000 + b"]" * 5000 + b"}"],
)  # fmt: skip
def test_bad_line_is_named_and_what_came_before_stays(run: Run, tmp_path: Path, line: bytes) -> None:
    (tmp_path / "lines").write_bytes(b'{"text": "before"}\n' + line + b'\n{"text": "behind"}\n')
    said = run("import", tmp_path / "q", tmp_path / "lines", code=2).output
    assert said.startswith("overspill: line 2 is no exported item: ") and said.count("\n") == 1
    with HybridQueue("q", tmp_path) as q:
        assert len(q) == 0  # batches are all or nothing


def test_import_that_fails_half_way_says_how_much_is_in(run: Run, tmp_path: Path) -> None:
    (tmp_path / "lines").write_bytes(b'{"text": "good"}\n' * BATCH_ITEMS + b"bad\n")
    said = run("import", tmp_path / "q", tmp_path / "lines", code=2).output
    assert said.startswith(f"overspill: after {BATCH_ITEMS:,} items, put before: line {BATCH_ITEMS + 1} is no exported item: ")
    assert HybridQueue.inspect(tmp_path / "q").waiting == BATCH_ITEMS


def test_interrupted_import_says_how_to_go_on(tmp_path: Path, started: Any) -> None:
    importing = started("import", tmp_path / "q")
    importing.stdin.write(b'{"text": "good"}\n' * BATCH_ITEMS)
    importing.stdin.flush()
    until(lambda: importing.poll() is not None or HybridQueue.inspect(tmp_path / "q").waiting >= BATCH_ITEMS, not_yet=FileNotFoundError)
    assert importing.poll() is None
    importing.send_signal(signal.SIGINT)
    assert importing.wait(30) == 130 and importing.stderr.read().decode() == f"stopped\n{BATCH_ITEMS:,} items put into {tmp_path / 'q'}\n"


# --- resuming


@pytest.mark.parametrize("seed", range(10))
def test_export_that_was_cut_short_goes_on_behind_its_last_complete_line(run: Run, tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    with HybridQueue("q", tmp_path, memory_size=2) as q:
        for n in range(60):
            q.enqueue(b"%d" % n * rng.randrange(1, 30), priority=rng.choice((1, 128, 255)))
            if n % 9 == 0:
                q.enqueue_front(b"front %d" % n)
    whole = run("export", tmp_path / "q").stdout_bytes
    cut = rng.randrange(len(whole))
    (tmp_path / "out").write_bytes(whole[:cut])
    run("export", tmp_path / "q", "--output", tmp_path / "out", "--resume")
    assert (tmp_path / "out").read_bytes() == whole
    run("export", tmp_path / "q", "--output", tmp_path / "out", "--resume")
    assert (tmp_path / "out").read_bytes() == whole
    run("export", tmp_path / "q", "--output", tmp_path / "out", code=2)


def test_last_complete_line_is_found_from_the_end(tmp_path: Path) -> None:
    rng = random.Random(1)
    for _ in range(50):
        lines = [b"x" * rng.choice((0, 1, 5, 70_000, 131_071)) for _ in range(rng.randrange(5))]
        torn = b"y" * rng.choice((0, 3, 70_000))
        data = b"".join(line + b"\n" for line in lines)
        assert last_complete_line(io.BytesIO(data + torn)) == ((len(data), lines[-1]) if lines else (0, b""))


def test_import_that_was_killed_goes_on(run: Run, tmp_path: Path, started: Any) -> None:
    with HybridQueue("q", tmp_path) as q:
        q.enqueue_batch([b"%d" % n for n in range(8_000)])
    run("export", tmp_path / "q", "--output", tmp_path / "lines")
    importing = started("import", tmp_path / "copy", tmp_path / "lines")
    until(lambda: HybridQueue.inspect(tmp_path / "copy").waiting >= 2000, not_yet=FileNotFoundError)
    importing.kill()
    importing.wait()
    before = HybridQueue.inspect(tmp_path / "copy").waiting
    told = json.loads(run("import", tmp_path / "copy", tmp_path / "lines", "--resume", "--json").stdout)
    assert told["passed_over"] >= before >= 2000 and sum(told.values()) == 8_000
    assert facts(tmp_path / "copy") == facts(tmp_path / "q")


def test_import_does_not_go_on_where_the_log_cannot_tell_how_far_it_came(run: Run, tmp_path: Path) -> None:
    with HybridQueue("q", tmp_path) as q:
        q.enqueue_batch([b"%d" % n for n in range(10)])
    run("export", tmp_path / "q", "--output", tmp_path / "lines")
    run("import", tmp_path / "copy", tmp_path / "lines", "--resume")  # nothing was ever put: from the first line
    assert len(run("get", tmp_path / "copy").stdout.splitlines()) == 10
    with HybridQueue("copy", tmp_path) as q:
        q.cleanup()
        q.enqueue_batch([b"other"] * 1000)  # the segment of what was imported is gone, or its records are far behind
    assert "none of the lines is among the last 1,000 records" in run("import", tmp_path / "copy", tmp_path / "lines", "--resume", code=2).output
    assert HybridQueue.inspect(tmp_path / "copy").waiting == 1000
    (tmp_path / "by hand").write_text('{"text": "no id"}\n')
    assert "line 1 has no id" in run("import", tmp_path / "copy", tmp_path / "by hand", "--resume", code=2).output


def test_export_and_import_need_no_more_memory_for_more_items(tmp_path: Path) -> None:
    """Both sizes are beyond what is read ahead (4096 entries of an index) and put at once (1000 lines), and in segments of the same size: of one, all marks are read."""
    peaks = []
    for n in (5_000, 12_000):
        with HybridQueue(f"q{n}", tmp_path, memory_size=100, max_disk_size=4 * MiB) as q:
            for start in range(0, n, 1000):
                q.enqueue_batch([random.Random(start + i).randbytes(20) for i in range(1000)])
        out = peak_of(lambda: exported_to(tmp_path / f"q{n}", tmp_path / f"lines{n}"))
        lines = (tmp_path / f"lines{n}").read_bytes().splitlines(keepends=True)
        (tmp_path / f"part{n}").write_bytes(b"".join(lines[: n // 3]))
        peaks.append((out, peak_of(lambda: imported_from(tmp_path / f"part{n}", tmp_path / f"copy{n}"))))
    (few_out, few_in), (many_out, many_in) = peaks
    assert many_out < 1.2 * few_out + 64 * KiB and many_in < 1.2 * few_in + 64 * KiB, peaks


def test_backup_of_a_folder_that_is_no_queue_is_refused_and_an_earlier_one_kept(tmp_path: Path) -> None:
    out = io.BytesIO(b'{"text": "an earlier one"}\ncut')
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(salvage.NoQueue):
            salvage.export(folder, out, resume=True)
    assert out.getvalue() == b'{"text": "an earlier one"}\ncut'


def exported_to(folder: Path, lines: Path) -> None:
    with open(lines, "wb") as out:
        salvage.export(folder, out)


def imported_from(lines: Path, folder: Path) -> None:
    with open(lines, "rb") as file, salvage.open_queue(folder, create=True, memory_size=100) as q:
        salvage.import_lines(q, file)


def peak_of(do: Callable[[], None]) -> int:
    """Bytes that Python had allocated at the most, beyond what it had before."""
    gc.collect()
    tracemalloc.start()
    try:
        do()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


# --- draining


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.battery) for seed in range(1, 20))])
def test_drain_that_is_killed_again_and_again_moves_everything_once(run: Run, tmp_path: Path, started: Any, seed: int) -> None:
    rng = random.Random(seed)
    with HybridQueue("q", tmp_path, memory_size=10) as q:
        for n in range(10):
            q.enqueue_batch([b"%d-%d" % (n, m) for m in range(500)], priority=rng.choice((64, 128, 200)))
    everything = facts(tmp_path / "q")
    for _ in range(3):
        draining = started("drain", tmp_path / "q", tmp_path / "new", "--batch", 20)
        enough = rng.randrange(0, 1500) + (HybridQueue.inspect(tmp_path / "new").waiting if (tmp_path / "new").is_dir() else 0)
        until(lambda draining=draining, enough=enough: draining.poll() is not None or HybridQueue.inspect(tmp_path / "new").waiting >= enough, not_yet=FileNotFoundError)
        draining.kill()
        draining.wait()
    run("drain", tmp_path / "q", tmp_path / "new", "--batch", 20)
    assert facts(tmp_path / "new") == everything
    run("get", tmp_path / "q", code=1)


def test_batch_that_had_arrived_before_a_kill_is_not_put_again(tmp_path: Path) -> None:
    """The instant that matters: in the target, and still in the source."""
    with HybridQueue("q", tmp_path) as q:
        q.enqueue_batch([b"%d" % n for n in range(10)])
    everything = facts(tmp_path / "q")
    with open_queue(tmp_path / "q") as source, open_queue(tmp_path / "new", create=True) as target:
        with pytest.raises(ZeroDivisionError):
            source._hand_over(lambda batch: (target._restore(batch), 1 / 0), 4, 1 << 20)
        assert len(source) == 10
    with HybridQueue("q", tmp_path) as q:
        q.enqueue(b"urgent, and new", priority=255)
    with open_queue(tmp_path / "q") as source, open_queue(tmp_path / "new") as target:
        assert drain(source, target, batch_items=4)[:2] == (7, 4)
    assert sorted(facts(tmp_path / "new"))[:10] == sorted(everything)


def test_smaller_batches_after_a_kill_repeat_nothing_of_the_larger_one(tmp_path: Path) -> None:
    with HybridQueue("q", tmp_path) as q:
        q.enqueue_batch([b"%d" % n for n in range(300)])
    everything = facts(tmp_path / "q")
    with open_queue(tmp_path / "q") as source, open_queue(tmp_path / "new", create=True) as target:
        with pytest.raises(ZeroDivisionError):
            source._hand_over(lambda batch: (target._restore(batch), 1 / 0), 200, 1 << 20)
    with open_queue(tmp_path / "q") as source, open_queue(tmp_path / "new") as target:
        assert drain(source, target, batch_items=50)[:2] == (100, 200)
    assert facts(tmp_path / "new") == everything


def test_what_is_drained_back_to_where_it_came_from_is_there_again(tmp_path: Path) -> None:
    """The log that it left still has its ids (something else keeps the segment), as items that have gone."""
    with HybridQueue("here", tmp_path) as q:
        q.enqueue_batch([b"%d" % n for n in range(10)])
        q.enqueue(b"later", delay=3600)
    everything = facts(tmp_path / "here")
    for source, target in (("here", "there"), ("there", "here")):
        with open_queue(tmp_path / source) as q, open_queue(tmp_path / target, create=True) as into:
            assert drain(q, into)[:2] == (10, 0)
    assert facts(tmp_path / "here") == everything


def test_command_that_fails_gets_its_batch_again(run: Run, tmp_path: Path) -> None:
    with HybridQueue("q", tmp_path) as q:
        q.enqueue_batch([b"%d" % n for n in range(10)])
    out = tmp_path / "out"
    said = run("drain", tmp_path / "q", "--batch", 4, "--exec", f"batch=$(cat); case $batch in *5*) exit 3;; esac; echo \"$batch\" >> {out}", code=2).output
    assert "ended with 3 over a batch of 4 items, which are back in the queue" in said
    with HybridQueue("q", tmp_path) as q:
        assert q.peek() == b"4"
    run("drain", tmp_path / "q", "--batch", 4, "--exec", f"cat >> {out}")
    assert out.read_bytes().splitlines() == [b"%d" % n for n in range(10)]


def test_interrupted_drain_is_clean(tmp_path: Path, started: Any) -> None:
    with HybridQueue("q", tmp_path) as q:
        q.enqueue_batch([b"%d" % n for n in range(5000)])
    draining = started("drain", tmp_path / "q", "--batch", 10, "--exec", "cat; sleep 0.01")
    got = draining.stdout.readline()
    draining.send_signal(signal.SIGINT)
    got += draining.stdout.read()
    assert draining.wait(30) == 130
    with HybridQueue("q", tmp_path) as q:
        left = [int(item) for item in q]
    assert draining.stderr.read().decode() == f"stopped\n{len(left):,} items still in {tmp_path / 'q'}: the same command goes on with them\n"
    assert left == list(range(left[0], 5000)) and left[0] <= len(got.splitlines())


# --- what is not in line


@pytest.fixture
def apart(tmp_path: Path) -> Path:
    """One item in line, three delayed (two of them due at the same instant), one dead letter."""
    with HybridQueue("q", tmp_path, max_attempts=1) as q:
        q.enqueue("poison")
        q.lease(0).nack(error="it was bad")
        q.enqueue("in line")
        q.enqueue_batch([b"late", b"as late"], delay=3600, priority=7)
        q.enqueue(b"later", delay=7200, ttl=1e6)
    return tmp_path / "q"


def test_delayed_items_and_dead_letters_are_exported_with_their_times(run: Run, apart: Path, tmp_path: Path) -> None:
    found = [json.loads(line) for line in run("export", apart, "--dead-letters").stdout.splitlines()]
    assert [each.get("text", each.get("base64")) for each in found] == ["in line", "bGF0ZQ==", "YXMgbGF0ZQ==", "bGF0ZXI=", "poison"]
    assert [("due_at" in each, "died_at" in each) for each in found] == [(False, False), (True, False), (True, False), (True, False), (False, True)]
    assert (found[-1]["reason"], found[-1]["error"]) == ("max_attempts", "it was bad")
    lines = run("export", apart).stdout_bytes
    assert len(lines.splitlines()) == 4
    run("import", tmp_path / "copy", stdin=lines)
    assert run("export", tmp_path / "copy").stdout_bytes.count(b"due_at") == 3
    assert [json.loads(line).get("due_at") for line in run("export", tmp_path / "copy").stdout.splitlines()] == [each.get("due_at") for each in found[:4]]
    with HybridQueue("copy", tmp_path) as q:
        assert q.stats().delayed == 3 and list(q) == ["in line"]


def test_export_of_what_is_not_in_line_goes_on_where_it_was_cut(run: Run, apart: Path, tmp_path: Path) -> None:
    whole = run("export", apart, "--dead-letters").stdout_bytes
    for cut in range(0, len(whole), 97):
        (tmp_path / "out").write_bytes(whole[:cut])
        run("export", apart, "--dead-letters", "--output", tmp_path / "out", "--resume")
        assert (tmp_path / "out").read_bytes() == whole


def test_drain_says_what_it_leaves(run: Run, apart: Path, tmp_path: Path) -> None:
    ran = run("drain", apart, tmp_path / "new")
    assert "3 delayed, 1 dead letters" in ran.output
    assert "3 delayed, 1 dead letters" in run("stats", apart).stdout


def test_delayed_lines_are_put_for_later(run: Run, tmp_path: Path) -> None:
    run("put", tmp_path / "q", "--delay", "1h", stdin=b"one\ntwo\n")
    run("get", tmp_path / "q", code=1)
    assert json.loads(run("stats", tmp_path / "q", "--json").stdout)["delayed"] == 2


def test_queue_is_not_drained_into_itself(run: Run, jobs: Path, tmp_path: Path) -> None:
    (tmp_path / "another-name").symlink_to(jobs)
    for target in (jobs, tmp_path / "another-name"):
        assert "cannot be drained into itself" in run("drain", jobs, target, code=2).output


@pytest.mark.parametrize(("words", "least"), [(["put"], 256), (["import"], 256), (["drain", "SOURCE"], 256), (["pipe"], 512)], ids=lambda given: given[0] if isinstance(given, list) else None)
def test_disk_limit_that_no_queue_can_keep_is_refused_by_the_name_of_its_option(run: Run, jobs: Path, tmp_path: Path, words: list[str], least: int) -> None:
    given = [jobs if word == "SOURCE" else word for word in words]
    assert f"'--max-disk': 1000 is too small: at least {least} KiB" in run(*given, tmp_path / "new", "--max-disk", "1000", code=2, stdin=b"").output
    assert not (tmp_path / "new").exists()
