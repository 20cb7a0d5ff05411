"""The contract of environments that run flows in this process, called directly and by the runner."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from dispatcher import (
    Cause,
    DaskExecutor,
    Dispatcher,
    InvalidInput,
    InvalidParameters,
    LocalEnvironment,
    LocalStorage,
    RemoteEnvironment,
    RunCrashed,
    State,
    context,
    flow,
    gather,
    task,
)
from dispatcher.environments import base
from dispatcher.environments.base import Environment
from dispatcher.errors import ExecutorUnavailable
from tests.dask_cluster import cluster

Make = Callable[..., Environment]
Printed = Callable[[], list[str]]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with cluster(tmp_path_factory.mktemp("dask")) as address:
        yield address


@pytest.fixture(params=["local", "remote", "remote on dask", "local through JSON"])
def make(request: pytest.FixtureRequest) -> Make:
    match request.param:
        case "local":
            return LocalEnvironment
        case "remote":
            return RemoteEnvironment
        case "local through JSON":
            return lambda **options: base.from_json(LocalEnvironment(**options).to_json())
    address = request.getfixturevalue("address")
    kwargs = {"address": address, "connect_timeout": 20}
    return lambda **options: RemoteEnvironment("dispatcher.executors.DaskExecutor", kwargs, **options)


@pytest.fixture
def storage(tmp_path: Any) -> LocalStorage:
    return LocalStorage(tmp_path / "flows")


@pytest.fixture
def printed(monkeypatch: pytest.MonkeyPatch) -> Printed:
    """Return the words of callbacks and flows, from an environment variable, which unpickled code shares."""
    monkeypatch.setenv("SEEN", "")
    return lambda: str(os.environ["SEEN"]).split()


def say(word: object) -> None:
    os.environ["SEEN"] = f"{os.environ.get('SEEN', '')} {word}"


def started() -> None:
    say("started")


def left() -> None:
    say(f"left:{context.state}:{type(context.exception).__name__}")


def broken() -> None:
    say("broken")
    raise OSError("from a callback")


@task
def square(x: int) -> int:
    return x * x


@flow
def squares(n: int, plus: int = 0) -> list[int]:
    say("flow")
    return gather(square.map([x + plus for x in range(n)]))


@flow
def returns_futures(n: int) -> Any:
    return {"squares": square.map(range(n))}


@flow
def fails() -> None:
    say("flow")
    raise LookupError("in the flow")


@flow
def tells() -> Any:
    return context.run_id, context.attempt, context.labels, dict(context.parameters), os.environ.get("GIVEN")


def test_on_start_then_the_flow_then_on_exit(make: Make, storage: LocalStorage, printed: Printed) -> None:
    environment = make(on_start=started, on_exit=left)
    environment.setup(storage)
    assert environment.execute(storage, storage.add_flow(squares), parameters={"n": 3, "plus": 1}) == [1, 4, 9]
    assert printed() == ["started", "flow", "left:SUCCEEDED:NoneType"]
    assert context.state is None


def test_returned_futures_are_gathered(make: Make, storage: LocalStorage) -> None:
    location = storage.add_flow(returns_futures)
    assert make().execute(storage, location, parameters={"n": 3}) == {"squares": [0, 1, 4]}


def test_on_exit_is_called_if_the_flow_raises(make: Make, storage: LocalStorage, printed: Printed) -> None:
    environment = make(on_start=started, on_exit=left)
    with pytest.raises(LookupError, match="in the flow"):
        environment.execute(storage, storage.add_flow(fails))
    assert printed() == ["started", "flow", "left:FAILED:LookupError"]


def test_on_exit_is_called_if_on_start_raises(make: Make, storage: LocalStorage, printed: Printed) -> None:
    environment = make(on_start=broken, on_exit=left)
    with pytest.raises(OSError, match="from a callback"):
        environment.execute(storage, storage.add_flow(squares), parameters={"n": 1})
    assert printed() == ["broken", "left:FAILED:OSError"]


def test_on_exit_is_called_if_the_flow_cannot_be_loaded(make: Make, storage: LocalStorage, printed: Printed) -> None:
    with pytest.raises(InvalidInput):
        make(on_exit=left).execute(storage, "nowhere")
    with pytest.raises(InvalidParameters, match="unknown parameter 'm'"):
        make(on_exit=left).execute(storage, storage.add_flow(squares), parameters={"n": 1, "m": 1})
    assert printed() == ["left:FAILED:InvalidInput", "left:FAILED:InvalidParameters"]


def test_an_on_exit_that_raises_hides_no_result(
    make: Make, storage: LocalStorage, printed: Printed, caplog: pytest.LogCaptureFixture
) -> None:
    environment = make(on_exit=broken)
    with pytest.raises(LookupError):
        environment.execute(storage, storage.add_flow(fails))
    assert "on_exit raised, after the flow had failed" in caplog.text
    assert "from a callback" in caplog.text
    with pytest.raises(OSError, match="from a callback"):
        environment.execute(storage, storage.add_flow(squares), parameters={"n": 1})
    assert printed() == ["flow", "broken", "flow", "broken"]


def test_context_and_variables_inside(make: Make, storage: LocalStorage) -> None:
    before = dict(os.environ)
    environment = make(labels=["b", "a"])
    context = environment.execute(storage, storage.add_flow(tells), parameters={}, env={"GIVEN": "yes"})
    assert context == (None, None, ("a", "b"), {}, "yes")
    assert dict(os.environ) == before


def test_load_returns_the_flow_and_callbacks_that_the_runner_calls(
    make: Make, storage: LocalStorage, printed: Printed
) -> None:
    environment = make(on_start=started, on_exit=left)
    environment.check()
    run = environment.load(storage, storage.add_flow(squares), env={"GIVEN": "yes"})
    assert run({"n": 2}) == [0, 1]
    assert run({"n": 3}) == [0, 1, 4]
    assert printed() == ["flow", "flow"]
    assert environment.load(storage, storage.add_flow(tells), env={"GIVEN": "yes"})({})[-1] == "yes"
    assert "GIVEN" not in os.environ


def test_a_cluster_that_cannot_be_reached(storage: LocalStorage, printed: Printed) -> None:
    kwargs = {"address": "tcp://127.0.0.1:1", "connect_timeout": 0.5}
    environment = RemoteEnvironment("dispatcher.executors.DaskExecutor", kwargs, on_start=started, on_exit=left)
    with pytest.raises(ExecutorUnavailable, match=r"tcp://127\.0\.0\.1:1"):
        environment.execute(storage, storage.add_flow(squares), parameters={"n": 1})
    assert printed() == ["started", f"left:{State.FAILED}:ExecutorUnavailable"]


def test_a_run_whose_cluster_cannot_be_reached_crashes() -> None:
    kwargs = {"address": "tcp://127.0.0.1:1", "connect_timeout": 0.5}
    with Dispatcher("memory://") as client:
        run = client.submit(squares, {"n": 1}, environment=RemoteEnvironment(DaskExecutor, kwargs))
        with pytest.raises(RunCrashed, match=r"tcp://127\.0\.0\.1:1") as crashed:
            run.result(timeout=30)
    assert crashed.value.cause is Cause.START_FAILED


def test_a_run_in_place(make: Make) -> None:
    with Dispatcher("memory://") as client:
        run = client.submit(squares, {"n": 3}, environment=make())
        assert run.result(timeout=30) == [0, 1, 4]
