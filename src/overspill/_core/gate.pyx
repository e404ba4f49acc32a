"""A lock that turns a hot way off while it is held.

The hot verbs take no lock: they are atomic because they run no Python code. Whoever must keep the tail (or the head) of a queue still over a call
that drops the interpreter lock holds its gate; the hot verbs see their switch off and go the slow way, which waits for the gate.

It is compiled so that a signal finds it held or free: Python looks at signals between the instructions of its own code, and whoever is interrupted between taking a lock and
being noted as its holder leaves it locked for ever.
"""
from _thread import RLock

cdef extern from "<unistd.h>" nogil:
    int usleep(unsigned int microseconds)

cdef double SOON_S = 0.001
cdef enum:
    PAUSE_US = 100


cdef class Gate:
    """`with gate:` — re-entrant. `allowed` says whether the hot way may be on when nobody holds it."""

    @staticmethod
    cdef Gate over(object owner, bint *switch, Gate gate):
        """Make it the gate of what this switch of its owner turns off."""
        gate.lock = RLock()
        gate.owner = owner
        gate.switch = switch
        return gate

    def __enter__(self):
        if not self.lock.acquire(False):
            self._waiting += 1
            try:
                self.lock.acquire()
            finally:
                self._waiting -= 1
        self.entered()

    def __exit__(self, *_):
        self.leave_it()

    cdef int leave_it(self) except -1:
        try:
            if self.depth == 1:
                self.going()
        finally:
            self.depth -= 1
            if self.depth == 0:
                self.switch[0] = self.allowed
            self.lock.release()
        return 0

    cdef int going(self) except -1:
        """The last thing that is done with the gate held."""
        return 0

    def soon(self):
        """`with gate.soon() as entered:` — enter if that takes no more than a millisecond. For who holds up an event loop."""
        cdef Soon soon = Soon.__new__(Soon)
        soon.gate = self
        return soon

    def let_others_in(self):
        """Between two holds of a long loop. A lock goes to whoever asks first, which would always be the loop again."""
        if self._waiting > 0 and self.depth == 0:
            with nogil:
                usleep(PAUSE_US)

    def allow(self, bint allowed):
        """Whether the hot way is on from now on, while nobody holds the gate."""
        with self:
            self.allowed = allowed


cdef class Soon:
    """A gate that is entered only if nobody else is there for long."""
    cdef Gate gate
    cdef bint entered

    def __enter__(self):
        self.entered = self.gate.lock.acquire(True, SOON_S)
        if self.entered:
            self.gate.entered()
        return self.entered

    def __exit__(self, *_):
        if self.entered:
            self.entered = False
            self.gate.leave_it()


cdef class IfFree:
    """`with IfFree(lock) as taken:` — take a lock if nobody has it."""
    cdef object lock
    cdef bint taken

    def __init__(self, lock):
        self.lock = lock

    def __enter__(self):
        self.taken = self.lock.acquire(False)
        return self.taken

    def __exit__(self, *_):
        if self.taken:
            self.taken = False
            self.lock.release()
