"""`overspill demo`: the main job."""

from __future__ import annotations

from pathlib import Path

import click

from .program import Failure, command, json_option, print_json, require_extra


@command(example="overspill demo --duration 6 --streams 1")
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
@json_option
def demo(duration: float, streams: int, seed: int, below: Path | None, keep: bool, as_json: bool) -> None:
    """Do the main job: mirror HLS streams to an origin that fails.

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
    except (ChildFailed, TimeoutError) as error:
        notes = "\n".join([str(error) or "the demo took far too long", *getattr(error, "__notes__", [])])
        raise Failure(notes) from None
    if as_json:
        print_json(summary_fields(outcome.facts, outcome.verdict))
    else:
        click.echo("\n".join(summary_lines(outcome.facts, outcome.verdict)))
    if outcome.kept is not None:
        click.echo(f"files are in {outcome.kept}", err=True)
    raise SystemExit(0 if outcome.verdict.ok else 1)
