"""The queues of a configuration file, opened together and closed together."""
from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import Any, Self

from .config import load_queues
from .hybrid import HybridQueue

__all__ = ["Queues", "open_queues"]


class Queues(Mapping[str, HybridQueue]):
    """Open queues by name. A context manager closes them all."""

    def __init__(self, queues: Mapping[str, HybridQueue]) -> None:
        self._queues = dict(queues)

    def __getitem__(self, name: str) -> HybridQueue:
        return self._queues[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._queues)

    def __len__(self) -> int:
        return len(self._queues)

    def close(self, drain: Any = None) -> None:
        """Close every queue, the last one first, as its own `close` does. One that cannot be closed keeps none of the others open."""
        with ExitStack() as all_of_them:
            for queue in self._queues.values():
                all_of_them.callback(queue.close, drain)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Queues {', '.join(map(repr, self._queues.values()))}>"


def open_queues(source: Mapping[str, Any] | str | os.PathLike[str]) -> Queues:
    """Open every queue that a mapping, a TOML file or a JSON file describes: all of them, or none.

    `[defaults]` holds for all queues, each `[queues.NAME]` for one; the keys are the options. Raises `InvalidOption` before anything is opened if anything is wrong in there,
    and what opening a queue raises.
    """
    with ExitStack() as opened:
        queues = {name: opened.enter_context(HybridQueue(**options)) for name, options in load_queues(source).items()}
        opened.pop_all()
    return Queues(queues)
