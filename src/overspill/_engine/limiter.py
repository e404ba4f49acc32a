"""How fast items may come in: a bucket of tokens that fills at a steady rate.

``take`` is asked with the time and answers with a wait: 0.0 means the tokens are taken, anything else says in how many
seconds to ask again, and nothing was taken. No clock, no thread, no sleeping: whoever waits does so elsewhere, and a test
hands in whatever time it likes.

What holds:

* In any span of t seconds no more than ``burst + rate * t`` items pass, batches of more than ``burst`` aside.
* A batch larger than the bucket would never fit. It passes when the bucket is full, and leaves a debt that is worked
  off at the same rate before anything else passes. The long run is exact; only the burst is exceeded, by that one batch.
* A clock that goes back gives no tokens and takes none away. By less than a second it is another thread's older reading,
  and the time up to the newest reading has already been counted; by more it has been set, and counting starts anew.
* The wait it names is enough: asked again after exactly that long, it grants.

Not locked: a call touches two floats. The caller holds whatever makes the admission itself atomic.
"""

from __future__ import annotations

import math
from typing import Protocol

__all__ = ["Limiter"]


_CLOCK_WAS_SET_S = 1.0


class _Rate(Protocol):
    """What the limiter needs of a ``RateLimit``."""

    @property
    def rate(self) -> float: ...
    @property
    def burst(self) -> int: ...


class Limiter:
    """A token bucket after a ``RateLimit``; full at first."""

    __slots__ = ("_burst", "_rate", "_then_s", "_tokens")

    def __init__(self, limit: _Rate) -> None:
        self._rate = float(limit.rate)
        self._burst = float(limit.burst)
        self._tokens = self._burst
        self._then_s = -math.inf

    def take(self, now_s: float, n: int = 1) -> float:
        """0.0 if ``n`` items may pass now; else the seconds until they might, and nothing is taken."""
        tokens = self.available(now_s)
        if now_s > self._then_s or now_s < self._then_s - _CLOCK_WAS_SET_S:
            self._then_s = now_s
        self._tokens = tokens
        need = min(n, self._burst)  # a larger batch waits for a full bucket, and goes into debt
        if tokens >= need:
            self._tokens = tokens - n
            return 0.0
        return self._wait_s(now_s, need)

    def give_back(self, n: int = 1) -> None:
        """Undo a ``take`` whose items were then refused for another reason."""
        self._tokens = min(self._burst, self._tokens + n)

    def available(self, now_s: float) -> float:
        """Tokens there would be now; negative while a large batch is worked off. Changes nothing."""
        if now_s <= self._then_s or self._tokens >= self._burst:
            return self._tokens
        return min(self._burst, self._tokens + (now_s - self._then_s) * self._rate)

    def _wait_s(self, now_s: float, need: float) -> float:
        # Rounding may leave the bucket a hair short of the need, and a caller who came back on time would be sent
        # away again for a nanosecond. So step up until it is enough at the very moment it will be asked.
        wait_s = (need - self._tokens) / self._rate + (self._then_s - now_s)
        while self.available(now_s + wait_s) < need:
            wait_s = max(math.nextafter(wait_s, math.inf), math.nextafter(now_s + wait_s, math.inf) - now_s)
        return wait_s
