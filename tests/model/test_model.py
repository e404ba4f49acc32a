"""Random histories of one queue, every public verb in them, judged after each step against a reference that is obviously right.

A new verb starts here. The queue is tiny in every way (a memory of one to four items, a disk of eight segments of 32 KiB), time is moved by hand, and nothing runs in the
background, so a history is the same every time it is told. A failing one is printed as a program; with OVERSPILL_MODEL_SHRINK=1 as the
smallest that still fails.

Three ways end a process: `reopen` (close, open), `kill` (the files as the kernel has them, without the lock, opened elsewhere), and whatever a subclass of `QueueMachine` brings:
`disk_class`, `open_queue` and `image` are the seam for power cuts and full disks.
"""
from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test
from reference import Item, Reference

from overspill import Durability, HybridQueue, KiB, LeaseExpired, OverflowStrategy, QueueEmpty, QueueFull
from overspill._runtime.clock import ManualClock

LEASE_S = 60.0
DISK = 256 * KiB

PRIORITIES = st.sampled_from([128, 128, 128, 0, 64, 200, 255])
SIZES = st.sampled_from([0, 1, 7, 40, 40, 300, 3000, 12_000, 33_000])
DELAYS = st.sampled_from([3, 3, 10, 70])
TTLS = st.sampled_from([None, None, None, 5, 50, 500])


class QueueMachine(RuleBasedStateMachine):
    """The history. `q` is the queue, `model` the reference, `deliveries` what is in our hands."""

    durability: ClassVar[Durability] = Durability.PROCESS
    plain: ClassVar[bool] = False
    disk_class: ClassVar[Any] = None

    def __init__(self) -> None:
        super().__init__()
        base = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        self.home = Path(tempfile.mkdtemp(prefix="overspill-model-", dir=base))
        self.life = 0
        self.model = Reference()
        self.deliveries: list[tuple[Any, Item]] = []
        self.buried: list[Item] = []
        self.clock = ManualClock()
        self.values = 0
        self.q: HybridQueue | None = None

    def teardown(self) -> None:
        if self.q is not None:
            try:
                self.q.close()
            except QueueFull:
                pass
        shutil.rmtree(self.home, ignore_errors=True)

    # --- opening, and the ends of a process

    @initialize(
        memory_size=st.integers(1, 4), memory_limit=st.sampled_from([None, None, 10_000, 20]), strategy=st.sampled_from(OverflowStrategy), ratio=st.sampled_from([1.0, 1.0, 0.5]),
        compression=st.sampled_from([None, None, "lz4"]), ttl=st.sampled_from([None, None, 100]), max_attempts=st.sampled_from([None, None, 1, 3]),
    )  # fmt: skip
    def begin(
        self, memory_size: int, memory_limit: int | None, strategy: OverflowStrategy, ratio: float, compression: str | None, ttl: float | None, max_attempts: int | None
    ) -> None:
        self.ttl = ttl
        self.model.max_attempts = max_attempts
        self.options = {
            "memory_size": memory_size, "memory_limit": memory_limit, "overflow_strategy": strategy, "overflow_ratio": ratio, "compression": compression, "ttl": ttl,
            "max_disk_size": DISK, "lease_timeout": LEASE_S, "max_attempts": max_attempts,
        }  # fmt: skip
        self.q = self.open_queue(self.folder())

    def folder(self) -> Path:
        return self.home / f"life-{self.life}"

    def open_queue(self, folder: Path) -> HybridQueue:
        private: dict[str, Any] = {"_plain": self.plain, "_background": False, "_clock": self.clock}
        if self.disk_class is not None:
            private["_disk_class"] = self.disk_class
        return HybridQueue("q", folder, durability=self.durability, **self.options, **private)

    def image(self, folder: Path) -> None:
        """Lay out in `folder` what a kill at this moment leaves."""
        folder.mkdir(mode=0o700)
        shutil.copytree(self.folder() / "q", folder / "q", ignore=shutil.ignore_patterns("lock"))
        (folder / "q").chmod(0o700)

    @rule()
    def reopen(self) -> None:
        try:
            self.q.close()
        except QueueFull:
            # A MEMORY queue that cannot be written down says so; then it is as after a kill.
            assert self.durability is Durability.MEMORY
            self.kill()
            return
        self.after_the_end(kept=True)

    @rule()
    def kill(self) -> None:
        spilled = self.q.disk_size
        folder = self.home / f"life-{self.life + 1}"
        self.image(folder)
        self.life += 1
        old, self.q = self.q, None
        try:
            old.close()
        except QueueFull:
            pass
        self.after_the_end(kept=self.durability >= Durability.PROCESS, at_least=spilled)

    def after_the_end(self, kept: bool, at_least: int = 0) -> None:
        """Open what is left and compare: all of it, or (not `kept`) whatever a MEMORY queue had written down, in order and without strangers."""
        now = self.now()
        self.model.restart(now)
        self.deliveries.clear()
        self.q = self.open_queue(self.folder())
        self.q.cleanup()
        expired = self.model.expire(now)
        self.model.books.clear()
        found = [value_of(item) for item in self.q]
        waits = sorted(value_of(self.q._item_of(claim)) for claim in self.q._timed_claims(256))
        dead = [value_of(letter.item) for letter in self.q.dead_letters]
        if not kept:
            there = {*found, *waits, *dead}
            assert len(there) == len(found) + len(waits) + len(dead), "one item twice"
            for item in [*self.model.waiting(), *self.model.delayed]:
                if item.value not in there:
                    self.model.forget(item)
            self.model.dead = [item for item in self.model.dead if item.value in there]
            # A dead letter, or a delay, that was only in memory may have been something else in the log.
            self.attempts_known = False
        assert found == [item.value for item in self.model.waiting()], "a stranger, a resurrected item, or a change of order"
        assert waits == sorted(item.value for item in self.model.delayed)
        assert dead == [item.value for item in self.model.dead]
        assert len(found) + expired + len(waits) + len(dead) >= at_least, "what had spilled survives a kill"
        stats = self.q.stats()
        assert stats.quarantined == 0 and self.q.recovery.quarantined == 0 and self.q.recovery.torn_bytes == 0
        self.base = stats

    base: Any = None
    attempts_known = True

    def now(self) -> int:
        return self.clock.wall_ns

    # --- in

    def value(self, size: int) -> str:
        self.values += 1
        return f"{self.values}:{'x' * size}"

    def expiry(self, ttl: float | None) -> int:
        life = ttl if ttl is not None else self.ttl
        return 0 if life is None else self.now() + round(life * 1e9)

    def put(self, call: Callable[[], object], *items: tuple[str, int, int, bool], due_ns: int = 0) -> None:
        try:
            call()
        except QueueFull:
            used = self.q.stats().disk_bytes
            assert used + sum(len(value) for value, *_ in items) > DISK // 4, "full, with hardly anything there"
            return
        for value, priority, expiry_ns, front in items:
            self.model.put(value, priority, expiry_ns, front, due_ns)

    @rule(size=SIZES, priority=PRIORITIES, ttl=TTLS)
    def enqueue(self, size: int, priority: int, ttl: float | None) -> None:
        value = self.value(size)
        self.put(lambda: self.q.enqueue(value, priority=priority, ttl=ttl), (value, priority, self.expiry(ttl), False))

    @rule(size=st.integers(0, 50))
    def enqueue_the_usual_way(self, size: int) -> None:
        value = self.value(size)
        self.put(lambda: self.q.enqueue(value), (value, 128, self.expiry(None), False))

    @rule(size=SIZES)
    def enqueue_with_more_durability(self, size: int) -> None:
        value = self.value(size)
        self.put(lambda: self.q.enqueue(value, durability=Durability.POWER), (value, 128, self.expiry(None), False))

    @rule(sizes=st.lists(SIZES, max_size=5), priority=PRIORITIES, ttl=TTLS)
    def enqueue_batch(self, sizes: list[int], priority: int, ttl: float | None) -> None:
        values = [self.value(size) for size in sizes]
        self.put(lambda: self.q.enqueue_batch(values, priority=priority, ttl=ttl), *[(value, priority, self.expiry(ttl), False) for value in values])

    @rule(size=SIZES, priority=PRIORITIES)
    def enqueue_front(self, size: int, priority: int) -> None:
        value = self.value(size)
        self.put(lambda: self.q.enqueue_front(value, priority=priority), (value, priority, self.expiry(None), True))

    @rule(size=SIZES, priority=PRIORITIES, ttl=TTLS, delay=DELAYS)
    def enqueue_for_later(self, size: int, priority: int, ttl: float | None, delay: float) -> None:
        value = self.value(size)
        self.put(lambda: self.q.enqueue(value, priority=priority, ttl=ttl, delay=delay), (value, priority, self.expiry(ttl), False), due_ns=self.due(delay))

    @rule(sizes=st.lists(SIZES, min_size=1, max_size=4), delay=DELAYS)
    def enqueue_batch_for_later(self, sizes: list[int], delay: float) -> None:
        values = [self.value(size) for size in sizes]
        self.put(lambda: self.q.enqueue_batch(values, delay=delay), *[(value, 128, self.expiry(None), False) for value in values], due_ns=self.due(delay))

    def due(self, delay: float) -> int:
        return self.now() + round(delay * 1e9)

    # --- out

    @rule(how=st.sampled_from(["try_dequeue", "dequeue"]))
    def take_one(self, how: str) -> None:
        expected = self.model.take(1, self.now())
        try:
            found = [self.q.try_dequeue() if how == "try_dequeue" else self.q.dequeue(timeout=0)]
        except QueueEmpty:
            found = []
        assert list(map(value_of, found)) == [item.value for item in expected]

    @rule(n=st.integers(1, 12))
    def dequeue_batch(self, n: int) -> None:
        expected = self.model.take(n, self.now())
        assert list(map(value_of, self.q.dequeue_batch(n))) == [item.value for item in expected]

    @rule()
    def peek(self) -> None:
        alive = self.model.alive(self.now())
        try:
            assert value_of(self.q.peek()) == alive[0].value
        except QueueEmpty:
            assert not alive

    # --- leases

    @rule(n=st.integers(1, 4))
    def lease(self, n: int) -> None:
        expected = self.model.lease(n, self.now())
        found = self.q.lease_batch(n)
        assert [value_of(delivery.item) for delivery in found] == [item.value for item in expected]
        for delivery, item in zip(found, expected, strict=True):
            assert delivery.priority == item.priority
            if self.attempts_known:
                assert delivery.attempts == item.attempts
            item.attempts = delivery.attempts
            assert item.id in (None, delivery.id), "an id stays with its item"
            item.id = delivery.id
            self.deliveries.append((delivery, item))

    def is_ours(self, delivery: Any, item: Item) -> bool:
        """Whether the lease is still out, or has ended and the item is in line or in other hands."""
        return item in self.model.leased and item.attempts == delivery.attempts

    @precondition(lambda self: self.deliveries)
    @rule(data=st.data())
    def ack(self, data: st.DataObject) -> None:
        delivery, item = self.deliveries.pop(data.draw(st.integers(0, len(self.deliveries) - 1)))
        if self.is_ours(delivery, item):
            delivery.ack()
            self.model.ack(item)
        else:
            with pytest.raises(LeaseExpired):
                delivery.ack()

    @precondition(lambda self: self.deliveries)
    @rule(data=st.data())
    def nack(self, data: st.DataObject) -> None:
        delivery, item = self.deliveries.pop(data.draw(st.integers(0, len(self.deliveries) - 1)))
        if self.is_ours(delivery, item):
            delivery.nack()
            self.model.give_back([item])
        else:
            with pytest.raises(LeaseExpired):
                delivery.nack()

    @precondition(lambda self: self.deliveries)
    @rule(data=st.data(), delay=DELAYS)
    def nack_for_later(self, data: st.DataObject, delay: float) -> None:
        delivery, item = self.deliveries.pop(data.draw(st.integers(0, len(self.deliveries) - 1)))
        if not self.is_ours(delivery, item):
            with pytest.raises(LeaseExpired):
                delivery.nack(delay)
            return
        kept_ns = item.due_kept_ns
        delivery.nack(delay)
        self.model.postpone(item, self.due(delay))
        if any(claim.loose and claim.id == item.id.bytes for claim in self.q._in_heap(256)):
            item.due_kept_ns = kept_ns  # the disk had no room for it

    @precondition(lambda self: self.deliveries)
    @rule(data=st.data())
    def reject(self, data: st.DataObject) -> None:
        delivery, item = self.deliveries.pop(data.draw(st.integers(0, len(self.deliveries) - 1)))
        if self.is_ours(delivery, item):
            delivery.reject(error=f"no use: {item.value[:10]}")
            self.model.reject(item)
        else:
            with pytest.raises(LeaseExpired):
                delivery.reject()

    # --- dead letters

    @rule(most=st.one_of(st.none(), st.integers(0, 3)))
    def replay(self, most: int | None) -> None:
        self.replayed(self.model.dead[:most], lambda: self.q.dead_letters.replay(max_items=most))

    @rule(divisor=st.integers(2, 3))
    def replay_some(self, divisor: int) -> None:
        chosen = [item for item in self.model.dead if number_of(item.value) % divisor == 0]
        self.replayed(chosen, lambda: self.q.dead_letters.replay(lambda letter: number_of(letter.item) % divisor == 0))

    def replayed(self, chosen: list[Item], call: Callable[[], int]) -> None:
        try:
            n = call()
        except QueueFull:
            n = 0
        assert n == len(chosen) or self.q.stats().disk_bytes > DISK // 4, "full, with hardly anything there"
        self.model.replay(chosen[:n], self.expiry(None))

    @rule()
    def take_a_dead_letter(self) -> None:
        try:
            letter = self.q.dead_letters.try_dequeue()
        except QueueEmpty:
            assert not self.model.dead
            return
        assert letter.item == self.model.dead[0].value and (letter.attempts == self.model.dead[0].attempts or not self.attempts_known)
        self.model.bury_for_good(self.model.dead[:1], "dequeued")

    @rule(divisor=st.integers(1, 3))
    def remove_dead_letters(self, divisor: int) -> None:
        chosen = [item for item in self.model.dead if number_of(item.value) % divisor == 0]
        if divisor == 1:
            assert self.q.dead_letters.clear() == len(chosen)
        else:
            assert self.q.dead_letters.remove_where(lambda letter: number_of(letter.item) % divisor == 0) == len(chosen)
        self.model.bury_for_good(chosen, "cleared" if divisor == 1 else "removed")

    @precondition(lambda self: self.deliveries)
    @rule()
    def let_all_leases_run_out(self) -> None:
        self.clock.advance(LEASE_S + 1)
        self.model.give_back(list(self.model.leased))

    # --- time

    @rule(seconds=st.sampled_from([0.5, 6, 20]))
    def time_passes(self, seconds: float) -> None:
        """The leases that are out get their full time again, so that this rule need not know when each ends."""
        for delivery, item in self.deliveries:
            if self.is_ours(delivery, item):
                delivery.extend(LEASE_S)
        self.clock.advance(seconds)

    @rule(seconds=st.sampled_from([4.0, 60.0]))
    def the_clock_is_set_forward(self, seconds: float) -> None:
        self.clock.jump(seconds)

    @rule(seconds=st.sampled_from([3.0, 100.0]))
    def the_clock_is_set_back(self, seconds: float) -> None:
        """Only what was reported expired stays so; so have it reported first."""
        self.cleanup()
        self.clock.jump(-seconds)

    # --- moving, removing, reclaiming

    @rule(n=st.one_of(st.none(), st.integers(0, 5)))
    def flush_to_disk(self, n: int | None) -> None:
        before = self.q._resident  # with what waits for its time
        try:
            moved = self.q.flush_to_disk(n)
        except QueueFull:
            assert self.durability is Durability.MEMORY
            return
        assert self.q._resident == before - moved
        if n is None:
            assert self.q.memory_size == 0 or self.durability is Durability.MEMORY

    @rule(n=st.integers(0, 3))
    def flush_oldest(self, n: int) -> None:
        try:
            assert self.q.flush_oldest(n) <= n
        except QueueFull:
            assert self.durability is Durability.MEMORY

    @rule()
    def shrink_memory(self) -> None:
        try:
            assert self.q.shrink_memory() >= 0
        except QueueFull:
            assert self.durability is Durability.MEMORY

    @rule()
    def compact_memory(self) -> None:
        assert self.q.compact_memory() >= 0

    @rule(nbytes=st.sampled_from([None, 1, 50, 5000]))
    def set_memory_limit(self, nbytes: int | None) -> None:
        self.q.set_memory_limit(nbytes)
        self.options["memory_limit"] = nbytes
        if nbytes is not None and self.durability is not Durability.MEMORY:
            assert self.q.stats().memory_bytes <= nbytes

    @rule()
    def sync(self) -> None:
        self.q.sync()

    @rule()
    def work(self) -> None:
        self.q._work()

    @rule()
    def cleanup(self) -> None:
        assert self.q.cleanup() >= 0
        self.model.expire(self.now())
        assert len(self.q) == len(self.model.waiting())
        assert self.q.stats().expired - (self.base.expired if self.base else 0) == self.model.books["expired"]

    @rule()
    def compact(self) -> None:
        assert self.q.compact() >= 0

    @rule()
    def clear(self) -> None:
        self.cleanup()
        waiting = [*self.model.alive(self.now()), *self.model.delayed]
        assert self.q.clear() == len(waiting)
        self.model.remove(waiting, "cleared")

    @rule(divisor=st.integers(2, 5))
    def remove_where(self, divisor: int) -> None:
        self.cleanup()
        matching = [item for item in [*self.model.alive(self.now()), *self.model.delayed] if number_of(item.value) % divisor == 0]
        assert self.q.remove_where(lambda value: number_of(value) % divisor == 0) == len(matching)
        self.model.remove(matching, "removed")

    # --- what holds after every step

    @invariant()
    def it_shows_what_the_reference_shows(self) -> None:
        if self.q is not None:
            assert list(map(value_of, self.q)) == [item.value for item in self.model.alive(self.now())]
            delayed = [item for item in self.model.delayed if not item.expired(self.now())]
            assert len(delayed) <= self.q.stats().delayed <= len(self.model.delayed)

    @invariant()
    def it_has_given_up_what_the_reference_has(self) -> None:
        """What dies at the same time may be in either order, and what dies after the clock was set back comes before; but what is there stays in its order."""
        if self.q is None:
            return
        letters = {value_of(letter.item): letter for letter in self.q.dead_letters}
        assert set(letters) == {item.value for item in self.model.dead} and len(letters) == len(self.q.dead_letters) == len(self.model.dead)
        known = [item for item in self.model.dead if item in self.buried]
        order = list(letters)
        self.model.dead.sort(key=lambda item: order.index(item.value))
        assert known == [item for item in self.model.dead if item in self.buried]
        loose = {claim.id for claim in self.q._in_heap(257) if claim.loose and not claim.flags & 8}
        for item in self.model.dead:
            letter = letters[item.value]
            assert letter.attempts == item.attempts or not self.attempts_known
            item.dies_again = letter.id.bytes in loose
        self.buried = list(self.model.dead)

    @invariant()
    def its_sizes_agree(self) -> None:
        if self.q is None:
            return
        q, now = self.q, self.now()
        assert len(self.model.alive(now)) <= len(q) <= len(self.model.waiting())
        assert q.memory_size + q.disk_size == len(q) == q.size
        assert (q.pressure > 1) == (q.disk_size > 0)

    @invariant()
    def its_accounts_balance(self) -> None:
        if self.q is None:
            return
        stats = self.q.stats()
        assert stats.balance == 0
        assert stats.in_flight == len(self.model.leased)
        assert stats.quarantined == 0
        assert not stats.dropped
        base = self.base
        for book in ("enqueued", "dequeued", "removed", "cleared", "redelivered"):
            assert getattr(stats, book) - (getattr(base, book) if base else 0) == self.model.books[book], book

    @invariant()
    def it_keeps_within_its_bounds(self) -> None:
        if self.q is None:
            return
        stats = self.q.stats()
        assert self.q.memory_size <= self.options["memory_size"]
        if self.options["memory_limit"] is not None:
            assert stats.memory_bytes <= self.options["memory_limit"]
        on_disk = sum(path.stat().st_size for path in (self.folder() / "q").rglob("*") if path.is_file() and path.name != "lock")
        assert on_disk <= stats.disk_bytes <= DISK


def number_of(value: str) -> int:
    return int(value.split(":", 1)[0])


def value_of(value: Any) -> str:
    """The value, after a look at whether it is one of ours and whole."""
    assert isinstance(value, str)
    number, filling = value.split(":", 1)
    assert number.isdigit() and not filling.strip("x"), "a wrong payload"
    return value


EXAMPLES = int(os.environ.get("OVERSPILL_MODEL_EXAMPLES", "100"))
STEPS = int(os.environ.get("OVERSPILL_MODEL_STEPS", "40"))
RANDOM = "OVERSPILL_MODEL_EXAMPLES" in os.environ
"""The usual run tells the same histories every time; asked for a number of examples, it tells new ones."""
SHRINK = "OVERSPILL_MODEL_SHRINK" in os.environ
"""Look for the smallest history that fails: minutes, and worth them once something does."""


@pytest.mark.parametrize("plain", [False, True], ids=["mapped", "plain"])
@pytest.mark.parametrize("durability", list(Durability), ids=lambda durability: durability.name)
def test_every_history_agrees_with_the_reference(durability: Durability, plain: bool) -> None:
    machine = type(f"{durability.name.title()}{'Plain' if plain else 'Mapped'}", (QueueMachine,), {"durability": durability, "plain": plain})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=EXAMPLES, stateful_step_count=STEPS, deadline=None, derandomize=not RANDOM, database=None, print_blob=True, report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck), phases=[Phase.generate, Phase.shrink] if SHRINK else [Phase.generate],
        ),
    )  # fmt: skip
