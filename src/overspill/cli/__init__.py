"""The command line, `overspill`. Each command is a thin face: it reads options, calls the library, prints, sets the exit code.

`program` has what all commands share: how one is declared, its exit codes, what becomes of an error, Ctrl-C and a closed pipe. A command lives in the file of its
group and is listed below, under the heading where help shows it. `words` reads and writes sizes and times for people.

A new command is a function with `@command(example=…)` in its group's file, and its name in `SECTIONS`. The example is run by a test.
"""

from __future__ import annotations

import sys

try:
    import click as click
except ModuleNotFoundError:
    print('overspill: the command line needs one more package: pip install "overspill[cli]"', file=sys.stderr)
    raise SystemExit(2) from None

from .bench import bench
from .completion import completion
from .demo import demo
from .feeding import get, put
from .looking import ls, peek, stats
from .mending import compact, repair, verify
from .moving import drain, export, import_
from .operating import config, metrics, serve_metrics
from .piping import pipe
from .program import INTERRUPTED, Program, main
from .top import top

__all__ = ["INTERRUPTED", "Program", "main"]

SECTIONS = {
    "Put and get": (put, get, pipe),
    "Look, beside a running owner too": (stats, top, ls, peek),
    "Salvage": (verify, repair, export, import_, drain, compact),
    "Operate": (serve_metrics, metrics, config),
    "Try it": (demo, bench),
    "Set up": (completion,),
}

for title, commands in SECTIONS.items():
    main.add_section(title, *commands)
