"""Provisioning: from a claim to stored infrastructure, and requests that can't be made or sent."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial
from typing import Any

import pytest

from backends.base import Backend, Handle, Request
from backends.fake import FakeBackend
from dispatcher import Settings
from dispatcher.errors import Permanent, Refused, Transient
from dispatcher.records.base import Records
from dispatcher.records.memory import open_memory
from dispatcher.records.snapshot import Snapshot
from dispatcher.runs import transitions
from dispatcher.runs.attempt import Attempt
from dispatcher.runs.events import EventKind
from dispatcher.runs.outcome import Outcome
from dispatcher.runs.states import Cause, State
from dispatcher.serialization import KeyRing
from tests.unit.making import make_record, trusting
from workers.backend_cache import BackendCache
from workers.execution.provisioning import Provisioner, RecentWrite


class RefusingBackend(FakeBackend):
    """Backend whose settings don't allow the request."""

    def prepare(self, attempt: Attempt) -> Request:
        raise Permanent("this worker doesn't serve that namespace", cause=Cause.CONFIG_ERROR, reason="Refused")


class FullBackend(FakeBackend):
    """Backend with an exhausted quota."""

    def prepare(self, attempt: Attempt) -> Request:
        return {"name": attempt.name}

    def submit(self, request: Request, secrets: Mapping[str, str]) -> Handle:
        raise Transient("exceeded quota", cause=Cause.QUOTA)


class DenyingBackend(FullBackend):
    """Backend whose service refuses each request."""

    def __init__(self, *, nothing_created: bool) -> None:
        super().__init__()
        self.nothing_created = nothing_created

    def submit(self, request: Request, secrets: Mapping[str, str]) -> Handle:
        raise Permanent("forbidden", cause=Cause.CONFIG_ERROR, nothing_created=self.nothing_created)


@pytest.fixture
def records() -> Records:
    records = trusting(open_memory())
    records.runs.create([make_record(start_within=60, key_id="k")])
    return records


def provisioner(records: Records, backend: Backend) -> Provisioner:
    keys = KeyRing({"k": "0123456789abcdef"})
    return Provisioner(
        records=records, keys=keys, settings=Settings.load(url="redis://r/0"), backend=lambda name: backend, owner="w"
    )


def test_a_request_that_the_worker_does_not_allow_ends_the_attempt(records: Records) -> None:
    record = provisioner(records, RefusingBackend()).provision("run1")
    assert record.outcome is not None
    assert (record.state, record.outcome.cause) == (State.CRASHED, Cause.CONFIG_ERROR)
    assert record.outcome.message == "this worker doesn't serve that namespace"


def test_a_request_that_no_backend_may_ask_to_try_again_ends_the_attempt_in_its_own_words(records: Records) -> None:
    class Hesitant(CountingBackend):
        def prepare(self, attempt: Attempt) -> Request:
            raise Transient("the registry is away", cause=Cause.IMAGE_PULL)

    outcome = provisioner(records, Hesitant()).provision("run1").outcome
    assert outcome is not None
    assert (outcome.cause, outcome.reason, outcome.message) == (Cause.IMAGE_PULL, "", "the registry is away")


def test_claim_and_intent_are_one_step(records: Records) -> None:
    """Nobody ever reads a claim without the request; both have their events all the same."""
    record = provisioner(records, CountingBackend()).provision("run1")
    assert (record.state, record.epoch, record.version) == (State.PENDING, 1, 3)  # accepted, requested, created
    assert record.request is not None
    assert record.request["epoch"] == record.epoch
    kinds = [event.kind for event in records.events.of("run1")[0]]
    assert kinds == [EventKind.QUEUED, EventKind.CLAIMED, EventKind.PROVISIONING, EventKind.PENDING]


def test_the_place_is_identified_before_its_request_is_stored(records: Records) -> None:
    class Identified(CountingBackend):
        cluster = "nothing"

        def identify(self) -> None:
            self.cluster = "the cluster"

        def prepare(self, attempt: Attempt) -> Request:
            return {**super().prepare(attempt), "identity": {"kube-system": self.cluster}}

    record = provisioner(records, Identified()).provision("run1")
    assert record.request is not None
    assert record.request["body"]["identity"] == {"kube-system": "the cluster"}


def test_a_backend_that_cannot_be_made_ends_the_attempt(records: Records) -> None:
    def backend(name: str) -> Backend:
        raise Permanent("no such cluster", cause=Cause.CONFIG_ERROR)

    keys = KeyRing({"k": "0123456789abcdef"})
    settings = Settings.load(url="redis://r/0")
    record = Provisioner(records=records, keys=keys, settings=settings, backend=backend, owner="w").provision("run1")
    assert record.outcome is not None
    assert (record.outcome.cause, record.outcome.message) == (Cause.CONFIG_ERROR, "no such cluster")


def test_a_claim_that_came_second_makes_no_request(records: Records) -> None:
    """The record was read before: the step is taken again on the current record, and refused."""
    stale = Snapshot(*records.runs.get("run1"))
    backend = CountingBackend()
    provisioner(records, backend).provision("run1")
    with pytest.raises(Refused, match="not waiting"):
        provisioner(records, backend).provision("run1", stale)
    assert len(backend.requests) == 1


def test_a_claim_released_after_the_record_was_read_makes_a_request_of_the_new_epoch(records: Records) -> None:
    stale = Snapshot(*records.runs.get("run1"))
    records.runs.update("run1", partial(transitions.claim, owner="another"))
    records.runs.update("run1", partial(transitions.release, epoch=1))
    record = provisioner(records, CountingBackend()).provision("run1", stale)
    assert record.request is not None
    assert (record.epoch, record.request["epoch"]) == (3, 3)


def test_the_cause_for_which_it_waits_is_noted(records: Records) -> None:
    full = provisioner(records, FullBackend())
    record = full.provision("run1")
    assert (record.state, record.last_cause) == (State.PROVISIONING, Cause.QUOTA)
    assert record.request is not None
    assert record.owner == record.request["shard"]
    assert record.wait is not None
    assert (record.wait.cause, record.wait.message) == (Cause.QUOTA, record.last_message)


@pytest.mark.parametrize("nothing_created", [True, False])
def test_a_first_request_that_created_nothing_leaves_nothing_to_tear_down(
    records: Records, nothing_created: bool
) -> None:
    record = provisioner(records, DenyingBackend(nothing_created=nothing_created)).provision("run1")
    assert (record.state, len(record.leftovers)) == (State.CRASHED, 0 if nothing_created else 1)


def test_a_request_that_was_sent_before_is_torn_down_though_it_creates_nothing_now(records: Records) -> None:
    record = provisioner(records, FullBackend()).provision("run1")
    denying = provisioner(records, DenyingBackend(nothing_created=True))
    assert len(denying.create(record).leftovers) == 1


def test_a_process_makes_each_backend_once() -> None:
    backends: Any = BackendCache(Settings.load())
    assert backends("fake") is backends("fake")
    assert backends("kubernetes") is backends("kubernetes")
    assert backends("kubernetes") is not BackendCache(Settings.load())("kubernetes")


class CountingBackend(FakeBackend):
    """Backend that records its requests."""

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[Request] = []

    def prepare(self, attempt: Attempt) -> Request:
        return {"name": attempt.name}

    def submit(self, request: Request, secrets: Mapping[str, str]) -> Handle:
        self.requests.append(request)
        return {"name": request["name"]}


def test_a_worker_that_was_suspended_until_the_attempt_had_ended_creates_nothing(records: Records) -> None:
    """Its record is old: another worker has sent the request, observed the end and torn it down meanwhile."""
    backend = CountingBackend()
    full = provisioner(records, FullBackend())
    stale = full.provision("run1")
    outcome = Outcome(cause=Cause.START_FAILED, message="ended meanwhile")
    records.runs.update("run1", partial(transitions.finish, epoch=stale.epoch, outcome=outcome))
    record = provisioner(records, backend).create(stale)
    assert record.terminal
    assert backend.requests == []


@pytest.mark.parametrize(("ago", "sent"), [(0.0, 1), (1.0, 0)])
def test_a_request_written_just_now_is_sent_without_reading_the_record_again(
    ago: float, sent: int, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.execution.provisioning.RECENT", 0.5)
    full = provisioner(records, FullBackend())
    stale = full.provision("run1")
    outcome = Outcome(cause=Cause.START_FAILED, message="ended meanwhile")
    records.runs.update("run1", partial(transitions.finish, epoch=stale.epoch, outcome=outcome))
    backend = CountingBackend()
    provisioner(records, backend).create(stale, RecentWrite(since=time.monotonic() - ago, offset=0.0))
    assert len(backend.requests) == sent


def test_a_request_is_sent_again_while_its_attempt_is_open(records: Records) -> None:
    backend = CountingBackend()
    record = provisioner(records, backend).create(provisioner(records, FullBackend()).provision("run1"))
    assert record.request is not None
    assert record.handle is not None
    assert (record.state, record.handle["name"]) == (State.PENDING, record.request["body"]["name"])
    assert len(backend.requests) == 1
