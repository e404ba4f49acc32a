"""`serve-metrics`, `metrics` and `config check`: what whoever runs queues has at hand."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from overspill import HybridQueue
from overspill.cli import main
from overspill.cli.operating import check, config, metrics, serve_metrics

from .conftest import Run, fingerprint

Start = Callable[..., subprocess.Popen[bytes]]


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return str(answer.read().decode())


def first_line(process: subprocess.Popen[bytes]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().decode()


@pytest.fixture
def queues(tmp_path: Path) -> Path:
    for name, n in (("jobs", 3), ("audit", 1)):
        with HybridQueue(name, tmp_path / "queues") as q:
            q.enqueue_batch(list(range(n)))
    return tmp_path / "queues"


def test_a_folder_of_queues_is_served_until_it_is_told_to_end(started: Start, queues: Path) -> None:
    before = fingerprint(queues)
    process = started("serve-metrics", queues, "--listen", "127.0.0.1:0")
    url = first_line(process).split()[2]
    told = get(f"{url}/metrics")
    assert 'overspill_items_waiting{queue="jobs"} 3.0' in told and 'overspill_items_waiting{queue="audit"} 1.0' in told
    assert [each["queue"] for each in json.loads(get(f"{url}/healthz"))["queues"]] == ["audit", "jobs"]
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 0
    assert process.stderr is not None and process.stderr.read() == b""
    assert fingerprint(queues) == before


def test_ctrl_c_ends_it_without_a_traceback(started: Start, queues: Path) -> None:
    process = started("serve-metrics", queues / "jobs", "--listen", "[::1]:0", "--json")
    assert json.loads(first_line(process) + b"".join(process.stdout.readline() for _ in range(7)).decode())["url"].startswith("http://[::1]:")  # type: ignore[union-attr]
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) == 130
    assert process.stderr is not None and process.stderr.read() == b"stopped\n"


def test_its_example_is_a_command_that_it_takes() -> None:
    words = shlex.split(serve_metrics.example)  # type: ignore[attr-defined]
    assert words[:2] == ["overspill", "serve-metrics"]
    context = serve_metrics.make_context("serve-metrics", ["." if word == "queues" else word for word in words[2:]], help_option_names=["-h", "--help"])
    assert context.params["listen"] == ("127.0.0.1", 9464)


@pytest.mark.parametrize(("words", "said"), [
    (["--listen", "0.0.0.0:0"], "no password"),
    (["--listen", "[::]:0"], "--public"),
    (["--listen", "example.org:80"], "no password"),
    (["--listen", "9464"], "127.0.0.1:9464"),
    (["--listen", "127.0.0.1:99999"], "127.0.0.1:9464"),
    (["--listen", "::1:80"], r"[::1]:9464"),
])  # fmt: skip
def test_an_address_that_others_reach_is_asked_for_twice(run: Run, queues: Path, words: list[str], said: str) -> None:
    assert said in run("serve-metrics", queues, *words, code=2).output


def test_a_port_that_is_taken_is_one_line(run: Run, started: Start, queues: Path) -> None:
    url = first_line(started("serve-metrics", queues, "--listen", "127.0.0.1:0")).split()[2]
    assert "cannot listen" in run("serve-metrics", queues, "--listen", url.removeprefix("http://"), code=2).output


def test_rules_and_board_come_out_as_they_are_shipped(run: Run) -> None:
    assert yaml.safe_load(run("metrics", "rules").stdout)["groups"][0]["name"] == "overspill"
    assert json.loads(run("metrics", "board").stdout)["title"] == "Overspill queues"


@pytest.mark.parametrize("group", [metrics, config], ids=lambda group: str(group.name))
def test_subcommands_end_their_help_in_an_example_that_runs(run: Run, group: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "queues.toml").write_text('[queues.jobs]\ndisk_path = "queues"\n')
    for each in group.commands.values():
        said = run(group.name, each.name, "--help").stdout
        assert [line.strip() for line in said.splitlines()[-2:]] == ["Example:", each.example]
        words = shlex.split(each.example.partition(" > ")[0])
        assert words[:3] == ["overspill", group.name, each.name]
        run(*words[1:])
    assert main.commands[group.name] is group and check in config.commands.values()


# --- config check

GOOD = """
[defaults]
disk_path = "queues"

[queues.jobs]
memory_limit = "64MiB"
"""
BAD = """\
[defaults]
disk_path = "queues"
duribility = "power"

[queues.jobs]
memory_limit = "a lot"
ttl = "1.5h"
rate_limit = { rate = 10, bust = 5 }

[queues.audit]
max_disk_size = "1MiB"
max_item_size = "1MiB"
"""


def test_a_file_that_can_be_used_is_said_to_be(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "queues.toml"
    file.write_text(GOOD)
    assert run("config", "check", file).stdout == f"{file}: jobs: nothing is wrong\n"
    assert json.loads(run("config", "check", file, "--json").stdout) == {"file": str(file), "ok": True, "queues": ["jobs"], "problems": []}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["queues.toml"]


def test_everything_that_is_wrong_is_listed_at_once_with_its_line(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "queues.toml"
    file.write_text(BAD)
    lines = run("config", "check", file, code=1).stdout.splitlines()
    assert [line.partition(": ")[0] for line in lines] == [f"{file}:{number}" for number in (3, 6, 8, 12)]
    assert "did you mean 'durability'?" in lines[0] and "[defaults]" in lines[0]
    assert "512MiB" in lines[1] and "[queues.jobs]" in lines[1]
    assert "did you mean 'burst'?" in lines[2]
    assert "max_disk_size" in lines[3] and "audit" in lines[3]
    told = json.loads(run("config", "check", file, "--json", code=1).stdout)
    assert [(each["line"], each["key"]) for each in told["problems"]] == [
        (3, "defaults.duribility"), (6, "queues.jobs.memory_limit"), (8, "queues.jobs.rate_limit.bust"), (12, "queues.audit.max_item_size"),
    ]  # fmt: skip


def test_a_file_that_is_not_there_is_misuse_and_one_that_is_no_toml_is_a_problem(run: Run, tmp_path: Path) -> None:
    assert "does not exist" in run("config", "check", tmp_path / "absent.toml", code=2).output
    (tmp_path / "q.toml").write_text("[queues\n")
    assert "TOML" in run("config", "check", tmp_path / "q.toml", code=1).stdout
