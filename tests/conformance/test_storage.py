"""The contract of every storage, wherever it keeps flows."""

from __future__ import annotations

import os
import pickle
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from dispatcher import (
    InvalidFlow,
    InvalidInput,
    LocalStorage,
    ModuleStorage,
    RedisStorage,
    SealBroken,
    flow,
)
from dispatcher.flows.flow import Flow
from dispatcher.records.blobs import Blobs
from dispatcher.records.memory import open_memory
from dispatcher.records.redis import open_redis
from dispatcher.serialization import pack
from dispatcher.storage import base
from dispatcher.storage.answer import ChildDied
from dispatcher.storage.base import Storage
from dispatcher.storage.code_cache import CodeCache, code_cache
from dispatcher.testing import StorageContract, StorageService
from dispatcher.testing.modules import module
from tests.conformance.layers import in_its_image
from tests.installed_plugin import installed

SOURCE = """
    import os
    from dispatcher import flow
    @flow(name="the flow / one")
    def one(a, b=2):
        print("noise on stdout")
        return a + b
    @flow
    def fails():
        raise LookupError("inside")
    @flow
    def dies():
        os._exit(3)
    @flow
    def variables():
        return sorted(os.environ), os.getpid()
    @flow
    def unpicklable():
        return (n for n in range(2))
    hidden = [one]
    def plain(): pass
"""


@contextmanager
def blobs_in_memory() -> Iterator[Blobs]:
    records = open_memory()
    try:
        yield records.blobs
    finally:
        records.close()


@contextmanager
def blobs_in_redis(url: str) -> Iterator[Blobs]:
    records = open_redis(url)
    try:
        yield records.blobs
    finally:
        records.close()


def bound(storage: Storage, blobs: Blobs) -> Storage:
    storage.bind(blobs)
    return storage


class PickledStorageContract(StorageContract):
    """The contract, and a copy that travelled as a pickle: environments and programs of users hold storages."""

    def test_an_unpickled_one_finds_it(self, service: StorageService, flows: ModuleType) -> None:
        storage = service.storage
        location = storage.add_flow(flows.add)
        another = pickle.loads(pickle.dumps(storage))
        assert another == storage
        assert hash(another) == hash(storage)
        assert repr(another) == repr(storage)
        assert another.flows == {}
        service.prepare(another)
        assert another.get_flow(location)(1) == 3


class TestRedisStorage(PickledStorageContract):
    @pytest.fixture(params=["memory", "redis"])
    def service(self, request: pytest.FixtureRequest) -> Iterator[StorageService]:
        code_cache.clear()
        opened = (
            blobs_in_memory() if request.param == "memory" else blobs_in_redis(request.getfixturevalue("server_url"))
        )
        with opened as blobs:
            yield StorageService(storage=bound(RedisStorage(), blobs), prepare=lambda storage: bound(storage, blobs))

    def test_it_has_no_runner(self, service: StorageService, flows: ModuleType) -> None:
        with pytest.raises(InvalidInput, match="RedisStorage has no runner of its own"):
            service.storage.get_env_runner(service.storage.add_flow(flows.add))


class TestPluginsStorage(PickledStorageContract):
    """The storage of a distribution of its own, which its authors' page shows."""

    @pytest.fixture
    def service(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StorageService:
        monkeypatch.syspath_prepend(str(installed().target))
        from dispatcher_processes.storage import SqliteStorage

        file = tmp_path / "flows.db"

        def damage(location: str) -> None:
            with closing(sqlite3.connect(file)) as connection, connection:
                connection.execute("UPDATE flows SET code = x'00' WHERE location = ?", (location,))

        return StorageService(storage=SqliteStorage(file), damage=damage)


class TestLocalStorage(PickledStorageContract):
    @pytest.fixture
    def service(self, tmp_path: Path) -> StorageService:
        directory = tmp_path / "made" / "for it"

        def damage(location: str) -> None:
            file = directory / location.partition("#")[0]
            file.write_bytes(file.read_bytes()[:-1] + b"x")

        return StorageService(storage=LocalStorage(directory), damage=damage, runs=True)


class TestDockerStorage(PickledStorageContract):
    """As inside of its image: its runner is a container, for which see tests/integration/test_docker_storage.py."""

    @pytest.fixture
    def service(self, tmp_path: Path) -> StorageService:
        def damage(location: str) -> None:
            file = Path(location.partition("#")[0])
            file.write_bytes(file.read_bytes()[:-1] + b"x")

        return StorageService(storage=in_its_image(tmp_path / "opt"), damage=damage, ready=False)

    def test_its_runner_needs_a_build(self, service: StorageService, flows: ModuleType) -> None:
        with pytest.raises(InvalidInput, match="it isn't built: call build"):
            service.storage.get_env_runner(service.storage.add_flow(flows.add))


class TestModuleStorage(PickledStorageContract):
    @pytest.fixture
    def service(self) -> StorageService:
        return StorageService(storage=ModuleStorage(), installed=True, runs=True)


@pytest.fixture(params=["local", "module"])
def runs(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[str], Callable[..., Any]]]:
    with module(tmp_path, "flows_to_run", SOURCE, installed=request.param == "module") as flows:
        storage = LocalStorage(tmp_path / "kept") if request.param == "local" else ModuleStorage()
        yield lambda name: storage.get_env_runner(storage.add_flow(getattr(flows, name)))


def test_the_runners_variables_are_those_given(runs: Callable[[str], Callable[..., Any]]) -> None:
    names, pid = runs("variables")({"ONLY": "this"})
    assert "ONLY" in names
    assert not set(names) & {"PATH", "HOME"}
    assert pid != os.getpid()


def test_output_of_the_flow_is_output_of_its_caller(
    runs: Callable[[str], Callable[..., Any]], capfd: pytest.CaptureFixture[str]
) -> None:
    assert runs("one")({"DISPATCHER__PARAMETERS": '{"a": 1}'}) == 3
    assert "noise on stdout" in capfd.readouterr().out


def test_how_a_flow_ends_in_the_runner(runs: Callable[[str], Callable[..., Any]]) -> None:
    with pytest.raises(LookupError, match="inside"):
        runs("fails")(os.environ)
    with pytest.raises(ChildDied, match="exit code 3"):
        runs("dies")(os.environ)
    with pytest.raises(ChildDied, match="can't travel"):
        runs("unpicklable")(os.environ)


# -- RedisStorage


@flow
def here(a: int = 1) -> int:
    return a


class Counted(Blobs):
    """Counts what goes through to others, and changes a byte when told to."""

    def __init__(self, inner: Blobs) -> None:
        self.inner, self.shared, self.read, self.damaged = inner, set[str](), 0, False

    def share(self, data: bytes, digest: str = "") -> str:
        digest = self.inner.share(data, digest)
        self.shared.add(digest)
        return digest

    def own(self, run_id: str, name: str, data: bytes) -> str:
        return self.inner.own(run_id, name, data)

    def get(self, name: str) -> bytes:
        self.read += 1
        data = self.inner.get(name)
        return data[:-1] + bytes([data[-1] ^ 1]) if self.damaged else data

    def has(self, name: str) -> bool:
        return self.inner.has(name)


@pytest.fixture
def counted() -> Iterator[Counted]:
    code_cache.clear()
    with blobs_in_memory() as blobs:
        yield Counted(blobs)


def test_many_adds_of_one_flow_leave_one_blob(counted: Counted) -> None:
    assert RedisStorage.shared_blob
    for _ in range(200):
        bound(RedisStorage(), counted).add_flow(here)
    assert len(counted.shared) == 1


def test_code_read_once_is_opened_anew_each_time(counted: Counted) -> None:
    storage = bound(RedisStorage(), counted)
    location = storage.add_flow(here)
    first, second = storage.get_flow(location), storage.get_flow(location)
    assert first is not second
    assert counted.read == 1


def test_code_that_was_changed_is_not_opened(counted: Counted) -> None:
    storage = bound(RedisStorage(), counted)
    location = storage.add_flow(here)
    counted.damaged = True
    for _ in range(2):
        with pytest.raises(SealBroken, match="was changed"):
            storage.get_flow(location)


def test_what_is_kept_in_this_process_is_bounded() -> None:
    recent = CodeCache(max_bytes=10)
    recent.put("a", b"12345")
    recent.put("b", b"12345")
    assert recent.get("a") == b"12345"
    recent.put("c", b"1")
    assert (recent.get("a"), recent.get("b"), recent.get("c")) == (b"12345", None, b"1")
    recent.put("d", b"x" * 11)
    assert recent.get("d") is None


def test_a_flow_too_large_names_size_limit_and_remedy(counted: Counted) -> None:
    big = os.urandom(5000)
    large = flow(lambda: big)
    storage = RedisStorage()
    storage.bind(counted, limit=4000)
    with pytest.raises(InvalidFlow, match=r"its code is [56],\d+ bytes, at most 4,000 .*DISPATCHER__LIMITS__FLOW"):
        storage.add_flow(large)
    storage.add_flow(here)


def test_not_connected_it_names_the_remedy() -> None:
    with pytest.raises(InvalidInput, match="isn't connected: submit with a Dispatcher"):
        RedisStorage().add_flow(here)


# -- LocalStorage


def test_a_file_that_was_changed_says_so_with_the_remedy(tmp_path: Path) -> None:
    storage = LocalStorage(str(tmp_path))
    location = storage.add_flow(here)
    file = tmp_path / location.partition("#")[0]
    file.write_bytes(file.read_bytes() + b"x")
    with pytest.raises(SealBroken, match=r"\.flow was changed since it was submitted .*: submit the flow again"):
        storage.get_flow(location)
    assert storage.get_flow(storage.add_flow(here))


def test_a_file_is_named_after_flow_and_digest(tmp_path: Path) -> None:
    storage = LocalStorage(str(tmp_path))
    location = storage.add_flow(flow(name="../etc/pass wd")(here.fn))
    (file,) = tmp_path.iterdir()
    digest = location.partition("#")[2]
    assert file.name == f"_etc_pass_wd-{digest[:16]}.flow"
    assert location == f"{file.name}#{digest}"
    assert Flow.load(file).name == "../etc/pass wd"


def test_a_file_that_was_changed_is_not_opened_and_mended_by_adding(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    location = storage.add_flow(here)
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(SealBroken, match="was changed"):
        storage.get_flow(location)
    assert storage.add_flow(here) == location
    assert storage.get_flow(location)() == 1


def test_missing_and_unusable_places_are_told_apart(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path / "dir")
    location = storage.add_flow(here)
    (tmp_path / "dir" / location.partition("#")[0]).unlink()
    with pytest.raises(InvalidInput, match="the directory is there, the file isn't"):
        storage.get_flow(location)
    with pytest.raises(InvalidInput, match="there is no such directory"):
        LocalStorage(tmp_path / "other").get_flow(location)
    (tmp_path / "file").touch()
    with pytest.raises(InvalidInput, match=r"can't write .*file"):
        LocalStorage(tmp_path / "file").add_flow(here)
    with pytest.raises(InvalidInput, match=r"can't read .*file"):
        LocalStorage(tmp_path / "file").get_flow(location)


def test_a_file_that_holds_something_else(tmp_path: Path) -> None:
    import hashlib

    data = pack([1], subject="a list")
    (tmp_path / "x.flow").write_bytes(data)
    with pytest.raises(InvalidFlow, match=r"x\.flow holds no flow but list"):
        LocalStorage(tmp_path).get_flow(f"x.flow#{hashlib.sha256(data).hexdigest()}")


def test_directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert LocalStorage("a").directory == str(tmp_path / "a")
    assert LocalStorage("~/a") == LocalStorage(Path("a")) != LocalStorage("b")
    assert repr(LocalStorage("/a")) == "LocalStorage(directory='/a')"
    for wrong in ("", None, 3):
        with pytest.raises(InvalidInput, match="directory: must be a path"):
            LocalStorage(wrong)  # type: ignore[arg-type]


# -- ModuleStorage


def test_a_module_that_others_cannot_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = ModuleStorage()
    local = flow(lambda: 1)
    with pytest.raises(InvalidFlow, match="isn't this flow: give it a module-level name"):
        storage.add_flow(local)
    with module(tmp_path, "flows_by_name", SOURCE) as flows:
        assert storage.add_flow(flows.one) == "flows_by_name:one"
        former = flows.one
        monkeypatch.setattr(flows, "one", flows.fails)
        with pytest.raises(InvalidFlow, match="flows_by_name:one isn't this flow"):
            storage.add_flow(former)
        with pytest.raises(InvalidFlow, match="not a flow"):
            storage.get_flow("flows_by_name:plain")
        with pytest.raises(InvalidInput, match="'flows_by_name' has no 'two'"):
            storage.get_flow("flows_by_name:two")
    with pytest.raises(InvalidInput, match="can't import 'flows_by_name'"):
        storage.get_flow("flows_by_name:one")
    main = flow(lambda: 1)
    main.fn.__module__ = "__main__"
    with pytest.raises(InvalidFlow, match="no other process can import: move it to a module"):
        storage.add_flow(main)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({}, "with a 'type'"),
        ("RedisStorage", "with a 'type'"),
        (
            {"type": "NoStorage"},
            "unknown storage 'NoStorage'; known: DockerStorage, LocalStorage, ModuleStorage, RedisStorage",
        ),
        ({"type": "RedisStorage", "url": "x"}, r"RedisStorage: needs \[\], got \['url'\]"),
        ({"type": "LocalStorage"}, r"LocalStorage: needs \['directory'\]"),
    ],
)
def test_wrong_json_is_named(data: Any, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        base.from_json(data)


def test_kinds_differ() -> None:
    assert RedisStorage() != ModuleStorage()
    assert {RedisStorage(), RedisStorage(), ModuleStorage()} == {RedisStorage(), ModuleStorage()}
