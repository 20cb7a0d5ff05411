"""Changes that match no cached run: of runs created a moment ago, and of runs of other workers."""

from __future__ import annotations

import math
from functools import partial

import pytest

from backends.base import Observation, Phase
from dispatcher.runs import transitions
from dispatcher.runs.attempt import shard_of
from dispatcher.runs.record import Record
from dispatcher.runs.states import Cause, State
from tests.unit.supervisor_scene import Scene
from tests.waiting import wait_until
from workers.supervisor import unmatched

OOM = Observation(phase=Phase.ENDED, cause=Cause.OOM_KILLED, exit_code=137)


@pytest.fixture
def scene() -> Scene:
    scene = Scene()
    scene.round()
    scene.counting.read = 0
    return scene


def name_of(record: Record) -> str:
    return str((record.handle or {})["name"])


def test_a_new_run_is_observed_before_the_next_round(scene: Scene) -> None:
    """Only its record is read: thousands of live runs cost nothing when another one begins."""
    for number in range(50):
        scene.running(f"r{number}")
    name = name_of(scene.record("r7"))
    scene.backend.observations[name] = OOM
    scene.backend.changed(name, "r7")
    scene.supervisor.tick()
    assert scene.record("r7").state is State.CRASHED
    assert scene.counting.read == 1


def request(scene: Scene) -> None:
    """Request the container of ``r1``, which ends before its handle is stored."""
    scene.submit("r1")
    scene.update("r1", partial(transitions.claim, owner="w1"))
    stored_request = {"shard": shard_of("scripted", "r1"), "epoch": 1, "body": {}}
    scene.update("r1", partial(transitions.intend, epoch=1, request=stored_request))
    scene.backend.observations["pod"] = OOM
    scene.backend.changed("pod", "r1")


def store_handle(scene: Scene) -> None:
    """Store the handle of ``r1``; its end is observed without a round."""
    shard = shard_of("scripted", "r1")
    scene.update("r1", partial(transitions.created, epoch=1, handle={"name": "pod"}, owner=shard))
    scene.update("r1", partial(transitions.claim_attempt, attempt=1, holder="pod"))

    def crashed() -> bool:
        scene.supervisor.tick()
        return scene.record("r1").state is State.CRASHED

    wait_until(crashed, "the observation to be acted on")
    scene.supervisor.tick()
    assert scene.supervisor.next_in == math.inf, "all changes are matched"


def test_a_handle_may_be_about_to_be_stored(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unmatched, "READ_INTERVAL", 60.0)
    request(scene)
    scene.supervisor.tick()
    assert scene.supervisor.next_in < math.inf, "another tick is asked for"
    scene.supervisor.tick()
    assert scene.counting.read == 1, "not within the interval"
    monkeypatch.setattr(unmatched, "READ_INTERVAL", 0.0)
    store_handle(scene)


def test_a_round_does_not_forget_an_unmatched_change(scene: Scene) -> None:
    """The change is reported before the round, and the handle stored after the round has read the records."""
    request(scene)
    scene.round()
    store_handle(scene)


def test_runs_of_other_workers_are_not_read() -> None:
    scene = Scene()
    scene.supervisor.round(["w1", "w2"], ())
    ids = [f"r{number}" for number in range(64)]
    (foreign, *_) = [run_id for run_id in ids if shard_of("scripted", run_id) not in scene.supervisor.held]
    scene.counting.read = 0
    scene.backend.changed("pod", foreign)
    scene.supervisor.tick()
    assert scene.supervisor.next_in == math.inf
    assert scene.counting.read == 0


@pytest.mark.parametrize("exists", [True, False])
def test_a_run_that_has_ended_is_read_once(exists: bool, scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """The end of a container is reported after the end of its run."""
    monkeypatch.setattr(unmatched, "READ_INTERVAL", 0.0)
    if exists:
        scene.submit("r1")
        scene.update("r1", transitions.request_cancel)
    scene.backend.changed("pod", "r1")
    for _ in range(3):
        scene.supervisor.tick()
        assert scene.supervisor.next_in == math.inf
    assert scene.counting.read == 1


def test_an_unmatched_change_is_forgotten_after_a_while(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process that was to store the handle is dead: the round will find the infrastructure."""
    monkeypatch.setattr(unmatched, "READ_INTERVAL", 0.0)
    monkeypatch.setattr(unmatched, "REMEMBER", 0.0)
    scene.submit("r1")
    scene.update("r1", partial(transitions.claim, owner="w1"))
    scene.backend.changed("pod", "r1")
    scene.supervisor.tick()
    assert scene.supervisor.next_in == math.inf
    assert scene.counting.read == 1
