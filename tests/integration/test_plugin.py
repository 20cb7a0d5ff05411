"""A backend in a distribution of its own: a worker runs flows on it, and the product knows it by its entry points."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from dispatcher import (
    Dispatcher,
    InvalidInput,
    InvalidSettings,
    LocalStorage,
    ModuleStorage,
    RunCrashed,
    Settings,
    flow,
)
from dispatcher.admin.doctor import misspelt
from dispatcher.errors import RunCancelled
from dispatcher.runs.events import EventKind
from dispatcher.runs.states import Cause
from tests.conftest import PYTHON
from tests.installed_plugin import Plugin, installed
from tests.integration.workers import Worker
from tests.waiting import wait_until

pytestmark = pytest.mark.integration

COMMAND = str(Path(PYTHON).with_name("dispatcher"))

FLOWS = """
from dispatcher import flow

@flow
def greet(name: str) -> str:
    return name
"""


@flow
def describe() -> dict[str, Any]:
    print("printed")  # noqa: T201 - a run's log holds what it prints
    keys = [name for name in os.environ if "SIGNING" in name]
    token, color = os.environ["TOKEN"], os.environ["COLOR"]
    return {"pid": os.getpid(), "nice": os.nice(0), "token": token, "color": color, "keys": keys}


@flow
def sleep(path: str) -> None:
    Path(path).write_text(str(os.getpid()))
    time.sleep(60)


@flow
def die() -> None:
    os._exit(9)


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> Plugin:
    """The plug-in, found by this process too."""
    plugin = installed()
    monkeypatch.syspath_prepend(str(plugin.target))
    return plugin


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    directory = tmp_path / "processes"
    directory.mkdir()
    return directory


@pytest.fixture
def worker(plugin: Plugin, directory: Path, start_worker: Callable[..., Worker]) -> Worker:
    variables = {**plugin.variables, "DISPATCHER__PROCESSES__DIRECTORY": str(directory)}
    return start_worker(backends=["processes"], concurrency=1, timing={"poll": 0.1}, environ=variables)


def command(plugin: Plugin, *arguments: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "NO_COLOR": "1", **plugin.variables, **variables}
    return subprocess.run(
        [COMMAND, *arguments], cwd=cwd, env=environ, capture_output=True, text=True, check=False, timeout=60
    )


@pytest.mark.usefixtures("worker")
def test_a_run_in_a_process(client: Dispatcher, directory: Path, tmp_path: Path) -> None:
    from dispatcher_processes.environment import ProcessEnvironment

    (tmp_path / "token").write_text("from a file\n")
    secrets = {"TOKEN": str(tmp_path / "token")}
    environment = ProcessEnvironment(env={"COLOR": "blue"}, secrets=secrets, niceness=5)
    run = client.submit(describe, environment=environment)
    result = run.result(timeout=60)
    assert result.pop("pid") != os.getpid()
    assert result == {"nice": 5, "token": "from a file", "color": "blue", "keys": []}
    assert "printed" in [line.text for line in run.logs()]
    assert [event.kind for event in run.events()].count(EventKind.EXITED) == 1
    wait_until(lambda: not list(directory.iterdir()), "the end of its process")


@pytest.mark.usefixtures("worker")
def test_a_cancel_and_a_death(client: Dispatcher, directory: Path, tmp_path: Path) -> None:
    from dispatcher_processes.environment import ProcessEnvironment

    file = tmp_path / "pid"
    run = client.submit(sleep, {"path": str(file)}, environment=ProcessEnvironment())
    wait_until(file.exists, "the flow's start", timeout=60)
    run.cancel()
    with pytest.raises(RunCancelled):
        run.result(timeout=60)
    with pytest.raises(RunCrashed) as crashed:
        client.submit(die, environment=ProcessEnvironment()).result(timeout=60)
    assert crashed.value.cause is Cause.RESULT_MISSING
    wait_until(lambda: not list(directory.iterdir()), "the end of both processes")


@pytest.mark.usefixtures("plugin")
def test_a_storage_that_a_container_cannot_reach(client: Dispatcher, tmp_path: Path) -> None:
    from dispatcher_processes.environment import ProcessEnvironment

    with pytest.raises(TypeError, match="ProcessEnvironment runs flows in a container, which can't reach"):
        client.submit(describe, environment=ProcessEnvironment(), storage=LocalStorage(tmp_path))
    with pytest.raises(InvalidInput, match=r"ProcessEnvironment\.secrets: TOKEN must be the absolute path .* 'hu…"):
        ProcessEnvironment(secrets={"TOKEN": "hunter2"})
    with pytest.raises(InvalidInput, match=r"ProcessEnvironment\.env: can't set the runner's own variables"):
        ProcessEnvironment(env={"DISPATCHER__RUN__ID": "x"})


@pytest.mark.filterwarnings("ignore:No live worker")
def test_its_storage(plugin: Plugin, client: Dispatcher, start_worker: Callable[..., Worker], tmp_path: Path) -> None:
    """A worker gets the flow from the file, and runs none whose code was changed there."""
    from dispatcher_processes.storage import SqliteStorage

    storage, file = SqliteStorage(tmp_path / "flows.db"), tmp_path / "written"
    changed = client.submit(write, {"path": str(file)}, storage=storage)
    with closing(sqlite3.connect(storage.path)) as connection, connection:
        connection.execute("UPDATE flows SET code = x'00'")
    start_worker(environ=plugin.variables)
    with pytest.raises(RunCrashed, match="was changed"):
        changed.result(timeout=60)
    assert not file.exists()
    client.submit(write, {"path": str(file)}, storage=storage).result(timeout=60)
    assert file.read_text() == "executed"


def test_execute_needs_no_run(plugin: Plugin, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dispatcher_processes.environment import ProcessEnvironment
    from dispatcher_processes.process import Process

    monkeypatch.setenv("DISPATCHER__PROCESSES__DIRECTORY", str(directory))
    monkeypatch.setenv("PYTHONPATH", plugin.variables["PYTHONPATH"])
    file = directory / "file"
    handle = ProcessEnvironment().execute(ModuleStorage(), f"{__name__}:write", parameters={"path": str(file)})
    process = Process(directory / handle["name"])
    wait_until(lambda: process.exit_code is not None, "its end", timeout=60)
    assert (process.exit_code, file.read_text()) == (0, "executed"), process.lines()


@flow
def write(path: str) -> None:
    Path(path).write_text("executed")


def test_it_is_rendered(plugin: Plugin, directory: Path, tmp_path: Path) -> None:
    (tmp_path / "flows.py").write_text(FLOWS)
    (tmp_path / "environment.json").write_text(json.dumps({"type": "ProcessEnvironment", "env": {"COLOR": "blue"}}))
    variables = {"DISPATCHER__PROCESSES__DIRECTORY": str(directory), "DISPATCHER__PROCESSES__NICENESS": "3"}
    arguments = ["render", "flows.py:greet", "-p", "name=x", "--environment", "environment.json"]
    done = command(plugin, *arguments, cwd=tmp_path, **variables)
    assert done.returncode == 0, done.stderr
    request = json.loads(done.stdout)
    assert (request["niceness"], request["variables"]["COLOR"]) == (3, "blue")
    assert request["command"][-3:] == ["-P", "-m", "dispatcher.runner"]


def test_it_is_examined(plugin: Plugin, directory: Path, tmp_path: Path) -> None:
    arguments = ["doctor", "--backend", "processes", "--url", "memory://", "--json"]
    environ = {"DISPATCHER__PROCESSES__URL": "redis://localhost/0"}
    done = command(plugin, *arguments, cwd=tmp_path, DISPATCHER__PROCESSES__DIRECTORY=str(directory), **environ)
    findings = {finding["subject"]: finding for finding in json.loads(done.stdout)}
    assert done.returncode == 0, done.stdout
    assert findings["directory"]["level"] == "ok"
    assert findings["python"]["text"].endswith("has the runner")
    done = command(plugin, *arguments, cwd=tmp_path, DISPATCHER__PROCESSES__PYTHON="/no/python", **environ)
    texts = [finding["text"] for finding in json.loads(done.stdout) if finding["level"] == "problem"]
    assert done.returncode == 1
    assert texts == ["DISPATCHER__PROCESSES__DIRECTORY: must be set to a folder for processes"]


@pytest.mark.usefixtures("plugin")
def test_its_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from dispatcher_processes.settings import ProcessSettings

    assert Settings.load().group(ProcessSettings).niceness == 0
    monkeypatch.setenv("DISPATCHER__PROCESSES__NICENESS", "7")
    monkeypatch.setenv("DISPATCHER__PROCESSES__URL", "redis://user:secret@records/0")
    settings = Settings.load()
    assert settings.group(ProcessSettings).niceness == 7
    assert settings.processes.niceness == 7  # type: ignore[attr-defined]
    assert "niceness=7" in repr(settings)
    assert "secret" not in repr(settings)
    monkeypatch.setenv("DISPATCHER__PROCESSES__NICENESS", "20")
    with pytest.raises(InvalidSettings, match=r"^DISPATCHER__PROCESSES__NICENESS: must be less than .*, got '20'"):
        Settings.load()
    monkeypatch.delenv("DISPATCHER__PROCESSES__NICENESS")
    monkeypatch.setenv("DISPATCHER__PROCESSES__NICENES", "7")
    with pytest.raises(InvalidSettings, match="NICENES: isn't a setting; did you mean DISPATCHER__PROCESSES__NICENESS"):
        Settings.load()


def test_without_it_nothing_knows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from dispatcher import registry

    monkeypatch.setenv("DISPATCHER__PROCESSES__NICENESS", "no number")
    Settings.load()
    (finding,) = misspelt(["DISPATCHER__PROCESSES__NICENESS"], registry.SETTINGS.names())
    assert finding.level == "warning"
    with pytest.raises(
        InvalidInput,
        match=r"unknown backend 'processes'; known: dask-kubernetes, dask-operator, kubernetes, local, remote$",
    ):
        registry.backend("processes")
