"""The record codec, inline for the hot path. The layout is table 2 of the format page."""
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

cdef extern from "crc32c.h" nogil:
    int crc32c_supported()
    uint32_t c_crc32c "crc32c"(uint32_t seed, const void *data, size_t n)
    uint32_t crc32c_pair(uint32_t seed, uint32_t low, uint32_t high)
    uint32_t crc32c_of_header(uint32_t seed, const void *header, size_t n)
    void copy_words "crc32c_copy_words"(void *to, const void *source, size_t n)
    void crc32c_publish8(void *where, uint64_t word)

cdef extern from *:
    void prefetch "__builtin_prefetch"(const void *p, int for_writing, int locality) nogil

cdef enum:
    PREFETCH = 2048      # so far ahead of a record that is looked at or written
    LISTED_AT_ONCE = 4096
    RECORD_HEADER_SIZE = 72
    SLOT_SIZE = 64
    FLAG_FRONT = 1
    FLAG_COPIED = 2
    FLAG_DELAYED = 4     # the extension begins with the time at which it is due
    FLAG_DEAD = 8        # the extension begins with the time at which it was given up
    FLAG_MOVED = 16      # the extension ends with the address of the record in whose place this one stands
    DELAYED_LINE = 256   # lines 0 to 255 are the priorities
    DEAD_LINE = 257
    LINES = 258
    KIND_RAW = 0
    KIND_STR = 1

# Table 2 of the format page, in the machine's byte order; the import of `record` refuses a big-endian machine.
ctypedef packed struct RecordHeader:
    uint32_t header_crc
    uint32_t length
    uint64_t sequence
    uint8_t id[16]
    int64_t enqueued_ns
    int64_t expiry_ns
    uint32_t raw_length
    uint32_t payload_crc
    uint32_t synced
    uint32_t batch_left
    uint8_t priority
    uint8_t flags
    uint8_t codec
    uint8_t kind
    uint8_t attempts
    uint8_t extension
    uint16_t reserved


cdef inline uint64_t record_size(uint64_t length) noexcept nogil:
    """Bytes that a record with `length` bytes behind its header takes in the file."""
    return (RECORD_HEADER_SIZE + length + 7) & ~(<uint64_t>7)


cdef inline int64_t place_of(const RecordHeader *h) noexcept nogil:
    return -<int64_t>h.sequence if h.flags & FLAG_FRONT else <int64_t>h.sequence


cdef inline uint16_t line_of(const RecordHeader *h) noexcept nogil:
    """The line in whose index the record stands: its priority, or one of the two that are ordered by time."""
    if h.flags & (FLAG_DELAYED | FLAG_DEAD) and h.extension and 8 * <uint32_t>h.extension <= h.length:
        return DELAYED_LINE if h.flags & FLAG_DELAYED else DEAD_LINE
    return h.priority


cdef inline int64_t place_in_line(const RecordHeader *h, const uint8_t *body) noexcept nogil:
    """Its place there; `body` is what follows the header, and holds at least 8 bytes if the line is ordered by time."""
    cdef int64_t time
    if line_of(h) < DELAYED_LINE:
        return place_of(h)
    memcpy(&time, body, 8)
    return time


cdef inline void seal_header(RecordHeader *h, uint32_t salt, uint64_t offset) noexcept nogil:
    h.header_crc = crc32c_of_header(salt ^ <uint32_t>(offset >> 3), h, RECORD_HEADER_SIZE)


cdef inline void store_header(uint8_t *at, const RecordHeader *h) noexcept nogil:
    """Publish: all of the header but its first word, then that word in one store. Until then the record does not exist."""
    copy_words(at + 8, <const uint8_t *>h + 8, RECORD_HEADER_SIZE - 8)
    crc32c_publish8(at, <uint64_t>h.header_crc | <uint64_t>h.length << 32)


cdef inline bint header_checks(const RecordHeader *h, uint32_t salt, uint64_t offset) noexcept nogil:
    return h.header_crc == crc32c_of_header(salt ^ <uint32_t>(offset >> 3), h, RECORD_HEADER_SIZE)


cdef inline bint payload_checks(const RecordHeader *h, uint32_t salt, const uint8_t *payload) noexcept nogil:
    return h.payload_crc == c_crc32c(salt, payload, h.length)


cdef inline void put_id_low(uint8_t *id, uint64_t low) noexcept nogil:
    low = __builtin_bswap64((low & (<uint64_t>0x3fffffffffffffff)) | (<uint64_t>1 << 63))
    memcpy(id + 8, &low, 8)


cdef inline void put_id(uint8_t *id, int64_t now_ns, uint64_t low) noexcept nogil:
    """UUIDv7 (RFC 9562, method 3): milliseconds, 12 bits of their fraction, 62 bits of a counter that began at random."""
    cdef uint64_t ms = <uint64_t>now_ns // 1000000
    cdef uint64_t fraction = ((<uint64_t>now_ns % 1000000) << 12) // 1000000
    cdef uint64_t high = ms << 16 | 0x7000 | fraction
    cdef uint64_t swapped = __builtin_bswap64(high)
    memcpy(id, &swapped, 8)
    put_id_low(id, low)


cdef extern from *:
    uint64_t __builtin_bswap64(uint64_t) nogil
    int __builtin_popcount(unsigned int) nogil
    int __builtin_ctzll(unsigned long long) nogil

cdef uint64_t list_records(const uint8_t *p, uint64_t at, uint64_t readable, uint64_t tail, uint32_t salt, list lanes) except 0
