"""The contract of storages."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dispatcher import (
    DockerStorage,
    InvalidFlow,
    InvalidInput,
    InvalidParameters,
    LocalEnvironment,
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
from dispatcher.storage.redis import _code_cache, _CodeCache
from tests.conformance.layers import in_its_image
from tests.site import module

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


@dataclass
class StorageCase:
    """A storage, and a module with flows that it can store."""

    storage: Storage
    flows: Any


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


@pytest.fixture(params=["memory", "redis", "local", "module", "docker"])
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StorageCase]:
    _code_cache.clear()
    with module(tmp_path, "flows_to_keep", SOURCE, installed=request.param == "module") as flows:
        match request.param:
            case "memory":
                with blobs_in_memory() as blobs:
                    yield StorageCase(bound(RedisStorage(), blobs), flows)
            case "redis":
                with blobs_in_redis(request.getfixturevalue("server_url")) as blobs:
                    yield StorageCase(bound(RedisStorage(), blobs), flows)
            case "local":
                yield StorageCase(LocalStorage(tmp_path / "made" / "for it"), flows)
            case "docker":
                yield StorageCase(in_its_image(tmp_path / "opt"), flows)
            case _:
                yield StorageCase(ModuleStorage(), flows)


def bound(storage: Storage, blobs: Blobs) -> Storage:
    storage.bind(blobs)
    return storage


def test_an_added_flow_is_found(case: StorageCase) -> None:
    location = case.storage.add_flow(case.flows.one)
    flow = case.storage.get_flow(location)
    assert isinstance(flow, Flow)
    assert flow.name == "the flow / one"
    assert flow(1) == 3
    assert case.storage.flows == {"the flow / one": location}
    assert "the flow / one" in case.storage
    assert "fails" not in case.storage
    assert case.flows.one not in case.storage
    if not isinstance(case.storage, DockerStorage):  # the only one for which this is work
        case.storage.check()
        assert case.storage.build() is case.storage
    assert LocalEnvironment().execute(case.storage, location, parameters={"a": 5}) == 7


def test_adding_again_gives_the_same_location(case: StorageCase) -> None:
    location = case.storage.add_flow(case.flows.one)
    assert {case.storage.add_flow(case.flows.one) for _ in range(3)} == {location}
    assert case.storage.add_flow(case.flows.fails) != location


def test_an_equal_storage_finds_the_flow(case: StorageCase) -> None:
    location = case.storage.add_flow(case.flows.one)
    data = json.loads(json.dumps(case.storage.to_json()))
    for other in (base.from_json(data), pickle.loads(pickle.dumps(case.storage))):
        assert other == case.storage
        assert hash(other) == hash(case.storage)
        assert repr(other) == repr(case.storage)
        assert other.flows == {}
        if isinstance(case.storage, RedisStorage):
            assert case.storage._blobs is not None
            other.bind(case.storage._blobs)
        assert other.get_flow(location)(1) == 3


def test_only_flows_are_added(case: StorageCase) -> None:
    wrongs: list[Any] = [case.flows.plain, None, "x"]
    for wrong in wrongs:
        with pytest.raises(InvalidFlow, match="not a flow"):
            case.storage.add_flow(wrong)


def test_an_unknown_location(case: StorageCase) -> None:
    for wrong in ("", "nowhere", "a.b:c", "0" * 64, f"x.flow#{'0' * 64}", f"../x.flow#{'0' * 64}"):
        with pytest.raises(InvalidInput, match=type(case.storage).__name__):
            case.storage.get_flow(wrong)


def test_the_runner_runs_a_flow_in_its_own_process(case: StorageCase, capfd: pytest.CaptureFixture[str]) -> None:
    location = case.storage.add_flow(case.flows.one)
    if isinstance(case.storage, RedisStorage):
        with pytest.raises(InvalidInput, match="RedisStorage has no runner of its own"):
            case.storage.get_env_runner(location)
        return
    if isinstance(case.storage, DockerStorage):  # its runner is a container: tests/integration/test_docker_storage.py
        with pytest.raises(InvalidInput, match="it isn't built: call build"):
            case.storage.get_env_runner(location)
        return
    run = case.storage.get_env_runner(location)
    assert run({"DISPATCHER__PARAMETERS": '{"a": 3, "b": 4}'}) == 7
    assert "noise on stdout" in capfd.readouterr().out
    with pytest.raises(InvalidParameters, match="missing parameter 'a'"):
        run({})
    for wrong in ("[1]", "{"):
        with pytest.raises(InvalidParameters, match="DISPATCHER__PARAMETERS"):
            run({"DISPATCHER__PARAMETERS": wrong})


@pytest.fixture(params=["local", "module"])
def runs(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[str], Callable[..., Any]]]:
    with module(tmp_path, "flows_to_run", SOURCE, installed=request.param == "module") as flows:
        storage = LocalStorage(tmp_path / "kept") if request.param == "local" else ModuleStorage()
        yield lambda name: storage.get_env_runner(storage.add_flow(getattr(flows, name)))


def test_the_runner_s_environment_variables(runs: Callable[[str], Callable[..., Any]]) -> None:
    names, pid = runs("variables")({"ONLY": "this"})
    assert "ONLY" in names
    assert not set(names) & {"PATH", "HOME"}
    assert pid != os.getpid()


def test_ends_of_a_flow_in_the_runner(runs: Callable[[str], Callable[..., Any]]) -> None:
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
    """Counts calls that it forwards, and changes a byte on request."""

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
    _code_cache.clear()
    with blobs_in_memory() as blobs:
        yield Counted(blobs)


def test_adding_a_flow_many_times_stores_one_blob(counted: Counted) -> None:
    assert RedisStorage.shared_blob
    for _ in range(200):
        bound(RedisStorage(), counted).add_flow(here)
    assert len(counted.shared) == 1


def test_code_is_read_once_and_unpickled_each_time(counted: Counted) -> None:
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


def test_the_cache_of_flows_is_bounded() -> None:
    recent = _CodeCache(max_bytes=10)
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


def test_an_unbound_storage_names_the_remedy() -> None:
    with pytest.raises(InvalidInput, match="isn't connected: submit with a Dispatcher"):
        RedisStorage().add_flow(here)


# -- LocalStorage


def test_a_file_is_named_after_flow_and_digest(tmp_path: Path) -> None:
    storage = LocalStorage(str(tmp_path))
    location = storage.add_flow(flow(name="../etc/pass wd")(here.fn))
    (file,) = tmp_path.iterdir()
    digest = location.partition("#")[2]
    assert file.name == f"_etc_pass_wd-{digest[:16]}.flow"
    assert location == f"{file.name}#{digest}"
    assert Flow.load(file).name == "../etc/pass wd"


def test_a_changed_file_is_not_opened_and_replaced_by_adding(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    location = storage.add_flow(here)
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(SealBroken, match="was changed"):
        storage.get_flow(location)
    assert storage.add_flow(here) == location
    assert storage.get_flow(location)() == 1


def test_missing_and_unusable_directories_are_distinguished(tmp_path: Path) -> None:
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


def test_a_file_without_a_flow(tmp_path: Path) -> None:
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


def test_a_module_that_cannot_be_imported_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_storages_of_different_classes_differ() -> None:
    assert RedisStorage() != ModuleStorage()
    assert {RedisStorage(), RedisStorage(), ModuleStorage()} == {RedisStorage(), ModuleStorage()}
