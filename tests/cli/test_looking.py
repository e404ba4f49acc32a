"""Looking changes nothing: beside a running owner, at a copy, on a folder that cannot be written."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import pytest

from overspill import HybridQueue

from .conftest import Run, fingerprint

LOOKS = (["stats"], ["ls"], ["peek", "--count", 5], ["verify"], ["repair"], ["export"], ["top", "--once"])


@pytest.mark.parametrize("words", LOOKS, ids=lambda words: words[0])
def test_not_a_byte_is_changed_by_a_look(run: Run, jobs: Path, words: list[str]) -> None:
    for folder in (jobs, shutil.copytree(jobs, jobs.parent / "copy")):
        before = fingerprint(folder.parent)
        run(words[0], folder, *words[1:])
        run(words[0], folder, *words[1:], "--json")
        assert fingerprint(folder.parent) == before


@pytest.mark.parametrize("words", LOOKS, ids=lambda words: words[0])
def test_looks_work_beside_a_running_owner(run: Run, tmp_path: Path, words: list[str]) -> None:
    with HybridQueue("q", tmp_path, _background=False) as q:
        q.enqueue_batch([b"%d" % n for n in range(100)])
        q.dequeue_batch(10)
        before = fingerprint(tmp_path)
        run(words[0], tmp_path / "q", *words[1:], code=1 if words == ["repair"] else 0)  # it is not sealed, and repairing would seal it
        assert fingerprint(tmp_path) == before
        assert q.dequeue_batch(1000) == [b"%d" % n for n in range(10, 100)]


def test_folder_that_cannot_be_written_can_be_looked_at(run: Run, jobs: Path) -> None:
    jobs.chmod(0o500)
    try:
        for words in LOOKS:
            run(words[0], jobs, *words[1:])
    finally:
        jobs.chmod(0o700)


def test_stats_tell_what_is_there(run: Run, jobs: Path) -> None:
    said = run("stats", jobs).stdout
    assert "13 items" in said and "192: 2, 128: 10, 64: 1" in said and "by nobody" in said
    found = json.loads(run("stats", jobs, "--json").stdout)
    assert (found["waiting"], found["by_priority"], found["ok"]) == (13, {"64": 1, "128": 10, "192": 2}, True)
    assert 0 <= found["oldest_age"] < 3600


def test_owner_is_named(run: Run, tmp_path: Path) -> None:
    with HybridQueue("q", tmp_path):
        assert f"pid={os.getpid()}" in run("stats", tmp_path / "q").stdout
        assert " open" in run("ls", tmp_path).stdout


def test_peek_shows_the_next_items_in_order(run: Run, jobs: Path) -> None:
    said = run("peek", jobs, "--count", 3).stdout.splitlines()
    assert [line.split(maxsplit=5)[-1] for line in said] == ["ü text", '{"job": 7, "tags": ["a", null]}', "line 0"]
    assert run("peek", jobs, "--count", 3, "--raw").stdout_bytes.startswith("ü text".encode())
    empty = jobs.parent / "empty"
    with HybridQueue("empty", jobs.parent):
        pass
    run("peek", empty, code=1)


def test_ls_tells_the_queues_of_a_folder_apart(run: Run, jobs: Path, tmp_path: Path) -> None:
    with HybridQueue("other", jobs.parent) as q:
        q.enqueue(b"x")
    (jobs.parent / "no queue").mkdir()
    assert [line.split()[:2] for line in run("ls", jobs.parent).stdout.splitlines()[1:]] == [["jobs", "13"], ["other", "1"]]
    assert [each["waiting"] for each in json.loads(run("ls", jobs.parent, "--json").stdout)] == [13, 1]


def test_queue_that_no_configuration_knows_is_an_orphan(run: Run, jobs: Path, tmp_path: Path) -> None:
    with HybridQueue("renamed-since", jobs.parent):
        pass
    (tmp_path / "jobs.toml").write_text(f'name = "jobs"\ndisk_path = "{jobs.parent}"\n')
    said = run("ls", jobs.parent, "--config", tmp_path / "jobs.toml", code=1).stdout
    assert "renamed-since" in said and "jobs " not in said
    (tmp_path / "other.json").write_text(json.dumps({"name": "renamed-since", "disk_path": str(jobs.parent)}))
    run("ls", jobs.parent, "--config", tmp_path / "jobs.toml", "--config", tmp_path / "other.json")
    (tmp_path / "both.toml").write_text(f'[defaults]\ndisk_path = "{jobs.parent}"\n[queues.jobs]\n[queues.renamed-since]\n')
    run("ls", jobs.parent, "--config", tmp_path / "both.toml")


def test_folder_of_queues_is_told_from_one_that_holds_none(run: Run, jobs: Path, tmp_path: Path) -> None:
    for words in (["stats"], ["peek"], ["verify"], ["repair"], ["export"], ["get"], ["compact"]):
        assert f"{jobs.parent} is no queue itself (name one of those in it: {jobs.name})" in run(*words, jobs.parent, code=2).output
        (tmp_path / "empty").mkdir(exist_ok=True)
        assert f"{tmp_path / 'empty'} holds no queue (a queue is named by its folder" in run(*words, tmp_path / "empty", code=2).output
    (tmp_path / "file").write_text("hello")
    assert "is a file, and a queue is a folder" in run("stats", tmp_path / "file", code=2).output


def test_one_is_not_said_as_many(run: Run, tmp_path: Path) -> None:
    with HybridQueue("q", tmp_path) as q:
        q.enqueue("one")
    said = run("stats", tmp_path / "q").stdout + run("verify", tmp_path / "q").stdout + str(HybridQueue.inspect(tmp_path / "q"))
    assert "1 item" in said and "1 record in 1 segment" in said
    assert not re.search(r"\b1 (items|records|segments)\b", said)
    with HybridQueue("q", tmp_path) as q:
        assert str(q.recovery) == "1 item in 1 segment, closed in order"
