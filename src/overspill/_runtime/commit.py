"""Group commit: callers that need a sync at the same time share one.

The first caller syncs, and whoever comes while it does joins the next round: one of them is made its leader, and its sync, begun after all of them had written,
covers them all. Nobody waits for more than the sync under way and the next.

A thread that leads syncs itself. A task cannot, as its event loop would stand still: where only tasks wait, the *committer* leads, a thread of the process that is there as
long as it has rounds to lead. Threads and tasks share the same rounds.
"""
from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable

from .waiters import Waiter

__all__ = ["Follower", "GroupCommit"]


class Follower(Waiter):
    """One who waits for a sync that begins from now on; `outcome` then raises what that sync raised."""

    __slots__ = ("_commit", "_error", "can_lead", "leads")

    def __init__(self, commit: GroupCommit) -> None:
        super().__init__()
        self._commit = commit
        self._error: BaseException | None = None
        self.can_lead = False
        self.leads = False

    def wait(self, timeout: float | None = None) -> None:
        """A thread waits: if nobody syncs, or it is made the leader, it syncs for all who have come by then."""
        self.can_lead = True
        try:
            if not self._commit.join(self):
                super().wait(None)
            if self.leads:
                self._error = self._commit.lead(self)
        except BaseException:
            self._commit.desert(self)
            raise

    def call(self, wake_up: Callable[[], bool]) -> None:
        """A task waits: somebody else must sync for it."""
        super().call(wake_up)
        if self._commit.join(self):
            _committer.lead(self._commit)

    def covered(self, error: BaseException | None) -> None:
        """The sync it waited for is over."""
        self._error = error
        self.wake()

    def desert(self) -> None:
        """It was interrupted and does not wait any more."""
        self._commit.desert(self)

    def outcome(self) -> None:
        if self._error is not None:
            raise self._error


class GroupCommit:
    """The rounds of one queue."""

    def __init__(self, sync: Callable[[], None]) -> None:
        self._sync = sync
        self._mutex = threading.Lock()
        self._under_way = False
        self._line: list[Follower] = []
        self.rounds = 0

    def covered(self) -> None:
        """Block until a sync that began after the call has succeeded; raises what that sync raised."""
        follower = Follower(self)
        follower.wait()
        follower.outcome()

    def join(self, follower: Follower) -> bool:
        """Step into the line of the next round; True if there is none under way and the caller must see to it that this one is led."""
        with self._mutex:
            if self._under_way:
                self._line.append(follower)
                return False
            self._under_way = True
            if follower.can_lead:
                follower.leads = True
            else:
                self._line.append(follower)
            return True

    def lead(self, leader: Follower | None = None) -> Exception | None:
        """Sync for everyone in line, and see to the next round; returns what the sync raised. Without a leader it is the committer who leads."""
        covered: list[Follower] = []
        error: Exception | None = None
        try:
            with self._mutex:
                covered, self._line = self._line, []
            self._sync()
        except Exception as raised:
            error = raised
        except BaseException:
            # The leader was interrupted, not the disk: somebody else must sync for them.
            with self._mutex:
                self._line[:0] = covered
            raise
        self._next_round(leader)
        for follower in covered:
            follower.covered(error)
        return error

    def _next_round(self, leader: Follower | None) -> None:
        """Hand over before those covered are woken, so that the next sync begins first."""
        with self._mutex:
            self.rounds += 1
            if leader is not None:
                leader.leads = False
            heir = next((follower for follower in self._line if follower.can_lead), None)
            if heir is not None:
                self._line.remove(heir)
                heir.leads = True
                heir.wake()
            elif self._line:
                _committer.lead(self)
            else:
                self._under_way = False

    def desert(self, follower: Follower) -> None:
        """A follower was interrupted. If it leads, or had just been made to, the round needs another leader."""
        with self._mutex:
            if follower in self._line:
                self._line.remove(follower)
            leads = follower.leads
        if leads:
            self._next_round(follower)


class _Committer:
    """The thread that leads where only tasks wait. One for the process; it goes when there is no round left to lead."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._due: deque[GroupCommit] = deque()
        self._running = False

    def lead(self, commit: GroupCommit) -> None:
        """Have a round led. Does not block."""
        with self._mutex:
            self._due.append(commit)
            if self._running:
                return
            self._running = True
        threading.Thread(target=self._run, name="overspill-committer", daemon=True).start()

    def _run(self) -> None:
        while True:
            with self._mutex:
                if not self._due:
                    self._running = False
                    return
                commit = self._due.popleft()
            commit.lead()


_committer = _Committer()


def _after_fork_in_child() -> None:
    global _committer
    _committer = _Committer()


os.register_at_fork(after_in_child=_after_fork_in_child)
