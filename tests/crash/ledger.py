"""The judge's book: what a queue was told, what it acknowledged, and what it may therefore hold after a crash.

Every operation is entered twice, as an intent and as acknowledged, so that what was in flight when the world ended is known and nothing more is excused. The book is kept for one thread and
knows the line exactly: an answer out of order is caught while the queue lives.

An item's number is its key, its place in the log, and in its payload: whatever comes back says which item it is, and whether it is intact.
"""
from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

NOT, FLYING, ACKED, SOLID = range(4)
"""How far something got: not begun, begun, acknowledged, acknowledged and on stable storage (or what counts as such)."""


@lru_cache(maxsize=65536)
def payload(key: int, size: int) -> bytes:
    head = key.to_bytes(6, "big") + size.to_bytes(4, "big")
    return (head + random.Random(key).randbytes(max(0, size - len(head))))[: max(size, len(head))]


def key_of(item: object) -> int:
    """Which item this is. Fails if it is not exactly one that was ever put."""
    assert isinstance(item, bytes), f"an item of type {type(item).__name__} was never put"
    key, size = int.from_bytes(item[:6], "big"), int.from_bytes(item[6:10], "big")
    assert len(item) >= 10 and item == payload(key, min(size, 1 << 24)), f"a wrong payload: {item[:16]!r}… of {len(item)} bytes"
    return key


@dataclass
class Entry:
    key: int
    size: int
    priority: int
    front: bool
    batch: int
    put: int = FLYING
    removed: int = NOT
    leases: int = 0
    """Begun."""
    leases_kept: int = 0
    """Acknowledged (POWER, or no more than a kill), or synced."""
    leases_acked: int = 0
    out: bool = False

    @property
    def place(self) -> tuple[int, int]:
        return -self.priority, -self.key if self.front else self.key


class Broken(AssertionError):
    """A promise was."""


class Ledger:
    def __init__(self, *, power: bool) -> None:
        self.power = power
        """Every acknowledged operation is on stable storage."""
        self.entries: dict[int, Entry] = {}
        self.next_key = 1
        self.flying: list[Entry] = []
        self.flying_removals: list[Entry] = []
        self.line: list[Entry] = []
        """What waits, in order."""

    # --- events; `acked` ends what was begun last

    def begin_put(self, sizes: Sequence[int], priority: int = 128, front: bool = False) -> list[bytes]:
        first = self.next_key
        self.flying = [Entry(first + i, max(size, 10), priority, front, first) for i, size in enumerate(sizes)]
        self.next_key += len(sizes)
        self.entries.update((entry.key, entry) for entry in self.flying)
        return [payload(entry.key, entry.size) for entry in self.flying]

    def acked_put(self) -> None:
        for entry in self.flying:
            entry.put = SOLID if self.power else ACKED
        self._join(self.flying)
        self.flying = []

    def refused_put(self) -> None:
        """It raised: under every error that means "not in the queue"."""
        for entry in self.flying:
            del self.entries[entry.key]
        self.flying = []

    def begin_take(self, n: int = 1) -> None:
        self.flying_removals = self.line[:n]
        for entry in self.flying_removals:
            entry.removed = FLYING

    def acked_take(self, items: Iterable[object]) -> None:
        self.took([key_of(item) for item in items])

    def took(self, keys: list[int]) -> None:
        expected = [entry.key for entry in self.line[: len(keys)]]
        if keys != expected or (len(keys) < len(self.flying_removals)):
            raise Broken(f"out of order: got {keys}, the line is {[entry.key for entry in self.line[: len(keys) + 3]]}")
        for entry in self.flying_removals[: len(keys)]:
            entry.removed = SOLID if self.power else ACKED
        self.line = self.line[len(keys) :]
        self.flying_removals = []

    def refused_take(self) -> None:
        for entry in self.flying_removals:
            entry.removed = NOT
        self.flying_removals = []

    def begin_lease(self) -> None:
        if self.line:
            self.line[0].leases += 1

    def acked_lease(self, item: object, attempts: int) -> int:
        return self.leased(key_of(item), attempts)

    def leased(self, key: int, attempts: int) -> int:
        entry = self.line.pop(0)
        if key != entry.key:
            raise Broken(f"out of order: leased {key}, first in line is {entry.key}")
        if not entry.leases_kept < attempts <= entry.leases:
            raise Broken(f"item {entry.key} is at attempt {attempts}: {entry.leases} were begun, {entry.leases_kept} are on record")
        entry.leases = entry.leases_acked = attempts
        if self.power:
            entry.leases_kept = attempts
        entry.out = True
        return entry.key

    def begin_ack(self, key: int) -> None:
        self.flying_removals = [self.entries[key]]
        self.entries[key].removed = FLYING

    def acked_ack(self) -> None:
        for entry in self.flying_removals:
            entry.removed, entry.out = SOLID if self.power else ACKED, False
        self.flying_removals = []

    def acked_nack(self, key: int) -> None:
        self.entries[key].out = False
        self._join([self.entries[key]])

    def synced(self) -> None:
        """`sync()` returned, or `close()`."""
        for entry in self.entries.values():
            entry.put = SOLID if entry.put == ACKED else entry.put
            entry.removed = SOLID if entry.removed == ACKED else entry.removed
            entry.leases_kept = entry.leases_acked

    def closed(self) -> None:
        self.synced()
        self._all_back()

    def _join(self, entries: Iterable[Entry]) -> None:
        self.line.extend(entries)
        self.line.sort(key=lambda entry: entry.place)

    def _all_back(self) -> None:
        back = [entry for entry in self.entries.values() if entry.out]
        for entry in back:
            entry.out = False
        self._join(back)

    # --- judging

    def copy(self) -> Ledger:
        other = Ledger(power=self.power)
        other.next_key = self.next_key
        other.entries = {key: Entry(**vars(entry)) for key, entry in self.entries.items()}
        other.flying = [other.entries[entry.key] for entry in self.flying]
        other.flying_removals = [other.entries[entry.key] for entry in self.flying_removals]
        other.line = [other.entries[entry.key] for entry in self.line]
        return other

    def judge(self, items: Iterable[object], *, kill: bool) -> list[int]:
        """Whether this is what a queue may hold now. `kill`: the process died and the machine lives; otherwise the power was cut. Returns the keys."""
        keys = [key_of(item) for item in items]
        enough = ACKED if kill else SOLID
        present = set(keys)
        wrong: list[str] = []
        if len(present) != len(keys):
            wrong.append(f"twice: {sorted({key for key in keys if keys.count(key) > 1})}")
        if strangers := present - self.entries.keys():
            wrong.append(f"never put: {sorted(strangers)}")
            raise Broken("; ".join(wrong))
        for key in keys:
            if not self.entries[key]:
                wrong.append(f"never put: {key}")
        order = sorted(present, key=lambda key: self.entries[key].place)
        if len(present) == len(keys) and order != keys:
            wrong.append(f"out of order: {keys}, not {order}")
        lost = [e.key for e in self.entries.values() if e.put >= enough and e.removed == NOT and e.key not in present]
        if lost:
            wrong.append(f"acknowledged and lost: {lost}")
        back = [key for key in keys if self.entries[key].removed >= enough]
        if back:
            wrong.append(f"acknowledged as removed and back: {back}")
        first_missing = min((e.key for e in self.entries.values() if e.removed == NOT and e.key not in present), default=None)
        if first_missing is not None and (after := [key for key in keys if key > first_missing]):
            wrong.append(f"a hole: {first_missing} is missing and {min(after)} is there")
        batches: dict[int, list[Entry]] = {}
        for entry in self.entries.values():
            if entry.removed == NOT:
                batches.setdefault(entry.batch, []).append(entry)
        for batch, members in batches.items():
            n = sum(entry.key in present for entry in members)
            if 0 < n < len(members):
                wrong.append(f"half a batch: {n} of {len(members)} that began with {batch}")
        if wrong:
            raise Broken("; ".join(wrong))
        return keys

    def settle_on(self, keys: Sequence[int], *, kill: bool) -> None:
        """After a crash: the queue holds these, and the book goes on from there."""
        present = set(keys)
        for entry in list(self.entries.values()):
            if entry.key in present:
                entry.put, entry.removed, entry.out = ACKED if kill and not self.power else SOLID, NOT, False
                entry.leases_kept = entry.leases_acked = entry.leases_acked if kill else entry.leases_kept
            elif entry.removed != NOT:
                entry.removed, entry.out = SOLID if self.power else ACKED, False
            else:
                del self.entries[entry.key]
        self.flying, self.flying_removals = [], []
        self.line = [self.entries[key] for key in keys]
