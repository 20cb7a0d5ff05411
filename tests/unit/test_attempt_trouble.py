"""Attempts that can't be verified or opened, and a server that is away."""

from __future__ import annotations

import os
import time
from typing import Any

import pytest

from backends.local import LocalEnvironment
from dispatcher.errors import ServerUnavailable
from dispatcher.flows.flow import flow
from dispatcher.records.snapshot import Snapshot
from dispatcher.runner.in_process import current_attempt, run_attempt
from dispatcher.runs.change import Change
from dispatcher.runs.outcome import ExitCall
from dispatcher.runs.record import Record
from dispatcher.runs.states import Cause, State
from dispatcher.serialization import KeyRing
from tests.unit.attempts import SETTINGS, World, double, say_how_it_ended


@pytest.fixture
def world() -> World:
    return World()


def refused_as_broken(world: World, done: Record, words: str) -> None:
    assert (done.state, done.exit_call) == (State.CRASHED, ExitCall.NOT_CALLED)
    assert done.outcome is not None
    assert (done.outcome.cause, done.outcome.reason) == (Cause.CONFIG_ERROR, "SealBroken")
    assert words in done.outcome.message
    assert world.texts(done) == []


def signed_with_exit(world: World) -> Record:
    return world.submit(double, {"x": 1}, LocalEnvironment(on_exit=say_how_it_ended))


def test_a_changed_spec_is_never_opened(world: World) -> None:
    record = signed_with_exit(world)
    stored, now = world.records.runs.get(record.id)
    changed = stored.but(spec_bytes=stored.spec_bytes.replace(b'"flow":"double"', b'"flow":"doublf"'))
    assert changed.spec_bytes != stored.spec_bytes
    done = run_attempt(world.records, world.keys, SETTINGS, Snapshot(changed, now), owner="w1", holder="here")
    refused_as_broken(world, done, "never opened")


def test_the_spec_of_another_run_is_never_opened(world: World) -> None:
    record = signed_with_exit(world)
    done = world.run(world.accept("other", record.spec_bytes))
    refused_as_broken(world, done, f"carries the spec of run {record.id}")


def test_a_key_that_we_lack_is_named(world: World) -> None:
    record = signed_with_exit(world)
    world.keys = KeyRing({"other": "x" * 32})
    refused_as_broken(world, world.run(record), "'other'")


def test_a_signature_that_is_too_old_is_void(world: World) -> None:
    record = world.submit(double, {"x": 1}, LocalEnvironment(on_exit=say_how_it_ended), expires=time.time() - 10)
    refused_as_broken(world, world.run(record), "submit it again")


def test_a_spec_that_can_not_even_be_read_ends_its_run(world: World) -> None:
    record = signed_with_exit(world)
    stored, now = world.records.runs.get(record.id)
    torn = stored.but(spec_bytes=b"{" + record.spec_bytes)
    done = run_attempt(world.records, world.keys, SETTINGS, Snapshot(torn, now), owner="w1", holder="here")
    assert done.state is State.CRASHED
    assert done.outcome is not None
    assert done.outcome.cause is Cause.CONFIG_ERROR


# ------------------------------------------------------------------------------------------------------ opening


def test_code_that_is_gone_ends_the_run_and_on_exit_comes(world: World) -> None:
    record = world.submit(double, {"x": 1}, LocalEnvironment(on_exit=say_how_it_ended), location="0" * 64, blobs=())
    done = world.run(record)
    assert (done.state, done.exit_call) == (State.CRASHED, ExitCall.CALLED)
    assert done.outcome is not None
    assert done.outcome.cause is Cause.CONFIG_ERROR
    assert world.texts(done) == ["exit: CRASHED None"]


def test_an_environment_that_nobody_knows_ends_the_run(world: World) -> None:
    class Unknown:
        labels = ()
        on_start = None
        on_exit = None

        def to_json(self) -> dict[str, str]:
            return {"type": "NowhereEnvironment"}

    done = world.run(world.submit(double, {"x": 1}, Unknown()))
    assert done.state is State.CRASHED
    assert done.outcome is not None
    assert done.outcome.cause is Cause.CONFIG_ERROR
    assert "NowhereEnvironment" in done.outcome.message


def test_variables_are_given_to_the_flow(world: World) -> None:
    @flow
    def reads() -> Any:
        return os.environ.get("GIVEN")

    assert world.result(world.run(world.submit(reads), environ={"GIVEN": "yes"})) == "yes"
    assert "GIVEN" not in os.environ


# ------------------------------------------------------------------------------------------ a server that is away


def test_a_server_that_is_away_at_the_claim_is_the_callers_to_tell(world: World) -> None:
    record = world.submit(double, {"x": 1})
    world.away = lambda _change: True
    with pytest.raises(ServerUnavailable):
        world.run(record)
    assert current_attempt() is None


def test_a_result_outlives_an_outage(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dispatcher.support.outages._FIRST_PAUSE", 0.01)
    attempted: list[State] = []

    def away(change: Change) -> bool:
        if change.before is not None and change.before.state is State.RUNNING:
            attempted.append(change.after.state)
        return 0 < len(attempted) < 8

    world.away = away
    done = world.run(world.submit(double, {"x": 1}, LocalEnvironment(on_exit=say_how_it_ended)))
    assert (done.state, done.exit_call) == (State.SUCCEEDED, ExitCall.CALLED)
    assert world.texts(done).count("doubling") == 1
    assert len(attempted) == 9
