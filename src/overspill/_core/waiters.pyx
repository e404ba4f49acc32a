"""Who waits for an item, or for room: first come, first served.

Nothing polls. A waiter enters the line, looks once more (so that nothing that happened in between is missed), and sleeps until it is woken. Whoever was woken and
leaves without taking what it was woken for wakes the next, so no wake-up is lost.

A waiter may be a thread, which blocks in `wait`, or a task, which says by `call` what is to be called. The line does not know which; `_runtime/waiting.py` says how a verb
comes to be either.

The hot verbs look at a number only (`_n_takers`, `_n_makers` of the queue): it is the length of the line, kept here.

It is compiled for the same reason as the gates: each step is whole before a signal is looked at, so nobody is taken out of the line and not woken. The interpreter lock is what guards it.
"""
from _thread import allocate_lock
from collections import deque
from libc.stdint cimport int64_t

cdef object TIMEOUT_MAX
from _thread import TIMEOUT_MAX


cdef class Waiter:
    """One who waits, once."""

    def __cinit__(self, *args, **kwargs):
        self.lock = allocate_lock()
        self.lock.acquire()

    def wait(self, timeout):
        """Block this thread until woken or until so many seconds have passed."""
        if timeout is None:
            self.lock.acquire()
        else:
            self.lock.acquire(True, min(max(timeout, 0.0), TIMEOUT_MAX))

    def call(self, wake_up):
        """Do not block: `wake_up` is called when it is time, in whatever thread; perhaps at once, perhaps twice. It returns whether there is anybody left to wake."""
        self.call_back = wake_up
        if self.woken:  # before it was heard; `wake` looks in the other order, so one of the two calls
            wake_up()

    def wake(self):
        """Wake it; False if there is nobody any more (a task whose loop has been closed)."""
        return self.wake_it()

    cdef bint wake_it(self) except -1:
        if not self.woken:
            self.woken = True
            self.lock.release()
        return self.call_back is None or bool(self.call_back())


cdef class Waiters:
    """A line of waiters. `is_there` says whether there may be what they wait for."""

    def __cinit__(self, *args, **kwargs):
        self.line = deque()

    @staticmethod
    cdef Waiters over(object owner, int64_t *length, object is_there):
        """Make a line whose length is told to its owner."""
        cdef Waiters waiters = Waiters.__new__(Waiters)
        waiters.owner, waiters.length, waiters.is_there = owner, length, is_there
        return waiters

    def place(self):
        """A place in this line, for one who may have to wait."""
        cdef Place place = Place.__new__(Place)
        place.line = self
        return place

    def enter(self, Waiter waiter not None, *, bint first=False):
        """Step into the line, at its end or at its front."""
        if first:
            self.line.appendleft(waiter)
        else:
            self.line.append(waiter)
        self.length[0] = len(self.line)

    def leave(self, Waiter waiter not None):
        """Step out of the line, whether woken, in line, or interrupted before it had entered; what is there is for the next."""
        if waiter in self.line:
            self.line.remove(waiter)
        self.length[0] = len(self.line)
        if self.line:
            try:
                there = self.is_there is None or self.is_there()
            except BaseException:
                self.wake_first()  # interrupted, and so not known: the next one looks for itself
                raise
            if there:
                self.wake_first()

    def wake(self):
        """Wake the first in line."""
        self.wake_first()

    cdef int wake_first(self) except -1:
        cdef Waiter waiter
        while self.line:
            waiter = self.line.popleft()
            self.length[0] = len(self.line)
            if waiter.wake_it():
                break
        return 0

    def wake_all(self):
        """Wake everybody."""
        cdef Waiter waiter
        while self.line:
            waiter = self.line.popleft()
            self.length[0] = len(self.line)
            waiter.wake_it()

    def __len__(self):
        return len(self.line)


cdef class Place:
    """Somebody's place in a line: taken when it turns out that one must wait, left at the end of the block, however that comes about.

        with line.place() as place:
            while not (found := look()):
                if not place.take():
                    yield place.waiter, timeout
    """

    cdef Waiters line
    cdef readonly Waiter waiter

    def take(self):
        """Stand in line; who was woken in vain stands first again. True if one did not stand there yet: look once more, then, for what one waits for may have come before."""
        cdef bint again = self.waiter is not None
        if again and not self.waiter.woken:
            return False
        self.waiter = Waiter.__new__(Waiter)
        self.line.enter(self.waiter, first=again)
        return True

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.waiter is not None:
            self.line.leave(self.waiter)
