"""A queue and its book: every call is entered as an intent before, and as acknowledged after."""
from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

from overspill import Durability, HybridQueue, KiB, QueueEmpty
from overspill._runtime.clock import ManualClock

from .ledger import Ledger


class Worker:
    """One owner of one folder. `told` is called after each acknowledged call, when the book is up to date."""

    def __init__(self, path: Any, ledger: Ledger, *, told: Callable[[str], None] = lambda _: None, name: str = "q", background: bool = False, **options: Any) -> None:
        self.path, self.name, self.ledger, self.told, self.background = path, name, ledger, told, background
        self.options = {"max_disk_size": 256 * KiB, "memory_size": 5, "sync_interval": None, "lease_timeout": 1e6, "durability": Durability.POWER if ledger.power else Durability.PROCESS} | options
        self.clock = ManualClock()
        self.leases: dict[int, Any] = {}
        self.q: Any = None
        self.meanwhile: Callable[[], None] | None = None
        """What another thread does while this one is in the middle of a call."""

    def open(self) -> Any:
        private = {} if self.background else {"_background": False, "_clock": self.clock}
        self.q = HybridQueue(self.name, self.path, **private, **self.options)
        self.told("open")
        return self.q

    def put(self, size: int = 100, priority: int = 128) -> None:
        [item] = self.ledger.begin_put([size], priority)
        self._put("put", lambda: self.q.enqueue(item, priority=priority))

    def front(self, size: int = 100, priority: int = 128) -> None:
        [item] = self.ledger.begin_put([size], priority, front=True)
        self._put("front", lambda: self.q.enqueue_front(item, priority=priority))

    def batch(self, sizes: Sequence[int], priority: int = 128) -> None:
        items = self.ledger.begin_put(sizes, priority)
        self._put("batch", lambda: self.q.enqueue_batch(items, priority=priority))

    def _put(self, what: str, call: Callable[[], object]) -> None:
        try:
            call()
        except Exception:
            self.ledger.refused_put()
            raise
        self.ledger.acked_put()
        self.told(what)

    def get(self) -> None:
        self.ledger.begin_take()
        try:
            item = self.q.try_dequeue()
        except QueueEmpty:
            self.ledger.refused_take()
            assert not self.ledger.line, "empty was answered while items wait"
        else:
            self.ledger.acked_take([item])
        self.told("get")

    def get_batch(self, n: int) -> None:
        self.ledger.begin_take(n)
        self.ledger.acked_take(self.q.dequeue_batch(n))
        self.told("get_batch")

    def lease(self) -> int | None:
        if not self.ledger.line:
            return None
        self.ledger.begin_lease()
        delivery = self.q.lease(0)
        key = self.ledger.acked_lease(delivery.item, delivery.attempts)
        self.leases[key] = delivery
        self.told("lease")
        return key

    def ack(self, key: int | None = None) -> None:
        if key is None:
            key = next(iter(self.leases), None)
        if key is None:
            return
        self.ledger.begin_ack(key)
        self.leases.pop(key).ack()
        self.ledger.acked_ack()
        self.told("ack")

    def nack(self, key: int | None = None) -> None:
        if key is None:
            key = next(iter(self.leases), None)
        if key is None:
            return
        self.leases.pop(key).nack()
        self.ledger.acked_nack(key)
        self.told("nack")

    def sync(self) -> None:
        self.q.sync()
        self.ledger.synced()
        self.told("sync")

    def work(self, seconds: float = 2.0) -> None:
        """Let what is due be done: prepare, seal, retire."""
        self.clock.advance(seconds)
        self.told("work")

    def compact(self) -> None:
        self.q.compact()
        self.told("compact")

    def flush(self) -> None:
        self.q.flush_to_disk()
        self.told("flush")

    def close(self) -> None:
        self.leases.clear()
        self.q.close()
        self.ledger.closed()
        self.told("close")

    def reopen(self) -> None:
        self.close()
        self.open()

    def check(self) -> None:
        assert self.q.stats().balance == 0
        assert len(self.q) == len(self.ledger.line)


def random_work(worker: Worker, rng: random.Random, steps: int, *, sizes: Sequence[int] = (10, 100, 1000, 3000, 9000), reopen: bool = True, full_ok: bool = True) -> None:
    """A history that no one would think of."""
    from overspill import QueueFull

    taking = rng.choice((0.3, 0.5, 0.7))
    for _ in range(steps):
        if rng.random() < 0.05:
            taking = rng.choice((0.2, 0.5, 0.8))
        priority = rng.choice((128, 128, 128, 64, 192))
        size = rng.choice(sizes)
        kind = rng.random()
        try:
            if kind < 0.08:
                rng.choice((worker.sync, worker.work, worker.work, worker.flush, worker.compact))()
            elif kind < 0.10 and reopen:
                worker.reopen()
            elif rng.random() < taking:
                move = rng.choice(("get", "get", "get_batch", "lease", "ack", "ack", "nack"))
                if move == "get_batch":
                    worker.get_batch(rng.randrange(1, 6))
                else:
                    getattr(worker, move)()
            else:
                move = rng.choice(("put", "put", "put", "front", "batch"))
                if move == "batch":
                    worker.batch([rng.choice(sizes[:-1] or sizes) for _ in range(rng.randrange(2, 6))], priority)
                else:
                    getattr(worker, move)(size, priority)
        except QueueFull:
            assert full_ok
