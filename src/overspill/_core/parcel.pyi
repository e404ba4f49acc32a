"""An item on its way in. What is described in the core's own docstrings is not repeated here."""
from typing import Any

from .segmap import SegmentMap

class Parcel:
    """An item on its way in: what stays in memory, and what is written."""

    item: Any
    direct: bool
    kind: int
    codec: int
    payload: bytes
    nbytes: int
    expiry_ns: int
    priority: int
    attempts: int
    sequence: int
    id: bytes
    enqueued_ns: int
    flags: int
    extension: int
    time_ns: int

    @property
    def line(self) -> int: ...
    def __init__(
        self, item: Any, direct: bool, kind: int, codec: int, payload: bytes, nbytes: int, priority: int, expiry_ns: int = 0
    ) -> None: ...

def append_mapped(map: SegmentMap, parcels: list[Parcel]) -> list[int]: ...
def render(map: SegmentMap, at: int, parcels: list[Parcel], batch_left: int) -> bytes: ...
def render_header(map: SegmentMap, at: int, parcel: Parcel, batch_left: int) -> bytes: ...
