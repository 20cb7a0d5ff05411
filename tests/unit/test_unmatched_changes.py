"""Changes of what a supervisor doesn't know: runs that were created a moment ago, and those of others."""

from __future__ import annotations

from functools import partial
from typing import Any

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
    one = Scene()
    one.round()
    one.counting.read = 0
    return one


def name_of(record: Record) -> str:
    return str((record.handle or {})["name"])


def test_a_new_run_is_looked_at_before_the_next_round(scene: Scene) -> None:
    """It is read, and no other: thousands that live cost nothing where one begins."""
    for number in range(50):
        scene.running(f"r{number}")
    name = name_of(scene.record("r7"))
    scene.backend.observations[name] = OOM
    scene.backend.changed(name, "r7")
    scene.supervisor.tick()
    assert scene.record("r7").state is State.CRASHED
    assert scene.counting.read == 1


def ask(scene: Scene) -> None:
    """A pool process has asked for the container of ``r1``, which is seen to end before its handle is stored."""
    scene.submit("r1")
    scene.update("r1", partial(transitions.claim, owner="w1"))
    request = {"shard": shard_of("scripted", "r1"), "epoch": 1, "body": {}}
    scene.update("r1", partial(transitions.intend, epoch=1, request=request))
    scene.backend.observations["pod"] = OOM
    scene.backend.changed("pod", "r1")


def store(scene: Scene) -> None:
    """Its handle is stored; between rounds that is enough for its end to be seen."""
    shard = shard_of("scripted", "r1")
    scene.update("r1", partial(transitions.created, epoch=1, handle={"name": "pod"}, owner=shard))
    scene.update("r1", partial(transitions.claim_attempt, attempt=1, holder="pod"))

    def crashed() -> bool:
        scene.supervisor.tick()
        return scene.record("r1").state is State.CRASHED

    wait_until(crashed, "what is seen to be acted upon")
    assert scene.supervisor.tick() is None, "nobody is a stranger any more"


def test_its_handle_may_be_about_to_be_stored(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unmatched, "READ_INTERVAL", 60.0)
    ask(scene)
    assert scene.supervisor.tick() is not None, "it comes again"
    scene.supervisor.tick()
    assert scene.counting.read == 1, "not before that makes sense"
    monkeypatch.setattr(unmatched, "READ_INTERVAL", 0.0)
    store(scene)


def test_a_round_does_not_forget_it(scene: Scene) -> None:
    """It is heard of before the round, and its handle is stored after the round has read what is ours."""
    ask(scene)
    scene.round()
    store(scene)


def test_what_others_answer_for_is_not_read() -> None:
    scene = Scene()
    scene.supervisor.round(["w1", "w2"], ())
    ids = [f"r{number}" for number in range(64)]
    (theirs, *_) = [one for one in ids if shard_of("scripted", one) not in scene.supervisor.held]
    scene.counting.read = 0
    scene.backend.changed("pod", theirs)
    assert scene.supervisor.tick() is None
    assert scene.counting.read == 0


@pytest.mark.parametrize("there", [True, False])
def test_what_has_ended_is_read_once(there: bool, scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """The end of a container is heard of after that of its run."""
    monkeypatch.setattr(unmatched, "READ_INTERVAL", 0.0)
    if there:
        scene.submit("r1")
        scene.update("r1", transitions.request_cancel)
    scene.backend.changed("pod", "r1")
    ticks: list[Any] = [scene.supervisor.tick() for _ in range(3)]
    assert ticks == [None, None, None]
    assert scene.counting.read == 1


def test_it_is_forgotten_after_a_while(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever was to store its handle is dead: the round finds what becomes of it."""
    monkeypatch.setattr(unmatched, "READ_INTERVAL", 0.0)
    monkeypatch.setattr(unmatched, "REMEMBER", 0.0)
    scene.submit("r1")
    scene.update("r1", partial(transitions.claim, owner="w1"))
    scene.backend.changed("pod", "r1")
    assert scene.supervisor.tick() is None
    assert scene.counting.read == 1
