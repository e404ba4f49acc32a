"""Looking at a folder: what is told, that it is right, and that not a byte is changed by it."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import pytest

import oracle
from oracle import FRONT, live_items, write_segment
from overspill._store import inspection, layout
from overspill._store.files import Disk
from overspill._store.folder import Quarantine
from overspill._store.inspection import Problem, inspect, items
from overspill._store.recovery import recover
from overspill.errors import CorruptedData, UnsafeFolder

QUEUE = b"overspill-oracle"
Records = list[dict[str, Any]]


def name(number: int) -> str:
    return f"{number:020}.seg"


def some(number: int, n: int = 3, **fields: Any) -> Records:
    return [{"payload": b"item %d" % i, "sequence": i, "enqueued_ns": i * 10**16, **fields} for i in range(10 * number, 10 * number + n)]


def segment(number: int, records: Records, **fields: Any) -> bytes:
    return write_segment(records, **{"number": number, "salt": 0xABC0 + number, "base_sequence": 10 * number, "queue": QUEUE, **fields})


def changed(data: bytes, at: int, bit: int = 4) -> bytes:
    damaged = bytearray(data)
    damaged[at] ^= bit
    return bytes(damaged)


class Folder:
    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(mode=0o700)

    def put(self, *segments: bytes, **others: bytes) -> Folder:
        for data in segments:
            self._put(name(int.from_bytes(data[32:40], "little")), data)
        for other, data in others.items():
            self._put(other, data)
        return self

    def _put(self, file: str, data: bytes) -> None:
        (self.path / file).write_bytes(data)
        (self.path / file).chmod(0o600)

    def snapshot(self) -> dict[str, tuple[bytes, int]]:
        return {str(file.relative_to(self.path)): (file.read_bytes(), file.stat().st_mtime_ns) for file in self.path.rglob("*") if file.is_file()}


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "jobs")


def test_empty_folder(folder: Folder) -> None:
    found = inspect(folder.path)
    assert (found.waiting, found.segments, found.queue, found.oldest_ns, found.clean, found.ok) == (0, (), None, None, True, True)
    assert "0 items waiting" in str(found)


def test_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        inspect(tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_sealed_and_open_segments_are_counted_by_priority(folder: Folder) -> None:
    records = [*some(1), *some(2, 5, priority=200)]
    for record in (*records[:2], records[4]):
        record["done"] = True
    folder.put(segment(1, records), segment(3, some(3, priority=7), sealed=False), lock=b"pid=17 since=2026 host=vm\n")
    found = inspect(folder.path)
    assert (found.waiting, found.records) == (8, 11)
    assert found.by_priority == {7: 3, 128: 1, 200: 4}
    assert found.segments[0].by_priority == {128: 1, 200: 4}
    assert [each.state for each in found.segments] == ["sealed", "open"]
    assert [each.plan for each in found.segments] == [("TAKE",), ("SEAL",)]
    assert found.oldest_ns == 12 * 10**16 and found.newest_ns == 32 * 10**16
    assert found.next_sequence == 33 and found.queue == QUEUE.hex()
    assert found.holder == "pid=17 since=2026 host=vm"
    assert found.bytes == sum(len(data) for data, _ in folder.snapshot().values())
    assert not found.clean and found.ok


def test_orderly_closed_folder_is_clean(folder: Folder) -> None:
    folder.put(segment(1, some(1)))
    found = inspect(folder.path, deep=True)
    assert found.clean and found.ok and "every checksum is right" in str(found)


def test_torn_tail_is_told_and_no_problem(folder: Folder) -> None:
    records = some(1)
    records[2]["payload_crc"] = 1
    folder.put(segment(1, records, sealed=False), segment(2, some(2), sealed=False))
    found = inspect(folder.path)
    assert (found.waiting, found.torn_records, found.torn_bytes, found.problems) == (2, 3, 320, ())
    assert found.segments[1].plan == ("CUT_WHOLE",)


def damaged_in_each_place() -> list[tuple[str, bytes, bool]]:
    whole = segment(1, some(1))
    read = oracle.read_segment(whole)
    assert read.header is not None and read.footer is not None
    return [
        ("header: ", changed(whole, 40), True),
        ("settle marks", changed(whole, 512), True),
        ("footer", changed(whole, -10), True),
        ("directory", changed(whole, read.footer.directory_start + 5), True),
        ("index", changed(whole, read.records_end), False),
        ("payload", changed(whole, read.records[1].offset + 73), False),
        ("header", changed(whole, read.records[1].offset + 9), False),
    ]


@pytest.mark.parametrize(("what", "data", "at_a_glance"), damaged_in_each_place(), ids=lambda value: value.strip(": ") if isinstance(value, str) else "")
def test_damage_is_found_where_it_is(folder: Folder, what: str, data: bytes, at_a_glance: bool) -> None:
    folder.put(segment(2, some(2)), **{name(1): data})
    before = folder.snapshot()
    quick, deep = inspect(folder.path), inspect(folder.path, deep=True)
    assert quick.ok != at_a_glance
    (problem,) = deep.problems
    assert problem.file == name(1) and what in problem.what
    assert str(problem) in str(deep)
    assert folder.snapshot() == before


def test_deep_look_finds_every_flipped_bit_of_records_marks_and_end(folder: Folder) -> None:
    whole = segment(1, some(1, 5))
    read = oracle.read_segment(whole)
    assert read.header is not None
    # Not the attempt counts, where what does not check means nothing; nor what nothing covers: padding, and words of marks that no record has.
    covered = [*range(128), *range(512, 520)]
    for record in read.records:
        covered += range(record.offset, record.offset + 72 + record.length)
    covered += [*range(read.records_end, read.records_end + 20), *range(len(whole) - 192, len(whole))]
    dice = random.Random(5)
    for at in sorted(dice.sample(covered, 300)):
        folder.put(**{name(1): changed(whole, at, 1 << dice.randrange(8))})
        assert not inspect(folder.path, deep=True).ok, at


def test_what_looking_announces_is_what_opening_finds(folder: Folder) -> None:
    records = some(3, 5)
    records[1]["payload_crc"] = 1
    records[4]["synced"] = 4096 // 8
    folder.put(segment(1, some(1)), segment(2, some(2, done=True)), segment(3, records, sealed=False), **{name(4): bytes(5000), f"{9:020}.spare": b"x"})
    seen = inspect(folder.path)
    assert seen.leftovers == (f"{9:020}.spare",)
    with Disk.open_folder(folder.path) as disk:
        report = recover(disk, Quarantine(disk), plain=False, now_ns=0).report
    assert (seen.waiting, seen.torn_bytes, seen.torn_records) == (report.items, report.torn_bytes, report.torn_records)
    assert len(seen.problems) == report.quarantined
    after = inspect(folder.path, deep=True)
    assert after.clean and after.waiting == report.items


def test_unknown_names_and_quarantine_are_told(folder: Folder) -> None:
    folder.put(**{name(1): b"\xff" * 500, "notes.txt": b"mine"})
    with Disk.open_folder(folder.path) as disk:
        recover(disk, Quarantine(disk), plain=False, now_ns=0)
    found = inspect(folder.path)
    assert found.unknown_names == ("notes.txt",)
    assert (found.quarantined_files, found.quarantined_bytes) == (1, 500)
    assert "quarantine: 1 file" in str(found)


def test_link_in_place_of_a_segment_is_refused(folder: Folder, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes(segment(1, some(1)))
    os.symlink(tmp_path / "elsewhere", folder.path / name(1))
    with pytest.raises(UnsafeFolder):
        inspect(folder.path)


def test_read_only_folder_can_be_looked_at(folder: Folder) -> None:
    folder.put(segment(1, some(1)))
    folder.path.chmod(0o500)
    assert inspect(folder.path, deep=True).waiting == 3
    folder.path.chmod(0o700)


def test_segment_that_vanishes_while_it_is_looked_at_is_left_out(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.put(segment(1, some(1)), segment(2, some(2)), segment(3, some(3)))
    real = Disk.open_ro
    opened: list[str] = []

    def consumed_meanwhile(self: Disk, file: str) -> int:
        opened.append(file)
        if opened.count(name(2)) == 2:
            (folder.path / name(2)).unlink(missing_ok=True)
        return real(self, file)

    monkeypatch.setattr(Disk, "open_ro", consumed_meanwhile)
    found = inspect(folder.path)
    assert [each.number for each in found.segments] == [1, 3] and found.waiting == 6


def test_what_is_only_half_done_is_looked_at_again(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = segment(1, some(1))
    folder.put(**{name(1): changed(whole, -1)})
    real, looks = inspection._look, []

    def sealed_meanwhile(*arguments: Any) -> Any:
        looks.append(real(*arguments))
        folder.put(whole)
        return looks[-1]

    monkeypatch.setattr(inspection, "_look", sealed_meanwhile)
    assert inspect(folder.path).ok
    assert not looks[0].ok and len(looks) == 2


# --- items


def test_items_come_in_the_order_in_which_they_leave(folder: Folder) -> None:
    first = [*some(1, 4), *[{**record, "priority": 200} for record in some(2, 3)]]
    first[1]["done"] = first[4]["done"] = True
    second = [*some(3, 3, flags=FRONT), *some(4, 3), {"payload": b"copied", "sequence": 15, "flags": 2}]
    folder.put(segment(1, first), segment(2, second, base_sequence=30, sealed=False), segment(5, some(5, priority=1)))
    before = folder.snapshot()
    found = list(items(folder.path))
    assert [item.payload for item in found] == [item.payload for item in live_items(folder.path)]
    assert [item.payload for item in found][:5] == [b"item 21", b"item 22", b"item 32", b"item 31", b"item 30"]
    assert [(item.id, item.sequence, item.enqueued_ns) for item in found] == [(item.id, item.sequence, item.enqueued_ns) for item in live_items(folder.path)]
    assert folder.snapshot() == before


def test_items_carry_what_was_stored(folder: Folder) -> None:
    folder.put(segment(1, [{
        "payload": b"\x02packed", "raw_length": 40, "codec": 1, "kind": 2, "priority": 3, "sequence": 77, "id": bytes(range(16)), "enqueued_ns": 5,
        "expiry_ns": 9, "attempts": 2, "leases": 3, "extension_bytes": b"reserved",
    }]))
    (item,) = items(folder.path)
    assert item[:10] == (b"\x02packed", 2, 1, 40, 3, 77, bytes(range(16)), 5, 9, 5)


def test_items_of_many_segments_are_read_a_segment_at_a_time(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspection, "_WINDOW_ENTRIES", 7)
    folder.put(*[segment(n, some(n, 10)) for n in range(1, 40)])
    open_at_once: list[int] = []
    found = []
    for item in items(folder.path):
        found.append(item.payload)
        links = [f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd")]
        names = [os.readlink(link) for link in links if os.path.islink(link)]
        open_at_once.append(sum(str(folder.path) in name and ".seg" in name for name in names))
    assert found == [b"item %d" % i for i in range(10, 400)]
    assert max(open_at_once) <= 2


def test_damaged_record_is_raised_or_told_and_left_out(folder: Folder) -> None:
    whole = segment(1, some(1))
    folder.put(changed(whole, oracle.read_segment(whole).records[1].offset + 73))
    with pytest.raises(CorruptedData) as raised:
        list(items(folder.path))
    assert raised.value.path is not None and raised.value.path.endswith(name(1))
    problems: list[Problem] = []
    assert [item.payload for item in items(folder.path, problems.append)] == [b"item 10", b"item 12"]
    assert [problem.offset for problem in problems] == [oracle.read_segment(whole).records[1].offset]


def test_damaged_index_costs_no_item(folder: Folder) -> None:
    whole = segment(1, some(1))
    folder.put(changed(whole, oracle.read_segment(whole).records_end))
    assert [item.payload for item in items(folder.path)] == [b"item 10", b"item 11", b"item 12"]


def test_plan_of_an_unreadable_file(folder: Folder) -> None:
    folder.put(segment(1, some(1)), **{name(2): b"\xff" * 600})
    found = inspect(folder.path)
    assert found.segments[1].state == "unreadable" and found.segments[1].plan == ("SET_FILE_ASIDE",)
    assert found.waiting == 3 and not found.ok
    assert layout.parse_name(found.problems[0].file).number == 2
