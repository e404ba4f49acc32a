"""The verbs that run once per item: enqueue, dequeue, and the batches.

`HotQueue` holds what these verbs touch and nothing else. Each verb first tries the *hot* way, which runs no Python code and is therefore atomic under the
interpreter lock, takes no lock and makes no system call; if anything is unusual it has changed nothing yet and calls the `_…_slow` method of
the runtime, which decides. So every rule lives once: here if it runs per item, above if it is policy.

The runtime switches the hot ways off (`_hot_in`, `_hot_out`) while it holds the tail or the head of the queue over a call that drops the interpreter lock.

I3: `_waiting` counts the items in line, `_delayed` those not yet due, `_dead` the dead letters, `_resident` and `_resident_bytes` those of all three whose payload is in memory, `_held` those
of the latter two; they change where an entry enters or leaves, nowhere else.
"""
cimport cython
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.list cimport PyList_Append, PyList_GET_ITEM, PyList_GET_SIZE
from cpython.ref cimport PyObject, Py_DECREF, Py_INCREF, Py_XDECREF
from cpython.weakref cimport PyWeakref_GetObject, PyWeakref_NewRef

from .frames cimport Frames
from .gate cimport Gate
from .lane cimport BIG_PAYLOAD, BLOCK_ENTRIES, Block, Entry, Lane, Run, entry_place
from .limiter cimport Limiter
from .record cimport (
    DEAD_LINE, DELAYED_LINE, FLAG_COPIED, FLAG_DEAD, FLAG_DELAYED, FLAG_FRONT, LINES, KIND_RAW, KIND_STR, RECORD_HEADER_SIZE, RecordHeader, c_crc32c, put_id, put_id_low, record_size, seal_header,
)
from .segmap cimport SegmentMap
from .waiters cimport Waiters

cdef extern from "Python.h":
    ctypedef int (*visitproc)(PyObject *, void *) noexcept
    ctypedef int (*traverseproc)(PyObject *, visitproc, void *) noexcept
    ctypedef int (*inquiry)(PyObject *) noexcept
    ctypedef struct PyTypeObject:
        traverseproc tp_traverse
        inquiry tp_clear
    bint PyUnicode_CheckExact(object o)
    const char *PyUnicode_AsUTF8AndSize(object o, Py_ssize_t *size) except NULL
    bint PyLong_CheckExact(object o)
    bint PyLong_Check(object o)
    bint PyBool_Check(object o)
    long PyLong_AsLong(object o) except? -1
    long PyLong_AsLongAndOverflow(object o, int *overflow) except? -1
    bint PyTuple_CheckExact(object o)
    bint PyList_CheckExact(object o)
    PyObject *PySequence_Fast_GET_ITEM(object o, Py_ssize_t i)
    Py_ssize_t PySequence_Fast_GET_SIZE(object o)
    void Py_XINCREF(PyObject *o)
    # The same for a reference that is only borrowed: Cython counts an `object` up and down at every turn of a loop.
    bint is_bytes "PyBytes_CheckExact"(PyObject *o)
    const char *bytes_of "PyBytes_AS_STRING"(PyObject *o)
    Py_ssize_t size_of "PyBytes_GET_SIZE"(PyObject *o)
    void take_ref "Py_INCREF"(PyObject *o)

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
    NORMAL = 128
    SMALL_PAYLOAD = 32768  # above it a payload is written to the file by pwrite, without the interpreter lock
cdef int64_t NO_LIMIT = 0x7fffffffffffffff
cdef int64_t CLOCK_TICK = 20000000  # the coarse clock is behind by no more than this

cdef enum:
    RISEN_MOST = 4096      # so many items that were delayed stand in their lines at once; the others that are due stay where they cost nothing


cdef enum:
    # How an item left: in which of the accounts it is counted in the same step in which it is settled.
    UNCOUNTED, BY_DEQUEUE, BY_EXPIRY, BY_OVERWRITING, BY_REMOVAL, BY_CLEARING, BY_DEAD_LETTER_LIMIT

DEQUEUED, EXPIRED, OVERWRITTEN, REMOVED, CLEARED, DEAD_LETTERS_FULL = BY_DEQUEUE, BY_EXPIRY, BY_OVERWRITING, BY_REMOVAL, BY_CLEARING, BY_DEAD_LETTER_LIMIT


cdef inline uint16_t line_of_entry(const Entry *e) noexcept nogil:
    """The line in whose index its record stands."""
    if e.flags & FLAG_DELAYED:
        return DELAYED_LINE
    if e.flags & FLAG_DEAD:  # no conditional expression: its type would be that of `priority`, which has no room for a line
        return DEAD_LINE
    return e.priority


cdef inline int level_of(object priority) except -2:
    """The priority as a number, -1 if it is none: the slow way then says so."""
    cdef int overflow
    cdef long level
    if not PyLong_Check(priority) or PyBool_Check(priority):
        return -1
    level = PyLong_AsLongAndOverflow(priority, &overflow)
    return <int>level if overflow == 0 and 0 <= level <= 255 else -1


cdef class Parcel:
    """An item on its way in: what stays in memory, and what is written."""
    cdef public object item          # what the memory tier keeps: the item itself (direct) or its encoding
    cdef public bint direct
    cdef public uint8_t kind
    cdef public uint8_t codec
    cdef public bytes payload        # as stored: encoded, compressed where it pays
    cdef public uint32_t nbytes      # encoded, before compression: what the item counts in memory
    cdef public int64_t expiry_ns
    cdef public uint8_t priority
    cdef public uint8_t attempts
    cdef public uint64_t sequence    # 0: a new one is given
    cdef public bytes id             # None: a new one is given
    cdef public int64_t enqueued_ns  # 0: now
    cdef public uint8_t flags
    cdef public uint8_t extension    # how many units of 8 bytes at the front of `payload` are not the item's
    cdef public int64_t time_ns      # its place in a line ordered by time

    @property
    def line(self):
        """The line that it is written for."""
        if self.flags & FLAG_DELAYED:
            return DELAYED_LINE
        return DEAD_LINE if self.flags & FLAG_DEAD else self.priority

    def __init__(self, item, bint direct, uint8_t kind, uint8_t codec, bytes payload not None, uint32_t nbytes, uint8_t priority, int64_t expiry_ns=0):
        self.item, self.direct, self.kind, self.codec = item, direct, kind, codec
        self.payload, self.nbytes, self.priority, self.expiry_ns = payload, nbytes, priority, expiry_ns


cdef class Claim:
    """An item taken out of line and not yet settled. Whoever has it settles it or gives it back; one that nobody holds any more goes back to its place by itself.

    So an interruption between any two steps of a verb, be it before the claim has a name, leaves an item in line, or with the one who has it.
    """
    cdef Entry e
    cdef readonly SegmentMap map     # None: not in the log
    cdef HotQueue queue              # None: it is not out of line (any more), or only a copy
    cdef uint16_t line               # out of which it is
    cdef bint marked                 # settled for now
    cdef object __weakref__

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
    cdef list fallen

    cdef int going(self) except -1:
        cdef Claim claim
        while self.fallen:
            claim = <Claim>self.fallen.pop()
            if claim.queue is not None:
                claim.queue.put_back(claim)
        return 0


@cython.final
cdef class Passed:
    """Frames that were put and taken at once: each has its record in the log, unsettled, and none was ever in line."""
    cdef readonly Frames frames
    cdef readonly SegmentMap map
    cdef uint64_t offset             # of the record of the next one to be settled
    cdef Py_ssize_t n_settled

    def __cinit__(self, Frames frames not None, SegmentMap map not None):
        self.frames, self.map, self.offset = frames, map, map.tail

    def __len__(self):
        """How many are not settled."""
        return self.frames.n - self.n_settled


cdef class HotQueue:
    """What the hot verbs touch. The runtime's class derives from it and supplies what is called here and not defined here:
    `_…_slow`, `_overwrite`, `_dirtied`, `_emptied`, `_relieve`, `_room_made`, `_eased`, `_covered`, `_poke`, `_expire`, `_set_aside_stub`, `_in_line`.

    What is called may be interrupted by a signal, anywhere. So it is called before the step that cannot be taken back; where it must come after, it is such that it may be called twice."""
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
    cdef public int64_t _soft_items, _soft_bytes      # crossing these asks for attention: a pressure threshold or the budget
    cdef public int64_t _budget_items, _budget_bytes  # spilling begins above these
    cdef public bint _hot_in, _hot_out
    cdef public bint _commits                         # POWER: no operation returns before a sync covers it
    cdef public bint _logs                            # every operation is in the log before it returns
    cdef public bint _spills_oldest                   # the strategy is one that runs here
    cdef public bint _takes_bytes, _takes_str         # the serializer leaves these as they are
    cdef public bint _takes_any                       # in memory only, and nothing is serialised: any object, of which no bytes are counted
    cdef public int64_t _most_items                   # in line, both tiers
    cdef public bint _overwrites                      # beyond that the oldest gives way here; otherwise the slow way decides
    cdef public SegmentMap _tail_map
    cdef public uint64_t _next_sequence
    cdef public uint64_t _id_base
    cdef int64_t id_ns                                # the time that `id_high` is of
    cdef uint64_t id_high                             # first half of the ids given at that time
    cdef public int64_t _frozen_ns                    # tests: the time; 0 = the clock's
    cdef public int64_t _ttl_ns                       # default time to live; 0 = for ever
    cdef public int64_t _max_item_size
    cdef public Limiter _limiter                      # None: any rate
    cdef public uint64_t _poke_at                     # tail offset at which the pump should have more pages backed
    cdef readonly int64_t _n_takers, _n_makers        # how many wait for an item, and for room
    cdef readonly Waiters _takers, _makers
    cdef readonly Gate _tail, _head
    cdef readonly bint _is_parents                    # this process is a child that was forked while the queue was open
    cdef public int64_t _low_items, _low_bytes        # falling to these asks for attention, too: pressure has eased; -1 = never
    cdef readonly dict _out                           # weak references to the claims that are out of line and not yet settled, by sequence number
    cdef readonly int64_t _passing                    # frames that were never in line and are not yet settled
    cdef public uint64_t _n_enqueued, _n_dequeued, _n_expired, _n_spilled, _n_overwritten
    cdef readonly uint64_t _n_removed, _n_cleared, _n_dead_dropped
    cdef object __weakref__

    def __cinit__(self, *args, **kwargs):
        assert sizeof(self.lane_at) == LINES * sizeof(PyObject *)
        self.lanes = [None] * LINES
        self._next_due = NO_LIMIT
        self._departed = set()
        self._next_sequence = 1
        self._soft_items = self._soft_bytes = self._budget_items = self._budget_bytes = self._most_items = NO_LIMIT
        self._poke_at = <uint64_t>-1
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

    # --- the public verbs

    def enqueue(self, item, *, priority=NORMAL, ttl=None, delay=None, durability=None, timeout=None):
        """Put `item` at the end of its priority's line; returns when the durability's promise holds.

        `priority` is an int from 0 to 255, higher first. `ttl` and `delay` are seconds or a `timedelta`. `durability` may raise the
        queue's own for this call. `timeout` is how long to wait for room (or for the rate limit); None leaves it to `when_full`.

        Raises `QueueFull`, `QueueClosed`, `QueueBroken`, `RateLimited`, `ItemTooLarge`, `NotSerializable`; then the item is not in the queue.
        """
        if self.enqueue_hot(item, priority, ttl, delay, durability):
            if self._commits:
                self._covered()
            return
        self._enqueue_slow(item, priority, ttl, delay, durability, timeout)

    def _push(self, item, /):
        """Put `item` at the end, with nothing beside it: `enqueue` without the price of its arguments. Raises what `enqueue` raises."""
        if self._hot_in and self.put_hot(item, NORMAL):
            if self._commits:
                self._covered()
            return
        self._enqueue_slow(item, NORMAL, None, None, None, None)

    def enqueue_with_priority(self, item, priority=NORMAL, *, ttl=None, delay=None, durability=None, timeout=None):
        """As `enqueue`, with the priority as the second argument: an int from 0 to 255, higher first."""
        if self.enqueue_hot(item, priority, ttl, delay, durability):
            if self._commits:
                self._covered()
            return
        self._enqueue_slow(item, priority, ttl, delay, durability, timeout)

    def dequeue(self, timeout=None):
        """Take the first item: highest priority, then first in line. It is settled: it will not come back.

        Waits up to `timeout` seconds for one (None: for ever), then raises `QueueEmpty`. Raises `QueueClosed` when the queue is closed and nothing is left.
        """
        cdef PyObject *taken = self.dequeue_hot()
        if taken != NULL:
            item = <object>taken
            Py_DECREF(item)
            return item
        return self._dequeue_slow(timeout)

    def try_dequeue(self):
        """As `dequeue`, but never waits: raises `QueueEmpty` at once."""
        cdef PyObject *taken = self.dequeue_hot()
        if taken != NULL:
            item = <object>taken
            Py_DECREF(item)
            return item
        return self._dequeue_slow(0)

    def enqueue_batch(self, items, *, priority=NORMAL, ttl=None, delay=None, durability=None, timeout=None):
        """Put all of `items`, in order, or none of them: also across a crash. One sync covers the batch.

        Arguments and errors are those of `enqueue`.
        """
        if self.enqueue_batch_hot(items, priority, ttl, delay, durability):
            if self._commits:
                self._covered()
            return
        self._enqueue_batch_slow(items, priority, ttl, delay, durability, timeout)

    def dequeue_batch(self, max_items=None, *, timeout=0):
        """Take up to `max_items` items (default: the queue's `default_batch_size`) in order, as a list; `[]` when there is none.

        Waits up to `timeout` seconds (None: for ever) for the first one, then takes what is there.
        """
        cdef Py_ssize_t n
        cdef list out
        if not self._hot_out or not PyLong_CheckExact(max_items):
            return self._dequeue_batch_slow([], max_items, timeout)
        n = PyLong_AsLong(max_items)
        if n <= 0:
            return self._dequeue_batch_slow([], max_items, timeout)
        out = []
        n -= self.take_many_hot(out, n)
        if n == 0 or (self._waiting == 0 and out):
            return out
        return self._dequeue_batch_slow(out, n, timeout)

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

    # --- the same without a wait, for whoever waits in another way

    def _enqueue_hot(self, item, priority, ttl, delay, durability):
        """`enqueue` as far as it can be done at once. False: nothing has changed and the slow way must decide."""
        return self.enqueue_hot(item, priority, ttl, delay, durability) == 1

    def _enqueue_batch_hot(self, items, priority, ttl, delay, durability):
        """As `_enqueue_hot`."""
        return self.enqueue_batch_hot(items, priority, ttl, delay, durability) == 1

    def _dequeue_hot(self, nothing):
        """The first item, taken and settled, if that can be done at once; else `nothing`."""
        cdef PyObject *taken = self.dequeue_hot()
        if taken == NULL:
            return nothing
        item = <object>taken
        Py_DECREF(item)
        return item

    def _take_many_hot(self, list out not None, Py_ssize_t n):
        """Take and settle up to n items that can be had at once, appending them to `out`; returns how many."""
        return self.take_many_hot(out, n)

    def _take_bytes_hot(self, list out not None, Py_ssize_t most, int64_t nbytes):
        """As `_take_many_hot`, and no more than about so many bytes (items that are not bytes count 1). The first is taken whatever its size."""
        cdef Py_ssize_t n = 0
        cdef int64_t last = 0
        while n < most and nbytes >= last and self.take_many_hot(out, 1):
            item = out[len(out) - 1]
            last = 1 + (PyBytes_GET_SIZE(item) if PyBytes_CheckExact(item) else 0)
            nbytes -= last
            n += 1
        return n

    @cython.final
    cdef inline int enqueue_hot(self, object item, object priority, object ttl, object delay, object durability) except -1:
        cdef int level
        if self._hot_in and ttl is None and delay is None and durability is None:
            level = level_of(priority)
            if level >= 0:
                return self.put_hot(item, <uint8_t>level)
        return 0

    @cython.final
    cdef inline int enqueue_batch_hot(self, object items, object priority, object ttl, object delay, object durability) except -1:
        cdef int level
        if self._hot_in and ttl is None and delay is None and durability is None and (PyList_CheckExact(items) or PyTuple_CheckExact(items)):
            level = level_of(priority)
            if level >= 0:
                return self.put_batch_hot(items, <uint8_t>level)
        return 0

    @cython.final
    cdef inline PyObject *dequeue_hot(self) except? NULL:
        """The first item, taken and settled, as a reference that the caller owns. NULL: nothing has changed and the slow way must decide."""
        cdef Entry e
        if not self._hot_out or self._commits or not self.take_hot(&e, True):
            return NULL  # POWER: until a sync covers it, it must be possible to take it back
        if e.segment != NULL:
            self.settle_taken(&e)
        self._n_dequeued += 1
        if self._n_makers or (self._resident <= self._low_items and self._resident_bytes <= self._low_bytes):
            self.gone_with(e.item)
        return e.item

    @cython.final
    cdef int gone_with(self, PyObject *item) except -1:
        """As `gone`, before the item is handed out: if that is interrupted, nobody has it."""
        try:
            self.gone()
        except BaseException:
            Py_XDECREF(item)
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
    cdef Py_ssize_t take_many_hot(self, list out, Py_ssize_t most) except -1:
        cdef Entry e
        cdef Py_ssize_t n = 0
        while n < most and self._hot_out and not self._commits and self.take_hot(&e, True):
            if e.segment != NULL:
                self.settle_taken(&e)
            self._n_dequeued += 1
            n += 1
            PyList_Append(out, <object>e.item)
            Py_DECREF(<object>e.item)
        self.gone()
        return n

    # --- time

    @cython.final
    cdef inline int64_t now(self) noexcept:
        """Wall-clock nanoseconds, at the resolution of the kernel's tick (some ms): reading the exact clock would cost a fifth of an enqueue."""
        cdef timespec t
        if self._frozen_ns:
            return self._frozen_ns
        clock_gettime(CLOCK_REALTIME_COARSE, &t)
        return <int64_t>t.tv_sec * 1000000000 + t.tv_nsec

    @cython.final
    cdef inline int64_t exact_now(self) noexcept:
        cdef timespec t
        if self._frozen_ns:
            return self._frozen_ns
        clock_gettime(CLOCK_REALTIME, &t)
        return <int64_t>t.tv_sec * 1000000000 + t.tv_nsec

    def _now_ns(self):
        """Wall-clock time in nanoseconds, as expiry is judged by."""
        return self.exact_now()

    @cython.final
    cdef void new_tick(self, int64_t now) noexcept:
        cdef uint8_t id[16]
        put_id(id, now, 0)
        memcpy(&self.id_high, id, 8)
        self.id_ns = now

    # --- putting

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
    cdef inline bint granted(self, Py_ssize_t n) noexcept:
        """Whether the rate limit lets so many items pass now; asked last, for it takes their tokens. No: the slow way asks again, and waits or tells."""
        return self._limiter is None or (self._frozen_ns == 0 and self._limiter.take_now(n))

    @cython.final
    cdef int put_hot(self, object item, uint8_t priority) except -1:
        """1: done. 0: nothing has changed and the slow way must decide."""
        cdef const char *p
        cdef Py_ssize_t n
        cdef uint8_t kind
        cdef SegmentMap map
        cdef Lane lane
        if PyBytes_CheckExact(item) and self._takes_bytes:
            p, n, kind = PyBytes_AS_STRING(item), PyBytes_GET_SIZE(item), KIND_RAW
        elif PyUnicode_CheckExact(item) and self._takes_str:
            try:
                p = PyUnicode_AsUTF8AndSize(item, &n)
            except UnicodeEncodeError:
                return 0
            kind = KIND_STR
        elif self._takes_any:
            p, n, kind = NULL, 0, KIND_RAW
        else:
            return 0
        if n > SMALL_PAYLOAD or n > self._max_item_size or self.lane_at[priority] == NULL:
            return 0
        lane = <Lane>self.lane_at[priority]
        if self._waiting >= self._most_items:
            if not self._overwrites or not self._hot_out or not self.is_all(lane):
                return 0
            if not self._logs:
                return self.put_over(lane, item, <uint32_t>n, kind, priority)
        if self._logs:
            map = self._tail_map
            if map is None or not map.has_room(record_size(n), 1, priority) or not self.granted(1):
                return 0
            self.put_logged(map, lane, item, p, <uint32_t>n, kind, priority)
        else:
            map = None
            if self._resident >= self._budget_items or self._resident_bytes + n > self._budget_bytes or not self.granted(1):
                return 0
            self.put_unlogged(lane, item, <uint32_t>n, kind, priority)
        if self._n_takers:
            self._takers.wake_first()
        if map is not None:
            self.grown(map)
        if self._waiting > self._most_items:
            self.overwrite()
        if self._resident > self._soft_items or self._resident_bytes > self._soft_bytes:
            self.over()
        return 1

    @cython.final
    cdef inline int grown(self, SegmentMap map) except -1:
        """Something was appended. If this is interrupted, the next who appends says it."""
        if not map.dirty:
            self._dirtied(map)
        if map.tail >= self._poke_at:
            self._poke()
        return 0

    @cython.final
    cdef inline bint is_all(self, Lane lane) noexcept:
        """Whether everything that waits is in this lane and in the order of its numbers, so that its first item is the oldest of all."""
        cdef uint64_t own = <uint64_t>1 << (lane.line & 63)
        cdef int w = lane.line >> 6
        return (
            (self.nonempty[w] & ~own) | self.nonempty[(w + 1) & 3] | self.nonempty[(w + 2) & 3] | self.nonempty[(w + 3) & 3]
        ) == 0 and lane.heap_n == 0 and not lane.merge

    @cython.final
    cdef inline bint is_dense(self, Lane lane) noexcept:
        """Whether everything that waits is in this lane's ring, with no places of removed items between: then blocks can be skipped by their length."""
        return lane.ring_n == self._waiting and len(lane.runs) == 0 and self.is_all(lane)

    @cython.final
    cdef inline int put_over(self, Lane lane, object item, uint32_t n, uint8_t kind, uint8_t priority) except -1:
        """In memory only: put the item where the oldest gives way. 0: nothing has changed and the slow way must decide."""
        cdef Entry *e = lane.first()
        cdef PyObject *old
        if lane.ring_n == 0 or e.gone or e.segment != NULL or len(lane.runs):
            return 0
        if (e.expiry_ns and e.expiry_ns <= self.now() + CLOCK_TICK) or self._resident_bytes - e.nbytes + n > self._budget_bytes or not self.granted(1):
            return 0
        old = e.item
        self._resident_bytes += <int64_t>n - e.nbytes
        lane.pop()
        e = lane.push()
        self.fill(e, item, n, kind, priority)
        e.segment = NULL
        e.offset8 = 0
        e.ordinal = 0
        self._n_enqueued += 1
        self._n_overwritten += 1
        try:
            if self._n_takers:
                self._takers.wake_first()
        finally:
            Py_XDECREF(old)  # last: it may run any code
        return 1

    @cython.final
    cdef int overwrite(self) except -1:
        """The oldest item gives way to the one that has just come. Its record is settled after the other is complete: whoever is killed in between has one too many, never one too few."""
        cdef Entry e
        if not self.take_hot(&e, False):
            self._overwrite()
            return 0
        if e.segment != NULL:
            self.settle_taken(&e)
        self._n_overwritten += 1
        Py_XDECREF(e.item)
        return 0

    @cython.final
    cdef inline void fill(self, Entry *e, object item, uint32_t n, uint8_t kind, uint8_t priority) noexcept:
        """A new direct item, numbered and dated."""
        Py_INCREF(item)
        self.fill_fields(e, <PyObject *>item, self._next_sequence, self.dated(), n, kind, priority)
        self._next_sequence += 1

    @cython.final
    cdef inline int64_t dated(self) noexcept:
        """The time, for an item that is to have an id of it."""
        cdef int64_t now = self.now()
        if now != self.id_ns:
            self.new_tick(now)
        return now

    @cython.final
    cdef inline void fill_fields(self, Entry *e, PyObject *item, uint64_t sequence, int64_t now, uint32_t n, uint8_t kind, uint8_t priority) noexcept:
        """Every field of a new direct item but where its record is; `now` is what `dated` gave."""
        e.item = item
        e.sequence = sequence
        e.enqueued_ns = now
        e.expiry_ns = now + self._ttl_ns if self._ttl_ns else 0
        memcpy(e.id, &self.id_high, 8)
        put_id_low(e.id, self._id_base + sequence)
        e.nbytes, e.priority, e.kind = n, priority, kind
        e.flags = e.codec = e.packed = e.attempts = e.gone = e.loose = 0
        e.direct = e.resident = 1

    @cython.final
    cdef inline void joined(self, Lane lane, uint32_t n) noexcept:
        self._waiting += 1
        self._resident += 1
        self._resident_bytes += n
        self._n_enqueued += 1
        self.nonempty[lane.line >> 6] |= <uint64_t>1 << (lane.line & 63)

    @cython.final
    cdef inline int put_logged(self, SegmentMap map, Lane lane, object item, const char *p, uint32_t n, uint8_t kind, uint8_t priority) except -1:
        cdef Entry *e = lane.push()
        cdef RecordHeader h
        self.fill(e, item, n, kind, priority)
        self.head_like(e, &h)
        e.offset8 = <uint32_t>(map.append(&h, <const uint8_t *>p, True) >> 3)
        e.segment = <PyObject *>map
        lane.ordinal += 1
        e.ordinal = lane.ordinal
        self.joined(lane, n)
        return 0

    @cython.final
    cdef inline void head_like(self, const Entry *e, RecordHeader *h) noexcept:
        """The header of a new entry's record, but for what the log puts in."""
        h.length = h.raw_length = e.nbytes
        h.sequence, h.enqueued_ns, h.expiry_ns = e.sequence, e.enqueued_ns, e.expiry_ns
        memcpy(h.id, &self.id_high, 8)                   # not from the entry: a load must not need two stores that are still under way
        put_id_low(h.id, self._id_base + e.sequence)
        h.batch_left = 0
        h.priority, h.kind = e.priority, e.kind
        h.flags = h.codec = h.attempts = h.extension = 0
        h.reserved = 0

    @cython.final
    cdef int put_batch_logged(self, SegmentMap map, Lane lane, uint8_t priority, object items, Py_ssize_t count, int64_t total_bytes) except -1:
        """Bytes and strings that have been measured, for all of which there is room."""
        cdef PyObject *item
        cdef const char *p
        cdef Py_ssize_t i, n = 0
        cdef Entry *e
        cdef RecordHeader h, first
        cdef uint64_t begin = map.tail, at = begin, end, sequence = self._next_sequence, ordinal = lane.ordinal
        cdef int64_t now
        cdef uint8_t kind
        lane.reserve(count)
        now = self.dated()
        for i in range(count):
            item = PySequence_Fast_GET_ITEM(items, i)
            if is_bytes(item):
                p, n, kind = bytes_of(item), size_of(item), KIND_RAW
            else:
                p, kind = PyUnicode_AsUTF8AndSize(<object>item, &n), KIND_STR
            take_ref(item)
            ordinal += 1
            e = lane.push()
            self.fill_fields(e, item, sequence, now, <uint32_t>n, kind, priority)
            e.segment, e.offset8, e.ordinal = <PyObject *>map, <uint32_t>(at >> 3), ordinal
            self.head_like(e, &h)
            h.synced, h.batch_left = <uint32_t>(map.synced >> 3), <uint32_t>(count - 1 - i)
            sequence += 1
            end = map.write_payload(at, &h, <const uint8_t *>p)
            if i == 0:
                first = h
            else:
                map.publish(at, &h)
            at = end
        map.publish(begin, &first)      # until now there was nothing: a batch is there as a whole or not at all
        map.move_on(at, count)
        lane.ordinal = ordinal
        self._next_sequence = sequence
        self._waiting += count
        self._resident += count
        self._resident_bytes += total_bytes
        self._n_enqueued += count
        self.nonempty[priority >> 6] |= <uint64_t>1 << (priority & 63)
        return 0

    def _render_frames(self, SegmentMap map not None, Frames frames not None, uint8_t[::1] image not None):
        """Write the records of frames, as one batch that goes to the tail, into `image`, as they will stand in the file. Without the interpreter lock. Caller holds the tail."""
        cdef uint64_t at = map.tail, size, nothing = 0, id_low = self._id_base
        cdef uint8_t *p
        cdef const uint8_t *payload
        cdef uint32_t salt = map.salt
        cdef Py_ssize_t i
        cdef RecordHeader h
        cdef Entry like
        if <uint64_t>image.shape[0] < frames.record_bytes or frames.n == 0:
            raise ValueError("no records, or not enough room for them")
        p = &image[0]
        self.fill(&like, frames, 0, KIND_RAW, NORMAL)
        Py_DECREF(frames)
        self._next_sequence = like.sequence      # they are numbered once they are there
        self.head_like(&like, &h)
        h.synced = <uint32_t>(map.synced >> 3)
        with nogil:
            for i in range(frames.n):
                payload = frames.block + frames.payload_start(i)
                h.length = h.raw_length = <uint32_t>frames.payload_bytes(i)
                h.sequence, h.batch_left = like.sequence + i, <uint32_t>(frames.n - 1 - i)
                put_id_low(h.id, id_low + h.sequence)
                h.payload_crc = c_crc32c(salt, payload, h.length)
                seal_header(&h, salt, at)
                size = record_size(h.length)
                memcpy(p + size - 8, &nothing, 8)    # the padding; an empty payload has none, and this is its header's end
                memcpy(p, &h, RECORD_HEADER_SIZE)
                memcpy(p + RECORD_HEADER_SIZE, payload, h.length)
                p += size
                at += size

    def _let_pass(self, SegmentMap map not None, Frames frames not None):
        """What was rendered is in the file: it is in the log from now on, and not in line. Caller holds the tail."""
        cdef Passed passed = Passed(frames, map)
        cdef Lane lane = self.lane(NORMAL)
        map.appended(frames.record_bytes, frames.n)
        lane.ordinal += frames.n    # I2: no run reaches from what is before them to what is behind
        self._next_sequence += frames.n
        self._n_enqueued += frames.n
        self._passing += frames.n
        return passed

    def _settle_passed(self, Passed passed not None):
        """They are done. The caller holds the head. If it fails, some are, and it may be called again."""
        cdef Frames frames = passed.frames
        cdef Entry e
        memset(&e, 0, sizeof(Entry))
        while passed.n_settled < frames.n:
            e.segment, e.offset8 = <PyObject *>passed.map, <uint32_t>(passed.offset >> 3)
            self.settle_entry(&e)
            passed.offset += record_size(frames.payload_bytes(passed.n_settled))
            passed.n_settled += 1
            self._passing -= 1
            self._n_dequeued += 1
        if self._n_makers:
            self._room_made()

    @cython.final
    cdef inline int put_unlogged(self, Lane lane, object item, uint32_t n, uint8_t kind, uint8_t priority) except -1:
        cdef Entry *e = lane.push()
        self.fill(e, item, n, kind, priority)
        e.segment = NULL
        e.offset8 = 0
        e.ordinal = 0
        self.joined(lane, n)
        return 0

    @cython.final
    cdef bint measure(self, object items, uint64_t *record_bytes, int64_t *payload_bytes) except -1:
        """Add up a batch; False if the slow way must look at some item of it."""
        cdef Py_ssize_t i, n = 0, most = min(<int64_t>SMALL_PAYLOAD, self._max_item_size)
        cdef PyObject *item
        for i in range(PySequence_Fast_GET_SIZE(items)):
            item = PySequence_Fast_GET_ITEM(items, i)
            if is_bytes(item) and self._takes_bytes:
                n = size_of(item)
            elif PyUnicode_CheckExact(<object>item) and self._takes_str:
                try:
                    PyUnicode_AsUTF8AndSize(<object>item, &n)
                except UnicodeEncodeError:
                    return False
            elif self._takes_any:
                n = 0
            else:
                return False
            if n > most:
                return False
            record_bytes[0] += record_size(n)
            payload_bytes[0] += n
        return True

    def _plain_batch_bytes(self, items):
        """Record bytes of a batch that `_put_batch` would take; 0 if it would not."""
        cdef uint64_t total = 0
        cdef int64_t unused = 0
        if not (PyList_CheckExact(items) or PyTuple_CheckExact(items)) or not self.measure(items, &total, &unused):
            return 0
        return total

    def _put_batch(self, items, uint8_t priority):
        """`enqueue_batch` by the hot way; the caller holds the tail."""
        self.lane(priority)
        return (PyList_CheckExact(items) or PyTuple_CheckExact(items)) and self.put_batch_hot(items, priority) == 1

    @cython.final
    cdef int put_batch_hot(self, object items, uint8_t priority) except -1:
        cdef Py_ssize_t i, n, count = PySequence_Fast_GET_SIZE(items)
        cdef const char *p
        cdef object item
        cdef uint64_t total = 0
        cdef int64_t total_bytes = 0
        cdef SegmentMap map = self._tail_map
        cdef Lane lane
        if count == 0 or self.lane_at[priority] == NULL or self._waiting + count > self._most_items or not self.measure(items, &total, &total_bytes):
            return 0
        lane = <Lane>self.lane_at[priority]
        if self._logs:
            if map is None or not map.has_room(total, count, priority) or not self.granted(count):
                return 0
            self.put_batch_logged(map, lane, priority, items, count, total_bytes)
        else:
            map = None
            if self._resident + count > self._budget_items or self._resident_bytes + total_bytes > self._budget_bytes or not self.granted(count):
                return 0
            for i in range(count):
                item = <object>PySequence_Fast_GET_ITEM(items, i)
                if self._takes_any:
                    self.put_unlogged(lane, item, 0, KIND_RAW, priority)
                elif PyBytes_CheckExact(item):
                    self.put_unlogged(lane, item, <uint32_t>PyBytes_GET_SIZE(item), KIND_RAW, priority)
                else:
                    p = PyUnicode_AsUTF8AndSize(item, &n)
                    self.put_unlogged(lane, item, <uint32_t>n, KIND_STR, priority)
        if self._n_takers:
            self._takers.wake_first()
        if map is not None:
            self.grown(map)
        if self._resident > self._soft_items or self._resident_bytes > self._soft_bytes:
            self.over()
        return 1

    def _join_back(self, list items not None, uint8_t priority):
        """Let bytes in at the end of their line, all of them in one step. They come from a store behind the memory, were counted when they entered it, and have passed the limits."""
        cdef Py_ssize_t i, count = PyList_GET_SIZE(items)
        cdef Lane lane = self.lane(priority)
        cdef object item
        for i in range(count):
            if not PyBytes_CheckExact(<object>PyList_GET_ITEM(items, i)):
                raise TypeError("only bytes come back")
        lane.reserve(count)
        for i in range(count):
            item = <object>PyList_GET_ITEM(items, i)
            self.put_unlogged(lane, item, <uint32_t>PyBytes_GET_SIZE(item), KIND_RAW, priority)
        self._n_enqueued -= count

    # --- spilling

    @cython.final
    cdef int over(self) except -1:
        # Not while somebody holds the head: a line must not grow a run while its runs are copied or exchanged.
        if self._hot_out and self._spills_oldest and self._soft_items >= self._budget_items and self._soft_bytes >= self._budget_bytes:
            while self._resident > self._budget_items or self._resident_bytes > self._budget_bytes:
                if not self.spill_one():
                    self._relieve()
                    return 0
        else:
            self._relieve()
        return 0

    @cython.final
    cdef int oldest_lane(self) except -2:
        """The priority whose ring begins with the oldest item of all rings; -1 if all are empty."""
        cdef int priority, best = -1
        cdef uint64_t bits, least = 0
        cdef Lane lane
        cdef int w
        for w in range(4):
            bits = self.nonempty[w]
            while bits:
                priority = 64 * w + __builtin_ctzll(bits)
                bits &= bits - 1
                lane = <Lane>self.lane_at[priority]
                while lane.ring_n and lane.first().gone:
                    lane.pop()
                if lane.ring_n and (best < 0 or lane.first().sequence < least):
                    best, least = priority, lane.first().sequence
        return best

    @cython.final
    cdef bint spill_one(self) except -1:
        """Fold the oldest item of the rings; False if that cannot be done here (none, or it is not in the log yet)."""
        cdef int priority = self.oldest_lane()
        if priority < 0:
            return False
        return self.fold_first(<Lane>self.lane_at[priority])

    @cython.final
    cdef bint fold_first(self, Lane lane) except -1:
        cdef Entry *e
        cdef PyObject *item
        if lane.ring_n == 0:
            return False
        e = lane.first()
        if e.segment == NULL:
            return False
        if not e.gone:
            self.follow(e)
        item = e.item
        e.item = NULL
        if e.resident:
            self._resident -= 1
            self._resident_bytes -= e.nbytes
            self._n_spilled += 1
            e.resident = 0
        lane.fold()
        Py_XDECREF(item)
        return True

    # --- taking

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
    cdef inline void left(self, Lane lane) noexcept:
        """After an item left a lane: is there anything more in it?"""
        if lane.ring_n == 0 and lane.heap_n == 0 and len(lane.runs) == 0:
            self.nonempty[lane.line >> 6] &= ~(<uint64_t>1 << (lane.line & 63))

    @cython.final
    cdef int take_hot(self, Entry *out, bint direct_only) except -1:
        """1: `out` is the first item, out of line and unsettled. 0: nothing has changed; empty, or the slow way must decide."""
        cdef int looks = 0
        cdef int priority = self.top(&looks)
        cdef Lane lane
        cdef Entry *e
        cdef Run run
        if priority < 0:
            return 0
        lane = <Lane>self.lane_at[priority]
        if self._next_due != NO_LIMIT and self._next_due <= self.now():
            return 0
        if len(lane.runs):
            if lane.merge:
                return 0
            run = <Run>lane.runs[0]
            if not run.load_now():
                return 0
            if lane.heap_n and lane.place(&lane.heap[0]) < run.bound:
                return 0
            if run.header.length > BIG_PAYLOAD or (run.header.expiry_ns and run.header.expiry_ns <= self.exact_now()):
                return 0
            if direct_only and (run.header.codec or run.header.kind > KIND_STR or run.header.extension):
                return 0
            if not run.take(out):
                return 0
            if run.done:
                del lane.runs[0]
                if lane.recovered:
                    lane.recovered -= 1
            self._waiting -= 1
            self.left(lane)
            return 1
        if lane.ring_n == 0:
            return 0
        e = lane.first()
        if lane.heap_n and lane.place(&lane.heap[0]) < entry_place(e):
            return 0
        if e.gone or e.item == NULL or (direct_only and not e.direct) or (e.expiry_ns and e.expiry_ns <= self.exact_now()):
            return 0
        out[0] = e[0]
        lane.pop()
        self._waiting -= 1
        self._resident -= 1
        self._resident_bytes -= out.nbytes
        if lane.ring_n == 0:
            self.left(lane)
        return 1

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
        return map.live == 0 and map is not self._tail_map

    @cython.final
    cdef int settle_taken(self, Entry *e) except -1:
        """Settle what `take_hot` gave of the log. On an error it is back in its line."""
        cdef SegmentMap map = <SegmentMap>e.segment
        if map.head != NULL and map.dirty:
            map.mark(<uint64_t>e.offset8 * 8)
            if map.live == 0 and map is not self._tail_map:
                self.empty(map)
            return 0
        try:
            self.mark_entry(e)
        except BaseException:
            self.put_back_entry(e)
            raise
        map = <SegmentMap>e.segment
        if map.live == 0 and map is not self._tail_map:
            self.empty(map)
        return 0

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
    cdef int empty(self, SegmentMap map) except -1:
        """Nothing is left in a segment. Nobody else would find that out, so an interruption has to wait until it is said."""
        try:
            self._emptied(map)
        except BaseException:
            self._emptied(map)
            raise
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
        while self.leave(lane, out, NO_LIMIT):
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

    @cython.final
    cdef Claim claim_of(self, Entry *e):
        """Wrap an entry; the claim owns its reference from now on."""
        cdef Claim claim = Claim.__new__(Claim)
        claim.e = e[0]
        if e.segment != NULL:
            claim.map = <SegmentMap>e.segment
        return claim

    # --- what the runtime calls (it holds the locks where one is named)

    def _claim(self):
        """Take the first item as a Claim, None if there is none. Caller holds the head."""
        cdef Entry e
        if self._next_due != NO_LIMIT:
            self._promote_due()
        if self.take(&e):
            return self.claim_out(&e, e.priority)
        return None

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

    def _return(self, Claim claim not None):
        """Give a claim back to its old place, in memory if there is room; the claim is spent. Caller holds the head."""
        self.put_back(claim)

    def _claim_from(self, uint16_t line, bint unread=False):
        """Take the first item of one line; `unread`: without a look at expiry and payload. Caller holds the head."""
        cdef Entry e
        cdef Lane lane = self.lane(line)
        if self.leave(lane, &e, NO_LIMIT) if unread else self.take_from(lane, &e):
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
                if not expiry or expiry > self.exact_now() or not self.leave(lane, &e, NO_LIMIT):
                    break
                self._expire(self.claim_out(&e, priority))
                n += 1
        return n

    # --- the lines ordered by time

    def _is_due(self):
        """Whether a delayed item may be due."""
        return self._next_due != NO_LIMIT and self._next_due <= self.exact_now()

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

    def _spend(self, Claim claim not None):
        """The claimed item is in line again under another number. Of the claim only the address of its record is left."""
        cdef PyObject *item = claim.e.item
        self.came_in(claim)
        self._departed.discard(claim.e.sequence)
        if claim.e.segment != NULL:
            self.follow(&claim.e)
            (<SegmentMap>claim.e.segment).replace_at(<uint64_t>claim.e.offset8 * 8)
        claim.e.item = NULL
        Py_XDECREF(item)

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

    def _oldest_lane(self):
        """The priority whose line begins with the item that was enqueued first, as far as can be told without reading; -1 if nothing waits."""
        cdef Lane lane
        cdef int best = -1
        cdef int64_t least = 0, place
        for obj in self.lanes[:DELAYED_LINE]:
            if obj is None:
                continue
            lane = <Lane>obj
            place = NO_LIMIT
            if lane.heap_n:
                place = <int64_t>lane.heap[0].sequence
            if len(lane.runs):
                place = min(place, abs((<Run>lane.runs[0]).bound))
            elif lane.ring_n:
                place = min(place, <int64_t>lane.first().sequence)
            if place == NO_LIMIT:
                continue
            if best < 0 or place < least:
                best, least = lane.line, place
        return best

    def _choose(self):
        """(the priority that the next item is taken from, in how many looks it was found); the priority is -1 if nothing waits."""
        cdef int looks = 0
        cdef int priority = self.top(&looks)
        return priority, looks

    def _claim_hot(self):
        """Take the first item as a Claim if that needs no lock; else None."""
        cdef Entry e
        if self._hot_out and self.take_hot(&e, False):
            return self.claim_out(&e, e.priority)
        return None

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

    def _holds(self, Claim claim not None):
        """Whether the claim is out and not yet settled; False once it was given back or settled, by whomever."""
        return claim.queue is self

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
            if map.live == 0 and map is not self._tail_map:
                self.empty(map)
        self.gone()
        return True

    def _confirm_all(self, list taken not None):
        """Hand out (claim, item) pairs: the items of those that are still held."""
        return [item for claim, item in taken if self._confirm(claim)]

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
        (<SegmentMap>claim.e.segment).unmark(<uint64_t>claim.e.offset8 * 8)
        return <SegmentMap>claim.e.segment

    def _peek(self):
        """The first item as (stored, direct, kind, codec, nbytes), left in line; None if there is none. Caller holds the head."""
        cdef Entry e
        cdef Claim claim
        cdef int64_t resident
        if self._next_due != NO_LIMIT:
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

    def _open_lane(self, uint8_t priority):
        """Make sure the lane exists, so that the hot way may use it."""
        return self.lane(priority)

    def _recovered_runs(self, uint8_t priority, list runs not None, bint merge):
        """Hand over what opening found: the lane's runs from earlier lives."""
        cdef Lane lane = self.lane(priority)
        lane.runs[:0] = runs
        lane.recovered += len(runs)
        lane.merge = lane.merge or merge
        if runs:
            self.nonempty[priority >> 6] |= <uint64_t>1 << (priority & 63)

    def _count_waiting(self, int64_t n):
        """Recovery and damage: n more (or fewer) items wait."""
        self._waiting += n

    def _count_in(self, uint16_t line, int64_t n):
        """As `_count_waiting`, of any line."""
        self.counted(line, n)

    def _lanes(self):
        """The priorities' lanes that exist, highest priority first."""
        return [lane for lane in reversed(self.lanes[:DELAYED_LINE]) if lane is not None]

    def _timed_lanes(self):
        """Those of the two lines ordered by time that exist."""
        return [lane for lane in self.lanes[DELAYED_LINE:] if lane is not None]

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

    @cython.final
    cdef void head_of(self, Parcel parcel, RecordHeader *h, uint32_t batch_left) noexcept:
        h.length, h.raw_length = <uint32_t>PyBytes_GET_SIZE(parcel.payload), parcel.nbytes
        h.sequence, h.enqueued_ns, h.expiry_ns = parcel.sequence, parcel.enqueued_ns, parcel.expiry_ns
        memcpy(h.id, PyBytes_AS_STRING(parcel.id), 16)
        h.batch_left, h.priority, h.flags = batch_left, parcel.priority, parcel.flags
        h.codec, h.kind, h.attempts = parcel.codec, parcel.kind, parcel.attempts
        h.extension = parcel.extension
        h.reserved = 0

    def _number(self, list parcels not None):
        """Give every parcel its number, id and date."""
        cdef Parcel parcel
        for parcel in parcels:
            self.number(parcel)

    def _log_mapped(self, SegmentMap map not None, list parcels not None):
        """Append parcels, as one batch, through the mapping. Returns their offsets. Caller holds the tail and knows that they fit and that the pages are there."""
        cdef Parcel parcel
        cdef RecordHeader h, first
        cdef uint64_t at = map.tail, total = 0
        cdef Py_ssize_t i = 0, count = len(parcels)
        for parcel in parcels:
            total += record_size(PyBytes_GET_SIZE(parcel.payload))
        if map.body == NULL or at + total + 4 * <uint64_t>count > map.limit or at + total > map.pages.populated:
            raise AssertionError("I5: the records do not fit into the mapped tail")
        offsets = []
        for parcel in parcels:
            self.head_of(parcel, &h, <uint32_t>(count - 1 - i))
            offsets.append(map.append(&h, <const uint8_t *>PyBytes_AS_STRING(parcel.payload), i != 0))
            if i == 0:
                first = h
            i += 1
        map.publish(at, &first)
        return offsets

    def _append(self, SegmentMap map not None, list parcels not None, list offsets, uint64_t total):
        """Numbered parcels become a part of the log, as one batch; returns their offsets. `offsets` are given if their bytes are in the file already, behind the tail. Caller holds the tail."""
        if offsets is None:
            return self._log_mapped(map, parcels)
        map.appended(total, len(parcels))
        return offsets

    def _append_and_join(self, SegmentMap map not None, list parcels not None, list offsets, uint64_t total):
        """As `_append`, and they join their lines in the same step: what is in the log is in line."""
        cdef Parcel parcel
        offsets = self._append(map, parcels, offsets, total)
        for parcel, offset in zip(parcels, offsets):
            self._join(parcel, map, offset, True)
        if self._n_takers:
            self._takers.wake_first()

    def _append_and_stage(self, uint16_t line, SegmentMap map not None, list parcels not None, list offsets, uint64_t total):
        """As `_append`, of items that wait in this line already: in the same step they are told where their records are."""
        cdef Parcel parcel
        offsets = self._append(map, parcels, offsets, total)
        for parcel, offset in zip(parcels, offsets):
            self._staged(line, parcel.sequence, map, offset, parcel.codec)

    def _join_unlogged(self, list parcels not None):
        """Numbered parcels join their lines in one step, in memory only."""
        cdef Parcel parcel
        for parcel in parcels:
            self._join(parcel, None, 0, True)
        if self._n_takers:
            self._takers.wake_first()

    def _join_again(self, Parcel parcel not None, SegmentMap map, uint64_t offset, Claim claim not None):
        """A claimed item joins a line under another number, in the same step in which the claim is spent; it has been counted long ago."""
        self._join(parcel, map, offset, map is None)
        self._n_enqueued -= 1
        self._spend(claim)

    def _remove(self, Claim seen not None):
        """Settle an item of which `seen` is a copy, wherever in line it is, or where it waits for its time; False if it has left. Caller holds the head."""
        cdef Claim claim = self._pull_out(seen.e.priority, seen.e.sequence) or self._pull_out(DELAYED_LINE, seen.e.sequence)
        if claim is None:
            return self._remove_cold(seen, BY_REMOVAL)
        self._settle(claim, BY_REMOVAL)
        return True

    def _render(self, SegmentMap map not None, uint64_t at, list parcels not None, uint32_t batch_left):
        """The bytes of these records as they stand from offset `at` on; `batch_left` more of their batch follow. For the plain writer."""
        cdef Parcel parcel
        cdef RecordHeader h
        cdef uint64_t size, total = 0
        cdef uint32_t left = batch_left + <uint32_t>len(parcels)
        cdef bytes out
        cdef char *p
        for parcel in parcels:
            total += record_size(PyBytes_GET_SIZE(parcel.payload))
        out = PyBytes_FromStringAndSize(NULL, total)
        p = PyBytes_AS_STRING(out)
        memset(p, 0, total)
        for parcel in parcels:
            left -= 1
            self.head_of(parcel, &h, left)
            h.synced = <uint32_t>(map.synced >> 3)
            h.payload_crc = c_crc32c(map.salt, PyBytes_AS_STRING(parcel.payload), h.length)
            seal_header(&h, map.salt, at)
            memcpy(p, &h, RECORD_HEADER_SIZE)
            memcpy(p + RECORD_HEADER_SIZE, PyBytes_AS_STRING(parcel.payload), h.length)
            size = record_size(h.length)
            p += size
            at += size
        return out

    def _render_header(self, SegmentMap map not None, uint64_t at, Parcel parcel not None, uint32_t batch_left):
        """The header of a large record at offset `at`; the payload's CRC is computed without the interpreter lock."""
        cdef RecordHeader h
        cdef const char *p = PyBytes_AS_STRING(parcel.payload)
        cdef size_t n = PyBytes_GET_SIZE(parcel.payload)
        cdef uint32_t crc, salt = map.salt
        with nogil:
            crc = c_crc32c(salt, p, n)
        self.head_of(parcel, &h, batch_left)
        h.synced = <uint32_t>(map.synced >> 3)
        h.payload_crc = crc
        seal_header(&h, salt, at)
        return PyBytes_FromStringAndSize(<char *>&h, RECORD_HEADER_SIZE)

    def _join(self, Parcel parcel not None, SegmentMap map, uint64_t offset, bint resident):
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
            return
        if map is not None:
            lane.ordinal += 1
            e.ordinal = lane.ordinal
        slot = lane.push()
        slot[0] = e
        self._waiting += 1
        if e.resident:
            self._resident += 1
            self._resident_bytes += e.nbytes
        self.nonempty[lane.line >> 6] |= <uint64_t>1 << (lane.line & 63)

    # --- what the engine's spill strategies call (the runtime holds the tail)

    def _oldest_resident_lane(self):
        """Priority of the oldest item in any ring, -1 if there is none."""
        return self.oldest_lane()

    def _lowest_resident_lane(self):
        """The lowest priority whose ring holds an item, -1 if there is none."""
        cdef int priority, w
        cdef uint64_t bits
        cdef Lane lane
        for w in range(4):
            bits = self.nonempty[w]
            while bits:
                priority = 64 * w + __builtin_ctzll(bits)
                bits &= bits - 1
                lane = <Lane>self.lane_at[priority]
                while lane.ring_n and lane.first().gone:
                    lane.pop()
                if lane.ring_n:
                    return priority
        return -1

    def _fold_first(self, uint8_t priority):
        """Fold the lane's first ring item; False if it is not in the log yet."""
        return self.fold_first(self.lane(priority))

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

    def _staged(self, uint16_t line, uint64_t sequence, SegmentMap map not None, uint64_t offset, uint8_t codec):
        """A ring or heap item of a MEMORY queue has been written to the log at `offset`."""
        cdef Lane lane = self.lane(line)
        cdef Entry *e = self.find(lane, sequence)
        cdef Py_ssize_t i
        if e == NULL:
            for i in range(lane.heap_n):
                if lane.heap[i].sequence == sequence:
                    e = &lane.heap[i]
        if e == NULL or e.segment != NULL:
            raise AssertionError("I1: staged an item that is not waiting to be")
        e.codec = codec
        e.segment = <PyObject *>map
        e.offset8 = <uint32_t>(offset >> 3)
        if not e.flags & (FLAG_FRONT | FLAG_DELAYED | FLAG_DEAD):
            lane.ordinal += 1
            e.ordinal = lane.ordinal

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
        cdef Entry *e = self.find(lane, sequence)
        cdef Py_ssize_t i
        if e == NULL:
            for i in range(lane.heap_n):
                if lane.heap[i].sequence == sequence:
                    e = &lane.heap[i]
        if e == NULL or e.gone:
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
