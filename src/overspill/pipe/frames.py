"""A stream of bytes as frames, and back: lines, or a length and then so many bytes.

A splitter is fed blocks as they were read and gives the frames that are complete; what is left at the end is its `rest`. `join` makes of frames the bytes that they were.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final, Protocol

from ..errors import CorruptedData, ItemTooLarge

__all__ = ["Framing", "Lengths", "Lines"]

_LENGTH: Final = struct.Struct(">I")


class Framing(Protocol):
    """How a stream is cut into items."""

    def feed(self, block: bytes) -> list[bytes]:
        """The frames that are complete with this block."""

    def rest(self) -> bytes:
        """What was begun and is not complete."""

    def keeps_rest(self) -> bool:
        """Whether an incomplete frame at the end is a frame all the same."""

    def join(self, frames: Sequence[bytes]) -> bytes:
        """The frames as they were in the stream."""

    def size_of(self, frame: bytes) -> int:
        """How many bytes a frame takes in the stream."""


class Lines:
    """A frame is a line, kept without its newline. A last line without one is a line too."""

    def __init__(self, largest: int) -> None:
        self._largest = largest
        self._begun: list[bytes] = []
        self._begun_bytes = 0

    def feed(self, block: bytes) -> list[bytes]:
        frames = block.split(b"\n")
        last = frames.pop()
        if frames and self._begun:
            self._begun.append(frames[0])
            frames[0] = b"".join(self._begun)
        if frames:
            self._begun, self._begun_bytes = [], 0
        if last:
            self._begun.append(last)
            self._begun_bytes += len(last)
            if self._begun_bytes > self._largest:
                raise ItemTooLarge("a line is too long", size=self._begun_bytes, limit=self._largest, hint="raise the limits, or frame the stream by length")
        return frames

    def rest(self) -> bytes:
        return b"".join(self._begun)

    def keeps_rest(self) -> bool:
        return True

    def join(self, frames: Sequence[bytes]) -> bytes:
        return b"\n".join([*frames, b""])

    def size_of(self, frame: bytes) -> int:
        return len(frame) + 1


class Lengths:
    """A frame is four bytes, big-endian, that say how many follow, and these."""

    def __init__(self, largest: int) -> None:
        self._largest = largest
        self._begun: list[bytes] = []
        self._begun_bytes = 0
        self._needed = _LENGTH.size
        self._at = 0

    def feed(self, block: bytes) -> list[bytes]:
        self._begun.append(block)
        self._begun_bytes += len(block)
        if self._begun_bytes < self._needed:
            return []
        data = block if len(self._begun) == 1 else b"".join(self._begun)
        frames, at = [], 0
        while True:
            if len(data) - at < _LENGTH.size:
                self._needed = _LENGTH.size
                break
            (length,) = _LENGTH.unpack_from(data, at)
            if length > self._largest:
                raise CorruptedData(
                    what=f"a frame at byte {self._at + at} claims to be {length:,} bytes long, and {self._largest:,} are allowed", hint="is this stream framed by length?"
                )
            end = at + _LENGTH.size + length
            if end > len(data):
                self._needed = end - at
                break
            frames.append(data[at + _LENGTH.size : end])
            at = end
        self._at += at
        self._begun = [data[at:]]
        self._begun_bytes = len(data) - at
        return frames

    def rest(self) -> bytes:
        return b"".join(self._begun)

    def keeps_rest(self) -> bool:
        return False

    def join(self, frames: Sequence[bytes]) -> bytes:
        parts: list[bytes] = []
        for frame in frames:
            parts += (_LENGTH.pack(len(frame)), frame)
        return b"".join(parts)

    def size_of(self, frame: bytes) -> int:
        return len(frame) + _LENGTH.size
