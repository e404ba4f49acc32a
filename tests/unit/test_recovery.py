"""What opening does with whatever it finds: the table as a whole, then one story for each way a folder can be left.

Segments come from the oracle, which knows the format page and nothing of the package; what is left on disk is read by it as well.
"""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import oracle
from oracle import FRONT, live_items, write_segment
from overspill._core.record import scan
from overspill._store import layout
from overspill._store.files import Disk
from overspill._store.folder import Quarantine
from overspill._store.observation import (
    Before, Damage, Ending, Header, Known, Later, Observed, Standing, Tail, marks_of_records, read_records,
)
from overspill._store.recovery import CONTENTS, JOINS, TABLE, Content, Place, Recovered, Step, decide, recover
from overspill._store.segment import Segment
from overspill.errors import UnknownFormat
from overspill.options import MiB

QUEUE = b"overspill-oracle"
NOW = 1_800_000_000_000_000_000
Records = list[dict[str, Any]]

EVERY_OBSERVATION = [Observed(*row) for row in itertools.product(Header, Standing, Ending, Later, Tail, Damage, Before)]


# --- the table


def test_every_combination_of_observations_is_answered_by_exactly_one_row() -> None:
    for seen in EVERY_OBSERVATION:
        assert sum(row.answers(seen) for row in TABLE) == 1, seen


def test_every_row_answers_something() -> None:
    for row in TABLE:
        assert any(row.answers(seen) for seen in EVERY_OBSERVATION), row


def test_every_content_at_every_place_is_answered() -> None:
    assert set(CONTENTS) == set(itertools.product(Content, Place))


def test_damage_is_set_aside_before_anything_else_wherever_records_were_read() -> None:
    for seen in EVERY_OBSERVATION:
        do = decide(seen)
        if seen.damage is Damage.FOUND and not JOINS.isdisjoint(do) and seen.ending is not Ending.SEALED:
            assert do[0] is Step.SET_RECORDS_ASIDE, seen


def test_only_what_is_empty_replaced_or_never_durable_is_removed() -> None:
    removing = {Step.REMOVE_EMPTY, Step.REMOVE_OBSOLETE, Step.CUT_WHOLE}
    for seen in EVERY_OBSERVATION:
        if removing.isdisjoint(decide(seen)):
            continue
        if seen.later is Later.VOUCHES:
            assert (seen.header, seen.standing) == (Header.GOOD, Standing.REPLACED), seen
        if seen.header is Header.GOOD and seen.standing is Standing.CURRENT:
            assert (seen.ending, seen.before) == (Ending.OPEN, Before.TORN), seen


def test_a_decision_that_seals_or_takes_ends_with_it() -> None:
    for row in TABLE:
        assert len(JOINS.intersection(row.do)) <= 1
        if not JOINS.isdisjoint(row.do):
            assert row.do[-1] in JOINS
        else:
            assert len(row.do) == 1


# --- folders


def name(number: int) -> str:
    return f"{number:020}.seg"


def numbered(first: int, n: int, **fields: Any) -> Records:
    return [{"payload": b"item %d" % i, "sequence": i, **fields} for i in range(first, first + n)]


def segment(number: int, records: Records, *, sealed: bool = True, **fields: Any) -> bytes:
    """A segment whose records and base sequence go with its number: `item 10…` are in segment 1, `item 20…` in segment 2."""
    base = 10 * number
    return write_segment(
        [{"sequence": base + i, **record} for i, record in enumerate(records)],
        **{"number": number, "sealed": sealed, "salt": 0xABC0 + number, "base_sequence": base, "queue": QUEUE, **fields},
    )


def some(number: int, n: int = 3, **fields: Any) -> Records:
    return numbered(10 * number, n, **fields)


class Folder:
    """A queue's folder, and what opening it said."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(mode=0o700)

    def put(self, segments: dict[int | str, bytes]) -> Folder:
        for key, data in segments.items():
            file = self.path / (key if isinstance(key, str) else name(key))
            file.write_bytes(data)
            file.chmod(0o600)
        return self

    def recover(self, now_ns: int = NOW, plain: bool = False, disk_class: type[Disk] = Disk) -> Recovered:
        with disk_class.open_folder(self.path) as disk:
            found = recover(disk, Quarantine(disk), plain=plain, now_ns=now_ns)
            self.taken = [payload for segment in found.segments for payload in waiting_in(segment)]
            for each in found.segments:
                each.close()
        return found

    @property
    def on_disk(self) -> list[bytes]:
        """Every item that waits, in the order in which it will leave, as the oracle reads the folder."""
        return [item.payload for item in live_items(self.path)]

    @property
    def names(self) -> set[str]:
        return {file.name for file in self.path.iterdir()}

    @property
    def quarantined(self) -> set[str]:
        aside = self.path / "quarantine"
        return {file.name for file in aside.iterdir()} - {"report.jsonl"} if aside.exists() else set()

    def snapshot(self) -> dict[str, bytes]:
        return {str(file.relative_to(self.path)): file.read_bytes() for file in sorted(self.path.rglob("*")) if file.is_file()}


def waiting_in(segment: Segment) -> list[bytes]:
    """What the package itself reads from a recovered segment."""
    found: list[tuple[int, int, bytes]] = []
    for priority in sorted(segment.directory, reverse=True):
        position = 0
        while True:
            _, window, _ = segment.offsets(priority, position, 0)
            if not window:
                break
            position += len(window)
            for offset in window:
                if not segment.map.settled(8 * offset):
                    payload = segment.recall(8 * offset)
                    assert payload is not None
                    found.append((-priority, len(found), payload))
    return [payload for *_, payload in found]


def items(*numbers: int) -> list[bytes]:
    return [b"item %d" % number for number in numbers]


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "jobs")


# --- nothing wrong


def test_empty_folder_is_an_empty_queue(folder: Folder) -> None:
    found = folder.recover()
    assert (found.segments, found.queue, found.next_number, found.next_sequence, found.other_bytes) == ([], None, 1, 1, 0)
    assert found.report.clean
    assert str(found.report) == "0 items in 0 segments, closed in order"


def test_sealed_segments_are_taken_as_their_footers_say_and_nothing_is_changed(folder: Folder) -> None:
    folder.put({1: segment(1, some(1)), 2: segment(2, some(2, priority=200))})
    before = folder.snapshot()
    found = folder.recover()
    assert folder.snapshot() == before
    assert found.report.clean and found.report.items == 6 and found.report.rescanned == 0
    assert found.queue == QUEUE
    assert (found.next_number, found.next_sequence) == (3, 23)
    assert [each.map.live for each in found.segments] == [3, 3]
    assert folder.taken == items(10, 11, 12, 20, 21, 22)


def test_records_of_a_sealed_segment_are_not_read(folder: Folder) -> None:
    class Counting(Disk):
        read = 0

        def pread(self, fd: int, n: int, offset: int) -> bytes:
            Counting.read += n
            return super().pread(fd, n, offset)

    folder.put({1: segment(1, [{"payload": bytes(2_000_000)}])})
    with Counting.open_folder(folder.path) as disk:
        recover(disk, Quarantine(disk), plain=False, now_ns=NOW)
    assert Counting.read < 20_000


def test_settled_items_do_not_come_back(folder: Folder) -> None:
    records = some(1, 40)
    for record in records[:35]:
        record["done"] = True
    folder.put({1: segment(1, records)})
    assert folder.recover().report.items == 5
    assert folder.taken == items(45, 46, 47, 48, 49)


def test_settled_segment_goes_and_the_newest_stays_for_its_sequence_number(folder: Folder) -> None:
    folder.put({1: segment(1, some(1, done=True)), 2: segment(2, some(2, done=True))})
    found = folder.recover()
    assert folder.names == {name(2)}
    assert [each.number for each in found.segments] == [2]
    assert found.next_sequence == 23 and found.report.removed == 1


def test_segment_in_which_everything_has_expired_is_dropped_unread_and_counted(folder: Folder) -> None:
    records = some(1, 4, expiry_ns=NOW - 1)
    records[0]["done"] = True
    folder.put({1: segment(1, records), 2: segment(2, some(2, 1, expiry_ns=NOW + 1)), 3: segment(3, some(3))})
    report = folder.recover().report
    assert (report.expired_segments, report.expired_items, report.items) == (1, 3, 4)
    assert folder.names == {name(2), name(3)}


def test_one_item_without_expiry_keeps_its_segment(folder: Folder) -> None:
    folder.put({1: segment(1, [*some(1, 2, expiry_ns=1), *numbered(12, 1)]), 2: segment(2, some(2))})
    assert folder.recover().report.expired_segments == 0


def test_marks_that_no_record_has_do_not_make_a_segment_look_settled(folder: Folder) -> None:
    data = bytearray(segment(1, some(1)))
    marks = 1 << 0 | 1 << 31 | 1 << 30  # three marks, of which one is a record's
    data[512:520] = layout.mark_word(0xABC1, 0, marks)
    folder.put({1: bytes(data), 2: segment(2, some(2))})
    report = folder.recover().report
    assert report.items == 5 and report.removed == 0
    assert folder.taken == items(11, 12, 20, 21, 22)


# --- a kill


def test_unsealed_segment_is_read_and_sealed(folder: Folder) -> None:
    records = [*some(1), *numbered(13, 2, priority=7, flags=FRONT), *numbered(15, 2, priority=200)]
    records[1]["done"] = True
    folder.put({1: segment(1, records, sealed=False)})
    found = folder.recover()
    assert folder.taken == items(15, 16, 10, 12, 14, 13)
    assert folder.on_disk == folder.taken
    report = found.report
    assert (report.items, report.rescanned, report.torn_bytes, report.quarantined, report.rotten_marks) == (6, 1, 0, 0, 0)
    assert not report.clean
    sealed = oracle.read_segment((folder.path / name(1)).read_bytes())
    assert sealed.sealed and sealed.problems == []
    assert folder.recover().report.clean


def test_recovered_segment_takes_no_more_records_and_its_descriptor_is_given_back(folder: Folder) -> None:
    folder.put({1: segment(1, some(1), sealed=False)})
    with Disk.open_folder(folder.path) as disk:
        (found,) = recover(disk, Quarantine(disk), plain=False, now_ns=NOW).segments
    assert found.map.room() == 0 and not found.holds_fd
    assert found.allocated == layout.blocks((folder.path / name(1)).stat().st_size)


def test_half_written_record_is_cut_and_told(folder: Folder) -> None:
    data = bytearray(segment(1, some(1), sealed=False))
    end = oracle.read_segment(bytes(data)).records_end
    data[end + 8 : end + 200] = b"x" * 192  # everything but the first word, which is stored last
    folder.put({1: bytes(data)})
    report = folder.recover().report
    assert (report.items, report.torn_bytes, report.torn_records, report.quarantined) == (3, 72, 0, 0)
    assert folder.on_disk == items(10, 11, 12)


def test_half_written_record_does_not_cost_what_was_written_after_its_failure(folder: Folder) -> None:
    data = bytearray(segment(1, some(1), sealed=False))
    end = oracle.read_segment(bytes(data)).records_end
    data[end + 8 : end + 200] = b"x" * 192
    folder.put({1: bytes(data), 2: segment(2, some(2), sealed=False)})
    folder.recover()
    assert folder.on_disk == items(10, 11, 12, 20, 21, 22)


def test_kill_between_footer_and_truncation_leaves_nothing_torn(folder: Folder) -> None:
    sealed = segment(1, some(1))
    folder.put({1: sealed.ljust(len(segment(1, some(1), sealed=False)), b"\0")})
    report = folder.recover().report
    assert (report.rescanned, report.torn_bytes) == (1, 0)
    assert (folder.path / name(1)).read_bytes() == sealed

@pytest.mark.parametrize("vouched", [False, True], ids=["the last", "vouched for"])
def test_kill_in_the_middle_of_writing_an_index_is_no_damage(folder: Folder, vouched: bool) -> None:
    """A long write may be cut short between two pages, so that index or directory are there and the footer is not; what follows does not say where the records ended."""
    records = [{"payload": b"x" * 50, "sequence": 10 + i, "priority": (64, 128, 200)[i % 3]} for i in range(30)]
    sealed, unsealed = segment(1, records), segment(1, records, sealed=False)
    end = end_of(unsealed)
    for cut in range(end + 8, len(sealed), 8):
        folder.put({1: sealed[:cut] + unsealed[cut:], **({3: segment(3, some(3))} if vouched else {})})
        report = folder.recover().report
        assert report.items == 30 + 3 * vouched
        assert (report.quarantined, report.torn_bytes, report.torn_records) == (0, 0, 0), (cut, report.notes)


def test_remains_of_a_recycled_file_are_nothing(folder: Folder) -> None:
    old = write_segment(numbered(1, 9, priority=1), salt=1, sealed=False, file_size=65536)
    data = bytearray(segment(1, some(1), sealed=False, file_size=65536))
    end = oracle.read_segment(bytes(data)).records_end
    data[end:] = old[end:]
    folder.put({1: bytes(data)})
    report = folder.recover().report
    assert (report.items, report.torn_bytes, report.quarantined) == (3, 0, 0)
    assert oracle.read_segment((folder.path / name(1)).read_bytes()).problems == []


def test_several_unsealed_segments_of_a_killed_process_all_stay(folder: Folder) -> None:
    folder.put({n: segment(n, some(n), sealed=False) for n in (1, 2, 3)})
    report = folder.recover().report
    assert (report.items, report.rescanned, report.torn_bytes) == (9, 3, 0)
    assert folder.on_disk == items(10, 11, 12, 20, 21, 22, 30, 31, 32)


def test_unsealed_segment_that_is_settled_goes_without_being_sealed(folder: Folder) -> None:
    folder.put({1: segment(1, some(1, done=True), sealed=False), 2: segment(2, some(2), sealed=False)})
    folder.recover()
    assert folder.names == {name(2)}


def test_segment_without_any_record_stays_as_the_newest_one(folder: Folder) -> None:
    folder.put({1: segment(1, [], sealed=False, base_sequence=77)})
    found = folder.recover()
    assert (found.next_sequence, found.report.items, len(found.segments)) == (77, 0, 1)
    assert folder.recover().report.clean


def test_leftover_temporary_and_spare_files_go_and_unknown_names_stay(folder: Folder) -> None:
    folder.put({f"{5:020}.seg.tmp": b"x", f"{9:020}.spare": segment(3, some(3)), "notes.txt": b"mine", "lock": b""})
    found = folder.recover()
    assert folder.names == {"notes.txt", "lock"}
    assert found.report.unknown_names == ("notes.txt",)
    assert found.report.removed == 2
    assert found.next_number == 10


def test_folder_with_the_name_of_a_spare_is_not_ours(folder: Folder) -> None:
    (folder.path / f"{9:020}.spare").mkdir()
    assert folder.recover().report.unknown_names == (f"{9:020}.spare",)


# --- a power cut


def torn(records: Records, index: int = -1) -> Records:
    """The payload of one record did not reach the disk."""
    records[index]["payload_crc"] = 1
    return records


def test_torn_last_record_is_cut_and_the_one_before_survives(folder: Folder) -> None:
    folder.put({1: segment(1, torn(some(1)), sealed=False)})
    report = folder.recover().report
    assert folder.on_disk == folder.taken == items(10, 11)
    assert (report.items, report.torn_records, report.torn_bytes, report.quarantined) == (2, 0, 80, 0)
    assert len(folder.quarantined) == 1  # kept before it was cut


@pytest.mark.parametrize(("torn_bytes", "kept"), [(MiB - 8, MiB - 8), (MiB, MiB), (MiB + 8, MiB), (3 * MiB, MiB)])
def test_of_what_is_torn_the_first_mebibyte_is_kept(folder: Folder, torn_bytes: int, kept: int) -> None:
    records = [*some(1), {"payload": os.urandom(torn_bytes - 72)}]
    data = segment(1, torn(records), sealed=False)
    (offset,) = (record.offset for record in oracle.read_segment(segment(1, records[:-1], sealed=False)).records[-1:])
    folder.put({1: data})
    report = folder.recover().report
    assert folder.on_disk == items(10, 11, 12)
    assert (report.torn_bytes, report.torn_records) == (torn_bytes, 0)
    (file,) = folder.quarantined
    at = int(file.removesuffix(".bad").rpartition("-")[2])
    assert at > offset and (folder.path / "quarantine" / file).read_bytes() == data[at : at + kept]


def test_nothing_stays_behind_a_torn_record(folder: Folder) -> None:
    folder.put({1: segment(1, torn(some(1, 6), 2), sealed=False)})
    report = folder.recover().report
    assert folder.on_disk == items(10, 11)
    assert (report.torn_records, report.torn_bytes) == (3, 4 * 80)


def test_later_segment_that_nothing_vouches_for_goes_with_the_torn_one(folder: Folder) -> None:
    folder.put({1: segment(1, torn(some(1)), sealed=False), 2: segment(2, some(2), sealed=False), 3: segment(3, some(3), sealed=False)})
    found = folder.recover()
    assert folder.on_disk == items(10, 11)
    assert folder.names == {name(1), "quarantine"}
    assert (found.report.torn_records, found.report.torn_bytes, found.report.removed) == (6, 7 * 80, 2)
    assert (found.next_number, found.next_sequence) == (4, 33)


def test_torn_segment_that_a_later_one_vouches_for_was_damaged(folder: Folder) -> None:
    folder.put({1: segment(1, torn(some(1), 1), sealed=False), 2: segment(2, some(2, synced=4096 // 8), sealed=False)})
    report = folder.recover().report
    assert folder.on_disk == items(10, 12, 20, 21, 22)
    assert (report.quarantined, report.quarantined_bytes, report.torn_bytes) == (1, 80, 0)
    assert folder.quarantined == {f"{name(1)}-{layout.geometry(8192).records_start + 80}.bad"}


def test_incomplete_batch_is_cut_from_its_first_record(folder: Folder) -> None:
    records = some(1, 6)
    for left, record in zip((4, 3, 2, 1), records[2:], strict=True):
        record["batch_left"] = left
    folder.put({1: segment(1, records, sealed=False)})
    report = folder.recover().report
    assert folder.on_disk == items(10, 11)
    assert report.torn_records == 4


def test_batch_with_a_torn_record_is_cut_as_a_whole(folder: Folder) -> None:
    records = some(1, 6)
    for left, record in zip((3, 2, 1, 0), records[2:], strict=True):
        record["batch_left"] = left
    folder.put({1: segment(1, torn(records, 4), sealed=False)})
    folder.recover()
    assert folder.on_disk == items(10, 11)


def test_batch_whose_first_record_was_never_published_is_cut(folder: Folder) -> None:
    records = some(1, 5)
    for left, record in zip((2, 1, 0), records[2:], strict=True):
        record["batch_left"] = left
    data = bytearray(segment(1, records, sealed=False))
    first = oracle.read_segment(bytes(data)).records[2].offset
    data[first : first + 8] = bytes(8)
    folder.put({1: bytes(data)})
    report = folder.recover().report
    assert folder.on_disk == items(10, 11)
    assert (report.quarantined, report.torn_records) == (0, 2)


def test_batch_whose_last_record_was_synced_and_is_damaged_stays(folder: Folder) -> None:
    start = layout.geometry(8192).records_start
    records = some(1, 4)
    records[1]["batch_left"] = 1
    records[3]["synced"] = (start + 3 * 80) // 8
    torn(records, 3)
    torn(records, 2)
    folder.put({1: segment(1, [*records, *numbered(14, 1, synced=(start + 3 * 80) // 8)], sealed=False)})
    report = folder.recover().report
    assert folder.on_disk == items(10, 11)
    assert (report.quarantined, report.torn_records, report.torn_bytes) == (1, 1, 160)


def test_whole_batch_at_the_end_stays(folder: Folder) -> None:
    records = some(1, 3)
    for left, record in zip((2, 1, 0), records, strict=True):
        record["batch_left"] = left
    folder.put({1: segment(1, records, sealed=False)})
    assert folder.recover().report.torn_bytes == 0
    assert folder.on_disk == items(10, 11, 12)


def test_settle_marks_of_what_was_cut_are_cleared(folder: Folder) -> None:
    records = torn(some(1, 5), 2)
    records[3]["done"] = records[4]["done"] = True
    folder.put({1: segment(1, records, sealed=False)})
    assert folder.recover().report.items == 2
    assert folder.recover().report.items == 2  # by the footer, which counts marks and not records
    assert not any((folder.path / name(1)).read_bytes()[512:516])


@pytest.mark.parametrize("data", [b"", bytes(100), bytes(70_000)])
def test_file_of_zeros_was_never_written_to(folder: Folder, data: bytes) -> None:
    folder.put({1: segment(1, some(1)), 2: data})
    found = folder.recover()
    assert folder.names == {name(1)} and found.report.removed == 1 and found.report.quarantined_files == 0
    assert found.next_number == 3


def test_what_follows_a_file_of_zeros_would_leave_a_hole_and_goes(folder: Folder) -> None:
    folder.put({1: segment(1, some(1)), 2: bytes(8192), 3: segment(3, some(3), sealed=False)})
    report = folder.recover().report
    assert folder.on_disk == items(10, 11, 12)
    assert report.torn_records == 3


def test_file_of_zeros_before_a_segment_that_vouches_is_set_aside(folder: Folder) -> None:
    folder.put({1: bytes(8192), 2: segment(2, some(2))})
    report = folder.recover().report
    assert folder.quarantined == {name(1)} and report.quarantined_files == 1
    assert folder.on_disk == items(20, 21, 22)


def test_segment_whose_number_never_reached_the_disk_holds_nothing_that_was_synced(folder: Folder) -> None:
    folder.put({1: segment(1, some(1)), 2: write_segment(numbered(20, 2), number=0, through=0, queue=QUEUE, sealed=False)})
    report = folder.recover().report
    assert folder.names == {name(1), "quarantine"} and report.torn_records == 2


def test_earlier_life_of_a_recycled_file_does_not_come_back(folder: Folder) -> None:
    # Its header and a part of its marks are old, the rest of its marks belong to the new life that was never synced.
    data = bytearray(segment(2, some(2, done=True)))
    data[512:520] = layout.mark_word(0x999, 0, 0)
    folder.put({3: segment(3, some(3)), 7: bytes(data)})
    report = folder.recover().report
    assert folder.on_disk == items(30, 31, 32) and folder.names == {name(3)}
    assert (report.removed, report.rotten_marks, report.quarantined_files) == (1, 0, 0)


def test_what_follows_a_file_that_kept_the_header_of_its_earlier_life_would_leave_a_hole(folder: Folder) -> None:
    folder.put({3: segment(3, some(3)), 4: segment(2, some(2, done=True)), 5: segment(5, some(5), sealed=False)})
    folder.recover()
    assert folder.on_disk == items(30, 31, 32)


def test_recycled_file_with_all_its_old_marks_is_a_settled_segment(folder: Folder) -> None:
    folder.put({3: segment(3, some(3)), 7: segment(2, some(2, done=True))})
    assert folder.recover().next_number == 8
    assert folder.names == {name(3)}


# --- what the next segment says about where this one ended


def end_of(data: bytes) -> int:
    return oracle.read_segment(data).records_end


def lost_end(number: int, records: Records) -> bytes:
    """Its last record never reached the disk, and left nothing."""
    data = segment(number, records, sealed=False)
    at = end_of(data) - 80
    return data[:at] + bytes(len(data) - at)


def test_lost_end_without_a_trace_would_leave_a_hole_and_what_follows_goes(folder: Folder) -> None:
    end = end_of(segment(1, some(1), sealed=False))
    folder.put({1: lost_end(1, some(1)), 2: segment(2, some(2), sealed=False, previous_end=end)})
    report = folder.recover().report
    assert folder.on_disk == items(10, 11) and report.torn_records == 3


def test_lost_end_before_a_segment_that_vouches_is_damage(folder: Folder) -> None:
    end = end_of(segment(1, some(1), sealed=False))
    folder.put({1: lost_end(1, some(1)), 2: segment(2, some(2), previous_end=end)})
    report = folder.recover().report
    assert folder.on_disk == items(10, 11, 20, 21, 22)
    assert (report.quarantined, report.quarantined_bytes, report.torn_records) == (1, 80, 0)


def test_leftover_of_a_failed_write_is_cut_and_what_was_written_after_it_stays(folder: Folder) -> None:
    start = layout.geometry(8192).records_start
    folder.put({1: segment(1, torn(some(1, 4)), sealed=False), 2: segment(2, some(2), sealed=False, previous_end=start + 160)})
    report = folder.recover().report
    assert folder.on_disk == items(10, 11, 20, 21, 22)
    assert report.quarantined == 0


def test_file_that_was_cut_back_after_a_failed_write_lacks_nothing(folder: Folder) -> None:
    data = segment(1, some(1), sealed=False)
    folder.put({1: data[: end_of(data)], 2: segment(2, some(2), sealed=False, previous_end=end_of(data))})
    report = folder.recover().report
    assert report.items == 6 and report.torn_bytes == 0
    assert not any("missing" in note for note in report.notes)


# --- damage


def test_damage_below_the_synced_position_is_set_aside_and_the_rest_stays(folder: Folder) -> None:
    records = some(1, 5)
    start = layout.geometry(8192).records_start
    records[4]["synced"] = (start + 4 * 80) // 8
    records[2]["done"] = True
    data = bytearray(segment(1, torn(records, 1), sealed=False))
    data[start + 2 * 80 + 20] ^= 0xFF  # and a header
    folder.put({1: bytes(data)})
    report = folder.recover().report
    assert folder.on_disk == folder.taken == items(10, 13, 14)
    assert (report.quarantined, report.quarantined_bytes, report.torn_bytes) == (2, 160, 0)
    kept = folder.path / "quarantine" / f"{name(1)}-{start + 80}.bad"
    assert kept.read_bytes() == bytes(data[start + 80 : start + 240])
    assert folder.recover().report.items == 3


def test_damage_below_and_a_tear_above(folder: Folder) -> None:
    records = some(1, 6)
    start = layout.geometry(8192).records_start
    records[3]["synced"] = (start + 2 * 80) // 8
    torn(records, 0)
    torn(records, 4)
    folder.put({1: segment(1, records, sealed=False)})
    report = folder.recover().report
    assert folder.on_disk == items(11, 12, 13)
    assert (report.quarantined, report.torn_records, report.torn_bytes) == (1, 1, 160)


@pytest.mark.parametrize("at", [-1, -40, -64 - 64])  # check code, a reserved byte, the magic
def test_damaged_footer_is_rebuilt_from_the_records(folder: Folder, at: int) -> None:
    data = bytearray(segment(1, some(1)))
    data[at] ^= 4
    folder.put({1: bytes(data), 2: segment(2, some(2))})
    report = folder.recover().report
    assert folder.on_disk == items(10, 11, 12, 20, 21, 22)
    assert not report.clean and report.rescanned == 1 and report.torn_bytes == 0
    assert (folder.path / name(1)).read_bytes() == segment(1, some(1), next_sequence=23)


def test_damaged_footer_of_the_last_segment_still_vouches(folder: Folder) -> None:
    data = bytearray(segment(1, torn(some(1), 1)))
    data[-1] ^= 4
    folder.put({1: bytes(data)})
    report = folder.recover().report
    assert folder.on_disk == items(10, 12)
    assert (report.quarantined, report.torn_bytes) == (1, 0)


@pytest.mark.parametrize("zeroed", [False, True], ids=["flipped", "zeroed"])
def test_damaged_last_record_in_front_of_a_damaged_footer_is_counted(folder: Folder, zeroed: bool) -> None:
    """Neither the footer nor what follows says that there was a record: what stands there is no index."""
    data = bytearray(segment(1, some(1)))
    at = end_of(bytes(data)) - 80
    data[at : at + 72] = bytes(72) if zeroed else bytes([data[at] ^ 1]) + data[at + 1 : at + 72]
    data[-1] ^= 4
    folder.put({1: bytes(data)})
    report = folder.recover().report
    assert folder.on_disk == items(10, 11)
    assert report.quarantined == 1


def test_damaged_directory_is_rebuilt_from_the_records(folder: Folder) -> None:
    data = bytearray(segment(1, [*some(1), *numbered(13, 2, priority=1, done=True)]))
    data[-128 - 64 + 5] ^= 1
    folder.put({1: bytes(data)})
    report = folder.recover().report
    assert folder.on_disk == folder.taken == items(10, 11, 12)
    assert report.rescanned == 1 and report.items == 3


def test_damaged_index_is_left_to_the_first_reader(folder: Folder) -> None:
    data = bytearray(segment(1, some(1)))
    data[oracle.read_segment(bytes(data)).records_end] ^= 1
    folder.put({1: bytes(data)})
    assert folder.recover().report.items == 3
    assert folder.taken == items(10, 11, 12)


def test_damaged_index_of_a_segment_that_looks_settled_does_not_cost_it(folder: Folder) -> None:
    data = bytearray(segment(1, some(1, done=True)))
    data[oracle.read_segment(bytes(data)).records_end] ^= 1
    folder.put({1: bytes(data), 2: segment(2, some(2))})
    report = folder.recover().report
    assert (report.items, report.rescanned, report.removed) == (3, 1, 1)


def test_rotten_word_of_marks_costs_a_redelivery_and_is_counted(folder: Folder) -> None:
    data = bytearray(segment(1, some(1, done=True)))
    data[512] ^= 4
    folder.put({1: bytes(data)})
    report = folder.recover().report
    assert (report.items, report.rotten_marks, report.clean) == (3, 1, False)
    assert folder.taken == items(10, 11, 12)


def test_rotten_word_of_an_unsealed_segment_is_mended_when_it_is_sealed(folder: Folder) -> None:
    data = bytearray(segment(1, some(1), sealed=False))
    data[515] ^= 4
    folder.put({1: bytes(data)})
    assert folder.recover().report.rotten_marks == 1
    assert folder.recover().report.clean


def test_words_behind_the_last_record_may_rot(folder: Folder) -> None:
    data = bytearray(segment(1, some(1), file_size=100_000 // 4096 * 4096))
    data[520] ^= 4
    folder.put({1: bytes(data)})
    assert folder.recover().report.rotten_marks == 0


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"\xff" + segment(1, some(1))[1:], "magic"),
        (segment(1, some(1))[:13] + b"\xff" + segment(1, some(1))[14:], "salt"),
        (bytes(512) + segment(1, some(1))[512:], "first sector"),
        (b"something else altogether" * 400, "foreign"),
        (segment(1, some(1))[:600], "cut within the marks"),
        (segment(1, some(1), queue=b"another queue..."), "another queue"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_file_that_cannot_be_read_as_ours_is_set_aside_and_never_deleted(folder: Folder, data: bytes, what: str) -> None:
    folder.put({1: data, 2: segment(2, some(2)), 3: segment(3, some(3))})
    found = folder.recover()
    assert folder.on_disk == items(20, 21, 22, 30, 31, 32)
    assert (folder.path / "quarantine" / name(1)).read_bytes() == data
    assert (found.report.quarantined_files, found.report.quarantined_bytes) == (1, len(data))
    assert found.other_bytes >= len(data)
    assert not found.report.clean and name(1) in found.report.notes[0]
    assert folder.recover().report.clean


def test_sealed_file_that_lost_its_end_is_read_as_far_as_it_goes_and_told(folder: Folder) -> None:
    data = segment(1, some(1))
    start = oracle.read_segment(data).records[0].offset
    folder.put({1: data[: start + 170], 2: segment(2, some(2))})
    report = folder.recover().report
    assert folder.on_disk == items(10, 11, 20, 21, 22)
    assert not report.clean and any("missing" in note for note in report.notes)


def test_newer_version_is_refused_and_nothing_is_changed(folder: Folder) -> None:
    newer = bytearray(segment(3, some(3)))
    newer[8:10] = b"\2\0"
    newer[124:128] = oracle.crc(bytes(newer[:124])).to_bytes(4, "little")
    folder.put({
        1: segment(1, torn(some(1)), sealed=False), 2: bytes(4096), 3: bytes(newer), f"{9:020}.spare": b"x", 4: b"\xff" * 300,
    })
    before = folder.snapshot()
    with pytest.raises(UnknownFormat) as raised:
        folder.recover()
    assert folder.snapshot() == before
    assert (raised.value.found, raised.value.expected) == (2, 1)
    assert name(3) in str(raised.value)


def test_file_whose_header_was_lost_goes_after_what_is_cut_behind_it(folder: Folder) -> None:
    """A power cut in between must not leave the later ones without the one that says why they go: that would be a hole."""
    done: list[str] = []

    class Told(Disk):
        def rename(self, old: str, new: str, into: Disk | None = None) -> None:
            done.append(f"rename {old}")
            super().rename(old, new, into)

        def unlink(self, name: str) -> None:
            done.append(f"unlink {name}")
            super().unlink(name)

        def sync_folder(self) -> None:
            done.append("sync")
            super().sync_folder()

    lost = bytearray(segment(2, some(2), sealed=False))
    lost[:4096] = bytes(4096)
    folder.put({1: segment(1, some(1), sealed=False), 2: bytes(lost), 3: segment(3, some(3), sealed=False)})
    folder.recover(disk_class=Told)
    assert folder.on_disk == items(10, 11, 12)
    gone, aside = done.index(f"unlink {name(3)}"), done.index(f"rename {name(2)}")
    assert gone < aside and "sync" in done[gone:aside]


# --- compaction


def test_inputs_that_a_compacted_segment_replaces_are_removed(folder: Folder) -> None:
    folder.put({
        1: segment(1, some(1)),
        2: segment(2, [*some(2), *some(3)], through=4),
        3: segment(3, some(3)), 4: segment(4, some(4)), 5: segment(5, some(5)),
    })
    found = folder.recover()
    assert [each.number for each in found.segments] == [1, 2, 5]
    assert folder.names == {name(1), name(2), name(5)}
    assert folder.on_disk == items(10, 11, 12, 20, 21, 22, 30, 31, 32, 50, 51, 52)
    assert found.report.removed == 2 and found.next_number == 6


def test_number_that_a_compacted_segment_stands_for_is_not_used_again(folder: Folder) -> None:
    folder.put({2: segment(2, some(2), through=8)})
    assert folder.recover().next_number == 9


def test_compacted_again_replaces_what_was_compacted_before(folder: Folder) -> None:
    folder.put({1: segment(1, some(1), through=5), 2: segment(2, some(2), through=3), 6: segment(6, some(6))})
    assert [each.number for each in folder.recover().segments] == [1, 6]


def test_second_file_of_the_same_number_is_set_aside(folder: Folder) -> None:
    folder.put({1: segment(1, some(1)), 2: segment(2, some(2)), 5: segment(2, numbered(25, 1))})
    assert folder.recover().report.quarantined_files == 1
    assert folder.quarantined == {name(5)}
    assert folder.on_disk == items(10, 11, 12, 20, 21, 22)


def test_file_under_a_wrong_name_counts_by_its_header_and_gets_its_name(folder: Folder) -> None:
    folder.put({3: segment(1, some(1)), 2: segment(2, some(2))})
    found = folder.recover()
    assert folder.names == {name(1), name(2)} and found.next_number == 4
    assert folder.on_disk == items(10, 11, 12, 20, 21, 22)


def test_swapped_files_are_read_in_the_order_of_their_headers(folder: Folder) -> None:
    folder.put({1: segment(2, some(2)), 2: segment(1, some(1))})
    folder.recover()
    assert folder.taken == items(10, 11, 12, 20, 21, 22)


# --- a disk that is full, and one that fails


class FullDisk(Disk):
    """Takes no byte in quarantine."""

    def subfolder(self, name: str) -> Any:
        raise OSError(28, "No space left on device")


def test_full_disk_does_not_keep_the_queue_from_opening(folder: Folder) -> None:
    records = some(1, 5)
    records[4]["synced"] = (layout.geometry(8192).records_start + 4 * 80) // 8
    folder.put({1: segment(1, torn(torn(records, 1)), sealed=False)})
    report = folder.recover(disk_class=FullDisk).report
    assert folder.on_disk == items(10, 12, 13)
    assert report.quarantined == 1 and report.torn_bytes == 80
    assert sum("no room to keep them" in note for note in report.notes) == 2


def test_room_for_the_footer_is_made_by_giving_back_what_was_preallocated(folder: Folder) -> None:
    class Full(Disk):
        room = 0

        def pwrite(self, fd: int, data: Any, offset: int) -> None:
            if len(data) > Full.room:
                raise OSError(28, "No space left on device")
            super().pwrite(fd, data, offset)

        def truncate(self, fd: int, size: int) -> None:
            Full.room += self.size(fd) - size
            super().truncate(fd, size)

    folder.put({1: segment(1, some(1), sealed=False)})
    folder.recover(disk_class=Full, plain=True)
    assert folder.on_disk == items(10, 11, 12)
    assert oracle.read_segment((folder.path / name(1)).read_bytes()).sealed


def test_failed_sync_is_raised_and_nothing_is_sealed_over_it(folder: Folder) -> None:
    class Failing(Disk):
        def datasync(self, fd: int) -> None:
            raise OSError(5, "Input/output error")

    data = segment(1, some(1), sealed=False)
    folder.put({1: data})
    with pytest.raises(OSError, match="Input/output"):
        folder.recover(disk_class=Failing)
    assert (folder.path / name(1)).read_bytes() == data


# --- killed at every instant, in the order that matters


def everything_at_once() -> dict[int | str, bytes]:
    damaged = some(6, 5, synced=0)
    damaged[3]["done"] = True
    tail = some(7, 5)
    tail[3]["synced"] = 4096 // 8
    tail[4]["done"] = True
    return {
        1: segment(1, some(1)),
        2: segment(2, some(2, done=True)),
        3: segment(3, [*some(3), *some(4)], through=4),
        4: segment(4, some(4)),
        5: bytes(700) + b"\1" + bytes(3000),
        6: segment(6, torn(damaged, 1), sealed=False),
        7: segment(7, torn(tail), sealed=False),
        8: segment(8, some(8), sealed=False),
        9: bytes(4096),
        10: segment(10, some(10), sealed=False),
        f"{11:020}.seg.tmp": b"half",
        f"{2:020}.spare": b"old",
        12: b"not ours" * 100,
    }


def outcome(folder: Folder) -> tuple[Any, ...]:
    names = folder.names - {"quarantine"}
    segments = {each: oracle.read_segment((folder.path / each).read_bytes()) for each in names}
    return names, folder.on_disk, folder.quarantined, {each: (found.sealed, found.problems, found.marks) for each, found in segments.items()}


def dies_at(n: int, disk_class: type[Disk] = Disk) -> type[Disk]:
    """A disk whose n-th change kills the process, as a kill does: nothing is cleaned up."""

    class Dying(disk_class):  # type: ignore[misc, valid-type]
        calls = 0

        def _count(self) -> None:
            Dying.calls += 1
            if Dying.calls == n:
                os._exit(9)

    for verb in ("create", "pwrite", "datasync", "truncate", "rename", "unlink", "sync_folder", "subfolder"):
        def method(self: Any, *arguments: Any, _verb: str = verb, **more: Any) -> Any:
            self._count()
            return getattr(super(Dying, self), _verb)(*arguments, **more)

        setattr(Dying, verb, method)
    return Dying


def test_recovery_killed_at_any_call_and_run_again_ends_the_same(tmp_path: Path) -> None:
    reference = Folder(tmp_path / "reference").put(everything_at_once())
    report = reference.recover().report
    assert reference.on_disk == items(10, 11, 12, 30, 31, 32, 40, 41, 42, 60, 62, 64, 70, 71, 72, 73)
    assert report.torn_records == 6 and report.quarantined == 1
    expected = outcome(reference)
    kills = 0
    for n in itertools.count(1):
        folder = Folder(tmp_path / f"killed-{n}").put(everything_at_once())
        child = os.fork()
        if child == 0:
            folder.recover(disk_class=dies_at(n))
            os._exit(0)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert code in (0, 9)
        folder.recover()
        assert outcome(folder) == expected, n
        assert folder.recover().report.clean
        if code == 0:
            break
        kills += 1
    assert kills > 40


def test_what_was_cut_has_durably_gone_before_the_torn_segment_is_sealed(folder: Folder) -> None:
    trace: list[tuple[str, str]] = []

    class Traced(Disk):
        def unlink(self, name: str) -> None:
            trace.append(("unlink", name))
            super().unlink(name)

        def sync_folder(self) -> None:
            trace.append(("sync folder", ""))
            super().sync_folder()

        def datasync(self, fd: int) -> None:
            trace.append(("sync", os.path.basename(os.readlink(f"/proc/self/fd/{fd}"))))
            super().datasync(fd)

        def pwrite(self, fd: int, data: Any, offset: int) -> None:
            trace.append(("write", os.path.basename(os.readlink(f"/proc/self/fd/{fd}"))))
            super().pwrite(fd, data, offset)

        def subfolder(self, name: str) -> Any:
            raise OSError(28, "quarantine is left out of this story")

    folder.put({
        1: segment(1, some(1), sealed=False), 2: segment(2, torn(some(2)), sealed=False),
        3: segment(3, some(3), sealed=False), 4: segment(4, some(4), sealed=False),
    })
    folder.recover(disk_class=Traced)
    assert trace == [
        ("unlink", name(4)), ("unlink", name(3)), ("sync folder", ""),
        ("sync", name(1)), ("write", name(1)), ("sync", name(1)),
        ("sync", name(2)), ("write", name(2)), ("sync", name(2)),
    ]


# --- against the oracle


Damages = list[tuple[int, int, bool]]


def damaged_segment(spec: list[tuple[int, int, int]], damages: Damages) -> bytes:
    """A segment of records (size, batch, synced), of which stretches were zeroed or changed."""
    records: Records = []
    left = 0
    for i, (size, batch, _) in enumerate(spec):
        left = left - 1 if left else batch
        records.append({"payload": bytes([i]) * size, "batch_left": left, "sequence": 10 + i})
    start = layout.geometry(8192).records_start
    offsets = [start]
    for size, _, _ in spec:
        offsets.append(offsets[-1] + layout.record_size(size))
    for i, (record, (_, _, synced)) in enumerate(zip(records, spec, strict=True)):
        record["synced"] = offsets[synced] // 8 if 0 <= synced <= i else 0
    data = bytearray(segment(1, records, sealed=False))
    for at, length, zero in damages:
        at += start
        data[at : at + length] = bytes(length) if zero else bytes(byte ^ 0x5A for byte in data[at : at + length])
    return bytes(data)


@settings(max_examples=500, deadline=None)
@example([(33, 3, 0), (57, 0, 0), (1, 0, 0), (0, 0, 0), (0, 1, 4)], [(320, 80, False)], False)  # what is left of a batch does not belong to the one that breaks off
@example([(0, 0, 0), (25, 0, 0), (73, 1, 0), (1, 0, 0), (0, 0, 0), (0, 0, 4)], [(400, 1, False), (401, 8, False)], False)
@given(
    st.lists(st.tuples(st.integers(0, 90), st.sampled_from([0, 0, 0, 1, 3]), st.integers(-6, 12)), max_size=12),
    st.lists(st.tuples(st.integers(0, 1200), st.sampled_from([1, 8, 80]), st.booleans()), max_size=4),
    st.booleans(),
)
def test_unsealed_segment_is_judged_as_the_oracle_judges_it(spec: list[tuple[int, int, int]], damages: Damages, vouched: bool) -> None:
    data = damaged_segment(spec, damages)
    read = oracle.read_segment(data, vouched=vouched)
    assert read.header is not None
    start, salt = read.header.records_start, read.header.salt
    reading = read_records(data[start:], salt, start, Known(len(data) if vouched else 0))
    kept = [record.offset for record in read.records if record.ok]
    extra = set(reading.records[len(kept) :])
    if vouched or (extra and read.damage):
        # Below the synced position a batch was complete once; the oracle drops what is left of it, we keep it.
        assert kept == list(reading.records[: len(kept)])
        assert extra <= {record.offset for record in read.cut}
        return
    assert kept == list(reading.records)
    assert read.damage == [(stretch.offset, stretch.length) for stretch in reading.damaged]
    assert read.torn == (reading.tail is not Tail.CLEAN)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 200), st.booleans()), min_size=1, max_size=80), st.integers(0, 1 << 30))
def test_marks_that_count_are_those_of_the_records(spec: list[tuple[int, bool]], seed: int) -> None:
    dice = random.Random(seed)
    data = segment(1, [{"payload": bytes(size), "done": done} for size, done in spec], sealed=False)
    read = oracle.read_segment(data)
    assert read.header is not None
    header = layout.SegmentHeader.parse(data)
    assert isinstance(header, layout.SegmentHeader)
    area = data[512 : header.attempts_start]
    records = scan(data[header.records_start :], header.salt, header.records_start, header.records_start).records
    kept = records[: dice.randint(0, len(records))]
    marks = marks_of_records(area, header.salt, header.records_start, kept)
    assert marks.marked == len([offset for offset in kept if offset in read.marks])
    again = marks_of_records(marks.cleared or area, header.salt, header.records_start, records)
    assert (again.marked, again.rotten, again.cleared) == (marks.marked, 0, None)


def flips(total: int, n: int, seed: int) -> Iterable[tuple[int, int]]:
    dice = random.Random(seed)
    for _ in range(n):
        yield dice.randrange(total), 1 << dice.randrange(8)


@pytest.mark.parametrize("seed", range(4))
def test_flipped_bit_anywhere_is_harmless_mended_or_told(tmp_path: Path, seed: int) -> None:
    segments: dict[int | str, bytes] = {
        1: segment(1, some(1)), 2: segment(2, [*some(2), *numbered(23, 2, priority=9)]), 3: segment(3, some(3, synced=4096 // 8), sealed=False),
    }
    everything = set(items(10, 11, 12, 20, 21, 22, 23, 24, 30, 31, 32))
    total = sum(map(len, segments.values()))
    for i, (at, bit) in enumerate(flips(total, 60, seed)):
        folder = Folder(tmp_path / f"{i}")
        folder.put(segments)
        number = 1
        while at >= len(segments[number]):
            at -= len(segments[number])
            number += 1
        data = bytearray(segments[number])
        data[at] ^= bit
        folder.put({number: bytes(data)})
        told: list[bytes] = []
        unreadable = 0
        with Disk.open_folder(folder.path) as disk:
            found = recover(disk, Quarantine(disk), plain=False, now_ns=NOW)
            for each in found.segments:
                for priority in each.directory:
                    for offset in each.offsets(priority, 0, 0)[1]:
                        payload = each.recall(8 * offset)
                        told += [payload] if payload is not None else []
                        unreadable += payload is None  # told by whoever reads it
                each.close()
        assert len(told) == len(set(told)) and set(told) <= everything
        report = found.report
        accounted = unreadable + report.quarantined + report.torn_records + (report.torn_bytes > 0) + 5 * report.quarantined_files
        assert len(everything) - len(told) <= accounted, (seed, i, number, at, bit)
