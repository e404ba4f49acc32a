"""Waiting in tests, without a guess at how long a thing takes."""
from __future__ import annotations

import threading
from collections.abc import Callable

__all__ = ["until"]

_PATIENCE_S = 60


def until(
    condition: Callable[[], object], *, why: Callable[[], object] | None = None, not_yet: type[Exception] | tuple[type[Exception], ...] = (), every_s: float = 0.001
) -> None:
    """Look again and again until the condition holds, which another thread or process is about to bring about. An error that is `not_yet` says that it does not."""
    pause = threading.Event()
    for _ in range(int(_PATIENCE_S / every_s)):
        try:
            if condition():
                return
        except not_yet:
            pass
        pause.wait(every_s)
    raise AssertionError("it never happened" if why is None else why())
