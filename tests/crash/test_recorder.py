"""A flight recorder's process is killed in the middle of a push, and its last items are there."""
from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from overspill import CircularBuffer

CHILD = """
import os, sys
from overspill import CircularBuffer
path, capacity, plain, memory = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "plain", int(sys.argv[4])
buffer = CircularBuffer(capacity, disk_path=path, name="recorder", memory_size=memory, _plain=plain)
n = int(buffer[-1].split()[0]) + 1 if len(buffer) else 0
while True:
    buffer.push(f"{n} " + "x" * (n * 37 % 900))
    os.write(1, b"%d\\n" % n)
    n += 1
"""


def killed_after(path: Path, capacity: int, writer: str, memory: int, acknowledged: int) -> int:
    """Let a child push until it has acknowledged so many pushes, then kill it; the last number that it acknowledged."""
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(path), str(capacity), writer, str(memory)], stdout=subprocess.PIPE)
    assert child.stdout is not None
    for _ in range(acknowledged):
        line = child.stdout.readline()
    os.kill(child.pid, signal.SIGKILL)
    said = line + child.stdout.read()
    child.stdout.close()
    assert child.wait() == -signal.SIGKILL
    return int(said.rsplit(b"\n", 2)[-2])


@pytest.mark.parametrize(("writer", "memory"), [("mapped", 100), ("mapped", 3), ("plain", 100)])
def test_the_last_items_survive_kill_9_again_and_again(fast_path: Path, seed: int, writer: str, memory: int) -> None:
    rng = random.Random(seed)
    capacity = 100
    for _ in range(3):
        last = killed_after(fast_path, capacity, writer, memory, rng.randrange(100, 3000))
        with CircularBuffer(capacity, disk_path=fast_path, name="recorder") as buffer:
            numbers = [int(item.split()[0]) for item in buffer]
            assert numbers[-1] in (last, last + 1), "everything acknowledged, and at most the push that was under way"
            assert numbers == list(range(numbers[-1] - capacity + 1, numbers[-1] + 1)), "a hundred of them, without a gap"
            assert all(item == f"{n} " + "x" * (n * 37 % 900) for n, item in zip(numbers, buffer, strict=True))
            assert buffer.stats().balance == 0
