"""Run one loaded attempt: ``on_start``, the flow, ``settle(outcome)``, ``on_exit``.

Called by :mod:`dispatcher.runner.in_process` in a worker's pool process, and by the runner in a container. It loads
nothing and doesn't know Redis: results and outcomes are stored by functions of the caller.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from dispatcher.environments.callbacks import Callback
from dispatcher.errors import (
    INTERRUPTS,
    CancelInterrupt,
    EngineError,
    ExecutorUnavailable,
    InvalidInput,
    MissingExtra,
    OpeningFailed,
    Permanent,
    PreemptInterrupt,
    RunInterrupt,
    SchedulerInterrupt,
    TimeoutInterrupt,
    Transient,
)
from dispatcher.runner.interrupts import InterruptGuard
from dispatcher.runs.context import context, ended, entered, users_code, users_code_raised
from dispatcher.runs.outcome import ExitCall, Outcome
from dispatcher.runs.states import Cause, State
from dispatcher.runs.value import Value
from dispatcher.serialization.seals import Returned
from dispatcher.serialization.unopened import RaisedInside
from dispatcher.support.failpoints import failpoint
from dispatcher.support.forks import in_parent_only
from dispatcher.support.tracebacks import message_of, trace_of

_CAUSES: Mapping[type[RunInterrupt], tuple[Cause, str]] = {
    TimeoutInterrupt: (Cause.DEADLINE, "ran longer than its timeout"),
    CancelInterrupt: (Cause.CANCELLED, "cancelled while it ran"),
    PreemptInterrupt: (Cause.PREEMPTED, "the worker shut down while it ran"),
    SchedulerInterrupt: (Cause.KILLED, "the scheduler of its Dask cluster died while it ran"),
}


#: What follows a flow's end and calls the user's code: ``__reduce__``, ``__str__``, ``__del__``.
RETURNED = "the flow returned, but its result was being pickled or freed"
RAISED = "the flow raised an exception, which was being described, pickled or freed"


def _as_it_is(outcome: Outcome) -> Outcome:
    return outcome


def _nothing() -> tuple[str, ...]:
    return ()


def _ignore() -> None:
    """Do nothing when the flow has ended."""


@dataclass(frozen=True, kw_only=True)
class Invocation:
    """One loaded attempt.

    ``body`` runs the flow with its executor. ``to_value`` serializes a result or an exception (its second argument says
    which), and raises InvalidInput if it can't. ``log_tail`` returns the last lines logged so far. ``failed`` is set if
    the flow could not be loaded: then only its ``on_exit`` is called. ``prepare`` is called before ``on_start``, where
    the flow can be interrupted already. ``explain`` corrects an outcome by what the place where the flow runs knows of
    it. ``flow_ended`` is called as soon as the flow has returned or raised.
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
    guard: InterruptGuard = field(default_factory=InterruptGuard)
    failed: Outcome | None = None
    prepare: Callable[[], None] | None = None
    explain: Callable[[Outcome], Outcome] = _as_it_is
    flow_ended: Callable[[], None] = _ignore


def invoke(invocation: Invocation, *, settle: Callable[[Outcome], None]) -> tuple[Outcome, ExitCall]:
    """Run ``invocation`` once.

    Args:
        invocation: the attempt.
        settle: stores the outcome; called before ``on_exit``, if there is one. If it raises (another process has taken
            over the run), ``on_exit`` isn't called and the error propagates.

    Returns:
        The outcome of the attempt, which includes whatever the flow raised, and the result of its ``on_exit``.
    """
    with _context_of(invocation):
        outcome, error = _run(invocation)
        outcome = invocation.explain(outcome)
        if invocation.on_exit is None:
            return outcome, ExitCall.NONE
        settle(outcome)
        return outcome, _call_on_exit(invocation.on_exit, outcome.state, error)


def call_exit(invocation: Invocation, state: State, exception: BaseException | None) -> ExitCall:
    """Call the ``on_exit`` of an attempt whose runner died, in a fresh process."""
    with _context_of(invocation):
        return (
            ExitCall.NOT_CALLED if invocation.on_exit is None else _call_on_exit(invocation.on_exit, state, exception)
        )


def failure(error: BaseException, cause: Cause, *, log_tail: Sequence[str] = (), users: bool = False) -> Outcome:
    """Return the outcome of an attempt that ``error`` ended. ``users``: the user's code raised it, even if it is one of
    this project's errors."""
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
        reason=type(error).__qualname__ if users else _reason(error),
        message=message_of(error),
        traceback=trace_of(error) if users else _trace(error),
        log_tail=tuple(log_tail),
    )


def _reason(error: BaseException) -> str:
    """Return the word for an error: its type, unless that is one by which the engine decides."""
    if isinstance(error, EngineError):
        return error.reason if isinstance(error, Permanent) else ""
    return type(error).__qualname__


def _trace(error: BaseException) -> str:
    """Return the user's frames; none if the engine's message explains the error."""
    if isinstance(error, OpeningFailed):
        return trace_of(error.__cause__ or error)
    return "" if isinstance(error, Permanent) else trace_of(error)


def _context_of(invocation: Invocation) -> Any:
    return entered(
        run_id=invocation.run_id,
        attempt=invocation.attempt,
        flow=invocation.flow,
        labels=invocation.labels,
        parameters=invocation.parameters,
        tags=invocation.tags,
    )


def _run(invocation: Invocation) -> tuple[Outcome, BaseException | None]:
    if invocation.failed is not None:
        return invocation.failed, None
    result, raised = None, None
    try:
        result = invocation.guard.run(lambda: in_parent_only(lambda: _body(invocation)))
    except BaseException as error:  # SystemExit and KeyboardInterrupt, too, end only the flow and not its runner
        raised = error
    invocation.flow_ended()
    invocation.guard.afterwards = RAISED if raised is not None else RETURNED
    if raised is not None:  # not in the except clause, because serializing the exception calls the user's code
        return _outcome_of(raised, invocation), raised
    try:
        return Outcome(result=_as_value(invocation, result, Returned.RESULT)), None
    except InvalidInput as error:
        return failure(error, Cause.USER_ERROR, log_tail=invocation.log_tail()), error


def _body(invocation: Invocation) -> Any:
    if invocation.prepare is not None:
        invocation.prepare()
    if invocation.on_start is not None:
        _call(invocation.on_start, "on_start")
        failpoint("flow.starting", invocation.run_id)
    return invocation.body(invocation.parameters)


def _call(callback: Callable[[], Any], moment: str) -> None:
    """Load a callback and call it. If it can't be loaded, the error names it by ``moment``."""
    try:
        function = callback.function() if isinstance(callback, Callback) else callback
    except Permanent as error:
        message = f"{moment} can't be opened: {error}"
        raise type(error)(message, cause=error.cause, reason=error.reason) from error.__cause__
    with users_code():
        function()


def _as_value(invocation: Invocation, obj: Any, kind: Returned) -> Value:
    try:
        return in_parent_only(lambda: invocation.to_value(obj, kind))
    except INTERRUPTS as error:  # the guard raises none after the flow, so a __reduce__ raised it
        raise InvalidInput(
            f"the {kind} of flow {invocation.flow!r} can't be sent: {type(error).__qualname__}"
        ) from error


def _outcome_of(error: BaseException, invocation: Invocation) -> Outcome:
    tail = invocation.log_tail()
    kind = invocation.guard.raised  # an interrupt that nobody asked for is an exception of the flow's own
    if kind is not None:  # also if a cleanup, or the event loop, replaced the interrupt by another exception
        cause, message = _CAUSES.get(kind, (Cause.CANCELLED, "interrupted"))
        return Outcome(
            cause=cause, reason=kind.__name__, message=message, traceback=trace_of(error), log_tail=tuple(tail)
        )
    users = users_code_raised()
    cause = Cause.USER_ERROR if users else _engine_cause(error)
    outcome = failure(error, cause, log_tail=tail, users=users)
    if cause is not Cause.USER_ERROR:
        return outcome
    try:
        value = _as_value(invocation, error, Returned.EXCEPTION)
    except InvalidInput:  # the outcome has its type, message and traceback as text
        return outcome
    return replace(outcome, exception=value)


def _engine_cause(error: BaseException) -> Cause:
    """Return the cause of an error that was raised outside the user's code."""
    if isinstance(error, Permanent):
        return error.cause
    if isinstance(error, Transient | ExecutorUnavailable):
        return Cause.START_FAILED
    if isinstance(error, MissingExtra) or (isinstance(error, RaisedInside) and not error.loaded):
        return Cause.CONFIG_ERROR
    return Cause.USER_ERROR


def _call_on_exit(on_exit: Callable[[], Any], state: State, exception: BaseException | None) -> ExitCall:
    ended(state, exception)
    try:
        in_parent_only(lambda: _call(on_exit, "on_exit"))
    except BaseException as error:  # it is recorded, and has no other consequence
        context.logger.error("on_exit raised; the run's outcome stands\n%s", trace_of(error))
        return ExitCall.RAISED
    return ExitCall.CALLED
