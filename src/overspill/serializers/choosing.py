"""From the value of the option `serializer` to the codec."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from ..errors import InvalidOption
from .automatic import Auto
from .bare import Raw, Str
from .by_msgspec import Json, MessagePack, Typed
from .codec import Codec
from .own import Custom, Pickle

_NAMED: Final[dict[str, Codec]] = {
    "auto": Auto(),
    "raw": Raw(),
    "str": Str(),
    "json": Json(),
    "msgpack": MessagePack(),
    "pickle": Pickle(),
}
NAMES: Final = tuple(_NAMED)


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
        return Custom(serializer)
    try:
        known = not isinstance(msgspec.inspect.type_info(serializer), msgspec.inspect.CustomType)
        codec = Typed(serializer) if known else None
    except Exception as error:  # msgspec says no in several ways, and resolving annotations may run into anything
        raise InvalidOption("serializer", serializer, allowed, hint=str(error)) from error
    if codec is None:
        hint = f"pass an object: {serializer.__name__}()" if _has_both_methods(serializer) else None
        raise InvalidOption("serializer", serializer, allowed, hint=hint)
    return codec


def _has_both_methods(thing: Any) -> bool:
    return callable(getattr(thing, "encode", None)) and callable(getattr(thing, "decode", None))
