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
from workers.reconciler.dead_workers import DeadWorkers
from workers.reconciler.due_times import DueTimes
from workers.reconciler.lost_doorbells import LostDoorbells
from workers.reconciler.retention import sweep_retention
from workers.reconciler.signatures import sweep_signatures

logger = logging.getLogger(__name__)

#: Share of an interval by which each may vary, so that many workers don't look at once.
JITTER = 0.1


@dataclass(frozen=True)
class PeriodicSweep:
    """One thing to look for, every so many seconds."""

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
    """The table."""
    bells = LostDoorbells(records, timing, serves=serves, depth=depth)
    leases = DeadWorkers(records, timing, worker=worker)
    return (
        PeriodicSweep("due times", timing.bell_tick, DueTimes(records).sweep),
        PeriodicSweep("doorbells", timing.bell_tick, bells.sweep),
        PeriodicSweep("leases", timing.lease_tick, leases.sweep),
        PeriodicSweep("signatures", timing.orphan_tick, lambda: sweep_signatures(records)),
        PeriodicSweep("retention", timing.orphan_tick, lambda: sweep_retention(records, timing)),
    )


class Reconciler:
    """Runs the sweeps of a table in turn, on one thread."""

    def __init__(self, open_table: Callable[[], tuple[tuple[PeriodicSweep, ...], Callable[[], None]]]) -> None:
        self._open = open_table
        self._table: tuple[PeriodicSweep, ...] = ()
        self._close: Callable[[], None] | None = None
        self._due: dict[str, float] = {}
        self._away: dict[str, ServerUnavailable] = {}

    def tick(self) -> float:
        """Run what is due; the seconds until the next is.

        Raises:
            ServerUnavailable: a sweep could not be done when it was last tried; the others were.
        """
        if self._close is None:
            self._table, self._close = self._open()
            self._due = {sweep.name: time.monotonic() + random.random() * sweep.every for sweep in self._table}
        for sweep in self._table:
            if time.monotonic() < self._due[sweep.name]:
                continue
            self._away.pop(sweep.name, None)
            try:
                sweep.run()
            except ServerUnavailable as error:
                self._away[sweep.name] = error
            except Exception as error:
                logger.exception("sweep %s: %s: %s", sweep.name, type(error).__name__, error)
            self._due[sweep.name] = time.monotonic() + sweep.every * random.uniform(1 - JITTER, 1)
        if self._away:
            raise next(iter(self._away.values()))
        return max(min(self._due.values()) - time.monotonic(), 0.0)

    def close(self) -> None:
        """Close what the sweeps use."""
        if self._close is not None:
            self._close()
