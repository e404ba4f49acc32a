"""An item on its way in, and the records that are made of such items.

The hot ways need no parcel: what they append, they append as it is. A parcel is for an item that was encoded, compressed, put in front, delayed or moved.
"""
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE

from .record cimport DEAD_LINE, DELAYED_LINE, FLAG_DEAD, FLAG_DELAYED, RECORD_HEADER_SIZE, RecordHeader, c_crc32c, record_size, seal_header
from .segmap cimport SegmentMap


cdef class Parcel:
    """An item on its way in: what stays in memory, and what is written."""

    @property
    def line(self):
        """The line that it is written for."""
        if self.flags & FLAG_DELAYED:
            return DELAYED_LINE
        return DEAD_LINE if self.flags & FLAG_DEAD else self.priority

    def __init__(self, item, bint direct, uint8_t kind, uint8_t codec, bytes payload not None, uint32_t nbytes, uint8_t priority, int64_t expiry_ns=0):
        self.item, self.direct, self.kind, self.codec = item, direct, kind, codec
        self.payload, self.nbytes, self.priority, self.expiry_ns = payload, nbytes, priority, expiry_ns


cdef void head_of(Parcel parcel, RecordHeader *h, uint32_t batch_left) noexcept:
    h.length, h.raw_length = <uint32_t>PyBytes_GET_SIZE(parcel.payload), parcel.nbytes
    h.sequence, h.enqueued_ns, h.expiry_ns = parcel.sequence, parcel.enqueued_ns, parcel.expiry_ns
    memcpy(h.id, PyBytes_AS_STRING(parcel.id), 16)
    h.batch_left, h.priority, h.flags = batch_left, parcel.priority, parcel.flags
    h.codec, h.kind, h.attempts = parcel.codec, parcel.kind, parcel.attempts
    h.extension = parcel.extension
    h.reserved = 0


def append_mapped(SegmentMap map not None, list parcels not None):
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
        head_of(parcel, &h, <uint32_t>(count - 1 - i))
        offsets.append(map.append(&h, <const uint8_t *>PyBytes_AS_STRING(parcel.payload), i != 0))
        if i == 0:
            first = h
        i += 1
    map.publish(at, &first)
    return offsets


def render(SegmentMap map not None, uint64_t at, list parcels not None, uint32_t batch_left):
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
        head_of(parcel, &h, left)
        h.synced = <uint32_t>(map.synced >> 3)
        h.payload_crc = c_crc32c(map.salt, PyBytes_AS_STRING(parcel.payload), h.length)
        seal_header(&h, map.salt, at)
        memcpy(p, &h, RECORD_HEADER_SIZE)
        memcpy(p + RECORD_HEADER_SIZE, PyBytes_AS_STRING(parcel.payload), h.length)
        size = record_size(h.length)
        p += size
        at += size
    return out


def render_header(SegmentMap map not None, uint64_t at, Parcel parcel not None, uint32_t batch_left):
    """The header of a large record at offset `at`; the payload's CRC is computed without the interpreter lock."""
    cdef RecordHeader h
    cdef const char *p = PyBytes_AS_STRING(parcel.payload)
    cdef size_t n = PyBytes_GET_SIZE(parcel.payload)
    cdef uint32_t crc, salt = map.salt
    with nogil:
        crc = c_crc32c(salt, p, n)
    head_of(parcel, &h, batch_left)
    h.synced = <uint32_t>(map.synced >> 3)
    h.payload_crc = crc
    seal_header(&h, salt, at)
    return PyBytes_FromStringAndSize(<char *>&h, RECORD_HEADER_SIZE)
