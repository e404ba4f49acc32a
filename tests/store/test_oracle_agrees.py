"""The compiled code and the oracle, which share nothing but the format page, read what the other wrote."""
from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import oracle
from faults import lay_out, taken_from
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from overspill import Durability, HybridQueue, KiB, QueueEmpty
from overspill._runtime.clock import ManualClock
from overspill._store.inspection import items as stored_items
from overspill.serializers import resolve

SETTINGS = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
CODEC = resolve("auto")


@contextmanager
def place() -> Iterator[Path]:
    path = tempfile.mkdtemp(prefix="overspill-oracle-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None)
    try:
        yield Path(path)
    finally:
        shutil.rmtree(path)


def values_of(items: list[oracle.Item]) -> list[Any]:
    return [CODEC.decode(item.kind, item.payload) for item in items]


# --- what a queue wrote

sizes = st.sampled_from([0, 1, 7, 8, 100, 3000, 9000])
priorities = st.sampled_from([0, 1, 128, 128, 128, 255])
moves = st.one_of(
    st.tuples(st.just("put"), sizes, priorities),
    st.tuples(st.just("text"), sizes, priorities),
    st.tuples(st.just("front"), sizes, priorities),
    st.tuples(st.just("batch"), st.lists(sizes, min_size=1, max_size=4), priorities),
    st.tuples(st.just("large"), st.just(40_000), priorities),
    st.tuples(st.sampled_from(["get", "get", "lease", "ack", "nack", "sync", "seal", "reopen"]), st.none(), st.none()),
)


@SETTINGS
@given(history=st.lists(moves, max_size=40), plain=st.booleans(), memory_size=st.sampled_from([1, 3, 1000]), compression=st.sampled_from([None, None, "snappy", "lz4", "zstd"]))
def test_the_oracle_reads_what_a_queue_wrote(history: list[tuple[str, Any, Any]], plain: bool, memory_size: int, compression: str | None) -> None:
    with place() as path:
        clock = ManualClock()
        options: dict[str, Any] = {
            "max_disk_size": 2048 * KiB, "memory_size": memory_size, "compression": compression, "durability": Durability.PROCESS, "sync_interval": None, "lease_timeout": 1e6,
            "_plain": plain, "_background": False, "_clock": clock,
        }
        q = HybridQueue("q", path, **options)
        leases: list[Any] = []
        counted: dict[bytes, int] = {}
        for n, (move, what, priority) in enumerate(history):
            stamp = f"{n}:".encode()
            if move == "put" or move == "large":
                q.enqueue(stamp + bytes(what), priority=priority)
            elif move == "text":
                q.enqueue("ü" * what, priority=priority)
            elif move == "front":
                q.enqueue_front(stamp + bytes(what), priority=priority)
            elif move == "batch":
                q.enqueue_batch([stamp + bytes(size) for size in what], priority=priority)
            elif move == "get":
                try:
                    q.try_dequeue()
                except QueueEmpty:
                    pass
            elif move == "lease" and len(q):
                leases.append(q.lease(0))
                counted[leases[-1].id.bytes] = leases[-1].attempts
            elif move in ("ack", "nack") and leases:
                getattr(leases.pop(0), move)()
            elif move == "sync":
                q.sync()
            elif move == "seal":
                clock.advance(2)
            elif move == "reopen":
                leases.clear()
                q.close()
                check_closed(path / "q")
                q = HybridQueue("q", path, **options)
        # What waits and what is on lease is in the folder, as it would be after a kill.
        folder = oracle.read_folder(path / "q")
        assert folder.problems == [] and not folder.foreign and not folder.unreadable
        assert {item.id for item in folder.items} >= {delivery.id.bytes for delivery in leases}
        waiting = [item for item in folder.items if item.id not in {delivery.id.bytes for delivery in leases}]
        assert values_of(waiting) == list(q)
        for item in folder.items:
            assert item.attempts == counted.get(item.id, 0)
        q.close()
        check_closed(path / "q")


def check_closed(path: Path) -> None:
    folder = oracle.read_folder(path)
    assert folder.problems == []
    assert all(segment.sealed for segment in folder.segments.values())
    sequences = [record.sequence for segment in folder.segments.values() for record in segment.records if not record.flags & oracle.COPIED]
    assert sequences == sorted(set(sequences)), "a sequence number was used again"
    seen = [(item.payload, item.priority, item.id, item.attempts) for item in folder.items]
    stored = [(item.id, item.priority, item.attempts) for item in stored_items(path)]
    assert stored == [(identity, priority, attempts) for _, priority, identity, attempts in seen]


# --- what the oracle wrote

record = st.fixed_dictionaries(
    {"payload": st.binary(max_size=300), "priority": priorities, "flags": st.sampled_from([0, 0, 0, oracle.FRONT]), "attempts": st.sampled_from([0, 0, 1, 254, 255]),
     "done": st.booleans(), "leases": st.sampled_from([0, 0, 1, 200, 255]), "extension_bytes": st.sampled_from([b"", b"", b"\x01" * 8, b"\x02" * 40]), "expiry_ns": st.sampled_from([0, 0, 1 << 61]),
     "id": st.binary(min_size=16, max_size=16)},
)  # fmt: skip


@SETTINGS
@given(segments=st.lists(st.tuples(st.lists(record, max_size=12), st.booleans()), min_size=1, max_size=4), plain=st.booleans(), salt=st.integers(0, 2**32 - 1))
def test_a_queue_reads_what_the_oracle_wrote(segments: list[tuple[list[dict[str, Any]], bool]], plain: bool, salt: int) -> None:
    state: dict[str, bytes | None] = {}
    sequence = 1
    for number, (records, sealed) in enumerate(segments, 1):
        numbered = [{**fields, "sequence": sequence + i} for i, fields in enumerate(records)]
        sequence += len(records)
        state[f"{number:020}.seg"] = oracle.write_segment(numbered, number=number, salt=salt ^ number, base_sequence=sequence - len(records), next_sequence=sequence, sealed=sealed)
    with place() as path:
        lay_out(state, path / "q")
        expected = oracle.live_items(path / "q")
        with HybridQueue("q", path, _plain=plain, _background=False) as q:
            assert q.recovery is not None and not q.recovery.quarantined and not q.recovery.torn_bytes
            assert q._next_sequence >= sequence
            assert list(q) == [item.payload for item in expected]
            for item in expected[: len(expected) // 2]:
                with q.lease(0) as delivery:
                    assert (delivery.item, delivery.id.bytes, delivery.priority) == (item.payload, item.id, item.priority)
                    assert delivery.attempts == min(255, item.attempts + 1)
        left = oracle.read_folder(path / "q")
        assert left.problems == [] and [item.id for item in left.items] == [item.id for item in expected[len(expected) // 2 :]]


@SETTINGS
@given(records=st.lists(record, min_size=1, max_size=8), cut=st.floats(0, 1), synced=st.integers(0, 3), plain=st.booleans())
def test_both_cut_a_torn_tail_at_the_same_place(records: list[dict[str, Any]], cut: float, synced: int, plain: bool) -> None:
    """The file ends in zeros from somewhere on. `synced`: how many of the first records were known to be safe when the last were written."""
    whole = oracle.write_segment([{**fields, "sequence": n + 1} for n, fields in enumerate(records)], sealed=False)
    segment = oracle.read_segment(whole)
    safe = segment.records[min(synced, len(records)) - 1].end if synced else 0
    fields = [{**each, "sequence": n + 1, "synced": safe // 8 if segment.records[n].offset >= safe else 0} for n, each in enumerate(records)]
    whole = oracle.write_segment(fields, sealed=False)
    start, end = segment.records[0].offset, segment.records[-1].end
    at = max(int(start + cut * (end - start)), safe)
    torn = whole[:at] + bytes(len(whole) - at)
    with place() as path:
        lay_out({f"{1:020}.seg": torn}, path / "q")
        expected = oracle.live_items(path / "q")
        with HybridQueue("q", path, _plain=plain, _background=False) as q:
            assert list(q) == [item.payload for item in expected]
            assert q.recovery is not None and not q.recovery.quarantined
        after = taken_from(path / "q")
        assert oracle.read_folder(path / "q").problems == [], sorted(after)
