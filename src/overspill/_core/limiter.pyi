"""How fast items may come in."""
from ..options import RateLimit

class Limiter:
    """A token bucket after a `RateLimit`; full at first."""

    def __init__(self, limit: RateLimit) -> None: ...
    def take(self, now_s: float, n: int = 1) -> float:
        """0.0 if `n` items may pass now; else the seconds until they might, and nothing is taken."""
    def give_back(self, n: int = 1) -> None:
        """Undo a `take` whose items were then refused for another reason."""
    def available(self, now_s: float) -> float:
        """Tokens there would be now. Changes nothing."""
