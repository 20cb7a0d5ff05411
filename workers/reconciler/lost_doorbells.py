"""Lost doorbells: runs that wait although their message can't be in the broker any more.

Celery on Redis loses messages, because it removes them from the list before it records that it has them. Evidence is,
each for ``bell_lost`` seconds of this observer's own clock: the queue's list was empty at every sweep, or a run whose
doorbell was rung later was claimed from it. Each further ring of a run waits twice as long, up to ``bell_most``.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial

from dispatcher.errors import Malformed, ServerUnavailable, UnknownRun
from dispatcher.records.base import Records
from dispatcher.runs import indexes, transitions
from dispatcher.runs.change import Change
from dispatcher.runs.record import Record
from dispatcher.runs.routing import Route
from dispatcher.runs.states import State
from dispatcher.settings import TimingSettings
from dispatcher.support.failpoints import failpoint
from dispatcher.support.log_throttle import LogThrottle
from workers.error_isolation import ErrorIsolation
from workers.misplaced import MisplacedRuns
from workers.refusal import refusal
from workers.updates import try_update

logger = logging.getLogger(__name__)

#: Runs of one queue examined in one sweep.
PAGE = 500

#: Runs remembered whose doorbell only another release may ring.
MAX_FOREIGN = 10_000


class LostDoorbells:
    """One observer's evidence of lost doorbells.

    Args:
        records: the runs that wait.
        timing: ``bell_lost``, ``bell_most``, ``bell_tick``.
        serves: whether this worker serves a route; the other queues are left to others.
        depth: counts the messages that wait in a queue's list.
        clock: monotonic, in seconds.
    """

    def __init__(
        self,
        records: Records,
        timing: TimingSettings,
        *,
        serves: Callable[[Route], bool],
        depth: Callable[[str], int],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._records = records
        self._timing = timing
        self._serves = serves
        self._depth = depth
        self._clock = clock
        self._idle: dict[str, float] = {}  # queue in which nothing waited → when it had last been used
        self._empty: dict[str, float] = {}  # queue → since when its list was empty at every sweep
        self._overtaken: dict[str, float] = {}  # run → since when a run with a later doorbell was claimed
        self._last_sweep: float | None = None
        self._foreign: set[str] = set()  # runs in states of another release
        self._isolation = ErrorIsolation(logger)
        self._throttle = LogThrottle(logger)
        self._misplaced = MisplacedRuns(records)

    def sweep(self) -> int:
        """Ring again the doorbells that are lost by the evidence. Return their number."""
        self._forget_after_gap()
        try:
            queues = self._records.queues.known()
            passed = self._records.queues.passed()
            served = {name: used for name, (route, used) in queues.items() if self._serves(route)}
            self._idle = {name: used for name, used in self._idle.items() if name in served}
            busy = [name for name, used in served.items() if self._idle.get(name) != used]
            now = self._records.runs.now()
            lost = {name: self._examine(name, passed.get(name, 0.0), now) for name in busy}
        except ServerUnavailable:
            self._forget()
            raise
        self._empty = {name: since for name, since in self._empty.items() if name in lost}
        for name, run_ids in lost.items():
            if run_ids is None:
                self._idle[name] = served[name]
        rung = sum(
            self._ring(indexes.waiting(name), run_id) for name, run_ids in lost.items() for run_id in run_ids or ()
        )
        self._misplaced.remove()
        return rung

    def _examine(self, queue: str, passed: float, now: float) -> set[str] | None:
        """Return :meth:`_lost`; the empty set, as if nothing were lost, for a queue that can't be read."""
        try:
            return self._lost(queue, passed, now)
        except Malformed as error:
            self._throttle.warn(f"Queue {queue!a} is skipped", error)
            return set()

    def _lost(self, queue: str, passed: float, now: float) -> set[str] | None:
        """Return the runs of a queue whose doorbell is lost; None where nothing waits."""
        index = indexes.waiting(queue)
        if not self._records.runs.count(index):
            self._empty.pop(queue, None)
            return None
        at = self._clock()
        long_ago = now - self._timing.bell_lost
        lost: set[str] = set()
        if self._depth(queue):
            self._empty.pop(queue, None)
        elif at - self._empty.setdefault(queue, at) >= self._timing.bell_lost:
            lost.update(run_id for run_id, _ in self._waiting(index, until=long_ago))
        for run_id, rung_at in self._waiting(index, until=min(passed, long_ago)):
            if rung_at < passed and at - self._overtaken.setdefault(run_id, at) >= self._timing.bell_lost:
                lost.add(run_id)
        return lost

    def _waiting(self, index: str, *, until: float) -> list[tuple[str, float]]:
        """Return the runs that have waited longest, without those that only another release may ring for."""
        members = self._records.runs.members(index, until=until, limit=PAGE + len(self._foreign))
        return [(run_id, rung_at) for run_id, rung_at in members if run_id not in self._foreign]

    def _ring(self, index: str, run_id: str) -> bool:
        step = partial(_ring_if_late, records=self._records, timing=self._timing)
        self._overtaken.pop(run_id, None)
        with self._isolation.run(run_id):
            try:
                record, now = self._records.runs.get(run_id)
            except UnknownRun:
                self._records.runs.leave(index, [run_id], unreadable=True)
                return False
            if record.foreign:
                self._foreign.add(run_id)
            if self._misplaced.note(index, record) or record.state is not State.QUEUED:
                return False
            failpoint("bell.lost", run_id)
            after = try_update(self._records.runs.update, run_id, step, record=record, now=now)
            if after is None:
                return False
            failpoint("bell.rung", run_id)
            if after.rings > record.rings:
                logger.warning("Run %s: its doorbell was lost; rung again", run_id)
                return True
        return False

    def _forget_after_gap(self) -> None:
        """Forget the evidence if this sweep comes late, as after an outage or on a laptop that was suspended."""
        at = self._clock()
        longest = 3 * self._timing.bell_tick + self._timing.bell_lost
        if self._last_sweep is not None and at - self._last_sweep > longest:
            self._forget()
        self._last_sweep = at
        oldest = at - 10 * self._timing.bell_most
        self._overtaken = {run_id: since for run_id, since in self._overtaken.items() if since > oldest}
        if len(self._foreign) > MAX_FOREIGN:
            self._foreign.clear()

    def _forget(self) -> None:
        self._empty.clear()
        self._overtaken.clear()


def _ring_if_late(record: Record, now: float, *, records: Records, timing: TimingSettings) -> Change | None:
    """Ring again if the pause since the last ring is over; end a run whose signature isn't valid."""
    if record.state is State.QUEUED and (refused := refusal(records, record, now)):
        return refused
    pause = min(timing.bell_lost * 2.0 ** min(record.rings - 1, 30), timing.bell_most)
    return None if now - record.rung_at < pause else transitions.ring_again(record, now)
