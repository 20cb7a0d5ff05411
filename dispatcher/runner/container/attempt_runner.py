"""One claimed attempt in a container: open, run, report. The supervisor decides what the reports mean.

Everything goes to the shard's inbox, authenticated by the attempt's token. Called by
:mod:`dispatcher.runner.container.child`.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from dispatcher.errors import PreemptInterrupt, ServerUnavailable
from dispatcher.logs.capture import Capture, captured, keep_from
from dispatcher.logs.limits import Bounds
from dispatcher.records.base import Records
from dispatcher.runner.container.assignment import Assignment
from dispatcher.runner.container.report import About, Report
from dispatcher.runner.container.termination_message import LastWords
from dispatcher.runner.interrupts import Guard
from dispatcher.runner.invoke import Job, failure, invoke
from dispatcher.runner.loading import Opener, not_opened
from dispatcher.runs.record import ExitCall, Outcome, Record, Value
from dispatcher.runs.states import Cause
from dispatcher.serialization.seals import Returned
from dispatcher.support.failpoints import failpoint
from dispatcher.support.outages import MAX_OUTAGE, retry_while_unavailable

_BEAT = 10.0  # seconds between two signs of life


class Contained:
    """The runner of one attempt.

    Args:
        assignment: which attempt.
        records: what is kept; its doorbell is never rung from here.
        bounds: sizes and times.
        guard: interrupts the flow, from the process's signal handlers.
        tell: tells the parent how far we are, in the words of :meth:`dispatcher.runner.container.parent.Parent._hear`.
    """

    def __init__(
        self, assignment: Assignment, records: Records, bounds: Bounds, *, guard: Guard, tell: Callable[[str], None]
    ) -> None:
        self._mine = assignment
        self._records = records
        self._bounds = bounds
        self._tell = tell
        self._guard = guard

    def run(self, record: Record) -> bool:
        """Run the claimed attempt to its end, and report it; whether that is one by SIGTERM.

        Raises:
            ServerUnavailable: the server was away for ten minutes; the outcome is in the last words.
        """
        threading.Thread(target=self._beat, name="dispatcher-beat", daemon=True).start()
        opener = Opener(
            records=self._records,
            credentials=self._mine.credentials,
            limits=self._bounds.limits,
            environ=os.environ,
            patience=MAX_OUTAGE,
        )
        sink = partial(self._records.logs.append, record.id)
        keep_from(self._bounds.log_level)
        with captured(sink, record.attempt, self._bounds.limits, True, echo=True, run_id=record.id) as capture:
            outcome, exit_call = self._play(record, opener, capture)
        self._over(outcome, exit_call)
        self._report(About.EXITED, outcome, exit_call)
        self._write(outcome, exit_call, reported=True)
        self._tell("exited")
        capture.close(5.0)
        return outcome.reason == PreemptInterrupt.__name__

    def _play(self, record: Record, opener: Opener, capture: Capture) -> tuple[Outcome, ExitCall | None]:
        try:
            environment = opener.environment(record, retry_while_unavailable(self._records.runs.now, within=MAX_OUTAGE))
            job = opener.job(record, environment, self._guard, capture)
        except ServerUnavailable as error:
            return failure(error, Cause.START_FAILED), None
        except Exception as error:
            return not_opened(error), None
        try:
            outcome, exit_call = invoke(replace(job, to_value=partial(self._to_value, job)), settle=self._settle)
        except ServerUnavailable as error:  # the result couldn't be kept; nor can what follows
            message = f"the flow returned, but Redis was away: {error}"
            return Outcome(cause=Cause.RESULT_MISSING, reason="ServerUnavailable", message=message), None
        return _as_told(outcome), exit_call

    def _to_value(self, job: Job, obj: Any, kind: Returned) -> Value:
        """The flow has ended: its timeout counts no more, and its success isn't forgotten while Redis is away."""
        self._tell("ended")
        if not isinstance(obj, BaseException):
            self._over(Outcome())
        return job.to_value(obj, kind)

    def _settle(self, outcome: Outcome) -> None:
        self._over(outcome)
        self._report(About.SETTLED, _as_told(outcome))
        self._tell("settled")

    def _over(self, outcome: Outcome, exit_call: ExitCall | None = None) -> None:
        self._write(outcome, exit_call)
        self._tell("over")

    def _write(self, outcome: Outcome, exit_call: ExitCall | None, *, reported: bool = False) -> None:
        mine = self._mine
        words = LastWords.of(
            _as_told(outcome), run=mine.run_id, attempt=mine.attempt, reported=reported, on_exit=exit_call
        )
        words.write(mine.words)

    def _report(self, about: About, outcome: Outcome, exit_call: ExitCall | None = None) -> None:
        failpoint("container.reporting", self._mine.run_id)

        def send() -> None:
            self._send(about, outcome, exit_call)
            failpoint("container.reported", self._mine.run_id)

        retry_while_unavailable(send, within=MAX_OUTAGE)

    def _send(self, about: About, outcome: Outcome, exit_call: ExitCall | None = None) -> None:
        mine = self._mine
        report = Report(run_id=mine.run_id, attempt=mine.attempt, about=about, outcome=outcome, exit_call=exit_call)
        self._records.inbox.report(mine.shard, report.to_entry(mine.token))

    def _beat(self) -> None:
        """Signs of life, until the process ends; one that is lost is none."""
        while True:
            time.sleep(_BEAT)
            with contextlib.suppress(Exception):
                self._send(About.ALIVE, Outcome())


def _as_told(outcome: Outcome) -> Outcome:
    if outcome.reason != PreemptInterrupt.__name__:
        return outcome
    return replace(outcome, message="the container was told to stop (SIGTERM) while the flow ran")
