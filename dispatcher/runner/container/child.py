"""The flow's process in a container: claim the attempt, run it, report. Forked by :mod:`dispatcher.runner.__main__`.

It tells its parent on a pipe how far it is, so that the parent keeps the clocks and knows what it has to tell if this
process dies.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from functools import partial

from dispatcher.errors import (
    CancelInterrupt,
    DispatcherError,
    InvalidSettings,
    PreemptInterrupt,
    RunInterrupt,
    ServerUnavailable,
    TimeoutInterrupt,
)
from dispatcher.logs.limits import Bounds
from dispatcher.records.base import Records
from dispatcher.records.redis import open_redis
from dispatcher.runner.container.assignment import Assignment
from dispatcher.runner.container.claim import claim, stand_by
from dispatcher.runner.container.parent import STOPPED
from dispatcher.runner.container.termination_message import LastWords
from dispatcher.runner.interrupts import Guard
from dispatcher.runs.record import Outcome
from dispatcher.runs.states import Cause, State
from dispatcher.support.escaping import escaped
from dispatcher.support.mailbox import Mailbox
from dispatcher.support.outages import MAX_OUTAGE, retry_while_unavailable

UNSTARTED, UNREPORTED = 2, 3  #: exit codes
_STOPS = (signal.SIGTERM, signal.SIGHUP)  # a flow may want SIGINT for itself
_ANSWER = 2.0  # seconds that Redis gets to say why we are to stop


def main(mouth: int, nonce: str) -> int:
    """Run the assigned attempt; the exit code.

    Args:
        mouth: the descriptor to tell the parent on.
        nonce: of the container's start.
    """
    os.set_inheritable(mouth, False)
    words = os.environ.get("DISPATCHER__RUN__LAST_WORDS", "")
    try:
        assignment = Assignment.take(os.environ, nonce=nonce)
        bounds = Bounds.read(os.environ)
        records = retry_while_unavailable(lambda: open_redis(assignment.url), within=MAX_OUTAGE)
    except DispatcherError as error:
        return _unstarted(error, words)
    try:
        return _run(assignment, records, bounds, partial(_tell, mouth))
    finally:
        with contextlib.suppress(DispatcherError):
            records.close()


def _run(mine: Assignment, records: Records, bounds: Bounds, tell: Callable[[str], None]) -> int:
    try:
        record = claim(records, mine)
    except ServerUnavailable as error:
        return _unstarted(error, mine.words)
    if record is None:
        for number in _STOPS:
            signal.signal(number, lambda *_: os._exit(0))
        sys.stderr.write("runner: the attempt is closed, or another process holds it; this one stands by\n")
        sys.stderr.flush()
        stand_by(records, mine)
        return 0
    guard = Guard()
    _heed_sigterm(records, mine, guard)
    signal.signal(signal.SIGUSR1, lambda *_: guard.interrupt(TimeoutInterrupt))
    tell(f"claimed {record.spec.options.timeout or 0} {bounds.stop_grace} {bounds.on_exit_timeout}")
    from dispatcher.runner.container.attempt_runner import (
        Contained,
    )  # it loads what opens and runs flows: a third of our start

    runner = Contained(mine, records, bounds, guard=guard, tell=tell)
    try:
        stopped = runner.run(record)
    except ServerUnavailable as error:
        sys.stderr.write(f"runner: the attempt's end can't be reported: {escaped(str(error))}\n")
        return UNREPORTED
    return STOPPED if stopped else 0


def _heed_sigterm(records: Records, mine: Assignment, guard: Guard) -> None:
    """A signal says to stop, not why. The record does, where Redis answers in time: a cancel isn't a preemption."""
    kinds: list[type[RunInterrupt]] = [PreemptInterrupt]

    def interrupt() -> None:
        os.kill(os.getpid(), signal.SIGUSR2)

    def ask() -> None:
        with contextlib.suppress(Exception):
            if records.runs.get(mine.run_id)[0].state is State.CANCELLING:
                kinds[0] = CancelInterrupt
        interrupt()

    pid = os.getpid()
    signals: Mailbox[int] = Mailbox()

    def answer() -> None:
        signals.get()
        threading.Thread(target=ask, name="dispatcher-ask", daemon=True).start()
        time.sleep(_ANSWER)
        interrupt()

    def told(number: int, _frame: object) -> None:
        if os.getpid() != pid:  # a child that the flow has forked ends as any process does
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        signals.put(number)  # no thread is started here: whom the signal interrupts may hold what that takes

    threading.Thread(target=answer, name="dispatcher-signals", daemon=True).start()
    signal.signal(signal.SIGUSR2, lambda *_: guard.interrupt(kinds[0]))
    for number in _STOPS:
        signal.signal(number, told)


def _unstarted(error: DispatcherError, words: str) -> int:
    sys.stderr.write(f"runner: {escaped(str(error))}\n")
    cause = Cause.CONFIG_ERROR if isinstance(error, InvalidSettings) else Cause.START_FAILED
    outcome = Outcome(cause=cause, reason=type(error).__name__, message=str(error))
    variables = os.environ.get
    number = variables("DISPATCHER__RUN__ATTEMPT", "")
    last = LastWords.of(
        outcome, run=variables("DISPATCHER__RUN__ID", ""), attempt=int(number) if number.isdigit() else 0
    )
    last.write(words)
    return UNSTARTED


def _tell(mouth: int, what: str) -> None:
    with contextlib.suppress(OSError):  # a parent that is gone takes this process with it
        os.write(mouth, f"{what}\n".encode())
