"""The parent's report of a flow's process that died without one of its own: to the inbox, and as last words.

Called by :mod:`dispatcher.runner.__main__`, once the child is dead; nothing of this is imported before.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace

from dispatcher.errors import DispatcherError
from dispatcher.logs.journal import Journal, Said
from dispatcher.logs.last_lines import keep
from dispatcher.logs.limits import Bounds
from dispatcher.records.redis import open_redis
from dispatcher.runner.container.assignment import Assignment
from dispatcher.runner.container.child import UNREPORTED, UNSTARTED
from dispatcher.runner.container.parent import STOPS, Parent, oom_kills
from dispatcher.runner.container.report import About, Report
from dispatcher.runner.container.termination_message import LastWords
from dispatcher.runs.record import Outcome
from dispatcher.runs.states import Cause
from dispatcher.support.escaping import escaped
from dispatcher.support.outages import MAX_OUTAGE, retry_while_unavailable
from dispatcher.support.signal_names import signal_name

_KILLED_BY_US = {
    "term": (Cause.PREEMPTED, "SIGTERM", "the container was told to stop, and its flow did not do so in time"),
    "flow": (Cause.DEADLINE, "timeout", "ran longer than its timeout, and did not stop when told to"),
}  # fmt: skip


def tell(parent: Parent, code: int) -> int:
    """Say how the child died, where it didn't itself; the exit code for the container.

    Args:
        parent: what the child told.
        code: the child's exit code, 128 + the number of a signal.
    """
    if not parent.claimed:
        if code != UNSTARTED:
            _write(death(parent, code), reported=False)
        return code
    if parent.over and (code == UNREPORTED or (parent.why and not parent.settled)):
        return UNREPORTED  # its last words hold the outcome
    outcome = death(parent, code)
    said = parent.journal.left(os.environ.get("DISPATCHER__RUN__ID", ""))
    _echo(parent.journal)
    _bound_by_grace(parent, code)
    if not parent.over:
        _write(outcome, reported=False)
    try:
        _report(parent, outcome, said)
    except DispatcherError as error:
        sys.stderr.write(f"runner: the death of the flow's process can't be reported: {escaped(str(error))}\n")
        return code
    if not parent.over:
        _write(outcome, reported=True)
    return code


def death(parent: Parent, code: int) -> Outcome:
    """The outcome of an attempt whose process ended like that."""
    if parent.why in _KILLED_BY_US:
        cause, reason, message = _KILLED_BY_US[parent.why]
        return Outcome(cause=cause, reason=reason, message=message, exit_code=code)
    if code == 128 + signal.SIGKILL and oom_kills() > parent.ooms:
        return Outcome(cause=Cause.OOM_KILLED, reason="OOMKilled", message="out of memory", exit_code=code)
    if not parent.claimed and parent.told_at is None and code < 128:
        message = f"the runner ended with exit code {code} before it claimed its attempt"
        return Outcome(cause=Cause.START_FAILED, reason="Exited", message=message, exit_code=code)
    if code > 128:
        name = signal_name(code - 128)
        message = f"the flow's process was killed by {name}"
        return Outcome(cause=Cause.KILLED, reason=name, message=message, exit_code=code)
    message = f"the flow's process ended with exit code {code}, without a result"
    return Outcome(cause=Cause.RESULT_MISSING, reason="Exited", message=message, exit_code=code)


def _echo(journal: Journal) -> None:
    """Print what was left in the pipes: the child didn't come to that."""
    for number, data in journal.unread.items():
        with contextlib.suppress(OSError):
            os.write(number, data)


def _report(parent: Parent, outcome: Outcome, said: Sequence[Said]) -> None:
    """Its last lines come first: who hears of the end sees them."""
    limits = Bounds.read(os.environ).limits
    mine = Assignment.take(os.environ, nonce=parent.nonce)

    def send() -> None:
        records = open_redis(mine.url)
        try:
            tail = keep(records.logs, mine.run_id, mine.attempt, said, limits)
            told = replace(outcome, log_tail=outcome.log_tail or tail)
            report = Report(run_id=mine.run_id, attempt=mine.attempt, about=About.DIED, outcome=told)
            records.inbox.report(mine.shard, report.to_entry(mine.token))
        finally:
            records.close()

    left = parent.left()
    retry_while_unavailable(send, within=MAX_OUTAGE if left is None else left)


def _bound_by_grace(parent: Parent, code: int) -> None:
    """Whenever we are told to stop, end before the grace does."""

    def told(*_: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, max(0.1, parent.grace - 1.0))

    signal.signal(signal.SIGALRM, lambda *_: os._exit(code))
    if parent.told_at is None:
        for number in STOPS:
            signal.signal(number, told)


def _write(outcome: Outcome, *, reported: bool) -> None:
    get = os.environ.get
    run, attempt = get("DISPATCHER__RUN__ID", ""), int(get("DISPATCHER__RUN__ATTEMPT", "0"))
    LastWords.of(outcome, run=run, attempt=attempt, reported=reported).write(get("DISPATCHER__RUN__LAST_WORDS", ""))
