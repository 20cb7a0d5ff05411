"""Isolation of errors between runs: a failure of one run skips that run alone. For sweeps and supervisors."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from dispatcher.errors import LeasePassed, ServerUnavailable
from dispatcher.support.log_throttle import LogThrottle
from dispatcher.support.tracebacks import described


class ErrorIsolation:
    """Guard of the steps of a loop over runs. For one thread.

    Args:
        logger: logs failures, each reason once in a while.
    """

    def __init__(self, logger: logging.Logger) -> None:
        self._throttle = LogThrottle(logger)

    @contextmanager
    def run(self, run_id: str) -> Iterator[None]:
        """Log an error of this run's step instead of raising it, so that the loop goes on with the next run.

        Raises:
            ServerUnavailable, LeasePassed: unchanged, because they concern all runs.
        """
        try:
            yield
        except (ServerUnavailable, LeasePassed):
            raise
        except Exception as error:
            self._throttle.warn(f"Run {run_id!a} is skipped for now", described(error))
