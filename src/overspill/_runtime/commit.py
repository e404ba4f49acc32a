"""Group commit: callers that need a sync at the same time share one.

The first caller syncs, and whoever comes while it does joins the next round: one of them is made its leader, and its sync, begun after all of them had written,
covers them all. Nobody waits for more than the sync under way and the next.

A thread that leads syncs itself. A task cannot, as its event loop would stand still: where only tasks wait, the *committer* leads, a thread of the process that is there as
long as it has rounds to lead. Threads and tasks share the same rounds.

A leader may be interrupted anywhere. Then those who joined its round are in line again, and somebody else leads the next one; the order of the steps here is such that nobody is forgotten.
"""
from __future__ import annotations

import threading
from collections.abc import Callable

from .._core.waiters import Waiter
from .standby import committer

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
            committer.do(self._commit.lead)

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
            try:
                self._sync()
            except Exception as raised:
                error = raised
            self._next_round(leader)
            for follower in covered:
                follower.covered(error)
        except BaseException:
            # The leader was interrupted, not the disk: somebody else must sync for those who do not know yet.
            with self._mutex:
                self._line[:0] = [follower for follower in covered if not follower.woken]
            raise
        return error

    def _next_round(self, leader: Follower | None) -> None:
        """Hand over before those covered are woken, so that the next sync begins first. May be interrupted and called again: the leader leads until there is another."""
        with self._mutex:
            self.rounds += 1
            heir = next((follower for follower in self._line if follower.can_lead), None)
            if heir is not None:
                heir.leads = True
                heir.wake()
                self._line.remove(heir)
            elif self._line:
                committer.do(self.lead)
            else:
                self._under_way = False
            if leader is not None:
                leader.leads = False

    def desert(self, follower: Follower) -> None:
        """A follower was interrupted. If it leads, or had just been made to, the round needs another leader; so does a line that it has left without one."""
        with self._mutex:
            if follower in self._line:
                self._line.remove(follower)
            deserted = follower.leads or (bool(self._line) and not self._under_way)
            if deserted:
                self._under_way = True
        if deserted:
            self._next_round(follower)
