"""Dead workers: what they owned is taken from them once their lease has ended.

A lease has ended when this observer saw the worker's counter unchanged for ``lease`` seconds of its own monotonic
clock, while its own commands succeeded and its ticks came in time. An outage or a suspended laptop starts the count
again, so that it ends no healthy flow.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from dispatcher.errors import Refused, ServerUnavailable, UnknownRun
from dispatcher.records.base import Records
from dispatcher.runs import indexes, transitions
from dispatcher.settings import TimingSettings
from dispatcher.support.failpoints import failpoint
from workers.error_isolation import ErrorIsolation, MisplacedRuns

logger = logging.getLogger(__name__)


@dataclass
class _Seen:
    counter: int
    since: float


class DeadWorkers:
    """One observer's view of all workers.

    Args:
        records: where workers beat.
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
        self._seen: dict[str, _Seen] = {}
        self._gone: dict[str, float] = {}  # workers no longer listed → when that was first seen
        self._unlisted: dict[str, float] = {}  # holders of shards that beat no more → since when we know them
        self._last: float | None = None
        self._each = ErrorIsolation(logger)
        self._misplaced = MisplacedRuns(records.runs)

    @property
    def dead(self) -> frozenset[str]:
        """Workers that this observer knows to be dead."""
        at = self._clock()
        unlisted = {worker for worker, since in self._unlisted.items() if at - since >= self._timing.lease}
        return frozenset(self._ended(at)) | frozenset(self._gone) | unlisted

    def note_holders(self, holders: Iterable[str]) -> None:
        """Note who holds shards, as of now. One that was removed before this observer came is found dead this way."""
        at = self._clock()
        unlisted = set(holders) - self._seen.keys() - {self._worker}
        self._unlisted = {worker: self._unlisted.get(worker, at) for worker in unlisted}

    def sweep(self) -> int:
        """Take what dead workers owned; how many runs."""
        at = self._clock()
        if self._last is not None and at - self._last > 2 * self._timing.lease_tick + 1.0:
            self._start_again()
        try:
            beats = self._records.workers.beats()
            late = self._clock() - at > self._timing.lease_tick
            self._note(beats, at)
            taken = sum(self._take(worker) for worker in self._ended(at))
        except ServerUnavailable:
            self._start_again()
            raise
        if late:
            self._start_again()
        self._last = at
        return taken

    def _note(self, beats: dict[str, int], at: float) -> None:
        for worker in self._seen.keys() - beats.keys():
            self._gone.setdefault(worker, at)
            del self._seen[worker]
        for worker, counter in beats.items():
            self._gone.pop(worker, None)
            seen = self._seen.get(worker)
            if seen is None or seen.counter != counter:
                self._seen[worker] = _Seen(counter, at)
        keep = at - 20 * self._timing.lease
        self._gone = {worker: since for worker, since in self._gone.items() if since > keep and worker != self._worker}

    def _ended(self, at: float) -> list[str]:
        return [
            worker
            for worker, seen in self._seen.items()
            if worker != self._worker and at - seen.since >= self._timing.lease
        ]

    def _take(self, worker: str) -> int:
        runs, index, taken = self._records.runs, indexes.owned(worker), 0
        for record in runs.under(index):
            if record.owner != worker:
                self._misplaced.note(index, record)
                continue
            if not runs.knows(record):  # whether it is repeated is for a worker to say that has its key
                continue
            with self._each.run(record.id), suppress(Refused, UnknownRun):  # another observer came first
                failpoint("lease.ended", record.id)
                after = runs.update(record.id, partial(transitions.lose, owner=worker))
                failpoint("lease.taken", record.id)
                taken += 1
                logger.warning("run %s: worker %s is dead; it is %s now", record.id, worker, after.state)
        if self._records.workers.remove(worker):  # else it has claimed one just now: taken at the next look
            logger.warning("worker %s is dead: no beat for %g s", worker, self._timing.lease)
            failpoint("lease.removed")
        return taken

    def _start_again(self) -> None:
        self._seen.clear()
        self._unlisted.clear()
        self._last = None
