"""Counts the memory allocations of a program exactly: Python's and the compiled core's, each of which is a `malloc` in the end.

`counted(program)` compiles a counting `malloc` (counting.c) with the compiler that builds the core and runs the program under it. In the program, `cost(act, items)` calls `act` with
each of the items and returns the cost of that, the loop's own deducted; it is called twice, and the second time counts, so that nothing that is made once and kept (caches, free lists)
is taken for a cost.
"""
from __future__ import annotations

import ctypes
import json
import os
import shlex
import subprocess
import sys
import sysconfig
import textwrap
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent


class Cost(NamedTuple):
    """Of all the calls together."""

    made: int
    """Blocks that were asked for."""
    kept: int
    """How many more there are than before."""
    nbytes: int
    """And how much larger they are in all."""


# --- in the program

def _counters() -> list[Callable[[], int]]:
    library = ctypes.PyDLL(None)
    return [getattr(library, "counted_" + name) for name in ("made", "kept", "bytes")]


def cost(act: Callable[[Any], object], items: Iterable[Any], setup: Callable[[], object] = lambda: None) -> Cost:
    """What `act(item)` for each of the items asks of malloc; `setup` is called before each of two rounds and not counted."""
    items = list(items)
    for function in _counters():
        function.restype = ctypes.c_long
    made, kept, nbytes = _counters()
    for function in (made, kept, nbytes):
        function.restype = ctypes.c_long

    def round_of(call: Callable[[Any], object]) -> Cost:
        before = [made(), kept(), nbytes()]
        for item in items:
            call(item)
        after = [made(), kept(), nbytes()]
        return Cost(*(b - a for a, b in zip(before, after)))

    round_of(_nothing)
    empty = round_of(_nothing)
    for _ in range(2):
        setup()
        found = round_of(act)
    return Cost(*(a - b for a, b in zip(found, empty)))


def _nothing(item: object) -> None:
    pass


# --- in the test


def counting_malloc(folder: Path) -> Path:
    """Build it. Raises what the compiler's absence raises."""
    library = folder / "counting.so"
    compiler = os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc"
    subprocess.run([*shlex.split(compiler), "-O1", "-shared", "-fPIC", "-fno-builtin", "-o", str(library), str(HERE / "counting.c")], check=True, capture_output=True, text=True)
    return library


def counted(library: Path, program: str, *args: object) -> Any:
    """Run the program with its allocations counted; returns what it assigned to `result`."""
    program = "from allocations import Cost, cost\nimport json\n" + textwrap.dedent(program) + "\nprint(json.dumps(result))\n"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(HERE), *sys.path]), "LD_PRELOAD": str(library), "PYTHONMALLOC": "malloc"}
    run = subprocess.run([sys.executable, "-c", program, *map(str, args)], stdout=subprocess.PIPE, env=environment, timeout=120)
    assert run.returncode == 0, "the program failed; its message is above"
    return json.loads(run.stdout)
