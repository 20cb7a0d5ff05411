"""A runner's claim stands beside the record, whose writer takes it up: before then no clock ends the attempt."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import pytest

from dispatcher.errors import ClaimStands, Refused, UnknownRun
from dispatcher.records.base import Records
from dispatcher.runs import transitions
from dispatcher.runs.outcome import Outcome
from dispatcher.runs.record import Record
from dispatcher.runs.states import Cause, State
from tests.conformance.conftest import Kept
from tests.conformance.specs import accept

ENTRY = {"run": "r", "body": json.dumps({"ü": 1}), "mac": "x"}
OTHER = {**ENTRY, "mac": "forged"}


def pending(records: Records, *, handle: bool = True, **spec: Any) -> Record:
    """A run whose runner may claim it."""
    record = accept(records, **spec)
    record = records.runs.update(record.id, partial(transitions.claim, owner="w1"))
    epoch = record.epoch
    record = records.runs.update(record.id, partial(transitions.intend, epoch=epoch, request={"shard": "s/0"}))
    if not handle:
        return record
    return records.runs.update(record.id, partial(transitions.created, epoch=epoch, handle={"n": 1}, owner="s/0"))


def claim(records: Records, record: Record, holder: str = "pod", **given: Any) -> tuple[Record, float]:
    words: dict[str, Any] = {"attempt": record.attempt, "shard": "s/0", "entry": ENTRY, **given}
    return records.runs.claim(record.id, holder=holder, **words)


def genuine(record: Record, entry: Any) -> str:
    return "pod" if entry.get("mac") == "x" else ""


@pytest.mark.parametrize("handle", [True, False], ids=["PENDING", "PROVISIONING"])
def test_a_claim_writes_no_record_and_is_told_once(records: Records, handle: bool) -> None:
    record = pending(records, handle=handle)
    stood, at = claim(records, record)
    assert stood == record == records.runs.get(record.id)[0]
    assert claim(records, record) == (record, at)
    [(_, entry)] = records.inbox.read("s/0")
    assert float(entry.pop("time")) == at
    assert entry == ENTRY


def test_another_process_is_refused_and_told_of_the_claim_that_stands(records: Records) -> None:
    record = pending(records)
    _, at = claim(records, record)
    with pytest.raises(ClaimStands) as caught:
        claim(records, record, "late", entry=OTHER)
    assert (caught.value.entry, caught.value.at) == (ENTRY, at)
    assert len(records.inbox.read("s/0")) == 1


def test_a_claim_over_one_that_is_nobodys(records: Records) -> None:
    record = pending(records)
    claim(records, record, "forger", entry=OTHER)
    with pytest.raises(ClaimStands) as caught:
        claim(records, record)
    claim(records, record, void=caught.value.raw)
    with pytest.raises(ClaimStands):
        claim(records, record, "forger", entry=OTHER)


@pytest.mark.parametrize("state", ["QUEUED", "CLAIMED", "RUNNING", "CANCELLING", "SUCCEEDED", "another attempt"])
def test_a_closed_attempt_is_refused(records: Records, state: str) -> None:
    if state in {"QUEUED", "CLAIMED"}:
        record = accept(records)
        if state == "CLAIMED":
            record = records.runs.update(record.id, partial(transitions.claim, owner="w1"))
    else:
        record = pending(records)
        if state == "CANCELLING":
            records.runs.update(record.id, transitions.request_cancel)
        elif state != "another attempt":
            records.runs.update(record.id, partial(transitions.claim_attempt, attempt=1, holder="first"))
        if state == "SUCCEEDED":
            records.runs.update(record.id, partial(transitions.finish, epoch=record.epoch, outcome=Outcome()))
    with pytest.raises(Refused):
        claim(records, record, attempt=2 if state == "another attempt" else 1)
    assert records.inbox.read("s/0") == []


def test_there_is_nothing_to_claim_of_no_run(records: Records) -> None:
    with pytest.raises(UnknownRun):
        records.runs.claim("none", attempt=1, holder="pod", shard="s/0", entry=ENTRY)


def test_no_clock_ends_an_attempt_that_was_claimed(kept: Kept) -> None:
    record = pending(kept.records, start_within=100)
    _, at = claim(kept.records, record)
    later = kept.later(200)

    with pytest.raises(ClaimStands):  # without keys it is left alone
        later.runs.update(record.id, transitions.tick)
    assert later.runs.get(record.id)[0].state is State.PENDING

    later.runs.claimant = genuine
    after = later.runs.update(record.id, transitions.tick)
    assert (after.state, after.holder, after.started_at) == (State.RUNNING, "pod", at)
    later.runs.claimant = None
    assert claim(later, record)[0].state is State.RUNNING, "the same process may ask again"
    with pytest.raises(Refused):
        claim(later, record, "late")


def test_a_forged_claim_keeps_no_clock_from_ending(kept: Kept) -> None:
    record = pending(kept.records, start_within=100)
    claim(kept.records, record, "forger", entry=OTHER)
    later = kept.later(200)
    later.runs.claimant = genuine
    after = later.runs.update(record.id, transitions.tick)
    assert (after.state, after.outcome and after.outcome.cause) == (State.TIMED_OUT, Cause.DEADLINE)


def test_an_end_that_comes_before_its_claim_was_read_takes_that_up_first(records: Records) -> None:
    record = pending(records, on_exit=True)
    claim(records, record)
    records.runs.claimant = genuine
    died = partial(transitions.abandon, epoch=record.epoch, outcome=Outcome(cause=Cause.KILLED))
    after = records.runs.update(record.id, died)
    assert (after.state, after.holder) == (State.CRASHED, "pod")
    kinds = [str(event.kind) for event in records.events.of(record.id)[0]]
    assert kinds[-2:] == ["started", "exited"]


def test_what_ends_nothing_goes_on_beside_a_claim(records: Records) -> None:
    """The handle is stored, the run is cancelled; the claim is noted all the same."""
    record = pending(records, handle=False)
    _, at = claim(records, record)
    step = partial(transitions.created, epoch=record.epoch, handle={"n": 1}, owner="s/0")
    assert records.runs.update(record.id, step).state is State.PENDING
    assert records.runs.update(record.id, transitions.request_cancel).state is State.CANCELLING
    noted = records.runs.update(record.id, partial(transitions.claim_attempt, attempt=1, holder="pod", at=at))
    assert (noted.state, noted.holder, noted.started_at) == (State.CANCELLING, "pod", at)
    again = partial(transitions.claim_attempt, attempt=1, holder="pod", at=at)
    assert records.runs.update(record.id, again).version == noted.version
    with pytest.raises(Refused):
        records.runs.update(record.id, partial(transitions.claim_attempt, attempt=1, holder="late"))


@pytest.mark.parametrize("at", [0.0, 1e18, float("nan"), float("-inf")])
def test_a_time_that_can_t_be_is_now(records: Records, at: float) -> None:
    record = pending(records)
    now = records.runs.now()
    after = records.runs.update(record.id, partial(transitions.claim_attempt, attempt=1, holder="pod", at=at))
    assert after.started_at is not None
    assert now - 1 <= after.started_at <= records.runs.now()
