"""An item may refer back to the queue that holds it. Such a circle is garbage once nobody else knows it, as it is with `queue.Queue`."""
from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from overspill import CircularBuffer, Queue


class Node:
    queue: Any = None


def queue_with(item: Any) -> Queue:
    queue = Queue()
    queue.put(item)
    return queue


def buffer_with(item: Any) -> CircularBuffer:
    buffer = CircularBuffer(4)
    buffer.push(item)
    return buffer


def queue_with_one_given_back(item: Any) -> Queue:
    queue = queue_with(item)
    queue._line.peek()  # what was looked at stands in the heap of its line
    return queue


def queue_with_one_on_lease(item: Any) -> Any:
    queue = queue_with(item)
    return queue._line.lease()


@pytest.mark.parametrize("make", [queue_with, buffer_with, queue_with_one_given_back, queue_with_one_on_lease], ids=lambda make: make.__name__)
def test_a_circle_through_a_queue_is_collected(make: Callable[[Any], Any]) -> None:
    item = Node()
    item.queue = make(item)
    gone = weakref.ref(item)
    del item
    gc.collect()
    assert gone() is None


def test_collecting_takes_nothing_from_a_queue_that_is_in_use() -> None:
    queue: Queue = Queue()
    items = [[n] for n in range(1000)]
    for item in items:
        queue.put(item)
    gc.collect()
    assert [queue.get() for _ in items] == items
    assert all(got is item for got, item in zip([queue_with(item).get() for item in items], items, strict=True))
