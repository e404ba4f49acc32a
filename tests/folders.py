"""Where tests put their queues. A module of tests that wants one of these as its fixture says `quick_path = folders.quick_path`."""
from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def quick_path(tmp_path: Path) -> Iterator[Path]:
    """A folder in which a sync costs nothing where there is one: for what is judged by what a queue does, not by what a disk does."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    path = Path(tempfile.mkdtemp(prefix="overspill-", dir=memory))
    yield path
    shutil.rmtree(path)
