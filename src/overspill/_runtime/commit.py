"""Group commit: callers that need a sync at the same time share one.

The first caller syncs, and whoever comes while it does joins the next round: one of them is made its leader, and its sync, begun after all of them had written,
covers them all. Nobody waits for more than the sync under way and the next.
"""
from __future__ import annotations

import threading
from collections.abc import Callable

__all__ = ["GroupCommit"]


class _Follower:
    __slots__ = ("error", "leads", "lock")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.lock.acquire()
        self.leads = False
        self.error: BaseException | None = None


class GroupCommit:
    """`covered()` returns when a sync that began after the call has succeeded, and raises what that sync raised."""

    def __init__(self, sync: Callable[[], None]) -> None:
        self._sync = sync
        self._mutex = threading.Lock()
        self._under_way = False
        self._line: list[_Follower] = []
        self.rounds = 0

    def covered(self) -> None:
        follower = None
        with self._mutex:
            if self._under_way:
                follower = _Follower()
                self._line.append(follower)
            else:
                self._under_way = True
        if follower is not None:
            try:
                follower.lock.acquire()
            except BaseException:
                self._desert(follower)
                raise
            if follower.error is not None:
                raise follower.error
            if not follower.leads:
                return
        self._lead()

    def _lead(self) -> None:
        with self._mutex:
            covered, self._line = self._line, []
        error: BaseException | None = None
        try:
            self._sync()
        except BaseException as raised:
            error = raised
        self._hand_over(covered, error)
        if error is not None:
            raise error

    def _hand_over(self, covered: list[_Follower], error: BaseException | None) -> None:
        """The next leader first, so that its sync begins before those covered wake up."""
        with self._mutex:
            self.rounds += 1
            if self._line:
                leader = self._line.pop(0)
                leader.leads = True
                leader.lock.release()
            else:
                self._under_way = False
        for follower in covered:
            follower.error = error if isinstance(error, Exception) else None
            if error is not None and not isinstance(error, Exception):
                # The leader was interrupted, not the disk: somebody else must sync for them.
                follower.error = InterruptedError("the thread that synced for this one was interrupted; the outcome is not known")
            follower.lock.release()

    def _desert(self, follower: _Follower) -> None:
        """A follower was interrupted while it waited; if it had been made leader meanwhile, the round still needs one."""
        with self._mutex:
            if follower in self._line:
                self._line.remove(follower)
                return
            leads = follower.leads
        if leads:
            self._lead()
