"""Payloads that only one codec reads: pickle, because reading it runs code, and a serializer of the user's own, because only it knows what its bytes mean."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol, runtime_checkable

from ..errors import NotSerializable, QueueError, UnknownFormat
from ..item import KIND_CUSTOM, KIND_PICKLE
from .automatic import SCALARS_KEPT
from .codec import Buffer, Codec, READERS
from .faults import type_name


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


class Pickle(Codec):
    name, kind, keeps = "'pickle'", KIND_PICKLE, SCALARS_KEPT

    @property
    def readers(self) -> Mapping[int, Callable[[Any], Any]]:
        return _READERS_WITH_PICKLE

    def encode(self, item: Any) -> tuple[int, bytes]:
        try:
            return KIND_PICKLE, pickle.dumps(item, protocol=5)
        except MemoryError:
            raise
        except Exception as error:
            raise NotSerializable(f"this {type_name(type(item))} cannot be pickled: {error}", place="item",
                                  hint="pickle needs classes that can be imported by name, and no open files or locks"
                                  ) from error  # fmt: skip


def _unpickled(payload: Buffer) -> Any:
    try:
        return pickle.loads(payload)
    except (ImportError, AttributeError) as error:
        raise UnknownFormat(what=f"a pickle of something that cannot be imported: {error}",
                            hint="the class has moved or lost its name; bring it back under the old one") from error  # fmt: skip


_READERS_WITH_PICKLE: Final = {**READERS, KIND_PICKLE: _unpickled}


class Custom(Codec):
    kind = KIND_CUSTOM

    def __init__(self, serializer: Serializer) -> None:
        self.name = type_name(type(serializer))
        self._serializer = serializer
        self._readers = {**READERS, KIND_CUSTOM: lambda payload: serializer.decode(bytes(payload))}

    @property
    def readers(self) -> Mapping[int, Callable[[Any], Any]]:
        return self._readers

    def encode(self, item: Any) -> tuple[int, bytes]:
        try:
            payload: Any = self._serializer.encode(item)
        except (QueueError, MemoryError):
            raise
        except Exception as error:
            raise NotSerializable(f"{self.name}.encode refused this {type_name(type(item))}: {type(error).__name__}: {error}",
                                  place="item") from error  # fmt: skip
        if type(payload) is bytes:
            return KIND_CUSTOM, payload
        if isinstance(payload, (bytes, bytearray, memoryview)):
            return KIND_CUSTOM, bytes(payload)
        raise NotSerializable(f"{self.name}.encode returned {type_name(type(payload))}, not bytes", place="item",
                              hint="make encode return bytes")  # fmt: skip
