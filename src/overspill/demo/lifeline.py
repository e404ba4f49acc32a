"""A child of the supervisor ends when the supervisor does, even when that is killed.

The kernel is asked to send SIGKILL to this process when its parent dies. Each process of the demo calls this first.
"""

from __future__ import annotations

import ctypes
import os
import signal

_PR_SET_PDEATHSIG = 1


def die_with_parent(parent: int) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:  # it died before we could ask
        os._exit(1)
