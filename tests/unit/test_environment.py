"""Environments as values, and their direct execution."""

from __future__ import annotations

import copy
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dispatcher import (
    DaskExecutor,
    InvalidInput,
    InvalidParameters,
    LocalEnvironment,
    LocalExecutor,
    LocalStorage,
    RemoteEnvironment,
    State,
    context,
    flow,
)
from dispatcher.environments import base
from dispatcher.environments.base import Environment
from dispatcher.environments.callbacks import Callback
from dispatcher.errors import CancelInterrupt, PreemptInterrupt, TimeoutInterrupt
from dispatcher.flows.flow import Flow
from dispatcher.storage.base import NoFlowHere, Storage
from dispatcher.testing.modules import module

LOCAL_EXECUTOR = "dispatcher.executors.LocalExecutor"
DASK_EXECUTOR = "dispatcher.executors.DaskExecutor"


def beside() -> None:
    """A callback of a module that isn't installed."""


def through_json(environment: Environment) -> Environment:
    return base.from_json(json.loads(json.dumps(environment.to_json())))


ALL: list[Callable[[], Environment]] = [
    LocalEnvironment,
    lambda: LocalEnvironment(["b", "a", "b"]),
    lambda: LocalEnvironment(on_start=os.getpid, on_exit=beside),
    RemoteEnvironment,
    lambda: RemoteEnvironment(DASK_EXECUTOR, {"address": "tcp://x:1", "n": [1, None, {"a": 1.5}]}, ["x"]),
    lambda: RemoteEnvironment(DaskExecutor, on_start=beside),
    lambda: RemoteEnvironment(Recording),
]


class Recording(LocalExecutor):
    """An executor of the user's own."""

    made: list[dict[str, Any]] = []  # noqa: RUF012 - what this class was made with, by all its tests

    def __init__(self, **arguments: Any) -> None:
        self.made.append(arguments)


@pytest.mark.parametrize("make", ALL)
def test_a_value(make: Callable[[], Environment]) -> None:
    environment = make()
    assert environment == make()
    assert hash(environment) == hash(make())
    assert environment != object()
    assert copy.deepcopy(environment) == environment
    assert pickle.loads(pickle.dumps(environment)) == environment
    for name in ("labels", "on_start", "new"):
        with pytest.raises(AttributeError, match="can't be changed"):
            setattr(environment, name, ())
    with pytest.raises(AttributeError, match="can't be changed"):
        del environment.labels
    environment.setup(LocalStorage("nowhere"))
    environment.setup(LocalStorage("nowhere"))


@pytest.mark.parametrize("make", ALL)
def test_it_round_trips_through_json(make: Callable[[], Environment]) -> None:
    environment = make()
    there = through_json(environment)
    assert there == environment
    assert environment == there
    assert hash(there) == hash(environment)
    assert there.to_json() == environment.to_json()
    assert through_json(there) == there


def test_values_differ() -> None:
    made = [make() for make in ALL]
    for index, environment in enumerate(made):
        assert [other == environment for other in made].index(True) == index
    assert LocalEnvironment(on_start=lambda: 1) != LocalEnvironment(on_start=lambda: 2)
    lock_one, lock_two = _untravelling(), _untravelling()
    assert LocalEnvironment(on_start=lock_one) == LocalEnvironment(on_start=lock_one)
    assert LocalEnvironment(on_start=lock_one) != LocalEnvironment(on_start=lock_two)
    assert LocalEnvironment(on_start=lock_one) != LocalEnvironment(on_start=Callback(ref="os:getpid"))


def _untravelling() -> Callable[[], Any]:
    handle = Path(os.devnull).open("w")  # noqa: SIM115 - it's there to be in the way
    handle.close()
    generator = (n for n in range(2))
    return lambda: (handle, generator)


def test_the_repr_tells_what_was_said() -> None:
    assert repr(LocalEnvironment()) == "LocalEnvironment()"
    assert (
        repr(RemoteEnvironment(DaskExecutor, {"address": "tcp://x:1"}, ["b", "a"], on_exit=beside))
        == f"RemoteEnvironment(executor='{DASK_EXECUTOR}', executor_kwargs={{'address': 'tcp://x:1'}}, "
        "labels=['a', 'b'], on_exit=tests.unit.test_environment.beside)"
    )


def test_installed_callbacks_travel_by_name_others_sealed(tmp_path: Path) -> None:
    data = LocalEnvironment(on_start=os.getpid, on_exit=beside).to_json()
    assert data["on_start"] == {"ref": "posix:getpid"} or data["on_start"] == {"ref": "nt:getpid"}
    assert set(data["on_exit"]) == {"sealed"}
    with module(tmp_path, "callbacks_here", "def hello(): return 'hello'\nalias = lambda: 1\n") as callbacks:
        there = through_json(LocalEnvironment(on_start=callbacks.hello, on_exit=callbacks.alias))
        assert isinstance(there.on_start, Callback)
        assert there.on_start.ref == "callbacks_here:hello"
        assert there.on_start() == "hello"
        assert isinstance(there.on_exit, Callback)
        assert there.on_exit.ref is None
        assert there.on_exit() == 1


def test_json_is_read_without_running_anybodys_code(tmp_path: Path) -> None:
    class Trap:
        def __call__(self) -> None: ...
        def __reduce__(self) -> Any:
            return (Path(tmp_path / "opened").touch, ())

    data = {
        **LocalEnvironment(on_start=Trap()).to_json(),
        "on_exit": {"ref": "no_such_module:anything"},
    }
    there = base.from_json(data)
    assert there.to_json() == data
    assert there == base.from_json(data)
    assert "sealed callback" in repr(there)
    assert not (tmp_path / "opened").exists()
    assert there.on_exit is not None
    with pytest.raises(InvalidInput, match="can't import 'no_such_module'"):
        there.on_exit()
    assert there.on_start is not None
    with pytest.raises(InvalidInput, match="no function but NoneType"):
        there.on_start()
    assert (tmp_path / "opened").exists()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({}, "with a 'type'"),
        ([], "with a 'type'"),
        (
            {"type": "NoEnvironment"},
            "unknown environment 'NoEnvironment'; known: .*LocalEnvironment, RemoteEnvironment",
        ),
        ({"type": "LocalEnvironment", "executor": "x", "y": 1}, "unknown 'executor', 'y'; known: labels, on_start"),
        ({"type": "LocalEnvironment", "labels": "gpu"}, "labels"),
        ({"type": "LocalEnvironment", "on_start": "os.getpid"}, "on_start: must be {'ref'"),
        ({"type": "LocalEnvironment", "on_start": {"ref": "os"}}, "on_start: must be {'ref'"),
        ({"type": "LocalEnvironment", "on_exit": {"sealed": "no base64!"}}, "on_exit: 'sealed' isn't base64"),
        ({"type": "RemoteEnvironment", "executor": {"x": 1}}, "executor: must be {'ref'"),
        ({"type": "RemoteEnvironment", "executor_kwargs": [1]}, "executor_kwargs"),
    ],
)
def test_wrong_json_is_named(data: Any, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        base.from_json(data)


def test_json_by_hand() -> None:
    environment = base.from_json({"type": "LocalEnvironment", "on_start": {"ref": "os:getcwd"}, "on_exit": None})
    assert environment.on_start is not None
    assert environment.on_start() == str(Path.cwd())
    assert environment.labels == ()


async def coroutine() -> None: ...


@pytest.mark.parametrize(
    ("callback", "message"),
    [
        (3, "on_start: must be a function without arguments, got 3"),
        ("os.getpid", "on_start: must be a function"),
        (lambda event: None, "on_start: is called without arguments"),
        (os.path.join, "on_start: is called without arguments"),
        (coroutine, "is async"),
    ],
)
def test_callbacks_take_no_argument(callback: Any, message: str) -> None:
    for kind in (LocalEnvironment, RemoteEnvironment):
        with pytest.raises(InvalidInput, match=message):
            kind(on_start=callback)
    LocalEnvironment(on_start=lambda event=None, *rest, **more: None)
    LocalEnvironment(on_start=dict)


def test_what_cannot_travel_is_named_in_its_json() -> None:
    with pytest.raises(InvalidInput, match=r"LocalEnvironment\.on_exit"):
        LocalEnvironment(on_exit=_untravelling()).to_json()


# -- RemoteEnvironment's executor


def test_a_class_is_its_import_string() -> None:
    assert RemoteEnvironment(DaskExecutor).executor == DASK_EXECUTOR
    assert RemoteEnvironment(DaskExecutor) == RemoteEnvironment(DASK_EXECUTOR)
    assert RemoteEnvironment(Recording).executor is Recording
    RemoteEnvironment(DaskExecutor).check()
    RemoteEnvironment(Recording).check()
    RemoteEnvironment("dispatcher.executors:DaskExecutor").check()


@pytest.mark.parametrize(
    "wrong", [3, "LocalExecutor", "__main__.Mine", "a b.C", "", dict, LocalExecutor(), lambda: LocalExecutor]
)
def test_what_is_no_executor_is_refused_at_once(wrong: Any) -> None:
    with pytest.raises(InvalidInput, match=r"RemoteEnvironment\.executor: "):
        RemoteEnvironment(wrong)


@pytest.mark.parametrize(
    ("executor", "message"),
    [
        ("dispatcher.executors.NoExecutor", "'dispatcher.executors' has no 'NoExecutor'"),
        ("dispatcher.no_module.Executor", "can't import 'dispatcher.no_module'"),
        ("collections.OrderedDict", "'collections.OrderedDict' is no subclass of dispatcher.executors.Executor"),
        ("os.getpid", "is no subclass"),
    ],
)
def test_an_import_string_is_checked_where_its_package_is_installed(executor: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        RemoteEnvironment(executor).check()


def test_an_import_string_of_a_package_that_is_not_here_is_checked_by_the_worker(tmp_path: Path) -> None:
    elsewhere = RemoteEnvironment("only_over_there.executors.Executor")
    elsewhere.check()
    with pytest.raises(InvalidInput, match=r"RemoteEnvironment\.executor: can't import 'only_over_there.executors'"):
        elsewhere.load(*stored(tmp_path, lambda: 1))


@pytest.mark.parametrize("wrong", [{"x": object()}, {"x": (1, 2)}, {1: 2}, {"x": float("nan")}, "address", [1]])
def test_executor_kwargs_are_json(wrong: Any) -> None:
    with pytest.raises(InvalidInput, match=r"executor_kwargs: (must|JSON gives)"):
        RemoteEnvironment(LOCAL_EXECUTOR, wrong)


def test_executor_kwargs_reach_the_executor_and_cannot_be_changed(tmp_path: Path) -> None:
    Recording.made.clear()
    remote = RemoteEnvironment(Recording, {"a": [1]})
    remote.executor_kwargs["a"].append(2)
    assert remote.execute(*stored(tmp_path, lambda: 5)) == 5
    assert Recording.made == [{"a": [1]}]
    with pytest.raises(InvalidInput, match=r"executor_kwargs: dispatcher\.executors\.LocalExecutor: LocalExecutor\(\)"):
        RemoteEnvironment(LOCAL_EXECUTOR, {"nodes": 1}).execute(*stored(tmp_path, lambda: 5))


def test_the_default_executor_is_read_from_the_settings_at_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    remote = RemoteEnvironment(executor_kwargs={"n": 1})
    remote.check()
    with module(
        tmp_path,
        "company",
        "from dispatcher.executors import LocalExecutor\n"
        "seen = []\n"
        "class Ours(LocalExecutor):\n"
        "    def __init__(self, **given): seen.append(given)\n",
    ) as company:
        monkeypatch.setenv("DISPATCHER__DEFAULTS__EXECUTOR", "company.Ours")
        monkeypatch.setenv("DISPATCHER__DEFAULTS__EXECUTOR_KWARGS", '{"n": 5, "m": 6}')
        assert remote.execute(*stored(tmp_path, lambda: 1)) == 1
        assert company.seen == [{"n": 1, "m": 6}]
    assert remote.executor is None


# -- executed directly


def stored(directory: Path, body: Callable[..., Any]) -> tuple[LocalStorage, str]:
    storage = LocalStorage(directory / "flows")
    return storage, storage.add_flow(flow(body))


def test_only_parameters_and_env_are_keywords(tmp_path: Path) -> None:
    storage, location = stored(tmp_path, lambda: 1)
    with pytest.raises(TypeError, match=r"LocalEnvironment.execute\(\) got unknown a, b; known: parameters, env"):
        LocalEnvironment().execute(storage, location, b=1, a=2, env={})
    with pytest.raises(InvalidInput, match="env must map names to strings"):
        LocalEnvironment().execute(storage, location, env={"A": 1})
    with pytest.raises(InvalidParameters, match="one mapping"):
        LocalEnvironment().execute(storage, location, parameters=[1])


class GivesNoFlow(Storage):
    """Like an image, it can run a flow but not return it."""

    def __init__(self, error: type[Exception] = NoFlowHere) -> None:
        super().__init__()
        self.error = error
        self.called_with: list[dict[str, str]] = []

    def add_flow(self, flow: Flow[..., Any]) -> str:
        return "there"

    def get_flow(self, location: str) -> Flow[..., Any]:
        raise self.error

    def get_env_runner(self, location: str) -> Callable[..., Any]:
        def run(env: dict[str, str]) -> str:
            self.called_with.append(env)
            return f"ran {location}"

        return run


@pytest.mark.parametrize("error", [NoFlowHere, NotImplementedError])
def test_local_falls_back_to_the_storages_runner(error: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FROM_HERE", "1")
    monkeypatch.setenv("BOTH", "here")
    calls: list[Any] = []
    local = LocalEnvironment(on_start=lambda: calls.append("on_start"), on_exit=lambda: calls.append(context.state))
    storage = GivesNoFlow(error)
    assert local.execute(storage, "loc", parameters={"a": [1]}, env={"BOTH": "given", "MORE": "2"}) == "ran loc"
    (variables,) = storage.called_with
    assert variables == {**os.environ, "BOTH": "given", "MORE": "2", "DISPATCHER__PARAMETERS": '{"a": [1]}'}
    assert (variables["FROM_HERE"], os.environ["BOTH"]) == ("1", "here")
    assert calls == ["on_start", State.SUCCEEDED]
    with pytest.raises(InvalidParameters, match="must be JSON"):
        local.execute(storage, "loc", parameters={"a": object()})
    with pytest.raises(error):
        RemoteEnvironment().execute(storage, "loc")


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (KeyError, State.FAILED),
        (SystemExit, State.FAILED),
        (TimeoutInterrupt, State.TIMED_OUT),
        (CancelInterrupt, State.CANCELLED),
        (KeyboardInterrupt, State.CANCELLED),
        (PreemptInterrupt, State.CRASHED),
    ],
)
def test_on_exit_hears_how_it_ended(tmp_path: Path, error: type[BaseException], state: State) -> None:
    calls: list[Any] = []

    def fails() -> None:
        raise error

    local = LocalEnvironment(on_exit=lambda: calls.append((context.state, type(context.exception))))
    with pytest.raises(error):
        local.execute(*stored(tmp_path, fails))
    assert calls == [(state, error)]
