"""The flow's process in a container: claim the attempt, run it, report. Forked by :mod:`dispatcher.runner.__main__`.

It writes its progress to a pipe, so that the parent keeps the timeouts and knows what to report if this process dies.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
import traceback
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
from dispatcher.records.base import Records
from dispatcher.records.redis import open_redis
from dispatcher.runner.container.assignment import Assignment
from dispatcher.runner.container.cancel_watch import watch_for_cancel
from dispatcher.runner.container.claim import claim, stand_by
from dispatcher.runner.container.parent import STOPPED
from dispatcher.runner.container.server_wait import ServerWait
from dispatcher.runner.container.termination_message import left_message, write_message
from dispatcher.runner.interrupts import InterruptGuard
from dispatcher.runner.settings import RunnerSettings
from dispatcher.runs.outcome import Outcome
from dispatcher.runs.states import Cause, State
from dispatcher.support import private_files
from dispatcher.support.escaping import escaped
from dispatcher.support.forks import handle_in_this_process
from dispatcher.support.mailbox import Mailbox
from dispatcher.support.outages import MAX_OUTAGE, retry_while_unavailable

DEFECT, UNSTARTED, UNREPORTED = 1, 2, 3  #: exit codes
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGHUP)  # not SIGINT, which a flow may handle itself
_CANCEL_QUERY_TIMEOUT = 2.0  # seconds to ask Redis for the reason of a stop signal


def main(progress_fd: int, nonce: str) -> int:
    """Run the assigned attempt and return the exit code.

    Args:
        progress_fd: the descriptor of the pipe to the parent.
        nonce: identifies this start of the container.
    """
    os.set_inheritable(progress_fd, False)
    private_files.be_alone()
    try:
        return _open_and_run(progress_fd, nonce)
    except Exception as error:  # a module that the image lacks, or a defect; the parent reports it
        traceback.print_exc()
        left = left_message()
        if left is None or left.cause == Cause.START_FAILED:  # else it is the outcome of a flow that has ended
            write_message(Outcome(cause=Cause.START_FAILED, reason=type(error).__name__, message=str(error)))
        return DEFECT


def _open_and_run(progress_fd: int, nonce: str) -> int:
    try:
        assignment = Assignment.take(os.environ, nonce=nonce)
        settings = RunnerSettings.read(os.environ)
        wait = ServerWait(assignment)
    except DispatcherError as error:
        return _fail_to_start(error)
    try:
        records = retry_while_unavailable(lambda: open_redis(assignment.url), within=MAX_OUTAGE, on_outage=wait.failed)
    except DispatcherError as error:
        return _fail_to_start(error, wait)
    try:
        return _run(assignment, records, settings, wait, partial(_tell, progress_fd))
    finally:
        with contextlib.suppress(DispatcherError):
            records.close()


def _run(
    assignment: Assignment,
    records: Records,
    settings: RunnerSettings,
    wait: ServerWait,
    tell: Callable[[str], None],
) -> int:
    try:
        record = claim(records, assignment, wait.failed)
    except ServerUnavailable as error:
        return _fail_to_start(error, wait)
    wait.end()
    if record is None:
        for number in _STOP_SIGNALS:
            signal.signal(number, lambda *_: os._exit(0))
        sys.stderr.write("runner: the attempt is closed, or another process holds it; this one stands by\n")
        sys.stderr.flush()
        stand_by(records, assignment)
        return 0
    guard = InterruptGuard()
    interrupt = _handle_stop_signals(records, assignment, guard)
    signal.signal(signal.SIGUSR1, lambda *_: guard.interrupt(TimeoutInterrupt))
    timeout, has_on_exit = record.spec.options.timeout or 0, record.spec.on_exit
    tell(f"claimed {timeout} {settings.stop_grace} {settings.on_exit_timeout} {has_on_exit}")
    watch_for_cancel(records, assignment, os.environ, partial(tell, "cancelled"))
    # Imported after the claim, because it takes a third of the runner's start.
    from dispatcher.runner.container.attempt_runner import AttemptRunner

    runner = AttemptRunner(assignment, records, settings, guard=guard, interrupt=interrupt, tell=tell)
    try:
        stopped = runner.run(record)
    except ServerUnavailable as error:
        sys.stderr.write(f"runner: the attempt's end can't be reported: {escaped(str(error))}\n")
        return UNREPORTED
    return STOPPED if stopped else 0


def _handle_stop_signals(
    records: Records, assignment: Assignment, guard: InterruptGuard
) -> Callable[[type[RunInterrupt]], None]:
    """Interrupt the flow when a stop signal arrives, as a cancel if the record says so and as a preemption otherwise.

    The signal doesn't tell the reason. The record does, if Redis answers in time.

    Returns:
        A function that interrupts the flow for another reason, from any thread.
    """
    kinds: list[type[RunInterrupt]] = [PreemptInterrupt]

    def interrupt() -> None:
        os.kill(os.getpid(), signal.SIGUSR2)

    def query_record() -> None:
        with contextlib.suppress(Exception):
            if records.runs.get(assignment.run_id)[0].state is State.CANCELLING:
                kinds[0] = CancelInterrupt
        interrupt()

    pid = os.getpid()
    signals: Mailbox[int] = Mailbox()

    def wait_for_signal() -> None:
        signals.get()
        threading.Thread(target=query_record, name="dispatcher-ask", daemon=True).start()
        time.sleep(_CANCEL_QUERY_TIMEOUT)
        interrupt()

    def on_stop_signal(number: int, _frame: object) -> None:
        if os.getpid() != pid:  # a child that the flow has forked ends as any process does
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        # To start a thread here could deadlock: the interrupted code may hold a lock that this needs.
        signals.put(number)

    threading.Thread(target=wait_for_signal, name="dispatcher-signals", daemon=True).start()
    signal.signal(signal.SIGUSR2, lambda *_: guard.interrupt(kinds[0]))
    for number in _STOP_SIGNALS:
        handle_in_this_process(number, on_stop_signal)

    def interrupt_for(kind: type[RunInterrupt]) -> None:
        kinds[0] = kind
        interrupt()

    return interrupt_for


def _fail_to_start(error: DispatcherError, wait: ServerWait | None = None) -> int:
    """Write the error to stderr and to the termination message; return the exit code."""
    text = wait.text(error) if wait is not None and isinstance(error, ServerUnavailable) else str(error)
    sys.stderr.write(f"runner: {escaped(text)}\n")
    cause = Cause.CONFIG_ERROR if isinstance(error, InvalidSettings) else Cause.START_FAILED
    write_message(Outcome(cause=cause, reason=type(error).__name__, message=text))
    return UNSTARTED


def _tell(progress_fd: int, line: str) -> None:
    with contextlib.suppress(OSError):  # the parent is gone, so this process is about to be killed
        os.write(progress_fd, f"{line}\n".encode())
