"""What msgspec encodes: JSON and MessagePack by name, and items of a type."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import isfinite
from typing import Any

import msgspec
from msgspec.msgpack import Ext

from ..errors import NotSerializable, UnknownFormat
from ..item import KIND_JSON, KIND_MSGPACK
from .codec import Buffer, Codec, json_encoded
from .faults import WAY_OUT, short, type_name
from .fresh_stack import on_fresh_stack
from .lowering import LOWERINGS, PLAIN, packed


class ByName(Codec):
    """JSON or MessagePack, for whoever else reads the items: what the format has, and what therefore comes back as it was.

    msgspec writes more than that, in a form that does not say what it was: bytes as base64 text, a tuple as a list, a NaN as null. Here that is refused. An item is encoded first, so that
    the check meets no circle.
    """

    scalars: frozenset[type]
    """Types that come back as they are, whatever the value."""
    keys: frozenset[type]
    """Those that the keys of a dict may have."""
    _write: Callable[[Any], bytes]

    def encode(self, item: Any) -> tuple[int, bytes]:
        return self.kind, _encoded_by_msgspec(self._encode_if_same, item, self.name)

    def _encode_if_same(self, item: Any) -> bytes:
        payload = self._write(item)
        if not self._comes_back(item):
            raise _strange_part(self, item, "item") or NotSerializable()
        return payload

    def _comes_back(self, value: Any) -> bool:
        kind = type(value)
        if kind in self.scalars:
            return True
        if kind is dict:
            if not self.keys.issuperset(map(type, value)):
                return False
            parts = value.values()
        elif kind is list:
            parts = value
        else:
            return self._comes_back_by_value(value)
        return self.scalars.issuperset(map(type, parts)) or all(map(self._comes_back, parts))

    def _comes_back_by_value(self, value: Any) -> bool:
        return False

    def keeps_object(self, item: Any) -> bool:
        # A larger int would fail when it spills: MessagePack has 64 bits, and Python makes no text of thousands of digits.
        return super().keeps_object(item) and (type(item) is not int or -(2**63) <= item < 2**64)


class Json(ByName):
    name, kind, keeps = "'json'", KIND_JSON, frozenset([type(None), bool, int, str])
    scalars, keys = keeps, frozenset([str])
    _write = staticmethod(json_encoded)

    def _comes_back_by_value(self, value: Any) -> bool:
        return type(value) is float and isfinite(value)


class MessagePack(ByName):
    name, kind, keeps = "'msgpack'", KIND_MSGPACK, PLAIN
    scalars, keys = PLAIN | {Ext}, PLAIN
    _write = staticmethod(packed)


def _strange_part(codec: ByName, value: Any, place: str) -> NotSerializable | None:
    """The first part of the item that would come back as something else, as an error."""
    if codec._comes_back(value):
        return None
    if type(value) is dict:
        for key, part in list(value.items()):
            if type(key) not in codec.keys:
                said = f"has the key {short(key)} of type {type_name(type(key))}"
                return _not_as_it_is(codec, key, place, said)
            if fault := _strange_part(codec, part, f"{place}[{short(key)}]"):
                return fault
    elif type(value) is list:
        for number, part in enumerate(list(value)):
            if fault := _strange_part(codec, part, f"{place}[{number}]"):
                return fault
    return _not_as_it_is(codec, value, place, f"is the float {value}" if type(value) is float else f"is of type {type_name(type(value))}")


def _not_as_it_is(codec: ByName, value: Any, place: str, said: str) -> NotSerializable:
    if codec.kind == KIND_JSON and type(value) is bytes:
        hint = 'use serializer="auto" or "msgpack", or make it text: base64.b64encode(data).decode()'
    elif type(value) in PLAIN or type(value) in LOWERINGS:
        hint = f'use serializer="auto", or convert it to what {codec.name[1:-1]} has'
    else:
        hint = WAY_OUT
    return NotSerializable(f"{place} {said}, which serializer={codec.name} could not give back as it is", place=place, hint=hint)


def _encoded_by_msgspec(encode: Callable[[Any], bytes], item: Any, name: str) -> bytes:
    try:
        try:
            return encode(item)
        except RecursionError:
            return on_fresh_stack(encode, item)
    except (NotSerializable, MemoryError):
        raise
    except RecursionError:
        raise NotSerializable(f"serializer {name} cannot encode an item that contains itself or is nested so deeply",
                              place="item", hint="break the circle, or flatten it") from None  # fmt: skip
    except Exception as error:
        raise NotSerializable(f"serializer {name} cannot encode this {type_name(type(item))}: {error}",
                              place="item", hint=WAY_OUT) from error  # fmt: skip


class Typed(Codec):
    """MessagePack under a type that msgspec knows: a Struct, a dataclass, a TypedDict, ``list[int]``, a union of them.

    Type hints are not checked when an object is made, only when it is read. So every item is read back once before it is
    taken: what this queue could not give back, it does not accept.
    """

    kind = KIND_MSGPACK

    def __init__(self, type_: Any) -> None:
        self.name = getattr(type_, "__qualname__", None) or repr(type_)
        self._pack = msgspec.msgpack.Encoder().encode
        self._unpack = msgspec.msgpack.Decoder(type_).decode
        self._readers: dict[int, Callable[[Any], Any]] = {
            KIND_MSGPACK: self._of_type(self._unpack),
            KIND_JSON: self._of_type(msgspec.json.Decoder(type_).decode),
        }

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
                back = on_fresh_stack(self._unpack, payload)
        except MemoryError:
            raise
        except Exception as error:
            raise NotSerializable(f"this {type_name(type(item))} could not be read back as {self.name}: {error}",
                                  place="item", hint=f"make it a valid {self.name}, or choose another serializer") from error  # fmt: skip
        if type(back) is not type(item):
            raise NotSerializable(
                f"this {type_name(type(item))} would come back as {type_name(type(back))} under serializer={self.name}",
                place="item", hint=WAY_OUT)  # fmt: skip
        return KIND_MSGPACK, payload
