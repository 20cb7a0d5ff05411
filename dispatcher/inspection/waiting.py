"""Say in a few words why a run waits. Pure.

For a table's column, a status line and the messages of errors. :mod:`dispatcher.inspection.explain` says more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dispatcher.inspection.holders import owned_by_shard
from dispatcher.records.workers import WorkerInfo, serving
from dispatcher.runs.cluster_state import ClusterState
from dispatcher.runs.record import Record
from dispatcher.runs.routing import Route, listed
from dispatcher.runs.states import UNSTARTED, State
from dispatcher.runs.wait import Wait
from dispatcher.support.durations import format_duration
from dispatcher.support.escaping import counted, escaped


def why_waiting(
    record: Record,
    *,
    now: float,
    workers: Sequence[WorkerInfo] | None = None,
    holders: Mapping[str, str] | None = None,
) -> str:
    """Return the reason for which a run waits, in one line, terminal control characters escaped; empty if it doesn't.

    A run that no live worker watches waits for one, also while its flow runs.

    Args:
        record: the run.
        now: the server's clock, in seconds since the epoch.
        workers: the live ones; None if they aren't known, which leaves out what a queued run waits for.
        holders: the live workers that hold shards, by shard; None if they aren't known.
    """
    if record.terminal or record.foreign:
        return ""
    if holders is not None and owned_by_shard(record) and record.owner not in holders:
        return escaped(f"no live worker watches it: none holds shard {record.owner}")
    if record.settled is not None:
        return ""
    return escaped(_reason(record, now, workers))


def _reason(record: Record, now: float, workers: Sequence[WorkerInfo] | None) -> str:
    if record.unknown_since is not None:
        why = f": {record.unknown_why}" if record.unknown_why else ""
        return f"out of sight for {format_duration(now - record.unknown_since)}{why}"
    if record.state is State.AWAITING_RETRY:
        left = (record.due_at or now) - now
        return f"attempt {record.attempt} is due {f'in {format_duration(left)}' if left > 0 else 'now'}"
    if record.workers is not None and record.awaits_workers:
        return _workers(record.workers, record.wait)
    if record.state not in UNSTARTED:
        return ""
    if record.state is State.QUEUED:
        return "" if workers is None else _queued(record, workers)
    if record.wait is None:
        return "held by a quota queue" if record.paused_since is not None else ""
    return record.wait.text


def _workers(workers: ClusterState, wait: Wait | None) -> str:
    if workers.failure is not None:
        return f"is being ended: {workers.failure.message}"
    if wait is not None:
        return wait.text
    return f"waits for workers: {workers.running} of {workers.least} have joined"


def _queued(record: Record, workers: Sequence[WorkerInfo]) -> str:
    route = record.spec.route
    serve = serving(route, workers)
    if not serve:
        return f"no live worker serves {_described(route)}"
    knowing = [worker for worker in serve if set(record.spec.requires) <= set(map(str, worker.data.get("knows", ())))]
    if not knowing:
        return f"no live worker that serves {_described(route)} knows {', '.join(record.spec.requires)}"
    slots = sum(worker.concurrency for worker in knowing)
    return f"waits for a slot: {counted(len(knowing), 'worker')} with {counted(slots, 'slot')}"


def _described(route: Route) -> str:
    return f"backend {route.backend!r} {f'with labels {listed(route.labels)}' if route.labels else 'without labels'}"
