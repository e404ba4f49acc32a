"""The reference: what a queue is, without memory tiers, disks, threads or time of its own. Plain lists, obviously right.

An item is *waiting* in one of the lines, *leased*, or gone; the books count every way of going. Whoever drives a real queue beside it asks `allows_expiry` where the real
one may notice an expiry sooner or later: an expired item is never handed out, but until somebody looks it may still be counted as waiting.
"""
from __future__ import annotations

import bisect
from collections import Counter
from dataclasses import dataclass, field
from typing import Any


@dataclass(eq=False)
class Item:
    value: Any
    priority: int
    place: int  # its place in its priority's line: a number that grows, or one that falls for what is put in front
    expiry_ns: int = 0
    attempts: int = 0
    id: Any = None

    def expired(self, now_ns: int) -> bool:
        return 0 < self.expiry_ns <= now_ns


@dataclass
class Reference:
    lines: dict[int, list[Item]] = field(default_factory=dict)
    leased: list[Item] = field(default_factory=list)
    books: Counter[str] = field(default_factory=Counter)
    _numbers: int = 0

    # --- in

    def put(self, value: Any, priority: int = 128, expiry_ns: int = 0, front: bool = False) -> Item:
        self._numbers += 1
        item = Item(value, priority, -self._numbers if front else self._numbers, expiry_ns)
        self.place(item)
        self.books["enqueued"] += 1
        return item

    def place(self, item: Item) -> None:
        bisect.insort(self.lines.setdefault(item.priority, []), item, key=lambda each: each.place)

    # --- out

    def waiting(self) -> list[Item]:
        """Everything in line, in order of leaving, expired or not."""
        return [item for priority in sorted(self.lines, reverse=True) for item in self.lines[priority]]

    def alive(self, now_ns: int) -> list[Item]:
        return [item for item in self.waiting() if not item.expired(now_ns)]

    def _leave(self, item: Item) -> None:
        self.lines[item.priority].remove(item)

    def expire(self, now_ns: int) -> int:
        gone = [item for item in self.waiting() if item.expired(now_ns)]
        for item in gone:
            self._leave(item)
        self.books["expired"] += len(gone)
        return len(gone)

    def take(self, n: int, now_ns: int) -> list[Item]:
        taken = self.alive(now_ns)[:n]
        for item in taken:
            self._leave(item)
        self.books["dequeued"] += len(taken)
        return taken

    def remove(self, items: list[Item], book: str) -> None:
        for item in items:
            self._leave(item)
        self.books[book] += len(items)

    # --- leases

    def lease(self, n: int, now_ns: int) -> list[Item]:
        taken = self.alive(now_ns)[:n]
        for item in taken:
            self._leave(item)
            item.attempts = min(item.attempts + 1, 255)
        self.leased += taken
        return taken

    def ack(self, item: Item) -> None:
        self.leased.remove(item)
        self.books["dequeued"] += 1

    def give_back(self, items: list[Item]) -> None:
        for item in items:
            self.leased.remove(item)
            self.place(item)
        self.books["redelivered"] += len(items)

    # --- the end of a process

    def restart(self) -> None:
        """Whatever was in somebody's hands is in line again; the books begin anew."""
        for item in self.leased:
            self.place(item)
        self.leased.clear()
        self.books.clear()

    def forget(self, item: Item) -> None:
        """An item that no promise covered is gone."""
        self._leave(item)
