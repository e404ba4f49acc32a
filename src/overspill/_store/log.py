"""The log: the segments of one queue in order, and the disk they may take.

What it promises: the folder never takes more than the budget, preallocation included; syncs happen in log order, so that a later record is never vouched for before
an earlier one; after a failed sync nothing is written any more; a segment is unlinked only when everything in it is settled.

What it leaves to others: which records are written (the runtime, which holds the queue's tail while it appends and rolls), when to sync, seal and retire (the pump and
the group commit). Whoever syncs, or says that something changed, may be interrupted by a signal at any step (everything else here is done by threads that see none): what was about to be
synced is then still to be synced. `_structure` guards the list of segments and the budget; `_preparing` keeps the pump from making two next segments; `_syncing` lets
one sync run at a time. They are taken in the order preparing → syncing → structure, and the tail of the queue before any of them.
"""
from __future__ import annotations

import errno
import itertools
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from .._core.gate import IfFree
from . import layout
from .files import Disk
from .segment import OnDamage, OnRebuilt, Segment, size_for

__all__ = ["Log", "NoRoom"]

KiB = 1024
MiB = 1024 * KiB

SMALLEST_SEGMENT = 32 * KiB
FIRST_SEGMENT = 256 * KiB
LARGEST_SEGMENT = 64 * MiB
LARGEST_PLAIN_SEGMENT = 8 * MiB
"""The plain writer reads a segment as a whole when it seals it."""
LARGEST_RING_SEGMENT = 1 * MiB
"""A ring settles its oldest item with every new one, and gives space back by the segment: in large ones it would take many times what it holds."""

FOLDER_OVERHEAD = 8 * KiB
"""The part of the budget kept for the folder itself and its lock file."""

GROWTH = 4
RECORDS_AT_LEAST = 8
"""Each segment is so many times as large as the one before, until it is of the largest size; and it takes so many batches like the one that it is made for."""

COLD_DESCRIPTORS = 16
"""How many cold segments of a queue are kept open."""

SPARES = 2
LEAST_SPARE = 4 * MiB
"""Consumed segments from this size on are kept to go on in: a sync into initialised blocks is cheaper."""


class NoRoom(Exception):
    """The next record fits neither into the budget nor onto the device."""

    def __init__(self, needed: int, free: int, device: OSError | None = None) -> None:
        super().__init__(needed, free, device)
        self.needed, self.free, self.device = needed, free, device


@dataclass(eq=False)
class _Move:
    """A record of `origin` that was written again in `copy`."""

    origin: Segment
    copy: Segment
    settle: Callable[[], None]
    is_marked: bool = False
    is_over: bool = False


class Log:
    """The segments of an open queue."""

    def __init__(
        self, disk: Disk, *, queue: bytes, max_bytes: int, plain: bool, rings: bool, recycles: bool, now_ns: Callable[[], int],
        on_damage: OnDamage, on_rebuilt: OnRebuilt, on_broken: Callable[[BaseException], None],
    ) -> None:
        self.disk = disk
        self.queue = queue
        self.max_bytes = max_bytes
        self.plain = plain
        self.segments: dict[int, Segment] = {}
        self.active: Segment | None = None
        self.next: Segment | None = None
        self.used_bytes = FOLDER_OVERHEAD
        self.broken: BaseException | None = None
        self.unsealed: list[Segment] = []
        """Rolled, still to be sealed if they are not consumed first."""
        self.emptied: dict[int, Segment] = {}
        """Everything in them is settled: to be retired."""
        self.next_number = 1
        self.sync_count = 0
        self.retired_count = 0
        self.compactions = 0
        self._spares: list[Segment] = []
        self._rings = rings
        self._recycles = recycles
        self._now_ns = now_ns
        self._on_damage = on_damage
        self._on_rebuilt = on_rebuilt
        self._on_broken = on_broken
        self._moves: deque[_Move] = deque()
        """Records that others take the place of, as soon as those are on stable storage; those first whose marks are still to reach it."""
        self._dirty: dict[Segment, None] = {}
        self._names_dirty = False
        self._structure = threading.RLock()
        self._preparing = threading.RLock()
        self._syncing = threading.RLock()
        largest = LARGEST_RING_SEGMENT if rings else LARGEST_PLAIN_SEGMENT if plain else LARGEST_SEGMENT
        self._largest = max(SMALLEST_SEGMENT, min(largest, max_bytes // 8 // 4096 * 4096))
        self._planned = min(FIRST_SEGMENT, self._largest)
        self._prepared = itertools.count(1)

    # --- what there is

    def adopt(self, segments: Iterable[Segment], next_number: int, other_bytes: int) -> None:
        """Take over what recovery found: the earlier segments, and what else takes room in the folder."""
        with self._structure:
            for segment in segments:
                segment.on_damage, segment.on_rebuilt, segment.on_failed = self._on_damage, self._on_rebuilt, self._failed
                self.segments[segment.number] = segment
                self.used_bytes += segment.allocated
            self.used_bytes += other_bytes
            self.next_number = next_number

    @property
    def free_bytes(self) -> int:
        return self.max_bytes - self.used_bytes

    def usable_bytes(self) -> int:
        """About how many bytes of records still fit: in the active segment, and in what may be made of the free budget."""
        share = 1 - layout.geometry(self._largest).records_start / self._largest - 1024 / self._largest
        active = self.active.map.room() if self.active is not None else 0
        waiting = self.next.allocated if self.next is not None else 0
        held = sum(spare.allocated for spare in self._spares)
        return active + int(max(0, self.free_bytes + waiting + held) * max(0.0, share) * 0.95)

    def __len__(self) -> int:
        return len(self.segments)

    def in_order(self) -> list[Segment]:
        """The segments, oldest first."""
        with self._structure:
            return [self.segments[number] for number in sorted(self.segments)]

    # --- room

    def fits_ever(self, record_bytes: int, records: int, lines: int) -> bool:
        """Whether such records could be written if the log were empty."""
        return size_for(record_bytes, records, lines) + FOLDER_OVERHEAD <= self.max_bytes

    def roll(self, record_bytes: int, records: int, lines: int, base_sequence: int) -> Segment:
        """Put the next segment to use, with room for these records. The caller holds the tail. Raises NoRoom and has changed nothing."""
        self.refuse_if_broken()
        least = size_for(record_bytes, records, lines)
        if self._rings:
            # Each new segment lets an old one go. Here, so that what a ring takes on disk does not depend on when the pump gets round to it; not while a sync would have to be waited for.
            with IfFree(self._syncing) as free:
                if free:
                    self.retire_emptied()
        with self._structure:
            number = self.next_number
            previous_end = self.active.map.tail if self.active is not None else 0
            fresh = self._reincarnate(least, number, base_sequence, previous_end)
            taken = None
            if fresh is None and self.next is not None and self.next.allocated >= least:
                taken, self.next = self.next, None
        if fresh is None:
            fresh = taken or self._prepare_for(least)
            self._put_to_use(fresh, number, base_sequence, previous_end)
        self._go_on_in(fresh, number)
        # Here and not by the pump: at each of the system calls that it takes the pump would have to wait for the interpreter lock.
        self.prepare_next()
        return fresh

    def _put_to_use(self, fresh: Segment, number: int, base_sequence: int, previous_end: int) -> None:
        try:
            fresh.put_to_use(number, base_sequence, previous_end, self._now_ns())
        except OSError as error:
            self.discard(fresh)
            raise self._no_room(fresh.allocated, error) from error

    def _go_on_in(self, fresh: Segment, number: int) -> None:
        """From now on this is the active segment, and the one that remembers the sequence number."""
        with self._structure:
            self.next_number = number + 1
            self._names_dirty = True
            old, self.active = self.active, fresh
            if old is not None and not old.retired:
                self.unsealed.append(old)
                if old.map.live == 0:
                    self.emptied[old.number] = old
            elif old is None:
                # The newest of an earlier life was kept for that, whether or not there was anything in it.
                self.emptied |= {segment.number: segment for segment in self.segments.values() if segment.map.live == 0}
            self.segments[number] = fresh
        if old is not None:
            old.map.stop_backing()

    # --- leaving the active segment early

    def is_worth_leaving(self, share: float) -> bool:
        """Whether the newest segment pins much that is settled: no more than this share of it is left, and the folder would be smaller without it, or with a copy of that in its place."""
        newest = self.active or next(reversed(self.in_order()), None)
        if newest is None or newest.allocated < 2 * SMALLEST_SEGMENT:
            return False
        left, count, used = newest.map.live, newest.map.count, newest.map.tail
        if left == 0:
            return True
        return newest is self.active and left <= share * count and size_for(used * left // count, left, layout.LINES) + SMALLEST_SEGMENT <= used // 2

    def leave(self, base_sequence: int) -> Segment:
        """Go on in a segment of the smallest size, whatever room the active one has, so that this one can be sealed and compacted, or removed. What was prepared for more is given back.

        The newest segment remembers the sequence number: header and name of the new one are on stable storage before the name of the old one may go. The caller holds the tail. Raises NoRoom and
        has changed nothing but what was prepared.
        """
        self.refuse_if_broken()
        with self._preparing:
            self.drop_prepared()
            fresh, number = self._prepare(SMALLEST_SEGMENT), self.next_number
            self._put_to_use(fresh, number, base_sequence, self.active.map.tail if self.active is not None else 0)
            try:
                self.disk.datasync(fresh.fd())
                self.disk.sync_folder()
            except OSError as error:
                fresh.close()
                self.break_down(error)
                self.refuse_if_broken()
            self._go_on_in(fresh, number)
        return fresh

    def _reincarnate(self, least: int, number: int, base_sequence: int, previous_end: int) -> Segment | None:
        """The next segment in the place of a consumed one, if there is a spare that is large enough."""
        for spare in self._spares:
            if spare.allocated >= least and spare.recyclable:
                self._spares.remove(spare)
                try:
                    fresh = Segment.reincarnate(
                        spare, number=number, base_sequence=base_sequence, previous_end=previous_end, now_ns=self._now_ns(),
                    )
                except OSError as error:
                    # Its header may say either number by now, and all that it vouches for is settled.
                    self.discard(spare)
                    raise self._no_room(least, error) from error
                fresh.on_damage, fresh.on_rebuilt, fresh.on_failed = self._on_damage, self._on_rebuilt, self._failed
                return fresh
        return None

    def spare(self, segment: Segment) -> bool:
        """Keep a consumed segment to go on in, instead of removing it; False if it does not serve. Its file still says that all is settled.

        Only under `POWER`, where its pages are synced already: without a barrier between the two lives a power cut may leave a mixture of both.
        """
        if not self._recycles or len(self._spares) >= SPARES or segment.allocated < min(LEAST_SPARE, self._largest) or not segment.recyclable:
            return False
        with IfFree(self._syncing) as free:
            if not free:
                return False  # it may be about to be sealed
            with self._structure:
                if segment is self.active or not segment.recyclable or self.segments.pop(segment.number, None) is None:
                    return False
                self.emptied.pop(segment.number, None)
                if segment in self.unsealed:
                    self.unsealed.remove(segment)
                # It stays dirty if it is: the next sync makes its last settle marks durable like any others.
                self._spares.append(segment)
                return True

    def _prepare_for(self, least: int) -> Segment:
        """A segment made by the caller who needs it: of the planned size, as small as the room makes it, no smaller than `least`."""
        self.retire_emptied()
        planned = max(self._planned, min(self._largest, RECORDS_AT_LEAST * least))
        if self.free_bytes < max(least, planned):
            self.drop_spares()
        shortage: NoRoom | None = None
        for size in dict.fromkeys((max(least, planned), max(least, planned // 2), max(least, SMALLEST_SEGMENT), least)):
            if size <= self.free_bytes:
                try:
                    return self._prepare(size)
                except NoRoom as no_room:
                    shortage = no_room  # of the device: a smaller one may still fit
        # The room may be in the segment that was prepared too small, or in the active one when all of it is settled.
        dropped = self._drop_next()
        if (least > self.free_bytes or shortage is not None) and self.active is not None and self.active.map.live == 0:
            self.finish_moves()
            self.retire(self.active)
        elif not dropped and shortage is not None:
            raise shortage
        return self._prepare(least)

    def _no_room(self, needed: int, error: OSError) -> BaseException:
        """What a failed write means: a full device is NoRoom, anything else breaks the log."""
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            return NoRoom(needed, self.free_bytes, error)
        self.break_down(error)
        assert self.broken is not None
        return self.broken

    def _prepare(self, size: int) -> Segment:
        with self._structure:
            if size > self.free_bytes:
                raise NoRoom(size, self.free_bytes)
            self.used_bytes += size
            name = self.temporary_name()
        try:
            segment = Segment.prepare(self.disk, name, self.queue, size, plain=self.plain, now_ns=self._now_ns())
        except OSError as error:
            with self._structure:
                self.used_bytes -= size
            raise self._no_room(size, error) from error
        segment.on_damage, segment.on_rebuilt, segment.on_failed = self._on_damage, self._on_rebuilt, self._failed
        if size >= self._planned:
            self._planned = min(self._largest, size * GROWTH)
        return segment

    def prepare_next(self, wanted: Callable[[], bool] = lambda: True) -> bool:
        """Have the next segment ready before the active one is full. False if there is no room for it now. Whether it is `wanted` is asked once nobody else prepares or drops one."""
        with self._preparing:
            if not wanted() or self.next is not None or self.broken is not None or self._spares:
                return True
            if self.free_bytes < 2 * self._planned:
                return False
            try:
                fresh = self._prepare(self._planned)
            except NoRoom:
                return False
            with self._structure:
                self.next = fresh
            return True

    def back(self, segment: Segment, upto: int) -> None:
        """Have the pages of the active segment backed up to this offset, now. The caller holds the tail."""
        try:
            segment.map.back(upto)
        except OSError as error:
            raise self._no_room(upto - segment.map.populated, error) from error

    def discard(self, segment: Segment) -> None:
        """Give up a segment that holds nothing."""
        with suppress(FileNotFoundError):
            self.disk.unlink(segment.name)
        segment.map.live = 0
        segment.retire()
        with self._structure:
            self.used_bytes -= segment.allocated

    def drop_prepared(self) -> None:
        """Give back what was made ready for more than there is, and begin small again. The caller holds the tail."""
        with self._preparing:
            self._drop_next()
            self._planned = min(FIRST_SEGMENT, self._largest)
            self.drop_spares()

    def _drop_next(self) -> bool:
        """Whether there was a segment that was made ready."""
        with self._structure:
            unfit, self.next = self.next, None
        if unfit is not None:
            self.discard(unfit)
        return unfit is not None

    def drop_spares(self) -> None:
        while self._spares:
            self.discard(self._spares.pop())

    def count_other_bytes(self, n: int) -> None:
        """Something else in the folder (the quarantine) grew by n bytes."""
        with self._structure:
            self.used_bytes += n

    # --- moving a record

    def moved(self, origin: Segment, copy: Segment, settle: Callable[[], None]) -> None:
        """A record of `origin` has been written again in `copy`, saying so; `settle` marks the old one as done.

        I12: pages reach the disk in any order, so the old record is marked only once the new one is on stable storage; and as long as the mark is not, too, the new one's
        segment stays what recovery reads record by record (not sealed, not removed), and the old one's stays where it is (not compacted), so that the address in the new one finds it.
        """
        origin.moving += 1
        copy.moving += 1
        self._moves.append(_Move(origin, copy, settle))

    def finish_moves(self) -> None:
        """No move is under way when this returns: one sync for the records, one for the marks."""
        for _ in range(2):
            if self._moves:
                self.sync()

    # --- syncing

    def refuse_if_broken(self) -> None:
        if self.broken is not None:
            raise self.broken

    def dirtied(self, segment: Segment) -> None:
        """Something in the segment changed after its last sync began."""
        self._dirty[segment] = None
        segment.map.dirty = True

    @property
    def is_dirty(self) -> bool:
        return bool(self._dirty) or self._names_dirty

    def sync(self) -> None:
        """All that was written before the call is on stable storage when it returns. Drops the GIL.

        A failed sync is never tried again: the kernel may have dropped what it could not write and report success next time. The log is broken from then on.
        """
        self._sync_below(None)

    def _sync_below(self, limit: int | None) -> None:
        """`sync`, of the segments with a number below the limit."""
        with self._syncing:
            self.refuse_if_broken()
            moves = list(self._moves) if limit is None else []
            marked = [move for move in moves if move.is_marked]
            self._sync_dirty(limit)
            for move in moves:
                if not move.is_marked:
                    move.settle()
                    move.is_marked = True
            for move in marked:
                if not move.is_over:
                    move.origin.moving -= 1
                    move.copy.moving -= 1
                    move.is_over = True
            while self._moves and self._moves[0].is_over:
                self._moves.popleft()

    def _sync_dirty(self, limit: int | None) -> None:
        dirty = sorted((segment for segment in tuple(self._dirty) if limit is None or segment.number < limit), key=lambda segment: segment.number)
        try:
            for segment in dirty:
                try:
                    self._sync_segment(segment)
                except BaseException:
                    self.dirtied(segment)
                    raise
            if self._names_dirty:
                # Files before the folder: a durable name must never point at bytes that are not.
                self._names_dirty = False
                try:
                    self.disk.sync_folder()
                except BaseException:
                    self._names_dirty = True
                    raise
            self.sync_count += 1
        except OSError as error:
            self.break_down(error)
            self.refuse_if_broken()

    def _sync_segment(self, segment: Segment) -> None:
        self._dirty.pop(segment, None)
        # Cleared before the sync: what changes from here on asks for the next one.
        segment.map.dirty = False
        if segment.retired:
            return
        tail = segment.map.tail
        with segment.held_open() as fd:
            if fd < 0:
                return  # retired since we looked
            self.disk.datasync(fd)
        if tail > segment.map.synced:
            segment.map.synced = tail

    def break_down(self, error: OSError) -> None:
        """The disk failed under a write or sync: nothing is acknowledged any more until the queue is opened again."""
        if self.broken is None:
            self._on_broken(error)

    def _failed(self, error: OSError) -> None:
        """A settle mark could not be written: say so in the error that every call gets from now on."""
        self.break_down(error)
        self.refuse_if_broken()

    # --- sealing and retiring, in the background

    def seal_next(self, next_sequence: int) -> Segment | None:
        """Seal the oldest rolled segment that still holds something, and return it; None if there is none."""
        with self._structure:
            while self.unsealed and (self.unsealed[0].retired or self.unsealed[0].map.live == 0):
                self.unsealed.pop(0)
            if not self.unsealed:
                return None
            segment = self.unsealed[0]
        self.seal(segment, next_sequence)
        with self._structure:
            if self.unsealed and self.unsealed[0] is segment:
                self.unsealed.pop(0)
        return segment

    def seal(self, segment: Segment, next_sequence: int) -> None:
        """Sync everything before the segment, then the segment, and give it its index and footer."""
        if segment.moving:
            self.finish_moves()  # I12
        self._sync_below(segment.number)
        with self._syncing:
            if segment.footer is not None or segment.retired or self.segments.get(segment.number) is not segment:
                return  # sealed by another thread, or consumed, while we synced: its file is gone then, or kept to go on in
            self._dirty.pop(segment, None)
            segment.map.dirty = False
            try:
                given_back = segment.seal(next_sequence)
            except OSError as error:
                self.break_down(error)
                self.refuse_if_broken()
                return
            with self._structure:
                self.used_bytes -= given_back
            segment.let_go_of_fd()

    def retire_emptied(self) -> int:
        """Remove the segments in which everything is settled; returns the bytes given back."""
        given_back = 0
        later: dict[int, Segment] = {}
        if any(segment.moving for segment in tuple(self.emptied.values())):
            self.finish_moves()  # I12
        while self.emptied:
            with self._structure:
                if not self.emptied:
                    break
                _, segment = self.emptied.popitem()
                if segment is self.active or segment.map.live != 0:
                    continue
                if segment.moving:
                    later[segment.number] = segment
                    continue
            if self.spare(segment):
                continue
            given_back += self.retire(segment)
        self.emptied |= later
        return given_back

    def retire(self, segment: Segment) -> int:
        """Remove one segment, everything in which is settled."""
        with self._syncing, self._structure:
            if segment.retired or (segment.rebuilt_indexes and not segment.holds_nothing()):
                return 0
            if segment.map.live != 0:
                raise AssertionError(f"I7: {segment.name} still holds {segment.map.live} items")
            if segment.moving:
                raise AssertionError(f"I12: {segment.name} is one end of {segment.moving} moves")
            held = segment.allocated
            self._dirty.pop(segment, None)
            # Whoever waits for its last settle marks to be durable is served as well by its name being gone: the next sync includes the folder.
            self._names_dirty = True
            self.segments.pop(segment.number, None)
            self.emptied.pop(segment.number, None)
            if segment in self.unsealed:
                self.unsealed.remove(segment)
            if segment is self.active:
                self.active = None
            self.retired_count += 1
            try:
                self.disk.unlink(segment.name)
            except OSError as error:
                self.break_down(error)
                self.refuse_if_broken()
            segment.retire()
            self.used_bytes -= held
            return held

    def limit_descriptors(self) -> None:
        """Close those of cold segments beyond a bound; they are opened again when they are read."""
        idle = [segment for segment in self.in_order() if segment.holds_fd and segment is not self.active and segment not in self._dirty]
        for segment in idle[COLD_DESCRIPTORS:]:
            if not segment.map.mapped:
                segment.let_go_of_fd()

    # --- compaction

    @contextmanager
    def still(self) -> Iterator[None]:
        """No segment comes, goes or is synced meanwhile."""
        with self._syncing, self._structure:
            yield

    def temporary_name(self) -> str:
        return layout.prepared_name(next(self._prepared))

    def reserve(self, n: int) -> bool:
        """Take n bytes of the budget, if they are free."""
        with self._structure:
            if n > self.free_bytes:
                return False
            self.used_bytes += n
            return True

    def unreserve(self, n: int) -> None:
        with self._structure:
            self.used_bytes -= n

    def replace(self, old: list[Segment], new: Segment, *, sync: bool) -> None:
        """Let a compacted segment, whose records are durable, take the place of those that it stands for. `sync`: its marks are newer than that."""
        with self._syncing, self._structure:
            try:
                if sync:
                    # With the old files goes what was on stable storage of their marks: a removal that was acknowledged must not come back with the new one.
                    with new.held_open() as fd:
                        self.disk.datasync(fd)
                # One rename publishes the new one and removes the first old one. From here on a sync covers the name, too.
                self._names_dirty = True
                self.disk.rename(new.name, old[0].name)
                new.name = old[0].name
                for segment in old:
                    self.segments.pop(segment.number, None)
                    self.emptied.pop(segment.number, None)
                    self._dirty.pop(segment, None)
                    self.used_bytes -= segment.allocated
                self.segments[new.number] = new
                new.on_damage, new.on_rebuilt, new.on_failed = self._on_damage, self._on_rebuilt, self._failed
                new.stands_for = old
                if len(old) > 1:
                    self.disk.sync_folder()
                    for segment in old[1:]:
                        self.disk.unlink(segment.name)
            except OSError as error:
                if self.segments.get(new.number) is not new:
                    new.close()
                self.break_down(error)
                self.refuse_if_broken()
            self.compactions += 1

    # --- the end

    def close(self, next_sequence: int) -> None:
        """Seal what holds something, sync, remove what holds nothing, let go of everything. The folder says afterwards that it was closed in order."""
        try:
            if self.broken is None:
                self._close_in_order(next_sequence)
        finally:
            with self._structure:
                self.abandon()

    def _close_in_order(self, next_sequence: int) -> None:
        self._drop_next()
        self.drop_spares()
        self.finish_moves()
        if self.active is not None and self.active.map.live == 0 and self.active.map.tail >= 2 * SMALLEST_SEGMENT:
            with suppress(NoRoom):
                self.leave(next_sequence)
        segments = self.in_order()
        # The last segment stays even if nothing is left in it: it remembers the sequence number.
        for segment in segments[:-1]:
            if segment.map.live == 0:
                self.retire(segment)
        self.active = None
        for segment in self.in_order():
            if segment.footer is None:
                self.seal(segment, next_sequence)
        self.sync()
        self.disk.sync_folder()

    def abandon(self) -> None:
        """Let go of everything without touching the folder: after a fork, or a failed opening."""
        for segment in [*self.segments.values(), *self._spares, *filter(None, [self.next])]:
            for replaced in segment.stands_for:  # retired, unless the compaction failed in the middle of the switch
                replaced.close()
            segment.close()
