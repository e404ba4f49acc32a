"""A lease is extended while a block runs; two leases never hold one item; what is stuck pins nothing; who acknowledges at the same time shares a sync."""
from __future__ import annotations

import threading

from patience import until
import pytest
from conftest import POWER, Place, Setting

from overspill import Durability, HybridQueue, InvalidOption, LeaseExpired, QueueEmpty


def test_a_heartbeat_holds_the_item_for_as_long_as_the_block_takes(place: Place) -> None:
    q = place.open(lease_timeout=30)
    q.enqueue("long job")
    with q.lease() as delivery, delivery.heartbeat():
        for _ in range(20):
            place.clock.advance(10)
            with pytest.raises(QueueEmpty):
                q.lease(timeout=0)
    assert len(q) == 0 and q.stats().dequeued == 1 and q.stats().redelivered == 0


def test_it_stops_with_the_block(place: Place) -> None:
    q = place.open(lease_timeout=30)
    q.enqueue("job")
    delivery = q.lease()
    with delivery.heartbeat(every=5):
        place.clock.advance(20)
    place.clock.advance(31)
    assert len(q) == 1
    with pytest.raises(LeaseExpired):
        delivery.ack()


def test_several_leases_have_heartbeats_of_their_own(place: Place) -> None:
    q = place.open(lease_timeout=30)
    q.enqueue_batch(["a", "b", "c"])
    a, b, _ = q.lease_batch(3)
    with a.heartbeat(every=20), b.heartbeat(every=7):
        for _ in range(10):
            place.clock.advance(7)
        assert list(q) == ["c"]
    a.ack()
    b.ack()


def test_a_lost_lease_is_said_to_be_lost(place: Place) -> None:
    q = place.open(lease_timeout=30)
    q.enqueue("job")
    with pytest.raises(LeaseExpired, match="heartbeat"), q.lease() as delivery, delivery.heartbeat() as heartbeat:
        place.clock.advance(100)  # the process was stopped for longer than the lease
        assert heartbeat.lost
        assert q.lease(timeout=0).attempts == 2, "somebody else has it"
    assert q.stats().in_flight == 1


def test_an_exception_of_the_block_is_not_hidden_by_a_lost_lease(tiny_place: Place) -> None:
    q = tiny_place.open(lease_timeout=30)
    q.enqueue("job")
    with pytest.raises(ZeroDivisionError), q.lease() as delivery, delivery.heartbeat():
        tiny_place.clock.advance(100)
        raise ZeroDivisionError


def test_acknowledging_inside_ends_it_quietly(tiny_place: Place) -> None:
    q = tiny_place.open()
    q.enqueue("job")
    with q.lease() as delivery, delivery.heartbeat() as heartbeat:
        delivery.ack()
    assert not heartbeat.lost and q.stats().dequeued == 1


def test_beats_that_would_come_too_late_are_refused(tiny_place: Place) -> None:
    q = tiny_place.open(lease_timeout=10)
    q.enqueue("job")
    delivery = q.lease()
    for every in (10, 11, 0, -1, "5"):
        with pytest.raises(InvalidOption), delivery.heartbeat(every=every):  # type: ignore[arg-type]
            pass
    with delivery.heartbeat(), pytest.raises(InvalidOption), delivery.heartbeat():
        pass
    delivery.ack()
    with pytest.raises(LeaseExpired), delivery.heartbeat():
        pass


def test_the_background_thread_beats_by_the_real_clock() -> None:
    q = HybridQueue(memory_size=5, lease_timeout=0.5)
    q.enqueue("job")
    with q.lease() as delivery, delivery.heartbeat(every=0.01):
        first = q._leases._held[delivery._token][1]
        until(lambda: q._leases._held[delivery._token][1] > first + 0.05)
    assert q.stats().dequeued == 1 and not q._heartbeats
    q.close()


@pytest.mark.parametrize("jumps", [(-3600, 7200), (86400, -86400), (-1, 0.5)])
def test_two_leases_never_hold_one_item_whatever_the_wall_clock_does(place: Place, jumps: tuple[float, float]) -> None:
    q = place.open(lease_timeout=30)
    q.enqueue_batch(["a", "b"])
    first = q.lease()
    for jump in jumps:
        place.clock.jump(jump)
        q._work()
        assert [delivery.item for delivery in q.lease_batch(5)] == (["b"] if jump == jumps[0] else [])
    place.clock.advance(29)
    assert q.lease_batch(5) == []
    first.ack()
    place.clock.advance(2)
    assert [delivery.item for delivery in q.lease_batch(5)] == ["b"]


def test_a_stuck_lease_does_not_pin_the_log(disk_place: Place) -> None:
    q = disk_place.open(max_disk_size=4 * 1024 * 1024, lease_timeout=1e6, memory_size=2)
    q.enqueue("stuck")
    q.flush_to_disk()
    stuck = q.lease()
    for _ in range(4):
        q.enqueue_batch([bytes(3000)] * 150)
        q.flush_to_disk()
        while len(q):
            q.dequeue_batch(50)
        disk_place.clock.advance(5)
        q.compact()
    held = [segment for segment in q._log.in_order() if segment is not q._log.active]
    assert sum(segment.allocated for segment in held) <= 64 * 1024, "a segment of the size of what is left in it"
    stuck.ack()
    q = disk_place.reopen(q)
    assert len(q) == 0


def test_those_who_acknowledge_at_the_same_time_share_a_sync(quick_path: object) -> None:
    place = Place(Setting(POWER), quick_path)  # type: ignore[arg-type]
    q = place.open()
    q.enqueue_batch([f"{i}" for i in range(32)])
    deliveries = q.lease_batch(32)
    before, rounds = q._log.sync_count, q._commit.rounds
    with q._log._syncing:  # the disk is busy
        threads = [threading.Thread(target=delivery.ack if i % 2 else lambda d=delivery: d.nack(delay=5)) for i, delivery in enumerate(deliveries)]  # type: ignore[misc]
        for thread in threads:
            thread.start()
        until(lambda: q._commit._under_way and len(q._commit._line) == 31)
    for thread in threads:
        thread.join(60)
    assert q._log.sync_count - before == q._commit.rounds - rounds == 2
    assert q.stats().dequeued == 16 and q.stats().delayed == 16
    place.judge()


@pytest.mark.parametrize("n", [50_000, pytest.param(1_000_000, marks=pytest.mark.battery)])
def test_delayed_items_cost_no_memory_when_opened(n: int, quick_path: object) -> None:
    """Not by the clock: by what the lines hold, and by the bytes that are read at opening, which are those of the segments' ends."""
    place = Place(Setting(Durability.PROCESS), quick_path)  # type: ignore[arg-type]
    q = place.open(max_disk_size=1 << 30)
    for _ in range(n // 10_000):
        q.enqueue_batch([b""] * 10_000, delay=3600)
    q.compact()
    assert q.stats().delayed == n
    (lane,) = q._timed_lanes()
    assert lane.heap_n <= q._log.active.map.count and len(lane.runs) == len(q._log) - 1
    q = place.reopen(q, max_disk_size=1 << 30)
    (lane,) = q._timed_lanes()
    assert (lane.heap_n, lane.ring_n, q.stats().delayed, len(q)) == (0, 0, n, 0)
    assert all(run.block_size <= 16384 and run.position == 0 for run in lane.runs), "nothing has been read of them"
    place.clock.advance(3601)
    assert q._risen == len(q) == 4096, "no more stand in line than need to"
    assert len(q.dequeue_batch(10_000)) == 10_000
    assert q.stats().balance == 0
    q.destroy()
