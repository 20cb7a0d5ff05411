"""Records, events and log lines as text for people. Pure; used by commands only.

Programs get JSON, from :mod:`dispatcher.inspection.as_json`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from dispatcher.inspection.holders import owned_by_shard
from dispatcher.inspection.timeline import moments
from dispatcher.records.logs import WORKER, Line
from dispatcher.runs.cluster_state import counted_workers
from dispatcher.runs.events import Event, EventKind
from dispatcher.runs.outcome import ExitCall
from dispatcher.runs.record import Record
from dispatcher.runs.states import Cause, State
from dispatcher.runs.wait import sentence
from dispatcher.runs.worker_loss import losses_of
from dispatcher.support.durations import format_clock, format_duration, format_time

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

#: Exit codes of ``run`` by state.
EXIT_CODES: Mapping[State, int] = {
    State.SUCCEEDED: 0,
    State.FAILED: 1,
    State.CRASHED: 3,
    State.TIMED_OUT: 4,
    State.CANCELLED: 5,
}

#: Most characters of an environment's value in one line.
_MOST_OF_VALUE = 120

#: Names of infrastructure's moments where they differ in a list of events.
_MOMENT_NAMES = {"started": "container started", "finished": "container finished"}


def cancel_status(record: Record) -> str:
    """Describe the state of a run after a cancel request."""
    if record.settled is None or record.state is State.CANCELLING:
        return str(record.state)
    due = record.exit_call is ExitCall.DUE
    return f"{record.settled} already; its on_exit is {'still to be called' if due else 'running'}"


def length(record: Record, now: float) -> str:
    """Return how long the current attempt has run."""
    if record.started_at is None:
        return "-"
    end = record.ended_at if record.ended_at is not None else now
    return format_duration(end - record.started_at)


def why(record: Record, waiting: str = "") -> str:
    """Say in a few words why a run ended; ``waiting`` while it is open, empty if it succeeded.

    ``waiting`` is what :func:`dispatcher.inspection.waiting.why_waiting` says of it.
    """
    outcome = record.outcome
    if not record.terminal:
        return waiting
    if outcome is None or outcome.cause is None:
        return ""
    if outcome.cause is Cause.CANCELLED and outcome.message in {"", "cancelled"}:
        return ""  # the state says it
    return _describe_end(outcome.to_json())


def _describe_end(data: Mapping[str, Any]) -> str:
    """Describe why an attempt ended, from the fields of an outcome. A flow's own error needs no cause beside it."""
    head = str(data["cause"])
    if head == Cause.USER_ERROR:
        head = str(data.get("reason") or head)
    elif data.get("exit_code") is not None:
        head = f"{head}, exit code {data['exit_code']}"
    message = data.get("message")
    return f"{head}: {message}" if message and message != head else head


def event_note(event: Event) -> str:
    """Return the details of an event: why it waits, cause, owner, on_exit, next attempt."""
    data = event.data
    parts = []
    if event.kind is EventKind.WAITING:
        parts.append(wait_of(event))
    elif event.kind is EventKind.WORKERS:
        parts += workers_of(event)
    elif event.kind is EventKind.UNKNOWN and data.get("message"):
        parts.append(str(data["message"]))
    elif data.get("cause"):
        parts.append(_describe_end(data))
    if event.kind is EventKind.CLAIMED and data.get("owner"):
        parts.append(f"by {data['owner']}")
    if data.get("on_exit") not in {None, "", ExitCall.NONE}:
        parts.append(f"on_exit {data['on_exit']}")
    if data.get("due") is not None:
        pause = float(data["due"]) - event.time
        parts.append(f"next attempt {f'in {format_duration(pause)}' if pause > 0.01 else 'at once'}")
    return "; ".join(parts)


def wait_of(event: Event) -> str:
    """Return why a run waits from this event on."""
    return sentence(event.data) or "nothing holds it any more"


def workers_of(event: Event) -> list[str]:
    """Return the numbers of workers from this event on, and the ones lost, or why one waits."""
    losses = losses_of(event.data)
    reasons = [loss.text for loss in losses] or [sentence(event.data)]
    return [counted_workers(event.data), *filter(None, reasons)]


def is_instant(event: Event, previous: Event | None) -> bool:
    """Return True if an event belongs to a step that took no time, as between the states of one script."""
    return (
        previous is not None
        and event.kind in {EventKind.PROVISIONING, EventKind.PENDING}
        and (event.time, event.attempt) == (previous.time, previous.attempt)
    )


def phases(
    events: Sequence[Event],
    times: Mapping[str, Mapping[str, float]] | None = None,
    lines: Mapping[int, float] | None = None,
) -> list[tuple[str, str, str, str]]:
    """Return the rows of a timeline: time, duration since the previous row, name, and note.

    Events that took no time are left out. ``times`` and ``lines`` are those of
    :func:`dispatcher.inspection.timeline.timeline`.
    """
    rows = []
    previous: Event | None = None
    since: float | None = None
    for moment in moments(events, times, lines):
        event = moment.event
        if event is not None and is_instant(event, previous):
            continue
        again = f" (attempt {moment.attempt})" if moment.attempt > 1 else ""
        passed = "" if since is None else f"+{format_duration(moment.time - since)}"
        if event is None:
            rows.append(
                (format_clock(moment.time), passed, f"{_MOMENT_NAMES.get(moment.name, moment.name)}{again}", "")
            )
        else:
            end = f" → {event.state}" if event.kind is EventKind.EXITED else ""
            rows.append((format_clock(event.time), passed, f"{event.kind}{end}{again}", event_note(event)))
            previous = event
        since = moment.time
    return rows


def event_line(event: Event) -> str:
    """Return an event as one line: time, kind, state and details."""
    note = event_note(event)
    again = f" (attempt {event.attempt})" if event.attempt > 1 else ""
    return f"{format_clock(event.time)}  {event.kind} → {event.state}{again}{f'  ({note})' if note else ''}"


def facts(record: Record, *, waiting: str = "", holder: str = "") -> list[tuple[str, str]]:
    """Return the facts that ``show`` prints of a run, as names and texts. Empty ones are left out.

    Args:
        record: the run.
        waiting: why it waits, as :func:`dispatcher.inspection.waiting.why_waiting` says.
        holder: the worker that holds the shard which owns the run.
    """
    spec = record.spec
    retries = spec.retry.count
    rows = [
        ("run", record.id),
        ("state", f"{record.state}{' (out of sight)' if record.unknown_since is not None else ''}"),
        ("why", why(record, waiting)),
        ("flow", spec.flow),
        ("name", spec.options.name or ""),
        ("environment", environment(spec.environment)),
        ("queue", spec.route.queue),
        ("tags", ", ".join(spec.tags)),
        ("attempt", f"{record.attempt}{f' of at most {retries + 1}' if retries else ''}"),
        ("worker", _worker(record, holder)),
        ("workers", _cluster(record)),
        ("submitted", format_time(record.created_at)),
        ("ended", "" if record.ended_at is None else format_time(record.ended_at)),
        ("teardown", "; ".join(str(left.get("pending") or "not confirmed yet") for left in record.leftovers)),
        ("kept until", "" if record.expires_at is None else format_time(record.expires_at)),
    ]
    return [(name, text) for name, text in rows if text]


def _cluster(record: Record) -> str:
    workers = record.workers
    if workers is None:
        return ""
    lost = "" if workers.last_loss is None else f"; the last one lost: {workers.last_loss.text}"
    return f"{workers.text}{lost}"


def _worker(record: Record, holder: str) -> str:
    if not owned_by_shard(record):
        return record.owner
    return f"{holder} (shard {record.owner})" if holder else f"none holds shard {record.owner}"


def environment(data: Mapping[str, Any]) -> str:
    """Return an environment's JSON as one line, large values in brief. Sealed parts aren't opened."""
    shown = {name: value for name, value in data.items() if name != "type" and value not in (None, [], {}, "")}
    for name in ("on_start", "on_exit"):
        if isinstance(shown.get(name), Mapping):
            shown[name] = shown[name].get("ref", "sealed")
    inside = ", ".join(f"{name}={_briefly(value)}" for name, value in shown.items())
    return f"{data.get('type', '?')}({inside})"


def _briefly(value: Any) -> str:
    """Return a value of an environment; of a large object, such as a Job, only the names of its fields."""
    text = value if isinstance(value, str) else json.dumps(value)
    if len(text) <= _MOST_OF_VALUE:
        return text
    if isinstance(value, Mapping):
        return f"{{{', '.join(map(str, value))[:_MOST_OF_VALUE]}: …}}"
    return f"{text[:_MOST_OF_VALUE]}…"


def log_line(line: Line) -> str:
    """Return a log line as people read it."""
    if line.stream == "gap":
        return f"[{line.text}]"
    if line.stream.startswith("init/"):
        return f"[{line.stream}] {line.text}"
    if line.stream.startswith(WORKER):
        return f"[{line.stream.removeprefix(WORKER)}] {line.text}"
    return f"{line.level} {line.text}" if line.level else line.text
