"""Where each process keeps its files, below the folder of one run.

The spool is the only folder that two of them write into.
"""

from __future__ import annotations

from pathlib import Path

import msgspec


class Places(msgspec.Struct, frozen=True):
    root: str

    @property
    def encoder(self) -> Path:
        return Path(self.root, "encoder")

    @property
    def manifest(self) -> Path:
        return self.encoder / "manifest.jsonl"

    @property
    def spool(self) -> Path:
        return Path(self.root, "spool")

    @property
    def queues(self) -> Path:
        return Path(self.root, "queues")

    @property
    def store(self) -> Path:
        """What the origin holds: a folder a stream."""
        return Path(self.root, "origin", "store")

    @property
    def journal(self) -> Path:
        """What the origin has stored, in the order in which it came."""
        return Path(self.root, "origin", "received.jsonl")

    def log(self, process: str) -> Path:
        return Path(self.root, f"{process}.log")
