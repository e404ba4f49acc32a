"""The record codec: CRC-32C, and the scan that recovery and verification are made of."""
from array import array
from collections.abc import Callable
from typing import Any, final

from typing_extensions import Buffer

def crc32c(data: Buffer, seed: int = 0) -> int: ...
def read_payload(read_into: Callable[[memoryview, int], int], offset: int, length: int, salt: int) -> tuple[bytes | None, int]: ...
def check_words(area: Buffer, salt: int, first: int = 0, domain: int = 0) -> tuple[int, int]:
    """(marks set, words that do not check)."""

def count_marked(area: Buffer, salt: int, start: int, offsets: array[int]) -> int:
    """How many of the records at these offsets (array 'I', in units of 8) carry their mark."""

@final
class Scan:
    """What `scan` found. Offsets count from the start of the file."""

    @property
    def end(self) -> int:
        """Behind the last good record."""
    @property
    def count(self) -> int:
        """Good records."""
    @property
    def synced(self) -> int:
        """The greatest synced position that a good record vouches for, in bytes."""
    @property
    def least_sequence(self) -> int:
        """0 if there is no record."""
    @property
    def greatest_sequence(self) -> int:
        """0 if there is no record; records whose payload alone is damaged are counted in."""
    @property
    def bad(self) -> list[Any]:
        """[offset, length, "header" or "payload"] of the stretches inside that do not check."""
    @property
    def records(self) -> array[int]:
        """Offsets of the good records, an array 'Q'."""
    @property
    def open_batch(self) -> int:
        """Where an incomplete batch at the end begins; 0 if none does."""

def scan(data: Buffer, salt: int, start: int, base: int, payloads: bool = True, resume_below: int = 0) -> Scan: ...
def build_index(data: Buffer, base: int, records: array[int]) -> list[tuple[int, array[int], int, int, int, int, int, int, int]]:
    """For each line: (line, offsets in units of 8, first place, last place, payload bytes, greatest expiry, count without expiry, least sequence, greatest sequence)."""

def list_some(data: Buffer, base: int, tail: int, salt: int) -> tuple[list[tuple[int, array[int]]], int]:
    """([(priority, offsets in units of 8)], where the last one listed ends)."""

def moved_records(data: Buffer, base: int, records: array[int]) -> list[tuple[int, bytes, int, int]]:
    """Those that have moved: (offset, id, number of the segment where it was, offset there)."""

def copy_records(
    data: Buffer, base: int, salt: int, offsets: array[int], new_salt: int, new_offset: int
) -> tuple[bytes, array[int], list[int]]:
    """(records, their new offsets, old offsets of what does not check and was left out: those have the new offset 0)."""

def record_lengths(data: Buffer, base: int, salt: int, offsets: array[int]) -> array[int]: ...
def parse_header(data: Buffer, at: int, salt: int, offset: int) -> dict[str, Any] | None: ...
def record_length(length: int) -> int: ...
