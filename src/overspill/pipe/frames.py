"""A stream of bytes as frames, and back: lines, or a length and then so many bytes.

A cutter reads a stream in blocks and says of each which frames are complete in it; it moves what is not to the front of the next block. `join` makes of frames the bytes that they were.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from .._core.frames import Frames
from ..errors import CorruptedData, ItemTooLarge

__all__ = ["Cutter", "Framing", "Lengths", "Lines"]

_LENGTH: Final = struct.Struct(">I")
_SPARE_MOST: Final = 8  # blocks


class Framing(Protocol):
    """How a stream is cut into items."""

    by_length: bool
    keeps_rest: bool
    """Whether an incomplete frame at the end is a frame all the same."""

    def check(self, rest: memoryview, at: int, largest: int) -> None:
        """Refuse a frame that was begun at byte `at` of the stream and is going to be larger than the largest."""

    def join(self, frames: Sequence[bytes]) -> bytes:
        """The frames as they were in the stream."""

    def size_of(self, frame: bytes) -> int:
        """How many bytes a frame takes in the stream."""


class Lines:
    """A frame is a line, kept without its newline. A last line without one is a line too."""

    by_length = False
    keeps_rest = True

    def check(self, rest: memoryview, at: int, largest: int) -> None:
        if len(rest) > largest:
            raise ItemTooLarge("a line is too long", size=len(rest), limit=largest, hint="raise the limits, or frame the stream by length")

    def join(self, frames: Sequence[bytes]) -> bytes:
        return b"\n".join([*frames, b""])

    def size_of(self, frame: bytes) -> int:
        return len(frame) + 1


class Lengths:
    """A frame is four bytes, big-endian, that say how many follow, and these."""

    by_length = True
    keeps_rest = False

    def check(self, rest: memoryview, at: int, largest: int) -> None:
        if len(rest) >= _LENGTH.size and (length := _LENGTH.unpack_from(rest)[0]) > largest:
            raise CorruptedData(what=f"a frame at byte {at} claims to be {length:,} bytes long, and {largest:,} are allowed", hint="is this stream framed by length?")

    def join(self, frames: Sequence[bytes]) -> bytes:
        parts: list[bytes] = []
        for frame in frames:
            parts += (_LENGTH.pack(len(frame)), frame)
        return b"".join(parts)

    def size_of(self, frame: bytes) -> int:
        return len(frame) + _LENGTH.size


class Cutter:
    """Reads blocks of about `block_bytes`, more where a single frame is larger. Its buffers are used again once they have been given back: fresh ones cost a page fault for every four KiB.

    `read_into` reads what is there into a buffer and returns how much that was, 0 at the end.
    """

    def __init__(self, framing: Framing, block_bytes: int, largest: int) -> None:
        self._framing, self._block_bytes, self._largest = framing, block_bytes, largest
        self._spare: list[bytearray] = []
        self._block = bytearray(block_bytes)
        self._filled = 0
        self._at = 0
        """Where in the stream the block begins."""

    def read(self, read_into: Callable[[memoryview], int]) -> tuple[int, bytearray, Frames] | None:
        """(bytes read, a block, the frames that are complete in it); None at the end of the stream. The block is to be given back."""
        if self._filled == len(self._block):
            self._grow()
        block, before = self._block, self._filled
        with memoryview(block) as view:
            n = read_into(view[before : before + self._block_bytes])
        if n == 0:
            return None
        size = before + n
        frames = Frames(block, size, self._framing.by_length, before)
        left = size - frames.stop
        if frames.stop:
            self._block = self._spare.pop() if self._spare else bytearray(self._block_bytes)
            if left > len(self._block):
                self._block = bytearray(2 * left)
            self._block[:left] = memoryview(block)[frames.stop : size]
            self._at += frames.stop
        self._filled = left
        with memoryview(self._block) as rest:
            self._framing.check(rest[:left], self._at, self._largest)
        return n, block, frames

    def give_back(self, block: bytearray) -> None:
        """Nobody uses this block any more, nor its frames."""
        if len(block) == self._block_bytes and len(self._spare) < _SPARE_MOST and block is not self._block:
            self._spare.append(block)

    def _grow(self) -> None:
        grown = bytearray(2 * len(self._block))
        grown[: self._filled] = self._block
        self._block = grown

    def rest(self) -> bytes:
        """What was begun and is not complete."""
        return bytes(self._block[: self._filled])
