"""Transitions that what is seen of an attempt's infrastructure brings about. As :mod:`dispatcher.runs.transitions`.

None of them ends anything: that is for :func:`~dispatcher.runs.transitions.abandon` and the clock.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from dispatcher.runs.change import Change, event
from dispatcher.runs.events import Kind
from dispatcher.runs.record import Record
from dispatcher.runs.states import HELD, UNSTARTED, Cause

#: Of :attr:`~dispatcher.runs.record.Record.times`: names of moments in the order in which they come.
MOMENTS = ("created", "scheduled", "pulled", "started", "finished", "torn down")

#: Characters kept of what was said of a cause.
SAID = 1000


def sight(
    record: Record,
    now: float,
    *,
    seen: bool,
    cause: Cause | None = None,
    message: str = "",
    paused: bool = False,
    times: Mapping[str, float] | None = None,
) -> Change | None:
    """Note whether the infrastructure can be seen, the cause last seen with the first text that came with it, and
    whether a quota queue holds it.

    Its times alone are no reason to write, but once: when it has started.
    """
    if record.terminal or record.foreign:
        return None
    known = record.unknown_since is None
    paused = paused and record.state in UNSTARTED
    last = cause or record.last_cause
    said = message[:SAID] if message and cause and (cause != record.last_cause or not record.last_message) else None
    kept = record.timed(record.attempt, times)
    told = "started" in (record.times or {}).get(str(record.attempt), {})
    same = seen == known and last == record.last_cause and said is None and paused == (record.paused_since is not None)
    if same and (told or "started" not in (times or {})):
        return None
    after = record.but(
        unknown_since=None if seen else record.unknown_since or now,
        last_cause=last,
        last_message=record.last_message if said is None else said,
        paused=record.paused if paused else record.paused_at(now),
        paused_since=(record.paused_since or now) if paused else None,
        times=kept,
    )
    events = () if seen == known else (event(after, Kind.SEEN if seen else Kind.UNKNOWN, now),)
    return Change(before=record, after=after, events=events)


def torn_down(record: Record, now: float, *, attempt: int, times: Mapping[str, float] | None = None) -> Change | None:
    """The infrastructure of an ended attempt is confirmed gone; also after the terminal state."""
    kept = tuple(one for one in record.leftovers if one["attempt"] != attempt)
    if len(kept) == len(record.leftovers) or record.foreign:
        return None
    return Change(
        before=record,
        after=record.but(leftovers=kept, times=record.timed(attempt, {**(times or {}), "torn down": now})),
    )


def disowned(record: Record, now: float, *, leftover: Mapping[str, Any]) -> Change | None:
    """Forget what an attempt is said to have left, where no worker noted it."""
    kept = tuple(other for other in record.leftovers if other != leftover)
    return None if len(kept) == len(record.leftovers) else Change(before=record, after=record.but(leftovers=kept))


def teardown_waits(record: Record, now: float, *, attempt: int, why: str) -> Change | None:
    """Something keeps the infrastructure of an ended attempt from going: say what, for people to see."""
    kept = tuple({**one, "pending": why} if one["attempt"] == attempt else one for one in record.leftovers)
    return (
        None if kept == record.leftovers or record.foreign else Change(before=record, after=record.but(leftovers=kept))
    )


def last_lines(record: Record, now: float, *, attempt: int, lines: Sequence[str]) -> Change | None:
    """Lines that were read after the attempt had ended: its state didn't wait for them."""
    outcome = record.outcome
    if not record.terminal or record.attempt != attempt or outcome is None or outcome.log_tail or not lines:
        return None
    return Change(before=record, after=record.but(outcome=replace(outcome, log_tail=tuple(lines))))


def is_open(record: Record, attempt: int) -> bool:
    """Return True if an attempt has asked for infrastructure and hasn't ended."""
    return record.attempt == attempt and record.state in HELD and record.request is not None


def wants(record: Record | None, attempt: int) -> bool:
    """Return True if infrastructure of an attempt belongs to a run: it is its current one, or one whose teardown is
    open. All of a run whose state is one of another release: that release knows."""
    if record is None:
        return False
    if record.foreign:
        return True
    return is_open(record, attempt) or any(one["attempt"] == attempt for one in record.leftovers)
