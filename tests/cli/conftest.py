"""The command line in this process (`run`), and as a process of its own (`started`)."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("click")

from click.testing import CliRunner, Result

from overspill import HybridQueue
from overspill.cli import main

Run = Callable[..., Result]
OVERSPILL = [sys.executable, "-m", "overspill.cli"]


@pytest.fixture
def run() -> Run:
    """Run a command here; `code` is what it must exit with."""

    def run(*words: Any, code: int = 0, stdin: bytes | str | None = None) -> Result:
        ran = CliRunner().invoke(main, [str(word) for word in words], input=stdin)
        said = ran.output
        assert ran.exception is None or isinstance(ran.exception, SystemExit), ran.exception
        assert ran.exit_code == code, said
        return ran

    return run


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Start a command as a process of its own, which does not outlive the test."""
    processes: list[subprocess.Popen[bytes]] = []

    def start(*words: Any, **how: Any) -> subprocess.Popen[bytes]:
        process = subprocess.Popen([*OVERSPILL, *map(str, words)], **{"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **how})
        processes.append(process)
        return process

    yield start
    for process in processes:
        if process.poll() is None:
            process.kill()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                try:
                    stream.close()
                except OSError:
                    pass
        process.wait()


def fingerprint(folder: Path) -> dict[str, Any]:
    """Every name, byte, mode and date of a folder but the times of reading."""
    found = {}
    for base, _, files in os.walk(folder):
        for path in (Path(base), *(Path(base, name) for name in files)):
            at = path.stat()
            data = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
            found[str(path.relative_to(folder))] = (data, at.st_mode, at.st_size, at.st_mtime_ns, at.st_ctime_ns, at.st_ino)
    return found


@pytest.fixture
def jobs(tmp_path: Path) -> Path:
    """A queue that was closed in order: ten lines, a text, a dict, a tuple; of three priorities, one of them leased before."""
    with HybridQueue("jobs", tmp_path / "queues") as q:
        q.enqueue_batch([b"line %d" % n for n in range(10)])
        q.enqueue("ü text", priority=192)
        q.enqueue({"job": 7, "tags": ["a", None]}, priority=192, ttl=3600)
        q.enqueue((1, 2), priority=64)
        q.lease(0).nack()
    return tmp_path / "queues" / "jobs"
