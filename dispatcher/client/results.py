"""The result of an ended run, or the error that describes how it ended. Used by :mod:`dispatcher.client.run`."""

from __future__ import annotations

from typing import Any

from dispatcher.client.session import ClientSession
from dispatcher.errors import (
    EngineError,
    FlowFailed,
    InvalidInput,
    OpeningFailed,
    RunCancelled,
    RunCrashed,
    RunError,
    RunTimedOut,
    UnknownRun,
)
from dispatcher.runs.outcome import Outcome
from dispatcher.runs.record import Record
from dispatcher.runs.states import Cause, State
from dispatcher.runs.value import Value
from dispatcher.serialization.seals import Returned
from dispatcher.support.escaping import escaped, escaped_lines

_SHOWN_LINES = 20


def result_of(session: ClientSession, record: Record, *, plain: bool | None = None) -> Any:
    """Return the flow's result.

    Args:
        session: the session that gives its bytes.
        record: the ended run.
        plain: True refuses whatever isn't JSON; None: as ``DISPATCHER__RESULTS__PLAIN`` says.

    Raises:
        RunError: the run didn't succeed.
        SealBroken: the result isn't what the runner sealed.
        InvalidInput: it can't be opened in this process: a package is missing, Python is another minor version, or its
            own code raised (``__cause__``); or it isn't JSON, and that is refused.
        InvalidSettings: it is a pickle, and this process has no signing key to verify it.
        UnknownRun: its bytes are gone.
    """
    if record.state is not State.SUCCEEDED:
        raise error_of(session, record, plain=plain)
    value = (record.outcome or Outcome()).result
    if value is None:
        return None
    if refusal := _refusal(session, value, plain):
        raise InvalidInput(
            f"the result of run {record.id} isn't JSON but a Python object ({value.size:,} bytes), and opening it runs "
            f"what its flow put into it: {refusal} refuses that. If you trust the flow and where it ran: "
            "result(plain=False)"
        )
    try:
        return _opened(session, record, value, Returned.RESULT)
    except EngineError as error:
        problem = error
    raised = problem.__cause__ if isinstance(problem, OpeningFailed) else None
    raise InvalidInput(f"the result of run {record.id} can't be opened here: {problem}") from raised or problem


def error_of(session: ClientSession, record: Record, *, plain: bool | None = None) -> RunError:
    """Return the error for a run that didn't succeed; ``plain`` is as of :func:`result_of`."""
    outcome = record.outcome or Outcome(cause=Cause.UNKNOWN)
    flow = f"flow {record.spec.flow!r}"
    facts: dict[str, Any] = {"run_id": record.id, "state": record.state, "traceback": outcome.traceback}
    description = _describe(outcome)
    match record.state:
        case State.FAILED:
            error = FlowFailed(f"{flow} failed: {description} (run {record.id})", **facts)
            return _failed(session, record, outcome, error, plain)
        case State.TIMED_OUT:
            return RunTimedOut(f"{flow} timed out: {description} (run {record.id})", **facts)
        case State.CANCELLED:
            why = "" if description == Cause.CANCELLED else f": {description}"
            return RunCancelled(f"{flow} was cancelled{why} (run {record.id})", **facts)
        case _:
            return _crashed(flow, record, outcome, description, facts)


def _crashed(flow: str, record: Record, outcome: Outcome, description: str, facts: dict[str, Any]) -> RunCrashed:
    code = "" if outcome.exit_code is None else f", exit code {outcome.exit_code}"
    error = RunCrashed(
        f"{flow} crashed, {outcome.cause}: {description}{code} (run {record.id})",
        cause=outcome.cause or Cause.UNKNOWN,
        reason=outcome.reason,
        exit_code=outcome.exit_code,
        log_tail=outcome.log_tail,
        report=outcome.report,
        **facts,
    )
    if outcome.log_tail:
        error.add_note("Last lines of its log:\n" + "\n".join(map(escaped, outcome.log_tail[-_SHOWN_LINES:])))
    if outcome.report:
        error.add_note("Crash report:\n" + "\n".join(map(escaped, outcome.report.splitlines())))
    return error


def _failed(
    session: ClientSession, record: Record, outcome: Outcome, error: FlowFailed, plain: bool | None
) -> FlowFailed:
    """Add the flow's exception to the error as its cause, if that opens here, and its traceback as a note."""
    if outcome.traceback:
        error.add_note(f"Where the flow ran:\n{escaped_lines(outcome.traceback.rstrip())}")
    if outcome.exception is None:
        return error
    if refusal := _refusal(session, outcome.exception, plain):
        error.add_note(
            f"Its exception isn't opened here, which {refusal} refuses. If you trust the flow and where it ran: "
            "result(plain=False)"
        )
        return error
    try:
        cause = _opened(session, record, outcome.exception, Returned.EXCEPTION)
    except Exception as problem:  # a foreign exception's own code may raise anything while it is opened
        error.add_note(f"Its exception can't be opened here: {escaped_lines(str(problem))}")
        return error
    if isinstance(cause, BaseException):
        error.__cause__ = cause
    return error


def _refusal(session: ClientSession, value: Value, plain: bool | None) -> str:
    """Return the rule that forbids opening ``value``; empty if it may be opened."""
    if value.codec == "json" or not (session.settings.results.plain if plain is None else plain):
        return ""
    return "DISPATCHER__RESULTS__PLAIN" if plain is None else "plain=True"


def _describe(outcome: Outcome) -> str:
    """Return reason and message for people, with control characters escaped: Python prints them to a terminal."""
    if outcome.reason and outcome.message:
        return escaped_lines(f"{outcome.reason}: {outcome.message}")
    return escaped_lines(outcome.reason or outcome.message or str(outcome.cause or "no reason was recorded"))


def _opened(session: ClientSession, record: Record, value: Value, kind: Returned) -> Any:
    from dispatcher.records.rejections import Rejected, counting_broken_seals
    from dispatcher.serialization import from_value

    records = session.records
    seal = session.keys.seal(record) if value.codec == "pickle" else None
    try:
        with counting_broken_seals(records.rejections, Rejected.RESULT):
            return from_value(value, get=records.blobs.get, seal=seal, kind=kind)
    except KeyError:
        raise UnknownRun(f"run {record.id}: the bytes of its result are gone") from None
