"""Starting our own programs: detached, with the settings in variables, never somebody else's package."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dispatcher.errors import InvalidSettings
from dispatcher.laptop import spawn
from dispatcher.settings import Settings
from tests.waiting import wait_until


def test_variables_say_what_the_settings_say(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings.load(
        url="unix:///run/x?db=0",
        signing_keys_file=Path("/keys"),
        worker={"scope": "1a2b3c4d", "every_label": True, "labels": ["gpu", "eu"]},
        timing={"lease": 3.5},
        defaults={"executor_kwargs": {"n": 1}},
    )

    variables = spawn.environment(settings, {"HOME": "/home/a"})

    assert variables.pop("HOME") == "/home/a"
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert Settings.load() == settings


def test_secrets_and_what_others_said_of_us_stay_behind() -> None:
    settings = Settings.load(url="redis://here/0", signing_keys='{"k": "a secret of many bytes"}')
    theirs = {
        "DISPATCHER__URL": "redis://elsewhere",
        "dispatcher__signing_keys": '{"old": "another secret of many bytes"}',
        "DISPATCHER__TIMING__LEASE": "7",
        "DISPATCHER__OF_A_PLUGIN": "kept",
    }

    variables = spawn.environment(settings, theirs)

    assert variables == {"DISPATCHER__URL": "redis://here/0", "DISPATCHER__OF_A_PLUGIN": "kept"}


def test_settings_of_a_backend_come_before_the_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings.load(kubernetes={"url": "redis://here/0", "namespaces": ["flows"]})

    variables = spawn.environment(settings, {"DISPATCHER__KUBERNETES__URL": "redis://elsewhere"})

    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert Settings.load() == settings


def test_a_detached_program_is_on_its_own(tmp_path: Path) -> None:
    log = tmp_path / "log"

    process = spawn.start_detached("dispatcher.support.urls", (), log=log, cwd=tmp_path)

    assert process.pid != os.getpid()
    assert process.ended(within=10)
    assert log.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("package", ["workers", "dispatcher"])
def test_a_package_of_the_users_is_never_started(package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = tmp_path / package
    theirs.mkdir()
    (theirs / "__init__.py").write_text("open('started', 'w')")
    (theirs / "__main__.py").write_text("open('started', 'w')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    with pytest.raises(InvalidSettings, match=rf"{tmp_path}/{package}.*PYTHONPATH"):
        spawn.start_detached(package, (), log=tmp_path / "log", cwd=tmp_path)

    assert not (tmp_path / "started").exists()


def test_a_folder_of_that_name_in_the_project_does_no_harm(tmp_path: Path) -> None:
    theirs = tmp_path / "dispatcher"
    theirs.mkdir()
    (theirs / "__init__.py").write_text("open('started', 'w')")

    spawn.start_detached("dispatcher.support.urls", (), log=tmp_path / "log", cwd=tmp_path).ended(within=10)

    assert (tmp_path / "log").read_text() == ""
    assert not (tmp_path / "started").exists()


def test_a_long_log_is_put_aside(tmp_path: Path) -> None:
    log = tmp_path / "worker.log"
    with log.open("wb") as file:
        file.truncate(11 * 2**20)

    spawn.start_detached("dispatcher.support.urls", (), log=log, cwd=tmp_path).ended(within=10)

    wait_until(lambda: log.stat().st_size < 1000, "a new log")
    assert (tmp_path / "worker.log.1").exists()


def test_a_python_that_is_gone_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", str(tmp_path / "gone"))

    with pytest.raises(InvalidSettings, match="gone"):
        spawn.start_detached("workers", (), log=tmp_path / "log", cwd=tmp_path)
