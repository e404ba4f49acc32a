"""Metrics for OpenTelemetry: observable instruments, read when a reader of the SDK collects.

OpenTelemetry knows no observable histogram. The classes of sync durations are therefore three counters: `overspill.sync.duration.bucket` with the attribute `le`, as
Prometheus would have it, `.count` and `.sum`.
"""
from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from opentelemetry.metrics import CallbackOptions, Meter, MeterProvider, Observation, get_meter_provider

from ..stats import SYNC_BOUNDS_S, QueueStats
from .catalogue import METRICS, SYNC_DURATION, Kind, Metric
from .watched import Look, Observable, Watched

__all__ = ["instrument", "uninstrument"]

_UNITS = {"bytes": "By", "seconds": "s", "ratio": "1", "items": "{item}", "calls": "{call}", "": ""}
_LOOK_AGAIN_S = 1.0


class _Looks:
    """One look at the queues for all the instruments of a collection, which the SDK asks one by one.

    Whoever asks a second time belongs to the next collection. The age keeps apart two readers that do not ask for the same instruments.
    """

    def __init__(self, watched: Watched) -> None:
        self._watched = watched
        self._lock = threading.Lock()
        self._look: Look = []
        self._asked: set[str] = set()
        self._at = float("-inf")

    def for_instrument(self, name: str) -> Look:
        with self._lock:
            if name in self._asked or time.monotonic() - self._at > _LOOK_AGAIN_S:
                self._asked.clear()
                self._look = self._watched.look()
                self._at = time.monotonic()
            self._asked.add(name)
            return self._look


class _Instruments:
    """The instruments of one meter provider."""

    def __init__(self, provider: MeterProvider) -> None:
        self.watched = Watched()
        self._looks = _Looks(self.watched)
        meter = provider.get_meter("overspill")
        for metric in METRICS:
            if metric is SYNC_DURATION:
                self._add_sync_duration(meter)
                continue
            create = meter.create_observable_counter if metric.kind is Kind.COUNTER else meter.create_observable_gauge
            create(metric.dotted, [self._callback(metric.dotted, _reader(metric))], _UNITS[metric.unit], metric.meaning)

    def _add_sync_duration(self, meter: Meter) -> None:
        le = [*map(str, SYNC_BOUNDS_S), "+Inf"]
        parts: list[tuple[str, str, _Read]] = [
            ("bucket", "{sync}", lambda stats: [({"le": bound}, n) for bound, n in zip(le, stats.sync_latency.upto(), strict=True)]),
            ("count", "{sync}", lambda stats: [({}, stats.sync_latency.count)]),
            ("sum", "s", lambda stats: [({}, stats.sync_latency.total)]),
        ]
        for part, unit, read in parts:
            name = f"{SYNC_DURATION.dotted}.{part}"
            meter.create_observable_counter(name, [self._callback(name, read)], unit, SYNC_DURATION.meaning)

    def _callback(self, name: str, read: _Read) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def observe(_: CallbackOptions) -> Iterable[Observation]:
            seen = self._looks.for_instrument(name)
            return [Observation(value, {"queue": queue, **attributes}) for queue, stats in seen if stats is not None for attributes, value in read(stats)]

        return observe


_Read = Callable[[QueueStats], Iterable[tuple[dict[str, Any], float]]]


def _reader(metric: Metric) -> _Read:
    def read(stats: QueueStats) -> Iterable[tuple[dict[str, Any], float]]:
        reading = metric.read(stats)
        if isinstance(reading, Mapping):
            return [({str(metric.label): key}, value) for key, value in reading.items()]
        return [] if reading is None else [({}, reading)]

    return read


_instruments: weakref.WeakKeyDictionary[MeterProvider, _Instruments] = weakref.WeakKeyDictionary()
_instruments_lock = threading.Lock()


def instrument(queue: Observable, provider: MeterProvider | None = None, *, name: str | None = None) -> None:
    """Let a meter provider of OpenTelemetry (None: the global one) observe the queue until it is closed; the same again is no error.

    `name` is the value of the attribute `queue` instead of the queue's own name. Raises `InvalidOption` as `register` does.
    """
    provider = get_meter_provider() if provider is None else provider
    with _instruments_lock:
        instruments = _instruments.get(provider)
        if instruments is None:
            instruments = _instruments[provider] = _Instruments(provider)
    instruments.watched.add(queue, name)


def uninstrument(queue: Observable, provider: MeterProvider | None = None) -> None:
    """Observe the queue no longer. Closing it does the same."""
    instruments = _instruments.get(get_meter_provider() if provider is None else provider)
    if instruments is not None:
        instruments.watched.remove(queue)
