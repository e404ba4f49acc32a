"""The extension types in which "auto" writes what MessagePack lacks. Numbers and layouts are on disk: they never change meaning."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from pathlib import PosixPath, PurePosixPath, PureWindowsPath, WindowsPath
from typing import Final

EXT_TUPLE: Final = 1  # MessagePack array
EXT_SET: Final = 2  # MessagePack array
EXT_FROZENSET: Final = 3  # MessagePack array
EXT_MAP: Final = 4  # MessagePack array of key, value, key, value: a dict whose keys MessagePack lacks
EXT_INT: Final = 5  # big-endian two's complement, beyond 64 bits
EXT_COMPLEX: Final = 6  # two f64, big-endian
EXT_BYTEARRAY: Final = 7  # the bytes
EXT_DATETIME: Final = 8  # DATETIME, then the zone
EXT_DATE: Final = 9  # DATE
EXT_TIME: Final = 10  # TIME, then the zone
EXT_TIMEDELTA: Final = 11  # TIMEDELTA
EXT_UUID: Final = 12  # 16 bytes, and one for is_safe where it is known
EXT_DECIMAL: Final = 13  # ASCII
EXT_FRACTION: Final = 14  # MessagePack array of numerator and denominator
EXT_RANGE: Final = 15  # MessagePack array of start, stop and step
EXT_ADDRESS: Final = 16  # a byte for the type (ADDRESS_TYPES), then UTF-8
EXT_PATH: Final = 17  # a byte for the type (PATH_TYPES), then UTF-8 with surrogates passed

DATETIME: Final = struct.Struct(">HBBBBBIB")  # year month day hour minute second microsecond fold
DATE: Final = struct.Struct(">HBB")  # year month day
TIME: Final = struct.Struct(">BBBIB")  # hour minute second microsecond fold
TIMEDELTA: Final = struct.Struct(">iii")  # days seconds microseconds
COMPLEX: Final = struct.Struct(">dd")

# The zone, behind a datetime or a time: nothing for a naive one, else one of these letters and what it says.
ZONE_OFFSET: Final = b"O"  # TIMEDELTA, then the name in UTF-8 (one byte b"=" before it) if it has one
ZONE_NAMED: Final = b"Z"  # the key of a ZoneInfo

ADDRESS_TYPES: Final[tuple[type, ...]] = (
    IPv4Address, IPv6Address, IPv4Network, IPv6Network, IPv4Interface, IPv6Interface,
)  # fmt: skip
PATH_TYPES: Final[tuple[type, ...]] = (PurePosixPath, PureWindowsPath, PosixPath, WindowsPath)
