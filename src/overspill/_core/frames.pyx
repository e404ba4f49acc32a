"""A stream of bytes as frames: where those that are complete in a block of it end.

A frame is a line, whose newline is not part of its payload, or a length (four bytes, big-endian) and so many bytes. Finding all ends of a block costs a pass over it and four bytes for each, no
object: whoever only passes the block on never needs the payloads by themselves.
"""
from libc.stdint cimport uint8_t, uint32_t
from libc.stdlib cimport free, realloc
from libc.string cimport memchr, memcpy
from cpython.bytes cimport PyBytes_FromStringAndSize

from .record cimport record_size

cdef extern from *:
    uint32_t __builtin_bswap32(uint32_t) nogil

cdef enum:
    LENGTH_SIZE = 4


cdef class Frames:
    """The complete frames in the first `size` bytes of `block`, which must not be written to while they are in use. The first one has no end before byte `searched`."""

    def __init__(self, block, Py_ssize_t size, bint by_length, Py_ssize_t searched=0):
        cdef const uint8_t *newline
        cdef Py_ssize_t at = 0
        cdef uint32_t length
        self.view = block
        if not 0 <= searched <= size <= self.view.shape[0] or size > 0x7fffffff:
            raise ValueError("frames lie inside of their block, which is smaller than 2 GiB")
        self.by_length = by_length
        self.n = self.stop = self.longest = 0
        self.record_bytes = 0
        self.block = &self.view[0] if size else NULL
        while at < size:
            if by_length:
                if size - at < LENGTH_SIZE:
                    break
                memcpy(&length, self.block + at, LENGTH_SIZE)
                length = __builtin_bswap32(length)
                if <Py_ssize_t>length > size - at - LENGTH_SIZE:
                    break
                at += LENGTH_SIZE + length
            else:
                searched = max(searched, at)
                newline = <const uint8_t *>memchr(self.block + searched, c"\n", size - searched)
                if newline == NULL:
                    break
                at = newline - self.block + 1
            self.add(at)
        self.stop = at

    def __dealloc__(self):
        free(self.ends)

    cdef int add(self, Py_ssize_t end) except -1:
        cdef uint32_t *grown
        if self.n == self.room:
            grown = <uint32_t *>realloc(self.ends, (2 * self.room + 256) * sizeof(uint32_t))
            if grown == NULL:
                raise MemoryError
            self.ends, self.room = grown, 2 * self.room + 256
        self.ends[self.n] = <uint32_t>end
        self.longest = max(self.longest, self.payload_bytes(self.n))
        self.record_bytes += record_size(self.payload_bytes(self.n))
        self.n += 1
        return 0

    def __len__(self):
        return self.n

    def payloads(self, Py_ssize_t start=0):
        """The frames as bytes, each by itself, without the first `start`."""
        cdef Py_ssize_t i
        out = []
        for i in range(max(start, <Py_ssize_t>0), self.n):
            out.append(PyBytes_FromStringAndSize(<const char *>self.block + self.payload_start(i), self.payload_bytes(i)))
        return out

    def whole_in(self, Py_ssize_t nbytes):
        """How many of them the first so many bytes of the block hold to their ends."""
        cdef Py_ssize_t low = 0, high = self.n, middle
        while low < high:
            middle = (low + high) // 2
            if <Py_ssize_t>self.ends[middle] <= nbytes:
                low = middle + 1
            else:
                high = middle
        return low
