"""A segment's memory: the append position, the settle marks, the attempt counts.

A segment that takes records has its record area mapped, every segment whose items may be settled has its first part (header, marks, counts) mapped. In
*plain* mode, for file systems where a mapping could meet a full disk, the first part is a private copy and each changed word is handed
to `write` at once; records then go through `write` as well. Same bytes in the file, slower.

Pages are backed a step at a time: by a thread of its own that stays `AHEAD` of the tails (`back_pages`), and by a caller who has come to the end of what is backed. That thread never
holds the interpreter lock: it would have to wait for it up to 5 ms at every turn. The lock of a mapping's `Pages` is held over one step, so that nobody waits for more than one; `registry` is held
while a mapping is chosen. They are taken in the order interpreter lock, registry, pages.

Invariants: nothing is stored behind `populated` (I5: no store may meet an unbacked page, so no SIGBUS); a mark word always carries its check code, in one
aligned store (I6); `tail` moves only after a record is complete (I4).
"""
from libc.errno cimport EINTR, EINVAL, errno
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcpy, memset
from cpython.array cimport array, clone, resize
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.exc cimport PyErr_SetFromErrno
from cpython.pythread cimport NOWAIT_LOCK, WAIT_LOCK, PyThread_acquire_lock, PyThread_allocate_lock, PyThread_free_lock, PyThread_release_lock, PyThread_type_lock

from .record cimport (
    LINES, RECORD_HEADER_SIZE, SLOT_SIZE, RecordHeader, __builtin_popcount, c_crc32c, crc32c_pair, crc32c_publish8, list_records, record_size, header_checks,
    seal_header, store_header,
)

from .record import build_index

cdef extern from "<sys/mman.h>" nogil:
    void *c_mmap "mmap"(void *addr, size_t length, int prot, int flags, int fd, int64_t offset)
    int c_munmap "munmap"(void *addr, size_t length)
    int c_madvise "madvise"(void *addr, size_t length, int advice)
    enum: PROT_READ
    enum: PROT_WRITE
    enum: MAP_SHARED
    void *MAP_FAILED

cdef extern from "<unistd.h>" nogil:
    int64_t c_pwrite "pwrite"(int fd, const void *data, size_t n, int64_t offset)

cdef extern from "pythread.h" nogil:
    int PyThread_acquire_lock_timed(PyThread_type_lock lock, long long microseconds, int intr_flag)

cdef extern from "<semaphore.h>" nogil:
    ctypedef struct sem_t:
        pass
    int sem_init(sem_t *sem, int shared, unsigned int value)
    int sem_wait(sem_t *sem)
    int sem_post(sem_t *sem)

cdef extern from "<sched.h>" nogil:
    int sched_yield()

cdef char zeros[262144]

cdef enum:
    PAGE = 4096
    STEP = 262144            # of backing; a step of zeros and pages takes some 50 µs
    AHEAD = 8388608          # so far ahead of a tail its pages are backed
    PATIENCE_US = 2000       # how long a caller waits for another's step without giving up the interpreter lock
    MADV_POPULATE_WRITE_ = 23
cdef uint32_t ATTEMPTS_DOMAIN = 0x80000000u


def fresh_marks(uint32_t salt, uint32_t slots):
    """The settle-mark area of a segment with no mark set, as bytes."""
    cdef uint32_t i, words = (slots + 31) // 32
    cdef bytes area = PyBytes_FromStringAndSize(NULL, 8 * <Py_ssize_t>words)
    cdef char *p = PyBytes_AS_STRING(area)
    cdef uint64_t word
    for i in range(words):
        word = <uint64_t>crc32c_pair(salt, 0, i) << 32
        memcpy(p + 8 * <size_t>i, &word, 8)
    return area


cdef PyThread_type_lock registry = PyThread_allocate_lock()
cdef Pages **mapped = NULL           # of every mapping that is open for appending
cdef Py_ssize_t mapped_n = 0, mapped_room = 0
cdef uint64_t pages_thread = 0       # counts the calls of `back_pages`: the last one is the one that works
cdef bint pages_idle = False         # it sleeps, or is going to look at all tails once more before it does
cdef sem_t pages_wanted
sem_init(&pages_wanted, 0, 0)


def back_pages():
    """Back pages ahead of every tail, until `stop_back_pages` or another call of this. The body of a thread: holds the interpreter lock only to begin and to end."""
    global pages_thread, pages_idle
    cdef uint64_t me
    pages_thread += 1
    me = pages_thread
    with nogil:
        while pages_thread == me:
            pages_idle = True                       # before it looks: who asks while it does is heard
            while pages_thread == me and back_one_step():
                pass
            sem_wait(&pages_wanted)
        sem_post(&pages_wanted)                     # what woke this one may have been meant for the one in its place


def stop_back_pages():
    """End the thread whose body `back_pages` is."""
    global pages_thread
    pages_thread += 1
    sem_post(&pages_wanted)


def forget_pages_after_fork():
    """In a child: that thread is not there, nor is whoever held a lock; and the parent's files are not to be written to."""
    global registry, pages_thread, pages_idle
    cdef Py_ssize_t i
    registry = PyThread_allocate_lock()
    sem_init(&pages_wanted, 0, 0)
    pages_thread += 1
    pages_idle = False
    for i in range(mapped_n):
        mapped[i].lock = PyThread_allocate_lock()
        mapped[i].ahead = False


cdef bint back_one_step() noexcept nogil:
    """One step for the tail that comes to the end of its pages first; False if all are far enough from it."""
    cdef Py_ssize_t i
    cdef int64_t lead, least = AHEAD
    cdef Pages *chosen = NULL
    cdef bint wanted
    PyThread_acquire_lock(registry, WAIT_LOCK)
    for i in range(mapped_n):
        lead = <int64_t>(mapped[i].populated - mapped[i].tail[0])
        if mapped[i].ahead and mapped[i].populated < mapped[i].file_size and lead < least:
            chosen, least = mapped[i], lead
    if chosen == NULL:
        PyThread_release_lock(registry)
        return False
    PyThread_acquire_lock(chosen.lock, WAIT_LOCK)   # from here on it cannot be unmapped
    PyThread_release_lock(registry)
    if back_step(chosen) < 0:
        chosen.ahead = False                        # a caller will meet the same failure, and can say so
    if chosen.populated == chosen.file_size:
        chosen.calm_upto = chosen.file_size
    elif chosen.populated - chosen.tail[0] > AHEAD // 2:
        chosen.calm_upto = chosen.populated - AHEAD // 2
    wanted = chosen.wanted
    PyThread_release_lock(chosen.lock)
    if wanted:
        sched_yield()
    return True


cdef void ask_for_pages() noexcept nogil:
    global pages_idle
    if pages_idle:
        pages_idle = False
        sem_post(&pages_wanted)


cdef inline void be_calm(Pages *pages, uint64_t upto) noexcept nogil:
    """A caller has seen to the pages below `upto`, and asked. It asks again one step from there and not only where the pages end: the thread may have done its work between
    the asking and this, and its own limit, nearer than the end, would be gone."""
    pages.calm_upto = min(pages.populated, upto + STEP)


cdef int enter(Pages *pages) except -1:
    global mapped, mapped_n, mapped_room
    cdef Pages **grown
    if mapped_n == mapped_room:
        PyThread_acquire_lock(registry, WAIT_LOCK)
        grown = <Pages **>realloc(mapped, (2 * mapped_room + 8) * sizeof(Pages *))
        if grown != NULL:
            mapped, mapped_room = grown, 2 * mapped_room + 8
        PyThread_release_lock(registry)
        if grown == NULL:
            raise MemoryError
    PyThread_acquire_lock(registry, WAIT_LOCK)
    mapped[mapped_n] = pages
    mapped_n += 1
    PyThread_release_lock(registry)
    return 0


cdef void leave(Pages *pages) noexcept nogil:
    global mapped_n
    cdef Py_ssize_t i
    PyThread_acquire_lock(registry, WAIT_LOCK)
    for i in range(mapped_n):
        if mapped[i] == pages:
            mapped_n -= 1
            mapped[i] = mapped[mapped_n]
            break
    PyThread_release_lock(registry)


cdef int back_step(Pages *pages) noexcept nogil:
    """Zeros, then pages, for the next stretch. 1: done, 0: nothing is left to back, -1: it failed, see `errno`. The caller holds its lock.

    With the zeros the file's blocks are initialised (a later sync changes no extents), and the kernel does not read ahead into holes, which made single steps of
    population take tens of milliseconds. They are written above every record: a record ends below `populated`, or was announced by `pass_over`.
    """
    cdef uint64_t at = pages.populated, end
    cdef int64_t written
    if pages.body == NULL:
        return 0
    if pages.tail[0] > at:  # large payloads went past by way of the file: there is nothing to back behind the tail
        at = pages.tail[0]
    if at >= pages.file_size:
        return 0
    end = min((at // STEP + 1) * STEP, pages.file_size)
    while pages.zeroed < end:
        written = c_pwrite(pages.fd, zeros, min(end - pages.zeroed, <uint64_t>sizeof(zeros)), pages.zeroed)
        if written >= 0:
            pages.zeroed += written
        elif errno != EINTR:
            return -1
    at = at // PAGE * PAGE
    while c_madvise(pages.body + at, end - at, MADV_POPULATE_WRITE_):
        if errno == EINVAL:  # a kernel before 5.14 does not know the advice: preallocation is then the only guard
            break
        if errno != EINTR:
            return -1
    pages.populated = end
    return 1


cdef class SegmentMap:
    """The memory of one segment file; made by the store, used by the hot path."""

    def __cinit__(self, uint64_t number, uint32_t salt, uint32_t slots, uint64_t records_start, uint64_t file_size, bint plain):
        self.number, self.salt, self.slots = number, salt, slots
        self.records_start, self.file_size, self.plain = records_start, file_size, plain
        self.tail = records_start
        self.limit = records_start      # no room until opened for appending
        self.touched = None
        self.pages.tail, self.pages.file_size, self.pages.zeroed, self.pages.fd = &self.tail, file_size, records_start, -1
        self.pages.lock = PyThread_allocate_lock()
        if self.pages.lock == NULL:
            raise MemoryError

    def __dealloc__(self):
        self._unmap_body()
        self._unmap_head()
        if self.pages.lock != NULL:
            PyThread_free_lock(self.pages.lock)

    cdef void _unmap_body(self) noexcept:
        cdef uint8_t *body = self.body
        cdef uint64_t start = self.records_start, length = self.body_mapped
        if body != NULL:
            self.body = NULL
            self._let_go_of_pages()
            with nogil:  # unmapping tens of MiB takes milliseconds
                c_munmap(body + start, length)

    cdef void _let_go_of_pages(self) noexcept:
        """Nobody touches the mapping, or writes zeros to the file, when this returns."""
        leave(&self.pages)
        with nogil:
            PyThread_acquire_lock(self.pages.lock, WAIT_LOCK)
            self.pages.body, self.pages.fd, self.pages.ahead = NULL, -1, False
            self.pages.populated = self.pages.calm_upto = 0
            PyThread_release_lock(self.pages.lock)

    cdef void _unmap_head(self) noexcept:
        cdef uint8_t *head = self.head
        cdef uint64_t length = self.records_start
        if head != NULL:
            self.head = NULL
            if self.plain:
                free(head)
            else:
                with nogil:
                    c_munmap(head, length)

    @property
    def populated(self):
        """The mapping is backed by pages below this offset."""
        return self.pages.populated

    @property
    def attached(self):
        return self.head != NULL

    @property
    def mapped(self):
        """Whether the records are mapped."""
        return self.body != NULL

    @property
    def appendable(self):
        return self.limit > self.records_start

    def attach_fresh(self, int fd):
        """As `attach`, for a file whose header and marks have just been written."""
        self.touched = bytearray((self.records_start + PAGE - 1) // PAGE)
        self.head = self._map(fd, 0, self.records_start)
        try:
            self._populate(self.head, self.marks_end())
        except BaseException:
            self._unmap_head()
            raise

    def attach(self, int fd, bytes first_part not None):
        """Make settling possible. `first_part` is the file's first `records_start` bytes, just read.

        Returns how many mark words did not check; they are rewritten as *no mark* (a redelivery, never a loss).
        """
        cdef uint32_t i, words = (self.slots + 31) // 32, rotten = 0, low, check
        cdef uint64_t *word
        if PyBytes_GET_SIZE(first_part) != <Py_ssize_t>self.records_start or MARKS_START + 8 * <uint64_t>words > self.records_start:
            raise ValueError("the first part of the segment is not all there")
        if self.head != NULL:
            return 0
        if self.plain:
            self.head = <uint8_t *>malloc(self.records_start)
            if self.head == NULL:
                raise MemoryError
            memcpy(self.head, PyBytes_AS_STRING(first_part), self.records_start)
        else:
            self.attach_fresh(fd)
        for i in range(words):
            word = <uint64_t *>(self.head + MARKS_START) + i
            low, check = <uint32_t>word[0], <uint32_t>(word[0] >> 32)
            if check != crc32c_pair(self.salt, low, i):
                rotten += 1
                self._store_word(word, 0, i)
        return rotten

    def detach(self):
        """Give the memory back; settling needs `attach` again."""
        self.close_tail()
        self._unmap_head()

    def retire(self):
        """The file goes away because everything in it is settled, and so everything in it reads as settled from now on."""
        self.retired = True
        self.detach()

    cdef uint64_t marks_end(self) noexcept:
        return MARKS_START + 8 * ((<uint64_t>self.slots + 31) // 32)

    cdef uint8_t *_map(self, int fd, uint64_t offset, uint64_t length) except NULL:
        cdef void *p = c_mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED, fd, offset)
        if p == MAP_FAILED:
            PyErr_SetFromErrno(OSError)
        return <uint8_t *>p

    cdef int _populate(self, uint8_t *start, uint64_t length) except -1:
        """Have the pages backed now, where a failure is an exception and not a signal."""
        cdef int failed
        cdef uintptr_t first = <uintptr_t>start // PAGE * PAGE
        cdef size_t span = (<uintptr_t>start + length - first + PAGE - 1) // PAGE * PAGE
        while True:
            with nogil:
                failed = c_madvise(<void *>first, span, MADV_POPULATE_WRITE_)
            if not failed or errno == EINVAL:  # a kernel before 5.14 does not know the advice: preallocation is then the only guard
                return 0
            if errno != EINTR:
                PyErr_SetFromErrno(OSError)

    # --- appending

    def open_tail(self, int fd):
        """Allow appending: map the record area, no page of which is backed yet. `fd` must stay open until the tail is closed."""
        self.limit = self.file_size - FOOTER_ROOM
        if self.plain:
            self.pages.populated = self.pages.calm_upto = self.file_size
            return
        self.body_mapped = self.file_size - self.records_start
        self.body = self._map(fd, self.records_start, self.body_mapped) - self.records_start
        self._open_pages(fd)

    cdef int _open_pages(self, int fd) except -1:
        self.pages.body, self.pages.fd, self.pages.ahead = self.body, fd, True
        self.pages.populated = self.pages.calm_upto = self.records_start
        enter(&self.pages)
        return 0

    def take_over(self, SegmentMap old not None):
        """Go on in the memory of a segment that was consumed while it was mapped: same file, same areas, another salt. The old one reads as settled from now on."""
        if old.live != 0 or old.body == NULL or old.head == NULL or old.plain or self.plain or old.records_start != self.records_start or old.file_size != self.file_size:
            raise AssertionError("I7: only a consumed, mapped segment of the same shape can be taken over")
        cdef int fd = old.pages.fd
        old._let_go_of_pages()
        old.retired = True
        self.head, self.body, self.body_mapped, self.touched = old.head, old.body, old.body_mapped, old.touched
        old.head = NULL
        old.body = NULL
        # Zeros are not needed where there were any. Pages are asked for once more: a sync has made them read-only, and a fault for each costs more than the asking.
        self.pages.zeroed = old.pages.zeroed
        self._open_pages(fd)
        old.limit = old.records_start
        self.limit = self.file_size - FOOTER_ROOM
        cdef uint32_t i, words = (self.slots + 31) // 32
        for i in range(words):
            self._store_word(<uint64_t *>(self.head + MARKS_START) + i, 0, i)

    cdef bint reach(self, uint64_t upto) noexcept:
        """The tail comes to `upto`: have its pages backed ahead, or, if it is too late for that, now. False if that must be done the slow way.

        Keeps the interpreter lock, which the hot way must not give up: two steps take less than taking it back may.
        """
        cdef Pages *pages = &self.pages
        cdef int stepped = 1
        if self.body == NULL or upto > pages.populated + REACH or upto > self.file_size:
            return False
        if pages.ahead:
            ask_for_pages()
        if upto <= pages.populated:
            be_calm(pages, upto)
            return True
        if not PyThread_acquire_lock(pages.lock, NOWAIT_LOCK):
            pages.wanted = True
            stepped = PyThread_acquire_lock_timed(pages.lock, PATIENCE_US, 0)
            pages.wanted = False
            if stepped != 1:
                return False
        while pages.populated < upto and stepped == 1:
            stepped = back_step(pages)
        be_calm(pages, upto)
        PyThread_release_lock(pages.lock)
        return pages.populated >= upto

    def back(self, uint64_t upto):
        """Have the pages below file offset `upto` backed now. Drops the GIL."""
        cdef Pages *pages = &self.pages
        cdef int stepped = 1
        if self.body == NULL:
            return
        if pages.ahead:
            ask_for_pages()     # a segment begins here: what comes after this is to be there in time
        if upto <= pages.populated:
            return
        pages.wanted = True
        with nogil:
            PyThread_acquire_lock(pages.lock, WAIT_LOCK)
            pages.wanted = False
            while pages.populated < upto and stepped == 1:
                stepped = back_step(pages)
            be_calm(pages, upto)
            PyThread_release_lock(pages.lock)
        if stepped < 0:
            PyErr_SetFromErrno(OSError)

    def pass_over(self, uint64_t upto):
        """The file is about to be written up to this offset: no zeros below it from now on, and where payloads are so large no pages in advance."""
        cdef Pages *pages = &self.pages
        with nogil:
            PyThread_acquire_lock(pages.lock, WAIT_LOCK)
            pages.zeroed = max(pages.zeroed, upto)
            pages.ahead = False
            PyThread_release_lock(pages.lock)

    def stop_backing(self):
        """Nothing more is appended: nobody writes to the file behind the tail when this returns."""
        cdef Pages *pages = &self.pages
        with nogil:
            PyThread_acquire_lock(pages.lock, WAIT_LOCK)
            pages.ahead = False
            PyThread_release_lock(pages.lock)

    def close_tail(self):
        """No more appending: give the mapping of the records back."""
        self.limit = self.records_start
        self._unmap_body()

    def give_up_room(self):
        """After a failed write: nothing more goes into this segment."""
        self.limit = self.records_start
        self.stop_backing()

    def admit_line(self, uint16_t line):
        """Reserve the directory entry of a line; False if there is no room left for it."""
        if line >= LINES:
            raise ValueError("there is no such line")
        if self.lanes_seen[line >> 6] >> (line & 63) & 1:
            return True
        if self.tail + 64 + 4 > self.limit:
            return False
        self.lanes_seen[line >> 6] |= <uint64_t>1 << (line & 63)
        self.limit -= 64
        return True

    def room(self):
        """Bytes of records that certainly still fit as one record."""
        return self.limit - self.tail - 4 if self.limit > self.tail + 4 else 0

    def appended(self, uint64_t size, uint64_t records):
        """Records of `size` bytes in all were written at the tail by other means (large payloads, the plain writer)."""
        self.tail += size
        self.limit -= 4 * records
        self.count += records
        self.live += records

    def walk(self, uint64_t start, uint64_t end):
        """Offsets (array 'Q') of the records of the mapped tail between two record boundaries. Does not hold the GIL while it reads."""
        cdef uint64_t at = start, n = 0, most
        cdef array found
        cdef RecordHeader h
        cdef bint lost = False
        if self.body == NULL or start < self.records_start or end > self.tail:
            raise ValueError("not a stretch of the mapped tail")
        most = min((end - start) // RECORD_HEADER_SIZE, self.count)
        found = clone(array("Q"), most, zero=False)
        with nogil:
            while at < end:
                memcpy(&h, self.body + at, RECORD_HEADER_SIZE)
                if n == most or not header_checks(&h, self.salt, at):
                    lost = True
                    break
                found.data.as_ulonglongs[n] = at
                n += 1
                at += record_size(h.length)
        if lost:
            raise AssertionError(f"I4: the record at {at} of the open segment does not check")
        resize(found, n)
        return found

    def list_some(self, uint64_t start):
        """The next records of the mapped tail from a record boundary on: ([(priority, offsets in units of 8)], where the last one ends); see `record.list_records`."""
        cdef uint64_t end
        lanes = []
        if self.body == NULL or not self.records_start <= start <= self.tail:
            raise ValueError("not in the mapped tail")
        end = list_records(self.body, start, self.tail, self.tail, self.salt, lanes)
        if end == start and end < self.tail:
            raise AssertionError(f"I4: the record at {end} of the open segment does not check")
        return lanes, end

    def index(self, records not None):
        """`record.build_index` over the mapped tail."""
        cdef uint64_t length = self.tail - self.records_start
        if self.body == NULL:
            raise ValueError("the segment's tail is not mapped")
        if length == 0:
            return []
        return build_index(<const uint8_t[:length]>(self.body + self.records_start), self.records_start, records)

    # --- settle marks and attempt counts

    cdef int marked_elsewhere(self, uint64_t offset) except -1:
        """A mark was set: plain, hand the word to the file; under compaction, settle the copy as well."""
        cdef uint32_t slot
        cdef uint64_t *word
        if self.twin is not None:
            self.twin.mark(self.copy_of(offset))
        if self.plain:
            try:
                self.write(self, MARKS_START + 8 * (((offset - self.records_start) // SLOT_SIZE) >> 5), 8)
            except BaseException:
                # Interrupted, perhaps by a signal and after the file had it: it is not marked, here or there.
                slot = <uint32_t>((offset - self.records_start) // SLOT_SIZE)
                word = <uint64_t *>(self.head + MARKS_START) + (slot >> 5)
                self._store_word(word, <uint32_t>word[0] & ~(<uint32_t>1 << (slot & 31)), slot >> 5)
                self.write(self, MARKS_START + 8 * (slot >> 5), 8)
                raise
        return 0

    cdef int hold(self, uint64_t offset) except -1:
        """Mark the record at `offset` for now. It counts as live until `let_go` or `unmark`, so that its file stays."""
        self.held += 1
        try:
            if self.mark(offset):
                self.live += 1
        except BaseException:
            self.held -= 1
            raise
        return 0

    cdef int let_go(self) except -1:
        """A record that was marked for now is done for good."""
        self.held -= 1
        self.live -= 1
        return 0

    cdef int unmark(self, uint64_t offset) except -1:
        """A record that was marked for now is not done after all."""
        cdef uint32_t slot = <uint32_t>((offset - self.records_start) // SLOT_SIZE)
        cdef uint64_t *word
        if self.head == NULL or slot >= self.slots or self.twin is not None:
            raise AssertionError("I6: a mark is taken back in the attached segment in which it was set")
        word = <uint64_t *>(self.head + MARKS_START) + (slot >> 5)
        self._store_word(word, <uint32_t>word[0] & ~(<uint32_t>1 << (slot & 31)), slot >> 5)
        self.held -= 1
        self.unmarked += 1
        if self.plain:
            try:
                self.write(self, MARKS_START + 8 * (slot >> 5), 8)
            except BaseException:
                self.write(self, MARKS_START + 8 * (slot >> 5), 8)
                raise
        return 0

    def settle(self, uint64_t offset):
        """Mark the record at `offset`; True if it was not marked before."""
        return self.mark(offset) == 1

    cdef bint is_marked(self, uint64_t offset) noexcept:
        cdef uint32_t slot = <uint32_t>((offset - self.records_start) // SLOT_SIZE)
        if self.retired:
            return True
        if self.head == NULL or slot >= self.slots:
            return False
        return (<uint64_t *>(self.head + MARKS_START))[slot >> 5] >> (slot & 31) & 1

    cdef bint is_spent(self, uint64_t offset) noexcept:
        """Whether nothing waits at `offset` any more: its record is marked, or is going to be as soon as the one that has taken its place is on stable storage (I12)."""
        return self.is_marked(offset) or (self.replaced is not None and offset in self.replaced)

    cdef int replace_at(self, uint64_t offset) except -1:
        """Another record has taken the place of the one at `offset`, which cannot be marked yet."""
        if self.replaced is None:
            self.replaced = set()
        self.replaced.add(offset)
        return 0

    cdef int is_replaced(self, uint64_t offset) except -1:
        """The record at `offset`, whose place another one took, has been marked."""
        if self.replaced is not None:
            self.replaced.discard(offset)
            if not self.replaced:
                self.replaced = None
        return 0

    def settled(self, uint64_t offset):
        """Whether the record at `offset` carries its mark."""
        return self.is_marked(offset)

    def restrict_marks(self, records not None):
        """Keep only the marks of these records (array 'Q' of offsets); returns how many of them are marked."""
        cdef const uint64_t[::1] offsets = records
        cdef uint32_t i, words = (self.slots + 31) // 32, slot
        cdef uint64_t n = 0
        cdef uint32_t *kept
        if self.head == NULL:
            raise AssertionError("I6: marks of a detached segment")
        kept = <uint32_t *>calloc(words + 1, 4)
        if kept == NULL:
            raise MemoryError
        for k in range(offsets.shape[0]):
            if self.is_marked(offsets[k]):
                slot = <uint32_t>((offsets[k] - self.records_start) // SLOT_SIZE)
                kept[slot >> 5] |= <uint32_t>1 << (slot & 31)
                n += 1
        for i in range(words):
            self._store_word(<uint64_t *>(self.head + MARKS_START) + i, kept[i], i)
        free(kept)
        if self.plain:
            self.write(self, MARKS_START, 8 * <uint64_t>words)
        return n

    def marked(self):
        """How many marks are set."""
        cdef uint32_t i, words = (self.slots + 31) // 32
        cdef uint64_t n = 0
        if self.head == NULL:
            raise AssertionError("I6: marks of a detached segment")
        for i in range(words):
            n += __builtin_popcount(<uint32_t>(<uint64_t *>(self.head + MARKS_START))[i])
        return n

    cdef uint64_t *_attempt_word(self, uint32_t slot) except NULL:
        cdef uint64_t at = self.marks_end() + 8 * <uint64_t>(slot >> 2)
        if self.head == NULL or slot >= self.slots:
            raise AssertionError("I6: attempts need an attached segment and a slot inside it")
        if not self.plain and not self.touched[at // PAGE]:
            self._populate(self.head + at, 8)
            self.touched[at // PAGE] = 1
        return <uint64_t *>(self.head + at)

    def attempts(self, uint64_t offset):
        """How often the record at `offset` was leased since it was written; 0 if it has gone."""
        if self.retired:
            return 0
        cdef uint32_t slot = <uint32_t>((offset - self.records_start) // SLOT_SIZE)
        cdef uint64_t word = self._attempt_word(slot)[0]
        if <uint32_t>(word >> 32) != crc32c_pair(self.salt, <uint32_t>word, (slot >> 2) | <uint32_t>ATTEMPTS_DOMAIN):
            return 0
        return (word >> (8 * (slot & 3))) & 0xff

    def set_attempts(self, uint64_t offset, uint32_t attempts):
        """Keep the number of leases of the record at `offset`; 255 stands for 255 and more."""
        cdef uint32_t slot = <uint32_t>((offset - self.records_start) // SLOT_SIZE)
        cdef uint64_t *word = self._attempt_word(slot)
        cdef uint32_t counts = <uint32_t>word[0]
        cdef uint32_t check = (slot >> 2) | <uint32_t>ATTEMPTS_DOMAIN
        if <uint32_t>(word[0] >> 32) != crc32c_pair(self.salt, counts, check):
            counts = 0
        counts &= ~(<uint32_t>0xff << (8 * (slot & 3)))
        counts |= min(attempts, <uint32_t>255) << (8 * (slot & 3))
        crc32c_publish8(word, <uint64_t>counts | <uint64_t>crc32c_pair(self.salt, counts, check) << 32)
        if self.plain:
            self.write(self, <uint64_t>(<uint8_t *>word - self.head), 8)
        if self.twin is not None:
            self.twin.set_attempts(self.copy_of(offset), attempts)

    def first_part(self, uint64_t offset, uint64_t length):
        """The bytes that the file should hold at `offset`, for the plain writer."""
        if self.head == NULL or offset + length > self.records_start:
            raise AssertionError("I6: bytes of a detached segment")
        return PyBytes_FromStringAndSize(<char *>self.head + offset, length)

    # --- compaction

    cdef uint64_t copy_of(self, uint64_t offset) except? 0:
        cdef const uint64_t[::1] here = self.copies[0]
        cdef const uint64_t[::1] there = self.copies[1]
        cdef Py_ssize_t low = 0, high = here.shape[0], middle
        while low < high:
            middle = (low + high) // 2
            if here[middle] < offset:
                low = middle + 1
            else:
                high = middle
        if low == here.shape[0] or here[low] != offset:
            raise AssertionError(f"I9: the record at {offset} was not copied")
        return there[low]

    def carry_over(self, SegmentMap twin not None, here not None, there not None):
        """Bring the marks and attempts of the records at `there` in `twin` to where those of their originals at `here` (arrays 'Q') are; returns how many were not."""
        cdef const uint64_t[::1] old = here
        cdef const uint64_t[::1] new = there
        cdef Py_ssize_t i, changes = 0
        cdef uint32_t attempts
        if old.shape[0] != new.shape[0]:
            raise ValueError("as many offsets here as there")
        for i in range(old.shape[0]):
            if self.is_marked(old[i]):
                changes += twin.mark(new[i])
                continue
            attempts = self.attempts(old[i])
            if attempts != <uint32_t>twin.attempts(new[i]):
                twin.set_attempts(new[i], attempts)
                changes += 1
        return changes

    def copied_to(self, SegmentMap twin not None, here not None, there not None):
        """The records at `here` (ascending) have been copied to `there` in `twin`: `carry_over`, and settle in both from now on. The caller lets nobody settle meanwhile."""
        changes = self.carry_over(twin, here, there)
        self.copies = (here, there)
        self.twin = twin
        return changes

    def moved_to(self, uint64_t offset):
        """After the old segment has gone: (map, offset) of the copy."""
        if self.twin is None:
            raise AssertionError("I9: the segment is gone and nothing took its place")
        return self.twin, self.copy_of(offset)

    def restore(self, uint64_t tail, uint64_t count, int64_t live):
        """Take over what a footer or a scan said of a segment that is not open for appending."""
        self.tail, self.count, self.live = tail, count, live
