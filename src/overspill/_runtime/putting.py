"""The slow half of enqueue: whatever the hot way does not do itself.

pack (encode, compress) → limit → admit → place (write to the log, join the line) → spill → commit → tell. Everything that can refuse an item comes before the first
thing that changes anything.
"""
from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from datetime import timedelta
from functools import partial
from typing import Any, TypeAlias, TypeVar

from .._core.frames import Frames
from .._core.hot import Passed
from .._core.lanes import OVERWRITTEN, Claim
from .._core.parcel import Parcel, render, render_header
from .._core.record import record_length
from .._core.segmap import SegmentMap
from .._store import layout
from .._store.log import NoRoom
from .._store.segment import Segment
from ..codecs import compress
from ..errors import InvalidOption, ItemTooLarge, NotSerializable, QueueFull, RateLimited
from ..options import Durability, WhenFull, seconds
from .parts import NEVER, NO_LIMIT, Parts, Restored
from .waiting import Steps, blocking, within

__all__ = ["Putting"]

_SMALL_PAYLOAD = 32768
"""Above it a payload goes to the file by `pwrite`, without the interpreter lock (the core draws the same line)."""

_BRIEF_BYTES = 1 << 20
"""More than this is not written while an event loop stands still."""


_NORMAL = 128

_T = TypeVar("_T")
_Append: TypeAlias = Callable[[SegmentMap, list[Parcel], list[int] | None, int], _T]



class TooManyItems(NoRoom):
    """`max_items` are in line."""

    def __init__(self) -> None:
        super().__init__(0, 0)


class Putting(Parts):
    """`enqueue`, `enqueue_batch`, `enqueue_front` where the hot way declined."""

    def _enqueue_slow(self, item: Any, priority: Any, ttl: Any, delay: Any, durability: Any, timeout: Any) -> None:
        blocking(self._enqueueing(item, priority, ttl, delay, durability, timeout))

    def _enqueue_batch_slow(self, items: Iterable[Any], priority: Any, ttl: Any, delay: Any, durability: Any, timeout: Any) -> None:
        blocking(self._enqueueing_batch(items, priority, ttl, delay, durability, timeout))

    def enqueue_front(self, item: Any, *, priority: int = 128, ttl: float | timedelta | None = None) -> None:
        """Put `item` before everything of its priority: the last one put in front comes out first.

        Raises what `enqueue` raises.
        """
        blocking(self._enqueueing_front(item, priority, ttl))

    # --- the same as steps

    def _enqueueing(self, item: Any, priority: Any, ttl: Any, delay: Any, durability: Any, timeout: Any) -> Steps[None]:
        self._refuse(taking=False)
        promise = self._promise(durability)
        parcel = self._pack(item, self._level(priority), self._expiry(ttl), self._due(delay))
        yield from self._putting([parcel], promise, self._deadline(timeout))

    def _enqueueing_batch(self, items: Iterable[Any], priority: Any, ttl: Any, delay: Any, durability: Any, timeout: Any) -> Steps[None]:
        self._refuse(taking=False)
        promise = self._promise(durability)
        level, expiry, due_ns = self._level(priority), self._expiry(ttl), self._due(delay)
        if ttl is None and not due_ns and promise == self._options.durability and (yield from self._putting_as_it_is(items, level)):
            if self._is_power(promise):
                yield from self._covering()
            return
        parcels = [self._pack(item, level, expiry, due_ns) for item in items]
        if parcels:
            yield from self._putting(parcels, promise, self._deadline(timeout))

    def _enqueueing_front(self, item: Any, priority: int, ttl: float | timedelta | None) -> Steps[None]:
        self._refuse(taking=False)
        parcel = self._pack(item, self._level(priority), self._expiry(ttl))
        parcel.flags = layout.RECORD_FLAG_FRONT
        yield from self._putting([parcel], self._options.durability, None)

    def _putting_as_it_is(self, items: Iterable[Any], level: int) -> Steps[bool]:
        """A batch that the hot way declined only because the segment was full, or a sync must follow, goes that way all the same."""
        if not self._plain_items or not self._logs:
            return False
        assert self._log is not None
        total = self._plain_batch_bytes(items)
        if total <= 0:
            return False
        put = partial(self._batch_as_it_is, items, level, total)
        if self._is_brief(total, len(items)):  # type: ignore[arg-type]
            return (yield from within(self._tail, put, inner=self._head))
        return (yield from self._errand(put, self._tail).steps())

    def _batch_as_it_is(self, items: Iterable[Any], level: int, total: int) -> bool:
        self._refuse(taking=False)
        try:
            segment = self._tail_for(total, len(items), {level})  # type: ignore[arg-type]
        except NoRoom:
            return False
        self._log.back(segment, segment.map.tail + total)  # type: ignore[union-attr]
        return self._put_batch(items, level)

    def _pass_by(self, frames: Frames, image: bytearray) -> Passed | None:
        """Put frames at the end and take them at once, so that they are in the log and never in line: for who hands them on himself, and then settles them (`_settle_passed`) or leaves
        them to the next opening. They are made into records in `image`, which go into the file by one `pwrite`.

        None: nothing has changed, and they must go through the line. That is so while anything is in line, before which they must not come; where there is no room; and unless it is the log, and
        no sync, that makes a call's promise hold (`Durability.PROCESS`).
        """
        if not len(frames) or not self._logs or self._commits or self._waiting or self._is_due() or self._limiter is not None or frames.record_bytes > len(image):
            return None
        if frames.longest > self._options.max_item_size:
            return None
        with self._tail:
            self._refuse(taking=False)
            try:
                segment = self._tail_for(frames.record_bytes, len(frames), {_NORMAL})
                map = segment.map
                self._render_frames(map, frames, image)
                self._write_image(segment, memoryview(image)[: frames.record_bytes])
            except NoRoom:
                return None
            passed = self._let_pass(map, frames)
            self._grown(map)
        return passed

    def _write_image(self, segment: Segment, image: memoryview) -> None:
        """Records as they will stand in the file, at its tail."""
        assert self._disk is not None
        if not segment.map.plain:
            segment.map.pass_over(segment.map.tail + len(image))
        try:
            self._disk.pwrite(segment.fd(), image, segment.map.tail)
        except BaseException as error:
            self._abandon_tail(segment, error)
            raise

    _plain_items: bool = False
    """Whether items go in as the hot way has them: mapped, uncompressed."""

    def _restore(self, items: Iterable[Restored]) -> None:
        """Put items that were in a queue before, as one batch: each keeps its identity, dates and attempts. For tools that move queues; raises what `enqueue_batch` raises."""
        self._refuse(taking=False)
        parcels = []
        for each in items:
            parcel = self._pack(each.item, self._level(each.priority), each.expiry_ns, each.due_ns)
            parcel.id, parcel.enqueued_ns, parcel.attempts = each.id or None, each.enqueued_ns, each.attempts  # type: ignore[assignment]
            parcels.append(parcel)
        if parcels:
            blocking(self._putting(parcels, self._options.durability, None))

    # --- arguments

    def _level(self, priority: Any) -> int:
        if isinstance(priority, bool) or not isinstance(priority, int) or not 0 <= priority <= 255:
            raise InvalidOption("priority", priority, "an int from 0 to 255, or Priority.LOW, NORMAL, HIGH")
        return int(priority)

    def _expiry(self, ttl: float | timedelta | None) -> int:
        """When an item enqueued now expires, in wall-clock ns; 0 = never."""
        life_ns = self._ttl_ns if ttl is None else round(seconds("ttl", ttl, above_0=True) * 1e9)
        return self._now_ns() + life_ns if life_ns else 0

    def _due(self, delay: float | timedelta | None) -> int:
        """When an item enqueued now is to be in line, in wall-clock ns; 0 = at once."""
        wait_s = 0.0 if delay is None else seconds("delay", delay)
        if not wait_s:
            return 0
        due_ns = self._now_ns() + round(wait_s * 1e9)
        if due_ns >= 1 << 63:
            raise InvalidOption("delay", delay, "so short that it ends before the year 2262")
        return int(due_ns)

    def _promise(self, durability: Durability | None) -> Durability:
        own = self._options.durability
        if durability is None:
            return own
        if not isinstance(durability, Durability):
            raise InvalidOption("durability", durability, "a member of Durability, at least the queue's own")
        if durability < own:
            raise InvalidOption("durability", durability, f"{own!r} or stronger: a call can raise the queue's durability, not lower it")
        if self._log is None and durability > Durability.MEMORY:
            raise InvalidOption("durability", durability, "a queue without a disk_path keeps nothing beyond the process")
        return durability

    def _deadline(self, timeout: float | timedelta | None) -> float | None:
        return None if timeout is None else self._clock.monotonic() + seconds("timeout", timeout)

    def _pack(self, item: Any, priority: int, expiry_ns: int, due_ns: int = 0) -> Parcel:
        """Encode, check, compress. The item's value is the one it has now: later changes to a list do not reach the queue."""
        try:
            kind, payload = self._codec.encode(item)
        except NotSerializable:
            self._refused["not_serializable"] += 1
            raise
        nbytes = len(payload)
        if nbytes > self._options.max_item_size:
            self._refused["too_large"] += 1
            raise ItemTooLarge(size=nbytes, limit=self._options.max_item_size)
        direct = self._codec.keeps_object(item)
        codec, stored = self._compressed(payload)
        extension = layout.pack_extension(due_ns=due_ns) if due_ns else b""
        parcel = Parcel(item if direct else payload, direct, kind, codec, extension + stored if extension else stored, nbytes, priority, expiry_ns)
        if due_ns:
            parcel.flags, parcel.extension, parcel.time_ns = layout.RECORD_FLAG_DELAYED, len(extension) // layout.PLACE_UNIT, due_ns
        return parcel

    def _compressed(self, payload: bytes) -> tuple[int, bytes]:
        """(codec, payload as stored): compressed where the queue does that and it pays."""
        smaller = compress(self._compression, payload) if self._compression and self._log is not None else None
        return (0, payload) if smaller is None else (self._compression, smaller)

    # --- admitting

    def _putting(self, parcels: list[Parcel], promise: Durability, deadline: float | None) -> Steps[None]:
        yield from self._waiting_for_rate(len(parcels), deadline)
        try:
            try:
                admitted = yield from self._admitting(parcels, promise, deadline)
            except BaseException:
                self._give_back_tokens(len(parcels))
                raise
            if not admitted:
                self._give_back_tokens(len(parcels))
                return
            if self._is_power(promise):
                yield from self._covering()
        finally:
            self._tell()

    def _waiting_for_rate(self, n: int, deadline: float | None) -> Steps[None]:
        """Take `n` tokens, once: for as long as the items are not refused for another reason, these are theirs, however long they wait for room."""
        limiter, turns, limit = self._limiter, self._turns, self._options.rate_limit
        if limiter is None or turns is None or limit is None:
            return
        if not limiter.queued:
            wait_s = limiter.take(self._clock.monotonic(), n)
            if not wait_s:
                return
            if limit.on_limit != "wait":
                self._refused["rate"] += 1
                raise RateLimited(retry_after=wait_s, where=self._options.name)
        with turns.turn(n) as turn:
            while True:
                ahead = turn.ahead()
                now = self._clock.monotonic()
                wait_s = limiter.wait(now, n, ahead) if ahead else limiter.take(now, n)
                if not (ahead or wait_s):
                    return
                if deadline is not None and (now + wait_s > deadline or now >= deadline):
                    self._refused["rate"] += 1
                    raise RateLimited(
                        f"the rate limit lets nothing pass for another {wait_s:.6g} s, which is longer than the timeout", retry_after=wait_s, where=self._options.name,
                        hint="raise the timeout, or the rate",
                    )
                if self._state == "open":
                    yield turn.waiter, (None if deadline is None else deadline - now) if ahead else wait_s
                self._refuse(taking=False)

    def _give_back_tokens(self, n: int) -> None:
        """Items that had passed the rate limit did not get in after all."""
        if self._limiter is not None and self._turns is not None:
            self._limiter.give_back(n)
            self._turns.wake_first()

    def _admitting(self, parcels: list[Parcel], promise: Durability, deadline: float | None) -> Steps[bool]:
        """Place the parcels, making or awaiting room as `when_full` says. False: they were dropped, and counted."""
        with self._makers.place() as place:
            while True:
                shortage = yield from self._placing(parcels, promise)
                if shortage is None:
                    return True
                policy = self._options.when_full
                if not self._could_ever_fit(parcels, promise):
                    self._refused["full"] += 1
                    raise self._full_error(shortage, for_ever=True)
                if policy is WhenFull.DROP_NEWEST:
                    self._drop(parcels, "full_newest")
                    return False
                if policy is WhenFull.DROP_OLDEST and (yield from within(self._head, self._drop_oldest)):
                    continue
                now = self._clock.monotonic()
                if (policy is WhenFull.RAISE and deadline is None) or (deadline is not None and now >= deadline):
                    self._refused["full"] += 1
                    raise self._full_error(shortage)
                if place.take() or (self._log is not None and self._log.emptied and (yield from self._errand(self._log.retire_emptied).steps())):
                    continue
                timeout = None if deadline is None else deadline - now
                if shortage.device is not None:
                    # The device is full, and nobody tells us when another program frees some of it.
                    timeout = 1.0 if timeout is None else min(timeout, 1.0)
                yield place.waiter, timeout

    def _full_error(self, shortage: NoRoom, for_ever: bool = False) -> Exception:
        where = self._disk.path if self._disk is not None else self._options.name
        if isinstance(shortage, TooManyItems):
            return QueueFull(
                f"the batch has more items than the queue may ever hold, max_items={self._most_items:,}" if for_ever else f"max_items={self._most_items:,} are in line",
                where=where, hint="raise max_items, or split the batch" if for_ever else "take something out, raise max_items, or choose another when_full",
            )
        if for_ever:
            return QueueFull(
                f"the item needs {shortage.needed:,} bytes at once, which is more than the queue may ever hold",
                where=where, hint="raise max_disk_size or memory_limit, or split the batch",
            )
        if shortage.device is not None:
            return QueueFull(f"the disk is full: {shortage.device.strerror}", where=where, hint="free some space; the queue goes on by itself then")
        if self._log is None:
            return QueueFull(f"the memory tier is full ({self._resident:,} items) and there is no disk_path", where=where, hint="take something out, or give the queue a disk_path")
        return QueueFull(
            f"max_disk_size is reached: {self._log.used_bytes:,} of {self._log.max_bytes:,} bytes are in use and {shortage.needed:,} more are needed",
            where=where, hint="take something out, raise max_disk_size, or choose another when_full",
        )

    def _could_ever_fit(self, parcels: list[Parcel], promise: Durability) -> bool:
        if len(parcels) > self._most_items:
            return False
        if self._log is not None:
            total = sum(record_length(len(parcel.payload)) for parcel in parcels)
            return self._log.fits_ever(total, len(parcels), len({parcel.line for parcel in parcels}))
        return len(parcels) <= self._budget_items and sum(parcel.nbytes for parcel in parcels) <= self._budget_bytes

    def _drop(self, parcels: Sequence[Parcel], reason: str) -> None:
        self._dropped[reason] += len(parcels)
        self._dropped_unseen += len(parcels)
        if self._options.on_dropped is not None:
            for parcel in parcels:
                item = parcel.item if parcel.direct else self._codec.decode(parcel.kind, parcel.item)
                self._tell_later(lambda item=item: self._options.on_dropped(item, reason))  # type: ignore[misc]

    def _drop_oldest(self) -> bool:
        """Give up the item in line that was enqueued first, unless it expires instead. If none is, the first dead letter; then the delayed item that is due first. False if there is nothing at all."""
        with self._head:
            priority = self._oldest_lane()
            if priority >= 0 and self._expire_first(priority):
                return True
            claim = self._claim_from(priority) if priority >= 0 else None
            claim = claim or self._claim_from(layout.DEAD_LINE) or self._claim_from(layout.DELAYED_LINE)
            if claim is None:
                return False
            self._settle(claim, OVERWRITTEN)
            self._tell_dropped(claim, "full_oldest")
        return True

    def _tell_dropped(self, claim: Claim, reason: str) -> None:
        if self._options.on_dropped is not None:
            try:
                item = self._item_of(claim)
            except Exception:
                item = None
            self._tell_later(lambda: self._options.on_dropped(item, reason))  # type: ignore[misc]

    def _overwrite(self) -> None:
        """Under DROP_OLDEST the oldest gives way once the newer one is in, so that a kill in between costs nothing. Called by the core, too, where it cannot do it itself."""
        while self._waiting > self._most_items and self._drop_oldest():
            pass

    def _limit_items(self, most: int | None) -> None:
        """Let so many items be in line from now on; what is more than that stays. Whoever waits for a place looks again."""
        self._most_items = NO_LIMIT if most is None else most
        self._makers.wake_all()

    def _placing(self, parcels: list[Parcel], promise: Durability) -> Steps[NoRoom | None]:
        """Place the parcels; what room was lacking if they could not be."""
        place_them = partial(self._place_or_not, parcels, promise)
        if self._places_briefly(parcels, promise):
            return (yield from within(self._tail, place_them, inner=self._head))
        return (yield from self._errand(place_them, self._tail).steps())

    def _places_briefly(self, parcels: list[Parcel], promise: Durability) -> bool:
        """Whether to place these takes no longer than storing them."""
        if self._log is None:
            return True
        nbytes, records = sum(parcel.nbytes for parcel in parcels), len(parcels)
        if not self._logs and promise < Durability.PROCESS:
            if self._resident + records <= self._budget_items and self._resident_bytes + nbytes <= self._budget_bytes:
                return True
            nbytes, records = nbytes + self._resident_bytes, records + self._resident  # spilled to make room, at most
        return self._is_brief(nbytes + 88 * records, records)

    def _is_brief(self, nbytes: int, records: int) -> bool:
        """Whether so many bytes of records can be written without much ado: a further segment may have to wait for a sync."""
        active = self._log.active if self._log is not None else None
        return active is not None and nbytes <= _BRIEF_BYTES and nbytes + 4 * records + 64 < active.map.room()

    # --- placing (the caller holds the tail)

    def _place_or_not(self, parcels: list[Parcel], promise: Durability) -> NoRoom | None:
        self._refuse(taking=False)
        try:
            self._place(parcels, promise)
        except NoRoom as shortage:
            return shortage
        return None

    def _place(self, parcels: list[Parcel], promise: Durability) -> None:
        """Write the parcels if the promise asks for it, let them join their lines, then spill what is over the budget. Raises NoRoom and has changed nothing."""
        overwrites = self._options.when_full is WhenFull.DROP_OLDEST
        if len(parcels) > self._most_items or (self._waiting + len(parcels) > self._most_items and not overwrites):
            raise TooManyItems
        segment: Segment | None = None
        logged = (
            self._log is not None
            and (self._logs or promise >= Durability.PROCESS or any(parcel.nbytes > self._budget_bytes for parcel in parcels) or self._would_go_first(parcels))
        )
        if not logged:
            self._make_room_in_memory(parcels)
            self._number(parcels)
        with self._head if self._options.rings else nullcontext():  # nobody sees one too many
            if logged:
                segment, _ = self._write(parcels, self._append_and_join)
            else:
                self._join_unlogged(parcels)
            if self._waiting > self._most_items:
                self._overwrite()
        if segment is not None:
            self._grown(segment.map)
        if self._resident > self._soft_items or self._resident_bytes > self._soft_bytes:
            self._relieve()
        if self._next_due < self._due_planned:
            self._plan_due()

    def _make_room_in_memory(self, parcels: list[Parcel]) -> None:
        """A MEMORY queue spills before it takes more, so that a full disk refuses the new item and not an old one."""
        items, nbytes = len(parcels), sum(parcel.nbytes for parcel in parcels)
        if self._log is None:
            if self._resident + items > self._budget_items or self._resident_bytes + nbytes > self._budget_bytes:
                raise NoRoom(nbytes, max(0, self._budget_bytes - self._resident_bytes))
            return
        # What is in memory must find its place on disk when the queue is closed.
        needed = self._resident_bytes + nbytes + 80 * (self._resident + items)
        if needed > self._log.usable_bytes():
            self._log.retire_emptied()
            if needed > (room := self._log.usable_bytes()):
                raise NoRoom(needed, room)
        self._spill_to(max(0, self._budget_items - items), max(0, self._budget_bytes - nbytes))

    def _would_go_first(self, parcels: list[Parcel]) -> bool:
        raise NotImplementedError

    def _write(self, parcels: list[Parcel], append: _Append[_T]) -> tuple[Segment, _T]:
        """Append the parcels to the log as one batch. They are numbered once it is sure that they fit.

        `append` is the step of the core that makes them a part of the log, with whatever must be the case as soon as they are: no interruption comes in between.
        """
        assert self._log is not None
        total = sum(record_length(len(parcel.payload)) for parcel in parcels)
        segment = self._tail_for(total, len(parcels), {parcel.line for parcel in parcels})
        map = segment.map
        self._number(parcels)
        if map.plain or any(len(parcel.payload) > _SMALL_PAYLOAD for parcel in parcels):
            return segment, self._write_through_file(segment, parcels, total, append)
        self._log.back(segment, map.tail + total)
        return segment, append(map, parcels, None, total)

    def _tail_for(self, total: int, records: int, lines: set[int]) -> Segment:
        """The active segment if the records fit, else the next."""
        assert self._log is not None
        self._log.refuse_if_broken()
        old = self._log.active
        if old is not None and old.map.appendable and self._fits(old, total, records, lines):
            return old
        segment = self._log.roll(total, records, len(lines), self._next_sequence)
        self._go_on_in(segment, old)
        if not self._fits(segment, total, records, lines):
            raise AssertionError("I8: a fresh segment must have room for what it was made for")
        return segment

    def _go_on_in(self, segment: Segment, old: Segment | None) -> None:
        """The log goes on in another segment. The caller holds the tail."""
        assert self._log is not None
        self._tail_map = segment.map
        if old is not None and old.map.live == 0:
            self._emptied(old.map)  # its last items may have left during the roll, when the core still took it for the active one
        # A new header, perhaps over one that an earlier life of the file left: the next sync must cover it even before it holds a record.
        self._dirtied(segment.map)
        if self._log.next is None:
            self._poke_at = 0  # the next hot enqueue has the pump make the segment after this one, once there is room
        if self._pump is not None:
            self._pump.back_pages()

    @staticmethod
    def _fits(segment: Segment, total: int, records: int, lines: set[int]) -> bool:
        map = segment.map
        return all(map.admit_line(line) for line in lines) and map.tail + total + 4 * records <= map.limit

    def _write_through_file(self, segment: Segment, parcels: list[Parcel], total: int, append: _Append[_T]) -> _T:
        """Large payloads, and everything on a plain file system: by `pwrite`, the first record last, each header after its payload."""
        assert self._disk is not None and self._log is not None
        map = segment.map
        at = map.tail
        tail = at
        offsets = []
        for parcel in parcels:
            offsets.append(at)
            at += record_length(len(parcel.payload))
        if not map.plain:
            map.pass_over(at)
        try:
            if all(len(parcel.payload) <= _SMALL_PAYLOAD for parcel in parcels):
                self._disk.pwrite(segment.fd(), render(map, map.tail, parcels, 0), map.tail)
            else:
                for left, (parcel, offset) in enumerate(zip(reversed(parcels), reversed(offsets), strict=True)):
                    header = render_header(map, offset, parcel, left)
                    padding = -len(parcel.payload) % 8
                    self._disk.pwrite(segment.fd(), parcel.payload, offset + len(header))
                    if padding:
                        self._disk.pwrite(segment.fd(), bytes(padding), offset + len(header) + len(parcel.payload))
                    self._disk.pwrite(segment.fd(), header, offset)
            return append(map, parcels, offsets, total)
        except BaseException as error:
            if map.tail == tail:
                self._abandon_tail(segment, error)
            raise

    def _abandon_tail(self, segment: Segment, error: BaseException) -> None:
        """A write failed half way: what it left behind the tail must never be taken for records, so nothing is appended here any more."""
        assert self._disk is not None and self._log is not None
        segment.map.give_up_room()
        segment.abandoned = True
        try:
            self._disk.truncate(segment.fd(), max(segment.map.tail, segment.header.records_start))
        except OSError as worse:
            self._log.break_down(worse)
            raise self._broken_error() from worse
        if isinstance(error, OSError):
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise NoRoom(self._waiting, 0, error) from error
            self._log.break_down(error)
            raise self._broken_error() from error

    # --- what the core calls

    def _soon(self) -> None:
        if self._pump is not None:
            self._pump.soon(self)

    def _poke(self) -> None:
        """The tail has come so far that the next segment should be made ready."""
        self._poke_at = NEVER
        self._soon()

    _dropped_unseen: int = 0
    """Dropped before they joined a line: never counted as enqueued by the core."""
