"""One attempt of a run in this process: claim, verify, load, run, finish.

Called by the worker's pool processes (:func:`run_attempt`, :func:`call_on_exit`) and by ``memory://``. An attempt calls
two scripts, claim and finish, and with an ``on_exit`` one more between them. If the server is away at the end, the
process waits for it, so that no result is lost. Read :mod:`dispatcher.runner.loading` and
:mod:`dispatcher.runner.invoke` next.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextvars import copy_context
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from dispatcher.code.activation import BundleImporter
from dispatcher.errors import Refused, RunInterrupt, ServerUnavailable, UnknownRun
from dispatcher.logs.capture import Capture, captured
from dispatcher.logs.last_lines import last_line_number
from dispatcher.records.base import Records
from dispatcher.records.runs import Transition
from dispatcher.records.snapshot import Snapshot
from dispatcher.runner.interrupts import InterruptGuard
from dispatcher.runner.invoke import call_exit, invoke
from dispatcher.runner.loading import Loader, loading_failed
from dispatcher.runner.process_state.aspects import stop_timers
from dispatcher.runs import transitions
from dispatcher.runs.change import Change
from dispatcher.runs.outcome import ExitCall, Outcome
from dispatcher.runs.record import Record
from dispatcher.runs.requirements import UnknownFeature, check_features
from dispatcher.runs.states import State
from dispatcher.serialization import KeyRing
from dispatcher.support.failpoints import failpoint
from dispatcher.support.outages import retry_while_unavailable

if TYPE_CHECKING:
    from dispatcher.settings import Settings

logger = logging.getLogger(__name__)

_FLUSH_TIMEOUT = 5.0  # seconds, once the server is back, for lines that could not be sent before


@dataclass
class CurrentAttempt:
    """The attempt that this process runs now, for its signal handlers."""

    run_id: str
    epoch: int
    guard: InterruptGuard = field(default_factory=InterruptGuard)

    def interrupt(self, kind: type[RunInterrupt]) -> None:
        """End the flow by raising ``kind`` in it. For a signal handler, in the flow's thread.

        Before the flow or its ``on_start`` is on the stack, the interrupt is remembered; afterwards it is ignored.
        """
        self.guard.interrupt(kind)


_current: CurrentAttempt | None = None
_started: deque[tuple[str, int]] = deque(maxlen=64)  # attempts whose flow this process has started


def current_attempt() -> CurrentAttempt | None:
    """Return the attempt that this process runs, from just before its claim until its finish."""
    return _current


def _nothing(record: Record) -> None:
    pass


def run_attempt(  # noqa: PLR0913 - the public signature
    records: Records,
    keys: KeyRing,
    settings: Settings,
    snapshot: Snapshot,
    *,
    owner: str,
    holder: str,
    fds: bool = False,
    environ: Mapping[str, str] = os.environ,
    importer: BundleImporter | None = None,
    on_claimed: Callable[[Record], None] = _nothing,
) -> Record:
    """Run the next attempt of a run in this process, to its end.

    Args:
        records: the records.
        keys: verify the spec and seal the result.
        settings: limits.
        snapshot: the run as it was just read, or as predicted.
        owner: the worker that is responsible for it.
        holder: this process.
        fds: capture file descriptors 1 and 2; only in a process of the flow's own. Otherwise output is echoed.
        environ: variables to set for the flow, if they aren't this process's own.
        importer: imports the flow's code bundles. It isn't told to leave them: its owner does that.
        on_claimed: called with the record once the run is claimed, before anything of it is opened.

    Returns:
        The record after the attempt. If the run belongs to another process, the record as that left it.

    Raises:
        UnknownRun: there is no such run.
        WrongPrediction: the prediction was wrong; nothing was done.
        ServerUnavailable: raised at once before the claim, and after ten minutes before the flow. After the flow this
            process waits for the server without a limit.
    """
    run_id = snapshot.record.id
    attempt = _Attempt(records, snapshot, own_process=fds)
    loader = Loader(records=records, credentials=keys, limits=settings.limits, environ=environ, importer=importer)
    with _as_current(CurrentAttempt(run_id, snapshot.record.epoch + 1)) as running:
        try:
            check_features(snapshot.record)
            failpoint("attempt.waiting", run_id)
            attempt.claim(owner=owner, holder=holder)
            failpoint("attempt.claimed", run_id)
            if not _may_start(attempt.record, holder):
                return attempt.record
            running.epoch = attempt.record.epoch
            on_claimed(attempt.record)
            with attempt.captured(settings, fds) as capture:
                outcome, exit_call = copy_context().run(_load_and_invoke, attempt, loader, running.guard, capture)
                if silent := capture.is_silent():  # finish before descriptors are restored: no line must be sent first
                    attempt.end(outcome, exit_call)
            if not silent:
                attempt.end(outcome, exit_call)
            capture.close(_FLUSH_TIMEOUT)
        except Refused:
            return attempt.reread()
    return attempt.record


def call_on_exit(  # noqa: PLR0913 - the public signature
    records: Records,
    keys: KeyRing,
    settings: Settings,
    record: Record,
    now: float,
    *,
    owner: str,
    holder: str,
    fds: bool = False,
    contained: bool = False,
    importer: BundleImporter | None = None,
    on_claimed: Callable[[Record], None] = _nothing,
) -> Record:
    """Call the ``on_exit`` of an attempt whose process died, in this fresh process, and end the attempt.

    ``record`` is the run as it was just read, at ``now`` by the server's clock. ``contained``: it ran in a container,
    so that nothing of it but JSON is opened here. The other arguments are those of :func:`run_attempt`.
    """
    attempt = _Attempt(records, Snapshot(record, now), own_process=fds)
    loader = Loader(records=records, credentials=keys, limits=settings.limits, environ=os.environ, importer=importer)
    with _as_current(CurrentAttempt(record.id, record.epoch + 1, InterruptGuard(over=True))) as running:
        try:
            attempt.step(partial(transitions.begin_exit, owner=owner, holder=holder))
            if attempt.record.exit_call is not ExitCall.BEGUN:  # refused
                return attempt.record
            failpoint("exit.begun", record.id)
            running.epoch = attempt.record.epoch
            on_claimed(attempt.record)
            with attempt.captured(
                settings, fds, after=last_line_number(records.logs, record.id, record.attempt)
            ) as capture:
                exit_call = copy_context().run(_load_and_call_exit, attempt, loader, contained)
            failpoint("exit.called", record.id)
            ended = attempt.finish(None, exit_call)
            capture.close(_FLUSH_TIMEOUT)
        except Refused:
            return attempt.reread()
    return ended


class _Attempt:
    """An attempt in this process and its transitions. ``record`` is the run as last written or read. ``own_process``:
    the process is the flow's own."""

    def __init__(self, records: Records, snapshot: Snapshot, *, own_process: bool) -> None:
        self._own_process = own_process
        self.records = records
        self.record = snapshot.record
        self._snapshot = snapshot
        self._offset = snapshot.now - time.monotonic()

    @property
    def predicted(self) -> Record | None:
        """The predicted record, if the run was claimed without a read."""
        return self._snapshot.record if self._snapshot.predicted else None

    @property
    def now(self) -> float:
        """The server's clock, estimated from the local one without a request."""
        return self._offset + time.monotonic()

    def claim(self, *, owner: str, holder: str) -> None:
        """Claim and start the run.

        Raises:
            Refused: it can't be claimed.
        """
        self.record = self.records.runs.claim(self._snapshot, _start, owner=owner, holder=holder)
        if self._snapshot.predicted and self.record.started_at is not None:
            self._offset = self.record.started_at - time.monotonic()

    def step(self, step: Transition) -> None:
        """Apply a transition.

        Raises:
            Refused: it was refused.
        """
        self.record = self.records.runs.update(self.record.id, step, record=self.record, now=self.now)

    def release(self) -> None:
        """Release the run to other workers; nothing of it was opened.

        Raises:
            Refused: another process has it by now.
        """
        retry_while_unavailable(lambda: self.step(partial(transitions.release, epoch=self.record.epoch, begun=True)))

    def settle(self, outcome: Outcome) -> None:
        """Store the outcome before ``on_exit`` is called."""
        failpoint("attempt.ran", self.record.id)
        self._stop_timers()

        def store() -> None:
            self.step(partial(transitions.settle, epoch=self.record.epoch, outcome=outcome))
            failpoint("attempt.settled", self.record.id)

        retry_while_unavailable(store)

    def end(self, outcome: Outcome, exit_call: ExitCall | None) -> None:
        """End the attempt after its flow has ended."""
        failpoint("attempt.over", self.record.id)
        self._stop_timers()
        self.finish(outcome, exit_call)

    def _stop_timers(self) -> None:
        """Stop timers that the flow has left, which could end the process before its outcome is stored."""
        if self._own_process:
            stop_timers()

    def finish(self, outcome: Outcome | None, exit_call: ExitCall | None) -> Record:
        """Store the attempt's end. Does nothing if the run was removed meanwhile."""
        running = self.record

        def store() -> None:
            self.record = self.records.runs.finish(running, self.now, outcome=outcome, exit_call=exit_call)
            failpoint("attempt.finished", self.record.id)

        with contextlib.suppress(UnknownRun):
            retry_while_unavailable(store)
        return self.record

    def reread(self) -> Record:
        """Read the record after a refusal: another process has changed it."""
        with contextlib.suppress(UnknownRun):
            self.record, _ = retry_while_unavailable(lambda: self.records.runs.get(self.record.id))
        return self.record

    def captured(self, settings: Settings, fds: bool, *, after: int = 0) -> contextlib.AbstractContextManager[Capture]:
        """Capture what is printed and logged, as lines of this attempt."""
        sink = partial(self.records.logs.append, self.record.id)
        return captured(
            sink, self.record.attempt, settings.limits, fds, after=after, echo=not fds, run_id=self.record.id
        )


@contextlib.contextmanager
def _as_current(attempt: CurrentAttempt) -> Iterator[CurrentAttempt]:
    global _current  # noqa: PLW0603 - signal handlers have no other access to it
    before, _current = _current, attempt
    try:
        yield attempt
    finally:
        _current = before


def _start(record: Record, now: float, *, owner: str, holder: str) -> Change | None:
    """Claim and start the run, or end it if its ``start_within`` has passed."""
    late = transitions.tick(record, now) if record.state is State.QUEUED else None
    return late or transitions.start_here(record, now, owner=owner, holder=holder)


def _may_start(record: Record, holder: str) -> bool:
    """Return True once, if this process holds the run: an attempt's flow is started only once in a process."""
    key = (record.id, record.attempt)
    if record.state is not State.RUNNING or record.holder != holder or key in _started:
        return False
    _started.append(key)
    return True


def _load_and_invoke(
    attempt: _Attempt, loader: Loader, guard: InterruptGuard, capture: Capture
) -> tuple[Outcome, ExitCall | None]:
    try:
        environment = loader.load_environment(attempt.record, attempt.now, predicted=attempt.predicted)
        loader.set_up(attempt.record, environment)
    except UnknownFeature:  # only a run that was claimed without a read can get here
        attempt.release()
        raise
    except Exception as error:
        return loading_failed(error), None
    invocation = loader.load(attempt.record, environment, guard, capture)
    return invoke(invocation, settle=attempt.settle)


def _load_and_call_exit(attempt: _Attempt, loader: Loader, contained: bool) -> ExitCall:
    try:
        environment = loader.load_environment(attempt.record, attempt.now)
    except Exception:
        return ExitCall.NOT_CALLED
    try:
        invocation, exception = loader.load_for_exit(attempt.record, environment, plain=contained)
    except ServerUnavailable:
        raise
    except Exception as error:
        logger.warning("Run %s: on_exit can't be called here: %s", attempt.record.id, error)
        return ExitCall.NOT_CALLED
    outcome = attempt.record.outcome or Outcome()
    return call_exit(invocation, outcome.state, exception)
