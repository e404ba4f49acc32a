"""What an operation asks of malloc, pinned: who adds an allocation to a verb finds it here.

A number is the blocks that one call asks for, Python's and the core's, on the second round, without the background thread. The hot verbs ask for none: an item's entry is a part of a block of many.
The others are counted under CPython 3.11; a later version may do with fewer, and whoever finds it needs more says so here.
"""
from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from allocations import Cost, counted, counting_malloc

N = 5000
"""So often is every verb called. What is asked for once in a while (the next block of entries, a longer list) shows as nothing."""

ENTRY_BYTES = 88
"""What an item costs in memory beside itself, while it waits there."""

HOT = 0
"""An enqueue, dequeue or push of bytes or a string, into memory or the log. No kind of queue and no durability below POWER changes that."""

DROP_IN_GET = 1
"""`queue.Queue` may have to wake whoever waits for room or in `join`."""

BATCH_IN, BATCH_OUT = 16, 28
"""A thousand items in one call: blocks of entries; on the way out, a list that grows."""

STEPS = {
    "lease and ack": 60,        # a claim, a delivery with a UUID, and two verbs that may wait and so are generators
    "any value in": 56,         # encoded, and the way in of whatever is not bytes or a string, through two gates
    "any value out": 24,
    "peek": 6,
    "POWER in": 56,             # the group commit
    "POWER out": 80,            # the same, and a claim until it is covered
    "staged": 162,              # MEMORY, beyond the memory: the item that gives way is encoded and written
    "spilled in": HOT,          # PROCESS, beyond the memory: it is in the log
    "spilled out": 1,           # what was read, the item, and its share of what is read ahead
}  # fmt: skip


@pytest.fixture(scope="module")
def malloc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if sys.platform != "linux":
        pytest.skip("a counting malloc is loaded before the program's own, as Linux does it")
    try:
        library = counting_malloc(tmp_path_factory.mktemp("malloc"))
        ten = counted(library, "result = cost(bytes, [100] * 10)")
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no counting malloc on this system: {error}")
    assert ten == [10, 0, 0], "it does not count what it is there to count"
    return library


BEGIN = f"""
import sys
from overspill import *
where, n = sys.argv[1], {N}
items = [b"an item, %06d" % i for i in range(n)]
def queue(name, memory_size=1_000_000, durability=Durability.PROCESS):
    q = HybridQueue(name, where, memory_size=memory_size, durability=durability, _background=False)
    q.enqueue("makes the first segment")
    return q
def empty(q): return lambda: q.dequeue_batch(10 * n)
def full(q): return lambda: (q.dequeue_batch(10 * n), q.enqueue_batch(items))
result = {{}}
"""


@pytest.fixture
def costs(malloc: Path, tmp_path: Path) -> Any:
    def run(program: str) -> dict[str, Cost]:
        return {name: Cost(*cost) for name, cost in counted(malloc, BEGIN + program, tmp_path).items()}

    return run


def test_the_hot_verbs_ask_for_no_memory_but_a_place_in_a_block(costs: Any) -> None:
    hot = costs("""
memory, levels, circular, stream = HybridQueue("m", memory_size=10 * n), PriorityQueue("p", memory_size=10 * n), CircularBuffer(100), StreamQueue("s", 10 * n, where, rate_limit=None)
limited = HybridQueue("l", memory_size=10 * n, rate_limit=RateLimit(1e9))
staged, logged = queue("staged", durability=Durability.MEMORY), queue("logged")
for name, q in {"memory": memory, "levels": levels, "limited": limited, "staged": staged, "logged": logged}.items():
    result[name + " in"] = cost(q.enqueue, items, empty(q))
    result[name + " out"] = cost(lambda item: q.dequeue(), items, full(q))
result["a level in"] = cost(lambda item: levels.enqueue(item, 200), items, empty(levels))
result["by name in"] = cost(lambda item: memory.enqueue(item, priority=200), items, empty(memory))
strings = [str(item) for item in items]
result["strings in"] = cost(memory.enqueue, strings, empty(memory))
result["push"] = cost(circular.push, items)
result["stream in"] = cost(stream.enqueue, items, lambda: [stream.dequeue() for _ in range(stream.get_depth())])
result["stream out"] = cost(lambda item: stream.dequeue(), items, lambda: [stream.enqueue(item) for item in items])
""")
    assert len(hot) == 16
    for name, cost in hot.items():
        assert round(cost.made / N, 1) == HOT, (name, cost)
        waiting = 0 if name == "push" else -1 if name.endswith("out") else 1
        assert round(cost.nbytes / N) == pytest.approx(waiting * ENTRY_BYTES, abs=1), (name, cost)


def test_the_drop_in_queue_asks_for_next_to_nothing(costs: Any) -> None:
    found = costs("""
q = Queue()
result["put"] = cost(q.put, items)
result["get"] = cost(lambda item: q.get(), items, lambda: [q.put(item) for item in items])
""")
    assert round(found["put"].made / N, 1) == HOT
    assert round(found["get"].made / N, 1) <= DROP_IN_GET


def test_the_other_verbs_ask_for_what_is_written_here_and_for_no_more(costs: Any) -> None:
    found = costs("""
memory = HybridQueue("m", memory_size=10 * n)
def values(): empty(memory)(), [memory.enqueue((item,)) for item in items]
result["lease and ack"] = cost(lambda item: memory.lease().ack(), items, full(memory))
result["any value in"] = cost(lambda item: memory.enqueue((item,)), items, empty(memory))
result["any value out"] = cost(lambda item: memory.dequeue(), items, values)
result["peek"] = cost(lambda item: memory.peek(), items, full(memory))
staged, spilled, power = queue("staged", 10, Durability.MEMORY), queue("spilled", 10), queue("power", durability=Durability.POWER)
result["staged"] = cost(staged.enqueue, items, empty(staged))
result["spilled in"] = cost(spilled.enqueue, items, empty(spilled))
result["spilled out"] = cost(lambda item: spilled.dequeue(), items, full(spilled))
few = items[:500]
for name, act, setup in (("POWER in", power.enqueue, empty(power)), ("POWER out", lambda item: power.dequeue(), full(power))):
    made, kept, nbytes = cost(act, few, setup)
    result[name] = made * len(items) // len(few), 0, 0
""")
    each = {name: round(cost.made / N) for name, cost in found.items()}
    assert set(each) == set(STEPS)
    assert {name: made for name, made in each.items() if made > STEPS[name]} == {}, each


def test_a_batch_asks_once_for_all(costs: Any) -> None:
    found = costs("""
for name, q in {"memory": HybridQueue("m", memory_size=10 * n), "logged": queue("logged")}.items():
    thousand, ten = items[:1000], range(10)
    result[name + " in"] = cost(lambda _: q.enqueue_batch(thousand), ten, empty(q))
    result[name + " out"] = cost(lambda _: q.dequeue_batch(1000), ten, lambda: (full(q)(), full(q)(), q.enqueue_batch(items * 2)))
""")
    assert round(found["memory in"].made / 10) <= BATCH_IN and round(found["memory out"].made / 10) <= BATCH_OUT, found
    for name, cost in found.items():  # a next segment of the log on the way is not a cost of the batch
        assert round(cost.made / 10_000, 1) == HOT, (name, cost)


def test_nothing_is_left_of_what_has_passed_through(costs: Any) -> None:
    """A hundred thousand items in and out, bare, as values and on lease: not one block more than before."""
    left = costs("""
often = range(100_000)
memory, circular = HybridQueue("m", memory_size=10 * n), CircularBuffer(100)
logged = queue("logged")
logged.dequeue()
for i in often: circular.push(items[i % n])
result["pairs"] = cost(lambda i: (memory.enqueue(items[i % n]), memory.dequeue()), often)
result["pushes"] = cost(lambda i: circular.push(items[i % n]), often)
result["logged"] = cost(lambda i: (logged.enqueue(items[i % n]), logged.dequeue()), often)
result["values"] = cost(lambda i: (memory.enqueue((1, 2.5)), memory.dequeue()), often[:10_000])
result["leases"] = cost(lambda i: (memory.enqueue(items[i % n]), memory.lease().ack()), often[:10_000])
""")
    for name, cost in left.items():
        assert abs(cost.kept) <= KEPT_MOST[name], (name, cost)


KEPT_MOST = {
    "pairs": 0,
    "pushes": 0,
    "values": 0,
    "logged": 60,    # what there is of each segment that has been used: the log goes round in these
    "leases": 3000,  # deadlines of ended leases are forgotten a thousand at a time
}
