"""Compaction: adjacent segments that are mostly settled become one, which takes their place in the log.

It is what keeps one stuck item from pinning a gigabyte. A step copies one group of bounded size, so that it can be interleaved with everything else:

1. *choose* neighbours of which little is left, whose records of one priority do not interleave;
2. *copy* what is left into a new file under a temporary name, with header, marks, index and footer, and sync it;
3. *switch*, while the caller keeps the lines still: bring the copy's marks and attempts up to date (and sync them, for with the old files goes what was on stable storage) and settle
   in both from now on, give it the first old one's name (one rename publishes it and removes that one), let the lines read from it;
4. sync the folder, then unlink the others. A kill in between leaves old ones that the new one's header says it stands for; recovery removes them.

I9: from the switch on every record of an old segment that is not settled has exactly one copy, and whoever still holds an old address finds it there.
"""
from __future__ import annotations

import os
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from .._core.record import build_index, copy_records, scan
from .._core.segmap import fresh_marks
from . import layout
from .log import Log
from .segment import Segment, size_for

__all__ = ["Merger", "choose", "copy", "publish"]

OUTPUT_MAX = 32 << 20
"""How much one step writes at most."""

_READ_STEP = 1 << 20


@dataclass
class Merger:
    """A group on its way: the old segments, the new one, and where each record went."""

    old: list[Segment]
    new: Segment
    moved: dict[int, tuple[array[int], array[int]]]
    """By the old segment's number: offsets there, ascending, and in the new one."""


def choose(log: Log, leave_alone: Callable[[Segment], bool], share: float) -> list[Segment]:
    """Adjacent segments of which at most this share is left; [] if there is nothing worth a step."""
    group: list[Segment] = []
    for segment in [*log.in_order(), None]:
        if segment is not None and _is_candidate(segment, share) and not leave_alone(segment) and _may_follow(group, segment):
            group.append(segment)
            continue
        if _is_worth_it(group):
            return group
        group = [segment] if segment is not None and _is_candidate(segment, share) and not leave_alone(segment) else []
    return []


def _left_bytes(segment: Segment) -> int:
    """About how many bytes of records are left."""
    footer = segment.footer
    assert footer is not None
    return (footer.records_end - segment.header.records_start) * segment.map.live // max(1, footer.count)


def _is_candidate(segment: Segment, share: float) -> bool:
    footer = segment.footer
    if footer is None or segment.retired or segment.has_damage or segment.moving or segment.map.live == 0:
        return False
    return segment.map.live <= share * footer.count and _left_bytes(segment) <= OUTPUT_MAX


def _may_follow(group: list[Segment], segment: Segment) -> bool:
    if not group:
        return True
    if sum(map(_left_bytes, group)) + _left_bytes(segment) > OUTPUT_MAX:
        return False
    for line, entry in segment.directory.items():
        if line >= layout.DELAYED_LINE:
            continue  # ordered by time, and read as a whole
        for before in group:
            other = before.directory.get(line)
            if other is not None and other.last_place >= entry.first_place:
                return False  # their lines interleave: a run over the copy would not be a stretch of either
    return True


def _is_worth_it(group: list[Segment]) -> bool:
    if not group:
        return False
    held = sum(segment.allocated for segment in group)
    return _size_of_copy(group) <= held // 2


def _size_of_copy(group: list[Segment]) -> int:
    records = sum(segment.map.live for segment in group)
    return size_for(sum(map(_left_bytes, group)), records, layout.LINES)


class _Unfit(Exception):
    """A segment of the group cannot be copied: everything in it was settled, and its file removed, meanwhile; or a record in it does not check."""


def copy(log: Log, group: list[Segment]) -> Merger | None:
    """Write what is left of the group into a new sealed segment under a temporary name; None if there is no room for it now, nothing left, or something damaged."""
    try:
        return _copy(log, group)
    except _Unfit:
        return None


def _copy(log: Log, group: list[Segment]) -> Merger | None:
    first, last = group[0], group[-1]
    salt = int.from_bytes(os.urandom(4), "little")
    live = [(segment, _live_offsets(segment)) for segment in group]
    sizes = sum(sum(size for _, size in _sized(segment, offsets)) for segment, offsets in live)
    records = sum(len(offsets) for _, offsets in live)
    if records == 0:
        return None
    size = size_for(sizes, records, layout.LINES)
    if not log.reserve(size):
        return None
    reserved = size
    name = log.temporary_name()
    fd = -1
    try:
        fd = log.disk.create(name, size)
        slots, _, _, records_start = layout.geometry(size)
        header = layout.SegmentHeader(
            flags=layout.HEADER_FLAG_COMPACTED, salt=salt, queue=first.header.queue, number=first.number, through=last.header.through,
            base_sequence=first.header.base_sequence, created_ns=first.header.created_ns, records_start=records_start, file_size=size, slots=slots,
            previous_end=first.header.previous_end,
        )
        log.disk.pwrite(fd, header.pack().ljust(layout.MARKS_START, b"\0") + fresh_marks(salt, slots), 0)
        at = records_start
        moved: dict[int, tuple[array[int], array[int]]] = {}
        for segment, offsets in live:
            here, there = array("Q"), array("Q")
            for data, base, some in _stretches(segment, offsets):
                written, placed, bad = copy_records(data, base, segment.header.salt, some, salt, at)
                if bad:
                    # Its item may be waiting, leased or returned: whoever takes it next sets it aside and counts it.
                    segment.has_damage = True
                    raise _Unfit
                log.disk.pwrite(fd, written, at)
                at += len(written)
                here.extend(some)
                there.extend(placed)
            moved[segment.number] = here, there
        new = Segment(log.disk, name, header, size, fd, log.plain)
        data = log.disk.pread(fd, at - records_start, records_start)
        lanes = build_index(data, records_start, scan(data, salt, records_start, records_start, False).records)
        assert last.footer is not None
        end = new.write_footer(fd, lanes, at, last.footer.next_sequence)
        log.disk.truncate(fd, end)
        new.allocated = layout.blocks(end)
        log.unreserve(reserved - new.allocated)
        reserved = new.allocated
        count = sum(len(here) for here, _ in moved.values())
        new.map.restore(at, count, count)
        new.attach()
        with log.still():
            for segment in group:
                if segment.retired:
                    raise _Unfit
                segment.map.carry_over(new.map, *moved[segment.number])
        log.disk.datasync(fd)
        return Merger(group, new, moved)
    except BaseException:
        log.unreserve(reserved)
        if fd >= 0:
            log.disk.close_file(fd)
            log.disk.unlink(name)
        raise


def publish(log: Log, merger: Merger) -> None:
    """The switch. The caller keeps the lines still and has them read from the new segment before it lets go."""
    new = merger.new
    log.dirtied(new)
    changes = sum(segment.map.copied_to(new.map, *merger.moved[segment.number]) for segment in merger.old)
    log.replace(merger.old, new, sync=changes > 0)
    for segment in merger.old:
        segment.retire()


def _live_offsets(segment: Segment) -> array[int]:
    """Offsets of the records that are not settled, ascending."""
    segment.attach()
    found: list[int] = []
    for line in segment.directory:
        position = 0
        while True:
            position, window, _ = segment.offsets(line, position, 0)
            if not window:
                break
            found.extend(8 * offset for offset in window if not segment.map.settled(8 * offset))
            position += len(window)
    return array("Q", sorted(found))


def _stretches(segment: Segment, offsets: array[int]) -> Iterator[tuple[bytes, int, array[int]]]:
    """The segment's bytes in stretches, each with the offsets of the records that lie in it as a whole."""
    assert segment.footer is not None
    end = segment.footer.records_end
    i = 0
    while i < len(offsets):
        base = offsets[i]
        length = _READ_STEP
        while True:
            # Zeros in place of what is missing: they do not check.
            asked = min(length, end - base)
            data = segment.read(base, asked).ljust(asked, b"\0")
            if segment.retired:
                raise _Unfit
            k = i
            while k < len(offsets) and offsets[k] + layout.RECORD_HEADER.size <= base + len(data):
                size = _record_size(data, offsets[k] - base)
                if offsets[k] + size > base + len(data) and base + len(data) < end:
                    break
                k += 1
            if k > i or base + len(data) >= end:
                break
            length = _record_size(data, 0)  # one record longer than a step
        if k == i:
            k = i + 1
        yield data, base, offsets[i:k]
        i = k


def _record_size(data: bytes, at: int) -> int:
    """What a record's header says of its size; the header is checked by who copies it."""
    return layout.record_size(int.from_bytes(data[at + 4 : at + 8], "little"))


def _sized(segment: Segment, offsets: array[int]) -> Iterator[tuple[int, int]]:
    assert segment.footer is not None
    for data, base, some in _stretches(segment, offsets):
        for offset in some:
            yield offset, min(_record_size(data, offset - base), segment.footer.records_end - offset)


