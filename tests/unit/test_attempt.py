"""One attempt in this process, on memory records: claim, run, finish, races."""

# ruff: noqa: T201 - flows print
from __future__ import annotations

import os
import signal
import time

import pytest

from backends.local import LocalEnvironment
from dispatcher.errors import CancelInterrupt, Refused, TimeoutInterrupt, UnknownRun
from dispatcher.flows.flow import flow
from dispatcher.records.snapshot import Snapshot
from dispatcher.runner.in_process import current_attempt, run_attempt
from dispatcher.runs import transitions
from dispatcher.runs.change import Change
from dispatcher.runs.events import EventKind
from dispatcher.runs.outcome import ExitCall, Outcome
from dispatcher.runs.states import Cause, State
from dispatcher.serialization import KeyRing, from_value
from dispatcher.serialization.seals import Returned
from dispatcher.settings import LimitSettings
from tests.unit.attempts import SETTINGS, World, break_down, double, fails, say_how_it_ended


@pytest.fixture
def world() -> World:
    return World()


def test_a_run_from_claim_to_finish(world: World) -> None:
    record = world.submit(double, {"x": 4})
    done = world.run(record)
    assert (done.state, done.owner, done.exit_call) == (State.SUCCEEDED, "", ExitCall.NONE)
    assert world.result(done) == [4, 4]
    assert world.texts(done) == ["doubling", f"run {record.id}, attempt 1"]
    kinds = [event.kind for event in world.records.events.of(record.id)[0]]
    assert kinds == [
        EventKind.QUEUED,
        EventKind.CLAIMED,
        EventKind.PROVISIONING,
        EventKind.PENDING,
        EventKind.STARTED,
        EventKind.EXITED,
    ]
    assert current_attempt() is None


def test_two_scripts_without_on_exit_and_three_with(world: World) -> None:
    world.run(world.submit(double, {"x": 1}))
    assert world.commits == 2
    world.run(world.submit(double, {"x": 1}, LocalEnvironment(on_exit=say_how_it_ended)))
    assert world.commits == 5


def test_times_are_those_of_the_moment(world: World) -> None:
    @flow
    def naps() -> None:
        time.sleep(0.3)

    done = world.run(world.submit(naps))
    assert done.started_at is not None
    assert done.ended_at is not None
    assert 0.25 < done.ended_at - done.started_at < 5


def test_a_large_result_is_a_blob_of_the_run(world: World) -> None:
    done = world.run(world.submit(double, {"x": "y" * 100_000}))
    assert done.outcome is not None
    assert done.outcome.result is not None
    assert done.outcome.result.blob == f"{done.id}/result-1-1"
    assert world.result(done) == ["y" * 100_000] * 2


def test_a_result_that_json_can_not_give_back(world: World) -> None:
    done = world.run(world.submit(double, {"x": {1, 2}}))
    assert world.result(done) == [{1, 2}, {1, 2}]


def test_a_result_too_large_fails_the_run(world: World) -> None:
    settings = SETTINGS.but(limits=LimitSettings(result=1000))
    done = world.run(world.submit(double, {"x": "y" * 1000}), settings=settings)
    assert done.state is State.FAILED
    assert done.outcome is not None
    assert "DISPATCHER__LIMITS__RESULT" in done.outcome.message
    assert "'double'" in done.outcome.message


def test_a_failing_flow(world: World) -> None:
    done = world.run(world.submit(fails, environment=LocalEnvironment(on_exit=say_how_it_ended)))
    assert (done.state, done.exit_call) == (State.FAILED, ExitCall.CALLED)
    assert done.outcome is not None
    assert "no luck" in done.outcome.traceback
    assert world.texts(done) == ["exit: FAILED ValueError('no luck')"]
    assert done.outcome.exception is not None
    seal = world.keys.seal(done)
    error = from_value(done.outcome.exception, get=world.records.blobs.get, seal=seal, kind=Returned.EXCEPTION)
    assert isinstance(error, ValueError)


def test_the_last_lines_stay_with_a_failure(world: World) -> None:
    @flow
    def talks_and_fails() -> None:
        for n in range(80):
            print(n)
        raise ValueError

    done = world.run(world.submit(talks_and_fails))
    assert done.outcome is not None
    assert done.outcome.log_tail == tuple(str(n) for n in range(30, 80))


def test_a_raising_on_exit_is_recorded_and_logged(world: World) -> None:
    done = world.run(world.submit(double, {"x": 1}, LocalEnvironment(on_exit=break_down)))
    assert (done.state, done.exit_call) == (State.SUCCEEDED, ExitCall.RAISED)
    assert any("on_exit raised" in text for text in world.texts(done))
    assert world.texts(done)[-1] == "RuntimeError: in the callback"


def test_a_raising_on_start_fails_the_run_and_on_exit_comes(world: World) -> None:
    environment = LocalEnvironment(on_start=break_down, on_exit=say_how_it_ended)
    done = world.run(world.submit(double, {"x": 1}, environment))
    assert (done.state, done.exit_call) == (State.FAILED, ExitCall.CALLED)
    assert world.texts(done) == ["exit: FAILED RuntimeError('in the callback')"]


def test_retries_are_new_attempts(world: World) -> None:
    record = world.submit(fails, retries=1)
    after = world.run(record, holder="first")
    assert (after.state, after.attempt) == (State.QUEUED, 2)
    done = world.run(record, holder="second")
    assert (done.state, done.attempt) == (State.FAILED, 2)


# --------------------------------------------------------------------------------------------- claims and races


def test_a_second_doorbell_finds_nothing_to_do(world: World) -> None:
    record = world.submit(double, {"x": 1})
    done = world.run(record)
    again = world.run(record)
    assert again.version == done.version
    assert world.texts(done).count("doubling") == 1


def test_a_doorbell_while_it_runs_elsewhere_leaves_it_alone(world: World) -> None:
    record = world.submit(double, {"x": 1})
    world.records.runs.update(
        record.id, lambda record, now: transitions.start_here(record, now, owner="w9", holder="other")
    )
    result = world.run(record)
    assert (result.state, result.holder) == (State.RUNNING, "other")
    assert world.texts(result) == []


def test_a_claim_whose_answer_was_lost_is_taken_up_once(world: World) -> None:
    record = world.submit(double, {"x": 1})
    world.records.runs.update(
        record.id, lambda record, now: transitions.start_here(record, now, owner="w1", holder="here")
    )
    assert world.run(record).state is State.SUCCEEDED


def test_a_flow_that_began_here_never_begins_again_in_its_attempt(world: World) -> None:
    @flow
    def asks_again() -> str:
        return "once"

    def let_go(change: Change) -> bool:
        if change.after.terminal:
            raise Refused("as if the process had been told to let go")
        return False

    record = world.submit(asks_again)
    world.away = let_go
    assert world.run(record).state is State.RUNNING
    world.away = lambda _change: False
    assert world.run(record).state is State.RUNNING, "who holds the process ends it; the flow isn't run twice"


def test_a_run_that_comes_too_late_is_ended(world: World) -> None:
    record = world.submit(double, {"x": 1}, start_within=5)
    stored, now = world.records.runs.get(record.id)
    done = run_attempt(world.records, world.keys, SETTINGS, Snapshot(stored, now + 6), owner="w1", holder="here")
    assert (done.state, world.texts(done)) == (State.TIMED_OUT, [])
    assert done.outcome is not None
    assert done.outcome.reason == "start_within"


def test_a_cancel_that_comes_while_it_runs(world: World) -> None:
    record = world.submit(flow(name="f")(cancels_itself), environment=LocalEnvironment(on_exit=say_how_it_ended))

    def interrupt(signum: int, frame: object) -> None:
        world.records.runs.update(record.id, transitions.request_cancel)
        here = current_attempt()
        assert here is not None
        assert (here.run_id, here.epoch) == (record.id, 1)
        here.interrupt(CancelInterrupt)

    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        done = world.run(record)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert (done.state, done.exit_call) == (State.CANCELLED, ExitCall.CALLED)
    assert world.texts(done) == ["exit: CANCELLED CancelInterrupt()"]


def cancels_itself() -> None:
    os.kill(os.getpid(), signal.SIGUSR1)
    time.sleep(30)


def test_a_run_taken_over_meanwhile_is_left_to_its_new_holder(world: World) -> None:
    record = world.submit(flow(name="f")(cancels_itself), environment=LocalEnvironment(on_exit=say_how_it_ended))

    def take_over(signum: int, frame: object) -> None:
        world.records.runs.update(
            record.id,
            lambda record, now: transitions.abandon(
                record, now, epoch=record.epoch, outcome=Outcome(cause=Cause.WORKER_LOST, message="taken over")
            ),
        )
        here = current_attempt()
        assert here is not None
        here.interrupt(TimeoutInterrupt)

    before = signal.signal(signal.SIGUSR1, take_over)
    try:
        result = world.run(record)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert (result.exit_call, result.epoch) == (ExitCall.DUE, 2)
    assert world.texts(result) == [], "its on_exit is another's to call"
    done = world.exit(record)
    assert (done.state, done.exit_call) == (State.CRASHED, ExitCall.CALLED)
    assert world.texts(done) == ["exit: CRASHED None"]


def test_a_run_that_was_removed_meanwhile_needs_no_end(world: World) -> None:
    def gone(change: Change) -> bool:
        if change.after.terminal:
            raise UnknownRun("gone")
        return False

    world.away = gone
    assert world.run(world.submit(double, {"x": 1})).state is State.RUNNING


def test_no_secret_in_any_line_or_outcome(world: World) -> None:
    secret = "canary-secret-0123456789abcdef"
    world.keys = KeyRing({"a": secret})
    done = world.run(world.submit(fails, environment=LocalEnvironment(on_exit=break_down)))
    assert secret not in repr(done)
    assert not any(secret in text for text in world.texts(done))
