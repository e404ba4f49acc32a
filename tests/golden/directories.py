"""Golden directories: queues as version 1 of the format wrote them, kept for ever as text.

`python tests/golden/directories.py` writes the files that are missing; it never replaces one, for what has reached a disk never changes meaning. A file is JSON: the folder's files as
base64 of gzip, and what must come out of them, in order: payload (hex), priority, attempts, place of expiry, id.

Some are written by a queue through its public verbs, some by the oracle from the format page alone, with what a queue writes rarely: front items, compaction, extensions, recycled
remains, every codec, damage.
"""
from __future__ import annotations

import base64
import gzip
import json
import random
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import oracle  # noqa: E402
from faults import State, lay_out, taken_from  # noqa: E402

WALL_NS = 1_700_000_000_000_000_000


def packed(state: State) -> dict[str, Any]:
    return {name: None if data is None else base64.b64encode(gzip.compress(data, mtime=0)).decode() for name, data in sorted(state.items())}


def unpacked(files: dict[str, Any]) -> State:
    return {name: None if data is None else gzip.decompress(base64.b64decode(data)) for name, data in files.items()}


# --- by a queue


def _queue(path: Path, **options: Any) -> Any:
    from overspill import HybridQueue, KiB
    from overspill._runtime.clock import ManualClock

    return HybridQueue("q", path, max_disk_size=256 * KiB, _background=False, _clock=ManualClock(WALL_NS), **options)


def bytes_and_str(path: Path) -> State:
    with _queue(path) as q:
        for n in range(20):
            q.enqueue(bytes([n]) * n, priority=(64, 128, 192)[n % 3])
            q.enqueue(f"ü{n}", priority=128)
        q.enqueue_front(b"first")
        for _ in range(7):
            q.dequeue(0)
        with q.lease(0):
            pass
        q.lease(0).nack()
        q.lease(0).nack()
    return taken_from(path / "q")


def values(path: Path) -> State:
    with _queue(path) as q:
        for item in (None, True, 0, -(1 << 62), 1.5, "text", b"bytes", (1, (2, "three")), [1, [2, None]], {"a": 1, "b": [b"c"]}):
            q.enqueue(item)
    return taken_from(path / "q")


def several_segments(path: Path) -> State:
    rng = random.Random(1)
    for _ in range(3):
        with _queue(path, memory_size=3) as q:
            for n in range(4):
                q.enqueue(rng.randbytes(300), priority=rng.choice((1, 128, 255)))
            q.enqueue_batch([rng.randbytes(50) for _ in range(3)])
            q.dequeue(0)
    return taken_from(path / "q")


def killed(path: Path) -> State:
    q = _queue(path, compression=None)
    q.enqueue_batch([b"a" * 100, b"b" * 100])
    q.sync()
    q.enqueue(b"c" * 100)
    q.enqueue(b"d", ttl=1e6)
    q.dequeue(0)
    q.lease(0)
    state = taken_from(path / "q")
    state["lock"] = b""
    q.close()
    return state


def compressed(codec: str) -> Callable[[Path], State]:
    def make(path: Path) -> State:
        with _queue(path, compression=codec) as q:
            for n in range(5):
                q.enqueue(f"line {n} ".encode() * 200)
            q.enqueue(b"short")
        return taken_from(path / "q")

    return make


def delayed_and_dead(path: Path) -> State:
    with _queue(path, max_attempts=2) as q:
        for n in range(6):
            q.enqueue(f"job {n}", priority=(128, 7)[n % 2], delay=(None, 1000 - n)[n % 2])
        q.enqueue_front(b"front")
        q.lease(0).nack(500)
        q.lease(0).reject("no such codec: ü")
        for _ in range(2):
            q.lease(0).nack(error=ValueError("again"))
        q.lease(0).reject()
        q.dead_letters.replay(max_items=1)
    return taken_from(path / "q")


def moving(path: Path) -> State:
    """Killed after a nack with a delay, a rejection and a replay, of which nothing had been synced: the records are there twice."""
    q = _queue(path)
    q.enqueue_batch([b"nacked", b"rejected", b"replayed", b"left"])
    q.lease(0).nack(500)
    for _ in range(2):
        q.lease(0).reject("x")
    q.dead_letters.replay(lambda letter: letter.item == b"replayed")
    state = taken_from(path / "q")
    state["lock"] = b""
    q.close()
    return state


# --- by the oracle


def moved_by_the_page(_: Path) -> State:
    import struct

    first = oracle.write_segment(
        [{"payload": b"was here", "id": b"A" * 16}, {"payload": b"another", "id": b"B" * 16}, {"payload": b"stays", "id": b"C" * 16}], number=1, next_sequence=4,
    )
    header = oracle.read_segment(first).records
    moved = [
        {"payload": b"was here", "id": b"A" * 16, "sequence": 1, "flags": oracle.MOVED | oracle.DELAYED,
         "extension_bytes": struct.pack("<q", WALL_NS + 10**12) + struct.pack("<QQ", 1, header[0].offset)},
        {"payload": b"another", "id": b"B" * 16, "sequence": 2, "flags": oracle.MOVED | oracle.DEAD, "attempts": 3,
         "extension_bytes": struct.pack("<qHHI", WALL_NS, 1, 5, 0) + b"error\0\0\0" + struct.pack("<QQ", 1, header[1].offset)},
        {"payload": b"not it", "id": b"D" * 16, "sequence": 9, "flags": oracle.MOVED, "extension_bytes": struct.pack("<QQ", 1, header[2].offset)},
    ]  # fmt: skip
    second = oracle.write_segment(moved, number=2, salt=80, base_sequence=4, sealed=False, file_size=16384)
    return {f"{number:020}.seg": data for number, data in ((1, first), (2, second))} | {"lock": b""}


def from_the_page(_: Path) -> State:
    sealed = oracle.write_segment(
        [
            {"payload": b"one", "leases": 3},
            {"payload": b"gone", "done": True},
            {"payload": b"front", "flags": oracle.FRONT},
            {"payload": "zwölf".encode(), "kind": 1, "priority": 200},
            {"payload": b"extended", "extension_bytes": b"\x07" * 16, "attempts": 2, "leases": 1},
            {"payload": b"late", "expiry_ns": 1 << 62},
        ],
        number=1,
        next_sequence=20,
    )
    merged = oracle.write_segment(
        [{"payload": b"copied", "sequence": 7, "flags": oracle.COPIED}, {"payload": b"copied too", "sequence": 12, "flags": oracle.COPIED}],
        number=3, through=5, salt=77, base_sequence=7,
    )  # fmt: skip
    replaced = oracle.write_segment([{"payload": b"replaced", "sequence": 7}], number=4, salt=78, base_sequence=7)
    opened = oracle.write_segment(
        [{"payload": b"kept", "sequence": 30}, {"payload": b"half", "sequence": 31, "batch_left": 2}, {"payload": b"of a batch", "sequence": 32, "batch_left": 1}],
        number=6, salt=79, base_sequence=30, sealed=False, file_size=16384,
    )  # fmt: skip
    return {f"{number:020}.seg": data for number, data in ((1, sealed), (3, merged), (4, replaced), (6, opened))} | {"lock": b""}


def damaged(_: Path) -> State:
    sealed = bytearray(oracle.write_segment([{"payload": bytes([65 + n]) * 40} for n in range(6)], number=1, next_sequence=7))
    at = sealed.index(b"C" * 40)
    sealed[at + 3] ^= 1
    return {f"{1:020}.seg": bytes(sealed), "lock": b""}


MAKERS: dict[str, Callable[[Path], State]] = {
    "bytes_and_str": bytes_and_str,
    "values": values,
    "several_segments": several_segments,
    "killed": killed,
    "snappy": compressed("snappy"),
    "lz4": compressed("lz4"),
    "zstd": compressed("zstd"),
    "from_the_page": from_the_page,
    "damaged": damaged,
    "delayed_and_dead": delayed_and_dead,
    "moving": moving,
    "moved_by_the_page": moved_by_the_page,
}


def contents(state: State) -> dict[str, list[list[Any]]]:
    """What a folder in this state holds, in order, by the oracle."""
    with tempfile.TemporaryDirectory() as base:
        lay_out(state, Path(base) / "q")
        return told(oracle.read_folder(Path(base) / "q"))


def told(folder: oracle.Folder) -> dict[str, list[list[Any]]]:
    lines = {"items": folder.items, "delayed": folder.delayed, "dead_letters": folder.dead_letters}
    return {
        name: [[item.payload.hex(), item.kind, item.priority, item.attempts, item.expiry_ns, item.id.hex(), *([item.time_ns] if item.time_ns else [])] for item in line]
        for name, line in lines.items() if line or name == "items"
    }  # fmt: skip


def write(name: str) -> None:
    file = HERE / f"v1_{name}.json"
    if file.exists():
        return
    with tempfile.TemporaryDirectory() as base:
        state = MAKERS[name](Path(base))
    file.write_text(json.dumps({"version": 1, "files": packed(state), **contents(state)}, indent=1) + "\n")
    print("written:", file.name, file.stat().st_size, "bytes")


if __name__ == "__main__":
    for each in MAKERS:
        write(each)
