"""What a queue is made of: the state that the halves of the verbs share.

Locks, in the order in which they may be taken: the gate of the tail (`_tail`: appending, rolling, staging), the gate of the head (`_head`: cold reads, structural
changes of the lines), then the log's own. Callbacks of the user run under none of them: they are kept in `_to_tell` and told at the end of a call.
"""
from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar
from weakref import WeakSet

from .._core.gate import Gate
from .._core.hot import HotQueue
from .._core.lanes import Claim
from .._core.segmap import SegmentMap
from .._core.turns import Turns
from .._engine.leases import Leases
from .._store.files import Disk
from .._store.folder import FolderLock, Quarantine
from .._store.log import Log
from ..errors import QueueBroken, QueueClosed
from ..options import Durability, Options
from ..serializers import Codec
from .clock import Clock
from .commit import Follower, GroupCommit
from .pump import Pump
from .waiting import Errand, Steps

__all__ = ["NEVER", "NO_LIMIT", "Parts", "Restored"]

_T = TypeVar("_T")

NO_LIMIT = NEVER = (1 << 63) - 1
"""As the core says it: of a number, and of a time or a place that is never reached."""


class Restored(NamedTuple):
    """An item that was in a queue before."""

    item: Any
    id: bytes
    """16 bytes; empty: it gets a new one."""
    priority: int
    enqueued_ns: int
    """0: now."""
    expiry_ns: int
    attempts: int
    due_ns: int = 0
    """When it is to be in line; 0: at once."""


class Reading:
    """Held by whoever has copied runs, for as long as it may read through them: also by an iterator that was not begun yet, or was dropped half way."""

    __slots__ = ("__weakref__",)


class Parts(HotQueue):
    """The attributes of an open queue, and the few methods that every part uses."""

    _options: Options
    _clock: Clock
    _codec: Codec
    _compression: int
    _log: Log | None
    _disk: Disk | None
    _lock: FolderLock | None
    _quarantine: Quarantine | None
    _commit: GroupCommit
    _pump: Pump | None
    _leases: Leases
    _turns: Turns | None
    """Who waits for the rate limit, if there is one."""
    _state: str
    """`open`, `closing` (nothing more comes in), `closed`."""
    _dropped: Counter[str]
    _refused: dict[str, int]
    """Calls that raised, by reason: one for each of `REFUSALS` from the start. Off the hot way: whatever refuses, does so in Python."""
    _to_tell: deque[Callable[[], object]]
    _pid: int
    """The process that opened it."""
    _due_planned: int = NEVER
    """The wall-clock time (ns) for which the pump has an appointment."""
    _cursors: WeakSet[Reading]
    """Who reads, or will read, through copies of runs: compaction leaves the segments alone as long as there is one."""

    # --- what another part has

    def _dirtied(self, map: SegmentMap) -> None:
        raise NotImplementedError

    def _emptied(self, map: SegmentMap) -> None:
        raise NotImplementedError

    def _say_how_it_is(self) -> None:
        raise NotImplementedError

    def _relieve(self) -> None:
        raise NotImplementedError

    def _spill_to(self, items: int, nbytes: int) -> int:
        raise NotImplementedError

    def _fold_stubs(self, priority: int) -> None:
        raise NotImplementedError

    def _plan_due(self) -> None:
        raise NotImplementedError

    def _tell_makers(self) -> None:
        """Whoever waits to put something is to look whether that is still possible."""
        self._makers.wake_all()
        if self._turns is not None:
            self._turns.wake_all()

    # --- who may call

    def _refuse(self, taking: bool) -> None:
        """Raise if the queue cannot be used for this (any more)."""
        if self._is_parents:
            raise QueueClosed(
                f"{self!r} belongs to process {self._pid}, and this is a child of it",
                hint="open the queue in one process; in a child, open another or talk to the parent",
            )
        if self._log is not None and self._log.broken is not None:
            raise self._broken_error()
        if self._state == "closed" or (self._state == "closing" and not taking):
            raise QueueClosed(f"{self!r} is closed", hint="open it again to go on")

    def _broken_error(self) -> QueueBroken:
        assert self._log is not None
        return QueueBroken(
            f"the disk failed under {self!r}: {self._log.broken}",
            where=self._disk.path if self._disk else None,
            hint="what was acknowledged before is safe as promised; look at the disk, then close the queue and open it again",
        )

    def _covered(self) -> None:
        """Block until a sync covers everything this thread has done."""
        self._commit.covered()

    def _covering(self) -> Steps[None]:
        """Wait until a sync covers everything done up to now."""
        follower = Follower(self._commit)
        try:
            yield follower, None
        except BaseException:
            follower.desert()
            raise
        follower.outcome()

    def _errand(self, work: Callable[[], _T], gate: Gate | None = None) -> Errand[_T]:
        """Work for another thread where this one must not wait, or must not be interrupted. Without a disk there is nothing that one call of the core cannot do: no thread is needed."""
        return Errand(work, gate, here=self._disk is None)

    # --- telling the user, outside any lock

    def _tell_later(self, call: Callable[[], object]) -> None:
        self._to_tell.append(call)

    def _tell(self) -> None:
        """Run the callbacks that are due. One that raises is logged; it cannot undo what it was told of."""
        while self._to_tell:
            try:
                call = self._to_tell.popleft()
            except IndexError:
                return
            try:
                call()
            except Exception:
                import logging

                logging.getLogger("overspill").exception("a callback of %r raised", self)

    # --- items

    def _unpack(self, stored: Any, direct: bool, kind: int, codec: int, nbytes: int) -> Any:
        """The item as the user knows it, from what memory or disk holds."""
        if direct:
            return stored
        if codec:
            from ..codecs import decompress

            stored = decompress(codec, stored, nbytes, self._options.max_item_size)
        return self._codec.decode(kind, stored)

    def _item_of(self, claim: Claim) -> Any:
        return self._unpack(claim.stored, claim.direct, claim.kind, claim.codec, claim.nbytes)

    def _is_power(self, promise: Durability) -> bool:
        """Whether a call with this promise must be covered by a sync. What the queue itself promises is known as `_commits`."""
        return self._log is not None and promise is Durability.POWER
