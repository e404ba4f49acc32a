"""A pipe that keeps what its consumer has not read yet: in memory, on disk, and across a kill.

One thread reads the source and puts its frames into the queue; the caller of `run` takes them out and writes them to the sink. They meet only in the queue, so a slow consumer does not hold up
the producer before the disk limit is reached, and then the reader waits and the producer with it.

What holds:

* A frame is in the queue's log before the next block is read. What a kill takes is what was read and had not come so far: one block at the most.
* In its ordinary way a frame leaves the queue before it is written, and a kill takes the batch that was being written (a quarter of a MiB). With `ack` it leaves when it is written: a kill
  takes nothing, and the consumer of the next run gets that batch again.
* A consumer that goes away (EPIPE) loses what it had not read from its own pipe. What was not written goes back to its place, and the source is read on to its end.
* `interrupt` ends a run at once with everything kept: the line that was begun, what is in hand, what waits. A part of the disk limit is kept free for that.
"""

from __future__ import annotations

import os
import select
import stat
import threading
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

from ..hybrid import HybridQueue
from ..options import GiB, KiB, MiB, Durability, WhenFull
from ..salvage.folders import open_queue
from ..salvage.moving import line_of
from .frames import Framing, Lengths, Lines

__all__ = ["DurablePipe", "Interrupted", "Report"]

_WRITE: Final = 256 * KiB
_FRAMES_AT_ONCE: Final = 4096
_RECORD: Final = 88
"""What a frame takes on disk beside its bytes, at the most: its header, padding, index entry and marks."""
_RESERVE: Final = 64 * MiB
"""So much of the disk limit, or a quarter, is kept free for what is in hand at the end: half for the reader, half for the writer."""


class Interrupted(Exception):
    """`interrupt` was called."""


class Report(NamedTuple):
    """How a run ended."""

    frames_in: int
    bytes_in: int
    frames_out: int
    bytes_out: int
    kept: int
    """Frames that are in the queue for the next run."""
    consumer_gone: bool
    interrupted: bool
    unfinished_bytes: int
    """Of a frame by length that the source broke off: it is not kept."""


class DurablePipe:
    """From one file descriptor to another through the queue in a folder, which is made if it is not there.

    `frame` is "line" or "length". `memory` is how many bytes wait in memory at the most, `max_disk` what the folder never exceeds. `stop_with_consumer`: when the consumer goes away the
    source is not read on.
    """

    def __init__(
        self, folder: str | os.PathLike[str], *, source: int = 0, sink: int = 1, frame: str = "line", memory: int = 64 * MiB, max_disk: int = 10 * GiB,
        durability: Durability = Durability.PROCESS, ack: bool = False, stop_with_consumer: bool = False,
    ) -> None:  # fmt: skip
        self._folder = folder
        self._source, self._sink = source, sink
        self._ack = ack
        self._stop_with_consumer = stop_with_consumer
        self._max_disk = max_disk
        self._half = min(_RESERVE, max_disk // 4) // 2
        # A block may be all empty lines, and each of them is a record.
        self._block = min(MiB, self._half // _RECORD)
        largest = max_disk // 8
        self._framing: Framing = (Lines if frame == "line" else Lengths)(largest)
        self.queue: HybridQueue = open_queue(
            folder, create=True, serializer="raw", durability=durability, memory_limit=memory, memory_size=1000 + memory // 64, max_disk_size=max_disk - 2 * self._half,
            when_full=WhenFull.BLOCK,
        )  # fmt: skip
        self.frames_in = self.bytes_in = self.frames_out = self.bytes_out = 0
        self._backlog = len(self.queue)
        self._open_end = 0
        """Which frame to come out has no newline behind it: a last line without one."""
        self._unfinished = 0
        self._arrived = threading.Event()
        self._ended = False
        self._failed: BaseException | None = None
        self._stopping = self._writing = False
        self._woken, self._wake = os.pipe()
        self._patient = _reopened(sink)
        """The sink, opened anew so that a write into a full pipe returns: whoever waits for room must hear `interrupt`, and know how much was written. Or None, if it is no pipe."""

    def run(self) -> Report:
        """Carry frames until the source has ended and everything is written, the consumer has gone and the source has ended, or `interrupt`.

        The queue is closed on return. Raises what reading, writing or the queue raised, with everything kept.
        """
        gone = False
        reader = threading.Thread(target=self._read, name="overspill-pipe", daemon=True)
        reader.start()
        try:
            try:
                self._carry()
            except BrokenPipeError:
                gone = True
                if not self._stop_with_consumer:
                    reader.join()
            except Interrupted:
                pass
        finally:
            self._stop()
            reader.join()
            kept = len(self.queue)
            self.queue.close()
            for fd in (self._woken, self._wake, self._patient):
                if fd is not None:
                    os.close(fd)
        if self._failed is not None:
            raise self._failed
        return Report(self.frames_in, self.bytes_in, self.frames_out, self.bytes_out, kept, gone, self._stopping and not self._ended_by_itself, self._unfinished)

    def interrupt(self) -> None:
        """End the run; to be called from a signal handler in the thread of `run`."""
        self._stop()
        if self._writing:
            raise Interrupted  # out of a write that may never end

    def _stop(self) -> None:
        if self._stopping:
            return
        self._ended_by_itself = self._ended
        self._stopping = True
        # Now is what the reserve was kept for: the reader places what it has in hand, and nothing waits for room.
        self.queue._allow_disk(self._max_disk)
        os.write(self._wake, b".")
        self._arrived.set()

    _ended_by_itself = False

    # --- from the source into the queue

    def _read(self) -> None:
        try:
            wait = select.poll()
            wait.register(self._source, select.POLLIN)
            wait.register(self._woken, select.POLLIN)
            while True:
                ready = dict(wait.poll())
                if self._woken in ready:
                    break
                block = os.read(self._source, self._block)
                if not block:
                    break
                self.bytes_in += len(block)
                self._place(self._framing.feed(block))
            self._place_rest()
        except BaseException as error:
            self._failed = error
        finally:
            self._ended = True
            self._arrived.set()

    def _place(self, frames: list[bytes]) -> None:
        for batch in self._batches(frames):
            self.queue.enqueue_batch(batch)
            self.frames_in += len(batch)
            self._arrived.set()

    def _batches(self, frames: list[bytes]) -> Iterator[list[bytes]]:
        """Whole blocks where they are small enough for the log, else pieces: a batch must fit into one segment."""
        most = min(_FRAMES_AT_ONCE, max(1, self._half // _RECORD // 8))
        for at in range(0, len(frames), most):
            yield frames[at : at + most] if len(frames) > most else frames

    def _place_rest(self) -> None:
        rest = self._framing.rest()
        if rest and self._framing.keeps_rest():
            if not self._stopping:
                self._open_end = self._backlog + self.frames_in + 1
            self._place([rest])
        else:
            self._unfinished = len(rest)

    # --- from the queue to the sink

    def _carry(self) -> None:
        size = 64  # of a frame, about
        while not self._stopping:
            self._arrived.clear()
            most = max(1, min(_FRAMES_AT_ONCE, _WRITE // size, self._half // (size + _RECORD)))
            if self._ack:
                n = self.queue._hand_over(self._write_acknowledged, most, _WRITE)
            else:
                frames = self.queue.dequeue_batch(most)
                n = len(frames)
                if n:
                    size = sum(map(len, frames)) // n + 1
                    self._write_or_return(frames)
            if n == 0:
                if self._ended and not len(self.queue):
                    return
                if not self._ended:
                    self._arrived.wait()

    def _write_acknowledged(self, items: list[Any]) -> None:
        self._write([item.item for item in items])

    def _write_or_return(self, frames: list[bytes]) -> None:
        """Write frames that have left the queue; those that cannot be written return to the front of it, in their order."""
        before = self.frames_out
        try:
            self._write(frames)
        except BaseException:
            self.queue._allow_disk(self._max_disk)
            for frame in reversed(frames[self.frames_out - before :]):
                self.queue.enqueue_front(frame)
            raise

    def _write(self, frames: Sequence[Any]) -> None:
        try:
            data = self._framing.join(frames)
        except TypeError:  # not all of them are bytes: somebody else has put items here
            frames = [frame if isinstance(frame, bytes) else line_of(frame)[:-1] for frame in frames]
            data = self._framing.join(frames)
        if self._open_end and self.frames_out + len(frames) == self._open_end:
            data = data[:-1]
        view, at = memoryview(data), 0
        try:
            while at < len(data):
                at += self._write_some(view[at:])
        finally:
            self._writing = False
            self.bytes_out += at
            self.frames_out += len(frames) if at == len(data) else self._whole_frames(frames, at)

    def _write_some(self, data: memoryview) -> int:
        if self._patient is None:
            self._writing = True  # from here on `interrupt` raises
            if self._stopping:
                raise Interrupted
            written = os.write(self._sink, data)
            self._writing = False
            return written
        try:
            return os.write(self._patient, data)
        except BlockingIOError:
            room = select.poll()
            room.register(self._patient, select.POLLOUT)
            room.register(self._woken, select.POLLIN)
            room.poll()
            if self._stopping:
                raise Interrupted from None
            return 0

    def _whole_frames(self, frames: Sequence[bytes], upto: int) -> int:
        end = 0
        for n, frame in enumerate(frames):
            end += self._framing.size_of(frame)
            if end > upto:
                return n
        return len(frames)


def _reopened(fd: int) -> int | None:
    try:
        return os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC) if stat.S_ISFIFO(os.fstat(fd).st_mode) else None
    except OSError:
        return None
