"""Transitions caused by the workers of a run's own cluster. Pure, as :mod:`dispatcher.runs.transitions`.

None of them ends an attempt: the supervisor has its infrastructure deleted, and then the attempt ends with the failure
that is noted here. Used by supervisors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from dispatcher.runs.change import Change, event
from dispatcher.runs.cluster_state import ClusterState
from dispatcher.runs.ending import not_started
from dispatcher.runs.events import EventKind
from dispatcher.runs.infrastructure import set_wait
from dispatcher.runs.outcome import Outcome
from dispatcher.runs.record import Record
from dispatcher.runs.states import State
from dispatcher.runs.wait import Wait
from dispatcher.runs.worker_loss import WorkerLoss

#: Most losses of which one event tells; further ones are only counted.
MOST_LOSSES = 20


def note_workers(
    record: Record,
    now: float,
    *,
    attempt: int,
    workers: ClusterState,
    losses: Sequence[WorkerLoss] = (),
    trouble: Wait | None = None,
) -> Change | None:
    """Note the workers of an attempt, with an event if people see something new.

    Args:
        record: the run.
        now: the server's clock, in seconds since the epoch.
        attempt: the one whose workers these are.
        workers: their state; it keeps the ``failure`` and the fields that only the record has, and stays ``ready``.
        losses: the workers that were lost since the last note.
        trouble: why a worker of a ready cluster waits, if that is news.
    """
    before = record.workers
    if before is None or record.attempt != attempt or record.state not in {State.RUNNING, State.CANCELLING}:
        return None
    after = replace(
        workers, least=before.least, ready=workers.ready or before.ready, failure=before.failure, others=before.others
    )
    if losses:
        after = replace(after, last_loss=losses[-1])
    if after == before and trouble is None:
        return None
    ready = after.ready and not before.ready
    cleared = set_wait(record, now, wait=None) if ready else None
    noted = (cleared.after if cleared is not None else record).but(workers=after)
    is_news = losses or trouble is not None or ready or after.counts != before.counts
    events = (event(noted, EventKind.WORKERS, now, **_facts(after, losses, trouble)),) if is_news else ()
    change = Change(before=record, after=noted, events=events)
    return change if cleared is None else cleared.then(change)


def note_worker_wait(record: Record, now: float, *, attempt: int, wait: Wait | None) -> Change | None:
    """Note why the workers of a cluster that isn't ready can't start; ``wait`` None: nothing holds them any more.

    The cause last seen is the one with which ``start_within`` ends the attempt.
    """
    workers = record.workers
    if workers is None or not record.awaits_workers or not _is_current(record, attempt):
        return None
    waiting = set_wait(record, now, wait=wait)
    latest = workers if wait is None else replace(workers, cause=wait.cause, message=wait.text)
    if waiting is None:  # the same trouble as before, in other words
        return None if latest.cause is workers.cause else Change(before=record, after=record.but(workers=latest))
    return replace(waiting, after=waiting.after.but(workers=latest))


def fail_cluster(record: Record, now: float, *, attempt: int, outcome: Outcome) -> Change | None:
    """Note the outcome with which the attempt is being ended, because its cluster can't be had. The first one stays."""
    workers = record.workers
    if workers is None or workers.failure is not None or not _is_current(record, attempt):
        return None
    return Change(before=record, after=record.but(workers=replace(workers, failure=outcome)))


def late_cluster(record: Record, now: float) -> Outcome | None:
    """Return the outcome of an attempt whose cluster isn't ready though ``start_within`` has passed; else None."""
    workers = record.workers
    if workers is None or not record.awaits_workers or record.start_by is None or record.start_by > now:
        return None
    joined = f"{workers.running} of {workers.least} workers joined"
    return not_started(record, workers.cause, workers.message or joined)


def _is_current(record: Record, attempt: int) -> bool:
    return record.attempt == attempt and record.state is State.RUNNING and record.settled_at is None


def _facts(workers: ClusterState, losses: Sequence[WorkerLoss], trouble: Wait | None) -> dict[str, Any]:
    if losses:
        facts = [loss.to_json() for loss in losses[-MOST_LOSSES:]]
        return {**workers.counts, **facts[-1], "losses": facts}
    return {**workers.counts, **({} if trouble is None else trouble.facts)}
