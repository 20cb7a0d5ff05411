"""Workers refuse runs that were changed, that were signed by others, or that can't be opened there."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from dispatcher import (
    Cause,
    Dispatcher,
    FlowFailed,
    InvalidInput,
    LocalEnvironment,
    RedisStorage,
    RemoteEnvironment,
    Run,
    RunCrashed,
    State,
    flow,
)
from dispatcher.flows.flow import Flow
from dispatcher.settings import Settings
from dispatcher.support.interpreter import PYTHON
from dispatcher.testing.modules import module
from tests.integration.workers import KEYS, Worker

pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("ignore:No live worker")]

StartWorker = Callable[..., Worker]


@flow
def mark(path: str, value: Any = None) -> str:
    Path(path).touch()
    return "ran"


@pytest.fixture
def client(server_url: str) -> Iterator[Dispatcher]:
    with Dispatcher(settings=Settings.load(url=server_url, signing_keys=json.dumps(KEYS))) as dispatcher:
        yield dispatcher


@pytest.fixture
def redis_client(server_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(server_url) as connection:
        yield connection


def crash_of(run: Run[Any]) -> RunCrashed:
    """Return the error of a run that could not be opened: a configuration error with its reason."""
    error = run.exception(timeout=30)
    assert isinstance(error, RunCrashed)
    assert error.cause is Cause.CONFIG_ERROR
    assert len([event for event in run.events() if event.final]) == 1
    return error


@pytest.mark.row(34)
def test_runs_that_were_changed_by_one_byte(
    client: Dispatcher, redis_client: redis.Redis, start_worker: StartWorker, tmp_path: Path
) -> None:
    called = tmp_path / "called"
    leave = LocalEnvironment(on_exit=called.touch)
    record_changed = client.submit(mark, {"path": str(tmp_path / "record")}, environment=leave)
    value_changed = client.submit(mark, {"path": str(tmp_path / "value"), "value": b"x" * 10**6})
    code_changed = client.submit(flow(lambda path: Path(path).touch()), {"path": str(tmp_path / "code")})
    spec = client.records.runs.get(record_changed.id)[0].spec_bytes
    assert _flip(redis_client, spec) == 1
    for run, name in ((value_changed, "parameters"), (code_changed, "location")):
        stored = client.records.runs.get(run.id)[0].spec
        digest = stored.location if name == "location" else stored.parameters.blob
        assert _flip(redis_client, client.records.blobs.get(str(digest))) == 1
    start_worker()
    assert "changed on its way" in str(crash_of(record_changed))
    assert "was changed" in str(crash_of(value_changed))
    assert "was changed" in str(crash_of(code_changed))
    assert list(tmp_path.glob("[!w]*")) == []  # neither flows nor callback left anything
    assert record_changed.timeline().end == State.CRASHED


def _flip(redis_client: redis.Redis, data: bytes) -> int:
    """Change the last letter or digit of ``data`` wherever the server stores it."""
    at = max(index for index, byte in enumerate(data) if chr(byte).isalnum())
    other = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
    changed = 0
    for key in redis_client.scan_iter():
        kind = redis_client.type(key)
        if kind == b"string" and redis_client.get(key) == data:
            redis_client.set(key, other)
            changed += 1
        elif kind == b"hash":
            for name, value in redis_client.hgetall(key).items():
                if value == data:
                    redis_client.hset(key, name, other)
                    changed += 1
    return changed


@pytest.mark.row(34)
@pytest.mark.parametrize("keys", [{"k2": "a secret of somebody else's"}, {"k1": "a secret of somebody else's"}])
def test_a_worker_with_another_key(
    client: Dispatcher, start_worker: StartWorker, tmp_path: Path, keys: dict[str, str]
) -> None:
    run = client.submit(mark, {"path": str(tmp_path / "ran")})
    start_worker(environ={"DISPATCHER__SIGNING_KEYS": json.dumps(keys)})
    assert "key 'k1'" in str(crash_of(run))
    assert not (tmp_path / "ran").exists()


def other_python(data: bytes) -> bytes:
    """Return the same object as sealed by another Python version."""
    header, _, body = data.partition(b"\n")
    return json.dumps({**json.loads(header), "python": "3.9"}).encode() + b"\n" + body


def test_another_python_minor_version(client: Dispatcher, start_worker: StartWorker, tmp_path: Path) -> None:
    class Elsewhere(RedisStorage):
        def add_code(self, flow: Flow[..., Any]) -> str:
            data = other_python(self._bound_blobs().get(super().add_code(flow)))
            assert hashlib.sha256(data).hexdigest() == self._bound_blobs().share(data)
            return hashlib.sha256(data).hexdigest()

        def to_json(self) -> dict[str, Any]:
            return RedisStorage().to_json()

    class Leave(LocalEnvironment):
        def to_json(self) -> dict[str, Any]:
            data = super().to_json()
            sealed = other_python(base64.b64decode(data["on_exit"]["sealed"]))
            return {**data, "type": "LocalEnvironment", "on_exit": {"sealed": base64.b64encode(sealed).decode()}}

        def check(self) -> None: ...

    start_worker()
    run = client.submit(mark, {"path": str(tmp_path / "ran")}, storage=Elsewhere())
    assert f"sealed under Python 3.9, but this process runs Python {PYTHON}" in str(crash_of(run))
    assert not (tmp_path / "ran").exists()
    left = client.submit(mark, {"path": str(tmp_path / "ran")}, environment=Leave(on_exit=lambda: None))
    assert left.result(timeout=30) == "ran"
    assert [event.data["on_exit"] for event in left.events() if event.final] == ["raised"]
    assert "sealed under Python 3.9" in "".join(line.text for line in left.logs())


class Unregistered(RedisStorage):
    """A storage that no distribution registers."""


class LocalStorage(RedisStorage):
    """A storage with the name of another."""


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Unregistered, r"unknown storage 'Unregistered'; known: .* \(register Unregistered as an entry point of the "),
        (LocalStorage, "LocalStorage: another class is registered under this name; register LocalStorage as an entry "),
    ],
)
def test_a_storage_that_no_worker_could_find_is_refused_at_submit(
    client: Dispatcher, kind: type[RedisStorage], message: str
) -> None:
    with pytest.raises(InvalidInput, match=f"{message}.*'dispatcher.storages'"):
        client.submit(mark, {"path": ""}, storage=kind())
    with pytest.raises(InvalidInput, match=message):
        client.submit(flow(storage=kind())(lambda: 1))
    assert list(client.runs()) == []


def test_what_the_worker_lacks_is_named(client: Dispatcher, start_worker: StartWorker, tmp_path: Path) -> None:
    start_worker()
    source = "from dispatcher import LocalExecutor\nclass Ours(LocalExecutor): pass\ndef answer(): return 42\n"
    with module(tmp_path, "only_here", source) as only_here:
        by_flow = client.submit(flow(only_here.answer))
        by_value = client.submit(mark, {"path": "", "value": only_here.Ours()})
        by_executor = client.submit(mark, {"path": ""}, environment=RemoteEnvironment(only_here.Ours))
    for run in (by_flow, by_value):
        error = str(crash_of(run))
        assert "'only_here'" in error
        assert "where it was submitted, not installed here" in error
    assert "RemoteEnvironment.executor: can't import 'only_here'" in str(crash_of(by_executor))


def test_a_result_too_large_fails_its_run(client: Dispatcher, start_worker: StartWorker) -> None:
    start_worker(environ={"DISPATCHER__LIMITS__RESULT": "1000"})
    run = client.submit(flow(lambda: "x" * 5000))
    with pytest.raises(FlowFailed, match=r"more than the limit of 1,000 bytes.*DISPATCHER__LIMITS__RESULT"):
        run.result(timeout=30)
