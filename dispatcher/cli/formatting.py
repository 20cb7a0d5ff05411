"""Records, events and log lines as text for people. Pure; used by commands only.

Programs get JSON, from :mod:`dispatcher.inspection.as_json`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

from dispatcher.inspection.timeline import moments
from dispatcher.records.base import Line
from dispatcher.runs.events import Event, Kind
from dispatcher.runs.record import ExitCall, Record
from dispatcher.runs.states import Cause, State

#: Styles by state.
STYLES: Mapping[State, str] = {
    State.QUEUED: "yellow",
    State.CLAIMED: "cyan",
    State.PROVISIONING: "cyan",
    State.PENDING: "cyan",
    State.RUNNING: "bold cyan",
    State.CANCELLING: "yellow",
    State.AWAITING_RETRY: "yellow",
    State.SUCCEEDED: "green",
    State.FAILED: "red",
    State.CRASHED: "magenta",
    State.TIMED_OUT: "red",
    State.CANCELLED: "bright_black",
    State.UNKNOWN: "bright_black",
}

#: What ``run`` exits with.
EXIT_CODES: Mapping[State, int] = {
    State.SUCCEEDED: 0,
    State.FAILED: 1,
    State.CRASHED: 3,
    State.TIMED_OUT: 4,
    State.CANCELLED: 5,
}

#: How moments of the infrastructure are called beside our events.
_SHOWN = {"started": "container started", "finished": "container finished"}


def span(seconds: float) -> str:
    """A length of time: 0.4 s, 12 s, 3m 05s, 2h 10m, 5d 3h."""
    seconds = max(0.0, seconds)
    if seconds < 10:
        return f"{seconds:.2f} s" if seconds < 1 else f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02}s"
    if whole < 86400:
        return f"{whole // 3600}h {whole % 3600 // 60:02}m"
    return f"{whole // 86400}d {whole % 86400 // 3600}h"


def stands(record: Record) -> str:
    """Say how a run stands once it was asked to end."""
    if record.settled is None or record.state is State.CANCELLING:
        return str(record.state)
    due = record.exit_call is ExitCall.DUE
    return f"{record.settled} already; its on_exit is {'to be called' if due else 'running'}"


def moment(seconds: float) -> str:
    """A point in time, in this machine's zone: 2025-03-01 14:02:07."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def clock(seconds: float) -> str:
    """The time of day with milliseconds, in this machine's zone."""
    whole, part = divmod(seconds, 1)
    return f"{time.strftime('%H:%M:%S', time.localtime(whole))}.{int(part * 1000):03}"


def length(record: Record, now: float) -> str:
    """Return the time that the current attempt has run, or ran, in words."""
    if record.started_at is None:
        return "-"
    end = record.ended_at if record.ended_at is not None else now
    return span(end - record.started_at)


def why(record: Record) -> str:
    """Say how it ended, in a few words; empty while it's open or if it ended well."""
    outcome = record.outcome
    if outcome is None or outcome.cause is None or not record.terminal:
        return ""
    if outcome.cause is Cause.CANCELLED and outcome.message in {"", "cancelled"}:
        return ""  # the state says it
    return _end(outcome.to_json())


def _end(data: Mapping[str, Any]) -> str:
    """Why an attempt ended, from the fields of an outcome; a flow's own error goes without our word for it."""
    head = str(data["cause"])
    if head == Cause.USER_ERROR:
        head = str(data.get("reason") or head)
    elif data.get("exit_code") is not None:
        head = f"{head}, exit code {data['exit_code']}"
    message = data.get("message")
    return f"{head}: {message}" if message and message != head else head


def event_note(event: Event) -> str:
    """Return what an event says beyond its kind."""
    data = event.data
    parts = []
    if data.get("cause"):
        parts.append(_end(data))
    if event.kind is Kind.CLAIMED and data.get("owner"):
        parts.append(f"by {data['owner']}")
    if data.get("on_exit") not in {None, "", ExitCall.NONE}:
        parts.append(f"on_exit {data['on_exit']}")
    if data.get("due") is not None:
        pause = float(data["due"]) - event.time
        parts.append(f"next attempt {f'in {span(pause)}' if pause > 0.01 else 'at once'}")
    return "; ".join(parts)


def passing(event: Event, before: Event | None) -> bool:
    """Return True if an event only tells a step that took no time, as between the states of one script."""
    return (
        before is not None
        and event.kind in {Kind.PROVISIONING, Kind.PENDING}
        and (event.time, event.attempt) == (before.time, before.attempt)
    )


def phases(
    events: Sequence[Event],
    times: Mapping[str, Mapping[str, float]] | None = None,
    lines: Mapping[int, float] | None = None,
) -> list[tuple[str, str, str, str]]:
    """The timeline: when, since the row before, what, and a note; a row per event that took time, and per moment that
    the infrastructure tells of (see :func:`dispatcher.inspection.timeline.timeline`)."""
    rows = []
    before: Event | None = None
    since: float | None = None
    for moment in moments(events, times, lines):
        one = moment.event
        if one is not None and passing(one, before):
            continue
        again = f" (attempt {moment.attempt})" if moment.attempt > 1 else ""
        passed = "" if since is None else f"+{span(moment.time - since)}"
        if one is None:
            rows.append((clock(moment.time), passed, f"{_SHOWN.get(moment.name, moment.name)}{again}", ""))
        else:
            end = f" → {one.state}" if one.kind is Kind.EXITED else ""
            rows.append((clock(one.time), passed, f"{one.kind}{end}{again}", event_note(one)))
            before = one
        since = moment.time
    return rows


def event_line(event: Event) -> str:
    """When, what and why, on one line."""
    note = event_note(event)
    again = f" (attempt {event.attempt})" if event.attempt > 1 else ""
    return f"{clock(event.time)}  {event.kind} → {event.state}{again}{f'  ({note})' if note else ''}"


def facts(record: Record) -> list[tuple[str, str]]:
    """Return what ``show`` says of a run, name by name; what isn't said is left out."""
    spec = record.spec
    retries = spec.retry.count
    told = [
        ("run", record.id),
        ("state", f"{record.state}{' (out of sight)' if record.unknown_since is not None else ''}"),
        ("why", why(record)),
        ("flow", spec.flow),
        ("name", spec.options.name or ""),
        ("environment", environment(spec.environment)),
        ("queue", spec.route.queue),
        ("tags", ", ".join(spec.tags)),
        ("attempt", f"{record.attempt}{f' of at most {retries + 1}' if retries else ''}"),
        ("worker", record.owner),
        ("submitted", moment(record.created_at)),
        ("ended", "" if record.ended_at is None else moment(record.ended_at)),
        ("teardown", "; ".join(str(one.get("pending") or "not confirmed yet") for one in record.leftovers)),
        ("kept until", "" if record.expires_at is None else moment(record.expires_at)),
    ]
    return [(name, text) for name, text in told if text]


def environment(data: Mapping[str, Any]) -> str:
    """An environment's JSON in a few words; nothing in it is opened."""
    said = {name: value for name, value in data.items() if name != "type" and value not in (None, [], {}, "")}
    for name in ("on_start", "on_exit"):
        if isinstance(said.get(name), Mapping):
            said[name] = said[name].get("ref", "sealed")
    inside = ", ".join(
        f"{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in said.items()
    )
    return f"{data.get('type', '?')}({inside})"


def log_line(line: Line) -> str:
    """A line of a flow, as a person reads it."""
    if line.stream == "gap":
        return f"[{line.text}]"
    return f"{line.level} {line.text}" if line.level else line.text
