"""How fast items may come in."""
from ..options import RateLimit

class Limiter:
    """A token bucket after a `RateLimit`; full at first."""

    queued: int
    """Who waits in line for tokens. While there is anybody, `take_now` grants none."""

    def __init__(self, limit: RateLimit) -> None: ...
    def take(self, now_s: float, n: int = 1) -> float:
        """0.0 if `n` items may pass now; else the seconds until they might, and nothing is taken."""
    def wait(self, now_s: float, n: int, ahead: int) -> float:
        """In how many seconds `n` items might pass once `ahead` others have. Changes nothing."""
    def give_back(self, n: int = 1) -> None:
        """Undo a `take` whose items were then refused for another reason."""
    def available(self, now_s: float) -> float:
        """Tokens there would be now. Changes nothing."""
