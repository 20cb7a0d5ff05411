"""A thread of the worker's parent that does one thing again and again and survives every error of it."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable

from dispatcher.errors import ServerUnavailable
from dispatcher.support.log_throttle import LogThrottle
from dispatcher.support.mailbox import Mailbox

logger = logging.getLogger(__name__)

#: Seconds until the next try after an error.
AFTER_ERROR = 1.0


class _Outage:
    """The threads that miss the server now: said once for all of them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._missing: set[str] = set()
        self._seldom = LogThrottle(logger)

    def missed(self, name: str, error: ServerUnavailable) -> None:
        """The thread ``name`` didn't reach the server, or was refused."""
        what = "the server refuses this worker" if error.denied else "the server is away"
        with self._lock:
            self._missing.add(name)
            self._seldom.warn(f"{what}, trying again", error)

    def found(self, name: str) -> None:
        """It does again."""
        with self._lock:
            self._missing.discard(name)
            if not self._missing:
                logger.info("the server is back")


_outage = _Outage()


class Ticker(threading.Thread):
    """Calls ``tick``, then waits for so many seconds as it returned, or until :meth:`wake`.

    Args:
        name: what people see.
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
        self._away = False

    def wake(self) -> None:
        """Tick at once. Safe from any thread and from a signal handler."""
        self._woken.put(None)

    def stop(self, timeout: float) -> None:
        """End after the tick under way; waits up to ``timeout`` seconds."""
        self._stopping = True
        self.wake()
        if self.is_alive():
            self.join(timeout)

    def run(self) -> None:
        try:
            while not self._stopping:
                self._wait(self._once())
        finally:
            try:
                self._close()
            except Exception:
                logger.debug("closing %s failed", self._label, exc_info=True)

    def _once(self) -> float:
        try:
            delay = self._tick()
        except ServerUnavailable as error:
            self._away = True
            _outage.missed(self._label, error)
            return AFTER_ERROR
        except Exception as error:
            logger.exception("%s: %s: %s", self._label, type(error).__name__, error)
            return AFTER_ERROR
        if self._away:
            _outage.found(self._label)
        self._away = False
        return delay

    def _wait(self, seconds: float) -> None:
        try:
            if seconds > 0:
                self._woken.get(timeout=seconds)
            while True:
                self._woken.get(0)
        except queue.Empty:
            return
