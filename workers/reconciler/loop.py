"""The table of sweeps, and the loop that runs each when it is due."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from dispatcher.errors import ServerUnavailable
from dispatcher.records.base import Records
from dispatcher.runs.routing import Route
from dispatcher.settings import TimingSettings
from dispatcher.support.tracebacks import described, is_defect
from workers.reconciler.dead_workers import DeadWorkers
from workers.reconciler.due_times import DueTimes
from workers.reconciler.lost_doorbells import LostDoorbells
from workers.reconciler.retention import sweep_retention
from workers.reconciler.signatures import sweep_signatures

logger = logging.getLogger(__name__)

#: Share of an interval by which it may vary, so that many workers don't sweep at the same time.
JITTER = 0.1


@dataclass(frozen=True)
class PeriodicSweep:
    """A sweep, run ``every`` so many seconds."""

    name: str
    every: float
    run: Callable[[], object]


def sweeps(
    records: Records,
    timing: TimingSettings,
    *,
    worker: str,
    serves: Callable[[Route], bool],
    depth: Callable[[str], int],
) -> tuple[PeriodicSweep, ...]:
    """Return the table of sweeps.

    Args:
        records: all sweeps work on these.
        timing: the intervals.
        worker: the id of the worker that sweeps.
        serves: whether it serves a route.
        depth: counts the messages that wait in a queue's list.
    """
    doorbells = LostDoorbells(records, timing, serves=serves, depth=depth)
    dead_workers = DeadWorkers(records, timing, worker=worker)
    return (
        PeriodicSweep("due times", timing.bell_tick, DueTimes(records).sweep),
        PeriodicSweep("doorbells", timing.bell_tick, doorbells.sweep),
        PeriodicSweep("dead workers", timing.lease_tick, dead_workers.sweep),
        PeriodicSweep("signatures", timing.orphan_tick, lambda: sweep_signatures(records)),
        PeriodicSweep("retention", timing.orphan_tick, lambda: sweep_retention(records, timing)),
    )


class Reconciler:
    """Runs the sweeps of a table in turn, on one thread.

    Args:
        open_table: gives the table, and closes what its sweeps use; called at the first tick.
    """

    def __init__(self, open_table: Callable[[], tuple[tuple[PeriodicSweep, ...], Callable[[], None]]]) -> None:
        self._open = open_table
        self._table: tuple[PeriodicSweep, ...] = ()
        self._close: Callable[[], None] | None = None
        self._due: dict[str, float] = {}
        self._failed: dict[str, ServerUnavailable] = {}

    def tick(self) -> float:
        """Run the sweeps that are due. Return the seconds until the next one is.

        Raises:
            ServerUnavailable: a sweep failed when it last ran; all others that were due have run.
        """
        if self._close is None:
            self._table, self._close = self._open()
            self._due = {sweep.name: time.monotonic() + random.random() * sweep.every for sweep in self._table}
        for sweep in self._table:
            if time.monotonic() < self._due[sweep.name]:
                continue
            self._failed.pop(sweep.name, None)
            try:
                sweep.run()
            except ServerUnavailable as error:
                self._failed[sweep.name] = error
            except Exception as error:
                logger.error("Sweep of %s failed: %s", sweep.name, described(error), exc_info=is_defect(error))
            self._due[sweep.name] = time.monotonic() + sweep.every * random.uniform(1 - JITTER, 1)
        if self._failed:
            raise next(iter(self._failed.values()))
        return max(min(self._due.values()) - time.monotonic(), 0.0)

    def close(self) -> None:
        """Close what the sweeps use."""
        if self._close is not None:
            self._close()
