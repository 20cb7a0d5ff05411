"""One claimed attempt in a container: load, run, report. The supervisor decides what the reports mean.

All reports go to the shard's inbox, authenticated by the attempt's token. Called by
:mod:`dispatcher.runner.container.child`; the flow itself runs in :mod:`dispatcher.runner.invoke`.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from dispatcher.code.activation import BundleImporter
from dispatcher.code.cache import BundleCache
from dispatcher.environments.base import Environment
from dispatcher.errors import RunInterrupt, ServerUnavailable
from dispatcher.logs.capture import Capture, captured, set_log_level
from dispatcher.records.base import Records
from dispatcher.runner.container.assignment import Assignment
from dispatcher.runner.container.memory import oom_kills, oom_message
from dispatcher.runner.container.report import Report, ReportKind
from dispatcher.runner.container.termination_message import TerminationMessage
from dispatcher.runner.interrupts import InterruptGuard
from dispatcher.runner.invoke import Invocation, failure, invoke
from dispatcher.runner.loading import Loader, loading_failed
from dispatcher.runner.settings import RunnerSettings
from dispatcher.runs.cluster import WorkerReport
from dispatcher.runs.outcome import ExitCall, Outcome
from dispatcher.runs.record import Record
from dispatcher.runs.states import Cause, State
from dispatcher.runs.value import Value
from dispatcher.serialization.seals import Returned
from dispatcher.support.failpoints import failpoint
from dispatcher.support.interpreter import PYTHON
from dispatcher.support.outages import MAX_OUTAGE, retry_while_unavailable

if TYPE_CHECKING:
    from dispatcher.runner.container.attempt_cluster import AttemptCluster

_HEARTBEAT_INTERVAL = 10.0  # seconds


class AttemptRunner:
    """The runner of one attempt.

    Args:
        assignment: the attempt.
        records: the records; no doorbell is rung from here.
        settings: sizes and times.
        guard: interrupts the flow, from the process's signal handlers.
        interrupt: interrupts the flow, from any thread.
        tell: reports progress to the parent process; the words are those of
            :meth:`dispatcher.runner.container.parent.ContainerParent._on_progress`.
    """

    def __init__(
        self,
        assignment: Assignment,
        records: Records,
        settings: RunnerSettings,
        *,
        guard: InterruptGuard,
        interrupt: Callable[[type[RunInterrupt]], None],
        tell: Callable[[str], None],
    ) -> None:
        self._assignment = assignment
        self._records = records
        self._settings = settings
        self._tell = tell
        self._guard = guard
        self._interrupt = interrupt
        self._cluster: AttemptCluster | None = None
        self._version: int | None = None  # of the record, as last read
        self._has_ended = False

    def run(self, record: Record) -> bool:
        """Run the claimed attempt to its end, and report it. Return True if SIGTERM ended the flow.

        Raises:
            ServerUnavailable: the server was away for ten minutes; the outcome is in the termination message.
        """
        threading.Thread(target=self._send_heartbeats, name="dispatcher-beat", daemon=True).start()
        with contextlib.closing(BundleCache()) as bundles:
            return self._run(record, BundleImporter(bundles, PYTHON))

    def _run(self, record: Record, importer: BundleImporter) -> bool:
        loader = Loader(
            records=self._records,
            credentials=self._assignment.credentials,
            limits=self._settings.limits,
            environ=os.environ,
            importer=importer,
            patience=MAX_OUTAGE,
        )
        sink = partial(self._records.logs.append, record.id)
        set_log_level(self._settings.log_level)
        with captured(sink, record.attempt, self._settings.limits, True, echo=True, run_id=record.id) as capture:
            outcome, exit_call = self._load_and_invoke(record, loader, capture)
        self._note_end(outcome, exit_call)
        self._report(ReportKind.EXITED, outcome, exit_call)
        self._write_message(outcome, exit_call, reported=True)
        self._tell("exited")
        capture.close(5.0)
        return outcome.cause is Cause.PREEMPTED

    def _load_and_invoke(self, record: Record, loader: Loader, capture: Capture) -> tuple[Outcome, ExitCall | None]:
        with contextlib.ExitStack() as stack:
            try:
                environment = loader.load_environment(
                    record, retry_while_unavailable(self._records.runs.now, within=MAX_OUTAGE)
                )
                stack.enter_context(self._cluster_of(environment))
                invocation = loader.load(record, environment, self._guard, capture)
            except ServerUnavailable as error:
                return failure(error, Cause.START_FAILED), None
            except Exception as error:
                return loading_failed(error), None
            return self._invoke(invocation)

    def _cluster_of(self, environment: Environment) -> contextlib.AbstractContextManager[None]:
        """Start the Dask cluster that an environment asks for, if it does."""
        if (spec := environment.cluster()) is None:
            return contextlib.nullcontext()
        from dispatcher.runner.container.attempt_cluster import AttemptCluster

        self._cluster = AttemptCluster(
            spec,
            send=lambda workers: self._send(ReportKind.WORKERS, Outcome(), workers=workers),
            interrupt=self._interrupt,
            lost=self._note_lost_cluster,
            has_ended=lambda: self._has_ended,
        )
        return self._cluster.opened()

    def _invoke(self, invocation: Invocation) -> tuple[Outcome, ExitCall | None]:
        invocation = replace(
            invocation,
            to_value=partial(self._to_value, invocation),
            explain=partial(self._explain, oom_kills()),
            prepare=None if self._cluster is None else self._cluster.wait,
            flow_ended=partial(self._tell, "flow_ended"),
        )
        try:
            outcome, exit_call = invoke(invocation, settle=self._settle)
        except ServerUnavailable as error:  # neither the result nor anything after it can be stored
            message = f"the flow returned, but Redis was away: {error}"
            return Outcome(cause=Cause.RESULT_MISSING, reason="ServerUnavailable", message=message), None
        return _with_stop_message(outcome), exit_call

    def _explain(self, oom_kills_before: int, outcome: Outcome) -> Outcome:
        return _with_oom(oom_kills_before, outcome if self._cluster is None else self._cluster.explain(outcome))

    def _to_value(self, invocation: Invocation, obj: Any, kind: Returned) -> Value:
        """Note a success, in case Redis is away."""
        if kind is Returned.RESULT:
            self._note_end(Outcome())
        return invocation.to_value(obj, kind)

    def _settle(self, outcome: Outcome) -> None:
        self._note_end(outcome)
        self._report(ReportKind.SETTLED, _with_stop_message(outcome))
        self._tell("settled")
        if self._cluster is not None and outcome.cause in {Cause.CANCELLED, Cause.PREEMPTED}:
            self._cluster.close()

    def _note_lost_cluster(self, outcome: Outcome) -> None:
        """Have the parent kill this process if the flow doesn't end soon, and note what it reports then."""
        self._write_message(outcome, None)
        self._tell("cluster_lost")

    def _note_end(self, outcome: Outcome, exit_call: ExitCall | None = None) -> None:
        """Note how the flow ended, in the termination message and for the parent, before it is reported."""
        self._has_ended = True
        self._write_message(outcome, exit_call)
        self._tell("message_written")

    def _write_message(self, outcome: Outcome, exit_call: ExitCall | None, *, reported: bool = False) -> None:
        assignment = self._assignment
        message = TerminationMessage.of(
            _with_stop_message(outcome),
            run=assignment.run_id,
            attempt=assignment.attempt,
            reported=reported,
            on_exit=exit_call,
        )
        message.write(assignment.message_path)

    def _report(self, kind: ReportKind, outcome: Outcome, exit_call: ExitCall | None = None) -> None:
        failpoint("container.reporting", self._assignment.run_id)

        def send() -> None:
            self._send(kind, outcome, exit_call)
            failpoint("container.reported", self._assignment.run_id)

        retry_while_unavailable(send, within=MAX_OUTAGE)

    def _send(
        self,
        kind: ReportKind,
        outcome: Outcome,
        exit_call: ExitCall | None = None,
        workers: WorkerReport | None = None,
    ) -> None:
        assignment = self._assignment
        report = Report(
            run_id=assignment.run_id,
            attempt=assignment.attempt,
            kind=kind,
            outcome=outcome,
            exit_call=exit_call,
            workers=workers,
        )
        self._records.inbox.report(assignment.shard, report.to_entry(assignment.token))

    def _send_heartbeats(self) -> None:
        """Send heartbeats until the process ends, and read at each whether the attempt is still wanted. What is lost
        is not repeated."""
        while True:
            time.sleep(_HEARTBEAT_INTERVAL)
            with contextlib.suppress(Exception):
                workers = None if self._cluster is None else self._cluster.report
                self._send(ReportKind.ALIVE, Outcome(), workers=workers)
            with contextlib.suppress(Exception):
                self._stop_if_unwanted()

    def _stop_if_unwanted(self) -> None:
        """Have the parent stop the flow, as SIGTERM does, if the run was cancelled or the attempt is closed.

        Usually SIGTERM has come before. Not where nobody could send it: no worker lives, or it can't delete the pod.
        """
        run_id = self._assignment.run_id
        version = self._records.runs.version(run_id)
        if self._has_ended or version is None or version == self._version:
            return
        record, _ = self._records.runs.get(run_id)
        self._version = record.version
        closed = record.terminal or record.attempt != self._assignment.attempt
        if closed or record.state is State.CANCELLING:
            self._tell("unwanted")


def _with_stop_message(outcome: Outcome) -> Outcome:
    """Name SIGTERM in an outcome that it caused."""
    if outcome.cause is not Cause.PREEMPTED:
        return outcome
    return replace(outcome, message="the container was told to stop (SIGTERM) while the flow ran")


def _with_oom(kills_before: int, outcome: Outcome) -> Outcome:
    """Name want of memory in an outcome that it caused: a process of the flow was killed, and the flow raised."""
    if outcome.cause is not Cause.USER_ERROR or oom_kills() <= kills_before:
        return outcome
    raised = ": ".join(part for part in (outcome.reason, outcome.message) if part)
    message = f"{oom_message()}, and the flow raised {raised}"
    return replace(outcome, cause=Cause.OOM_KILLED, reason="OOMKilled", message=message)
