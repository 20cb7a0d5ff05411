"""A flow doesn't notice the engine around it: no exception is being handled, and its errors count as its own."""

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


def print_handled() -> None:
    print("handled:", sys.exc_info())


@flow
def prints_handled(fails: bool) -> Any:
    print_handled()
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
    with Dispatcher("memory://") as client:
        yield client


@pytest.mark.parametrize("fails", [False, True])
def test_no_exception_is_being_handled(world: World, fails: bool) -> None:
    done = world.run(
        world.submit(prints_handled, {"fails": fails}, LocalEnvironment(on_start=print_handled, on_exit=print_handled))
    )
    assert done.state is (State.FAILED if fails else State.SUCCEEDED)
    assert world.texts(done) == [f"handled: {NOTHING}"] * 3


@pytest.mark.parametrize("fails", [False, True])
def test_no_exception_is_being_handled_in_a_direct_execution(
    tmp_path: Path, fails: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    storage, environment = LocalStorage(tmp_path), LocalEnvironment(on_start=print_handled, on_exit=print_handled)
    location = storage.add_flow(prints_handled)
    if fails:
        with pytest.raises(RuntimeError) as caught:
            environment.execute(storage, location, parameters={"fails": True})
        assert caught.value.__context__ is None
    else:
        assert environment.execute(storage, location, parameters={"fails": False}) == NOTHING
    assert capsys.readouterr().out.splitlines() == [f"handled: {NOTHING}"] * 3


@pytest.mark.parametrize("tested", [raises, has_a_broken_task])
@pytest.mark.parametrize("number", range(len(ERRORS)))
def test_our_errors_raised_by_a_flow_count_as_its_own(world: World, tested: Any, number: int) -> None:
    done = world.run(world.submit(tested, {"number": number}))
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


class Unavailable(LocalExecutor):
    """Can't be started."""

    @contextlib.contextmanager
    def start(self) -> Iterator[None]:
        raise ExecutorUnavailable("nobody is there")
        yield


def test_an_unavailable_executor_is_no_error_of_the_flow() -> None:
    outcome = play(lambda: submits.run({}, Unavailable()))
    assert (outcome.state, outcome.cause) == (State.CRASHED, Cause.START_FAILED)


def test_no_internal_error_is_the_cause_of_a_public_one(client: Dispatcher) -> None:
    run = client.submit(gives_unopenable)
    with pytest.raises(InvalidInput) as caught:
        run.result()
    error: BaseException | None = caught.value
    while error is not None:
        assert not isinstance(error, EngineError)
        error = error.__cause__ or error.__context__
