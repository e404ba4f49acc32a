"""What must be measured in a process of its own, because it is about that process's memory or its first minute.

    python -m benchmarks.fresh fill DIR N      leave N items behind and close
    python -m benchmarks.fresh open DIR        open, look, close: time and memory
    python -m benchmarks.fresh flow DIR N      N items through a standing backlog, memory sampled every 1 %

Each prints one line of JSON. The trials call them; they can be run by hand as well.
"""
from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from itertools import repeat
from pathlib import Path
from time import perf_counter_ns
from typing import Any

from .ours import check, open_queue
from .sizes import BATCH, PAYLOAD_BYTES

STANDING = 10_000  # items that wait while others pass: ten times the default memory, so that most are on disk only
WAVE = 5_000


class FreshFailed(Exception):
    """The process did not come back with a measurement."""


def run(verb: str, folder: Path, *arguments: int) -> dict[str, Any]:
    """Call one of the verbs of this module in a new interpreter."""
    command = [sys.executable, "-m", __spec__.name if __spec__ else "benchmarks.fresh", verb, str(folder)]
    done = subprocess.run(
        command + [str(a) for a in arguments],
        capture_output=True,
        text=True,
        cwd=Path(__file__).resolve().parent.parent,
    )
    if done.returncode:
        raise FreshFailed(f"fresh {verb} ended with {done.returncode}:\n{done.stderr}")
    return json.loads(done.stdout)


def memory() -> dict[str, int]:
    """KiB in memory: all of it, its peak, what is the process's own, and what are pages of mapped files."""
    fields = {"VmRSS": "all", "VmHWM": "peak", "RssAnon": "own", "RssFile": "files"}
    found: dict[str, int] = {}
    for line in Path("/proc/self/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name in fields:
            found[fields[name]] = int(value.split()[0])
    return found


def fill(folder: Path, n: int) -> dict[str, Any]:
    queue = open_queue(folder)
    batch = [b"x" * PAYLOAD_BYTES] * BATCH
    began = perf_counter_ns()
    for _ in repeat(None, n // BATCH):
        queue.enqueue_batch(batch)
    took = perf_counter_ns() - began
    queue.close()
    return {"items": n, "ns": took}


def open_once(folder: Path) -> dict[str, Any]:
    # The peak so far is that of importing; 5 makes the kernel forget it (proc(5), clear_refs).
    Path("/proc/self/clear_refs").write_text("5")
    before = memory()
    began = perf_counter_ns()
    queue = open_queue(folder)
    opened = perf_counter_ns() - began
    items = len(queue)
    if items:
        queue.peek()
    looked = perf_counter_ns() - began
    after = memory()
    began = perf_counter_ns()
    queue.close()
    closed = perf_counter_ns() - began
    return {
        "items": items,
        "open_ns": opened,
        "first_item_ns": looked,
        "close_ns": closed,
        "grown_kib": after["all"] - before["all"],
        "peak_kib": after["peak"] - before["peak"],
    }


def flow(folder: Path, n: int) -> dict[str, Any]:
    queue = open_queue(folder)
    item = b"x" * PAYLOAD_BYTES
    enqueue, dequeue = queue.enqueue, queue.dequeue
    for _ in repeat(None, STANDING):
        enqueue(item)
    check(queue.disk_size > 0, "the standing backlog is not on disk")
    samples = []
    began = perf_counter_ns()
    for _ in range(100):
        for _ in repeat(None, n // 100 // WAVE):
            for _ in repeat(None, WAVE):
                enqueue(item)
            for _ in repeat(None, WAVE):
                dequeue()
        samples.append(memory())
    took = perf_counter_ns() - began
    left = len(queue)
    check(left == STANDING, f"{left} items are left, {STANDING} were meant to wait")
    queue.close()
    return {"items": n // 100 // WAVE * WAVE * 100, "ns": took, "samples": samples}


VERBS: dict[str, Callable[..., dict[str, Any]]] = {"fill": fill, "open": open_once, "flow": flow}


def main(arguments: list[str]) -> None:
    verb, folder, *numbers = arguments
    print(json.dumps(VERBS[verb](Path(folder), *map(int, numbers))))


if __name__ == "__main__":
    main(sys.argv[1:])
