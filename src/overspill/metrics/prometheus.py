"""Metrics for prometheus-client: one collector in a registry for all the queues in it, told apart by the label `queue`.

The collector asks each queue for its `stats()` when it is scraped. Between two scrapes it does nothing, and nothing of it is on the way of an item.
"""
from __future__ import annotations

import threading
import weakref
from collections.abc import Iterable, Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric as Family
from prometheus_client.registry import REGISTRY, Collector, CollectorRegistry

from ..stats import SYNC_BOUNDS_S, QueueStats
from .catalogue import METRICS, STATES, Kind, Metric
from .watched import Look, Observable, Watched

__all__ = ["QueueCollector", "families", "register", "unregister"]

_collectors: weakref.WeakKeyDictionary[CollectorRegistry, QueueCollector] = weakref.WeakKeyDictionary()
_collectors_lock = threading.Lock()


class QueueCollector(Collector):
    """What a registry calls at every scrape."""

    def __init__(self) -> None:
        self.watched = Watched()

    def describe(self) -> Iterable[Family]:
        """The names, without asking any queue: the registry wants to know them beforehand."""
        return families([])

    def collect(self) -> Iterable[Family]:
        return families(self.watched.look())


def families(look: Look) -> Iterator[Family]:
    """What was seen, in the shapes of prometheus-client."""
    for metric in METRICS:
        labels = ["queue", metric.label] if metric.label else ["queue"]
        if metric.kind is Kind.HISTOGRAM:
            yield _histogram(metric, look)
            continue
        family = (CounterMetricFamily if metric.kind is Kind.COUNTER else GaugeMetricFamily)(metric.name, metric.meaning, labels=labels)
        for queue, stats in look:
            for values, value in _samples(metric, stats):
                family.add_metric([queue, *values], value)
        yield family


def _samples(metric: Metric, stats: QueueStats | None) -> Iterator[tuple[list[str], float]]:
    if stats is None:
        if metric.name == "overspill_state":
            yield from (([state], float(state == "unreadable")) for state in STATES)
        return
    reading = metric.read(stats)
    if isinstance(reading, Mapping):
        yield from (([value], number) for value, number in reading.items())
    elif reading is not None:
        yield [], reading


def _histogram(metric: Metric, look: Look) -> HistogramMetricFamily:
    family = HistogramMetricFamily(metric.name, metric.meaning, labels=["queue"])
    bounds = [*map(str, SYNC_BOUNDS_S), "+Inf"]
    for queue, stats in look:
        if stats is not None:
            latency = stats.sync_latency
            family.add_metric([queue], list(zip(bounds, map(float, latency.upto()), strict=True)), latency.total)
    return family


def register(queue: Observable, registry: CollectorRegistry | None = None, *, name: str | None = None) -> None:
    """Show the queue's metrics in a registry of prometheus-client (None: the default one) until the queue is closed.

    `name` is the value of the label `queue` instead of the queue's own name. Registering a queue again is no error. Raises `InvalidOption` if the queue has no name
    and gets none, or if another open queue is there under the same.
    """
    registry = REGISTRY if registry is None else registry
    with _collectors_lock:
        collector = _collectors.get(registry)
        if collector is None:
            collector = QueueCollector()
            registry.register(collector)
            _collectors[registry] = collector
    collector.watched.add(queue, name)


def unregister(queue: Observable, registry: CollectorRegistry | None = None) -> None:
    """Show the queue no longer. Closing it does the same; a queue that is not there is no error."""
    collector = _collectors.get(REGISTRY if registry is None else registry)
    if collector is not None:
        collector.watched.remove(queue)
