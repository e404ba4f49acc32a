"""What goes in comes out, identically, whichever tier it passed through."""
from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import json
import uuid
from typing import Any

import msgspec
import pytest
from conftest import Place, drained

from overspill import CorruptedData, InvalidOption, ItemTooLarge, KiB, NotSerializable, QueueError, UnknownFormat

AUTO_ITEMS: list[Any] = [
    b"", b"bytes \x00\xff", "", "str ünï \U0001f600 \x00", None, True, False, 0, -1, 2**63, -(2**63) - 1, 10**40, 0.0, -0.0, 1.5, float("inf"), 1e-310,
    [], [1, [2, (3,)]], (), (1, "two", b"three"), {}, {"a": 1, "b": [None]}, {1: "int key", (1, 2): "tuple key", None: 0}, [(1, 2), [1, 2]],
    dt.datetime(2024, 2, 29, 12, 30, 15, 123456), dt.datetime(2024, 1, 1, tzinfo=dt.UTC), dt.datetime(2024, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=5, minutes=30))),
    dt.date(1, 1, 1), dt.time(23, 59, 59, 999999), dt.timedelta(days=-1, microseconds=1), uuid.UUID(int=2**127 + 5), decimal.Decimal("1.10"), {1, 2}, frozenset("ab"),
    bytearray(b"mutable"), 1 + 2j,
]  # fmt: skip


def identical(a: Any, b: Any) -> bool:
    """Equal, and of the same types all the way down; -0.0 is not 0.0."""
    if type(a) is not type(b):
        return False
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(identical, a, b))
    if isinstance(a, dict):
        return len(a) == len(b) and all(identical(x, y) for x, y in zip(a.items(), b.items(), strict=True))
    if isinstance(a, float):
        return repr(a) == repr(b)
    return bool(a == b)


def test_auto_items_come_back_identical_from_either_tier(tiny_place: Place) -> None:
    q = tiny_place.open()
    accepted = []
    for item in AUTO_ITEMS:
        try:
            q.enqueue(item)
        except NotSerializable:
            assert type(item) in (bytearray, complex), f"{item!r} is of the kinds that the contract names"
            continue
        accepted.append(item)
    assert 0 < q.memory_size < len(q) or tiny_place.setting.memory_size > len(q)
    assert all(map(identical, q, accepted))
    q = tiny_place.reopen(q)
    back = drained(q)
    assert len(back) == len(accepted)
    for expected, found in zip(accepted, back, strict=True):
        assert identical(expected, found), (expected, found)


def test_auto_items_come_back_identical_from_memory(memory_place: Place) -> None:
    q = memory_place.open()
    for item in AUTO_ITEMS:
        try:
            q.enqueue(item)
        except NotSerializable:
            continue
        assert identical(q.peek(), item)
        assert identical(q.dequeue(), item), item


class Colour(enum.Enum):
    RED = 1


class SubclassOfDict(dict[str, int]):
    pass


@dataclasses.dataclass
class Plain:
    x: int


@pytest.mark.parametrize("item", [object(), Plain(1), Colour.RED, SubclassOfDict(a=1), [object()], {"deep": [({"er": object()},)]}, lambda: None, type, iter([])],
                         ids=lambda item: type(item).__name__)  # fmt: skip
def test_what_auto_cannot_bring_back_is_refused_at_enqueue_everywhere(place: Place, item: Any) -> None:
    q = place.open()
    for put in (lambda: q.enqueue(item), lambda: q.enqueue_front(item), lambda: q.enqueue_batch(["fine", item])):
        with pytest.raises(NotSerializable, match="serializer") as caught:
            put()
        assert isinstance(caught.value, TypeError)
    assert len(q) == 0 and q.stats().enqueued == 0


def test_a_list_that_contains_itself_is_refused_and_not_a_crash(memory_place: Place) -> None:
    q = memory_place.open()
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(NotSerializable):
        q.enqueue(loop)


@pytest.mark.parametrize(("name", "good", "bad"), [
    ("raw", [b"", b"\x00\xff"], ["str", 1, None]),
    ("str", ["", "ünï"], [b"bytes", 1, None]),
    ("json", [None, 1, "x", [1, {"a": [True, 2.5]}]], [object(), b"bytes", ["x", b"bytes"], (1,), {1: 2}, float("nan")]),
    ("msgpack", [None, 1, "x", b"bytes", [1, {"a": True}]], [object(), (1,), [{1}]]),
    ("pickle", [None, Plain(1), Colour.RED, (1, [2]), SubclassOfDict(a=1)], [lambda: None]),
])  # fmt: skip
def test_named_serializers(tiny_place: Place, name: str, good: list[Any], bad: list[Any]) -> None:
    q = tiny_place.open(serializer=name)
    for item in good:
        q.enqueue(item)
    for item in bad:
        with pytest.raises(NotSerializable):
            q.enqueue(item)
    assert list(q) == good
    q = tiny_place.reopen(q, serializer=name)
    assert drained(q) == good


class Job(msgspec.Struct, frozen=True):
    url: str
    tries: int = 0


def test_a_type_is_a_serializer_for_its_items(tiny_place: Place) -> None:
    q = tiny_place.open(serializer=Job)
    jobs = [Job(f"http://origin/{i}", i) for i in range(6)]
    q.enqueue_batch(jobs)
    assert q.peek() == jobs[0] and type(q.peek()) is Job
    assert list(q) == jobs
    with pytest.raises(NotSerializable):
        q.enqueue("not a job")
    assert drained(tiny_place.reopen(q, serializer=Job)) == jobs


class Reversing:
    """A serializer of the user's own."""

    def encode(self, item: Any) -> bytes:
        return json.dumps(item).encode()[::-1]

    def decode(self, data: bytes) -> Any:
        return json.loads(bytes(data)[::-1])


def test_a_custom_serializer_goes_through_both_tiers(tiny_place: Place) -> None:
    q = tiny_place.open(serializer=Reversing())
    line = [{"n": i} for i in range(6)]
    q.enqueue_batch(line)
    assert list(q) == line
    assert drained(tiny_place.reopen(q, serializer=Reversing())) == line


def test_a_serializer_that_raises_puts_nothing_and_keeps_its_own_error_in_view(tiny_place: Place) -> None:
    class Fails(Reversing):
        def encode(self, item: Any) -> bytes:
            raise ValueError("the serializer's own fault")

    q = tiny_place.open(serializer=Fails())
    with pytest.raises((NotSerializable, ValueError)) as caught:
        q.enqueue("x")
    assert "own fault" in str(caught.value) or "own fault" in str(caught.value.__cause__)
    assert len(q) == 0


def test_an_item_that_cannot_be_decoded_stays_in_its_place_until_somebody_can(tiny_place: Place) -> None:
    q = tiny_place.open(serializer=Reversing())
    q.enqueue_batch(["a", "b", "c"])
    q.flush_to_disk()

    class Stubborn(Reversing):
        def decode(self, data: bytes) -> Any:
            raise ValueError("cannot read this")

    q = tiny_place.reopen(q, serializer=Stubborn())
    for _ in range(2):
        with pytest.raises((ValueError, QueueError)):
            q.dequeue(timeout=0)
        with pytest.raises((ValueError, QueueError)):
            q.lease(timeout=0)
        assert len(q) == 3
    assert drained(tiny_place.reopen(q, serializer=Reversing())) == ["a", "b", "c"]


def test_pickle_on_disk_is_not_read_by_a_queue_that_did_not_ask_for_it(tiny_place: Place) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return (pytest.fail, ("unpickled without being asked",))

    q = tiny_place.open(serializer="pickle")
    q.enqueue(Evil())
    q.flush_to_disk()
    for other in ("auto", "json", "msgpack"):
        q = tiny_place.reopen(q, serializer=other)
        with pytest.raises((UnknownFormat, CorruptedData)):
            q.dequeue(timeout=0)
        assert len(q) == 1
    q.clear()


@pytest.mark.parametrize("reader", ["auto", "raw", "str", "json", "msgpack", "pickle"])
def test_what_describes_itself_is_read_whatever_the_serializer_is_now(tiny_place: Place, reader: str) -> None:
    line = [("auto", (1, 2)), ("raw", b"raw"), ("str", "str"), ("json", {"a": [1]}), ("msgpack", [b"x"])]
    q = tiny_place.open()
    for writer, item in line:
        q = tiny_place.reopen(q, serializer=writer)
        q.enqueue(item)
    assert drained(tiny_place.reopen(q, serializer=reader)) == [item for _, item in line]


def test_what_only_its_own_serializer_can_read_is_refused_and_kept(tiny_place: Place) -> None:
    q = tiny_place.open(serializer=Reversing())
    q.enqueue({"a": 1})
    q = tiny_place.reopen(q, serializer="auto")
    with pytest.raises(UnknownFormat, match="serializer"):
        q.dequeue(timeout=0)
    assert drained(tiny_place.reopen(q, serializer=Reversing())) == [{"a": 1}]


def test_subclasses_of_bytes_and_str_are_not_quietly_turned_into_them(place: Place) -> None:
    class MyBytes(bytes):
        pass

    class MyStr(str):
        __slots__ = ()

    q = place.open()
    for item in (MyBytes(b"x"), MyStr("x"), memoryview(b"x")):
        with pytest.raises(NotSerializable):
            q.enqueue(item)
    assert len(q) == 0


# --- compression


@pytest.mark.parametrize("codec", ["snappy", "lz4", "zstd"])
def test_compressed_items_come_back_and_take_less_room(tiny_place: Place, codec: str) -> None:
    line = [json.dumps({"event": i, "text": "the same words again and again " * 200}) for i in range(40)]
    plain, packed = tiny_place.open("plain"), tiny_place.open("packed", compression=codec)
    for q in (plain, packed):
        q.enqueue_batch(line[:20])
        for item in line[20:]:
            q.enqueue(item)
        q.flush_to_disk()
    assert list(packed) == line
    plain.close()
    packed = tiny_place.reopen(packed, compression=codec)

    def size(name: str) -> int:
        return sum(path.stat().st_size for path in (tiny_place.path / name).glob("*.seg"))

    assert size("packed") < size("plain") / 2
    assert drained(packed) == line


@pytest.mark.parametrize("codec", ["snappy", "lz4", "zstd"])
def test_what_does_not_shrink_is_stored_as_it_is(tiny_place: Place, codec: str) -> None:
    import random

    noise = [random.Random(i).randbytes(5000) for i in range(4)] + [b"", b"x", b"tiny"]
    q = tiny_place.open(compression=codec)
    q.enqueue_batch(noise)
    q.flush_to_disk()
    assert drained(tiny_place.reopen(q, compression=codec)) == noise


def test_a_queue_reads_what_it_wrote_with_another_compression(tiny_place: Place) -> None:
    line = []
    q = tiny_place.open()
    for codec in (None, "snappy", "lz4", "zstd", None):
        q = tiny_place.reopen(q, compression=codec)
        line.append(f"{codec} " * 500)
        q.enqueue(line[-1])
    assert list(q) == line
    assert drained(tiny_place.reopen(q)) == line


def test_the_size_limit_is_that_of_the_item_and_not_of_its_compressed_form(tiny_place: Place) -> None:
    q = tiny_place.open(compression="zstd", max_item_size=10 * KiB)
    with pytest.raises(ItemTooLarge):
        q.enqueue(b"\0" * 11 * KiB)
    assert len(q) == 0


def test_an_item_over_a_lowered_size_limit_is_not_blown_up_when_it_is_read(tiny_place: Place) -> None:
    q = tiny_place.open(compression="zstd")
    q.enqueue(b"\0" * 1024 * KiB)
    q.flush_to_disk()
    q = tiny_place.reopen(q, compression="zstd", max_item_size=10 * KiB)
    with pytest.raises(QueueError):
        q.dequeue(timeout=0)
    assert len(q) == 1
    assert drained(tiny_place.reopen(q, compression="zstd")) == [b"\0" * 1024 * KiB]


def test_an_unknown_serializer_or_compression_is_refused(tiny_place: Place) -> None:
    for bad in ({"serializer": "yaml"}, {"serializer": object()}, {"compression": "gzip"}, {"compression": True}):
        with pytest.raises(InvalidOption):
            tiny_place.open(**bad)


