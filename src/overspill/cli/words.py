"""Sizes and times as people write and read them, and the options that take them.

Accepted: `64MiB`, `10GB`, `4096`; `5m`, `1h30m`, `2.5`. Printed: at most three digits and a unit, KiB and its like being 1024-fold.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from ..errors import InvalidOption
from ..item import Priority
from ..options import DISK_SIZE_MIN, Durability, parse_duration, parse_size, validate_name

__all__ = ["DISK_SIZE", "DURABILITY", "DURATION", "FOLDER", "NEW_FOLDER", "PIPE_DISK_SIZE", "PRIORITY", "SIZE", "count_text", "duration_text", "size_text"]

if TYPE_CHECKING:
    ParamType = click.ParamType[Any]
    Choice = click.Choice[str]
else:
    ParamType, Choice = click.ParamType, click.Choice  # which older versions of click have without a type of its own

_SIZE_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


class _Size(ParamType):
    name = "size"

    def __init__(self, at_least: int = 0) -> None:
        self._at_least = at_least

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        nbytes: int = value if isinstance(value, int) else _parsed(self, parse_size, value, param, ctx)
        if nbytes < self._at_least:
            self.fail(f"{value} is too small: at least {size_text(self._at_least)}", param, ctx)
        return nbytes


class _Duration(ParamType):
    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        return value if isinstance(value, float) else _parsed(self, parse_duration, value, param, ctx)


def _parsed(kind: ParamType, parse: Any, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
    try:
        return parse(str(value))
    except InvalidOption as error:
        kind.fail(f"{value!r} is not {error.allowed}", param, ctx)


class _Priority(ParamType):
    name = "priority"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        word = str(value).strip().upper()
        if word in Priority.__members__:
            return int(Priority[word])
        if word.isdecimal() and int(word) <= 255:
            return int(word)
        self.fail(f"{value!r} is not a number from 0 to 255, low, normal or high", param, ctx)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
        from click.shell_completion import CompletionItem

        return [CompletionItem(name.lower()) for name in Priority.__members__ if name.lower().startswith(incomplete.lower())]


class _Durability(Choice):
    """By name; gives the member."""

    def __init__(self) -> None:
        super().__init__([each.name.lower() for each in Durability])

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return value if isinstance(value, Durability) else Durability[super().convert(value, param, ctx).upper()]


class _Folder(click.Path):
    """A queue's folder, `<disk_path>/<name>`, as an absolute path."""

    def __init__(self, must_exist: bool) -> None:
        super().__init__(file_okay=False, path_type=Path)
        self.name = "DIR"
        self._must_exist = must_exist

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        path = Path(os.path.abspath(os.fsdecode(value)))
        if path.exists() and not path.is_dir():
            self.fail(f"{os.fspath(value)!r} is a file, and a queue is a folder", param, ctx)
        if self._must_exist and not path.is_dir():
            self.fail(f"there is no folder {os.fspath(value)!r}", param, ctx)
        if not self._must_exist:
            try:
                validate_name(path.name)
            except InvalidOption as error:
                self.fail(f"the folder's name, {path.name!r}, must be {error.allowed}", param, ctx)
        return path


SIZE: Final = _Size()
DISK_SIZE: Final = _Size(DISK_SIZE_MIN)
PIPE_DISK_SIZE: Final = _Size(2 * DISK_SIZE_MIN)
"""A pipe keeps a part of it free."""
DURABILITY: Final = _Durability()
DURATION: Final = _Duration()
PRIORITY: Final = _Priority()
FOLDER: Final = _Folder(must_exist=True)
NEW_FOLDER: Final = _Folder(must_exist=False)


def size_text(nbytes: float) -> str:
    """`1.5 KiB`."""
    unit = 0
    while abs(nbytes) >= 999.5 and unit < len(_SIZE_UNITS) - 1:
        nbytes, unit = nbytes / 1024, unit + 1
    digits = 0 if unit == 0 or abs(nbytes) >= 99.95 else 1 if abs(nbytes) >= 9.995 else 2
    return f"{nbytes:.{digits}f} {_SIZE_UNITS[unit]}"


def duration_text(time_s: float) -> str:
    """`80 ns`, `12.3 µs`, `250 ms`, `12.3 s`, `5m 07s`, `2h 03m`, `4d 06h`."""
    if time_s == 0:
        return "0 s"
    for unit_s, unit in ((1e-9, "ns"), (1e-6, "µs"), (1e-3, "ms")):
        if time_s < 999.5 * unit_s:
            return f"{time_s / unit_s:.3g} {unit}"
    if time_s < 59.95:
        return f"{time_s:.3g} s"
    whole = round(time_s)
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02}s"
    if whole < 86400:
        return f"{whole // 3600}h {whole % 3600 // 60:02}m"
    return f"{whole // 86400}d {whole % 86400 // 3600:02}h"


def count_text(n: float) -> str:
    """`12,345`; from a million on `1.23 M`."""
    for limit, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M")):
        if abs(n) >= limit:
            return f"{n / limit:.3g} {unit}"
    return f"{n:,.0f}"


