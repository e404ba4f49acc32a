from libc.stdint cimport int64_t

cdef class Waiter:
    cdef public bint woken
    cdef object call_back                # of one who does not block
    cdef object lock

    cdef bint wake_it(self) except -1

cdef class Waiters:
    cdef object line                     # a deque
    cdef object owner                    # whom `length` belongs to
    cdef int64_t *length                 # what the hot verbs look at
    cdef object is_there

    @staticmethod
    cdef Waiters over(object owner, int64_t *length, object is_there)
    cdef int wake_first(self) except -1
