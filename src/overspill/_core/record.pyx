"""The record codec as Python sees it: CRC-32C, and the scan that recovery and verification are made of.

`scan` reads records one after the other from the bytes of a file and says where they stop and why. It trusts nothing: a length is used only after the
header that holds it has checked, and every access lies inside the buffer.
"""
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, qsort
from cpython.array cimport array, clone
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize

cdef extern from "Python.h":
    object PyMemoryView_FromMemory(char *mem, Py_ssize_t size, int flags)
    int PyBUF_WRITE

import sys

cdef enum:
    CACHED_STRETCH = 262144


if sys.byteorder != "little":
    raise ImportError("overspill keeps its records in little-endian order and needs a little-endian machine")
if not crc32c_supported():
    raise ImportError("overspill was built for a processor with the CRC-32C instruction (SSE 4.2), and this one has none")
assert sizeof(RecordHeader) == RECORD_HEADER_SIZE  # format page, table 2


def crc32c(const uint8_t[::1] data not None, uint32_t seed=0):
    """CRC-32C of `data`, continued from `seed` as `zlib.crc32` does."""
    cdef size_t n = data.shape[0]
    cdef uint32_t crc
    if n == 0:
        return c_crc32c(seed, NULL, 0)
    if n >= 65536:
        with nogil:
            crc = c_crc32c(seed, &data[0], n)
        return crc
    return c_crc32c(seed, &data[0], n)


def read_payload(read_into, uint64_t offset, uint64_t length, uint32_t salt):
    """Read `length` bytes from `offset` through `read_into(writable memoryview, offset) -> count`; returns (bytes, their CRC), or (None, 0) if the file ends first.

    The check code is computed stretch by stretch, while the bytes are still in the processor's cache, and without the interpreter lock.
    """
    cdef bytes out = PyBytes_FromStringAndSize(NULL, length)
    cdef char *p = PyBytes_AS_STRING(out)
    cdef uint64_t done = 0
    cdef uint32_t crc = salt
    cdef Py_ssize_t got
    while done < length:
        view = PyMemoryView_FromMemory(p + done, min(length - done, <uint64_t>CACHED_STRETCH), PyBUF_WRITE)
        got = read_into(view, offset + done)
        view.release()
        if got <= 0:
            return None, 0
        with nogil:
            crc = c_crc32c(crc, p + done, got)
        done += got
    return out, crc


def check_words(const uint8_t[::1] area not None, uint32_t salt, uint32_t first=0, uint32_t domain=0):
    """Count what an area of settle marks (or of attempt counts, `domain` 2³¹) holds.

    Returns (marks set, words that do not check). `first` is the number of the first word in the area.
    """
    cdef Py_ssize_t i, words = area.shape[0] // 8
    cdef uint32_t low, check
    cdef uint64_t marks = 0, rotten = 0
    cdef const uint8_t *p
    if words == 0:
        return 0, 0
    p = &area[0]
    with nogil:
        for i in range(words):
            memcpy(&low, p + 8 * i, 4)
            memcpy(&check, p + 8 * i + 4, 4)
            if check == crc32c_pair(salt, low, (first + <uint32_t>i) | domain):
                marks += __builtin_popcount(low)
            else:
                rotten += 1
    return marks, rotten


def count_marked(const uint8_t[::1] area not None, uint32_t salt, uint64_t start, offsets not None):
    """How many of the records at these offsets (array 'I', in units of 8) carry their mark in the settle-mark area of a segment whose records begin at `start`."""
    cdef const uint32_t[::1] at = offsets
    cdef Py_ssize_t i
    cdef uint64_t slot, words = area.shape[0] // 8
    cdef uint32_t low, check
    cdef uint64_t marked = 0
    if words == 0 or at.shape[0] == 0:
        return 0
    with nogil:
        for i in range(at.shape[0]):
            slot = (<uint64_t>at[i] * 8 - start) // SLOT_SIZE
            if slot >> 5 >= words:
                continue
            memcpy(&low, &area[0] + 8 * (slot >> 5), 4)
            memcpy(&check, &area[0] + 8 * (slot >> 5) + 4, 4)
            if low >> (slot & 31) & 1 and check == crc32c_pair(salt, low, <uint32_t>(slot >> 5)):
                marked += 1
    return marked


cdef class Scan:
    """What a scan found: see the attributes' comments in the stub. Offsets count from the start of the file."""
    cdef readonly uint64_t end            # behind the last good record
    cdef readonly uint64_t count
    cdef readonly uint64_t synced         # greatest synced position that a good record vouches for, in bytes
    cdef readonly uint64_t least_sequence
    cdef readonly uint64_t greatest_sequence
    cdef readonly object bad              # [offset, length, reason] of stretches inside that do not check
    cdef readonly object records          # array 'Q' of offsets of the good records
    cdef readonly uint64_t open_batch     # offset where an incomplete batch at the end begins, 0 if none


def scan(const uint8_t[::1] data not None, uint32_t salt, uint64_t start, uint64_t base, bint payloads=True, uint64_t resume_below=0):
    """Read records from file offset `start` on; `data` holds the file's bytes from offset `base`.

    Stops at the first record that does not check, unless a position below `resume_below` or below a good record's `synced` says that it was whole once:
    then the stretch is listed in `bad` and the reading goes on at the next offset that holds a good header. With `payloads` false
    only headers are checked.
    """
    cdef Scan out = Scan.__new__(Scan)
    cdef const uint8_t *p
    cdef uint64_t size = base + <uint64_t>data.shape[0]
    cdef uint64_t at = start, next_at, batch_start = 0, synced = 0, probe
    cdef uint32_t batch_expected = 0
    cdef bint in_batch = False
    cdef RecordHeader h
    cdef int verdict
    records = array("Q")
    bad = []
    stretch = None
    out.end = start
    out.least_sequence = 0
    out.greatest_sequence = 0
    out.open_batch = 0
    if data.shape[0] == 0:
        out.bad, out.records = bad, records
        return out
    p = &data[0] - base
    while at + RECORD_HEADER_SIZE <= size:
        verdict = _judge(p, at, size, salt, payloads, &h)
        if verdict == 0:
            if in_batch and h.batch_left != batch_expected:
                in_batch = False       # a bad stretch swallowed the rest of the batch
            if not in_batch and h.batch_left:
                in_batch, batch_start = True, at
            batch_expected = h.batch_left - 1 if h.batch_left else 0
            if in_batch and h.batch_left == 0:
                in_batch = False
            records.append(at)
            if <uint64_t>h.synced * 8 > synced and <uint64_t>h.synced * 8 <= size:
                synced = <uint64_t>h.synced * 8
            if out.least_sequence == 0 or h.sequence < out.least_sequence:
                out.least_sequence = h.sequence
            if h.sequence > out.greatest_sequence:
                out.greatest_sequence = h.sequence
            at += record_size(h.length)
            out.end = at
            continue
        # The header cannot be trusted (1) or the payload does not check (2). Look for something behind it that vouches for it.
        if verdict == 2:
            next_at = at + record_size(h.length)
        else:
            next_at = _next_header(p, at + 8, size, salt)
        if next_at == 0 or next_at > size:
            if at < resume_below or at < synced:
                bad.append([at, size - at if next_at == 0 else next_at - at, "header" if verdict == 1 else "payload"])
            break
        if verdict == 2 and <uint64_t>h.synced * 8 > synced and <uint64_t>h.synced * 8 <= size:
            synced = <uint64_t>h.synced * 8   # its header checks, whatever became of its payload
        if at >= resume_below:
            probe = _synced_behind(p, next_at, size, salt)
            if probe > synced:
                synced = probe
        if at >= resume_below and at >= synced:
            break
        if stretch is not None and stretch[0] + stretch[1] == at:
            stretch[1] += next_at - at
        else:
            stretch = [at, next_at - at, "header" if verdict == 1 else "payload"]
            bad.append(stretch)
        if verdict == 2 and <uint64_t>h.sequence > out.greatest_sequence:
            out.greatest_sequence = h.sequence
        at = next_at
        out.end = at
    if in_batch:
        out.open_batch = batch_start
    out.count = len(records)
    out.synced = synced
    out.bad, out.records = bad, records
    return out


cdef int _judge(const uint8_t *p, uint64_t at, uint64_t size, uint32_t salt, bint payloads, RecordHeader *h) noexcept nogil:
    """0 good, 1 the header does not check, 2 the payload does not."""
    memcpy(h, p + at, RECORD_HEADER_SIZE)
    if h.header_crc == 0 and h.length == 0 and h.sequence == 0:
        return 1
    if not header_checks(h, salt, at):
        return 1
    if h.length > size - at - RECORD_HEADER_SIZE:
        return 1
    if payloads and not payload_checks(h, salt, p + at + RECORD_HEADER_SIZE):
        return 2
    return 0


cdef uint64_t _next_header(const uint8_t *p, uint64_t at, uint64_t size, uint32_t salt) noexcept nogil:
    cdef RecordHeader h
    while at + RECORD_HEADER_SIZE <= size:
        if _judge(p, at, size, salt, False, &h) == 0:
            return at
        at += 8
    return 0


cdef uint64_t _synced_behind(const uint8_t *p, uint64_t at, uint64_t size, uint32_t salt) noexcept nogil:
    """The greatest synced position that the run of good headers from `at` on vouches for."""
    cdef RecordHeader h
    cdef uint64_t synced = 0
    while at + RECORD_HEADER_SIZE <= size and _judge(p, at, size, salt, False, &h) == 0:
        if <uint64_t>h.synced * 8 > synced and <uint64_t>h.synced * 8 <= size:
            synced = <uint64_t>h.synced * 8
        at += record_size(h.length)
    return synced


cdef struct Place:
    int64_t place
    uint32_t offset8


cdef int _by_place(const void *a, const void *b) noexcept nogil:
    cdef const Place *x = <const Place *>a
    cdef const Place *y = <const Place *>b
    if x.place != y.place:
        return -1 if x.place < y.place else 1
    return -1 if x.offset8 < y.offset8 else 1   # two items may be due at the same time


cdef struct LineSum:
    uint32_t count
    uint32_t without_expiry
    bint disordered           # the records do not lie in the order of their places
    int64_t first_place
    int64_t last_place
    uint64_t payload_bytes
    int64_t greatest_expiry
    uint64_t least_sequence
    uint64_t greatest_sequence
    unsigned int *at          # where the next offset goes


cdef inline void _add_to_line(LineSum *line, const RecordHeader *h, int64_t place) noexcept nogil:
    if line.count == 0:
        line.first_place, line.least_sequence = place, h.sequence
    elif place < line.last_place:
        line.disordered = True
    line.count += 1
    line.last_place = place
    line.payload_bytes += h.raw_length
    line.least_sequence = min(line.least_sequence, h.sequence)
    line.greatest_sequence = max(line.greatest_sequence, h.sequence)
    if h.expiry_ns == 0:
        line.without_expiry += 1
    elif h.expiry_ns > line.greatest_expiry:
        line.greatest_expiry = h.expiry_ns


cdef inline void _read_place(const uint8_t *p, uint64_t offset, uint64_t end, RecordHeader *h, int64_t *place) noexcept nogil:
    memcpy(h, p + offset, RECORD_HEADER_SIZE)
    if offset + RECORD_HEADER_SIZE + 8 > end:
        h.extension = 0   # cut off, so that its place could not be read
    place[0] = place_in_line(h, p + offset + RECORD_HEADER_SIZE)


cdef int _sort_line(const uint8_t *p, uint64_t end, unsigned int *offsets8, LineSum *line) except -1:
    """Put the offsets of a line into the order of its places."""
    cdef Py_ssize_t i, n = line.count
    cdef RecordHeader h
    cdef Place *places = <Place *>malloc(n * sizeof(Place))
    if places == NULL:
        raise MemoryError
    with nogil:
        for i in range(n):
            places[i].offset8 = offsets8[i]
            _read_place(p, <uint64_t>offsets8[i] * 8, end, &h, &places[i].place)
        qsort(places, n, sizeof(Place), _by_place)
        for i in range(n):
            offsets8[i] = places[i].offset8
    line.first_place, line.last_place = places[0].place, places[n - 1].place
    free(places)
    return 0


def build_index(const uint8_t[::1] data not None, uint64_t base, records not None):
    """Order the given records of a segment by line and place.

    `records` is an array 'Q' of file offsets whose headers have been checked, in ascending order; `data` holds the file from offset `base`. Returns a list of
    (line, offsets in units of 8 as an array 'I', first place, last place, payload bytes, greatest expiry, count without expiry, least sequence, greatest sequence), lowest
    line first.

    Takes the four bytes of memory a record that it returns, and no more where the records lie in their order, as they do but for what was put in front, given back or delayed.
    """
    cdef const uint64_t[::1] offsets = records
    cdef Py_ssize_t i, n = offsets.shape[0]
    cdef LineSum *sums
    cdef LineSum *line
    cdef RecordHeader h
    cdef int64_t place
    cdef const uint8_t *p
    cdef uint64_t end = base + <uint64_t>data.shape[0]
    cdef array entries
    cdef int number
    if n == 0:
        return []
    for i in range(n):
        if offsets[i] < base or offsets[i] + RECORD_HEADER_SIZE > end:
            raise ValueError("an offset lies outside the data")
    p = &data[0] - base
    sums = <LineSum *>calloc(LINES, sizeof(LineSum))
    if sums == NULL:
        raise MemoryError
    lanes = []
    try:
        with nogil:
            for i in range(n):
                _read_place(p, offsets[i], end, &h, &place)
                _add_to_line(&sums[line_of(&h)], &h, place)
        found = {}
        for number in range(LINES):
            if sums[number].count:
                entries = found[number] = clone(array("I"), sums[number].count, zero=False)
                sums[number].at = entries.data.as_uints
        with nogil:
            for i in range(n):
                _read_place(p, offsets[i], end, &h, &place)
                line = &sums[line_of(&h)]
                line.at[0] = <uint32_t>(offsets[i] >> 3)
                line.at += 1
        for number, entries in found.items():
            line = &sums[number]
            if line.disordered:
                _sort_line(p, end, entries.data.as_uints, line)
            lanes.append((
                number, entries, line.first_place, line.last_place, line.payload_bytes, line.greatest_expiry, line.without_expiry, line.least_sequence, line.greatest_sequence,
            ))
    finally:
        free(sums)
    return lanes


def moved_records(const uint8_t[::1] data not None, uint64_t base, records not None):
    """Those of the given records that have moved: [(offset, id, number of the segment where it was, offset there)]. `data` holds the file from offset `base`."""
    cdef const uint64_t[::1] offsets = records
    cdef Py_ssize_t i
    cdef uint64_t body, end = base + <uint64_t>data.shape[0], number, offset
    cdef RecordHeader h
    found = []
    for i in range(offsets.shape[0]):
        if offsets[i] < base or offsets[i] + RECORD_HEADER_SIZE > end:
            raise ValueError("an offset lies outside the data")
        memcpy(&h, &data[0] + (offsets[i] - base), RECORD_HEADER_SIZE)
        body = 8 * <uint64_t>h.extension
        if not h.flags & FLAG_MOVED or body < 16 or body > h.length or offsets[i] + RECORD_HEADER_SIZE + body > end:
            continue
        memcpy(&number, &data[0] + (offsets[i] - base) + RECORD_HEADER_SIZE + body - 16, 8)
        memcpy(&offset, &data[0] + (offsets[i] - base) + RECORD_HEADER_SIZE + body - 8, 8)
        found.append((offsets[i], PyBytes_FromStringAndSize(<char *>h.id, 16), number, offset))
    return found


def copy_records(const uint8_t[::1] data not None, uint64_t base, uint32_t salt, offsets not None, uint32_t new_salt, uint64_t new_offset):
    """Write the records at these file offsets (array 'Q', all within `data`, which begins at `base`) again, one behind the other from `new_offset` on.

    Sequence, id, times and attempts stay; check codes are made anew and the record says that it is a copy. Returns (bytes, array 'Q' of the new offsets, list of the
    old offsets of records that do not check and were left out; in the array those have the new offset 0).
    """
    cdef const uint64_t[::1] old = offsets
    cdef Py_ssize_t i, n = old.shape[0]
    cdef RecordHeader h
    cdef const uint8_t *p
    cdef uint64_t total = 0, at, size
    cdef char *out
    new = array("Q", bytes(8 * n))
    cdef uint64_t[::1] placed = new
    bad = []
    if n == 0:
        return b"", new, bad
    p = &data[0] - base
    for i in range(n):
        if old[i] < base or old[i] + RECORD_HEADER_SIZE > base + <uint64_t>data.shape[0]:
            raise ValueError("an offset lies outside the data")
        if _judge(p, old[i], base + <uint64_t>data.shape[0], salt, True, &h) != 0:
            bad.append(old[i])
            continue
        placed[i] = new_offset + total
        total += record_size(h.length)
    cdef bytes result = PyBytes_FromStringAndSize(NULL, total)
    out = PyBytes_AS_STRING(result)
    with nogil:
        for i in range(n):
            if placed[i] == 0:
                continue
            at = placed[i] - new_offset
            memcpy(&h, p + old[i], RECORD_HEADER_SIZE)
            size = record_size(h.length)
            memset(out + at + size - 8, 0, 8)
            memcpy(out + at + RECORD_HEADER_SIZE, p + old[i] + RECORD_HEADER_SIZE, h.length)
            h.flags |= FLAG_COPIED
            h.batch_left = 0
            h.synced = 0
            h.payload_crc = c_crc32c(new_salt, out + at + RECORD_HEADER_SIZE, h.length)
            seal_header(&h, new_salt, placed[i])
            memcpy(out + at, &h, RECORD_HEADER_SIZE)
    return result, new, bad


def record_lengths(const uint8_t[::1] data not None, uint64_t base, uint32_t salt, offsets not None):
    """Sizes in the file (array 'Q') of the records at these offsets; 0 where the header does not check or lies outside the data."""
    cdef const uint64_t[::1] at = offsets
    cdef Py_ssize_t i, n = at.shape[0]
    cdef RecordHeader h
    sizes = array("Q", bytes(8 * n))
    cdef uint64_t[::1] out = sizes
    for i in range(n):
        if at[i] < base or at[i] + RECORD_HEADER_SIZE > base + <uint64_t>data.shape[0]:
            continue
        memcpy(&h, &data[at[i] - base], RECORD_HEADER_SIZE)
        if header_checks(&h, salt, at[i]):
            out[i] = record_size(h.length)
    return sizes


cdef uint64_t list_records(const uint8_t *p, uint64_t at, uint64_t readable, uint64_t tail, uint32_t salt, list lanes) except 0:
    """List the next records of an unsealed segment from `at` on, in log order: (priority, offsets in units of 8) goes to `lanes`, without those put in front, delayed or dead.

    `p` is where the file's first byte would be; there are bytes up to `readable`, and records up to `tail`. Returns where the last one ends: a header that does not check, or is cut off, is
    not passed. So few are listed at once that the interpreter lock is kept: taking it back may take longer than all of this.
    """
    cdef uint32_t offsets8[LISTED_AT_ONCE]
    cdef uint8_t priorities[LISTED_AT_ONCE]
    cdef uint32_t counts[256]
    cdef unsigned int *to[256]
    cdef const RecordHeader *h
    cdef array found
    cdef int i, n = 0, priority
    memset(counts, 0, sizeof(counts))
    while at < tail and at + RECORD_HEADER_SIZE <= readable and n < LISTED_AT_ONCE:
        prefetch(p + at + PREFETCH, 0, 3)
        prefetch(p + at + PREFETCH + 64, 0, 3)
        h = <const RecordHeader *>(p + at)
        if not header_checks(h, salt, at):
            break
        if not h.flags & FLAG_FRONT and line_of(h) < DELAYED_LINE:
            offsets8[n], priorities[n] = <uint32_t>(at >> 3), h.priority
            counts[h.priority] += 1
            n += 1
        at += record_size(h.length)
    for priority in range(256):
        if counts[priority]:
            found = clone(array("I"), counts[priority], zero=False)
            lanes.append((priority, found))
            to[priority] = found.data.as_uints
    for i in range(n):
        to[priorities[i]][0] = offsets8[i]
        to[priorities[i]] += 1
    return at


def list_some(const uint8_t[::1] data not None, uint64_t base, uint64_t tail, uint32_t salt):
    """As `SegmentMap.list_some`, of a stretch of the file that was read from offset `base` on."""
    lanes = []
    if data.shape[0] == 0:
        return lanes, base
    return lanes, list_records(&data[0] - base, base, base + <uint64_t>data.shape[0], tail, salt, lanes)


def parse_header(const uint8_t[::1] data not None, uint64_t at, uint32_t salt, uint64_t offset):
    """The fields of the record header at `data[at:]`, which lies at `offset` in its file; None if it does not check.

    For tools and rare paths; the hot path reads the structure itself.
    """
    cdef RecordHeader h
    if at + RECORD_HEADER_SIZE > <uint64_t>data.shape[0]:
        return None
    memcpy(&h, &data[at], RECORD_HEADER_SIZE)
    if not header_checks(&h, salt, offset):
        return None
    return {
        "length": h.length, "sequence": h.sequence, "id": PyBytes_FromStringAndSize(<char *>h.id, 16), "enqueued_ns": h.enqueued_ns,
        "expiry_ns": h.expiry_ns, "raw_length": h.raw_length, "payload_crc": h.payload_crc, "synced": h.synced,
        "batch_left": h.batch_left, "priority": h.priority, "flags": h.flags, "codec": h.codec, "kind": h.kind,
        "attempts": h.attempts, "extension": h.extension, "place": place_of(&h), "line": line_of(&h),
    }


def record_length(uint64_t length):
    """Bytes in the file of a record with `length` bytes behind its header."""
    return record_size(length)
