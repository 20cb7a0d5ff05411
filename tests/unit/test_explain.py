"""The explanations of a run in each state."""

from __future__ import annotations

import pytest

from dispatcher.inspection.explain import command_for, explain, unserved
from dispatcher.records.workers import WorkerInfo
from dispatcher.runs import transitions
from dispatcher.runs.outcome import ExitCall, Outcome
from dispatcher.runs.record import Record
from dispatcher.runs.routing import Offer, Route
from dispatcher.runs.states import Cause, State
from dispatcher.runs.transitions import start_here
from tests.unit.making import queued

NOW = 100.0


def worker(
    worker_id: str = "w1", *, labels: tuple[str, ...] = (), backends: tuple[str, ...] = ("local",)
) -> WorkerInfo:
    return WorkerInfo(
        id=worker_id,
        host="mars",
        pid=7,
        offer=Offer(backends=frozenset(backends), labels=frozenset(labels)),
        concurrency=2,
        started_at=0.0,
    )


def first(record: Record, *workers: WorkerInfo) -> str:
    return explain(record, now=NOW, workers=workers)[0]


def running(**changes: object) -> Record:
    change = start_here(queued(NOW - 10, **changes), NOW - 5, owner="w1", holder="h")
    assert change is not None
    return change.after


def test_nobody_serves_it() -> None:
    line = first(queued(NOW - 3, route=Route("local", ("eu", "gpu"))), worker())
    assert "No live worker serves backend 'local' with labels eu, gpu" in line
    assert "w1 serves local with no labels" in line
    assert "`dispatcher worker --backend local --label eu --label gpu`" in line


def test_no_worker_at_all() -> None:
    assert "none at all" in first(queued(NOW))


def test_labels_are_quoted_for_the_shell() -> None:
    assert command_for(Route("local", ("a b",))) == "dispatcher worker --backend local --label 'a b'"


def test_the_laptop_server_starts_its_own() -> None:
    assert "Dispatcher()" in unserved(Route("local", (), "abcd"), [])


def test_waits_for_a_slot() -> None:
    lines = explain(queued(NOW - 3), now=NOW, workers=[worker()], depth=5)
    assert "3.0 s" in lines[0]
    assert "1 live worker with 2 slots serves" in lines[0]
    assert "4 other runs wait in its queue." in lines


def test_clock() -> None:
    lines = explain(queued(NOW - 3, start_within=10.0), now=NOW, workers=[worker()])
    assert "It must start within 7.0 s." in lines
    assert "start_within is over" in " ".join(explain(queued(0, start_within=10.0), now=NOW, workers=[]))


def test_running() -> None:
    assert first(running(), worker()) == "Attempt 1 runs for 5.0 s on worker w1 (process 7 on mars)."
    assert "w1 (not among the live workers)" in first(running())


def test_cancelling() -> None:
    change = transitions.request_cancel(running(), NOW)
    assert change is not None
    assert "cancel was requested" in first(change.after, worker())


def test_awaiting_retry() -> None:
    from dispatcher.runs.retry import Retry

    record = running(retries=Retry(2, delay=30))
    change = transitions.finish(record, NOW, epoch=record.epoch, outcome=Outcome(cause=Cause.USER_ERROR))
    assert change is not None
    assert first(change.after) == "Attempt 2 is due in 30 s; 1 of 2 retries used."


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (State.CLAIMED, "Claimed by worker w1"),
        (State.PROVISIONING, "is creating its infrastructure"),
        (State.PENDING, "has not started the flow yet"),
    ],
)
def test_on_its_way(state: State, words: str) -> None:
    assert words in first(queued(NOW).but(state=state, owner="w1"), worker())


def test_lost_sight() -> None:
    record = running().but(unknown_since=NOW - 300, unknown_why="no answer", last_cause=Cause.UNSCHEDULABLE)
    lines = " ".join(explain(record, now=NOW, workers=[]))
    assert "not been seen for 5m 00s: no answer. The run is not considered dead." in lines
    assert "unschedulable" in lines


def test_the_end() -> None:
    outcome = Outcome(cause=Cause.OOM_KILLED, reason="OOMKilled", message="out of memory", exit_code=137)
    record = queued(NOW - 7200).but(
        state=State.CRASHED, outcome=outcome, ended_at=NOW, attempt=2, exit_call=ExitCall.NOT_CALLED
    )
    assert explain(record, now=NOW, workers=[]) == [
        "It has ended as CRASHED after 2 attempts, 2h 00m after its submit.",
        "Cause: oom_killed; OOMKilled; out of memory; exit code 137.",
        "Its on_exit: not called.",
    ]


def test_a_message_that_ends_with_a_period_gets_no_second_one() -> None:
    outcome = Outcome(cause=Cause.UNSCHEDULABLE, message="0/1 nodes are available: 1 Insufficient cpu.")
    leftover = {"attempt": 1, "request": None, "handle": None, "pending": "it is kept."}
    record = queued(NOW - 1).but(state=State.CRASHED, outcome=outcome, ended_at=NOW, leftovers=(leftover,))
    lines = explain(record, now=NOW, workers=[])
    assert lines[1] == "Cause: unschedulable; 0/1 nodes are available: 1 Insufficient cpu."
    assert lines[-1] == "Attempt 1: it is kept."


def test_a_good_end() -> None:
    record = queued(NOW - 1).but(state=State.SUCCEEDED, ended_at=NOW, outcome=Outcome())
    assert explain(record, now=NOW, workers=[]) == ["It has ended as SUCCEEDED, 1.0 s after its submit."]
