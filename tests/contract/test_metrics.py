"""What Prometheus is told is true: after every step, whatever the step, and after opening again."""
from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest
from conftest import Place
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from overspill import HybridQueue, LeaseExpired, NotSerializable, QueueEmpty, QueueFull
from overspill.metrics import register


class Scrape:
    """One scrape of one queue, as Prometheus reads the text."""

    def __init__(self, registry: CollectorRegistry, queue: str = "q") -> None:
        self.values: dict[tuple[str, str], float] = {}
        self.counters: set[tuple[str, str]] = set()
        for family in text_string_to_metric_families(generate_latest(registry).decode()):
            for sample in family.samples:
                labels = dict(sample.labels)
                assert labels.pop("queue") == queue
                key = (sample.name.removeprefix("overspill_"), ",".join(labels.values()))
                self.values[key] = sample.value
                if family.type in ("counter", "histogram"):
                    self.counters.add(key)

    def __getitem__(self, name: str) -> float:
        """The value, over all values of its label."""
        return sum(value for (known, _), value in self.values.items() if known == name)

    def of(self, name: str, label: str) -> float:
        return self.values[name, label]

    @property
    def balance(self) -> float:
        out = ("dequeued", "expired", "dropped", "removed", "cleared", "quarantined")
        held = self["items_waiting"] + self["items_in_flight"] + self["items_delayed"] + self["dead_letters"]
        return self["recovery_items"] + self["items_enqueued_total"] - sum(self[f"items_{name}_total"] for name in out) - held


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.mark.parametrize("seed", [1])
def test_what_went_in_less_what_went_out_is_what_is_there_at_every_step(place: Place, registry: CollectorRegistry, seed: int) -> None:
    print(f"seed {seed}")
    rng = random.Random(seed)
    q = place.open(lease_timeout=1000, max_attempts=2)
    register(q, registry)
    held: list[Any] = []
    did: Counter[str] = Counter()

    def put(n: int) -> None:
        q.enqueue_batch([rng.randbytes(rng.randrange(30)) for _ in range(n)])
        did["items_enqueued_total"] += n

    def put_later() -> None:
        q.enqueue(b"later", delay=2)
        did["items_enqueued_total"] += 1

    def take() -> None:
        q.try_dequeue()
        did["items_dequeued_total"] += 1

    def lease() -> None:
        taken = q.lease_batch(rng.randrange(1, 4))
        held.extend(taken)
        did["items_leased_total"] += len(taken)

    def ack() -> None:
        if held:
            held.pop().ack()
            did["items_dequeued_total"] += 1

    def nack() -> None:
        if held:
            held.pop(0).nack()
            did["items_redelivered_total"] += 1

    def reject() -> None:
        if held:
            held.pop(0).reject("in vain")
            did["items_redelivered_total"] += 1

    def refuse() -> None:
        with pytest.raises(NotSerializable):
            q.enqueue(object())
        did["refusals_total"] += 1

    steps = [
        lambda: put(1), lambda: put(rng.randrange(2, 6)), put_later, lambda: place.clock.advance(1), q.dead_letters.replay, take, take, lease, lease, ack, nack, reject, refuse, q.peek, q.compact,
        lambda: q.flush_to_disk(rng.choice((None, 1, 3))),
        lambda: did.update({"items_removed_total": q.remove_where(lambda item: len(item) % 7 == 3)}),
        lambda: did.update({"items_cleared_total": q.clear() if rng.random() < 0.2 else 0}),
    ]  # fmt: skip
    before = Scrape(registry)
    for _ in range(25):
        try:
            rng.choice(steps)()
        except (QueueEmpty, QueueFull, LeaseExpired):
            pass
        now = Scrape(registry)
        assert now.balance == 0
        assert now.values.keys() == before.values.keys()
        assert all(value >= 0 for value in now.values.values())
        assert all(now.values[key] >= before.values[key] for key in now.counters), "a counter fell"
        assert {name: now[name] for name in did} == did, "it tells what was done, and nothing else"
        assert now["memory_items"] + now["disk_items"] == now["items_waiting"] == len(q)
        assert now["items_in_flight"] == len(held)
        before = now


def test_what_the_log_knows_is_there_after_opening_again_and_counters_begin_anew(disk_place: Place, registry: CollectorRegistry) -> None:
    q = disk_place.open(metrics=False)
    register(q, registry)
    for i in range(9):
        q.enqueue(b"x" * i)
    q.dequeue()
    held = q.lease()
    disk_place.clock.advance(5)
    q = disk_place.reopen(q)
    register(q, registry)
    then = Scrape(registry)
    assert (then["items_waiting"], then["recovery_items"], then["disk_items"]) == (8, 8, 8), "what was leased waits again"
    assert then["oldest_age_seconds"] == pytest.approx(5, abs=0.01)
    assert then["disk_bytes"] > 0
    assert [name for name, label in then.counters if then.of(name, label) > 0] == []
    assert then.balance == 0
    assert then["opened_timestamp_seconds"] == pytest.approx(disk_place.clock.wall_ns / 1e9, abs=0.01)
    assert held is not None


def test_only_the_state_that_a_queue_is_in_is_one(place: Place, registry: CollectorRegistry) -> None:
    q = place.open()
    register(q, registry)
    told = Scrape(registry)
    assert {label: value for (name, label), value in told.values.items() if name == "state" and value} == {"open": 1}


def test_drops_have_their_reasons_before_there_are_any(memory_place: Place, registry: CollectorRegistry) -> None:
    from overspill import WhenFull

    q = memory_place.open(memory_size=2, when_full=WhenFull.DROP_OLDEST)
    register(q, registry)
    first = Scrape(registry)
    assert first.of("items_dropped_total", "full_oldest") == first.of("items_dropped_total", "full_newest") == 0
    for i in range(5):
        q.enqueue(i)
    then = Scrape(registry)
    assert then.of("items_dropped_total", "full_oldest") == 3 and then.balance == 0


def test_a_closed_queue_is_gone_from_the_next_scrape(place: Place, registry: CollectorRegistry) -> None:
    q: HybridQueue = place.open()
    register(q, registry)
    q.close()
    assert Scrape(registry).values == {}
