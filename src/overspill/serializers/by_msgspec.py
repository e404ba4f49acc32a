"""What msgspec encodes: JSON and MessagePack by name, and items of a type."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from ..errors import NotSerializable, UnknownFormat
from ..item import KIND_JSON, KIND_MSGPACK
from .codec import Buffer, Codec
from .faults import WAY_OUT, type_name
from .fresh_stack import on_fresh_stack


class ByName(Codec):
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
            return on_fresh_stack(encode, item)
    except MemoryError:
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
