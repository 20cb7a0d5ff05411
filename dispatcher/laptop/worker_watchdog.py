"""A thread that restarts the laptop server's worker while runs wait for it. Started by the client.

It replaces a worker that was killed or is shutting down.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from dispatcher.errors import DispatcherError
from dispatcher.laptop import worker
from dispatcher.records.base import Records
from dispatcher.runs import indexes

if TYPE_CHECKING:
    from dispatcher.laptop.server_commands import LaptopSession

logger = logging.getLogger(__name__)

#: Seconds between two checks, and the most where workers end as fast as they are started.
POLL_INTERVAL, MAX_INTERVAL = 2.0, 60.0


class WorkerWatchdog:
    """Keeps the worker of this program's virtual environment alive until it is closed.

    Args:
        laptop: this program's use of the laptop server.
        records: the records of that server.
    """

    def __init__(self, laptop: LaptopSession, records: Records) -> None:
        self._laptop = laptop
        self._records = records
        self._closed = threading.Event()
        self._pause = POLL_INTERVAL
        self._last: int | None = None
        self._thread = threading.Thread(target=self._run, name="dispatcher-worker-watchdog", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop the thread. Wait for a check in progress."""
        self._closed.set()
        if self._thread is not threading.current_thread():
            self._thread.join(POLL_INTERVAL)

    def _run(self) -> None:
        while not self._closed.wait(self._pause):
            try:
                self._check()
            except DispatcherError as error:
                logger.debug("Can't check the laptop server's worker: %s", error)
            except Exception:
                if not self._closed.is_set():
                    logger.exception("Checking the laptop server's worker failed; trying again")

    def _check(self) -> None:
        if not self._records.runs.count(indexes.OPEN) or not self._needed():
            self._pause = POLL_INTERVAL
            return
        pid = self._laptop.ensure_worker(leaving=leaving(self._records)).process.pid
        replaced, self._last = self._last not in {None, pid}, pid
        self._pause = min(2 * self._pause, MAX_INTERVAL) if replaced else POLL_INTERVAL

    def _needed(self) -> bool:
        """Return True if runs wait for this environment's worker, or if no worker lives to recover others' runs."""
        ours = [name for name, (route, _) in self._records.queues.known().items() if route.scope == self._laptop.scope]
        if any(self._records.runs.count(indexes.waiting(name)) for name in ours):
            return True
        return not worker.living(self._laptop.paths)


def leaving(records: Records) -> frozenset[int]:
    """Return the process ids of workers that are shutting down and take no more runs."""
    return frozenset(worker.pid for worker in records.workers.live() if not worker.queues)
