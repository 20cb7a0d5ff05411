"""The end of an attempt, and the retry that may follow. Pure; for :mod:`dispatcher.runs.transitions`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dispatcher.runs import use
from dispatcher.runs.change import Change, event, ring_for
from dispatcher.runs.events import Event, EventKind
from dispatcher.runs.outcome import ExitCall, Outcome
from dispatcher.runs.record import Record
from dispatcher.runs.retry import RetryDecision
from dispatcher.runs.states import Cause, State, state_of
from dispatcher.runs.transition_table import advance


def _infrastructure(record: Record, now: float) -> tuple[Mapping[str, Any], ...]:
    """Return what the attempt may have left outside: its handle, or the request whose handle was never stored.

    With it go the attempt's end and whether a runner had claimed it.
    """
    if record.request is None and record.handle is None:
        return ()
    claimed = record.started_at is not None
    leftover = {"attempt": record.attempt, "request": record.request, "handle": record.handle}
    return ({**leftover, "ended": now, "claimed": claimed},)


def as_cancelled(record: Record, outcome: Outcome) -> Outcome:
    """Return the outcome CANCELLED for a cancelled attempt, unless it had succeeded or was settled before."""
    if record.state is not State.CANCELLING or outcome.cause is None or record.settled_at is not None:
        return outcome
    return Outcome(cause=Cause.CANCELLED, message="cancelled", traceback=outcome.traceback, log_tail=outcome.log_tail)


def not_started(record: Record, cause: Cause | None, message: str) -> Outcome:
    """Return the outcome of an attempt for which ``start_within`` has passed.

    Args:
        record: the run.
        cause: why it waited when that was last seen; None if it never was.
        message: what it waited for.
    """
    text = f"not started within {record.spec.options.start_within:g} s"
    return Outcome(
        cause=cause or Cause.DEADLINE, reason="start_within", message=f"{text}: {message}" if message else text
    )


def end(  # noqa: PLR0913 - one keyword per fact of an end
    record: Record,
    now: float,
    outcome: Outcome,
    exit_call: ExitCall | None,
    *,
    times: Mapping[str, Mapping[str, float]] | None = None,
    final: bool = False,
    at: float | None = None,
    created: bool = True,
) -> Change:
    """End the attempt of a record. Another follows if the retry policy says so and the signature holds.

    Args:
        record: the run.
        now: the server's clock, in seconds since the epoch.
        outcome: the attempt's outcome.
        exit_call: the progress of ``on_exit``; None if it isn't known.
        times: the times of its infrastructure, if more are known than the record holds.
        final: no attempt follows, whatever the policy says.
        at: when it ended, if that was before; a time before its start, or after ``now``, is ignored.
        created: its request may have created something, which is torn down.
    """
    at = past(record, now, at)
    outcome = as_cancelled(record, outcome)
    workers = record.workers
    done = record.but(
        outcome=outcome,
        exit_call=exit_call or _exit_left(record),
        owner="",
        due_at=None,
        unknown_since=None,
        unknown_why="",
        paused_since=None,
        wait=None,
        workers=None if workers is None else workers.over(),
        times=times or record.times,
        leftovers=(*record.leftovers, *(_infrastructure(record, now) if created else ())),
    )
    retry = retry_decision(record, outcome.cause)
    repeats = retry.repeat and record.verified and not final  # the policy of an unsigned spec isn't honoured
    if repeats and record.state is not State.CANCELLING:
        return _repeat(record, done, now, at, delay=retry.delay, free=retry.free)
    if repeats:  # cancelled after the outcome was settled: no attempt follows
        message = f"cancelled before it was repeated after {outcome.cause}: {outcome.message}"
        outcome = Outcome(
            cause=Cause.CANCELLED, message=message, traceback=outcome.traceback, log_tail=outcome.log_tail
        )
        done = done.but(outcome=outcome)
    after = done.but(state=advance(record.state, state_of(outcome.cause)), ended_at=at)
    return Change(before=record, after=after, events=(_exited(after, at, final=True),), use=use.over(record))


def past(record: Record, now: float, at: float | None) -> float:
    """Return ``at`` if the attempt may have ended then, else ``now``. Times of whole seconds may precede its start."""
    start = record.started_at if record.started_at is not None else record.queued_at
    if at is None or not start - 1.0 < at <= now:
        return now
    return max(at, start)


def retry_decision(record: Record, cause: Cause | None) -> RetryDecision:
    """Return what the run's retry policy decides for an attempt that ends with this cause."""
    seed = f"{record.id}:{record.attempt}"
    return record.spec.retry.after(cause, used=record.retries_used, free_used=record.free_retries, seed=seed)


def _repeat(record: Record, done: Record, now: float, at: float, *, delay: float, free: bool) -> Change:
    """End this attempt and let the next one wait until it is due. One without a delay is queued in the same step."""
    after = done.but(
        state=advance(record.state, State.AWAITING_RETRY),
        epoch=record.epoch + 1,
        due_at=now + delay,
        retries_used=record.retries_used + (not free),
        free_retries=record.free_retries + free,
    )
    exited = _exited(after, at, final=False, due=now + delay)
    following = after.but(
        attempt=record.attempt + 1, holder="", request=None, handle=None, started_at=None, settled_at=None,
        last_cause=None, last_message="", paused=0.0, exit_call=ExitCall.NONE, outcome=None, workers=None,
    )  # fmt: skip
    if delay > 0:
        return Change(before=record, after=following, events=(exited,), use=use.followed(record))
    again, queued = requeue(following, now)
    return Change(before=record, after=again, events=(exited, queued), ring=ring_for(again), use=use.followed(record))


def requeue(record: Record, now: float) -> tuple[Record, Event]:
    """Queue the next attempt: AWAITING_RETRY → QUEUED."""
    after = record.but(state=advance(record.state, State.QUEUED), queued_at=now, rung_at=now, rings=1, due_at=None)
    return after, event(after, EventKind.QUEUED, now)


def _exit_left(record: Record) -> ExitCall:
    """Return the final progress of an ``on_exit`` when the attempt ends and no other is known."""
    if not record.spec.on_exit:
        return ExitCall.NONE
    return (
        ExitCall.NOT_CALLED if record.exit_call in {ExitCall.NONE, ExitCall.WAITING, ExitCall.DUE} else record.exit_call
    )


def _exited(record: Record, now: float, *, final: bool, **more: Any) -> Event:
    outcome = record.outcome or Outcome()
    data = outcome.to_json()
    facts = {name: data[name] for name in ("cause", "reason", "message", "exit_code") if name in data}
    return event(record, EventKind.EXITED, now, on_exit=str(record.exit_call), final=final, **facts, **more)
