"""Whoever starts `overspill` may have closed stdin, stdout or stderr. A queue's own files must not take their place."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from overspill import HybridQueue

from .conftest import OVERSPILL

CLOSED = b"overspill: standard input or output is closed\n"


def _ran(*words: object, close: str) -> tuple[int, bytes, bytes]:
    """Run a command from a shell that closes some of its streams."""
    ran = subprocess.run(["sh", "-c", f'exec "$@" {close}', "sh", *OVERSPILL, *map(str, words)], stdin=subprocess.DEVNULL, capture_output=True, timeout=30)
    return ran.returncode, ran.stdout, ran.stderr


@pytest.mark.parametrize("words", [["put"], ["put", "--raw"], ["pipe"], ["import"]], ids=" ".join)
def test_closed_input_is_an_error_and_no_file_of_the_queue_is_read_instead(tmp_path: Path, words: list[str]) -> None:
    assert _ran(*words, tmp_path / "q", close="<&-") == (2, b"", CLOSED)
    if (tmp_path / "q").exists():
        with HybridQueue("q", tmp_path) as q:
            assert len(q) == 0


@pytest.mark.parametrize("words", [["get"], ["pipe"], ["stats"], ["peek"], ["peek", "--raw"], ["ls"], ["export"], ["verify"]], ids=" ".join)
def test_closed_output_is_an_error_and_nothing_leaves_the_queue(tmp_path: Path, words: list[str]) -> None:
    with HybridQueue("q", tmp_path) as q:
        q.enqueue_batch([b"one", b"two"])
    assert _ran(*words, tmp_path / "q", close=">&-") == (2, b"", CLOSED)
    with HybridQueue("q", tmp_path) as q:
        assert q.recovery is not None and q.recovery.quarantined == 0
        assert list(q) == [b"one", b"two"]


def test_closed_error_output_hinders_nothing(tmp_path: Path) -> None:
    with HybridQueue("q", tmp_path) as q:
        q.enqueue(b"one")
    assert _ran("get", tmp_path / "q", close="2>&-") == (0, b"one\n", b"")
    assert _ran("get", tmp_path / "none", close="2>&-") == (2, b"", b"")


@pytest.mark.parametrize("words", [["--help"], ["get", "--help"], ["stats", "DIR"], ["get", "DIR"], ["peek", "DIR", "--raw"]], ids=" ".join)
def test_full_disk_behind_the_output_is_one_line(tmp_path: Path, words: list[str]) -> None:
    with HybridQueue("q", tmp_path) as q:
        q.enqueue(b"one")
    said = _ran(*(tmp_path / "q" if word == "DIR" else word for word in words), close="> /dev/full")
    assert said == (2, b"", b"overspill: No space left on device (standard input or output)\n")
    with HybridQueue("q", tmp_path) as q:
        assert len(q) == 1
