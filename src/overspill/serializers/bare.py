"""Codecs that change nothing: bytes as they are, text in UTF-8, and objects that never leave memory."""

from __future__ import annotations

from typing import Any, Final

from ..errors import NotSerializable
from ..item import KIND_RAW, KIND_STR
from .codec import Codec
from .faults import fault_in, type_name


class Raw(Codec):
    name, kind, keeps = "'raw'", KIND_RAW, frozenset([bytes])

    def encode(self, item: Any) -> tuple[int, bytes]:
        if type(item) is bytes:
            return KIND_RAW, item
        if isinstance(item, (bytes, bytearray, memoryview)):
            return KIND_RAW, bytes(item)
        raise NotSerializable(f'serializer="raw" takes bytes, bytearray and memoryview, not {type_name(type(item))}',
                              place="item", hint='encode it first, or use serializer="auto"')  # fmt: skip


class Str(Codec):
    name, kind, keeps = "'str'", KIND_STR, frozenset([str])

    def encode(self, item: Any) -> tuple[int, bytes]:
        if not isinstance(item, str):
            raise NotSerializable(f'serializer="str" takes str, not {type_name(type(item))}',
                                  place="item", hint='convert it first, or use serializer="auto"')  # fmt: skip
        try:
            return KIND_STR, str.encode(item, "utf-8")
        except UnicodeEncodeError:
            raise fault_in(str.__str__(item), "item", ()) or NotSerializable() from None


class AnyObject(Codec):
    """Nothing is written down: the very object waits in memory, whatever it is, and comes out as itself. Only for a queue without a disk; no bytes are counted."""

    name, kind = "any object", KIND_RAW

    def encode(self, item: Any) -> tuple[int, bytes]:
        return KIND_RAW, b""

    def keeps_object(self, item: Any) -> bool:
        return True


ANY_OBJECT: Final = AnyObject()
