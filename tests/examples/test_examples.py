"""Every example runs as it stands, says what it is about, and judges itself: an example whose claim does not hold ends with another code than 0."""
from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import overspill

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples"
SHARED = {"footage"}
"""What examples import and nobody runs."""

SHOWS = {
    "batch_to_sqlite": r"2,550 rows in \d+ transactions; the last \d+ did not .*\n2,550 .* commits 100 .*\nthe next one finds 2,550 and writes 2,550\nin the database: 5,100 rows",
    "crash_log": r"signal 9 after revolution 777\n.*\n  INFO: revolution 777, all is well\n  ERROR: ",
    "drop_in": r"queue\.Queue: +(\{.*\})\noverspill\.Queue: \1\nlogged: .*\ngot 0, .* there are \[1, 2, 3, 4\]",
    "event_buffer": r"100 events are kept, 40 were overwritten.*\n.*400 ms.*\n25 stalls.*\na moment later: 0 events\n.*signal 9 at 2024; its recorder holds 1975 to 2024",
    "graceful_shutdown": r"\n120 jobs are done, each once and in order",
    "hls_segments": r"4 in memory \+ 8 on disk only>\n(/football.*\n)+(/news.*\n)+12 of 12 segments arrived, 5 of them",
    "monitor": r"on disk  pressure +[1-9].*\n(.*\n)*alarms at 7[0-9]% and 9[0-9]% of memory",
    "rate_limited_api": r"without the queue: [1-9][0-9]* of 80 orders were refused\nwith the queue: 0 were refused, 80 arrived",
    "recovery_queue": r"eve does not answer, attempt 2; again in 40 ms\n(.*\n)*.*restarted.*\n(.*\n)*.*eve has it, attempt 5",
    "stream_packets": r"50 in memory, 100 in camera-7\.overflow.*\n.*150 packets.*\[\] is left",
    "transcoding_jobs": r"failed, attempt 2: Invalid data(.*\n)*dead: episode 2 after 2 attempts: InvalidDataError.*\nrepaired.*\n +episode 2 .*attempt 1",
}
"""The lines for which one runs it."""


def names() -> list[str]:
    return sorted({path.stem for path in FOLDER.glob("*.py")} - SHARED)


def run(name: str, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(overspill.__file__).parents[1]), "TMPDIR": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run([sys.executable, "-W", "error", str(FOLDER / f"{name}.py")], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("name", names())
def test_example_runs_and_shows_what_it_is_about(name: str, tmp_path: Path) -> None:
    ran = run(name, tmp_path)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert re.search(SHOWS[name], ran.stdout), ran.stdout
    assert not ran.stderr
    assert os.listdir(tmp_path) == []  # it cleans up behind itself


def test_the_page_lists_every_example_and_no_other() -> None:
    listed = re.findall(r"^\| \[`(\w+)\.py`\]\(\1\.py\) \|", (FOLDER / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(listed) == names() == sorted(SHOWS)


@pytest.mark.parametrize("name", [*names(), *SHARED])
def test_examples_are_short_and_begin_with_what_they_are_about(name: str) -> None:
    text = (FOLDER / f"{name}.py").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 90
    assert ast.get_docstring(ast.parse(text))
