"""A queue and its book: every call is entered as an intent before, and as acknowledged after."""
from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from overspill import Durability, HybridQueue, KiB, PriorityQueue, QueueEmpty, QueueFull
from overspill._runtime.clock import ManualClock, SystemClock
from overspill._store import layout
from overspill._store.log import NoRoom

from .ledger import DEAD, DELAYED, LINE, Ledger, key_of


class HeldClock(SystemClock):
    """Beside the background thread: time passes as it does, but the wall clock stands still until it is set."""

    def __init__(self, wall_ns: int) -> None:
        self.wall_ns = wall_ns
        self._queue: Any = None

    def attach(self, queue: Any) -> None:
        self._queue = queue
        queue._frozen_ns = self.wall_ns

    def jump(self, seconds: float) -> None:
        self.wall_ns += round(seconds * 1e9)
        self._queue._frozen_ns = self.wall_ns


class Watched(HybridQueue):
    """Says of every item that moves whether the log had room for it."""

    book: Ledger
    _short = False

    def _write(self, parcels: Any, append: Any) -> Any:
        try:
            return super()._write(parcels, append)
        except NoRoom:
            self._short = True
            raise

    def _move(self, *args: Any) -> None:
        self._short = False
        super()._move(*args)
        self.book.moved(not self._short)

    def _replay(self, claim: Any) -> None:
        super()._replay(claim)
        self.book.moved(True)


class WatchedPriority(Watched):
    """The other face."""

    enqueue = PriorityQueue.enqueue


class Worker:
    """One owner of one folder. `told` is called after each acknowledged call, when the book is up to date."""

    def __init__(
        self, path: Any, ledger: Ledger, *, told: Callable[[str], None] = lambda _: None, name: str = "q", background: bool = False, face: type[Watched] = Watched, **options: Any,
    ) -> None:
        self.path, self.name, self.ledger, self.told, self.background = path, name, ledger, told, background
        durability = Durability.MEMORY if ledger.memory else Durability.POWER if ledger.power else Durability.PROCESS
        self.options = {"max_disk_size": 256 * KiB, "memory_size": 5, "sync_interval": None, "lease_timeout": 1e6, "durability": durability} | options
        self.clock: Any = (HeldClock if background else ManualClock)(ledger.now_ns or ManualClock().wall_ns)
        self.face = type("Watched", (face,), {"book": ledger})
        self.leases: dict[int, Any] = {}
        self.until: dict[int, float] = {}
        """When the leases end."""
        self.q: Any = None
        self.meanwhile: Callable[[], None] | None = None
        """What another thread does while this one is in the middle of a call."""
        ledger.now_ns = self.clock.wall_ns

    def _done(self, what: str) -> None:
        if self.ledger.memory and not self.q.closed:
            claims = [*self.q._waiting_claims(), *self.q._timed_claims(layout.DELAYED_LINE), *self.q._timed_claims(layout.DEAD_LINE)]
            self.ledger.wrote([key_of(self.q._item_of(claim)) for claim in claims if self.q._locate(claim)[0] is not None])
        self.told(what)

    def open(self) -> Any:
        self.q = self.face(self.name, self.path, _clock=self.clock, _background=self.background, **self.options)
        self.told("open")
        return self.q

    # --- in

    def put(self, size: int = 100, priority: int = 128, delay: float = 0) -> None:
        [item] = self.ledger.begin_put([size], priority, due_ns=self._due(delay))
        self._put("put", lambda: self.q.enqueue(item, priority=priority, delay=delay or None))

    def front(self, size: int = 100, priority: int = 128) -> None:
        [item] = self.ledger.begin_put([size], priority, front=True)
        self._put("front", lambda: self.q.enqueue_front(item, priority=priority))

    def batch(self, sizes: Sequence[int], priority: int = 128, delay: float = 0) -> None:
        items = self.ledger.begin_put(sizes, priority, due_ns=self._due(delay))
        self._put("batch", lambda: self.q.enqueue_batch(items, priority=priority, delay=delay or None))

    def _put(self, what: str, call: Callable[[], object]) -> None:
        try:
            call()
        except Exception:
            self.ledger.refused_put()
            raise
        self.ledger.acked_put()
        self._done(what)

    def _due(self, delay: float) -> int:
        return int(self.clock.wall_ns + round(delay * 1e9)) if delay else 0

    # --- out

    def get(self) -> None:
        self.ledger.begin_take()
        try:
            item = self.q.try_dequeue()
        except QueueEmpty:
            self.ledger.refused_take()
            assert not self.ledger.line, "empty was answered while items wait"
        else:
            self.ledger.took([key_of(item)])
        self._done("get")

    def get_batch(self, n: int) -> None:
        self.ledger.begin_take(n)
        self.ledger.took([key_of(item) for item in self.q.dequeue_batch(n)], some=self.background)
        self._done("get_batch")

    def remove(self, key: int | None = None) -> None:
        """Out of the middle of the line, or of what is delayed."""
        here = [entry.key for entry in self.ledger.entries.values() if not entry.removed and not entry.out and entry not in self.ledger.dead]
        if key is None:
            key = here[len(here) // 2] if here else 0
        self.ledger.begin_removal([key] if key in here else [])
        assert self.q.remove_where(lambda item: key_of(item) == key) == len(self.ledger.flying_removals)
        self.ledger.acked_removal()
        self._done("remove")

    # --- leases

    def lease(self) -> int | None:
        """The first item that has an attempt left; those before it are given up."""
        most = self.options.get("max_attempts")
        exhausted = []
        for entry in self.ledger.line:
            if most is None or entry.attempts < most:
                break
            exhausted.append((entry.key, DEAD, 0, "max_attempts"))
        if len(exhausted) == len(self.ledger.line) == 0:
            return None
        self.ledger.begin_moves(exhausted)
        self.ledger.begin_lease()
        try:
            delivery = self.q.lease(0)
        except QueueEmpty:
            self.ledger.acked_moves(covered=False)
            assert not self.ledger.line, "empty was answered while items wait"
            return None
        if exhausted:
            self.ledger.acked_moves()
        key = key_of(delivery.item)
        self.ledger.leased(key, delivery.attempts)
        self.leases[key] = delivery
        self.until[key] = self.clock.monotonic() + self.options["lease_timeout"]
        self._done("lease")
        return key

    def _held(self, key: int | None) -> int | None:
        return next(iter(self.leases), None) if key is None else key

    def _let_go(self, key: int) -> Any:
        del self.until[key]
        return self.leases.pop(key)

    def ack(self, key: int | None = None) -> None:
        if (key := self._held(key)) is None:
            return
        self.ledger.begin_removal([key])
        self._let_go(key).ack()
        self.ledger.acked_removal()
        self._done("ack")

    def nack(self, key: int | None = None, delay: float = 0) -> None:
        if (key := self._held(key)) is None:
            return
        moves: list[tuple[Any, ...]] = []
        if self._has_no_attempt_left(key):
            moves = [(key, DEAD, 0, "max_attempts")]
        elif delay:
            moves = [(key, DELAYED, self._due(delay), "")]
        self.ledger.begin_moves(moves)
        self._let_go(key).nack(delay)
        if moves:
            self.ledger.acked_moves()
        else:
            self.ledger.back(key)
        self._done("nack")

    def reject(self, key: int | None = None) -> None:
        if (key := self._held(key)) is None:
            return
        self.ledger.begin_moves([(key, DEAD, 0, "rejected")])
        self._let_go(key).reject("in vain")
        self.ledger.acked_moves()
        self._done("reject")

    def extend(self, key: int | None = None, seconds: float = 1e6) -> None:
        if (key := self._held(key)) is None:
            return
        self.leases[key].extend(seconds)
        self.until[key] = self.clock.monotonic() + seconds
        self._done("extend")

    def _has_no_attempt_left(self, key: int) -> bool:
        most = self.options.get("max_attempts")
        return most is not None and self.ledger.entries[key].attempts >= most

    # --- dead letters

    def replay(self, n: int | None = None) -> None:
        dead = [entry.key for entry in self.ledger.dead]
        self.ledger.begin_moves((key, LINE, 0, "") for key in dead[:n])
        with suppress(QueueFull):
            assert self.q.dead_letters.replay(max_items=n) == len(self.ledger.fates)
        self.ledger.acked_moves()
        self._done("replay")

    def take_dead(self) -> None:
        dead = [entry.key for entry in self.ledger.dead[:1]]
        self.ledger.begin_removal(dead)
        with suppress(QueueEmpty):
            assert [key_of(self.q.dead_letters.try_dequeue().item)] == dead
        self.ledger.acked_removal()
        self._done("take_dead")

    def clear_dead(self) -> None:
        self.ledger.begin_removal([entry.key for entry in self.ledger.dead])
        assert self.q.dead_letters.clear() == len(self.ledger.flying_removals)
        self.ledger.acked_removal()
        self._done("clear_dead")

    # --- beside

    def sync(self) -> None:
        self.q.sync()
        self.ledger.synced()
        self._done("sync")

    def work(self, seconds: float = 2.0) -> None:
        """Time passes, and what is due is done: prepare, seal, retire, end leases, let in line what was delayed."""
        if self.background:
            self.ledger.time(self.clock.wall_ns + round(seconds * 1e9))
            self.clock.jump(seconds)
            self._done("work")
            return
        overdue = sorted((key for key, until in self.until.items() if until <= self.clock.monotonic() + seconds), key=self.until.__getitem__)
        exhausted = [key for key in overdue if self._has_no_attempt_left(key)]
        self.ledger.begin_moves((key, DEAD, 0, "max_attempts") for key in exhausted)
        self.ledger.time(self.clock.wall_ns + round(seconds * 1e9))
        self.clock.advance(seconds)
        self.ledger.acked_moves(covered=False)
        for key in overdue:
            if key not in exhausted:
                self.ledger.back(key)
            self._let_go(key)
        self._done("work")

    def compact(self) -> None:
        self.q.compact()
        self._done("compact")

    def cleanup(self) -> None:
        self.q.cleanup()
        self._done("cleanup")

    def flush(self) -> None:
        self.q.flush_to_disk()
        self._done("flush")

    def close(self) -> None:
        self.leases.clear()
        self.until.clear()
        self.q.close()
        self.ledger.closed()
        self._done("close")

    def reopen(self) -> None:
        self.close()
        self.ledger.time(self.clock.wall_ns + 10**9)
        self.clock.jump(1)
        self.open()

    def check(self) -> None:
        assert self.q.stats().balance == 0
        assert [key_of(item) for item in self.q] == [entry.key for entry in self.ledger.line]
        assert [key_of(letter.item) for letter in self.q.dead_letters] == [entry.key for entry in self.ledger.dead]


def random_work(worker: Worker, rng: random.Random, steps: int, *, sizes: Sequence[int] = (10, 100, 1000, 3000, 9000), reopen: bool = True, full_ok: bool = True) -> None:
    """A history that no one would think of."""
    taking = rng.choice((0.3, 0.5, 0.7))
    levels = range(256) if isinstance(worker.q, WatchedPriority) else (128, 128, 128, 64, 192)
    for _ in range(steps):
        if rng.random() < 0.05:
            taking = rng.choice((0.2, 0.5, 0.8))
        priority = rng.choice(levels)
        size = rng.choice(sizes)
        delay = rng.choice((1, 10, 1000)) if rng.random() < 0.2 else 0
        kind = rng.random()
        try:
            if kind < 0.08:
                rng.choice((worker.sync, worker.work, worker.work, worker.flush, worker.compact, worker.cleanup))()
            elif kind < 0.10 and reopen:
                worker.reopen()
            elif kind < 0.11:
                worker.work(rng.choice((12, 900)))
            elif rng.random() < taking:
                move = rng.choice(("get", "get", "get_batch", "lease", "lease", "ack", "ack", "nack", "nack", "reject", "extend", "replay", "take_dead", "remove"))
                if move == "get_batch":
                    worker.get_batch(rng.randrange(1, 6))
                elif move == "nack":
                    worker.nack(rng.choice(list(worker.leases) or [None]), delay)
                elif move == "replay":
                    worker.replay(rng.choice((1, 2, None)))
                elif move == "take_dead":
                    rng.choice((worker.take_dead, worker.take_dead, worker.clear_dead))()
                else:
                    getattr(worker, move)()
            else:
                move = rng.choice(("put", "put", "put", "front", "batch"))
                if move == "batch":
                    worker.batch([rng.choice(sizes[:-1] or sizes) for _ in range(rng.randrange(2, 6))], priority, delay)
                elif move == "put":
                    worker.put(size, priority, delay)
                else:
                    worker.front(size, priority)
        except QueueFull:
            assert full_ok
