"""The lines of a queue, one for each priority and two that are ordered by time, and the accounts over them.

Here an item gets into its line, out of it as a claim, and back, or is settled. What runs per item, and how it comes to be done without a lock, is in `hot`; what is done to items where they
stand is in `places`.

I3: `_waiting` counts the items in line, `_delayed` those not yet due, `_dead` the dead letters, `_resident` and `_resident_bytes` those of all three whose payload is in memory, `_held` those
of the latter two; they change where an entry enters or leaves, nowhere else.
"""
cimport cython
from libc.string cimport memcpy, memset
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.ref cimport Py_INCREF, Py_XDECREF
from cpython.weakref cimport PyWeakref_GetObject, PyWeakref_NewRef

from .lane cimport PyTypeObject, Run, entry_place, inquiry, traverseproc, visitproc
from .record cimport FLAG_DEAD, FLAG_DELAYED, FLAG_FRONT, LINES, KIND_RAW, put_id

from .parcel import append_mapped

cdef enum:
    RISEN_MOST = 4096      # so many items that were delayed stand in their lines at once; the others that are due stay where they cost nothing

DEQUEUED, EXPIRED, OVERWRITTEN, REMOVED, CLEARED, DEAD_LETTERS_FULL = BY_DEQUEUE, BY_EXPIRY, BY_OVERWRITING, BY_REMOVAL, BY_CLEARING, BY_DEAD_LETTER_LIMIT


cdef class Claim:
    """An item taken out of line and not yet settled. Whoever has it settles it or gives it back; one that nobody holds any more goes back to its place by itself.

    So an interruption between any two steps of a verb, be it before the claim has a name, leaves an item in line, or with the one who has it.
    """

    def __del__(self):
        if self.queue is not None:
            self.queue.let_fall(self)

    def __dealloc__(self):
        Py_XDECREF(self.e.item)

    @property
    def stored(self):
        """The item (if `direct`) or its payload as stored; None when only the disk has it."""
        return <object>self.e.item if self.e.item != NULL else None

    @property
    def has_payload(self):
        return self.e.item != NULL

    def fill_in(self, bytes payload not None):
        """A copy of a stub: its payload has been read from the log."""
        if self.e.item != NULL:
            raise AssertionError("the claim has its payload")
        Py_INCREF(payload)
        self.e.item = <PyObject *>payload
        self.e.packed = 1
        self.e.direct = self.e.kind == KIND_RAW and self.e.codec == 0

    @property
    def direct(self): return bool(self.e.direct)
    @property
    def kind(self): return self.e.kind
    @property
    def codec(self): return self.e.codec if self.e.packed else 0
    @property
    def nbytes(self): return self.e.nbytes
    @property
    def sequence(self): return self.e.sequence
    @property
    def place(self): return entry_place(&self.e)
    @property
    def id(self): return PyBytes_FromStringAndSize(<char *>self.e.id, 16)
    @property
    def priority(self): return self.e.priority
    @property
    def enqueued_ns(self): return self.e.enqueued_ns
    @property
    def expiry_ns(self): return self.e.expiry_ns
    @expiry_ns.setter
    def expiry_ns(self, value): self.e.expiry_ns = value
    @property
    def record_codec(self): return self.e.codec
    @property
    def offset(self): return <uint64_t>self.e.offset8 * 8
    @property
    def flags(self): return self.e.flags
    @property
    def time_ns(self): return <int64_t>self.e.ordinal
    @property
    def loose(self): return bool(self.e.loose)
    @property
    def attempts(self): return self.e.attempts
    @attempts.setter
    def attempts(self, value): self.e.attempts = value


# The garbage collector must see what a claim holds: a leased item may refer back to its queue. Cython knows only of the fields that are objects.
cdef traverseproc traverse_claim_fields = (<PyTypeObject *>Claim).tp_traverse
cdef inquiry clear_claim_fields = (<PyTypeObject *>Claim).tp_clear


cdef int traverse_claim(PyObject *obj, visitproc visit, void *arg) noexcept:
    cdef PyObject *item = (<Claim>obj).e.item
    cdef int stop = visit(item, arg) if item != NULL else 0
    return stop if stop else traverse_claim_fields(obj, visit, arg)


cdef int clear_claim(PyObject *obj) noexcept:
    cdef PyObject *item = (<Claim>obj).e.item
    (<Claim>obj).e.item = NULL
    clear_claim_fields(obj)
    Py_XDECREF(item)
    return 0


(<PyTypeObject *>Claim).tp_traverse = traverse_claim
(<PyTypeObject *>Claim).tp_clear = clear_claim


@cython.final
cdef class Head(Gate):
    """The gate of a queue's head. Claims that were let fall while somebody else held it go back when he leaves."""

    cdef int going(self) except -1:
        cdef Claim claim
        while self.fallen:
            claim = <Claim>self.fallen.pop()
            if claim.queue is not None:
                claim.queue.put_back(claim)
        return 0


cdef class Lanes:
    """The runtime's class derives from it, by way of `HotQueue`, and supplies what is called here and not defined here:
    `_dirtied`, `_emptied`, `_room_made`, `_eased`, `_expire`, `_set_aside_stub`, `_refuse`.

    What is called may be interrupted by a signal, anywhere. So it is called before the step that cannot be taken back; where it must come after, it is such that it may be called twice.
    """

    def __cinit__(self, *args, **kwargs):
        assert sizeof(self.lane_at) == LINES * sizeof(PyObject *)
        self.lanes = [None] * LINES
        self._next_due = INT64_MAX
        self._departed = set()
        self._next_sequence = 1
        self._budget_items = self._budget_bytes = INT64_MAX
        self._low_items = self._low_bytes = -1
        self._out = {}
        self._takers = Waiters.over(self, &self._n_takers, self._in_line)
        self._makers = Waiters.over(self, &self._n_makers, None)
        self.new_gates()

    @cython.final
    cdef int new_gates(self) except -1:
        self._tail = Gate.over(self, &self._hot_in, Gate.__new__(Gate))
        self._head = Gate.over(self, &self._hot_out, Head.__new__(Head))
        (<Head>self._head).fallen = []
        return 0

    def _belongs_to_parent(self):
        """After a fork, in the child: nobody holds a gate here, and nothing may be done with the queue. Said once, for asking the kernel at every call would cost more than the call."""
        self._hot_in = self._hot_out = False
        self._is_parents = True
        self.new_gates()

    def _in_line(self):
        """What there is to take, wherever it is kept; expired items count as long as nobody has met them."""
        return self._waiting

    def __len__(self):
        if self._is_parents:
            self._refuse(True)
        return self._waiting  # which is what the runtime reads: a face may say something else here

    def __bool__(self):
        return True

    @property
    def size(self):
        """Items waiting, in memory and on disk; leased ones are not counted."""
        if self._is_parents:
            self._refuse(True)
        return self._waiting

    @property
    def disk_size(self):
        """Items in line that are only on disk."""
        return self._waiting - self._resident + self._held

    # --- time

    def _now_ns(self):
        """Wall-clock time in nanoseconds, as expiry is judged by."""
        return self.exact_now()

    # --- the accounts

    @cython.final
    cdef Lane lane(self, uint16_t line):
        cdef Lane lane
        if line >= LINES:
            raise ValueError("there is no such line")
        if self.lane_at[line] == NULL:
            lane = Lane(line)
            lane.keeps_any = self._takes_any
            self.lanes[line] = lane
            self.lane_at[line] = <PyObject *>lane
        return <Lane>self.lane_at[line]

    def _open_lane(self, uint8_t priority):
        """Make sure the lane exists, so that the hot way may use it."""
        return self.lane(priority)

    def _lanes(self):
        """The priorities' lanes that exist, highest priority first."""
        return [lane for lane in reversed(self.lanes[:DELAYED_LINE]) if lane is not None]

    def _timed_lanes(self):
        """Those of the two lines ordered by time that exist."""
        return [lane for lane in self.lanes[DELAYED_LINE:] if lane is not None]

    def _count_waiting(self, int64_t n):
        """Recovery and damage: n more (or fewer) items wait."""
        self._waiting += n

    def _count_in(self, uint16_t line, int64_t n):
        """As `_count_waiting`, of any line."""
        self.counted(line, n)

    @cython.final
    cdef int count(self, int how) except -1:
        if how == BY_DEQUEUE:
            self._n_dequeued += 1
        elif how == BY_EXPIRY:
            self._n_expired += 1
        elif how == BY_OVERWRITING:
            self._n_overwritten += 1
        elif how == BY_REMOVAL:
            self._n_removed += 1
        elif how == BY_CLEARING:
            self._n_cleared += 1
        elif how == BY_DEAD_LETTER_LIMIT:
            self._n_dead_dropped += 1
        return 0

    def _choose(self):
        """(the priority that the next item is taken from, in how many looks it was found); the priority is -1 if nothing waits."""
        cdef int looks = 0
        cdef int priority = self.top(&looks)
        return priority, looks

    def _oldest_lane(self):
        """The priority whose line begins with the item that was enqueued first, as far as can be told without reading; -1 if nothing waits."""
        cdef Lane lane
        cdef int best = -1
        cdef int64_t least = 0, place
        for obj in self.lanes[:DELAYED_LINE]:
            if obj is None:
                continue
            lane = <Lane>obj
            place = INT64_MAX
            if lane.heap_n:
                place = <int64_t>lane.heap[0].sequence
            if len(lane.runs):
                place = min(place, abs((<Run>lane.runs[0]).bound))
            elif lane.ring_n:
                place = min(place, <int64_t>lane.first().sequence)
            if place == INT64_MAX:
                continue
            if best < 0 or place < least:
                best, least = lane.line, place
        return best

    def _recovered_runs(self, uint8_t priority, list runs not None, bint merge):
        """Hand over what opening found: the lane's runs from earlier lives."""
        cdef Lane lane = self.lane(priority)
        lane.runs[:0] = runs
        lane.recovered += len(runs)
        lane.merge = lane.merge or merge
        if runs:
            self.nonempty[priority >> 6] |= <uint64_t>1 << (priority & 63)

    # --- out of line. The caller holds the head

    @cython.final
    cdef int take(self, Entry *out) except -1:
        """As `take_hot`, but does whatever is needed: reads the disk, skips what has expired. The caller holds the head of the queue."""
        cdef int priority, looks = 0
        while True:
            priority = self.top(&looks)
            if priority < 0:
                return 0
            if self.take_from(<Lane>self.lane_at[priority], out):
                return 1

    @cython.final
    cdef int take_from(self, Lane lane, Entry *out) except -1:
        """The first item of one lane; 0 if it has none (any more)."""
        while self.leave(lane, out, INT64_MAX):
            if out.expiry_ns and out.expiry_ns <= self.exact_now():
                self._expire(self.claim_out(out, lane.line))
            elif out.item != NULL or self.recall(out, lane):
                return 1
        return 0

    @cython.final
    cdef int leave(self, Lane lane, Entry *out, int64_t latest) except -1:
        """Take the first entry of one lane out of it, whatever its payload and expiry; 0 if it has none (any more), or, ordered by time, none up to the latest time."""
        cdef Run run
        while True:
            if lane.heap_n and lane.heap_is_first():
                if lane.timed and lane.place(&lane.heap[0]) > latest:
                    return 0
                out[0] = lane.heap[0]
                lane.pop_heap()
                if not lane.timed and out.flags & FLAG_DELAYED and not out.gone:
                    self._risen -= 1
            elif len(lane.runs):
                if lane.timed and lane.least_bound() > latest:
                    return 0
                run = lane.front_run()
                if run is None:
                    self.left(lane)
                    continue
                if lane.timed and run.bound > latest:
                    return 0
                if not run.take(out):
                    continue
                if run.done and lane.runs and lane.runs[0] is run:
                    del lane.runs[0]
                    if lane.recovered:
                        lane.recovered -= 1
                if lane.timed and out.sequence in self._departed:
                    Py_XDECREF(out.item)
                    continue
            elif lane.ring_n:
                out[0] = lane.first()[0]
                lane.pop()
            else:
                self.left(lane)
                return 0
            self.left(lane)
            if out.gone:
                Py_XDECREF(out.item)
                continue
            self.counted(lane.line, -1)
            if out.resident:
                self.made_resident(lane, out, -1)
            if lane.timed:
                self._departed.add(out.sequence)
            return 1

    @cython.final
    cdef int64_t first_expiry(self, Lane lane) except -1:
        """When the item that stands first in a lane expires; 0: never, or nothing stands there. Calls the store."""
        cdef Run run
        if lane.heap_n and lane.heap_is_first():
            return lane.heap[0].expiry_ns
        while len(lane.runs):
            run = lane.front_run()
            if run is not None:
                return run.header.expiry_ns
        while lane.ring_n and lane.first().gone:
            Py_XDECREF(lane.first().item)
            lane.pop()
        return lane.first().expiry_ns if lane.ring_n else 0

    @cython.final
    cdef bint recall(self, Entry *e, Lane lane) except -1:
        """Read back the payload of a stub; False if it was damaged and has been set aside. On an error the item is back in line."""
        cdef SegmentMap map
        self.follow(e)
        map = <SegmentMap>e.segment
        try:
            payload = map.owner.recall(<uint64_t>e.offset8 * 8)
        except BaseException:
            self.enter_heap(lane, e)
            raise
        if payload is None:
            self._departed.discard(e.sequence)
            self._set_aside_stub(map, <uint64_t>e.offset8 * 8)
            return False
        Py_INCREF(payload)
        e.item = <PyObject *>payload
        e.packed = 1
        e.direct = e.kind == KIND_RAW and e.codec == 0
        return True

    def _claim(self):
        """Take the first item as a Claim, None if there is none. Caller holds the head."""
        cdef Entry e
        if self._next_due != INT64_MAX:
            self._promote_due()
        if self.take(&e):
            return self.claim_out(&e, e.priority)
        return None

    def _claim_from(self, uint16_t line, bint unread=False):
        """Take the first item of one line; `unread`: without a look at expiry and payload. Caller holds the head."""
        cdef Entry e
        cdef Lane lane = self.lane(line)
        if self.leave(lane, &e, INT64_MAX) if unread else self.take_from(lane, &e):
            return self.claim_out(&e, line)
        return None

    def _expire_first(self, uint8_t priority):
        """Let what stands first in a line leave as long as it has expired; returns how many did. Caller holds the head."""
        cdef Entry e
        cdef int64_t expiry
        cdef Lane lane
        n = 0
        if self.lane_at[priority] != NULL:
            lane = <Lane>self.lane_at[priority]
            while True:
                expiry = self.first_expiry(lane)
                if not expiry or expiry > self.exact_now() or not self.leave(lane, &e, INT64_MAX):
                    break
                self._expire(self.claim_out(&e, priority))
                n += 1
        return n

    def _peek(self):
        """The first item as (stored, direct, kind, codec, nbytes), left in line; None if there is none. Caller holds the head."""
        cdef Entry e
        cdef Claim claim
        cdef int64_t resident
        if self._next_due != INT64_MAX:
            self._promote_due()
        while True:
            resident = self._resident
            expired = self._n_expired
            if not self.take(&e):
                return None
            claim = self.claim_of(&e)
            result = claim.stored, claim.direct, claim.kind, claim.codec, claim.nbytes
            # Only what was in memory stays there: looking must not push anything else out.
            self._give_back(claim, self._resident < resident and expired == self._n_expired)
            return result

    # --- settling

    @cython.final
    cdef int settle_entry(self, Entry *e) except -1:
        """Mark the record of an item that has left: done."""
        if self.mark_entry(e):
            self.empty(<SegmentMap>e.segment)
        return 0

    @cython.final
    cdef int mark_entry(self, Entry *e) except -1:
        """Mark the record of an item that has left; 1 if nothing is left in its segment, which is then to be said. If it raises, nothing is marked."""
        cdef SegmentMap map
        if e.segment == NULL:
            return 0
        map = <SegmentMap>e.segment
        while map.head == NULL or not map.dirty:
            if map.head != NULL:
                self._dirtied(map)  # first, for it may be interrupted, and a sync must not miss the mark
            elif map.retired:
                self.follow(e)
                map = <SegmentMap>e.segment
            else:
                map.owner.attach()
        map.mark(<uint64_t>e.offset8 * 8)
        return self.is_emptied(map)

    @cython.final
    cdef int empty(self, SegmentMap map) except -1:
        """Nothing is left in a segment. Nobody else would find that out, so an interruption has to wait until it is said."""
        try:
            self._emptied(map)
        except BaseException:
            self._emptied(map)
            raise
        return 0

    @cython.final
    cdef int gone(self) except -1:
        """An item has left, and somebody may want to know."""
        try:
            if self._n_makers:
                self._room_made()
        except BaseException:
            self._makers.wake_first()  # he looks for himself
            raise
        if self._resident <= self._low_items and self._resident_bytes <= self._low_bytes:
            self._eased()
        return 0

    @cython.final
    cdef int follow(self, Entry *e) except -1:
        """Compaction has moved the record: find where it is now."""
        cdef SegmentMap map
        while (<SegmentMap>e.segment).retired:
            map, offset = (<SegmentMap>e.segment).moved_to(<uint64_t>e.offset8 * 8)
            e.segment = <PyObject *>map
            e.offset8 = <uint32_t>(<uint64_t>offset >> 3)
        return 0

    @cython.final
    cdef bint follow_copy(self, Entry *e) except -1:
        """As `follow`, of a copy that was taken from a line a while ago: False if its record has gone since, with everything in its segment settled."""
        while (<SegmentMap>e.segment).retired:
            if (<SegmentMap>e.segment).twin is None:
                return False
            self.follow(e)
        return True

    def _settle(self, Claim claim not None, int how=UNCOUNTED):
        """Mark a claimed item as done, and count in which way it left."""
        cdef bint emptied = self.mark_entry(&claim.e)
        if claim.e.segment != NULL:
            claim.map = <SegmentMap>claim.e.segment
        self.came_in(claim)
        self.count(how)
        if self._departed:
            self._departed.discard(claim.e.sequence)
        if emptied:
            self.empty(claim.map)
        self.gone()

    def _settle_for_now(self, Claim claim not None):
        """Mark a claimed item as done, as a sync is to cover it before it is handed out. It stays out until `_confirm`; `_give_back` takes the mark back."""
        cdef SegmentMap map
        if claim.e.segment == NULL or claim.marked:
            return
        self.follow(&claim.e)
        map = <SegmentMap>claim.e.segment
        if map.head == NULL:
            map.owner.attach()
        map.hold(<uint64_t>claim.e.offset8 * 8)
        claim.marked = True
        if not map.dirty:
            self._dirtied(map)  # interrupted: the claim is given back, and with it the mark

    def _confirm(self, Claim claim not None):
        """An item that was settled for now is handed out. False if its claim is not held any more: it is back in line, or in its file."""
        cdef SegmentMap map
        if claim.queue is not self:
            return False
        self.came_in(claim)
        self._n_dequeued += 1
        if self._departed:
            self._departed.discard(claim.e.sequence)
        if claim.marked:
            claim.marked = False
            self.follow(&claim.e)
            map = <SegmentMap>claim.e.segment
            map.let_go()
            if self.is_emptied(map):
                self.empty(map)
        self.gone()
        return True

    def _confirm_all(self, list taken not None):
        """Hand out (claim, item) pairs: the items of those that are still held."""
        return [item for claim, item in taken if self._confirm(claim)]

    # --- claims

    @cython.final
    cdef Claim claim_of(self, Entry *e):
        """Wrap an entry; the claim owns its reference from now on."""
        cdef Claim claim = Claim.__new__(Claim)
        claim.e = e[0]
        if e.segment != NULL:
            claim.map = <SegmentMap>e.segment
        return claim

    @cython.final
    cdef Claim claim_out(self, Entry *e, uint16_t line):
        cdef Claim claim = self.claim_of(e)
        self.went_out(claim, line)
        return claim

    @cython.final
    cdef int went_out(self, Claim claim, uint16_t line) except -1:
        """A claim is out of a line, and goes back there unless it is settled or set apart."""
        claim.queue, claim.line = self, line
        self._out[claim.e.sequence] = PyWeakref_NewRef(claim, None)
        return 0

    @cython.final
    cdef int came_in(self, Claim claim) except -1:
        """A claim is settled, or its item in a line again."""
        self._out.pop(claim.e.sequence, None)
        claim.queue = None
        return 0

    @cython.final
    cdef int let_fall(self, Claim claim) except -1:
        """Nobody has the claim any more: whoever took it was interrupted. Its item goes back, now or when the head is left by who holds it. Waits for nothing: this may be called anywhere."""
        if self._is_parents:
            return 0
        if not self._head.try_enter():
            (<Head>self._head).fallen.append(claim)
            return 0
        try:
            self.put_back(claim)
        finally:
            self._head.leave_it()
        return 0

    @cython.final
    cdef int put_back(self, Claim claim) except -1:
        """Give a claim back, in memory if there is room."""
        if claim.line >= DELAYED_LINE:
            self.unmark(claim)
            self._set_apart(claim, claim.line, <int64_t>claim.e.ordinal, True)
            return 0
        self._give_back(claim, self._resident < self._budget_items and self._resident_bytes + claim.e.nbytes <= self._budget_bytes)
        if self._n_takers:
            self._takers.wake_first()
        return 0

    def _let_go(self, list claims not None):
        """Give back those of these claims that are still out, all in one step: now, or, if somebody holds the head, when he leaves it and before anybody else can take. Waits for nothing."""
        cdef Claim claim
        for claim in claims:
            if claim.queue is self:
                self.let_fall(claim)

    def _claims_out(self):
        """The claims that are out of line and not yet settled."""
        return [<object>PyWeakref_GetObject(reference) for reference in self._out.values() if <object>PyWeakref_GetObject(reference) is not None]

    def _is_out_of(self, SegmentMap map not None):
        """Whether an item that has its record in this segment is out of line; or may be, for one that was let fall is not seen until the head is left. Caller holds the head."""
        cdef Claim claim
        for reference in self._out.values():
            held = <object>PyWeakref_GetObject(reference)
            if held is None:
                return True
            claim = held
            if claim.e.segment != NULL:
                self.follow(&claim.e)
                if claim.e.segment == <PyObject *>map:
                    return True
        return False

    def _return(self, Claim claim not None):
        """Give a claim back to its old place, in memory if there is room; the claim is spent. Caller holds the head."""
        self.put_back(claim)

    def _holds(self, Claim claim not None):
        """Whether the claim is out and not yet settled; False once it was given back or settled, by whomever."""
        return claim.queue is self

    def _locate(self, Claim claim not None):
        """Where a claimed item's record is now: (map, offset), (None, 0) if it has none."""
        if claim.e.segment == NULL:
            return None, 0
        self.follow(&claim.e)
        claim.map = <SegmentMap>claim.e.segment
        return claim.map, <uint64_t>claim.e.offset8 * 8

    def _locate_copy(self, Claim copy not None):
        """As `_locate`, of a copy that was taken from a line a while ago: (None, 0) also if its item has left since and its record has gone."""
        if copy.e.segment == NULL or not self.follow_copy(&copy.e):
            return None, 0
        return self._locate(copy)

    def _give_back(self, Claim claim not None, bint keep_payload):
        """Return a claimed item to its old place; the claim is spent."""
        cdef Lane lane = self.lane(claim.e.priority)
        cdef PyObject *item
        cdef SegmentMap map = self.unmark(claim)
        self.came_in(claim)
        if claim.e.segment == NULL:
            keep_payload = True
        item = claim.e.item
        if not keep_payload or item == NULL:
            claim.e.item = NULL
            claim.e.resident = 0
        else:
            item = NULL
            claim.e.resident = 1
        self.enter_heap(lane, &claim.e)
        claim.e.item = NULL
        Py_XDECREF(item)
        if map is not None and not map.dirty:
            self._dirtied(map)

    @cython.final
    cdef SegmentMap unmark(self, Claim claim):
        """Take back the mark of what was settled for now; the segment in which that was, None if it was not."""
        if not claim.marked:
            return None
        self.follow(&claim.e)
        claim.marked = False
        claim.queue = None  # whoever waits for the sync with it in hand has it no more: a plain segment writes the word, and others run meanwhile
        try:
            (<SegmentMap>claim.e.segment).unmark(<uint64_t>claim.e.offset8 * 8)
        except BaseException:
            claim.queue = self
            raise
        return <SegmentMap>claim.e.segment

    # --- into line

    @cython.final
    cdef void enter_heap(self, Lane lane, Entry *e) except *:
        """An item joins a line at its place; what the entry says of its payload is counted."""
        lane.give_back(e)
        self.counted(lane.line, 1)
        if e.resident:
            self.made_resident(lane, e, 1)
        if lane.timed:
            if lane.line == DELAYED_LINE:
                self._next_due = min(self._next_due, <int64_t>e.ordinal)
            return
        if e.flags & FLAG_DELAYED:
            self._risen += 1
        self.nonempty[lane.line >> 6] |= <uint64_t>1 << (lane.line & 63)

    @cython.final
    cdef int put_back_entry(self, Entry *e) except -1:
        """An item that has just left its line joins it again, at its place; what the disk has of it is not kept in memory."""
        cdef PyObject *item = NULL
        if e.segment != NULL:
            item, e.item = e.item, NULL
            e.direct = e.resident = 0
        else:
            e.resident = 1
        self.enter_heap(self.lane(e.priority), e)
        if self._n_takers:
            self._takers.wake_first()
        Py_XDECREF(item)
        return 0

    @cython.final
    cdef int number(self, Parcel parcel) except -1:
        """Give a parcel its sequence number, id and date if it has none."""
        cdef uint8_t id[16]
        if parcel.enqueued_ns == 0:
            parcel.enqueued_ns = self.now()
        if parcel.sequence == 0:
            parcel.sequence = self._next_sequence
            self._next_sequence += 1
        if parcel.id is None:
            put_id(id, parcel.enqueued_ns, self._id_base + parcel.sequence)
            parcel.id = PyBytes_FromStringAndSize(<char *>id, 16)
        return 0

    def _number(self, list parcels not None):
        """Give every parcel its number, id and date."""
        cdef Parcel parcel
        for parcel in parcels:
            self.number(parcel)

    def _append(self, SegmentMap map not None, list parcels not None, list offsets, uint64_t total):
        """Numbered parcels become a part of the log, as one batch; returns their offsets. `offsets` are given if their bytes are in the file already, behind the tail. Caller holds the tail."""
        if offsets is None:
            return append_mapped(map, parcels)
        map.appended(total, len(parcels))
        return offsets

    def _append_and_join(self, SegmentMap map not None, list parcels not None, list offsets, uint64_t total):
        """As `_append`, and they join their lines in the same step: what is in the log is in line."""
        cdef Parcel parcel
        offsets = self._append(map, parcels, offsets, total)
        for parcel, offset in zip(parcels, offsets):
            self.join(parcel, map, offset, True)
        if self._n_takers:
            self._takers.wake_first()

    def _join_unlogged(self, list parcels not None):
        """Numbered parcels join their lines in one step, in memory only."""
        cdef Parcel parcel
        for parcel in parcels:
            self.join(parcel, None, 0, True)
        if self._n_takers:
            self._takers.wake_first()

    def _join_again(self, Parcel parcel not None, SegmentMap map, uint64_t offset, Claim claim not None):
        """A claimed item joins a line under another number, in the same step in which the claim is spent; it has been counted long ago."""
        self.join(parcel, map, offset, map is None)
        self._n_enqueued -= 1
        self.spend(claim)

    @cython.final
    cdef int join(self, Parcel parcel, SegmentMap map, uint64_t offset, bint resident) except -1:
        """Let a numbered parcel into its line: at the end, with FLAG_FRONT at the front, with FLAG_DELAYED where it waits for its time. `map` is None if it is not in the log."""
        cdef Lane lane = self.lane(parcel.line)
        cdef Entry e
        cdef Entry *slot
        memset(&e, 0, sizeof(Entry))
        if (resident and not lane.timed) or map is None:
            e.item = <PyObject *>parcel.item
            Py_INCREF(parcel.item)
            e.resident = 1
        e.direct = parcel.direct
        if map is not None:
            e.segment = <PyObject *>map
            e.offset8 = <uint32_t>(offset >> 3)
        e.sequence, e.enqueued_ns, e.expiry_ns = parcel.sequence, parcel.enqueued_ns, parcel.expiry_ns
        memcpy(e.id, PyBytes_AS_STRING(parcel.id), 16)
        e.nbytes, e.priority, e.flags = parcel.nbytes, parcel.priority, parcel.flags
        e.kind, e.attempts = parcel.kind, parcel.attempts
        e.codec = parcel.codec
        self._n_enqueued += 1
        if lane.timed or parcel.flags & FLAG_FRONT:
            e.ordinal = <uint64_t>parcel.time_ns
            self.enter_heap(lane, &e)
            return 0
        if map is not None:
            lane.ordinal += 1
            e.ordinal = lane.ordinal
        slot = lane.push()
        slot[0] = e
        self.counted(lane.line, 1)
        if e.resident:
            self.made_resident(lane, slot, 1)
        self.nonempty[lane.line >> 6] |= <uint64_t>1 << (lane.line & 63)
        return 0

    # --- the lines ordered by time. The caller holds the head

    def _is_due(self):
        """Whether a delayed item may be due."""
        return self._next_due != INT64_MAX and self._next_due <= self.exact_now()

    def _promote_due(self):
        """Let delayed items that are due into their lines, to the places they were given when they were enqueued; returns how many. Caller holds the head."""
        cdef int64_t now = self.exact_now()
        cdef Lane delayed, lane
        cdef Entry e
        cdef PyObject *item
        cdef Py_ssize_t n = 0
        if self._next_due > now or self.lane_at[DELAYED_LINE] == NULL:
            return 0
        delayed = <Lane>self.lane_at[DELAYED_LINE]
        while self._risen < RISEN_MOST and self.leave(delayed, &e, now):
            if e.expiry_ns and e.expiry_ns <= now:
                self._expire(self.claim_out(&e, DELAYED_LINE))
                continue
            lane = self.lane(e.priority)
            item = NULL
            if e.item != NULL:
                if e.segment == NULL or (self._resident < self._budget_items and self._resident_bytes + e.nbytes <= self._budget_bytes):
                    e.resident = 1
                else:
                    item, e.item, e.direct = e.item, NULL, 0
            e.loose = 0
            self.enter_heap(lane, &e)
            Py_XDECREF(item)
            n += 1
            if self._n_takers:
                self._takers.wake_first()
        self._next_due = delayed.next_time()
        return n

    def _set_apart(self, Claim claim not None, uint16_t line, int64_t time_ns, bint loose):
        """Put a claimed item into a line ordered by time; the claim is spent. `loose`: its record is not listed there, or under another time."""
        cdef Lane lane = self.lane(line)
        cdef PyObject *item = NULL
        self.came_in(claim)
        if not loose:
            self._departed.discard(claim.e.sequence)
        if claim.e.segment == NULL:
            claim.e.flags = claim.e.flags & ~(FLAG_DELAYED | FLAG_DEAD) | (FLAG_DELAYED if line == DELAYED_LINE else FLAG_DEAD)
            claim.e.resident = 1
        else:
            item, claim.e.item, claim.e.direct = claim.e.item, NULL, 0
            claim.e.resident = 0
        claim.e.ordinal, claim.e.loose = <uint64_t>time_ns, loose
        self.enter_heap(lane, &claim.e)
        claim.e.item = NULL
        Py_XDECREF(item)

    def _moved(self, Claim claim not None, SegmentMap map not None, uint64_t offset, uint8_t flags, uint8_t codec, uint8_t attempts):
        """The claimed item has another record. Returns a claim to the old one, to be settled with `_settle_record`; None if there was none."""
        cdef Claim old = None
        if claim.e.segment != NULL:
            old = Claim.__new__(Claim)
            self.follow(&claim.e)
            old.e = claim.e
            old.e.item = NULL
            old.map = <SegmentMap>claim.e.segment
            old.map.replace_at(<uint64_t>old.e.offset8 * 8)
        claim.e.segment, claim.e.offset8 = <PyObject *>map, <uint32_t>(offset >> 3)
        claim.e.flags, claim.e.codec, claim.e.attempts = flags, codec, attempts
        claim.map = map
        return old

    def _settle_record(self, Claim old not None):
        """Mark a record of which another has taken the place, and is on stable storage."""
        self.settle_entry(&old.e)
        (<SegmentMap>old.e.segment).is_replaced(<uint64_t>old.e.offset8 * 8)

    @cython.final
    cdef int spend(self, Claim claim) except -1:
        """The claimed item is in line again under another number. Of the claim only the address of its record is left."""
        cdef PyObject *item = claim.e.item
        self.came_in(claim)
        self._departed.discard(claim.e.sequence)
        if claim.e.segment != NULL:
            self.follow(&claim.e)
            (<SegmentMap>claim.e.segment).replace_at(<uint64_t>claim.e.offset8 * 8)
        claim.e.item = NULL
        Py_XDECREF(item)
        return 0
