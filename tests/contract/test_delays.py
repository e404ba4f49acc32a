"""What is delayed is in the queue and not in line; when its time comes it stands where it was put, or was before, and nothing on the way loses it."""
from __future__ import annotations

import random
import threading
from datetime import timedelta

from patience import until
import pytest
from conftest import MEMORY, Place, Setting, drained, items_upto

from overspill import Durability, HybridQueue, InvalidOption, QueueEmpty, QueueFull, WhenFull


def test_a_delayed_item_comes_when_it_is_due_and_not_before(place: Place) -> None:
    q = place.open()
    q.enqueue("later", delay=10)
    assert len(q) == 0 and q.stats().delayed == 1 and list(q) == []
    with pytest.raises(QueueEmpty):
        q.try_dequeue()
    place.clock.advance(9.9)
    with pytest.raises(QueueEmpty):
        q.dequeue(timeout=0)
    place.clock.advance(0.2)
    assert len(q) == 1 and q.stats().delayed == 0
    assert drained(q) == ["later"]


def test_it_takes_the_place_of_when_it_was_enqueued(place: Place) -> None:
    q = place.open()
    line = items_upto(6)
    for i, item in enumerate(line):
        q.enqueue(item, delay=5 if i in (1, 4) else None)
    assert list(q) == [line[0], line[2], line[3], line[5]]
    assert q.dequeue() == line[0]
    assert q.dequeue() == line[2]
    q.enqueue("new")
    place.clock.advance(6)
    expected = [line[1], line[3], line[4], line[5], "new"]
    assert list(q) == expected and q.peek() == line[1]
    assert drained(q) == expected


def test_a_due_item_of_a_higher_priority_goes_first_and_of_a_lower_one_last(place: Place) -> None:
    q = place.open()
    q.enqueue("low", priority=3, delay=timedelta(seconds=1))
    q.enqueue("normal")
    q.enqueue("high", priority=200, delay=1)
    place.clock.advance(1)
    assert drained(q) == ["high", "normal", "low"]


def test_a_delayed_batch_comes_as_a_whole_and_in_order(place: Place) -> None:
    q = place.open()
    q.enqueue_batch(items_upto(7), delay=2.5)
    assert len(q) == 0 and q.stats().delayed == 7
    place.clock.advance(3)
    assert drained(q) == items_upto(7)


def test_a_delay_of_nothing_is_none(place: Place) -> None:
    q = place.open()
    q.enqueue("a", delay=0)
    q.enqueue_batch(["b"], delay=timedelta())
    assert drained(q) == ["a", "b"]


@pytest.mark.parametrize("delay", [-1, "soon", float("nan"), float("inf"), True, 1e18])
def test_a_delay_that_is_none_is_refused_and_changes_nothing(tiny_place: Place, delay: object) -> None:
    q = tiny_place.open()
    q.enqueue("x")
    for call in (lambda: q.enqueue("y", delay=delay), lambda: q.enqueue_batch(["y"], delay=delay)):
        with pytest.raises(InvalidOption):
            call()
    delivery = q.lease()
    with pytest.raises(InvalidOption):
        delivery.nack(delay if delay != 1e18 else -1)
    delivery.nack()
    assert drained(q) == ["x"]


def test_a_nacked_item_waits_and_then_takes_its_old_place(place: Place) -> None:
    q = place.open()
    line = items_upto(5)
    q.enqueue_batch(line)
    first, second = q.lease_batch(2)
    first.nack(delay=30)
    second.nack()
    assert list(q) == line[1:] and q.stats().delayed == 1
    place.clock.advance(31)
    again = q.lease()
    assert (again.item, again.attempts, again.id) == (line[0], 2, first.id)
    again.nack(5)
    place.clock.advance(6)
    assert q.lease().attempts == 3
    assert drained(q) == line[1:]


def test_items_from_the_front_come_back_to_the_front(place: Place) -> None:
    q = place.open()
    q.enqueue("normal")
    q.enqueue_front("second")
    q.enqueue_front("first")
    for delivery in q.lease_batch(2):
        delivery.nack(1)
    assert list(q) == ["normal"]
    place.clock.advance(2)
    assert drained(q) == ["first", "second", "normal"]


def test_delays_survive_reopening(disk_place: Place) -> None:
    q = disk_place.open()
    q.enqueue("at once")
    q.enqueue("first", delay=10)
    q.enqueue("second", delay=20)
    leased = q.lease()
    leased.nack(delay=15)
    for passed in range(2):
        q = disk_place.reopen(q)
        assert len(q) == 0 and q.stats().delayed == 3, passed
        assert q.recovery.delayed == 3 and q.recovery.items == 0 and q.recovery.clean
    disk_place.clock.advance(11)
    assert drained(q) == ["first"]
    disk_place.clock.advance(100)
    q = disk_place.reopen(q)
    assert len(q) == 2, "what is due is in line as soon as the queue is open"
    again = q.lease()
    assert (again.item, again.attempts, again.id) == ("at once", 2, leased.id)
    again.ack()
    assert drained(q) == ["second"]


def test_delays_survive_a_kill(disk_place: Place) -> None:
    q = disk_place.open()
    q.enqueue_batch(["plain", "stubborn"])
    q.enqueue("later", delay=10)
    q.flush_to_disk()
    q.lease().nack(5)
    if not disk_place.setting.logs:
        return  # MEMORY promises it of what has spilled only, and a delayed item spills last
    q = disk_place.after_a_kill(q)
    assert list(q) == ["stubborn"] and q.stats().delayed == 2
    disk_place.clock.advance(20)
    assert drained(q) == ["plain", "stubborn", "later"]
    q = disk_place.after_a_kill(q)
    assert len(q) == 0 and q.stats().delayed == 0, "taken is taken"


def test_what_was_nacked_with_a_delay_is_there_once_whenever_the_process_is_killed(disk_place: Place) -> None:
    q = disk_place.open()
    q.enqueue("once")
    q.flush_to_disk()
    for _ in range(4):
        q.lease().nack(1)
        killed = disk_place.after_a_kill(q)
        assert killed.stats().delayed == (1 if disk_place.setting.logs or killed.recovery.delayed else 0)
        disk_place.clock.advance(2)
        assert drained(killed) == ["once"]
        q.sync()
        assert drained(disk_place.after_a_kill(q)) == ["once"]


def test_the_payload_of_what_waits_takes_no_memory_where_it_is_in_the_log(place: Place) -> None:
    q = place.open(memory_size=1000, memory_limit=None)
    for i in range(20):
        q.enqueue("x" * 1000, delay=10 + i)
    stats = q.stats()
    assert stats.memory_items == 0 and q.memory_size == 0
    assert (stats.memory_bytes == 0) == place.setting.logs
    assert stats.pressure == 0.0 or not place.setting.logs


def test_what_waits_in_memory_only_counts_in_its_budget(memory_place: Place) -> None:
    q = memory_place.open(memory_size=3)
    q.enqueue("now")
    q.enqueue("a", delay=1)
    q.enqueue("b", delay=2)
    with pytest.raises(QueueFull):
        q.enqueue("c", delay=3)
    assert q.dequeue() == "now"
    q.enqueue("c", delay=3)
    memory_place.clock.advance(4)
    assert drained(q) == ["a", "b", "c"]


def test_a_memory_queue_spills_what_waits_too(disk_place: Place) -> None:
    q = disk_place.open(memory_size=4, memory_limit=None)
    for i, item in enumerate(items_upto(40)):
        q.enqueue(item, delay=100 - i)
    assert q.stats().delayed == 40 and q.stats().memory_bytes <= 4 * 12
    q.flush_to_disk()
    assert q.stats().memory_bytes == 0
    disk_place.clock.advance(101)
    assert drained(q) == items_upto(40)


def test_clear_takes_what_waits_for_its_time_along(place: Place) -> None:
    q = place.open()
    q.enqueue("a")
    q.enqueue_batch(["b", "c"], delay=5)
    assert q.clear() == 3 and q.stats().cleared == 3
    place.clock.advance(10)
    assert len(q) == 0
    if place.setting.on_disk:
        q = place.reopen(q)
        assert q.stats().delayed == 0


def test_a_delayed_item_can_be_called_off(place: Place) -> None:
    q = place.open()
    for i in range(6):
        q.enqueue(f"job {i}", delay=5 + i)
    if place.setting.on_disk:
        q = place.reopen(q)
    q.enqueue("job 6", delay=2)
    assert q.remove_where(lambda item: int(item[-1]) % 2 == 0) == 4
    assert q.stats().delayed == 3 and q.stats().removed == 4
    place.clock.advance(20)
    assert drained(q) == ["job 1", "job 3", "job 5"]


def test_an_item_that_expires_before_it_is_due_never_comes(place: Place) -> None:
    told: list[object] = []
    q = place.open(on_expired=told.append)
    q.enqueue("too late", delay=10, ttl=5)
    q.enqueue("in time", delay=10, ttl=50)
    place.clock.advance(11)
    assert drained(q) == ["in time"]
    assert q.stats().expired == 1 and told == ["too late"]


def test_cleanup_lets_what_has_expired_while_waiting_go(place: Place) -> None:
    q = place.open()
    q.enqueue_batch(items_upto(5), delay=100, ttl=5)
    if place.setting.on_disk:
        q = place.reopen(q)
    place.clock.advance(6)
    q.cleanup()
    assert q.stats().delayed == 0 and q.stats().expired == 5


def test_the_wall_clock_decides(tiny_place: Place) -> None:
    """Set back, what is delayed waits longer; set forward, it is in line for whoever looks next."""
    q = tiny_place.open()
    q.enqueue("x", delay=100)
    tiny_place.clock.jump(-50)
    tiny_place.clock.advance(101)
    assert len(q) == 0
    tiny_place.clock.jump(50)
    assert drained(q) == ["x"]


def test_the_hot_way_meets_a_due_item_too(disk_place: Place) -> None:
    q = disk_place.open()
    q.enqueue("first", delay=5)
    q.enqueue_batch(["second", "third"])
    disk_place.clock.jump(6)  # nobody has looked
    assert q.dequeue_batch(10) == ["first", "second", "third"]


def test_a_waiting_consumer_is_woken_when_something_is_due() -> None:
    """By the real clock: nothing polls, and nothing else happens meanwhile."""
    q = HybridQueue(memory_size=10)
    got: list[object] = []
    thread = threading.Thread(target=lambda: got.append(q.dequeue(timeout=60)))
    thread.start()
    until(lambda: q._n_takers)
    q.enqueue("x", delay=0.01)
    thread.join(60)
    assert got == ["x"]
    q.close()


def test_drop_oldest_gives_up_what_waits_only_when_nothing_is_in_line(memory_place: Place) -> None:
    q = memory_place.open(memory_size=2, when_full=WhenFull.DROP_OLDEST)
    q.enqueue("due late", delay=50)
    q.enqueue("in line")
    q.enqueue("newer")
    assert list(q) == ["newer"] and q.stats().delayed == 1
    assert q.dequeue() == "newer"
    q.enqueue("due soon", delay=5)
    q.enqueue("newest")
    assert list(q) == ["newest"] and q.stats().delayed == 1
    memory_place.clock.advance(100)
    assert drained(q) == ["due late", "newest"]
    assert q.stats().dropped == {"full_oldest": 2}


def test_a_full_disk_delays_in_memory_and_loses_nothing(tiny_place: Place) -> None:
    """Where there is no room to write that an item waits, it waits all the same, and is in line after the next opening."""
    q = tiny_place.open(max_disk_size=256 * 1024)
    n = 0
    with pytest.raises(QueueFull):
        while True:
            q.enqueue(f"{n} " + "x" * 3000)
            n += 1
    deliveries = q.lease_batch(20)
    for delivery in deliveries:
        delivery.nack(delay=10)
    assert q.stats().delayed == 20 and len(q) == n - 20 and q.stats().balance == 0
    tiny_place.clock.advance(11)
    assert [int(item.split()[0]) for item in q] == list(range(n))
    for delivery in q.lease_batch(20):
        assert delivery.attempts == 2
        delivery.nack(delay=1000)
    if tiny_place.setting.durability is MEMORY:
        q.dequeue_batch(n)
    q = tiny_place.reopen(q, max_disk_size=256 * 1024)
    here = len(q) + q.stats().delayed
    assert here == (20 if tiny_place.setting.durability is MEMORY else n)


def test_sealed_segments_hold_what_waits_without_memory(disk_place: Place) -> None:
    q = disk_place.open(max_disk_size=4 * 1024 * 1024)
    filling = random.Random(1)
    line = [f"{i:04}" + filling.randbytes(750).hex() for i in range(600)]
    for i, item in enumerate(line):
        q.enqueue(item, delay=1000 + i * 7 % 600)
    q.flush_to_disk()
    q.compact()
    (lane,) = q._timed_lanes()
    unsealed = q._log.active.map.count
    assert lane.heap_n <= unsealed < 600 and q.stats().delayed == 600 and lane.runs
    disk_place.clock.advance(1300)
    due = [item for i, item in enumerate(line) if i * 7 % 600 <= 300]
    assert drained(q) == due
    q = disk_place.reopen(q)
    disk_place.clock.advance(1000)
    assert drained(q) == [item for i, item in enumerate(line) if i * 7 % 600 > 300]


def test_compaction_carries_what_waits_along(disk_place: Place) -> None:
    q = disk_place.open(max_disk_size=4 * 1024 * 1024, memory_size=2)
    kept, filling = [], random.Random(2)
    for i in range(500):
        if i % 25:
            q.enqueue(filling.randbytes(2000))
        else:
            kept.append(f"{i} " + "x" * 500)
            q.enqueue(kept[-1], delay=100 + i)
    q.dequeue_batch(480)
    q.flush_to_disk()
    assert q.compact() > 0 and q._log.compactions
    assert q.stats().delayed == 20
    disk_place.clock.advance(350)
    assert drained(q) == kept[:11]
    q = disk_place.reopen(q)
    q.compact()
    disk_place.clock.advance(1000)
    assert drained(q) == kept[11:]


def test_iteration_and_leases_agree_while_items_become_due(place: Place) -> None:
    q = place.open()
    for i in range(12):
        q.enqueue(f"{i}", delay=i % 4 or None)
    seen = []
    for _ in range(5):
        assert list(q) == sorted(q, key=int)
        if len(q):
            with q.lease() as delivery:
                seen.append(delivery.item)
        place.clock.advance(1)
    seen += drained(q)
    assert sorted(seen, key=int) == [str(i) for i in range(12)]


@pytest.mark.parametrize("durability", [Durability.PROCESS, Durability.POWER])
def test_settings_are_not_needed_to_delay_durably(memory_place: Place, durability: Durability) -> None:
    """A single call of a MEMORY queue may ask for more."""
    place = Place(Setting(MEMORY), memory_place.path)
    q = place.open()
    q.enqueue("kept", delay=5, durability=durability)
    q.enqueue("lost", delay=5)
    killed = place.after_a_kill(q)
    place.clock.advance(6)
    assert drained(killed) == ["kept"]
    place.judge()


def test_what_is_not_due_stays_where_it_is_when_its_neighbour_had_left_before_their_segment_was_sealed(disk_place: Place) -> None:
    q = disk_place.open()
    q.enqueue("due", delay=10)
    q.enqueue("not due", delay=70)
    q.flush_to_disk()
    disk_place.clock.advance(20)
    assert list(q) == ["due"]
    q.enqueue(bytes(200_000), delay=70)  # into a segment of its own
    q.compact()
    assert list(q) == ["due"] and q.stats().delayed == 2


@pytest.mark.parametrize("end", ["nack", "reject", "ack"])
def test_what_is_put_off_again_after_its_segment_was_sealed_is_there_once(tiny_place: Place, end: str) -> None:
    """Its old record is marked only with the next sync. Until then the index, which was read from its beginning once the segment was sealed, still lists it."""
    q = tiny_place.open()
    q.enqueue_batch(["first", "second"], delay=10)
    q.flush_to_disk()
    tiny_place.clock.advance(10)
    first = q.lease(0)
    q.enqueue(bytes(300_000), delay=70)  # into a segment of its own: the other one is sealed
    q.compact()
    {"nack": lambda: first.nack(delay=40), "reject": first.reject, "ack": first.ack}[end]()
    tiny_place.clock.advance(20)
    q.enqueue("third", delay=0.1)
    tiny_place.clock.advance(1)
    assert list(q) == ["second", "third"]
    assert [letter.item for letter in q.dead_letters] == (["first"] if end == "reject" else [])
    tiny_place.clock.advance(20)
    assert drained(q) == (["first", "second", "third"] if end == "nack" else ["second", "third"])
    if end == "reject":
        q.dead_letters.replay()
        assert drained(q) == ["first"] and len(q.dead_letters) == 0
