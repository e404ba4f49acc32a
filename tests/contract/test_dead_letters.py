"""What fails too often is set apart, with the reason, and can be put back."""
from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import pytest
from conftest import ON_DISK, Place, drained, items_upto

from overspill import CircularBuffer, HybridQueue, InvalidOption, LeaseExpired, QueueEmpty, QueueFull


def test_the_last_attempt_that_fails_makes_a_dead_letter(place: Place) -> None:
    q = place.open(max_attempts=3)
    q.enqueue_batch(["bad", "good"])
    enqueued_at = place.clock.wall_ns / 1e9
    for attempt in range(3):
        delivery = q.lease()
        assert (delivery.item, delivery.attempts) == ("bad", attempt + 1)
        assert len(q.dead_letters) == 0
        place.clock.advance(1)
        delivery.nack(error=ValueError("no such stream"))
    assert list(q) == ["good"]
    (letter,) = q.dead_letters
    assert letter == q.dead_letters.peek()
    assert (letter.item, letter.attempts, letter.reason, letter.error) == ("bad", 3, "max_attempts", "ValueError('no such stream')")
    assert letter.id == delivery.id and isinstance(letter.id, uuid.UUID)
    assert letter.dead_at == pytest.approx(enqueued_at + 3) and letter.enqueued_at == pytest.approx(enqueued_at, abs=0.01)
    assert q.stats().dead_letters == len(q.dead_letters) == 1 and q.stats().redelivered == 3


def test_an_exception_that_leaves_the_block_is_the_error(place: Place) -> None:
    q = place.open(max_attempts=1)
    q.enqueue("job")
    with pytest.raises(ConnectionError), q.lease():
        raise ConnectionError("the server is down")
    assert q.dead_letters.peek().error == "ConnectionError('the server is down')"


def test_a_lease_that_runs_out_counts_as_an_attempt(place: Place) -> None:
    q = place.open(max_attempts=2, lease_timeout=10)
    q.enqueue("slow")
    q.lease()
    place.clock.advance(11)
    late = q.lease()
    place.clock.advance(11)
    (letter,) = q.dead_letters
    assert (letter.item, letter.attempts, letter.error) == ("slow", 2, "the lease ran out")
    with pytest.raises(LeaseExpired):
        late.ack()


def test_a_late_ack_finds_the_letter_buried_even_if_nobody_has_looked(place: Place) -> None:
    q = place.open(max_attempts=1, lease_timeout=10)
    q.enqueue("slow")
    delivery = q.lease()
    place.clock._monotonic += 11
    with pytest.raises(LeaseExpired):
        delivery.ack()
    place.clock.advance(0)
    assert len(q.dead_letters) == 1 and len(q) == 0


def test_a_delay_does_not_save_the_last_attempt(place: Place) -> None:
    q = place.open(max_attempts=2)
    q.enqueue("x")
    q.lease().nack(delay=5)
    place.clock.advance(6)
    q.lease().nack(delay=5)
    assert len(q.dead_letters) == 1 and q.stats().delayed == 0


def test_what_killed_its_process_at_the_last_attempt_is_not_delivered_again(disk_place: Place) -> None:
    q = disk_place.open(max_attempts=2)
    q.enqueue_batch(["killer", "harmless"])
    q.flush_to_disk()
    q.lease()
    q = disk_place.after_a_kill(q, max_attempts=2)
    delivery = q.lease()
    assert (delivery.item, delivery.attempts) == ("killer", 2)
    q = disk_place.after_a_kill(q, max_attempts=2)
    assert q.lease(timeout=0).item == "harmless"
    (letter,) = q.dead_letters
    assert (letter.item, letter.attempts, letter.error) == ("killer", 2, "the process ended while the item was leased")


def test_a_handler_may_reject_at_once(place: Place) -> None:
    q = place.open()
    q.enqueue_batch(["malformed", "fine"])
    delivery = q.lease()
    delivery.reject(error="not a video at all")
    (letter,) = q.dead_letters
    assert (letter.item, letter.attempts, letter.reason, letter.error) == ("malformed", 1, "rejected", "not a video at all")
    assert list(q) == ["fine"]
    with pytest.raises(LeaseExpired):
        delivery.ack()
    with q.lease() as delivery:
        delivery.reject()
    assert [letter.error for letter in q.dead_letters] == ["not a video at all", ""]


def test_dead_letters_survive_reopening_with_all_that_is_said_of_them(disk_place: Place) -> None:
    q = disk_place.open(max_attempts=1)
    q.enqueue("x", priority=7)
    q.lease().nack(error="ü" * 3000)
    before = list(q.dead_letters)
    for _ in range(2):
        q = disk_place.reopen(q)
        assert list(q.dead_letters) == before and len(q) == 0
        assert q.recovery.dead_letters == 1 and q.recovery.items == 0 and q.recovery.clean
    if disk_place.setting.logs:
        q = disk_place.after_a_kill(q)
        assert list(q.dead_letters) == before
    assert before[0].error.strip("ü") == "" and len(before[0].error) > 900


def test_replay_puts_letters_at_the_end_of_their_lines_as_if_new(place: Place) -> None:
    q = place.open(max_attempts=1)
    for item, priority in (("a", 128), ("b", 200), ("c", 128)):
        q.enqueue(item, priority=priority)
    ids = {}
    for delivery in q.lease_batch(3):
        ids[delivery.item] = delivery.id
        delivery.nack()
    q.enqueue("new")
    assert [letter.item for letter in q.dead_letters] == ["b", "a", "c"]
    assert q.dead_letters.replay() == 3
    assert len(q.dead_letters) == 0 and q.stats().dead_letters == 0
    assert list(q) == ["b", "new", "a", "c"]
    again = q.lease_batch(4)
    assert [delivery.attempts for delivery in again] == [1, 1, 1, 1]
    assert {delivery.item: delivery.id for delivery in again if delivery.item != "new"} == ids
    for delivery in again:
        delivery.ack()
    if place.setting.on_disk:
        q = place.reopen(q)
        assert len(q) == 0 and len(q.dead_letters) == 0


def test_some_letters_are_replayed_and_the_others_stay_in_order(place: Place) -> None:
    q = place.open(max_attempts=1)
    q.enqueue_batch([f"{i}" for i in range(9)])
    for delivery in q.lease_batch(9):
        place.clock.advance(0.001)
        delivery.nack(error="odd" if int(delivery.item) % 2 else "even")
    if place.setting.on_disk:
        q = place.reopen(q, max_attempts=1)
    assert q.dead_letters.replay(lambda letter: letter.error == "odd", max_items=3) == 3
    assert list(q) == ["1", "3", "5"]
    assert [letter.item for letter in q.dead_letters] == ["0", "2", "4", "6", "7", "8"]
    assert q.dead_letters.replay(max_items=2) == 2
    assert q.dead_letters.replay(max_items=0) == 0
    assert list(q) == ["1", "3", "5", "0", "2"]
    assert [letter.item for letter in q.dead_letters] == ["4", "6", "7", "8"]
    if place.setting.logs:
        q = place.after_a_kill(q, max_attempts=1)
        assert list(q) == ["1", "3", "5", "0", "2"] and [letter.item for letter in q.dead_letters] == ["4", "6", "7", "8"]


def test_letters_can_be_taken_and_removed(place: Place) -> None:
    q = place.open(max_attempts=1)
    q.enqueue_batch(items_upto(6))
    for delivery in q.lease_batch(6):
        place.clock.advance(0.001)
        delivery.nack()
    letters = q.dead_letters
    assert letters.try_dequeue().item == items_upto(1)[0]
    assert letters.remove_where(lambda letter: letter.item in items_upto(3)) == 2
    assert [letter.item for letter in letters] == items_upto(6)[3:]
    assert letters.clear() == 3
    assert len(letters) == 0 and list(letters) == []
    for call in (letters.peek, letters.try_dequeue):
        with pytest.raises(QueueEmpty):
            call()
    stats = q.stats()
    assert (stats.dequeued, stats.removed, stats.cleared) == (1, 2, 3)
    if place.setting.on_disk:
        assert len(place.reopen(q).dead_letters) == 0


def test_beyond_their_limit_the_oldest_letter_is_dropped_and_counted(place: Place) -> None:
    told: list[tuple[object, str]] = []
    q = place.open(max_attempts=1, dead_letter_limit=2, on_dropped=lambda item, reason: told.append((item, reason)))
    q.enqueue_batch(["a", "b", "c"])
    for delivery in q.lease_batch(3):
        place.clock.advance(0.001)
        delivery.nack()
    assert [letter.item for letter in q.dead_letters] == ["b", "c"]
    assert q.stats().dropped == {"dead_letters_full": 1} and told == [("a", "dead_letters_full")]


def test_dead_letters_do_not_expire_and_live_again_when_replayed(place: Place) -> None:
    q = place.open(max_attempts=1, ttl=10)
    q.enqueue("x")
    q.lease().nack()
    place.clock.advance(1000)
    q.cleanup()
    assert len(q.dead_letters) == 1
    assert q.dead_letters.replay() == 1
    place.clock.advance(9)
    assert list(q) == ["x"]
    place.clock.advance(2)
    assert drained(q) == []


def test_a_large_item_is_a_dead_letter_as_any_other(place: Place) -> None:
    q = place.open(max_attempts=1, memory_limit=None)
    for size in (40_000, 100_000):
        q.enqueue(bytes(size))
        q.lease().nack(error="x")
        place.clock.advance(0.001)
    if place.setting.on_disk:
        q = place.reopen(q, memory_limit=None)
    assert [len(letter.item) for letter in q.dead_letters] == [40_000, 100_000]
    assert q.dead_letters.replay() == 2
    assert [len(item) for item in drained(q)] == [40_000, 100_000]


@pytest.mark.parametrize("what", [["list", 1], {"a": (1, 2)}, 5, None, b"bytes", "text"])
def test_a_letter_has_the_item_that_was_put(place: Place, what: object) -> None:
    q = place.open(max_attempts=1)
    q.enqueue(what)
    q.lease().nack()
    assert q.dead_letters.peek().item == what
    assert q.dead_letters.replay() == 1
    assert drained(q) == [what]


def test_a_full_disk_does_not_keep_a_letter_from_being_set_apart(tiny_place: Place) -> None:
    q = tiny_place.open(max_disk_size=256 * 1024, max_attempts=1)
    n = 0
    with pytest.raises(QueueFull):
        while True:
            q.enqueue(f"{n} " + "x" * 3000)
            n += 1
    for delivery in q.lease_batch(12):
        delivery.nack(error=f"why {delivery.item.split()[0]}")
    assert [letter.error for letter in q.dead_letters] == [f"why {i}" for i in range(12)]
    assert len(q) == n - 12 and q.stats().balance == 0
    taken = q.dequeue_batch(n)
    assert len(taken) == n - 12
    q = tiny_place.reopen(q, max_disk_size=256 * 1024, max_attempts=1)
    assert len(q.dead_letters) + len(q) == 12, "where the letter could not be written, the item is in line again"
    while True:
        try:
            q.lease(timeout=0)
        except QueueEmpty:
            break
    assert len(q.dead_letters) + q.stats().in_flight == 12


def test_no_attempts_and_other_nonsense_are_refused(memory_place: Place) -> None:
    for options in ({"max_attempts": 0}, {"max_attempts": True}, {"max_attempts": 256}, {"dead_letter_limit": 0}, {"dead_letter_limit": "5"}):
        with pytest.raises(InvalidOption):
            memory_place.open(**options)
    q = memory_place.open()
    q.enqueue("x")
    delivery = q.lease()
    for call in (lambda: delivery.nack(error=5), lambda: delivery.reject(error=b"x"), lambda: q.dead_letters.replay(5), lambda: q.dead_letters.replay(max_items=-1)):
        with pytest.raises(InvalidOption):
            call()
    delivery.ack()


def test_config_knows_the_option(tmp_path: object) -> None:
    from overspill import HybridQueue

    with HybridQueue.from_config({"memory_size": 5, "max_attempts": 3, "dead_letter_limit": 10}) as q:
        assert "DeadLetters" in repr(q.dead_letters) and len(q.dead_letters) == 0 and q.dead_letters


@pytest.mark.parametrize("setting", [setting for setting in ON_DISK if setting.memory_size == 2], ids=str)
def test_close_keeps_what_has_just_run_out_of_attempts(setting: object, quick_path: object) -> None:
    place = Place(setting, quick_path)  # type: ignore[arg-type]
    q = place.open(max_attempts=1, lease_timeout=5)
    q.enqueue_batch(["a", "b"])
    first, second = q.lease_batch(2)
    place.clock._monotonic += 6
    q = place.reopen(q, max_attempts=1)
    assert len(q) + len(q.dead_letters) == 2
    place.judge()


def test_a_letter_that_is_put_back_after_its_segment_was_compacted_is_no_letter_any_more(tiny_place: Place) -> None:
    """There was no room for it at first, so it waited beside the index that lists it, which is read from its beginning again once the segment has been compacted."""
    q = tiny_place.open(max_disk_size=512 * 1024)
    first, second = bytes([1]) * 8000, bytes([2]) * 8000
    for item in (first, second):
        q.enqueue(item)
        q.lease(0).reject()
    with pytest.raises(QueueFull):
        while True:
            q.enqueue(bytes(3000))
    q.flush_to_disk()
    with pytest.raises(QueueFull):
        q.dead_letters.replay()
    q.dequeue_batch(len(q) - 2)
    q.compact()
    assert q.dead_letters.replay(max_items=1) == 1
    assert [letter.item for letter in q.dead_letters] == [second]
    assert q.dead_letters.try_dequeue().item == second
    assert drained(q) == [bytes(3000), bytes(3000), first] and not len(q.dead_letters)


@pytest.mark.parametrize("how", [CircularBuffer, lambda n: HybridQueue(memory_size=n, serializer="raw")])
def test_a_dead_letter_in_memory_is_put_back_as_it_is(how: Callable[[int], Any]) -> None:
    """A ring in memory keeps any object, of which there are no bytes to write."""
    with how(10) as q:
        q.enqueue(b"bytes" if isinstance(q, HybridQueue) else {"any": object})
        q.lease().reject("why")
        assert [letter.error for letter in q.dead_letters] == ["why"] and q.dead_letters.replay() == 1
        assert len(q) == 1 and len(q.dead_letters) == 0 and q.stats().in_flight == 0
        assert q.dequeue(0) in (b"bytes", {"any": object})
