"""Which folders are queues, and how a tool opens one: without making what is not there, without changing what it means.

Nothing of a queue's options is stored with it, so a tool that opens a folder decides nothing for the program that owns it. A folder that holds no queue is refused before a file is made in it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from .._store import layout
from .._store.files import Access, Disk
from .._store.layout import Kind
from ..errors import QueueError
from ..hybrid import HybridQueue
from .stored import AS_STORED

__all__ = ["NoQueue", "is_queue", "open_queue", "orphans", "queues_below", "require_queue"]


class NoQueue(QueueError):
    """The folder is not there, or holds no queue."""

    @classmethod
    def at(cls, path: str | os.PathLike[str]) -> NoQueue:
        """What to say of a folder that is no queue: those below it are meant, if there are any."""
        folder = Path(path)
        if not folder.is_dir():
            return cls(f"there is no queue {folder}")
        below = [each.name for each in queues_below(folder)]
        if not below:
            return cls(f"{folder} holds no queue", hint="a queue is named by its folder, <disk_path>/<name>")
        names = ", ".join(below[:5]) + (f" and {len(below) - 5:,} more" if len(below) > 5 else "")
        return cls(f"{folder} is no queue itself", hint=f"name one of those in it: {names}")


def is_queue(path: str | os.PathLike[str]) -> bool:
    """Whether a folder holds a queue: a segment, or the lock file of one that never held an item."""
    try:
        with Disk.open_folder(path, Access.LOOK) as disk:
            return any(layout.parse_name(entry.name).kind in (Kind.SEGMENT, Kind.LOCK) for entry in disk.listing())
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return False


def require_queue(path: str | os.PathLike[str]) -> None:
    """Raises `NoQueue` for a folder that is none."""
    if not is_queue(path):
        raise NoQueue.at(path)


def open_queue(path: str | os.PathLike[str], *, create: bool = False, **options: Any) -> HybridQueue:
    """Open the queue in a folder, its items as they are stored (see `stored`) unless `serializer` says otherwise.

    Raises `NoQueue` instead of making one, unless `create`; and what `HybridQueue` raises.
    """
    folder = Path(os.path.abspath(path))
    if not create:
        require_queue(folder)
    elif folder.is_dir() and not is_queue(folder) and any(folder.iterdir()):
        raise NoQueue(f"{folder} holds something else", hint="name a folder that is a queue, is empty, or does not exist")
    return HybridQueue(folder.name, folder.parent, **{"serializer": AS_STORED, **options})


def queues_below(path: str | os.PathLike[str]) -> Iterator[Path]:
    """The queues directly below a folder, by name; or the folder itself if it is one."""
    folder = Path(path)
    if is_queue(folder):
        yield folder
        return
    for each in sorted(folder.iterdir()):
        if each.is_dir() and not each.is_symlink() and is_queue(each):
            yield each


def orphans(path: str | os.PathLike[str], configured: Iterable[str | os.PathLike[str]]) -> list[Path]:
    """The queues below a folder that are none of the configured ones (each given as the path of its folder)."""
    known = {os.path.realpath(each) for each in configured}
    return [each for each in queues_below(path) if os.path.realpath(each) not in known]
