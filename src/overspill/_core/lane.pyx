"""One priority's line.

A line has three parts: the *heap* of items that were returned, put in front or were delayed, ordered by place; the *runs*, stretches of the log that are cold (no
memory per item, only a cursor); and the *ring* of the newest items, as a chain of blocks. Everything in the runs comes before everything in the ring; what is in the heap comes
first as a rule, and is compared with the first of the others because a delayed item may belong further back. An item in the ring or heap may be a stub whose payload has been
forgotten.

Two more lines are ordered by time: what is delayed, by when it is due, and the dead letters, by when they were given up. They have no ring. What they have in an unsealed segment is in the
heap; a sealed segment's index is ordered, so there it is one run, and costs no memory an item.

I1: spilling folds the ring's first item into the last run, so it changes its address and never its place in line.
I2: a run covers the unsettled records of its priority between two offsets of one segment, in the order of the segment's own list; nothing in
between is resident, leased or returned. (Of a line ordered by time: nothing but what the queue knows to have left it.)
"""
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy, memset
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.ref cimport PyObject, Py_INCREF, Py_XDECREF

from .record cimport (
    DELAYED_LINE, FLAG_FRONT, KIND_RAW, KIND_STR, LINES, RECORD_HEADER_SIZE, RecordHeader, header_checks, line_of, payload_checks, place_in_line, record_size,
)
from .segmap cimport SegmentMap

cdef extern from "Python.h":
    object PyUnicode_DecodeUTF8(const char *s, Py_ssize_t size, const char *errors)

cdef enum:
    PAGE_READ = 4096
    SMALLEST_READ = 16384
    LARGEST_READ = 262144


cdef int64_t NEVER = 0x7fffffffffffffff


cdef class Run:
    """A stretch of one segment's records of one line, and a cursor over it.

    The segment's owner answers `offsets(line, position, first) -> (position, array, version)`, `read(offset, length) -> bytes`, `version` and `set_aside(offset, line)`.
    """

    def __init__(self, SegmentMap map not None, uint16_t line, uint64_t first=0, uint64_t last=0, int64_t bound=0, int64_t last_place=0, uint64_t last_ordinal=0):
        self.map, self.line, self.first, self.last = map, line, first, last
        self.bound, self.last_place, self.last_ordinal = bound, last_place, last_ordinal
        self.window = None
        self.version = -1
        self.block_size = SMALLEST_READ

    def clone(self):
        """A second cursor that starts where this one stands."""
        cdef Run other = Run(self.map, self.line, self.first, self.last, self.bound, self.last_place, self.last_ordinal)
        if self.done:
            other.done = True
        elif self.window is not None and self.at < len(self.window):
            other.first = <uint64_t>self.view[self.at] * 8
        elif self.window is not None:
            other.position, other.at, other.window, other.view, other.version = self.position, self.at, self.window, self.view, self.version
        return other

    def is_at_end(self):
        """Whether nothing is left of it, as far as it knows."""
        return self.done

    def last_passed(self):
        """Offset of the last record of a window that has been read to its end; 0 if there is a next one to look at."""
        if self.window is not None and self.at > 0 and self.at >= len(self.window):
            return <uint64_t>self.view[self.at - 1] * 8
        return 0

    def next_offset(self):
        """Offset of the next record that the cursor will look at, 0 if that is not known yet."""
        if self.window is not None and self.at < len(self.window):
            return <uint64_t>self.view[self.at] * 8
        if self.window is None:
            return self.first
        return 0

    cdef int load_now(self) noexcept:
        """1: `header` holds the next waiting record, its payload (unless big) is in the block. 0: `need` says what is missing, or the run is done."""
        cdef uint64_t offset, size
        cdef const uint8_t *p
        self.need = NEED_NOTHING
        if self.current:
            if not self.map.is_spent(self.current):
                return 1
            self._step(self.current)     # it was removed after it had been looked at
            self.current = 0
        while not self.done:
            if self.window is None or self.at >= self.view.shape[0]:
                self.need = NEED_WINDOW
                return 0
            offset = <uint64_t>self.view[self.at] * 8
            if self.map.is_spent(offset):
                self._step(offset)
                continue
            if offset < self.block_start or offset + RECORD_HEADER_SIZE > self.block_end:
                self.need, self.need_offset, self.need_length = NEED_BLOCK, offset, 0
                return 0
            p = <const uint8_t *>PyBytes_AS_STRING(self.block) + (offset - self.block_start)
            memcpy(&self.header, p, RECORD_HEADER_SIZE)
            if not header_checks(&self.header, self.map.salt, offset):
                self.need, self.need_offset = NEED_REPAIR, offset
                return 0
            size = RECORD_HEADER_SIZE
            if self.header.length <= BIG_PAYLOAD:
                size += self.header.length
            elif line_of(&self.header) >= DELAYED_LINE:
                size += 8                # its time
            if offset + size > self.block_end:
                self.need, self.need_offset, self.need_length = NEED_BLOCK, offset, size
                return 0
            if self.header.length <= BIG_PAYLOAD and not payload_checks(&self.header, self.map.salt, p + RECORD_HEADER_SIZE):
                self.need, self.need_offset = NEED_REPAIR, offset
                return 0
            self.current = offset
            self.bound = place_in_line(&self.header, p + RECORD_HEADER_SIZE)
            return 1
        return 0

    cdef int load(self) except -1:
        """As `load_now`, but fetches what is missing: calls the store, may drop the GIL."""
        cdef uint64_t length, tail
        owner = self.map.owner
        while True:
            if self.load_now():
                return 1
            if self.done:
                return 0
            if self.need == NEED_WINDOW:
                self._next_window(owner)
            elif self.need == NEED_BLOCK:
                if self.line >= DELAYED_LINE and not self.block_start <= self.need_offset <= self.block_end:
                    self.block_size = PAGE_READ   # times need not follow the order of the file: read little where they do not
                length = max(self.need_length, self.block_size)
                tail = self.map.tail     # what is behind it now may be written while, or after, we read
                block = owner.read(self.need_offset, length)
                if len(block) < max(self.need_length, <uint64_t>RECORD_HEADER_SIZE):
                    self._repair(owner, self.need_offset)   # the file ends inside a record that its index names
                    continue
                self.block, self.block_start = block, self.need_offset
                self.block_end = min(self.block_start + <uint64_t>PyBytes_GET_SIZE(self.block), <uint64_t>tail)
                if self.block_size < LARGEST_READ:
                    self.block_size *= 2
            elif self.need == NEED_REPAIR:
                self._repair(owner, self.need_offset)

    cdef int _repair(self, owner, uint64_t offset) except -1:
        """A record that does not check: the store sets it aside and marks it, the cursor goes on behind it."""
        self.current = 0
        if self.map.retired:
            return 0
        owner.set_aside(offset, self.line)
        if not self.map.is_marked(offset):
            self.map.mark(offset)
        return 0

    cdef int _next_window(self, owner) except -1:
        cdef uint64_t after = 0
        if self.window is None:
            position, offsets, version = owner.offsets(self.line, 0, self.first)
        else:
            position, offsets, version = owner.offsets(self.line, self.position + <uint64_t>self.view.shape[0], 0)
            if version != self.version:
                # The segment was sealed under the cursor, which ordered its list anew: find the last record seen and go on behind it.
                after = <uint64_t>self.view[self.view.shape[0] - 1] * 8
                position, offsets, version = owner.offsets(self.line, self.position + <uint64_t>self.view.shape[0] - 1, after)
        self.position, self.version = position, version
        self.window = offsets
        self.at = 1 if after else 0
        if len(offsets) <= self.at:
            self.done = True
            self.view = None
            self.window = None
        else:
            self.view = offsets
        return 0

    cdef int take(self, Entry *out) except -1:
        """Hand out the record that `load` found; returns 0 if it turned out to be damaged (and was set aside)."""
        cdef uint64_t offset = self.current
        cdef RecordHeader *h = &self.header
        cdef const char *p
        cdef object payload
        cdef bint direct = False
        cdef uint64_t skip = <uint64_t>h.extension * 8
        if skip > h.length:
            self._repair(self.map.owner, offset)
            return 0
        if h.length > BIG_PAYLOAD:
            payload, crc = self.map.owner.read_payload(offset + RECORD_HEADER_SIZE, h.length)
            if payload is None or crc != h.payload_crc:
                self._repair(self.map.owner, offset)
                return 0
            if skip:
                payload = payload[skip:]
            self.block_size = SMALLEST_READ   # big ones come in rows: read little more than their headers
            self.block_end = self.block_start
            direct = h.kind == KIND_RAW and h.codec == 0
        else:
            p = PyBytes_AS_STRING(self.block) + (offset - self.block_start) + RECORD_HEADER_SIZE + skip
            if h.kind == KIND_STR and h.codec == 0:
                try:
                    payload = PyUnicode_DecodeUTF8(p, h.length - skip, NULL)
                except UnicodeDecodeError:
                    self._repair(self.map.owner, offset)
                    return 0
                direct = True
            else:
                payload = PyBytes_FromStringAndSize(p, h.length - skip)
                direct = h.kind == KIND_RAW and h.codec == 0
        memset(out, 0, sizeof(Entry))
        Py_INCREF(payload)
        out.item = <PyObject *>payload
        out.segment = <PyObject *>self.map
        out.sequence, out.enqueued_ns, out.expiry_ns = h.sequence, h.enqueued_ns, h.expiry_ns
        memcpy(out.id, h.id, 16)
        out.offset8, out.nbytes = <uint32_t>(offset >> 3), h.raw_length
        out.priority, out.flags, out.kind, out.codec, out.attempts = h.priority, h.flags, h.kind, h.codec, h.attempts
        out.direct = direct
        out.packed = 1
        if self.line >= DELAYED_LINE:
            out.ordinal = <uint64_t>self.bound
        self.current = 0
        self._step(offset)
        return 1


cdef class Lane:
    """One priority's line: heap, runs, ring. The store's and engine's view of it is read-only but for the runs."""

    def __cinit__(self, uint16_t line):
        if line >= LINES:
            raise ValueError("there is no such line")
        self.line = line
        self.timed = line >= DELAYED_LINE
        self.merge = self.timed
        self.runs = []

    def __dealloc__(self):
        cdef Block *block
        self.drop_items()
        free(self.heap)
        while self.head != NULL:
            block = self.head
            self.head = block.next
            free(block)
        self.free_spare()

    cdef void drop_items(self) noexcept:
        """Let go of what is in memory. An item is out before its reference is dropped, which may run any code."""
        cdef PyObject *item
        while self.heap_n:
            self.heap_n -= 1
            Py_XDECREF(self.heap[self.heap_n].item)
        while self.ring_n:
            item = self.first().item
            self.pop()
            Py_XDECREF(item)

    cdef int reserve(self, Py_ssize_t n) except -1:
        """Have blocks for n more entries, so that none of the next n pushes can fail."""
        cdef Py_ssize_t room = BLOCK_ENTRIES - self.tail_at if self.tail != NULL else 0
        cdef Block *block = self.spare
        while block != NULL:
            room += BLOCK_ENTRIES
            block = block.next
        while room < n:
            block = <Block *>malloc(sizeof(Block))
            if block == NULL:
                raise MemoryError
            block.next = self.spare
            self.spare = block
            room += BLOCK_ENTRIES
        return 0

    cdef void free_spare(self) noexcept:
        cdef Block *block
        while self.spare != NULL:
            block = self.spare
            self.spare = block.next
            free(block)

    cdef int give_back(self, const Entry *e) except -1:
        """Put an entry into the heap, at its place; takes over its reference."""
        cdef Py_ssize_t i = self.heap_n, parent
        cdef Entry *grown
        cdef int64_t place = self.place(e)
        if self.heap_n == self.heap_room:
            grown = <Entry *>realloc(self.heap, (self.heap_room * 2 + 8) * sizeof(Entry))
            if grown == NULL:
                raise MemoryError
            self.heap, self.heap_room = grown, self.heap_room * 2 + 8
        self.heap_n += 1
        while i > 0:
            parent = (i - 1) // 2
            if self.place(&self.heap[parent]) <= place:
                break
            self.heap[i] = self.heap[parent]
            i = parent
        self.heap[i] = e[0]
        return 0

    cdef void pop_heap(self) noexcept:
        cdef Entry last
        self.heap_n -= 1
        if self.heap_n:
            last = self.heap[self.heap_n]
            self.sink(&last, 0)

    cdef void sink(self, const Entry *moved, Py_ssize_t i) noexcept:
        """Put an entry into the heap at `i` or below."""
        cdef Py_ssize_t child
        cdef int64_t place = self.place(moved)
        while True:
            child = 2 * i + 1
            if child >= self.heap_n:
                break
            if child + 1 < self.heap_n and self.place(&self.heap[child + 1]) < self.place(&self.heap[child]):
                child += 1
            if self.place(&self.heap[child]) >= place:
                break
            self.heap[i] = self.heap[child]
            i = child
        self.heap[i] = moved[0]

    cdef Py_ssize_t drop_listed(self, SegmentMap map) noexcept:
        """A line ordered by time: forget the entries whose records are listed in this segment, where a run takes over; returns how many."""
        cdef Py_ssize_t i, kept = 0, dropped = 0
        cdef Entry moved
        for i in range(self.heap_n):
            if self.heap[i].segment == <PyObject *>map and not self.heap[i].loose and self.heap[i].item == NULL:
                dropped += not self.heap[i].gone
                continue
            self.heap[kept] = self.heap[i]
            kept += 1
        self.heap_n = kept
        for i in range(kept // 2 - 1, -1, -1):
            moved = self.heap[i]
            self.sink(&moved, i)
        return dropped

    cdef int64_t least_bound(self):
        """No record that is left in any run has a lesser place. Reads nothing."""
        cdef int64_t least = (<Run>self.runs[0]).bound
        cdef Py_ssize_t i
        if self.merge:
            for i in range(1, self.recovered):
                least = min(least, (<Run>self.runs[i]).bound)
        return least

    cdef bint heap_is_first(self) except -1:
        """Whether the heap's first item comes before everything in runs and ring. Calls the store where that cannot be told without reading."""
        cdef Run run
        if self.heap_n and self.runs and self.place(&self.heap[0]) > self.least_bound():
            run = self.front_run()
            if run is not None:
                return self.heap_n > 0 and self.place(&self.heap[0]) < run.bound
        if self.heap_n == 0 or self.runs or self.ring_n == 0:
            return self.heap_n > 0
        return self.place(&self.heap[0]) < entry_place(self.first())

    cdef int64_t next_time(self):
        """Ordered by time: nothing in it has an earlier time than this. Reads nothing."""
        cdef int64_t least = self.place(&self.heap[0]) if self.heap_n else NEVER
        return min(least, self.least_bound()) if self.runs else least

    cdef Py_ssize_t compact(self) except -1:
        """Close the gaps that removed items left in the ring, free what is spare; returns the bytes freed."""
        cdef Block *source = self.head
        cdef Block *target = self.head
        cdef Block *rest
        cdef Py_ssize_t i, begin = self.head_at, end, to = 0, kept = 0, freed = 0
        cdef Entry *grown
        if self.spare != NULL:
            self.free_spare()
            freed += sizeof(Block)
        while source != NULL and self.ring_n:
            end = self.tail_at if source == self.tail else BLOCK_ENTRIES
            for i in range(begin, end):
                if source.entries[i].gone:
                    continue
                if to == BLOCK_ENTRIES:
                    target, to = target.next, 0
                target.entries[to] = source.entries[i]
                to += 1
                kept += 1
            begin = 0
            source = source.next
        if target != NULL:
            self.head_at, self.tail, self.tail_at, self.ring_n = 0, target, to, kept
            rest = target.next
            target.next = NULL
            while rest != NULL:
                source = rest
                rest = rest.next
                free(source)
                freed += sizeof(Block)
        if self.heap_n == 0 and self.heap != NULL:
            freed += self.heap_room * sizeof(Entry)
            free(self.heap)
            self.heap, self.heap_room = NULL, 0
        return freed

    cdef int fold(self) except -1:
        """I1: the ring's first entry becomes the last of the last run. Its payload must have been given up by the caller."""
        cdef Entry *e = self.first()
        cdef Run run
        cdef uint64_t offset = <uint64_t>e.offset8 * 8
        if not e.gone:
            if e.segment == NULL:
                raise AssertionError("I1: an item that is not in the log cannot go cold")
            if len(self.runs) > self.recovered:
                run = <Run>self.runs[len(self.runs) - 1]
                if <PyObject *>run.map == e.segment and run.last_ordinal + 1 == e.ordinal and not run.done:
                    run.last, run.last_ordinal, run.last_place = offset, e.ordinal, entry_place(e)
                    self.pop()
                    return 0
            run = Run(<SegmentMap>e.segment, self.line, offset, offset, entry_place(e), entry_place(e), e.ordinal)
            self.runs.append(run)
        self.pop()
        return 0

    cdef Run front_run(self):
        """The run whose next record has the least place, loaded; None if every run is done (then they are gone from `runs`). Calls the store."""
        cdef Run run, other
        cdef int64_t rival
        while self.runs:
            run = <Run>self.runs[0]
            if self.merge and self.recovered > 1:
                # Runs of an earlier life may overlap (returned or front items, compaction): take the least bound first, read to make it exact.
                best = 0
                for i in range(1, self.recovered):
                    if (<Run>self.runs[i]).bound < (<Run>self.runs[best]).bound:
                        best = i
                if best:
                    run = <Run>self.runs.pop(best)
                    self.runs.insert(0, run)
            bound = run.bound
            if not run.load():
                if self.runs and self.runs[0] is run:
                    del self.runs[0]
                    if self.recovered:
                        self.recovered -= 1
                continue
            if self.merge and self.recovered > 1 and run.bound > bound:
                continue                 # it was further on than its bound said: choose again
            return run
        return None


def lane_over(list runs not None, bint merge):
    """A lane that holds nothing but these runs, for reading through copies of another's."""
    cdef Lane lane = Lane(0)
    lane.runs, lane.merge = runs, merge
    lane.recovered = len(runs) if merge else 0
    return lane


# --- what the garbage collector sees
#
# Cython knows of the references in `runs` only. Where any object may be in line, one may refer back to the queue, and the collector must see the entries to find such a circle: so these two stand
# in front of Cython's own. Wherever the interpreter may run in between, an entry in the heap or ring owns its `item`; whoever takes one over does so in C alone.

cdef traverseproc traverse_fields = (<PyTypeObject *>Lane).tp_traverse
cdef inquiry clear_fields = (<PyTypeObject *>Lane).tp_clear


cdef int traverse(PyObject *obj, visitproc visit, void *arg) noexcept:
    # No name of its own for the lane: that would count a reference while the collector counts them.
    cdef Block *block = (<Lane>obj).head
    cdef Py_ssize_t i, begin = (<Lane>obj).head_at, end
    cdef int stop
    if (<Lane>obj).keeps_any:
        for i in range((<Lane>obj).heap_n):
            if (<Lane>obj).heap[i].item != NULL:
                stop = visit((<Lane>obj).heap[i].item, arg)
                if stop:
                    return stop
        while block != NULL and (<Lane>obj).ring_n:
            end = (<Lane>obj).tail_at if block == (<Lane>obj).tail else BLOCK_ENTRIES
            for i in range(begin, end):
                if block.entries[i].item != NULL:
                    stop = visit(block.entries[i].item, arg)
                    if stop:
                        return stop
            begin = 0
            block = block.next
    return traverse_fields(obj, visit, arg)


cdef int clear(PyObject *obj) noexcept:
    (<Lane>obj).drop_items()
    return clear_fields(obj)


(<PyTypeObject *>Lane).tp_traverse = traverse
(<PyTypeObject *>Lane).tp_clear = clear
