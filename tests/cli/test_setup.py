"""Completion, and the short measurement."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from .conftest import OVERSPILL, Run


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_a_script_for_the_shell(run: Run, shell: str) -> None:
    said = run("completion", shell).stdout
    assert f"_OVERSPILL_COMPLETE={shell}_complete" in said


@pytest.mark.parametrize(("words", "expected"), [("overspill pe", {"peek"}), ("overspill put --pri", {"--priority"}), ("overspill put --priority h", {"high"})])
def test_words_are_completed(words: str, expected: set[str]) -> None:
    environment = os.environ | {"_OVERSPILL_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    ran = subprocess.run(OVERSPILL, env=environment, capture_output=True, text=True, timeout=30, check=True)
    assert {line.split(",")[1] for line in ran.stdout.splitlines()} == expected


def test_bench_measures_every_durability_and_leaves_nothing(run: Run, tmp_path: Path) -> None:
    found = json.loads(run("bench", tmp_path, "--seconds", "110ms", "--size", "100", "--json").stdout)
    assert [each["what"].split()[0] for each in found] == ["bare", "bare", *["MEMORY"] * 3, *["PROCESS"] * 3, *["POWER"] * 3]
    assert all(each["items"] > 0 and each["rate"] > 0 for each in found)
    assert "enqueue_batch" in run("bench", tmp_path, "--seconds", "110ms").stdout
    assert list(tmp_path.iterdir()) == []
    run("bench", tmp_path, "--size", "1GiB", code=2)
    assert "above 0" in run("bench", tmp_path, "--seconds", "0", code=2).output
