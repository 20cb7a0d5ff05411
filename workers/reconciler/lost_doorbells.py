"""Lost doorbells: runs that wait although their message can't be in the broker any more.

Celery on Redis loses messages (it takes them off the list before it notes that it has them). Evidence, each for
``bell_lost`` seconds of this observer's own clock: the queue's list was empty whenever we looked, or a run that was
rung for later was claimed from it. Each further ring of a run waits twice as long, up to ``bell_most``.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from dispatcher.errors import Malformed, Refused, ServerUnavailable, UnknownRun
from dispatcher.records.base import Records
from dispatcher.runs import indexes, transitions
from dispatcher.runs.change import Change
from dispatcher.runs.record import Record
from dispatcher.runs.routing import Route
from dispatcher.runs.states import State
from dispatcher.settings import TimingSettings
from dispatcher.support.failpoints import failpoint
from dispatcher.support.log_throttle import LogThrottle
from workers.one_by_one import Misplaced, OneByOne
from workers.refusal import refusal

logger = logging.getLogger(__name__)

#: Runs of one queue looked at in one sweep, and runs remembered that another release must ring for.
PAGE = 500
MOST = 10_000


class Bells:
    """One observer's evidence.

    Args:
        records: where runs wait.
        timing: ``bell_lost``, ``bell_most``, ``bell_tick``.
        serves: which routes to care for; queues that nobody here takes need no ring.
        depth: how many messages wait in a queue's list.
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
        self._idle: dict[str, float] = {}  # queue → when it was last used, as nothing waited there
        self._empty: dict[str, float] = {}  # queue → since when its list was empty whenever we looked
        self._passed: dict[str, float] = {}  # run → since when a later run of its list was seen claimed
        self._last: float | None = None
        self._foreign: set[str] = set()  # runs in states of another release
        self._each = OneByOne(logger)
        self._seldom = LogThrottle(logger)
        self._misplaced = Misplaced(records.runs)

    def sweep(self) -> int:
        """Ring again where there is evidence; how often."""
        self._forget_after_a_gap()
        try:
            known = self._records.queues.known()
            passed = self._records.queues.passed()
            served = {name: used for name, (route, used) in known.items() if self._serves(route)}
            self._idle = {name: used for name, used in self._idle.items() if name in served}
            busy = [name for name, used in served.items() if self._idle.get(name) != used]
            now = self._records.runs.now()
            found = {name: self._looked(name, passed.get(name, 0.0), now) for name in busy}
        except ServerUnavailable:
            self._forget()
            raise
        self._empty = {name: since for name, since in self._empty.items() if name in found}
        for name, lost in found.items():
            if lost is None:
                self._idle[name] = served[name]
        return sum(self._ring(indexes.waiting(name), run_id) for name, ids in found.items() for run_id in ids or ())

    def _looked(self, queue: str, passed: float, now: float) -> set[str] | None:
        """:meth:`_lost`; of a queue that can't be looked at, as if all of it were on its way."""
        try:
            return self._lost(queue, passed, now)
        except Malformed as error:
            self._seldom.warn(f"queue {queue!a} is left out", error)
            return set()

    def _lost(self, queue: str, passed: float, now: float) -> set[str] | None:
        """Runs of a queue whose doorbell is lost; None where nothing waits."""
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
        overtaken = self._waiting(index, until=min(passed, long_ago))
        for run_id, rung_at in overtaken:
            if rung_at < passed and at - self._passed.setdefault(run_id, at) >= self._timing.bell_lost:
                lost.add(run_id)
        return lost

    def _waiting(self, index: str, *, until: float) -> list[tuple[str, float]]:
        """Those that have waited longest, but for those of which another release must know."""
        members = self._records.runs.members(index, until=until, limit=PAGE + len(self._foreign))
        return [(run_id, rung_at) for run_id, rung_at in members if run_id not in self._foreign]

    def _ring(self, index: str, run_id: str) -> bool:
        step = partial(_ring_if_late, records=self._records, timing=self._timing)
        self._passed.pop(run_id, None)
        with self._each.run(run_id), suppress(Refused):
            try:
                record, now = self._records.runs.get(run_id)
            except UnknownRun:
                self._records.runs.leave(index, [run_id], unreadable=True)
                return False
            if record.foreign:
                self._foreign.add(run_id)
            if record.state is not State.QUEUED:
                self._misplaced.note(index, record)
                return False
            failpoint("bell.lost", run_id)
            after = self._records.runs.update(run_id, step, record=record, now=now)
            failpoint("bell.rung", run_id)
            if after.rings > record.rings:
                logger.warning("run %s: its doorbell was lost, it was rung again", run_id)
                return True
        return False

    def _forget_after_a_gap(self) -> None:
        """Ticks that come late (a suspended laptop, an outage) are no evidence."""
        at = self._clock()
        if self._last is not None and at - self._last > 3 * self._timing.bell_tick + self._timing.bell_lost:
            self._forget()
        self._last = at
        horizon = at - 10 * self._timing.bell_most
        self._passed = {run_id: since for run_id, since in self._passed.items() if since > horizon}
        if len(self._foreign) > MOST:
            self._foreign.clear()

    def _forget(self) -> None:
        self._empty.clear()
        self._passed.clear()


def _ring_if_late(record: Record, now: float, *, records: Records, timing: TimingSettings) -> Change | None:
    """Ring again where the time has come; end a run whose signature doesn't hold."""
    if record.state is State.QUEUED and (refused := refusal(records, record, now)):
        return refused
    pause = min(timing.bell_lost * 2.0 ** min(record.rings - 1, 30), timing.bell_most)
    return None if now - record.rung_at < pause else transitions.ring_again(record, now)
