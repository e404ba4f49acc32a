"""The salvage kit: look at, check, mend, move and empty queues from outside the program that owns them.

Everything that `overspill` does on the command line is here, for programs. Looking (`verify`, `plan_of`, `export`, `orphans`) works beside a running owner and on a
copy and never changes a byte; everything else takes the queue's lock and raises `QueueLocked` if somebody has it.
"""

from __future__ import annotations

from .._store.inspection import Inspection, Problem
from .folders import NoQueue, is_queue, open_queue, orphans, queues_below, require_queue
from .handover import await_items, await_release
from .jsonlines import BadLine, CannotResume, Exported, export, import_lines
from .mending import Change, Repaired, compact, damage_of, plan_of, repair, verify
from .moving import CommandFailed, Drained, drain, drain_to_command
from .stored import AS_STORED, Stored, value_of

__all__ = [
    "AS_STORED", "BadLine", "CannotResume", "Change", "CommandFailed", "Drained", "Exported", "Inspection", "NoQueue", "Problem", "Repaired", "Stored", "await_items", "await_release",
    "compact", "damage_of", "drain", "drain_to_command", "export", "import_lines", "is_queue", "open_queue", "orphans", "plan_of", "queues_below", "repair", "require_queue", "value_of", "verify",
]  # fmt: skip
