"""The judge's book: what a queue was told, what it acknowledged, and what it may therefore hold after a crash.

Every operation is entered twice, as an intent and as acknowledged, so that what was in flight when the world ended is known and nothing more is excused. The book is kept for one thread and
knows the line exactly: an answer out of order is caught while the queue lives.

An item's number is its key and in its payload: whatever comes back says which item it is, and whether it is intact. It is *written* when it is enqueued, and again whenever it moves (delayed, given
up, put back): its records, each with a number that says where in the log it stands. A crash cuts the log somewhere, and then every item is as its last record before the cut says: waiting, delayed,
dead; or it is settled. `judge` looks for a cut that explains everything that was found, among those that the promises allow.
"""
from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, NamedTuple

NOT, FLYING, ACKED, SOLID = range(4)
"""How far a removal got: not begun, begun, acknowledged, acknowledged and on stable storage (or what counts as such)."""

LINE, DELAYED, DEAD = "in line", "delayed", "dead"
"""Where an item is that is in the queue, and in nobody's hands."""


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


class Seen(NamedTuple):
    """One item as it was found in a queue."""

    key: int
    size: int
    where: str
    attempts: int
    rank: tuple[int, int]
    """Where it stands, or will stand, in line."""
    due_ns: int = 0
    reason: str = ""


def look(q: Any) -> list[Seen]:
    """Everything that is in a queue and in nobody's hands: what is in line, in order; then what is delayed; then the dead letters, in order."""
    from overspill._runtime.apart import REASONS
    from overspill._store import layout

    def seen(claim: Any, where: str, due_ns: int = 0, reason: str = "") -> Seen:
        item = q._item_of(claim)
        sequence = -claim.sequence if claim.flags & layout.RECORD_FLAG_FRONT else claim.sequence
        return Seen(key_of(item), len(item), where, q._attempts_of(claim), (-claim.priority, sequence), due_ns, reason)

    found = [seen(claim, LINE) for claim in q._waiting_claims()]
    assert [each.key for each in found] == [key_of(item) for item in q], "the line is told in two ways"
    found += [seen(claim, DELAYED, claim.time_ns) for claim in q._timed_claims(layout.DELAYED_LINE)]
    dead = [seen(claim, DEAD, reason=REASONS[q._death_of(claim).reason]) for claim in q._timed_claims(layout.DEAD_LINE)]
    assert [(each.key, each.attempts, each.reason) for each in dead] == [(key_of(letter.item), letter.attempts, letter.reason) for letter in q.dead_letters]
    found += dead
    counted = q.stats()
    assert counted.balance == 0, counted
    assert (counted.waiting, counted.delayed, counted.dead_letters) == tuple(sum(each.where == where for each in found) for where in (LINE, DELAYED, DEAD)), (counted, found)
    return found


@dataclass
class Record:
    """An item as it was written: when it was enqueued, and again whenever it moved."""

    number: int
    """Where in the log."""
    place: tuple[int, int]
    """Its place in line: of an earlier life or of this one, and its number there; negative in front."""
    where: str = LINE
    due_ns: int = 0
    reason: str = ""
    begun: int = 0
    """Attempts, with those before it was written."""
    acked: int = 0
    kept: int = 0
    """Acknowledged under POWER, or synced."""

    def where_at(self, now_ns: int) -> str:
        return LINE if self.where == DELAYED and self.due_ns <= now_ns else self.where


@dataclass
class Entry:
    key: int
    size: int
    priority: int
    records: list[Record] = field(default_factory=list)
    apart: Record | None = None
    """Where it is when that could not be written, for want of room: only as long as the process lives."""
    removed: int = NOT
    out: bool = False
    logged: bool = True
    """Under MEMORY: whether it is known to be in the log."""
    solid: bool = False
    """Under MEMORY: whether it is, on stable storage."""

    @property
    def now(self) -> Record:
        return self.apart or self.records[-1]

    @property
    def place(self) -> tuple[int, tuple[int, int]]:
        return -self.priority, self.now.place

    @property
    def attempts(self) -> int:
        return self.records[-1].acked


class Broken(AssertionError):
    """A promise was."""


class Ledger:
    def __init__(self, *, power: bool, memory: bool = False) -> None:
        self.power = power
        """Every acknowledged operation is on stable storage."""
        self.memory = memory
        """Only what has spilled survives anything."""
        self.life = 0
        self.entries: dict[int, Entry] = {}
        self.next_key = 1
        """Of keys and of records."""
        self.now_ns = 0
        self.cuts: list[int] = [0]
        """The numbers behind which the log may end: a batch is not cut in two."""
        self.acked_upto = self.solid_upto = 0
        self.flying: list[tuple[Entry, Record]] = []
        """What is being written."""
        self.fates: list[bool] = []
        """Of the first so many moves under way: whether the log had room for it."""
        self.flying_removals: list[Entry] = []
        self.line: list[Entry] = []
        """What waits, in order."""
        self.dead: list[Entry] = []
        """The dead letters, in order."""

    def _number(self) -> int:
        self.next_key += 1
        return self.next_key - 1

    # --- events; `acked` ends what was begun last

    def begin_put(self, sizes: Sequence[int], priority: int = 128, front: bool = False, due_ns: int = 0) -> list[bytes]:
        entries = []
        for size in sizes:
            key = self._number()
            place = (-self.life, -key) if front else (self.life, key)
            record = Record(key, place, DELAYED if due_ns else LINE, due_ns)
            entry = Entry(key, max(size, 10), priority, [record], logged=not self.memory)
            self.entries[key] = entry
            self.flying.append((entry, record))
            entries.append(entry)
        self.cuts.append(self.next_key - 1)
        return [payload(entry.key, entry.size) for entry in entries]

    def acked_put(self) -> None:
        self._acked()
        self._join(entry for entry, record in self.flying if record.where == LINE)
        self.flying = []

    def refused_put(self) -> None:
        """It raised: under every error that means "not in the queue"."""
        for entry, _ in self.flying:
            del self.entries[entry.key]
        self.cuts.pop()
        self.flying = []

    def begin_take(self, n: int = 1) -> None:
        self._begin_removal(self.line[:n])

    def took(self, keys: list[int], some: bool = False) -> None:
        """`some`: with one item in hand the queue does not wait for whoever keeps it from the next, such as its own background thread."""
        expected = [entry.key for entry in self.line[: len(keys)]]
        fewer, rest = len(keys) < len(self.flying_removals), self.flying_removals[len(keys) :]
        if keys != expected or (fewer and not (some and keys)):
            raise Broken(f"out of order: got {keys}, the line is {[entry.key for entry in self.line[: len(keys) + 3]]}")
        for entry in rest:
            entry.removed = NOT
        self.flying_removals = self.flying_removals[: len(keys)]
        self.acked_removal()

    def refused_take(self) -> None:
        self._begin_removal([])

    def begin_removal(self, keys: Iterable[int]) -> None:
        """An ack, or out of the middle, or out of the dead letters."""
        self._begin_removal([self.entries[key] for key in keys])

    def _begin_removal(self, entries: list[Entry]) -> None:
        for entry in self.flying_removals:
            entry.removed = NOT
        for entry in entries:
            entry.removed = FLYING
        self.flying_removals = entries

    def acked_removal(self) -> None:
        self._acked()
        for entry in self.flying_removals:
            entry.removed, entry.out = SOLID if self.power else ACKED, False
            self._leave(entry)
        self.flying_removals = []

    def begin_lease(self) -> None:
        """Of the first that is not about to be given up."""
        flying = {entry.key for entry, _ in self.flying}
        first = next((entry for entry in self.line if entry.key not in flying), None)
        if first is not None:
            first.records[-1].begun += 1

    def leased(self, key: int, attempts: int) -> None:
        entry = self.line.pop(0)
        if key != entry.key:
            raise Broken(f"out of order: leased {key}, first in line is {entry.key}")
        record = entry.records[-1]
        if not record.kept < attempts <= record.begun or attempts != record.acked + 1:
            raise Broken(f"item {entry.key} is at attempt {attempts}: {record.begun} were begun, {record.kept} are on record, {record.acked} were acknowledged")
        record.begun = record.acked = attempts
        self._acked()
        if self.power:
            record.kept = attempts
        entry.out = True

    def back(self, key: int) -> None:
        """A lease ended without an ack, and the item is at its old place."""
        entry = self.entries[key]
        entry.out = False
        self._join([entry])

    def begin_moves(self, moves: Iterable[Sequence[Any]]) -> None:
        """Each: the key, where to, when it is due, why it is given up."""
        for key, where, due_ns, reason in moves:
            entry, number = self.entries[key], self._number()
            attempts, place = entry.attempts, entry.now.place
            if entry.now.where == DEAD:
                attempts, place = 0, (self.life, number)
            self.flying.append((entry, Record(number, place, where, due_ns, reason, attempts, attempts, attempts)))
            self.cuts.append(number)

    def moved(self, written: bool) -> None:
        """The next of them is made. Not written, for want of room, it lasts as long as the process."""
        record = self.flying[len(self.fates)][1]
        self.fates.append(written)
        if not written:
            self.cuts.remove(record.number)

    def acked_moves(self, covered: bool = True) -> None:
        """Those that were made are all there is to be; `covered`: whoever asked for them was told so."""
        for (entry, record), written in zip(self.flying, self.fates, strict=False):
            if written:
                entry.records.append(record)
            entry.apart, entry.out = None if written else record, False
            self._leave(entry)
            if record.where == DEAD:
                self.dead.append(entry)
            elif record.where == LINE:
                self._join([entry])
        for _, record in self.flying[len(self.fates) :]:
            self.cuts.remove(record.number)
        self.flying, self.fates = [], []
        self._acked(covered)

    def time(self, now_ns: int) -> None:
        """It is so late; what is due is in line."""
        self.now_ns = now_ns
        there = {entry.key for entry in self.line}
        self._join(entry for entry in self.entries.values() if not entry.removed and not entry.out and entry.key not in there and entry.now.where == DELAYED and entry.now.due_ns <= now_ns)

    def wrote(self, keys: Iterable[int]) -> None:
        """Under MEMORY: these are in the log."""
        for key in keys:
            self.entries[key].logged = True

    def synced(self) -> None:
        """`sync()` returned, or `close()`."""
        self._acked()
        self.solid_upto = self.acked_upto
        for entry in self.entries.values():
            entry.removed = SOLID if entry.removed == ACKED else entry.removed
            entry.solid = entry.logged
            for record in entry.records:
                record.kept = record.acked

    def closed(self) -> None:
        for entry in self.entries.values():
            entry.logged = True
        self.synced()
        self._begin_life()

    def _acked(self, covered: bool = True) -> None:
        self.acked_upto = max(self.acked_upto, self.cuts[-1])
        if self.power and covered:
            self.solid_upto = self.acked_upto

    def _join(self, entries: Iterable[Entry]) -> None:
        self.line.extend(entries)
        self.line.sort(key=lambda entry: entry.place)

    def _leave(self, entry: Entry) -> None:
        for where in (self.line, self.dead):
            if entry in where:
                where.remove(entry)

    def _begin_life(self) -> None:
        """What was in somebody's hands, or apart in memory only, is where its record says."""
        self.flying, self.fates, self.flying_removals, self.line, self.dead = [], [], [], [], []
        for entry in self.entries.values():
            entry.apart, entry.out = None, False
        here = [entry for entry in self.entries.values() if not entry.removed]
        self._join(entry for entry in here if entry.now.where_at(self.now_ns) == LINE)
        self.dead = sorted((entry for entry in here if entry.now.where == DEAD), key=lambda entry: entry.now.number)

    # --- judging

    def copy(self) -> Ledger:
        other = Ledger(power=self.power, memory=self.memory)
        for name in ("life", "next_key", "now_ns", "acked_upto", "solid_upto"):
            setattr(other, name, getattr(self, name))
        other.cuts, other.fates = list(self.cuts), list(self.fates)
        other.entries = {
            key: replace(entry, records=[replace(record) for record in entry.records], apart=entry.apart and replace(entry.apart)) for key, entry in self.entries.items()
        }
        for entry, record in self.flying:
            twin = other.entries[entry.key]
            other.flying.append((twin, next((each for each in twin.records if each.number == record.number), None) or replace(record)))
        other.flying_removals = [other.entries[entry.key] for entry in self.flying_removals]
        other.line = [other.entries[entry.key] for entry in self.line]
        other.dead = [other.entries[entry.key] for entry in self.dead]
        return other

    def says(self) -> str:
        """Everything that a judgement depends on."""
        return repr((self.memory, self.now_ns, self.cuts, self.acked_upto, self.solid_upto, self.fates, [(entry.key, record) for entry, record in self.flying], list(self.entries.values())))

    def newest_unsure(self) -> Ledger:
        """A copy in which the newest write was not acknowledged yet."""
        other = self.copy()
        other.acked_upto = other.solid_upto = min(other.acked_upto, other.cuts[-2])
        return other

    def judge(self, found: Sequence[Seen], *, kill: bool) -> int:
        """Whether this is what a queue may hold now. `kill`: the process died and the machine lives; otherwise the power was cut. Returns the cut that explains it."""
        keys = [each.key for each in found]
        here = {each.key: each for each in found}
        if len(here) != len(keys):
            raise Broken(f"twice: {sorted({key for key in keys if keys.count(key) > 1})}")
        if strangers := here.keys() - self.entries.keys():
            raise Broken(f"never put: {sorted(strangers)}")
        enough = ACKED if kill else SOLID
        if back := [key for key in keys if self.entries[key].removed >= enough and not self.memory]:
            raise Broken(f"acknowledged as removed and back: {back}")
        line = [each for each in found if each.where == LINE]
        if [each.rank for each in line] != sorted(each.rank for each in line):
            raise Broken(f"out of order: {line}")
        if self.memory:
            self._judge_memory(here, kill)
            return self.cuts[-1]
        floor = self.acked_upto if kill else self.solid_upto
        cuts = [cut for cut in self.cuts if cut >= floor]
        why: list[str] = []
        for entry in self.entries.values():
            cuts = self._that_explain(entry, here.get(entry.key), cuts, kill, why)
            if not cuts:
                raise Broken("; ".join(why[-3:]))
        wrong = [self._out_of_order(found, cut) for cut in reversed(cuts)]
        if all(wrong):
            raise Broken(f"out of order: {wrong[0]}")
        return [*reversed(cuts)][wrong.index("")]

    def _records(self, entry: Entry) -> list[Record]:
        made = [record for i, (moved, record) in enumerate(self.flying) if moved is entry and self.fates[i : i + 1] != [False]]
        return entry.records + [record for record in made if record not in entry.records]

    def record_at(self, entry: Entry, cut: int) -> Record | None:
        """The item as the log says that ends there; None if it was not put yet."""
        records = self._records(entry)
        i = bisect_right(records, cut, key=lambda record: record.number)
        return records[i - 1] if i else None

    def _that_explain(self, entry: Entry, seen: Seen | None, cuts: list[int], kill: bool, why: list[str]) -> list[int]:
        """Of these cuts, those at which the item may be as it was found."""
        if seen is None and entry.removed:
            return cuts
        fit, last = [], None
        for cut in cuts:
            record = self.record_at(entry, cut)
            wrong = self._differs(record, seen, kill)
            if not wrong:
                fit.append(cut)
            last = wrong or last
        if last:
            why.append(f"item {entry.key}: {last} (cuts {cuts[0]}…{cuts[-1]} become {fit[:1]}…{fit[-1:]})")
        return fit

    def _differs(self, record: Record | None, seen: Seen | None, kill: bool) -> str:
        if record is None or seen is None:
            return "" if record is seen else f"is there as {seen}, and newer ones are not" if seen else f"is missing: {record}"
        where = record.where_at(self.now_ns)
        if where != seen.where:
            return f"is {seen.where} and not {where}: {record}"
        if where == DELAYED and record.due_ns != seen.due_ns:
            return f"is due at {seen.due_ns}: {record}"
        if record.reason != seen.reason:
            return f"died of {seen.reason!r}: {record}"
        least = record.acked if kill else record.kept
        return "" if least <= seen.attempts <= record.begun else f"has {seen.attempts} attempts, {least} to {record.begun} were made"

    def _out_of_order(self, found: Sequence[Seen], cut: int) -> str:
        def record_of(seen: Seen) -> Record:
            record = self.record_at(self.entries[seen.key], cut)
            assert record is not None
            return record

        for group in ([each for each in found if each.where != DEAD], [each for each in found if each.where == DEAD]):
            dead = bool(group) and group[0].where == DEAD
            said = [each.key for each in (group if dead else sorted(group, key=lambda each: each.rank))]
            told = [each.key for each in sorted(group, key=lambda each: record_of(each).number if dead else (-self.entries[each.key].priority, record_of(each).place))]
            if said != told:
                return f"{said}, not {told}"
        return ""

    def _judge_memory(self, here: dict[int, Seen], kill: bool) -> None:
        """What is known to be in the log must be there as it was last (a power cut may bring an earlier state back); what is not may be there or not."""
        for entry in self.entries.values():
            seen, records = here.get(entry.key), self._records(entry)
            must = entry.logged if kill else entry.solid
            if seen is None:
                if must and not entry.removed:
                    raise Broken(f"had spilled and is lost: {entry}")
                continue
            if entry.removed >= (ACKED if kill else SOLID):
                raise Broken(f"removed and back: {entry}")
            if must and kill:
                records = records[len(entry.records) - 1 :]
            # A record of which it is not known whether it reached the log may say any number of attempts up to now.
            wrong = [self._differs(record, seen._replace(attempts=max(seen.attempts, record.acked if not (must and kill) else 0)), kill) for record in records]
            if all(wrong):
                raise Broken(f"item {entry.key}: {wrong[-1]}")

    def settle_on(self, found: Sequence[Seen], cut: int) -> None:
        """After a crash: the queue holds these, and the book goes on from there."""
        here = {each.key: each for each in found}
        for entry in list(self.entries.values()):
            if entry.key not in here:
                if entry.removed:
                    entry.removed = SOLID if self.power else ACKED
                else:
                    del self.entries[entry.key]
                continue
            entry.records = [record for record in self._records(entry) if record.number <= cut]
            if self.memory:
                while len(entry.records) > 1 and self._differs(entry.records[-1], here[entry.key]._replace(attempts=entry.records[-1].acked), kill=True):
                    entry.records.pop()
            record = entry.records[-1]
            record.begun = record.acked = record.kept = here[entry.key].attempts
            entry.removed, entry.logged, entry.solid = NOT, True, True
        self.cuts = [self.next_key - 1]
        self.acked_upto = self.solid_upto = self.next_key - 1
        self._begin_life()

    def adopt(self, found: Sequence[Seen]) -> None:
        """Take over what somebody else's book knows: these items are there."""
        self.life = 1
        for number, each in enumerate(found, -len(found)):
            record = Record(number, (0, each.rank[1]), each.where, each.due_ns, each.reason, each.attempts, each.attempts, each.attempts)
            self.entries[each.key] = Entry(each.key, each.size, -each.rank[0], [record])
        self._begin_life()
        self.dead = [self.entries[each.key] for each in found if each.where == DEAD]
