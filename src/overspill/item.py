"""What an item carries beside its payload: how urgent it is, and in which form it is written.

Numbers here reach the disk (docs/format.md, tables 2 and 3). A number never changes meaning; a new meaning is a new
number.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

__all__ = [
    "CODEC_LZ4",
    "CODEC_NAMES",
    "CODEC_NONE",
    "CODEC_SNAPPY",
    "CODEC_ZSTD",
    "KIND_AUTO",
    "KIND_CUSTOM",
    "KIND_JSON",
    "KIND_MSGPACK",
    "KIND_NAMES",
    "KIND_PICKLE",
    "KIND_RAW",
    "KIND_STR",
    "PRIORITY_MAX",
    "PRIORITY_MIN",
    "Priority",
]


class Priority(IntEnum):
    """Three names on a scale of 256; any int from 0 to 255 will do. Higher goes first."""

    LOW = 64
    NORMAL = 128
    HIGH = 192


PRIORITY_MIN: Final = 0
PRIORITY_MAX: Final = 255

# What the payload is: format page, table 3.
KIND_RAW: Final = 0
KIND_STR: Final = 1
KIND_AUTO: Final = 2
KIND_JSON: Final = 3
KIND_MSGPACK: Final = 4
KIND_PICKLE: Final = 5
KIND_CUSTOM: Final = 6

KIND_NAMES: Final[dict[int, str]] = {
    KIND_RAW: "raw",
    KIND_STR: "str",
    KIND_AUTO: "auto",
    KIND_JSON: "json",
    KIND_MSGPACK: "msgpack",
    KIND_PICKLE: "pickle",
    KIND_CUSTOM: "custom",
}

# How the payload is compressed: format page, table 2, field `codec`.
CODEC_NONE: Final = 0
CODEC_SNAPPY: Final = 1
CODEC_LZ4: Final = 2
CODEC_ZSTD: Final = 3

CODEC_NAMES: Final[dict[int, str]] = {
    CODEC_NONE: "none",
    CODEC_SNAPPY: "snappy",
    CODEC_LZ4: "lz4",
    CODEC_ZSTD: "zstd",
}
