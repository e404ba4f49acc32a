"""Sizes and times as people write and read them."""

from __future__ import annotations

import os
import pty
import subprocess
from pathlib import Path

import click
import pytest

from overspill.cli.output import columns, progress
from overspill.cli.words import DURATION, PRIORITY, SIZE, count_text, duration_text, size_text

from .conftest import OVERSPILL


@pytest.mark.parametrize(
    ("nbytes", "text"), [(0, "0 B"), (999, "999 B"), (1000, "0.98 KiB"), (1024, "1.00 KiB"), (10 * 1024, "10.0 KiB"), (999 * 1024, "999 KiB"), (5 << 30, "5.00 GiB"), (1 << 70, "1048576 PiB")]
)
def test_sizes(nbytes: int, text: str) -> None:
    assert size_text(nbytes) == text


@pytest.mark.parametrize(
    ("time_s", "text"),
    [(0, "0 s"), (8e-8, "80 ns"), (1.23e-5, "12.3 µs"), (0.25, "250 ms"), (0.9999, "1 s"), (12.34, "12.3 s"), (59.96, "1m 00s"), (307, "5m 07s"), (7380, "2h 03m"), (366000, "4d 05h")],
)
def test_times(time_s: float, text: str) -> None:
    assert duration_text(time_s) == text


def test_counts() -> None:
    assert [count_text(n) for n in (0, 1234, 999_999, 1_234_567, 5e10, 2e12)] == ["0", "1,234", "999,999", "1.23 M", "50 G", "2 T"]


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [(SIZE, "64MiB", 64 << 20), (SIZE, "10GB", 10**10), (SIZE, "4096", 4096), (DURATION, "1h30m", 5400.0),
     (DURATION, "250ms", 0.25), (PRIORITY, "High", 192), (PRIORITY, "7", 7)],
)  # fmt: skip
def test_human_units_are_taken(kind: click.ParamType, text: str, value: object) -> None:  # type: ignore[type-arg]
    assert kind.convert(text, None, None) == value


@pytest.mark.parametrize(("kind", "text"), [(SIZE, "much"), (SIZE, "-1"), (DURATION, "soon"), (DURATION, "5 weeks"), (PRIORITY, "256"), (PRIORITY, "-1")])
def test_what_is_no_unit_is_said_to_be_none(kind: click.ParamType, text: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(click.BadParameter):
        kind.convert(text, None, None)


def test_nothing_is_looked_up_for_a_bar_that_nobody_sees() -> None:
    with progress("look", total=lambda: pytest.fail("asked")) as bar:
        bar(1)


@pytest.mark.parametrize(
    "words", [["verify", "JOBS"], ["repair", "JOBS"], ["repair", "JOBS", "--apply"], ["export", "JOBS", "-o", "OUT"], ["put", "NEW", "FILE"], ["import", "NEW", "FILE"], ["drain", "JOBS", "NEW"]],
    ids=lambda words: " ".join(words),
)  # fmt: skip
def test_bar_is_drawn_on_a_terminal(jobs: Path, tmp_path: Path, words: list[str]) -> None:
    (tmp_path / "file").write_text('{"text": "one"}\n')
    places = {"JOBS": jobs, "NEW": tmp_path / "new", "OUT": tmp_path / "out", "FILE": tmp_path / "file"}
    ours, theirs = pty.openpty()
    ran = subprocess.run([*OVERSPILL, *(places.get(word, word) for word in words)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=theirs, env=os.environ | {"TERM": "xterm"}, timeout=60)
    os.close(theirs)
    said = os.read(ours, 65536)
    os.close(ours)
    assert ran.returncode == 0 and {"repair": b"read" if "--apply" in words else b"look"}.get(words[0], words[0].encode()) in said, said


def test_columns_are_aligned() -> None:
    assert columns([["a", "100"], ["long", "1"]], "lr") == "a     100\nlong    1"
