"""The last so many items: in memory whatever they are, on disk a flight recorder."""
from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from overspill import CircularBuffer, Durability, HybridQueue, InvalidOption, KiB, MiB, NotSerializable, QueueClosed, QueueFull, WhenFull
from overspill._runtime.clock import ManualClock

Opener = Callable[..., CircularBuffer]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(params=["memory", "MEMORY", "PROCESS", "POWER", "PROCESS-plain", "PROCESS-1"])
def new_buffer(request: pytest.FixtureRequest, quick_path: Path, clock: ManualClock) -> Iterator[Opener]:
    """Opens buffers of one kind: in memory only; recorders of every durability, of the plain writer, and of which only one item stays in memory."""
    durability, _, note = request.param.partition("-")
    opened: list[CircularBuffer] = []
    names = itertools.count()

    def new_buffer(capacity: int, **options: Any) -> CircularBuffer:
        if request.param != "memory":
            kind = {"disk_path": quick_path, "name": f"b{next(names)}", "durability": Durability[durability], "_plain": note == "plain"}
            options = kind | ({"memory_size": 1} if note == "1" else {}) | options
        opened.append(CircularBuffer(capacity, **{"_clock": clock, "_background": False} | options))
        return opened[-1]

    yield new_buffer
    for buffer in opened:
        if not buffer.closed:
            assert buffer.stats().balance == 0, buffer.stats()
        buffer.close()


def pushed(buffer: CircularBuffer, items: Any) -> CircularBuffer:
    for item in items:
        buffer.push(item)
    return buffer


# --- what it holds


def test_a_full_buffer_overwrites_its_oldest_and_counts_it(new_buffer: Opener) -> None:
    buffer = pushed(new_buffer(3), range(3))
    assert (list(buffer), buffer.overwritten) == ([0, 1, 2], 0)
    pushed(buffer, range(3, 8))
    assert list(buffer) == [5, 6, 7]
    assert (len(buffer), buffer.size, buffer.capacity, buffer.overwritten) == (3, 3, 3, 5)
    assert buffer.stats().dropped == {"full_oldest": 5}


@pytest.mark.parametrize("capacity", [1, 2, 63, 64, 65, 200])
def test_every_view_is_what_a_list_of_the_last_items_would_show(new_buffer: Opener, capacity: int) -> None:
    buffer = new_buffer(capacity)
    line: list[str] = []
    for n in range(2 * capacity + 7):
        buffer.push(f"item {n}")
        line = [*line, f"item {n}"][-capacity:]
        if n % 29 and n < 2 * capacity:
            continue
        assert list(buffer) == list(buffer.snapshot()) == line
        assert list(reversed(buffer)) == line[::-1]
        assert len(buffer) == len(line)
        for at in {0, len(line) // 2, len(line) - 1, -1, -len(line)}:
            assert buffer[at] == line[at]
        for at in (len(line), -len(line) - 1, 10**9):
            with pytest.raises(IndexError):
                buffer[at]
        for chosen in (slice(None), slice(1, None), slice(None, -1), slice(-3, None), slice(2, 60, 7), slice(None, None, -1), slice(50, 3, -4), slice(5, 5), slice(-(10**9), 10**9)):
            assert buffer[chosen] == line[chosen], chosen
        for last in (0, 1, 5, capacity, capacity + 1):
            assert buffer.get_last(last) == line[len(line) - min(last, len(line)) :]
        assert f"item {n}" in buffer and "never" not in buffer


def test_an_empty_one_says_so(new_buffer: Opener) -> None:
    buffer = new_buffer(3)
    assert list(buffer) == buffer[:] == buffer.get_last(3) == buffer.get_recent(60) == []
    assert len(buffer) == 0 and buffer
    with pytest.raises(IndexError):
        buffer[0]


def test_for_each_goes_from_the_oldest_and_stops_on_false(new_buffer: Opener) -> None:
    buffer = pushed(new_buffer(5), range(7))
    seen: list[int] = []
    buffer.for_each(seen.append)
    assert seen == [2, 3, 4, 5, 6], "None is not False"
    seen.clear()

    def until_four(n: int) -> bool:
        seen.append(n)
        return n != 4

    buffer.for_each(until_four)
    assert seen == [2, 3, 4]


def test_what_is_removed_from_the_middle_closes_up(new_buffer: Opener) -> None:
    buffer = pushed(new_buffer(100), range(150))
    assert buffer.remove_where(lambda n: n % 3 == 0) == 33
    line = [n for n in range(50, 150) if n % 3]
    assert list(buffer) == line
    assert [buffer[0], buffer[10], buffer[-1], buffer.get_last(20)] == [line[0], line[10], line[-1], line[-20:]]
    pushed(buffer, range(1000, 1033))
    assert buffer.overwritten == 50, "there was room again"
    pushed(buffer, range(2000, 2003))
    assert list(buffer) == [*line, *range(1000, 1033), *range(2000, 2003)][3:]
    assert buffer[::7] == [*line, *range(1000, 1033), *range(2000, 2003)][3::7]


def test_clear_empties_it_and_it_goes_on(new_buffer: Opener) -> None:
    buffer = pushed(new_buffer(4), range(6))
    assert buffer.clear() == 4
    assert list(buffer) == []
    assert list(pushed(buffer, range(10, 16))) == [12, 13, 14, 15]


def test_a_consumer_may_take_what_it_reads(new_buffer: Opener) -> None:
    buffer = pushed(new_buffer(4), range(6))
    assert (buffer.peek(), buffer.dequeue(), buffer.dequeue_batch(2)) == (2, 2, [3, 4])
    pushed(buffer, range(10, 14))
    assert list(buffer) == buffer[:] == [10, 11, 12, 13]
    with buffer.lease() as delivery:
        assert delivery.item == 10
        pushed(buffer, [14, 15])
    assert list(buffer) == buffer[:] == [12, 13, 14, 15]


def test_what_a_consumer_returns_is_the_oldest_and_goes_first(new_buffer: Opener) -> None:
    buffer = pushed(new_buffer(3), range(3))
    delivery = buffer.lease()
    buffer.push(3)
    delivery.nack()
    assert list(buffer) == buffer[:] == [0, 1, 2, 3], "one more than the capacity, until the next push"
    buffer.push(4)
    assert list(buffer) == buffer[:] == [2, 3, 4]


def test_a_batch_is_pushed_whole(new_buffer: Opener) -> None:
    buffer = pushed(new_buffer(4), range(3))
    buffer.enqueue_batch([10, 11, 12])
    assert list(buffer) == [2, 10, 11, 12]
    with pytest.raises(QueueFull, match="max_items=4"):
        buffer.enqueue_batch(range(5))
    assert list(buffer) == [2, 10, 11, 12]


def test_who_is_overwritten_can_be_told(new_buffer: Opener) -> None:
    told: list[Any] = []
    buffer = pushed(new_buffer(2, on_dropped=lambda item, reason: told.append((item, reason))), range(5))
    assert list(buffer) == [3, 4]
    assert told == [(n, "full_oldest") for n in range(3)]


def test_closed_is_closed(new_buffer: Opener) -> None:
    with new_buffer(2) as buffer:
        buffer.push(1)
    assert buffer.closed
    for use in (lambda: buffer.push(2), lambda: buffer[0], lambda: buffer.get_last(1), lambda: buffer.get_recent(1), lambda: list(buffer)):
        with pytest.raises(QueueClosed):
            use()
    assert "CircularBuffer" in repr(buffer) and "closed" in repr(buffer)


@pytest.mark.parametrize("capacity", [0, -1, 1.5, "3", None, True, 2**60])
def test_a_capacity_that_is_none_is_refused(capacity: Any) -> None:
    with pytest.raises(InvalidOption):
        CircularBuffer(capacity)


# --- time


def test_expired_items_are_gone_from_every_view(new_buffer: Opener, clock: ManualClock) -> None:
    gone: list[Any] = []
    buffer = new_buffer(10, ttl=10, on_expired=gone.append)
    for n in range(4):
        buffer.push(n)
        clock.jump(3)
    assert list(buffer) == [1, 2, 3]
    assert (len(buffer), buffer.size, buffer[0], buffer[-3], buffer.get_last(9), buffer[:]) == (3, 3, 1, 1, [1, 2, 3], [1, 2, 3])
    assert gone == [0]
    clock.jump(3)
    assert buffer.get_recent(100) == [2, 3]
    assert buffer.stats().waiting == 2
    clock.jump(60)
    assert (list(buffer), len(buffer), buffer[:], buffer.stats().expired) == ([], 0, [], 4)
    seen: list[Any] = []
    buffer.for_each(seen.append)
    assert seen == []


def test_an_expired_item_makes_room_before_a_live_one_has_to(new_buffer: Opener, clock: ManualClock) -> None:
    buffer = new_buffer(3, ttl=10)
    buffer.push("old")
    clock.jump(8)
    pushed(buffer, ["a", "b"])
    clock.jump(4)
    buffer.push("c")
    assert list(buffer) == ["a", "b", "c"]
    assert (buffer.overwritten, buffer.stats().expired) == (0, 1)


def test_get_recent_is_by_age(new_buffer: Opener, clock: ManualClock) -> None:
    buffer = new_buffer(100)
    for n in range(120):
        buffer.push(n)
        clock.jump(1)
    assert buffer.get_recent(3) == [117, 118, 119]
    assert buffer.get_recent(0.5) == []
    assert buffer.get_recent(10**9) == list(range(20, 120))
    with pytest.raises(InvalidOption):
        buffer.get_recent(-1)


# --- in memory: anything


def test_in_memory_any_object_stays_the_very_object() -> None:
    things: list[Any] = [object(), lambda: None, threading.Lock(), [1], {"a": {2}}, None, b"x", "s", type, (n for n in ())]
    buffer = CircularBuffer(len(things))
    for thing in [*things, *things]:
        buffer.push(thing)
    assert all(seen is thing for seen, thing in zip(buffer, things, strict=True))
    assert buffer[3] is things[3]
    things[3].append(2)
    assert buffer[3] == [1, 2], "it is the list, not what it was"
    assert buffer.stats().memory_bytes == 0


def test_in_memory_an_overwritten_object_is_let_go_of() -> None:
    import weakref

    class Thing:
        pass

    buffer = CircularBuffer(1)
    thing = Thing()
    ref = weakref.ref(thing)
    buffer.push(thing)
    del thing
    assert ref() is not None
    buffer.push(None)
    assert ref() is None


def test_an_object_may_use_the_buffer_while_it_is_let_go_of() -> None:
    buffer = CircularBuffer(2)

    class Echo:
        def __del__(self) -> None:
            buffer.push("echo")

    pushed(buffer, [Echo(), Echo()])
    buffer.push("new")
    assert list(buffer) == ["echo", "echo"]
    assert buffer.stats().balance == 0


def test_on_disk_what_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with CircularBuffer(3, disk_path=tmp_path, name="r") as buffer, pytest.raises(NotSerializable):
        buffer.push(object())


# --- threads


def test_whoever_looks_while_others_push_sees_one_moment(new_buffer: Opener) -> None:
    """Four producers push numbers of their own. Every view holds, of each producer, a stretch without a gap that ends with or after the one before."""
    buffer = new_buffer(50)
    producers, each = 4, 300
    start = threading.Barrier(producers + 1)

    def produce(who: int) -> None:
        start.wait()
        for n in range(each):
            buffer.push((who, n))

    threads = [threading.Thread(target=produce, args=(who,)) for who in range(producers)]
    for thread in threads:
        thread.start()
    start.wait()
    newest = [-1] * producers
    while True:
        running = any(thread.is_alive() for thread in threads)
        for view in (list(buffer), buffer[:], buffer.get_last(20)):
            assert len(view) <= 50
            for who in range(producers):
                theirs = [n for w, n in view if w == who]
                assert theirs == list(range(theirs[0], theirs[0] + len(theirs))) if theirs else True, theirs
        for who, n in buffer:
            newest[who] = max(newest[who], n)
        if not running:
            break
    for thread in threads:
        thread.join()
    assert len(buffer) == 50
    assert buffer.overwritten == producers * each - 50
    assert buffer.stats().balance == 0


# --- the recorder


@pytest.fixture(params=[False, True], ids=["mapped", "plain"])
def new_recorder(request: pytest.FixtureRequest, quick_path: Path, clock: ManualClock) -> Iterator[Opener]:
    opened: list[CircularBuffer] = []

    def new_recorder(capacity: int, **options: Any) -> CircularBuffer:
        own = {"disk_path": quick_path, "name": "recorder", "_plain": request.param, "_clock": clock, "_background": False}
        opened.append(CircularBuffer(capacity, **own | options))
        return opened[-1]

    yield new_recorder
    for buffer in opened:
        buffer.close()


def test_reopened_it_goes_on_where_it_was(new_recorder: Opener) -> None:
    pushed(new_recorder(10), range(25)).close()
    buffer = new_recorder(10)
    assert list(buffer) == buffer[:] == list(range(15, 25))
    assert (buffer[0], buffer[-1], buffer[3:5], buffer.get_last(3)) == (15, 24, [18, 19], [22, 23, 24])
    pushed(buffer, range(25, 29))
    assert list(buffer) == buffer[:] == list(range(19, 29))
    assert (buffer[0], buffer[5], buffer[6], buffer[-1], buffer[4:8]) == (19, 24, 25, 28, [23, 24, 25, 26])
    pushed(buffer, range(29, 60))
    assert list(buffer) == list(range(50, 60))


def test_a_smaller_capacity_keeps_the_newest(new_recorder: Opener) -> None:
    pushed(new_recorder(10), range(25)).close()
    buffer = new_recorder(4)
    assert list(buffer) == [21, 22, 23, 24]
    assert buffer.overwritten == 6
    buffer.close()
    assert list(new_recorder(10)) == [21, 22, 23, 24]


def test_age_is_known_after_reopening(new_recorder: Opener, clock: ManualClock) -> None:
    buffer = new_recorder(10, ttl=100)
    for n in range(6):
        buffer.push(n)
        clock.jump(10)
    buffer.close()
    buffer = new_recorder(10, ttl=100)
    assert buffer.get_recent(35) == [3, 4, 5]
    pushed(buffer, [6])
    assert buffer.get_recent(15) == [5, 6]
    assert buffer.get_recent(5) == [6]
    clock.jump(55)
    assert list(buffer) == [2, 3, 4, 5, 6] and len(buffer) == 5


def disk_bytes(path: Path) -> int:
    return sum(file.stat().st_blocks * 512 for file in path.rglob("*") if file.is_file())


def test_disk_use_follows_what_is_in_the_buffer_however_much_has_passed_through(new_recorder: Opener, quick_path: Path) -> None:
    buffer = new_recorder(100)
    most = 0
    for n in range(6_000):
        buffer.push(b"%06d" % n + bytes(2000))
        if n % 500 == 0:
            most = max(most, disk_bytes(quick_path))
    assert [item[:6] for item in buffer] == [b"%06d" % n for n in range(5_900, 6_000)]
    assert most <= 5 * MiB, "200 KB are in it and 12 MB have passed through"
    assert len(list(quick_path.glob("recorder/*.seg"))) <= 3


def test_a_disk_that_is_too_small_for_the_capacity_keeps_fewer_and_counts_them(new_recorder: Opener, quick_path: Path) -> None:
    buffer = pushed(new_recorder(1000, max_disk_size=512 * KiB), (b"%06d" % n + bytes(4000) for n in range(500)))
    assert disk_bytes(quick_path) <= 512 * KiB
    held = [int(item[:6]) for item in buffer]
    assert held == list(range(held[0], 500)), "the newest, without a gap"
    assert len(held) > 20
    assert buffer.overwritten == held[0]


def test_any_queue_opens_what_a_recorder_wrote(new_recorder: Opener, quick_path: Path) -> None:
    pushed(new_recorder(3), range(5)).close()
    with HybridQueue("recorder", quick_path) as q:
        assert [q.dequeue() for _ in range(3)] == [2, 3, 4]


# --- the same limit on a plain queue


def test_max_items_is_a_limit_for_both_tiers(quick_path: Path) -> None:
    for q in (HybridQueue(max_items=3), HybridQueue("q", quick_path, max_items=3, memory_size=1)):
        with q:
            q.enqueue_batch(["a", "b"])
            for batch in (["c", "d"], ["c", "d", "e", "f"]):
                with pytest.raises(QueueFull, match="max_items=3"):
                    q.enqueue_batch(batch)
            q.enqueue("c")
            for put in (lambda: q.enqueue("x"), lambda: q.enqueue_front("x"), lambda: q.enqueue("x", timeout=0)):
                with pytest.raises(QueueFull, match="max_items=3 are in line"):
                    put()
            assert q.dequeue() == "a"
            q.enqueue_front("again")
            assert list(q) == ["again", "b", "c"]
            assert q.stats().balance == 0


def test_whoever_waits_for_a_place_in_line_is_woken_by_whoever_leaves_it(quick_path: Path) -> None:
    for n, leave in enumerate((HybridQueue.dequeue, HybridQueue.clear, lambda q: q.lease().ack(), lambda q: q.remove_where(lambda item: True))):
        for q in (HybridQueue(max_items=1, when_full=WhenFull.BLOCK), HybridQueue(f"q{n}", quick_path, max_items=1, when_full=WhenFull.BLOCK)):
            with q:
                q.enqueue("a")
                waiting = threading.Thread(target=q.enqueue, args=("b",))
                waiting.start()
                while not q._n_makers:
                    waiting.join(0.001)
                leave(q)
                waiting.join()
                assert list(q) == ["b"]


def test_max_items_with_drop_newest_keeps_the_first(quick_path: Path) -> None:
    with HybridQueue("q", quick_path, max_items=2, when_full=WhenFull.DROP_NEWEST) as q:
        for n in range(5):
            q.enqueue(n)
        assert list(q) == [0, 1]
        assert q.stats().dropped == {"full_newest": 3}
