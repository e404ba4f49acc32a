"""What is done to items where they stand in their lines: counted, described, moved to disk, looked at, taken out of the middle.

None of it runs per item of the ordinary way, in at the end and out at the front.
"""
cimport cython
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.ref cimport PyObject, Py_XDECREF

from .lane cimport BLOCK_ENTRIES, Block, Run, line_of_entry
from .lanes cimport BY_REMOVAL, UNCOUNTED, __builtin_ctzll
from .parcel cimport Parcel
from .record cimport DELAYED_LINE, FLAG_DEAD, FLAG_DELAYED, FLAG_FRONT

cdef extern from "Python.h":
    void Py_XINCREF(PyObject *o)


cdef class Places(Lanes):
    """The lines, with what the spill strategies and whoever looks need."""

    # --- what the engine's spill strategies call (the runtime holds the tail)

    def _lowest_resident_lane(self):
        """The lowest priority whose ring holds an item, -1 if there is none."""
        return self.next_ring(0)

    def _oldest_resident_lane(self):
        """The priority whose ring begins with the oldest item of all rings, -1 if there is none."""
        return self.oldest_ring()

    @cython.final
    cdef int next_ring(self, int priority) except -2:
        """The first priority from this one upwards whose ring holds an item, -1 if there is none."""
        cdef uint64_t bits
        cdef Lane lane
        while priority < DELAYED_LINE:
            bits = self.nonempty[priority >> 6] >> (priority & 63)
            if bits == 0:
                priority = (priority | 63) + 1
                continue
            priority += __builtin_ctzll(bits)
            lane = <Lane>self.lane_at[priority]
            while lane.ring_n and lane.first().gone:
                lane.pop()
            if lane.ring_n:
                return priority
            priority += 1
        return -1

    @cython.final
    cdef int oldest_ring(self) except -2:
        cdef int best = self.next_ring(0), priority = best
        while priority >= 0:
            priority = self.next_ring(priority + 1)
            if priority >= 0 and (<Lane>self.lane_at[priority]).first().sequence < (<Lane>self.lane_at[best]).first().sequence:
                best = priority
        return best

    def _unlogged_in_ring(self, uint8_t priority, Py_ssize_t most):
        """Up to `most` of the lane's first ring items that are not in the log, for staging: see `describe`."""
        cdef Lane lane = self.lane(priority)
        cdef Py_ssize_t i, begin = lane.head_at, end
        cdef Block *block = lane.head
        out = []
        while block != NULL and lane.ring_n and len(out) < most:
            end = lane.tail_at if block == lane.tail else BLOCK_ENTRIES
            for i in range(begin, end):
                if block.entries[i].segment == NULL and not block.entries[i].gone and len(out) < most:
                    out.append(self.describe(&block.entries[i]))
            begin = 0
            block = block.next
        return out

    def _ring_sizes(self, uint8_t priority, uint64_t first):
        """(bytes, sequence) of the resident ring items from this sequence number on."""
        cdef Lane lane = self.lane(priority)
        cdef Py_ssize_t i, begin = lane.head_at, end
        cdef Block *block = lane.head
        out = []
        while block != NULL and lane.ring_n:
            end = lane.tail_at if block == lane.tail else BLOCK_ENTRIES
            if end > begin and block.entries[end - 1].sequence >= first:
                for i in range(begin, end):
                    if block.entries[i].resident and not block.entries[i].gone and block.entries[i].sequence >= first:
                        out.append((block.entries[i].nbytes, block.entries[i].sequence))
            begin = 0
            block = block.next
        return out

    def _first_is_stub(self, uint8_t priority):
        """Whether the lane's ring begins with an item whose payload is only on disk."""
        cdef Lane lane = self.lane(priority)
        while lane.ring_n and lane.first().gone:
            lane.pop()
        return lane.ring_n > 0 and not lane.first().resident and lane.first().segment != NULL

    def _ring_length(self, uint8_t priority):
        return self.lane(priority).ring_n

    def _compact_lanes(self):
        """Give back places and blocks that hold nothing; returns the bytes. Caller holds tail and head."""
        cdef Lane lane
        cdef Py_ssize_t freed = 0
        for obj in self.lanes:
            if obj is not None:
                freed += (<Lane>obj).compact()
        return freed

    @cython.final
    cdef object describe(self, Entry *e):
        return (e.sequence, <object>e.item if e.item != NULL else None, bool(e.direct), e.kind, e.nbytes, e.enqueued_ns, e.expiry_ns,
                PyBytes_FromStringAndSize(<char *>e.id, 16), e.attempts, e.flags, <int64_t>e.ordinal if e.flags & (FLAG_DELAYED | FLAG_DEAD) else 0, e.priority)

    @cython.final
    cdef Entry *find(self, Lane lane, uint64_t sequence) noexcept:
        """The ring's entry with this sequence number, NULL if it is not there."""
        cdef Py_ssize_t i, begin, end
        cdef Block *block = lane.head
        begin = lane.head_at
        if lane.ring_n == 0:
            return NULL
        while block != NULL:
            end = lane.tail_at if block == lane.tail else BLOCK_ENTRIES
            if end > begin and block.entries[end - 1].sequence >= sequence:
                for i in range(begin, end):
                    if block.entries[i].sequence == sequence:
                        return &block.entries[i]
                return NULL
            begin = 0
            block = block.next
        return NULL

    @cython.final
    cdef Entry *find_anywhere(self, Lane lane, uint64_t sequence) noexcept:
        """The ring's or the heap's entry with this sequence number, NULL if it is in neither. Not one that stayed behind when its item was pulled out: that may have come back."""
        cdef Entry *e = self.find(lane, sequence)
        cdef Py_ssize_t i
        if e != NULL and not e.gone:
            return e
        for i in range(lane.heap_n):
            if lane.heap[i].sequence == sequence and not lane.heap[i].gone:
                return &lane.heap[i]
        return NULL

    def _find(self, uint8_t priority, uint64_t sequence):
        """Describe a resident ring item by its sequence number; None if it is not resident (any more)."""
        cdef Entry *e = self.find(self.lane(priority), sequence)
        if e == NULL or e.gone or not e.resident:
            return None
        return self.describe(e)

    def _logged(self, uint8_t priority, uint64_t sequence):
        """Whether that ring item has a record."""
        cdef Entry *e = self.find(self.lane(priority), sequence)
        return e != NULL and e.segment != NULL

    @cython.final
    cdef int staged(self, uint16_t line, uint64_t sequence, SegmentMap map, uint64_t offset, uint8_t codec) except -1:
        """A ring or heap item of a MEMORY queue has been written to the log at `offset`."""
        cdef Lane lane = self.lane(line)
        cdef Entry *e = self.find_anywhere(lane, sequence)
        if e == NULL or e.segment != NULL:
            raise AssertionError("I1: staged an item that is not waiting to be")
        e.codec = codec
        e.segment = <PyObject *>map
        e.offset8 = <uint32_t>(offset >> 3)
        if not e.flags & (FLAG_FRONT | FLAG_DELAYED | FLAG_DEAD):
            lane.ordinal += 1
            e.ordinal = lane.ordinal
        return 0

    def _append_and_stage(self, uint16_t line, SegmentMap map not None, list parcels not None, list offsets, uint64_t total):
        """As `_append`, of items that wait in this line already: in the same step they are told where their records are."""
        cdef Parcel parcel
        offsets = self._append(map, parcels, offsets, total)
        for parcel, offset in zip(parcels, offsets):
            self.staged(line, parcel.sequence, map, offset, parcel.codec)

    def _forget(self, uint8_t priority, uint64_t sequence):
        """Give up the payload of a logged ring item and keep its place: it becomes a stub. False if there is nothing to give up."""
        cdef Entry *e = self.find(self.lane(priority), sequence)
        cdef PyObject *item
        if e == NULL or e.gone or not e.resident or e.segment == NULL:
            return False
        self.forget(self.lane(priority), e)
        return True

    @cython.final
    cdef void forget(self, Lane lane, Entry *e):
        cdef PyObject *item = e.item
        e.item = NULL
        e.direct = 0
        self.made_resident(lane, e, -1)
        self._n_spilled += 1
        Py_XDECREF(item)

    def _forget_heap(self):
        """Give up the payload of the last item in some lane's heap that still has one and is in the log; False if there is none. For lines that are mostly heap."""
        cdef Lane lane
        cdef Py_ssize_t i, best
        for obj in self.lanes:
            if obj is None:
                continue
            lane = <Lane>obj
            best = -1
            for i in range(lane.heap_n):
                if lane.heap[i].resident and lane.heap[i].segment != NULL and (best < 0 or lane.place(&lane.heap[i]) > lane.place(&lane.heap[best])):
                    best = i
            if best >= 0:
                self.forget(lane, &lane.heap[best])
                return True
        return False

    def _unlogged_heap(self):
        """A heap item that is not in the log, as (line, description); None if all are."""
        cdef Lane lane
        cdef Py_ssize_t i
        for obj in self.lanes:
            if obj is None:
                continue
            lane = <Lane>obj
            for i in range(lane.heap_n):
                if lane.heap[i].segment == NULL and not lane.heap[i].gone:
                    return lane.line, self.describe(&lane.heap[i])
        return None

    # --- looking, and taking out of the middle

    def _read(self, Lane cursor not None):
        """The next record of a lane that is only a cursor over cloned runs (`lane_over`), as a Claim that must be neither settled nor given back."""
        cdef Run run
        cdef Entry e
        while True:
            run = cursor.front_run()
            if run is None:
                return None
            if run.take(&e):
                return self.claim_of(&e)

    @cython.final
    cdef object seen(self, Claim claim, Entry *e):
        """A copy in a new claim. That is made before the entry is looked for: making it may let the garbage collector run, and that may let a claim fall."""
        claim.e = e[0]
        Py_XINCREF(claim.e.item)
        if e.segment != NULL:
            claim.map = <SegmentMap>e.segment
        return claim

    def _in_heap(self, uint16_t line):
        """Copies of the lane's heap items, in order, as Claims that must be neither settled nor given back."""
        cdef Lane lane = self.lane(line)
        cdef Py_ssize_t i
        cdef Claim claim
        out = []
        for i in range(lane.heap_n):
            if not lane.heap[i].gone:
                claim = Claim.__new__(Claim)
                if i < lane.heap_n:
                    out.append(self.seen(claim, &lane.heap[i]))
        out.sort(key=(lambda claim: claim.time_ns) if lane.timed else (lambda claim: claim.place))
        return out

    def _in_ring(self, uint8_t priority, Py_ssize_t skip=0, Py_ssize_t most=-1, int64_t since_ns=0):
        """Copies of the lane's ring items, in order; as `_in_heap`. Without the first `skip` of them, no more than `most`, and none enqueued before `since_ns`."""
        cdef Lane lane = self.lane(priority)
        cdef Py_ssize_t i, begin, end
        cdef bint dense = self.is_dense(lane)
        out = []
        cdef Block *block = lane.head
        begin = lane.head_at
        while block != NULL and lane.ring_n and most:
            end = lane.tail_at if block == lane.tail else BLOCK_ENTRIES
            if dense and skip >= end - begin:
                skip -= end - begin
            else:
                for i in range(begin, end):
                    if block.entries[i].gone:
                        continue
                    if skip:
                        skip -= 1
                    elif most and block.entries[i].enqueued_ns >= since_ns:
                        out.append(self.seen(Claim.__new__(Claim), &block.entries[i]))
                        most -= 1
            begin = 0
            block = block.next
        return out

    @cython.final
    cdef inline bint is_dense(self, Lane lane) noexcept:
        """Whether everything that waits is in this lane's ring, with no places of removed items between: then blocks can be skipped by their length."""
        return lane.ring_n == self._waiting and len(lane.runs) == 0 and self.is_all(lane)

    def _count_ring(self, uint8_t priority):
        """How many items of the lane are in its ring."""
        cdef Lane lane = self.lane(priority)
        cdef Py_ssize_t i, n = 0, begin = lane.head_at, end
        cdef Block *block = lane.head
        if self.is_dense(lane):
            return lane.ring_n
        while block != NULL and lane.ring_n:
            end = lane.tail_at if block == lane.tail else BLOCK_ENTRIES
            for i in range(begin, end):
                n += not block.entries[i].gone
            begin = 0
            block = block.next
        return n

    def _pull_out(self, uint16_t line, uint64_t sequence):
        """Take a ring or heap item out of the middle, as a Claim; None if it is not there. Its entry stays behind, to be skipped."""
        cdef Lane lane = self.lane(line)
        cdef Claim claim = Claim.__new__(Claim)
        cdef Entry *e = self.find_anywhere(lane, sequence)
        if e == NULL:
            return None
        claim.e = e[0]
        if e.segment != NULL:
            claim.map = <SegmentMap>e.segment
        e.item = NULL
        e.gone = 1
        self.counted(line, -1)
        if not lane.timed and e.flags & FLAG_DELAYED:
            self._risen -= 1
        if lane.timed:
            self._departed.add(sequence)
        if e.resident:
            self.made_resident(lane, e, -1)
            claim.e.resident = 0
        self.went_out(claim, line)
        return claim

    def _remove(self, Claim seen not None):
        """Settle an item of which `seen` is a copy, wherever in line it is, or where it waits for its time; False if it has left. Caller holds the head."""
        cdef Claim claim = self._pull_out(seen.e.priority, seen.e.sequence) or self._pull_out(DELAYED_LINE, seen.e.sequence)
        if claim is None:
            return self._remove_cold(seen, BY_REMOVAL)
        self._settle(claim, BY_REMOVAL)
        return True

    def _remove_cold(self, Claim seen not None, int how=UNCOUNTED):
        """Settle a cold record that `_read` showed, and count in which way it left; False if it has left its line meanwhile. Caller holds the head."""
        cdef SegmentMap map
        cdef bint emptied
        if seen.e.segment == NULL or seen.e.sequence in self._out or seen.e.sequence in self._departed or not self.follow_copy(&seen.e):
            return False
        map = <SegmentMap>seen.e.segment
        if map.is_spent(<uint64_t>seen.e.offset8 * 8):
            return False
        emptied = self.mark_entry(&seen.e)
        self.counted(line_of_entry(&seen.e), -1)
        self.count(how)
        if emptied:
            self.empty(<SegmentMap>seen.e.segment)
        return True

    def _uses(self, SegmentMap map not None):
        """Whether a ring or heap item has its record in this segment."""
        cdef Lane lane
        cdef Py_ssize_t i, begin, end
        cdef Block *block
        for obj in self.lanes:
            if obj is None:
                continue
            lane = <Lane>obj
            for i in range(lane.heap_n):
                if self.is_in(&lane.heap[i], map):
                    return True
            block = lane.head
            begin = lane.head_at
            while block != NULL and lane.ring_n:
                end = lane.tail_at if block == lane.tail else BLOCK_ENTRIES
                for i in range(begin, end):
                    if self.is_in(&block.entries[i], map):
                        return True
                begin = 0
                block = block.next
        return False

    @cython.final
    cdef bint is_in(self, Entry *e, SegmentMap map) except -1:
        if e.gone or e.segment == NULL:
            return False
        self.follow(e)
        return e.segment == <PyObject *>map

    def _expired_in_memory(self, int64_t now, Py_ssize_t most):
        """(line, sequence) of up to `most` ring and heap items that have expired by `now`."""
        cdef Lane lane
        cdef Py_ssize_t i, begin, end
        cdef Block *block
        out = []
        for obj in self.lanes:
            if obj is None:
                continue
            lane = <Lane>obj
            for i in range(lane.heap_n):
                if lane.heap[i].expiry_ns and lane.heap[i].expiry_ns <= now and not lane.heap[i].gone:
                    out.append((lane.line, lane.heap[i].sequence))
            block = lane.head
            begin = lane.head_at
            while block != NULL and lane.ring_n and len(out) < most:
                end = lane.tail_at if block == lane.tail else BLOCK_ENTRIES
                for i in range(begin, end):
                    if block.entries[i].expiry_ns and block.entries[i].expiry_ns <= now and not block.entries[i].gone:
                        out.append((lane.line, block.entries[i].sequence))
                begin = 0
                block = block.next
        return out[:most]

    def _oldest_enqueued_ns(self):
        """When the oldest item in memory was enqueued; 0 if there is none. Cold items are older; ask the runs' owners."""
        cdef int64_t least = 0
        cdef Lane lane
        for obj in self.lanes[:DELAYED_LINE]:
            if obj is None:
                continue
            lane = <Lane>obj
            if lane.ring_n and (least == 0 or lane.first().enqueued_ns < least):
                least = lane.first().enqueued_ns
            for i in range(lane.heap_n):
                if least == 0 or lane.heap[i].enqueued_ns < least:
                    least = lane.heap[i].enqueued_ns
        return least

    # --- exchanging the runs

    def _drop_runs(self, SegmentMap map not None):
        """A whole segment goes: no line reads from it any more. Caller holds the head."""
        cdef Lane lane
        for obj in self.lanes:
            if obj is None:
                continue
            lane = <Lane>obj
            for i in range(len(lane.runs) - 1, -1, -1):
                if (<Run>lane.runs[i]).map is map:
                    del lane.runs[i]
                    if i < lane.recovered:
                        lane.recovered -= 1
            self.left(lane)

    def _replace_runs(self, uint16_t line, list runs not None):
        """Compaction: the lane's runs, None for those of which nothing is left. Caller holds the head."""
        cdef Lane lane = self.lane(line)
        lane.recovered = sum(1 for run in runs[:lane.recovered] if run is not None)
        lane.runs = [run for run in runs if run is not None]
        if lane.timed:
            lane.recovered = len(lane.runs)
        self.left(lane)

    def _listed_by_run(self, uint16_t line, Run run not None):
        """A segment has been sealed, or read at opening: its part of a line ordered by time is a run from now on. Caller holds the head."""
        cdef Lane lane = self.lane(line)
        cdef Py_ssize_t i
        for i in range(lane.heap_n):
            if lane.heap[i].segment == <PyObject *>run.map and not lane.heap[i].loose and lane.heap[i].item != NULL:
                self.forget(lane, &lane.heap[i])
        lane.drop_listed(run.map)
        lane.runs.append(run)
        lane.recovered = len(lane.runs)
        if line == DELAYED_LINE:
            self._next_due = lane.next_time()
