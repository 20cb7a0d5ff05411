"""Explain in plain sentences why a run isn't running, or how it ended. Pure.

Used by the client for ``explain`` and for the messages of ``NotFinished``. :mod:`dispatcher.inspection.queues` gathers
the facts from the records.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

from dispatcher.inspection.deadlocks import Deadlock
from dispatcher.inspection.holders import owned_by_shard
from dispatcher.inspection.places import place_variable, whereabouts
from dispatcher.records.workers import WorkerInfo, serving
from dispatcher.runs.infrastructure import STOP_DUE
from dispatcher.runs.outcome import ExitCall, Outcome
from dispatcher.runs.record import Record
from dispatcher.runs.routing import Route, listed
from dispatcher.runs.states import UNSTARTED, State
from dispatcher.support.durations import format_duration
from dispatcher.support.escaping import counted, escaped


def explain(
    record: Record,
    *,
    now: float,
    workers: Sequence[WorkerInfo],
    queues: Mapping[str, tuple[Route, float]] | None = None,
    depth: int | None = None,
    deadlock: Deadlock | None = None,
    holders: Mapping[str, str] | None = None,
) -> list[str]:
    """Return sentences about ``record``, the most important first: one line each, terminal control characters escaped.

    Args:
        record: the run.
        now: the server's clock, in seconds since the epoch.
        workers: the live ones.
        queues: the known queues, with route and time of last use.
        depth: number of runs that wait in its queue, itself included; None if unknown.
        deadlock: the runs that hold all processes of its queue, if their own runs wait there.
        holders: the workers that hold shards, as :func:`dispatcher.inspection.holders.shard_holders` has them.
    """
    if record.terminal:
        return list(map(escaped, _describe_end(record)))
    if record.foreign:
        return ["It is in a state that this release doesn't know: ask with the newest release in use."]
    lines = deadlock.sentences(record) if deadlock is not None else []
    lines += _describe_open(record, now, workers, _owner(record, workers, holders or {}))
    lines += whereabouts(record, workers)
    if record.state is State.QUEUED:
        lines += _queue_status(record, now, queues or {}, depth)
    if record.unknown_since is not None:
        lost = format_duration(now - record.unknown_since)
        why = f": {record.unknown_why}" if record.unknown_why else ""
        lines.append(f"Its infrastructure has not been seen for {lost}{why}. The run is not considered dead.")
    if record.wait is not None:
        cause = f" ({record.wait.cause})" if record.wait.cause is not None else ""
        lines.append(f"It waits{cause}: {record.wait.text}")
    elif record.last_cause is not None:
        message = f": {record.last_message}" if record.last_message else "."
        lines.append(f"Last observed reason for the wait: {record.last_cause}{message}")
    lines += _workers(record)
    lines += _stop_due(record, now)
    lines += _time_limits(record, now)
    lines += _leftovers(record)
    return list(map(escaped, lines))


def command_for(route: Route, shard: str = "") -> str:
    """Return the command that starts a worker for ``route``; with ``shard``, one that watches its runs."""
    labels = "".join(f" --label {shlex.quote(label)}" for label in route.labels)
    variable = place_variable(shard.rpartition("/")[0])
    return f"{variable}{' ' if variable else ''}dispatcher worker --backend {shlex.quote(route.backend)}{labels}"


def unserved(route: Route, workers: Sequence[WorkerInfo]) -> str:
    """Say that no live worker serves ``route``, which workers live, and what to do."""
    labels = f" with labels {listed(route.labels)}" if route.labels else " without labels"
    live = "; ".join(_describe_offer(worker) for worker in workers[:5]) or "none at all"
    more = f" and {len(workers) - 5} more" if len(workers) > 5 else ""
    remedy = "submit a run with Dispatcher() here, which starts one" if route.scope else f"`{command_for(route)}`"
    return escaped(
        f"No live worker serves backend {route.backend!r}{labels} (queue {route.queue}). "
        f"Live workers: {live}{more}. Remedy: {remedy}."
    )


def _describe_open(record: Record, now: float, workers: Sequence[WorkerInfo], owner: str) -> list[str]:
    if record.settled is not None:
        is_due = record.exit_call is ExitCall.DUE
        called = "will be called by another process" if is_due else f"is running on {owner}"
        return [f"The flow of attempt {record.attempt} has ended as {record.settled}; its on_exit {called}."]
    match record.state:
        case State.QUEUED:
            return _queued(record, now, workers)
        case State.AWAITING_RETRY:
            due = (record.due_at or now) - now
            when = f"in {format_duration(due)}" if due > 0 else "now"
            return [f"Attempt {record.attempt} is due {when}; {_retries(record)}."]
        case State.CANCELLING:
            return [f"A cancel was requested; {owner} is ending it."]
        case State.RUNNING:
            since = "" if record.started_at is None else f" for {format_duration(now - record.started_at)}"
            return [f"Attempt {record.attempt} runs{since} on {owner}."]
        case State.CLAIMED:
            return [f"Claimed by {owner}, which will create its infrastructure next."]
        case State.PROVISIONING:
            return [f"{owner} is creating its infrastructure."]
        case _:
            return [f"Its infrastructure exists, watched by {owner}; it has not started the flow yet."]


def _queued(record: Record, now: float, workers: Sequence[WorkerInfo]) -> list[str]:
    route = record.spec.route
    serve = serving(route, workers)
    waited = f"It has been queued for {format_duration(now - record.queued_at)}"
    if not serve:
        return [unserved(route, workers), f"{waited}, attempt {record.attempt}."]
    if needed := record.spec.requires:
        serve = [worker for worker in serve if set(needed) <= set(map(str, worker.data.get("knows", ())))]
    if not serve:
        features = ", ".join(needed)
        return [
            f"It requires {features}, which no live worker that serves its queue {route.queue} knows: "
            "start a worker of its submitter's release, or of a newer one.",
            f"{waited}, attempt {record.attempt}.",
        ]
    slots = sum(worker.concurrency for worker in serve)
    return [
        f"{waited}; {counted(len(serve), 'live worker')} with {counted(slots, 'slot')} "
        f"{'serves' if len(serve) == 1 else 'serve'} its queue {route.queue}."
    ]


def _queue_status(
    record: Record, now: float, queues: Mapping[str, tuple[Route, float]], depth: int | None
) -> list[str]:
    lines = []
    if depth is not None and depth > 1:
        lines.append(f"{counted(depth - 1, 'other run')} {'waits' if depth == 2 else 'wait'} in its queue.")
    if now - record.rung_at > 1:
        rung = format_duration(now - record.rung_at)
        lines.append(f"Its doorbell was last rung {rung} ago; it is rung again if no worker claims the run.")
    if queues and record.spec.route.queue not in queues:
        lines.append("Its queue is no longer known to the workers; the next doorbell registers it again.")
    return lines


def _stop_due(record: Record, now: float) -> list[str]:
    """Say when a flow that ignores that it was told to stop is killed."""
    due = (record.times or {}).get(str(record.attempt), {}).get(STOP_DUE)
    if due is None or record.settled is not None or record.state not in {State.RUNNING, State.CANCELLING}:
        return []
    left = f"in {format_duration(due - now)}" if due > now else "now"
    return [f"Its flow was told to stop, and is killed {left} unless it ends before."]


def _workers(record: Record) -> list[str]:
    """Say how many workers its own cluster has, and why it is being ended if it can't have any."""
    workers = record.workers
    if workers is None or record.state not in {State.RUNNING, State.CANCELLING}:
        return []
    lines = [f"Its cluster's workers: {workers.text}."]
    if record.awaits_workers:
        lines.append(f"Its flow starts once {counted(workers.least, 'worker')} have joined.")
    if workers.last_loss is not None:
        lines.append(f"The last one lost: {workers.last_loss.text}")
    if workers.failure is not None:
        lines.append(f"It is being ended: {workers.failure.message}")
    return lines


def _time_limits(record: Record, now: float) -> list[str]:
    if record.state not in UNSTARTED and not record.awaits_workers:
        return []
    if record.paused_since is not None:
        held = format_duration(now - record.paused_since)
        return [f"A quota queue has held it for {held}; its start_within is paused meanwhile."]
    if record.start_by is None:
        return []
    left = record.start_by - now
    if left <= 0:
        return ["Its start_within is over; it is about to end."]
    return [f"It must start within {format_duration(left)}."]


def _describe_end(record: Record) -> list[str]:
    outcome = record.outcome or Outcome()
    attempts = "" if record.attempt == 1 else f" after {record.attempt} attempts"
    lines = [f"It has ended as {record.state}{attempts}{_since_submit(record)}."]
    if outcome.cause is not None:
        facts = [f"Cause: {outcome.cause}"]
        facts += [outcome.reason] if outcome.reason else []
        facts += [outcome.message.rstrip(". \n")] if outcome.message not in {"", outcome.cause} else []
        facts += [f"exit code {outcome.exit_code}"] if outcome.exit_code is not None else []
        lines.append("; ".join(facts) + ".")
    if record.exit_call in {ExitCall.RAISED, ExitCall.INTERRUPTED, ExitCall.NOT_CALLED}:
        lines.append(f"Its on_exit: {record.exit_call}.")
    if outcome.report:
        lines += ["Crash report:", *(f"  {line}" for line in outcome.report.splitlines())]
    return lines + _leftovers(record)


def _since_submit(record: Record) -> str:
    if record.ended_at is None:
        return ""
    return f", {format_duration(record.ended_at - record.created_at)} after its submit"


def _leftovers(record: Record) -> list[str]:
    if not record.leftovers:
        return []
    lines = [f"Infrastructure of {counted(len(record.leftovers), 'ended attempt')} is not confirmed gone yet."]
    for leftover in record.leftovers:
        if leftover.get("pending"):
            lines.append(f"Attempt {leftover['attempt']}: {str(leftover['pending']).rstrip('. ')}.")
    return lines


def _owner(record: Record, workers: Sequence[WorkerInfo], holders: Mapping[str, str]) -> str:
    by_shard = owned_by_shard(record)
    owner = holders.get(record.owner, "") if by_shard else record.owner
    for worker in workers:
        if worker.id == owner:
            return f"worker {worker.id} (process {worker.pid} on {worker.host})"
    if by_shard:
        last = f"; the last was {owner}" if owner else ""
        command = command_for(record.spec.route, record.owner)
        return f"nobody (no live worker holds shard {record.owner}{last}: start one, as `{command}`)"
    return f"worker {owner} (not among the live workers)" if owner else "nobody"


def _retries(record: Record) -> str:
    count = record.spec.retry.count
    return f"{record.retries_used} of {count} retries used" if count else "no retry is left"


def _describe_offer(worker: WorkerInfo) -> str:
    offer = worker.offer
    own = f"labels {listed(offer.labels)}" if offer.labels else "no labels"
    labels = "any labels" if offer.every_label else own
    scope = f", environment {offer.scope}" if offer.scope else ""
    return f"{worker.id} serves {', '.join(sorted(offer.backends))} with {labels}{scope}"
