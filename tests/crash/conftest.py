from __future__ import annotations

import itertools
import os
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


@pytest.fixture
def fast_path() -> Iterator[Path]:
    """A folder in memory, where a power cut is simulated and syncing costs nothing."""
    base = "/dev/shm" if os.path.isdir("/dev/shm") and os.access("/dev/shm", os.W_OK) else None
    path = tempfile.mkdtemp(prefix="overspill-crash-", dir=base)
    os.chmod(path, 0o700)
    yield Path(path)
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def new_place(fast_path: Path) -> Callable[[], Path]:
    numbers = itertools.count()
    return lambda: fast_path / f"place{next(numbers)}"


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """Another one every time, printed when the test fails; OVERSPILL_SEED=… runs it again."""
    value = int(os.environ.get("OVERSPILL_SEED", 0)) or random.SystemRandom().randrange(1, 1 << 32)
    print(f"OVERSPILL_SEED={value}")
    return value


