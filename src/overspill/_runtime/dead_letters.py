"""The dead letters of a queue as the user sees them."""
from __future__ import annotations

import uuid
from collections.abc import Callable, Generator, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

from .._store import layout
from .._store.layout import Death
from .._store.log import NoRoom
from ..errors import InvalidOption, QueueEmpty
from .apart import REASONS

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
        queue = self._queue
        with queue._head:
            queue._refuse(taking=True)
            claim = queue._claim_from(layout.DEAD_LINE)
            if claim is None:
                raise QueueEmpty
            death = queue._death_of(claim)
            try:
                letter = self._letter(claim, death)
            except BaseException:
                queue._return_dead(claim, death)
                raise
            queue._forget_death(claim)
            queue._settle(claim, True)
        queue._cover_and_tell()
        return letter

    def clear(self) -> int:
        """Remove all letters, as durably as the queue promises; returns how many."""
        return self._remove(None, "_cleared")

    def remove_where(self, predicate: Callable[[DeadLetter], bool]) -> int:
        """Remove every letter for which `predicate(letter)` is true; returns how many."""
        return self._remove(_checked(predicate), "_removed")

    def _remove(self, predicate: Callable[[DeadLetter], bool] | None, book: str) -> int:
        queue, n = self._queue, 0
        for claim in self._chosen(predicate):
            queue._forget_death(claim)
            queue._settle(claim)
            setattr(queue, book, getattr(queue, book) + 1)
            n += 1
        if n:
            queue._cover_and_tell()
        return n

    def replay(self, predicate: Callable[[DeadLetter], bool] | None = None, max_items: int | None = None) -> int:
        """Put letters (all, or those for which `predicate(letter)` is true, up to `max_items`) back at the end of their priorities' lines; returns how many.

        They keep their ids, have no attempts behind them, and live as long as an item that is enqueued now. Raises `QueueFull` if there is no room for the first of them; with room for
        some, those are put back.
        """
        if max_items is not None and (isinstance(max_items, bool) or not isinstance(max_items, int) or max_items < 0):
            raise InvalidOption("max_items", max_items, "an int from 0, or None for all")
        queue, n = self._queue, 0
        chosen = self._chosen(None if predicate is None else _checked(predicate), tail=True, most=max_items)
        try:
            for claim in chosen:
                queue._replay(claim)
                n += 1
        except NoRoom as shortage:
            if n == 0:
                raise queue._full_error(shortage) from None
        finally:
            chosen.close()
        queue._keep_to_budget()
        if n:
            queue._cover_and_tell()
        return n

    def _chosen(self, predicate: Callable[[DeadLetter], bool] | None, *, tail: bool = False, most: int | None = None) -> Generator[Any, None, None]:
        """Claims of the letters that are there now and that the predicate is true of, each yielded with the head held (and the tail, if asked for).

        The predicate runs before that, outside any lock. With one, the queue is held for all of them: what is passed over must be back before anybody else looks.
        """
        queue = self._queue
        queue._refuse(taking=True)
        left = len(self) if most is None else min(most, len(self))
        if predicate is not None:
            chosen = [letter.id.bytes for letter in self if predicate(letter)][:most]
            with queue._tail if tail else nullcontext(), queue._head:
                yield from self._out_of_the_middle(set(chosen))
            return
        while left:
            left -= 1
            with queue._tail if tail else nullcontext(), queue._head:
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
