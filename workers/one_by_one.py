"""The same for each of many runs, so that what fails for one fails for that one alone. For sweeps and supervisors."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from dispatcher.errors import LeasePassed, ServerUnavailable
from dispatcher.records.base import Runs
from dispatcher.runs.record import Record
from dispatcher.support.log_throttle import LogThrottle

#: Entries remembered as misplaced.
_MOST = 10_000


class OneByOne:
    """Guards what is done for one run. For one thread.

    Args:
        logger: says what failed, each reason once in a while.
    """

    def __init__(self, logger: logging.Logger) -> None:
        self._seldom = LogThrottle(logger)

    @contextmanager
    def run(self, run_id: str) -> Iterator[None]:
        """Do something for a run; if it fails, that is logged, and the next run has its turn.

        Raises:
            ServerUnavailable, LeasePassed: as they came, because they concern all runs.
        """
        try:
            yield
        except (ServerUnavailable, LeasePassed):
            raise
        except Exception as error:
            self._seldom.warn(f"run {run_id!a} is left out for now", f"{type(error).__name__}: {error}")


class Misplaced:
    """Runs that stand in an index where their record doesn't put them. For one thread.

    An index is read before its records are, so that a run may have moved in between: one is taken from an index only
    when it is seen there wrongly for the second time, unchanged.
    """

    def __init__(self, runs: Runs) -> None:
        self._runs = runs
        self._seen: dict[tuple[str, str], int] = {}

    def note(self, index: str, record: Record) -> None:
        """It has no place in that index, as far as this release can tell."""
        if record.foreign:
            return
        key = (index, record.id)
        if self._seen.pop(key, None) == record.version:
            self._runs.leave(index, [record.id])
            return
        if len(self._seen) >= _MOST:
            self._seen.clear()
        self._seen[key] = record.version
