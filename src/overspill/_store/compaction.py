"""Compaction: adjacent segments that are mostly settled become one that takes their place in order."""
from __future__ import annotations

from typing import Any

from .log import Log

__all__ = ["compact_once"]


def compact_once(log: Log, lines: Any) -> bool:
    return False
