from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from cpython.ref cimport PyObject
from .record cimport DEAD_LINE, DELAYED_LINE, FLAG_DEAD, FLAG_DELAYED, RecordHeader
from .segmap cimport SegmentMap
from libc.stdlib cimport free, malloc
cimport cython

# What the garbage collector asks of a type, for those that hold references Cython does not know of.
cdef extern from "Python.h":
    ctypedef int (*visitproc)(PyObject *, void *) noexcept
    ctypedef int (*traverseproc)(PyObject *, visitproc, void *) noexcept
    ctypedef int (*inquiry)(PyObject *) noexcept
    ctypedef struct PyTypeObject:
        traverseproc tp_traverse
        inquiry tp_clear

cdef enum:
    BLOCK_ENTRIES = 64
    BIG_PAYLOAD = 65536      # above it a payload is read straight into its own bytes

# One item's place in line. 88 bytes; whoever holds it owns a reference to `item` and none to `segment`: a segment outlives its unsettled records.
ctypedef struct Entry:
    PyObject *item           # the item, or its payload as stored (direct = 0); NULL: only on disk
    PyObject *segment        # the SegmentMap of its record; NULL: not in the log
    uint64_t sequence
    int64_t enqueued_ns
    int64_t expiry_ns
    uint64_t ordinal         # in a ring: counts the records of its lane in the log, so that neighbours can be told. In, or from, a line ordered by time: that time
    uint8_t id[16]
    uint32_t offset8
    uint32_t nbytes
    uint8_t priority
    uint8_t flags
    uint8_t kind
    uint8_t codec            # of the record
    uint8_t packed           # `item` is as the record has it, compressed by `codec`
    uint8_t attempts
    uint8_t direct           # `item` is what the user gets; otherwise it is to be decoded
    uint8_t gone             # settled while in line: to be skipped
    uint8_t resident         # counted in the memory tier
    uint8_t loose            # in a line ordered by time, of which its record (if it has one) says nothing, or another time

cdef struct Block:
    Block *next
    Entry entries[BLOCK_ENTRIES]

cdef enum Need:
    NEED_NOTHING, NEED_WINDOW, NEED_BLOCK, NEED_REPAIR

cdef inline int64_t entry_place(const Entry *e) noexcept nogil:
    return -<int64_t>e.sequence if e.flags & 1 else <int64_t>e.sequence

cdef inline uint16_t line_of_entry(const Entry *e) noexcept nogil:
    """The line in whose index its record stands."""
    if e.flags & FLAG_DELAYED:
        return DELAYED_LINE
    if e.flags & FLAG_DEAD:  # no conditional expression: its type would be that of `priority`, which has no room for a line
        return DEAD_LINE
    return e.priority

@cython.final
cdef class Run:
    cdef readonly SegmentMap map
    cdef readonly uint16_t line
    cdef public uint64_t first           # offset of its first record; 0 = the lane's first in this segment
    cdef public uint64_t last            # offset of its last record; 0 = the lane's last
    cdef public uint64_t last_ordinal
    cdef public int64_t bound            # no record left in it has a lesser place
    cdef public int64_t last_place
    cdef readonly bint done
    cdef readonly uint64_t position      # of `window` in the segment's list of the lane's records
    cdef object window                   # array 'I' of offsets in units of 8
    cdef const uint32_t[::1] view
    cdef Py_ssize_t at                   # in `window`
    cdef int64_t version                 # of the segment's list
    cdef readonly uint64_t current       # offset of the record that `header` holds; 0 = none
    cdef RecordHeader header
    cdef bytes block
    cdef uint64_t block_start, block_end
    cdef readonly uint64_t block_size
    cdef Need need
    cdef uint64_t need_offset, need_length

    cdef int load_now(self) noexcept
    cdef int load(self) except -1
    cdef int take(self, Entry *out) except -1
    cdef inline void _step(self, uint64_t offset) noexcept:
        self.at += 1
        if offset == self.last:
            self.done = True

    cdef int _repair(self, owner, uint64_t offset) except -1
    cdef int _next_window(self, owner) except -1

@cython.final
cdef class Lane:
    cdef readonly uint16_t line          # a priority, or one of the two lines that are ordered by time
    cdef readonly bint timed
    cdef bint keeps_any                  # items may be any object, so that the garbage collector has to look at them
    cdef Entry *heap                     # returned, front and due items, least place first
    cdef readonly Py_ssize_t heap_n
    cdef Py_ssize_t heap_room
    cdef public list runs                # cold: oldest first
    cdef public Py_ssize_t recovered     # how many of `runs`, at their front, were found on opening
    cdef public bint merge               # …and overlap in their places
    cdef Block *head
    cdef Block *tail
    cdef Block *spare
    cdef Py_ssize_t head_at, tail_at
    cdef readonly Py_ssize_t ring_n
    cdef uint64_t ordinal

    cdef inline bint has_hot(self) noexcept:
        """Whether the next item is the ring's first, so that neither heap nor disk need be asked."""
        return self.heap_n == 0 and self.recovered + len(self.runs) == 0 and self.ring_n != 0

    cdef inline int64_t place(self, const Entry *e) noexcept:
        return <int64_t>e.ordinal if self.timed else entry_place(e)

    cdef inline Entry *first(self) noexcept:
        return &self.head.entries[self.head_at]

    cdef inline Entry *push(self) except NULL:
        """A new last entry of the ring, to be filled by the caller."""
        cdef Block *block
        if self.tail == NULL or self.tail_at == BLOCK_ENTRIES:
            if self.spare != NULL:
                block = self.spare
                self.spare = block.next
            else:
                block = <Block *>malloc(sizeof(Block))
                if block == NULL:
                    raise MemoryError
            block.next = NULL
            if self.tail == NULL:
                self.head, self.head_at = block, 0
            else:
                self.tail.next = block
            self.tail, self.tail_at = block, 0
        self.tail_at += 1
        self.ring_n += 1
        return &self.tail.entries[self.tail_at - 1]

    cdef inline void pop(self) noexcept:
        """Remove the ring's first entry; its reference has been taken over by the caller."""
        cdef Block *block
        self.head_at += 1
        self.ring_n -= 1
        if self.ring_n == 0:
            # Start the block afresh rather than walk through memory.
            self.head_at = 0
            self.tail_at = 0
            while self.head != self.tail:
                block = self.head
                self.head = block.next
                free(block)
        elif self.head_at == BLOCK_ENTRIES:
            block = self.head
            self.head, self.head_at = block.next, 0
            if self.spare == NULL:
                block.next = NULL
                self.spare = block
            else:
                free(block)

    cdef int give_back(self, const Entry *e) except -1
    cdef int reserve(self, Py_ssize_t n) except -1
    cdef void free_spare(self) noexcept
    cdef void drop_items(self) noexcept
    cdef int fold(self) except -1
    cdef Py_ssize_t compact(self) except -1
    cdef Run front_run(self)
    cdef int64_t least_bound(self)
    cdef bint heap_is_first(self) except -1
    cdef int64_t next_time(self)
    cdef Py_ssize_t drop_listed(self, SegmentMap map) noexcept
    cdef void pop_heap(self) noexcept
    cdef void sink(self, const Entry *moved, Py_ssize_t i) noexcept
