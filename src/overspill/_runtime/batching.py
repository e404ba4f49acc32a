"""Batches by time: up to so many items, or what came within so many seconds of the first."""
from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from .._core.lanes import Claim
from ..errors import CorruptedData, QueueClosed, QueueEmpty, UnknownFormat
from ..options import seconds
from .taking import Taking
from .waiting import Steps, blocking, within

__all__ = ["Batching"]


class Batching(Taking):
    """`batches`."""

    def batches(self, n: int | None = None, linger: float | timedelta | None = None) -> Iterator[list[Any]]:
        """Take the items in lists, one after the other: up to `n` items (default: the queue's `default_batch_size`), or what came within `linger` seconds of the first one::

            for batch in events.batches(n=1000, linger=0.05):
                database.insert(batch)

        Waits for the first item of a batch as long as it takes. `linger=None` waits for no more: a batch is what is there then. Ends when the queue is closed and drained; a queue that is
        closing does not linger. Under `Durability.POWER` one sync covers a batch.

        The items of a batch that you were given are settled. Those of a batch that was still being collected when you were interrupted, or the queue was closed, are at their old places.
        For batches that must be *done*, see `lease_batch`.
        """
        return self._batches(*self._terms_of_batches(n, linger))

    def _terms_of_batches(self, n: int | None, linger: float | timedelta | None) -> tuple[int, float]:
        """Items at most, and seconds to linger; wrong ones are refused at the call, not at the first batch."""
        n, linger_s = self._batch_size(n), seconds("linger", 0 if linger is None else linger)
        self._refuse(taking=True)
        return n, linger_s

    def _batches(self, n: int, linger_s: float) -> Iterator[list[Any]]:
        while True:
            try:
                batch = blocking(self._collecting(n, linger_s))
            except QueueClosed:
                return
            yield batch

    def _collecting(self, n: int, linger_s: float) -> Steps[list[Any]]:
        """One batch. What is being collected is out of line until the batch is handed out, and `close` knows of it."""
        self._refuse(taking=True)
        if self._waiting >= (n if linger_s else 1) and self._state == "open":
            batch = yield from self._dequeueing_batch([], n, 0)
            if batch:
                return batch
        collected: list[tuple[Claim, Any]] = []

        def collect(claim: Claim | None) -> bool:
            while claim is not None:
                collected.append((claim, self._decoded(claim)))
                claim = self._claim() if len(collected) < n else None
            return True

        try:
            deadline = None
            while len(collected) < n:
                try:
                    yield from self._taking(deadline, collect, lambda _: self._give_back_collected(collected), wanting_more=deadline is not None)
                except QueueEmpty:
                    break
                except (CorruptedData, UnknownFormat, QueueClosed):
                    # As for a batch of `dequeue_batch`: what was collected before is delivered, and the next one meets this again.
                    if not collected:
                        raise
                    break
                if deadline is None:
                    deadline = self._clock.monotonic() + linger_s
            return (yield from self._handing_out((yield from within(self._head, lambda: self._settled_of_batch(collected)))))
        finally:
            self._give_back_collected(collected)
            self._wake_if_closing()
            self._tell()

    def _settled_of_batch(self, collected: list[tuple[Claim, Any]]) -> list[tuple[Claim, Any]]:
        """A batch is about to be handed out: what of it is settled, for now. That is all but where the disk fails on the way, which the next batch meets again. The caller holds the head."""
        taken: list[tuple[Claim, Any]] = []
        if self._log is not None:
            self._refuse(taking=True)  # closed: its folder has the items
        for claim, item in collected:
            try:
                self._settle_for_now(claim)
            except Exception:
                if not taken:
                    raise
                break
            taken.append((claim, item))
        return taken

    def _give_back_collected(self, collected: list[tuple[Claim, Any]]) -> None:
        """Whatever of these was not handed out goes back to its place."""
        if any(self._holds(claim) for claim, _ in collected):
            self._let_go([claim for claim, _ in collected])
            self._soon()  # that may have been more than memory is to hold; nothing waits here, for the steps may be about to be thrown away
