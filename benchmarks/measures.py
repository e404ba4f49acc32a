"""Every timed loop of the harness, and what is made of the times.

One loop for all contestants: the bound method in a local name, `for _ in repeat(None, n)`, one clock reading before
and one after. The loop itself is part of every number (some 6 to 9 ns here, the row "the loop itself"); it is not
subtracted, because what is left of a 20 ns operation would then be mostly the error of the subtraction.

The collector stays switched on: a queue that makes objects for it to walk shall pay for that.

Contestants take turns in slices of a few milliseconds, so that whatever else the machine does hits all of them.
"""
from __future__ import annotations

import asyncio
import math
import threading
from array import array
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from operator import sub
from statistics import median
from time import perf_counter_ns
from typing import Any, TypeVar

Put = Callable[[Any], Any]
Get = Callable[[], Any]
T = TypeVar("T")


def time_puts(put: Put, item: Any, n: int) -> int:
    began = perf_counter_ns()
    for _ in repeat(None, n):
        put(item)
    return perf_counter_ns() - began


def time_gets(get: Get, n: int) -> int:
    began = perf_counter_ns()
    for _ in repeat(None, n):
        get()
    return perf_counter_ns() - began


def time_loop(n: int) -> int:
    """The loop around nothing: what every other loop here pays as well."""
    began = perf_counter_ns()
    for _ in repeat(None, n):
        pass
    return perf_counter_ns() - began


def time_cycles(put: Put, get: Get, item: Any, depth: int, cycles: int) -> tuple[int, int]:
    """`cycles` times: `depth` items in, then the same number out. Gives the time of all puts and of all gets."""
    putting = getting = 0
    for _ in repeat(None, cycles):
        putting += time_puts(put, item, depth)
        getting += time_gets(get, depth)
    return putting, getting


def rotated(names: Iterable[T], turn: int) -> list[T]:
    """The same contestants, another one first: who follows the slow one must not always be the same."""
    order = list(names)
    first = turn % len(order)
    return order[first:] + order[:first]


def time_callers(put: Put, item: Any, callers: int, calls: int) -> int:
    """From the moment all callers are let go until the last of them is back."""
    gate = threading.Barrier(callers + 1)
    failures: list[BaseException] = []

    def caller() -> None:
        gate.wait()
        try:
            for _ in repeat(None, calls):
                put(item)
        except BaseException as error:  # a thread's exception would otherwise only be printed, and the time be wrong
            failures.append(error)

    threads = [threading.Thread(target=caller) for _ in range(callers)]
    for thread in threads:
        thread.start()
    gate.wait()
    began = perf_counter_ns()
    for thread in threads:
        thread.join()
    took = perf_counter_ns() - began
    if failures:
        raise failures[0]
    return took


def time_tasks(put: Callable[[Any], Awaitable[None]], item: Any, tasks: int, calls: int) -> int:
    """From the moment all tasks are let go until the last of them is back; one event loop."""

    async def task(go: asyncio.Event) -> None:
        await go.wait()
        for _ in repeat(None, calls):
            await put(item)

    async def all_of_them() -> int:
        go = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            for _ in range(tasks):
                group.create_task(task(go))
            await asyncio.sleep(0)
            began = perf_counter_ns()
            go.set()
        return perf_counter_ns() - began

    return asyncio.run(all_of_them())


def stamp_puts(put: Put, item: Any, stamps: array[int]) -> None:
    """Fill `stamps` with the time after each call; the first entry is the time before all of them.

    One reading a call, each the end of one call and the start of the next: a stall between two calls (the
    interpreter hands its lock over only there) counts like one inside.
    """
    clock = perf_counter_ns
    stamps[0] = clock()
    for i in range(1, len(stamps)):
        put(item)
        stamps[i] = clock()


def new_stamps(n: int) -> array[int]:
    """Room for `n` durations, every page of it already touched, so that recording one never faults."""
    stamps = array("q", bytes(8 * (n + 1)))
    for i in range(0, n + 1, 512):
        stamps[i] = 1
    return stamps


@dataclass
class Sample:
    """Times of one kind of operation, a round each."""

    ops: list[int] = field(default_factory=list)
    ns: list[int] = field(default_factory=list)

    def add(self, ns: int, ops: int) -> None:
        self.ns.append(ns)
        self.ops.append(ops)

    @property
    def per_op(self) -> list[float]:
        return [ns / ops for ns, ops in zip(self.ns, self.ops)]

    @property
    def median_ns(self) -> float:
        return median(self.per_op)

    @property
    def mean_ns(self) -> float:
        """All time over all operations: a stall in one round of ten is in here, and not in the median."""
        return sum(self.ns) / sum(self.ops)

    @property
    def spread(self) -> tuple[float, float]:
        """The middle half of the rounds."""
        return quartiles(self.per_op)


def quartiles(values: Iterable[float]) -> tuple[float, float]:
    ordered = sorted(values)
    return quantile(ordered, 0.25), quantile(ordered, 0.75)


def quantile(ordered: Sequence[float], share: float) -> float:
    """The smallest value that at least this share of the values does not exceed."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


@dataclass(frozen=True)
class Ratio:
    """One price over another, from rounds in which both took turns.

    `value` is total over total, so that nothing rare is left out; the median of the rounds stands beside it and says
    what it is when nothing rare happens.
    """

    value: float
    median: float
    spread: tuple[float, float]


def ratio(ours: Sample, theirs: Sample) -> Ratio:
    rounds = [a / b for a, b in zip(ours.per_op, theirs.per_op, strict=True)]
    return Ratio(ours.mean_ns / theirs.mean_ns, median(rounds), quartiles(rounds))


def added(first: Sample, second: Sample) -> Sample:
    """The price of a pair of operations, put and get, as one."""
    return Sample(list(first.ops), [a + b for a, b in zip(first.ns, second.ns, strict=True)])


class Durations:
    """Every single duration of many rounds: what is left of the stamps once they are counted.

    Counted in bins of a tenth of a decade from 10 ns to 10 s, so that a million durations are 90 numbers.
    """

    PER_DECADE = 10
    LOWEST_NS = 10
    BINS = 9 * PER_DECADE

    def __init__(self) -> None:
        self.counts = [0] * self.BINS
        self.slowest: list[int] = []  # of each round
        self.points: list[dict[str, int]] = []  # of each round

    def add(self, stamps: array[int]) -> None:
        ordered = sorted(map(sub, stamps[1:], stamps))
        self.slowest.append(ordered[-1])
        self.points.append(
            {f"p{share * 100:g}": int(quantile(ordered, share)) for share in (0.5, 0.99, 0.999, 0.9999, 0.99999)}
        )
        for ns in ordered:
            self.counts[self._bin(ns)] += 1

    def _bin(self, ns: int) -> int:
        place = int(math.log10(max(ns, self.LOWEST_NS) / self.LOWEST_NS) * self.PER_DECADE)
        return min(place, self.BINS - 1)

    @classmethod
    def edge(cls, place: int) -> float:
        return cls.LOWEST_NS * 10 ** (place / cls.PER_DECADE)

    @property
    def total(self) -> int:
        return sum(self.counts)

    def point(self, name: str) -> float:
        return median(p[name] for p in self.points)

    @property
    def slowest_median(self) -> float:
        return median(self.slowest)
