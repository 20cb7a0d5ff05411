"""One attempt of a run in this process: claim, verify, open, run, finish.

Called by the worker's pool processes (:func:`run_attempt`, :func:`call_on_exit`) and by ``memory://``. The attempt
writes two scripts, claim and finish, and with an ``on_exit`` one more between them. A server that is away at the end
is waited for: a result outlives its outage.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextvars import copy_context
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from dispatcher.errors import Malformed, Refused, RunInterrupt, UnknownRun
from dispatcher.logs.capture import Capture, captured
from dispatcher.records.base import Records, Step
from dispatcher.records.query import Look
from dispatcher.runner.interrupts import Guard
from dispatcher.runner.invoke import call_exit, invoke
from dispatcher.runner.loading import Opener, not_opened
from dispatcher.runner.process_state.aspects import disarm
from dispatcher.runs import transitions
from dispatcher.runs.change import Change
from dispatcher.runs.record import ExitCall, Outcome, Record
from dispatcher.runs.requirements import Lacking, refuse_lacking
from dispatcher.runs.states import State
from dispatcher.serialization import KeyRing
from dispatcher.support.failpoints import failpoint
from dispatcher.support.outages import retry_while_unavailable

if TYPE_CHECKING:
    from dispatcher.settings import Settings

_FLUSH = 5.0  # seconds, once the server is back, for lines that could not be sent before


@dataclass
class Current:
    """The attempt on this process's stack."""

    run_id: str
    epoch: int
    guard: Guard = field(default_factory=Guard)

    def interrupt(self, kind: type[RunInterrupt]) -> None:
        """End the flow by raising ``kind`` in it; for a signal handler, in the flow's thread.

        Only while the flow or its ``on_start`` is on the stack: before, it is remembered; after, ignored.
        """
        self.guard.interrupt(kind)


_current: Current | None = None
_begun: deque[tuple[str, int]] = deque(maxlen=64)  # attempts whose flow this process has begun


def current() -> Current | None:
    """The attempt that this process is in, from just before its claim to its finish."""
    return _current


def _nothing(record: Record) -> None:
    pass


def run_attempt(  # noqa: PLR0913 - the public signature
    records: Records,
    keys: KeyRing,
    settings: Settings,
    look: Look,
    *,
    owner: str,
    holder: str,
    fds: bool = False,
    environ: Mapping[str, str] = os.environ,
    opening: Callable[[Record], None] = _nothing,
) -> Record:
    """Run the attempt that a run waits for, here, to its end.

    Args:
        records: what is kept.
        keys: verify the spec, and seal the result.
        settings: limits.
        look: the run, as read a moment ago or guessed.
        owner: the worker that answers for it.
        holder: this process.
        fds: capture file descriptors 1 and 2; only in a process of the flow's own. Else what is printed is also shown.
        environ: variables to set for the flow, if they aren't this process's own.
        opening: told the run once it is claimed, before anything of it is opened.

    Returns:
        The record as it stands then; untouched if somebody else had taken the run, or has taken it since.

    Raises:
        UnknownRun: there is no such run.
        WrongGuess: nothing was done.
        ServerUnavailable: at once before the claim, after ten minutes before the flow. An ended flow waits for the
            server for as long as it takes.
    """
    run_id = look.record.id
    way = _Way(records, look, own=fds)
    opener = Opener(records=records, credentials=keys, limits=settings.limits, environ=environ)
    with _on_stack(Current(run_id, look.record.epoch + 1)) as mine:
        try:
            refuse_lacking(look.record)
            failpoint("attempt.waiting", run_id)
            way.begin(owner=owner, holder=holder)
            failpoint("attempt.claimed", run_id)
            if not _is_ours(way.record, holder):
                return way.record
            mine.epoch = way.record.epoch
            opening(way.record)
            with way.captured(settings, fds) as capture:
                outcome, exit_call = copy_context().run(_played, way, opener, mine.guard, capture)
                if silent := capture.is_silent():  # no line has to be sent first: who waits is told at once
                    way.over(outcome, exit_call)
            if not silent:
                way.over(outcome, exit_call)
            capture.close(_FLUSH)
        except Refused:
            return way.as_it_stands()
    return way.record


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
    opening: Callable[[Record], None] = _nothing,
) -> Record:
    """Call the ``on_exit`` of an attempt whose process died, here in a fresh one, and end the attempt.

    ``record`` is the run as read a moment ago, at ``now`` by the server's clock; ``contained`` says that it ran in a
    container, so that nothing of it but JSON is opened here. All else is as of :func:`run_attempt`.
    """
    way = _Way(records, Look(record, now), own=fds)
    opener = Opener(records=records, credentials=keys, limits=settings.limits, environ=os.environ)
    with _on_stack(Current(record.id, record.epoch + 1, Guard(over=True))) as mine:
        try:
            way.step(partial(transitions.begin_exit, owner=owner, holder=holder))
            if way.record.exit_call is not ExitCall.BEGUN:  # refused
                return way.record
            failpoint("exit.begun", record.id)
            mine.epoch = way.record.epoch
            opening(way.record)
            with way.captured(settings, fds, after=_last_number(records, way.record)) as capture:
                exit_call = copy_context().run(_exited, way, opener, contained)
            failpoint("exit.called", record.id)
            ended = way.finish(None, exit_call)
            capture.close(_FLUSH)
        except Refused:
            return way.as_it_stands()
    return ended


class _Way:
    """A run's record on its way through this process: ``record`` is the run as last seen. ``own``: the process is the
    flow's own."""

    def __init__(self, records: Records, look: Look, *, own: bool) -> None:
        self._own = own
        self.records = records
        self.record = look.record
        self._look = look
        self._offset = look.now - time.monotonic()

    @property
    def taken_for(self) -> Record | None:
        """The guess of what the run looks like, if there was one."""
        return self._look.record if self._look.kind else None

    @property
    def now(self) -> float:
        """The server's clock, as far as ours can tell without asking."""
        return self._offset + time.monotonic()

    def begin(self, *, owner: str, holder: str) -> None:
        """Claim the run.

        Raises:
            Refused: it can't be claimed.
        """
        self.record = self.records.runs.take(self._look, _begin, owner=owner, holder=holder)
        if self._look.kind and self.record.started_at is not None:
            self._offset = self.record.started_at - time.monotonic()

    def step(self, step: Step) -> None:
        """Take a transition.

        Raises:
            Refused: it was refused.
        """
        self.record = self.records.runs.update(self.record.id, step, record=self.record, now=self.now)

    def give_back(self) -> None:
        """Leave the run to others: nothing of it was opened.

        Raises:
            Refused: it is somebody else's by now.
        """
        retry_while_unavailable(lambda: self.step(partial(transitions.release, epoch=self.record.epoch, begun=True)))

    def settle(self, outcome: Outcome) -> None:
        """Store the outcome; ``on_exit`` comes next."""
        failpoint("attempt.ran", self.record.id)
        self._disarm()

        def store() -> None:
            self.step(partial(transitions.settle, epoch=self.record.epoch, outcome=outcome))
            failpoint("attempt.settled", self.record.id)

        retry_while_unavailable(store)

    def over(self, outcome: Outcome, exit_call: ExitCall | None) -> None:
        """The flow has ended: so does the attempt."""
        failpoint("attempt.over", self.record.id)
        self._disarm()
        self.finish(outcome, exit_call)

    def _disarm(self) -> None:
        """A timer that the flow has left could end the process before its outcome is stored."""
        if self._own:
            disarm()

    def finish(self, outcome: Outcome | None, exit_call: ExitCall | None) -> Record:
        """End the attempt; a run that was removed meanwhile needs no end."""
        running = self.record

        def store() -> None:
            self.record = self.records.runs.finish(running, self.now, outcome=outcome, exit_call=exit_call)
            failpoint("attempt.finished", self.record.id)

        with contextlib.suppress(UnknownRun):
            retry_while_unavailable(store)
        return self.record

    def as_it_stands(self) -> Record:
        """The record after a refusal: somebody else's."""
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
def _on_stack(mine: Current) -> Iterator[Current]:
    global _current  # noqa: PLW0603 - a signal handler has no other way to it
    before, _current = _current, mine
    try:
        yield mine
    finally:
        _current = before


def _begin(record: Record, now: float, *, owner: str, holder: str) -> Change | None:
    """Claim and start; or end the run, if it is too late for its ``start_within``."""
    late = transitions.tick(record, now) if record.state is State.QUEUED else None
    return late or transitions.start_here(record, now, owner=owner, holder=holder)


def _is_ours(record: Record, holder: str) -> bool:
    """Return True if the flow is to run now. Not where this process has begun this very attempt before."""
    attempt = (record.id, record.attempt)
    if record.state is not State.RUNNING or record.holder != holder or attempt in _begun:
        return False
    _begun.append(attempt)
    return True


def _played(way: _Way, opener: Opener, guard: Guard, capture: Capture) -> tuple[Outcome, ExitCall | None]:
    try:
        environment = opener.environment(way.record, way.now, taken_for=way.taken_for)
    except Lacking:  # it was taken by a guess
        way.give_back()
        raise
    except Exception as error:
        return not_opened(error), None
    job = opener.job(way.record, environment, guard, capture)
    return invoke(job, settle=way.settle)


def _exited(way: _Way, opener: Opener, contained: bool) -> ExitCall:
    try:
        environment = opener.environment(way.record, way.now)
    except Exception:
        return ExitCall.NOT_CALLED
    job, exception = opener.exit_job(way.record, environment, plain=contained)
    outcome = way.record.outcome or Outcome()
    return call_exit(job, outcome.state, exception)


def _last_number(records: Records, record: Record) -> int:
    """Number of the last line that the attempt has: the dead process's, which this one counts on from."""
    last, cursor = 0, ""
    with contextlib.suppress(Malformed):
        while True:
            lines, cursor = records.logs.read(record.id, after=cursor)
            last = max([last, *(line.number for line in lines if line.attempt == record.attempt)])
            if not lines:
                break
    return last
