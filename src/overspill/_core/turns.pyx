"""Who waits for the rate limit: each in turn, in the order of the calls.

Only the first in line may take tokens, and the hot way asks for none while anybody stands there (`queued` of the limiter): otherwise a batch that needs many tokens would wait for ever, while
single items took each as it came. The first sleeps until its tokens are there, the others until they are first; whoever leaves, served or not, wakes the next.

Compiled for the same reason as the other lines: no signal finds a turn half taken, or half left.
"""
from collections import deque

from .limiter cimport Limiter
from .waiters cimport Waiter


cdef class Turns:
    """The line."""
    cdef Limiter limiter
    cdef object line                     # a deque

    def __init__(self, Limiter limiter not None):
        self.limiter, self.line = limiter, deque()

    def turn(self, Py_ssize_t n):
        """A turn for `n` items; it stands in line from the beginning of its `with` block to the end."""
        cdef Turn turn = Turn.__new__(Turn)
        turn.turns, turn.n, turn.waiter = self, n, Waiter.__new__(Waiter)
        return turn

    def wake_first(self):
        """There may be more tokens than it sleeps for."""
        if self.line:
            (<Turn>self.line[0]).waiter.wake_it()

    def wake_all(self):
        """Everybody is to look again."""
        cdef Turn turn
        for turn in tuple(self.line):
            turn.waiter.wake_it()


cdef class Turn:
    """One call that waits.

        with turns.turn(n) as turn:
            while turn.ahead() or not look():
                yield turn.waiter, timeout
    """
    cdef Turns turns
    cdef readonly Waiter waiter
    cdef Py_ssize_t n

    def ahead(self):
        """How many items are to pass before. Asked before every sleep: a wake-up that comes after this is not missed."""
        cdef Turn other
        cdef Py_ssize_t n = 0
        if self.waiter.woken:
            self.waiter = Waiter.__new__(Waiter)
        for other in self.turns.line:
            if other is self:
                break
            n += other.n
        return n

    def __enter__(self):
        self.turns.line.append(self)
        self.turns.limiter.queued = len(self.turns.line)
        return self

    def __exit__(self, *_):
        if self in self.turns.line:
            self.turns.line.remove(self)
        self.turns.limiter.queued = len(self.turns.line)
        self.turns.wake_first()
