"""What an operation asks of the kernel, pinned: who adds a system call to a verb finds it here.

The numbers are calls per operation, by name, of the thread that calls the verb. They hold for a queue that nobody waits on, without the background thread, so that they are the same on every
run; the pump's share is judged at the end, and what an idle queue does: nothing.
"""
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from system_calls import Asleep, Section, traced, why_not

N = 1000
"""So often is every verb called. What is called less than once in twenty operations shows as nothing."""

BEGIN = """
import asyncio, sys, threading
from overspill import *
where, n = sys.argv[1], int(sys.argv[2])
items = [b"an item, %06d" % i for i in range(n)]
def queue(name="q", memory_size=1_000_000, **options):
    return HybridQueue(name, where, memory_size=memory_size, **{"_background": False, "_plain": False} | options)
"""

LIFE_IN_MEMORY = {"getpid", "getrandom"}
"""Opening and closing a queue that is in memory only: whose it is, and what its ids begin with."""

LIFE_IN_MEMORY_MOST = 6
"""So many of these, in all."""

NOTHING: dict[str, float] = {}

SYNC = {"fdatasync": 1.0}

MAPPED = {
    "enqueue": NOTHING,         # stored through the mapping
    "dequeue": NOTHING,         # one bit, through the mapping
    "lease and ack": NOTHING,
    "any value": NOTHING,       # encoded, too
    "spilled": NOTHING,         # it is in the log already
    "read back": NOTHING,       # ahead, many at a time
}
"""Durability.PROCESS in an open segment."""

PLAIN = {
    "enqueue": {"pwrite64": 1.0},        # the record
    "dequeue": {"pwrite64": 1.0},        # the word with its settle mark
    "lease and ack": {"pwrite64": 2.0},  # the attempt, the mark
    "any value": {"pwrite64": 1.0},
    "spilled": {"pwrite64": 1.0},
    "read back": {"pwrite64": 1.0},
}
"""The same on a file system where preallocated space is no promise."""

READS_MOST = 40
"""`pread` calls for a thousand small items that had spilled, and a look into each segment on the way."""

SHARED = 20
"""Calls of all threads for ten thousand small items, put and taken: pages, a next segment now and then, waking the pump for that. In thousandths of a call for each item."""


Sections = Callable[..., dict[str, Section]]


@pytest.fixture(scope="module", autouse=True)
def tracing() -> None:
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)


@pytest.fixture
def sections(tmp_path: Path) -> Sections:
    def run(program: str, n: int = N) -> dict[str, Section]:
        return traced(BEGIN + program + "\nsection(None)\n", tmp_path, n).sections

    return run


def test_a_queue_in_memory_asks_the_kernel_for_nothing_but_who_it_is(sections: Sections) -> None:
    """No thread, no file, no call: from the first moment to the last, whatever the items are and whichever face is used."""
    life = sections("""
section("hybrid")
q = HybridQueue("q", memory_size=n)
for item in items: q.enqueue(item)
for item in items: q.dequeue()
q.enqueue_batch(items)
q.dequeue_batch(n)
for item in items: q.enqueue((1, "any", {"value": item}))
q.peek(), list(q), len(q), q.stats()
for item in items: q.dequeue()
q.close()
section("limited")
with HybridQueue("q", memory_size=n, rate_limit=RateLimit(1e9)) as q:
    for item in items: q.enqueue(item)
section("levels")
with PriorityQueue("q", memory_size=n) as q:
    for item in items: q.enqueue(item, item[-1])
    for item in items: q.dequeue()
section("circular")
with CircularBuffer(100) as q:
    for item in items: q.push(item)
    q.get_last(10), list(q)
section("drop-in")
q = Queue()
for item in items: q.put(item)
for item in items: q.get(), q.task_done()
section(None)
async def awaited():
    async with AsyncHybridQueue("q", memory_size=n) as q:
        section("awaited")
        for item in items: await q.enqueue(item)
        for item in items: await q.dequeue()
        await q.enqueue_batch(items)
        section(None)
asyncio.run(awaited())
""")
    assert len(life) == 6
    for name, calls in life.items():
        called = {call: count for call, count in calls.own.items() if call not in ("mmap", "munmap", "brk", "madvise")}  # more memory, less memory
        assert set(called) <= LIFE_IN_MEMORY and sum(called.values()) <= LIFE_IN_MEMORY_MOST, (name, called)
        assert calls.each(N) == NOTHING and not calls.others, (name, calls)


def test_a_stream_writes_to_its_file_only_what_does_not_fit_into_memory(sections: Sections) -> None:
    stream = sections("""
q = StreamQueue("cam", n, where, rate_limit=None, _background=False)
section("in memory")
for item in items: q.enqueue(item)
section("behind it")
for item in items: q.enqueue(item)
section("taken")
for item in items: q.dequeue()
section("read back")
for item in items: q.dequeue()
""")
    assert {name: calls.each(N) for name, calls in stream.items()} == {"in memory": NOTHING, "behind it": {"pwrite64": 1.0}, "taken": NOTHING, "read back": NOTHING}


VERBS = """
q = queue(_plain=plain)
q.enqueue("makes the first segment")
section("enqueue")
for item in items: q.enqueue(item)
q.dequeue()
section("dequeue")
for item in items: q.dequeue()
q.enqueue_batch(items)
section("lease and ack")
for item in items: q.lease().ack()
section("any value")
for item in items: q.enqueue((1, "any", {"value": item}))
section(None)
cold = queue("cold", 2, _plain=plain)
section("spilled")
for item in items: cold.enqueue(item)
section("read back")
for item in items: cold.dequeue()
"""


@pytest.mark.parametrize(("plain", "pinned"), [(False, MAPPED), (True, PLAIN)], ids=["mapped", "plain"])
def test_every_operation_is_in_the_log_at_a_known_price(sections: Sections, plain: bool, pinned: dict[str, dict[str, float]]) -> None:
    verbs = sections(f"plain = {plain}" + VERBS)
    assert {name: calls.each(N) for name, calls in verbs.items()} == pinned
    assert verbs["read back"].own["pread64"] <= READS_MOST
    assert all(calls.own["fdatasync"] <= 2 for calls in verbs.values()), "only where a segment is full"


def test_under_power_an_operation_is_one_sync_and_a_batch_of_a_thousand_is_one_too(sections: Sections) -> None:
    n = 100
    power = sections("""
q = queue(durability=Durability.POWER)
q.enqueue("makes the first segment")
q.dequeue()
section("enqueue")
for item in items: q.enqueue(item)
section("dequeue")
for item in items: q.dequeue()
section("batch in")
q.enqueue_batch(items * 10)
section("batch out")
q.dequeue_batch(10 * n)
section(None)
q.enqueue_batch(items)
section("lease")
deliveries = [q.lease() for item in items]
section("ack")
for delivery in deliveries: delivery.ack()
section(None)
""", n)
    assert {name: calls.each(1 if "batch" in name else n) for name, calls in power.items()} == {
        "enqueue": SYNC, "dequeue": SYNC, "batch in": SYNC, "batch out": SYNC,
        "lease": SYNC,  # how often it was tried must not be forgotten
        "ack": SYNC,
    }  # fmt: skip


def test_opening_asks_for_no_more_when_more_is_waiting(sections: Sections) -> None:
    opening = sections("""
for count in (1, n):
    with queue(str(count)) as q: q.enqueue_batch(items[:count])
for count in (1, n):
    section(str(count))
    q = queue(str(count))
    section(None)
""")
    assert opening["1"].own.total() == opening[str(N)].own.total()


def test_the_pump_is_woken_for_pages_and_segments_not_for_items(sections: Sections) -> None:
    n = 10_000
    busy = sections("""
q = queue(_background=True, sync_interval=None)
q.enqueue("makes the first segment, and starts the threads")
section("both")
for item in items: q.enqueue(item)
for item in items: q.dequeue()
section(None)
""", n)["both"]
    assert busy.each(n) == NOTHING
    assert 1000 * (busy.own + busy.others).total() <= SHARED * n, busy


# --- at rest: what each thread of a process sleeps in is asked of the kernel


def at_rest(where: Path, program: str) -> list[Asleep]:
    asleep = traced(BEGIN + "def apart(call, *args): threading.Thread(target=call, args=args).start()\n" + program + "\nrest()\n", where, 10).asleep
    assert asleep.pop(0) == Asleep("pause", None), "the program itself"
    return asleep


def test_queues_at_rest_are_not_looked_at(tmp_path: Path) -> None:
    """Consumers and producers that wait, items that wait, in memory and on disk: once what was due is done (syncs, seals), no thread ever wakes by itself."""
    asleep = at_rest(tmp_path, """
for name, options in {"memory": {}, "process": {"sync_interval": 0.01}, "never": {"sync_interval": None}, "power": {"durability": Durability.POWER}}.items():
    q = HybridQueue(name, None if name == "memory" else where, **options)
    q.enqueue("begins the log")
    q.dequeue()
    apart(q.dequeue)
spilled = HybridQueue("spilled", where, memory_size=2)
spilled.enqueue_batch(items)
stream = StreamQueue("stream", 2, where)
for item in items: stream.enqueue(item)
empty = StreamQueue("empty", 2, where)
apart(empty.dequeue)
full = HybridQueue("full", memory_size=1, when_full=WhenFull.BLOCK)
full.enqueue("all there is room for")
apart(full.enqueue, "waits for room")
crammed = HybridQueue("crammed", where, max_disk_size=256 * KiB, when_full=WhenFull.BLOCK)
apart(lambda: [crammed.enqueue(bytes(1000)) for _ in range(1000)])
q = HybridQueue("awaited")
apart(lambda: asyncio.run(q.aio.dequeue()))
""")
    assert all(thread.wakes_in_s is None for thread in asleep), asleep
    assert {thread.call for thread in asleep} <= {"futex", "epoll_wait", "epoll_pwait"}
    assert len(asleep) == 4 + 1 + 2 + 1 + 2, "those who wait; for all queues together the pump, and who backs pages"


def test_what_is_due_later_is_one_appointment_and_until_then_nothing_is_done(tmp_path: Path) -> None:
    """A lease, a delayed item, one with a time to live, somebody who waits for so long: the pump sleeps until the first of these, the others are no more than their own sleep."""
    asleep = at_rest(tmp_path, """
leased = HybridQueue("leased", where, lease_timeout=1000)
leased.enqueue_batch(items)
held = leased.lease_batch(3)
delayed = HybridQueue("delayed", where)
delayed.enqueue("later", delay=2000)
apart(delayed.dequeue)
apart(lambda: asyncio.run(delayed.aio.dequeue()))
expiring = HybridQueue("expiring", where, ttl=40_000)
expiring.enqueue_batch(items)
recent = CircularBuffer(10, ttl=40_000)
recent.push("an event")
apart(HybridQueue("bounded").dequeue, 5000)
""")
    wakes = sorted(round(thread.wakes_in_s, -2) for thread in asleep if thread.wakes_in_s is not None)
    assert wakes == [1000, 5000], asleep
    assert len(asleep) == 3 + 2
