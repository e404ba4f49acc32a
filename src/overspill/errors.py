"""What can go wrong, by whose fault it is.

Every error of this package is a ``QueueError``. The name says who has to act:

* ``QueueEmpty``, ``QueueFull``, ``RateLimited``: nobody erred; try again later.
* ``QueueClosed``, ``LeaseExpired``, ``InvalidOption``: the caller did.
* ``ItemRejected`` and its kinds: the item; retrying will not help.
* ``QueueLocked``, ``UnsafeFolder``: somebody else is, or was, at the folder.
* ``QueueBroken``: the world did (a failed sync, a full disk that lies); reopen.
* ``CorruptedData``, ``UnknownFormat``: the bytes on disk are not what was written, or not for us.

An error keeps what it knows as attributes (``.path``, ``.offset``, ``.pid``, ``.hint`` and so on) and makes its
sentence from them when it is shown, so a layer further up may still add where it happened
(``error.where = "queue 'jobs'"``). All of them can be pickled: they cross process pools.

``QueueEmpty`` is raised on the hot path, by every poll of an empty queue, and is therefore built by C alone.
"""

from __future__ import annotations

import errno
import os
import queue
import sys
from typing import Any

if sys.version_info >= (3, 13):
    from queue import ShutDown as _ShutDown
else:
    _ShutDown = Exception

__all__ = [
    "CorruptedData",
    "InvalidOption",
    "ItemRejected",
    "ItemTooLarge",
    "LeaseExpired",
    "NotSerializable",
    "QueueBroken",
    "QueueClosed",
    "QueueEmpty",
    "QueueError",
    "QueueFull",
    "QueueLocked",
    "RateLimited",
    "UnknownFormat",
    "UnsafeFolder",
]

Path = str | os.PathLike[str]


def counted(n: int, what: str) -> str:
    """`1 segment`, `2,000 segments`: a number in a sentence for people."""
    return f"{n:,} {what}" if n == 1 else f"{n:,} {what}s"


class QueueError(Exception):
    """The family. ``where`` says at which queue or file, ``hint`` what to do next."""

    where: str | None = None
    hint: str | None = None
    _says = "something went wrong with the queue"  # the sentence of an error that was raised without one

    def __init__(self, message: str = "", *, where: str | None = None, hint: str | None = None) -> None:
        super().__init__(*((message,) if message else ()))
        # Attributes are set only when they say something: the class already holds None.
        if where is not None:
            self.where = where
        if hint is not None:
            self.hint = hint

    @property
    def message(self) -> str:
        """What happened, without where and without the hint."""
        return str(self.args[0]) if self.args else self._says

    def __str__(self) -> str:
        text = f"{self.where}: {self.message}" if self.where else self.message
        return f"{text} ({self.hint})" if self.hint else text

    def __reduce__(self) -> tuple[Any, ...]:
        # Exceptions are pickled as cls(*args), which keyword-only arguments do not survive.
        return _rebuilt, (type(self), self.args, self.__dict__)


def _rebuilt(cls: type[QueueError], args: tuple[object, ...], state: dict[str, object]) -> QueueError:
    error = cls.__new__(cls)
    error.args = args
    for name, value in state.items():
        setattr(error, name, value)
    return error


# Nobody erred: later it may work.


class QueueEmpty(QueueError, queue.Empty):
    """Nothing to take, now or until the timeout. Also a ``queue.Empty``."""

    _says = "the queue is empty"
    # Exception's own __init__ in the class body is taken over as the C function it is: no Python frame for an
    # error that a consumer may meet a million times a second.
    __init__ = Exception.__init__


class QueueFull(QueueError, queue.Full):
    """No room in memory or on disk, and ``when_full`` says to tell. Also a ``queue.Full``."""

    _says = "the queue is full; take something out, raise its limits, or choose another when_full"


class RateLimited(QueueError):
    """The rate limit refused the item; ``retry_after`` says in how many seconds it would not."""

    _says = "the rate limit is reached"

    def __init__(
        self,
        message: str = "",
        *,
        retry_after: float | None = None,
        where: str | None = None,
        hint: str | None = None,
    ) -> None:
        if hint is None and retry_after is not None:
            hint = f'try again in {retry_after:.6g} s, or use RateLimit(..., on_limit="wait")'
        super().__init__(message, where=where, hint=hint)
        self.retry_after = retry_after


# The caller did.


class QueueClosed(QueueError, _ShutDown):
    """``close()`` has begun (or the queue was never this process's to use): no more calls. Also a ``queue.ShutDown``, from Python 3.13 on."""

    _says = "the queue is closed; open it again to go on"


class LeaseExpired(QueueError):
    """The lease ran out before ``ack``, ``nack`` or ``extend``: the item may already be with another consumer."""

    _says = (
        "the lease has expired and the item may have been handed out again; "
        "use a longer lease_timeout, or extend() while working"
    )


class InvalidOption(QueueError, ValueError):
    """An option has a value that cannot be used; names the option, the value and what is allowed."""

    def __init__(
        self,
        option: str,
        value: object,
        allowed: str,
        *,
        where: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(f"{option}={shown(value)}: must be {allowed}", where=where, hint=hint)
        self.option = option
        self.allowed = allowed


# The item is at fault: retrying will not help.


class ItemRejected(QueueError):
    """This queue can never take this item."""

    _says = "the queue cannot take this item"


class ItemTooLarge(ItemRejected):
    """The encoded item has more bytes than ``max_item_size``."""

    def __init__(
        self,
        message: str = "",
        *,
        size: int | None = None,
        limit: int | None = None,
        where: str | None = None,
        hint: str | None = "raise max_item_size, or store the payload elsewhere and queue its address",
    ) -> None:
        if not message:
            message = "the item is too large"
            if size is not None:
                message += f": {size:,} bytes encoded"
            if limit is not None:
                message += f", {limit:,} allowed"
        super().__init__(message, where=where, hint=hint)
        self.size = size
        self.limit = limit


class NotSerializable(ItemRejected, TypeError):
    """The item cannot be written down so that it comes back the same; ``place`` says which part of it."""

    _says = "the item cannot be serialized"

    def __init__(
        self,
        message: str = "",
        *,
        place: str | None = None,
        where: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, where=where, hint=hint)
        self.place = place


# Somebody else is at the folder.


class QueueLocked(QueueError):
    """Another process, or another object in this one, has the folder open; ``pid`` is the holder if known."""

    def __init__(
        self,
        path: Path | None = None,
        *,
        pid: int | None = None,
        where: str | None = None,
        hint: str | None = None,
    ) -> None:
        folder = "the folder" if path is None else os.fspath(path)
        if pid is None:
            message = f"{folder} is held open by another owner"
        elif pid == os.getpid():
            message = f"{folder} is already open in this process (pid {pid})"
            hint = hint or "share the queue object between threads, or close it first"
        else:
            message = f"{folder} is held open by process {pid}"
            hint = hint or "close it there first; HybridQueue.inspect(path) and the read-only commands work beside it"
        super().__init__(message, where=where, hint=hint)
        self.path = None if path is None else os.fspath(path)
        self.pid = pid


class UnsafeFolder(QueueError, PermissionError):
    """The folder is another user's, anybody may write to it, or a link stands in place of our files."""

    def __init__(
        self,
        path: Path,
        reason: str = "",
        *,
        where: str | None = None,
        hint: str | None = "use a folder that only this user can write to",
    ) -> None:
        path = os.fspath(path)
        QueueError.__init__(self, f"{path} is not safe to use" + (f": {reason}" if reason else ""), where=where, hint=hint)
        self.errno = errno.EPERM  # what a handler of PermissionError looks at
        self.path = path
        self.reason = reason


# The world did.


class QueueBroken(QueueError):
    """A write or a sync failed, so nothing more may be written. Reopening recovers what was acknowledged."""

    _says = "the queue cannot be trusted with more writes after a failed one; close and reopen it to recover"


class _AboutBytes(QueueError):
    """An error about bytes at a place: which file, at which offset, what was found where what was expected."""

    _says = "unreadable"

    def __init__(
        self,
        path: Path | None = None,
        *,
        offset: int | None = None,
        found: object = None,
        expected: object = None,
        what: str = "",
        hint: str | None = None,
        where: str | None = None,
    ) -> None:
        super().__init__(where=where, hint=hint)
        self.path = None if path is None else os.fspath(path)
        self.offset = offset
        self.found = found
        self.expected = expected
        self.what = what

    @property
    def message(self) -> str:
        text = self.path or "stored data"
        if self.offset is not None:
            text += f", offset {self.offset}"
        text += f": {self.what or self._says}"
        if self.expected is not None:
            text += f", expected {_both_notations(self.expected)}"
        if self.found is not None:
            text += f", found {_both_notations(self.found)}"
        return text


class CorruptedData(_AboutBytes):
    """Bytes on disk are not the bytes that were written. What, where, and both values as far as they are known."""

    _says = "damaged"


class UnknownFormat(_AboutBytes):
    """Whole, but not ours to read: written by a newer version, another program, or another serializer.

    Not a ``CorruptedData``: what can be read with other means must not be set aside as damage.
    """

    _says = "of a format that is not known here"


def shown(value: object) -> str:
    """A value as an error shows it: its repr, kept short."""
    try:
        text = repr(value)
    except Exception:  # a foreign __repr__ must not hide the error that wanted to show it
        text = f"<{type(value).__name__}>"
    return text if len(text) <= 120 else f"{text[:100]}… ({len(text)} characters)"


def _both_notations(value: object) -> str:
    # A large number is most often a check code, which other tools show in hexadecimal.
    return f"{value} ({value:#x})" if type(value) is int and value > 0xFFFF else shown(value)
