"""The sign of life of a worker for what watches over its process, such as a liveness probe of Kubernetes.

A file is touched for as long as all threads of the worker work. An outage of the server is no reason to end a worker:
the file is touched all the same. Only :mod:`workers.engine` calls this.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path

from dispatcher.support.log_throttle import LogThrottle
from workers.ticker import Ticker

logger = logging.getLogger(__name__)

#: Seconds between two touches.
INTERVAL = 10.0

#: Seconds without a tick after which a thread counts as stuck: more than all timeouts of one tick.
STUCK = 300.0


class LivenessFile:
    """Touches a file while threads work.

    Args:
        path: of the file, which is created; its directory must exist.
        threads: each must tick.
        stuck: seconds without a tick after which a thread counts as stuck.
    """

    def __init__(self, path: Path, threads: Sequence[Ticker], *, stuck: float = STUCK) -> None:
        self._path = path
        self._threads = threads
        self._stuck = stuck
        self._throttle = LogThrottle(logger)

    def tick(self) -> float:
        """Touch the file, unless a thread has ended or is stuck; return the seconds until the next time."""
        stuck = [thread.name for thread in self._threads if self._is_stuck(thread)]
        if stuck:
            self._throttle.warn("The sign of life is withheld", f"stuck or ended: {', '.join(stuck)}")
            return INTERVAL
        try:
            self._path.touch()
        except OSError as error:
            self._throttle.warn(f"{self._path} can't be written (DISPATCHER__WORKER__LIVENESS_FILE)", error)
        return INTERVAL

    def close(self) -> None:
        """Remove the file: the worker has left."""
        self._path.unlink(missing_ok=True)

    def _is_stuck(self, thread: Ticker) -> bool:
        return not thread.is_alive() or time.monotonic() - thread.ticked_at > self._stuck
