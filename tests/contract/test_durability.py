"""What a killed process leaves behind, for each durability; and what may be asked for in a single call."""
from __future__ import annotations

from pathlib import Path

from patience import until
import pytest
from conftest import MEMORY, POWER, PROCESS, Place, drained, items_upto

from overspill import Durability, HybridQueue, InvalidOption, Priority


def test_under_process_and_power_a_kill_loses_nothing_that_was_acknowledged(disk_place: Place) -> None:
    if not disk_place.setting.logs:
        pytest.skip("MEMORY promises this of what has spilled only")
    q = disk_place.open()
    line = items_upto(10)
    for item in line[:4]:
        q.enqueue(item)
    assert drained(disk_place.after_a_kill(q)) == line[:4]
    q.enqueue_batch(line[4:9])
    assert drained(disk_place.after_a_kill(q)) == line[:9]
    q.enqueue_front("front")
    q.enqueue("high", priority=Priority.HIGH)
    assert drained(disk_place.after_a_kill(q)) == ["high", "front", *line[:9]]


def test_under_process_and_power_what_was_taken_does_not_come_back(disk_place: Place) -> None:
    if not disk_place.setting.logs:
        pytest.skip("MEMORY promises this of what has spilled only")
    q = disk_place.open()
    line = items_upto(12)
    q.enqueue_batch(line)
    q.dequeue()
    assert list(disk_place.after_a_kill(q)) == line[1:]
    q.try_dequeue()
    q.dequeue_batch(3)
    assert list(disk_place.after_a_kill(q)) == line[5:]
    q.lease().ack()
    with q.lease():
        pass
    assert list(disk_place.after_a_kill(q)) == line[7:]
    q.flush_to_disk()
    q.dequeue()
    assert list(disk_place.after_a_kill(q)) == line[8:]


def test_under_memory_what_had_spilled_survives_a_kill_and_what_was_taken_stays_gone(disk_place: Place) -> None:
    if disk_place.setting.durability is not MEMORY:
        pytest.skip("the other durabilities promise more")
    q = disk_place.open()
    line = items_upto(12)
    for item in line:
        q.enqueue(item)
    spilled = q.disk_size
    survivors = drained(disk_place.after_a_kill(q))
    assert len(survivors) >= spilled
    assert survivors == [item for item in line if item in survivors]
    q.flush_to_disk()
    assert drained(disk_place.after_a_kill(q)) == line
    q.dequeue_batch(5)
    assert drained(disk_place.after_a_kill(q)) == line[5:]


def test_under_memory_nothing_is_written_before_memory_overflows(tiny_place: Place) -> None:
    if tiny_place.setting.durability is not MEMORY:
        pytest.skip("the other durabilities write at once")
    q = tiny_place.open(memory_size=10)
    for item in items_upto(10):
        q.enqueue(item)
    assert q.stats().segments == 0
    assert not list((tiny_place.path / "q").glob("*.seg"))


def test_a_killed_queue_can_be_used_like_any_other(disk_place: Place) -> None:
    q = disk_place.open()
    q.enqueue_batch(items_upto(6))
    q.flush_to_disk()
    for generation in range(3):
        q = disk_place.after_a_kill(q)
        q.enqueue(f"generation {generation}")
        q.flush_to_disk()
        assert q.dequeue() == items_upto(6)[generation]
    assert drained(disk_place.reopen(q)) == [*items_upto(6)[3:], *(f"generation {i}" for i in range(3))]


def test_nothing_of_a_killed_generation_takes_or_harms_the_place_of_a_new_item(disk_place: Place) -> None:
    """Sequence numbers are never used again: else the mark of an old item could kill a new one, or a new one overtake an old one."""
    q = disk_place.open()
    ids: set[object] = set()
    for generation in range(4):
        q.enqueue_batch([(generation, i) for i in range(3)])
        q.flush_to_disk()
        q.dequeue_batch(generation + 1)
        ids |= {delivery.id for delivery in q.lease_batch(2)}
        q = disk_place.after_a_kill(q)
    q.enqueue("new")
    order = drained(q)
    assert order == [*sorted(order[:-1]), "new"]
    assert len(ids) == len({str(id) for id in ids}) >= 4


def test_one_call_may_ask_for_more(disk_place: Place) -> None:
    q = disk_place.open()
    own = disk_place.setting.durability
    assert own is not None
    syncs = q.stats().syncs
    q.enqueue("plain")
    q.enqueue("raised", durability=POWER)
    assert q.stats().syncs > syncs
    q.enqueue_batch(["batch", "raised"], durability=POWER)
    q.enqueue("same as the queue's own", durability=own)
    survivors = drained(disk_place.after_a_kill(q))
    assert [item for item in survivors if item in ("raised", "batch")] == ["raised", "batch", "raised"]
    assert drained(q) == ["plain", "raised", "batch", "raised", "same as the queue's own"]


def test_a_call_raised_to_process_survives_a_kill(disk_place: Place) -> None:
    q = disk_place.open()
    if disk_place.setting.durability is POWER:
        pytest.skip("that would be lower")
    q.enqueue("raised", durability=PROCESS)
    assert "raised" in list(disk_place.after_a_kill(q))


def test_no_call_may_ask_for_less(disk_place: Place) -> None:
    q = disk_place.open()
    own = disk_place.setting.durability
    assert own is not None
    for less in [durability for durability in Durability if durability < own]:
        with pytest.raises(InvalidOption, match="durability"):
            q.enqueue("x", durability=less)
        with pytest.raises(InvalidOption, match="durability"):
            q.enqueue_batch(["x"], durability=less)
    assert len(q) == 0


@pytest.mark.parametrize("word", ["POWER", 2, True])
def test_a_durability_is_a_member_of_durability(tiny_place: Place, word: object) -> None:
    q = tiny_place.open()
    with pytest.raises(InvalidOption, match="durability"):
        q.enqueue("x", durability=word)
    assert len(q) == 0


def test_without_a_disk_nothing_can_be_promised(memory_place: Place) -> None:
    q = memory_place.open()
    q.enqueue("x", durability=MEMORY)
    with pytest.raises(InvalidOption, match="disk_path"):
        q.enqueue("x", durability=POWER)
    assert len(q) == 1


def test_power_syncs_every_call_and_a_batch_once(disk_place: Place) -> None:
    if disk_place.setting.durability is not POWER:
        pytest.skip("only POWER syncs before it returns")
    q = disk_place.open()
    for verb in (
        lambda: q.enqueue("a"), lambda: q.enqueue_batch(items_upto(20)), lambda: q.enqueue_front("f"), q.dequeue, lambda: q.dequeue_batch(5), lambda: q.lease().ack(), q.clear,
    ):
        before = q.stats().syncs
        verb()
        assert 1 <= q.stats().syncs - before <= 2
    before = q.stats().syncs
    q.enqueue_batch(items_upto(50))
    assert q.stats().syncs == before + 1


def test_sync_is_there_for_whoever_needs_it_now(disk_place: Place) -> None:
    q = disk_place.open()
    q.sync()
    q.enqueue_batch(items_upto(5))
    q.flush_to_disk()
    before = q.stats().syncs
    q.sync()
    assert q.stats().syncs - before <= 1
    assert len(q) == 5


def test_sync_of_a_queue_without_a_disk_is_no_error(memory_place: Place) -> None:
    memory_place.open().sync()


def test_the_background_sync_comes_by_itself_and_only_where_it_was_asked_for(tmp_path: Path) -> None:
    """Real time and the real background thread; the queue with an interval is the clock for the one without."""
    with HybridQueue("never", tmp_path, sync_interval=None) as never, HybridQueue("often", tmp_path, sync_interval=0.02) as often:
        never.enqueue("x")
        for round in range(1, 4):
            often.enqueue("x")
            until(lambda round=round: often.stats().syncs >= round)
        assert never.stats().syncs == 0
        never.sync()
        assert never.stats().syncs == 1


def test_recovery_says_what_opening_found(disk_place: Place) -> None:
    q = disk_place.open()
    assert q.recovery is not None and q.recovery.items == 0 and q.recovery.segments == 0
    q.enqueue_batch(items_upto(6))
    q.flush_to_disk()
    q.dequeue_batch(2)
    killed = disk_place.after_a_kill(q)
    assert killed.recovery.items == 4
    assert killed.recovery.segments >= 1
    assert killed.recovery.torn_bytes == killed.recovery.quarantined == 0
    assert not killed.recovery.clean
    q = disk_place.reopen(q)
    assert q.recovery.items == 4 and q.recovery.clean
    assert "4" in str(q.recovery)
    assert q.stats().recovery == q.recovery


def test_without_a_disk_there_was_nothing_to_recover(memory_place: Place) -> None:
    assert memory_place.open().recovery is None


def test_inspect_looks_beside_the_owner_and_changes_nothing(disk_place: Place) -> None:
    q = disk_place.open()
    for i, item in enumerate(items_upto(8)):
        q.enqueue(item, priority=100 + i % 2)
    q.flush_to_disk()
    q.dequeue_batch(3)
    folder = disk_place.path / "q"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    for deep in (False, True):
        found = HybridQueue.inspect(folder, deep=deep)
        assert found.waiting == 5
        assert found.ok and not found.problems
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    q.close()
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    found = HybridQueue.inspect(folder, deep=True)
    assert found.waiting == 5 and found.by_priority == {100: 4, 101: 1} and found.clean
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert "5" in str(found)
