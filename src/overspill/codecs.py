"""Compression of one payload: kept only where it pays, undone only within bounds.

``compress`` gives the smaller form or None, never a larger one: the record then says codec 0 and holds the payload as it
is. ``decompress`` trusts nothing that it reads. The length a record claims (``raw_length``) is checked against the
queue's limit first, then against the length that snappy and zstd write at the head of their own data, and only then is
a buffer of exactly that many bytes made for the decompressor to fill. Data that wants to become longer, or ends
early, is ``CorruptedData``; a kilobyte that claims to be ten gigabytes never gets them.

The numbers are those of the format page, table 2, field `codec`. The work is done by cramjam; nothing here is our own
but the suspicion.
"""

from __future__ import annotations

from typing import Final

import cramjam

from overspill.errors import CorruptedData, UnknownFormat
from overspill.item import CODEC_LZ4, CODEC_NAMES, CODEC_NONE, CODEC_SNAPPY, CODEC_ZSTD

__all__ = ["CODEC_NUMBERS", "codec_number", "compress", "decompress"]

CODEC_NUMBERS: Final[dict[str, int]] = {"snappy": CODEC_SNAPPY, "lz4": CODEC_LZ4, "zstd": CODEC_ZSTD}

Buffer = bytes | bytearray | memoryview

# It pays from a sixteenth of the payload on, and 16 bytes: less is not worth the reader's time.
_SAVED_BYTES_MIN: Final = 16
_SAVED_SHARE: Final = 16

# No smaller payload has been seen to save 16 bytes under any of the three.
_TRY_FROM_BYTES: Final = 32

# A byte of an lz4 block becomes 255 bytes at the most. Snappy and zstd say their length themselves.
_LZ4_GROWTH_MAX: Final = 255

_ZSTD_MAGIC: Final = b"\x28\xb5\x2f\xfd"
_ZSTD_LEVEL: Final = 3


def codec_number(name: str | None) -> int:
    """The number that a record holds for an option's ``compression``; 0 for None."""
    return CODEC_NONE if name is None else CODEC_NUMBERS[name]


def compress(codec: int, data: Buffer) -> bytes | None:
    """The compressed payload, or None where it would not pay (always for codec 0)."""
    length = memoryview(data).nbytes
    if codec == CODEC_NONE or length < _TRY_FROM_BYTES:
        return None
    try:
        if codec == CODEC_SNAPPY:
            packed = cramjam.snappy.compress_raw(data)
        elif codec == CODEC_LZ4:
            packed = cramjam.lz4.compress_block(data, store_size=False)
        elif codec == CODEC_ZSTD:
            packed = cramjam.zstd.compress(data, level=_ZSTD_LEVEL)
        else:
            raise ValueError(f"no codec has the number {codec}")
    except cramjam.CompressionError:
        return None  # too large for this compressor: it is stored as it is
    if length - len(packed) < max(_SAVED_BYTES_MIN, length // _SAVED_SHARE):
        return None
    return bytes(packed)


def decompress(codec: int, data: Buffer, raw_length: int, limit: int) -> bytes:
    """The payload of exactly ``raw_length`` bytes, which must not be above ``limit``."""
    if raw_length > limit:
        raise CorruptedData(what="the payload claims to be longer than allowed", found=raw_length, expected=f"at most {limit}")
    if codec == CODEC_NONE:
        return _exactly(bytes(data), raw_length)
    name = CODEC_NAMES.get(codec)
    if name is None:
        raise UnknownFormat(what="a compression that this version does not know", found=codec,
                            hint="a newer version wrote it; read it with that one")  # fmt: skip
    claimed = _claimed_length(codec, data)
    if claimed is not None and claimed != raw_length:
        raise CorruptedData(what=f"the {name} data has another length than its record", found=claimed, expected=raw_length)
    if codec == CODEC_LZ4 and raw_length > _LZ4_GROWTH_MAX * memoryview(data).nbytes:
        raise CorruptedData(what="no lz4 data of this size can become so long", found=raw_length)

    # All three refuse to write beyond the buffer, and say how far they came.
    room = bytearray(raw_length)
    try:
        if codec == CODEC_SNAPPY:
            written = cramjam.snappy.decompress_raw_into(data, room)
        elif codec == CODEC_LZ4:
            written = cramjam.lz4.decompress_block_into(data, room)
        else:
            written = cramjam.zstd.decompress_into(data, room)
    except (cramjam.DecompressionError, ValueError, OverflowError, OSError) as error:
        raise CorruptedData(what=f"damaged {name} data: {error}") from error
    if written != raw_length:
        raise CorruptedData(what=f"the {name} data has another length than its record", found=written, expected=raw_length)
    return bytes(room)


def _exactly(payload: bytes, raw_length: int) -> bytes:
    if len(payload) != raw_length:
        raise CorruptedData(what="the payload has another length than its record", found=len(payload), expected=raw_length)
    return payload


def _claimed_length(codec: int, data: Buffer) -> int | None:
    """What the compressed data itself says about its length, before any of it is decompressed."""
    if codec == CODEC_SNAPPY:
        try:
            return int(cramjam.snappy.decompress_raw_len(data))
        except cramjam.DecompressionError as error:
            raise CorruptedData(what=f"damaged snappy data: {error}") from error
    if codec == CODEC_ZSTD:
        return _zstd_content_size(bytes(memoryview(data)[:18]))
    return None


def _zstd_content_size(head: bytes) -> int | None:
    """RFC 8878, 3.1.1.1: the frame header's content size, if it has one (all that we write have)."""
    if len(head) < 6 or not head.startswith(_ZSTD_MAGIC):
        raise CorruptedData(what="damaged zstd data: no frame begins here", found=head[:4], expected=_ZSTD_MAGIC)
    descriptor = head[4]
    single_segment = descriptor >> 5 & 1
    start = 5 + (not single_segment) + (0, 1, 2, 4)[descriptor & 3]
    width = (single_segment, 2, 4, 8)[descriptor >> 6]
    if width == 0:
        return None
    if len(head) < start + width:
        raise CorruptedData(what="damaged zstd data: the frame header is cut short")
    size = int.from_bytes(head[start : start + width], "little")
    return size + 256 if width == 2 else size
