"""Every option of a queue: its name, its default, what it may be, and what it may not be together with others.

An ``Options`` is made once, when a queue is built, and is frozen. Whatever is wrong with it is said then, as
``InvalidOption`` with the option's name, the value and what is allowed; behind this door the values are plain:
sizes are ints in bytes, times are float seconds or None, names are safe as file names.

* ``Options.build(**given)`` is what a constructor calls.
* ``from_words(key, value)`` reads a value as ``config.py`` finds it in a file, where an enum is its name (``"power"``), a
  size may be ``"512MiB"``, a time ``"5m"``, and nothing is ``"none"`` (TOML has no null).

Two options give way when the caller did not choose them: ``max_item_size`` shrinks with a small ``max_disk_size`` (or, in
memory only, with ``memory_limit``), and ``durability`` is ``MEMORY`` where there is no disk. Chosen by name, a value
that cannot hold is an error: nothing that was asked for is quietly changed.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum, IntEnum
from typing import Any, Final, TypeVar

from overspill.codecs import CODEC_NUMBERS
from overspill.errors import InvalidOption
from overspill.serializers import ANY_OBJECT, resolve

__all__ = [
    "DISK_SIZE_MIN",
    "GiB",
    "ITEMS_MAX",
    "ITEM_SIZE_CEILING",
    "KiB",
    "MiB",
    "Durability",
    "Options",
    "OverflowStrategy",
    "RateLimit",
    "WhenFull",
    "check_thresholds",
    "disk_size_for",
    "folder_path",
    "from_words",
    "parse_duration",
    "parse_size",
    "seconds",
    "validate_name",
]

KiB: Final = 1024
MiB: Final = 1024 * KiB
GiB: Final = 1024 * MiB

DISK_SIZE_MIN: Final = 256 * KiB  # two small segments and the room to compact one of them
ITEM_SIZE_CEILING: Final = 2 * GiB  # a record holds its length in 32 bits, and compressors stop here
ITEMS_MAX: Final = 2**40
_COUNT_MAX: Final = ITEMS_MAX
_BYTES_MAX: Final = 2**60


class Durability(IntEnum):
    """What an acknowledged operation survives; a greater one promises all that a lesser one does."""

    MEMORY = 0  # a clean close(); what has spilled also survives a kill
    PROCESS = 1  # kill -9 at any instant; a power cut loses at most sync_interval
    POWER = 2  # a power cut


class OverflowStrategy(Enum):
    """Which items leave memory first when it fills up."""

    OLDEST = "oldest"
    LARGEST = "largest"
    BY_PRIORITY = "by_priority"


class WhenFull(Enum):
    """What enqueue does when neither memory nor disk has room."""

    RAISE = "raise"
    BLOCK = "block"
    DROP_OLDEST = "drop_oldest"
    DROP_NEWEST = "drop_newest"


class _Assumed(int):
    """A default that nobody chose, and that may therefore give way to a value that somebody did."""


_ITEM_SIZE_ASSUMED: Final = _Assumed(64 * MiB)
_BURST_ASSUMED: Final = _Assumed(0)


@dataclass(frozen=True, slots=True)
class RateLimit:
    """At most ``rate`` items a second in the long run, and up to ``burst`` of them at once.

    ``burst`` is one second's worth unless given. ``on_limit`` says what enqueue does beyond that: ``"raise"``
    RateLimited, or ``"wait"``, first come first served, until the call's ``timeout``.

    Whatever is enqueued counts, whichever verb puts it, and a batch of n counts as n, all at once. A batch of more than ``burst``
    passes when a whole burst might, and nothing passes after it until the rate has caught up. What is refused, dropped or
    finds no room does not count; nor does what comes back (a ``nack``, a replayed dead letter).
    """

    rate: float
    burst: int = dataclasses.field(default=_BURST_ASSUMED, kw_only=True)
    on_limit: str = dataclasses.field(default="raise", kw_only=True)

    def __post_init__(self) -> None:
        rate = _number("rate_limit.rate", self.rate, "a number of items a second above 0")
        if not rate > 0:
            raise InvalidOption("rate_limit.rate", self.rate, "a number of items a second above 0")
        object.__setattr__(self, "rate", rate)
        if type(self.burst) is _Assumed:
            object.__setattr__(self, "burst", max(1, math.ceil(rate)))
        else:
            _whole("rate_limit.burst", self.burst, 1, _COUNT_MAX)
        if self.on_limit not in ("raise", "wait"):
            raise InvalidOption("rate_limit.on_limit", self.on_limit, '"raise" or "wait"')


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Options:
    """All options of a ``HybridQueue``, checked. The comments say what each may be."""

    name: str | None = None  # up to 128 of A-Z a-z 0-9 . _ -; needed where there is a disk_path
    disk_path: str | None = None  # str or path; None = memory only
    memory_size: int = 1000  # items, from 1
    memory_limit: int | None = 512 * MiB  # bytes, from 1; None = no byte limit
    max_items: int | None = None  # items in line, in memory and on disk, from 1; None = as many as there is room for
    overflow_ratio: float = 1.0  # above 0, up to 1
    overflow_strategy: OverflowStrategy = OverflowStrategy.OLDEST  # whose payloads leave memory first
    max_disk_size: int = 10 * GiB  # bytes, from 256 KiB
    when_full: WhenFull = WhenFull.RAISE  # what enqueue does when neither tier has room
    durability: Durability = Durability.PROCESS  # what an acknowledged item survives
    sync_interval: float | None = 1.0  # seconds above 0 between two syncs in the background; None = never
    serializer: Any = "auto"  # auto, raw, str, json, msgpack, pickle, a type for msgspec, or an object with encode and decode
    compression: str | None = None  # snappy, lz4, zstd; None = as they are
    ttl: float | None = None  # seconds above 0; None = items never expire
    max_item_size: int = _ITEM_SIZE_ASSUMED  # bytes, from 1 to 2 GiB
    default_batch_size: int = 100  # items, from 1
    rate_limit: RateLimit | None = None  # items a second; None = as fast as they come
    lease_timeout: float = 30.0  # seconds above 0, until a lease that was not acknowledged comes back
    max_attempts: int | None = None  # 1 to 255, then to the dead letters; None = tried for ever
    dead_letter_limit: int | None = None  # 1 or more; beyond it the oldest is dropped, and counted; None = as many as the disk holds
    on_expired: Callable[..., object] | None = None  # called with each item that expired
    on_dropped: Callable[..., object] | None = None  # called with each item that was dropped, and the reason
    metrics: bool = False  # True: shown by prometheus_client

    @classmethod
    def build(cls, **given: Any) -> Options:
        """Options from keyword arguments; a name that is no option is a TypeError, as in any call."""
        for key in given:
            if key not in OPTION_NAMES:
                raise TypeError(f"unexpected option {key!r}{_did_you_mean(key)}")
        return cls(**given)

    def __post_init__(self) -> None:
        if self.name is not None:
            validate_name(self.name)
        self._put("disk_path", folder_path("disk_path", self.disk_path))
        _whole("memory_size", self.memory_size, 1, _COUNT_MAX)
        if self.memory_limit is not None:
            _whole("memory_limit", self.memory_limit, 1, _BYTES_MAX, or_none=True)
        if self.max_items is not None:
            _whole("max_items", self.max_items, 1, _COUNT_MAX, or_none=True)
        ratio = _number("overflow_ratio", self.overflow_ratio, "a number above 0, up to 1")
        if not 0 < ratio <= 1:
            raise InvalidOption("overflow_ratio", self.overflow_ratio, "a number above 0, up to 1")
        self._put("overflow_ratio", ratio)
        _member("overflow_strategy", self.overflow_strategy, OverflowStrategy)
        _whole("max_disk_size", self.max_disk_size, DISK_SIZE_MIN, _BYTES_MAX)
        _member("when_full", self.when_full, WhenFull)
        _member("durability", self.durability, Durability)
        self._put("sync_interval", _seconds_above_0("sync_interval", self.sync_interval, none="never sync on a timer"))
        resolve(self.serializer)  # raises InvalidOption
        if self.compression is not None and not (type(self.compression) is str and self.compression in CODEC_NUMBERS):
            raise InvalidOption("compression", self.compression, "None, " + ", ".join(map(repr, CODEC_NUMBERS)))
        self._put("ttl", _seconds_above_0("ttl", self.ttl, none="never expire"))
        _whole("max_item_size", int(self.max_item_size) if type(self.max_item_size) is _Assumed else self.max_item_size,
               1, ITEM_SIZE_CEILING)  # fmt: skip
        _whole("default_batch_size", self.default_batch_size, 1, _COUNT_MAX)
        if self.rate_limit is not None and not isinstance(self.rate_limit, RateLimit):
            raise InvalidOption("rate_limit", self.rate_limit, "None or a RateLimit", hint="RateLimit(10_000, burst=1000)")
        self._put("lease_timeout", seconds("lease_timeout", self.lease_timeout, above_0=True))
        if self.max_attempts is not None:
            _whole("max_attempts", self.max_attempts, 1, 255, or_none=True)
        if self.dead_letter_limit is not None:
            _whole("dead_letter_limit", self.dead_letter_limit, 1, _COUNT_MAX, or_none=True)
        for key in ("on_expired", "on_dropped"):
            callback = getattr(self, key)
            if callback is not None and not callable(callback):
                raise InvalidOption(key, callback, "None or something callable")
        if type(self.metrics) is not bool:
            raise InvalidOption("metrics", self.metrics, "True or False")

        self._check_together()

    def _put(self, key: str, value: object) -> None:
        object.__setattr__(self, key, value)  # the way into a frozen object, while it is being made

    def _check_together(self) -> None:
        if self.disk_path is not None and self.name is None:
            raise InvalidOption("name", None, "given with a disk_path", hint="it names the folder under disk_path")

        if self.disk_path is not None and self.serializer is ANY_OBJECT:
            raise InvalidOption("serializer", self.serializer, "one that makes bytes, where there is a disk_path")

        if self.disk_path is None and self.durability is not Durability.MEMORY:
            if self.durability is Durability.POWER:
                raise InvalidOption("durability", self.durability, "MEMORY for a queue in memory only",
                                    hint="give a disk_path: nothing survives a power cut without a disk")  # fmt: skip
            # PROCESS is the default and so cannot be told from a choice; without a disk it means nothing.
            self._put("durability", Durability.MEMORY)

        if self.disk_path is None and self.overflow_ratio < 1:
            raise InvalidOption("overflow_ratio", self.overflow_ratio, "1.0 in a queue without a disk_path: there is nowhere to spill to",
                                hint="what is beyond that share of memory would only be refused; lower memory_size and memory_limit instead")  # fmt: skip

        # The largest item must have a place to be, with everything that lies around it there.
        size = self.max_item_size
        if type(size) is _Assumed:
            room = _BYTES_MAX
            if self.disk_path is not None:
                room = self.max_disk_size // 2
            elif self.memory_limit is not None:
                room = self.memory_limit
            self._put("max_item_size", min(int(size), room))
        elif self.disk_path is not None and disk_size_for(size) > self.max_disk_size:
            raise InvalidOption("max_item_size", size, f"so small that max_disk_size={self.max_disk_size} holds one such item",
                                hint=f"raise max_disk_size to {disk_size_for(size)}, or leave max_item_size out")  # fmt: skip
        elif self.disk_path is None and self.memory_limit is not None and size > self.memory_limit:
            raise InvalidOption("max_item_size", size, f"at most memory_limit={self.memory_limit} in a queue without a disk_path",
                                hint="raise memory_limit, give a disk_path, or leave max_item_size out")  # fmt: skip

    @property
    def rings(self) -> bool:
        """Whether the oldest item gives way to the newest once there are `max_items`."""
        return self.max_items is not None and self.when_full is WhenFull.DROP_OLDEST

    def as_dict(self) -> dict[str, Any]:
        """Every option by name, in the words that ``from_words`` reads (objects and callbacks as they are)."""
        return {key: _in_words(getattr(self, key)) for key in OPTION_NAMES}

    def __repr__(self) -> str:
        # What was chosen is worth a line; the defaults are in the documentation.
        chosen = (
            f"{field.name}={getattr(self, field.name)!r}"
            for field in dataclasses.fields(self)
            if getattr(self, field.name) != field.default
        )
        return f"Options({', '.join(chosen)})"


OPTION_NAMES: Final[tuple[str, ...]] = tuple(field.name for field in dataclasses.fields(Options))


def disk_size_for(item_size: int) -> int:
    """Bytes of disk that one item of this size may need: itself, its segment's marks (1/28) and what surrounds them."""
    return item_size + item_size // 16 + 64 * KiB


# One value at a time.

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_DEVICES: Final = frozenset(
    ["CON", "PRN", "AUX", "NUL", *(f"{port}{digit}" for port in ("COM", "LPT") for digit in range(10))]
)


def validate_name(name: object, key: str = "name") -> str:
    """The name, if it can be a folder's name on every system and never leads anywhere else."""
    allowed = "1 to 128 of A-Z a-z 0-9 . _ - and begin with a letter or a digit"
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InvalidOption(key, name, allowed)
    if ".." in name or name.endswith("."):
        raise InvalidOption(key, name, "a name without '..' that does not end in '.'")
    if name.split(".", 1)[0].upper() in _DEVICES:
        raise InvalidOption(key, name, "a name that is not a device on Windows (CON, NUL, COM1, ...)")
    return str(name)


def seconds(key: str, value: object, *, above_0: bool = False) -> float:
    """Float seconds from a number or a timedelta; finite, and not negative (or above 0)."""
    allowed = f"seconds as a number or a timedelta, {'above 0' if above_0 else '0 or more'}"
    if isinstance(value, timedelta):
        time_s = value.total_seconds()
    else:
        time_s = _number(key, value, allowed)
    if time_s < 0 or (above_0 and time_s == 0):
        raise InvalidOption(key, value, allowed)
    return time_s


def _seconds_above_0(key: str, value: object, *, none: str) -> float | None:
    if value is None:
        return None
    try:
        return seconds(key, value, above_0=True)
    except InvalidOption as error:
        raise InvalidOption(key, value, error.allowed, hint=f"None means {none}") from None


def check_thresholds(thresholds: Iterable[float]) -> tuple[float, ...]:
    """Memory-pressure thresholds: at least one, above 0, up to 1, each greater than the one before."""
    allowed = "numbers above 0, up to 1, each greater than the one before"
    if isinstance(thresholds, (str, bytes)) or not isinstance(thresholds, Iterable):
        raise InvalidOption("thresholds", thresholds, allowed, hint="for example (0.7, 0.9)")
    given = tuple(thresholds)
    checked = tuple(_number("thresholds", value, allowed) for value in given)
    rising = all(low < high for low, high in zip((0.0, *checked), checked, strict=False))
    if not checked or not rising or checked[-1] > 1:
        raise InvalidOption("thresholds", given, allowed, hint="for example (0.7, 0.9)")
    return checked


def _number(key: str, value: object, allowed: str) -> float:
    # A bool is an int to Python and a slip of the hand to us; infinities and NaN compare in surprising ways.
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InvalidOption(key, value, allowed)
    try:
        number = float(value)
    except OverflowError:
        raise InvalidOption(key, value, allowed) from None
    if not math.isfinite(number):
        raise InvalidOption(key, value, allowed)
    return number


def _whole(key: str, value: object, least: int, most: int, *, or_none: bool = False) -> None:
    if type(value) is not int or not least <= value <= most:
        raise InvalidOption(key, value, f"{'None or ' if or_none else ''}an int from {least} to {most}")


def _member(key: str, value: object, of: type[Enum]) -> None:
    if not isinstance(value, of):
        raise InvalidOption(key, value, " or ".join(f"{of.__name__}.{member.name}" for member in of))


def folder_path(key: str, value: object) -> str | None:
    """The path as a str, or None."""
    if value is None:
        return None
    try:
        path = os.fspath(value)  # type: ignore[call-overload]
    except TypeError:
        path = None
    if not isinstance(path, str) or not path or "\0" in path:
        raise InvalidOption(key, value, "None, or a path as a str or a pathlib.Path")
    return path


def _in_words(value: object) -> object:
    if isinstance(value, Enum):
        return value.name.lower()
    if isinstance(value, RateLimit):
        return {"rate": value.rate, "burst": value.burst, "on_limit": value.on_limit}
    return value


def _did_you_mean(key: str, known: Iterable[str] = OPTION_NAMES) -> str:
    close = difflib.get_close_matches(key, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


# From words.

_SIZE_UNITS: Final = {
    "": 1, "b": 1,
    "kib": KiB, "mib": MiB, "gib": GiB, "tib": 1024 * GiB,
    "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12,
}  # fmt: skip
_TIME_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZE: Final = re.compile(r"([0-9][0-9_]*(?:\.[0-9]+)?)\s*([A-Za-z]*)", re.ASCII)
_DURATION_PART: Final = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*(ms|s|m|h|d)\s*", re.ASCII)


def parse_size(text: str, key: str = "size") -> int:
    """Bytes from ``"512MiB"``, ``"1.5 GB"`` or ``"4096"``; KiB is 1024 bytes, kB is 1000."""
    match = _SIZE.fullmatch(text.strip())
    unit = _SIZE_UNITS.get(match[2].lower()) if match else None
    if match is None or unit is None or len(text) > 40:
        raise InvalidOption(key, text, 'a size such as "512MiB", "10GB" or 4096')
    number = match[1].replace("_", "")
    return int(float(number) * unit) if "." in number else int(number) * unit


def parse_duration(text: str, key: str = "duration") -> float:
    """Seconds from ``"30s"``, ``"250ms"``, ``"1h30m"`` or ``"2.5"``."""
    allowed = 'a time such as "30s", "5m", "1h30m" or 2.5'
    if len(text) > 40:
        raise InvalidOption(key, text, allowed)
    if re.fullmatch(r"\s*[0-9]+(\.[0-9]+)?\s*", text, re.ASCII):
        return float(text)
    total_s, at = 0.0, 0
    while match := _DURATION_PART.match(text, at):
        total_s += float(match[1]) * _TIME_UNITS[match[2]]
        at = match.end()
    if at == 0 or at != len(text):
        raise InvalidOption(key, text, allowed)
    return total_s


_E = TypeVar("_E", bound=Enum)


def _enum_named(key: str, value: object, of: type[_E]) -> object:
    if not isinstance(value, str):
        return value  # a member, or something that Options refuses with the same words as ever
    word = value.strip().upper().replace("-", "_").removeprefix(f"{of.__name__.upper()}.")
    for member in of:
        if member.name == word:
            return member
    names = [member.name.lower() for member in of]
    raise InvalidOption(key, value, " or ".join(map(repr, names)))


def _rate_limit_from(value: object) -> object:
    if not isinstance(value, Mapping):
        return value
    known = ("rate", "burst", "on_limit")
    for key in value:
        if key not in known:
            raise InvalidOption(f"rate_limit.{key}", value[key], "one of rate, burst, on_limit" + _did_you_mean(str(key), known))
    if "rate" not in value:
        raise InvalidOption("rate_limit", dict(value), "a mapping with rate, and perhaps burst and on_limit")
    return RateLimit(value["rate"], **{key: value[key] for key in known[1:] if key in value})


_SIZES: Final = frozenset(["memory_limit", "max_disk_size", "max_item_size"])
_TIMES: Final = frozenset(["sync_interval", "ttl", "lease_timeout"])
_ENUMS: Final[dict[str, type[Enum]]] = {
    "overflow_strategy": OverflowStrategy,
    "when_full": WhenFull,
    "durability": Durability,
}
_MAY_BE_NONE: Final = frozenset(
    ["disk_path", "memory_limit", "max_items", "sync_interval", "compression", "ttl", "rate_limit", "max_attempts", "dead_letter_limit"]
)


def from_words(key: str, value: object) -> object:
    """The value of an option from how a configuration file says it; what it does not know how to read, it leaves to `Options` to refuse."""
    if isinstance(value, str) and key in _MAY_BE_NONE and value.strip().lower() == "none":
        return None
    if isinstance(value, str) and key in _SIZES:
        return parse_size(value, key)
    if isinstance(value, str) and key in _TIMES:
        return parse_duration(value, key)
    if key in _ENUMS:
        return _enum_named(key, value, _ENUMS[key])
    if key == "rate_limit":
        return _rate_limit_from(value)
    return value
