"""The thread that keeps a worker's word: renews its beat, watches what it runs, ends it, records who died.

It lives in the worker's parent and has its own client, because Celery's event loop blocks while it reconnects.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from dispatcher.errors import ServerUnavailable
from dispatcher.logs.journal import JournalLine
from dispatcher.records.base import Records
from dispatcher.records.rejections import What, count
from dispatcher.runs import indexes, use
from dispatcher.runs.record import Record
from dispatcher.settings import Settings
from dispatcher.support.escaping import counted
from dispatcher.support.failpoints import failpoint
from workers.identity import Identity
from workers.one_by_one import OneByOne
from workers.pool.death import Death, attempt_died, elsewhere
from workers.pool.holders import Holders
from workers.pool.interrupts import Note, Notes
from workers.pool.processes import Held, Holding, exit_status, sweep_group
from workers.pool.termination import Decision, Ending, Look, Step, decide, is_held, pid_of
from workers.transport import dropped

logger = logging.getLogger(__name__)

#: Seconds between two looks at what is owned, at most.
LOOK = 1.0

#: Seconds between two looks when all that is left to do is to leave.
SOON = 0.05

#: Messages dropped since the last tick that are counted: a flood of them is no reason to be late.
COUNTED = 100

#: Seconds without a look after which a shutdown goes on without the server.
BLIND = 5.0


@dataclass(frozen=True)
class Parent:
    """The worker's parent process, as the keeper sees it."""

    pids: Callable[[], set[int]]  #: of the pool's processes
    queues: Callable[[], tuple[str, ...]]  #: consumed now
    stop_consuming: Callable[[], None]
    idle: Callable[[], bool]  #: Celery consumes nothing more, and has no message that a process may be about to run
    said: Callable[[int, str], Sequence[JournalLine]]  #: last by a dead process, by its pid, of a run
    leave: Callable[[], None]  #: all is done: end Celery


class Keeper:
    """Keeps one worker. All but :meth:`died` and :meth:`drain` is called on its own thread."""

    def __init__(
        self,
        settings: Settings,
        identity: Identity,
        held: Held,
        notes: Notes,
        open_records: Callable[[], Records],
        holders: Holders,
    ) -> None:
        self._holders = holders
        self.preempt_all = False
        self._settings = settings
        self._timing = settings.timing
        self._identity = identity
        self._held = held
        self._notes = notes
        self._open = open_records
        self._records: Records | None = None
        self._deaths: deque[Death] = deque()
        self._absent: dict[str, int] = {}
        self._announced: tuple[str, ...] | None = None
        self._started_at: float | None = None
        self._next_beat = 0.0
        self._draining_since: float | None = None
        self._left = False
        self._empty_since: float | None = None
        self._said_goodbye = False
        self._looked_at = time.monotonic()
        self.parent: Parent | None = None
        self._each = OneByOne(logger)

    # From other threads.

    def died(self, death: Death) -> None:
        """A pool process died; recorded at the next tick, and tried again until the server answers."""
        if death.ending is None and self.preempt_all:
            death = replace(death, ending=Ending.PREEMPT)
        self._deaths.append(death)

    def drain(self, *, at_once: bool = False) -> None:
        """Begin to shut down. Safe in a signal handler."""
        if self._draining_since is None:
            self._draining_since = time.monotonic()
        if at_once:
            self.preempt_all = True

    # On its own thread.

    def tick(self) -> float:
        """One round; the seconds until the next."""
        self._find_dead()
        self._drain_on()
        records = self._connected()
        self._keep_beat(records)
        for _ in range(min(dropped.take(), COUNTED)):
            count(records.refusals, What.ENTRY)
        self._record_deaths(records)
        wait = self._look(records)
        self._looked_at = time.monotonic()
        self._leave_if_done()
        return min(wait, LOOK if self._empty_since is None else SOON, max(self._next_beat - time.monotonic(), 0.01))

    def close(self) -> None:
        """Say goodbye, if the server hears it."""
        if self._records is None:
            return
        try:
            self._record_deaths(self._records)
            failpoint("worker.leaving")
            self._records.workers.remove(self._identity.id)
        except ServerUnavailable as error:
            logger.warning("left without a goodbye, others will notice: %s", error)
        finally:
            self._records.close()

    def _connected(self) -> Records:
        if self._records is None:
            self._records = self._open()
        return self._records

    def _keep_beat(self, records: Records) -> None:
        queues = self.parent.queues() if self.parent else ()
        if self._announced != queues:
            self._announce(records, queues)
        if time.monotonic() < self._next_beat:
            return
        if not records.workers.beat(self._identity.id):
            logger.warning("others took this worker for dead; it presents itself again")
            self._announce(records, queues)
        self._next_beat = time.monotonic() + self._timing.renew
        failpoint("worker.beaten")

    def _announce(self, records: Records, queues: tuple[str, ...]) -> None:
        if self._started_at is None:
            self._started_at = records.runs.now()
        records.workers.announce(self._identity.info(queues=queues, started_at=self._started_at))
        failpoint("worker.announced")
        self._announced = queues

    def _record_deaths(self, records: Records) -> None:
        while self._deaths:
            death, record = self._deaths[0], None
            if not death.said and self.parent is not None:
                death = self._deaths[0] = replace(death, said=tuple(self.parent.said(death.pid, death.run_id)))
            with self._each.run(death.run_id):
                record = attempt_died(records, self._identity.id, death, self._settings.limits)
            self._deaths.popleft()
            if record is not None:
                logger.info("run %s: its process %d died; it is %s now", death.run_id, death.pid, record.state)

    def _look(self, records: Records) -> float:
        held = self._held.all()
        owned = [run_id for run_id, _ in records.runs.members(indexes.owned(self._identity.id), limit=100_000)]
        wanted = list({*owned, *(holding.run_id for holding in held)})
        if not wanted:
            self._absent.clear()
            return LOOK
        found = dict(zip(wanted, records.runs.get_many(wanted), strict=True))
        look = Look(now=records.runs.now(), at=time.monotonic(), worker=self._identity.id, preempting=self.preempt_all)
        waits = [LOOK]
        for holding in held:
            with self._each.run(holding.run_id):
                waits.append(self._act(holding, found[holding.run_id], look))
        self._account(records, [record for run_id in owned if (record := found[run_id]) is not None], look.now)
        return min(waits)

    def _act(self, holding: Holding, record: Record | None, look: Look) -> float:
        decision = decide(record, holding, look, self._timing)
        ours = record is not None and is_held(record, holding, look.worker)
        holding.missing = 0 if ours or holding.epoch is None else holding.missing + 1
        if record is not None and ours:
            holding.epoch = record.epoch
            if record.settled_at is not None and holding.settled_since is None:
                holding.settled_since = look.at
        self._carry_out(decision, holding, look)
        if holding.adopted and holding.missing:
            self._held.drop(holding.pid, holding.run_id)
        return LOOK if decision.again is None else max(decision.again, 0.01)

    def _carry_out(self, decision: Decision, holding: Holding, look: Look) -> None:
        ending = decision.ending
        if ending is None:
            return
        if decision.step is Step.TELL and holding.epoch is not None:
            first = holding.told is None
            self._notes.send(holding.pid, Note(holding.run_id, holding.epoch, ending))
            if first:
                holding.told, holding.told_at = ending, look.at
                failpoint("end.told", holding.run_id)
                logger.info("run %s: asked to end (%s)", holding.run_id, ending)
        elif decision.step is Step.KILL and holding.ending is None and self._held.kill(holding, ending):
            failpoint("end.killed", holding.run_id)
            logger.warning("run %s: process %d was killed (%s)", holding.run_id, holding.pid, ending)

    def _account(self, records: Records, owned: list[Record], now: float) -> None:
        """Find runs of ours that no process runs: its end wasn't recorded, or not noticed. Two looks must agree."""
        running = {(holding.pid, holding.run_id) for holding in self._held.all()}
        dying = {death.run_id for death in self._deaths}
        alive = self.parent.pids() if self.parent else set()
        absent: dict[str, int] = {}
        for record in owned:
            away = elsewhere(record)  # then any process of ours may be asking for its infrastructure
            pid = 0 if away else pid_of(record.holder)
            busy = record.id in {run for _, run in running} if away else (pid, record.id) in running
            if pid is None or busy or record.id in dying:
                continue
            if pid in alive and self._runs(records, record, pid, now):
                self._held.take(pid, record.id, adopted=True)
                continue
            absent[record.id] = self._absent.get(record.id, 0) + 1
            if absent[record.id] > 1:
                self.died(Death(run_id=record.id, pid=pid, ending=None, status=None))
        self._absent = absent

    def _runs(self, records: Records, record: Record, pid: int, now: float) -> bool:
        """Return True if a living process runs it: Celery forgot that over a lost connection, but the process goes on.

        A record alone is no reason to believe that. Who wrote it could have the process killed.
        """
        return (
            self._held.may_run(pid, record.id)
            and self._holders.made(record.holder, record.id)
            and not records.runs.vet(record, now)
            and records.runs.used(record.id, record.spec.day) in use.begun(record)
        )

    def _find_dead(self) -> None:
        """Notice deaths also while Celery's event loop can't."""
        for holding in self._held.all():
            status = exit_status(holding.pid)
            if status is not None and self._held.drop(holding.pid, holding.run_id) is not None:
                sweep_group(holding.pid)
                self.died(Death(run_id=holding.run_id, pid=holding.pid, ending=holding.ending, status=status))

    def _drain_on(self) -> None:
        """Do what of a shutdown doesn't need the server."""
        if self._draining_since is None or self.parent is None:
            return
        if not self._said_goodbye:
            self._said_goodbye = True
            running = len(self._held.all())
            logger.info("shutting down: %s %s running", counted(running, "flow"), "is" if running == 1 else "are")
        self.parent.stop_consuming()
        over = time.monotonic() - self._draining_since - self._settings.worker.drain
        self.preempt_all = self.preempt_all or over >= 0
        if over >= self._timing.stop_grace and time.monotonic() - self._looked_at > BLIND:
            for holding in self._held.all():  # the server is away: nobody can say how far they are
                if holding.ending is None and self._held.kill(holding, Ending.PREEMPT):
                    logger.warning("run %s: process %d was killed (preempt)", holding.run_id, holding.pid)
        self._leave_if_done()

    def _leave_if_done(self) -> None:
        if self._draining_since is None or self.parent is None or self._left:
            return
        if self._held:
            self._empty_since = None
            return
        self._empty_since = self._empty_since or time.monotonic()
        # Celery can't say so while it reconnects; it has nothing then.
        if self.parent.idle() or time.monotonic() - self._empty_since > BLIND:
            self._left = True
            self.parent.leave()
