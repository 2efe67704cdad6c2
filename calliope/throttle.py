"""A token bucket: so many at once, so many a second after that."""

from __future__ import annotations

from calliope.clock import NS_PER_S, Clock


class TokenBucket:
    """Allows ``burst`` events at once and ``rate_hz`` a second in the long run."""

    def __init__(self, clock: Clock, *, rate_hz: float, burst: int) -> None:
        self._clock = clock
        self._rate_hz = rate_hz
        self._burst = float(burst)
        self._tokens = float(burst)
        self._filled_ns = clock.now_ns()

    def take(self) -> bool:
        """Spend one token; False when there is none."""
        now_ns = self._clock.now_ns()
        gained = (now_ns - self._filled_ns) / NS_PER_S * self._rate_hz
        self._tokens = min(self._burst, self._tokens + gained)
        self._filled_ns = now_ns
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
