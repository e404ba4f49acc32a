"""How fast items may come in: a bucket of tokens that fills at a steady rate.

`take` is asked with the time and answers with a wait: 0.0 means the tokens are taken, anything else says in how many seconds to ask again, and nothing was taken.
No thread, no sleeping: whoever waits does so elsewhere, and a test hands in whatever time it likes. Only the hot verbs, which have no time to be handed one, read the clock themselves.

What holds:

* In any span of t seconds no more than `burst + rate * t` items pass, batches of more than `burst` aside.
* A batch larger than the bucket would never fit. It passes when the bucket is full, and leaves a debt that is worked off at the same rate before anything else passes. The
  long run is exact; only the burst is exceeded, by that one batch.
* A clock that goes back gives no tokens and takes none away. By less than a second it is another thread's older reading, and the time up to the newest reading has already
  been counted; by more it has been set, and counting starts anew.
* The wait it names is enough: asked again after exactly that long, it grants.
* Who waits in line (`queued`) is not overtaken by the hot verbs; the line itself is kept elsewhere.

A call runs no Python code and is therefore atomic under the interpreter lock.
"""
from libc.math cimport INFINITY, nextafter

cdef extern from "<time.h>" nogil:
    struct timespec:
        long tv_sec
        long tv_nsec
    int clock_gettime(int clock, timespec *t)
    enum: CLOCK_MONOTONIC

cdef double CLOCK_WAS_SET_S = 1.0


cdef class Limiter:
    """A token bucket after a `RateLimit`; full at first."""

    def __init__(self, limit):
        self.rate = limit.rate
        self.burst = self.tokens = limit.burst
        self.then_s = -INFINITY

    def take(self, double now_s, Py_ssize_t n=1):
        """0.0 if `n` items may pass now; else the seconds until they might, and nothing is taken."""
        return self.take_at(now_s, n)

    cdef double take_at(self, double now_s, Py_ssize_t n) noexcept:
        cdef double tokens = self.tokens_at(now_s)
        cdef double need = min(<double>n, self.burst)  # a larger batch waits for a full bucket, and goes into debt
        if now_s > self.then_s or now_s < self.then_s - CLOCK_WAS_SET_S:
            self.then_s = now_s
        self.tokens = tokens
        if tokens >= need:
            self.tokens = tokens - n
            return 0.0
        return self.wait_s(now_s, need)

    cdef bint take_now(self, Py_ssize_t n) noexcept:
        """`take` by the machine's monotonic clock, for the hot verbs."""
        cdef timespec t
        if self.queued:
            return False  # whoever waits was here first
        clock_gettime(CLOCK_MONOTONIC, &t)
        return self.take_at(t.tv_sec + 1e-9 * t.tv_nsec, n) == 0.0

    def wait(self, double now_s, Py_ssize_t n, Py_ssize_t ahead):
        """In how many seconds `n` items might pass once `ahead` others have. Changes nothing."""
        cdef double lacking = min(<double>n, self.burst) + ahead - self.tokens_at(now_s)
        return max(0.0, lacking / self.rate)

    def give_back(self, Py_ssize_t n=1):
        """Undo a `take` whose items were then refused for another reason."""
        self.tokens = min(self.burst, self.tokens + n)

    def available(self, double now_s):
        """Tokens there would be now; negative while a large batch is worked off. Changes nothing."""
        return self.tokens_at(now_s)

    cdef double tokens_at(self, double now_s) noexcept:
        if now_s <= self.then_s or self.tokens >= self.burst:
            return self.tokens
        return min(self.burst, self.tokens + (now_s - self.then_s) * self.rate)

    cdef double wait_s(self, double now_s, double need) noexcept:
        # Rounding may leave the bucket a hair short of the need, and a caller who came back on time would be sent
        # away again for a nanosecond. So step up until it is enough at the very moment it will be asked.
        cdef double wait = (need - self.tokens) / self.rate + (self.then_s - now_s)
        while self.tokens_at(now_s + wait) < need:
            wait = max(nextafter(wait, INFINITY), nextafter(now_s + wait, INFINITY) - now_s)
        return wait
