"""``on_exit`` in a fresh process, after the runner died."""

# ruff: noqa: T201 - flows print
from __future__ import annotations

import os
import signal
from typing import Any

import pytest

from backends.local import LocalEnvironment
from dispatcher.errors import CancelInterrupt
from dispatcher.payload import KeyRing, to_value
from dispatcher.payload.seals import Returned
from dispatcher.records.base import Line
from dispatcher.runner import attempt as runner
from dispatcher.runner.attempt import call_on_exit
from dispatcher.runs import transitions
from dispatcher.runs.record import ExitCall, Outcome, Record
from dispatcher.runs.states import Cause, State
from tests.unit.attempts import SETTINGS, World, break_down, double, say_how_it_ended


@pytest.fixture
def world() -> World:
    return World()


def killed(world: World, environment: LocalEnvironment, **outcome: Any) -> Record:
    """A run whose process died while the flow ran."""
    record = world.submit(double, {"x": 1}, environment)
    started = world.records.runs.update(
        record.id, lambda one, now: transitions.start_here(one, now, owner="w1", holder="dead")
    )
    world.records.logs.append(record.id, [Line(attempt=1, number=7, time=1.0, stream="stdout", text="last words")])
    facts = {"cause": Cause.KILLED, "message": "killed", **outcome}
    return world.records.runs.update(
        record.id,
        lambda one, now: transitions.abandon(one, now, epoch=started.epoch, outcome=Outcome(**facts)),
    )


def test_on_exit_of_a_dead_process(world: World) -> None:
    record = killed(world, LocalEnvironment(on_exit=say_how_it_ended))
    done = world.exit(record)
    assert (done.state, done.exit_call) == (State.CRASHED, ExitCall.CALLED)
    assert done.outcome is not None
    assert done.outcome.cause is Cause.KILLED
    assert world.texts(done) == ["last words", "exit: CRASHED None"]
    assert [line.number for line in world.lines(done)] == [7, 8]


def test_on_exit_learns_of_the_exception_that_was_kept(world: World) -> None:
    record = killed(world, LocalEnvironment(on_exit=say_how_it_ended))
    value = to_value(
        KeyError("x"), what="e", limit_inline=10**6, limit=10**6, put=lambda _: "",
        seal=world.keys.seal(record),
        kind=Returned.EXCEPTION,
    )  # fmt: skip
    stored, now = world.records.runs.get(record.id)
    stored = stored.but(outcome=Outcome(cause=Cause.USER_ERROR, exception=value))
    done = call_on_exit(world.records, world.keys, SETTINGS, stored, now, owner="w2", holder="there")
    assert done.exit_call is ExitCall.CALLED
    assert world.texts(done)[-1] == "exit: FAILED KeyError('x')"


def test_an_on_exit_that_raises_there(world: World) -> None:
    done = world.exit(killed(world, LocalEnvironment(on_exit=break_down)))
    assert (done.state, done.exit_call) == (State.CRASHED, ExitCall.RAISED)


def test_it_is_called_once(world: World) -> None:
    record = killed(world, LocalEnvironment(on_exit=say_how_it_ended))
    world.exit(record)
    again = world.exit(record)
    assert again.terminal
    assert world.texts(again).count("exit: CRASHED None") == 1


def test_it_is_never_called_from_a_changed_spec(world: World) -> None:
    record = killed(world, LocalEnvironment(on_exit=say_how_it_ended))
    world.keys = KeyRing({"other": "x" * 32})
    done = world.exit(record)
    assert (done.state, done.exit_call) == (State.CRASHED, ExitCall.NOT_CALLED)
    assert world.texts(done) == ["last words"]


def test_interrupts_do_not_reach_on_exit(world: World) -> None:
    before = signal.signal(signal.SIGUSR1, lambda *_: runner.current().interrupt(CancelInterrupt))  # type: ignore[union-attr]
    try:
        done = world.exit(killed(world, LocalEnvironment(on_exit=signals_itself)))
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert done.exit_call is ExitCall.CALLED
    assert world.texts(done)[-1] == "undisturbed"


def signals_itself() -> None:
    os.kill(os.getpid(), signal.SIGUSR1)
    print("undisturbed")
