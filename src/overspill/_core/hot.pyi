"""The verbs that run once per item. What is described in the core's own docstrings is not repeated here."""
from collections.abc import Iterable
from datetime import timedelta
from typing import Any, final

from typing_extensions import Buffer

from ..options import Durability
from .frames import Frames
from .lanes import Claim
from .limiter import Limiter
from .places import Places
from .segmap import SegmentMap

@final
class Passed:
    """Frames that were put and taken at once: in the log, unsettled, and never in line."""

    def __new__(cls, frames: Frames, map: SegmentMap) -> Passed: ...
    @property
    def frames(self) -> Frames: ...
    @property
    def map(self) -> SegmentMap: ...
    def __len__(self) -> int:
        """How many are not settled."""

class HotQueue(Places):
    """What the hot verbs touch; the runtime's class derives from it."""

    _soft_items: int
    _soft_bytes: int
    _commits: bool
    _logs: bool
    _spills_oldest: bool
    _takes_bytes: bool
    _takes_str: bool
    _most_items: int
    _overwrites: bool
    _ttl_ns: int
    _max_item_size: int
    _limiter: Limiter | None
    _poke_at: int

    @property
    def _passing(self) -> int: ...
    def enqueue(
        self,
        item: Any,
        *,
        priority: int = 128,
        ttl: float | timedelta | None = None,
        delay: float | timedelta | None = None,
        durability: Durability | None = None,
        timeout: float | timedelta | None = None,
    ) -> None: ...
    def enqueue_with_priority(
        self,
        item: Any,
        priority: int = 128,
        *,
        ttl: float | timedelta | None = None,
        delay: float | timedelta | None = None,
        durability: Durability | None = None,
        timeout: float | timedelta | None = None,
    ) -> None: ...
    def enqueue_batch(
        self,
        items: Iterable[Any],
        *,
        priority: int = 128,
        ttl: float | timedelta | None = None,
        delay: float | timedelta | None = None,
        durability: Durability | None = None,
        timeout: float | timedelta | None = None,
    ) -> None: ...
    def dequeue(self, timeout: float | timedelta | None = None) -> Any: ...
    def try_dequeue(self) -> Any: ...
    def dequeue_batch(self, max_items: int | None = None, *, timeout: float | timedelta | None = 0) -> list[Any]: ...
    def _enqueue_hot(self, item: Any, priority: Any, ttl: Any, delay: Any, durability: Any) -> bool: ...
    def _enqueue_batch_hot(self, items: Iterable[Any], priority: Any, ttl: Any, delay: Any, durability: Any) -> bool: ...
    def _dequeue_hot(self, nothing: Any) -> Any: ...
    def _take_many_hot(self, out: list[Any], n: int) -> int: ...
    def _take_bytes_hot(self, out: list[Any], most: int, nbytes: int) -> int: ...
    def _push(self, item: Any, /) -> None: ...
    def _grown(self, map: SegmentMap) -> None: ...
    def _plain_batch_bytes(self, items: Iterable[Any]) -> int: ...
    def _put_batch(self, items: Iterable[Any], priority: int) -> bool: ...
    def _render_frames(self, map: SegmentMap, frames: Frames, image: Buffer) -> None: ...
    def _let_pass(self, map: SegmentMap, frames: Frames) -> Passed: ...
    def _settle_passed(self, passed: Passed) -> None: ...
    def _join_back(self, items: list[bytes], priority: int) -> None: ...
    def _fold_first(self, priority: int) -> bool: ...
