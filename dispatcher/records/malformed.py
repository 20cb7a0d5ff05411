"""Malformed entries: left out by their readers, counted, and logged once per process.

For the implementations in ``memory`` and ``redis``, and for workers: a reader of many entries parses each by itself.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from dispatcher.errors import Malformed
from dispatcher.records.rejections import Rejected, Rejections, count_rejection
from dispatcher.support.log_throttle import LogThrottle

T = TypeVar("T")

logger = logging.getLogger(__name__)

#: Most entries that are remembered, and most that are counted within one second, so that a flood costs no more.
_MOST_REMEMBERED = 10_000
_MOST_PER_SECOND = 100

#: Characters of an entry's name that are logged.
_LOGGED = 120


class MalformedEntries:
    """The malformed entries that this process has met. Safe from any thread.

    Args:
        rejections: count each entry.
        clock: monotonic, in seconds.
    """

    def __init__(self, rejections: Rejections, clock: Callable[[], float] = time.monotonic) -> None:
        self._rejections = rejections
        self._clock = clock
        self._noted: set[str] = set()
        self._seldom = LogThrottle(logger, clock)
        self._lock = threading.Lock()
        self._second, self._counted = clock(), 0

    def read(self, entry: str, parse: Callable[[], T]) -> T | None:
        """Return the parsed entry; None, and the entry is noted, if it is malformed.

        Args:
            entry: its name, as ``run 01abc``; each name is noted once.
            parse: raises :class:`~dispatcher.errors.Malformed`.
        """
        try:
            return parse()
        except Malformed as error:
            self.note(entry, error)
            return None

    @contextmanager
    def leaving_out(self, entries: str, block: float = 0.0) -> Iterator[None]:
        """Note entries whose key can't be read at all, and go on behind the ``with`` block as if there were none.

        Args:
            entries: their name.
            block: seconds that the caller would have waited for the first. At most one of them passes, so that a
                follower of these entries doesn't read all the time.
        """
        try:
            yield
        except Malformed as error:
            self.note(entries, error)
            time.sleep(min(block, 1.0))

    def note(self, entry: str, error: Malformed) -> None:
        """Count and log an entry, unless that was done before."""
        with self._lock:
            if entry in self._noted:
                return
            if len(self._noted) >= _MOST_REMEMBERED:
                self._noted.clear()
            self._noted.add(entry)
            if self._clock() - self._second >= 1.0:
                self._second, self._counted = self._clock(), 0
            self._counted += 1
            if self._counted > _MOST_PER_SECOND:
                return
            self._seldom.warn(f"Ignoring malformed entry {entry[:_LOGGED]!a}", error)
        count_rejection(self._rejections, Rejected.ENTRY)
