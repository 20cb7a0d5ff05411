"""One attempt in a container: claim it, open, run, report. The supervisor decides what the reports mean.

The claim is one script, answered at once. Everything later goes to the shard's inbox, authenticated by the attempt's
token. Called by :mod:`dispatcher.runner.__main__` alone.
"""

from __future__ import annotations

import os
import threading
from functools import partial

from dispatcher.errors import PreemptInterrupt, Refused, TimeoutInterrupt, UnknownRun
from dispatcher.failpoints import failpoint
from dispatcher.records.base import Records, Step
from dispatcher.runner.assignment import Assignment
from dispatcher.runner.capture import Capture, captured
from dispatcher.runner.guard import Guard
from dispatcher.runner.invoke import invoke
from dispatcher.runner.opening import Opener, not_opened
from dispatcher.runner.patience import patiently
from dispatcher.runner.report import About, Report
from dispatcher.runs import transitions
from dispatcher.runs.record import ExitCall, Outcome, Record
from dispatcher.settings import Settings


class Contained:
    """The runner of one attempt.

    Args:
        assignment: which attempt.
        records: what is kept; its doorbell is never rung from here.
        settings: limits.
    """

    def __init__(self, assignment: Assignment, records: Records, settings: Settings) -> None:
        self._mine = assignment
        self._records = records
        self._settings = settings
        self._guard = Guard()
        self._stopped = threading.Event()

    def stop(self) -> None:
        """The container is to end (SIGTERM): interrupt the flow; for a signal handler in the main thread."""
        self._stopped.set()
        self._guard.interrupt(PreemptInterrupt)

    def time_out(self) -> None:
        """The flow's time is over; for a signal handler in the main thread."""
        self._guard.interrupt(TimeoutInterrupt)

    def claim(self) -> Record | None:
        """Claim the attempt; None if it is closed, or another process holds it."""
        step = partial(transitions.claim_attempt, attempt=self._mine.attempt, holder=self._mine.holder)
        try:
            return patiently(lambda: self._claimed(step))
        except (Refused, UnknownRun):
            return None

    def _claimed(self, step: Step) -> Record:
        record = self._records.runs.update(self._mine.run_id, step)
        failpoint("container.claimed", record.id)
        return record

    def run(self, record: Record) -> None:
        """Run the claimed attempt to its end, and report it."""
        opener = Opener(records=self._records, keys=self._mine.keys, settings=self._settings, environ=os.environ)
        sink = partial(self._records.logs.append, record.id)
        with captured(sink, record.attempt, self._settings.limits, True) as capture:
            outcome, exit_call = self._play(record, opener, capture)
        self._report(About.EXITED, outcome, exit_call)
        capture.close(5.0)

    def stand_by(self) -> None:
        """A loser's part: wait for the end of the container or of the run. Ending first would end the rightful one."""
        while not self._stopped.wait(2.0):
            try:
                record, _ = patiently(lambda: self._records.runs.get(self._mine.run_id))
            except UnknownRun:
                return
            if record.terminal or record.attempt != self._mine.attempt:
                return

    def _play(self, record: Record, opener: Opener, capture: Capture) -> tuple[Outcome, ExitCall | None]:
        now = patiently(self._records.runs.now)
        try:
            environment = opener.environment(record, now)
        except Exception as error:
            return not_opened(error), None
        job = opener.job(record, environment, self._guard, capture)
        return invoke(job, settle=partial(self._report, About.SETTLED))

    def _report(self, about: About, outcome: Outcome, exit_call: ExitCall | None = None) -> None:
        mine = self._mine
        report = Report(run_id=mine.run_id, attempt=mine.attempt, about=about, outcome=outcome, exit_call=exit_call)
        failpoint("container.reporting", mine.run_id)

        def send() -> None:
            self._records.inbox.report(mine.shard, report.to_entry(mine.token))
            failpoint("container.reported", mine.run_id)

        patiently(send)
