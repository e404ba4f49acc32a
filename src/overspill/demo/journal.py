"""The two written records that the check at the end compares: what was made, and what arrived.

Both are files of JSON lines with one `Entry` a line, flushed before the act that they note is visible to
anybody else. The encoder writes its manifest before it hands a segment over; the origin writes down a PUT
before it answers. The queue's process writes neither and reads neither.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import msgspec

from .segment import Kind


class Entry(msgspec.Struct, frozen=True):
    stream: str
    name: str
    kind: Kind
    sha256: str
    size: int
    frames: int = 0  # pictures in it, known to the encoder only


COMPLETE = Entry(stream="", name="", kind="end", sha256="", size=0)  # the manifest's last line


class Journal:
    """Appends entries to a file; each is out of this process when `note` returns."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(path, "ab", buffering=0)

    def note(self, entry: Entry) -> None:
        self._file.write(msgspec.json.encode(entry) + b"\n")

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def read_journal(path: Path) -> Iterator[Entry]:
    decoder = msgspec.json.Decoder(Entry)
    with open(path, "rb") as lines:
        for line in lines:
            yield decoder.decode(line)
