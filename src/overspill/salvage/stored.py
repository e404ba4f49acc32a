"""Items as they are stored: a payload and what it is, for whoever moves items without asking what they mean.

A queue opened with `serializer=AS_STORED` takes and gives `bytes` and `str` as themselves and everything else as `Stored`, pickles and custom kinds included, and runs no code of
theirs. What goes through it comes out in the kind and with the bytes that it went in with.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from ..errors import CorruptedData, NotSerializable, UnknownFormat
from ..item import KIND_AUTO, KIND_JSON, KIND_MSGPACK, KIND_NAMES, KIND_RAW, KIND_STR
from ..serializers import Codec, resolve

__all__ = ["AS_STORED", "Item", "Stored", "kind_and_payload", "value_of"]


class Stored(NamedTuple):
    """A payload, decompressed, and its kind (docs/format.md, table 3)."""

    kind: int
    payload: bytes


Item = bytes | str | Stored


class _AsStored(Codec):
    name, kind = "as stored", KIND_RAW

    def encode(self, item: Any) -> tuple[int, bytes]:
        if type(item) not in (bytes, str, Stored):
            raise NotSerializable(f"{type(item).__name__} is neither bytes, str nor Stored", hint="this queue was opened as stored")
        if type(item) is Stored and item.kind not in KIND_NAMES:
            raise UnknownFormat(what="a kind of payload that this version does not know", found=item.kind)
        return kind_and_payload(item)

    def decode(self, kind: int, payload: bytes | bytearray | memoryview) -> Any:
        return _auto.decode(kind, payload) if kind in (KIND_RAW, KIND_STR) else Stored(kind, bytes(payload))

    def reads(self, kind: int) -> bool:
        return True

    def keeps_object(self, item: Any) -> bool:
        return type(item) is bytes


_auto: Final = resolve("auto")
AS_STORED: Final[Codec] = _AsStored()
_READABLE: Final = frozenset([KIND_RAW, KIND_STR, KIND_AUTO, KIND_JSON, KIND_MSGPACK])


def kind_and_payload(item: Item) -> tuple[int, bytes]:
    """How an item is stored."""
    return (item.kind, item.payload) if isinstance(item, Stored) else _auto.encode(item)


def value_of(item: Item) -> Any:
    """The item itself. Raises `UnknownFormat` for a pickle or a custom serializer's bytes, `CorruptedData` for what does not decode."""
    if not isinstance(item, Stored):
        return item
    if item.kind not in _READABLE:
        raise UnknownFormat(what=f"a payload of kind {KIND_NAMES.get(item.kind, str(item.kind))!r}, which only its own program can read", hint="take it raw")
    try:
        return _auto.decode(item.kind, item.payload)
    except RecursionError as error:
        raise CorruptedData(what="nested too deep") from error
