"""How fast the API server may be asked: one token bucket, which a 429 slows down and success lets recover.

An API server that says 429 is protecting itself; all requests of this process share the answer.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

_LEAST = 0.02  # of the full rate


class Pace:
    """Gives each request its turn.

    Args:
        rate: requests per second when all is well; as many may come at once.
        clock, sleep: of the process; tests give their own.
    """

    def __init__(
        self,
        rate: float = 200.0,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._full = self._rate = rate
        self._clock = clock
        self._sleep = sleep
        self._tokens = rate
        self._counted = clock()
        self._lock = threading.Lock()

    def take(self, *, within: float) -> bool:
        """Wait for a turn; False, at once, if it would come later than ``within`` seconds."""
        with self._lock:
            wait = max(0.0, (1.0 - self._refill()) / self._rate)
            if wait > within:
                return False
            self._tokens -= 1.0
        if wait:
            self._sleep(wait)
        return True

    def slow(self, pause: float) -> None:
        """The server is busy: half the rate, and nobody's turn for ``pause`` seconds."""
        with self._lock:
            self._refill()
            self._rate = max(self._rate / 2, self._full * _LEAST)
            self._tokens = min(self._tokens, 1.0 - pause * self._rate)

    def succeed(self) -> None:
        """The server answered as usual: a step back to the full rate."""
        with self._lock:
            self._refill()
            self._rate = min(self._full, self._rate * 1.05)

    def _refill(self) -> float:
        now = self._clock()
        self._tokens = min(self._full, self._tokens + (now - self._counted) * self._rate)
        self._counted = now
        return self._tokens
