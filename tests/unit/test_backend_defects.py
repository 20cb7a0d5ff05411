"""A backend that raises what nobody foresaw, at each of its calls: that attempt ends, or that run is unknown, and no
other run has its trouble."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from backends.base import Backend, Changed, Found, Handle, Observation, Phase, Request
from dispatcher.records.rejections import Rejected
from dispatcher.runs import transitions
from dispatcher.runs.attempt import Attempt
from dispatcher.runs.outcome import Outcome
from dispatcher.runs.record import Record
from dispatcher.runs.states import Cause, State
from dispatcher.serialization import KeyRing
from tests.unit.supervisor_scene import Scene, ScriptedBackend
from workers.execution.provisioning import Provisioner


class Defect(Exception):
    """An error of no kind that the engine knows."""


class DefectiveBackend(ScriptedBackend):
    """Raises in the calls named in ``broken``, only for the run ``bad`` where a call is about one run."""

    def __init__(self) -> None:
        super().__init__()
        self.broken: set[str] = set()
        self.answers: dict[str, Any] = {}  #: of ``submit``, in the place of a handle
        self.calls: dict[str, int] = {}

    def _call(self, name: str, about: Any) -> None:
        self.calls[name] = self.calls.get(name, 0) + 1
        if name in self.broken and "bad" in str(about):
            raise Defect(f"no {name} today")

    def prepare(self, attempt: Attempt) -> Request:
        self._call("prepare", attempt.name)
        return super().prepare(attempt)

    def submit(self, request: Request, secrets: Mapping[str, str]) -> Handle:
        self._call("submit", request)
        handle = super().submit(request, secrets)
        return next((answer for name, answer in self.answers.items() if name in str(request)), handle)

    def poll(self, handles: Sequence[Handle]) -> list[Observation]:
        self._call("poll", handles)
        return super().poll(handles)

    def cancel(self, handle: Handle | None, request: Request | None) -> bool:
        self._call("cancel", handle or request)
        return super().cancel(handle, request)

    def discard(self, handle: Handle | None, request: Request | None, *, claimed: bool) -> bool:
        self._call("discard", handle or request)
        return super().discard(handle, request, claimed=claimed)

    def identify(self) -> None:
        self._call("identify", "bad")

    def logs(self, handle: Handle) -> tuple[str, ...]:
        self._call("logs", handle)
        return ("printed",)

    def key(self, handle: Handle) -> str:
        self._call("key", handle)
        return super().key(handle)

    def watch(self, changed: Changed, instance: str) -> None:
        self._call("watch", "bad")
        super().watch(changed, instance)

    def orphans(self, instance: str) -> list[Found]:
        self._call("orphans", "bad")
        return super().orphans(instance)


class DefectiveScene(Scene):
    """A supervisor of a defective backend, with one run that has its trouble, and one that must not have it."""

    backend: DefectiveBackend

    def __init__(self, *broken: str) -> None:
        super().__init__(DefectiveBackend(), orphan_tick=0.1)
        self.backend.broken.update(broken)

    def both(self, start: Callable[[str], Record]) -> tuple[Record, Record]:
        return start("bad1"), start("good1")


@pytest.mark.parametrize("call", ["prepare", "submit"])
def test_what_raises_while_an_attempt_starts_ends_it_once(call: str, caplog: pytest.LogCaptureFixture) -> None:
    """The message names the log and a reference, under which the traceback is there."""
    scene = DefectiveScene(call)
    bad, good = scene.both(scene.provisioned)
    assert (bad.state, good.state) == (State.CRASHED, State.PENDING)
    assert bad.outcome is not None
    assert (bad.outcome.cause, bad.outcome.reason) == (Cause.START_FAILED, "Defect")
    text, _, reference = bad.outcome.message.rpartition("reference ")
    assert text == (
        f"internal error: {call} of backend scripted raised Defect: no {call} today; "
        "its traceback is in the log of worker w1, "
    )
    (logged,) = [record for record in caplog.records if reference in record.getMessage()]
    assert logged.exc_info is not None
    scene.round()
    assert scene.backend.calls[call] == 2, "once for each run"


@pytest.mark.parametrize("answer", [None, "job-1", ["job-1"], {"name": {1, 2}}, {1: "job-1"}], ids=repr)
def test_a_submit_that_returns_no_handle_ends_the_attempt(answer: Any) -> None:
    scene = DefectiveScene()
    scene.backend.answers["bad1"] = answer
    bad, good = scene.both(scene.provisioned)
    assert (bad.state, good.state) == (State.CRASHED, State.PENDING)
    assert bad.outcome is not None
    assert bad.outcome.cause is Cause.START_FAILED
    assert "submit of backend scripted raised TypeError: a handle is a JSON object, got" in bad.outcome.message


def test_a_creation_that_a_supervisor_repeats_ends_the_attempt_too() -> None:
    """The request was stored by a worker that died; whoever owns the run now sends it."""
    scene = DefectiveScene("submit")
    scene.submit("bad1")
    scene.update("bad1", partial(_intend, scene.provisioner))
    scene.until(lambda: scene.record("bad1").terminal, "the end of the attempt")
    outcome = scene.record("bad1").outcome
    assert outcome is not None
    assert (outcome.cause, scene.backend.calls["submit"]) == (Cause.START_FAILED, 1)
    assert outcome.message.startswith("internal error: submit of backend scripted raised Defect")


def _intend(provisioner: Provisioner, record: Record, now: float) -> Any:
    change = provisioner._claim(record, now)
    return change.then(transitions.adopt(change.after, now, owner=change.after.request["shard"]))  # type: ignore[index]


@pytest.mark.parametrize("answer", ["raises", "nothing", "too few"])
def test_a_run_whose_poll_fails_is_unknown(answer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = DefectiveScene()
    scene.both(scene.running)
    if answer == "raises":
        scene.backend.broken.add("poll")
    else:
        scene.backend.observations[scene.record("bad1").handle["name"]] = None  # type: ignore[index, assignment]
    if answer == "too few":
        scene.backend.drop = True
    scene.round()
    assert scene.record("bad1").unknown_since is not None
    assert scene.record("good1").unknown_since is None
    scene.backend.broken.clear()
    scene.backend.observations.clear()
    scene.backend.drop = False
    scene.round()
    assert scene.record("bad1").unknown_since is None
    assert scene.record("bad1").state is State.RUNNING


def test_a_run_whose_poll_fails_can_be_cancelled_and_torn_down() -> None:
    scene = DefectiveScene("poll")
    scene.both(scene.running)
    for run_id in ("bad1", "good1"):
        scene.update(run_id, transitions.request_cancel)
    scene.until(lambda: len(scene.backend.cancelled) == 2, "both deletions")
    for run_id in ("bad1", "good1"):
        record = scene.record(run_id)
        step = partial(transitions.abandon, epoch=record.epoch, outcome=Outcome(cause=Cause.CANCELLED), here=False)
        scene.update(run_id, step)
    scene.until(
        lambda: not scene.record("bad1").leftovers and not scene.record("good1").leftovers, "the end of the teardown"
    )


@pytest.mark.parametrize("call", ["cancel", "discard"])
def test_a_teardown_that_fails_stays_open_and_is_no_other_runs_trouble(call: str) -> None:
    scene = DefectiveScene(call)
    for record in scene.both(scene.running):
        outcome = Outcome(cause=Cause.KILLED)
        scene.update(record.id, partial(transitions.abandon, epoch=record.epoch, outcome=outcome, here=False))
    scene.until(lambda: not scene.record("good1").leftovers, "the end of the other teardown")
    assert scene.record("bad1").leftovers
    scene.backend.broken.clear()
    scene.until(lambda: not scene.record("bad1").leftovers, "the end of the teardown")


@pytest.mark.parametrize("call", ["key", "watch", "logs", "orphans", "identify"])
def test_optional_calls_that_fail_cost_nothing_but_themselves(call: str) -> None:
    scene = DefectiveScene(call)
    scene.both(scene.running)
    scene.round()
    for run_id in ("bad1", "good1"):
        handle = scene.record(run_id).handle
        assert handle is not None
        scene.backend.observations[str(handle["name"])] = Observation(phase=Phase.ENDED, exit_code=3)
    scene.until(lambda: scene.record("bad1").terminal and scene.record("good1").terminal, "both ends")
    scene.until(
        lambda: not scene.record("bad1").leftovers and not scene.record("good1").leftovers, "the end of both teardowns"
    )
    scene.until(lambda: scene.backend.calls.get(call), "the call")


def test_the_scripted_calls_are_all_there_are() -> None:
    """A new call of a backend gets a test here."""
    started = {"check_settings", "preload", "unreachable", "examine", "close", "place", "name", "in_process"}
    shown = {"preview", "rendered", "remarks", "summary", "pages", "identity"}
    calls = {name for name in vars(Backend) if not name.startswith("_")}
    assert calls - started - shown == {"prepare", "submit", "poll", "cancel", "discard", "identify"}


def test_a_run_signed_by_a_key_that_the_worker_lacks_is_refused_at_once() -> None:
    """Nothing is prepared or created of it; it ends with the remedy, and is counted."""
    scene = DefectiveScene()
    other = KeyRing({"unknown": "another secret of these tests"})
    scene.submit("good1", key_id="unknown", keys=other)
    record = scene.provisioner.provision("good1")
    assert record.outcome is not None
    assert (record.state, record.outcome.reason) == (State.CRASHED, "SealBroken")
    assert "unknown" in record.outcome.message
    assert "DISPATCHER__SIGNING_KEYS" in record.outcome.message
    assert not scene.backend.calls.keys() & {"prepare", "submit"}
    assert scene.records.rejections.tallies()[Rejected.RUN].count == 1


def test_a_run_whose_key_is_gone_before_its_infrastructure_was_made_is_refused_at_once() -> None:
    """The worker that stored the request died, and the next one lacks the key: nobody else could go on."""
    scene = DefectiveScene()
    other = {"unknown": "another secret of these tests"}
    earlier = KeyRing({"k": "a secret of these tests", **other})
    scene.submit("good1", key_id="unknown", keys=KeyRing(other))
    scene.verify_with(earlier)
    scene.update("good1", partial(_intend, replace(scene.provisioner, keys=earlier)))
    scene.verify_with(scene.keys)
    assert scene.record("good1").state is State.PROVISIONING
    scene.round()
    record = scene.record("good1")
    assert record.outcome is not None
    assert (record.state, record.outcome.reason) == (State.CRASHED, "SealBroken")
    assert "DISPATCHER__SIGNING_KEYS" in record.outcome.message
    assert scene.records.rejections.tallies()[Rejected.RUN].count == 1
    assert not scene.backend.calls.get("submit")
