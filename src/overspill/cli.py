"""The command line, `overspill`. Each command is a thin face: it reads options, calls, prints, sets the exit code.

Exit codes: 0 fine, 1 found damage or nothing to get, 2 misuse. What a command needs beyond the bare
package comes with an extra, and its absence is a sentence, not a traceback.
"""

from __future__ import annotations

import json
import sys
from importlib.util import find_spec
from pathlib import Path

try:
    import click
except ModuleNotFoundError:
    print('overspill: the command line needs one more package: pip install "overspill[cli]"', file=sys.stderr)
    raise SystemExit(2) from None

INTERRUPTED = 130  # as a shell says it of a command ended by Ctrl-C


def example(line: str) -> str:
    """The last words of every command's help."""
    return f"\b\nExample:\n  {line}"


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, epilog=example("overspill demo"))
def main() -> None:
    """Look at, feed, drain and repair Overspill queues."""


class MissingExtra(click.ClickException):
    exit_code = 2

    def __init__(self, extra: str, missing: list[str]) -> None:
        super().__init__(f'this command needs {", ".join(missing)}: pip install "overspill[{extra}]"')


def require_extra(extra: str, *modules: str) -> None:
    if missing := [module for module in modules if find_spec(module) is None]:
        raise MissingExtra(extra, missing)


@main.command(epilog=example("overspill demo --duration 20 --streams 4"))
@click.option(
    "--duration",
    type=click.FloatRange(6, 600),
    default=28,
    show_default=True,
    help="Seconds of live encoding; draining and checking come on top.",
)
@click.option(
    "--streams",
    type=click.IntRange(1, 12),
    default=3,
    show_default=True,
    help="HLS streams; a third of them are premium.",
)
@click.option(
    "--seed", type=int, default=1, show_default=True, help="Decides pictures, outage, kills and the origin's moods."
)
@click.option(
    "--dir",
    "below",
    type=click.Path(file_okay=False, writable=True, path_type=Path),
    help="Work in a new folder below this one.  [default: the system's temporary folder]",
)
@click.option("--keep", is_flag=True, help="Leave the folder with all files in place.")
@click.option("--json", "as_json", is_flag=True, help="Print nothing but the summary, as JSON.")
def demo(duration: float, streams: int, seed: int, below: Path | None, keep: bool, as_json: bool) -> None:
    """The main job: mirror live HLS streams to an origin that fails, and lose nothing.

    Encodes real streams, queues every segment with little memory, uploads to a local HTTP server that is slow, says
    503 and is down for a while, and kills the queue's process with SIGKILL on the way. Then compares every byte.
    Needs no network. Exits with 1 if anything is missing, different or out of order.
    """
    require_extra("demo", "av", "aiohttp", "rich")
    from rich.console import Console

    from overspill.demo.child import ChildFailed
    from overspill.demo.facts import summary_fields, summary_lines
    from overspill.demo.plan import Plan
    from overspill.demo.run import run_demo
    from overspill.demo.supervisor import MEMORY_SIZE
    from overspill.demo.view import SilentView, choose_view

    console = Console()
    view = SilentView() if as_json else choose_view(console, memory_size=MEMORY_SIZE)
    plan = Plan.from_seed(seed, duration_s=duration, streams=streams)
    try:
        outcome = run_demo(plan, below=below, keep=keep, view=view)
    except KeyboardInterrupt as stopped:
        click.echo("\n".join(["stopped", *getattr(stopped, "__notes__", [])]), err=True)
        raise SystemExit(INTERRUPTED) from None
    except (ChildFailed, TimeoutError) as error:
        notes = "\n".join([str(error) or "the demo took far too long", *getattr(error, "__notes__", [])])
        raise click.ClickException(notes) from None
    if as_json:
        click.echo(json.dumps(summary_fields(outcome.facts, outcome.verdict), indent=2))
    else:
        click.echo("\n".join(summary_lines(outcome.facts, outcome.verdict)))
    if outcome.kept is not None:
        click.echo(f"files are in {outcome.kept}", err=True)
    raise SystemExit(0 if outcome.verdict.ok else 1)
