"""The trials: what stands beside what, in which state, for how long. Each gives an `Outcome`; none judges.

A trial checks that the state is the one its name speaks of before it takes a time (`ours.check`), takes turns with what
it is compared to, and says in `how` what was done, in a sentence that is printed beside the number.
"""
from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from statistics import median
from typing import Any

from overspill import CircularBuffer, Durability

from . import bare, fresh, ours, peers
from .measures import (
    Durations,
    Sample,
    added,
    new_stamps,
    quartiles,
    ratio,
    rotated,
    stamp_puts,
    time_callers,
    time_cycles,
    time_gets,
    time_loop,
    time_puts,
    time_tasks,
)
from .ours import check, open_queue
from .outcome import Figure, Measured, Outcome, Row, ns
from .outage import watch
from .peers import Contestant
from .scratch import Scratch
from .sizes import BATCH, LARGE_BYTES, PAYLOAD_BYTES, RESIDENT, RING, Sizes

ITEM = b"x" * PAYLOAD_BYTES
RECORD_BYTES = 176  # format page, table 2: a header of 72 and the payload, rounded up to 8
SLICE = 10_000  # of operations before the other one has its turn
SYNCED_DEPTH = 100  # items in and out of the contestants that sync each operation
STALL_SYNC_INTERVAL_S = 0.02  # a million enqueues last a fifth of a second; the default of 1 s would sync in none of them


# Every contestant, the same loop ------------------------------------------------------------------------------------


def throughput(scratch: Scratch, sizes: Sizes) -> Outcome:
    """All contestants in turn, each round in a new folder, `RESIDENT` items in and out again and again."""
    lasting = peers.FLOOR + ours.OURS + peers.ON_DISK
    synced = ours.OURS_SYNCED + peers.SYNCED
    samples = {kind: (Sample(), Sample()) for kind in lasting + synced if kind.is_installed()}
    loop = Sample()
    for turn in range(sizes.throughput_rounds):
        loop.add(time_loop(RESIDENT * 100), RESIDENT * 100)
        for kind in rotated(samples, turn):
            puts, gets = samples[kind]
            depth = SYNCED_DEPTH if kind in synced else RESIDENT
            with scratch.short_lived("throughput") as folder:
                _one_round(kind(folder), depth, sizes.throughput_budget_s, puts, gets)
    rows = [Row("the loop itself", loop, loop, "–", "–", "in every number below, not subtracted")]
    for kind in lasting + synced:
        put, get = samples.get(kind, (None, None))
        rows.append(Row(kind.name, put, get, kind.kill, kind.power, kind.note))
    return Outcome(rows=rows)


def _one_round(contestant: Contestant, depth: int, budget_s: float, puts: Sample, gets: Sample) -> None:
    put, get = contestant.put, contestant.get
    try:
        # Warm up, and learn how many cycles fit: first a few operations (the very first make files), then, if they are quick, a whole cycle.
        time_cycles(put, get, ITEM, 5, 1)
        cycle_ns = sum(time_cycles(put, get, ITEM, 20, 1)) * depth / 20
        if cycle_ns < budget_s * 1e9 / 4:
            cycle_ns = min(sum(time_cycles(put, get, ITEM, depth, 1)) for _ in range(2))
        cycles = max(1, int(budget_s * 1e9 / cycle_ns))
        putting, getting = time_cycles(put, get, ITEM, depth, cycles)
        puts.add(putting, depth * cycles)
        gets.add(getting, depth * cycles)
    finally:
        contestant.close()


# In memory ----------------------------------------------------------------------------------------------------------


def resident(scratch: Scratch, sizes: Sizes) -> Outcome:
    """Everything stays in memory, default options: the log is written (PROCESS), nothing is read back."""
    floor: deque[bytes] = deque()
    simple: SimpleQueue[bytes] = SimpleQueue()
    with scratch.short_lived("process") as one, scratch.short_lived("memory") as two:
        process, memory = ours.Process(one), ours.Memory(two)
        for queue in (process, memory):
            time_puts(queue.put, ITEM, RESIDENT)
            check(queue.queue.disk_size == 0, "items meant to be resident have spilled")
            time_gets(queue.get, RESIDENT)
        contestants: dict[str, tuple[Any, Any]] = {
            "deque": (floor.append, floor.popleft),
            "process": (process.put, process.get),
            "simple": (simple.put, simple.get),
            "memory": (memory.put, memory.get),
        }
        puts = {name: Sample() for name in contestants}
        gets = {name: Sample() for name in contestants}
        operations = RESIDENT * sizes.resident_cycles
        for turn in range(sizes.resident_rounds):
            for name in rotated(contestants, turn):
                put, get = contestants[name]
                putting, getting = time_cycles(put, get, ITEM, RESIDENT, sizes.resident_cycles)
                puts[name].add(putting, operations)
                gets[name].add(getting, operations)
        process.close()
        memory.close()

    cycle = f"{RESIDENT} in, {RESIDENT} out, {sizes.resident_cycles} times a turn, {sizes.resident_rounds} turns"
    outcome = Outcome()
    outcome.compare(
        "enqueue_resident",
        ratio(puts["process"], puts["deque"]),
        f"enqueue(bytes of {PAYLOAD_BYTES}); {cycle}",
        f"{ns(puts['process'])} : {ns(puts['deque'])}",
    )
    outcome.compare(
        "dequeue_resident",
        ratio(gets["process"], gets["deque"]),
        f"dequeue(); {cycle}",
        f"{ns(gets['process'])} : {ns(gets['deque'])}",
    )
    memory_pair, simple_pair = added(puts["memory"], gets["memory"]), added(puts["simple"], gets["simple"])
    outcome.compare(
        "memory_pair",
        ratio(memory_pair, simple_pair),
        f"enqueue and dequeue together; {cycle}",
        f"{ns(puts['memory'])} + {ns(gets['memory'])} : {ns(puts['simple'])} + {ns(gets['simple'])}",
    )
    return outcome


def ring(scratch: Scratch, sizes: Sizes) -> Outcome:
    """The newest thousand in memory: every push gives up the oldest."""
    floor: deque[bytes] = deque(maxlen=RING)
    buffer = CircularBuffer(RING)
    pushes = {"deque": floor.append, "buffer": buffer.push}
    samples = {name: Sample() for name in pushes}
    for push in pushes.values():
        time_puts(push, ITEM, RING)
    n = RESIDENT * sizes.resident_cycles
    for turn in range(sizes.resident_rounds):
        for name in rotated(pushes, turn):
            samples[name].add(time_puts(pushes[name], ITEM, n), n)
    check(len(buffer) == RING, "the buffer is not full")
    buffer.close()
    outcome = Outcome()
    outcome.compare(
        "push", ratio(samples["buffer"], samples["deque"]),
        f"push(bytes of {PAYLOAD_BYTES}) into a full buffer of {RING:,}, no TTL; {n:,} a turn, {sizes.resident_rounds} turns", f"{ns(samples['buffer'])} : {ns(samples['deque'])}",
    )
    return outcome


# Through the disk ---------------------------------------------------------------------------------------------------


def spilled(scratch: Scratch, sizes: Sizes) -> Outcome:
    """Far more items than memory, default options; drained by the queue that wrote them, and by one that was reopened."""
    n = sizes.spilled_items
    outcome = Outcome()
    appends, enqueues = Sample(), Sample()
    for key, reopen in (("dequeue_spilled", False), ("dequeue_reopened", True)):
        poplefts, dequeues = Sample(), Sample()
        for _ in range(sizes.spilled_rounds):
            with scratch.short_lived("spilled") as folder:
                queue, floor = open_queue(folder), deque[bytes]()
                appending, enqueueing = _in_turns(
                    n, partial(time_puts, floor.append, ITEM), partial(time_puts, queue.enqueue, ITEM)
                )
                appends.add(appending, n)
                enqueues.add(enqueueing, n)
                if reopen:
                    queue.close()
                    queue = open_queue(folder)
                check(len(queue) == n, "not all items are there")
                on_disk = queue.disk_size
                check(on_disk >= n - 1000, "items meant to be on disk only are in memory")
                popping, dequeueing = _in_turns(
                    on_disk, partial(time_gets, floor.popleft), partial(time_gets, queue.dequeue)
                )
                poplefts.add(popping, on_disk)
                dequeues.add(dequeueing, on_disk)
                queue.close()
        state = "after close and reopen" if reopen else "by the queue that spilled them"
        outcome.compare(
            key,
            ratio(dequeues, poplefts),
            f"dequeue() of {n:,} items on disk only, {state}; turns of {SLICE:,}, {sizes.spilled_rounds} rounds; "
            "files in the page cache",
            f"{ns(dequeues)} : {ns(poplefts)}",
        )
    outcome.compare(
        "enqueue_spilling",
        ratio(enqueues, appends),
        f"{n:,} enqueues into a new queue with memory for 1,000; turns of {SLICE:,}, {2 * sizes.spilled_rounds} rounds; "
        "page population, rolls and background syncs included",
        f"{ns(enqueues)} : {ns(appends)}",
    )
    return outcome


def _in_turns(n: int, floor: Callable[[int], int], queue: Callable[[int], int]) -> tuple[int, int]:
    """Both do `n` operations, in slices, one after the other; gives the time of each."""
    flooring = queueing = 0
    for at in range(0, n, SLICE):
        size = min(SLICE, n - at)
        flooring += floor(size)
        queueing += queue(size)
    return flooring, queueing


def batches(scratch: Scratch, sizes: Sizes) -> Outcome:
    """A batch in and out through memory, then many in before the first comes out."""
    count = sizes.batch_count
    items = [ITEM] * BATCH
    samples = {name: Sample() for name in ("in", "out", "append", "in_spilling", "out_spilled", "append_again")}
    for _ in range(sizes.batch_rounds):
        floor: deque[bytes] = deque()

        def append_all(batches: int) -> int:
            took = 0
            for _ in range(batches):
                took += time_puts(floor.append, ITEM, BATCH)
                floor.clear()
            return took

        with scratch.short_lived("batches") as folder:
            queue = open_queue(folder)
            take = partial(queue.dequeue_batch, BATCH)
            queue.enqueue_batch(items)
            check(len(take()) == BATCH, "a batch came out short")
            totals = [0, 0, 0]
            for at in range(0, count, 10):
                turn = min(10, count - at)
                totals[0] += append_all(turn)
                putting, getting = time_cycles(queue.enqueue_batch, take, items, 1, turn)
                totals[1] += putting
                totals[2] += getting
            for name, total in zip(("append", "in", "out"), totals):
                samples[name].add(total, count * BATCH)

            totals = [0, 0, 0]
            for at in range(0, count, 10):
                turn = min(10, count - at)
                totals[0] += append_all(turn)
                totals[1] += time_puts(queue.enqueue_batch, items, turn)
            check(len(queue) == count * BATCH, "not all batches are there")
            for at in range(0, count, 10):
                totals[2] += time_gets(take, min(10, count - at))
            check(len(queue) == 0, "a batch came out short")
            for name, total in zip(("append_again", "in_spilling", "out_spilled"), totals):
                samples[name].add(total, count * BATCH)
            queue.close()

    how = f"lists of {BATCH:,}, {count} a round, {sizes.batch_rounds} rounds, PROCESS, per item; "
    outcome = Outcome()
    for key, mine, floor_name, state in (
        ("batch_in", "in", "append", "each taken before the next comes"),
        ("batch_out", "out", "append", "each taken before the next comes"),
        ("batch_in_spilling", "in_spilling", "append_again", "all in, then all out"),
        ("batch_out_spilled", "out_spilled", "append_again", "all in, then all out"),
    ):
        outcome.compare(
            key,
            ratio(samples[mine], samples[floor_name]),
            how + state,
            f"{ns(samples[mine])} : {ns(samples[floor_name])}",
        )
    return outcome


def large(scratch: Scratch, sizes: Sizes) -> Outcome:
    """Payloads of 2 MiB beside the same bytes written to and read from one preallocated file, item by item in turns."""
    item = os.urandom(LARGE_BYTES)
    n = sizes.large_items
    names = ("enqueue", "pwrite", "again", "dequeue", "pread")
    samples = {name: Sample() for name in names}
    for _ in range(sizes.large_rounds):
        totals = dict.fromkeys(names, 0)
        with scratch.short_lived("large") as folder, scratch.short_lived("large-bare") as beside:
            queue = open_queue(folder)
            file = bare.BareFile(beside / "payloads", preallocate=n * LARGE_BYTES)
            for i in range(n):
                # Who goes first changes with every item, so that neither always meets a rested disk.
                for name, put in (("enqueue", queue.enqueue), ("pwrite", file.write))[:: 1 if i % 2 else -1]:
                    totals[name] += time_puts(put, item, 1)
            queue.flush_to_disk()
            check(queue.disk_size == n, "payloads meant to be on disk only are in memory")
            for i in range(n):
                pread = partial(os.pread, file.fd, LARGE_BYTES, i * LARGE_BYTES)
                for name, get in (("dequeue", queue.dequeue), ("pread", pread))[:: 1 if i % 2 else -1]:
                    totals[name] += time_gets(get, 1)
            check(len(queue) == 0, "not all payloads came out")
            queue.close()
            file.rewind()
            for _ in range(n):
                totals["again"] += time_puts(file.write, item, 1)
            file.close()
        for name, total in totals.items():
            samples[name].add(total, n)

    def rate(sample: Sample) -> float:
        return LARGE_BYTES / sample.mean_ns * 1e9 / 2**20

    outcome = Outcome()
    outcome.compare(
        "large_in",
        ratio(samples["pwrite"], samples["enqueue"]),
        f"{n} items of 2 MiB, {sizes.large_rounds} rounds, item by item in turns; both into blocks preallocated and never "
        "written, files new in each round; the queue's preallocation is in its time, the bare file's is not",
        f"{rate(samples['enqueue']):,.0f} : {rate(samples['pwrite']):,.0f} MiB/s",
    )
    outcome.compare(
        "large_out",
        ratio(samples["pread"], samples["dequeue"]),
        "the same items, forgotten by flush_to_disk(), and back; both from the page cache",
        f"{rate(samples['dequeue']):,.0f} : {rate(samples['pread']):,.0f} MiB/s",
    )
    outcome.figures.append(
        Figure(
            "os.pwrite over written blocks",
            rate(samples["again"]),
            "MiB/s",
            "the bare file once more, pages still in the cache: what recycled files can give; not what enqueue is held to",
        )
    )
    return outcome


# Through the power cut ----------------------------------------------------------------------------------------------


def power(scratch: Scratch, sizes: Sizes) -> Outcome:
    """`POWER` beside a bare append and sync, then many callers beside one, then a batch beside one sync of its bytes."""
    calls, rounds = sizes.power_calls, sizes.power_rounds
    room = 64 << 20
    outcome = Outcome()
    with scratch.short_lived("power") as folder, scratch.short_lived("power-bare") as beside:
        queue = open_queue(folder, durability=Durability.POWER)
        files = {
            "append": bare.BareFile(beside / "append", append=True),
            "fresh": bare.BareFile(beside / "fresh", preallocate=room),
            "written": bare.BareFile(beside / "written", preallocate=room, initialise=True),
        }
        puts: dict[str, Callable[[bytes], Any]] = {
            "append": files["append"].append_and_sync,
            "ours": queue.enqueue,
            "fresh": files["fresh"].write_and_sync,
            "written": files["written"].write_and_sync,
        }
        samples = {name: Sample() for name in puts}
        for name, put in puts.items():
            time_puts(put, ITEM, 10)
        for turn in range(rounds):
            for name in rotated(puts, turn):
                samples[name].add(time_puts(puts[name], ITEM, calls), calls)
        outcome.compare(
            "power_one",
            ratio(samples["ours"], samples["append"]),
            f"enqueue beside os.write to a growing file and os.fdatasync; {calls} calls in turns, {rounds} rounds",
            f"{ns(samples['ours'])} : {ns(samples['append'])}",
        )
        for name, what in (
            ("fresh", "pwrite into preallocated, never written blocks + fdatasync"),
            ("written", "pwrite into blocks written before + fdatasync"),
        ):
            outcome.figures.append(
                Figure(what, samples[name].mean_ns / 1000, "µs", "in the same turns as POWER, one caller")
            )

        one, many = Sample(), Sample()
        for _ in range(max(2, rounds // 3)):
            one.add(time_puts(queue.enqueue, ITEM, calls), calls)
            many.add(
                time_callers(queue.enqueue, ITEM, sizes.callers, sizes.caller_calls), sizes.callers * sizes.caller_calls
            )
        outcome.compare(
            "power_many",
            ratio(one, many),
            f"{sizes.callers} threads of {sizes.caller_calls} calls each, in turns with one caller; all calls over the "
            "whole time",
            f"{1e9 / many.mean_ns:,.0f} : {1e9 / one.mean_ns:,.0f} calls/s",
        )

        alone, together = Sample(), Sample()
        for _ in range(max(2, rounds // 6)):
            alone.add(time_puts(queue.enqueue, ITEM, calls), calls)
            together.add(time_tasks(queue.aio.enqueue, ITEM, sizes.tasks, sizes.task_calls), sizes.tasks * sizes.task_calls)
        outcome.compare(
            "power_tasks",
            ratio(alone, together),
            f"{sizes.tasks:,} tasks of {sizes.task_calls} awaited calls each on one event loop, in turns with one blocking caller; all calls over the whole time",
            f"{1e9 / together.mean_ns:,.0f} : {1e9 / alone.mean_ns:,.0f} calls/s",
        )

        batch, bytes_of_batch = [ITEM] * BATCH, b"x" * RECORD_BYTES * BATCH
        ours_batch, bare_batch = Sample(), Sample()
        for _ in range(rounds):
            bare_batch.add(time_puts(files["append"].append_and_sync, bytes_of_batch, 5), 5)
            ours_batch.add(time_puts(queue.enqueue_batch, batch, 5), 5)
        outcome.compare(
            "power_batch",
            ratio(ours_batch, bare_batch),
            f"enqueue_batch of {BATCH:,} beside one os.write of as many bytes as the batch takes in the log and one "
            "os.fdatasync; the limit is that of one caller",
            f"{ns(ours_batch)} : {ns(bare_batch)}",
        )
        outcome.figures.append(
            Figure(
                "a batch of 1,000 over one enqueue",
                ours_batch.mean_ns / samples["ours"].mean_ns,
                "×",
                "POWER, both of this run; 1 would be: the bytes of 999 more items cost nothing",
            )
        )
        queue.close()
        for file in files.values():
            file.close()
    return outcome


# The slowest one ----------------------------------------------------------------------------------------------------


def stall(scratch: Scratch, sizes: Sizes) -> Outcome:
    """Every single enqueue of a million, while the queue spills, rolls and syncs."""
    n = sizes.stall_items
    stamps = new_stamps(n)
    floor, floor_syncing, mine = Durations(), Durations(), Durations()
    steps: list[list[int]] = []
    even_steps: list[list[int]] = []
    segments = []
    for _ in range(sizes.stall_rounds):
        items: deque[bytes] = deque(maxlen=1000)
        stamp_puts(items.append, ITEM, stamps)
        floor.add(stamps)
        with scratch.short_lived("stall-floor") as folder, bare.SyncingThread(folder, STALL_SYNC_INTERVAL_S):
            stamp_puts(items.append, ITEM, stamps)
        floor_syncing.add(stamps)
        for found, zeros_first in ((steps, False), (even_steps, True)):
            with scratch.short_lived("stall-bare") as folder:
                found.append(bare.population_steps(folder, n * RECORD_BYTES, zeros_first=zeros_first))
        with scratch.short_lived("stall") as folder:
            queue = open_queue(folder, sync_interval=STALL_SYNC_INTERVAL_S)
            stamp_puts(queue.enqueue, ITEM, stamps)
            check(queue.disk_size >= n - 1000, "the queue did not spill")
            segments.append(sum(1 for _ in folder.rglob("*.seg")))
            queue.close()
        mine.add(stamps)

    outcome = Outcome(
        stalls={
            "Overspill enqueue": mine,
            "deque.append": floor,
            "deque.append beside a thread that syncs": floor_syncing,
        }
    )
    how = (
        f"{n:,} enqueues into a new queue, memory for 1,000, sync_interval={STALL_SYNC_INTERVAL_S}, {segments[-1]} "
        "segments; one clock reading after each call, so that what happens between calls counts; slowest of a round, "
        f"median of {sizes.stall_rounds} rounds, over the same of as many bare steps of {bare.STEP_BYTES >> 10} KiB as "
        "those bytes need; "
    )
    for key, name, found, what in (
        ("stall", "one bare population step", steps, "a step is MADV_POPULATE_WRITE on a preallocated mapping"),
        ("stall_even", "one bare even step", even_steps, "a step is pwrite of zeros and MADV_POPULATE_WRITE"),
    ):
        slowest = [max(of_round) for of_round in found]
        every = [step for of_round in found for step in of_round]
        rounds = [a / b for a, b in zip(mine.slowest, slowest)]
        outcome.measured[key] = Measured(
            mine.slowest_median / median(slowest),
            median(rounds),
            quartiles(rounds),
            how + what,
            f"{mine.slowest_median / 1000:,.0f} µs : {median(slowest) / 1000:,.0f} µs",
        )
        outcome.figures += [
            Figure(f"{name}, median", median(every) / 1000, "µs", f"{len(every):,} steps: {what}"),
            Figure(f"{name}, slowest", median(slowest) / 1000, "µs", "slowest of a round, median of the rounds"),
        ]
    outcome.figures += [
        Figure(
            "slowest deque.append in a million",
            floor.slowest_median / 1000,
            "µs",
            "the noise of this machine: the same loop, nothing but a deque",
        ),
        Figure(
            "slowest deque.append beside a syncing thread",
            floor_syncing.slowest_median / 1000,
            "µs",
            "the same, and a thread that appends 1 MiB and syncs as often as the queue does: what any background sync "
            "costs a Python loop",
        ),
    ]
    return outcome


# Opening, and lasting -----------------------------------------------------------------------------------------------


def opening(scratch: Scratch, sizes: Sizes) -> Outcome:
    """A queue with a large backlog and an empty one, opened by new processes in turns; then once with cold files."""
    with scratch.short_lived("backlog") as full, scratch.short_lived("empty") as empty:
        filled = fresh.run("fill", full, sizes.backlog_items)
        fresh.run("fill", empty, 0)
        opened: dict[str, list[dict[str, Any]]] = {"full": [], "empty": []}
        for _ in range(sizes.opens):
            opened["empty"].append(fresh.run("open", empty))
            opened["full"].append(fresh.run("open", full))
        check(all(one["items"] == sizes.backlog_items for one in opened["full"]), "the backlog is not all there")
        _forget_pages(full)
        cold = fresh.run("open", full)

    def mid(which: str, what: str) -> float:
        return median(one[what] for one in opened[which])

    def more(what: str, unit: float) -> list[float]:
        return [(a[what] - b[what]) / unit for a, b in zip(opened["full"], opened["empty"])]

    how = f"{sizes.backlog_items:,} spilled items; {sizes.opens} new processes each, in turns, files in the page cache"
    outcome = Outcome()
    times, peaks = more("open_ns", 1e6), more("peak_kib", 1024)
    outcome.measured["open_time"] = Measured(
        median(times),
        median(times),
        quartiles(times),
        how,
        f"{mid('full', 'open_ns') / 1e6:.2f} ms : {mid('empty', 'open_ns') / 1e6:.2f} ms",
    )
    outcome.measured["open_memory"] = Measured(
        median(peaks),
        median(peaks),
        quartiles(peaks),
        how + "; peak resident memory over that before opening, first item peeked at",
        f"{mid('full', 'peak_kib') / 1024:.1f} MiB : {mid('empty', 'peak_kib') / 1024:.1f} MiB",
    )
    outcome.figures += [
        Figure(
            "open and look at the first of the backlog", mid("full", "first_item_ns") / 1e6, "ms", "the same processes"
        ),
        Figure(
            "open with cold files",
            cold["open_ns"] / 1e6,
            "ms",
            "once, the files' pages dropped with POSIX_FADV_DONTNEED before",
        ),
        Figure(
            "filling the backlog", filled["ns"] / filled["items"], "ns/item", "enqueue_batch of 1,000, PROCESS"
        ),
    ]
    return outcome


def _forget_pages(folder: Path) -> None:
    os.sync()  # a dirty page cannot be dropped
    for path in folder.rglob("*"):
        if path.is_file():
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(fd)


def flow(scratch: Scratch, sizes: Sizes) -> Outcome:
    """Items pass through a standing backlog; the memory of the process is looked at every hundredth of the way."""
    with scratch.short_lived("flow") as folder:
        done = fresh.run("flow", folder, sizes.flow_items)
    samples = done["samples"][5:]  # after warm-up: segments have grown to their full size, pools are filled
    everything = [sample["all"] / 1024 for sample in samples]
    own = [sample["own"] / 1024 for sample in samples]
    quarter = len(samples) // 4
    growth = median(everything[-quarter:]) - median(everything[:quarter])
    own_growth = median(own[-quarter:]) - median(own[:quarter])
    outcome = Outcome()
    outcome.measured["flow"] = Measured(
        growth,
        growth,
        (growth, growth),
        f"{done['items']:,} items, one by one, waves of {fresh.WAVE:,} over a backlog of {fresh.STANDING:,}; resident "
        "memory every 1 %, the first 5 % left out; median of the last quarter less that of the first",
        f"min {min(everything):.1f}, max {max(everything):.1f} MiB",
    )
    mapped = "VmRSS after warm-up; the mapped pages of segments are in it"
    outcome.figures += [
        Figure("memory while items pass, least", min(everything), "MiB", mapped),
        Figure("memory while items pass, most", max(everything), "MiB", mapped),
        Figure("of it the process's own, most", max(own), "MiB", f"RssAnon; grew by {own_growth:+.2f} MiB"),
        Figure(
            "passing through, an item",
            done["ns"] / done["items"],
            "ns",
            "enqueue and dequeue, most of them through the disk",
        ),
    ]
    return outcome


def outage(scratch: Scratch, sizes: Sizes) -> Outcome:
    """A consumer that goes away for a while: for the picture, and to see that nothing is lost and no order changes."""
    with scratch.short_lived("outage") as folder:
        seen = watch(folder)
    check(seen.delivered[-1] == seen.produced and seen.in_order, "an item was lost or out of order")
    return Outcome(timeline=seen)


Trial = Callable[[Scratch, Sizes], Outcome]
TRIALS: dict[str, Trial] = {
    "throughput": throughput,
    "resident": resident,
    "ring": ring,
    "spilled": spilled,
    "batches": batches,
    "large": large,
    "power": power,
    "stall": stall,
    "opening": opening,
    "flow": flow,
    "outage": outage,
}
