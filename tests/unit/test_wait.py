"""Why a run waits: noted once it changes, told in few words, and bounded."""

from __future__ import annotations

import re
from typing import Any

import pytest

from backends.base import Observation, Phase
from dispatcher.cli.formatting import environment, event_line, facts
from dispatcher.inspection.as_json import run_json
from dispatcher.inspection.explain import explain
from dispatcher.inspection.holders import shard_holders
from dispatcher.inspection.waiting import why_waiting
from dispatcher.records.memory import open_memory
from dispatcher.records.workers import WorkerInfo
from dispatcher.runs import infrastructure, transitions
from dispatcher.runs.change import Change
from dispatcher.runs.events import EventKind
from dispatcher.runs.outcome import Outcome
from dispatcher.runs.record import Record
from dispatcher.runs.retry import Retry
from dispatcher.runs.routing import Offer, Route
from dispatcher.runs.states import Cause, State
from dispatcher.runs.wait import LONGEST_MESSAGE, REFRESH_AFTER, Wait
from tests.steering import STEERING, steers
from tests.unit.making import queued
from workers.supervisor.judgement import judge

PULL = Wait.of(Cause.IMAGE_PULL, "ErrImagePull", "no such image")
BACK_OFF = Wait.of(Cause.IMAGE_PULL, "ImagePullBackOff", "no such image")
NO_NODE = Wait.of(Cause.UNSCHEDULABLE, "Unschedulable", "0/1 nodes are available")
REQUEST = {"shard": "kubernetes/3", "epoch": 1, "body": {}}


def pending(**changes: Any) -> Record:
    facts = {"state": State.PENDING, "owner": "kubernetes/3", "request": REQUEST, "handle": {"uid": "u"}, **changes}
    return queued(route=Route("kubernetes")).but(**facts)


def note(record: Record, now: float, wait: Wait | None) -> Change | None:
    return infrastructure.note_wait(record, now, wait=wait)


def worker(worker_id: str = "w1", backend: str = "kubernetes") -> WorkerInfo:
    offer = Offer(backends=frozenset({backend}))
    return WorkerInfo(id=worker_id, host="mars", pid=7, offer=offer, concurrency=2, started_at=0.0)


def changed(record: Record, now: float, wait: Wait | None) -> Record:
    change = note(record, now, wait)
    assert change is not None
    return change.after


def test_a_reason_is_written_once_with_an_event() -> None:
    change = note(pending(), 1, PULL)
    assert change is not None
    [event] = change.events
    assert (event.kind, dict(event.data)) == (EventKind.WAITING, PULL.facts)
    for seconds in (2, 30, 3600):
        assert note(change.after, seconds, PULL) is None, "polls write nothing"


def test_reasons_that_alternate_are_written_once_each() -> None:
    record = changed(changed(pending(), 1, PULL), 2, BACK_OFF)
    assert record.wait is not None
    assert record.wait.text == "ImagePullBackOff: no such image"
    for seconds in range(3, 10_000, 7):
        assert note(record, seconds, PULL if seconds % 2 else BACK_OFF) is None


def test_a_text_that_changes_is_written_now_and_then_and_is_no_event() -> None:
    record = changed(pending(), 1, NO_NODE)
    other = Wait.of(NO_NODE.cause, NO_NODE.reason, "0/2 nodes are available")
    assert note(record, 2, other) is None
    later = note(record, 1 + REFRESH_AFTER, other)
    assert later is not None
    assert not later.events
    assert later.after.wait is not None
    assert "0/2 nodes" in later.after.wait.text


def test_a_text_that_comes_after_its_reason_is_written_at_once() -> None:
    record = changed(pending(), 1, Wait.of(PULL.cause, PULL.reason, ""))
    assert changed(record, 1.5, PULL).wait is not None
    assert "no such image" in why_waiting(changed(record, 1.5, PULL), now=2)


def test_another_cause_is_written_at_once_and_one_that_comes_back_after_a_while() -> None:
    record = changed(changed(pending(), 1, NO_NODE), 2, PULL)
    assert note(record, 3, NO_NODE) is None
    again = note(record, 2 + REFRESH_AFTER, NO_NODE)
    assert again is not None
    assert [event.kind for event in again.events] == [EventKind.WAITING]


def test_a_wait_that_is_over_is_written_and_told() -> None:
    assert note(pending(), 1, None) is None
    change = note(changed(pending(), 1, NO_NODE), 2, None)
    assert change is not None
    assert change.after.wait is None
    assert "nothing holds it any more" in event_line(change.events[0])
    assert len({event.id for event in (*change.events, *_events(note(pending(), 1, NO_NODE)))}) == 2


def _events(change: Change | None) -> Any:
    assert change is not None
    return change.events


def test_a_wait_ends_with_the_claim_and_with_the_attempt() -> None:
    record = changed(pending(), 1, NO_NODE)
    claimed = transitions.claim_attempt(record, 2, attempt=1, holder="pod")
    ended = transitions.finish(record, 2, epoch=record.epoch, outcome=Outcome(cause=Cause.UNSCHEDULABLE))
    assert claimed is not None
    assert ended is not None
    assert claimed.after.wait is ended.after.wait is None
    assert note(claimed.after, 3, NO_NODE) is None, "observed before the claim was read"


def test_an_observation_is_noted_with_cause_and_reason_in_one_step() -> None:
    observation = Observation(
        phase=Phase.WAITING, cause=Cause.QUOTA, reason="FailedCreate", message="exceeded quota: pods"
    )
    step = judge(pending(), observation, 5, silent=False).step
    assert step is not None
    change = step(pending(), 5)
    assert change is not None
    assert change.after.last_cause is Cause.QUOTA
    assert why_waiting(change.after, now=5) == "FailedCreate: exceeded quota: pods"
    assert step(change.after, 6) is None


@pytest.mark.parametrize("reason", ["", "ContainerCreating", "PodInitializing"])
def test_a_start_that_takes_its_course_writes_nothing(reason: str) -> None:
    step = judge(pending(), Observation(phase=Phase.WAITING, reason=reason), 5, silent=False).step
    assert step is not None
    assert step(pending(), 5) is None


def test_what_is_stored_is_bounded_and_read_back() -> None:
    wait = Wait.of(Cause.IMAGE_PULL, "r" * 10_000, "m" * 10_000)
    record = changed(pending(), 1, wait)
    for number in range(100):
        record = changed(record, 2 + number, Wait.of(Cause.QUOTA, f"reason {number}", "m" * 10_000))
    fields = {name: value if isinstance(value, bytes) else value.encode() for name, value in record.to_fields().items()}
    assert len(fields["wait"]) < 2 * LONGEST_MESSAGE
    assert Record.from_fields(fields).wait == record.wait


@pytest.mark.parametrize(
    ("record", "words"),
    [
        (queued(), "no live worker serves backend 'local' without labels"),
        (queued(route=Route("kubernetes")), "waits for a slot: 1 worker with 2 slots"),
        (queued(route=Route("kubernetes"), requires=("wings",)), "no live worker that serves .* knows wings"),
        (pending(), ""),
        (pending(paused_since=1.0), "held by a quota queue"),
        (pending(unknown_since=1.0), "out of sight for 9.0 s"),
        (pending(unknown_since=1.0, unknown_why="401 Unauthorized"), "out of sight for 9.0 s: 401 Unauthorized"),
        (pending(wait=NO_NODE), "Unschedulable: 0/1 nodes are available"),
        (queued().but(state=State.AWAITING_RETRY, attempt=2, due_at=12.0), "attempt 2 is due in 2.0 s"),
        (queued().but(state=State.RUNNING, owner="w1", started_at=1.0), ""),
        (queued().but(state=State.SUCCEEDED, outcome=Outcome()), ""),
    ],
)
def test_few_words_for_each_state(record: Record, words: str) -> None:
    assert re.fullmatch(words, why_waiting(record, now=10, workers=[worker()]))


def test_hostile_words_steer_no_terminal() -> None:
    words = "".join(STEERING.values())
    record = changed(pending(), 1, Wait.of(Cause.IMAGE_PULL, words, f"{words}\nFORGED"))
    for text in (why_waiting(record, now=2), *explain(record, now=2, workers=[])):
        assert not steers(text)
        assert "\n" not in text


def test_a_shard_is_told_by_the_worker_that_holds_it() -> None:
    def owner(holders: dict[str, str]) -> str:
        return explain(pending(), now=2, workers=[worker()], holders=holders)[0]

    assert "watched by worker w1 (process 7 on mars)" in owner({"kubernetes/3": "w1"})
    assert "watched by nobody (no live worker holds shard kubernetes/3; the last was w9: start one, as" in owner(
        {"kubernetes/3": "w9"}
    )
    assert "no live worker holds shard kubernetes/3: start one, as `dispatcher worker --backend kubernetes`" in owner(
        {}
    )


def test_show_and_json_name_the_worker_and_the_shard() -> None:
    record = pending(wait=NO_NODE)
    shown = dict(facts(record, waiting=NO_NODE.text, holder="w1"))
    assert (shown["why"], shown["worker"]) == (NO_NODE.text, "w1 (shard kubernetes/3)")
    assert dict(facts(record))["worker"] == "none holds shard kubernetes/3"
    data = run_json(record, waiting=NO_NODE.text, holder="w1")
    assert (data["worker"], data["shard"], data["waiting"]) == ("w1", "kubernetes/3", NO_NODE.text)
    here = run_json(queued().but(state=State.RUNNING, owner="w2"))
    assert (here["worker"], here["shard"], here["waiting"]) == ("w2", None, None)


def test_shards_are_read_only_where_one_owns_a_run() -> None:
    records = open_memory()
    records.leases.acquire("kubernetes/3", "w1", expected=None)
    records.leases.acquire("kubernetes/31", "w2", expected=None)
    assert shard_holders(records, [pending(), queued()]) == {"kubernetes/3": "w1"}
    assert shard_holders(records, [pending().but(owner="w1")]) == {}


def test_a_large_environment_is_shown_in_brief() -> None:
    job = {"kind": "Job", "spec": {"template": {"spec": {"containers": [{"name": "flow", "image": "i" * 500}]}}}}
    shown = environment({"type": "KubernetesJobEnvironment", "job_spec": job, "image": "flows:1"})
    assert shown == "KubernetesJobEnvironment(job_spec={kind, spec: …}, image=flows:1)"


def test_explain_tells_the_reason_of_now_and_not_the_first_one() -> None:
    record = changed(pending(last_cause=Cause.QUOTA, last_message="exceeded quota"), 1, PULL)
    lines = explain(record, now=2, workers=[])
    assert "It waits (image_pull): ErrImagePull: no such image" in lines
    assert not [line for line in lines if "exceeded quota" in line]


def test_a_retry_begins_without_a_wait() -> None:
    record = changed(pending(), 1, NO_NODE).but(spec_bytes=queued(retries=Retry(1)).spec_bytes)
    ended = transitions.finish(record, 2, epoch=record.epoch, outcome=Outcome(cause=Cause.KILLED))
    assert ended is not None
    assert ended.after.wait is None
