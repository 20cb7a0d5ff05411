"""Environments, backends and storages by name, including those of plug-ins."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from backends.base import InProcess
from dispatcher import (
    InvalidInput,
    LocalExecutor,
    LocalStorage,
    RedisStorage,
    RemoteEnvironment,
    Settings,
    flow,
    registry,
)
from dispatcher.environments import base
from dispatcher.environments.base import Environment
from dispatcher.runs.options import Options
from dispatcher.submission.request import RequestChecker


class Third(Environment):
    """A plug-in's environment."""

    backend = "third"
    added = ("speed",)

    def __init__(self, speed: int = 1, **more: Any) -> None:
        super().__init__(**more)
        self.speed = speed


class ThirdBackend(InProcess):
    name = "third"


@pytest.fixture
def third_party(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    about = tmp_path / "third-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: third\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(
        f"[dispatcher.environments]\nThird = {__name__}:Third\nBroken = no_such_module:X\nEmpty = {__name__}:Nothing\n"
        f"[dispatcher.storages]\nMisspelt = {__name__}:Mispelt\n"
        f"[dispatcher.backends]\nthird = {__name__}:ThirdBackend\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert importlib.metadata.version("third") == "1.0"


@pytest.mark.usefixtures("third_party")
def test_others_join_by_entry_points() -> None:
    environment = Third(speed=3, labels=["x"])
    assert base.from_json(json.loads(json.dumps(environment.to_json()))) == environment
    environment.check()
    assert type(environment.make_executor()) is LocalExecutor
    for name in ("speed", "labels", "another"):
        with pytest.raises(AttributeError, match="can't be changed"):
            setattr(environment, name, 4)
    assert registry.backend("third") is ThirdBackend
    with pytest.raises(InvalidInput, match="environment 'Broken' can't be imported from 'no_such_module:X'"):
        registry.environment("Broken")
    with pytest.raises(InvalidInput, match="environment 'Empty' isn't in"):
        registry.environment("Empty")
    with pytest.raises(
        InvalidInput, match=r"known: Broken, Dask\w*, Empty, Kubern\w*, LocalEnv\w*, RemoteEnv\w*, Third$"
    ):
        registry.environment("Fourth")


class Misspelt(RedisStorage):
    """A storage whose entry point names another class."""


@flow
def one() -> int:
    return 1


@pytest.mark.usefixtures("third_party")
def test_an_entry_point_with_a_misspelt_class_is_refused_at_submit() -> None:
    message = r"storage 'Misspelt' isn't in '.*:Mispelt': .* \(register Misspelt as an entry point"
    with pytest.raises(InvalidInput, match=message):
        RequestChecker(Settings.load()).check(one, None, Misspelt(), Options())
    RequestChecker(Settings.load()).check(one, Third(), LocalStorage("flows"), Options())


def test_an_environment_that_no_worker_could_find_is_refused() -> None:
    with pytest.raises(InvalidInput, match="unknown environment 'Third'"):
        Third().check()

    class LocalEnvironment(Third):
        pass

    with pytest.raises(InvalidInput, match="another class is registered under this name"):
        LocalEnvironment().check()


def test_names_of_ours() -> None:
    assert registry.backend("local").in_process
    assert registry.backend("remote").name == "remote"
    assert registry.storage("LocalStorage") is LocalStorage
    assert registry.environment("LocalEnvironment").backend == "local"
    assert RemoteEnvironment.backend == "remote"
    with pytest.raises(
        InvalidInput, match=r"unknown backend 'mars'; known: dask-kubernetes, dask-operator, kubernetes, local, remote$"
    ):
        registry.backend("mars")


SHADOWED = """
from dispatcher import registry
try:
    from dispatcher import LocalEnvironment
except ImportError as error:
    print(error)
try:
    registry.environment("LocalEnvironment")
except ValueError as error:
    print(error)
"""


@pytest.mark.parametrize("name", ["backends.py", "backends/__init__.py"])
def test_a_users_own_backends_is_named_when_it_hides_ours(name: str, tmp_path: Path) -> None:
    theirs = tmp_path / name
    theirs.parent.mkdir(exist_ok=True)
    theirs.touch()
    (tmp_path / "program.py").write_text(SHADOWED)
    done = subprocess.run(
        [sys.executable, tmp_path / "program.py"], capture_output=True, text=True, check=False, timeout=60
    )
    hides = theirs.parent if theirs.stem == "__init__" else theirs
    assert done.stdout.count(f"Python finds {hides} in place of our package 'backends': rename yours") == 2, done
