"""A program that opens a stored flow keeps its own modules, gets those that it lacks, and never a mixture."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dispatcher.code.activation import current_bundles, importing
from dispatcher.code.bundles import Bundler
from dispatcher.code.programs import import_beside
from dispatcher.errors import InvalidInput
from tests.unit.code.projects import on_path, write


@pytest.fixture(autouse=True)
def _path() -> Iterator[None]:
    """The process's own path and modules, again after the test."""
    with on_path():
        yield


def packed(directory: Path, files: dict[str, str], *modules: str) -> bytes:
    with on_path(write(directory, files)):
        made = Bundler(python="3.11", limit=10**8).bundle(modules)
    assert made is not None
    return made.data


def test_modules_that_it_lacks_come_from_the_bundle_last_on_the_path(tmp_path: Path) -> None:
    before = list(sys.path)
    import_beside(packed(tmp_path / "a", {"lacked_one/__init__.py": "X = 1"}, "lacked_one"), subject="file a")
    assert importlib.import_module("lacked_one").X == 1
    assert sys.path[: len(before)] == before
    (added,) = sys.path[len(before) :]
    assert Path(added).parents[2].stat().st_mode & 0o777 == 0o700


def test_its_own_modules_stay_if_they_are_the_same(tmp_path: Path) -> None:
    files = {"own_one.py": "class Row: ...", "own_two/__init__.py": "", "own_two/notes.txt": "written by the program"}
    data = packed(tmp_path / "a", files, "own_one", "own_two")
    with on_path(write(tmp_path / "b", {**files, "own_two/notes.txt": "changed since"})):
        row = importlib.import_module("own_one").Row
        path = list(sys.path)
        import_beside(data, subject="file a")
        assert sys.path == path
        assert importlib.import_module("own_one").Row is row


@pytest.mark.parametrize("files", [{"other_one/__init__.py": "X = 2"}, {"other_one.py": "X = 1"}])
def test_another_module_of_that_name_is_an_error_that_names_both(tmp_path: Path, files: dict[str, str]) -> None:
    data = packed(tmp_path / "a", {"other_one/__init__.py": "X = 1"}, "other_one")
    with (
        on_path(write(tmp_path / "b", files)),
        pytest.raises(InvalidInput, match=rf"file a: its module 'other_one' isn't .*{tmp_path / 'b'}.*get_env_runner"),
    ):
        import_beside(data, subject="file a")


def test_an_installed_module_of_that_name_is_an_error(tmp_path: Path) -> None:
    data = packed(tmp_path / "a", {"main_of_it.py": "import here_only", "here_only.py": ""}, "main_of_it")
    write(tmp_path / "site-packages", {"here_only.py": ""})
    with (
        on_path(tmp_path / "site-packages"),
        pytest.raises(InvalidInput, match=r"'here_only' isn't .*site-packages.*installed"),
    ):
        import_beside(data, subject="file a")


def test_two_flows_with_modules_of_one_name_dont_mix(tmp_path: Path) -> None:
    one = packed(tmp_path / "a", {"shared_name.py": "X = 1"}, "shared_name")
    two = packed(tmp_path / "b", {"shared_name.py": "X = 2"}, "shared_name")
    import_beside(one, subject="file one")
    import_beside(one, subject="file one")
    with pytest.raises(InvalidInput, match=r"file two: its module 'shared_name' isn't .*the bundle of file one"):
        import_beside(two, subject="file two")
    assert importlib.import_module("shared_name").X == 1


def test_where_the_bundle_comes_first_anyway_nothing_is_added(tmp_path: Path) -> None:
    data = packed(tmp_path / "a", {"first_one.py": "X = 1"}, "first_one")
    with importing(None, data, python="3.11"):
        path = list(sys.path)
        assert len(current_bundles()) == 1
        import_beside(data, subject="file a")
        assert sys.path == path
        unpacked = Path(importlib.import_module("first_one").__file__ or "")
        assert unpacked.is_relative_to(path[0])
    assert current_bundles() == ()
    assert "first_one" not in sys.modules
    assert not unpacked.exists()
