"""A thread of the worker's parent that does one thing again and again, and survives every error of it."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable

from dispatcher.errors import ServerUnavailable
from dispatcher.support.mailbox import Mailbox
from dispatcher.support.tracebacks import described, is_defect
from workers.outage import outage

logger = logging.getLogger(__name__)

#: Seconds until the next try after an error.
RETRY_INTERVAL = 1.0


class Ticker(threading.Thread):
    """Calls ``tick``, then waits for as many seconds as it returned, or until :meth:`wake`.

    Args:
        name: shown in logs and by debuggers.
        tick: does the work and returns the seconds until it wants to be called again.
        close: called on this thread when it ends.
    """

    def __init__(self, name: str, tick: Callable[[], float], close: Callable[[], None]) -> None:
        super().__init__(name=f"dispatcher-{name}", daemon=True)
        self._label = name
        self._tick = tick
        self._close = close
        self._woken: Mailbox[None] = Mailbox()
        self._stopping = False
        self._failed = False  # the server was unavailable at the last tick
        self.ticked_at = time.monotonic()  #: when the last tick ended

    def wake(self) -> None:
        """Tick at once. Safe from any thread and from a signal handler."""
        self._woken.put(None)

    def stop(self, timeout: float) -> None:
        """End after the current tick; waits up to ``timeout`` seconds."""
        self._stopping = True
        self.wake()
        if self.is_alive():
            self.join(timeout)

    def run(self) -> None:
        try:
            while not self._stopping:
                delay = self._tick_once()
                self.ticked_at = time.monotonic()
                self._wait(delay)
        finally:
            try:
                self._close()
            except Exception:
                logger.debug("Closing the %s thread failed", self._label, exc_info=True)

    def _tick_once(self) -> float:
        try:
            delay = self._tick()
        except ServerUnavailable as error:
            self._failed = True
            outage.begin(self._label, error)
            return RETRY_INTERVAL
        except Exception as error:
            logger.error("Error in the %s thread: %s", self._label, described(error), exc_info=is_defect(error))
            return RETRY_INTERVAL
        if self._failed:
            outage.end(self._label)
        self._failed = False
        return delay

    def _wait(self, seconds: float) -> None:
        try:
            if seconds > 0:
                self._woken.get(timeout=seconds)
            while True:
                self._woken.get(0)
        except queue.Empty:
            return
