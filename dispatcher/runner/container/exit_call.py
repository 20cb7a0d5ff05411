"""``on_exit`` in a fresh process of the container, after the flow's process died that should have called it.

Called by :mod:`dispatcher.runner.container.crash_report`, in the container's parent process. Its new child opens what
``on_exit`` needs as the flow's process would have: the environment, the code bundle, the parameters.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from dataclasses import dataclass
from functools import partial

from dispatcher.code.activation import BundleImporter
from dispatcher.code.cache import BundleCache
from dispatcher.errors import DispatcherError
from dispatcher.logs.capture import captured, set_log_level
from dispatcher.logs.last_lines import last_line_number
from dispatcher.records.base import Records
from dispatcher.records.redis import open_redis
from dispatcher.runner.container.assignment import Assignment
from dispatcher.runner.container.parent import STOP_SIGNALS, ContainerParent
from dispatcher.runner.invoke import call_exit
from dispatcher.runner.loading import Loader
from dispatcher.runner.settings import RunnerSettings
from dispatcher.runs.ending import as_cancelled
from dispatcher.runs.outcome import ExitCall, Outcome
from dispatcher.runs.record import Record
from dispatcher.support.escaping import escaped
from dispatcher.support.interpreter import PYTHON
from dispatcher.support.outages import MAX_OUTAGE, retry_while_unavailable

# Seconds of the grace that are kept for the report, and the least that are worth a process for on_exit.
_REPORT, _LEAST = 2.0, 1.0
_FLUSH_TIMEOUT = 5.0  # seconds


@dataclass(frozen=True, kw_only=True)
class LateExit:
    """The ``on_exit`` of an attempt whose process died before it could call it, with the outcome that it gets to see.

    ``within``: seconds that its process has, with what it opens first.
    """

    assignment: Assignment
    settings: RunnerSettings
    outcome: Outcome
    within: float

    def call(self, parent: ContainerParent) -> tuple[ExitCall, ContainerParent]:
        """Call ``on_exit`` in a new child, and wait for its end.

        Args:
            parent: the parent of the dead child.

        Returns:
            How the call ended, and the parent of the new child, which gets all further stop signals.

        Raises:
            SystemExit: in the new child, at its end.
        """
        successor = parent.successor(self.settings.on_exit_timeout, self.within)
        progress_fd = successor.fork()
        if progress_fd is not None:
            sys.exit(self._run(progress_fd))
        successor.watch()
        exit_call = ExitCall[successor.exit_call] if successor.exit_call in ExitCall.__members__ else None
        if exit_call is ExitCall.BEGUN:
            exit_call = ExitCall.INTERRUPTED
        return exit_call or ExitCall.NOT_CALLED, successor

    def _run(self, progress_fd: int) -> int:
        """In the new child: call ``on_exit``, and tell the parent how that ended. Return the exit code."""
        os.set_inheritable(progress_fd, False)
        for number in STOP_SIGNALS:  # on_exit goes on; the parent ends it before the grace is over
            signal.signal(number, lambda *_: None)
        try:
            records = retry_while_unavailable(partial(open_redis, self.assignment.url), within=MAX_OUTAGE)
            with contextlib.closing(records), contextlib.closing(BundleCache()) as bundles:
                self._load_and_call(records, BundleImporter(bundles, PYTHON), progress_fd)
        except DispatcherError as error:
            sys.stderr.write(f"runner: on_exit can't be called: {escaped(str(error))}\n")
            return 1
        return 0

    def _load_and_call(self, records: Records, importer: BundleImporter, progress_fd: int) -> None:
        run_id, attempt, limits = self.assignment.run_id, self.assignment.attempt, self.settings.limits
        record, now = retry_while_unavailable(lambda: records.runs.get(run_id), within=MAX_OUTAGE)
        if record.terminal or record.attempt != attempt:
            return
        loader = Loader(
            records=records,
            credentials=self.assignment.credentials,
            limits=limits,
            environ=os.environ,
            importer=importer,
            patience=MAX_OUTAGE,
        )
        after = last_line_number(records.logs, run_id, attempt)
        sink = partial(records.logs.append, run_id)
        set_log_level(self.settings.log_level)
        with captured(sink, attempt, limits, True, after=after, echo=True, run_id=run_id) as capture:
            settled = record.but(outcome=self._outcome_of(record))
            environment = loader.load_environment(settled, now)
            invocation, exception = loader.load_for_exit(settled, environment, plain=False)
            _tell(progress_fd, ExitCall.BEGUN)
            ended = call_exit(invocation, (settled.outcome or self.outcome).state, exception)
        _tell(progress_fd, ended)
        capture.close(_FLUSH_TIMEOUT)

    def _outcome_of(self, record: Record) -> Outcome:
        """Return the outcome as the supervisor has stored it, or will."""
        if record.settled_at is not None and record.outcome is not None:
            return record.outcome
        return as_cancelled(record, self.outcome)


def time_for(parent: ContainerParent, settings: RunnerSettings) -> float:
    """Return the seconds that a process for ``on_exit`` would have; 0 if the grace doesn't leave it enough."""
    grace = parent.remaining_grace()
    if grace is None:
        return MAX_OUTAGE + settings.on_exit_timeout
    return grace - _REPORT if grace - _REPORT >= _LEAST else 0.0


def _tell(progress_fd: int, exit_call: ExitCall) -> None:
    with contextlib.suppress(OSError):  # the parent is gone, so this process is about to be killed
        os.write(progress_fd, f"on_exit {exit_call.name}\n".encode())
