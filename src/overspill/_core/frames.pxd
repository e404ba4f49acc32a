from libc.stdint cimport uint8_t, uint32_t, uint64_t
cimport cython

@cython.final
cdef class Frames:
    cdef readonly bint by_length
    cdef readonly Py_ssize_t stop    # behind the last one that is complete
    cdef readonly Py_ssize_t longest # payload, in bytes
    cdef readonly uint64_t record_bytes
    cdef const uint8_t[::1] view     # of the block, which cannot change its size meanwhile
    cdef const uint8_t *block
    cdef Py_ssize_t n
    cdef Py_ssize_t room
    cdef uint32_t *ends

    cdef int add(self, Py_ssize_t end) except -1

    cdef inline Py_ssize_t payload_start(self, Py_ssize_t i) noexcept nogil:
        return (self.ends[i - 1] if i else 0) + (4 if self.by_length else 0)

    cdef inline Py_ssize_t payload_end(self, Py_ssize_t i) noexcept nogil:
        return self.ends[i] - (0 if self.by_length else 1)

    cdef inline Py_ssize_t payload_bytes(self, Py_ssize_t i) noexcept nogil:
        return self.payload_end(i) - self.payload_start(i)
