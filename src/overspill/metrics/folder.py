"""Metrics of a queue's folder, for whoever is not its owner: beside a running process, or of a queue that nobody has open.

Read by `inspect`, which changes nothing and locks nothing. What only the owner knows is not shown: rates, memory, leases, syncs. What is shown has the owner's names, so that
alerts and boards hold for both. Beside an owner the figures are those of the log: under `MEMORY` what is only in memory is not among them.

A look costs reading the headers of all segments and the records of the unsealed ones; one look serves everybody who asks within a second.
"""
from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from prometheus_client.core import GaugeMetricFamily, Metric as Family
from prometheus_client.registry import Collector

from .._store.inspection import Inspection, inspect
from ..errors import InvalidOption, QueueError
from ..salvage.folders import is_queue, queues_below
from .catalogue import METRICS, STATES
from .health import Health, QueueHealth

__all__ = ["FOLDER_METRICS", "Folders"]

_FRESH_S = 1.0


@dataclass(frozen=True, slots=True)
class FolderMetric:
    name: str
    meaning: str
    read: Callable[[Inspection, int], float]
    """From what was seen, and when that was in ns."""


def _shared(name: str, read: Callable[[Inspection, int], float]) -> FolderMetric:
    return FolderMetric(name, next(metric.meaning for metric in METRICS if metric.name == name), read)


FOLDER_METRICS: Final = (
    _shared("overspill_items_waiting", lambda seen, _: seen.waiting),
    _shared("overspill_items_delayed", lambda seen, _: seen.delayed),
    _shared("overspill_dead_letters", lambda seen, _: seen.dead_letters),
    _shared("overspill_disk_bytes", lambda seen, _: seen.bytes),
    _shared("overspill_oldest_age_seconds", lambda seen, now: max(0, now - seen.oldest_ns) / 1e9 if seen.oldest_ns else 0),
    _shared("overspill_segments", lambda seen, _: len(seen.segments)),
    FolderMetric("overspill_folder_problems", "Places in the folder that are not as they were written", lambda seen, _: len(seen.problems)),
    FolderMetric("overspill_folder_torn_bytes", "At the end of the log, to be cut by the next opening", lambda seen, _: seen.torn_bytes),
    FolderMetric("overspill_folder_quarantine_bytes", "Damaged data that was set aside and is still there", lambda seen, _: seen.quarantined_bytes),
    FolderMetric("overspill_folder_quarantine_files", "Files of damaged data that were set aside and are still there", lambda seen, _: seen.quarantined_files),
)


class Folders(Collector):
    """Queues' folders, and folders full of those, which are looked through anew every time."""

    def __init__(self, paths: Iterable[str | os.PathLike[str]]) -> None:
        self._queues: list[str] = []
        self._parents: list[str] = []
        for path in (os.path.abspath(os.fspath(path)) for path in paths):
            if not os.path.isdir(path):
                raise InvalidOption("folder", path, "a queue's folder, or a folder of those")
            (self._queues if is_queue(path) else self._parents).append(path)
        self._lock = threading.Lock()
        self._seen: list[tuple[str, Inspection | Exception]] = []
        self._seen_ns = 0
        self._seen_at = float("-inf")

    def describe(self) -> Iterable[Family]:
        return self._families([], 0)

    def collect(self) -> Iterable[Family]:
        return self._families(*self._look())

    def health(self) -> Health:
        """Damage and folders that cannot be read make a queue ill."""
        return Health(tuple(_health(name, seen, self._seen_ns) for name, seen in self._look()[0]))

    def _look(self) -> tuple[list[tuple[str, Inspection | Exception]], int]:
        with self._lock:  # one look at a time, however many ask
            if time.monotonic() - self._seen_at > _FRESH_S:
                self._seen = [(name, _inspected(path)) for name, path in self._named()]
                self._seen_at, self._seen_ns = time.monotonic(), time.time_ns()
            return self._seen, self._seen_ns

    def _named(self) -> list[tuple[str, str]]:
        """Names and paths. Two folders of the same name are told apart by their paths; one that was given as a queue stays one, whatever becomes of it."""
        found = list(dict.fromkeys([*self._queues, *(queue for path in self._parents for queue in _queues_in(path))]))
        names = [os.path.basename(path) for path in found]
        return [(path if names.count(name) > 1 else name, path) for name, path in zip(names, found, strict=True)]

    @staticmethod
    def _families(seen: list[tuple[str, Inspection | Exception]], now_ns: int) -> Iterator[Family]:
        for metric in FOLDER_METRICS:
            family = GaugeMetricFamily(metric.name, metric.meaning, labels=["queue"])
            for name, each in seen:
                if isinstance(each, Inspection):
                    family.add_metric([name], metric.read(each, now_ns))
            yield family
        state = GaugeMetricFamily("overspill_state", "1 for a folder that could not be read; the other states only an owner knows", labels=["queue", "state"])
        for name, each in seen:
            state.add_metric([name, STATES[-1]], float(not isinstance(each, Inspection)))
        yield state


def _queues_in(path: str) -> list[str]:
    try:
        return [str(queue) for queue in queues_below(path)]
    except OSError as error:
        logging.getLogger("overspill").warning("%s cannot be looked through: %s", path, error)
        return []


def _inspected(path: str) -> Inspection | Exception:
    try:
        return inspect(path)
    except (OSError, QueueError) as error:
        logging.getLogger("overspill").warning("%s cannot be looked at: %s", path, error)
        return error


def _health(name: str, seen: Inspection | Exception, now_ns: int) -> QueueHealth:
    if not isinstance(seen, Inspection):
        return QueueHealth(name, "unreadable", (str(seen),))
    state = "held open" if seen.holder else "closed" if seen.clean else "not closed in order"
    oldest = max(0, now_ns - seen.oldest_ns) / 1e9 if seen.oldest_ns else None
    return QueueHealth(name, state, tuple(map(str, seen.problems)), seen.waiting, oldest)
