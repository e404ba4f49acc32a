"""The layout against the format page: sizes, fields and names from the page's own tables, and bytes against the oracle."""

from __future__ import annotations

import re
from pathlib import Path
from struct import Struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import oracle
from overspill._store import layout
from overspill._store.layout import DirectoryEntry, Footer, Kind, Name, SegmentHeader, Unreadable

PAGE = (Path(__file__).parents[2] / "docs" / "format.md").read_text(encoding="utf-8")

SALT = 0xC0FFEE11
MIB = 1 << 20


def table(number: int) -> list[tuple[int, int, str]]:
    """(offset, size, field) of one of the page's byte tables."""
    text = PAGE.split(f"### Table {number}:")[1].split("\n\n", 1)[1].split("\n\n")[0]
    rows = re.findall(r"^\| (\d+) \| (\d+) \| (\w+) \|", text, re.MULTILINE)
    return [(int(offset), int(size), field) for offset, size, field in rows]


def header(**fields: int) -> SegmentHeader:
    slots, _, _, records_start = layout.geometry(fields.get("file_size", 65536))
    whole = {
        "flags": 0, "salt": SALT, "number": 7, "through": 7, "base_sequence": 100, "created_ns": 5, "records_start": records_start,
        "file_size": 65536, "slots": slots, "previous_end": 0, **fields,
    }  # fmt: skip
    return SegmentHeader(queue=b"0123456789abcdef", **whole)


def sealed() -> bytes:
    """Three records in two priorities, from the oracle."""
    records: list[dict[str, Any]] = [{"payload": b"one"}, {"payload": b"second", "priority": 9, "expiry_ns": 77}, {"payload": b"3", "priority": 9, "flags": 1}]
    return oracle.write_segment(records, number=7, salt=SALT, base_sequence=100, file_size=65536)


# --- the page


@pytest.mark.parametrize(
    ("number", "struct"), [(1, layout.HEADER), (2, layout.RECORD_HEADER), (4, layout.DIRECTORY_ENTRY), (5, layout.FOOTER)]
)
def test_every_struct_has_the_fields_of_its_table_at_their_offsets(number: int, struct: Struct) -> None:
    rows = table(number)
    at = 0
    for offset, size, _ in rows:
        assert offset == at
        at += size
    assert at == struct.size
    filled = [b"\xff" * size if isinstance(value, bytes) else 0 for value, (_, size, _) in zip(struct.unpack(bytes(at)), rows, strict=True)]
    for n, (offset, size, field) in enumerate(rows):
        values = list(filled)
        if isinstance(values[n], bytes):
            values = [b"" if isinstance(value, bytes) else value for value in values]
            values[n] = b"\xff" * size
        else:
            values = [b"" if isinstance(value, bytes) else value for value in values]
            values[n] = 0x7F << 8 * (size - 1)
        packed = struct.pack(*values)
        assert not any(packed[:offset]) and packed[offset + size - 1] and not any(packed[offset + size :]), field


@pytest.mark.parametrize(("number", "kind"), [(1, SegmentHeader), (4, DirectoryEntry), (5, Footer)])
def test_typed_values_carry_the_fields_of_their_table_in_its_order(number: int, kind: type[SegmentHeader | DirectoryEntry | Footer]) -> None:
    silent = {"magic", "version", "reserved", "header_crc", "footer_crc"}
    assert list(kind._fields) == [field for _, _, field in table(number) if field not in silent]


def test_names_are_those_of_the_page() -> None:
    for name in ("`lock`", "`<number>.seg`, 20 decimal digits", "`<number>.seg.tmp`", "`<number>.spare`", "`quarantine/report.jsonl`"):
        assert name in PAGE
    assert "`" + layout.HEADER_MAGIC.decode().replace("\n", "\\n") + "`" in PAGE
    assert "`" + layout.FOOTER_MAGIC.decode().replace("\n", "\\n") + "`" in PAGE


# --- header


def test_header_comes_back_as_it_was_packed_and_as_the_oracle_reads_it() -> None:
    mine = header()
    assert SegmentHeader.parse(mine.pack()) == mine
    theirs = oracle.read_segment(mine.pack().ljust(mine.file_size, b"\0")).header
    assert theirs is not None
    assert all(getattr(theirs, field) == getattr(mine, field) for field in SegmentHeader._fields)


def test_header_of_the_oracle_is_read() -> None:
    read = SegmentHeader.parse(sealed())
    assert isinstance(read, SegmentHeader)
    assert (read.number, read.salt, read.base_sequence, read.in_use, read.compacted) == (7, SALT, 100, True, False)


def test_header_with_any_bit_flipped_is_damage_and_nothing_else() -> None:
    good = header().pack()
    for bit in range(8 * len(good)):
        flipped = bytearray(good)
        flipped[bit // 8] ^= 1 << bit % 8
        assert SegmentHeader.parse(flipped) is Unreadable.BAD, bit


@pytest.mark.parametrize("data", [b"", bytes(5), bytes(128), bytes(4096)])
def test_header_of_zeros_is_absent(data: bytes) -> None:
    assert SegmentHeader.parse(data) is Unreadable.ABSENT


def test_header_cut_short_is_damage_and_foreign_bytes_are_foreign() -> None:
    assert SegmentHeader.parse(header().pack()[:127]) is Unreadable.BAD
    assert SegmentHeader.parse(b"SQLite format 3\0".ljust(200, b"x")) is Unreadable.FOREIGN
    assert SegmentHeader.parse(b"short") is Unreadable.FOREIGN


def test_whole_header_of_a_later_version_is_newer_and_not_damage() -> None:
    raw = bytearray(header().pack())
    raw[8:10] = (2).to_bytes(2, "little")
    raw[124:] = oracle.crc(bytes(raw[:124])).to_bytes(4, "little")
    assert SegmentHeader.parse(raw) is Unreadable.NEWER


@pytest.mark.parametrize(
    "lie",
    [
        {"through": 6}, {"records_start": 4097}, {"records_start": 0, "slots": 1024}, {"slots": 1}, {"file_size": 4096, "slots": 0},
        {"file_size": 1 << 62}, {"records_start": 1 << 63}, {"file_size": 1 << 40, "slots": (1 << 34) - 64 & 0xFFFFFFFF},
    ],
)  # fmt: skip
def test_header_whose_fields_cannot_be_is_damage_though_its_check_code_is_right(lie: dict[str, Any]) -> None:
    raw = header()._replace(**lie).pack()
    assert SegmentHeader.parse(raw) is Unreadable.BAD


def test_prepared_segment_has_no_number_yet() -> None:
    prepared = SegmentHeader.parse(header(number=0, through=0).pack())
    assert isinstance(prepared, SegmentHeader) and not prepared.in_use


# --- footer and directory


def test_footer_and_directory_of_the_oracle_are_read() -> None:
    data = sealed()
    head = SegmentHeader.parse(data)
    assert isinstance(head, SegmentHeader)
    footer = Footer.parse(data, head, len(data))
    assert isinstance(footer, Footer)
    assert (footer.count, footer.lines, footer.least_sequence, footer.greatest_sequence, footer.next_sequence) == (3, 2, 100, 102, 103)
    entries = layout.parse_directory(data[footer.directory_start :], footer, SALT)
    assert isinstance(entries, tuple)
    assert [(entry.line, entry.count, entry.first_place, entry.last_place) for entry in entries] == [(9, 2, -102, 101), (128, 1, 100, 100)]
    for entry in entries:
        index = data[entry.index_start : entry.index_start + entry.index_size]
        assert entry.vouches_for(index, SALT)
        assert not entry.vouches_for(index, SALT + 1)
        assert not entry.vouches_for(index[:-4], SALT)
    assert footer.pack(SALT) == data[-128:]
    assert layout.pack_directory(entries) == data[footer.directory_start : -128]


def test_footer_and_directory_with_any_bit_flipped_are_damage() -> None:
    data = sealed()
    head = SegmentHeader.parse(data)
    assert isinstance(head, SegmentHeader)
    footer = Footer.parse(data, head, len(data))
    assert isinstance(footer, Footer)
    for bit in range(8 * 128):
        flipped = bytearray(data[-128:])
        flipped[bit // 8] ^= 1 << bit % 8
        assert Footer.parse(flipped, head, len(data)) is Unreadable.BAD, bit
    for bit in range(8 * footer.directory_size):
        flipped = bytearray(data[footer.directory_start :])
        flipped[bit // 8] ^= 1 << bit % 8
        assert layout.parse_directory(flipped, footer, SALT) is Unreadable.BAD, bit


def test_footer_of_a_files_earlier_life_is_foreign() -> None:
    data = sealed()
    recycled = header(salt=1, number=8, through=8)
    assert Footer.parse(data, recycled, len(data)) is Unreadable.FOREIGN
    assert Footer.parse(data, header(number=8, through=8), len(data)) is Unreadable.FOREIGN  # the same salt by chance
    assert Footer.parse(bytes(4096), recycled, 4096) is Unreadable.ABSENT
    assert Footer.parse(b"payload " * 16, recycled, 65536) is Unreadable.FOREIGN


@pytest.mark.parametrize(
    "lie",
    [
        {"records_end": 4095}, {"records_end": 1 << 60}, {"directory_start": 1 << 60}, {"directory_start": 4097}, {"lines": 200},
        {"lines": 0}, {"count": 0}, {"count": 0xFFFFFFFF}, {"next_sequence": 102}, {"without_expiry": 4},
    ],
)  # fmt: skip
def test_footer_whose_fields_cannot_be_is_damage_though_its_check_code_is_right(lie: dict[str, Any]) -> None:
    data = sealed()
    head = SegmentHeader.parse(data)
    assert isinstance(head, SegmentHeader)
    footer = Footer.parse(data, head, len(data))
    assert isinstance(footer, Footer)
    assert Footer.parse(footer._replace(**lie).pack(SALT), head, len(data)) is Unreadable.BAD


@pytest.mark.parametrize("lie", [{"line": 9}, {"line": 258}, {"count": 0}, {"count": 2}, {"index_start": 0}, {"index_start": 1 << 40}, {"last_place": 99}])
def test_directory_whose_entries_cannot_be_is_damage_though_its_check_code_is_right(lie: dict[str, Any]) -> None:
    data = sealed()
    head = SegmentHeader.parse(data)
    assert isinstance(head, SegmentHeader)
    footer = Footer.parse(data, head, len(data))
    assert isinstance(footer, Footer)
    entries = layout.parse_directory(data[footer.directory_start :], footer, SALT)
    assert isinstance(entries, tuple)
    directory = layout.pack_directory([entries[0], entries[1]._replace(**lie)])
    footer = footer._replace(directory_crc=oracle.crc(directory, SALT))
    assert layout.parse_directory(directory, footer, SALT) is Unreadable.BAD


@given(st.binary(max_size=300))
def test_any_bytes_are_answered_and_never_raise(data: bytes) -> None:
    for prefix in (b"", layout.HEADER_MAGIC, layout.FOOTER_MAGIC):
        assert isinstance(SegmentHeader.parse(prefix + data), Unreadable)
        assert isinstance(Footer.parse(prefix + data, header(), 65536), Unreadable)


# --- geometry


@given(st.integers(min_value=8192, max_value=layout.FILE_SIZE_MAX))
def test_records_start_is_the_least_multiple_of_a_page_behind_its_own_areas(file_size: int) -> None:
    slots, marks_start, attempts_start, records_start = layout.geometry(file_size)
    assert records_start % 4096 == 0 and marks_start == 512
    assert slots == -(-(file_size - records_start) // 64)
    assert attempts_start == 512 + 8 * -(-slots // 32)
    assert attempts_start + 8 * -(-slots // 4) <= records_start
    if records_start > 4096:
        assert layout.areas_end(layout.slots_between(records_start - 4096, file_size)) > records_start - 4096


@pytest.mark.parametrize(
    ("file_size", "slots", "attempts_start", "records_start"),
    [(8192, 64, 528, 4096), (65536, 960, 752, 4096), (262144, 3904, 1488, 12288), (64 * MIB, 1012928, 253744, 2281472)],
)
def test_geometry_stays_what_it_was(file_size: int, slots: int, attempts_start: int, records_start: int) -> None:
    assert layout.geometry(file_size) == (slots, 512, attempts_start, records_start)


def test_record_size_and_slots() -> None:
    assert [layout.record_size(length) for length in (0, 1, 8, 9)] == [72, 80, 80, 88]
    assert [layout.slot_of(4096 + offset, 4096) for offset in (0, 56, 64, 72)] == [0, 0, 1, 1]


# --- words


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**31 - 1), st.integers(0, 2**32 - 1))
def test_words_check_only_with_their_salt_in_their_place_and_as_what_they_are(salt: int, i: int, value: int) -> None:
    marks, counts = layout.mark_word(salt, i, value), layout.attempt_word(salt, i, value)
    assert layout.marks_of(marks, salt, i) == layout.attempts_of(counts, salt, i) == value
    assert layout.marks_of(marks, salt ^ 1, i) is layout.marks_of(marks, salt, i ^ 1) is None
    assert layout.attempts_of(marks, salt, i) is layout.marks_of(counts, salt, i) is None
    assert layout.marks_of(marks[:7], salt, i) is None


def test_word_of_zeros_does_not_check() -> None:
    assert layout.marks_of(bytes(8), SALT, 0) is layout.attempts_of(bytes(8), SALT, 0) is None


# --- names


@given(st.integers(1, 2**64 - 1))
def test_names_are_parsed_back(number: int) -> None:
    assert layout.parse_name(layout.segment_name(number)) == Name(Kind.SEGMENT, number)
    assert layout.parse_name(layout.prepared_name(number)) == Name(Kind.PREPARED, number)
    assert layout.parse_name(layout.spare_name(number)) == Name(Kind.SPARE, number)


def test_names_sort_as_their_numbers_do() -> None:
    numbers = [1, 9, 10, 2**32, 2**64 - 1]
    assert sorted(map(layout.segment_name, numbers)) == list(map(layout.segment_name, numbers))


@pytest.mark.parametrize(
    "name",
    [
        "", ".", "..", "lock ", "LOCK", "1.seg", "0" * 20 + ".seg", "9" * 20 + ".seg", "0" * 19 + "1.seg\n", "0" * 20 + "1.seg",
        "0" * 19 + "１.seg", "0" * 19 + "1.seg.tmp.tmp", "0" * 19 + "1.spare.tmp", "../" + "0" * 19 + "1.seg", "quarantine/", "report.jsonl",
    ],
)  # fmt: skip
def test_name_that_we_would_not_write_is_foreign(name: str) -> None:
    assert layout.parse_name(name) == Name(Kind.FOREIGN)


def test_lock_and_quarantine_are_known() -> None:
    assert layout.parse_name("lock") == Name(Kind.LOCK)
    assert layout.parse_name("quarantine") == Name(Kind.QUARANTINE)
