"""Lowering: an item of "auto" in terms of what MessagePack has.

MessagePack carries None, bool, int, float, str, bytes, list and dict; everything else that is promised becomes an extension type. A subclass (a namedtuple, an IntEnum, an
OrderedDict) would come back as its base and is therefore refused. The check looks at exact types, in C where it can: an item of plain scalars costs little more than its encoding.
"""

from __future__ import annotations

import zoneinfo
from collections.abc import Callable, Iterable
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final
from uuid import UUID

import msgspec
from msgspec.msgpack import Ext

from .extensions import (
    ADDRESS_TYPES, COMPLEX, DATE, DATETIME, EXT_ADDRESS, EXT_BYTEARRAY, EXT_COMPLEX, EXT_DATE, EXT_DATETIME, EXT_DECIMAL, EXT_FRACTION, EXT_FROZENSET,
    EXT_INT, EXT_MAP, EXT_PATH, EXT_RANGE, EXT_SET, EXT_TIME, EXT_TIMEDELTA, EXT_TUPLE, EXT_UUID, PATH_TYPES, TIME, TIMEDELTA, ZONE_NAMED, ZONE_OFFSET,
)

DEPTH_MAX: Final = 100  # containers inside one another, under "auto"

# What MessagePack carries as it is. An int beyond 64 bits makes the encoder raise OverflowError; the item is then lowered
# once more with the narrower set, under which every int is looked at.
PLAIN: Final = frozenset([type(None), bool, int, float, str, bytes])
PLAIN_BUT_INT: Final = PLAIN - {int}

packed = msgspec.msgpack.Encoder().encode


class Refused(Exception):
    """Somewhere in the item is something that cannot be lowered; `fault_in` finds out where and says it well."""


# Lowering: an item in terms of what MessagePack has. `plain` is the set of types that stay as they are, `room` how many
# more containers may follow inside this one.

_Plain = frozenset[type]


def lower(value: Any, plain: _Plain, room: int) -> Any:
    kind = type(value)
    if kind in plain:
        return value
    lowering = LOWERINGS.get(kind)
    if lowering is None:
        raise Refused
    return lowering(value, plain, room)


def _lower_list(value: list[Any] | tuple[Any, ...] | Iterable[Any], plain: _Plain, room: int) -> Any:
    if room <= 0:
        raise Refused
    if plain.issuperset(map(type, value)):
        return value
    return [part if type(part) in plain else lower(part, plain, room - 1) for part in value]


def _lower_dict(value: dict[Any, Any], plain: _Plain, room: int) -> Any:
    if room <= 0:
        raise Refused
    if not plain.issuperset(map(type, value)):
        # Lowered keys may be unhashable, and unequal ones may look the same ((nan,) twice): a list of pairs it is.
        flat: list[Any] = []
        for key, part in value.items():
            flat.append(lower(key, plain, room - 1))
            flat.append(lower(part, plain, room - 1))
        return Ext(EXT_MAP, packed(flat))
    if plain.issuperset(map(type, value.values())):
        return value
    return {key: part if type(part) in plain else lower(part, plain, room - 1) for key, part in value.items()}


def _lower_int(value: int, plain: _Plain, room: int) -> Any:
    if -(2**63) <= value < 2**64:
        return value
    return Ext(EXT_INT, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))


def _lower_zone(zone: tzinfo | None) -> bytes:
    kind = type(zone)
    if zone is None:
        return b""
    if kind is timezone:
        offset, *name = zone.__getinitargs__()  # type: ignore[attr-defined]
        named = b"=" + name[0].encode() if name else b""
        return ZONE_OFFSET + TIMEDELTA.pack(offset.days, offset.seconds, offset.microseconds) + named
    if kind is zoneinfo.ZoneInfo:
        # Refused by zoneinfo itself for a zone read from a file: its key, if any, proves nothing.
        zone.__reduce__()
        return ZONE_NAMED + str(zone.key).encode()  # type: ignore[attr-defined]
    raise Refused


def _lower_datetime(value: datetime, plain: _Plain, room: int) -> Ext:
    fields = DATETIME.pack(
        value.year, value.month, value.day, value.hour, value.minute, value.second, value.microsecond, value.fold
    )
    return Ext(EXT_DATETIME, fields + _lower_zone(value.tzinfo))


def _lower_time(value: time, plain: _Plain, room: int) -> Ext:
    fields = TIME.pack(value.hour, value.minute, value.second, value.microsecond, value.fold)
    return Ext(EXT_TIME, fields + _lower_zone(value.tzinfo))


def _lower_uuid(value: UUID, plain: _Plain, room: int) -> Ext:
    safe = value.is_safe.value
    # As a signed byte: SafeUUID has 0, -1 and, for "unknown", None.
    return Ext(EXT_UUID, value.bytes if safe is None else value.bytes + bytes([safe & 0xFF]))


def _lower_array(code: int) -> Callable[[Any, _Plain, int], Ext]:
    def lower(value: Any, plain: _Plain, room: int) -> Ext:
        lowered = _lower_list(value, plain, room)
        return Ext(code, packed(lowered))

    return lower


def _lower_numbered(code: int, types: tuple[type, ...], errors: str) -> Callable[[Any, _Plain, int], Ext]:
    numbers = {kind: bytes([number]) for number, kind in enumerate(types)}

    def lower(value: Any, plain: _Plain, room: int) -> Ext:
        return Ext(code, numbers[type(value)] + str(value).encode("utf-8", errors))

    return lower


_lower_address = _lower_numbered(EXT_ADDRESS, ADDRESS_TYPES, "strict")
_lower_path = _lower_numbered(EXT_PATH, PATH_TYPES, "surrogatepass")

LOWERINGS: Final[dict[type, Callable[[Any, _Plain, int], Any]]] = {
    list: _lower_list,
    dict: _lower_dict,
    tuple: _lower_array(EXT_TUPLE),
    set: _lower_array(EXT_SET),
    frozenset: _lower_array(EXT_FROZENSET),
    int: _lower_int,
    complex: lambda value, plain, room: Ext(EXT_COMPLEX, COMPLEX.pack(value.real, value.imag)),
    bytearray: lambda value, plain, room: Ext(EXT_BYTEARRAY, bytes(value)),
    datetime: _lower_datetime,
    date: lambda value, plain, room: Ext(EXT_DATE, DATE.pack(value.year, value.month, value.day)),
    time: _lower_time,
    timedelta: lambda value, plain, room: Ext(
        EXT_TIMEDELTA, TIMEDELTA.pack(value.days, value.seconds, value.microseconds)
    ),
    UUID: _lower_uuid,
    Decimal: lambda value, plain, room: Ext(EXT_DECIMAL, str(value).encode("ascii")),
    # Their ints may be beyond 64 bits without the item's being lowered for that: look at each.
    Fraction: lambda value, plain, room: Ext(
        EXT_FRACTION, packed([_lower_int(value.numerator, plain, room), _lower_int(value.denominator, plain, room)])
    ),
    range: lambda value, plain, room: Ext(
        EXT_RANGE, packed([_lower_int(part, plain, room) for part in (value.start, value.stop, value.step)])
    ),
    **dict.fromkeys(ADDRESS_TYPES, _lower_address),
    **dict.fromkeys(PATH_TYPES, _lower_path),
}
