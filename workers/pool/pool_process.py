"""A pool process: its own process group, its own connection, and one flow at a time.

Called by Celery's signals and by the tasks, in the pool process alone.
"""

from __future__ import annotations

import gc
import json
import logging
import multiprocessing.process
import os
import signal
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

from backends.base import Backend
from dispatcher.errors import CancelInterrupt, PreemptInterrupt, Refused, TimeoutInterrupt
from dispatcher.logs.capture import set_log_level
from dispatcher.logs.journal import current_journal
from dispatcher.records.base import Records
from dispatcher.records.rejections import What, count
from dispatcher.runner.process_state import leftovers
from dispatcher.runner.process_state.baseline import Baseline
from dispatcher.runs.record import Record
from dispatcher.runs.requirements import refuse_lacking, wants_fresh_process
from dispatcher.runs.routing import Route
from dispatcher.serialization import KeyRing
from dispatcher.settings import Settings
from workers.backend_cache import Backends
from workers.identity import Identity
from workers.pool.celery_pool import between_jobs, leave
from workers.pool.holders import Holders
from workers.pool.interrupts import SIGNAL, Notes
from workers.pool.journals import journals

logger = logging.getLogger(__name__)

#: What a note's kind raises in the flow.
INTERRUPTS = {"cancel": CancelInterrupt, "timeout": TimeoutInterrupt, "preempt": PreemptInterrupt}


@dataclass(frozen=True)
class Inherited:
    """The things that a pool process gets from its parent by the fork."""

    settings: Settings
    keys: KeyRing
    identity: Identity
    notes: Notes
    holders: Holders
    serves: Callable[[Route], bool]  #: whether the worker takes runs of a route
    main_process: Any  #: the parent's main-process object, as multiprocessing knows it


@dataclass(frozen=True)
class Here:
    """The things that a task needs in its pool process."""

    settings: Settings
    keys: KeyRing
    records: Records
    backend: Callable[[str], Backend]  #: by name
    worker: str
    serves: Callable[[Route], bool]  #: whether the worker takes runs of a route
    holder: str  #: of one attempt; see :class:`~workers.pool.holders.Holders`
    course: Course  #: of this process

    def check(self, record: Record) -> None:
        """Labels are exact, wherever a doorbell was put; and what a spec requires is known here, or it isn't run here.

        Raises:
            Refused: this worker doesn't serve the run, or leaves it to one of a newer release.
        """
        refuse_lacking(record)
        if not self.serves(record.spec.route):
            count(self.records.refusals, What.DOORBELL)
            logger.warning("run %s: a doorbell of queue %s came here: refused", record.id, record.spec.route.queue)
            raise Refused(f"run {record.id} waits in queue {record.spec.route.queue}, which isn't served here")


@dataclass
class Course:
    """The runs of this process, and what follows from them: between two runs it is as before the first, or it ends.

    Args:
        most: runs after which it ends; None for any number.
    """

    most: int | None = None
    baseline: Baseline = field(default_factory=Baseline)
    runs: int = 0
    _now: Record | None = None

    @property
    def fresh(self) -> bool:
        """Return True if it has run nothing yet."""
        return not self.runs

    def begin(self, record: Record) -> None:
        """A run is about to be opened."""
        self.runs += 1
        self._now = record
        self.baseline.prepare((json.dumps(dict(record.spec.storage), sort_keys=True), record.spec.location))

    def tidy(self) -> None:
        """The run is over, and the worker knows. Put everything back, and leave where that can't be done."""
        record, self._now = self._now, None
        if record is None:
            return
        try:
            reasons = self.baseline.restore()
        except Exception as error:
            reasons = [f"{type(error).__name__} while it was put back"]
        if (
            (journal := current_journal()) is not None and journal.has_other_writers() and not leftovers.helpers()
        ):  # these keep stderr open
            reasons.append("output: another process still holds it")
        if reasons:
            logger.warning(
                "run %s left its process changed (%s): it ends, and a fresh one takes its place",
                *(record.id, "; ".join(reasons)),
            )
        if reasons or wants_fresh_process(record) or (self.most is not None and self.runs >= self.most):
            self.leave()

    def leave(self) -> None:
        """End this process before it gets another job."""
        leave()


class PoolProcess:
    """This pool process; made in the parent, lives in the child."""

    def __init__(self, inherited: Inherited) -> None:
        self._inherited = inherited
        self._backends = Backends(inherited.settings)
        self._records: Records | None = None
        self._course: Course | None = None
        self._pid = 0

    def begin(self) -> None:
        """At the start of the process: take up its journal, leave the parent's group, and look like a main process.

        Celery's children are daemonic to ``multiprocessing``, which refuses them children of their own; a flow may
        want a process pool or a local Dask cluster.
        """
        os.setpgid(0, 0)
        journals.adopt()
        if os.getppid() != self._inherited.identity.pid:  # it died before we had asked to die with it
            os._exit(os.EX_SOFTWARE)
        set_log_level(self._inherited.settings.defaults.log_level)
        multiprocessing.process._current_process = self._inherited.main_process  # type: ignore[attr-defined]
        gc.freeze()  # what is here stays: to look through all of it held up a run for 20 ms, and copied shared memory

    def here(self, run_id: str, *, also: Collection[str] = ()) -> Here:
        """Before each task. Celery sets its own signal handlers after the start, so ours are set at the first.

        Args:
            run_id: the run that it is about.
            also: queues that the worker consumes beyond its offer, since somebody told it to.
        """
        if self._records is None or self._pid != os.getpid():
            from workers.claims import open_records

            self._records, self._pid = open_records(self._inherited.settings, self._inherited.keys), os.getpid()
            self._course = None
        if self._course is None:
            self._handle_signals()
            self._course = Course(most=self._inherited.settings.worker.runs_per_process)
            between_jobs(self._course.tidy)
        identity, serves = self._inherited.identity, self._inherited.serves
        return Here(
            serves=lambda route: serves(route) or route.queue in also,
            settings=self._inherited.settings,
            keys=self._inherited.keys,
            records=self._records,
            backend=self._backends,
            worker=identity.id,
            holder=self._inherited.holders.new(run_id),
            course=self._course,
        )

    def _handle_signals(self) -> None:
        """Before the baseline is taken: handlers that a flow changes are put back after it."""
        signal.signal(SIGNAL, self._on_note)
        signal.signal(signal.SIGTERM, self._on_sigterm)
        signal.signal(signal.SIGHUP, self._on_sigterm)

    def _on_sigterm(self, signum: int, frame: object) -> None:
        """Sent to a whole service at once, as systemd does: the parent decides when a running flow is to end."""
        from billiard.common import _shutdown_cleanup

        from dispatcher.runner.in_process import current_attempt

        if os.getpid() != self._pid:  # a child that the flow has forked
            signal.signal(signum, signal.SIG_DFL)
            os.kill(os.getpid(), signum)
        elif current_attempt() is None:
            _shutdown_cleanup(signum, frame)

    def _on_note(self, signum: int, frame: object) -> None:
        from dispatcher.runner.in_process import current_attempt

        if os.getpid() != self._pid:
            return
        note, attempt = self._inherited.notes.read(), current_attempt()
        if note is None or attempt is None:
            return
        if attempt.run_id == note.run_id and attempt.epoch == note.epoch:
            attempt.interrupt(INTERRUPTS[note.kind])
