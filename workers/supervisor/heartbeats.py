"""The runners that give no sign of life. Silence counts only while we would have heard."""

from __future__ import annotations

import time
from collections.abc import Callable, Container

#: Seconds between two looks beyond which we can't say that we would have heard.
GAP = 15.0


class Heartbeats:
    """When each runner was last heard, by this process's monotonic clock.

    Args:
        clock: in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._heard: dict[str, float] = {}
        self._since = self._last = clock()

    def heard(self, run_id: str) -> None:
        """It reported something."""
        self._heard[run_id] = self._clock()

    def looked(self) -> None:
        """All reports that there were have been read. After a gap, all silence begins anew."""
        now = self._clock()
        if now - self._last > GAP:
            self._since = now
        self._last = now

    def deaf(self) -> None:
        """The server was away: nobody could report."""
        self._since = self._clock()

    def silence(self, run_id: str) -> float:
        """Seconds for which it could have been heard and wasn't."""
        return self._clock() - max(self._heard.get(run_id, self._since), self._since)

    def keep(self, runs: Container[str]) -> None:
        """Forget all others."""
        self._heard = {run_id: at for run_id, at in self._heard.items() if run_id in runs}
