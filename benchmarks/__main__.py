"""The command: `python -m benchmarks [--quick | --full] [--only TRIAL] [--json] [--dir DIR] [--results DIR]`.

It prints the tables to stdout and what it is doing to stderr, and ends with 0 whether targets are met or not: a slow
machine is no failure of a build. Results are written where they can be compared only by a run that has all trials at
their normal sizes, unless a folder is named.
"""
from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from time import perf_counter

from . import machine, plot, sizes, table, trials
from .scratch import RESULTS, NoDisk, scratch

EPILOG = """\
example:
  python -m benchmarks --quick --only resident
"""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure Overspill beside its peers, and against its targets.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="small sizes, about a minute")
    size.add_argument("--full", action="store_true", help="normal sizes, and a hundred million items pass through")
    parser.add_argument(
        "--only",
        metavar="TRIAL",
        action="append",
        choices=trials.TRIALS,
        help=f"one of: {', '.join(trials.TRIALS)}; may be repeated",
    )
    parser.add_argument("--json", action="store_true", help="JSON on stdout instead of tables")
    parser.add_argument(
        "--dir", type=Path, metavar="DIR", help="where the queues are while they are measured; default: the checkout"
    )
    parser.add_argument(
        "--results",
        type=Path,
        metavar="DIR",
        help="where results are written; default: benchmarks/results, and nowhere with --quick or --only",
    )
    asked = parser.parse_args(arguments)

    chosen = sizes.QUICK if asked.quick else sizes.FULL if asked.full else sizes.NORMAL
    names = list(dict.fromkeys(asked.only or trials.TRIALS))
    outcome = trials.Outcome()
    try:
        with scratch(asked.dir) as place:
            described = machine.describe(place.root)
            for name in names:
                print(f"{name} ...", end=" ", flush=True, file=sys.stderr)
                began = perf_counter()
                outcome.join(trials.TRIALS[name](place, chosen))
                print(f"{perf_counter() - began:.1f} s", file=sys.stderr)
    except NoDisk as error:
        parser.error(str(error))
    except KeyboardInterrupt:
        print("interrupted; nothing is written", file=sys.stderr)
        return 130

    command = _command(asked)
    if asked.json:
        print(json.dumps(table.as_json(outcome, described, chosen, command), indent=1))
    else:
        print(table.as_markdown(outcome, described, chosen, command))

    complete = not asked.quick and not asked.only
    folder = asked.results or (RESULTS if complete else None)
    if folder:
        table.write(folder, "latest", outcome, described, chosen, command)
        plot.write(folder, outcome)
        print(f"written: {folder}", file=sys.stderr)
    return 0


def _command(asked: argparse.Namespace) -> str:
    """The command as it can be repeated anywhere: what was measured is in it, where is not."""
    words = ["python -m benchmarks"]
    words += [f"--{flag}" for flag in ("quick", "full") if getattr(asked, flag)]
    words += [f"--only {name}" for name in asked.only or ()]
    return " ".join(words)


if __name__ == "__main__":
    sys.exit(main())
