"""Transitions caused by observations of an attempt's infrastructure. Pure, as :mod:`dispatcher.runs.transitions`.

None of them ends an attempt: :func:`~dispatcher.runs.transitions.abandon` and the clock do that. Used by supervisors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from dispatcher.runs.change import Change, event
from dispatcher.runs.events import EventKind
from dispatcher.runs.record import Record
from dispatcher.runs.states import HELD, UNSTARTED, Cause, State
from dispatcher.runs.wait import Wait

#: The moments in :attr:`~dispatcher.runs.record.Record.times`, in the order in which they happen.
MOMENTS = ("created", "scheduled", "pulled", "started", "finished", "torn down")

#: A time beside those moments: when a flow that was told to stop is killed, unless it has ended before.
STOP_DUE = "stop due"

#: Characters stored of a message that comes with a cause.
LONGEST_MESSAGE = 1000


def observe(
    record: Record,
    now: float,
    *,
    visible: bool,
    cause: Cause | None = None,
    message: str = "",
    paused: bool = False,
    times: Mapping[str, float] | None = None,
) -> Change | None:
    """Note what was observed of the infrastructure.

    Its times alone are no reason to write, except once each: when it has started, and :data:`STOP_DUE`.

    Args:
        record: the run.
        now: the server's clock, in seconds since the epoch.
        visible: the infrastructure can be observed.
        cause: why it waits or ends; the first message that came with a cause is kept.
        message: the message that came with the cause.
        paused: a quota queue holds it.
        times: the times of its moments.
    """
    if record.terminal or record.foreign:
        return None
    was_visible = record.unknown_since is None
    paused = paused and record.state in UNSTARTED
    last_cause = cause or record.last_cause
    is_new = message and cause and (cause != record.last_cause or not record.last_message)
    new_message = message[:LONGEST_MESSAGE] if is_new else None
    same_cause = last_cause == record.last_cause and new_message is None
    same = same_cause and visible == was_visible and paused == (record.paused_since is not None)
    news = {"started", STOP_DUE}.intersection(times or ()).difference((record.times or {}).get(str(record.attempt), ()))
    if same and not news:
        return None
    after = record.but(
        unknown_since=None if visible else record.unknown_since or now,
        unknown_why="" if visible else record.unknown_why,
        last_cause=last_cause,
        last_message=record.last_message if new_message is None else new_message,
        paused=record.paused if paused else record.paused_at(now),
        paused_since=(record.paused_since or now) if paused else None,
        times=record.timed(record.attempt, times),
    )
    events = () if visible == was_visible else (event(after, EventKind.SEEN if visible else EventKind.UNKNOWN, now),)
    return Change(before=record, after=after, events=events)


def lose_sight(record: Record, now: float, *, why: str = "") -> Change | None:
    """Note that the infrastructure can't be observed.

    Args:
        record: the run.
        now: the server's clock, in seconds since the epoch.
        why: the reason; the first one is kept until the infrastructure is observed again.
    """
    change = observe(record, now, visible=False)
    if change is None or not why:
        return change
    after = change.after.but(unknown_why=why[:LONGEST_MESSAGE])
    return Change(before=record, after=after, events=(event(after, EventKind.UNKNOWN, now, message=after.unknown_why),))


def observe_start(
    record: Record, now: float, *, reason: str = "", message: str = "", cause: Cause | None = None, **observed: Any
) -> Change | None:
    """Note what was observed of infrastructure that may not have started the flow yet, as :func:`observe` does.

    Before the start, another reason replaces what was noted, also one without a cause: ``start_within`` ends the run
    with what holds it then. A text that has changed under the same reason is no news.

    Args:
        record: the run.
        now: the server's clock, in seconds since the epoch.
        reason: the infrastructure's word for what holds it; empty if there is none, or if it mustn't be noted.
        message: the message that came with the reason.
        cause: as in :func:`observe`.
        observed: the other arguments of :func:`observe`.
    """
    noted = f"{reason}: "
    text = f"{noted}{message}" if reason and message else message
    if text == message or record.state not in UNSTARTED or record.foreign:
        return observe(record, now, cause=cause, message=message, **observed)
    if record.last_message.startswith(noted) and record.last_cause is cause:
        return observe(record, now, cause=cause, message=text, **observed)
    after = record.but(last_cause=cause, last_message=text[:LONGEST_MESSAGE])
    return Change(before=record, after=after).then(observe(after, now, cause=cause, message=text, **observed))


def note(record: Record, now: float, *, wait: Wait | None, **observed: Any) -> Change | None:
    """Note in one step what :func:`observe_start` and :func:`note_wait` do."""
    observation = observe_start(record, now, **observed)
    waiting = note_wait(record if observation is None else observation.after, now, wait=wait)
    return waiting if observation is None else observation.then(waiting)


def note_wait(record: Record, now: float, *, wait: Wait | None) -> Change | None:
    """Note why a run that hasn't started waits, with an event if it is another reason than before.

    Nothing is written while the reason stays, however often it is observed.

    Args:
        record: the run.
        now: the server's clock, in seconds since the epoch.
        wait: what was observed; None: nothing holds it any more.
    """
    return None if record.foreign or record.state not in UNSTARTED else set_wait(record, now, wait=wait)


def set_wait(record: Record, now: float, *, wait: Wait | None) -> Change | None:
    """Note why a run waits, as :func:`note_wait` does, whatever its state."""
    if wait is None:
        after = record.but(wait=None)
        events = (event(after, EventKind.WAITING, now),)
        return None if record.wait is None else Change(before=record, after=after, events=events)
    wait = replace(wait, at=now)
    if not wait.is_news(record.wait):
        return None
    after = record.but(wait=wait.after(record.wait))
    if record.wait is not None and wait.key == record.wait.key:
        return Change(before=record, after=after)
    return Change(before=record, after=after, events=(event(after, EventKind.WAITING, now, **wait.facts),))


def torn_down(record: Record, now: float, *, attempt: int, times: Mapping[str, float] | None = None) -> Change | None:
    """Note that the infrastructure of an ended attempt is confirmed gone; also after the terminal state."""
    left = tuple(leftover for leftover in record.leftovers if leftover["attempt"] != attempt)
    if len(left) == len(record.leftovers) or record.foreign:
        return None
    return Change(
        before=record,
        after=record.but(leftovers=left, times=record.timed(attempt, {**(times or {}), "torn down": now})),
    )


def drop_leftover(record: Record, now: float, *, leftover: Mapping[str, Any]) -> Change | None:
    """Drop a leftover that no worker has noted."""
    left = tuple(other for other in record.leftovers if other != leftover)
    return None if len(left) == len(record.leftovers) else Change(before=record, after=record.but(leftovers=left))


def note_pending_teardown(record: Record, now: float, *, attempt: int, why: str) -> Change | None:
    """Note why the infrastructure of an ended attempt isn't gone yet, for people to see."""
    leftovers = tuple(
        {**leftover, "pending": why} if leftover["attempt"] == attempt else leftover for leftover in record.leftovers
    )
    if leftovers == record.leftovers or record.foreign:
        return None
    return Change(before=record, after=record.but(leftovers=leftovers))


def last_lines(record: Record, now: float, *, attempt: int, lines: Sequence[str]) -> Change | None:
    """Add the last log lines, which are read after the attempt has ended."""
    outcome = record.outcome
    if not record.terminal or record.attempt != attempt or outcome is None or outcome.log_tail or not lines:
        return None
    return Change(before=record, after=record.but(outcome=replace(outcome, log_tail=tuple(lines))))


def crash_report(record: Record, now: float, *, attempt: int, text: str, lines: Sequence[str] = ()) -> Change | None:
    """Add what the infrastructure told of the crash, and the last log lines where there are none yet."""
    outcome = record.outcome
    if not awaits_report(record, attempt) or outcome is None or not text:
        return None
    reported = replace(outcome, report=text, log_tail=outcome.log_tail or tuple(lines))
    return Change(before=record, after=record.but(outcome=reported))


def awaits_report(record: Record, attempt: int) -> bool:
    """Return True if a run ended with the crash of this attempt, and there is no report of it yet."""
    return (
        record.state is State.CRASHED
        and record.attempt == attempt
        and record.outcome is not None
        and not record.outcome.report
    )


def is_open(record: Record, attempt: int) -> bool:
    """Return True if an attempt has requested infrastructure and hasn't ended."""
    return record.attempt == attempt and record.state in HELD and record.request is not None


def needs_infrastructure(record: Record | None, attempt: int) -> bool:
    """Return True if a run still needs the infrastructure of an attempt: its current one, or one being torn down.

    Always true in a state of another release, which alone can tell.
    """
    if record is None:
        return False
    if record.foreign:
        return True
    return is_open(record, attempt) or any(leftover["attempt"] == attempt for leftover in record.leftovers)
