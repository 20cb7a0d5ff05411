"""A runner in a container loads little before its claim, because its start may take at most 300 ms."""

from __future__ import annotations

import os
import subprocess

import pytest

from dispatcher import InvalidSettings, Settings
from dispatcher.runner.settings import RunnerSettings
from tests.conftest import PYTHON


def loaded(code: str) -> set[str]:
    """Return the modules that a new interpreter has loaded after ``code``."""
    command = [
        PYTHON,
        "-P",
        "-c",
        f"import sys; before = set(sys.modules)\n{code}\nprint(*(set(sys.modules) - before))",
    ]
    return set(subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ).stdout.split())


def test_the_parent_is_the_standard_library_alone() -> None:
    """Its SIGTERM handler is installed before any slow import, and its memory stays small."""
    modules = loaded("import dispatcher.runner.container.parent")
    assert {name for name in modules if name.startswith("dispatcher")} == {
        "dispatcher",
        "dispatcher.runner",
        "dispatcher.runner.container",
        "dispatcher.runner.container.memory",
        "dispatcher.runner.container.parent",
        "dispatcher.logs",
        "dispatcher.logs.journal",
    }
    assert not modules & {"typing", "logging", "asyncio", "inspect", "json", "redis"}


def test_a_claim_needs_no_settings_library() -> None:
    modules = loaded(
        "import dispatcher.runner.container.child, dispatcher.records.redis.runs\n"
        "import dispatcher.records.redis.connection.client"
    )
    assert "redis" in modules
    tops = {name.partition(".")[0] for name in modules}
    assert not tops & {"pydantic", "pydantic_settings", "celery", "kombu", "click", "rich", "cloudpickle", "dask"}
    assert "dispatcher.runner.container.attempt_runner" not in modules


def test_the_rest_of_a_runner_needs_none_either() -> None:
    tops = {
        name.partition(".")[0] for name in loaded("import dispatcher.runner.container.attempt_runner, backends.fake")
    }
    assert not tops & {"pydantic", "pydantic_settings", "celery", "kombu", "click", "rich", "dask"}


def test_runner_settings_are_named_like_the_settings() -> None:
    settings = Settings(limits={"result": 12345}, timing={"stop_grace": 0.5})
    variables = RunnerSettings.of(settings).variables()
    assert variables["DISPATCHER__LIMITS__RESULT"] == "12345"
    assert variables["DISPATCHER__TIMING__STOP_GRACE"] == "0.5"
    assert RunnerSettings.read(variables) == RunnerSettings.of(settings)
    assert set(variables) == {
        *(f"DISPATCHER__LIMITS__{name}" for name in ("INLINE", "RESULT", "LOG", "LINE")),
        *(f"DISPATCHER__TIMING__{name}" for name in ("STOP_GRACE", "ON_EXIT_TIMEOUT")),
        "DISPATCHER__DEFAULTS__LOG_LEVEL",
    }


def test_without_all_of_them_the_settings_say(monkeypatch: pytest.MonkeyPatch) -> None:
    assert RunnerSettings.read({}) == RunnerSettings.of(Settings.load())
    monkeypatch.setenv("DISPATCHER__TIMING__STOP_GRACE", "x")
    with pytest.raises(InvalidSettings, match="DISPATCHER__TIMING__STOP_GRACE"):
        RunnerSettings.read(os.environ)
