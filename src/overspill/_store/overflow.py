"""What a stream holds beyond its memory: one file of messages, appended to at the end and read from the front.

A message is its length and itself, as the format page has it ("The overflow file of a stream"); a program that writes no more than that writes files that are read here. One thing is
added: once messages have been read from the front, the file begins with a *drained mark* which says where the rest begins. So a kill leaves exactly the messages that were in
the file and not in memory.

What holds:

* When `append` returns, the message is in the kernel. When it raises, the file ends where it ended before.
* `read` only looks; `took` is what takes messages out of the file, all that the last `read` returned.
* What was taken is given back to the file system: all of it when nothing is left, whole blocks from the front otherwise.
* A file is read as far as its lengths make sense. An incomplete message at its end is torn, and cut. A length that cannot be one is damage: what stands there is kept in a
  file of its own before it is cut off, and `damage_is_next` says when everything before it has been read. There is no check code in this format: a byte of a
  message that has changed is not noticed, and a length that has changed may be noticed only some messages later.

Nothing is synced, and a power cut may leave anything. Not locked: the caller sees to it that one thread at a time is in here.
"""

from __future__ import annotations

import errno
import logging
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from ..errors import CorruptedData, counted
from .files import Disk
from .folder import FileLock
from .layout import DRAINED_FAR, DRAINED_MARK, DRAINED_NEAR, MESSAGE_LENGTH, MESSAGE_MAX, PAGE

__all__ = ["Overflow", "OverflowReport"]

_READ_BYTES: Final = 256 * 1024
_SCAN_BYTES: Final = 1 << 20
_GIVE_BACK_BYTES: Final = 1 << 20
"""How much is taken from the front before its blocks are given back: one call of some µs for so much."""
_JOINED_UP_TO: Final = 32 * 1024
"""Up to this size, length and message are joined in memory and written by one call."""
_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})

_length_bytes = MESSAGE_LENGTH.pack

_log = logging.getLogger("overspill")


@dataclass(frozen=True)
class OverflowReport:
    """What opening a stream found in its overflow file; `stream.recovery`."""

    items: int = 0
    """Whole messages: they come before everything new."""
    torn_bytes: int = 0
    """Of an incomplete message at the end: cut."""
    damaged_at: int | None = None
    """Offset of the first length that cannot be one; None if all of them can."""
    kept_in: str | None = None
    """The file in which everything from `damaged_at` on was kept."""

    def __str__(self) -> str:
        text = counted(self.items, "item")
        if self.torn_bytes:
            text += f", {self.torn_bytes:,} torn bytes cut"
        if self.damaged_at is not None:
            text += f", damaged from offset {self.damaged_at:,} on (kept in {self.kept_in})"
        return text


def _messages_in(data: bytes, most: int) -> tuple[list[bytes], int]:
    """Up to `most` messages that are whole in `data`, and how many bytes they take."""
    messages: list[bytes] = []
    at = 0
    while len(messages) < most and at + MESSAGE_LENGTH.size <= len(data):
        start = at + MESSAGE_LENGTH.size
        end = start + MESSAGE_LENGTH.unpack_from(data, at)[0]
        if end - start > MESSAGE_MAX or end > len(data):
            break
        messages.append(data[start:end])
        at = end
    return messages, at


class Overflow:
    """The overflow file of one stream, made if it is not there, and held by a lock until `close` or `remove`."""

    def __init__(self, disk: Disk, name: str) -> None:
        self.items = 0
        """Messages in the file."""
        self._disk = disk
        self._lock = FileLock(disk, name)
        self._at = self._end = 0  # where the first message begins, and where the last one ends
        self._read: tuple[int, int] = (0, 0)  # how many messages the last `read` returned, and where they end
        self._given_back = PAGE  # the first block holds the drained mark, and stays
        self._spoilt = False  # there may be something behind the end
        self.damage: CorruptedData | None = None
        """A damaged place of which nobody was told yet."""
        self._before_damage = 0  # so many messages come before it
        self.lost = 0
        """Items that were in the file and can not be read any more, as far as they were counted."""
        try:
            self.report = self._scan()
        except BaseException:
            self._lock.release()
            raise

    @property
    def path(self) -> str:
        """For messages."""
        return self._disk.path_of(self._lock.name)

    @property
    def nbytes(self) -> int:
        """What the messages in the file take, their lengths included."""
        return self._end - self._at

    # --- at the end

    def append(self, message: bytes) -> None:
        """Add a message. An `OSError` has changed nothing."""
        if self._spoilt:
            self._trim()
        size, fd, end = len(message), self._lock.fd, self._end
        self._spoilt = True
        try:
            if size <= _JOINED_UP_TO:
                self._disk.pwrite(fd, _length_bytes(size) + message, end)
            else:
                self._disk.pwrite(fd, _length_bytes(size), end)  # first: a kill in between leaves a message that is torn, not one of zeros
                self._disk.pwrite(fd, message, end + MESSAGE_LENGTH.size)
            end += MESSAGE_LENGTH.size + size
        except BaseException:
            with suppress(OSError):  # then the next append tries it
                self._trim()
            raise
        self._end, self.items, self._spoilt = end, self.items + 1, False

    def _trim(self) -> None:
        """Cut off what a failed write has left behind the end: it must never be taken for a message."""
        self._disk.truncate(self._lock.fd, self._end)
        self._spoilt = False

    # --- at the front

    def read(self, most: int) -> list[bytes]:
        """Up to `most` of the first messages, left where they are; as many as come with one read, at least one. `[]` if there is none before the end or the damage."""
        most = min(most, self.items if self.damage is None else self._before_damage)
        if most <= 0:
            self._read = 0, self._at
            return []
        about = self.nbytes // self.items * most
        data = self._window(min(about + about // 4 + 64, _READ_BYTES))
        messages, nbytes = _messages_in(data, most)
        if not messages and len(data) >= MESSAGE_LENGTH.size:
            length = MESSAGE_LENGTH.unpack_from(data)[0]
            messages, nbytes = _messages_in(self._window(MESSAGE_LENGTH.size + min(length, MESSAGE_MAX)), 1)
        self._read = len(messages), self._at + nbytes
        if not messages:
            self._set_aside_the_rest(data)
        return messages

    def _window(self, nbytes: int) -> bytes:
        return self._disk.pread(self._lock.fd, min(nbytes, self.nbytes), self._at)

    def took(self) -> None:
        """What the last `read` returned is in memory now, and not in the file any more."""
        (n, at), self._read = self._read, (0, self._at)
        if not n:
            return
        self._at, self.items, self._before_damage = at, self.items - n, max(0, self._before_damage - n)
        if self.items == 0 and self._rewind():
            return
        self._mark_drained()
        self._give_back()

    def _rewind(self) -> bool:
        """Nothing is left: begin at offset 0 again."""
        try:
            self._disk.truncate(self._lock.fd, 0)
        except OSError as error:
            _log.warning("%s: cannot be cut to nothing, its space is given back later: %s", self.path, error)
            return False
        self._at = self._end = 0
        self._given_back = PAGE
        return True

    def _mark_drained(self) -> None:
        """Write to the front where the first message is now."""
        near = self._at < DRAINED_MARK.size
        mark = MESSAGE_LENGTH.pack(DRAINED_NEAR + self._at) if near else DRAINED_MARK.pack(DRAINED_FAR, self._at)
        try:
            self._disk.pwrite(self._lock.fd, mark, 0)
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
            # A file system that needs room to write over what it has. Taking goes on; after a kill these messages would come again.

    def _give_back(self) -> None:
        upto = self._at // PAGE * PAGE
        if upto - self._given_back >= _GIVE_BACK_BYTES:
            self._disk.punch_hole(self._lock.fd, self._given_back, upto - self._given_back)
            self._given_back = upto

    # --- damage

    def tell_damage(self) -> CorruptedData:
        """The error to raise, once; what comes after it can be read from then on."""
        assert self.damage is not None
        error, self.damage = self.damage, None
        return error

    def _set_aside_the_rest(self, data: bytes) -> None:
        """The first message that should be there cannot be read, and so nothing behind it can be found."""
        found = MESSAGE_LENGTH.unpack_from(data)[0] if len(data) >= MESSAGE_LENGTH.size else None
        what = f"it and the {counted(self.items - 1, 'item')} behind it" if self.items > 1 else "it"
        self._set_aside(self._at, 0, found, what)
        self.lost += self.items
        self.items = 0
        self._rewind()

    def _set_aside(self, at: int, before: int, found: int | None, what: str) -> str:
        """Keep everything from `at` on in a file of its own, and cut it off; returns the file's name. Raises `OSError`, and has changed nothing, if there is no room for that."""
        kept = self._keep(at)
        self._disk.truncate(self._lock.fd, at)
        error = CorruptedData(
            self.path, offset=at, found=found, what="no message begins here", expected=f"its length, at most {MESSAGE_MAX:,},",
            hint=f"{what} cannot be read and is kept in {kept}; the stream goes on without",
        )  # fmt: skip
        self._end = at
        self.damage, self._before_damage = error, before
        _log.error("%s", error)
        return kept

    def _keep(self, at: int) -> str:
        disk, fd = self._disk, self._lock.fd
        listed = {name for name, _ in disk.listing()}
        name = stem = f"{self._lock.name}.corrupt"
        again = 1
        while name in listed:
            again += 1
            name = f"{stem}-{again}"
        kept = disk.create(name, 0)
        try:
            size, to = disk.size(fd), 0
            while at + to < size:
                piece = disk.pread(fd, _SCAN_BYTES, at + to)
                disk.pwrite(kept, piece, to)
                to += len(piece)
        except BaseException:
            disk.unlink(name)
            raise
        finally:
            disk.close_file(kept)
        return name

    # --- opening and closing

    def _scan(self) -> OverflowReport:
        """Count what is there, cut what is torn, set aside what is damaged."""
        disk, fd = self._disk, self._lock.fd
        size = disk.size(fd)
        at = self._at = self._first(size)
        data, base = b"", 0  # a window of the file, and where it begins
        while at < size:
            if at + MESSAGE_LENGTH.size > base + len(data):
                data, base = disk.pread(fd, _SCAN_BYTES, at), at
            length = MESSAGE_LENGTH.unpack_from(data, at - base)[0] if len(data) - (at - base) >= MESSAGE_LENGTH.size else None
            if length is not None and length > MESSAGE_MAX:
                kept = self._set_aside(at, self.items, length, "it, with what is behind it,")
                report = OverflowReport(self.items, 0, at, kept)
                break
            behind = size + 1 if length is None else at + MESSAGE_LENGTH.size + length
            if behind > size:
                disk.truncate(fd, at)
                _log.warning("%s: an incomplete message at the end, %d bytes from offset %d on, was cut", self.path, size - at, at)
                report = OverflowReport(self.items, size - at)
                break
            self.items += 1
            at = behind
        else:
            report = OverflowReport(self.items)
        self._end = at
        if self.items == 0:
            self._rewind()
        return report

    def _first(self, size: int) -> int:
        """Where the first message begins: behind what an earlier life has drained, if it has."""
        mark = self._disk.pread(self._lock.fd, DRAINED_MARK.size, 0)
        if len(mark) < MESSAGE_LENGTH.size:
            return 0
        near = MESSAGE_LENGTH.unpack_from(mark)[0] - DRAINED_NEAR
        if MESSAGE_LENGTH.size <= near < DRAINED_MARK.size and near <= size:
            return int(near)
        if len(mark) == DRAINED_MARK.size:
            first, far = DRAINED_MARK.unpack(mark)
            if first == DRAINED_FAR and DRAINED_MARK.size <= far <= size:
                return int(far)
        return 0

    def remove(self) -> None:
        """Remove the file, with everything in it, and let go."""
        try:
            if self._disk.names(self._lock.name, self._lock.fd):
                self._disk.unlink(self._lock.name)
        finally:
            self.items = self._at = self._end = 0
            self.close()

    def close(self) -> None:
        """Let go. What is in the file stays there for the next opening."""
        self._lock.release()
