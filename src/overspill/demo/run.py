"""One run from the first picture to the verdict, in a folder of its own.

The folder is made below the one that was asked for and removed at the end; it stays if that was asked for, or if
something is wrong, because then it is the evidence.
"""

from __future__ import annotations

import asyncio
import shutil
import signal
import tempfile
from pathlib import Path
from typing import NamedTuple

from .facts import Facts
from .places import Places
from .plan import Plan
from .supervisor import Supervisor
from .verify import Verdict, verify
from .view import View


class Outcome(NamedTuple):
    facts: Facts
    verdict: Verdict
    kept: Path | None  # the folder, where it was not removed


def run_demo(plan: Plan, *, below: Path | None, keep: bool, view: View) -> Outcome:
    """Raises `ChildFailed` or `TimeoutError` when there is nothing to judge, `KeyboardInterrupt` when told to stop."""
    if below is not None:
        below.mkdir(parents=True, exist_ok=True)
    root = Path(tempfile.mkdtemp(prefix="overspill-demo-", dir=below))
    try:
        facts = Facts(plan)
        places = Places(str(root))
        with view:
            asyncio.run(supervise(Supervisor(plan, places, facts, view)))
            facts.note("comparing what was made with what arrived")
            view.refresh(facts)
            verdict = verify(manifest=places.manifest, store=places.store, journal=places.journal)
        if facts.dropped:
            verdict.problems.append(f"the queue says that it dropped {facts.dropped}")
        facts.ended_s = facts.elapsed_s
    except KeyboardInterrupt as stopped:
        if keep:
            stopped.add_note(f"files are in {root}")
        else:
            shutil.rmtree(root, ignore_errors=True)
        raise
    except Exception as error:
        error.add_note(f"what there is to see is in {root}")
        raise
    if verdict.ok and not keep:
        shutil.rmtree(root)
        return Outcome(facts, verdict, kept=None)
    return Outcome(facts, verdict, kept=root)


async def supervise(supervisor: Supervisor) -> None:
    """SIGTERM ends the run as Ctrl-C does."""
    running = asyncio.ensure_future(supervisor.run())
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, running.cancel)
    try:
        await running
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
    finally:
        loop.remove_signal_handler(signal.SIGTERM)
