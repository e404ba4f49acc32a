"""Every command says what it does, ends its help in an example, and the example works."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from overspill import HybridQueue
from overspill.cli import main

from .conftest import Run

COMMANDS = {name: each for name, each in main.commands.items() if not isinstance(each, click.Group)}
LONG = {"demo"}
"""Its example takes half a minute; tests/demo runs it shorter every time."""
ENDLESS = {"serve-metrics"}
"""Its example runs until somebody ends it; test_operating.py does."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the examples speak of, and `overspill` on the path."""
    place = tmp_path_factory.mktemp("examples")
    for name in ("jobs", "old"):
        with HybridQueue(name, place / "queues") as q:
            q.enqueue_batch([f"{name} {n}" for n in range(20)])
    (place / "jobs.toml").write_text('name = "jobs"\ndisk_path = "queues"\n')
    (place / "bin").mkdir()
    script = place / "bin" / "overspill"
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -m overspill.cli "$@"\n')
    script.chmod(0o755)
    with HybridQueue("copied", place / "queues"):
        pass
    subprocess.run([str(script), "export", "queues/jobs", "--output", "jobs.jsonl"], cwd=place, check=True, timeout=30)
    (place / "jobs.jsonl").rename(place / "kept.jsonl")
    return place


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.battery if name in LONG else ()) for name in COMMANDS if name not in ENDLESS])
def test_example_runs(name: str, place: Path, tmp_path: Path) -> None:
    here = tmp_path / "here"
    shutil.copytree(place, here)
    if name == "import":
        (here / "kept.jsonl").rename(here / "jobs.jsonl")
    lines = COMMANDS[name].example  # type: ignore[attr-defined]
    environment = os.environ | {"PATH": f"{here / 'bin'}:{os.environ['PATH']}", "HOME": str(here)}
    ran = subprocess.run(["bash", "-euc", f"set -o pipefail\n{lines}"], cwd=here, env=environment, capture_output=True, text=True, timeout=120)
    assert (ran.returncode, ran.stderr) == (0, ""), ran


@pytest.mark.parametrize("name", COMMANDS)
def test_help_ends_in_the_example_and_fits(name: str, run: Run) -> None:
    said = run(name, "--help").stdout
    lines = COMMANDS[name].example.splitlines()  # type: ignore[attr-defined]
    assert [line.strip() for line in said.splitlines()[-len(lines) - 1 :]] == ["Example:", *lines]
    assert max(map(len, said.splitlines()[: -len(lines)])) <= 80
    assert run(name, "-h").stdout == said


def test_overview_lists_every_command_with_a_whole_sentence(run: Run) -> None:
    said = run("--help").stdout
    for name in main.commands:
        assert f"\n  {name} " in said
    assert "..." not in said.split("COMMAND [ARGS]...", 1)[1], "a sentence was cut"
    assert max(map(len, said.splitlines())) <= 80


def test_every_command_answers_in_json() -> None:
    without = {name for name, each in COMMANDS.items() if not any("--json" in option.opts for option in each.params)}
    assert without <= {"completion"}


def test_every_command_stands_under_one_heading() -> None:
    listed = [name for names in main.sections.values() for name in names]
    assert sorted(listed) == sorted(main.commands)


@pytest.mark.parametrize("width", [80, 60, 40])
def test_every_command_is_told_in_a_whole_sentence_however_narrow_the_terminal(width: int) -> None:
    said = CliRunner().invoke(main, ["--help"], terminal_width=width).output
    assert "..." not in said.replace("[ARGS]...", "") and max(map(len, said.splitlines())) <= width
    words = " ".join(said.split())
    for each in main.commands.values():
        assert f"{each.name} {each.get_short_help_str(limit=1000)}" in words
    if width == 80:  # where every command has one line
        assert "  demo   Do the main job: mirror HLS streams to an origin that fails.\n" in said


@pytest.mark.parametrize("words", [["completion"], ["completion", "tcsh"], ["get"], ["nothing"], ["put", "q", "--priority", "300"], ["top", "--interval", "soon", "."]], ids=" ".join)
def test_misuse_is_one_line_that_names_the_help(run: Run, words: list[str]) -> None:
    said = run(*words, code=2).output
    assert said.startswith("overspill: ") and said.count("\n") == 1 and said.endswith(" --help)\n")
