"""What is in the queue and not in line: the delayed, which wait for their time, and the dead letters, which were given up.

Both are lines of their own, ordered by time, in the same log. An item that is enqueued with a delay is written into its line; one that is already in the log is *moved*: written again,
with its id, its sequence number and its attempts, and the address of the record that it replaces. The old record is marked as done once the new one is on stable storage (I12), so the
item is there once after a kill and never missing after a power cut.

Where the log has no room for another record, the item is set apart in memory only and its record stays where it is: it is in line again when the queue is next opened. Nothing here
fails for want of room.

The caller holds the tail and the head unless something else is said.
"""
from __future__ import annotations

from functools import partial

from .._core.lanes import DEAD_LETTERS_FULL, Claim
from .._core.parcel import Parcel
from .._store import layout
from .._store.layout import Death, Origin
from .._store.log import NoRoom
from .parts import NEVER
from .putting import Putting

__all__ = ["ATTEMPTS_MAX", "MAX_ATTEMPTS", "REASONS", "REJECTED", "Apart"]

MAX_ATTEMPTS, REJECTED = 1, 2
REASONS = {MAX_ATTEMPTS: "max_attempts", REJECTED: "rejected"}
"""Why an item is a dead letter, as it is written (format page, table 7)."""

ATTEMPTS_MAX = 255
_SAME_TIME_NS = 1_000_000


class Apart(Putting):
    """Setting items apart, and putting them in line again."""

    _deaths: dict[int, Death]
    """What is to be said of dead letters that have no record that says it, by sequence number."""
    _last_death_ns: int = 0
    _exhausted: list[tuple[Claim, str]]
    """Claims that have had their last attempt, and why it was one: to be given up by whoever next holds the tail."""

    # --- attempts

    def _attempts_of(self, claim: Claim) -> int:
        """How often the item of a claim, or of a copy, was leased: a record says how often before it was written, its segment how often since. Needs no lock."""
        map, offset = self._locate_copy(claim)
        if map is None:
            return claim.attempts
        map.owner.attach()
        return min(claim.attempts + map.attempts(offset), ATTEMPTS_MAX)

    def _is_exhausted(self, attempts: int) -> bool:
        most = self._options.max_attempts
        return most is not None and attempts >= most

    # --- the delayed

    def _postpone(self, claim: Claim, wait_s: float) -> None:
        """A claimed item is to be in line again after so many seconds."""
        due_ns = self._now_ns() + round(wait_s * 1e9)
        self._move(claim, layout.DELAYED_LINE, due_ns)
        self._plan_due()

    def _plan_due(self) -> None:
        """Have the pump come when the next delayed item is due. Needs no lock."""
        due_ns = self._next_due
        if self._pump is not None and due_ns < self._due_planned:
            self._due_planned = due_ns
            self._pump.at(self._clock.monotonic() + max(0, due_ns - self._now_ns()) / 1e9, self)

    def _let_in(self, now: float, due: list[float]) -> None:
        """The pump: let in line what is due, and say when the next is. Takes the head."""
        if self._is_due():
            with self._head:
                self._promote_due()
        self._due_planned = NEVER
        wait_ns = self._next_due - self._now_ns()
        if self._next_due < NEVER and wait_ns > 0:  # what is due and not let in is let in by whoever makes room for it
            self._due_planned = self._next_due
            due.append(now + wait_ns / 1e9)

    # --- the dead letters

    def _bury(self, claim: Claim, reason: int, error: str) -> None:
        """A claimed item is given up."""
        now_ns = self._now_ns()
        if 0 <= self._last_death_ns - now_ns < _SAME_TIME_NS:
            now_ns = self._last_death_ns + 1  # of those that die at the same time, the first comes first
        self._last_death_ns = now_ns
        death = Death(now_ns, reason, layout.cut_to_fit(error))
        claim.expiry_ns = 0  # it is kept until somebody has looked at it
        self._move(claim, layout.DEAD_LINE, death.dead_ns, death)
        self._keep_dead_letters_to_limit()

    def _bury_exhausted(self) -> None:
        """Give up whatever has had its last attempt. Takes tail and head."""
        if self._exhausted:
            with self._tail, self._head:
                self._bury_all_exhausted()

    def _bury_all_exhausted(self) -> None:
        while self._exhausted:
            claim, error = self._exhausted.pop(0)
            self._bury(claim, MAX_ATTEMPTS, error)

    def _keep_dead_letters_to_limit(self) -> None:
        limit = self._options.dead_letter_limit
        while limit is not None and self._dead > limit:
            claim = self._claim_from(layout.DEAD_LINE)
            if claim is None:
                return
            self._settle(claim, DEAD_LETTERS_FULL)
            self._forget_death(claim)
            self._tell_dropped(claim, "dead_letters_full")

    def _death_of(self, claim: Claim) -> Death:
        """Why a claimed item, or a copy of one, is a dead letter. Needs no lock."""
        known = self._deaths.get(claim.sequence)
        if known is not None:
            return known
        map, offset = self._locate_copy(claim)
        said = layout.death_of(map.owner.extension(offset)) if map is not None else None
        return said if said is not None else Death(claim.time_ns, 0, "")

    def _forget_death(self, claim: Claim) -> None:
        self._deaths.pop(claim.sequence, None)

    def _return_dead(self, claim: Claim, death: Death) -> None:
        """A claimed dead letter is one again: its record may say so, and if not, memory does."""
        if claim.map is None or not claim.flags & layout.RECORD_FLAG_DEAD:
            self._deaths[claim.sequence] = death
        self._set_apart(claim, layout.DEAD_LINE, death.dead_ns, True)

    def _replay(self, claim: Claim) -> None:
        """A claimed dead letter goes to the end of its priority's line, as if it were new. Raises NoRoom, and it is a dead letter again."""
        death = self._death_of(claim)
        expiry_ns = self._now_ns() + self._ttl_ns if self._ttl_ns else 0
        map, offset = self._locate(claim)
        is_written = map is not None or self._logs
        parcel = self._parcel_of(claim, 0, layout.pack_extension(origin=None if map is None else Origin(map.number, offset)), is_written=is_written)
        parcel.attempts, parcel.expiry_ns = 0, expiry_ns
        parcel.sequence = 0  # a new place
        if map is not None:
            parcel.flags = layout.RECORD_FLAG_MOVED
        try:
            segment, offsets = self._write([parcel], self._append) if is_written else (None, [0])
        except NoRoom:
            self._return_dead(claim, death)
            raise
        self._number([parcel])
        self._forget_death(claim)
        self._join_again(parcel, segment.map if segment else None, offsets[0], claim)
        if segment is not None:
            self._grown(segment.map)
            self._fold_stubs(claim.priority)
            if map is not None:
                assert self._log is not None
                self._log.moved(map.owner, segment, partial(self._settle_record, claim))
        if self._n_takers:
            self._takers.wake()

    # --- moving

    def _move(self, claim: Claim, line: int, time_ns: int, death: Death | None = None) -> None:
        """Set a claimed item apart, in the log if it is there already; the claim is spent."""
        map, offset = self._locate(claim)
        attempts = self._attempts_of(claim)
        if map is None and not self._logs:
            if death is not None:
                self._deaths[claim.sequence] = death
            self._set_apart(claim, line, time_ns, False)
            return
        origin = None if map is None else Origin(map.number, offset)
        delayed = line == layout.DELAYED_LINE
        extension = layout.pack_extension(due_ns=time_ns if delayed else None, death=death, origin=origin)
        flags = layout.RECORD_FLAG_DELAYED | claim.flags & layout.RECORD_FLAG_FRONT if delayed else layout.RECORD_FLAG_DEAD
        parcel = self._parcel_of(claim, flags | (layout.RECORD_FLAG_MOVED if origin else 0), extension)
        parcel.attempts, parcel.time_ns = attempts, time_ns
        try:
            segment, offsets = self._write([parcel], self._append)
        except NoRoom:
            if death is not None:
                self._deaths[claim.sequence] = death
            self._set_apart(claim, line, time_ns, True)
            return
        self._forget_death(claim)
        self._grown(segment.map)
        old = self._moved(claim, segment.map, offsets[0], parcel.flags, parcel.codec, attempts)
        self._set_apart(claim, line, time_ns, False)
        if old is not None:
            assert map is not None and self._log is not None
            self._log.moved(map.owner, segment, partial(self._settle_record, old))

    def _parcel_of(self, claim: Claim, flags: int, extension: bytes, *, is_written: bool = True) -> Parcel:
        """A claimed item as it is written again, under its own number; or, if it is not, as it stays in memory, where it may be any object."""
        if not is_written:
            parcel = Parcel(claim.stored, claim.direct, claim.kind, claim.codec, b"", claim.nbytes, claim.priority, claim.expiry_ns)
            parcel.sequence, parcel.id, parcel.enqueued_ns, parcel.flags = claim.sequence, claim.id, claim.enqueued_ns, flags
            return parcel
        stored, kind, codec = claim.stored, claim.kind, claim.codec
        if not claim.has_payload:
            map, offset = self._locate(claim)
            assert map is not None  # only a record's payload can be away from memory
            stored = map.owner.recall(offset)
            assert stored is not None  # it was read when it was leased
            codec = claim.record_codec
        elif claim.direct and kind == 1:
            stored = stored.encode()
        elif claim.direct and kind:
            kind, stored = self._codec.encode(stored)
        parcel = Parcel(claim.stored if claim.has_payload else stored, claim.direct, kind, codec, extension + stored, claim.nbytes, claim.priority, claim.expiry_ns)
        parcel.sequence, parcel.id, parcel.enqueued_ns = claim.sequence, claim.id, claim.enqueued_ns
        parcel.flags, parcel.extension = flags, len(extension) // layout.PLACE_UNIT
        return parcel
