"""A pipe that keeps what its consumer has not read yet: in memory, on disk, and across a kill.

One thread reads the source and puts its frames into the queue; the caller of `run` takes them out and writes them to the sink. A slow consumer does not hold up the producer before the disk limit is
reached; then the reader waits, and the producer with it.

While the consumer keeps pace, blocks go past the line: the frames of a block are written to the log, one record each, and the block as it was read goes to the sink. Nobody looks at a frame by itself.
Such blocks stand in `_passing`, which takes half of the memory; beyond that frames are items in line, and go through memory and disk as in any queue, until the line is empty again. What is in line
is always younger than what passes: nothing passes while anything is in line, or is being written out of it (`_drawing`).

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
import signal
import stat
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from .._core.frames import Frames
from .._core.hot import Passed
from ..hybrid import HybridQueue
from ..options import GiB, KiB, MiB, Durability, WhenFull
from ..salvage.folders import open_queue
from ..salvage.moving import line_of
from .frames import Cutter, Framing, Lengths, Lines

__all__ = ["DurablePipe", "Interrupted", "Report"]

_BLOCK: Final = 256 * KiB
"""What is read, and written, at once: it stays in the processor's cache from the one to the other."""
_LARGEST: Final = 64 * MiB
"""A frame: what a queue takes for one item, if not told otherwise."""
_FRAMES_AT_ONCE: Final = 4096
_RECORDS_PASSING: Final = 8 * MiB
"""A block of more, of nearly empty lines or of one that is very long, goes through the line: its records would have to be made in memory as a whole."""
_RECORD: Final = 88
"""What a frame takes on disk beside its bytes, at the most: its header, padding, index entry and marks."""
_RESERVE: Final = 64 * MiB
"""So much of the disk limit, or a quarter, is kept free for what is in hand at the end: half for the reader, half for the writer."""


class Interrupted(Exception):
    """`interrupt` was called."""


class _Unwritten(BaseException):
    """Not all could be written."""

    def __init__(self, written: int, why: BaseException) -> None:
        self.written, self.why = written, why


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


@dataclass
class _Block:
    """A block on its way past the line."""

    data: bytearray
    frames: Frames
    passed: Passed | None
    """None: it is not in the log, as `Durability.MEMORY` has it."""
    settled: bool = False
    written: int = 0
    """So many bytes of it."""


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
        self._framing: Framing = Lines() if frame == "line" else Lengths()
        # A block may be all empty lines, and each of them is a record.
        self._cutter = Cutter(self._framing, min(_BLOCK, self._half // _RECORD), min(_LARGEST, max_disk // 8))
        self.queue: HybridQueue = open_queue(
            folder, create=True, serializer="raw", durability=durability, memory_limit=memory - memory // 2, memory_size=1000 + memory // 64, max_disk_size=max_disk - 2 * self._half,
            when_full=WhenFull.BLOCK,
        )  # fmt: skip
        self.frames_in = self.bytes_in = self.frames_out = self.bytes_out = 0
        self._backlog = len(self.queue)
        self._passing: deque[_Block] = deque()
        self._passing_bytes, self._passing_most = 0, memory // 2
        self._logs, self._syncs = durability is not Durability.MEMORY, durability is Durability.POWER
        self._image = bytearray()
        self._drawing = False
        """The sink is getting what was in line."""
        self._order = threading.Lock()
        """Held over every look at whether a block may pass, or whether the line's turn has come."""
        self._open_end = 0
        """Which frame to come out has no newline behind it: a last line without one."""
        self._unfinished = 0
        self._arrived = threading.Event()
        self._ended = False
        self._failed: BaseException | None = None
        self._stopping = self._interrupted = self._writing = self._gone = self._hears_signals = False
        self._broke_off = False
        """The reader was told to end; what it has of a last line is no line without a newline."""
        self._woken, self._wake = os.pipe()
        self._patient = _reopened(sink)
        """The sink, opened anew so that a write into a full pipe returns: whoever waits for room must hear `interrupt`, and know how much was written. Or None, if it is no pipe."""

    def run(self) -> Report:
        """Carry frames until the source has ended and everything is written, the consumer has gone and the source has ended, or `interrupt`.

        The queue is closed on return. Raises what reading, writing or the queue raised, with everything kept.
        """
        reader = threading.Thread(target=self._read, name="overspill-pipe", daemon=True)
        reader.start()
        try:
            try:
                self._carry()
            except BrokenPipeError:
                self._gone = True
                self._return_passing()
                if not self._stop_with_consumer:
                    reader.join()
            except Interrupted:
                pass
        finally:
            self._stop()
            reader.join()
            try:
                self._return_passing()
                kept = self.waiting
            finally:
                self.queue.close()
                if self._hears_signals:
                    signal.set_wakeup_fd(-1)
                for fd in (self._woken, self._wake, self._patient):
                    if fd is not None:
                        os.close(fd)
        if self._failed is not None:
            raise self._failed
        return Report(self.frames_in, self.bytes_in, self.frames_out, self.bytes_out, kept, self._gone, self._interrupted, self._unfinished)

    @property
    def waiting(self) -> int:
        """Frames that are not written: in line, or past it."""
        with self._order:
            unlogged = sum(len(block.frames) for block in self._passing if block.passed is None)
            return len(self.queue) + self.queue._passing + unlogged

    def interrupt(self) -> None:
        """End the run; to be called from a signal handler in the thread of `run`. One that has ended by itself is not interrupted any more."""
        if not self._stopping:
            self._interrupted = True
            self._stop()
        if self._writing:
            raise Interrupted  # out of a write that may never end

    def hear_signals(self) -> None:
        """Before `run`, in the main thread of a program whose signal handlers all call `interrupt`.

        Without it, a signal that comes just before this thread begins to wait is heard only when that wait ends by itself.
        """
        os.set_blocking(self._wake, False)
        signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        self._hears_signals = True

    def _stop(self) -> None:
        # In a handler no lock may be taken which the code beneath it may hold. So it is the reader that tells this thread when it waits for something to arrive.
        if self._stopping:
            return
        self._stopping = True
        # First the reader must know that it is over, or it would go on reading into the reserve, and leave nothing of it for the writer.
        os.write(self._wake, b".")
        # Now is what the reserve was kept for: the reader places what it has in hand, and nothing waits for room.
        self.queue._allow_disk(self._max_disk)

    # --- from the source into the queue

    def _read(self) -> None:
        try:
            wait = select.poll()
            wait.register(self._source, select.POLLIN)
            wait.register(self._woken, select.POLLIN)

            def read_into(buffer: memoryview) -> int:
                if any(fd == self._woken for fd, _ in wait.poll()):
                    self._broke_off = True
                    return 0
                return os.readv(self._source, [buffer])

            while (read := self._cutter.read(read_into)) is not None:
                n, data, frames = read
                self.bytes_in += n
                if not self._pass(data, frames):
                    self._place(frames.payloads())
                    self._cutter.give_back(data)
            self._place_rest()
        except BaseException as error:
            self._failed = error
        finally:
            self._ended = True
            self._arrived.set()

    def _pass(self, data: bytearray, frames: Frames) -> bool:
        """Have a block written to the log, and to the sink as it is: now, as far as that takes it at once. False: its frames must go through the line."""
        with self._order:
            if self._drawing or self._gone or not 0 < frames.record_bytes <= _RECORDS_PASSING or (self._passing and self._passing_bytes + frames.stop > self._passing_most):
                return False
            passed = self._logged(frames)
            if passed is None and (self._logs or not self._fits_reserve(frames)):
                return False
            self.frames_in += len(frames)
            block = _Block(data, frames, passed)
            if not self._passing and self._patient is not None and not self._stopping:
                # Nobody else writes, for nothing waits to be written. What the sink does not take at once is for the other thread, and so is what it fails with.
                with suppress(_Unwritten):
                    self._write_block(block, self._write_at_once)
            if block.written == frames.stop:
                self._cutter.give_back(data)
                return True
            if frames.stop <= len(data) // 4:  # it may have to wait: then only as long as it is
                block.data = data[: frames.stop]
                block.frames = Frames(block.data, frames.stop, self._framing.by_length)
                self._cutter.give_back(data)
            self._passing.append(block)
            self._passing_bytes += len(block.data)
        self._arrived.set()
        return True

    def _logged(self, frames: Frames) -> Passed | None:
        if not self._logs:
            return None
        if frames.record_bytes > len(self._image):
            self._image = bytearray(frames.record_bytes)
        return self.queue._pass_by(frames, self._image)

    def _fits_reserve(self, frames: Frames) -> bool:
        """Whether a block that is not in the log may pass: nothing is before it, and if it is not written in the end there is room for it on disk."""
        waiting = sum(block.frames.record_bytes for block in self._passing)
        return not len(self.queue) and not self.queue._is_due() and waiting + frames.record_bytes <= self._half // 2

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
        rest = self._cutter.rest()
        if rest and self._framing.keeps_rest:
            if not self._broke_off:
                self._open_end = self._backlog + self.frames_in + 1
            self._place([rest])
        else:
            self._unfinished = len(rest)

    # --- from the queue to the sink

    def _carry(self) -> None:
        # What is in hand and cannot be written must find room in its half of the reserve.
        most, nbytes = max(1, min(_FRAMES_AT_ONCE, self._half // (2 * _RECORD))), min(_BLOCK, self._half // 2)
        while not self._stopping:
            self._arrived.clear()
            with self._order:
                block = self._passing[0] if self._passing else None
                self._drawing = block is None and (len(self.queue) > 0 or self.queue._is_due())
            if block is not None:
                try:
                    self._write_block(block, self._write_all)
                except _Unwritten as unwritten:
                    raise unwritten.why from None
                with self._order:
                    self._passing.popleft()
                    self._passing_bytes -= len(block.data)
                self._cutter.give_back(block.data)
                continue
            if not self._drawing:
                if self._ended and not self._passing and not len(self.queue):
                    return
                if not self._ended:
                    self._arrived.wait()
                continue
            if self._ack:
                self.queue._hand_over(self._write_acknowledged, most, nbytes)
            elif frames := self._taken(most, nbytes):
                self._write_or_return(frames)

    def _taken(self, most: int, nbytes: int) -> list[bytes]:
        """What is first in line, settled."""
        frames: list[bytes] = []
        if not self.queue._take_bytes_hot(frames, most, nbytes):
            # Under POWER a sync must cover it, and then it had better be many; else only the first has to be read.
            self.queue._hand_over(lambda items: frames.extend(each.item for each in items), most if self._syncs else 1, nbytes)
        return frames

    def _write_block(self, block: _Block, write: Callable[[memoryview], None]) -> None:
        """Write what is left of a block that has passed the line. Acknowledged, it is settled when that is done; otherwise before. Raises `_Unwritten`."""
        if not self._ack:
            self._settle(block)
        try:
            write(memoryview(block.data)[block.written : block.frames.stop])
        except _Unwritten as unwritten:
            block.written += unwritten.written
            raise
        block.written = block.frames.stop
        self.frames_out += len(block.frames)
        self._settle(block)

    def _settle(self, block: _Block) -> None:
        if block.passed is not None and not block.settled:
            with self.queue._head:
                self.queue._settle_passed(block.passed)
        block.settled = True

    def _return_passing(self) -> None:
        """Frames that are not written and have no unsettled record any more, or never had one, become the first in line."""
        with self._order:
            for block in reversed(self._passing):
                if block.settled or block.passed is None:
                    whole = block.frames.whole_in(block.written)
                    self.frames_out += whole
                    self._return(block.frames.payloads(whole))
            self._passing.clear()
            self._passing_bytes = 0

    def _write_acknowledged(self, items: list[Any]) -> None:
        self._write([item.item for item in items])

    def _write_or_return(self, frames: list[bytes]) -> None:
        """Write frames that have left the queue; those that cannot be written return to the front of it, in their order."""
        before = self.frames_out
        try:
            self._write(frames)
        except BaseException:
            self._return(frames[self.frames_out - before :])
            raise

    def _return(self, frames: list[bytes]) -> None:
        """Back to the front, in their order."""
        self.queue._allow_disk(self._max_disk)
        for frame in reversed(frames):
            self.queue.enqueue_front(frame)

    def _write(self, frames: Sequence[Any]) -> None:
        try:
            data = self._framing.join(frames)
        except TypeError:  # not all of them are bytes: somebody else has put items here
            frames = [frame if isinstance(frame, bytes) else line_of(frame)[:-1] for frame in frames]
            data = self._framing.join(frames)
        if self._open_end and self.frames_out + len(frames) == self._open_end:
            data = data[:-1]
        try:
            self._write_all(memoryview(data))
        except _Unwritten as unwritten:
            self.frames_out += self._whole_frames(frames, unwritten.written)
            raise unwritten.why from None
        self.frames_out += len(frames)

    def _write_all(self, data: memoryview) -> None:
        """Raises `_Unwritten`."""
        at = 0
        try:
            while at < len(data):
                at += self._write_some(data[at:])
        except BaseException as why:
            raise _Unwritten(at, why) from None
        finally:
            self._writing = False
            self.bytes_out += at

    def _write_at_once(self, data: memoryview) -> None:
        """As much as the sink takes without waiting. Raises `_Unwritten`."""
        assert self._patient is not None
        try:
            written = os.write(self._patient, data)
        except OSError as why:
            raise _Unwritten(0, why) from None
        self.bytes_out += written
        if written < len(data):
            raise _Unwritten(written, BlockingIOError())

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
