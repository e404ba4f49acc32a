"""The folder between the encoder and the queue: what is in it has not been acknowledged by the queue yet.

The encoder puts a finished file in by renaming it (so a name appears complete), and rings a bell. Ingest
enqueues the file and removes it only after `enqueue` has returned. The mirror may be killed between the two,
hence two rules, which together make the hand-over exactly once:

S1  A file leaves the spool only when its bytes are in the queue's log.
S2  An item leaves the queue only when its file has left the spool. (The uploader sees to that before it
    acknowledges; ingest has nearly always been there first.)

So after a kill a file whose item was already enqueued finds that item still *in* the queue: ingest reads the
highest sequence of each stream from the queue itself, and asks nobody else (the origin may well be down).

The bell is a FIFO that both sides hold open for reading and writing: ringing never blocks and never fails, and
what was rung while the mirror was dead is heard when it is back.
"""

from __future__ import annotations

import os
import select
from pathlib import Path
from typing import NamedTuple


class Waiting(NamedTuple):
    sequence: int
    name: str
    path: Path


class Spool:
    def __init__(self, folder: Path, streams: list[str]) -> None:
        self._folder = folder
        self._finished = folder / "finished"
        for stream in streams:
            (folder / stream).mkdir(parents=True, exist_ok=True)
        bell = folder / "bell"
        try:
            os.mkfifo(bell)
        except FileExistsError:
            pass
        self._bell = os.open(bell, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)

    # The encoder's side.

    def hand_over(self, stream: str, sequence: int, finished: Path) -> None:
        """Move a finished file in. It must be on the same file system."""
        os.rename(finished, self._path(stream, sequence, finished.name))
        self.ring()

    def finish(self) -> None:
        """Say that nothing more will come."""
        self._finished.touch()
        self.ring()

    # The queue's side.

    def waiting(self, stream: str) -> list[Waiting]:
        """What lies here of one stream, in its order."""
        found = []
        for entry in os.scandir(self._folder / stream):
            sequence, _, name = entry.name.partition("-")
            found.append(Waiting(int(sequence), name, Path(entry.path)))
        return sorted(found)

    def settle(self, stream: str, sequence: int, name: str) -> None:
        """Its bytes are in the queue's log (S1). Whoever comes second finds nothing to do."""
        self._path(stream, sequence, name).unlink(missing_ok=True)

    @property
    def finished(self) -> bool:
        return self._finished.exists()

    def listen(self) -> None:
        """Wait until the bell has been rung since the last call."""
        select.select([self._bell], [], [])
        try:
            while os.read(self._bell, 4096):
                pass
        except BlockingIOError:
            pass  # every ring so far has been heard

    def ring(self) -> None:
        try:
            os.write(self._bell, b"!")
        except BlockingIOError:
            pass  # it has been ringing for long, one more changes nothing

    def _path(self, stream: str, sequence: int, name: str) -> Path:
        return self._folder / stream / f"{sequence:08d}-{name}"
