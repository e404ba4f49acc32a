"""Four answers to a queue that is full, each chosen by name, none of them silent; and a rate limit."""
from __future__ import annotations

import queue
import threading
from pathlib import Path
from typing import Any

from patience import until
import pytest
from conftest import Place, drained, items_upto

from overspill import HybridQueue, InvalidOption, ItemTooLarge, KiB, QueueFull, RateLimit, WhenFull
from overspill._runtime.clock import SystemClock

SMALL = 256 * KiB


def fill(q: HybridQueue, size: int = 8 * KiB) -> int:
    """Put numbered items until the queue says that it is full; returns how many are in."""
    for i in range(1000):
        try:
            q.enqueue(i.to_bytes(4, "big") * (size // 4))
        except QueueFull:
            return i
    raise AssertionError("it never filled up")


def number(item: bytes) -> int:
    return int.from_bytes(item[:4], "big")


def bytes_in(folder: Path) -> int:
    """What the folder takes on disk, whichever way one counts."""
    return sum(max(path.stat().st_size, path.stat().st_blocks * 512) for path in folder.rglob("*") if path.is_file() and path.name != "lock")


# --- without a disk: full by items or by bytes


def test_memory_only_is_full_by_items(memory_place: Place) -> None:
    q = memory_place.open(memory_size=3)
    q.enqueue_batch(items_upto(3))
    for put in (lambda: q.enqueue("x"), lambda: q.enqueue_front("x"), lambda: q.enqueue_batch(["x"])):
        with pytest.raises(QueueFull) as caught:
            put()
        assert isinstance(caught.value, queue.Full)
    assert q.dequeue() == items_upto(1)[0]
    q.enqueue("room again")
    assert drained(q) == [*items_upto(3)[1:], "room again"]


def test_memory_only_is_full_by_bytes(memory_place: Place) -> None:
    q = memory_place.open(memory_limit=100)
    q.enqueue(b"x" * 60)
    with pytest.raises(QueueFull):
        q.enqueue(b"y" * 41)
    q.enqueue(b"z" * 40)
    assert [len(item) for item in drained(q)] == [60, 40]


def test_memory_only_takes_a_batch_whole_or_not_at_all(memory_place: Place) -> None:
    q = memory_place.open(memory_size=5)
    q.enqueue_batch(items_upto(3))
    with pytest.raises(QueueFull):
        q.enqueue_batch(["a", "b", "c"])
    assert list(q) == items_upto(3)
    q.enqueue_batch(["a", "b"])
    assert len(q) == 5


def test_a_batch_that_can_never_fit_is_full_whatever_the_policy(memory_place: Place) -> None:
    for policy in WhenFull:
        q = memory_place.open(memory_size=3, when_full=policy)
        q.enqueue("stays")
        with pytest.raises(QueueFull):
            q.enqueue_batch(items_upto(4))
        assert list(q) == ["stays"]


def test_memory_only_drops_the_oldest(memory_place: Place) -> None:
    dropped: list[tuple[Any, str]] = []
    q = memory_place.open(memory_size=3, when_full=WhenFull.DROP_OLDEST, on_dropped=lambda item, reason: dropped.append((item, reason)))
    for i in range(7):
        q.enqueue(i)
    assert drained(q) == [4, 5, 6]
    assert [item for item, _ in dropped] == [0, 1, 2, 3]
    assert sum(q.stats().dropped.values()) == 4
    assert set(q.stats().dropped) == {reason for _, reason in dropped}


def test_the_oldest_is_the_one_that_was_put_first_whatever_its_priority(memory_place: Place) -> None:
    q = memory_place.open(memory_size=3, when_full=WhenFull.DROP_OLDEST)
    q.enqueue("oldest", priority=200)
    q.enqueue("n")
    q.enqueue("low", priority=1)
    q.enqueue("new")
    assert drained(q) == ["n", "new", "low"]


def test_memory_only_drops_the_newest(memory_place: Place) -> None:
    dropped: list[Any] = []
    q = memory_place.open(memory_size=3, when_full=WhenFull.DROP_NEWEST, on_dropped=lambda item, reason: dropped.append(item))
    for i in range(7):
        q.enqueue(i)
    assert dropped == [3, 4, 5, 6]
    assert sum(q.stats().dropped.values()) == 4
    assert q.stats().balance == 0
    assert drained(q) == [0, 1, 2]


def test_leased_items_are_not_dropped(memory_place: Place) -> None:
    q = memory_place.open(memory_size=2, when_full=WhenFull.DROP_OLDEST)
    q.enqueue_batch(["held", "oldest waiting"])
    delivery = q.lease()
    for item in ("a", "b"):
        q.enqueue(item)
    delivery.nack()
    assert drained(q)[0] == "held"


# --- with a disk: the folder never grows beyond its limit


def test_the_disk_budget_is_never_exceeded_by_a_byte(tiny_place: Place) -> None:
    q = tiny_place.open(max_disk_size=SMALL)
    folder = tiny_place.folder(q)
    held = []
    for turn in range(120):
        try:
            q.enqueue(turn.to_bytes(4, "big") * (turn * 37 % 3000))
        except QueueFull:
            taken = q.dequeue_batch(1 + turn % 5)
            assert taken
        if turn % 10 == 0:
            held += q.lease_batch(1)
        if turn % 25 == 0:
            tiny_place.clock.advance(2)
        assert bytes_in(folder) <= SMALL
        assert q.stats().disk_bytes <= SMALL
        assert q.stats().disk_bytes >= sum(path.stat().st_size for path in folder.glob("*.seg")), "what is reported is what is there"
    assert 0.0 <= q.stats().disk_ratio <= 1.0


def test_raise_says_full_and_loses_nothing(tiny_place: Place) -> None:
    q = tiny_place.open(max_disk_size=SMALL)
    n = fill(q)
    assert n >= 10
    with pytest.raises(QueueFull, match="max_disk_size"):
        q.enqueue(b"x" * 8 * KiB)
    assert [number(item) for item in q] == list(range(n))
    assert [number(item) for item in drained(q)] == list(range(n))


def test_a_full_queue_takes_items_again_once_some_have_left(tiny_place: Place) -> None:
    q = tiny_place.open(max_disk_size=SMALL)
    n = fill(q)
    q.dequeue_batch(n // 2 + 1)
    more = fill(q)
    assert more >= n // 4
    assert len(drained(q)) == n - n // 2 - 1 + more


def test_a_full_queue_goes_on_giving_and_leasing(tiny_place: Place) -> None:
    q = tiny_place.open(max_disk_size=SMALL)
    n = fill(q)
    with q.lease() as delivery:
        assert number(delivery.item) == 0
    delivery = q.lease()
    delivery.nack()
    assert [number(item) for item in drained(q)] == list(range(1, n))


def test_a_full_queue_that_is_reopened_is_as_full_and_as_whole(tiny_place: Place) -> None:
    q = tiny_place.open(max_disk_size=SMALL)
    n = fill(q)
    q.dequeue()
    q = tiny_place.reopen(q, max_disk_size=SMALL)
    assert bytes_in(tiny_place.folder(q)) <= SMALL
    assert [number(item) for item in drained(q)] == list(range(1, n))


def test_an_oversized_batch_on_disk_changes_nothing(tiny_place: Place) -> None:
    q = tiny_place.open(max_disk_size=SMALL)
    q.enqueue("there")
    with pytest.raises(QueueFull):
        q.enqueue_batch([b"x" * 20 * KiB] * 20)
    assert drained(q) == ["there"]


def test_drop_oldest_makes_room_on_disk_and_counts(tiny_place: Place) -> None:
    dropped: list[int] = []
    q = tiny_place.open(max_disk_size=SMALL, when_full=WhenFull.DROP_OLDEST, on_dropped=lambda item, reason: dropped.append(number(item)))
    for i in range(80):
        q.enqueue(i.to_bytes(4, "big") * 2048)
        assert bytes_in(tiny_place.folder(q)) <= SMALL
    left = [number(item) for item in drained(q)]
    assert dropped + left == list(range(80))
    assert len(left) >= 8
    assert sum(q.stats().dropped.values()) == len(dropped)


def test_drop_newest_keeps_what_is_there_and_counts(tiny_place: Place) -> None:
    dropped: list[int] = []
    q = tiny_place.open(max_disk_size=SMALL, when_full=WhenFull.DROP_NEWEST, on_dropped=lambda item, reason: dropped.append(number(item)))
    for i in range(80):
        q.enqueue(i.to_bytes(4, "big") * 2048)
    left = [number(item) for item in drained(q)]
    assert left + dropped == list(range(80))
    assert q.stats().dropped and sum(q.stats().dropped.values()) == len(dropped)


def test_dropped_items_stay_dropped_after_reopening(tiny_place: Place) -> None:
    q = tiny_place.open(max_disk_size=SMALL, when_full=WhenFull.DROP_OLDEST)
    for i in range(80):
        q.enqueue(i.to_bytes(4, "big") * 2048)
    left = [number(item) for item in q]
    assert [number(item) for item in drained(tiny_place.reopen(q, max_disk_size=SMALL))] == left


@pytest.mark.parametrize("on_disk", [False, True], ids=["memory_only", "disk"])
def test_block_waits_for_room_and_gives_up_after_its_timeout(tmp_path: Path, on_disk: bool) -> None:
    q = HybridQueue("q", tmp_path if on_disk else None, memory_size=2, max_disk_size=SMALL, when_full=WhenFull.BLOCK)
    n = 0
    with pytest.raises(QueueFull):
        for n in range(1000):
            q.enqueue(n.to_bytes(4, "big") * 2048, timeout=0)
    entered: list[int] = []

    def produce() -> None:
        for i in range(n, n + 10):
            q.enqueue(i.to_bytes(4, "big") * 2048, timeout=30)
            entered.append(i)

    producer = threading.Thread(target=produce, daemon=True)
    producer.start()
    taken = [number(q.dequeue(timeout=30)) for _ in range(n + 10)]
    producer.join(30)
    assert not producer.is_alive()
    assert taken == list(range(n + 10))
    q.close()


def test_a_timeout_makes_any_policy_wait_that_long_for_room(memory_place: Place) -> None:
    q = memory_place.open(memory_size=1, _clock=SystemClock())
    q.enqueue("full")

    def make_room() -> None:
        until(lambda: q._n_makers)
        q.dequeue()

    helper = threading.Thread(target=make_room, daemon=True)
    helper.start()
    q.enqueue("waited", timeout=30)
    helper.join(30)
    assert drained(q) == ["waited"]


# --- items that can never enter


def test_a_too_large_item_is_refused_at_enqueue_and_names_both_sizes(place: Place) -> None:
    q = place.open(max_item_size=100, **({"memory_limit": 1000} if not place.setting.on_disk else {}))
    q.enqueue(b"x" * 100)
    for put in (lambda: q.enqueue(b"x" * 101), lambda: q.enqueue("ü" * 51), lambda: q.enqueue_batch([b"fits", b"x" * 101]), lambda: q.enqueue_front(b"x" * 101)):
        with pytest.raises(ItemTooLarge, match="max_item_size") as caught:
            put()
        assert caught.value.limit == 100 and caught.value.size > 100
    assert drained(q) == [b"x" * 100]


def test_the_largest_item_that_is_allowed_fits(tiny_place: Place) -> None:
    q = tiny_place.open(max_item_size=128 * KiB, max_disk_size=SMALL)
    for _ in range(3):
        q.enqueue(b"x" * 128 * KiB)
        assert q.dequeue() == b"x" * 128 * KiB


def test_without_being_told_the_largest_item_follows_from_the_disk(tiny_place: Place) -> None:
    q = tiny_place.open(max_disk_size=SMALL)
    with pytest.raises(ItemTooLarge):
        q.enqueue(b"x" * SMALL)
    q.enqueue(b"x" * 100 * KiB)
    assert len(q.dequeue()) == 100 * KiB


# --- arguments


@pytest.mark.parametrize("bad", [{"priority": -1}, {"priority": 256}, {"priority": True}, {"priority": "high"}, {"priority": 1.0}, {"ttl": 0}, {"ttl": -1}, {"ttl": "soon"},
                                 {"ttl": float("nan")}, {"ttl": float("inf")}, {"timeout": -1}, {"timeout": "long"}])  # fmt: skip
def test_a_bad_argument_is_refused_and_puts_nothing(place: Place, bad: dict[str, Any]) -> None:
    q = place.open(rate_limit=RateLimit(1, burst=2))
    with pytest.raises(InvalidOption, match=next(iter(bad))):
        q.enqueue("x", **bad)
    with pytest.raises(InvalidOption, match=next(iter(bad))):
        q.enqueue_batch(["x"], **bad)
    assert len(q) == 0
    q.enqueue_batch(["both", "tokens"])  # a refused item costs no token
