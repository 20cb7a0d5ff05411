"""Unpacked bundles: once per digest, whole, private, checked, and bounded; two processes don't meet."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from dispatcher.code.activation import BundleImporter
from dispatcher.code.bundles import Bundle, Bundler
from dispatcher.code.cache import UNUSED_FOR, BundleCache
from dispatcher.errors import InvalidInput, Malformed, Permanent, SealBroken
from tests.unit.code.projects import on_path, write

Fetch = Callable[[str], bytes]


def bundle(directory: Path, files: dict[str, Any]) -> Bundle:
    with on_path(write(directory, files)):
        made = Bundler(python="3.11", limit=10**8).bundle([next(iter(files)).split("/")[0].removesuffix(".py")])
    assert made is not None
    return made


@pytest.fixture
def made(tmp_path: Path) -> Bundle:
    return bundle(tmp_path / "project", {"helper.py": "import os\nWHERE = __file__\n"})


@pytest.fixture
def cache(tmp_path: Path) -> BundleCache:
    return BundleCache(tmp_path / "cache")


def never(digest: str) -> bytes:
    raise AssertionError(f"fetched {digest}")


def test_it_is_fetched_and_unpacked_once(cache: BundleCache, made: Bundle, tmp_path: Path) -> None:
    unpacked = cache.get(made.digest, {made.digest: made.data}.__getitem__)
    assert (Path(unpacked.paths[0]) / "helper.py").read_text().startswith("import os")
    assert unpacked.modules == {"helper"}
    assert cache.get(made.digest, never) is unpacked
    assert BundleCache(tmp_path / "cache").get(made.digest, never) == unpacked
    assert stat.S_IMODE((tmp_path / "cache").stat().st_mode) == 0o700


def test_what_was_changed_on_disk_is_not_used(cache: BundleCache, made: Bundle, tmp_path: Path) -> None:
    fetch = {made.digest: made.data}.__getitem__
    path = Path(cache.get(made.digest, fetch).paths[0]) / "helper.py"
    path.chmod(0o600)
    path.write_text("import evil")
    again = BundleCache(tmp_path / "cache").get(made.digest, fetch)
    assert (Path(again.paths[0]) / "helper.py").read_text().startswith("import os")


def test_a_module_that_was_added_is_a_change_and_a_data_file_is_none(
    cache: BundleCache, made: Bundle, tmp_path: Path
) -> None:
    fetch = {made.digest: made.data}.__getitem__
    place = Path(cache.get(made.digest, fetch).paths[0])
    write(place, {"helper.cache.json": "{}"})
    assert BundleCache(tmp_path / "cache").get(made.digest, never)
    for name in ("helper/__init__.py", "json.py", "old.pyc", "helper.cpython-311-x86_64-linux-gnu.so"):
        write(place, {name: "raise SystemExit"})
        BundleCache(tmp_path / "cache").get(made.digest, fetch)
        assert not (place / name).exists()
        assert (place / "helper.py").exists(), "a process that uses it finds its files"


def test_compiled_code_beside_it_is_no_change(cache: BundleCache, made: Bundle, tmp_path: Path) -> None:
    unpacked = cache.get(made.digest, {made.digest: made.data}.__getitem__)
    write(Path(unpacked.paths[0]), {"__pycache__/helper.cpython-311.pyc": b"x"})
    assert BundleCache(tmp_path / "cache").get(made.digest, never) == unpacked


@pytest.mark.parametrize("digest", ["", "../../etc", "0" * 63, "G" * 64])
def test_what_is_no_digest_becomes_no_path(cache: BundleCache, digest: str) -> None:
    with pytest.raises(InvalidInput):
        cache.get(digest, never)


def test_what_is_gone_changed_or_no_bundle(cache: BundleCache, made: Bundle, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="none under"):
        cache.get("0" * 64, dict[str, bytes]().__getitem__)
    with pytest.raises(SealBroken):
        cache.get("0" * 64, lambda _: made.data)
    from hashlib import sha256

    with pytest.raises(Malformed):
        cache.get(sha256(b"x").hexdigest(), lambda _: b"x")
    assert [path.name for path in (tmp_path / "cache").iterdir() if not path.name.endswith(".lock")] == []


def test_the_least_recently_used_go(tmp_path: Path) -> None:
    cache = BundleCache(tmp_path / "cache", most_bytes=250_000, clock=lambda: 10.0)
    made = [bundle(tmp_path / f"p{n}", {"helper.py": f"x = {n}", "data.bin": os.urandom(50_000)}) for n in range(5)]
    fetch = {packed_bundle.digest: packed_bundle.data for packed_bundle in made}.__getitem__
    for packed_bundle in made:
        cache.get(packed_bundle.digest, fetch)
        cache.release()
        os.utime(tmp_path / "cache" / packed_bundle.digest, (made.index(packed_bundle), made.index(packed_bundle)))
    held = BundleCache(tmp_path / "cache", most_bytes=250_000, clock=lambda: 10.0)
    held.get(made[0].digest, fetch)
    os.utime(tmp_path / "cache" / made[0].digest, (0, 0))
    cache.trim()
    left = {path.name for path in (tmp_path / "cache").iterdir() if not path.name.endswith(".lock")}
    assert made[0].digest in left, "another one uses it"
    assert made[4].digest in left
    assert made[1].digest not in left


def test_what_no_process_has_used_for_an_hour_goes(tmp_path: Path) -> None:
    made = [bundle(tmp_path / f"p{n}", {"helper.py": f"x = {n}"}) for n in range(3)]
    fetch = {packed_bundle.digest: packed_bundle.data for packed_bundle in made}.__getitem__
    cache = BundleCache(tmp_path / "cache")
    for packed_bundle in made:
        cache.get(packed_bundle.digest, fetch)
    cache.release(keep=frozenset({made[0].digest}))
    with pytest.raises(InvalidInput):
        cache.get("0" * 64, dict[str, bytes]().__getitem__)
    (tmp_path / "cache" / ".0123-killed").mkdir()
    now = (tmp_path / "cache" / made[2].digest).stat().st_mtime
    BundleCache(tmp_path / "cache", clock=lambda: now + UNUSED_FOR - 60).trim()
    assert len(list((tmp_path / "cache").iterdir())) == 8
    BundleCache(tmp_path / "cache", clock=lambda: now + UNUSED_FOR + 60).trim()
    left = {path.name for path in (tmp_path / "cache").iterdir()}
    assert left == {made[0].digest, f"{made[0].digest}.lock"}
    assert cache.get(made[1].digest, fetch).modules == {"helper"}


def _use(directory: Path, made: list[Bundle], rounds: int, results: Any) -> None:
    cache = BundleCache(directory, most_bytes=1)  # each bundle that is unpacked removes all that aren't in use
    fetch = {packed_bundle.digest: packed_bundle.data for packed_bundle in made}.__getitem__
    missing = 0
    for number in range(rounds):
        packed_bundle = made[(number * 7 + os.getpid()) % len(made)]
        cache.release()
        place = Path(cache.get(packed_bundle.digest, fetch).paths[0])
        missing += not (place / "helper.py").exists()
    results.put(missing)


def test_nothing_in_use_is_removed_by_another_process(tmp_path: Path) -> None:
    made = [bundle(tmp_path / f"p{n}", {"helper.py": f"x = {n}"}) for n in range(4)]
    forks = multiprocessing.get_context("fork")
    results = forks.Queue()
    processes = [forks.Process(target=_use, args=(tmp_path / "c", made, 60, results)) for _ in range(4)]
    for process in processes:
        process.start()
    assert [results.get(timeout=60) for _ in processes] == [0] * 4
    for process in processes:
        process.join(30)
    assert len(list((tmp_path / "c").iterdir())) <= 2 * len(made)


def _unpack(directory: Path, made: Bundle, start: Any, results: Any) -> None:
    fetched = []

    def fetch(digest: str) -> bytes:
        fetched.append(digest)
        return made.data

    start.wait()
    unpacked = BundleCache(directory).get(made.digest, fetch)
    results.put((os.path.exists(unpacked.paths[0] + "/helper.py"), len(fetched)))  # noqa: PTH110


def test_processes_that_unpack_at_once_do_not_meet(made: Bundle, tmp_path: Path) -> None:
    forks = multiprocessing.get_context("fork")
    start, results = forks.Event(), forks.Queue()
    processes = [forks.Process(target=_unpack, args=(tmp_path / "c", made, start, results)) for _ in range(6)]
    for process in processes:
        process.start()
    start.set()
    assert [results.get(timeout=30)[0] for _ in processes] == [True] * 6
    for process in processes:
        process.join(30)
    assert [path.name for path in (tmp_path / "c").iterdir() if path.name.startswith(".")] == []


def test_threads_may_unpack_different_bundles(tmp_path: Path) -> None:
    made = [bundle(tmp_path / f"p{number}", {"helper.py": f"x = {number}"}) for number in range(4)]
    fetch = {packed_bundle.digest: packed_bundle.data for packed_bundle in made}.__getitem__
    threads = [
        threading.Thread(
            target=lambda packed_bundle=packed_bundle: BundleCache(tmp_path / "c").get(packed_bundle.digest, fetch)
        )
        for packed_bundle in made
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len([path for path in (tmp_path / "c").iterdir() if path.is_dir()]) == 4


def test_a_process_imports_from_it_and_forgets_it(tmp_path: Path, cache: BundleCache) -> None:
    source = "import helper\ndef load():\n    import later\n    helper.COUNT += 1\n    return later.X, helper.COUNT"
    files = {"yaml.py": source, "helper.py": "COUNT = 0"}
    first = bundle(tmp_path / "a", {**files, "later.py": "X = 1"})
    second = bundle(tmp_path / "b", {**files, "later.py": "X = 2"})
    fetch = {packed_bundle.digest: packed_bundle.data for packed_bundle in (first, second)}.__getitem__
    import sys

    import yaml

    importer = BundleImporter(cache, "3.11")
    path = list(sys.path)
    for made, expected in ((first, (1, 1)), (first, (1, 2)), (second, (2, 1)), (first, (1, 1))):
        importer.enter([made.digest], fetch)
        import yaml as project

        assert project is not yaml
        assert project.load() == expected
        importer.leave()
        assert sys.modules["yaml"] is yaml
        assert not {"helper", "later"} & sys.modules.keys()
        assert sys.path == path
    importer.enter([], fetch)
    assert sys.path == path


def test_another_python_is_told(cache: BundleCache, made: Bundle) -> None:
    importer = BundleImporter(cache, "3.99")
    with pytest.raises(Permanent, match=r"Python 3\.11, but this process runs Python 3\.99"):
        importer.enter([made.digest], {made.digest: made.data}.__getitem__)


def test_modules_that_came_between_two_runs_step_aside(tmp_path: Path, cache: BundleCache) -> None:
    import sys

    made = bundle(tmp_path / "a", {"helper.py": "X = 1", "later.py": "X = 2"})
    fetch = {made.digest: made.data}.__getitem__
    importer = BundleImporter(cache, "3.11")
    other = ModuleType("helper")
    try:
        for before in ({}, {"helper": other, "helper.below": other}, {}):
            sys.modules.update(before)
            importer.enter([made.digest], fetch)
            assert importlib.import_module("helper").X == 1
            assert "helper.below" not in sys.modules
            sys.modules["helper.late"] = other  # by the flow
            importer.leave()
            assert {name: sys.modules.get(name) for name in ("helper", "helper.below", "helper.late")} == {
                "helper": before.get("helper"),
                "helper.below": before.get("helper.below"),
                "helper.late": None,
            }
            for name in before:
                del sys.modules[name]
    finally:
        for name in ("helper", "helper.below", "helper.late"):
            sys.modules.pop(name, None)


def test_a_packed_bundleknows_its_size(tmp_path: Path, made: Bundle, cache: BundleCache) -> None:
    cache.get(made.digest, {made.digest: made.data}.__getitem__)
    size = int((tmp_path / "cache" / made.digest / "size").read_text())
    assert size > len(made.data) + sum(file.size for file in made.selection.files) - 1


def _get_and_close(cache: BundleCache, made: Bundle) -> None:
    cache.get(made.digest, lambda _: made.data)
    cache.close()


def test_a_temporary_directory_is_made_for_the_first_bundle_and_removed(
    tmp_path: Path, made: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    before = set(tmp_path.iterdir())
    cache = BundleCache()
    cache.trim()
    cache.close()
    assert set(tmp_path.iterdir()) == before
    cache.get(made.digest, lambda _: made.data)
    (directory,) = set(tmp_path.iterdir()) - before
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    fork = multiprocessing.get_context("fork").Process(target=_get_and_close, args=(cache, made))
    fork.start()
    fork.join(30)
    assert fork.exitcode == 0
    assert directory.exists(), "it is its parent's"
    cache.close()
    assert set(tmp_path.iterdir()) == before
