"""A directory to measure in: on a real disk, ours alone, and gone afterwards.

A temporary directory is often memory in disguise, and a sync that costs nothing would make every queue look alike, so
the default lies beside the results, in the checkout, and a file system that keeps nothing is refused.
"""
from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

RESULTS = Path(__file__).resolve().parent / "results"
FORGETFUL = {"tmpfs", "ramfs", "devtmpfs"}


class NoDisk(Exception):
    """The directory lies on a file system that is memory."""


def file_system_of(path: Path) -> str:
    """The type of the file system that holds `path`, as the kernel names it."""
    device = os.stat(path).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    try:
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return "unknown"
    for mount in mounts:
        fields, _, rest = mount.partition(" - ")
        if fields.split()[2] == wanted:
            return rest.split()[0]
    return "unknown"


class Scratch:
    """Hands out a new folder a name, and takes folders away again."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._count = 0

    def folder(self, name: str) -> Path:
        self._count += 1
        path = self.root / f"{self._count:04d}-{name}"
        path.mkdir(mode=0o700)
        return path

    @contextmanager
    def short_lived(self, name: str) -> Iterator[Path]:
        """A folder whose blocks are free again before the next contestant writes."""
        path = self.folder(name)
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)


@contextmanager
def scratch(parent: Path | None) -> Iterator[Scratch]:
    if parent is None:
        RESULTS.mkdir(exist_ok=True)
    root = Path(tempfile.mkdtemp(prefix="scratch-", suffix=".tmp", dir=parent or RESULTS))
    try:
        kind = file_system_of(root)
        if kind in FORGETFUL:
            raise NoDisk(f"{root} is on {kind}, which is memory: give a directory on a disk with --dir")
        yield Scratch(root)
    finally:
        shutil.rmtree(root, ignore_errors=True)
