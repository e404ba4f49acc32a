"""`overspill pipe` beside `pv`, on lines of 1 KiB, while nothing spills.

`python -m benchmarks.pipe` writes a file of lines once and sends it through each in turn, `cat file | … | cat`, several times, alternating, so that whatever else the machine
does hits both. Both the wall-clock time and the processor time of the middle process are told: on a busy machine only the second can be compared. What the same takes for an empty file is
taken off: an interpreter's start is no throughput, and is told by itself. `pv` comes from the system (Debian: apt-get install pv); without it this says so and measures the rest. `read, write, keep`
is the least that any pipe can do which keeps a copy: a loop of three system calls that looks at no byte.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LINE = b"x" * 1023 + b"\n"

LOOP = """
import os, sys
block, folder = bytearray(262144), sys.argv[1]
view, at, fd = memoryview(block), 1 << 30, -1
while n := os.readv(0, [block]):
    if at + n > 1 << 26:
        if fd >= 0:
            os.close(fd)
        fd, at = os.open(folder, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600), 0
        os.unlink(folder)
    os.pwrite(fd, view[:n], at)
    at += n
    done = 0
    while done < n:
        done += os.write(1, view[done:n])
"""


def through(middle: list[str], data: Path) -> tuple[float, float]:
    """Wall-clock seconds, and processor seconds of the process in the middle."""
    began = time.perf_counter()
    first = subprocess.Popen(["cat", str(data)], stdout=subprocess.PIPE)
    second = subprocess.Popen(middle, stdin=first.stdout, stdout=subprocess.PIPE)
    last = subprocess.Popen(["cat"], stdin=second.stdout, stdout=subprocess.DEVNULL)
    for process in (first, second):
        assert process.stdout is not None
        process.stdout.close()
    _, status, used = os.wait4(second.pid, 0)
    second.returncode = os.waitstatus_to_exitcode(status)
    if second.returncode:
        raise SystemExit(f"{middle} ended with {second.returncode}")
    last.wait()
    first.wait()
    return time.perf_counter() - began, used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pipe", description=__doc__, epilog="example: python -m benchmarks.pipe --mib 1024 --runs 5")
    parser.add_argument("--mib", type=int, default=1024, help="how much is sent through [%(default)s]")
    parser.add_argument("--runs", type=int, default=5, help="how often [%(default)s]")
    parser.add_argument("--dir", type=Path, default=None, help="where the data and the queue lie [the system's temporary folder]")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="overspill-bench-pipe-", dir=given.dir) as place:
        data, empty = Path(place) / "data", Path(place) / "empty"
        empty.touch()
        with open(data, "wb") as file:
            for _ in range(given.mib):
                file.write(LINE * 1024)
        overspill = [sys.executable, "-m", "overspill.cli", "pipe"]
        ways = {
            "overspill pipe": [*overspill, f"{place}/process"],
            "overspill pipe --durability memory": [*overspill, "--durability", "memory", f"{place}/memory"],
            "overspill pipe --ack": [*overspill, "--ack", f"{place}/ack"],
        }
        if shutil.which("pv"):
            ways = {"pv": ["pv", "-q"], "read, write, keep": [sys.executable, "-I", "-S", "-c", LOOP, f"{place}/kept"], **ways}
        else:
            print("there is no pv here (Debian: apt-get install pv): only our own figures", file=sys.stderr)
        runs = [{name: (through(middle, data), through(middle, empty)) for name, middle in ways.items()} for _ in range(given.runs)]
    table = {}
    for name in ways:
        (wall, used), (start, start_used) = ([statistics.median(run[name][which][kind] for run in runs) for kind in (0, 1)] for which in (0, 1))
        table[name] = {"wall_mib_s": given.mib / max(wall - start, 1e-3), "processor_mib_s": given.mib / max(used - start_used, 1e-3), "start_s": start}
    for name, figures in table.items():
        beside = f"  {figures['wall_mib_s'] / table['pv']['wall_mib_s']:.2f} of pv" if "pv" in table and name != "pv" else ""
        print(f"{name:36} {figures['wall_mib_s']:8,.0f} MiB/s  {figures['processor_mib_s']:8,.0f} MiB per processor second, start {figures['start_s']:.2f} s{beside}")
    print(json.dumps(table))


if __name__ == "__main__":
    main()
