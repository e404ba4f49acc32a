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
    due_ns: int = 0  # when it is to be in line, if it was ever delayed
    due_kept_ns: int = 0  # what of that outlives the process: where the disk was full, what it was before
    dies_again: bool = False  # a dead letter that the disk had no room for: in line again in the next life

    def expired(self, now_ns: int) -> bool:
        return 0 < self.expiry_ns <= now_ns


@dataclass
class Reference:
    max_attempts: int | None = None
    lines: dict[int, list[Item]] = field(default_factory=dict)
    delayed: list[Item] = field(default_factory=list)
    dead: list[Item] = field(default_factory=list)  # first to die first
    leased: list[Item] = field(default_factory=list)
    books: Counter[str] = field(default_factory=Counter)
    _numbers: int = 0

    # --- in

    def put(self, value: Any, priority: int = 128, expiry_ns: int = 0, front: bool = False, due_ns: int = 0) -> Item:
        self._numbers += 1
        item = Item(value, priority, -self._numbers if front else self._numbers, expiry_ns, due_ns=due_ns, due_kept_ns=due_ns)
        if due_ns:
            self.delayed.append(item)
        else:
            self.place(item)
        self.books["enqueued"] += 1
        return item

    def place(self, item: Item) -> None:
        bisect.insort(self.lines.setdefault(item.priority, []), item, key=lambda each: each.place)

    def rise(self, now_ns: int) -> None:
        """What is due is in line, at its place; what has expired before is gone."""
        due = [item for item in self.delayed if item.due_ns <= now_ns]
        for item in due:
            self.delayed.remove(item)
            if item.expired(now_ns):
                self.books["expired"] += 1
            else:
                self.place(item)

    # --- out

    def waiting(self) -> list[Item]:
        """Everything in line, in order of leaving, expired or not."""
        return [item for priority in sorted(self.lines, reverse=True) for item in self.lines[priority]]

    def alive(self, now_ns: int) -> list[Item]:
        self.rise(now_ns)
        return [item for item in self.waiting() if not item.expired(now_ns)]

    def _leave(self, item: Item) -> None:
        (self.delayed if item in self.delayed else self.lines[item.priority]).remove(item)

    def expire(self, now_ns: int) -> int:
        gone = [item for item in [*self.waiting(), *self.delayed] if item.expired(now_ns)]
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
        taken: list[Item] = []
        for item in self.alive(now_ns):
            if len(taken) == n:
                break
            self._leave(item)
            if self.exhausted(item):
                self.dead.append(item)  # the process ended in its last attempt
                continue
            item.attempts = min(item.attempts + 1, 255)
            taken.append(item)
        self.leased += taken
        return taken

    def exhausted(self, item: Item) -> bool:
        return self.max_attempts is not None and item.attempts >= self.max_attempts

    def ack(self, item: Item) -> None:
        self.leased.remove(item)
        self.books["dequeued"] += 1

    def give_back(self, items: list[Item]) -> None:
        for item in items:
            self.leased.remove(item)
            if self.exhausted(item):
                self.dead.append(item)
            else:
                self.place(item)
        self.books["redelivered"] += len(items)

    def postpone(self, item: Item, due_ns: int) -> None:
        self.leased.remove(item)
        self.books["redelivered"] += 1
        if self.exhausted(item):
            self.dead.append(item)
        else:
            item.due_ns = item.due_kept_ns = due_ns
            self.delayed.append(item)

    def reject(self, item: Item) -> None:
        self.leased.remove(item)
        self.dead.append(item)
        self.books["redelivered"] += 1

    # --- dead letters

    def replay(self, items: list[Item], expiry_ns: int) -> None:
        for item in items:
            self.dead.remove(item)
            self._numbers += 1
            item.place, item.attempts, item.expiry_ns = self._numbers, 0, expiry_ns
            item.due_ns = item.due_kept_ns = 0
            item.dies_again = False
            self.place(item)

    def bury_for_good(self, items: list[Item], book: str) -> None:
        for item in items:
            self.dead.remove(item)
        self.books[book] += len(items)

    # --- the end of a process

    def restart(self, now_ns: int) -> None:
        """Whatever was in somebody's hands is in line again, or waits for its time if the clock says that it has not come; the books begin anew."""
        not_kept = [item for item in self.dead if item.dies_again]
        for item in not_kept:
            self.dead.remove(item)
            item.dies_again = False
        for item in [*self.leased, *not_kept]:
            self.place(item)
        self.leased.clear()
        for item in [*self.waiting(), *self.delayed]:
            self._leave(item)
            item.due_ns = item.due_kept_ns
            if item.due_ns > now_ns:
                self.delayed.append(item)
            else:
                self.place(item)
        self.books.clear()

    def forget(self, item: Item) -> None:
        """An item that no promise covered is gone."""
        self._leave(item)
