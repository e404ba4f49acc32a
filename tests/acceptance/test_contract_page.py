"""The page that promises names and behaviour, taken literally and from outside.

Nothing here uses a private name, and the clock is the real one. A test that fails here breaks a program that somebody has written against the page.
"""
from __future__ import annotations

import asyncio
import datetime
import decimal
import inspect
import json
import math
import os
import queue
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from patience import until
import pytest

import overspill
from overspill import (
    AsyncHybridQueue, CircularBuffer, CorruptedData, Durability, GiB, HybridQueue, ItemRejected, ItemTooLarge, KiB, LeaseExpired, MiB, NotSerializable, OverflowStrategy, Priority, PriorityQueue,
    Queue, QueueBroken, QueueClosed, QueueEmpty, QueueError, QueueFull, QueueLocked, RateLimit, RateLimited, StreamQueue, UnknownFormat, WhenFull,
)  # fmt: skip

EVER = 30.0
"""Seconds after which a test that waits has failed; nothing that is right waits so long."""


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Opens queues under `tmp_path` and closes them at the end."""
    all_of_them: list[Any] = []

    def open_one(name: str = "q", *, kind: type[HybridQueue] = HybridQueue, on_disk: bool = True, **options: Any) -> Any:
        all_of_them.append(kind(name, tmp_path if on_disk else None, **options))
        return all_of_them[-1]

    yield open_one
    for q in all_of_them:
        q.close()


def in_background(work: Callable[[], object]) -> tuple[threading.Thread, list[object]]:
    """A thread that does it, and what came out: the result or the exception."""
    outcome: list[object] = []

    def run() -> None:
        try:
            outcome.append(work())
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, outcome


def finished(thread: threading.Thread, outcome: list[object]) -> object:
    thread.join(EVER)
    assert not thread.is_alive(), "it still waits"
    return outcome[0]


# --- names and signatures

# What the page writes after each name. `...` stands for a default that the page leaves open.
PUTTING = {"ttl": None, "delay": None, "durability": None, "timeout": None}
SIGNATURES: list[tuple[type, str, dict[str, Any], dict[str, Any]]] = [  # class, verb, positional parameters, keyword-only ones
    (HybridQueue, "enqueue", {"item": ...}, {"priority": Priority.NORMAL, **PUTTING}),
    (HybridQueue, "enqueue_batch", {"items": ...}, {"priority": Priority.NORMAL, **PUTTING}),
    (HybridQueue, "dequeue", {"timeout": None}, {}),
    (HybridQueue, "try_dequeue", {}, {}),
    (HybridQueue, "dequeue_batch", {"max_items": None}, {"timeout": 0}),
    (HybridQueue, "peek", {}, {}),
    (HybridQueue, "snapshot", {}, {}),
    (HybridQueue, "lease", {"timeout": None}, {}),
    (HybridQueue, "stats", {}, {}),
    (HybridQueue, "on_memory_pressure", {"callback": ..., "thresholds": (0.7, 0.9)}, {}),
    (HybridQueue, "flush_to_disk", {"n": None}, {}),
    (HybridQueue, "flush_oldest", {"n": ...}, {}),
    (HybridQueue, "compact_memory", {}, {}),
    (HybridQueue, "shrink_memory", {}, {}),
    (HybridQueue, "set_memory_limit", {"nbytes": ...}, {}),
    (HybridQueue, "sync", {}, {}),
    (HybridQueue, "cleanup", {}, {}),
    (HybridQueue, "compact", {}, {}),
    (HybridQueue, "clear", {}, {}),
    (HybridQueue, "remove_where", {"predicate": ...}, {}),
    (HybridQueue, "close", {"drain": None}, {}),
    (HybridQueue, "destroy", {}, {}),
    (HybridQueue, "batches", {"n": None, "linger": None}, {}),
    (AsyncHybridQueue, "enqueue", {"item": ...}, {"priority": Priority.NORMAL, **PUTTING}),
    (AsyncHybridQueue, "enqueue_batch", {"items": ...}, {"priority": Priority.NORMAL, **PUTTING}),
    (AsyncHybridQueue, "dequeue", {"timeout": None}, {}),
    (AsyncHybridQueue, "dequeue_batch", {"max_items": None}, {"timeout": 0}),
    (AsyncHybridQueue, "lease", {"timeout": None}, {}),
    (AsyncHybridQueue, "close", {"drain": None}, {}),
    (PriorityQueue, "enqueue", {"item": ..., "priority": Priority.NORMAL}, PUTTING),
    (PriorityQueue, "enqueue_with_priority", {"item": ..., "priority": Priority.NORMAL}, PUTTING),
    (CircularBuffer, "get_last", {"n": ...}, {}),
    (CircularBuffer, "get_recent", {"seconds": ...}, {}),
    (CircularBuffer, "for_each", {"fn": ...}, {}),
    (StreamQueue, "dequeue", {}, {}),
    (StreamQueue, "dequeue_timeout", {"seconds": ...}, {}),
    (StreamQueue, "try_dequeue", {}, {}),
    (StreamQueue, "get_depth", {}, {}),
    (StreamQueue, "get_pressure", {}, {}),
    (StreamQueue, "has_disk_data", {}, {}),
    (StreamQueue, "stats", {}, {}),
    (Queue, "put", {"item": ..., "block": True, "timeout": None}, {}),
    (Queue, "get", {"block": True, "timeout": None}, {}),
    (Queue, "put_nowait", {"item": ...}, {}),
    (Queue, "get_nowait", {}, {}),
    (Queue, "qsize", {}, {}),
    (Queue, "empty", {}, {}),
    (Queue, "full", {}, {}),
    (Queue, "task_done", {}, {}),
    (Queue, "join", {}, {}),
    (Queue, "shutdown", {"immediate": False}, {}),
    (overspill.Delivery, "ack", {}, {}),
    (overspill.Delivery, "nack", {"delay": 0}, {}),
    (overspill.Delivery, "extend", {"seconds": ...}, {}),
    (RateLimit, "__init__", {"rate": ...}, {"burst": ..., "on_limit": "raise"}),
]


@pytest.mark.parametrize(("owner", "verb", "positional", "keyword"), SIGNATURES, ids=[f"{owner.__name__}.{verb}" for owner, verb, *_ in SIGNATURES])
def test_a_verb_takes_what_the_page_says(owner: type, verb: str, positional: dict[str, Any], keyword: dict[str, Any]) -> None:
    parameters = list(inspect.signature(getattr(owner, verb)).parameters.values())[1:]
    by_place = [p for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert [p.name for p in by_place] == list(positional)
    by_name = {p.name: p for p in parameters if p.kind is p.KEYWORD_ONLY}
    assert set(keyword) <= set(by_name), "a keyword of the page is missing"
    for name, default in {**positional, **keyword}.items():
        found = next(p for p in parameters if p.name == name).default
        if default is ...:
            continue
        assert found == default and type(found) in (type(default), int), f"{name}={found!r}"
    assert all(p.default is not p.empty for p in parameters if p.name not in positional), "what the page does not name must be optional"
    assert not any(p.kind is p.VAR_POSITIONAL for p in parameters)


def test_every_option_is_keyword_only(tmp_path: Path) -> None:
    for kind in (HybridQueue, PriorityQueue):
        with pytest.raises(TypeError):
            kind("q", tmp_path, 1000)
    with pytest.raises(TypeError):
        CircularBuffer(10, 60)  # type: ignore[misc]
    with pytest.raises(TypeError):
        Queue(0, "name")  # type: ignore[misc]
    with pytest.raises(TypeError):
        StreamQueue("s", 10, tmp_path, RateLimit(10))  # type: ignore[misc]
    q = HybridQueue("q")
    for verb, arguments in {"enqueue": ("item", 200), "enqueue_batch": (["item"], 200), "dequeue_batch": (1, 0), "enqueue_front": ("item", 200)}.items():
        with pytest.raises(TypeError):
            getattr(q, verb)(*arguments)
    assert len(q) == 0
    assert not list(tmp_path.iterdir()), "a call that was refused left something on disk"


def test_every_option_of_the_page_is_taken_and_an_unknown_one_is_named(opened: Callable[..., Any]) -> None:
    q = opened(
        memory_size=1000, memory_limit=512 * MiB, overflow_ratio=1.0, overflow_strategy=OverflowStrategy.OLDEST, max_disk_size=10 * GiB, when_full=WhenFull.RAISE, durability=Durability.PROCESS,
        sync_interval=1.0, serializer="auto", compression=None, ttl=None, max_item_size=64 * MiB, default_batch_size=100, rate_limit=None, lease_timeout=30.0, max_attempts=None, on_expired=None,
        on_dropped=None, metrics=False,
    )  # fmt: skip
    q.enqueue(1)
    with pytest.raises((TypeError, ValueError), match="memory_sise"):
        opened("other", memory_sise=10)


def test_defaults_are_those_of_the_page(opened: Callable[..., Any]) -> None:
    q = opened()
    q.enqueue_batch(range(1000))
    assert (q.memory_size, q.disk_size, q.pressure) == (1000, 0, 1.0)
    q.enqueue(1000)
    assert (q.memory_size, q.disk_size) == (1000, 1)
    assert q.dequeue_batch() == list(range(100)), "default_batch_size"
    assert q.stats().disk_limit == 10 * GiB
    with pytest.raises(ItemTooLarge):
        q.enqueue(bytes(64 * MiB + 1))
    delivery = q.lease()
    assert (delivery.item, delivery.attempts, delivery.priority) == (100, 1, 128)


def test_sizes_units_levels_and_choices() -> None:
    assert (KiB, MiB, GiB) == (1 << 10, 1 << 20, 1 << 30)
    assert all(type(unit) is int for unit in (KiB, MiB, GiB))
    assert (Priority.LOW, Priority.NORMAL, Priority.HIGH) == (64, 128, 192)
    assert {d.name for d in Durability} == {"MEMORY", "PROCESS", "POWER"}
    assert {w.name for w in WhenFull} == {"RAISE", "BLOCK", "DROP_OLDEST", "DROP_NEWEST"}
    assert {s.name for s in OverflowStrategy} == {"OLDEST", "LARGEST", "BY_PRIORITY"}


def test_exceptions_are_one_family_and_those_of_the_standard_library() -> None:
    family = [QueueEmpty, QueueFull, QueueClosed, QueueBroken, QueueLocked, RateLimited, ItemRejected, ItemTooLarge, NotSerializable, LeaseExpired, CorruptedData, UnknownFormat]
    assert all(issubclass(one, QueueError) and issubclass(one, Exception) for one in family)
    assert issubclass(QueueEmpty, queue.Empty) and issubclass(QueueFull, queue.Full)
    assert issubclass(ItemTooLarge, ItemRejected) and issubclass(NotSerializable, ItemRejected)
    for name in ("HybridQueue", "PriorityQueue", "CircularBuffer", "StreamQueue", "AsyncHybridQueue", "Queue", "Durability", "OverflowStrategy", "WhenFull", "Priority", "RateLimit"):
        assert name in overspill.__all__ and inspect.getdoc(getattr(overspill, name))


# --- what a HybridQueue says about itself


def test_repr_says_name_size_and_where_the_items_are(opened: Callable[..., Any]) -> None:
    q = opened("segments", memory_size=2)
    q.enqueue_batch(range(5))
    assert "segments" in repr(q) and "5" in repr(q) and "2 in memory" in repr(q) and "3 on disk" in repr(q)
    q.close()
    assert "closed" in repr(q)


def test_name_is_validated(tmp_path: Path) -> None:
    for name in ("a/b", "..", ".", "", "a\0b", "/absolute"):
        with pytest.raises((QueueError, ValueError)):
            HybridQueue(name, tmp_path)
    assert not list(tmp_path.iterdir())


def test_sizes_count_each_item_once(opened: Callable[..., Any]) -> None:
    q = opened(memory_size=3)
    for n in range(1, 11):
        q.enqueue(n)
        assert len(q) == q.size == n == q.memory_size + q.disk_size
        assert (q.memory_size, q.disk_size) == (min(n, 3), max(0, n - 3))
    for n in range(9, -1, -1):
        q.dequeue()
        assert len(q) == q.size == n == q.memory_size + q.disk_size
    assert type(q.size) is type(q.memory_size) is type(q.disk_size) is int


def test_pressure_is_a_share_of_the_budget_until_there_is_disk_overflow(opened: Callable[..., Any]) -> None:
    q = opened(memory_size=4)
    seen = [q.pressure]
    for n in range(8):
        q.enqueue(n)
        seen.append(q.pressure)
    assert seen[:5] == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert all(p > 1.0 for p in seen[5:]) and seen == sorted(seen) and all(type(p) is float for p in seen)
    q.dequeue_batch(8)
    assert q.pressure == 0.0


def test_pressure_is_above_one_whenever_something_is_only_on_disk(opened: Callable[..., Any]) -> None:
    q = opened(memory_size=10)
    q.enqueue_batch(range(4))
    assert q.flush_to_disk(2) == 2 and q.disk_size == 2
    assert q.pressure > 1.0


def test_pressure_without_a_disk_never_passes_one(opened: Callable[..., Any]) -> None:
    q = opened(on_disk=False, memory_size=2)
    q.enqueue_batch([1, 2])
    with pytest.raises(QueueFull):
        q.enqueue(3)
    assert q.pressure == 1.0 and q.disk_size == 0


def test_byte_limit_counts_payload_bytes(opened: Callable[..., Any]) -> None:
    q = opened(memory_limit=100)
    q.enqueue_batch([bytes(40)] * 5)
    assert (q.memory_size, q.disk_size) == (2, 3)
    assert q.stats().memory_bytes == 80
    assert [len(item) for item in q.dequeue_batch()] == [40] * 5


def test_overflow_ratio_is_where_spilling_starts(opened: Callable[..., Any]) -> None:
    q = opened(memory_size=10, overflow_ratio=0.5)
    q.enqueue_batch(range(5))
    assert q.disk_size == 0
    q.enqueue(5)
    assert q.disk_size > 0 and q.memory_size <= 5
    assert q.dequeue_batch() == list(range(6))


def test_memory_pressure_is_told_once_per_crossing_until_unsubscribed(opened: Callable[..., Any]) -> None:
    q = opened(memory_size=10)
    heard: list[float] = []
    unsubscribe = q.on_memory_pressure(heard.append)
    q.enqueue_batch(range(6))
    assert heard == []
    q.enqueue(6)
    assert len(heard) == 1 and heard[0] >= 0.7
    q.enqueue_batch([7, 8, 9])
    assert len(heard) == 2 and heard[1] >= 0.9
    q.dequeue_batch(10)
    q.enqueue_batch(range(7))
    assert len(heard) == 3
    unsubscribe()
    q.enqueue_batch(range(3))
    assert len(heard) == 3


def test_contradictory_thresholds_and_nonsense_are_refused_before_anything_is_made(opened: Callable[..., Any], tmp_path: Path) -> None:
    nonsense: list[dict[str, Any]] = [
        {"memory_size": 0}, {"memory_size": -1}, {"memory_limit": 0}, {"overflow_ratio": 0.0}, {"overflow_ratio": 1.5}, {"max_disk_size": 0}, {"sync_interval": -1}, {"compression": "rar"},
        {"serializer": "yaml"}, {"ttl": -1}, {"max_item_size": 0}, {"default_batch_size": 0}, {"lease_timeout": 0}, {"max_attempts": 0}, {"when_full": "explode"}, {"durability": "hope"},
        {"memory_size": 1.5}, {"memory_size": "10"}, {"memory_size": True}, {"lease_timeout": math.nan}, {"ttl": math.nan},
    ]  # fmt: skip
    for options in nonsense:
        with pytest.raises((QueueError, ValueError, TypeError)) as refused:
            opened("refused", **options)
        assert next(iter(options)) in str(refused.value), f"{options}: the message does not name the option: {refused.value}"
    assert not list(tmp_path.iterdir())
    q = opened()
    for thresholds in ((), (0.9, 0.7, math.nan), (-0.1,), (0,)):
        with pytest.raises((QueueError, ValueError, TypeError)):
            q.on_memory_pressure(print, thresholds)


def test_stats_are_frozen_and_balance(opened: Callable[..., Any]) -> None:
    q = opened(memory_size=3)
    q.enqueue_batch(range(8))
    q.dequeue()
    q.lease()
    q.remove_where(lambda item: item == 5)
    stats = q.stats()
    with pytest.raises((AttributeError, TypeError)):
        stats.enqueued = 0
    assert isinstance(stats, overspill.QueueStats)
    assert stats.enqueued - stats.dequeued - stats.removed - sum(stats.dropped.values()) - stats.expired == stats.waiting + stats.in_flight == 6
    assert stats.memory_items + stats.disk_items == stats.waiting == len(q)
    assert stats.oldest_age is not None and 0 <= stats.oldest_age < EVER
    assert stats.segments >= 1


# --- in and out


def test_order_across_both_tiers_with_levels_and_the_front(opened: Callable[..., Any]) -> None:
    q = opened(memory_size=2)
    for n in range(4):
        q.enqueue(f"normal {n}")
        q.enqueue(f"low {n}", priority=0)
        q.enqueue(f"high {n}", priority=255)
    q.enqueue_front("first of normal")
    q.enqueue_front("before the first")
    q.enqueue_front("first of all", priority=255)
    expected = ["first of all", *(f"high {n}" for n in range(4)), "before the first", "first of normal", *(f"normal {n}" for n in range(4)), *(f"low {n}" for n in range(4))]
    assert list(q) == list(q.snapshot()) == expected
    assert q.peek() == q.peek() == "first of all" and len(q) == len(expected)
    assert [q.try_dequeue() for _ in expected] == expected


def test_priorities_are_any_int_from_0_to_255(opened: Callable[..., Any]) -> None:
    q = opened(memory_size=2)
    for level in range(256):
        q.enqueue(level, priority=level)
    for wrong in (-1, 256, 1000):
        with pytest.raises((ValueError, QueueError), match=r"priority|255"):
            q.enqueue("wrong", priority=wrong)
    for wrong_type in ("high", 1.5, None):
        with pytest.raises((TypeError, ValueError, QueueError)):
            q.enqueue("wrong", priority=wrong_type)
    assert q.dequeue_batch(1000) == list(range(255, -1, -1))


def test_none_is_an_item_and_never_means_empty(opened: Callable[..., Any]) -> None:
    q = opened(memory_size=1)
    q.enqueue_batch([None, None])
    assert q.peek() is None and q.dequeue() is None and q.try_dequeue() is None
    for look in (q.peek, q.try_dequeue, lambda: q.dequeue(timeout=0), lambda: q.dequeue(0.01), lambda: q.lease(timeout=0)):
        with pytest.raises(queue.Empty) as empty:
            look()
        assert isinstance(empty.value, QueueEmpty) and "q" in str(empty.value)


def test_a_timeout_may_be_a_timedelta(opened: Callable[..., Any]) -> None:
    q = opened(ttl=datetime.timedelta(hours=1), lease_timeout=datetime.timedelta(seconds=9), sync_interval=datetime.timedelta(seconds=2))
    with pytest.raises(QueueEmpty):
        q.dequeue(datetime.timedelta(milliseconds=5))
    q.enqueue(1, ttl=datetime.timedelta(days=1), delay=datetime.timedelta(0))
    assert q.lease(datetime.timedelta(seconds=1)).item == 1


def test_dequeue_waits_and_wakes(opened: Callable[..., Any]) -> None:
    q = opened()
    thread, outcome = in_background(q.dequeue)
    q.enqueue("late")
    assert finished(thread, outcome) == "late"


def test_dequeue_batch_is_a_list_at_most_that_long_and_empty_when_there_is_nothing(opened: Callable[..., Any]) -> None:
    q = opened(memory_size=2, default_batch_size=3)
    assert q.dequeue_batch() == [] and q.dequeue_batch(5) == [] and q.dequeue_batch(5, timeout=0.01) == []
    q.enqueue_batch(range(10))
    assert q.dequeue_batch() == [0, 1, 2]
    assert q.dequeue_batch(2) == [3, 4]
    assert q.dequeue_batch(max_items=100, timeout=1) == [5, 6, 7, 8, 9]
    thread, outcome = in_background(lambda: q.dequeue_batch(5, timeout=EVER))
    q.enqueue("one")
    assert finished(thread, outcome) == ["one"], "a batch waits for the first item and not for all"
    for wrong in (-1, 0):
        with pytest.raises((ValueError, QueueError)):
            q.dequeue_batch(wrong)


def test_enqueue_batch_is_all_or_nothing(opened: Callable[..., Any]) -> None:
    q = opened(memory_size=2, max_item_size=100)
    for bad in ([1, object()], [1, bytes(101)]):
        with pytest.raises(ItemRejected):
            q.enqueue_batch(bad)
    assert len(q) == 0

    def failing() -> Iterator[int]:
        yield 1
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        q.enqueue_batch(failing())
    assert len(q) == 0
    q.enqueue_batch([])
    q.enqueue_batch(str(n) for n in range(5))
    q.enqueue_batch(["high"], priority=255, ttl=60, durability=Durability.POWER, timeout=1)
    assert list(q) == ["high", "0", "1", "2", "3", "4"]

    small = opened("small", on_disk=False, memory_size=3)
    small.enqueue(0)
    with pytest.raises(QueueFull):
        small.enqueue_batch([1, 2, 3])
    assert list(small) == [0]


def test_enqueue_returns_none(opened: Callable[..., Any]) -> None:
    q = opened()
    assert q.enqueue(1) is q.enqueue_batch([2]) is q.enqueue_front(0) is q.enqueue_with_priority(3, 1) is q.sync() is None


# --- what comes out is what went in


class Colour(bytes):
    pass


IDENTICAL = [
    None, True, False, 0, -1, 2**63, 2**64, -(2**63) - 1, 10**40, 0.0, -0.0, 1.5, math.inf, -math.inf, "", "text", "\0 \ud7ff \U0010ffff", b"", b"\x00\xff" * 9, [], (), {}, (1,), (1, (2, [3, (4,)])),
    [(), [()], {"k": (1, 2)}], {"a": None, "b": [1, 2.0, "3", b"4"]}, {1: "int key", None: 0, (1, 2): "tuple key", 1.5: b"", b"k": True}, {1, 2, 3}, frozenset({"a", (1, 2)}), set(),
    {True: 1, 2: False}, datetime.datetime(2024, 2, 29, 12, 30, 15, 123456), datetime.datetime(2024, 2, 29, tzinfo=datetime.timezone.utc),
    datetime.datetime(2024, 2, 29, tzinfo=datetime.timezone(datetime.timedelta(hours=5, minutes=30))), datetime.datetime(2024, 10, 27, 2, 30, fold=1), datetime.date(1, 1, 1),
    datetime.time(23, 59, 59, 999999), datetime.timedelta(days=-1, microseconds=1), uuid.UUID(int=0), uuid.UUID("12345678-1234-5678-1234-567812345678"), decimal.Decimal("1.10"),
    [datetime.date(2024, 1, 1), uuid.UUID(int=7), None, {3}],
]  # fmt: skip


def same(one: Any, other: Any) -> bool:
    """Equal, and of the same types all the way down: (1,) is not [1], True is not 1, -0.0 is not 0.0."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return len(one) == len(other) and all(same(a, b) for pair in zip(one.items(), other.items()) for a, b in zip(*pair))
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, (set, frozenset)):
        return one == other and sorted(map(repr, one)) == sorted(map(repr, other))
    if isinstance(one, float):
        return math.copysign(1, one) == math.copysign(1, other) and one == other
    if isinstance(one, datetime.datetime):
        return one == other and (one.utcoffset(), one.fold) == (other.utcoffset(), other.fold)
    return bool(one == other)


@pytest.mark.parametrize("durability", Durability)
def test_auto_gives_back_the_identical_item_whichever_tier_it_passed_through(opened: Callable[..., Any], durability: Durability) -> None:
    in_memory, spilled, kept = opened("in_memory", durability=durability), opened("spilled", memory_size=1, durability=durability), opened("kept", durability=durability)
    for item in IDENTICAL:
        for q in (in_memory, spilled, kept):
            q.enqueue(item)
    kept.close()
    kept = opened("kept", durability=durability)
    for q in (in_memory, spilled, kept):
        for looked, item in zip(q.snapshot(), IDENTICAL, strict=True):
            assert same(looked, item), (q, item, looked)
        for item in IDENTICAL:
            got = q.dequeue()
            assert same(got, item), (q, item, got)


def test_nan_comes_back_as_nan(opened: Callable[..., Any]) -> None:
    q = opened(memory_size=1)
    q.enqueue_batch([math.nan, math.nan])
    assert all(math.isnan(item) for item in q.dequeue_batch())


@pytest.mark.parametrize("durability", Durability)
@pytest.mark.parametrize("item", [object(), lambda: 0, Colour(b"red"), type, [object()], {"k": {"deep": object()}}, threading.Lock(), ("ok", sys)])
def test_anything_else_is_refused_at_enqueue_and_the_message_names_the_way_out(opened: Callable[..., Any], durability: Durability, item: Any) -> None:
    q = opened(durability=durability)
    for enqueue in (q.enqueue, q.enqueue_front, lambda it: q.enqueue_batch([it]), lambda it: q.enqueue(it, priority=3)):
        with pytest.raises(NotSerializable, match="serializer"):
            enqueue(item)
    assert len(q) == 0 and q.stats().enqueued == 0


def test_a_mutable_item_is_what_it_was_when_it_was_put(opened: Callable[..., Any]) -> None:
    q = opened(memory_size=1)
    for item in ({"n": 1}, [1], bytearray(b"1")):
        q.enqueue(item)
        before = type(item)(item)
        item.clear()
        assert same(q.dequeue(), before)


@pytest.mark.parametrize(("name", "fine", "not_fine"), [
    ("raw", [b"", b"x"], ["text", 1]), ("str", ["", "é"], [b"x", 1]), ("json", [None, 1, "a", [1, {"a": 2.5}]], [object()]), ("msgpack", [None, 1, "a", b"b", [1, {"a": 2.5}]], [object()]),
    ("pickle", [None, {1, 2}, Colour(b"red"), (1, [2])], [lambda: 0]),
])  # fmt: skip
def test_named_serializers(opened: Callable[..., Any], name: str, fine: list[Any], not_fine: list[Any]) -> None:
    q = opened(serializer=name, memory_size=1)
    q.enqueue_batch(fine)
    got = q.dequeue_batch()
    assert got == fine and list(map(type, got)) == list(map(type, fine))
    for item in not_fine:
        with pytest.raises(NotSerializable):
            q.enqueue(item)


@pytest.mark.parametrize("compression", [None, "snappy", "lz4", "zstd"])
def test_compression_only_where_it_pays_and_never_seen_from_outside(opened: Callable[..., Any], compression: str | None) -> None:
    items = [os.urandom(5000), b"a" * 50_000, b"", "text " * 1000]
    q = opened(memory_size=1, compression=compression)
    q.enqueue_batch(items)
    q.close()
    assert opened(memory_size=1, compression=None).dequeue_batch() == items, "the folder says itself what is compressed"


# --- full, late, too fast


def test_when_full_raise_says_so_and_goes_on_after_a_dequeue(opened: Callable[..., Any]) -> None:
    q = opened(on_disk=False, memory_size=2, when_full=WhenFull.RAISE)
    q.enqueue_batch([0, 1])
    with pytest.raises(queue.Full):
        q.enqueue(2)
    q.dequeue()
    q.enqueue(2)
    assert list(q) == [1, 2] and q.stats().refused["full"] == 1


def test_when_full_block_waits_for_room_and_at_most_the_timeout(opened: Callable[..., Any]) -> None:
    q = opened(on_disk=False, memory_size=1, when_full=WhenFull.BLOCK)
    q.enqueue(0)
    with pytest.raises(QueueFull):
        q.enqueue(1, timeout=0.01)
    with pytest.raises(QueueFull):
        q.enqueue(1, timeout=0)
    thread, outcome = in_background(lambda: q.enqueue(1))
    assert q.dequeue() == 0
    assert finished(thread, outcome) is None and q.dequeue(EVER) == 1


@pytest.mark.parametrize(("policy", "left"), [(WhenFull.DROP_OLDEST, [2, 3, 4]), (WhenFull.DROP_NEWEST, [0, 1, 2])])
def test_drops_are_counted_by_reason_and_told(opened: Callable[..., Any], policy: WhenFull, left: list[int]) -> None:
    dropped: list[tuple[Any, ...]] = []
    q = opened(on_disk=False, memory_size=3, when_full=policy, on_dropped=lambda *told: dropped.append(told))
    for n in range(5):
        q.enqueue(n)
    assert list(q) == left and sum(q.stats().dropped.values()) == 2 and len(dropped) == 2
    assert {told[0] for told in dropped} == set(range(5)) - set(left)


@pytest.mark.parametrize("policy", WhenFull)
def test_the_disk_is_never_exceeded_by_one_byte(opened: Callable[..., Any], tmp_path: Path, policy: WhenFull) -> None:
    limit = 512 * KiB
    q = opened(memory_size=2, max_disk_size=limit, when_full=policy)
    refused = 0
    for n in range(300):
        try:
            q.enqueue(n.to_bytes(2, "big") + os.urandom(4000), timeout=0)
        except QueueFull:
            refused += 1
        assert sum(file.stat().st_size for file in (tmp_path / "q").iterdir()) <= limit
        assert sum(file.stat().st_blocks * 512 for file in (tmp_path / "q").iterdir()) <= limit
    stats = q.stats()
    assert refused + sum(stats.dropped.values()) + len(q) == 300 and 0 < len(q) < 150
    numbers = [int.from_bytes(item[:2], "big") for item in q.dequeue_batch(1000)]
    assert numbers == sorted(numbers)
    q.enqueue(b"there is room again")
    assert q.dequeue(0) == b"there is room again"


def test_rate_limit_raises_or_waits(opened: Callable[..., Any]) -> None:
    q = opened(rate_limit=RateLimit(0.001, burst=3))
    for n in range(3):
        q.enqueue(n)
    with pytest.raises(RateLimited):
        q.enqueue(3)
    assert list(q) == [0, 1, 2] and q.stats().refused["rate"] == 1
    waiting = opened("waiting", rate_limit=RateLimit(100, burst=1, on_limit="wait"))
    started = time.monotonic()
    for n in range(6):
        waiting.enqueue(n)
    assert time.monotonic() - started >= 0.045
    slow = opened("slow", rate_limit=RateLimit(0.001, burst=1, on_limit="wait"))
    slow.enqueue(0)
    with pytest.raises((RateLimited, QueueFull)):
        slow.enqueue(1, timeout=0.01)


def test_what_lived_too_long_never_comes_out(opened: Callable[..., Any]) -> None:
    expired: list[Any] = []
    q = opened(memory_size=2, ttl=EVER * 10, on_expired=lambda item, *more: expired.append(item))
    q.enqueue("short", ttl=0.02)
    q.enqueue("long")
    q.enqueue("short in the middle, on disk", ttl=0.02)
    q.enqueue("last")
    until(lambda: list(q) == ["long", "last"])
    assert q.peek() == "long"
    assert q.dequeue_batch() == ["long", "last"]
    q.cleanup()
    assert q.stats().expired == 2 and sorted(expired) == ["short", "short in the middle, on disk"] and len(q) == 0


def test_a_delayed_item_comes_in_time_and_not_before_also_after_reopening(opened: Callable[..., Any]) -> None:
    q = opened(memory_size=1)
    q.enqueue("not before this test has ended", delay=10 * EVER)
    q.enqueue("now")
    assert q.dequeue(0) == "now"
    ready_at = time.time() + 0.15
    q.enqueue("delayed", delay=0.15)
    q.close()
    q = opened(memory_size=1)
    assert q.dequeue(timeout=EVER) == "delayed"
    assert time.time() >= ready_at - 0.02
    with pytest.raises(QueueEmpty):
        q.try_dequeue()


# --- leases and dead letters


def test_a_delivery_says_all_and_settles_by_the_block(opened: Callable[..., Any]) -> None:
    q = opened(memory_size=1)
    before = time.time()
    q.enqueue_batch(["a", "b"], priority=200)
    with q.lease() as delivery:
        assert (delivery.item, delivery.attempts, delivery.priority) == ("a", 1, 200)
        assert isinstance(delivery.id, uuid.UUID)
        at = delivery.enqueued_at
        stamp = at.timestamp() if isinstance(at, datetime.datetime) else at
        assert before - 1 <= stamp <= time.time() + 1
        assert len(q) == 1 and list(q) == ["b"], "a leased item is not in line"
    with pytest.raises(KeyError), q.lease() as delivery:
        raise KeyError
    assert q.peek() == "b"
    again = q.lease()
    assert (again.item, again.attempts, again.id) == ("b", 2, delivery.id)
    again.ack()
    assert q.stats().redelivered == 1 and len(q) == 0


def test_nack_puts_it_back_to_its_old_place_now_or_later(opened: Callable[..., Any]) -> None:
    q = opened(memory_size=1)
    q.enqueue_batch(range(4))
    first, second = q.lease_batch(2)
    second.nack()
    first.nack()
    assert list(q) == [0, 1, 2, 3]
    q.lease().nack(delay=0.05)
    assert q.dequeue_batch(3) == [1, 2, 3] and q.dequeue(EVER) == 0


def test_lease_batch_is_a_list_and_empty_when_there_is_nothing(opened: Callable[..., Any]) -> None:
    q = opened()
    assert q.lease_batch(5) == []
    q.enqueue_batch(range(3))
    deliveries = q.lease_batch(2)
    assert [d.item for d in deliveries] == [0, 1]
    for d in deliveries:
        d.ack()
    assert list(q) == [2]


@pytest.mark.parametrize("settle", ["ack", "nack"])
def test_a_late_ack_is_refused_and_the_item_is_there_for_others(opened: Callable[..., Any], settle: str) -> None:
    q = opened(lease_timeout=0.03)
    q.enqueue("slow")
    late = q.lease()
    other = q.lease(timeout=EVER)
    assert (other.item, other.attempts) == ("slow", 2)
    with pytest.raises(LeaseExpired):
        getattr(late, settle)()
    with pytest.raises(LeaseExpired):
        late.extend(10)
    other.extend(EVER)
    other.ack()
    assert len(q) == 0 and q.stats().dequeued + q.stats().in_flight <= 1


def test_extend_keeps_a_lease_alive(opened: Callable[..., Any]) -> None:
    q = opened(lease_timeout=0.05)
    q.enqueue("slow")
    delivery = q.lease()
    delivery.extend(EVER)
    with pytest.raises(QueueEmpty):
        q.dequeue(timeout=0.12)
    delivery.ack()


def test_settling_twice_is_an_error_or_nothing_and_never_takes_another_item(opened: Callable[..., Any]) -> None:
    q = opened()
    q.enqueue_batch([1, 2])
    delivery = q.lease()
    delivery.ack()
    for settle in (delivery.ack, delivery.nack):
        try:
            settle()
        except QueueError:
            pass
        assert list(q) == [2]


def test_what_runs_out_of_attempts_is_a_dead_letter_with_the_reason_and_can_be_replayed(opened: Callable[..., Any]) -> None:
    q = opened(memory_size=1, max_attempts=2)
    q.enqueue_batch(["poison", "fine"])
    for _ in range(2):
        with pytest.raises(ValueError), q.lease() as delivery:
            assert delivery.item == "poison"
            raise ValueError("no such codec")
    assert list(q) == ["fine"] and len(q.dead_letters) == 1
    q.close()
    q = opened(memory_size=1, max_attempts=2)
    (letter,) = q.dead_letters
    assert letter.item == "poison" and letter.attempts == 2 and "no such codec" in letter.error and letter.reason
    assert q.dead_letters.replay() == 1
    assert len(q.dead_letters) == 0 and list(q) == ["fine", "poison"]
    q.dequeue()
    assert q.lease().attempts == 1


def test_without_max_attempts_nothing_ever_dies(opened: Callable[..., Any]) -> None:
    q = opened()
    q.enqueue("again")
    for attempt in range(1, 40):
        delivery = q.lease()
        assert delivery.attempts == attempt
        delivery.nack()
    assert len(q.dead_letters) == 0 and list(q) == ["again"]


# --- memory, disk, removal


def test_moving_out_of_memory_says_how_many_and_changes_no_order(opened: Callable[..., Any]) -> None:
    q = opened(memory_size=10)
    q.enqueue_batch(range(8))
    assert q.flush_oldest(3) == 3 and (q.memory_size, q.disk_size) == (5, 3)
    assert q.flush_to_disk(2) == 2 and q.memory_size == 3
    assert q.flush_to_disk() == 3 and (q.memory_size, q.disk_size) == (0, 8)
    assert q.flush_to_disk() == q.flush_oldest(5) == 0
    assert q.dequeue_batch() == list(range(8))


def test_a_new_memory_limit_holds_at_once(opened: Callable[..., Any]) -> None:
    q = opened()
    q.enqueue_batch([bytes([n]) * 100 for n in range(10)])
    q.set_memory_limit(350)
    assert q.stats().memory_bytes <= 350 and q.disk_size >= 7
    q.set_memory_limit(None)
    assert isinstance(q.compact_memory(), int) and isinstance(q.shrink_memory(), int)
    assert [item[0] for item in q.dequeue_batch()] == list(range(10))


def test_space_of_what_is_done_comes_back_by_itself_and_at_once_when_asked_for(opened: Callable[..., Any], tmp_path: Path) -> None:
    q = opened(memory_size=2, max_disk_size=16 * MiB)
    for _ in range(4):  # three times as much as the disk may hold passes through
        for _ in range(12):
            q.enqueue_batch([os.urandom(100_000)] * 10)
        assert len(q.dequeue_batch(120)) == 120
    assert q.cleanup() + q.compact() > 0
    assert isinstance(q.cleanup(), int) and isinstance(q.compact(), int)
    left = sum(file.stat().st_blocks * 512 for file in (tmp_path / "q").iterdir())
    assert left <= 64 * KiB, f"{left:,} bytes for an empty queue"


def test_clear_and_remove_where_are_counted_and_durable(opened: Callable[..., Any]) -> None:
    q = opened(memory_size=2)
    q.enqueue_batch(range(10))
    assert q.remove_where(lambda item: item % 2 == 0) == 5 and q.stats().removed == 5
    q.close()
    q = opened(memory_size=2)
    assert list(q) == [1, 3, 5, 7, 9]
    assert q.clear() == 5 and q.stats().cleared == 5
    q.close()
    assert list(opened()) == []


def test_iteration_is_a_snapshot_that_takes_nothing(opened: Callable[..., Any]) -> None:
    q = opened(memory_size=2)
    q.enqueue_batch(range(6))
    reading = iter(q)
    assert next(reading) == 0
    q.enqueue(6)
    q.dequeue()
    rest = list(reading)
    assert rest == sorted(set(rest)) and {2, 3, 4, 5} <= set(rest) and len(q) == 6


# --- closing, opening, forking, looking


def test_close_refuses_new_items_gives_what_is_left_and_then_says_closed(opened: Callable[..., Any]) -> None:
    q = opened()
    q.enqueue_batch(range(3))
    thread, outcome = in_background(lambda: q.close(drain=EVER))
    until(lambda: q.closed)
    with pytest.raises(QueueClosed):
        q.enqueue(3)
    assert thread.is_alive()
    assert [q.dequeue(EVER) for _ in range(3)] == [0, 1, 2]
    assert not isinstance(finished(thread, outcome), BaseException)
    for verb in (q.dequeue, q.try_dequeue, q.peek, q.dequeue_batch, q.lease, lambda: q.enqueue_batch([1]), lambda: q.enqueue_front(1)):
        with pytest.raises(QueueClosed):
            verb()
    q.close()
    q.close()


def test_waiting_consumers_and_producers_are_woken_by_close(opened: Callable[..., Any]) -> None:
    q = opened()
    full = opened("full", on_disk=False, memory_size=1, when_full=WhenFull.BLOCK)
    full.enqueue(0)
    waiting = [in_background(q.dequeue), in_background(q.lease), in_background(lambda: q.dequeue_batch(timeout=EVER)), in_background(lambda: full.enqueue(1))]
    q.close()
    full.close()
    assert all(isinstance(finished(*one), QueueClosed) for one in waiting)


def test_a_context_manager_closes_and_what_is_left_is_there_next_time(opened: Callable[..., Any], tmp_path: Path) -> None:
    with HybridQueue("q", tmp_path, memory_size=2) as q:
        assert isinstance(q, HybridQueue)
        q.enqueue_batch(range(5))
    assert q.closed
    with HybridQueue("q", tmp_path) as q:
        assert q.recovery.items == 5 and q.recovery.segments >= 1 and "5" in str(q.recovery)
        assert q.dequeue_batch() == list(range(5))


def test_a_second_opener_is_told_who_holds_it(opened: Callable[..., Any], tmp_path: Path) -> None:
    opened()
    with pytest.raises(QueueLocked, match=str(os.getpid())):
        HybridQueue("q", tmp_path)
    code = "import sys, overspill\ntry:\n    overspill.HybridQueue('q', sys.argv[1])\nexcept overspill.QueueLocked as error:\n    print(error)"
    said = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True, timeout=EVER).stdout
    assert str(os.getpid()) in said


def test_a_fork_child_that_touches_the_queue_gets_a_clear_error(opened: Callable[..., Any]) -> None:
    q = opened(memory_size=2)
    q.enqueue_batch(range(5))
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            said = []
            for verb in (lambda: q.enqueue(1), q.try_dequeue, q.peek, lambda: q.dequeue_batch(5), q.sync, lambda: q.lease(0), lambda: list(q), q.clear):
                try:
                    verb()
                    said.append("nothing")
                except QueueError as error:
                    said.append(str(error))
            os.write(writing, json.dumps(said).encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        said = json.load(pipe)
    assert len(said) == 8 and all("fork" in one or "process" in one for one in said), said
    assert q.dequeue_batch() == list(range(5))


def test_destroy_is_the_only_way_to_delete_the_folder(opened: Callable[..., Any], tmp_path: Path) -> None:
    q = opened()
    q.enqueue(1)
    q.close()
    assert (tmp_path / "q").is_dir()
    q = opened()
    q.destroy()
    assert not (tmp_path / "q").exists() and q.closed
    assert list(opened()) == []


def test_folder_and_files_are_private(opened: Callable[..., Any], tmp_path: Path) -> None:
    opened().enqueue(1)
    assert (tmp_path / "q").stat().st_mode & 0o777 == 0o700
    assert all(file.stat().st_mode & 0o777 == 0o600 for file in (tmp_path / "q").iterdir())


def test_inspect_looks_and_changes_no_byte(opened: Callable[..., Any], tmp_path: Path) -> None:
    q = opened(memory_size=1)
    q.enqueue_batch(range(7))
    q.dequeue()

    def bytes_of() -> dict[str, bytes]:
        return {file.name: file.read_bytes() for file in (tmp_path / "q").iterdir()}

    before = bytes_of()
    assert HybridQueue.inspect(tmp_path / "q").waiting == 6, "beside the owner"
    assert bytes_of() == before
    q.close()
    before = bytes_of()
    assert HybridQueue.inspect(str(tmp_path / "q")).waiting == 6 and bytes_of() == before
    with pytest.raises((QueueError, OSError)):
        HybridQueue.inspect(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()


CHILD = """
import sys, overspill
q = overspill.HybridQueue("q", sys.argv[1], memory_size=3, durability=overspill.Durability[sys.argv[2]], max_attempts=9)
for n in range(50):
    q.enqueue(n)
q.enqueue("high", priority=255); q.enqueue("delayed", delay=0.01); q.enqueue_front("front", priority=255)
assert q.dequeue() == "front" and q.dequeue_batch(2) == ["high", 0]
held = q.lease_batch(3); held[1].ack()
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("durability", ["PROCESS", "POWER"])
def test_a_killed_process_loses_nothing_and_repeats_nothing_that_was_taken(tmp_path: Path, durability: str) -> None:
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(tmp_path), durability], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdin is not None and child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    child.send_signal(signal.SIGKILL)
    child.communicate()
    with HybridQueue("q", tmp_path) as q:
        left = [q.dequeue(EVER) for _ in range(50 - 1 - 1 + 1)]
        assert [item for item in left if item != "delayed"] == [1, 3, *range(4, 50)] and left.count("delayed") == 1
        assert len(q) == 0


# --- from_config


CONFIGURED = {"name": "jobs", "memory_size": 2, "durability": "power", "when_full": "drop_oldest", "overflow_strategy": "largest", "ttl": 60, "compression": "zstd"}


def test_from_config_takes_a_mapping_or_a_toml_or_json_file(tmp_path: Path) -> None:
    toml, js = tmp_path / "queue.toml", tmp_path / "queue.json"
    settings = {**CONFIGURED, "disk_path": str(tmp_path / "queues")}
    toml.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in settings.items()))
    js.write_text(json.dumps(settings))
    for source in (settings, str(toml), toml, js):
        with HybridQueue.from_config(source) as q:
            q.enqueue_batch(range(3))
            assert (q.name, q.memory_size, q.disk_size, q.clear()) == ("jobs", 2, 1, 3)
    with PriorityQueue.from_config(settings) as levels:
        assert isinstance(levels, PriorityQueue)


def test_unknown_keys_of_a_config_are_errors_that_name_the_key(tmp_path: Path) -> None:
    for wrong in ({"memory_sise": 2}, {"memory-size": 2}, {"_private": 1}, {"self": 1}):
        with pytest.raises((QueueError, ValueError, TypeError), match=next(iter(wrong))):
            HybridQueue.from_config({"name": "jobs", "disk_path": str(tmp_path), **wrong})
    with pytest.raises((QueueError, OSError)):
        HybridQueue.from_config(tmp_path / "missing.toml")
    (tmp_path / "broken.toml").write_text("name = ")
    with pytest.raises((QueueError, ValueError), match=r"broken\.toml"):
        HybridQueue.from_config(tmp_path / "broken.toml")
    assert [file.name for file in tmp_path.iterdir()] == ["broken.toml"]


# --- the other classes


def test_priority_queue(opened: Callable[..., Any]) -> None:
    for on_disk in (False, True):
        q = opened(f"levels{on_disk}", kind=PriorityQueue, on_disk=on_disk, memory_size=5 if on_disk else 1000)
        for n in range(512):
            q.enqueue((n % 256, n), n % 256)
        q.enqueue((128, "default"))
        q.enqueue_with_priority((255, "last of the highest"), 255)
        q.enqueue((64, "by name"), priority=Priority.LOW)
        got = q.dequeue_batch(1000)
        assert [level for level, _ in got] == sorted((level for level, _ in got), reverse=True)
        assert got[:3] == [(255, 255), (255, 511), (255, "last of the highest")]
        assert [item for item in got if item[0] == 128] == [(128, 128), (128, 384), (128, "default")]
        with pytest.raises((ValueError, QueueError)):
            q.enqueue(1, 256)


def test_batches_are_lists_up_to_n_or_what_came_in_time(opened: Callable[..., Any]) -> None:
    q = opened(memory_size=2)
    q.enqueue_batch(range(7))
    batches = q.batches(n=3, linger=0.01)
    assert [next(batches) for _ in range(3)] == [[0, 1, 2], [3, 4, 5], [6]]
    thread, outcome = in_background(lambda: list(batches))
    q.enqueue_batch(range(2))
    q.close(drain=EVER)
    assert finished(thread, outcome) == [[0, 1]], "it ends when the queue is closed and drained"


def test_the_awaiting_face(opened: Callable[..., Any], tmp_path: Path) -> None:
    async def story() -> None:
        async with AsyncHybridQueue("awaited", tmp_path, memory_size=2, max_attempts=9) as q:
            await q.enqueue({"n": 0})
            await q.enqueue_batch([(1,), None], priority=Priority.HIGH)
            assert [await q.dequeue(), await q.dequeue(1)] == [(1,), None]
            with pytest.raises(ZeroDivisionError):
                async with await q.lease() as delivery:
                    assert delivery.item == {"n": 0} and delivery.attempts == 1
                    raise ZeroDivisionError
            async with await q.lease() as delivery:
                assert delivery.item == {"n": 0} and delivery.attempts == 2
            with pytest.raises(QueueEmpty):
                await q.dequeue(timeout=0.005)
            assert await q.dequeue_batch() == []
            for _ in range(20):
                waiting = asyncio.create_task(q.dequeue())
                await asyncio.sleep(0)
                waiting.cancel()
                await asyncio.gather(waiting, return_exceptions=True)
            await q.enqueue("still there")
            assert await q.dequeue() == "still there"
            producer = asyncio.create_task(q.enqueue_batch([1, 2, 3]))
            seen = []
            async for item in q:
                seen.append(item)
                if len(seen) == 3:
                    break
            await producer
            assert seen == [1, 2, 3]
            await q.enqueue("left")
        with pytest.raises(QueueClosed):
            await q.enqueue("late")

    asyncio.run(story())
    assert list(opened("awaited")) == ["left"]


def test_threads_and_tasks_share_one_queue(opened: Callable[..., Any]) -> None:
    q = opened(memory_size=2)

    async def take() -> list[Any]:
        return [await q.aio.dequeue(EVER) for _ in range(100)]

    thread, outcome = in_background(lambda: [q.enqueue(n) for n in range(100)])
    assert asyncio.run(take()) == list(range(100))
    assert isinstance(finished(thread, outcome), list)


def test_circular_buffer(tmp_path: Path) -> None:
    for where in ({}, {"disk_path": tmp_path, "name": "recorder"}):
        with CircularBuffer(3, **where) as buffer:
            assert len(buffer) == 0 and list(buffer) == [] and buffer.get_last(2) == []
            for n in range(5):
                buffer.push(n)
            assert len(buffer) == 3 and list(buffer) == [2, 3, 4]
            assert buffer.get_last(2) == [3, 4] and buffer.get_last(10) == [2, 3, 4] and buffer.get_last(0) == []
            assert (buffer[0], buffer[2], buffer[-1], buffer[-3]) == (2, 4, 4, 2)
            for wrong in (3, -4):
                with pytest.raises(IndexError):
                    buffer[wrong]
            seen: list[int] = []
            buffer.for_each(lambda item: seen.append(item) or item != 3)
            assert seen == [2, 3], "it stops when the function returns False"
            seen.clear()
            buffer.for_each(seen.append)
            assert seen == [2, 3, 4], "None is not False"
            assert buffer.get_recent(EVER) == [2, 3, 4] and buffer.get_recent(datetime.timedelta(0)) in ([], [4])
            assert buffer.remove_where(lambda item: item == 3) == 1 and list(buffer) == [2, 4]
            buffer.push(None)
            assert buffer[-1] is None and len(buffer) == 3
    with CircularBuffer(3, disk_path=tmp_path, name="recorder") as buffer:
        assert list(buffer) == [2, 4, None]
    with CircularBuffer(5, ttl=0.02) as events:
        events.push("old")
        until(lambda: not list(events))
        assert events.get_last(5) == events.get_recent(60) == [] and len(events) == 0
    with CircularBuffer(5, ttl=EVER) as events:
        events.push("new")
        assert list(events) == events.get_last(5) == events.get_recent(60) == ["new"] and len(events) == 1


def test_a_flight_recorder_survives_a_kill(tmp_path: Path) -> None:
    code = "import sys, os, overspill\nb = overspill.CircularBuffer(10, disk_path=sys.argv[1], name='r')\nfor n in range(1234):\n    b.push(n)\nos.kill(os.getpid(), 9)"
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], timeout=EVER).returncode == -signal.SIGKILL
    with CircularBuffer(10, disk_path=tmp_path, name="r") as buffer:
        assert list(buffer) == list(range(1224, 1234))


def test_stream_queue(tmp_path: Path) -> None:
    q = StreamQueue("cam", 2, tmp_path)
    overflow = tmp_path / "cam.overflow"
    assert (q.get_depth(), q.get_pressure(), q.has_disk_data()) == (0, 0.0, False)
    q.enqueue(b"a")
    q.enqueue(b"bb")
    assert q.get_pressure() == 1.0 and not q.has_disk_data()
    q.enqueue(b"ccc")
    q.enqueue(b"")
    assert q.has_disk_data() and q.get_pressure() > 1.0 and q.get_depth() == 4
    assert b"\0\0\0\3ccc" in overflow.read_bytes(), "4-byte big-endian length and the data behind it"
    stats = q.stats()
    assert (stats.stream_id, stats.depth, stats.memory_items, stats.pressure) == ("cam", 4, 2, q.get_pressure()) and stats.disk_bytes == 3 + 0 + 2 * 4
    assert [q.dequeue(), q.try_dequeue(), q.dequeue_timeout(1), q.dequeue()] == [b"a", b"bb", b"ccc", b""]
    for empty in (q.try_dequeue, lambda: q.dequeue_timeout(0.01)):
        with pytest.raises(QueueEmpty):
            empty()
    assert not q.has_disk_data() and (not overflow.exists() or overflow.stat().st_blocks * 512 <= 64 * KiB)
    for wrong in ("text", 1, None, ["x"]):
        with pytest.raises((TypeError, QueueError)):
            q.enqueue(wrong)  # type: ignore[arg-type]
    for n in range(5):
        q.enqueue(bytes([n]))
    thread, outcome = in_background(q.dequeue)
    assert finished(thread, outcome) == b"\0"
    q.close()
    assert not overflow.exists()
    with pytest.raises(QueueClosed):
        q.enqueue(b"late")
    q.close()


def test_stream_queue_rate_limit_defaults_to_ten_thousand_a_second_in_bursts_of_a_thousand(tmp_path: Path) -> None:
    assert inspect.signature(StreamQueue).parameters["rate_limit"].default == RateLimit(10_000, burst=1000)
    q = StreamQueue("cam", 10, tmp_path, rate_limit=RateLimit(0.001, burst=2))
    q.enqueue(b"1")
    q.enqueue(b"2")
    with pytest.raises(RateLimited):
        q.enqueue(b"3")
    q.close()


def test_stream_queue_reports_a_length_over_ten_mebibytes_as_corrupted(tmp_path: Path) -> None:
    (tmp_path / "cam.overflow").write_bytes(b"\0\0\0\2ok" + (10 * MiB + 1).to_bytes(4, "big") + b"rest")
    with pytest.raises(CorruptedData):
        q = StreamQueue("cam", 1, tmp_path)
        got = []
        try:
            while True:
                got.append(q.try_dequeue())
        finally:
            assert got == [b"ok"]
            with pytest.raises(QueueEmpty):
                q.try_dequeue()
            q.close()


def test_stand_in_for_the_standard_librarys_queue(tmp_path: Path) -> None:
    marker = object()
    for q in (Queue(), Queue(2), Queue(2, name="tasks", disk_path=tmp_path)):
        durable = "tasks" in repr(q)
        q.put(1 if durable else marker)
        q.put(2, False)
        assert q.qsize() == 2 and q.full() == (q.maxsize == 2) and not q.empty()
        if q.maxsize:
            for put in (lambda: q.put_nowait(3), lambda: q.put(3, block=False), lambda: q.put(3, timeout=0.01)):
                with pytest.raises(queue.Full):
                    put()
        assert q.get() is (1 if durable else marker), "in memory, the very object"
        assert q.get_nowait() == 2
        for get in (q.get_nowait, lambda: q.get(False), lambda: q.get(timeout=0.01)):
            with pytest.raises(queue.Empty):
                get()
        thread, outcome = in_background(q.join)
        q.task_done()
        q.task_done()
        assert finished(thread, outcome) is None
        with pytest.raises(ValueError):
            q.task_done()
        with pytest.raises(ValueError):
            q.get(timeout=-1)
        q.put(4)
        q.shutdown()
        with pytest.raises(QueueClosed):
            q.put(5)
        assert q.get() == 4
        with pytest.raises(QueueClosed):
            q.get()


def test_four_producers_and_four_consumers_see_each_item_once_and_each_producers_in_order(opened: Callable[..., Any]) -> None:
    q = opened(memory_size=16)
    each = 300
    producing = [in_background(lambda p=p: [q.enqueue((p, n)) for n in range(each)]) for p in range(4)]

    def consume() -> list[Any]:
        got = []
        while True:
            try:
                got.append(q.dequeue())
            except QueueClosed:
                return got

    consuming = [in_background(consume) for _ in range(4)]
    for one in producing:
        assert isinstance(finished(*one), list)
    q.close(drain=EVER)
    taken = [finished(*one) for one in consuming]
    assert sorted(item for got in taken for item in got) == [(p, n) for p in range(4) for n in range(each)]  # type: ignore[attr-defined]
    for got in taken:
        for p in range(4):
            mine = [n for producer, n in got if producer == p]  # type: ignore[attr-defined]
            assert mine == sorted(mine)
