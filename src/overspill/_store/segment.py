"""One segment file: prepared, appended to, sealed, read, retired.

A segment is the write-ahead log and the store at once: an item is written here and nowhere else. The compiled `SegmentMap` keeps what changes per
operation (tail, marks); this class does what happens once per segment and what needs the file.

It promises: a footer is written only over records that are on stable storage; a file descriptor is closed only when nobody reads
through it; what is damaged is reported to `on_damage` before it is settled, and never deleted first.
"""
from __future__ import annotations

import os
import threading
from array import array
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from .._core.record import build_index, count_marked, parse_header, read_payload, scan
from .._core.segmap import SegmentMap, fresh_marks
from . import layout
from .files import Disk
from .listing import Listing

__all__ = ["Segment", "size_for"]

_FOOTER_ROOM = layout.FOOTER.size + 16
"""The footer, and the padding in front of index and directory; `_core/segmap.pxd` keeps the same room free."""

_WINDOW_ENTRIES = 4096
"""How much of an index is in memory for one cursor."""

_READ_STEP = 1 << 20

OnDamage = Callable[["Segment", int, str, bytes, int | None], None]
OnRebuilt = Callable[["Segment", dict[int, int]], None]


def size_for(record_bytes: int, records: int, lines: int) -> int:
    """The least file size, in whole pages, whose record area takes these records and whose end takes their index and footer."""
    size = max(16384, record_bytes + 4 * records + 64 * lines + 1024)
    while True:
        size = (size + 4095) // 4096 * 4096
        room = size - layout.geometry(size).records_start - _FOOTER_ROOM - 64 * lines - 4 * records
        if room >= record_bytes:
            return size
        size += record_bytes - room


def _aligned(offset: int) -> int:
    return (offset + 7) // 8 * 8


def render_end(
    header: layout.SegmentHeader, lanes: list[tuple[Any, ...]], records_end: int, next_sequence: int
) -> tuple[bytes, list[layout.DirectoryEntry], layout.Footer]:
    """Index, directory and footer as they follow the records, from the lanes of `build_index`."""
    parts: list[bytes] = []
    entries: list[layout.DirectoryEntry] = []
    at = _aligned(records_end)
    for line, offsets, first_place, last_place, payload_bytes, greatest_expiry, without_expiry, _, _ in lanes:
        index = offsets.tobytes()
        entries.append(
            layout.DirectoryEntry(
                line, len(offsets), at, first_place, last_place, payload_bytes, greatest_expiry, without_expiry,
                layout.crc32c(index, header.salt),
            )
        )
        parts.append(index)
        at += len(index)
    parts.append(bytes(_aligned(at) - at))
    directory = layout.pack_directory(entries)
    footer = layout.Footer(
        number=header.number,
        records_end=records_end,
        directory_start=_aligned(at),
        lines=len(entries),
        count=sum(entry.count for entry in entries),
        least_sequence=min((lane[7] for lane in lanes), default=0),
        greatest_sequence=max((lane[8] for lane in lanes), default=0),
        greatest_expiry_ns=max((entry.greatest_expiry_ns for entry in entries), default=0),
        without_expiry=sum(entry.without_expiry for entry in entries),
        directory_crc=layout.crc32c(directory, header.salt),
        payload_bytes=sum(entry.payload_bytes for entry in entries),
        next_sequence=next_sequence,
    )
    return b"".join([*parts, directory, footer.pack(header.salt)]), entries, footer


class Segment:
    """A segment of an open queue: the owner of a `SegmentMap`."""

    def __init__(self, disk: Disk, name: str, header: layout.SegmentHeader, allocated: int, fd: int | None, plain: bool) -> None:
        self.disk = disk
        self.name = name
        self.header = header
        self.allocated = allocated
        """Bytes of the disk budget that the file takes."""
        self.footer: layout.Footer | None = None
        self.directory: dict[int, layout.DirectoryEntry] = {}
        self.version = 0
        """Changes when the order of the lists that `offsets` answers from changes."""
        self.on_damage: OnDamage | None = None
        self.on_failed: Callable[[OSError], None] | None = None
        self.on_rebuilt: OnRebuilt | None = None
        self.abandoned = False
        """A write failed here half way and the file was cut behind the last good record: nothing may be stored in its mapping any more."""
        self.stands_for: list[Segment] = []
        """Compaction: those whose place it took. They live on for whoever still holds an address in them."""
        self.has_damage = False
        """A record in it did not check when it was to be copied: compaction leaves it alone from then on."""
        self.moving = 0
        """How many records have moved from here or to here, and are not known on stable storage to have: see `Log.moved`."""
        self.listed = False
        """Whether the lines that are ordered by time read it through its index."""
        self.rotten_words = 0
        self.rebuilt_indexes = 0
        self._vouched: set[int] = set()
        self._fd = fd
        self._readers = 0
        self._reading = threading.RLock()
        """Guards the descriptor and the count of its readers."""
        self._retired = False
        self._word_lock = threading.Lock()
        self._mapping = threading.Lock()
        """Held while the mapped records are read for their index, and while they are unmapped. Taken before `_shape`."""
        self._shape = threading.Lock()
        """Held while a stretch of the mapped records is read for `_listing`, while they are unmapped, and while an index takes the place of the lists."""
        self.map = SegmentMap(header.number, header.salt, header.slots, header.records_start, header.file_size, plain)
        self.map.owner = self
        if plain:
            self.map.write = self._write_word
        self._listing = Listing(self.map, header.records_start, self.read)

    # --- making one

    @classmethod
    def prepare(cls, disk: Disk, name: str, queue: bytes, size: int, *, plain: bool, now_ns: int) -> Segment:
        """A segment ready to be put to use, under a temporary name: allocated, marks written, mapped; its pages are backed as they are needed, or ahead by the pump.

        Raises OSError when the disk has no room; then nothing is left behind.
        """
        slots, _, _, records_start = layout.geometry(size)
        salt = int.from_bytes(os.urandom(4), "little")
        header = layout.SegmentHeader(
            flags=0, salt=salt, queue=queue, number=0, through=0, base_sequence=0, created_ns=now_ns,
            records_start=records_start, file_size=size, slots=slots, previous_end=0,
        )
        fd = disk.create(name, size)
        try:
            segment = cls(disk, name, header, size, fd, plain)
            # The header still lacks its number; it is written again when the segment is put to use.
            first_part = header.pack().ljust(layout.MARKS_START, b"\0") + fresh_marks(salt, slots)
            disk.pwrite(fd, first_part, 0)
            if plain:
                segment.attach()
            else:
                segment.map.attach_fresh(fd)
            segment.map.open_tail(fd)
        except BaseException:
            disk.unlink(name)
            disk.close_file(fd)
            raise
        return segment

    def put_to_use(self, number: int, base_sequence: int, previous_end: int, now_ns: int) -> None:
        """Give a prepared segment its number and its name. From now on it is part of the log."""
        self.header = self.header._replace(number=number, through=number, base_sequence=base_sequence, previous_end=previous_end, created_ns=now_ns)
        self.disk.pwrite(self.fd(), self.header.pack(), 0)
        name = layout.segment_name(number)
        self.disk.rename(self.name, name)
        self.name = name
        self.map.number = number

    @property
    def recyclable(self) -> bool:
        """Whether another segment could go on in this one's file and memory: consumed while it was still mapped, and nobody reads it."""
        return self.map.live == 0 and self.map.mapped and self.footer is None and self._readers == 0 and not (self._retired or self.abandoned or self.moving)

    @classmethod
    def reincarnate(cls, old: Segment, *, number: int, base_sequence: int, previous_end: int, now_ns: int) -> Segment:
        """A segment in the file, pages and mapping of a consumed one: no page is touched for the first time, no block allocated.

        The header goes first, and is synced: from then on none of the old records checks, so that settle marks may be reset without bringing one back.
        """
        salt = int.from_bytes(os.urandom(4), "little")
        header = old.header._replace(salt=salt, number=number, through=number, base_sequence=base_sequence, previous_end=previous_end, created_ns=now_ns)
        fd = old.fd()
        old.disk.pwrite(fd, header.pack(), 0)
        old.disk.datasync(fd)
        segment = cls(old.disk, old.name, header, old.allocated, fd, plain=False)
        with old._mapping, old._shape:
            segment.map.take_over(old.map)
            old._fd = None
            old._retired = True
            old._listing.clear()
        segment.name = layout.segment_name(number)
        old.disk.rename(old.name, segment.name)
        return segment

    # --- the file

    @property
    def number(self) -> int:
        return self.header.number

    @property
    def retired(self) -> bool:
        return self._retired

    def fd(self) -> int:
        """The descriptor, opened when it is first needed."""
        with self._reading:
            if self._fd is None:
                self._fd = self.disk.open_rw(self.name)
            return self._fd

    @property
    def holds_fd(self) -> bool:
        return self._fd is not None

    def let_go_of_fd(self) -> None:
        """Close the descriptor if nobody reads through it; it is opened again on demand."""
        with self._reading:
            if self._fd is not None and self._readers == 0:
                fd, self._fd = self._fd, None
                self.disk.close_file(fd)

    @contextmanager
    def held_open(self) -> Iterator[int]:
        """The descriptor, which nobody closes meanwhile; -1 when the file is gone."""
        counted = False
        try:
            with self._reading:
                fd = -1 if self._retired and self._fd is None else self.fd()
                self._readers += 1
                counted = True
            yield fd
        finally:
            with self._reading:
                self._readers -= counted
            if self._retired:
                self.let_go_of_fd()

    def attach(self) -> None:
        """Make settling possible: map (or, plain, copy) header, marks and attempt counts."""
        if self.map.attached or self._retired:
            return
        with self.held_open() as fd:
            if fd >= 0:
                self.rotten_words += self.map.attach(fd, self.disk.pread(fd, self.header.records_start, 0))

    def read(self, offset: int, length: int) -> bytes:
        """Up to `length` bytes of the file; fewer at its end, none when the file is gone."""
        with self.held_open() as fd:
            return b"" if fd < 0 else self.disk.pread(fd, length, offset)

    def read_payload(self, offset: int, length: int) -> tuple[bytes | None, int]:
        """A large payload and its check code; (None, 0) where the file ends first."""
        with self.held_open() as fd:
            if fd < 0:
                return None, 0
            return read_payload(lambda view, at: self.disk.pread_into(fd, view, at), offset, length, self.header.salt)

    def _write_word(self, map: SegmentMap, offset: int, length: int) -> None:
        # Two threads may change one word: under the lock, each writes what the word holds now, so the last write is the newest.
        with self._word_lock:
            try:
                with self.held_open() as fd:
                    self.disk.pwrite(fd, map.first_part(offset, length), offset)
            except OSError as error:
                if self.on_failed is not None:
                    self.on_failed(error)
                raise

    # --- reading records

    def offsets(self, line: int, position: int, first: int) -> tuple[int, array[int], int]:
        """A window of the line's records in this segment's own order, as offsets in units of 8.

        From `position` on; or, if `first` is given, from the record at that offset on, which may well be at `position`. Returns (position of the window, window, version).
        """
        self.attach()
        if self._retired:
            return position, array("I"), self.version
        if self.footer is None:
            listed = self._listed(line, position, first)
            if listed is not None:
                return listed
        entry = self.directory.get(line)
        if entry is None:
            return position, array("I"), self.version
        if line not in self._vouched:
            self._check_index(entry)
            entry = self.directory.get(line)
            if entry is None:  # nothing of this line has survived
                return position, array("I"), self.version
        window = self._index_window(entry, position)
        if first and not (window and window[0] == first // 8):
            position = 0
            while True:
                window = self._index_window(entry, position)
                if not window:
                    raise AssertionError(f"I2: {self.name} has no record of line {line} at {first}")
                try:
                    position += window.index(first // 8)
                    break
                except ValueError:
                    position += len(window)
            window = self._index_window(entry, position)
        return position, window, self.version

    def _check_index(self, entry: layout.DirectoryEntry) -> None:
        """Before a lane's index is used for the first time: is it as it was written? If not, the records say what it must be."""
        if not entry.vouches_for(self.read(entry.index_start, entry.index_size), self.header.salt):
            assert self.footer is not None
            start, end = self.header.records_start, self.footer.records_end
            data = self.read(start, end - start)
            found = scan(data, self.header.salt, start, start, True, end)
            for offset, length, _ in found.bad:
                if self.on_damage is not None:
                    self.on_damage(self, offset, "stretch", data[offset - start : offset - start + length], None)
            lanes = build_index(data, start, found.records)
            self.attach()
            lost = self._lost_of_lines_by_time(found.records)
            left = len(found.records) - self.map.restrict_marks(found.records) + self.map.held
            lost[entry.line] = lost.get(entry.line, 0) + self.map.live - left - sum(lost.values())
            if self.on_rebuilt is not None:
                self.on_rebuilt(self, lost)
            self.map.live = left
            rebuilt, entries, footer = render_end(self.header, lanes, end, self.footer.next_sequence)
            with self.held_open() as fd:
                self.disk.pwrite(fd, rebuilt, _aligned(end))
                self.disk.truncate(fd, _aligned(end) + len(rebuilt))
            self.rebuilt_indexes += 1
            self.directory = {entry.line: entry for entry in entries}
            self.footer = footer
            self.version += 1
        self._vouched.add(entry.line)

    def _lost_of_lines_by_time(self, records: array[int]) -> dict[int, int]:
        """Of the lines that are counted apart, as far as their indexes check: how many records that are not settled are not among these."""
        here, lost = frozenset(records), {}
        for line in (layout.DELAYED_LINE, layout.DEAD_LINE):
            entry = self.directory.get(line)
            if entry is not None:
                index = self.read(entry.index_start, entry.index_size)
                if entry.vouches_for(index, self.header.salt):
                    lost[line] = sum(8 * offset not in here and not self.map.settled(8 * offset) for offset in array("I", index))
        return lost

    def holds_nothing(self) -> bool:
        """Whether everything in it is settled. Where an index was made anew because of damage, a lease from before may have been counted twice: look."""
        if not self.rebuilt_indexes:
            return bool(self.map.live == 0)
        self.map.live = 0
        for entry in self.directory.values():
            position = 0
            while window := self._index_window(entry, position):
                self.map.live += sum(not self.map.settled(8 * offset) for offset in window)
                position += len(window)
        return bool(self.map.live == 0)

    def _index_window(self, entry: layout.DirectoryEntry, position: int) -> array[int]:
        window = array("I")
        n = min(_WINDOW_ENTRIES, entry.count - position)
        if n > 0:
            window.frombytes(self.read(entry.index_start + 4 * position, 4 * n))
        return window

    def _listed(self, priority: int, position: int, first: int) -> tuple[int, array[int], int] | None:
        """`offsets` of an unsealed segment: its records of a priority in log order. None if it has been sealed meanwhile."""
        with self._shape:
            if self._retired:
                return position, array("I"), self.version
            if self.footer is not None:
                return None
            if not (first or position):
                raise AssertionError(f"I2: a run over {self.name}, which is not sealed, must say where it begins")
            if first and self._listing.reach(first):
                self.version += 1
            return *self._listing.window(priority, position, first, _WINDOW_ENTRIES), self.version

    def waiting_in(self, line: int) -> int:
        """How many records of a line are not settled, for a sealed segment whose marks nobody changes now. Reads its part of the index, and needs no memory for it."""
        if line in self.directory and line not in self._vouched:
            self._check_index(self.directory[line])
        entry = self.directory.get(line)
        assert self.footer is not None
        if entry is None or self.map.live == self.footer.count:
            return 0 if entry is None else entry.count
        if len(self.directory) == 1:
            return int(self.map.live)
        area = self.read(layout.MARKS_START, self.header.attempts_start - layout.MARKS_START)
        waiting = position = 0
        while window := self._index_window(entry, position):
            waiting += len(window) - count_marked(area, self.header.salt, self.header.records_start, window)
            position += len(window)
        return waiting

    def recall(self, offset: int) -> bytes | None:
        """The stored payload of one record; None if it does not check."""
        found = self._record(offset)
        return None if found is None else found[1][8 * found[0]["extension"] :]

    def extension(self, offset: int) -> bytes:
        """What a record says beside its payload; b"" if it does not check."""
        found = self._record(offset)
        return b"" if found is None else found[1][: 8 * found[0]["extension"]]

    def _record(self, offset: int) -> tuple[dict[str, Any], bytes] | None:
        head = self.read(offset, layout.RECORD_HEADER.size)
        fields = parse_header(head, 0, self.header.salt, offset) if len(head) == layout.RECORD_HEADER.size else None
        if fields is None or fields["length"] > self.header.file_size:
            return None
        body = self.read(offset + layout.RECORD_HEADER.size, fields["length"])
        if len(body) != fields["length"] or layout.crc32c(body, self.header.salt) != fields["payload_crc"]:
            return None
        return fields, body

    def set_aside(self, offset: int, line: int | None) -> None:
        """A record that the log vouches for does not check: keep its bytes, report it. `line`: the one that it stands in; None if it has left that. The caller settles it."""
        head = self.read(offset, layout.RECORD_HEADER.size)
        fields = parse_header(head, 0, self.header.salt, offset) if len(head) == layout.RECORD_HEADER.size else None
        length = layout.RECORD_HEADER.size + (fields["length"] if fields else 0)
        damaged = self.read(offset, min(length, self.header.file_size))
        if self.on_damage is not None:
            self.on_damage(self, offset, "payload" if fields else "header", damaged, line)

    # --- sealing

    def seal(self, next_sequence: int) -> int:
        """Write index, directory and footer over records that are on stable storage; returns the bytes of the file given back.

        May run beside readers and settlers; nothing may be appended any more.
        """
        if self.footer is not None or self._retired:
            return 0
        tail = self.map.tail
        with self._mapping:
            lanes = self._index_lanes()
            # Unmapped before it is synced: to clean mapped pages the kernel must interrupt every processor that may be storing into them.
            with self._shape:
                self.map.close_tail()
        with self.held_open() as fd:
            self.disk.datasync(fd)
            end, entries, footer = render_end(self.header, lanes, tail, next_sequence)
            self.disk.pwrite(fd, end, _aligned(tail))
            self.disk.datasync(fd)
        size = _aligned(tail) + len(end)
        with self._shape:
            # A reader sees the lists or the index, never half of each.
            self.directory = {entry.line: entry for entry in entries}
            self.footer = footer
            self._listing.clear()
            self.version += 1
        with self.held_open() as fd:
            self.disk.truncate(fd, size)
        given_back = self.allocated - layout.blocks(size)
        self.allocated = layout.blocks(size)
        return given_back

    def _index_lanes(self) -> list[tuple[Any, ...]]:
        start, tail = self.header.records_start, self.map.tail
        if self.map.mapped:
            return self.map.index(self.map.walk(start, tail))
        data = self.read(start, tail - start)
        return build_index(data, start, scan(data, self.header.salt, start, start, False).records)

    def write_footer(self, fd: int, lanes: list[tuple[Any, ...]], records_end: int, next_sequence: int) -> int:
        """Write what seals a segment behind `records_end` and sync it; returns the size that the file is then to have."""
        end, entries, footer = render_end(self.header, lanes, records_end, next_sequence)
        self.disk.pwrite(fd, end, _aligned(records_end))
        self.disk.datasync(fd)
        self.directory = {entry.line: entry for entry in entries}
        self.footer = footer
        return _aligned(records_end) + len(end)

    def trust(self, footer: layout.Footer, directory: Iterable[layout.DirectoryEntry], marked: int) -> None:
        """Recovery: the segment is as its footer says, and `marked` of its records are settled."""
        self.footer = footer
        self.directory = {entry.line: entry for entry in directory}
        self.map.restore(footer.records_end, footer.count, footer.count - marked)

    # --- the end

    def retire(self) -> None:
        """Everything in it is settled and the file has been unlinked: let go of everything."""
        with self._mapping, self._shape:  # whoever reads the mapped records just now does so without the interpreter lock
            self._retired = True
            self.map.retire()
            self._listing.clear()  # it refers to its map and its map to it: the collector may come for both much later
        self.let_go_of_fd()

    def close(self) -> None:
        """Let go of memory and descriptor; the file stays."""
        with self._mapping, self._shape:
            self.map.detach()
        self.let_go_of_fd()
