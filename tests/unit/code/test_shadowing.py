"""A bundle and this machine have modules of one name: the project's code gets its own, installed code the installed."""

from __future__ import annotations

import builtins
import importlib
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from dispatcher.code.activation import BundleImporter
from dispatcher.code.bundles import Bundle, Bundler
from dispatcher.code.cache import BundleCache
from dispatcher.code.patterns import NO_PATTERNS, Patterns
from tests.unit.code.projects import on_path, write

#: An installed library whose functions import late, in every way, and which imports another library.
INSTALLED = {
    "lib/__init__.py": """
import importlib
from importlib.metadata import EntryPoint
def load_absolute():
    import lib.absolute
    return lib.absolute.NAME
def load_member():
    from lib import member
    return member.NAME
def load_relative():
    from . import relative
    return relative.NAME
def load_deep():
    from lib.deep.leaf import NAME
    return NAME
def load_by_name(): return importlib.import_module("lib.by_name").NAME
def load_by_relative_name(): return importlib.import_module(".by_relative_name", __name__).NAME
def load_entry_point(): return EntryPoint("x", "lib.entry_point:NAME", "group").load()
def load_other():
    import other
    return other.NAME
""",
    **{f"lib/{name}.py": "NAME = 'installed'" for name in ("absolute", "member", "relative", "by_name")},
    **{f"lib/{name}.py": "NAME = 'installed'" for name in ("by_relative_name", "entry_point")},
    "lib/deep/__init__.py": "from lib.absolute import NAME",
    "lib/deep/leaf.py": "from . import NAME",
    "other.py": "import lib\nfrom lib.absolute import NAME",
    "space/installed.py": "NAME = 'installed'",
    "third.py": "NAME = 'installed'",
}
WAYS = ("absolute", "member", "relative", "deep", "by_name", "by_relative_name", "entry_point", "other")

PROJECT = {
    "etl.py": """
import lib, other
def names():
    import importlib, lib, pickle, pkgutil
    from lib import part
    assert importlib.import_module("lib") is lib is pkgutil.resolve_name("lib")
    assert pickle.loads(pickle.dumps(lib.Point)) is lib.Point
    return lib.NAME, part.NAME, other.NAME
""",
    "lib/__init__.py": "NAME = 'own'\nclass Point: pass\nfrom .part import NAME",
    "lib/part.py": "from . import NAME",
    "other.py": "NAME = 'own'",
}


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Path]:
    """A machine on which those libraries are installed."""
    with on_path(write(tmp_path / "site-packages", INSTALLED)):
        yield tmp_path


def bundle(directory: Path, files: dict[str, Any], module: str, patterns: Patterns = NO_PATTERNS) -> Bundle:
    """Pack a project as its own program would, which has it first on ``sys.path``."""
    with on_path(write(directory, files)):
        made = Bundler(python="3.11", limit=10**8).bundle([module], patterns)
    assert made is not None
    return made


class Importer:
    """An importer of one bundle."""

    def __init__(self, directory: Path, made: Bundle) -> None:
        self.of_process = BundleImporter(BundleCache(directory / "cache"), "3.11")
        self.made = made

    def __enter__(self) -> None:
        self.of_process.enter([self.made.digest], {self.made.digest: self.made.data}.__getitem__)

    def __exit__(self, *_: object) -> None:
        self.of_process.leave()


def late(module: ModuleType) -> list[str]:
    return [getattr(module, f"load_{way}")() for way in WAYS]


def _append(loaded: list[Any], look: Any) -> None:
    loaded.append(look())


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("first", ["own", "installed"])
def test_each_gets_its_own(machine: Path, way: str, first: str) -> None:
    importer = Importer(machine, bundle(machine / "project", PROJECT, "etl"))
    lib = importlib.import_module("lib")
    before = builtins.__import__, list(sys.meta_path), list(sys.path)
    for _ in range(2):
        with importer:
            etl = importlib.import_module("etl")
            if first == "own":
                assert etl.names() == ("own", "own", "own")
            assert getattr(lib, f"load_{way}")() == "installed"
            assert getattr(lib, f"load_{way}")() == "installed"
            assert etl.names() == ("own", "own", "own")
        assert sys.modules["lib"] is lib
        assert (builtins.__import__, list(sys.meta_path), list(sys.path)) == before
    assert late(lib) == ["installed"] * len(WAYS)
    assert "etl" not in sys.modules


def test_an_installed_library_that_is_first_imported_by_a_run(machine: Path) -> None:
    made = bundle(machine / "project", {**PROJECT, "user.py": "import etl, client, lib\nNAME = lib.NAME"}, "user")
    write(machine / "site-packages", {"client.py": "import lib\nNAME = lib.load_absolute()"})
    importer = Importer(machine, made)
    with importer:
        user = importlib.import_module("user")
        assert (user.NAME, user.client.NAME) == ("own", "installed")
    assert late(importlib.import_module("lib")) == ["installed"] * len(WAYS)


def test_threads_import_at_once(machine: Path) -> None:
    importer = Importer(machine, bundle(machine / "project", PROJECT, "etl"))
    lib = importlib.import_module("lib")
    for _ in range(5):
        for name in [name for name in sys.modules if name.startswith(("lib.", "other"))]:
            del sys.modules[name]
        with importer:
            etl = importlib.import_module("etl")
            loaded: list[Any] = []
            looks = [etl.names, lambda: late(lib)] * 8
            threads = [threading.Thread(target=_append, args=(loaded, look)) for look in looks]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(30)
        assert len(loaded) == len(threads)
        assert {str(names) for names in loaded} == {str(("own",) * 3), str(["installed"] * len(WAYS))}


def test_a_file_that_the_program_did_not_import_takes_no_name(machine: Path) -> None:
    """It may be included for its content; its program imports the installed module of that name."""
    files = {"etl.py": "import importlib\nNAME = importlib.import_module('third').NAME", "third.py": "NAME = 'own'"}
    project = write(machine / "project", {**files, "plugin.py": "NAME = 'own'"})
    with on_path(project):
        sys.path.remove(str(project))
        sys.path.append(str(project))  # behind what is installed
        made = Bundler(python="3.11", limit=10**8).bundle(["etl"], Patterns(include=("*.py",)))
    assert made is not None
    assert [file.name for file in made.selection.files] == ["0/etl.py", "0/plugin.py", "0/third.py"]
    with Importer(machine, made):
        assert importlib.import_module("etl").NAME == "installed"
        assert importlib.import_module("plugin").NAME == "own"
    assert not {"etl", "plugin"} & sys.modules.keys()


def test_a_namespace_package_of_which_both_have_a_part(machine: Path) -> None:
    installed = importlib.import_module("space.installed")
    files = {"etl.py": "import space.own, space.installed", "space/own.py": "NAME = 'own'"}
    importer = Importer(machine, bundle(machine / "project", files, "etl"))
    for _ in range(2):
        with importer:
            importlib.import_module("etl")
            import space.own  # type: ignore[import-not-found]

            assert space.own.NAME == "own"
            assert sys.modules["space.installed"] is installed
        assert "space.own" not in sys.modules
        assert not hasattr(sys.modules["space"], "own")
        with pytest.raises(ImportError):
            importlib.import_module("space.own")


def test_a_flow_that_replaces_the_import_function(machine: Path) -> None:
    before = builtins.__import__
    with Importer(machine, bundle(machine / "project", PROJECT, "etl")):
        setattr(builtins, "__import__", print)  # noqa: B010 - of another type
    assert builtins.__import__ is before


def test_nothing_takes_part_in_imports_without_such_names(machine: Path) -> None:
    before = builtins.__import__, list(sys.meta_path)
    with Importer(machine, bundle(machine / "project", {"only_here.py": "import json"}, "only_here")):
        assert (builtins.__import__, list(sys.meta_path)) == before
