"""Modules of bundles are made of their checked sources, and of bytecode only if a process with the same key made it."""

from __future__ import annotations

import importlib
import os
import py_compile
import shutil
import sys
from importlib.util import cache_from_source
from pathlib import Path

import pytest

from dispatcher.code.activation import BundleImporter
from dispatcher.code.bundles import Bundle, Bundler
from dispatcher.code.bytecode import BytecodeStore
from dispatcher.code.cache import BundleCache
from dispatcher.errors import InvalidSettings
from tests.unit.code.projects import on_path, write

FILES = {"planted.py": "SAYS = 'bundle'\n", "pkg_planted/__init__.py": "", "pkg_planted/late.py": "SAYS = 'bundle'\n"}
KEY = b"k" * 32


@pytest.fixture(autouse=True)
def _writes_bytecode(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)


@pytest.fixture
def made(tmp_path: Path) -> Bundle:
    with on_path(write(tmp_path / "project", FILES)):
        bundle = Bundler(python="3.11", limit=10**6).bundle(["planted", "pkg_planted"])
    assert bundle is not None
    return bundle


class Process:
    """A process that imports from bundles, as far as a test can be one."""

    def __init__(self, directory: Path, made: Bundle, key: bytes | None = None) -> None:
        self._cache = BundleCache(directory, bytecode_key=key)
        self.importer = BundleImporter(self._cache, "3.11")
        self._made = made

    def __enter__(self) -> Path:
        self.importer.enter([self._made.digest], {self._made.digest: self._made.data}.__getitem__)
        return Path(sys.path[0])

    def __exit__(self, *_: object) -> None:
        self.importer.leave()
        self._cache.release()


def says(module: str) -> str:
    return str(importlib.import_module(module).SAYS)


def plant(place: Path, tmp_path: Path) -> list[Path]:
    """Put bytecode beside the modules, which Python would take without a look at the source."""
    source = write(tmp_path / "evil", {"evil.py": "SAYS = 'planted'"}) / "evil.py"
    compiled = py_compile.compile(str(source), invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
    assert compiled is not None
    planted = [Path(cache_from_source(str(place / name))) for name in FILES]
    for path in planted:
        path.parent.mkdir(exist_ok=True)
        shutil.copy(compiled, path)
    return planted


@pytest.mark.parametrize("key", [None, KEY])
def test_planted_bytecode_is_not_used(tmp_path: Path, made: Bundle, key: bytes | None) -> None:
    with Process(tmp_path / "cache", made, key) as place:
        planted = plant(place, tmp_path)
        assert (says("planted"), says("pkg_planted.late")) == ("bundle", "bundle")
    with Process(tmp_path / "cache", made, key):
        assert not any(path.exists() for path in planted), "a process that a flow starts could take it"
        assert (says("planted"), says("pkg_planted.late")) == ("bundle", "bundle")


def test_a_source_that_was_changed_after_the_check_is_not_imported(tmp_path: Path, made: Bundle) -> None:
    with Process(tmp_path / "cache", made) as place:
        assert says("planted") == "bundle"
        (place / "pkg_planted/late.py").chmod(0o600)
        (place / "pkg_planted/late.py").write_text("SAYS = 'changed'")
        with pytest.raises(ImportError, match=r"late\.py was changed after the code bundle was unpacked"):
            says("pkg_planted.late")


def test_a_module_that_the_flow_has_written_is_imported(tmp_path: Path, made: Bundle) -> None:
    with Process(tmp_path / "cache", made) as place:
        write(place, {"pkg_planted/generated.py": "SAYS = 'mine'"})
        assert says("pkg_planted.generated") == "mine"


def test_processes_with_the_same_key_compile_once(tmp_path: Path, made: Bundle) -> None:
    def import_all(key: bytes) -> dict[str, int]:
        with Process(tmp_path / "cache", made, key) as place:
            assert (says("planted"), says("pkg_planted.late")) == ("bundle", "bundle")
            files = (place.parents[1] / "bytecode").iterdir()
            return {path.name: path.stat().st_mtime_ns for path in files}

    first = import_all(KEY)
    assert len(first) == len(FILES)
    assert import_all(KEY) == first
    other = import_all(b"o" * 32)
    assert other.keys() == first.keys()
    assert not set(other.values()) & set(first.values())


def test_only_authentic_bytecode_is_opened(tmp_path: Path) -> None:
    store = BytecodeStore(tmp_path / "b", KEY)
    code = compile("1", "a.py", "exec")
    store.put("a.py", "0" * 64, code)
    assert store.get("a.py", "0" * 64) == code
    for path, digest in (("b.py", "0" * 64), ("a.py", "1" * 64)):
        assert store.get(path, digest) is None
    assert BytecodeStore(tmp_path / "b", b"o" * 32).get("a.py", "0" * 64) is None
    (file,) = (tmp_path / "b").iterdir()
    authentic = file.read_bytes()
    for content in (b"", authentic[:40], authentic[:-1], authentic[32:], b"\0" * 32 + authentic[32:]):
        file.write_bytes(content)
        assert store.get("a.py", "0" * 64) is None
    file.write_bytes(authentic)
    other = store._file("b.py", "0" * 64)
    shutil.copy(file, other)
    assert store.get("b.py", "0" * 64) is None, "it is another file's"


def test_python_may_be_told_to_write_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    BytecodeStore(tmp_path / "b", KEY).put("a.py", "0" * 64, compile("1", "a.py", "exec"))
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("name", [".", "bundle.zip", "files"])
def test_a_bundle_that_others_may_write_is_unpacked_again(tmp_path: Path, made: Bundle, name: str) -> None:
    with Process(tmp_path / "cache", made) as place:
        pass
    directory = place.parents[1]
    inode = directory.stat().st_ino
    (directory / name).chmod(0o777)
    with Process(tmp_path / "cache", made):
        assert directory.stat().st_ino != inode
        assert not (directory / name).stat().st_mode & 0o022


def test_a_cache_that_others_may_write_is_refused(tmp_path: Path, made: Bundle) -> None:
    (tmp_path / "cache").mkdir(mode=0o700)
    os.chmod(tmp_path / "cache", 0o770)  # noqa: PTH101
    with (
        pytest.raises(InvalidSettings, match=rf"{tmp_path}/cache: others may write .* chmod 700"),
        Process(tmp_path / "cache", made),
    ):
        pass
