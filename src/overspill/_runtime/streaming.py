"""A queue in memory with one file behind it: what a `StreamQueue` runs on.

While nothing is in the file this is a queue in memory like any other, with the hot ways of the core. The item for which memory has no room goes to the file, and so does every item
after it until the file is empty again: nothing overtakes. As memory empties, the pump brings items back from the front of the file; a consumer who is faster than the
pump brings them himself, so that nobody waits while there is something to take.

Only the store differs from the other queues: waiting, waking, the rate, closing, forks and time are theirs.

Locks: the tail or the head of the queue, as everywhere, and inside of either `_behind`, which covers the file and the step of an item between the file and its line.
"""
from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

from .._core.lanes import Claim
from .._store.files import Disk
from .._store.layout import MESSAGE_MAX, OVERFLOW_SUFFIX
from .._store.overflow import Overflow
from ..errors import ItemRejected, NotSerializable, QueueFull
from ..item import Priority
from ..options import Options
from ..stats import QueueStats, StreamStats
from .assemble import Assembled
from .clock import Clock
from .waiting import Steps, blocking

__all__ = ["Streaming"]

_T = TypeVar("_T")

_PUMP_AFTER_S = 0.001
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class Streaming(Assembled):
    """The engine of a stream: bytes of one priority."""

    _overflow: Overflow
    _behind: threading.RLock
    _inside: set[tuple[int, object]]
    """Who is taking an item the slow way, which includes everyone who waits for one: thread and call."""
    discarded: int = 0
    """Items that were left when the stream was closed."""

    def _open_stream(self, options: Options, folder: str, *, clock: Clock | None = None, disk_class: type[Disk] = Disk, background: bool = True) -> None:
        self._behind = threading.RLock()
        self._inside = set()
        self._left = threading.Condition()
        disk = _folder_at(disk_class, folder)
        try:
            self._overflow = Overflow(disk, f"{options.name}{OVERFLOW_SUFFIX}")
            try:
                self._open(options, clock=clock, background=background)
            except BaseException:
                self._overflow.close()
                raise
        except BaseException:
            disk.close()
            raise
        self._disk = disk
        self._n_recovered = self._overflow.items
        self._tail.allow(not self._on_disk())

    def _on_disk(self) -> bool:
        """Whether the end of the line is in the file. A damaged place of which nobody was told yet is a part of the line as well."""
        return self._overflow.items > 0 or self._overflow.damage is not None

    # --- putting

    def _enqueue_slow(self, item: Any, *_: Any) -> None:
        # A stream that has fallen behind may be so for hours. Its way is that of `_enqueueing`, without all that is not needed then.
        if self._overflow.items and type(item) is bytes and len(item) <= MESSAGE_MAX and not self._is_parents:
            with self._behind:
                if self._overflow.items and self._state == "open" and (self._limiter is None or not (self._limiter.queued or self._limiter.take(self._clock.monotonic()))):
                    try:
                        self._append_message(item)
                    except BaseException:
                        self._give_back_tokens(1)
                        raise
                    if self._n_takers:
                        self._takers.wake()
                    return
        blocking(self._enqueueing(item))

    def _enqueueing(self, item: Any, *_: Any) -> Steps[None]:
        self._refuse(taking=False)
        message = self._message(item)
        yield from self._waiting_for_rate(1, None)
        try:
            with self._tail:
                self._refuse(taking=False)
                self._put_last(message)
        except BaseException:
            self._give_back_tokens(1)
            raise

    def _message(self, item: Any) -> bytes:
        """What goes in line, if it may."""
        try:
            return self._pack(item, Priority.NORMAL, 0).payload
        except ItemRejected as error:
            error.where = self._options.name
            error.hint = "a stream takes bytes" if isinstance(error, NotSerializable) else "a stream takes no longer message: send it in pieces"
            raise

    def _put_last(self, message: bytes) -> None:
        """At the end of the line, wherever that is. The caller holds the tail."""
        with self._behind:
            if self._resident < self._budget_items and self._resident_bytes + len(message) <= self._budget_bytes and not self._on_disk():
                self._tail.allowed = True
                self._join_back([message], Priority.NORMAL)
                self._n_enqueued += 1
            else:
                self._tail.allowed = False
                self._append_message(message)
        if self._n_takers:
            self._takers.wake()

    def _append_message(self, message: bytes) -> None:
        try:
            self._overflow.append(message)
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
            self._refused["full"] += 1
            raise QueueFull(
                f"memory is full and the disk has no room for {len(message):,} bytes more: {error.strerror}", where=self._overflow.path,
                hint="what is in the stream can still be taken; put again when there is room",
            ) from error  # fmt: skip
        self._n_enqueued += 1
        if self._low_items < 0:
            self._watch()

    # --- taking

    def _in_line(self) -> int:
        """The items, and a damaged place to be told of."""
        return self._waiting + self._overflow.items + (self._overflow.damage is not None)

    def _taking(self, deadline: float | None, finish: Callable[[Claim], _T | None], undo: Callable[[_T], object], *, wanting_more: bool = False) -> Steps[_T]:
        call = threading.get_ident(), object()
        self._inside.add(call)
        try:
            return (yield from super()._taking(deadline, finish, undo, wanting_more=wanting_more))
        finally:
            self._inside.discard(call)
            if self._state != "open":
                with self._left:
                    self._left.notify_all()

    def _claim(self) -> Claim | None:
        """The first item, from the file if need be. The caller holds the head."""
        claim = super()._claim()
        while claim is None and self._on_disk():
            if not self._bring_back():
                raise self._overflow.tell_damage()
            claim = super()._claim()
        return claim

    def _bring_back(self) -> int:
        """Move items from the front of the file to memory, as many as one read gives and memory has room for; returns how many. The caller holds the head."""
        with self._behind:
            messages = self._overflow.read(self._budget_items - self._resident)
            before = self._next_sequence
            try:
                self._join_back(messages, Priority.NORMAL)
            finally:
                # One step, even if an interrupt comes in between: what has joined its line has left the file.
                if self._next_sequence != before:
                    self._overflow.took()
            self._watch()
        return len(messages)

    # --- background

    def _watch(self) -> None:
        """Have the core call `_eased` when half of memory has become free, or all that is in the file fits."""
        items = self._overflow.items
        self._low_items = max(self._budget_items // 2, self._budget_items - items) if items else -1
        self._low_bytes = self._budget_bytes // 2

    def _eased(self) -> None:
        self._low_items = -1
        if self._pump is not None and not self._pump_comes:
            # Not at once: a consumer who is quick has brought them himself by then, and two who do it get into each other's way.
            self._pump_comes = True
            self._pump.at(self._clock.monotonic() + _PUMP_AFTER_S, self)

    _pump_comes: bool = False

    def _work(self) -> float | None:
        self._pump_comes = False
        while self._state == "open" and self._resident < self._budget_items and self._resident_bytes + MESSAGE_MAX <= self._budget_bytes:
            with self._head:
                if not self._overflow.items or not self._bring_back():
                    break
            self._head.let_others_in()
        return super()._work()

    # --- closing

    def _last_orders(self) -> None:
        """Whoever waited when the stream was closed gets what is left, before it is thrown away. But for this very thread: a signal's handler may have come over its waiting."""
        promised = {call for call in set(self._inside) if call[0] != threading.get_ident()}
        with self._left:
            self._left.wait_for(lambda: not promised & self._inside)

    def _persist(self) -> None:
        with self._behind:
            self.discarded = self.depth()
            while (claim := super()._claim()) is not None:
                self._settle(claim)
            self._overflow.remove()

    def _at_exit(self) -> None:
        """Nobody has said that what is left may go: it stays, as after a kill."""

    # --- what it says of itself

    def depth(self) -> int:
        """Items in line, in memory and on disk."""
        with self._behind:
            return self._waiting + self._overflow.items

    @property
    def disk_size(self) -> int:
        """Items that are only on disk."""
        return self._overflow.items

    def stats(self) -> QueueStats:
        """The accounts in the terms of every other queue, for who measures them together: `disk_bytes` is what the file holds, `quarantined` what it had lost."""
        with self._tail, self._head, self._behind:
            return replace(
                super().stats(), waiting=self._waiting + self._overflow.items, disk_bytes=self._overflow.nbytes, recovered=self._n_recovered, quarantined=self._overflow.lost,
            )  # fmt: skip

    def stream_stats(self) -> StreamStats:
        with self._behind:
            return StreamStats(
                stream_id=self._options.name or "", depth=self.depth(), memory_items=self._resident, disk_bytes=self._overflow.nbytes, pressure=self.pressure,
                disk_items=self._overflow.items, enqueued=self._n_enqueued, dequeued=self._n_dequeued, recovered=self._n_recovered, lost=self._overflow.lost,
                discarded=self.discarded, refused=dict(self._refused),
            )  # fmt: skip

    def __repr__(self) -> str:
        if not hasattr(self, "_state"):
            return "<StreamQueue (not opened)>"
        state = "" if self._state == "open" else f", {self._state}"
        return f"<StreamQueue {self._options.name}: {self.depth():,} waiting = {self._resident:,} in memory + {self._overflow.items:,} on disk{state}>"


def _folder_at(disk_class: type[Disk], path: str) -> Disk:
    """The folder of the overflow files, made if it is not there. It may be reached by links; it is shared by all streams."""
    path = os.path.realpath(path)
    try:
        return disk_class.open_folder(path)
    except FileNotFoundError:
        return disk_class.create_folder(*os.path.split(path))
