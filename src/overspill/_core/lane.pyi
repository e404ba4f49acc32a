"""One priority's line: heap of returned items, cold runs, ring of resident ones."""
from typing import final

from .segmap import SegmentMap

@final
class Run:
    """A stretch of one segment's records of one line, and a cursor over it."""

    first: int
    """Offset of its first record; 0 = the lane's first in this segment."""
    last: int
    """Offset of its last record; 0 = the lane's last."""
    last_ordinal: int
    bound: int
    """No record left in it has a lesser place."""
    last_place: int

    def __init__(
        self, map: SegmentMap, line: int, first: int = 0, last: int = 0, bound: int = 0, last_place: int = 0, last_ordinal: int = 0
    ) -> None: ...
    @property
    def map(self) -> SegmentMap: ...
    @property
    def line(self) -> int: ...
    @property
    def done(self) -> bool: ...
    @property
    def position(self) -> int:
        """Of its window in the segment's list of the lane's records."""
    @property
    def current(self) -> int:
        """Offset of the record that has been loaded; 0 = none."""
    @property
    def block_size(self) -> int: ...
    def clone(self) -> Run: ...
    def is_at_end(self) -> bool: ...
    def last_passed(self) -> int: ...
    def next_offset(self) -> int: ...

@final
class Lane:
    """The store's and the engine's view of it is read-only but for the runs."""

    runs: list[Run]
    """Cold, oldest first."""
    recovered: int
    """How many of `runs`, at their front, were found on opening."""
    merge: bool
    """Whether those overlap in their places."""

    def __new__(cls, line: int) -> Lane: ...
    @property
    def line(self) -> int: ...
    @property
    def timed(self) -> bool: ...
    @property
    def heap_n(self) -> int: ...
    @property
    def ring_n(self) -> int: ...

def lane_over(runs: list[Run], merge: bool) -> Lane: ...
