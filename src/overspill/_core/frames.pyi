"""A stream of bytes as frames: where those that are complete in a block of it end."""
from typing import final

from typing_extensions import Buffer

@final
class Frames:
    """The complete frames in the first `size` bytes of `block`, which must not be written to while they are in use. The first one has no end before byte `searched`."""

    def __init__(self, block: Buffer, size: int, by_length: bool, searched: int = 0) -> None: ...
    @property
    def by_length(self) -> bool: ...
    @property
    def stop(self) -> int:
        """Behind the last complete frame."""
    @property
    def longest(self) -> int:
        """Bytes of the longest payload."""
    @property
    def record_bytes(self) -> int:
        """What their records take in the log."""
    def __len__(self) -> int: ...
    def payloads(self, start: int = 0) -> list[bytes]: ...
    def whole_in(self, nbytes: int) -> int:
        """How many of them the first so many bytes of the block hold to their ends."""
