"""A RecursionError says as much about the caller's stack as about the item: before the item is blamed, the work is tried again where there is room."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

_T = TypeVar("_T")


def on_fresh_stack(work: Callable[[Any], _T], argument: Any) -> _T:
    """The same work on a thread of its own, whose stack is empty. Rare: the caller's stack ran out."""
    result: list[_T] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            result.append(work(argument))
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=run, name="overspill-fresh-stack", daemon=True)
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return result[0]
