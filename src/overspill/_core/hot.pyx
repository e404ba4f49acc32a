"""The verbs that run once per item: enqueue, dequeue, and the batches.

Each verb first tries the *hot* way, which runs no Python code and is therefore atomic under the interpreter lock, takes no lock and makes no system call; if anything is unusual it has changed
nothing yet and calls the `_…_slow` method of the runtime, which decides. So every rule lives once: here if it runs per item, above if it is policy. The lines themselves are in `lanes`.

The runtime switches the hot ways off (`_hot_in`, `_hot_out`) while it holds the tail or the head of the queue over a call that drops the interpreter lock.
"""
cimport cython
from libc.stdint cimport INT64_MAX, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_GET_SIZE
from cpython.list cimport PyList_Append, PyList_GET_ITEM, PyList_GET_SIZE
from cpython.ref cimport PyObject, Py_DECREF, Py_INCREF, Py_XDECREF

from .frames cimport Frames
from .lane cimport BIG_PAYLOAD, Entry, Lane, Run, entry_place
from .limiter cimport Limiter
from .places cimport Places
from .record cimport KIND_RAW, KIND_STR, RECORD_HEADER_SIZE, RecordHeader, c_crc32c, put_id, put_id_low, record_size, seal_header
from .segmap cimport SegmentMap

cdef extern from "Python.h":
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
    # The same for a reference that is only borrowed: Cython counts an `object` up and down at every turn of a loop.
    bint is_bytes "PyBytes_CheckExact"(PyObject *o)
    const char *bytes_of "PyBytes_AS_STRING"(PyObject *o)
    Py_ssize_t size_of "PyBytes_GET_SIZE"(PyObject *o)
    void take_ref "Py_INCREF"(PyObject *o)

cdef enum:
    NORMAL = 128
    SMALL_PAYLOAD = 32768  # above it a payload is written to the file by pwrite, without the interpreter lock
cdef int64_t CLOCK_TICK = 20000000  # the coarse clock is behind by no more than this


cdef inline int level_of(object priority) except -2:
    """The priority as a number, -1 if it is none: the slow way then says so."""
    cdef int overflow
    cdef long level
    if not PyLong_Check(priority) or PyBool_Check(priority):
        return -1
    level = PyLong_AsLongAndOverflow(priority, &overflow)
    return <int>level if overflow == 0 and 0 <= level <= 255 else -1


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


cdef class HotQueue(Places):
    """A queue's lines with the verbs. The runtime's class derives from it and supplies what `Lanes` says, `_…_slow`, `_overwrite`, `_relieve`, `_covered` and `_poke`."""
    cdef public int64_t _soft_items, _soft_bytes      # crossing these asks for attention: a pressure threshold or the budget
    cdef public bint _commits                         # POWER: no operation returns before a sync covers it
    cdef public bint _logs                            # every operation is in the log before it returns
    cdef public bint _spills_oldest                   # the strategy is one that runs here
    cdef public bint _takes_bytes, _takes_str         # the serializer leaves these as they are
    cdef public int64_t _most_items                   # in line, both tiers
    cdef public bint _overwrites                      # beyond that the oldest gives way here; otherwise the slow way decides
    cdef int64_t id_ns                                # the time that `id_high` is of
    cdef uint64_t id_high                             # first half of the ids given at that time
    cdef public int64_t _ttl_ns                       # default time to live; 0 = for ever
    cdef public int64_t _max_item_size
    cdef public Limiter _limiter                      # None: any rate
    cdef public uint64_t _poke_at                     # tail offset at which the pump should have more pages backed
    cdef readonly int64_t _passing                    # frames that were never in line and are not yet settled

    def __cinit__(self, *args, **kwargs):
        self._soft_items = self._soft_bytes = self._most_items = INT64_MAX
        self._poke_at = <uint64_t>-1

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

    # --- putting

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

    def _grown(self, SegmentMap map not None):
        """As `grown`, for what was appended by other means."""
        self.grown(map)

    @cython.final
    cdef inline int grown(self, SegmentMap map) except -1:
        """Something was appended. If this is interrupted, the next who appends says it."""
        if not map.dirty:
            self._dirtied(map)
        if map.tail >= self._poke_at:
            self._poke()
        return 0

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
        cdef bint emptied
        if not self.take_hot(&e, False):
            self._overwrite()
            return 0
        emptied = e.segment != NULL and self.settle_taken(&e)
        self._n_overwritten += 1
        try:
            if emptied:
                self.empty(<SegmentMap>e.segment)
        finally:
            Py_XDECREF(e.item)
        return 0

    @cython.final
    cdef void new_tick(self, int64_t now) noexcept:
        cdef uint8_t id[16]
        put_id(id, now, 0)
        memcpy(&self.id_high, id, 8)
        self.id_ns = now

    @cython.final
    cdef inline int64_t dated(self) noexcept:
        """The time, for an item that is to have an id of it."""
        cdef int64_t now = self.now()
        if now != self.id_ns:
            self.new_tick(now)
        return now

    @cython.final
    cdef inline void fill(self, Entry *e, object item, uint32_t n, uint8_t kind, uint8_t priority) noexcept:
        """A new direct item, numbered and dated."""
        Py_INCREF(item)
        self.fill_fields(e, <PyObject *>item, self._next_sequence, self.dated(), n, kind, priority)
        self._next_sequence += 1

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

    # --- past the line

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

    # --- spilling the oldest

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
    cdef bint spill_one(self) except -1:
        """Fold the oldest item of the rings; False if that cannot be done here (none, or it is not in the log yet)."""
        cdef int priority = self.oldest_ring()
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
            self.made_resident(lane, e, -1)
            self._n_spilled += 1
        lane.fold()
        Py_XDECREF(item)
        return True

    def _fold_first(self, uint8_t priority):
        """Fold the lane's first ring item; False if it is not in the log yet."""
        return self.fold_first(self.lane(priority))

    # --- taking

    @cython.final
    cdef inline PyObject *dequeue_hot(self) except? NULL:
        """The first item, taken and settled, as a reference that the caller owns. NULL: nothing has changed and the slow way must decide."""
        cdef Entry e
        cdef bint emptied
        if not self._hot_out or self._commits or not self.take_hot(&e, True):
            return NULL  # POWER: until a sync covers it, it must be possible to take it back
        emptied = e.segment != NULL and self.settle_taken(&e)
        self._n_dequeued += 1
        if emptied or self._n_makers or (self._resident <= self._low_items and self._resident_bytes <= self._low_bytes):
            self.gone_with(&e, emptied)
        return e.item

    @cython.final
    cdef int gone_with(self, Entry *e, bint emptied) except -1:
        """An item has left and is counted: what follows from that, before it is handed out. If that is interrupted, nobody has it."""
        try:
            if emptied:
                self.empty(<SegmentMap>e.segment)
            self.gone()
        except BaseException:
            Py_XDECREF(e.item)
            raise
        return 0

    @cython.final
    cdef Py_ssize_t take_many_hot(self, list out, Py_ssize_t most) except -1:
        cdef Entry e
        cdef bint emptied
        cdef Py_ssize_t n = 0
        while n < most and self._hot_out and not self._commits and self.take_hot(&e, True):
            emptied = e.segment != NULL and self.settle_taken(&e)
            self._n_dequeued += 1
            n += 1
            PyList_Append(out, <object>e.item)
            Py_DECREF(<object>e.item)
            if emptied:
                self.empty(<SegmentMap>e.segment)
        self.gone()
        return n

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
        if self._next_due != INT64_MAX and self._next_due <= self.now():
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
    cdef bint settle_taken(self, Entry *e) except -1:
        """Settle what `take_hot` gave of the log; true if nothing is left in its segment, which is to be said once the item is counted. On an error it is back in its line."""
        cdef SegmentMap map = <SegmentMap>e.segment
        if map.head != NULL and map.dirty:
            map.mark(<uint64_t>e.offset8 * 8)
            return self.is_emptied(map)
        try:
            return self.mark_entry(e)
        except BaseException:
            self.put_back_entry(e)
            raise
