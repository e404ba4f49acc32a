"""Looking takes nothing, changes nothing, and sees both tiers in order."""
from __future__ import annotations

from conftest import Place, drained, items_upto

from overspill import Priority


def test_peek_is_the_item_that_dequeue_gives(place: Place) -> None:
    q = place.open()
    q.enqueue_batch(items_upto(8))
    q.enqueue("urgent", priority=Priority.HIGH)
    for expected in ["urgent", *items_upto(8)]:
        assert q.peek() == expected
        assert q.peek() == expected
        assert q.dequeue() == expected


def test_looking_leaves_every_size_as_it_was(place: Place) -> None:
    q = place.open()
    for i, item in enumerate(items_upto(9)):
        q.enqueue(item, priority=100 + i % 3)
    before = (len(q), q.memory_size, q.disk_size, q.pressure, q.stats().memory_bytes)
    q.peek()
    list(q)
    list(q.snapshot())
    repr(q)
    assert (len(q), q.memory_size, q.disk_size, q.pressure, q.stats().memory_bytes) == before


def test_iteration_is_the_order_of_leaving(place: Place) -> None:
    q = place.open()
    for i, item in enumerate(items_upto(15)):
        q.enqueue(item, priority=(128, 200, 3)[i % 3])
    q.enqueue_front("in front")
    seen = list(q)
    assert seen == list(q.snapshot()) == list(iter(q))
    assert drained(q) == seen


def test_iteration_sees_neither_leased_nor_taken_items(place: Place) -> None:
    q = place.open()
    q.enqueue_batch(items_upto(8))
    q.dequeue()
    delivery = q.lease()
    assert list(q) == items_upto(8)[2:]
    assert len(q) == 6
    delivery.nack()
    assert list(q) == items_upto(8)[1:]


def test_a_snapshot_does_not_see_what_came_after_it(place: Place) -> None:
    q = place.open()
    q.enqueue_batch(items_upto(5))
    snapshot = q.snapshot()
    q.enqueue("later")
    q.enqueue_front("in front, later")
    assert list(snapshot) == items_upto(5)


def test_an_iteration_goes_on_while_the_queue_is_used(place: Place) -> None:
    q = place.open()
    q.enqueue_batch(items_upto(10))
    seen = []
    for item in q:
        seen.append(item)
        q.enqueue_front("in front")
        if len(seen) == 4:
            q.flush_to_disk()
        if len(seen) == 6:
            q.enqueue("at the end")
    assert seen == items_upto(10)


def test_taking_while_iterating_never_shows_an_item_out_of_order_or_twice(place: Place) -> None:
    q = place.open()
    line = items_upto(20)
    q.enqueue_batch(line)
    seen = []
    for item in q:
        seen.append(item)
        q.dequeue_batch(3)
        q.enqueue("new")
    seen = [item for item in seen if item != "new"]
    assert seen == [item for item in line if item in seen]
    assert seen[0] == line[0]


def test_two_iterations_do_not_disturb_each_other(place: Place) -> None:
    q = place.open()
    q.enqueue_batch(items_upto(9))
    assert list(zip(q, q, strict=True)) == [(item, item) for item in items_upto(9)]


def test_an_iterator_that_is_dropped_half_way_changes_nothing(place: Place) -> None:
    q = place.open()
    q.enqueue_batch(items_upto(9))
    iterator = iter(q)
    next(iterator)
    del iterator
    assert drained(q) == items_upto(9)


def test_repr_says_the_name_the_size_and_where_the_items_are(place: Place) -> None:
    q = place.open()
    q.enqueue_batch(items_upto(4))
    words = repr(q)
    assert type(q).__name__ in words and "q" in words and "4" in words
    assert f"{q.memory_size} in memory" in words
    if place.setting.on_disk:
        assert f"{q.disk_size} on disk" in words
    q.close()
    assert "closed" in repr(q)


def test_a_queue_is_true_even_when_it_is_empty(place: Place) -> None:
    """`if q:` asks whether there is a queue, as with `queue.Queue`; `len(q)` asks whether anything waits."""
    q = place.open()
    assert q and len(q) == 0
    q.enqueue("one")
    assert q and len(q) == 1
