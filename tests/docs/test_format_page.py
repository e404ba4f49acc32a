"""The format page against the code that the layout test does not reach: the segment in hex, kinds, codecs, flags, areas and names."""

from __future__ import annotations

import re
from pathlib import Path

import oracle
from pages import ROOT, blocks, section, table_rows

from overspill import HybridQueue, StreamQueue
from overspill._core.record import parse_header
from overspill._core.segmap import fresh_marks
from overspill._runtime.apart import REASONS
from overspill._store import layout
from overspill.item import CODEC_NAMES, KIND_NAMES

PAGE = ROOT / "docs" / "format.md"
TEXT = PAGE.read_text(encoding="utf-8")
DUMP = re.compile(r"^([0-9a-f]{4})  ((?:[0-9a-f]{2} ?){8})  ((?:[0-9a-f]{2} ?){8})  \|(.{16})\|$")
SALT, MINUTE_NS, BEGAN_NS = 0x5EED5A17, 60 * 10**9, 1_763_790_000_000_000_000


def lines() -> list[str]:
    text = section(PAGE, "## A segment in hex")
    return [line for block in blocks(PAGE) if block.language == "text" and block.text in text for line in block.text.splitlines()]


def segment() -> bytes:
    """The bytes of the example, from its hexadecimal digits alone."""
    data = bytearray()
    for line in lines():
        if match := DUMP.fullmatch(line):
            data += bytes(int(match[1], 16) - len(data)) + bytes.fromhex(match[2] + match[3])
        elif line != "*":
            data += bytes(int(line, 16) - len(data))
    return bytes(data)


def uuid7(counter: int, time_ns: int) -> bytes:
    ms, rest = divmod(time_ns, 10**6)
    return (ms << 16 | 0x7000 | (rest << 12) // 10**6).to_bytes(8, "big") + (1 << 63 | 0x2A << 32 | counter).to_bytes(8, "big")


def test_example_is_the_segment_that_the_oracle_writes() -> None:
    times = [BEGAN_NS + n * 4_000_000 for n in range(3)]
    synced = (4096 + 80) // 8
    records = [
        {"payload": b"hello", "kind": 1, "done": True},
        {"payload": b"\x81\xa3job\x07", "kind": 2, "priority": 200, "expiry_ns": BEGAN_NS + MINUTE_NS, "leases": 2, "synced": synced},
        {"payload": b"first", "kind": 0, "flags": oracle.FRONT, "synced": synced},
    ]
    for n, (record, time_ns) in enumerate(zip(records, times, strict=True)):
        record.update(enqueued_ns=time_ns, id=uuid7(5 + n, time_ns))
    made = oracle.write_segment(
        records, number=2, salt=SALT, queue=b"overspill-format", base_sequence=5, created_ns=BEGAN_NS - 10**9, file_size=8192, previous_end=0x10A8
    )
    assert segment() == made


def test_text_column_says_what_the_digits_say() -> None:
    for line in lines():
        if match := DUMP.fullmatch(line):
            data = bytes.fromhex(match[2] + match[3])
            assert match[4] == "".join(chr(byte) if 32 <= byte < 127 else "." for byte in data)
        else:
            assert line == "*" or line == f"{len(segment()):04x}"


def test_example_is_read_by_the_oracle_as_the_page_says() -> None:
    found = oracle.read_segment(segment())
    assert not found.problems and found.sealed
    assert [(record.offset, record.place, record.priority, record.payload) for record in found.records] == [
        (0x1000, 5, 128, b"hello"), (0x1050, 6, 200, b"\x81\xa3job\x07"), (0x10A0, -7, 128, b"first"),
    ]  # fmt: skip
    assert found.marks == {0x1000} and found.attempts == {0x1050: 2}
    assert found.index == {128: [0x10A0, 0x1000], 200: [0x1050]}
    assert found.records[1].expiry_ns - BEGAN_NS == MINUTE_NS
    assert found.header is not None and found.header.previous_end == 0x10A8


def test_example_is_read_by_the_package_as_the_page_says() -> None:
    data = segment()
    header = layout.SegmentHeader.parse(data)
    assert isinstance(header, layout.SegmentHeader)
    assert (header.salt, header.queue, header.number, header.through) == (SALT, b"overspill-format", 2, 2)
    assert (header.base_sequence, header.records_start, header.file_size, header.slots, header.previous_end) == (5, 0x1000, 0x2000, 64, 0x10A8)
    words = [data[at : at + 8] for at in range(0x200, 0x210, 8)]
    assert [layout.marks_of(word, header.salt, i) for i, word in enumerate(words)] == [1, 0]
    assert layout.attempts_of(data[0x210:0x218], header.salt, 0) == 2 << 8
    footer = layout.Footer.parse(data, header, len(data))
    assert isinstance(footer, layout.Footer)
    assert (footer.records_end, footer.directory_start, footer.lines, footer.count, footer.next_sequence) == (0x10F0, 0x1100, 2, 3, 8)
    directory = layout.parse_directory(data[footer.directory_start :], footer, header.salt)
    assert not isinstance(directory, layout.Unreadable)
    assert [(entry.line, entry.count) for entry in directory] == [(128, 2), (200, 1)]
    record = parse_header(data, 0x10A0, header.salt, 0x10A0)
    assert record is not None
    assert (record["flags"], record["place"], record["synced"] * 8) == (layout.RECORD_FLAG_FRONT, -7, 0x1050)


def test_example_is_opened_by_a_queue_as_the_page_says(tmp_path: Path) -> None:
    folder = tmp_path / "hex"
    folder.mkdir(mode=0o700)
    (folder / layout.segment_name(2)).write_bytes(segment())
    (folder / layout.segment_name(2)).chmod(0o600)
    with HybridQueue("hex", tmp_path) as queue:
        # The job's minute has passed long ago.
        assert list(queue) == [b"first"]


# --- tables and formulas


def table(number: int) -> list[list[str]]:
    return table_rows(TEXT.split(f"### Table {number}:")[1].split("\n#")[0])


def test_record_fields_are_those_that_the_core_parses() -> None:
    record = parse_header(segment(), 0x1000, SALT, 0x1000)
    assert record is not None
    named = [row[2] for row in table(2)]
    assert [name for name in named if name not in ("header_crc", "reserved")] == [name for name in record if name not in ("place", "line")]


def test_kinds_are_those_of_the_table() -> None:
    rows = {int(number): text for number, text in table(3)}
    assert list(rows) == list(KIND_NAMES)
    words = {0: "bytes", 1: "str", 2: "auto", 3: "JSON", 4: "plain", 5: "pickle", 6: "custom"}
    assert all(word in rows[kind] for kind, word in words.items())


def test_codecs_and_flags_are_those_of_the_table() -> None:
    meaning = {row[2]: row[3] for row in table(2)}
    assert re.findall(r"(\d) (\w+)", meaning["codec"]) == [(str(number), name) for number, name in CODEC_NAMES.items()]
    assert re.findall(r"bit (\d) (\w+)", meaning["flags"]) == [("0", "FRONT"), ("1", "COPIED"), ("2", "DELAYED"), ("3", "DEAD"), ("4", "MOVED")]
    assert (layout.RECORD_FLAG_FRONT, layout.RECORD_FLAG_COPIED, layout.RECORD_FLAG_DELAYED, layout.RECORD_FLAG_DEAD, layout.RECORD_FLAG_MOVED) == (1, 2, 4, 8, 16)
    assert re.findall(r"(\d) (\w+)", next(row[3] for row in table(7) if row[2] == "reason")) == [(str(number), name) for number, name in REASONS.items()]
    assert (layout.DELAYED_LINE, layout.DEAD_LINE, layout.LINES) == (256, 257, 258)


def test_extensions_are_those_of_the_tables() -> None:
    for number, packed in ((6, layout.TIME), (7, layout.DEATH), (8, layout.ORIGIN)):
        assert sum(int(row[1]) for row in table(number)) == packed.size
    whole = layout.pack_extension(death=layout.Death(-5, 2, "x" * 5000), origin=layout.Origin(7, 4096))
    assert len(whole) == 2040 and layout.origin_of(whole) == (7, 4096)
    death = layout.death_of(whole)
    assert death is not None and death[:2] == (-5, 2) and 2000 <= len(death.error) and not death.error.strip("x")
    assert layout.pack_extension(due_ns=9) == (9).to_bytes(8, "little") and layout.pack_extension() == b""
    assert layout.death_of(b"short") is None and layout.origin_of(b"short") is None
    # A text is cut between characters.
    said = layout.death_of(layout.pack_extension(death=layout.Death(1, 1, "ü" * 3000)))
    assert said is not None and not said.error.strip("ü")
    flags = next(row[3] for row in table(1) if row[2] == "flags")
    assert re.findall(r"bit (\d)", flags) == ["0"] and layout.HEADER_FLAG_COMPACTED == 1 << 0
    assert next(row[3] for row in table(1) if row[2] == "version") == str(layout.VERSION)


def test_areas_are_where_the_page_says() -> None:
    assert "**Settle marks** begin at 512: ⌈slots / 32⌉ words of 64 bits" in TEXT
    assert "**Attempt counts** follow at `512 + 8 ⌈slots / 32⌉`: ⌈slots / 4⌉ words" in TEXT
    assert "A record's *slot* is `(offset − records_start) // 64`" in TEXT
    for slots in (1, 31, 32, 33, 64, 1000):
        assert layout.attempts_start(slots) == 512 + 8 * -(-slots // 32)
        assert layout.areas_end(slots) == layout.attempts_start(slots) + 8 * -(-slots // 4)
        marks = fresh_marks(SALT, slots)
        assert len(marks) == layout.attempts_start(slots) - layout.MARKS_START
        assert all(layout.marks_of(marks[8 * i : 8 * i + 8], SALT, i) == 0 for i in range(len(marks) // 8))
    assert (layout.SLOT, layout.MARKS_START, layout.PAGE, layout.ATTEMPTS_DOMAIN) == (64, 512, 4096, 2**31)


def test_names_of_the_first_table_are_known_to_the_layout() -> None:
    for kind in layout.Kind:
        if kind is not layout.Kind.FOREIGN:
            assert kind.value in TEXT.split("## The segment")[0]


def test_overflow_files_in_hex_are_what_a_stream_writes(tmp_path: Path) -> None:
    text = section(PAGE, "## The overflow file of a stream")
    dumps = [block.text for block in blocks(PAGE) if block.language == "text" and block.text in text]
    shown = [bytes.fromhex(" ".join(line[6:54] for line in dump.splitlines())) for dump in dumps]
    written = []
    with StreamQueue("cam", 1, tmp_path, _background=False) as stream:
        for message in (b"in memory", b"first packet", b"second"):
            stream.enqueue(message)
        written.append((tmp_path / "cam.overflow").read_bytes())
        assert [stream.dequeue(), stream.dequeue()] == [b"in memory", b"first packet"]
        written.append((tmp_path / "cam.overflow").read_bytes())
    assert written == shown
    sizes = [int(row[1]) for row in table_rows(text) if row[0].isdigit()]
    assert sizes == [4, 8] and sum(sizes) == layout.DRAINED_MARK.size
