cdef class Gate:
    cdef object lock                     # re-entrant
    cdef object owner                    # whom `switch` belongs to
    cdef bint *switch
    cdef Py_ssize_t depth
    cdef readonly Py_ssize_t _waiting    # a hint only: it need not be exact
    cdef public bint allowed

    @staticmethod
    cdef Gate over(object owner, bint *switch, Gate gate)
    cdef inline bint try_enter(self) except -1:
        """Enter if nobody else is there."""
        if not self.lock.acquire(False):
            return False
        self.entered()
        return True

    cdef inline void entered(self) noexcept:
        self.depth += 1
        self.switch[0] = False

    cdef int leave_it(self) except -1
    cdef int going(self) except -1
