"""The dead letters of a queue as the user sees them."""
from __future__ import annotations

import uuid
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from typing import Any

from .._core.lanes import CLEARED, REMOVED
from .._store import layout
from .._store.layout import Death
from .._store.log import NoRoom
from ..errors import InvalidOption, QueueEmpty
from .apart import REASONS
from .waiting import Errand, Steps, blocking, within

__all__ = ["DeadLetter", "DeadLetters"]


@dataclass(frozen=True)
class DeadLetter:
    """An item that was given up, and why."""

    item: Any = field(repr=False)
    id: uuid.UUID
    """The same as at each of its deliveries."""
    attempts: int
    """How often it was leased; 255 stands for more."""
    reason: str
    """`max_attempts`: every attempt failed. `rejected`: a handler said that another would be in vain."""
    error: str
    """What the last attempt failed with, as far as anybody said; at most some 2,000 bytes of it."""
    dead_at: float
    """When it was given up, in seconds since the epoch."""
    enqueued_at: float
    priority: int


class DeadLetters:
    """What ran out of attempts or was rejected, in the order in which that happened; `q.dead_letters`.

    A view on the queue: it is where its items are, on the same disk, as durable as they are, and works as long as the queue is open. Dead letters do not expire.
    """

    __slots__ = ("_queue",)

    def __init__(self, queue: Any) -> None:
        self._queue = queue

    def __len__(self) -> int:
        return int(self._queue._dead)

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        return f"<DeadLetters of {self._queue.name or 'a queue in memory'}: {len(self):,}>"

    def __iter__(self) -> Iterator[DeadLetter]:
        """The letters as they were when the iteration began, first to die first. Takes nothing."""
        queue = self._queue
        queue._refuse(taking=True)
        return (self._letter(claim) for claim in queue._timed_claims(layout.DEAD_LINE))

    def _letter(self, claim: Any, death: Death | None = None) -> DeadLetter:
        queue = self._queue
        death = death or queue._death_of(claim)
        return DeadLetter(
            queue._item_of(claim), uuid.UUID(bytes=claim.id), queue._attempts_of(claim), REASONS.get(death.reason, "unknown"), death.error,
            death.dead_ns / 1e9, claim.enqueued_ns / 1e9, claim.priority,
        )

    def peek(self) -> DeadLetter:
        """The first letter, left where it is. Raises `QueueEmpty`."""
        for letter in self:
            return letter
        raise QueueEmpty

    def try_dequeue(self) -> DeadLetter:
        """Take the first letter for good; never waits. Raises `QueueEmpty`."""
        return blocking(self._dequeueing())

    def clear(self) -> int:
        """Remove all letters, as durably as the queue promises; returns how many."""
        return blocking(self._clearing())

    def remove_where(self, predicate: Callable[[DeadLetter], bool]) -> int:
        """Remove every letter for which `predicate(letter)` is true; returns how many."""
        return blocking(self._removing_where(predicate))

    def replay(self, predicate: Callable[[DeadLetter], bool] | None = None, max_items: int | None = None) -> int:
        """Put letters (all, or those for which `predicate(letter)` is true, up to `max_items`) back at the end of their priorities' lines; returns how many.

        They keep their ids, have no attempts behind them, and live as long as an item that is enqueued now. Raises `QueueFull` if there is no room for the first of them; with room for
        some, those are put back.
        """
        return blocking(self._replaying(predicate, max_items))

    # --- the same as steps

    def _dequeueing(self) -> Steps[DeadLetter]:
        queue = self._queue
        taken = yield from within(queue._head, self._first, lambda taken: taken and queue._untaken(taken))
        if taken is None:
            raise QueueEmpty
        letters = yield from queue._handing_out([taken])
        queue._forget_death(taken[0])
        queue._tell()
        return letters[0]  # type: ignore[no-any-return]

    def _first(self) -> tuple[Any, DeadLetter] | None:
        """The first letter, settled for now. The caller holds the head."""
        queue = self._queue
        queue._refuse(taking=True)
        claim = queue._claim_from(layout.DEAD_LINE)
        if claim is None:
            return None
        try:
            letter = self._letter(claim)
            queue._settle_for_now(claim)
        except BaseException:
            queue._return(claim)
            raise
        return claim, letter

    def _clearing(self) -> Steps[int]:
        return self._removing(None, CLEARED)

    def _removing_where(self, predicate: Callable[[DeadLetter], bool]) -> Steps[int]:
        return self._removing(_checked(predicate), REMOVED)

    def _removing(self, predicate: Callable[[DeadLetter], bool] | None, how: int) -> Steps[int]:
        n: int = yield from self._with_chosen(predicate, None, lambda chosen: self._remove(chosen, how))
        return n

    def _remove(self, chosen: Iterator[Any], how: int) -> int:
        n = 0
        for claim in chosen:
            self._queue._settle(claim, how)
            self._queue._forget_death(claim)
            n += 1
        return n

    def _replaying(self, predicate: Callable[[DeadLetter], bool] | None, max_items: int | None) -> Steps[int]:
        if max_items is not None and (isinstance(max_items, bool) or not isinstance(max_items, int) or max_items < 0):
            raise InvalidOption("max_items", max_items, "an int from 0, or None for all")
        n: int = yield from self._with_chosen(None if predicate is None else _checked(predicate), max_items, self._replay)
        return n

    def _replay(self, chosen: Iterator[Any]) -> int:
        n = 0
        try:
            for claim in chosen:
                self._queue._replay(claim)
                n += 1
        except NoRoom as shortage:
            if n == 0:
                raise self._queue._full_error(shortage) from None
        return n

    def _with_chosen(self, predicate: Callable[[DeadLetter], bool] | None, most: int | None, act: Callable[[Iterator[Any]], int]) -> Steps[int]:
        """Act on the letters that the predicate is true of, up to so many. It runs before that, outside any lock."""
        queue = self._queue
        queue._refuse(taking=True)
        ids: set[bytes] | None = None
        if predicate is not None:
            ids = set((yield from Errand(lambda: [letter.id.bytes for letter in self if predicate(letter)][:most], here=True).steps()))
        try:
            n: int = yield from queue._errand(lambda: self._act(ids, most, act)).steps()
            yield from queue._keeping_to_budget()
            if n and queue._commits:
                yield from queue._covering()
            return n
        finally:
            queue._wake_if_closing()
            queue._tell()

    def _act(self, ids: set[bytes] | None, most: int | None, act: Callable[[Iterator[Any]], int]) -> int:
        chosen = self._chosen(ids, most)
        try:
            return act(chosen)
        finally:
            chosen.close()

    def _chosen(self, ids: set[bytes] | None, most: int | None) -> Generator[Any, None, None]:
        """Claims of the letters that are there now (and have these ids), each yielded with tail and head held.

        Where some are passed over, the queue is held for all of them: those must be back before anybody else looks.
        """
        queue = self._queue
        if ids is not None:
            with queue._tail, queue._head:
                yield from self._out_of_the_middle(ids)
            return
        left = len(self) if most is None else min(most, len(self))
        while left:
            left -= 1
            with queue._tail, queue._head:
                queue._refuse(taking=True)
                claim = queue._claim_from(layout.DEAD_LINE)
                if claim is None:
                    return
                yield claim
            queue._head.let_others_in()

    def _out_of_the_middle(self, chosen: set[bytes]) -> Generator[Any, None, None]:
        queue = self._queue
        queue._refuse(taking=True)
        passed: list[tuple[Any, Death]] = []
        try:
            while chosen and (claim := queue._claim_from(layout.DEAD_LINE)) is not None:
                if claim.id in chosen:
                    chosen.discard(claim.id)
                    yield claim
                else:
                    passed.append((claim, queue._death_of(claim)))
        finally:
            for claim, death in passed:
                queue._return_dead(claim, death)


def _checked(predicate: Callable[[DeadLetter], bool]) -> Callable[[DeadLetter], bool]:
    if not callable(predicate):
        raise InvalidOption("predicate", predicate, "a callable that takes a DeadLetter")
    return predicate
