"""What the numbers were measured on: enough to repeat them, nothing that says whose machine it was."""
from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import sqlite3
import sys
from pathlib import Path

from .scratch import file_system_of

PACKAGES = (
    "overspill", "queuelib", "persist-queue", "diskcache", "litequeue", "lmdb", "rocksdict",
)  # fmt: skip


def describe(folder: Path) -> dict[str, str]:
    return {
        "cpu": _first(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo")) or platform.machine(),
        "cores": str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()),
        "memory": _memory(),
        "virtual": "yes" if re.search(r"^flags.*\bhypervisor\b", _text(Path("/proc/cpuinfo")), re.M) else "no",
        "kernel": f"{platform.system()} {platform.release()}",
        "file system": file_system_of(folder),
        "python": f"{platform.python_implementation()} {platform.python_version()}, {platform.python_compiler()}",
        "gil": "on" if getattr(sys, "_is_gil_enabled", lambda: True)() else "off",
        "sqlite": sqlite3.sqlite_version,
        "packages": ", ".join(f"{name} {_version(name)}" for name in PACKAGES),
    }


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "(not installed)"


def _memory() -> str:
    found = _first(r"MemTotal:\s*(\d+) kB", Path("/proc/meminfo"))
    return f"{int(found) / 2**20:.0f} GiB" if found else "unknown"


def _first(pattern: str, path: Path) -> str | None:
    match = re.search(pattern, _text(path))
    return match.group(1).strip() if match else None


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
