"""What comes out is what went in: same type, same value, however deep. Or it is refused at the door."""

import dataclasses
import enum
import math
import pickle
import random
import struct
import sys
import threading
import uuid
import zoneinfo
from collections import Counter, OrderedDict, deque, namedtuple
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from fractions import Fraction
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from overspill.errors import CorruptedData, InvalidOption, ItemRejected, NotSerializable, QueueError, UnknownFormat
from overspill.item import (
    KIND_AUTO,
    KIND_CUSTOM,
    KIND_JSON,
    KIND_MSGPACK,
    KIND_PICKLE,
    KIND_RAW,
    KIND_STR,
)
from overspill.serializers import DEPTH_MAX, NAMES, Serializer, resolve

AUTO = resolve("auto")
BERLIN = zoneinfo.ZoneInfo("Europe/Berlin")


def through(item, codec=AUTO):
    kind, payload = codec.encode(item)
    assert type(payload) is bytes
    return codec.decode(kind, payload)


def bits(number):
    return struct.pack(">d", number)


def assert_identical(left, right):
    """Exact type and exact value all the way down; no `==` between floats, zones or folds is trusted."""
    assert type(left) is type(right), (left, right)
    kind = type(left)
    if kind is float:
        assert bits(left) == bits(right)
    elif kind is complex:
        assert bits(left.real) == bits(right.real) and bits(left.imag) == bits(right.imag)
    elif kind in (list, tuple):
        assert len(left) == len(right)
        for one, other in zip(left, right, strict=True):
            assert_identical(one, other)
    elif kind is dict:
        assert len(left) == len(right)
        for (one_key, one), (other_key, other) in zip(left.items(), right.items(), strict=True):
            assert_identical(one_key, other_key)
            assert_identical(one, other)
    elif kind in (set, frozenset):
        assert len(left) == len(right)
        assert sorted(map(described, left)) == sorted(map(described, right))
    elif kind is Decimal:
        assert left.as_tuple() == right.as_tuple()
    elif kind in (datetime, time):
        assert left.replace(tzinfo=None) == right.replace(tzinfo=None)
        assert left.fold == right.fold
        assert_same_zone(left.tzinfo, right.tzinfo)
        assert repr(left) == repr(right)
    elif kind is uuid.UUID:
        assert left == right and left.is_safe is right.is_safe
    elif kind is range:
        assert (left.start, left.stop, left.step) == (right.start, right.stop, right.step)
    else:
        assert left == right


def described(value):
    """A text that differs when type or value do, for comparing what has no order."""
    kind = type(value)
    if kind in (list, tuple):
        return f"{kind.__name__}({', '.join(map(described, value))})"
    if kind in (set, frozenset):
        return f"{kind.__name__}({', '.join(sorted(map(described, value)))})"
    return f"{kind.__name__} {value!r}"


def assert_same_zone(left, right):
    assert type(left) is type(right)
    if type(left) is timezone:
        assert left.__getinitargs__() == right.__getinitargs__()
    elif left is not None:
        assert left is right


# "auto", value by value.

VALUES = [
    None,
    True,
    False,
    0,
    1,
    -1,
    2**63 - 1,
    2**63,
    2**64 - 1,
    2**64,
    -(2**63),
    -(2**63) - 1,
    10**400,
    -(10**400),
    0.0,
    -0.0,
    1.0,
    1e308,
    5e-324,
    math.inf,
    -math.inf,
    math.nan,
    1j,
    complex(-0.0, math.nan),
    b"",
    b"\0\xff",
    "",
    "grüße 🎬",
    "\0",
    bytearray(b""),
    bytearray(b"abc"),
    [],
    (),
    {},
    set(),
    frozenset(),
    [()],
    ((),),
    [[], (), {}, set(), frozenset()],
    (1, "a", None),
    [1, (2, [3, (4,)])],
    {"a": (1, 2), "b": [1, 2]},
    {1: "int", "1": "str", b"1": "bytes", None: "none", 2.5: "float"},
    {True: 1, 2: 3},
    {(1, 2): "tuple", frozenset([1]): "set", (1, (2,)): "deep"},
    {date(2024, 2, 29): 1, uuid.UUID(int=5): 2, Decimal("1.10"): 3, 2**70: 4},
    {(math.nan,): 1, (float("nan"),): 2},
    {"z": 1, "a": 2, "m": 3},
    {1, 2, 3},
    {1, "a", (2, frozenset([3]))},
    {"big": 2**70, "list": [-(2**70)]},
    [2**64, {"x": 2**64}],
    {2**64},
    datetime(2024, 2, 29, 12, 30, 45, 123456),
    datetime.min,
    datetime.max,
    datetime(2024, 10, 27, 2, 30, fold=0, tzinfo=BERLIN),
    datetime(2024, 10, 27, 2, 30, fold=1, tzinfo=BERLIN),
    datetime(2024, 10, 27, 2, 30, fold=1),
    datetime(2024, 1, 1, tzinfo=timezone.utc),
    datetime(2024, 1, 1, tzinfo=zoneinfo.ZoneInfo("UTC")),
    datetime(2024, 1, 1, tzinfo=timezone(timedelta(hours=-3, minutes=-30))),
    datetime(2024, 1, 1, tzinfo=timezone(timedelta(microseconds=1))),
    datetime(2024, 1, 1, tzinfo=timezone(timedelta(hours=1), "MEZ")),
    datetime(2024, 1, 1, tzinfo=timezone(timedelta(0), "")),
    datetime(2024, 1, 1, tzinfo=timezone(timedelta(0), "=ü")),
    date.min,
    date.max,
    time(23, 59, 59, 999999, fold=1),
    time(1, 2, tzinfo=BERLIN),
    time(1, 2, tzinfo=timezone.utc),
    timedelta.min,
    timedelta.max,
    timedelta(microseconds=-1),
    timedelta.resolution,
    uuid.UUID(int=0),
    uuid.UUID("9f4c27fe-eb32-4158-98bb-4639fb4fa2c0"),
    uuid.UUID("1a329f2e-e855-11f1-b127-02fc00000001"),
    uuid.UUID(int=7, is_safe=uuid.SafeUUID.unsafe),
    uuid.UUID(int=7, is_safe=uuid.SafeUUID.safe),
    Decimal("1.10"),
    Decimal("-0"),
    Decimal("0E-50"),
    Decimal("NaN123"),
    Decimal("-sNaN7"),
    Decimal("Infinity"),
    Decimal("1E+999999"),
    Decimal("9" * 200),
    Fraction(1, 3),
    Fraction(-(2**100), 3**80),
    range(5),
    range(5, -(2**80), -3),
    ip_address("192.0.2.1"),
    ip_address("2001:db8::1"),
    ip_address("fe80::1%eth0"),
    ip_network("192.0.2.0/24"),
    ip_network("2001:db8::/32"),
    ip_interface("192.0.2.7/24"),
    ip_interface("2001:db8::1/64"),
    PurePosixPath("/live/a b.ts"),
    PureWindowsPath(r"C:\live\a.ts"),
    Path("."),
    PurePosixPath("//net/x"),
    PurePosixPath("undecodable-\udcff"),
]


def _name_of(value: object) -> str | None:
    """What a test of this value is called; by its number where the text differs from one process of a run to the next, as of sets and of addresses."""
    text = f"{type(value).__name__} {value!r:.40}"
    return None if "set(" in repr(value) or isinstance(value, set) or type(value).__repr__ is object.__repr__ else text


@pytest.mark.parametrize("value", VALUES, ids=_name_of)
@pytest.mark.parametrize("wrap", [lambda v: v, lambda v: [v], lambda v: (v,), lambda v: {"k": [v, (v, {"k": v})]}], ids="1ltd")
def test_auto_gives_back_the_same_type_and_the_same_value(value, wrap):
    item = wrap(value)
    assert_identical(through(item), item)


@pytest.mark.parametrize("value", [v for v in VALUES if type(v).__hash__ and not isinstance(v, Decimal)], ids=_name_of)
def test_auto_takes_whatever_is_hashable_as_a_key_and_in_a_set(value):
    for item in ({value: 1}, {"a": 0, value: [1]}, {value}, frozenset([value, "other"])):
        assert_identical(through(item), item)


def test_auto_keeps_the_order_of_a_dict():
    keys = [3, "a", (1,), 1, b"z", None]
    assert list(through(dict.fromkeys(keys))) == keys


def test_auto_stores_bytes_and_text_as_they_are():
    assert AUTO.encode(b"abc") == (KIND_RAW, b"abc")
    assert AUTO.encode("ü") == (KIND_STR, "ü".encode())
    assert AUTO.encode([1])[0] == KIND_AUTO


def test_a_mutable_item_is_written_as_it_was():
    item = {"a": [1]}
    kind, payload = AUTO.encode(item)
    item["a"].append(2)
    assert AUTO.decode(kind, payload) == {"a": [1]}


zones = st.one_of(
    st.none(),
    st.timezones(),
    st.builds(timezone, st.timedeltas(timedelta(hours=-23), timedelta(hours=23))),
    st.builds(timezone, st.timedeltas(timedelta(hours=-23), timedelta(hours=23)), st.text(max_size=5)),
)
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=10)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(2**200), 2**200),
    st.floats(),
    st.complex_numbers(),
    st.binary(max_size=10),
    text,
    st.datetimes(timezones=zones, allow_imaginary=True),
    st.dates(),
    st.times(timezones=zones),
    st.timedeltas(),
    st.uuids(),
    st.decimals(),
    st.fractions(),
    st.ip_addresses(),
)
hashables = st.recursive(
    scalars.filter(lambda value: not (type(value) is Decimal and value.is_snan())),
    lambda inner: st.one_of(st.lists(inner, max_size=3).map(tuple), st.frozensets(inner, max_size=3)),
    max_leaves=6,
)
items = st.recursive(
    st.one_of(scalars, st.binary(max_size=5).map(bytearray)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(hashables, inner, max_size=4),
        st.dictionaries(text, inner, max_size=4),
        st.sets(hashables, max_size=4),
    ),
    max_leaves=25,
)


@settings(max_examples=500, deadline=None)
@given(items)
@example([{(float("nan"), -0.0): {2**64: ({1},)}}])
def test_auto_round_trips_anything_it_promises(item):
    assert_identical(through(item), item)


@settings(max_examples=200, deadline=None)
@given(items)
def test_what_may_be_kept_is_immutable_and_encodable(item):
    for name in ("auto", "raw", "str", "json", "msgpack", "pickle"):
        codec = resolve(name)
        if codec.keeps_object(item):
            assert_identical(through(item, codec), item)


@settings(max_examples=300, deadline=None)
@given(items)
def test_what_json_and_msgpack_take_they_give_back_as_it_was(item):
    for name in ("json", "msgpack"):
        codec = resolve(name)
        try:
            codec.encode(item)
        except NotSerializable as error:
            assert error.hint
        else:
            assert_identical(through(item, codec), item)


@pytest.mark.parametrize(("name", "item", "place", "hint"), [
    ("json", b"bytes", "item is of type bytes", "base64"),
    ("json", {"image": [1, b"png"]}, 'item["image"][1] is of type bytes', '"msgpack"'),
    ("json", {"at": (1, 2)}, 'item["at"] is of type tuple', '"auto"'),
    ("json", {1: "one"}, "item has the key 1 of type int", '"auto"'),
    ("json", [0.5, math.nan], "item[1] is the float nan", '"auto"'),
    ("json", [datetime(2026, 1, 1)], "item[0] is of type datetime.datetime", '"auto"'),
    ("msgpack", {"a": {"b": {1}}}, 'item["a"]["b"] is of type set', '"auto"'),
    ("msgpack", [bytearray(b"x")], "item[0] is of type bytearray", '"auto"'),
    ("msgpack", {(1, 2): 3}, "item has the key (1, 2) of type tuple", '"auto"'),
])  # fmt: skip
def test_what_the_format_does_not_have_is_refused_with_its_place_and_the_way_out(name, item, place, hint):
    codec = resolve(name)
    with pytest.raises(NotSerializable) as caught:
        codec.encode(item)
    assert place in str(caught.value) and hint in caught.value.hint
    assert f"serializer='{name}'" in str(caught.value)
    assert not codec.keeps_object(item)


# "auto", what it refuses.

Point = namedtuple("Point", "x y")


class Colour(enum.IntEnum):
    RED = 1


class Word(str):
    pass


class OddZone(tzinfo):
    def utcoffset(self, when):
        return timedelta(0)


class Thing:
    pass


class LateDay(date):
    pass


@dataclasses.dataclass
class Job:
    id: int
    tags: list[str]


class User(msgspec.Struct):
    id: int
    name: str = ""


class SubUser(User):
    more: int = 0


REFUSED = [
    Point(1, 2),
    Colour.RED,
    Word("a"),
    OrderedDict(a=1),
    Counter("a"),
    deque([1]),
    Thing(),
    Thing,
    object(),
    print,
    lambda: 0,
    memoryview(b"abc"),
    Job(1, []),
    User(1),
    LateDay(2024, 1, 1),
    timezone.utc,
    BERLIN,
    ...,
    NotImplemented,
    iter([]),
    {}.keys(),
    ValueError("x"),
    struct,
    type("SubList", (list,), {})(),
    type("SubInt", (int,), {})(5),
    type("SubBytes", (bytes,), {})(b"x"),
    type("SubDict", (dict,), {})(),
    msgspec.msgpack.Ext(5, b"x"),
    msgspec.Raw(b"\x01"),
    datetime(2024, 1, 1, tzinfo=OddZone()),
    time(1, tzinfo=OddZone()),
    "lone \ud800",
]


@pytest.mark.parametrize("value", REFUSED, ids=lambda value: type(value).__name__)
def test_auto_refuses_what_would_not_come_back_the_same(value):
    for item in (value, [value], {"k": (0, [value])}, [2**70, value]):
        with pytest.raises(NotSerializable) as caught:
            AUTO.encode(item)
        assert isinstance(caught.value, TypeError) and isinstance(caught.value, ItemRejected)
        assert caught.value.hint
        assert not resolve("auto").keeps_object(item)


def test_a_refusal_names_type_place_and_the_way_out():
    with pytest.raises(NotSerializable) as caught:
        AUTO.encode({"id": 5, "user": [0, 1, 2, Point(1, 2)]})
    assert caught.value.place == 'item["user"][3]'
    said = str(caught.value)
    assert "test_serializers.Point" in said and "plain tuple" in said
    assert '"pickle"' in said and "encode and decode" in said


@pytest.mark.parametrize(
    ("item", "place"),
    [
        (Thing(), "item"),
        ([1, Thing()], "item[1]"),
        ((1, (Thing(),)), "item[1][0]"),
        ({5: {"a b": Thing()}}, 'item[5]["a b"]'),
        ({"text": "\ud800"}, 'item["text"]'),
        ({Colour.RED: 1}, "item.key(<Colour.RED: 1>)"),
        ({Word("w")}, "item.element('w')"),
        ({"at": datetime(2024, 1, 1, tzinfo=OddZone())}, 'item["at"]'),
        ({(1, Colour.RED): 1}, "item.key((1, <Colour.RED: 1>))[1]"),
    ],
)
def test_the_place_inside_the_item_is_found(item, place):
    with pytest.raises(NotSerializable) as caught:
        AUTO.encode(item)
    assert caught.value.place == place
    assert place in str(caught.value)


def test_a_zone_from_a_file_is_refused():
    for folder in zoneinfo.TZPATH:
        path = Path(folder) / "Europe" / "Berlin"
        if path.exists():
            break
    else:
        pytest.skip("no zone files here")
    with path.open("rb") as file:
        zone = zoneinfo.ZoneInfo.from_file(file, key="Europe/Paris")
    with pytest.raises(NotSerializable):
        AUTO.encode(datetime(2024, 1, 1, tzinfo=zone))


def circles():
    circle: list[Any] = [1]
    circle.append(circle)
    ring: dict[str, Any] = {}
    ring["self"] = ring
    knot: list[Any] = []
    knot.append((1, {"back": knot}))
    return [circle, ring, knot]


@pytest.mark.parametrize("item", circles(), ids=["list", "dict", "mixed"])
def test_an_item_that_contains_itself_is_refused(item):
    for name in ("auto", "json", "msgpack"):
        with pytest.raises(NotSerializable, match="contains itself"):
            resolve(name).encode(item)


def nested(depth, wrap):
    item = wrap(0) if wrap is not list else []
    for _ in range(depth - 1):
        item = wrap(item)
    return item


WRAPS = {
    "list": lambda inner: [inner],
    "tuple": lambda inner: (inner,),
    "dict": lambda inner: {"k": inner},
    "frozenset": lambda inner: frozenset([inner]),
    "odd key": lambda inner: {(1,): inner},
}


@pytest.mark.parametrize("wrap", WRAPS.values(), ids=WRAPS)
def test_depth_has_a_limit_and_up_to_it_everything_works(wrap):
    limit = DEPTH_MAX - 1 if wrap(0) == {(1,): 0} else DEPTH_MAX  # the key is one more level
    item = nested(limit, wrap)
    assert_identical(through(item), item)
    for depth in (DEPTH_MAX + 1, DEPTH_MAX + 50, 900):
        with pytest.raises(NotSerializable, match="nested deeper"):
            AUTO.encode(nested(depth, wrap))


def at_stack_depth(depth, work):
    return work() if depth == 0 else at_stack_depth(depth - 1, work)


def frames():
    frame, count = sys._getframe(), 0
    while frame:
        frame, count = frame.f_back, count + 1
    return count


def test_a_caller_deep_in_its_own_recursion_gets_its_item_back_all_the_same():
    item = nested(90, WRAPS["tuple"])
    left = sys.getrecursionlimit() - frames()
    for spare in (40, 60, 100, 200, 300):
        assert_identical(at_stack_depth(left - spare, lambda: through(item)), item)
        with pytest.raises(NotSerializable):
            at_stack_depth(left - spare, lambda: AUTO.encode([Thing()]))


def test_a_caller_without_any_stack_left_is_not_told_that_the_bytes_are_damaged():
    item = nested(90, WRAPS["tuple"])
    kind, payload = AUTO.encode(item)
    left = sys.getrecursionlimit() - frames()
    for spare in range(4, 60):
        try:
            assert at_stack_depth(left - spare, lambda: AUTO.decode(kind, payload)) == item
        except RecursionError:
            pass


def test_threads_may_share_a_codec():
    item = {"t": (1, {2**70, (3,)}), "d": datetime(2024, 1, 1, tzinfo=BERLIN)}
    failures = []

    def work():
        try:
            for _ in range(300):
                assert_identical(through(item), item)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


# Damage.


def no_other_error(codec, kind, payload):
    try:
        codec.decode(kind, payload)
    except (CorruptedData, UnknownFormat):
        pass


RICH = {
    "t": (1, "a", [2.5]),
    "s": {1, (2,)},
    "d": datetime(2024, 10, 27, 2, 30, fold=1, tzinfo=BERLIN),
    "o": datetime(2024, 1, 1, tzinfo=timezone(timedelta(hours=1), "MEZ")),
    "x": [date.min, time(1), timedelta(1), uuid.uuid4(), Decimal("1.1"), Fraction(1, 3), range(3), 2**80, 1j],
    "p": [PurePosixPath("a"), ip_network("192.0.2.0/24"), bytearray(b"x"), {(1,): 2}],
}


def test_a_cut_payload_is_corrupted_data():
    kind, payload = AUTO.encode(RICH)
    for end in range(len(payload)):
        with pytest.raises(CorruptedData):
            AUTO.decode(kind, payload[:end])
    with pytest.raises(CorruptedData):
        AUTO.decode(kind, payload + b"\0")


def test_no_damaged_byte_raises_anything_else():
    kind, payload = AUTO.encode(RICH)
    dice = random.Random(11)
    for position in range(len(payload)):
        for value in (0, 0x80, 0xFF, payload[position] ^ 1, *dice.sample(range(256), 8)):
            no_other_error(AUTO, kind, payload[:position] + bytes([value]) + payload[position + 1 :])


@settings(max_examples=500, deadline=None)
@given(payload=st.binary(max_size=60), kind=st.sampled_from([0, 1, 2, 3, 4]))
def test_random_bytes_decode_or_are_corrupted_data(payload, kind):
    no_other_error(AUTO, kind, payload)


@settings(max_examples=500, deadline=None)
@given(code=st.integers(1, 17), payload=st.binary(max_size=30))
def test_random_extensions_decode_or_are_corrupted_data(code, payload):
    packed = msgspec.msgpack.encode([msgspec.msgpack.Ext(code, payload)])
    no_other_error(AUTO, KIND_AUTO, packed)


@pytest.mark.parametrize(
    "payload",
    [b"\x91" * 200_000, b"\x81\x01" * 200_000, b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b""],
    ids=["lists", "maps", "long list", "long map", "long bytes", "nothing"],
)
def test_hostile_payloads_are_corrupted_data(payload):
    with pytest.raises(CorruptedData):
        AUTO.decode(KIND_AUTO, payload)
    with pytest.raises(CorruptedData):
        AUTO.decode(KIND_JSON, b"[" * 200_000)


def test_nested_extensions_without_end_are_corrupted_data():
    payload = msgspec.msgpack.encode(1)
    for _ in range(3000):
        payload = msgspec.msgpack.encode([msgspec.msgpack.Ext(1, payload)])
    with pytest.raises(CorruptedData):
        AUTO.decode(KIND_AUTO, payload)


def test_bad_utf8_is_corrupted_data():
    with pytest.raises(CorruptedData):
        AUTO.decode(KIND_STR, b"\xff")


def test_what_a_newer_version_wrote_is_no_damage():
    with pytest.raises(UnknownFormat, match="newer version"):
        AUTO.decode(KIND_AUTO, msgspec.msgpack.encode(msgspec.msgpack.Ext(99, b"")))
    with pytest.raises(UnknownFormat, match="newer version"):
        AUTO.decode(200, b"")


def test_a_zone_that_this_system_lacks_is_no_damage():
    payload = AUTO.encode(datetime(2024, 1, 1, tzinfo=BERLIN))[1].replace(b"Europe/Berlin", b"Europe/Atlant")
    with pytest.raises(UnknownFormat, match="tzdata"):
        AUTO.decode(KIND_AUTO, payload)


def test_decoding_takes_any_buffer():
    for wrap in (bytes, bytearray, memoryview):
        for item in (b"abc", "abc", (1, 2), {"a": 1}):
            kind, payload = AUTO.encode(item)
            assert_identical(AUTO.decode(kind, wrap(payload)), item)


def test_the_bytes_on_disk_do_not_change():
    # These payloads are in people's folders. A change that breaks this test needs new extension numbers.
    golden = {
        # MessagePack: ext of n bytes (d4 = 1, d5 = 2, d6 = 4, d7 = 8, d8 = 16, c7 n), our number, the contents.
        "c705" + "01" + "930102a161": (1, 2, "a"),
        "d503" + "9101": frozenset([1]),
        "d502" + "9102": {2},
        "c706" + "04" + "92" + "d501" + "9101" + "c0": {(1,): None},
        "c709" + "05" + "010000000000000000": 2**64,
        "d8" + "06" + "3ff0000000000000c000000000000000": 1 - 2j,
        "d507" + "6162": bytearray(b"ab"),
        "c70c" + "08" + "07e8021d0c1e2d0001e24000": datetime(2024, 2, 29, 12, 30, 45, 123456),
        "d609" + "07e8021d": date(2024, 2, 29),
        "c70c" + "0b" + "ffffffff" + "0001517f" + "000f423f": timedelta(microseconds=-1),
        "d80c" + "00" * 15 + "07": uuid.UUID(int=7),
        "d60d" + "312e3130": Decimal("1.10"),
        "c703" + "0e" + "920103": Fraction(1, 3),
        "d60f" + "93000501": range(5),
        "c709" + "10" + "00" + b"10.0.0.1".hex(): ip_address("10.0.0.1"),
        "d511" + "00" + "61": PurePosixPath("a"),
    }
    for written, item in golden.items():
        assert AUTO.encode(item) == (KIND_AUTO, bytes.fromhex(written)), item
        assert_identical(AUTO.decode(KIND_AUTO, bytes.fromhex(written)), item)


# The other names.


def test_raw_takes_buffers_and_gives_bytes():
    codec = resolve("raw")
    for item in (b"abc", bytearray(b"abc"), memoryview(b"abc"), memoryview(b"aXbXcX")[::2]):
        assert codec.encode(item) == (KIND_RAW, b"abc")
        assert_identical(through(item, codec), b"abc")
    for item in ("abc", None, 5, [b"abc"]):
        with pytest.raises(NotSerializable, match='"raw" takes bytes'):
            codec.encode(item)


def test_str_takes_text():
    codec = resolve("str")
    assert codec.encode("ü") == (KIND_STR, b"\xc3\xbc")
    assert_identical(through(Word("a"), codec), "a")
    for item in (b"abc", None, 5, "\ud800", Word("\ud800")):
        with pytest.raises(NotSerializable):
            codec.encode(item)


def test_json_and_msgpack_are_what_they_say():
    assert resolve("json").encode({"a": [1, None]}) == (KIND_JSON, b'{"a":[1,null]}')
    assert resolve("msgpack").encode({"a": [1]}) == (KIND_MSGPACK, b"\x81\xa1a\x91\x01")
    assert_identical(through([1, 2**70, {"a": [1.5, None, True]}], resolve("json")), [1, 2**70, {"a": [1.5, None, True]}])
    assert_identical(through([1, b"x", {1: math.inf, None: []}], resolve("msgpack")), [1, b"x", {1: math.inf, None: []}])
    for name in ("json", "msgpack"):
        for item in (Thing(), "\ud800", [1j]):
            with pytest.raises(NotSerializable, match=name):
                resolve(name).encode(item)
            assert not resolve(name).keeps_object(item)
    with pytest.raises(NotSerializable, match="64"):
        resolve("msgpack").encode(2**64)
    assert not resolve("msgpack").keeps_object(2**64)


def test_pickle_takes_what_pickle_takes():
    codec = resolve("pickle")
    item = [Point(1, 2), Colour.RED, OrderedDict(a=1)]
    assert codec.encode(item)[0] == KIND_PICKLE
    back = through(item, codec)
    assert back == item and [type(part) for part in back] == [Point, Colour, OrderedDict]
    with pytest.raises(NotSerializable, match="cannot be pickled"):
        codec.encode(lambda: 0)
    with pytest.raises(CorruptedData):
        codec.decode(KIND_PICKLE, b"no pickle")
    with pytest.raises(UnknownFormat, match="cannot be imported"):
        codec.decode(KIND_PICKLE, b"cno_such_module\nThing\n.")


def test_pickle_is_read_only_by_a_queue_that_asked_for_it():
    class Boom:
        def __reduce__(self):
            return pytest.fail, ("unpickled",)

    payload = pickle.dumps(Boom())
    for serializer in (*(name for name in NAMES if name != "pickle"), User, Reversed()):
        codec = resolve(serializer)
        assert not codec.reads(KIND_PICKLE)
        with pytest.raises(UnknownFormat, match="any code") as caught:
            codec.decode(KIND_PICKLE, payload)
        assert 'serializer="pickle"' in caught.value.hint


@pytest.mark.parametrize("reader", [*NAMES, "custom"])
def test_every_codec_reads_what_describes_itself(reader):
    codec = resolve(Reversed() if reader == "custom" else reader)
    for writer in ("auto", "raw", "str", "json", "msgpack"):
        for item in (b"x", "x", [1, "a"]):
            try:
                kind, payload = resolve(writer).encode(item)
            except NotSerializable:
                continue
            assert_identical(codec.decode(kind, payload), item)


# A type.


def test_a_struct_a_dataclass_and_an_annotation_come_back_as_they_are():
    for type_, item in (
        (User, User(5, "ann")),
        (Job, Job(5, ["a"])),
        (list[int], [1, 2]),
        (User | Job | None, None),
        (dict[str, tuple[int, ...]], {"a": (1, 2)}),
        (Point, Point(1, 2)),
        (Colour, Colour.RED),
        (datetime, datetime(2024, 1, 1)),
        (int | str, "a"),
    ):
        try:
            codec = resolve(type_)
        except InvalidOption:
            assert type_ == User | Job | None  # msgspec wants tags on a union of structs
            continue
        assert codec.encode(item)[0] == KIND_MSGPACK
        back = through(item, codec)
        assert type(back) is type(item) and back == item
        assert not codec.keeps_object(item)


@pytest.mark.parametrize("item", [Job(1, []), {"id": 5}, User("x"), SubUser(1), None, User(2**70), Thing()], ids=_name_of)
def test_what_could_not_be_given_back_as_its_type_is_not_accepted(item):
    with pytest.raises(NotSerializable, match="User|encode"):
        resolve(User).encode(item)


def test_an_item_of_an_older_shape_is_no_damage():
    codec = resolve(User)
    with pytest.raises(UnknownFormat, match="id"):
        codec.decode(KIND_MSGPACK, msgspec.msgpack.encode({"name": "ann"}))
    with pytest.raises(CorruptedData):
        codec.decode(KIND_MSGPACK, b"\x81\xa2id")
    assert codec.decode(KIND_JSON, b'{"id":5}') == User(5)


def test_a_typed_queue_gives_nothing_but_its_type():
    for kind, payload in ((KIND_RAW, b"x"), (KIND_STR, b"x"), AUTO.encode({"id": 5})):
        with pytest.raises(UnknownFormat, match="User"):
            resolve(User).decode(kind, payload)


# A serializer of one's own.


class Reversed:
    def encode(self, item):
        return item[::-1].encode()

    def decode(self, payload):
        return payload.decode()[::-1]


def test_a_serializer_of_ones_own():
    own = Reversed()
    assert isinstance(own, Serializer)
    codec = resolve(own)
    assert codec.encode("abc") == (KIND_CUSTOM, b"cba")
    assert codec.decode(KIND_CUSTOM, memoryview(b"cba")) == "abc"
    assert not codec.keeps_object("abc")
    with pytest.raises(NotSerializable, match=r"Reversed\.encode refused this int"):
        codec.encode(5)
    with pytest.raises(CorruptedData):
        codec.decode(KIND_CUSTOM, b"\xff")
    with pytest.raises(UnknownFormat, match="serializer that wrote it"):
        AUTO.decode(KIND_CUSTOM, b"cba")


def test_a_serializer_must_return_bytes():
    class Wrong:
        def encode(self, item):
            return item

        def decode(self, payload):
            raise UnknownFormat(what="the key is another one")

    codec = resolve(Wrong())
    assert codec.encode(bytearray(b"x")) == (KIND_CUSTOM, b"x")
    with pytest.raises(NotSerializable, match="returned str, not bytes"):
        codec.encode("x")
    # An error of ours passes as it is: a wrong key is not damage.
    with pytest.raises(UnknownFormat, match="key"):
        codec.decode(KIND_CUSTOM, b"x")


# resolve.


@pytest.mark.parametrize("bad", ["yaml", "AUTO", "", None, 5, object(), [], Thing, Reversed, b"auto"], ids=_name_of)
def test_what_is_no_serializer_is_an_invalid_option(bad):
    with pytest.raises(InvalidOption, match="^serializer=") as caught:
        resolve(bad)
    if bad is Reversed:
        assert "Reversed()" in str(caught.value)


def test_a_codec_resolves_to_itself():
    assert resolve(AUTO) is AUTO
    assert issubclass(NotSerializable, QueueError)


# keeps_object.


@pytest.mark.parametrize(
    "value",
    [None, True, 5, 2**70, 1.5, 1j, "a", "ü", b"a", datetime(2024, 1, 1), datetime(2024, 1, 1, tzinfo=timezone.utc)]
    + [date.min, time(1), timedelta(1), uuid.UUID(int=1), Decimal(1)],
    ids=_name_of,
)
def test_immutable_values_of_exact_type_may_be_kept(value):
    assert resolve("auto").keeps_object(value)


@pytest.mark.parametrize(
    "value", [[], (), {}, set(), frozenset(), bytearray(), Word("a"), Colour.RED, Point(1, 2), Thing(), "\ud800"], ids=_name_of
)
def test_everything_else_may_not(value):
    assert not resolve("auto").keeps_object(value)
