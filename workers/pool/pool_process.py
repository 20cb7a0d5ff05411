"""A pool process: its own process group, its own connection, and one flow at a time.

Celery's signals and the tasks call it, in the pool process alone. See :mod:`workers.execution.lifecycle` for the tasks.
"""

from __future__ import annotations

import gc
import json
import logging
import multiprocessing.process
import os
import secrets
import signal
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from backends.base import Backend
from dispatcher.code.activation import BundleImporter
from dispatcher.code.cache import BundleCache
from dispatcher.errors import CancelInterrupt, PreemptInterrupt, Refused, TimeoutInterrupt
from dispatcher.logs.capture import set_log_level
from dispatcher.logs.journal import current_journal
from dispatcher.records.base import Records
from dispatcher.records.rejections import Rejected, count_rejection
from dispatcher.runner.process_state import leftovers
from dispatcher.runner.process_state.baseline import Baseline
from dispatcher.runs.record import Record
from dispatcher.runs.requirements import check_features, wants_fresh_process
from dispatcher.runs.routing import Route
from dispatcher.serialization import KeyRing
from dispatcher.settings import Settings
from dispatcher.support.forks import handle_in_this_process
from dispatcher.support.interpreter import PYTHON
from workers.backend_cache import BackendCache
from workers.identity import Identity
from workers.pool.celery_pool import between_jobs, leave
from workers.pool.holder_names import HolderNames
from workers.pool.interrupts import SIGNAL, InterruptChannel
from workers.pool.journals import journals

logger = logging.getLogger(__name__)

#: Kind of an interrupt → the exception raised in the flow.
INTERRUPTS = {"cancel": CancelInterrupt, "timeout": TimeoutInterrupt, "preempt": PreemptInterrupt}


@dataclass(frozen=True)
class Inherited:
    """The objects that a pool process inherits from its parent by the fork."""

    settings: Settings
    keys: KeyRing
    identity: Identity
    interrupts: InterruptChannel
    holder_names: HolderNames
    serves: Callable[[Route], bool]  #: whether the worker serves a route
    main_process: Any  #: the parent's main-process object of multiprocessing
    bytecode_key: bytes = field(default_factory=partial(secrets.token_bytes, 32), repr=False)  #: of bundles' bytecode


@dataclass(frozen=True)
class TaskContext:
    """The objects that a task needs in its pool process."""

    settings: Settings
    keys: KeyRing
    records: Records
    backend: Callable[[str], Backend]  #: by name
    worker: str
    serves: Callable[[Route], bool]  #: whether the worker serves a route
    holder: str  #: of one attempt; see :class:`~workers.pool.holder_names.HolderNames`
    recycler: ProcessRecycler  #: of this process

    def check(self, record: Record) -> None:
        """Check that this worker serves the run's labels, whatever queue the doorbell came from, and knows what its
        spec requires.

        Raises:
            Refused: the run is left to other workers, or to a newer release.
        """
        check_features(record)
        if not self.serves(record.spec.route):
            count_rejection(self.records.rejections, Rejected.DOORBELL)
            queue = record.spec.route.queue
            logger.warning(
                "Run %s: doorbell refused: it belongs to queue %s, which isn't served here", record.id, queue
            )
            raise Refused(f"run {record.id} waits in queue {queue}, which isn't served here")


@dataclass
class ProcessRecycler:
    """Restores a process between two runs to its state before the first, or ends it so that a new one is forked.

    Args:
        importer: of the runs' code bundles.
        max_runs: runs after which the process ends; None for any number.
    """

    importer: BundleImporter
    max_runs: int | None = None
    baseline: Baseline = field(default_factory=Baseline)
    runs: int = 0
    _record: Record | None = None  # of the current run

    @property
    def fresh(self) -> bool:
        """Return True if the process hasn't run anything yet."""
        return not self.runs

    def begin(self, record: Record) -> None:
        """Prepare for a run that is about to be opened."""
        self.runs += 1
        self._record = record
        self.baseline.prepare((json.dumps(dict(record.spec.storage), sort_keys=True), record.spec.location))

    def restore(self) -> None:
        """Restore the process after a run, or end it where that is impossible. Call once the result was sent."""
        record, self._record = self._record, None
        if record is None:
            return
        self.importer.leave()
        try:
            reasons = self.importer.leftovers() + self.baseline.restore()
        except Exception as error:
            reasons = [f"{type(error).__name__} while it was restored"]
        journal = current_journal()
        if journal is not None and journal.has_other_writers() and not leftovers.helpers():  # helpers keep stderr open
            reasons.append("output: another process still holds it")
        if reasons:
            logger.warning(
                "Run %s left its process changed (%s); the process is replaced", record.id, "; ".join(reasons)
            )
        if reasons or wants_fresh_process(record) or (self.max_runs is not None and self.runs >= self.max_runs):
            self.leave()

    def leave(self) -> None:
        """End this process before its next job."""
        leave()


class PoolProcess:
    """This pool process. Created in the parent, used in the child."""

    def __init__(self, inherited: Inherited) -> None:
        self._inherited = inherited
        self._backends = BackendCache(inherited.settings)
        self._records: Records | None = None
        self._recycler: ProcessRecycler | None = None
        self._pid = 0

    def begin(self) -> None:
        """Initialise the process: adopt its journal, leave the parent's group, and look like a main process.

        Celery's children are daemonic to ``multiprocessing``, which refuses them children of their own; a flow may
        need a process pool or a local Dask cluster.
        """
        os.setpgid(0, 0)
        journals.adopt()
        if os.getppid() != self._inherited.identity.pid:  # the parent died before this process asked to die with it
            os._exit(os.EX_SOFTWARE)
        set_log_level(self._inherited.settings.defaults.log_level)
        multiprocessing.process._current_process = self._inherited.main_process  # type: ignore[attr-defined]
        gc.freeze()  # these objects stay: a collection of them delayed a run by 20 ms, and copied shared memory

    def task_context(self, run_id: str, *, also: Collection[str] = ()) -> TaskContext:
        """Return the context of a task. Call before each task: the first one sets the signal handlers, because Celery
        sets its own after the start of the process.

        Args:
            run_id: the run of the task.
            also: queues that the worker was told to consume beyond its offer.
        """
        if self._records is None or self._pid != os.getpid():
            from workers.claims import open_records

            self._records, self._pid = open_records(self._inherited.settings, self._inherited.keys), os.getpid()
            self._recycler = None
        if self._recycler is None:
            self._set_signal_handlers()
            cache = BundleCache(self._inherited.interrupts.code, bytecode_key=self._inherited.bytecode_key)
            importer = BundleImporter(cache, PYTHON)
            max_runs = self._inherited.settings.worker.runs_per_process
            self._recycler = ProcessRecycler(importer, max_runs=max_runs)
            between_jobs(self._recycler.restore)
        identity, serves = self._inherited.identity, self._inherited.serves
        return TaskContext(
            serves=lambda route: serves(route) or route.queue in also,
            settings=self._inherited.settings,
            keys=self._inherited.keys,
            records=self._records,
            backend=self._backends,
            worker=identity.id,
            holder=self._inherited.holder_names.new(run_id),
            recycler=self._recycler,
        )

    def _set_signal_handlers(self) -> None:
        """Set the handlers before the baseline is taken, so that they are restored after a flow changes them."""
        signal.signal(SIGNAL, self._on_interrupt)
        for number in (signal.SIGTERM, signal.SIGHUP):
            handle_in_this_process(number, self._on_sigterm)

    def _on_sigterm(self, signum: int, frame: object) -> None:
        """Ignore the signal while a flow runs: systemd sends it to all processes, and the parent decides."""
        from billiard.common import _shutdown_cleanup

        from dispatcher.runner.in_process import current_attempt

        if os.getpid() != self._pid:  # a child that the flow has forked
            signal.signal(signum, signal.SIG_DFL)
            os.kill(os.getpid(), signum)
        elif current_attempt() is None:
            _shutdown_cleanup(signum, frame)

    def _on_interrupt(self, signum: int, frame: object) -> None:
        from dispatcher.runner.in_process import current_attempt

        if os.getpid() != self._pid:
            return
        interrupt, attempt = self._inherited.interrupts.read(), current_attempt()
        if interrupt is None or attempt is None:
            return
        if attempt.run_id == interrupt.run_id and attempt.epoch == interrupt.epoch:
            if attempt.guard.afterwards:
                self._inherited.interrupts.answer(interrupt, attempt.guard.afterwards)
            attempt.interrupt(INTERRUPTS[interrupt.kind])
