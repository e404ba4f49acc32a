"""An item as bytes and back: what comes out is what went in, or it is refused at the door.

``resolve`` turns the option ``serializer`` into a ``Codec``. A codec writes one kind of payload (format page, table 3; ``"auto"``
writes three) and reads every kind that describes itself, so a folder outlives a change of the option: items
come out in the form they were written in. Two kinds are read only by the codec that writes them: pickle, because reading it
runs code, and a custom serializer's bytes, because only it knows what they mean.

``"auto"`` promises identity: same type, same value, however deep. MessagePack carries None, bool, int, float, str, bytes, list and
dict; everything else that is promised travels in an extension type of the table below. A subclass (a namedtuple, an IntEnum, an
OrderedDict) would come back as its base and is therefore refused, with its place inside the item and the way out. The check looks at
exact types, in C where it can: an item of plain scalars costs little more than its encoding.

Errors: what cannot be encoded is ``NotSerializable``; bytes that do not decode are ``CorruptedData``; whole bytes that
this codec must not or cannot read are ``UnknownFormat``. Nothing else gets out but a MemoryError. A RecursionError
says as much about the caller's stack as about the item, so the work is tried again on a fresh stack before the item is blamed.
"""

from __future__ import annotations

import json
import pickle
import struct
import threading
import zoneinfo
from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from fractions import Fraction
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from pathlib import PosixPath, PurePosixPath, PureWindowsPath, WindowsPath
from typing import Any, Final, Protocol, TypeVar, runtime_checkable
from uuid import UUID, SafeUUID

import msgspec
from msgspec.msgpack import Ext

from overspill.errors import CorruptedData, InvalidOption, NotSerializable, QueueError, UnknownFormat, shown
from overspill.item import (
    KIND_AUTO,
    KIND_CUSTOM,
    KIND_JSON,
    KIND_MSGPACK,
    KIND_NAMES,
    KIND_PICKLE,
    KIND_RAW,
    KIND_STR,
)

__all__ = ["ANY_OBJECT", "DEPTH_MAX", "NAMES", "Codec", "Serializer", "keeps_object", "resolve"]

Buffer = bytes | bytearray | memoryview

DEPTH_MAX: Final = 100  # containers inside one another, under "auto"


@runtime_checkable
class Serializer(Protocol):
    """What a serializer of your own looks like: any object with these two methods.

    ``decode(encode(item))`` must give an equal item, in this process and in the next one. Both may be called from any
    thread. An exception from ``encode`` refuses the item (``NotSerializable``); one from ``decode`` means that the bytes are
    damaged (``CorruptedData``), unless it is a ``QueueError``, which passes as it is.
    """

    def encode(self, item: Any, /) -> bytes:
        """The item as bytes."""

    def decode(self, payload: bytes, /) -> Any:
        """The item again."""


# The extension types of "auto". These numbers are on disk: they never change meaning.

_EXT_TUPLE: Final = 1  # MessagePack array
_EXT_SET: Final = 2  # MessagePack array
_EXT_FROZENSET: Final = 3  # MessagePack array
_EXT_MAP: Final = 4  # MessagePack array of key, value, key, value: a dict whose keys MessagePack lacks
_EXT_INT: Final = 5  # big-endian two's complement, beyond 64 bits
_EXT_COMPLEX: Final = 6  # two f64, big-endian
_EXT_BYTEARRAY: Final = 7  # the bytes
_EXT_DATETIME: Final = 8  # _DATETIME, then the zone
_EXT_DATE: Final = 9  # _DATE
_EXT_TIME: Final = 10  # _TIME, then the zone
_EXT_TIMEDELTA: Final = 11  # _TIMEDELTA
_EXT_UUID: Final = 12  # 16 bytes, and one for is_safe where it is known
_EXT_DECIMAL: Final = 13  # ASCII
_EXT_FRACTION: Final = 14  # MessagePack array of numerator and denominator
_EXT_RANGE: Final = 15  # MessagePack array of start, stop and step
_EXT_ADDRESS: Final = 16  # a byte for the type (_ADDRESS_TYPES), then UTF-8
_EXT_PATH: Final = 17  # a byte for the type (_PATH_TYPES), then UTF-8 with surrogates passed

_DATETIME: Final = struct.Struct(">HBBBBBIB")  # year month day hour minute second microsecond fold
_DATE: Final = struct.Struct(">HBB")  # year month day
_TIME: Final = struct.Struct(">BBBIB")  # hour minute second microsecond fold
_TIMEDELTA: Final = struct.Struct(">iii")  # days seconds microseconds
_COMPLEX: Final = struct.Struct(">dd")

# The zone, behind a datetime or a time: nothing for a naive one, else one of these letters and what it says.
_ZONE_OFFSET: Final = b"O"  # _TIMEDELTA, then the name in UTF-8 (one byte b"=" before it) if it has one
_ZONE_NAMED: Final = b"Z"  # the key of a ZoneInfo

_ADDRESS_TYPES: Final[tuple[type, ...]] = (
    IPv4Address, IPv6Address, IPv4Network, IPv6Network, IPv4Interface, IPv6Interface,
)  # fmt: skip
_PATH_TYPES: Final[tuple[type, ...]] = (PurePosixPath, PureWindowsPath, PosixPath, WindowsPath)

# What MessagePack carries as it is. An int beyond 64 bits makes the encoder raise OverflowError; the item is then lowered
# once more with the narrower set, under which every int is looked at.
_PLAIN: Final = frozenset([type(None), bool, int, float, str, bytes])
_PLAIN_BUT_INT: Final = _PLAIN - {int}

_packed = msgspec.msgpack.Encoder().encode


class _Refused(Exception):
    """Somewhere in the item is something that cannot be lowered; `_fault` finds out where and says it well."""


# Lowering: an item in terms of what MessagePack has. `plain` is the set of types that stay as they are, `room` how many
# more containers may follow inside this one.

_Plain = frozenset[type]


def _lower(value: Any, plain: _Plain, room: int) -> Any:
    kind = type(value)
    if kind in plain:
        return value
    lowering = _LOWERINGS.get(kind)
    if lowering is None:
        raise _Refused
    return lowering(value, plain, room)


def _lower_list(value: list[Any] | tuple[Any, ...] | Iterable[Any], plain: _Plain, room: int) -> Any:
    if room <= 0:
        raise _Refused
    if plain.issuperset(map(type, value)):
        return value
    return [part if type(part) in plain else _lower(part, plain, room - 1) for part in value]


def _lower_dict(value: dict[Any, Any], plain: _Plain, room: int) -> Any:
    if room <= 0:
        raise _Refused
    if not plain.issuperset(map(type, value)):
        # Lowered keys may be unhashable, and unequal ones may look the same ((nan,) twice): a list of pairs it is.
        flat: list[Any] = []
        for key, part in value.items():
            flat.append(_lower(key, plain, room - 1))
            flat.append(_lower(part, plain, room - 1))
        return Ext(_EXT_MAP, _packed(flat))
    if plain.issuperset(map(type, value.values())):
        return value
    return {key: part if type(part) in plain else _lower(part, plain, room - 1) for key, part in value.items()}


def _lower_int(value: int, plain: _Plain, room: int) -> Any:
    if -(2**63) <= value < 2**64:
        return value
    return Ext(_EXT_INT, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))


def _lower_zone(zone: tzinfo | None) -> bytes:
    kind = type(zone)
    if zone is None:
        return b""
    if kind is timezone:
        offset, *name = zone.__getinitargs__()  # type: ignore[attr-defined]
        named = b"=" + name[0].encode() if name else b""
        return _ZONE_OFFSET + _TIMEDELTA.pack(offset.days, offset.seconds, offset.microseconds) + named
    if kind is zoneinfo.ZoneInfo:
        # Refused by zoneinfo itself for a zone read from a file: its key, if any, proves nothing.
        zone.__reduce__()
        return _ZONE_NAMED + str(zone.key).encode()  # type: ignore[attr-defined]
    raise _Refused


def _lower_datetime(value: datetime, plain: _Plain, room: int) -> Ext:
    fields = _DATETIME.pack(
        value.year, value.month, value.day, value.hour, value.minute, value.second, value.microsecond, value.fold
    )
    return Ext(_EXT_DATETIME, fields + _lower_zone(value.tzinfo))


def _lower_time(value: time, plain: _Plain, room: int) -> Ext:
    fields = _TIME.pack(value.hour, value.minute, value.second, value.microsecond, value.fold)
    return Ext(_EXT_TIME, fields + _lower_zone(value.tzinfo))


def _lower_uuid(value: UUID, plain: _Plain, room: int) -> Ext:
    safe = value.is_safe.value
    # As a signed byte: SafeUUID has 0, -1 and, for "unknown", None.
    return Ext(_EXT_UUID, value.bytes if safe is None else value.bytes + bytes([safe & 0xFF]))


def _lower_array(code: int) -> Callable[[Any, _Plain, int], Ext]:
    def lower(value: Any, plain: _Plain, room: int) -> Ext:
        lowered = _lower_list(value, plain, room)
        return Ext(code, _packed(lowered))

    return lower


def _lower_numbered(code: int, types: tuple[type, ...], errors: str) -> Callable[[Any, _Plain, int], Ext]:
    numbers = {kind: bytes([number]) for number, kind in enumerate(types)}

    def lower(value: Any, plain: _Plain, room: int) -> Ext:
        return Ext(code, numbers[type(value)] + str(value).encode("utf-8", errors))

    return lower


_lower_address = _lower_numbered(_EXT_ADDRESS, _ADDRESS_TYPES, "strict")
_lower_path = _lower_numbered(_EXT_PATH, _PATH_TYPES, "surrogatepass")

_LOWERINGS: Final[dict[type, Callable[[Any, _Plain, int], Any]]] = {
    list: _lower_list,
    dict: _lower_dict,
    tuple: _lower_array(_EXT_TUPLE),
    set: _lower_array(_EXT_SET),
    frozenset: _lower_array(_EXT_FROZENSET),
    int: _lower_int,
    complex: lambda value, plain, room: Ext(_EXT_COMPLEX, _COMPLEX.pack(value.real, value.imag)),
    bytearray: lambda value, plain, room: Ext(_EXT_BYTEARRAY, bytes(value)),
    datetime: _lower_datetime,
    date: lambda value, plain, room: Ext(_EXT_DATE, _DATE.pack(value.year, value.month, value.day)),
    time: _lower_time,
    timedelta: lambda value, plain, room: Ext(
        _EXT_TIMEDELTA, _TIMEDELTA.pack(value.days, value.seconds, value.microseconds)
    ),
    UUID: _lower_uuid,
    Decimal: lambda value, plain, room: Ext(_EXT_DECIMAL, str(value).encode("ascii")),
    # Their ints may be beyond 64 bits without the item's being lowered for that: look at each.
    Fraction: lambda value, plain, room: Ext(
        _EXT_FRACTION, _packed([_lower_int(value.numerator, plain, room), _lower_int(value.denominator, plain, room)])
    ),
    range: lambda value, plain, room: Ext(
        _EXT_RANGE, _packed([_lower_int(part, plain, room) for part in (value.start, value.stop, value.step)])
    ),
    **dict.fromkeys(_ADDRESS_TYPES, _lower_address),
    **dict.fromkeys(_PATH_TYPES, _lower_path),
}


# Raising: the way back. Whatever goes wrong in here goes wrong because of the bytes; `_decoded` says so.


def _raise_zone(said: bytes) -> tzinfo | None:
    if not said:
        return None
    letter, rest = said[:1], said[1:]
    if letter == _ZONE_OFFSET:
        days, seconds, microseconds = _TIMEDELTA.unpack_from(rest)
        offset = timedelta(days, seconds, microseconds)
        name = rest[_TIMEDELTA.size :]
        if not name:
            return timezone(offset)
        if name[:1] != b"=":
            raise ValueError("the name of a zone does not begin with '='")
        return timezone(offset, name[1:].decode())
    if letter == _ZONE_NAMED:
        key = rest.decode()
        try:
            return zoneinfo.ZoneInfo(key)
        except zoneinfo.ZoneInfoNotFoundError as error:
            # The bytes are whole; this machine knows fewer zones than the one that wrote them.
            raise UnknownFormat(what="a time zone that this system does not know", found=key,
                                hint="install the package tzdata") from error  # fmt: skip
    raise ValueError(f"no kind of zone has the letter {letter!r}")


def _raise_datetime(said: bytes) -> datetime:
    year, month, day, hour, minute, second, microsecond, fold = _DATETIME.unpack_from(said)
    zone = _raise_zone(said[_DATETIME.size :])
    return datetime(year, month, day, hour, minute, second, microsecond, zone, fold=fold)


def _raise_time(said: bytes) -> time:
    hour, minute, second, microsecond, fold = _TIME.unpack_from(said)
    return time(hour, minute, second, microsecond, _raise_zone(said[_TIME.size :]), fold=fold)


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
    return _ADDRESS_TYPES[said[0]](said[1:].decode())


def _raise_path(said: bytes) -> Any:
    kind = _PATH_TYPES[said[0]]
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


_unpacked = msgspec.msgpack.Decoder(ext_hook=_raise_extension).decode
_unpacked_list = msgspec.msgpack.Decoder(list[Any], ext_hook=_raise_extension).decode

_RAISINGS: Final[dict[int, Callable[[bytes], Any]]] = {
    _EXT_TUPLE: msgspec.msgpack.Decoder(tuple[Any, ...], ext_hook=_raise_extension).decode,
    _EXT_SET: lambda said: set(_unpacked_list(said)),
    _EXT_FROZENSET: lambda said: frozenset(_unpacked_list(said)),
    _EXT_MAP: _raise_map,
    _EXT_INT: lambda said: int.from_bytes(said, "big", signed=True),
    _EXT_COMPLEX: lambda said: complex(*_COMPLEX.unpack(said)),
    _EXT_BYTEARRAY: bytearray,
    _EXT_DATETIME: _raise_datetime,
    _EXT_DATE: lambda said: date(*_DATE.unpack(said)),
    _EXT_TIME: _raise_time,
    _EXT_TIMEDELTA: lambda said: timedelta(*_TIMEDELTA.unpack(said)),
    _EXT_UUID: _raise_uuid,
    _EXT_DECIMAL: lambda said: Decimal(said.decode("ascii")),
    _EXT_FRACTION: _raise_ints(Fraction, 2),
    _EXT_RANGE: _raise_ints(range, 3),
    _EXT_ADDRESS: _raise_address,
    _EXT_PATH: _raise_path,
}


# Saying what is wrong with an item, once it is known that something is.

_WAY_OUT: Final = 'convert it, or choose another serializer: a msgspec type, "pickle", or your own with encode and decode'


def _fault(value: Any, place: str, around: tuple[int, ...]) -> NotSerializable | None:
    """The first part of the item that cannot be encoded, as an error; None if every part can."""
    kind = type(value)
    if kind in _CONTAINERS:
        if id(value) in around:
            return NotSerializable(f"{place} contains itself", place=place, hint="break the circle before queueing it")
        if len(around) >= DEPTH_MAX:
            return NotSerializable(f"the item is nested deeper than {DEPTH_MAX} containers", place="item",
                                   hint="flatten it, or choose another serializer")  # fmt: skip
        inside = (*around, id(value))
        if kind is dict:
            for key, part in list(value.items()):
                fault = _fault(key, f"{place}.key({_short(key)})", inside)
                fault = fault or _fault(part, f"{place}[{_short(key)}]", inside)
                if fault:
                    return fault
        else:
            for number, part in enumerate(list(value)):
                inner = f"{place}[{number}]" if kind in (list, tuple) else f"{place}.element({_short(part)})"
                if fault := _fault(part, inner, inside):
                    return fault
        return None
    if kind is not int and kind in _PLAIN and kind is not str:
        return None
    if kind is str:
        return None if _encodable(value) else NotSerializable(
            f"{place} holds a lone surrogate and is not text that UTF-8 can carry: {shown(value)}", place=place,
            hint='encode it yourself, for example with errors="surrogateescape", and queue the bytes')  # fmt: skip
    if kind in _LOWERINGS:
        try:
            _packed(_lower(value, _PLAIN_BUT_INT, 1))
        except _Refused:
            zone = type(value.tzinfo)
            return NotSerializable(f"{place} has a time zone of type {_type_name(zone)}, which cannot be written down", place=place,
                                   hint="use datetime.timezone or zoneinfo.ZoneInfo, or serializer=\"pickle\"")  # fmt: skip
        except MemoryError:
            raise
        except Exception as error:
            return NotSerializable(f"{place}: {kind.__name__} {shown(value)} cannot be written down: {error}", place=place,
                                   hint=_WAY_OUT)  # fmt: skip
        return None
    said = f"{place} is of type {_type_name(kind)}"
    base = next((base for base in kind.__mro__[1:] if base in _PLAIN or base in _LOWERINGS), None)
    if base is not None:
        said += f", a kind of {base.__name__}, and would come back as a plain {base.__name__}"
    return NotSerializable(said, place=place, hint=_WAY_OUT)


_CONTAINERS: Final = frozenset([list, tuple, dict, set, frozenset])


def _short(key: object) -> str:
    if type(key) is str:
        text = json.dumps(key)
        return text if len(text) <= 60 else text[:50] + '…"'
    text = shown(key)
    return text if len(text) <= 60 else text[:50] + "…"


def _type_name(kind: type) -> str:
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _encodable(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


# The stack.

_T = TypeVar("_T")


def _on_fresh_stack(work: Callable[[Any], _T], argument: Any) -> _T:
    """The same work on a thread of its own, whose stack is empty. Rare: the caller's stack ran out."""
    result: list[_T] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            result.append(work(argument))
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=run, name="overspill-fresh-stack", daemon=True)
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return result[0]


# The codecs.

_unpacked_plain = msgspec.msgpack.Decoder().decode
_json_encoded = msgspec.json.Encoder().encode
_json_decoded = msgspec.json.Decoder().decode


def _text(payload: Buffer) -> str:
    return str(payload, "utf-8")


# The kinds that describe themselves.
_READERS: Final[dict[int, Callable[[Any], Any]]] = {
    KIND_RAW: bytes,
    KIND_STR: _text,
    KIND_AUTO: _unpacked,
    KIND_JSON: _json_decoded,
    KIND_MSGPACK: _unpacked_plain,
}


def _decoded(read: Callable[[Any], Any], payload: Buffer, kind: int) -> Any:
    """What the bytes say; whatever goes wrong is the bytes' fault, or somebody's who has already been named."""
    try:
        return read(payload)
    except (QueueError, MemoryError):
        raise
    except RecursionError:
        # The bytes are blamed only where they had a whole stack to be read on. If there is not even room to start
        # the thread, that is the caller's RecursionError and stays one.
        return _on_fresh_stack(lambda payload: _decoded_with_room(read, payload, kind), payload)
    except Exception as error:
        raise _damage(kind, error) from error


def _decoded_with_room(read: Callable[[Any], Any], payload: Buffer, kind: int) -> Any:
    try:
        return read(payload)
    except (QueueError, MemoryError):
        raise
    except Exception as error:
        raise _damage(kind, error) from error


def _damage(kind: int, error: Exception) -> CorruptedData:
    name = KIND_NAMES.get(kind, str(kind))
    return CorruptedData(what=f"the payload is no {name} item: {type(error).__name__}: {error}")


class Codec:
    """How one queue writes its items and reads them back. What ``resolve`` returns is one of its subclasses."""

    name: str  # the option's value, in words
    kind: int  # the kind it writes; "auto" writes RAW and STR, too
    keeps: frozenset[type] = frozenset()  # see keeps_object

    def encode(self, item: Any) -> tuple[int, bytes]:
        """The kind and the payload, or ``NotSerializable``."""
        raise NotImplementedError

    def decode(self, kind: int, payload: Buffer) -> Any:
        """The item again; ``CorruptedData`` or ``UnknownFormat`` if it cannot be had."""
        read = self.readers.get(kind)
        if read is None:
            raise self._unreadable(kind)
        return _decoded(read, payload, kind)

    def reads(self, kind: int) -> bool:
        """Whether this codec reads payloads of this kind at all."""
        return kind in self.readers

    def keeps_object(self, item: Any) -> bool:
        """Whether the very object may wait in memory in place of its encoding.

        True only for an immutable object of an exact type that decodes to an equal one of the same type; True also
        promises that ``encode`` will accept it, so that encoding may be put off until it spills.
        """
        return type(item) in self.keeps and _surely_encodable(item)

    @property
    def readers(self) -> Mapping[int, Callable[[Any], Any]]:
        """What it reads: kind to function."""
        return _READERS

    def _unreadable(self, kind: int) -> UnknownFormat:
        name = KIND_NAMES.get(kind)
        if name is None:
            return UnknownFormat(what="a kind of payload that this version does not know", found=kind,
                                 hint="a newer version wrote it; read it with that one")  # fmt: skip
        hints = {
            KIND_PICKLE: 'open the queue with serializer="pickle" if you trust whoever wrote this folder: '
            "reading a pickle can run any code",
            KIND_CUSTOM: "open the queue with the serializer that wrote it",
        }
        return UnknownFormat(what=f"a payload of kind {name!r} in a queue whose serializer is {self.name}",
                             hint=hints.get(kind, "open the queue with the serializer that wrote it"))  # fmt: skip

    def __repr__(self) -> str:
        return f"<codec {self.name}>"


_SCALARS_KEPT: Final = frozenset(
    [type(None), bool, int, float, complex, str, bytes, datetime, date, time, timedelta, UUID, Decimal]
)


def _surely_encodable(item: Any) -> bool:
    kind = type(item)
    if kind is str:
        return _encodable(item)
    if kind is datetime or kind is time:
        # timezone is immutable and always encodable; of the others only encode() itself can tell.
        return item.tzinfo is None or type(item.tzinfo) is timezone
    return True


class _Auto(Codec):
    name, kind, keeps = "'auto'", KIND_AUTO, _SCALARS_KEPT

    def encode(self, item: Any) -> tuple[int, bytes]:
        kind = type(item)
        if kind is bytes:
            return KIND_RAW, item
        try:
            if kind is str:
                return KIND_STR, item.encode()
            return KIND_AUTO, _packed(item if kind in _PLAIN else _lower(item, _PLAIN, DEPTH_MAX))
        except (QueueError, MemoryError):
            raise
        except RecursionError:
            return _on_fresh_stack(self._encode_with_care, item)
        except Exception:
            try:
                return self._encode_with_care(item)
            except RecursionError:
                return _on_fresh_stack(self._encode_with_care, item)

    def _encode_with_care(self, item: Any) -> tuple[int, bytes]:
        """Once more, with every int looked at; if it still fails, find out why."""
        try:
            return KIND_AUTO, _packed(_lower(item, _PLAIN_BUT_INT, DEPTH_MAX))
        except (QueueError, MemoryError, RecursionError):
            raise
        except Exception as error:
            fault = _fault(item, "item", ())
            if fault is None:
                # Every part is fine by itself: too large for MessagePack, or changed by another thread meanwhile.
                fault = NotSerializable(f"the item cannot be encoded: {error or type(error).__name__}", hint=_WAY_OUT)
            raise fault from None


class _Raw(Codec):
    name, kind, keeps = "'raw'", KIND_RAW, frozenset([bytes])

    def encode(self, item: Any) -> tuple[int, bytes]:
        if type(item) is bytes:
            return KIND_RAW, item
        if isinstance(item, (bytes, bytearray, memoryview)):
            return KIND_RAW, bytes(item)
        raise NotSerializable(f'serializer="raw" takes bytes, bytearray and memoryview, not {_type_name(type(item))}',
                              place="item", hint='encode it first, or use serializer="auto"')  # fmt: skip


class _Str(Codec):
    name, kind, keeps = "'str'", KIND_STR, frozenset([str])

    def encode(self, item: Any) -> tuple[int, bytes]:
        if not isinstance(item, str):
            raise NotSerializable(f'serializer="str" takes str, not {_type_name(type(item))}',
                                  place="item", hint='convert it first, or use serializer="auto"')  # fmt: skip
        try:
            return KIND_STR, str.encode(item, "utf-8")
        except UnicodeEncodeError:
            raise _fault(str.__str__(item), "item", ()) or NotSerializable() from None


class _Msgspec(Codec):
    """JSON or MessagePack as msgspec understands them: a tuple comes back as a list, a datetime as text, and so on."""

    def __init__(self, name: str, kind: int, encode: Callable[[Any], bytes], keeps: frozenset[type]) -> None:
        self.name, self.kind, self.keeps, self._encode = repr(name), kind, keeps, encode

    def encode(self, item: Any) -> tuple[int, bytes]:
        return self.kind, _encoded_by_msgspec(self._encode, item, self.name)

    def keeps_object(self, item: Any) -> bool:
        # What MessagePack cannot hold in 64 bits would fail when it spills.
        return super().keeps_object(item) and (type(item) is not int or -(2**63) <= item < 2**64)


def _encoded_by_msgspec(encode: Callable[[Any], bytes], item: Any, name: str) -> bytes:
    try:
        try:
            return encode(item)
        except RecursionError:
            return _on_fresh_stack(encode, item)
    except MemoryError:
        raise
    except RecursionError:
        raise NotSerializable(f"serializer {name} cannot encode an item that contains itself or is nested so deeply",
                              place="item", hint="break the circle, or flatten it") from None  # fmt: skip
    except Exception as error:
        raise NotSerializable(f"serializer {name} cannot encode this {_type_name(type(item))}: {error}",
                              place="item", hint=_WAY_OUT) from error  # fmt: skip


class _Typed(Codec):
    """MessagePack under a type that msgspec knows: a Struct, a dataclass, a TypedDict, ``list[int]``, a union of them.

    Type hints are not checked when an object is made, only when it is read. So every item is read back once before it is
    taken: what this queue could not give back, it does not accept.
    """

    kind = KIND_MSGPACK

    def __init__(self, type_: Any) -> None:
        self.name = getattr(type_, "__qualname__", None) or repr(type_)
        self._pack = msgspec.msgpack.Encoder().encode
        self._readers: dict[int, Callable[[Any], Any]] = {
            KIND_MSGPACK: self._of_type(msgspec.msgpack.Decoder(type_).decode),
            KIND_JSON: self._of_type(msgspec.json.Decoder(type_).decode),
        }
        self._unpack = msgspec.msgpack.Decoder(type_).decode

    @property
    def readers(self) -> Mapping[int, Callable[[Any], Any]]:
        # Nothing else: a consumer that counts on the type must not be handed a dict from before the change.
        return self._readers

    def _of_type(self, decode: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def read(payload: Buffer) -> Any:
            try:
                return decode(payload)
            except msgspec.ValidationError as error:
                # Whole, and readable as another type: an older shape of the class, most often.
                raise UnknownFormat(what=f"an item that is no {self.name}: {error}",
                                    hint="open the queue with the type that wrote it, or give new fields defaults") from error  # fmt: skip

        return read

    def encode(self, item: Any) -> tuple[int, bytes]:
        payload = _encoded_by_msgspec(self._pack, item, self.name)
        try:
            try:
                back = self._unpack(payload)
            except RecursionError:
                back = _on_fresh_stack(self._unpack, payload)
        except MemoryError:
            raise
        except Exception as error:
            raise NotSerializable(f"this {_type_name(type(item))} could not be read back as {self.name}: {error}",
                                  place="item", hint=f"make it a valid {self.name}, or choose another serializer") from error  # fmt: skip
        if type(back) is not type(item):
            raise NotSerializable(
                f"this {_type_name(type(item))} would come back as {_type_name(type(back))} under serializer={self.name}",
                place="item", hint=_WAY_OUT)  # fmt: skip
        return KIND_MSGPACK, payload


class _Pickle(Codec):
    name, kind, keeps = "'pickle'", KIND_PICKLE, _SCALARS_KEPT

    @property
    def readers(self) -> Mapping[int, Callable[[Any], Any]]:
        return _READERS_WITH_PICKLE

    def encode(self, item: Any) -> tuple[int, bytes]:
        try:
            return KIND_PICKLE, pickle.dumps(item, protocol=5)
        except MemoryError:
            raise
        except Exception as error:
            raise NotSerializable(f"this {_type_name(type(item))} cannot be pickled: {error}", place="item",
                                  hint="pickle needs classes that can be imported by name, and no open files or locks"
                                  ) from error  # fmt: skip


def _unpickled(payload: Buffer) -> Any:
    try:
        return pickle.loads(payload)
    except (ImportError, AttributeError) as error:
        raise UnknownFormat(what=f"a pickle of something that cannot be imported: {error}",
                            hint="the class has moved or lost its name; bring it back under the old one") from error  # fmt: skip


_READERS_WITH_PICKLE: Final = {**_READERS, KIND_PICKLE: _unpickled}


class _Custom(Codec):
    kind = KIND_CUSTOM

    def __init__(self, serializer: Serializer) -> None:
        self.name = _type_name(type(serializer))
        self._serializer = serializer
        self._readers = {**_READERS, KIND_CUSTOM: lambda payload: serializer.decode(bytes(payload))}

    @property
    def readers(self) -> Mapping[int, Callable[[Any], Any]]:
        return self._readers

    def encode(self, item: Any) -> tuple[int, bytes]:
        try:
            payload: Any = self._serializer.encode(item)
        except (QueueError, MemoryError):
            raise
        except Exception as error:
            raise NotSerializable(f"{self.name}.encode refused this {_type_name(type(item))}: {type(error).__name__}: {error}",
                                  place="item") from error  # fmt: skip
        if type(payload) is bytes:
            return KIND_CUSTOM, payload
        if isinstance(payload, (bytes, bytearray, memoryview)):
            return KIND_CUSTOM, bytes(payload)
        raise NotSerializable(f"{self.name}.encode returned {_type_name(type(payload))}, not bytes", place="item",
                              hint="make encode return bytes")  # fmt: skip


class _AnyObject(Codec):
    """Nothing is written down: the very object waits in memory, whatever it is, and comes out as itself. Only for a queue without a disk; no bytes are counted."""

    name, kind = "any object", KIND_RAW

    def encode(self, item: Any) -> tuple[int, bytes]:
        return KIND_RAW, b""

    def keeps_object(self, item: Any) -> bool:
        return True


ANY_OBJECT: Final = _AnyObject()
_AUTO: Final = _Auto()
_JSON_KEPT: Final = frozenset([type(None), bool, int, str])  # no float: it may be NaN, which JSON writes as null
_NAMED: Final[dict[str, Codec]] = {
    "auto": _AUTO,
    "raw": _Raw(),
    "str": _Str(),
    "json": _Msgspec("json", KIND_JSON, _json_encoded, _JSON_KEPT),
    "msgpack": _Msgspec("msgpack", KIND_MSGPACK, _packed, frozenset([type(None), bool, int, float, str, bytes])),
    "pickle": _Pickle(),
}
NAMES: Final = tuple(_NAMED)


def keeps_object(item: Any) -> bool:
    """``Codec.keeps_object`` of ``"auto"``."""
    return _AUTO.keeps_object(item)


def resolve(serializer: Any) -> Codec:
    """The codec for the option's value: a name, an object with ``encode`` and ``decode``, or a type for msgspec."""
    allowed = f"one of {', '.join(map(repr, NAMES))}, a type that msgspec knows, or an object with encode and decode"
    if isinstance(serializer, str):
        codec = _NAMED.get(serializer)
        if codec is None:
            raise InvalidOption("serializer", serializer, allowed)
        return codec
    if serializer is None:
        raise InvalidOption("serializer", None, allowed)
    if isinstance(serializer, Codec):
        return serializer
    if not isinstance(serializer, type) and _has_both_methods(serializer):
        return _Custom(serializer)
    try:
        known = not isinstance(msgspec.inspect.type_info(serializer), msgspec.inspect.CustomType)
        codec = _Typed(serializer) if known else None
    except Exception as error:  # msgspec says no in several ways, and resolving annotations may run into anything
        raise InvalidOption("serializer", serializer, allowed, hint=str(error)) from error
    if codec is None:
        hint = f"pass an object: {serializer.__name__}()" if _has_both_methods(serializer) else None
        raise InvalidOption("serializer", serializer, allowed, hint=hint)
    return codec


def _has_both_methods(thing: Any) -> bool:
    return callable(getattr(thing, "encode", None)) and callable(getattr(thing, "decode", None))
