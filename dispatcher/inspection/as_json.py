"""JSON views of runs, values, events, log lines, queues and workers, for programs. Pure.

Used by the command line (``--json``). The field names are public: scripts read them.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from dispatcher.inspection.holders import owned_by_shard
from dispatcher.inspection.places import places_of
from dispatcher.inspection.queues import QueueInfo
from dispatcher.records.logs import Line
from dispatcher.records.workers import WorkerInfo
from dispatcher.runs.cluster_state import ClusterState
from dispatcher.runs.events import Event
from dispatcher.runs.record import Record
from dispatcher.runs.value import Value


def run_json(record: Record, *, waiting: str = "", holder: str | None = None) -> dict[str, Any]:
    """Return a run: its record without sealed bytes, times in seconds since the epoch.

    Args:
        record: the run.
        waiting: why it waits, as :func:`dispatcher.inspection.waiting.why_waiting` says.
        holder: the worker that holds the shard which owns the run, if one does.
    """
    spec, outcome = record.spec, record.outcome
    view: dict[str, Any] = {
        "id": record.id,
        "flow": spec.flow,
        "name": spec.options.name,
        "state": record.state,
        "attempt": record.attempt,
        "backend": spec.route.backend,
        "queue": spec.route.queue,
        "labels": list(spec.labels),
        "tags": list(spec.tags),
        "created_at": record.created_at,
        "started_at": record.started_at,
        "ended_at": record.ended_at,
        "expires_at": record.expires_at,
        "worker": (holder if owned_by_shard(record) else record.owner) or None,
        "shard": record.owner if owned_by_shard(record) else None,
        "waiting": waiting or None,
        "options": spec.options.to_json(),
        "environment": spec.environment,
        "observed": "unknown" if record.unknown_since is not None else "known",
        "on_exit": record.exit_call,
        "times": record.times or {},
        "workers": None if record.workers is None else workers_json(record.workers),
        "leftovers": [
            {"attempt": leftover["attempt"], "pending": leftover.get("pending")} for leftover in record.leftovers
        ],
    }
    if outcome is not None:
        view["outcome"] = {
            "cause": outcome.cause,
            "reason": outcome.reason,
            "message": outcome.message,
            "exit_code": outcome.exit_code,
            "traceback": outcome.traceback,
            "log_tail": list(outcome.log_tail),
            "report": outcome.report or None,
            "result": None if outcome.result is None else value_json(outcome.result),
        }
    return view


def workers_json(workers: ClusterState) -> dict[str, Any]:
    """Return the workers of a run's own cluster."""
    lost = workers.last_loss
    return {
        **workers.counts,
        "least": workers.least,
        "ready": workers.ready,
        "last_loss": None if lost is None else lost.to_json(),
    }


def value_json(value: Value) -> dict[str, Any]:
    """Return how a value is stored, without the value itself."""
    return {"codec": value.codec, "size": value.size, "blob": value.blob}


def event_json(event: Event) -> dict[str, Any]:
    """Return a lifecycle event."""
    return {
        "id": event.id,
        "run": event.run_id,
        "attempt": event.attempt,
        "kind": event.kind,
        "state": event.state,
        "time": event.time,
        "flow": event.flow,
        "labels": list(event.labels),
        "data": dict(event.data),
    }


def line_json(line: Line) -> dict[str, Any]:
    """Return a log line."""
    return asdict(line)


def worker_json(worker: WorkerInfo) -> dict[str, Any]:
    """Return a live worker, with what it serves."""
    return {
        "id": worker.id,
        "host": worker.host,
        "pid": worker.pid,
        **worker.offer.to_json(),
        "concurrency": worker.concurrency,
        "started_at": worker.started_at,
        "python": worker.python,
        "version": worker.version,
        "queues": list(worker.queues),
        "places": {family: dict(identity) for family, identity in places_of(worker).items()},
    }


def queue_json(queue: QueueInfo) -> dict[str, Any]:
    """Return a queue, with the ids of the live workers that serve it."""
    return {
        "name": queue.name,
        **queue.route.to_json(),
        "waiting": queue.waiting,
        "last_used": queue.last_used,
        "workers": [worker.id for worker in queue.workers],
    }
