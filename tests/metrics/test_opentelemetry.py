"""A queue observed by OpenTelemetry: the same figures under the same names, in dots."""
from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from prometheus_client import CollectorRegistry

from overspill import HybridQueue
from overspill.metrics import instrument, register, uninstrument
from overspill.metrics.catalogue import METRICS, SYNC_DURATION, Kind


class Observed:
    """A provider with one reader, and what it collects."""

    def __init__(self) -> None:
        self.reader = InMemoryMetricReader()
        self.provider = MeterProvider([self.reader], shutdown_on_exit=False)

    def collect(self) -> dict[str, dict[tuple[tuple[str, Any], ...], float]]:
        data = self.reader.get_metrics_data()
        if data is None:
            return {}
        metrics = [metric for resource in data.resource_metrics for scope in resource.scope_metrics for metric in scope.metrics]
        return {metric.name: {tuple(sorted(point.attributes.items())): point.value for point in metric.data.data_points} for metric in metrics}


@pytest.fixture
def observed() -> Any:
    observed = Observed()
    yield observed
    observed.provider.shutdown()


def test_opentelemetry_and_prometheus_are_told_the_same(observed: Observed, tmp_path: Path) -> None:
    registry = CollectorRegistry()
    with HybridQueue("q", tmp_path, memory_size=3) as q:
        register(q, registry)
        instrument(q, observed.provider)
        q.enqueue_batch(["one", "two", "three", "four", "five"])
        q.lease()
        q.sync()
        seen = observed.collect()
        for metric in METRICS:
            if metric is SYNC_DURATION or metric.name == "overspill_oldest_age_seconds":
                continue
            for attributes, value in seen[metric.dotted].items():
                assert registry.get_sample_value(metric.shown, dict(attributes)) == value, metric.name
        assert seen["overspill.items.enqueued"] == {(("queue", "q"),): 5}
        assert seen["overspill.sync.duration.count"] == {(("queue", "q"),): q.stats().sync_latency.count}
        assert seen["overspill.sync.duration.bucket"][("le", "+Inf"), ("queue", "q")] == q.stats().sync_latency.count


def test_one_collection_is_one_look_and_the_next_is_another(observed: Observed, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = 0
    stats = HybridQueue.stats

    def counted(self: HybridQueue) -> Any:
        nonlocal looks
        looks += 1
        return stats(self)

    monkeypatch.setattr(HybridQueue, "stats", counted)
    q = HybridQueue("q")
    instrument(q, observed.provider)
    q.enqueue(1)
    assert looks == 0
    observed.collect()
    assert looks == 1
    q.enqueue(2)
    assert observed.collect()["overspill.items.waiting"] == {(("queue", "q"),): 2}
    assert looks == 2


def test_a_queue_is_gone_when_it_is_closed_or_no_longer_wanted(observed: Observed) -> None:
    a, b = HybridQueue("a"), HybridQueue("b")
    for queue in (a, b, a):
        instrument(queue, observed.provider)
    assert len(observed.collect()["overspill.items.waiting"]) == 2
    a.close()
    uninstrument(b, observed.provider)
    assert not observed.collect().get("overspill.items.waiting")


def test_names_and_units_become_those_of_prometheus_in_an_exporter() -> None:
    dotted = [metric.dotted for metric in METRICS]
    assert len(set(dotted)) == len(dotted)
    suffix = {"bytes": "_bytes", "seconds": "_seconds", "ratio": "_ratio"}
    for metric in METRICS:
        exported = metric.dotted.replace(".", "_") + suffix.get(metric.unit, "") + ("_total" if metric.kind is Kind.COUNTER else "")
        assert exported == metric.shown
