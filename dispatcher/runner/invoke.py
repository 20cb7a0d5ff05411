"""Runs one attempt of a flow that has been opened: ``on_start``, the flow, ``settle(outcome)``, ``on_exit``.

Called by :mod:`dispatcher.runner.in_process` in a worker's pool process, and by the runner in a container. It opens
nothing and knows no Redis: what has to be kept goes through the functions that the caller gives.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from dispatcher.environments.callbacks import Callback
from dispatcher.errors import (
    INTERRUPTS,
    CancelInterrupt,
    ExecutorUnavailable,
    InvalidInput,
    MissingExtra,
    OpeningFailed,
    Permanent,
    PreemptInterrupt,
    RunInterrupt,
    TimeoutInterrupt,
    Transient,
)
from dispatcher.runner.interrupts import Guard
from dispatcher.runs.context import context, ended, entered, users_code, users_code_raised
from dispatcher.runs.record import ExitCall, Outcome, Value
from dispatcher.runs.states import Cause, State
from dispatcher.serialization.seals import Returned
from dispatcher.serialization.unopened import RaisedInside
from dispatcher.support.failpoints import failpoint
from dispatcher.support.forks import in_parent_only
from dispatcher.support.tracebacks import message_of, trace_of

_CAUSES: Mapping[type[RunInterrupt], tuple[Cause, str]] = {
    TimeoutInterrupt: (Cause.DEADLINE, "ran longer than its timeout"),
    CancelInterrupt: (Cause.CANCELLED, "cancelled while it ran"),
    PreemptInterrupt: (Cause.PREEMPTED, "the worker shut down while it ran"),
}


def _nothing() -> tuple[str, ...]:
    return ()


@dataclass(frozen=True, kw_only=True)
class Job:
    """One attempt, opened.

    ``body`` runs the flow with its executor; ``to_value`` makes a result or an exception (its second argument says
    which) ready to travel, and raises InvalidInput where it can't; ``log_tail`` gives the last lines logged so far.
    ``failed`` is set where the flow could not be opened: then nothing of it runs but ``on_exit``.
    """

    run_id: str
    attempt: int
    flow: str
    body: Callable[[Mapping[str, Any]], Any]
    to_value: Callable[[Any, Returned], Value]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    labels: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    on_start: Callable[[], Any] | None = None
    on_exit: Callable[[], Any] | None = None
    log_tail: Callable[[], Sequence[str]] = _nothing
    guard: Guard = field(default_factory=Guard)
    failed: Outcome | None = None


def invoke(job: Job, *, settle: Callable[[Outcome], None]) -> tuple[Outcome, ExitCall]:
    """Run ``job`` once.

    Args:
        job: the attempt.
        settle: stores the outcome; called before ``on_exit``, if there is one. If it raises, ``on_exit`` isn't called
            (somebody else has taken the run) and its error passes through.

    Returns:
        How the attempt ended, and how its ``on_exit`` did. Whatever the flow raises is in the outcome.
    """
    with _entered(job):
        outcome, error = _play(job)
        if job.on_exit is None:
            return outcome, ExitCall.NONE
        settle(outcome)
        return outcome, _exit(job.on_exit, outcome.state, error)


def call_exit(job: Job, state: State, exception: BaseException | None) -> ExitCall:
    """Call the ``on_exit`` of an attempt whose runner died, in a fresh process."""
    with _entered(job):
        return ExitCall.NOT_CALLED if job.on_exit is None else _exit(job.on_exit, state, exception)


def failure(error: BaseException, cause: Cause, *, log_tail: Sequence[str] = (), users: bool = False) -> Outcome:
    """The outcome of an attempt that ``error`` ended; ``users``: the user's code raised it, be it an error of ours."""
    if isinstance(error, RaisedInside) and not users:
        return Outcome(
            cause=cause,
            reason=error.kind,
            message=error.message,
            traceback=error.traceback,
            log_tail=tuple(log_tail),
        )
    return Outcome(
        cause=cause,
        reason=error.reason if isinstance(error, Permanent) and not users else type(error).__qualname__,
        message=message_of(error),
        traceback=trace_of(error) if users else _trace(error),
        log_tail=tuple(log_tail),
    )


def _trace(error: BaseException) -> str:
    """The user's frames; none where the engine said why."""
    if isinstance(error, OpeningFailed):
        return trace_of(error.__cause__ or error)
    return "" if isinstance(error, Permanent) else trace_of(error)


def _entered(job: Job) -> Any:
    return entered(
        run_id=job.run_id,
        attempt=job.attempt,
        flow=job.flow,
        labels=job.labels,
        parameters=job.parameters,
        tags=job.tags,
    )


def _play(job: Job) -> tuple[Outcome, BaseException | None]:
    if job.failed is not None:
        return job.failed, None
    result, raised = None, None
    try:
        result = job.guard.run(lambda: in_parent_only(lambda: _body(job)))
    except BaseException as error:  # SystemExit and KeyboardInterrupt, too, end the flow and not its runner
        raised = error
    if raised is not None:  # here, and not above: what follows calls code of the user's, too
        return _ended_by(raised, job), raised
    try:
        return Outcome(result=_as_value(job, result, Returned.RESULT)), None
    except InvalidInput as error:
        return failure(error, Cause.USER_ERROR, log_tail=job.log_tail()), error


def _body(job: Job) -> Any:
    if job.on_start is not None:
        _call(job.on_start, "on_start")
        failpoint("flow.starting", job.run_id)
    return job.body(job.parameters)


def _call(callback: Callable[[], Any], moment: str) -> None:
    """Open a callback and call it; where it can't be opened, the error says so."""
    try:
        function = callback.function() if isinstance(callback, Callback) else callback
    except Permanent as error:
        what = f"{moment} can't be opened: {error}"
        raise type(error)(what, cause=error.cause, reason=error.reason) from error.__cause__
    with users_code():
        function()


def _as_value(job: Job, obj: Any, kind: Returned) -> Value:
    try:
        return in_parent_only(lambda: job.to_value(obj, kind))
    except INTERRUPTS as error:  # the flow is over, and so are interrupts of ours: it came out of a __reduce__
        raise InvalidInput(f"the {kind} of flow {job.flow!r} can't be sent: {type(error).__qualname__}") from error


def _ended_by(error: BaseException, job: Job) -> Outcome:
    tail = job.log_tail()
    kind = type(error) if isinstance(error, RunInterrupt) else job.guard.raised
    if kind is not None:  # also where a cleanup, or the event loop, turned the interrupt into another exception
        cause, message = _CAUSES.get(kind, (Cause.CANCELLED, "interrupted"))
        return Outcome(
            cause=cause, reason=kind.__name__, message=message, traceback=trace_of(error), log_tail=tuple(tail)
        )
    users = users_code_raised()
    cause = Cause.USER_ERROR if users else _engines(error)
    outcome = failure(error, cause, log_tail=tail, users=users)
    if cause is not Cause.USER_ERROR:
        return outcome
    try:
        value = _as_value(job, error, Returned.EXCEPTION)
    except InvalidInput:  # its type, message and traceback travel as text
        return outcome
    return replace(outcome, exception=value)


def _engines(error: BaseException) -> Cause:
    """The cause of what was raised around the user's code."""
    if isinstance(error, Permanent):
        return error.cause
    if isinstance(error, Transient | ExecutorUnavailable):
        return Cause.START_FAILED
    if isinstance(error, MissingExtra) or (isinstance(error, RaisedInside) and not error.loaded):
        return Cause.CONFIG_ERROR
    return Cause.USER_ERROR


def _exit(on_exit: Callable[[], Any], state: State, exception: BaseException | None) -> ExitCall:
    ended(state, exception)
    try:
        in_parent_only(lambda: _call(on_exit, "on_exit"))
    except BaseException as error:  # recorded; it changes nothing else
        context.logger.error("on_exit raised; the run's outcome stands\n%s", trace_of(error))
        return ExitCall.RAISED
    return ExitCall.CALLED
