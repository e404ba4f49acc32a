cdef class Limiter:
    cdef double rate, burst, tokens, then_s
    cdef public Py_ssize_t queued

    cdef double tokens_at(self, double now_s) noexcept
    cdef double wait_s(self, double now_s, double need) noexcept
    cdef double take_at(self, double now_s, Py_ssize_t n) noexcept
    cdef bint take_now(self, Py_ssize_t n) noexcept
