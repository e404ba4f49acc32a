"""Is a history of calls from many threads one that a queue used by one thread at a time could have told? In O(n log n), for distinct values.

A call takes effect at one instant between its invocation and its response; two calls that overlap may have taken effect in either order. A history is judged by what must be so whatever
the instants were (after Henzinger, Sezgin and Vafeiadis, "Aspect-oriented linearizability proofs"):

- a value that comes out was put, not after it came out, and comes out once;
- if the put of `a` ended before that of `b` began, `b` is not taken before the taking of `a` began, nor instead of it;
- a value is *surely there* from the end of its put to the beginning of its taking. Who is told that the queue is empty had an instant at which nothing was surely there;
- with priorities: who is given a value had an instant at which nothing of higher priority was surely there, and the second rule holds within a level.

For a FIFO queue these rules are exact: a history breaks none if and only if it can be put in a line. For priorities they are true of every right history, and may miss a wrong one in
which the instants of several takings contradict each other only together.

The values of one batch are put in their order, and those of one answer are taken in theirs.
"""
from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple


class Put(NamedTuple):
    """A call that put these values, in this order."""

    invoked: float
    responded: float
    values: tuple[Hashable, ...]
    priority: int = 0


class Take(NamedTuple):
    """A call that was given these values, in this order; with none, it was told that the queue is empty."""

    invoked: float
    responded: float
    values: tuple[Hashable, ...] = ()


class Broken(NamedTuple):
    """A rule that a history breaks, and by which values."""

    rule: str
    values: tuple[Hashable, ...]
    at: float


@dataclass
class SurelyThere:
    """The union of open intervals, as disjoint ones in order."""

    starts: list[float] = field(default_factory=list)
    ends: list[float] = field(default_factory=list)

    def add(self, start: float, end: float) -> None:
        if start >= end:
            return
        first = bisect_right(self.ends, start)  # those that end later and
        behind = bisect_left(self.starts, end)  # begin earlier touch it
        if first < behind:
            start, end = min(start, self.starts[first]), max(end, self.ends[behind - 1])
        self.starts[first:behind], self.ends[first:behind] = [start], [end]

    def all_of(self, invoked: float, responded: float) -> bool:
        """Whether there is no instant of a call that is outside."""
        at = bisect_left(self.starts, invoked) - 1
        return at >= 0 and self.ends[at] > responded


def broken_rules(history: Iterable[Put | Take]) -> list[Broken]:
    """Every rule that the history breaks. A queue that breaks none has told the truth."""
    calls = list(history)
    broken: list[Broken] = []
    put: dict[Hashable, Put] = {}
    taken: dict[Hashable, Take] = {}
    for call in calls:
        if isinstance(call, Put):
            for value in call.values:
                assert value not in put, f"the test put {value!r} twice"
                put[value] = call
    for call in calls:
        if isinstance(call, Take):
            for value in call.values:
                if value not in put:
                    broken.append(Broken("never put", (value,), call.responded))
                elif value in taken:
                    broken.append(Broken("taken twice", (value,), call.responded))
                else:
                    taken[value] = call
                    if call.responded < put[value].invoked:
                        broken.append(Broken("taken before it was put", (value,), call.responded))
    levels: dict[int, dict[Hashable, Put]] = defaultdict(dict)
    for value, call in put.items():
        levels[call.priority][value] = call
    there = SurelyThere()
    for level in sorted(levels, reverse=True):
        broken += _out_of_order(levels[level], taken)
        of_level = {id(taken[value]): taken[value] for value in levels[level] if value in taken}
        for take in of_level.values():
            if there.all_of(take.invoked, take.responded):
                broken.append(Broken("priority", tuple(value for value in take.values if value in levels[level]), take.responded))
        for value, call in levels[level].items():
            there.add(call.responded, taken[value].invoked if value in taken else math.inf)
    for call in calls:
        if isinstance(call, Take) and not call.values and there.all_of(call.invoked, call.responded):
            broken.append(Broken("not empty", (), call.responded))
    broken += _answers_out_of_order(calls, put)
    return broken


def _out_of_order(put: dict[Hashable, Put], taken: dict[Hashable, Take]) -> list[Broken]:
    """The second rule, for the values of one level, and the order within a batch."""
    broken = []
    ended = sorted(put, key=lambda value: put[value].responded)
    latest, whose, at = -math.inf, None, 0  # the latest beginning of a taking, among the values whose put ended before this one began
    for value in sorted(put, key=lambda value: put[value].invoked):
        while at < len(ended) and put[ended[at]].responded < put[value].invoked:
            began = taken[ended[at]].invoked if ended[at] in taken else math.inf
            if began > latest:
                latest, whose = began, ended[at]
            at += 1
        if value in taken and taken[value].responded < latest:
            broken.append(Broken("order", (whose, value), taken[value].responded))
    for call in {id(call): call for call in put.values()}.values():
        latest, whose = -math.inf, None
        for value in call.values:
            if value in taken and taken[value].responded < latest:
                broken.append(Broken("order in a batch", (whose, value), taken[value].responded))
            began = taken[value].invoked if value in taken else math.inf
            if began > latest:
                latest, whose = began, value
    return broken


def _answers_out_of_order(calls: list[Put | Take], put: dict[Hashable, Put]) -> list[Broken]:
    """Values of one answer stand in it as they stood in line."""
    broken = []
    for call in calls:
        if not isinstance(call, Take):
            continue
        latest: dict[int, tuple[float, Hashable]] = {}  # by level: the latest beginning of a put, and of which value
        within: dict[int, int] = {}  # by put: how far its values have come
        for value in call.values:
            if value not in put:
                continue
            mine = put[value]
            began, whose = latest.get(mine.priority, (-math.inf, None))
            place = mine.values.index(value) if len(mine.values) > 1 else 0
            if mine.responded < began or place < within.get(id(mine), 0):
                broken.append(Broken("order in an answer", (whose, value), call.responded))
            within[id(mine)] = place
            latest[mine.priority] = max((began, whose), (mine.invoked, value), key=lambda seen: seen[0])
    return broken
