"""Why a run isn't running, or how it ended, in plain sentences, the most important first. Pure.

Called by the client (``explain``, the messages of ``NotFinished``) and so by the command line.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

from dispatcher.inspection.waiting_parents import Full
from dispatcher.records.workers import WorkerInfo
from dispatcher.runs.outcome import ExitCall, Outcome
from dispatcher.runs.record import Record
from dispatcher.runs.routing import Route, listed
from dispatcher.runs.states import State
from dispatcher.support.escaping import counted, escaped


def explain(
    record: Record,
    *,
    now: float,
    workers: Sequence[WorkerInfo],
    queues: Mapping[str, tuple[Route, float]] | None = None,
    depth: int | None = None,
    full: Full | None = None,
) -> list[str]:
    """Sentences about ``record``, each one line; what could steer a terminal stands there as an escape.

    Args:
        record: the run.
        now: the server's clock, in seconds since the epoch.
        workers: those that live.
        queues: the queues known, with their route and last use.
        depth: runs that wait in the run's queue, itself included; None if it wasn't asked.
        full: who holds all processes that serve it, if these runs wait for others there.
    """
    if record.terminal:
        return list(map(escaped, _ended(record)))
    if record.foreign:
        return ["It is in a state that this release doesn't know: ask with the newest release that runs here."]
    lines = full.sentences(record) if full is not None else []
    lines += _open(record, now, workers)
    if record.state is State.QUEUED:
        lines += _behind(record, now, queues or {}, depth)
    if record.unknown_since is not None:
        lines.append(
            f"Its infrastructure has not been seen for {_span(now - record.unknown_since)}; it is not taken for dead."
        )
    if record.last_cause is not None:
        said = f": {record.last_message}" if record.last_message else "."
        lines.append(f"What it waits for, last seen: {record.last_cause}{said}")
    lines += _clocks(record, now)
    lines += _leftovers(record)
    return list(map(escaped, lines))


def serving(route: Route, workers: Sequence[WorkerInfo]) -> list[WorkerInfo]:
    """The workers that serve ``route``."""
    return [worker for worker in workers if worker.offer.serves(route)]


def command_for(route: Route) -> str:
    """The command line of a worker that would serve ``route``."""
    labels = "".join(f" --label {shlex.quote(label)}" for label in route.labels)
    return f"dispatcher worker --backend {shlex.quote(route.backend)}{labels}"


def unserved(route: Route, workers: Sequence[WorkerInfo]) -> str:
    """Says that no live worker serves ``route``, which ones live, and what to do."""
    labels = f" with labels {listed(route.labels)}" if route.labels else " without labels"
    here = "; ".join(_offer(worker) for worker in workers[:5]) or "none at all"
    more = f" and {len(workers) - 5} more" if len(workers) > 5 else ""
    remedy = "run something by Dispatcher() here, which starts one" if route.scope else f"`{command_for(route)}`"
    return escaped(
        f"No live worker serves backend {route.backend!r}{labels} (queue {route.queue}). "
        f"Live workers: {here}{more}. Remedy: {remedy}."
    )


def _open(record: Record, now: float, workers: Sequence[WorkerInfo]) -> list[str]:
    if record.settled is not None:
        to_come = record.exit_call is ExitCall.DUE
        called = "is to be called by another process" if to_come else f"is running on {_held(record, workers)}"
        return [f"The flow of attempt {record.attempt} has ended as {record.settled}; its on_exit {called}."]
    match record.state:
        case State.QUEUED:
            return _queued(record, now, workers)
        case State.AWAITING_RETRY:
            due = (record.due_at or now) - now
            when = f"in {_span(due)}" if due > 0 else "now"
            return [f"Attempt {record.attempt} is due {when}; {_retries(record)}."]
        case State.CANCELLING:
            return [f"A cancel was asked for; {_held(record, workers)} is ending it."]
        case State.RUNNING:
            since = "" if record.started_at is None else f" for {_span(now - record.started_at)}"
            return [f"Attempt {record.attempt} runs{since} on {_held(record, workers)}."]
        case State.CLAIMED:
            return [f"Claimed by {_held(record, workers)}, which is about to create its infrastructure."]
        case State.PROVISIONING:
            return [f"{_held(record, workers)} is creating its infrastructure."]
        case _:
            return [f"Its infrastructure exists, held by {_held(record, workers)}; it has not started the flow yet."]


def _queued(record: Record, now: float, workers: Sequence[WorkerInfo]) -> list[str]:
    route = record.spec.route
    serve = serving(route, workers)
    waited = f"It has been queued for {_span(now - record.queued_at)}"
    if not serve:
        return [unserved(route, workers), f"{waited}, attempt {record.attempt}."]
    if needed := record.spec.requires:
        serve = [worker for worker in serve if set(needed) <= {str(known) for known in worker.data.get("knows", ())}]
    if not serve:
        words = ", ".join(needed)
        return [
            f"It requires {words}, which no live worker that serves its queue {route.queue} knows: "
            "start a worker of the release that its submitter has, or of a newer one.",
            f"{waited}, attempt {record.attempt}.",
        ]
    slots = sum(worker.concurrency for worker in serve)
    return [
        f"{waited}; {counted(len(serve), 'live worker')} with {counted(slots, 'slot')} "
        f"{'serves' if len(serve) == 1 else 'serve'} its queue {route.queue}."
    ]


def _behind(record: Record, now: float, queues: Mapping[str, tuple[Route, float]], depth: int | None) -> list[str]:
    lines = []
    if depth is not None and depth > 1:
        lines.append(f"{counted(depth - 1, 'other run')} {'waits' if depth == 2 else 'wait'} in its queue.")
    if now - record.rung_at > 1:
        lines.append(f"Its doorbell was last rung {_span(now - record.rung_at)} ago; it is rung again if nobody comes.")
    if queues and record.spec.route.queue not in queues:
        lines.append("Its queue isn't known to the workers any more; the next ring brings it back.")
    return lines


def _clocks(record: Record, now: float) -> list[str]:
    if record.state not in {State.QUEUED, State.CLAIMED, State.PROVISIONING, State.PENDING}:
        return []
    if record.paused_since is not None:
        return [f"A quota queue has held it for {_span(now - record.paused_since)}; its start_within waits meanwhile."]
    if record.start_by is None:
        return []
    left = record.start_by - now
    return [f"It must start within {_span(left)}." if left > 0 else "Its start_within is over; it is about to end."]


def _ended(record: Record) -> list[str]:
    outcome = record.outcome or Outcome()
    attempts = "" if record.attempt == 1 else f" after {record.attempt} attempts"
    lasted = "" if record.ended_at is None else f", {_span(record.ended_at - record.created_at)} after its submit"
    lines = [f"It has ended as {record.state}{attempts}{lasted}."]
    if outcome.cause is not None:
        facts = [f"Cause: {outcome.cause}"]
        facts += [outcome.reason] if outcome.reason else []
        facts += [outcome.message] if outcome.message not in {"", outcome.cause} else []
        facts += [f"exit code {outcome.exit_code}"] if outcome.exit_code is not None else []
        lines.append("; ".join(facts) + ".")
    if record.exit_call in {ExitCall.RAISED, ExitCall.INTERRUPTED, ExitCall.NOT_CALLED}:
        lines.append(f"Its on_exit: {record.exit_call}.")
    return lines + _leftovers(record)


def _leftovers(record: Record) -> list[str]:
    if not record.leftovers:
        return []
    lines = [f"Infrastructure of {counted(len(record.leftovers), 'ended attempt')} is not confirmed gone yet."]
    for one in record.leftovers:
        if one.get("pending"):
            lines.append(f"Attempt {one['attempt']}: {one['pending']}.")
    return lines


def _held(record: Record, workers: Sequence[WorkerInfo]) -> str:
    for worker in workers:
        if worker.id == record.owner:
            return f"worker {worker.id} (process {worker.pid} on {worker.host})"
    return f"{record.owner} (not among the live workers)" if record.owner else "nobody"


def _retries(record: Record) -> str:
    count = record.spec.retry.count
    return f"{record.retries_used} of {count} retries used" if count else "no retry is left"


def _offer(worker: WorkerInfo) -> str:
    offer = worker.offer
    some = f"labels {listed(offer.labels)}" if offer.labels else "no labels"
    labels = "any labels" if offer.every_label else some
    scope = f", environment {offer.scope}" if offer.scope else ""
    return f"{worker.id} serves {', '.join(sorted(offer.backends))} with {labels}{scope}"


def _span(seconds: float) -> str:
    seconds = max(0.0, seconds)
    if seconds < 120:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h" if seconds < 172800 else f"{seconds / 86400:.0f} days"
