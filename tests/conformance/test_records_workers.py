"""The workers of a run's own cluster are stored with their events, in each implementation alike."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from dispatcher.records.base import Records
from dispatcher.records.logs import Line
from dispatcher.runs import cluster_steps, transitions
from dispatcher.runs.cluster_state import ClusterState
from dispatcher.runs.events import Event, EventKind
from dispatcher.runs.outcome import Outcome
from dispatcher.runs.record import Record
from dispatcher.runs.retry import Retry
from dispatcher.runs.states import Cause, State
from dispatcher.runs.wait import Wait
from dispatcher.runs.worker_loss import WorkerLoss
from tests.conformance.specs import accept
from tests.unit.making import trusting

WORDS = 'it\'s "full"\n\x1b[31m ä'

LOSS = WorkerLoss(name="w2", cause=Cause.OOM_KILLED, reason="OOMKilled", message=WORDS, exit_code=137)


def claimed(records: Records, **options: Any) -> Record:
    """A run whose runner has claimed its attempt, and waits for two workers."""
    record = accept(records, **options)
    record = records.runs.update(record.id, partial(transitions.claim, owner="w1"))
    intend = partial(
        transitions.intend,
        epoch=record.epoch,
        request={"shard": "fake/1", "body": {"a": 1}},
        workers=ClusterState(least=2, wanted=2),
    )
    records.runs.update(record.id, intend)
    return records.runs.update(record.id, partial(transitions.claim_attempt, attempt=1, holder="pod"))


def note(records: Records, record: Record, workers: ClusterState, **more: Any) -> Record:
    step = partial(cluster_steps.note_workers, attempt=record.attempt, workers=workers, **more)
    return records.runs.update(record.id, step)


def events_of(records: Records, record: Record) -> list[Event]:
    return [event for event in records.events.of(record.id)[0] if event.kind is EventKind.WORKERS]


def test_workers_are_stored_with_an_event_per_change(records: Records) -> None:
    record = claimed(records)
    assert record.awaits_workers
    state = ClusterState(least=2, wanted=2, running=2, ready=True)
    noted = note(records, record, state)
    assert noted.workers == records.runs.get(record.id)[0].workers == state
    assert not noted.awaits_workers
    assert note(records, record, state).version == noted.version, "nothing has changed"
    lost = note(records, record, replace(state, running=1, lost=1), losses=[LOSS])
    assert lost.workers is not None
    assert records.runs.get(record.id)[0].workers == lost.workers
    assert lost.workers.last_loss == LOSS
    ready, loss = events_of(records, record)
    assert (ready.data["wanted"], ready.data["running"], ready.data["lost"]) == (2, 2, 0)
    assert (loss.data["lost"], loss.data["worker"], loss.data["cause"]) == (1, "w2", "oom_killed")
    assert loss.data["losses"] == [LOSS.to_json()]
    assert ready.id != loss.id


def test_a_wait_for_workers_is_stored_until_they_are_ready(records: Records) -> None:
    record = claimed(records)
    wait = Wait.of(Cause.IMAGE_PULL, "ErrImagePull", "worker w1: no such image")
    noted = records.runs.update(record.id, partial(cluster_steps.note_worker_wait, attempt=1, wait=wait))
    assert noted.wait is not None
    assert noted.workers is not None
    assert (noted.state, noted.wait.message, noted.workers.cause) == (State.RUNNING, wait.message, Cause.IMAGE_PULL)
    ready = note(records, record, ClusterState(wanted=2, running=2, ready=True))
    assert ready.wait is records.runs.get(record.id)[0].wait is None
    again = records.runs.update(record.id, partial(cluster_steps.note_worker_wait, attempt=1, wait=wait))
    assert again.version == ready.version, "a ready cluster waits for nothing"


def test_the_next_attempt_has_a_cluster_of_its_own(records: Records) -> None:
    record = claimed(trusting(records), retries=Retry(1, on=["start_failed"]))
    outcome = Outcome(cause=Cause.START_FAILED, message="no worker starts", log_tail=("a line",))
    failed = records.runs.update(record.id, partial(cluster_steps.fail_cluster, attempt=1, outcome=outcome))
    assert failed.workers is not None
    assert records.runs.get(record.id)[0].workers == failed.workers
    assert failed.workers.failure == outcome
    after = records.runs.update(record.id, partial(transitions.finish, epoch=record.epoch, outcome=outcome))
    assert (after.attempt, after.workers) == (2, None)
    assert records.runs.get(record.id)[0].workers is None


def test_fields_of_another_release_are_kept(records: Records) -> None:
    record = claimed(records)

    def newer(before: Record, now: float) -> Any:
        change = cluster_steps.note_workers(before, now, attempt=1, workers=ClusterState(least=2, wanted=3))
        assert change is not None
        assert change.after.workers is not None
        workers = replace(change.after.workers, others={"spare": [1]})
        return replace(change, after=change.after.but(workers=workers))

    records.runs.update(record.id, newer)
    note(records, record, ClusterState(wanted=4))
    workers = records.runs.get(record.id)[0].workers
    assert workers is not None
    assert (workers.wanted, workers.others) == (4, {"spare": [1]})


def test_a_change_of_a_record_with_less_leaves_what_that_lacks(records: Records) -> None:
    record = claimed(records)
    slim = record.but(request={"shard": "fake/1"})
    assert record.request is not None
    assert "body" in record.request
    step = partial(cluster_steps.note_workers, attempt=1, workers=ClusterState(wanted=3))
    records.runs.update(record.id, step, record=slim, now=1.0)
    stored = records.runs.get(record.id)[0]
    assert stored.workers is not None
    assert (stored.workers.wanted, stored.request) == (3, record.request)


def test_lines_of_workers_are_numbered_apart_from_the_flow_s(records: Records) -> None:
    record = accept(records)

    def lines(stream: str, *numbers: int) -> list[Line]:
        return [Line(attempt=1, number=n, time=1.0, stream=stream, text=f"{stream} {n}") for n in numbers]

    records.logs.append(record.id, lines("stdout", 1, 2))
    records.logs.append(record.id, lines("worker/w1", 1000, 1001))
    records.logs.append(record.id, [*lines("stdout", 3), *lines("worker/w2", 1000)])
    records.logs.append(record.id, lines("worker/w1", 1000, 1001, 2000))
    numbers = [(line.stream, line.number) for line in records.logs.read(record.id)[0]]
    assert numbers[:5] == [("stdout", 1), ("stdout", 2), ("worker/w1", 1000), ("worker/w1", 1001), ("stdout", 3)]
    assert numbers[5:] == [("worker/w2", 1000), ("worker/w1", 2000)]
