"""The thread of a program that brings a worker of the laptop server back while runs wait for one.

A worker that was killed, or that takes nothing more because it is shutting down, is replaced. Started by the client.
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

#: Seconds between two looks; and at most, where workers end as fast as they are started.
LOOK, LONGEST = 2.0, 60.0


class Minder:
    """Looks after the worker of one program's virtual environment, until it is closed.

    Args:
        laptop: the program's place at the laptop server.
        records: of that server.
    """

    def __init__(self, laptop: LaptopSession, records: Records) -> None:
        self._laptop = laptop
        self._records = records
        self._closed = threading.Event()
        self._pause = LOOK
        self._last: int | None = None
        self._thread = threading.Thread(target=self._mind, name="dispatcher-minder", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End; waits for a look under way."""
        self._closed.set()
        if self._thread is not threading.current_thread():
            self._thread.join(LOOK)

    def _mind(self) -> None:
        while not self._closed.wait(self._pause):
            try:
                self._look()
            except DispatcherError as error:
                logger.debug("the laptop server's worker can't be looked after: %s", error)
            except Exception:
                if not self._closed.is_set():
                    logger.exception("looking after the laptop server's worker failed; it goes on")

    def _look(self) -> None:
        if not self._records.runs.count(indexes.OPEN) or not self._needed():
            self._pause = LOOK
            return
        pid = self._laptop.ensure_worker(leaving=leaving(self._records)).process.pid
        fresh, self._last = self._last not in {None, pid}, pid
        self._pause = min(2 * self._pause, LONGEST) if fresh else LOOK

    def _needed(self) -> bool:
        """Return True if runs wait for this environment's worker, or those that a dead one ran for any worker at
        all."""
        ours = [name for name, (route, _) in self._records.queues.known().items() if route.scope == self._laptop.scope]
        if any(self._records.runs.count(indexes.waiting(name)) for name in ours):
            return True
        return not worker.living(self._laptop.places)


def leaving(records: Records) -> frozenset[int]:
    """Process ids of the workers that take nothing more."""
    return frozenset(one.pid for one in records.workers.live() if not one.queues)
