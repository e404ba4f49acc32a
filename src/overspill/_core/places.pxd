cimport cython
from libc.stdint cimport uint8_t, uint16_t, uint64_t

from .lane cimport Entry, Lane
from .lanes cimport Claim, Lanes
from .segmap cimport SegmentMap

cdef class Places(Lanes):
    @cython.final
    cdef object describe(self, Entry *e)
    @cython.final
    cdef int next_ring(self, int priority) except -2
    @cython.final
    cdef int oldest_ring(self) except -2
    @cython.final
    cdef Entry *find_anywhere(self, Lane lane, uint64_t sequence) noexcept
    @cython.final
    cdef Entry *find(self, Lane lane, uint64_t sequence) noexcept
    @cython.final
    cdef void forget(self, Lane lane, Entry *e)
    @cython.final
    cdef object seen(self, Claim claim, Entry *e)
    @cython.final
    cdef bint is_dense(self, Lane lane) noexcept
    @cython.final
    cdef bint is_in(self, Entry *e, SegmentMap map) except -1
    @cython.final
    cdef int staged(self, uint16_t line, uint64_t sequence, SegmentMap map, uint64_t offset, uint8_t codec) except -1
