"""The monitor of a worker: renews its lease, watches its pool processes, terminates runs, and records deaths.

It runs in the worker's parent, on a thread and a connection of its own, because Celery's event loop blocks while it
reconnects. The decisions about processes are in :mod:`workers.pool.termination`.
"""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from dispatcher.errors import ServerUnavailable
from dispatcher.logs.journal import JournalLine
from dispatcher.records.base import Records
from dispatcher.records.rejections import Rejected, count_rejection
from dispatcher.runs.place_identity import Identity as PlaceIdentity
from dispatcher.runs.record import Record
from dispatcher.settings import Settings
from dispatcher.support.escaping import counted
from dispatcher.support.failpoints import failpoint
from dispatcher.support.log_throttle import LogThrottle
from workers.error_isolation import ErrorIsolation
from workers.identity import Identity
from workers.pool.absent_runs import AbsentRuns, ProcessView
from workers.pool.death import Death, attempt_died
from workers.pool.holder_names import HolderNames
from workers.pool.interrupts import Interrupt, InterruptChannel
from workers.pool.processes import BusyProcess, BusyProcesses, exit_status, sweep_group
from workers.pool.termination import Action, Decision, TerminationContext, TerminationReason, decide, is_held
from workers.transport import dropped

logger = logging.getLogger(__name__)

#: Seconds between two readings of the runs that the worker owns, at most.
POLL_INTERVAL = 1.0

#: The same once a shutdown only waits for Celery.
DRAINED_POLL_INTERVAL = 0.05

#: Dropped messages counted in one tick, so that a flood of them doesn't delay it.
MAX_COUNTED = 100

#: Seconds spent on recording deaths before the lease is renewed again.
DEATHS_BUDGET = 1.0

#: Seconds without an answer of the server after which a shutdown goes on without it.
OUTAGE_LIMIT = 5.0


@dataclass(frozen=True)
class ParentProcess:
    """The monitor's access to the worker's parent process."""

    pids: Callable[[], set[int]]  #: of the pool's processes
    queues: Callable[[], tuple[str, ...]]  #: that are consumed now
    stop_consuming: Callable[[], None]
    is_idle: Callable[[], bool]  #: whether Celery consumes nothing any more, and no message is on its way to a process
    last_output: Callable[[int, str], Sequence[JournalLine]]  #: of a dead process, by its pid, about a run
    leave: Callable[[], None]  #: ends Celery, once all is done
    places: Callable[[], Mapping[str, PlaceIdentity]] = dict  #: known identities of places, by families of shards


class PoolMonitor:
    """Monitors one worker. All methods but :meth:`process_died` and :meth:`drain` are for its own thread."""

    def __init__(
        self,
        settings: Settings,
        identity: Identity,
        busy: BusyProcesses,
        interrupts: InterruptChannel,
        open_records: Callable[[], Records],
        holder_names: HolderNames,
    ) -> None:
        self.preempt_all = False
        self._settings = settings
        self._timing = settings.timing
        self._identity = identity
        self._busy = busy
        self._interrupts = interrupts
        self._open = open_records
        self._records: Records | None = None
        self._deaths: deque[Death] = deque()
        self._absent = AbsentRuns(identity.id, busy, holder_names)
        self._announced: tuple[tuple[str, ...], Mapping[str, PlaceIdentity]] | None = None
        self._started_at: float | None = None
        self._next_heartbeat = 0.0
        self._draining_since: float | None = None
        self._drain_logged = False
        self._has_left = False
        self._empty_since: float | None = None
        self._polled_at = time.monotonic()
        self.parent: ParentProcess | None = None
        self._isolation = ErrorIsolation(logger)
        self._throttle = LogThrottle(logger)

    # From other threads.

    def process_died(self, death: Death) -> None:
        """Have a death recorded at the next tick, and retried until the server answers."""
        if death.reason is None and self.preempt_all:
            death = replace(death, reason=TerminationReason.PREEMPT)
        if death.reason is not None:
            death = replace(death, answer=self._interrupts.answer_of(death.pid, death.run_id))
        self._deaths.append(death)

    def drain(self, *, at_once: bool = False) -> None:
        """Begin to shut down; with ``at_once``, don't wait for running flows. Safe in a signal handler."""
        if self._draining_since is None:
            self._draining_since = time.monotonic()
        if at_once:
            self.preempt_all = True

    # On its own thread.

    def tick(self) -> float:
        """Do all that is due. Return the seconds until the next tick."""
        self._find_dead()
        self._continue_drain()
        records = self._connected()
        self._renew_lease(records)
        for _ in range(min(dropped.take(), MAX_COUNTED)):
            count_rejection(records.rejections, Rejected.ENTRY)
        self._record_deaths(records)
        wait = self._poll(records)
        self._polled_at = time.monotonic()
        self._leave_if_done()
        longest = POLL_INTERVAL if self._empty_since is None else DRAINED_POLL_INTERVAL
        return min(wait, longest, max(self._next_heartbeat - time.monotonic(), 0.01))

    def close(self) -> None:
        """Deregister the worker, if the server answers."""
        if self._records is None:
            return
        try:
            self._record_deaths(self._records, budget=math.inf)
            failpoint("worker.leaving")
            self._records.workers.remove(self._identity.id)
        except ServerUnavailable as error:
            logger.warning("Could not deregister (%s). Peers will detect the exit when the lease ends", error)
        finally:
            self._records.close()

    def _connected(self) -> Records:
        if self._records is None:
            self._records = self._open()
        return self._records

    def _renew_lease(self, records: Records) -> None:
        queues = self.parent.queues() if self.parent else ()
        places = self.parent.places() if self.parent else {}
        if self._announced != (queues, places):
            self._announce(records, queues, places)
        if time.monotonic() < self._next_heartbeat:
            return
        if self.parent is not None:
            self._interrupts.retain({*self.parent.pids(), *(process.pid for process in self._busy.all())})
        if not records.workers.beat(self._identity.id):
            logger.warning("Worker %s was declared dead while disconnected; rejoining", self._identity.id)
            self._announce(records, queues, places)
        self._next_heartbeat = time.monotonic() + self._timing.renew
        failpoint("worker.beaten")

    def _announce(self, records: Records, queues: tuple[str, ...], places: Mapping[str, PlaceIdentity]) -> None:
        if self._started_at is None:
            self._started_at = records.runs.now()
        info = self._identity.info(queues=queues, started_at=self._started_at, places=places)
        records.workers.announce(info)
        failpoint("worker.announced")
        self._announced = queues, places

    def _record_deaths(self, records: Records, *, budget: float = DEATHS_BUDGET) -> None:
        """Record deaths, for some seconds: the rest waits until the lease is renewed."""
        end = time.monotonic() + budget
        while self._deaths and time.monotonic() < end:
            death, record = self._deaths[0], None
            if not death.last_output and self.parent is not None:
                output = tuple(self.parent.last_output(death.pid, death.run_id))
                death = self._deaths[0] = replace(death, last_output=output)
            with self._isolation.run(death.run_id):
                record = attempt_died(records, self._identity.id, death, self._settings.limits)
            self._deaths.popleft()
            if record is not None and (death.was_seen or record.verified):
                logger.info("Run %s: process %d died; now %s", death.run_id, death.pid, record.state)
            elif record is not None:
                self._throttle.warn(f"Run {death.run_id} is ended: now {record.state}", "this worker never ran it")

    def _poll(self, records: Records) -> float:
        """Read the records of the runs that this worker's processes run, and act on them; find absent runs."""
        busy = self._busy.all()
        run_ids = list({process.run_id for process in busy})
        by_id = dict(zip(run_ids, records.runs.get_many(run_ids), strict=True)) if run_ids else {}
        waits = [POLL_INTERVAL]
        if busy:
            context = TerminationContext(
                now=records.runs.now(), at=time.monotonic(), worker=self._identity.id, preempting=self.preempt_all
            )
            for process in busy:
                with self._isolation.run(process.run_id):
                    waits.append(self._act(process, by_id[process.run_id], context))
        if self._deaths:  # they come first: the search would find more of them
            return min(*waits, DRAINED_POLL_INTERVAL)
        view = ProcessView(
            read=by_id,
            dying={death.run_id for death in self._deaths},
            alive=self.parent.pids() if self.parent else set(),
        )
        for death in self._absent.find(records, view):
            self.process_died(death)
        return min(waits)

    def _act(self, process: BusyProcess, record: Record | None, context: TerminationContext) -> float:
        decision = decide(record, process, context, self._timing)
        ours = record is not None and is_held(record, process, context.worker)
        process.missing = 0 if ours or process.epoch is None else process.missing + 1
        if record is not None and ours:
            process.epoch = record.epoch
            if record.settled_at is not None and process.settled_since is None:
                process.settled_since = context.at
        self._carry_out(decision, process, context)
        if process.adopted and process.missing:
            self._busy.remove(process.pid, process.run_id)
        return POLL_INTERVAL if decision.again is None else max(decision.again, 0.01)

    def _carry_out(self, decision: Decision, process: BusyProcess, context: TerminationContext) -> None:
        reason = decision.reason
        if reason is None:
            return
        if decision.action is Action.INTERRUPT and process.epoch is not None:
            first = process.interrupted_for is None
            self._interrupts.send(process.pid, Interrupt(process.run_id, process.epoch, reason))
            if first:
                process.interrupted_for, process.interrupted_at = reason, context.at
                failpoint("end.told", process.run_id)
                logger.info("Run %s: interrupted (%s)", process.run_id, reason)
        elif decision.action is Action.KILL and process.killed_for is None and self._busy.kill(process, reason):
            failpoint("end.killed", process.run_id)
            logger.warning("Run %s: process %d was killed (%s)", process.run_id, process.pid, reason)

    def _find_dead(self) -> None:
        """Notice deaths, even while Celery's event loop can't."""
        for process in self._busy.all():
            status = exit_status(process.pid)
            if status is not None and self._busy.remove(process.pid, process.run_id) is not None:
                sweep_group(process.pid)
                self.process_died(
                    Death(run_id=process.run_id, pid=process.pid, reason=process.killed_for, status=status)
                )

    def _continue_drain(self) -> None:
        """Do what a shutdown can do without the server."""
        if self._draining_since is None or self.parent is None:
            return
        if not self._drain_logged:
            self._drain_logged = True
            running = len(self._busy.all())
            logger.info("Shutting down: %s %s running", counted(running, "flow"), "is" if running == 1 else "are")
        self.parent.stop_consuming()
        over = time.monotonic() - self._draining_since - self._settings.worker.drain
        self.preempt_all = self.preempt_all or over >= 0
        if over >= self._timing.stop_grace and time.monotonic() - self._polled_at > OUTAGE_LIMIT:
            for process in self._busy.all():  # the server is unavailable: how far they are is unknown
                if process.killed_for is None and self._busy.kill(process, TerminationReason.PREEMPT):
                    logger.warning("Run %s: process %d was killed (preempt)", process.run_id, process.pid)
        self._leave_if_done()

    def _leave_if_done(self) -> None:
        if self._draining_since is None or self.parent is None or self._has_left:
            return
        if self._busy:
            self._empty_since = None
            return
        self._empty_since = self._empty_since or time.monotonic()
        # While Celery reconnects it can't tell that it is idle; it has no message then.
        if self.parent.is_idle() or time.monotonic() - self._empty_since > OUTAGE_LIMIT:
            self._has_left = True
            self.parent.leave()
