"""Raising: what was lowered, as it was. Whatever goes wrong in here goes wrong because of the bytes; whoever calls says so."""

from __future__ import annotations

import zoneinfo
from collections.abc import Callable
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final
from uuid import UUID, SafeUUID

import msgspec

from ..errors import UnknownFormat
from .extensions import (
    ADDRESS_TYPES, COMPLEX, DATE, DATETIME, EXT_ADDRESS, EXT_BYTEARRAY, EXT_COMPLEX, EXT_DATE, EXT_DATETIME, EXT_DECIMAL, EXT_FRACTION, EXT_FROZENSET,
    EXT_INT, EXT_MAP, EXT_PATH, EXT_RANGE, EXT_SET, EXT_TIME, EXT_TIMEDELTA, EXT_TUPLE, EXT_UUID, PATH_TYPES, TIME, TIMEDELTA, ZONE_NAMED, ZONE_OFFSET,
)


def _raise_zone(said: bytes) -> tzinfo | None:
    if not said:
        return None
    letter, rest = said[:1], said[1:]
    if letter == ZONE_OFFSET:
        days, seconds, microseconds = TIMEDELTA.unpack_from(rest)
        offset = timedelta(days, seconds, microseconds)
        name = rest[TIMEDELTA.size :]
        if not name:
            return timezone(offset)
        if name[:1] != b"=":
            raise ValueError("the name of a zone does not begin with '='")
        return timezone(offset, name[1:].decode())
    if letter == ZONE_NAMED:
        key = rest.decode()
        try:
            return zoneinfo.ZoneInfo(key)
        except zoneinfo.ZoneInfoNotFoundError as error:
            # The bytes are whole; this machine knows fewer zones than the one that wrote them.
            raise UnknownFormat(what="a time zone that this system does not know", found=key,
                                hint="install the package tzdata") from error  # fmt: skip
    raise ValueError(f"no kind of zone has the letter {letter!r}")


def _raise_datetime(said: bytes) -> datetime:
    year, month, day, hour, minute, second, microsecond, fold = DATETIME.unpack_from(said)
    zone = _raise_zone(said[DATETIME.size :])
    return datetime(year, month, day, hour, minute, second, microsecond, zone, fold=fold)


def _raise_time(said: bytes) -> time:
    hour, minute, second, microsecond, fold = TIME.unpack_from(said)
    return time(hour, minute, second, microsecond, _raise_zone(said[TIME.size :]), fold=fold)


def _raise_uuid(said: bytes) -> UUID:
    if len(said) == 16:
        return UUID(bytes=said)
    (safe,) = said[16:]
    return UUID(bytes=said[:16], is_safe=SafeUUID(safe - 256 if safe > 127 else safe))


def _raise_map(said: bytes) -> dict[Any, Any]:
    flat = _unpacked_list(said)
    keys = iter(flat)
    return dict(zip(keys, keys, strict=True))


def _raise_ints(make: Callable[..., Any], count: int) -> Callable[[bytes], Any]:
    def raised(said: bytes) -> Any:
        parts = _unpacked_list(said)
        if len(parts) != count or any(type(part) is not int for part in parts):
            raise ValueError(f"{count} ints expected")
        return make(*parts)

    return raised


def _raise_address(said: bytes) -> Any:
    return ADDRESS_TYPES[said[0]](said[1:].decode())


def _raise_path(said: bytes) -> Any:
    kind = PATH_TYPES[said[0]]
    try:
        return kind(said[1:].decode("utf-8", "surrogatepass"))
    except NotImplementedError as error:
        raise UnknownFormat(what=f"a {kind.__name__}, which this system does not have",
                            hint="queue pure paths between different systems") from error  # fmt: skip


def _raise_extension(code: int, said: memoryview) -> Any:
    raising = _RAISINGS.get(code)
    if raising is None:
        raise UnknownFormat(what="an extension type that this version does not know", found=code,
                            hint="a newer version wrote it; read it with that one")  # fmt: skip
    return raising(bytes(said))


unpacked = msgspec.msgpack.Decoder(ext_hook=_raise_extension).decode
_unpacked_list = msgspec.msgpack.Decoder(list[Any], ext_hook=_raise_extension).decode

_RAISINGS: Final[dict[int, Callable[[bytes], Any]]] = {
    EXT_TUPLE: msgspec.msgpack.Decoder(tuple[Any, ...], ext_hook=_raise_extension).decode,
    EXT_SET: lambda said: set(_unpacked_list(said)),
    EXT_FROZENSET: lambda said: frozenset(_unpacked_list(said)),
    EXT_MAP: _raise_map,
    EXT_INT: lambda said: int.from_bytes(said, "big", signed=True),
    EXT_COMPLEX: lambda said: complex(*COMPLEX.unpack(said)),
    EXT_BYTEARRAY: bytearray,
    EXT_DATETIME: _raise_datetime,
    EXT_DATE: lambda said: date(*DATE.unpack(said)),
    EXT_TIME: _raise_time,
    EXT_TIMEDELTA: lambda said: timedelta(*TIMEDELTA.unpack(said)),
    EXT_UUID: _raise_uuid,
    EXT_DECIMAL: lambda said: Decimal(said.decode("ascii")),
    EXT_FRACTION: _raise_ints(Fraction, 2),
    EXT_RANGE: _raise_ints(range, 3),
    EXT_ADDRESS: _raise_address,
    EXT_PATH: _raise_path,
}
