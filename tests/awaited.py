"""The awaiting face behind the blocking one's verbs, so that one test can be run through both.

Every call is a coroutine on an event loop of its own thread, and the caller blocks until it has come to its end.
"""
from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

from overspill import AsyncDelivery, HybridQueue

__all__ = ["Awaited"]

_loop = asyncio.new_event_loop()
_thread = threading.Thread(target=_loop.run_forever, name="awaited", daemon=True)


def wait_for(coroutine: Any) -> Any:
    if not _thread.is_alive():
        _thread.start()
    result = asyncio.run_coroutine_threadsafe(coroutine, _loop).result()
    if isinstance(result, AsyncDelivery):
        return AwaitedDelivery(result)
    if isinstance(result, list):
        return [AwaitedDelivery(one) if isinstance(one, AsyncDelivery) else one for one in result]
    return result


class AwaitedDelivery:
    """A delivery whose verbs are awaited by somebody else."""

    def __init__(self, delivery: AsyncDelivery) -> None:
        self._delivery = delivery

    def __getattr__(self, name: str) -> Any:
        thing = getattr(self._delivery, name)
        return (lambda *args, **options: wait_for(thing(*args, **options))) if inspect.iscoroutinefunction(thing) else thing

    def __enter__(self) -> AwaitedDelivery:
        wait_for(self._delivery.__aenter__())
        return self

    def __exit__(self, *exception: Any) -> None:
        wait_for(self._delivery.__aexit__(*exception))

    def __repr__(self) -> str:
        return repr(self._delivery)


def _waited_for(items: AsyncIterator[Any]) -> Iterator[Any]:
    while True:
        try:
            yield wait_for(anext(items))
        except StopAsyncIteration:
            return


class AwaitedLetters:
    """Dead letters whose verbs are awaited by somebody else."""

    def __init__(self, letters: Any) -> None:
        self._letters = letters

    def __getattr__(self, name: str) -> Any:
        thing = getattr(self._letters, name)
        return (lambda *args, **options: wait_for(thing(*args, **options))) if inspect.iscoroutinefunction(thing) else thing

    def __iter__(self) -> Iterator[Any]:
        return _waited_for(aiter(self._letters))

    def __len__(self) -> int:
        return len(self._letters)

    def __bool__(self) -> bool:
        return bool(self._letters)

    def __repr__(self) -> str:
        return repr(self._letters)


class Awaited:
    """A queue driven through `q.aio`. What is private is that of the queue itself."""

    def __init__(self, queue: HybridQueue) -> None:
        self._under_test = queue
        self._face = queue.aio

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            return getattr(self._under_test, name)
        thing = getattr(self._face, name)
        return (lambda *args, **options: wait_for(thing(*args, **options))) if inspect.iscoroutinefunction(thing) else thing

    @property
    def dead_letters(self) -> AwaitedLetters:
        return AwaitedLetters(self._face.dead_letters)

    def snapshot(self) -> Iterator[Any]:
        return _waited_for(self._face.snapshot())

    def batches(self, n: int | None = None, linger: Any = None) -> Iterator[list[Any]]:
        return _waited_for(self._face.batches(n, linger))

    def __iter__(self) -> Iterator[Any]:
        return self.snapshot()

    def __len__(self) -> int:
        return len(self._face)

    def __bool__(self) -> bool:
        return bool(self._face)

    def __enter__(self) -> Awaited:
        wait_for(self._face.__aenter__())
        return self

    def __exit__(self, *exception: Any) -> None:
        wait_for(self._face.__aexit__(*exception))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._under_test!r}>"
