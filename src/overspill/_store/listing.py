"""The records of a segment that is not sealed yet, by priority: what an index is for a sealed one.

The log is looked through a stretch at a time and no further than somebody asks, so that who reads the first item of 64 MiB does not wait for a look at all of them.
"""
from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Callable

from .._core.record import list_some
from .._core.segmap import SegmentMap

__all__ = ["Listing"]

_STRETCH = 256 << 10
_FAR = 1 << 20
"""Who begins so far behind what is listed has it listed from there on; whoever reads before that has it listed again, a stretch at a time."""


class Listing:
    """Lists of record offsets, in units of 8 and in log order, that grow at their ends. The caller keeps the mapping where it is meanwhile."""

    def __init__(self, map: SegmentMap, start: int, read: Callable[[int, int], bytes]) -> None:
        self._map = map
        self._read = read
        self._lists: dict[int, array[int]] = {}
        self._begin = self._end = start

    @property
    def length(self) -> int:
        """How many records it lists."""
        return sum(map(len, self._lists.values()))

    def reach(self, first: int) -> bool:
        """Have the record at this offset in what is listed, or not far behind it; True if positions are others from now on."""
        known = self._end > self._begin
        if known and self._begin <= first <= self._end + _FAR:
            return False
        self._lists, self._begin, self._end = {}, first, first  # no call in between: a signal would be looked at there
        return known

    def window(self, priority: int, position: int, first: int, most: int) -> tuple[int, array[int]]:
        """(position, up to `most` offsets) of the records of a priority: from `position` on; or, if `first` is given, from the record at that offset on."""
        known = self._lists.setdefault(priority, array("I"))
        if first:
            while not (known and known[-1] >= first // 8) and self._look_further():
                pass
            position = bisect_left(known, first // 8)
            if position == len(known) or known[position] != first // 8:
                raise AssertionError(f"I2: segment {self._map.number} has no record of priority {priority} at {first}")
        while len(known) < position + most and self._look_further():
            pass
        return position, known[position : position + most]

    def _look_further(self) -> bool:
        """List one stretch more, of a record at least; False if there is none."""
        start, tail = self._end, self._map.tail
        if start >= tail:
            return False
        try:
            if self._map.mapped:
                found, self._end = self._map.list_some(start)
            else:
                found, end = list_some(self._read(start, min(_STRETCH, tail - start)), start, tail, self._map.salt)
                self._end = end if end > start else tail  # the rest does not check: whoever seals or recovers will say so
            for priority, more in found:
                self._lists.setdefault(priority, array("I")).extend(more)
        except BaseException:
            self._lists, self._end = {}, self._begin  # interrupted half way: it is listed again, and comes out the same
            raise
        return True

    def clear(self) -> None:
        """Let go of the lists: there is an index now, or nothing to list."""
        self._lists.clear()
