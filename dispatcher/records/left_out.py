"""Entries that can't be read, and are left out: each is counted and logged once in this process.

For the implementations in ``memory`` and ``redis``, and for workers: who reads many entries parses each by itself.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from dispatcher.errors import Malformed
from dispatcher.records.rejections import Refusals, What, count
from dispatcher.support.log_throttle import LogThrottle

T = TypeVar("T")

logger = logging.getLogger(__name__)

#: Entries that are remembered, and most that are counted within one second: a flood costs its reader no more.
_MOST = 10_000
_PER_SECOND = 100

#: Characters of an entry's name that are shown.
_SHOWN = 120


class LeftOut:
    """The register of entries that were left out. Safe from any thread.

    Args:
        refusals: count it.
        clock: monotonic, in seconds.
    """

    def __init__(self, refusals: Refusals, clock: Callable[[], float] = time.monotonic) -> None:
        self._refusals = refusals
        self._clock = clock
        self._known: set[str] = set()
        self._seldom = LogThrottle(logger, clock)
        self._lock = threading.Lock()
        self._second, self._counted = clock(), 0

    def read(self, entry: str, parse: Callable[[], T]) -> T | None:
        """Return what ``parse`` makes of an entry; None, and the entry is noted, if it can't be read.

        Args:
            entry: its name, as ``run 01abc``; one name is noted once.
            parse: raises :class:`~dispatcher.errors.Malformed`.
        """
        try:
            return parse()
        except Malformed as error:
            self.note(entry, error)
            return None

    def note(self, entry: str, error: Malformed) -> None:
        """Count and log an entry, unless that was done before."""
        with self._lock:
            if entry in self._known:
                return
            if len(self._known) >= _MOST:
                self._known.clear()
            self._known.add(entry)
            if self._clock() - self._second >= 1.0:
                self._second, self._counted = self._clock(), 0
            self._counted += 1
            if self._counted > _PER_SECOND:
                return
            self._seldom.warn(f"an entry is left out, since it can't be read: {entry[:_SHOWN]!a}", error)
        count(self._refusals, What.ENTRY)
