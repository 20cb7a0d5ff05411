"""Dead workers: the runs that they owned are taken over once their lease has ended.

A lease has ended when this observer saw the worker's heartbeat counter unchanged for ``lease`` seconds of its own
monotonic clock, while its own commands succeeded and its ticks came in time. An outage or a suspended laptop starts the
count again, so that it ends no healthy flow.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

from dispatcher.errors import ServerUnavailable
from dispatcher.records.base import Records
from dispatcher.runs import indexes, transitions
from dispatcher.settings import TimingSettings
from dispatcher.support.failpoints import failpoint
from dispatcher.support.log_throttle import LogThrottle
from workers.error_isolation import ErrorIsolation
from workers.misplaced import MisplacedRuns
from workers.updates import try_update

logger = logging.getLogger(__name__)


@dataclass
class _Heartbeat:
    counter: int
    since: float


class DeadWorkers:
    """One observer's view of the other workers.

    Args:
        records: the workers' heartbeats.
        timing: ``lease``, ``lease_tick``.
        worker: the observer's own id.
        clock: monotonic, in seconds.
    """

    def __init__(
        self, records: Records, timing: TimingSettings, *, worker: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._records = records
        self._timing = timing
        self._worker = worker
        self._clock = clock
        self._heartbeats: dict[str, _Heartbeat] = {}
        self._removed: dict[str, float] = {}  # workers no longer listed → since when
        self._unlisted: dict[str, float] = {}  # holders of shards without a heartbeat → since when they are observed
        self._last_sweep: float | None = None
        self._isolation = ErrorIsolation(logger)
        self._throttle = LogThrottle(logger)
        self._misplaced = MisplacedRuns(records)
        self._skip: dict[str, int] = {}  # dead worker → owned runs before which its next sweep begins

    @property
    def dead(self) -> frozenset[str]:
        """Ids of the workers that this observer considers dead."""
        at = self._clock()
        unlisted = {worker for worker, since in self._unlisted.items() if at - since >= self._timing.lease}
        return frozenset(self._with_ended_lease(at)) | frozenset(self._removed) | unlisted

    def note_holders(self, holders: Iterable[str]) -> None:
        """Note the current holders of shards: finds those dead that were removed before this observer started."""
        at = self._clock()
        unlisted = set(holders) - self._heartbeats.keys() - {self._worker}
        self._unlisted = {worker: self._unlisted.get(worker, at) for worker in unlisted}

    def sweep(self) -> int:
        """Take over the runs of dead workers. Return their number."""
        at = self._clock()
        if self._last_sweep is not None and at - self._last_sweep > 2 * self._timing.lease_tick + 1.0:
            self._restart()
        try:
            counters = self._records.workers.beats()
            late = self._clock() - at > self._timing.lease_tick
            self._note(counters, at)
            taken = sum(self._take_over(worker) for worker in self._with_ended_lease(at))
        except ServerUnavailable:
            self._restart()
            raise
        if late:
            self._restart()
        self._last_sweep = at
        return taken

    def _note(self, counters: dict[str, int], at: float) -> None:
        for worker in self._heartbeats.keys() - counters.keys():
            self._removed.setdefault(worker, at)
            del self._heartbeats[worker]
        for worker, counter in counters.items():
            self._removed.pop(worker, None)
            heartbeat = self._heartbeats.get(worker)
            if heartbeat is None or heartbeat.counter != counter:
                self._heartbeats[worker] = _Heartbeat(counter, at)
        oldest = at - 20 * self._timing.lease
        self._removed = {
            worker: since for worker, since in self._removed.items() if since > oldest and worker != self._worker
        }

    def _with_ended_lease(self, at: float) -> list[str]:
        """Return the workers whose lease has ended."""
        return [
            worker
            for worker, heartbeat in self._heartbeats.items()
            if worker != self._worker and at - heartbeat.since >= self._timing.lease
        ]

    def _take_over(self, worker: str) -> int:
        """Take over the runs of a dead worker; of very many, some at each sweep, so that the heartbeats are seen."""
        runs, index, taken, stay = self._records.runs, indexes.owned(worker), 0, 0
        skip, end = self._skip.pop(worker, 0), self._clock() + self._timing.lease_tick
        for record in runs.under(index, skip=skip):
            if self._clock() >= end:
                self._skip[worker] = skip + stay
                break
            if self._misplaced.note(index, record):
                continue
            stay += 1
            if not runs.knows(record):  # only a worker that has the run's key may decide whether it is repeated
                continue
            with self._isolation.run(record.id):
                failpoint("lease.ended", record.id)
                after = try_update(runs.update, record.id, partial(transitions.lose, owner=worker))
                if after is None or after.version == record.version:  # another observer came first
                    continue
                failpoint("lease.taken", record.id)
                taken, stay = taken + 1, stay - 1
                if after.verified:
                    logger.warning("Run %s: worker %s is dead; now %s", record.id, worker, after.state)
                else:
                    self._throttle.warn(f"Run {record.id} is ended: now {after.state}", "its dead worker never ran it")
        self._misplaced.remove()
        if self._records.workers.remove(worker):  # otherwise it has just claimed a run: the next sweep takes that
            logger.warning("Worker %s is dead: no heartbeat for %g s; removed", worker, self._timing.lease)
            failpoint("lease.removed")
        return taken

    def _restart(self) -> None:
        """Start all counts again."""
        self._heartbeats.clear()
        self._unlisted.clear()
        self._last_sweep = None
