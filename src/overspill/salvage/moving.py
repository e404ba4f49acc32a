"""Emptying a queue: into another queue, or into a command, batch by batch.

An item leaves its queue when its batch has arrived. A process that is killed in between leaves it where it was; `drain` then knows what had arrived by the ids in the target's log, so between
two queues nothing comes twice. A command gets a batch again that it had not finished.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from typing import Final, NamedTuple

from .._runtime.parts import Restored
from .._store import inspection
from ..errors import QueueError
from ..hybrid import HybridQueue
from ..options import MiB
from .jsonlines import BATCH_ITEMS
from .stored import Item, value_of

__all__ = ["CommandFailed", "Drained", "drain", "drain_to_command", "line_of", "shown"]

BATCH_MOST: Final = 10_000
"""A batch that `drain` moves has no more items, whatever it was told: so many of the target's last records are looked through for those of a drain that was killed."""

OnStep = Callable[[int], object]


class CommandFailed(QueueError):
    """A command did not take its batch; the batch is back in the queue."""


class Drained(NamedTuple):
    moved: int
    there_already: int
    """Items that an earlier drain had brought over before it was killed: removed from the source, not put again."""
    delayed: int
    """Items that are not in line yet, and stay."""
    dead_letters: int
    """Which stay, too."""


def drain(source: HybridQueue, target: HybridQueue, *, on_step: OnStep = lambda n: None, batch_items: int = BATCH_ITEMS, batch_bytes: int = MiB) -> Drained:
    """Move everything that is in line in one queue to another; both were opened as stored (`open_queue`). Items keep id, dates, priority, attempts and kind, and the order within a priority.

    Every batch is on stable storage in the target before it leaves the source. Raises what either queue raises, and what has not arrived is still in the source.
    """
    assert target._disk is not None
    # What has left the target is not in it: it may be back in the source because it was drained the other way.
    known = {id for id, is_there in inspection.newest_ids(target._disk.path, BATCH_MOST) if is_there}
    batch_items = min(batch_items, BATCH_MOST)
    there_already = 0

    def deliver(items: list[Restored]) -> None:
        nonlocal there_already
        fresh = [item for item in items if item.id not in known]
        target._restore(fresh)
        target.sync()
        there_already += len(items) - len(fresh)

    moved = 0
    while n := source._hand_over(deliver, batch_items, batch_bytes):
        moved += n
        on_step(n)
    left = source.stats()
    return Drained(moved - there_already, there_already, left.delayed, left.dead_letters)


def drain_to_command(source: HybridQueue, command: str, *, on_step: OnStep = lambda n: None, batch_items: int = BATCH_ITEMS, batch_bytes: int = MiB) -> int:
    """Run a shell command for every batch, with the items on its stdin, a line each; a batch leaves the queue when the command has ended with 0. Returns how many did.

    Raises `CommandFailed`, and the batch is back in its place.
    """

    def deliver(items: list[Restored]) -> None:
        ended = subprocess.run(command, shell=True, input=b"".join(line_of(item.item) for item in items), check=False)
        if ended.returncode:
            raise CommandFailed(f"{command!r} ended with {ended.returncode} over a batch of {len(items):,} items, which are back in the queue")

    moved = 0
    while n := source._hand_over(deliver, batch_items, batch_bytes):
        moved += n
        on_step(n)
    return moved


def line_of(item: Item) -> bytes:
    """An item as a line: bytes and text as they are, anything else as JSON. Raises `UnknownFormat` for what only its own program can read."""
    if isinstance(item, bytes):
        return item + b"\n"
    if isinstance(item, str):
        return item.encode() + b"\n"
    return shown(value_of(item)).encode() + b"\n"


def shown(value: object) -> str:
    """A value as JSON, where JSON has a word for it; else as Python writes it."""
    try:
        return json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        return repr(value)
