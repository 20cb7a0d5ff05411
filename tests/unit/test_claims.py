"""Authentication of claims: an attempt's own is known by its token, and by nothing else."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from dispatcher.runner.container.report import Report, ReportKind
from dispatcher.runs.attempt import shard_of
from dispatcher.runs.outcome import Outcome
from dispatcher.runs.record import Record
from dispatcher.runs.states import State
from tests.unit.supervisor_scene import Scene
from workers.claims import claimant, token_of


@pytest.fixture
def scene() -> Scene:
    return Scene(poll=0.01)


def _report(record: Record, **changes: object) -> Report:
    made = Report(run_id=record.id, attempt=1, kind=ReportKind.CLAIMED, outcome=Outcome(), holder="pod")
    return replace(made, **changes)  # type: ignore[arg-type]


def test_the_attempt_s_own_claim_is_authentic(scene: Scene) -> None:
    record = scene.provisioned("r1")
    entry = _report(record).to_entry(token_of(scene.keys, record))
    assert claimant(scene.keys, record, entry) == "pod"


def test_any_other_claim_has_no_holder(scene: Scene) -> None:
    record, other = scene.provisioned("r1"), scene.provisioned("r2")
    own_token, other_token = token_of(scene.keys, record), token_of(scene.keys, other)
    good = _report(record).to_entry(own_token)
    for entry in (
        {},
        {"run": "r1"},
        {**good, "mac": ""},
        {**good, "body": "[" * 100_000},
        _report(record).to_entry(other_token),
        _report(other).to_entry(own_token),
        _report(record, attempt=2).to_entry(own_token),
        _report(record, kind=ReportKind.ALIVE).to_entry(own_token),
    ):
        assert claimant(scene.keys, record, entry) == ""
    assert claimant(scene.keys, scene.submit("r3"), good) == "", "no infrastructure was requested"


def test_a_supervisor_takes_the_transition_of_a_claim(scene: Scene) -> None:
    record = scene.provisioned("r1")
    shard = shard_of("scripted", record.id)
    entry = _report(record).to_entry(token_of(scene.keys, record))
    forged = {**entry, "mac": entry["mac"][::-1]}
    scene.records.inbox.report(shard, forged)
    scene.round()
    assert scene.record("r1").state is State.PENDING
    _, at = scene.records.runs.claim_attempt("r1", attempt=1, holder="pod", shard=shard, entry=entry)
    scene.until(lambda: scene.record("r1").state is State.RUNNING, "the claim to be read")
    assert (scene.record("r1").holder, scene.record("r1").started_at) == ("pod", at)
    scene.records.inbox.report(shard, {**entry, "time": json.dumps(at)})
    version = scene.record("r1").version
    scene.round()
    assert scene.record("r1").version == version, "a claim that is read twice changes nothing"
