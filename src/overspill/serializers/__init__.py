"""An item as bytes and back: what comes out is what went in, or it is refused at the door.

``resolve`` turns the option ``serializer`` into a ``Codec``. A codec writes one kind of payload (format page, table 3; ``"auto"``
writes three) and reads every kind that describes itself, so a folder outlives a change of the option: items
come out in the form they were written in. Two kinds are read only by the codec that writes them: pickle, because reading it
runs code, and a custom serializer's bytes, because only it knows what they mean.

Errors: what cannot be encoded is ``NotSerializable``, with its place inside the item and the way out; bytes that do not decode are ``CorruptedData``; whole bytes that
this codec must not or cannot read are ``UnknownFormat``. Nothing else gets out but a MemoryError.

| module | what is in it |
|---|---|
| `choosing` | from the option's value to the codec |
| `codec` | what a codec is, and how payloads are read |
| `automatic` | `"auto"`; `lowering`, `extensions` and `raising` are its way to MessagePack and back |
| `bare` | `"raw"`, `"str"`, and any object in memory |
| `by_msgspec` | `"json"`, `"msgpack"`, a type |
| `own` | `"pickle"`, and a serializer of the user's own |
| `faults` | which part of an item is at fault, and what to do about it |
| `fresh_stack` | once more, where there is room |
"""
from __future__ import annotations

from .bare import ANY_OBJECT
from .choosing import NAMES, resolve
from .codec import Codec
from .lowering import DEPTH_MAX
from .own import Serializer

__all__ = ["ANY_OBJECT", "DEPTH_MAX", "NAMES", "Codec", "Serializer", "resolve"]
