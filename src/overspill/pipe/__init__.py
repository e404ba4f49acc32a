"""The durable pipe: a stream of lines or frames through a queue, from one file descriptor to another. `overspill pipe` on the command line."""

from __future__ import annotations

from .durable import DurablePipe, Interrupted, Report
from .frames import Framing, Lengths, Lines

__all__ = ["DurablePipe", "Framing", "Interrupted", "Lengths", "Lines", "Report"]
