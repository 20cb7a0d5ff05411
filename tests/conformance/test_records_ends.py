"""Prepared ends of runs that were claimed by a prediction: the result equals that of the transition."""

from __future__ import annotations

import itertools
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import redis

from dispatcher.errors import Refused, UnknownRun
from dispatcher.records.base import Records
from dispatcher.records.events import ends_topic
from dispatcher.records.redis import open_redis
from dispatcher.records.redis.keys import Keys
from dispatcher.records.redis.speculation.finish import FinishTemplates
from dispatcher.runs import indexes, transitions
from dispatcher.runs.outcome import ExitCall, Outcome
from dispatcher.runs.record import Record
from dispatcher.runs.states import Cause, State
from dispatcher.runs.value import Value
from tests.conformance.specs import accept, cancel

WELL = Outcome(result=Value(codec="json", inline='"ü\\"\\n€"', digest="d", size=9))


_number = itertools.count()


def claimed(records: Records, *, key: str = "", **spec: Any) -> Record:
    """Claim a run, by a prediction if the records make one; with ``key``, it has an idempotency key of its own."""
    for _ in range(2):
        snapshot = records.runs.snapshot(accept(records, key=key and f"{key}{next(_number)}", **spec).id, repr(spec))
        record = records.runs.claim(snapshot, transitions.start_here, owner="w1", holder="h:1:x")
    return record


def end(records: Records, record: Record, outcome: Outcome = WELL, exit_call: ExitCall | None = None) -> Record:
    return records.runs.finish(record, records.runs.now(), outcome=outcome, exit_call=exit_call)


def end_by_table(records: Records, record: Record, outcome: Outcome = WELL) -> Record:
    step = partial(transitions.finish, epoch=record.epoch, outcome=outcome, exit_call=ExitCall.NONE)
    return records.runs.update(record.id, step, record=record, now=records.runs.now())


SPECS = [
    {},
    {"labels": ("ü", "b"), "tags": ["t"], "result_ttl": 60, "retries": 3},
    {"key": "k"},
    {"on_exit": True},
]


@pytest.mark.parametrize("spec", SPECS, ids=["plain", "rich", "key", "on_exit"])
@pytest.mark.parametrize(
    "outcome",
    [WELL, Outcome(result=Value(codec="json", inline="x" * 5000)), Outcome(cause=Cause.DEADLINE, message="late")],
    ids=["well", "large", "late"],
)
def test_a_prepared_end_equals_the_transition_s(records: Records, spec: dict[str, Any], outcome: Outcome) -> None:
    blob = records.blobs.share(b"code")
    first, second = (claimed(records, blobs=(blob,), **spec) for _ in range(2))
    ends = [end_by_table(records, first, outcome), end(records, second, outcome, ExitCall.NONE)]
    for ended, before in zip(ends, (first, second), strict=True):
        assert records.runs.get(ended.id)[0] == ended
        assert ended.spec == before.spec
        assert 0 < (ended.started_at or 0.0) < (ended.ended_at or 0.0)
    own = {
        "id",
        "key",
        "spec_bytes",
        "created_at",
        "queued_at",
        "rung_at",
        "started_at",
        "ended_at",
        "due_at",
        "change",
    }
    same = [{name: value for name, value in record.to_fields().items() if name not in own} for record in ends]
    assert same[0] == same[1]
    facts = [
        [replace(event, run_id="", time=0.0, data={**event.data, "due": 0}) for event in records.events.of(ended.id)[0]]
        for ended in ends
    ]
    assert facts[0] == facts[1]
    for index in indexes.placement(ends[1]) | indexes.placement(second):
        members = dict(records.runs.members(index))
        assert members.get(ends[1].id) == indexes.placement(ends[1]).get(index)


def test_an_end_uses_the_prepared_steps(server_url: str) -> None:
    """One round trip, and the server's commands show it."""
    records = open_redis(server_url)
    client = redis.Redis.from_url(server_url)
    keys = Keys(records.instance)
    notified: list[Record] = []
    try:
        first, second = (claimed(records, result_ttl=60) for _ in range(2))
        assert FinishTemplates(keys).render(second, 1.0, WELL, ExitCall.NONE) is not None
        listener = records.events.listen(lambda run_id, rest: notified.append(second.later(rest)) or True)  # type: ignore[func-returns-value]
        listener.watch([ends_topic(second.id)])
        after, other = end(records, second), end_by_table(records, first)
        assert listener.get(0.5) is None, "it was told already"
        assert notified == [after] == [records.runs.get(second.id)[0]]
        left = [[client.ttl(key) for key in keys.of_run(record.id)] for record in (after, other)]
        assert left[0] == pytest.approx(left[1], abs=2)
        assert left[0][0] > 0
        listener.close()
    finally:
        records.close()
        client.close()


@pytest.mark.parametrize(
    ("spec", "outcome", "exit_call"),
    [
        ({"key": "k"}, WELL, None),
        ({"on_exit": True}, WELL, ExitCall.CALLED),
        ({}, Outcome(cause=Cause.USER_ERROR), None),
        ({}, replace(WELL, result=Value(codec="json", inline="x" * 2000)), None),
        ({}, None, None),
    ],
    ids=["key", "on_exit", "failed", "large", "none"],
)
def test_ends_without_a_template(
    server_url: str, spec: dict[str, Any], outcome: Outcome | None, exit_call: ExitCall | None
) -> None:
    records = open_redis(server_url)
    try:
        assert FinishTemplates(Keys("i")).render(claimed(records, **spec), 1.0, outcome, exit_call) is None
    finally:
        records.close()


def test_twice(records: Records) -> None:
    record = claimed(records)
    after = end(records, record)
    assert end(records, record, replace(WELL, result=None)) == after


def test_an_end_after_a_cancel(records: Records) -> None:
    """A flow that succeeded nevertheless keeps its result; one that didn't is cancelled."""
    record = claimed(records)
    cancel(records, record)
    after = end(records, record)
    assert (after.state, after.outcome) == (State.SUCCEEDED, WELL)
    assert records.events.of(record.id)[0][-2].state is State.CANCELLING


def test_an_end_after_another_claim(records: Records) -> None:
    """The epoch of the claim counts, not the current one."""
    record = claimed(records)
    records.runs.update(record.id, partial(transitions.adopt, owner="w2"))
    before = records.runs.get(record.id)[0]
    with pytest.raises(Refused, match="was passed"):
        end(records, record)
    assert records.runs.get(record.id)[0] == before


def test_an_end_of_a_missing_run(server_url: str) -> None:
    records = open_redis(server_url)
    client = redis.Redis.from_url(server_url)
    try:
        record = claimed(records)
        client.delete(Keys(records.instance).run(record.id))
        with pytest.raises(UnknownRun):
            end(records, record)
    finally:
        records.close()
        client.close()


def test_an_end_of_a_changed_record(records: Records) -> None:
    """Only the record as it was claimed is ended by prepared steps."""
    record = claimed(records)
    settle = partial(transitions.settle, epoch=record.epoch, outcome=Outcome(cause=Cause.USER_ERROR, message="m"))
    after = end(records, records.runs.update(record.id, settle))
    assert (after.state, after.outcome and after.outcome.message) == (State.FAILED, "m")
