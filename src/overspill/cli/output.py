"""Writing items to stdout, and showing how far something has come on stderr.

Bars and colours appear only where a terminal is looking; `progress` is silent anywhere else, so that a script's stderr holds nothing but errors.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

__all__ = ["Output", "columns", "progress"]


class Output:
    """Items to stdout, unbuffered: after an error, or Ctrl-C, `whole` says how many had been written from their first byte to their last."""

    def __init__(self) -> None:
        stream: Any = sys.stdout.buffer
        stream.flush()
        self._raw = getattr(stream, "raw", stream)
        self.whole = 0

    def write(self, chunks: Sequence[bytes]) -> None:
        data, at = memoryview(b"".join(chunks)), 0
        try:
            while at < len(data):
                at += self._raw.write(data[at:]) or 0
        finally:
            if at == len(data):
                self.whole += len(chunks)
            else:
                end = 0
                for chunk in chunks:
                    end += len(chunk)
                    if end > at:
                        break
                    self.whole += 1


@contextmanager
def progress(what: str, *, total: Callable[[], int | None] = lambda: None, unit: str = "items") -> Iterator[Callable[[int], None]]:
    """A bar with rate and time left on stderr, if that is a terminal; gives a function to call with every step forward.

    `total` is asked only where there is a bar; None or 0 of it: nobody knows, and there is no time left to be told.
    """
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    from .words import count_text, size_text

    whole = total() or None
    say = size_text if unit == "bytes" else lambda n: f"{count_text(n)} {unit}"
    columns = [TextColumn("{task.description}"), *([BarColumn(bar_width=24)] if whole else [SpinnerColumn()]), TextColumn("{task.fields[said]}")]
    ends = [TimeElapsedColumn(), *([TextColumn("left"), TimeRemainingColumn(compact=True)] if whole else [])]
    with Progress(*columns, *ends, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=whole, said="")
        done = 0

        def step(n: int) -> None:
            nonlocal done
            done += n
            speed = bar.tasks[0].speed
            rate = f" {say(speed)}/s" if speed else ""
            bar.update(task, advance=n, said=f"{say(done)}{rate}")

        yield step


def columns(rows: Sequence[Sequence[str]], right: str) -> str:
    """Rows as aligned text; `right` has a letter for each column: `r` for those that are aligned to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(right))]
    lines = ("  ".join(cell.rjust(width) if side == "r" else cell.ljust(width) for cell, width, side in zip(row, widths, right, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)
