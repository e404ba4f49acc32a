from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset
from .record cimport PREFETCH, RECORD_HEADER_SIZE, SLOT_SIZE, RecordHeader, c_crc32c, crc32c_pair, crc32c_publish8, prefetch, record_size, seal_header, store_header
from cpython.pythread cimport PyThread_type_lock
cimport cython

cdef enum:
    MARKS_START = 512
    REACH = 1048576          # what a caller has backed at most without giving up the interpreter lock
    FOOTER_ROOM = 144  # footer, and the padding before index and directory

# What backing the records' mapping with pages needs, apart from its map so that a thread without the interpreter lock can do it.
cdef struct Pages:
    uint8_t *body            # as the map's; NULL unless open for appending
    int fd                   # of the file
    const uint64_t *tail     # the map's: where the next record goes
    uint64_t file_size
    uint64_t populated       # the mapping is backed by pages below this offset
    uint64_t calm_upto       # no further than that: up to here a caller need not think of pages
    uint64_t zeroed          # no zeros are written below this offset any more; records end here or before
    PyThread_type_lock lock  # held over one step of backing, and over unmapping
    bint wanted              # a caller waits for the lock
    bint ahead               # backing ahead of the tail is worth it

@cython.final
cdef class SegmentMap:
    cdef public uint64_t number          # given when the segment is put to use
    cdef readonly uint32_t salt
    cdef readonly uint32_t slots
    cdef readonly uint64_t records_start
    cdef readonly uint64_t file_size
    cdef readonly uint64_t tail          # where the next record goes
    cdef readonly uint64_t limit         # records must end here or before: index and footer need the rest
    cdef readonly uint64_t count         # records
    cdef public int64_t live             # records that are not settled
    cdef readonly int64_t held           # of these, marked for now: the mark may still be taken back
    cdef readonly uint64_t unmarked      # how many marks have been taken back
    cdef public uint64_t synced          # everything below is on stable storage
    cdef public bint dirty               # changed since the last sync began
    cdef readonly bint plain             # no mapping: marks live in private memory, every change is handed to `write`
    cdef readonly bint retired           # the file is gone: everything in it was settled
    cdef public object write             # plain: callable(map, offset, length)
    cdef public object owner             # the store's own object for this segment
    cdef uint8_t *head                   # file bytes 0 … records_start, NULL while detached
    cdef uint8_t *body                   # so that body + offset is the byte at that file offset; NULL unless open for appending
    cdef uint64_t body_mapped
    cdef Pages pages
    cdef uint64_t lanes_seen[5]          # the lines that have their place in the directory
    cdef SegmentMap twin                 # compaction: the segment that this one's records have been copied to
    cdef object copies                   # arrays 'Q': their offsets here, ascending, and there
    cdef set replaced                    # offsets of records whose places others have taken, and which are not marked yet
    cdef object touched                  # bytearray: which pages of the attempt counts are backed

    cdef inline bint has_room(self, uint64_t size, uint64_t records, uint8_t priority) noexcept:
        """Whether so many records, of this size in all, fit, their pages are there (they are backed now if need be), and their priority has a place in the directory."""
        return (self.tail + size + 4 * records <= self.limit and self.lanes_seen[priority >> 6] >> (priority & 63) & 1
                and (self.tail + size <= self.pages.calm_upto or self.reach(self.tail + size)))

    cdef inline uint64_t append(self, RecordHeader *h, const uint8_t *payload, bint publish) noexcept:
        """Mapped: write a record at the tail and move on. Unpublished (the first of a batch), it stays invisible until `publish`."""
        cdef uint64_t at = self.tail, end
        h.synced = <uint32_t>(self.synced >> 3)
        end = self.write_payload(at, h, payload)
        if publish:
            self.publish(at, h)
        self.move_on(end, 1)
        return at

    cdef inline uint64_t write_payload(self, uint64_t at, RecordHeader *h, const uint8_t *payload) noexcept:
        """Write what is behind the header of a record at `at`; returns where the record ends."""
        cdef uint64_t size = record_size(h.length), nothing = 0
        cdef uint8_t *p = self.body + at
        # Fresh pages are in another core's cache, or in none: ask for the lines that a small record some turns later is written to.
        prefetch(p + PREFETCH, 1, 3)
        prefetch(p + PREFETCH + 64, 1, 3)
        prefetch(p + PREFETCH + 128, 1, 3)
        h.payload_crc = c_crc32c(self.salt, payload, h.length)
        memcpy(p + size - 8, &nothing, 8)    # the padding; an empty payload has none, and this is its header's end, stored later
        memcpy(p + RECORD_HEADER_SIZE, payload, h.length)
        return at + size

    cdef inline void move_on(self, uint64_t tail, uint64_t records) noexcept:
        """So many records more, which are complete, end at `tail`."""
        self.tail = tail
        self.limit -= 4 * records
        self.count += records
        self.live += records

    cdef inline void publish(self, uint64_t at, RecordHeader *h) noexcept:
        seal_header(h, self.salt, at)
        store_header(self.body + at, h)

    cdef inline void _store_word(self, uint64_t *word, uint32_t marks, uint32_t i) noexcept:
        crc32c_publish8(word, <uint64_t>marks | <uint64_t>crc32c_pair(self.salt, marks, i) << 32)

    cdef inline int mark(self, uint64_t offset) except -1:
        """Settle the record at `offset`: it is done, whatever became of it. 1 if it was not before."""
        cdef uint32_t slot = <uint32_t>((offset - self.records_start) // SLOT_SIZE)
        cdef uint32_t bit = <uint32_t>1 << (slot & 31)
        cdef uint64_t *word
        if self.head == NULL or slot >= self.slots:
            raise AssertionError("I6: a settle needs an attached segment and a slot inside it")
        word = <uint64_t *>(self.head + MARKS_START) + (slot >> 5)
        if <uint32_t>word[0] & bit:
            return 0
        self._store_word(word, <uint32_t>word[0] | bit, slot >> 5)
        if self.plain or self.twin is not None:
            self.marked_elsewhere(offset)
        self.live -= 1                       # last: at 0 the file may go
        return 1

    cdef bint reach(self, uint64_t upto) noexcept
    cdef int hold(self, uint64_t offset) except -1
    cdef int let_go(self) except -1
    cdef int unmark(self, uint64_t offset) except -1
    cdef int marked_elsewhere(self, uint64_t offset) except -1
    cdef bint is_marked(self, uint64_t offset) noexcept
    cdef bint is_spent(self, uint64_t offset) noexcept
    cdef int replace_at(self, uint64_t offset) except -1
    cdef int is_replaced(self, uint64_t offset) except -1
    cdef int _open_pages(self, int fd) except -1
    cdef void _let_go_of_pages(self) noexcept
    cdef void _unmap_body(self) noexcept
    cdef void _unmap_head(self) noexcept
    cdef uint64_t marks_end(self) noexcept
    cdef uint8_t *_map(self, int fd, uint64_t offset, uint64_t length) except NULL
    cdef int _populate(self, uint8_t *start, uint64_t length) except -1
    cdef uint64_t copy_of(self, uint64_t offset) except? 0
    cdef uint64_t *_attempt_word(self, uint32_t slot) except NULL
