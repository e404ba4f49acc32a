"""How much of everything a run does: one row of numbers for each of `--quick`, the normal run and `--full`.

The sizes change how steady a number is, never what is compared with what.
"""
from __future__ import annotations

from dataclasses import dataclass

PAYLOAD_BYTES = 100
LARGE_BYTES = 2 << 20
BATCH = 1000
RING = 1000

# Every throughput loop puts this many items and takes them again. It is under the default `memory_size` of 1000, so
# a queue with default options holds all of them in memory.
RESIDENT = 900


@dataclass(frozen=True, kw_only=True)
class Sizes:
    name: str
    throughput_rounds: int
    throughput_budget_s: float  # for one contestant in one round
    resident_rounds: int
    resident_cycles: int  # of RESIDENT items in, RESIDENT items out, in a round
    spilled_rounds: int
    spilled_items: int
    batch_rounds: int
    batch_count: int  # of BATCH items, in a round
    large_rounds: int
    large_items: int
    power_rounds: int
    power_calls: int  # of one caller, in a round
    callers: int
    caller_calls: int  # of each of the many callers, in a round
    tasks: int
    task_calls: int  # of each of the many tasks, in a round
    stall_rounds: int
    stall_items: int
    backlog_items: int
    opens: int
    flow_items: int


QUICK = Sizes(
    name="quick",
    throughput_rounds=2,
    throughput_budget_s=0.05,
    resident_rounds=40,
    resident_cycles=20,
    spilled_rounds=2,
    spilled_items=100_000,
    batch_rounds=2,
    batch_count=100,
    large_rounds=3,
    large_items=32,
    power_rounds=10,
    power_calls=50,
    callers=64,
    caller_calls=30,
    tasks=1000,
    task_calls=5,
    stall_rounds=2,
    stall_items=1_000_000,
    backlog_items=1_000_000,
    opens=3,
    flow_items=1_000_000,
)

NORMAL = Sizes(
    name="normal",
    throughput_rounds=5,
    throughput_budget_s=0.3,
    resident_rounds=60,
    resident_cycles=60,
    spilled_rounds=5,
    spilled_items=500_000,
    batch_rounds=5,
    batch_count=500,
    large_rounds=5,
    large_items=128,
    power_rounds=30,
    power_calls=50,
    callers=64,
    caller_calls=50,
    tasks=1000,
    task_calls=10,
    stall_rounds=5,
    stall_items=1_000_000,
    backlog_items=10_000_000,
    opens=7,
    flow_items=10_000_000,
)

FULL = Sizes(**{**NORMAL.__dict__, "name": "full", "flow_items": 100_000_000})
