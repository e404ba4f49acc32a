"""Looking at a queue's folder without changing a byte of it. (Being written: the names are final, the contents follow.)"""

from __future__ import annotations

import os
from dataclasses import dataclass

__all__ = ["Inspection", "inspect"]


@dataclass(frozen=True)
class Inspection:
    """What a look at a folder found."""

    path: str


def inspect(path: str | os.PathLike[str], *, deep: bool = False) -> Inspection:
    return Inspection(os.fspath(path))
