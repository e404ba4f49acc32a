"""What a codec is, and how payloads that describe themselves are read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, time, timezone
from typing import Any, Final

import msgspec

from ..errors import CorruptedData, QueueError, UnknownFormat
from ..item import KIND_AUTO, KIND_CUSTOM, KIND_JSON, KIND_MSGPACK, KIND_NAMES, KIND_PICKLE, KIND_RAW, KIND_STR
from .faults import encodable
from .fresh_stack import on_fresh_stack
from .raising import unpacked

Buffer = bytes | bytearray | memoryview

unpacked_msgpack = msgspec.msgpack.Decoder().decode
json_encoded = msgspec.json.Encoder().encode
json_decoded = msgspec.json.Decoder().decode


def _text(payload: Buffer) -> str:
    return str(payload, "utf-8")


# The kinds that describe themselves.
READERS: Final[dict[int, Callable[[Any], Any]]] = {
    KIND_RAW: bytes,
    KIND_STR: _text,
    KIND_AUTO: unpacked,
    KIND_JSON: json_decoded,
    KIND_MSGPACK: unpacked_msgpack,
}


def decoded(read: Callable[[Any], Any], payload: Buffer, kind: int) -> Any:
    """What the bytes say; whatever goes wrong is the bytes' fault, or somebody's who has already been named."""
    try:
        return read(payload)
    except (QueueError, MemoryError):
        raise
    except RecursionError:
        # The bytes are blamed only where they had a whole stack to be read on. If there is not even room to start
        # the thread, that is the caller's RecursionError and stays one.
        return on_fresh_stack(lambda payload: _decoded_with_room(read, payload, kind), payload)
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
        return decoded(read, payload, kind)

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
        return READERS

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


def _surely_encodable(item: Any) -> bool:
    kind = type(item)
    if kind is str:
        return encodable(item)
    if kind is datetime or kind is time:
        # timezone is immutable and always encodable; of the others only encode() itself can tell.
        return item.tzinfo is None or type(item.tzinfo) is timezone
    return True
