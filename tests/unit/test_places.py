"""The paths of the laptop server's files, and the directories that it rejects."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from dispatcher.errors import InvalidSettings
from dispatcher.laptop.paths import LONGEST_SOCKET, LaptopPaths, read, write
from dispatcher.settings import Settings


@pytest.fixture
def run() -> Iterator[Path]:
    """A runtime directory with a short name."""
    with tempfile.TemporaryDirectory(prefix="dsp-") as directory:
        yield Path(directory)


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"HOME": "/home/a"}, "/home/a/.local/state/dispatcher"),
        ({"HOME": "/home/a", "XDG_STATE_HOME": "/var/a"}, "/var/a/dispatcher"),
        ({"HOME": "/home/a", "XDG_STATE_HOME": "relative"}, "/home/a/.local/state/dispatcher"),
    ],
)
def test_state_directory(variables: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    assert LaptopPaths.of(Settings.load()).state == Path(expected)
    assert LaptopPaths.of(Settings.load(state_dir=Path("/given"))).state == Path("/given")


def test_a_home_that_cannot_be_written_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setenv("HOME", "/proc/nobody")

    with pytest.raises(InvalidSettings, match=r"/proc/nobody.*DISPATCHER__STATE_DIR"):
        LaptopPaths.of(Settings.load()).prepare()


def test_directories_are_closed_to_others(tmp_path: Path) -> None:
    places = LaptopPaths(tmp_path / "state")
    places.state.mkdir(mode=0o755)

    places.prepare()

    assert [path.stat().st_mode & 0o077 for path in (places.state, places.data, places.programs)] == [0, 0, 0]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_a_state_directory_of_another_user_is_refused(tmp_path: Path) -> None:
    places = LaptopPaths(tmp_path / "state")
    places.prepare()
    os.chown(places.state, 12345, -1)

    with pytest.raises(InvalidSettings, match="belongs to another user"):
        places.prepare()


def test_the_socket_lies_in_the_session_s_directory(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(run))

    socket = LaptopPaths(tmp_path / "a").new_socket()

    assert socket.parent == run / "dispatcher"
    assert socket.parent.stat().st_mode & 0o777 == 0o700
    assert socket != LaptopPaths(tmp_path / "b").new_socket()


@pytest.mark.parametrize("session", ["", "/nowhere", "relative"])
def test_without_a_session_it_lies_in_a_directory_of_the_user_s(
    session: str, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", session)
    monkeypatch.setattr(tempfile, "tempdir", str(run))

    socket = LaptopPaths(tmp_path).new_socket()

    assert socket.parent == run / f"dispatcher-{os.geteuid()}"


def test_a_long_path_is_passed_over(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = run / ("d" * 90)
    deep.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(deep))
    monkeypatch.setattr(tempfile, "tempdir", str(run))

    socket = LaptopPaths(tmp_path).new_socket()

    assert len(os.fsencode(socket)) <= LONGEST_SOCKET
    assert socket.parent.parent == run


def _open_to_others(directory: Path) -> None:
    directory.mkdir()
    directory.chmod(0o755)


def _a_link(directory: Path) -> None:
    directory.symlink_to("/")


def _a_file(directory: Path) -> None:
    directory.touch()


@pytest.mark.parametrize("squat", [_open_to_others, _a_link, _a_file])
def test_a_place_that_is_not_ours_alone_is_refused(
    squat: object, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(run))
    assert callable(squat)
    squat(run / f"dispatcher-{os.geteuid()}")

    with pytest.raises(InvalidSettings, match=r"no directory.*XDG_RUNTIME_DIR"):
        LaptopPaths(tmp_path).new_socket()


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x.json"

    write(path, {"a": 1})

    assert read(path) == {"a": 1}
    assert path.stat().st_mode & 0o777 == 0o600
    assert read(tmp_path / "none") == {}
    path.write_text("[1")
    assert read(path) == {}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_a_socket_directory_that_another_user_has_made_is_named_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    common = tmp_path / "t"
    common.mkdir(mode=0o1777)
    taken = common / f"dispatcher-{os.geteuid()}"
    taken.mkdir()
    os.chown(taken, 12345, -1)
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(common))

    with pytest.raises(InvalidSettings, match=r"belongs to another user.*set XDG_RUNTIME_DIR") as caught:
        LaptopPaths(tmp_path / "state").new_socket()

    assert str(caught.value).split(":", 1)[1].count(str(taken)) <= 2  # once as the place, once in a command to mend it
    assert f"{taken} {common}" not in str(caught.value)
