"""Is a history of calls from many threads one that a queue used by one thread at a time could have told? In O(n log n), for distinct values.

A call takes effect at one instant between its invocation and its response; two calls that overlap may have taken effect in either order. A history is judged by what must be so whatever
the instants were (after Henzinger, Sezgin and Vafeiadis, "Aspect-oriented linearizability proofs"):

- a value that comes out was put, not after it came out, and comes out once, and once more for each time that it was given back;
- a value is *surely there* from the end of its put to the beginning of its taking, and again from the end of its return to the beginning of the next. Who is told that the queue is empty had
  an instant at which nothing was surely there;
- if the put of `a` ended before that of `b` began, `a` is *ahead* of `b`, wherever it has been in between; of what was put in front everything that was not, and of two in front the later one. Who
  is given a value had an instant at which nothing ahead of it was surely there;
- with priorities: nor anything of higher priority; the rule before this one holds within a level.

For a FIFO queue of which nothing is given back these rules are exact: a history breaks none if and only if it can be put in a line. Otherwise they are true of every right history, and may miss a
wrong one in which the instants of several takings contradict each other only together.

The values of one batch are put in their order, and those of one answer are taken in theirs.
"""
from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple


class Put(NamedTuple):
    """A call that put these values, in this order."""

    invoked: float
    responded: float
    values: tuple[Hashable, ...]
    priority: int = 0
    front: bool = False
    """Before everything of its priority."""


class Take(NamedTuple):
    """A call that was given these values, in this order; with none, it was told that the queue is empty."""

    invoked: float
    responded: float
    values: tuple[Hashable, ...] = ()


class Back(NamedTuple):
    """A call that gave this value back to its old place; of a delayed return, shifted by the delay."""

    invoked: float
    responded: float
    value: Hashable


Call = Put | Take | Back


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

    def add_all(self, life: Life) -> None:
        for start, end in life.stays():
            self.add(start, end)

    def all_of(self, invoked: float, responded: float) -> bool:
        """Whether there is no instant of a call that is outside."""
        at = bisect_left(self.starts, invoked) - 1
        return at >= 0 and self.ends[at] > responded


@dataclass
class Life:
    """One value, from its put on."""

    put: Put
    takes: list[Take] = field(default_factory=list)
    backs: list[Back] = field(default_factory=list)

    def stays(self) -> Iterator[tuple[float, float]]:
        """When it was surely there."""
        comes = [self.put.responded, *(back.responded for back in self.backs)]
        goes = [take.invoked for take in self.takes]
        return zip(comes, [*goes, math.inf])

    def takings(self) -> Iterator[tuple[float, float]]:
        """Between which instants it was taken: not before it had come."""
        comes = [self.put.invoked, *(back.invoked for back in self.backs)]
        return ((max(come, take.invoked), take.responded) for come, take in zip(comes, self.takes))


def broken_rules(history: Iterable[Call]) -> list[Broken]:
    """Every rule that the history breaks. A queue that breaks none has told the truth."""
    calls = sorted(history, key=lambda call: call.invoked)
    lives: dict[Hashable, Life] = {}
    for call in calls:
        if isinstance(call, Put):
            for value in call.values:
                assert value not in lives, f"the test put {value!r} twice"
                lives[value] = Life(call)
    broken = list(_impossible(calls, lives))
    levels: dict[int, dict[Hashable, Life]] = defaultdict(dict)
    for value, life in lives.items():
        levels[life.put.priority][value] = life
    there = SurelyThere()
    for level in sorted(levels, reverse=True):
        broken += _out_of_order(levels[level])
        for value, life in levels[level].items():
            broken += _taken_too_early(value, life, there, "priority")
        for life in levels[level].values():
            for stay in life.stays():
                there.add(*stay)
    for call in calls:
        if isinstance(call, Take) and not call.values and there.all_of(call.invoked, call.responded):
            broken.append(Broken("not empty", (), call.responded))
    broken += _answers_out_of_order(calls, lives)
    return broken


def _impossible(calls: list[Call], lives: dict[Hashable, Life]) -> Iterator[Broken]:
    """The first rule. A taking that breaks it is told of and left out of the value's life."""
    for call in calls:
        for value in call.values if isinstance(call, Take) else ():
            life = lives.get(value)
            if life is None:
                yield Broken("never put", (value,), call.responded)
                continue
            life.takes.append(call)
            if call.responded < life.put.invoked:
                yield Broken("taken before it was put", (value,), call.responded)
        if isinstance(call, Back):
            lives[call.value].backs.append(call)
    for value, life in lives.items():
        # Whoever gives a value back has been given it: each taking has ended before the next can begin, however early that was asked for.
        takes, life.takes = sorted(life.takes, key=lambda take: take.responded), []
        for take in takes:
            n = len(life.takes)
            if n > len(life.backs) or (n and take.responded < life.backs[n - 1].invoked):
                yield Broken("taken twice", (value,), take.responded)
            else:
                life.takes.append(take)


def _out_of_order(lives: dict[Hashable, Life]) -> Iterator[Broken]:
    """The third rule, for the values of one level, and the order within a batch."""
    ahead = SurelyThere()
    in_front = {value: life for value, life in lives.items() if life.put.front}
    behind = {value: life for value, life in lives.items() if not life.put.front}
    later = sorted(in_front.values(), key=lambda life: life.put.invoked)
    for value in sorted(in_front, key=lambda value: -in_front[value].put.responded):
        while later and later[-1].put.invoked > in_front[value].put.responded:
            ahead.add_all(later.pop())
        yield from _taken_too_early(value, in_front[value], ahead, "order")
    for life in later:
        ahead.add_all(life)
    ended = sorted(behind.values(), key=lambda life: -life.put.responded)
    for value in sorted(behind, key=lambda value: behind[value].put.invoked):
        while ended and ended[-1].put.responded < behind[value].put.invoked:
            ahead.add_all(ended.pop())
        yield from _taken_too_early(value, behind[value], ahead, "order")
    for put in {id(life.put): life.put for life in behind.values() if len(life.put.values) > 1}.values():
        ahead = SurelyThere()
        for value in put.values:
            yield from _taken_too_early(value, lives[value], ahead, "order in a batch")
            ahead.add_all(lives[value])


def _taken_too_early(value: Hashable, life: Life, ahead: SurelyThere, rule: str) -> Iterator[Broken]:
    for invoked, responded in life.takings():
        if ahead.all_of(invoked, responded):
            yield Broken(rule, (value,), responded)


def _answers_out_of_order(calls: list[Call], lives: dict[Hashable, Life]) -> Iterator[Broken]:
    """Values of one answer stand in it as they stood in line, but for those that joined the line ahead of others while the answer was put together."""
    mixed = {life.put.priority for life in lives.values() if life.put.front}
    for call in calls:
        if not isinstance(call, Take):
            continue
        latest: dict[int, tuple[float, Hashable]] = {}  # by level: the latest beginning of a put, and of which value
        within: dict[int, int] = {}  # by put: how far its values have come
        for value in call.values:
            life = lives.get(value)
            if life is None or life.backs or life.put.priority in mixed:
                continue
            mine = life.put
            began, whose = latest.get(mine.priority, (-math.inf, None))
            place = mine.values.index(value) if len(mine.values) > 1 else 0
            if mine.responded < began or place < within.get(id(mine), 0):
                yield Broken("order in an answer", (whose, value), call.responded)
            within[id(mine)] = place
            latest[mine.priority] = max((began, whose), (mine.invoked, value), key=lambda seen: seen[0])
