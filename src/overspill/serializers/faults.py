"""Saying what is wrong with an item, once it is known that something is: which part of it, where, and the way out."""

from __future__ import annotations

import json
from typing import Any, Final

from ..errors import NotSerializable, shown
from .lowering import DEPTH_MAX, LOWERINGS, PLAIN, PLAIN_BUT_INT, Refused, lower, packed

WAY_OUT: Final = 'convert it, or choose another serializer: a msgspec type, "pickle", or your own with encode and decode'


def fault_in(value: Any, place: str, around: tuple[int, ...]) -> NotSerializable | None:
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
                fault = fault_in(key, f"{place}.key({short(key)})", inside)
                fault = fault or fault_in(part, f"{place}[{short(key)}]", inside)
                if fault:
                    return fault
        else:
            for number, part in enumerate(list(value)):
                inner = f"{place}[{number}]" if kind in (list, tuple) else f"{place}.element({short(part)})"
                if fault := fault_in(part, inner, inside):
                    return fault
        return None
    if kind is not int and kind in PLAIN and kind is not str:
        return None
    if kind is str:
        return None if encodable(value) else NotSerializable(
            f"{place} holds a lone surrogate and is not text that UTF-8 can carry: {shown(value)}", place=place,
            hint='encode it yourself, for example with errors="surrogateescape", and queue the bytes')  # fmt: skip
    if kind in LOWERINGS:
        try:
            packed(lower(value, PLAIN_BUT_INT, 1))
        except Refused:
            zone = type(value.tzinfo)
            return NotSerializable(f"{place} has a time zone of type {type_name(zone)}, which cannot be written down", place=place,
                                   hint="use datetime.timezone or zoneinfo.ZoneInfo, or serializer=\"pickle\"")  # fmt: skip
        except MemoryError:
            raise
        except Exception as error:
            return NotSerializable(f"{place}: {kind.__name__} {shown(value)} cannot be written down: {error}", place=place,
                                   hint=WAY_OUT)  # fmt: skip
        return None
    said = f"{place} is of type {type_name(kind)}"
    base = next((base for base in kind.__mro__[1:] if base in PLAIN or base in LOWERINGS), None)
    if base is not None:
        said += f", a kind of {base.__name__}, and would come back as a plain {base.__name__}"
    return NotSerializable(said, place=place, hint=WAY_OUT)


_CONTAINERS: Final = frozenset([list, tuple, dict, set, frozenset])


def short(key: object) -> str:
    if type(key) is str:
        text = json.dumps(key)
        return text if len(text) <= 60 else text[:50] + '…"'
    text = shown(key)
    return text if len(text) <= 60 else text[:50] + "…"


def type_name(kind: type) -> str:
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def encodable(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
