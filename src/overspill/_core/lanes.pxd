cimport cython
from libc.stdint cimport INT64_MAX, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from cpython.ref cimport PyObject

from .gate cimport Gate
from .lane cimport Entry, Lane
from .parcel cimport Parcel
from .record cimport DELAYED_LINE
from .segmap cimport SegmentMap
from .waiters cimport Waiters

cdef extern from "<time.h>" nogil:
    struct timespec:
        long tv_sec
        long tv_nsec
    int clock_gettime(int clock, timespec *t)
    enum: CLOCK_REALTIME
    enum: CLOCK_REALTIME_COARSE

cdef extern from *:
    int __builtin_clzll(unsigned long long) nogil
    int __builtin_ctzll(unsigned long long) nogil

cdef enum:
    # How an item left: in which of the accounts it is counted in the same step in which it is settled.
    UNCOUNTED, BY_DEQUEUE, BY_EXPIRY, BY_OVERWRITING, BY_REMOVAL, BY_CLEARING, BY_DEAD_LETTER_LIMIT

cdef class Claim:
    cdef Entry e
    cdef readonly SegmentMap map     # None: not in the log
    cdef Lanes queue                 # None: it is not out of line (any more), or only a copy
    cdef uint16_t line               # out of which it is
    cdef bint marked                 # settled for now
    cdef object __weakref__

@cython.final
cdef class Head(Gate):
    cdef list fallen

cdef class Lanes:
    cdef list lanes
    cdef PyObject *lane_at[258]                       # by line
    cdef uint64_t nonempty[5]                         # of the last word nobody asks: what is in it waits for its time
    cdef readonly int64_t _waiting
    cdef readonly int64_t _delayed, _dead             # items in the two lines ordered by time
    cdef readonly int64_t _held                       # resident items in those two
    cdef readonly int64_t _next_due                   # no delayed item is due earlier
    cdef readonly int64_t _risen                      # items in the heaps whose records are in the delayed line
    cdef readonly set _departed                       # sequence numbers of those that have left a line ordered by time and are still listed there
    cdef readonly int64_t _resident
    cdef readonly int64_t _resident_bytes
    cdef public int64_t _budget_items, _budget_bytes  # spilling begins above these
    cdef public bint _hot_in, _hot_out
    cdef public bint _takes_any                       # in memory only, and nothing is serialised: any object, of which no bytes are counted
    cdef public SegmentMap _tail_map
    cdef public uint64_t _next_sequence
    cdef public uint64_t _id_base
    cdef public int64_t _frozen_ns                    # tests: the time; 0 = the clock's
    cdef readonly int64_t _n_takers, _n_makers        # how many wait for an item, and for room
    cdef readonly Waiters _takers, _makers
    cdef readonly Gate _tail, _head
    cdef readonly bint _is_parents                    # this process is a child that was forked while the queue was open
    cdef public int64_t _low_items, _low_bytes        # falling to these asks for attention, too: pressure has eased; -1 = never
    cdef readonly dict _out                           # weak references to the claims that are out of line and not yet settled, by sequence number
    cdef public uint64_t _n_enqueued, _n_dequeued, _n_expired, _n_spilled, _n_overwritten
    cdef readonly uint64_t _n_removed, _n_cleared, _n_dead_dropped
    cdef object __weakref__

    @cython.final
    cdef inline int64_t clock(self, int which) noexcept:
        cdef timespec t
        if self._frozen_ns:
            return self._frozen_ns
        clock_gettime(which, &t)
        return <int64_t>t.tv_sec * 1000000000 + t.tv_nsec

    @cython.final
    cdef inline int64_t now(self) noexcept:
        """Wall-clock nanoseconds, at the resolution of the kernel's tick (some ms): reading the exact clock would cost a fifth of an enqueue."""
        return self.clock(CLOCK_REALTIME_COARSE)

    @cython.final
    cdef inline int64_t exact_now(self) noexcept:
        return self.clock(CLOCK_REALTIME)

    @cython.final
    cdef inline void counted(self, uint16_t line, int64_t n) noexcept:
        """`n` more (or fewer) items are in this line."""
        if line < DELAYED_LINE:
            self._waiting += n
        elif line == DELAYED_LINE:
            self._delayed += n
        else:
            self._dead += n

    @cython.final
    cdef inline void made_resident(self, Lane lane, Entry *e, int64_t n) noexcept:
        """The payload of an item in this line is in memory (1), or is so no longer (-1)."""
        e.resident = n > 0
        self._resident += n
        self._resident_bytes += n * e.nbytes
        if lane.timed:
            self._held += n

    @cython.final
    cdef inline bint is_emptied(self, SegmentMap map) noexcept:
        """Whether nothing is left in a segment that takes no more records."""
        return map.live == 0 and map is not self._tail_map

    @cython.final
    cdef inline void left(self, Lane lane) noexcept:
        """After an item left a lane: is there anything more in it?"""
        if lane.ring_n == 0 and lane.heap_n == 0 and len(lane.runs) == 0:
            self.nonempty[lane.line >> 6] &= ~(<uint64_t>1 << (lane.line & 63))

    @cython.final
    cdef inline bint is_all(self, Lane lane) noexcept:
        """Whether everything that waits is in this lane and in the order of its numbers, so that its first item is the oldest of all."""
        cdef uint64_t own = <uint64_t>1 << (lane.line & 63)
        cdef int w = lane.line >> 6
        return (
            (self.nonempty[w] & ~own) | self.nonempty[(w + 1) & 3] | self.nonempty[(w + 2) & 3] | self.nonempty[(w + 3) & 3]
        ) == 0 and lane.heap_n == 0 and not lane.merge

    @cython.final
    cdef inline int top(self, int *looks) noexcept:
        """The highest priority that may hold an item, -1 if none does. `looks` counts what was looked at, for a test to see: no caller pays for what it does not read."""
        cdef int w
        for w in range(3, -1, -1):
            looks[0] += 1
            if self.nonempty[w]:
                return 64 * w + 63 - __builtin_clzll(self.nonempty[w])
        return -1

    @cython.final
    cdef int new_gates(self) except -1
    @cython.final
    cdef Lane lane(self, uint16_t line)
    @cython.final
    cdef int count(self, int how) except -1
    @cython.final
    cdef int take(self, Entry *out) except -1
    @cython.final
    cdef int take_from(self, Lane lane, Entry *out) except -1
    @cython.final
    cdef int leave(self, Lane lane, Entry *out, int64_t latest) except -1
    @cython.final
    cdef int64_t first_expiry(self, Lane lane) except -1
    @cython.final
    cdef bint recall(self, Entry *e, Lane lane) except -1
    @cython.final
    cdef int settle_entry(self, Entry *e) except -1
    @cython.final
    cdef int mark_entry(self, Entry *e) except -1
    @cython.final
    cdef int empty(self, SegmentMap map) except -1
    @cython.final
    cdef int gone(self) except -1
    @cython.final
    cdef int follow(self, Entry *e) except -1
    @cython.final
    cdef bint follow_copy(self, Entry *e) except -1
    @cython.final
    cdef Claim claim_of(self, Entry *e)
    @cython.final
    cdef Claim claim_out(self, Entry *e, uint16_t line)
    @cython.final
    cdef int went_out(self, Claim claim, uint16_t line) except -1
    @cython.final
    cdef int came_in(self, Claim claim) except -1
    @cython.final
    cdef int let_fall(self, Claim claim) except -1
    @cython.final
    cdef int put_back(self, Claim claim) except -1
    @cython.final
    cdef SegmentMap unmark(self, Claim claim)
    @cython.final
    cdef void enter_heap(self, Lane lane, Entry *e) except *
    @cython.final
    cdef int put_back_entry(self, Entry *e) except -1
    @cython.final
    cdef int number(self, Parcel parcel) except -1
    @cython.final
    cdef int join(self, Parcel parcel, SegmentMap map, uint64_t offset, bint resident) except -1
    @cython.final
    cdef int spend(self, Claim claim) except -1
