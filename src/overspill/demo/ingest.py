"""Moves finished segments from the spool into the queue, each exactly once, also across a kill.

Premium streams go first and at a higher priority. A file is settled in the spool only after `enqueue` has
returned: by then it is in the queue's log. What was enqueued but not settled when the process died is told
from the queue itself, see the two rules in `spool`.
"""

from __future__ import annotations

import hashlib
import threading

from overspill import HybridQueue, Priority

from .plan import Stream
from .reports import report
from .segment import END, Segment, kind_of
from .spool import Spool, Waiting


class Ingest:
    def __init__(self, queue: HybridQueue, spool: Spool, streams: tuple[Stream, ...], stop: threading.Event) -> None:
        self._queue = queue
        self._spool = spool
        self._streams = sorted(streams, key=lambda stream: not stream.premium)
        self._stop = stop
        self._highest: dict[str, int] = {}  # sequence in the queue when it was opened, by stream
        self._end_is_queued = False

    def learn(self) -> None:
        """Read from the queue how far we had come. Must run before anything is taken out."""
        for segment in self._queue:
            if segment.kind == "end":
                self._end_is_queued = True
            else:
                self._highest[segment.stream] = segment.sequence  # a stream comes in order, so the last is the highest

    def run(self) -> None:
        """Until the encoder has finished and all is enqueued, or until told to stop."""
        while not self._stop.is_set():
            finished = self._spool.finished  # asked before looking: what came until then is seen
            for stream in self._streams:
                for waiting in self._spool.waiting(stream.name):
                    self._move(stream, waiting)
            if finished:
                if not self._end_is_queued:
                    self._queue.enqueue(END, priority=Priority.LOW)
                return
            self._spool.listen()

    def _move(self, stream: Stream, waiting: Waiting) -> None:
        if waiting.sequence <= self._highest.get(stream.name, -1):
            report("already_queued", stream=stream.name, sequence=waiting.sequence)
        else:
            body = waiting.path.read_bytes()
            segment = Segment(
                stream=stream.name,
                sequence=waiting.sequence,
                name=waiting.name,
                kind=kind_of(waiting.name),
                sha256=hashlib.sha256(body).hexdigest(),
                body=body,
            )
            self._queue.enqueue(segment, priority=Priority.HIGH if stream.premium else Priority.NORMAL)
        self._spool.settle(stream.name, waiting.sequence, waiting.name)
