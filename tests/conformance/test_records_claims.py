"""Claims of runners beside the record. Before the record contains a claim, no deadline ends the attempt."""

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
from tests.conformance.conftest import Store
from tests.conformance.specs import accept

ENTRY = {"run": "r", "body": json.dumps({"ü": 1}), "mac": "x"}
OTHER = {**ENTRY, "mac": "forged"}


def pending(records: Records, *, handle: bool = True, **spec: Any) -> Record:
    """Return a run whose runner may claim it."""
    record = accept(records, **spec)
    record = records.runs.update(record.id, partial(transitions.claim, owner="w1"))
    epoch = record.epoch
    record = records.runs.update(record.id, partial(transitions.intend, epoch=epoch, request={"shard": "s/0"}))
    if not handle:
        return record
    return records.runs.update(record.id, partial(transitions.created, epoch=epoch, handle={"n": 1}, owner="s/0"))


def claim(records: Records, record: Record, holder: str = "pod", **changes: Any) -> tuple[Record, float]:
    words: dict[str, Any] = {"attempt": record.attempt, "shard": "s/0", "entry": ENTRY, **changes}
    return records.runs.claim_attempt(record.id, holder=holder, **words)


def genuine(record: Record, entry: Any) -> str:
    return "pod" if entry.get("mac") == "x" else ""


@pytest.mark.parametrize("handle", [True, False], ids=["PENDING", "PROVISIONING"])
def test_a_claim_writes_no_record_and_is_reported_once(records: Records, handle: bool) -> None:
    record = pending(records, handle=handle)
    stood, at = claim(records, record)
    assert stood == record == records.runs.get(record.id)[0]
    assert claim(records, record) == (record, at)
    [(_, entry)] = records.inbox.read("s/0")
    assert float(entry.pop("time")) == at
    assert entry == ENTRY


def test_another_process_is_refused_with_the_standing_claim(records: Records) -> None:
    record = pending(records)
    _, at = claim(records, record)
    with pytest.raises(ClaimStands) as caught:
        claim(records, record, "late", entry=OTHER)
    assert (caught.value.entry, caught.value.at) == (ENTRY, at)
    assert len(records.inbox.read("s/0")) == 1


def test_a_void_claim_is_replaced(records: Records) -> None:
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


def test_an_attempt_of_an_unknown_run(records: Records) -> None:
    with pytest.raises(UnknownRun):
        records.runs.claim_attempt("none", attempt=1, holder="pod", shard="s/0", entry=ENTRY)


def test_no_deadline_ends_a_claimed_attempt(store: Store) -> None:
    record = pending(store.records, start_within=100)
    _, at = claim(store.records, record)
    later = store.later(200)

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


def test_a_forged_claim_prevents_no_deadline(store: Store) -> None:
    record = pending(store.records, start_within=100)
    claim(store.records, record, "forger", entry=OTHER)
    later = store.later(200)
    later.runs.claimant = genuine
    after = later.runs.update(record.id, transitions.tick)
    assert (after.state, after.outcome and after.outcome.cause) == (State.TIMED_OUT, Cause.DEADLINE)


def test_an_end_before_its_claim_was_read_applies_the_claim_first(records: Records) -> None:
    record = pending(records, on_exit=True)
    claim(records, record)
    records.runs.claimant = genuine
    died = partial(transitions.abandon, epoch=record.epoch, outcome=Outcome(cause=Cause.KILLED))
    after = records.runs.update(record.id, died)
    assert (after.state, after.holder) == (State.CRASHED, "pod")
    kinds = [str(event.kind) for event in records.events.of(record.id)[0]]
    assert kinds[-2:] == ["started", "exited"]


def test_changes_that_end_nothing_ignore_a_claim(records: Records) -> None:
    """Storing the handle and cancelling go on, and the claim is noted nevertheless."""
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
def test_an_impossible_claim_time_becomes_now(records: Records, at: float) -> None:
    record = pending(records)
    now = records.runs.now()
    after = records.runs.update(record.id, partial(transitions.claim_attempt, attempt=1, holder="pod", at=at))
    assert after.started_at is not None
    assert now - 1 <= after.started_at <= records.runs.now()
