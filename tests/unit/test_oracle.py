"""The judge is judged: hand-made bytes, then its two halves against each other, then the page's rules for reading.

The compiled scan and the oracle are held against each other at the end, for segments as they are written and for segments with
damage.
"""

from __future__ import annotations

import random
import struct
from array import array
from pathlib import Path
from typing import Any

import cramjam
import pytest
from hypothesis import given
from hypothesis import strategies as st

import oracle
from oracle import COPIED, FRONT, live_items, read_folder, read_segment, write_segment
from overspill._core.record import build_index, scan

SALT = 0x5EED5A17


def name(number: int) -> str:
    return f"{number:020}.seg"


def payloads(segment: oracle.Segment) -> list[bytes]:
    return [record.payload for record in segment.records]


def with_bytes(data: bytes, offset: int, new: bytes) -> bytes:
    return data[:offset] + new + data[offset + len(new) :]


def numbered(n: int, **fields: Any) -> list[dict[str, Any]]:
    return [{"payload": b"item %d" % i, **fields} for i in range(n)]


def folder_of(tmp_path: Path, *segments: bytes) -> Path:
    for data in segments:
        number = int.from_bytes(data[32:40], "little")
        (tmp_path / name(number)).write_bytes(data)
    return tmp_path


# --- bytes


def test_crc_is_castagnoli_and_continues_from_a_seed() -> None:
    assert oracle.crc(b"123456789") == 0xE3069283
    assert oracle.crc(b"6789", oracle.crc(b"12345")) == 0xE3069283


def test_smallest_segment_byte_by_byte() -> None:
    data = write_segment(
        [{"payload": b"hi", "id": bytes(range(16)), "enqueued_ns": 3, "priority": 200, "kind": 1, "flags": FRONT}],
        number=5, salt=7, queue=b"Q" * 16, base_sequence=11, created_ns=9, file_size=8192, sealed=False,
    )  # fmt: skip
    head = b"OVSPSEG\n" + struct.pack("<HHI", 1, 0, 7) + b"Q" * 16 + struct.pack("<QQQQQQI", 5, 5, 11, 9, 4096, 8192, 64) + bytes(40)
    marks = struct.pack("<II", 0, oracle.crc(bytes(8), 7)) + struct.pack("<II", 0, oracle.crc(bytes(4) + b"\1\0\0\0", 7))
    tail = struct.pack("<IQ", 2, 11) + bytes(range(16)) + struct.pack("<qqIIII", 3, 0, 2, oracle.crc(b"hi", 7), 0, 0)
    tail += bytes([200, 1, 0, 1, 0, 0, 0, 0])
    record = struct.pack("<I", oracle.crc(tail, 7 ^ 512)) + tail + b"hi" + bytes(6)
    assert data == (head + struct.pack("<I", oracle.crc(head))).ljust(512, b"\0") + marks.ljust(4096 - 512, b"\0") + record.ljust(4096, b"\0")


fields = st.fixed_dictionaries(
    {"payload": st.binary(max_size=200)},
    optional={
        "priority": st.integers(0, 255),
        "flags": st.integers(0, 3),
        "expiry_ns": st.integers(0, 2**62),
        "kind": st.integers(0, 6),
        "attempts": st.integers(0, 255),
        "done": st.booleans(),
        "leases": st.integers(0, 255),
        "extension_bytes": st.sampled_from([b"", bytes(8), b"e" * 16]),
    },
)


@given(st.lists(fields, max_size=40), st.booleans())
def test_what_is_written_is_read_and_as_the_page_has_it(records: list[dict[str, Any]], sealed: bool) -> None:
    segment = read_segment(write_segment(records, sealed=sealed))
    assert segment.problems == []
    assert not segment.torn
    assert segment.sealed == sealed
    assert payloads(segment) == [record["payload"] for record in records]
    for n, (read, written) in enumerate(zip(segment.records, records, strict=True)):
        assert read.sequence == 1 + n
        for field in ("priority", "flags", "expiry_ns", "kind", "attempts"):
            assert getattr(read, field) == written.get(field, oracle._DEFAULTS[field])
        assert (read.offset in segment.marks) == written.get("done", False)
        assert segment.attempts.get(read.offset, 0) == written.get("leases", 0)
    assert len(segment.live) == sum(not record.get("done", False) for record in records)


def test_every_flipped_bit_of_a_sealed_segment_is_noticed_or_without_effect() -> None:
    data = write_segment(numbered(3, priority=4) + [{"payload": b"low", "priority": 1, "done": True}], file_size=8192)
    whole = read_segment(data)
    silent = 0
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        segment = read_segment(bytes(flipped))
        if not segment.problems:
            # No footer, no index: the records still vouch for themselves. Counts and padding are nobody's data.
            at = bit // 8
            assert payloads(segment) == payloads(whole), bit
            assert segment.marks == whole.marks, bit
            assert not segment.sealed or 512 <= at < 4096, bit
            silent += segment.sealed
    assert silent < 8 * 4096


# --- a segment without a footer


def test_end_of_records_is_no_tear() -> None:
    segment = read_segment(write_segment(numbered(4), sealed=False))
    assert len(segment.records) == 4 and not segment.torn and not segment.cut


def test_remains_of_an_earlier_life_are_not_read() -> None:
    fresh = write_segment(numbered(2), sealed=False, salt=1, file_size=8192)
    old = write_segment(numbered(40), sealed=False, salt=2, file_size=8192)
    segment = read_segment(fresh[: 4096 + 2 * 80] + old[4096 + 2 * 80 :])
    assert len(segment.records) == 2 and not segment.torn and segment.problems == []


def test_torn_last_record_is_cut_and_the_one_before_survives() -> None:
    data = write_segment(numbered(3), sealed=False)
    last = read_segment(data).records[-1]
    for torn in (with_bytes(data, last.offset + 72, b"X"), with_bytes(data, last.offset, bytes(72))):
        segment = read_segment(torn)
        assert payloads(segment) == [b"item 0", b"item 1"] and segment.problems == []


def test_everything_behind_a_tear_is_cut() -> None:
    data = write_segment(numbered(5), sealed=False)
    third = read_segment(data).records[2]
    for torn in (with_bytes(data, third.offset + 72, b"X"), with_bytes(data, third.offset + 8, b"X")):
        segment = read_segment(torn)
        assert len(segment.records) == 2 and segment.torn
        assert [record.sequence for record in segment.cut] == [4, 5]


def test_damage_below_the_synced_position_is_set_aside_and_the_reading_goes_on() -> None:
    offsets = [record.offset for record in read_segment(write_segment(numbered(5), sealed=False)).records]
    records = numbered(5)
    records[4]["synced"] = offsets[3] // 8
    data = write_segment(records, sealed=False)
    head_damaged = read_segment(with_bytes(data, offsets[2] + 8, b"X"))
    assert payloads(head_damaged) == [b"item 0", b"item 1", b"item 3", b"item 4"]
    assert head_damaged.damage == [(offsets[2], offsets[3] - offsets[2])] and not head_damaged.torn
    payload_damaged = read_segment(with_bytes(data, offsets[2] + 72, b"X"))
    assert [record.ok for record in payload_damaged.records] == [True, True, False, True, True]
    assert payload_damaged.damage == head_damaged.damage
    above = read_segment(with_bytes(data, offsets[3] + 8, b"X"))
    assert len(above.records) == 3 and above.torn and not above.damage


def test_two_damaged_records_below_the_synced_position_hide_nothing_between_them() -> None:
    offsets = [record.offset for record in read_segment(write_segment(numbered(5), sealed=False)).records]
    records = numbered(5)
    records[4]["synced"] = offsets[4] // 8
    data = write_segment(records, sealed=False)
    for at in (offsets[1], offsets[3]):
        data = with_bytes(data, at + 8, b"X")
    assert payloads(read_segment(data)) == [b"item 0", b"item 2", b"item 4"]


def test_incomplete_batch_is_cut_as_a_whole() -> None:
    batch = [{"payload": b"b%d" % left, "batch_left": left} for left in (2, 1, 0)]
    whole = write_segment(numbered(2) + batch, sealed=False)
    assert len(read_segment(whole).records) == 5
    for kept in (1, 2):
        segment = read_segment(write_segment(numbered(2) + batch[:kept], sealed=False))
        assert payloads(segment) == [b"item 0", b"item 1"] and segment.torn
    two = write_segment(batch + batch[:2], sealed=False)
    assert payloads(read_segment(two)) == [b"b2", b"b1", b"b0"]


def test_rotten_mark_word_counts_as_no_mark() -> None:
    data = write_segment(numbered(2, done=True), sealed=False)
    assert not read_segment(data).live
    rotten = read_segment(with_bytes(data, 512, bytes([data[512] ^ 4])))
    assert len(rotten.live) == 2 and rotten.problems == ["settle marks: word 0 does not check"]


# --- a segment with a footer


def test_damage_in_a_sealed_segment_costs_that_record_alone() -> None:
    data = write_segment(numbered(4))
    second = read_segment(data).records[1]
    for damaged in (with_bytes(data, second.offset + 72, b"X"), with_bytes(data, second.offset, bytes(72))):
        segment = read_segment(damaged)
        assert [record.sequence for record in segment.live] == [1, 3, 4]
        assert segment.damage == [(second.offset, second.end - second.offset)]


def test_sealed_segment_with_a_damaged_index_still_has_its_records() -> None:
    data = write_segment(numbered(4))
    footer = read_segment(data).footer
    assert footer is not None
    for at in (footer.records_end, footer.directory_start):
        segment = read_segment(with_bytes(data, at, b"\xff"))
        assert len(segment.live) == 4 and segment.problems


def test_wrong_totals_are_a_problem() -> None:
    data = write_segment(numbered(4))
    body = with_bytes(data[-128:-4], 72, b"\x01")
    segment = read_segment(data[:-128] + body + struct.pack("<I", oracle.crc(body, SALT)))
    assert segment.problems == ["footer: payload_bytes is 1, the records say 24"]


# --- a folder


def test_items_leave_by_priority_then_place_across_segments(tmp_path: Path) -> None:
    first = write_segment([{"payload": b"low", "priority": 1}, {"payload": b"a"}, {"payload": b"high", "priority": 9, "done": True}])
    second = write_segment(
        [{"payload": b"front", "flags": FRONT}, {"payload": b"b"}, {"payload": b"fronter", "flags": FRONT}, {"payload": b"top", "priority": 255}],
        number=2, base_sequence=4, sealed=False, salt=9,
    )  # fmt: skip
    items = live_items(folder_of(tmp_path, first, second))
    assert [item.payload for item in items] == [b"top", b"fronter", b"front", b"a", b"b", b"low"]
    assert [item.place for item in items] == [7, -6, -4, 2, 5, 1]


def test_compacted_segment_replaces_those_it_stands_for(tmp_path: Path) -> None:
    folder_of(tmp_path, *(write_segment(numbered(2), number=n, base_sequence=2 * n - 1, salt=n) for n in (1, 2, 3, 4)))
    compacted = write_segment([{"payload": b"kept", "sequence": 4, "flags": COPIED}], number=2, through=3, base_sequence=9, next_sequence=7)
    (tmp_path / name(2)).write_bytes(compacted)
    folder = read_folder(tmp_path)
    assert folder.replaced == [3]
    assert [(item.segment, item.payload) for item in folder.items] == [
        (1, b"item 0"), (1, b"item 1"), (2, b"kept"), (4, b"item 0"), (4, b"item 1"),
    ]  # fmt: skip
    assert folder.problems == []


def test_segment_behind_a_tear_is_cut_unless_something_vouches_for_it(tmp_path: Path) -> None:
    first = write_segment(numbered(3), sealed=False)
    torn = with_bytes(first, read_segment(first).records[1].offset + 72, b"X")
    second = write_segment(numbered(2), number=2, base_sequence=4, sealed=False)
    folder = read_folder(folder_of(tmp_path, torn, second))
    assert folder.cut == [2] and [item.sequence for item in folder.items] == [1] and not folder.problems
    folder_of(tmp_path, write_segment(numbered(2), number=2, base_sequence=4))
    folder = read_folder(tmp_path)
    assert folder.cut == [] and [item.sequence for item in folder.items] == [1, 3, 4, 5] and folder.problems


def test_copy_counts_and_its_original_does_not(tmp_path: Path) -> None:
    first = write_segment(numbered(2))
    second = write_segment([{"payload": b"item 0", "sequence": 1, "flags": COPIED, "attempts": 3}], number=2, base_sequence=3, next_sequence=3)
    items = live_items(folder_of(tmp_path, first, second))
    assert [(item.sequence, item.attempts, item.segment) for item in items] == [(1, 3, 2), (2, 0, 1)]


def test_names_that_are_not_the_queues_are_reported_and_not_read(tmp_path: Path) -> None:
    data = write_segment(numbered(1))
    for other in ("1.seg", name(1) + ".tmp", name(2).replace("seg", "spare"), "notes.txt"):
        (tmp_path / other).write_bytes(data)
    (tmp_path / name(3)).write_bytes(b"junk" * 2000)
    folder = read_folder(tmp_path)
    assert folder.foreign == ["1.seg", "notes.txt"] and folder.unreadable == [name(3)] and not folder.items


@pytest.mark.parametrize("codec", [1, 2, 3])
def test_compressed_payloads_are_given_as_they_were(tmp_path: Path, codec: int) -> None:
    raw = b"the same again and again " * 40
    packed: dict[int, Any] = {
        1: cramjam.snappy.compress_raw(raw),
        2: cramjam.lz4.compress_block(raw, store_size=False),
        3: cramjam.zstd.compress(raw),
    }
    folder_of(tmp_path, write_segment([{"payload": bytes(packed[codec]), "codec": codec, "raw_length": len(raw)}]))
    assert [item.payload for item in live_items(tmp_path)] == [raw]


# --- the compiled code


@given(st.lists(fields, max_size=40), st.integers(0, 2**32 - 1))
def test_compiled_scan_and_index_agree_with_the_oracle_on_whole_segments(records: list[dict[str, Any]], salt: int) -> None:
    data = write_segment(records, sealed=False, salt=salt)
    ours = read_segment(data)
    assert ours.header is not None
    start = ours.header.records_start
    theirs = scan(data, salt, start, 0)
    assert list(theirs.records) == [record.offset for record in ours.records]
    assert (theirs.end, theirs.synced, theirs.bad, theirs.open_batch) == (ours.records_end, ours.synced, [], 0)
    lanes = build_index(data, 0, theirs.records)
    assert {lane[0]: [8 * unit for unit in lane[1]] for lane in lanes} == ours.index


@pytest.mark.parametrize("seed", range(300))
def test_compiled_scan_and_oracle_agree_on_segments_with_one_damaged_record(seed: int) -> None:
    rng = random.Random(seed)
    records = numbered(rng.randrange(1, 12))
    offsets = [record.offset for record in read_segment(write_segment(records, sealed=False)).records]
    for n, record in enumerate(records):
        record["synced"] = offsets[rng.randrange(n + 1)] // 8 if rng.random() < 0.3 else 0
    data = bytearray(write_segment(records, sealed=False))
    at = rng.choice(offsets) + rng.randrange(72 + 6)
    data[at] ^= 1 << rng.randrange(8)
    ours = read_segment(bytes(data))
    theirs = scan(bytes(data), SALT, offsets[0], 0)
    good = [record.offset for record in ours.records if record.ok]
    assert (list(theirs.records), [(at, length) for at, length, _ in theirs.bad]) == (good, ours.damage)
    assert isinstance(theirs.records, array)
