"""The parent's report of a flow's process that died without reporting: to the inbox, and as termination message.

Called by :mod:`dispatcher.runner.__main__` once the child is dead, and imported only then.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import replace

from dispatcher.errors import DispatcherError
from dispatcher.logs.journal import JournalLine
from dispatcher.logs.last_lines import store_last_lines
from dispatcher.records.redis import open_redis
from dispatcher.runner.container.assignment import Assignment
from dispatcher.runner.container.child import DEFECT, UNREPORTED, UNSTARTED
from dispatcher.runner.container.memory import oom_kills, oom_message
from dispatcher.runner.container.parent import STOP_SIGNALS, ContainerParent
from dispatcher.runner.container.report import Report, ReportKind
from dispatcher.runner.container.termination_message import left_message, write_message
from dispatcher.runner.settings import RunnerSettings
from dispatcher.runs.outcome import ExitCall, Outcome
from dispatcher.runs.states import Cause
from dispatcher.support.escaping import escaped
from dispatcher.support.outages import MAX_OUTAGE, retry_while_unavailable
from dispatcher.support.signal_names import signal_name

_KILLED_BY_US = {
    "term": (Cause.PREEMPTED, "SIGTERM", "the container was told to stop, and its flow did not do so in time"),
    "flow": (Cause.DEADLINE, "timeout", "ran longer than its timeout, and did not stop when told to"),
    "describe": (Cause.DEADLINE, "timeout", "ran longer than its timeout, and describing what it raised took too long"),
}  # fmt: skip


def report_crash(parent: ContainerParent, code: int) -> int:
    """Report the death of a child that didn't report its end. Return the exit code of the container.

    Args:
        parent: the parent process, which knows the child's progress.
        code: the child's exit code, or 128 + the number of a signal.
    """
    if not parent.claimed:
        if code not in {UNSTARTED, DEFECT} or left_message() is None:
            write_message(_with_left_message(_outcome_of_death(parent, code)))
        return code
    if parent.message_written and (code == UNREPORTED or (parent.expired_clock and not parent.settled)):
        return UNREPORTED  # the termination message holds the outcome
    outcome = _outcome_of_death(parent, code)
    lines = _recovered(parent)
    _exit_within_grace(parent, code)
    if not parent.message_written:
        write_message(outcome)
    try:
        _CrashReport(parent, outcome, lines).send(code)
    except DispatcherError as error:
        sys.stderr.write(f"runner: the death of the flow's process can't be reported: {escaped(str(error))}\n")
        return code
    if not parent.message_written:
        write_message(outcome, reported=True)
    return code


def _outcome_of_death(parent: ContainerParent, code: int) -> Outcome:
    """Return the outcome of an attempt whose process died with this exit code."""
    left = left_message()
    started_nothing = code == DEFECT and left is not None and left.cause == Cause.START_FAILED
    if left is not None and (started_nothing or parent.expired_clock == "cluster"):
        return replace(left.outcome(), exit_code=code)
    if parent.expired_clock in _KILLED_BY_US:
        cause, reason, message = _KILLED_BY_US[parent.expired_clock]
        return Outcome(cause=cause, reason=reason, message=message, exit_code=code)
    if code == 128 + signal.SIGKILL and oom_kills() > parent.oom_kills_before:
        return Outcome(cause=Cause.OOM_KILLED, reason="OOMKilled", message=oom_message(), exit_code=code)
    if not parent.claimed and parent.stop_requested_at is None and code < 128:
        message = f"the runner ended with exit code {code} before it claimed its attempt"
        return Outcome(cause=Cause.START_FAILED, reason="Exited", message=message, exit_code=code)
    if code > 128:
        name = signal_name(code - 128)
        message = f"the flow's process was killed by {name}"
        return Outcome(cause=Cause.KILLED, reason=name, message=message, exit_code=code)
    message = f"the flow's process ended with exit code {code}, without a result"
    return Outcome(cause=Cause.RESULT_MISSING, reason="Exited", message=message, exit_code=code)


def _with_left_message(outcome: Outcome) -> Outcome:
    """Return the outcome with what the child had said by then, such as that it can't reach the server."""
    left = left_message()
    return outcome if left is None else replace(outcome, message=f"{outcome.message}; it said: {left.message}")


def _recovered(parent: ContainerParent) -> list[JournalLine]:
    """Return the last lines of a dead child, and print the output that it left in its pipes."""
    lines = parent.journal.recover(os.environ.get("DISPATCHER__RUN__ID", ""))
    for number, data in parent.journal.unread.items():
        with contextlib.suppress(OSError):
            os.write(number, data)
    return lines


class _CrashReport:
    """The report of one attempt's dead process, after its ``on_exit``, if that wasn't begun.

    ``lines`` are the last of the process. They are stored first: a client that learns of the end can read them.
    """

    def __init__(self, parent: ContainerParent, outcome: Outcome, lines: Sequence[JournalLine]) -> None:
        self._parent = parent
        self._outcome = outcome
        self._lines = lines
        self._settings = RunnerSettings.read(os.environ)
        self._assignment = Assignment.take(os.environ, nonce=parent.nonce)

    def send(self, code: int) -> None:
        """Call ``on_exit`` if it is due, and report. ``code`` is the exit code if the grace ends meanwhile.

        Raises:
            DispatcherError: it can't be reported.
        """
        exit_call = None
        if self._parent.has_on_exit and not self._parent.settled:
            exit_call = self._call_on_exit(code)
        self._send(ReportKind.DIED, exit_call)

    def _call_on_exit(self, code: int) -> ExitCall | None:
        """Report the outcome, and call ``on_exit``, as a flow's process does. None if there is no time for that."""
        try:
            from dispatcher.runner.container.exit_call import LateExit, time_for
        except ImportError:  # of a module that the image lacks, which is why the flow's process ended
            return None
        if not time_for(self._parent, self._settings):
            return None
        self._send(ReportKind.SETTLED)
        within = time_for(self._parent, self._settings)
        if not within:
            return ExitCall.NOT_CALLED
        late = LateExit(assignment=self._assignment, settings=self._settings, outcome=self._outcome, within=within)
        exit_call, self._parent = late.call(self._parent)
        self._lines = _recovered(self._parent)
        _exit_within_grace(self._parent, code)
        return exit_call

    def _send(self, kind: ReportKind, exit_call: ExitCall | None = None) -> None:
        assignment = self._assignment

        def send() -> None:
            records = open_redis(assignment.url)
            try:
                tail = store_last_lines(
                    records.logs, assignment.run_id, assignment.attempt, self._lines, self._settings.limits
                )
                self._outcome = replace(self._outcome, log_tail=self._outcome.log_tail or tail)
                report = Report(
                    run_id=assignment.run_id,
                    attempt=assignment.attempt,
                    kind=kind,
                    outcome=self._outcome,
                    exit_call=exit_call,
                )
                records.inbox.report(assignment.shard, report.to_entry(assignment.token))
            finally:
                records.close()

        grace = self._parent.remaining_grace()
        retry_while_unavailable(send, within=MAX_OUTAGE if grace is None else grace)


def _exit_within_grace(parent: ContainerParent, code: int) -> None:
    """Make sure that this process exits before the grace is over, also if a stop signal arrives only now."""

    def on_stop_signal(*_: object) -> None:
        parent.stop_requested_at = parent.stop_requested_at or time.monotonic()
        signal.setitimer(signal.ITIMER_REAL, max(0.1, parent.grace - 1.0))

    signal.signal(signal.SIGALRM, lambda *_: os._exit(code))
    if parent.stop_requested_at is None:
        for number in STOP_SIGNALS:
            signal.signal(number, on_stop_signal)
