"""What a flow sees of the engine around it: no exception being handled, and its own errors as its own."""

# ruff: noqa: T201 - flows print
from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backends.local import LocalEnvironment
from dispatcher import Dispatcher, FlowFailed, InvalidInput, InvalidParameters, LocalStorage, flow, task
from dispatcher.errors import (
    EngineError,
    ExecutorUnavailable,
    InvalidSettings,
    MissingExtra,
    Permanent,
    Refused,
    ServerUnavailable,
    Transient,
    UnknownRun,
)
from dispatcher.executors.local import LocalExecutor
from dispatcher.runs.states import Cause, State
from tests.unit.attempts import World, double
from tests.unit.invocations import play

NOTHING = (None, None, None)

ERRORS: list[Exception] = [
    Permanent("theirs", cause=Cause.CONFIG_ERROR, reason="Reason"),
    Transient("theirs"),
    ExecutorUnavailable("theirs"),
    MissingExtra("theirs"),
    ServerUnavailable("theirs"),
    Refused("theirs"),
    UnknownRun("theirs"),
    InvalidSettings("theirs"),
]


def look() -> None:
    print("handled:", sys.exc_info())


@flow
def looks(fails: bool) -> Any:
    look()
    if fails:
        raise RuntimeError("on its own")
    return sys.exc_info()


@flow
def raises(number: int) -> None:
    raise ERRORS[number]


@task
def broken(number: int) -> None:
    raise ERRORS[number]


@flow
def has_a_broken_task(number: int) -> Any:
    return [broken.submit(number)]


@flow
def submits() -> None:
    with Dispatcher("memory://") as client:
        client.submit(double, {"y": 1})


class Unopenable:
    def __init__(self) -> None:
        self.state = 1

    def __setstate__(self, state: object) -> None:
        raise RuntimeError("on its own")


@flow
def gives_unopenable() -> Any:
    return Unopenable()


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def client() -> Iterator[Dispatcher]:
    with Dispatcher("memory://") as one:
        yield one


@pytest.mark.parametrize("fails", [False, True])
def test_no_exception_is_being_handled(world: World, fails: bool) -> None:
    done = world.run(world.submit(looks, {"fails": fails}, LocalEnvironment(on_start=look, on_exit=look)))
    assert done.state is (State.FAILED if fails else State.SUCCEEDED)
    assert world.texts(done) == [f"handled: {NOTHING}"] * 3


@pytest.mark.parametrize("fails", [False, True])
def test_nor_where_an_environment_executes(tmp_path: Path, fails: bool, capsys: pytest.CaptureFixture[str]) -> None:
    storage, environment = LocalStorage(tmp_path), LocalEnvironment(on_start=look, on_exit=look)
    location = storage.add_flow(looks)
    if fails:
        with pytest.raises(RuntimeError) as caught:
            environment.execute(storage, location, parameters={"fails": True})
        assert caught.value.__context__ is None
    else:
        assert environment.execute(storage, location, parameters={"fails": False}) == NOTHING
    assert capsys.readouterr().out.splitlines() == [f"handled: {NOTHING}"] * 3


@pytest.mark.parametrize("one", [raises, has_a_broken_task])
@pytest.mark.parametrize("number", range(len(ERRORS)))
def test_errors_of_ours_that_a_flow_raises_are_its_own(world: World, one: Any, number: int) -> None:
    done = world.run(world.submit(one, {"number": number}))
    assert done.state is State.FAILED
    assert done.outcome is not None
    assert (done.outcome.cause, done.outcome.reason) == (Cause.USER_ERROR, type(ERRORS[number]).__name__)
    assert "theirs" in done.outcome.message
    assert "raise ERRORS[number]" in done.outcome.traceback
    assert done.outcome.exception is not None


def test_a_submit_that_is_refused_fails_the_flow_around_it(client: Dispatcher) -> None:
    error = client.submit(submits).exception()
    assert isinstance(error, FlowFailed)
    assert isinstance(error.__cause__, InvalidParameters)
    assert "in submits" in error.traceback


class Away(LocalExecutor):
    """Can't be started."""

    @contextlib.contextmanager
    def start(self) -> Iterator[None]:
        raise ExecutorUnavailable("nobody is there")
        yield


def test_an_executor_that_is_away_is_no_fault_of_the_flow() -> None:
    outcome = play(lambda: submits.run({}, Away()))
    assert (outcome.state, outcome.cause) == (State.CRASHED, Cause.START_FAILED)


def test_no_class_of_the_engines_stands_behind_an_error(client: Dispatcher) -> None:
    run = client.submit(gives_unopenable)
    with pytest.raises(InvalidInput) as caught:
        run.result()
    error: BaseException | None = caught.value
    while error is not None:
        assert not isinstance(error, EngineError)
        error = error.__cause__ or error.__context__
