"""Static objects: set up before the first request that needs them, and deleted by ``gc`` once no run does."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

import pytest

from backends.base import Handle, Request
from backends.fake import FakeBackend
from dispatcher import Settings
from dispatcher.errors import Permanent, ServerUnavailable, Transient
from dispatcher.inspection.static import StaticCleanup
from dispatcher.records.base import Records
from dispatcher.records.memory import open_memory
from dispatcher.records.memory.shared import SharedState
from dispatcher.records.memory.static import MemoryStaticObjects
from dispatcher.records.static import StaticObject
from dispatcher.runs import transitions
from dispatcher.runs.attempt import Attempt
from dispatcher.runs.outcome import Outcome
from dispatcher.runs.record import Record
from dispatcher.runs.routing import Route
from dispatcher.runs.states import Cause, State
from dispatcher.serialization import KeyRing
from tests.unit.making import make_record, trusting
from workers.execution.provisioning import Provisioner


class Clock:
    """Seconds since the epoch, which a test advances."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


class StaticBackend(FakeBackend):
    """Backend whose requests share a secret, and that keeps the order of its calls."""

    name: ClassVar[str] = "static"

    def __init__(self, secret: str = "secret-1") -> None:
        super().__init__()
        self.secret = secret
        self.calls: list[str] = []
        self.failure: Exception | None = None

    @property
    def place(self) -> str:
        return "eu"

    def prepare(self, attempt: Attempt) -> Request:
        return {"name": attempt.name, "secret": self.secret}

    def shared(self, request: Request) -> Sequence[str]:
        return [str(request["secret"])] if request.get("secret") else []

    def set_up(self, request: Request) -> None:
        self.calls.append(f"set up {request['secret']}")
        if self.failure is not None:
            raise self.failure

    def dismantle(self, name: str) -> bool:
        self.calls.append(f"dismantle {name}")
        if self.failure is not None:
            raise self.failure
        return True

    def submit(self, request: Request, secrets: Mapping[str, str]) -> Handle:
        self.calls.append("submit")
        return {"name": request["name"]}


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def records(clock: Clock) -> Records:
    return trusting(open_memory(clock=clock))


def provisioned(records: Records, backend: StaticBackend, run_id: str, *, worker: str = "w1", **options: Any) -> Record:
    records.runs.create([make_record(run_id, key_id="k", route=Route("static"), **options)])
    keys, settings = KeyRing({"k": "0123456789abcdef"}), Settings.load(url="redis://r/0")
    provisioner = Provisioner(records=records, keys=keys, settings=settings, backend=lambda name: backend, owner=worker)
    return provisioner.provision(run_id)


def thing(name: str = "secret-1") -> StaticObject:
    return StaticObject(backend="static", place="eu", name=name)


def test_what_runs_share_is_set_up_once_per_worker_and_before_the_request(records: Records) -> None:
    backend = StaticBackend()
    provisioned(records, backend, "run1")
    provisioned(records, backend, "run2")
    assert backend.calls == ["set up secret-1", "submit", "submit"]
    provisioned(records, backend, "run3", worker="w2")
    assert backend.calls[3:] == ["set up secret-1", "submit"]
    assert list(records.static.known()) == [thing()]


def test_another_content_is_another_object(records: Records) -> None:
    provisioned(records, StaticBackend(), "run1")
    renewed = StaticBackend("secret-2")
    provisioned(records, renewed, "run2")
    assert renewed.calls == ["set up secret-2", "submit"]


def test_it_is_made_sure_of_again_after_five_minutes(records: Records, clock: Clock) -> None:
    backend = StaticBackend()
    provisioned(records, backend, "run1")
    clock.ahead = 299
    provisioned(records, backend, "run2")
    assert backend.calls.count("set up secret-1") == 1
    clock.ahead = 301
    provisioned(records, backend, "run3")
    assert backend.calls.count("set up secret-1") == 2


def test_a_request_that_shares_nothing_needs_no_set_up(records: Records) -> None:
    backend = StaticBackend(secret="")
    provisioned(records, backend, "run1")
    assert backend.calls == ["submit"]
    assert records.static.known() == {}


def test_a_set_up_that_may_succeed_later_is_tried_again_with_the_request(records: Records) -> None:
    backend = StaticBackend()
    backend.failure = Transient("the API server is away", cause=Cause.CONFIG_ERROR)
    record = provisioned(records, backend, "run1")
    assert (record.state, record.last_message) == (State.PROVISIONING, "the API server is away")
    assert backend.calls == ["set up secret-1"]
    assert list(records.static.known()) == [thing()]  # it may have been carried out
    assert records.static.age(thing(), "w1") is None
    backend.failure = None
    provisioned(records, backend, "run2")
    assert backend.calls[1:] == ["set up secret-1", "submit"]


@pytest.mark.parametrize(
    ("failure", "cause", "message"),
    [
        (Permanent("no key docker-server", cause=Cause.CONFIG_ERROR), Cause.CONFIG_ERROR, "no key docker-server"),
        (
            RuntimeError("oops"),
            Cause.START_FAILED,
            "internal error: set_up of backend static raised RuntimeError: oops",
        ),
    ],
)
def test_a_set_up_that_fails_ends_the_attempt(records: Records, failure: Exception, cause: Cause, message: str) -> None:
    backend = StaticBackend()
    backend.failure = failure
    record = provisioned(records, backend, "run1")
    assert record.outcome is not None
    assert (record.state, record.outcome.cause) == (State.CRASHED, cause)
    assert record.outcome.message.startswith(message)
    assert "submit" not in backend.calls


def cleanup(records: Records, backend: StaticBackend) -> StaticCleanup:
    return StaticCleanup(records, {"static": backend, "fake": FakeBackend()})


def finished(records: Records, record: Record) -> None:

    step = partial(transitions.finish, epoch=record.epoch, outcome=Outcome(cause=Cause.KILLED))
    records.runs.update(record.id, step)


def test_gc_deletes_what_no_open_run_needs_and_none_has_used_for_ten_minutes(records: Records, clock: Clock) -> None:
    backend = StaticBackend()
    old = provisioned(records, backend, "run1")
    backend.secret = "secret-2"
    provisioned(records, backend, "run2")
    sweep = cleanup(records, backend)
    clock.ahead = 601
    assert sweep.unused(older=0) == []  # both runs are open
    finished(records, old)
    clock.ahead = 500
    assert sweep.unused(older=0) == []
    clock.ahead = 601
    (unused,) = sweep.unused(older=0)
    assert unused.thing == thing()
    assert unused.why == "no open run needs it; last used 10m 01s ago"
    assert sweep.unused(older=700) == []
    backend.calls.clear()
    assert list(sweep.end([unused])) == ["gone"]
    assert backend.calls == ["dismantle secret-1"]
    assert list(records.static.known()) == [thing("secret-2")]


def test_gc_leaves_alone_what_a_run_came_to_want_meanwhile(records: Records, clock: Clock) -> None:
    backend = StaticBackend()
    finished(records, provisioned(records, backend, "run1"))
    clock.ahead = 601
    sweep = cleanup(records, backend)
    unused = sweep.unused()
    records.static.note(thing(), "w2")  # a worker sets it up; its request isn't stored yet
    assert list(sweep.end(unused)) == ["left alone: a run wants it"]
    assert "dismantle secret-1" not in backend.calls
    assert list(records.static.known()) == [thing()]


def test_gc_asks_again_another_time_for_what_is_not_gone(records: Records, clock: Clock) -> None:
    backend = StaticBackend()
    finished(records, provisioned(records, backend, "run1"))
    clock.ahead = 601
    sweep = cleanup(records, backend)
    unused = sweep.unused()
    backend.failure = Permanent("it may not delete secrets", cause=Cause.CONFIG_ERROR)
    assert list(sweep.end(unused)) == ["it may not delete secrets"]
    clock.ahead = 1300
    assert [it.thing for it in sweep.unused()] == [thing()]


def test_gc_leaves_objects_of_other_clusters_to_their_workers(records: Records, clock: Clock) -> None:
    for place, name in (("us", "static"), ("eu", "another")):
        records.static.expect(StaticObject(backend=name, place=place, name="secret-1"))
    clock.ahead = 601
    assert cleanup(records, StaticBackend()).unused() == []


class DeniedStaticObjects(MemoryStaticObjects):
    """A register that the server lets this user not read."""

    def known(self) -> dict[StaticObject, float]:
        raise ServerUnavailable("this user has no permissions", denied=True)


def test_gc_says_if_its_user_may_not_read_the_register(records: Records) -> None:
    denied = replace(records, static=DeniedStaticObjects(SharedState(time.time)))
    sweep = cleanup(denied, StaticBackend())
    assert sweep.unused() == []
    assert "no permissions" in sweep.skipped
