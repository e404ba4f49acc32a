"""`cleanup` and `compact` return the space of what is settled, that of the segment which is being written to as well."""
from __future__ import annotations

import errno
import os
import threading
from typing import Any

import pytest
from conftest import Place, drained
from faults import faulty

from overspill import Durability, HybridQueue, KiB, MiB
from overspill._runtime.parts import NEVER

SMALL = 48 * KiB
"""An empty queue's folder takes no more: one small segment, which remembers the sequence number, and the folder itself."""


def taken(place: Place, queue: HybridQueue) -> int:
    """What the folder takes on the disk."""
    return sum(entry.stat().st_blocks * 512 for entry in os.scandir(place.folder(queue)))


@pytest.mark.parametrize("verb", ["cleanup", "compact"])
def test_an_empty_queue_gives_back_all_that_a_hundred_mebibytes_took(tiny_place: Place, verb: str) -> None:
    q = tiny_place.open()
    for i in range(100):
        q.enqueue_batch([bytes([i]) * 64 * KiB] * 16)
    q.flush_to_disk()
    before = q.stats().disk_bytes
    assert before > 100 * MiB
    while q.dequeue_batch(100):
        pass
    given_back = getattr(q, verb)()
    assert given_back > 100 * MiB
    assert given_back == before - q.stats().disk_bytes
    assert taken(tiny_place, q) <= q.stats().disk_bytes <= SMALL
    assert getattr(q, verb)() == 0, "there is nothing left to give back"
    q.enqueue("next")
    q = tiny_place.reopen(q)
    assert drained(q) == ["next"]


def test_an_empty_queue_whose_items_expired_gives_back_all(tiny_place: Place) -> None:
    q = tiny_place.open(ttl=10)
    for i in range(20):
        q.enqueue_batch([bytes([i]) * 64 * KiB] * 16)
    q.enqueue("delayed and expired", delay=5)
    q.flush_to_disk()
    before = q.stats().disk_bytes
    tiny_place.clock.jump(11)
    assert q.cleanup() == before - q.stats().disk_bytes > 20 * MiB
    assert taken(tiny_place, q) <= SMALL
    assert q.stats().expired == 321


def test_what_is_left_of_the_segment_that_is_written_to_keeps_order_identity_attempts_and_times(tiny_place: Place) -> None:
    q = tiny_place.open(max_disk_size=64 * MiB, lease_timeout=1000)
    for i in range(100):
        q.enqueue(bytes([i]) * 2000, priority=100 + i % 2, delay=50 + i if i % 20 == 19 else None)
    q.enqueue_front(b"front" * 100, priority=100)
    q.flush_to_disk()
    for _ in range(3):
        q.lease().nack()
    q.lease().nack(delay=30)
    q.lease().reject("in vain")
    held = q.lease()
    q.remove_where(lambda item: item[0] > 8 and item[0] % 10 != 9 and len(item) == 2000)
    line, before = list(q), q.stats()
    ids = {letter.id for letter in q.dead_letters}
    assert before.segments == 1 or tiny_place.setting.durability is Durability.MEMORY
    given_back = q.compact()
    assert given_back == before.disk_bytes - q.stats().disk_bytes > 100 * KiB
    assert list(q) == line and q.stats().delayed == before.delayed
    q.enqueue(b"behind", priority=100)
    held.nack()
    q = tiny_place.reopen(q, lease_timeout=1000)
    again = q.lease()
    assert (again.item, again.id, again.attempts) == (held.item, held.id, 2)
    again.ack()
    assert list(q) == [*line, b"behind"]
    tiny_place.clock.advance(31)
    assert len(q) == len(line) + 2, "nacked with a delay of 30"
    tiny_place.clock.advance(1000)
    assert q.stats().delayed == 0 and len(q) == len(line) + 1 + before.delayed
    assert {letter.id for letter in q.dead_letters} == ids and q.dead_letters.replay() == 1
    assert len(drained(q)) == len(line) + 2 + before.delayed


def test_numbers_go_on_where_they_were_when_everything_has_been_given_back(tiny_place: Place) -> None:
    """The newest segment remembers them, so the next one has to be there before it may go."""
    q = tiny_place.open()
    q.enqueue_batch([bytes(1000)] * 300)
    q.flush_to_disk()
    numbered = q._next_sequence
    assert len(q.dequeue_batch(300)) == 300
    assert q.compact() > 0
    for _ in range(3):
        q = tiny_place.after_a_kill(q)
        assert q._next_sequence >= numbered and q._log.next_number > 2
        assert q.recovery.items == 0 and not q.recovery.quarantined_files


def test_a_disk_without_room_for_the_next_segment_gives_back_what_it_can(tiny_place: Place) -> None:
    """The active segment can be left only for another one. Until there is room for that it stays."""
    full = faulty("create", error=errno.ENOSPC, sticky=True, armed=False)
    q = tiny_place.open(_disk_class=full)
    q.enqueue_batch([bytes(5000)] * 500)
    q.flush_to_disk()
    while q.dequeue_batch(100):
        pass
    full.arm()
    q.compact()
    assert full.tripped and q.stats().disk_bytes > 1 * MiB
    full.heal()
    assert q.compact() > 1 * MiB
    assert taken(tiny_place, q) <= SMALL
    q.enqueue_batch([bytes(5000)] * 500)
    assert len(drained(q)) == 500


def test_the_folder_of_a_queue_that_was_emptied_and_closed_is_small(tiny_place: Place) -> None:
    q = tiny_place.open()
    q.enqueue_batch([bytes(10_000)] * 1000)
    q.flush_to_disk()
    while q.dequeue_batch(100):
        pass
    q.close()
    assert taken(tiny_place, q) <= SMALL
    q = tiny_place.open()
    assert q.recovery.clean and len(q) == 0


def test_a_consumed_segment_of_an_earlier_life_goes_once_another_one_remembers_the_number(tiny_place: Place) -> None:
    q = tiny_place.open()
    q.enqueue_batch([bytes(10_000)] * 1000)
    q.flush_to_disk()
    while q.dequeue_batch(100):
        pass
    q = tiny_place.after_a_kill(q)
    assert q.stats().disk_bytes > 1 * MiB, "the newest stays"
    q.enqueue("next")
    q.flush_to_disk()
    q._work()
    assert q.stats().segments == 1
    assert drained(q) == ["next"]


def test_who_looks_is_not_disturbed_when_what_was_there_goes_with_its_file(tiny_place: Place) -> None:
    """Items that were put in front, or returned, stand in memory without their payloads: whoever iterates over them reads those later, when there may be nothing left to read."""
    q = tiny_place.open()
    for n in range(8):
        q.enqueue_front(bytes([n]) * 9000)
    for _ in range(3):
        q.lease(0).reject()
    q.flush_to_disk()
    looking, letters = iter(q), iter(q.dead_letters)
    assert next(looking)[0] == 4
    while len(q):
        q.try_dequeue()
    q.dead_letters.clear()
    q.sync()
    assert q.cleanup() > 0
    assert all(item[0] < 4 for item in looking)
    assert all(letter.item[0] > 4 and letter.attempts == 1 for letter in letters)


def test_a_removal_passes_over_what_goes_with_its_file_meanwhile(tiny_place: Place) -> None:
    q = tiny_place.open()
    q.enqueue_batch([bytes([n]) * 9000 for n in range(8)])
    for n in range(8, 12):
        q.enqueue_front(bytes([n]) * 9000)
    q.flush_to_disk()

    def drains(item: bytes) -> bool:
        if len(q):
            q.clear()
            q.cleanup()
        return True

    assert q.remove_where(drains) == 0
    assert len(q) == 0


def test_what_was_made_ready_for_more_goes_with_the_last_item(tiny_place: Place) -> None:
    q = tiny_place.open()

    def put_and_make_ready() -> None:
        q.enqueue("in the smallest segment")
        q.flush_to_disk()
        q._poke()
        q._work()
        assert q._log.next is not None

    put_and_make_ready()
    assert q.dequeue() == "in the smallest segment"
    q.sync()
    q.cleanup()
    put_and_make_ready()
    assert q.dequeue() == "in the smallest segment"
    q.sync()
    assert q.cleanup() > 0
    assert taken(tiny_place, q) <= q.stats().disk_bytes <= SMALL
    put_and_make_ready()
    assert q.cleanup() == 0, "there is something in the segment before it"


class Contended:
    """A lock that says when somebody comes to it."""

    def __init__(self, lock: Any) -> None:
        self.lock, self.come = lock, threading.Event()

    def __enter__(self) -> None:
        self.come.set()
        self.lock.acquire()

    def __exit__(self, *_: object) -> None:
        self.lock.release()


@pytest.mark.parametrize("small", [False, True], ids=["in a large segment", "in the smallest"])
@pytest.mark.parametrize("pump", ["waits", "comes"])
def test_a_pump_beside_a_cleanup_makes_nothing_ready_that_nobody_will_need(tiny_place: Place, monkeypatch: pytest.MonkeyPatch, pump: str, small: bool) -> None:
    """It was about to make the segment after the one that is left, and had to wait until that is done; or it looks just then."""
    q = tiny_place.open()
    q.enqueue_batch([bytes(64 * KiB)] * 16)
    q.dequeue_batch(16)
    q.sync()
    if small:
        q.cleanup()
        q.enqueue("one more")
        q.flush_to_disk()
        q.dequeue()
        q.sync()
        q._log.prepare_next()
    log = q._log
    old, drop, preparing = log.active, log.drop_prepared, log._preparing
    pumps: list[threading.Thread] = []

    def beside() -> None:
        if pump == "comes":
            drop()
            q._stay_ahead()
            return
        with preparing:
            asked, q._poke_at = q._poke_at, NEVER  # a look before the cleanup said that nothing is needed would find this
            contended = Contended(preparing)
            monkeypatch.setattr(log, "_preparing", contended)
            pumps.append(threading.Thread(target=q._stay_ahead))
            pumps[-1].start()
            assert contended.come.wait(60)
            q._poke_at = asked
            drop()

    q._poke()
    monkeypatch.setattr(log, "drop_prepared", beside)
    assert q.cleanup() > 0
    for each in pumps:
        each.join()
    assert (log.active is old) == small
    assert taken(tiny_place, q) <= q.stats().disk_bytes <= SMALL
