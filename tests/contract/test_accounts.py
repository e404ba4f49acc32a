"""`stats()`: the accounts balance after every step, whatever the step, and each thing is counted once under its own name."""
from __future__ import annotations

import dataclasses
import random
from typing import Any

import pytest
from conftest import Place, items_upto, tells_one_story

from overspill import LeaseExpired, QueueEmpty, QueueFull, QueueStats


def test_a_fresh_queue_has_nothing_to_tell(place: Place) -> None:
    stats = place.open().stats()
    assert isinstance(stats, QueueStats)
    assert (stats.waiting, stats.enqueued, stats.dequeued, stats.expired, stats.in_flight, stats.redelivered, stats.recovered) == (0,) * 7
    assert stats.memory_items == stats.memory_bytes == stats.disk_items == 0
    assert stats.oldest_age is None
    assert dict(stats.dropped) == {}
    assert stats.balance == 0


def test_stats_are_one_look_and_cannot_be_changed(place: Place) -> None:
    q = place.open()
    before = q.stats()
    q.enqueue("x")
    assert before.enqueued == 0
    with pytest.raises(dataclasses.FrozenInstanceError):
        before.enqueued = 5  # type: ignore[misc]


def test_each_way_in_and_out_is_counted_under_its_own_name(place: Place) -> None:
    q = place.open(lease_timeout=10)
    q.enqueue_batch(items_upto(12))
    q.enqueue_front("front")
    q.enqueue("expires", ttl=5)
    q.dequeue()
    q.dequeue_batch(2)
    acked, returned, late = q.lease_batch(3)
    acked.ack()
    returned.nack()
    place.clock.advance(11)
    q.cleanup()
    assert q.remove_where(lambda item: item == items_upto(12)[9]) == 1
    stats = q.stats()
    assert (stats.enqueued, stats.dequeued, stats.leased, stats.redelivered, stats.expired, stats.removed) == (14, 4, 3, 2, 1, 1)
    assert q.clear() == stats.waiting == 8
    assert q.stats().cleared == 8
    assert q.stats().balance == 0


def test_bytes_in_memory_are_the_payloads(place: Place) -> None:
    q = place.open()
    q.enqueue(b"12345")
    resident = q.memory_size
    assert q.stats().memory_bytes == 5 * resident
    q.dequeue()
    assert q.stats().memory_bytes == 0


def test_the_age_of_the_oldest(place: Place) -> None:
    q = place.open()
    q.enqueue("old")
    place.clock.advance(7)
    q.enqueue("new", priority=255)
    age = q.stats().oldest_age
    if q.disk_size == 0:
        assert age == pytest.approx(7, abs=0.01)
    else:
        assert age is None or age == pytest.approx(7, abs=0.01), "None where it would take reading the disk"


@pytest.mark.parametrize("seed", range(3))
def test_the_accounts_balance_after_every_step_of_a_random_walk(place: Place, seed: int) -> None:
    print(f"seed {seed}")
    rng = random.Random(seed)
    q = place.open(lease_timeout=20)
    held: list[Any] = []
    steps = {
        "enqueue": lambda: q.enqueue(rng.randbytes(rng.randrange(30)), priority=rng.choice((1, 128, 200)), ttl=rng.choice((None, None, 5))),
        "batch": lambda: q.enqueue_batch(["x" * i for i in range(rng.randrange(6))]),
        "front": lambda: q.enqueue_front("f"),
        "dequeue": lambda: q.try_dequeue(),
        "dequeue_batch": lambda: q.dequeue_batch(rng.randrange(1, 5)),
        "lease": lambda: held.extend(q.lease_batch(rng.randrange(1, 4))),
        "ack": lambda: held and held.pop().ack(),
        "nack": lambda: held and held.pop(0).nack(),
        "peek": q.peek,
        "look": lambda: list(q),
        "flush": lambda: q.flush_to_disk(rng.choice((None, 1, 3))),
        "time": lambda: place.clock.advance(rng.choice((0.1, 6))),
        "cleanup": q.cleanup,
        "remove": lambda: q.remove_where(lambda item: len(item) % 7 == 3),
        "clear": lambda: rng.random() < 0.1 and q.clear(),
        "compact": q.compact,
    }
    for _ in range(60):
        name = rng.choice(list(steps))
        try:
            steps[name]()
        except (QueueEmpty, QueueFull, LeaseExpired):
            pass
        tells_one_story(q)
