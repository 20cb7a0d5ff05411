"""Fixtures of the integration tier: workers as processes of their own, on the session's real server."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dispatcher import Dispatcher
from dispatcher.settings import Settings
from tests.conformance.products import SERVERS
from tests.integration.acl_server import AclServer, start_acl_server
from tests.integration.attacker import Attacker
from tests.integration.intruder import Intruder
from tests.integration.laptop import User
from tests.integration.workers import KEYS, QUICK, Bench, Worker


@pytest.fixture
def bench(server_url: str) -> Iterator[Bench]:
    """Submits runs and watches them."""
    bench = Bench(server_url, timing=QUICK)
    try:
        yield bench
    finally:
        bench.close()


@pytest.fixture
def start_worker(server_url: str, tmp_path: Path) -> Iterator[Callable[..., Worker]]:
    """Starts workers with quick timings, and ends them after the test; on failure their output is shown."""
    started: list[Worker] = []

    def start(*, ready: bool = True, timing: dict[str, float] | None = None, **options: Any) -> Worker:
        worker = Worker(server_url, tmp_path, timing={**QUICK, **(timing or {})}, **options)
        started.append(worker)
        if ready:
            worker.says("is ready")
        return worker

    try:
        yield start
    finally:
        for worker in started:
            worker.end()
            print(worker.output)  # noqa: T201 - pytest shows it if a test failed


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Path]:
    """The folder of the simulated container service; containers that a test leaves end with the test."""
    directory = tmp_path / "service"
    directory.mkdir()
    yield directory
    for file in directory.glob("*.json"):
        file.with_suffix(".deleted").touch()


@pytest.fixture
def user(monkeypatch: pytest.MonkeyPatch) -> Iterator[User]:
    """A user whose directories have short names, because a socket is in one of them."""
    with tempfile.TemporaryDirectory(prefix="dsp-") as directory:
        user = User(Path(directory))
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(user.run))
        try:
            yield user
        finally:
            user.leaves()


@pytest.fixture(params=SERVERS, ids=lambda path: Path(path).name)
def acl_server(request: pytest.FixtureRequest) -> Iterator[AclServer]:
    """A server for this test only, once for each installed product."""
    with start_acl_server(request.param) as server:
        yield server


@pytest.fixture(scope="module", params=SERVERS, ids=lambda path: Path(path).name)
def shared_acl_server(request: pytest.FixtureRequest) -> Iterator[AclServer]:
    """A server for all tests that change nothing."""
    with start_acl_server(request.param) as server:
        yield server


@pytest.fixture
def attacker(acl_server: AclServer) -> Iterator[Attacker]:
    """An attacker on that server."""
    attacker = Attacker(acl_server)
    yield attacker
    attacker.server.close()


@pytest.fixture
def start_acl_worker(acl_server: AclServer) -> Iterator[Callable[..., Worker]]:
    """Starts a worker as the Redis user ``worker``, with worker settings."""
    started: list[Worker] = []

    def start(**settings: Any) -> Worker:
        worker = Worker(acl_server.url("worker"), acl_server.directory, timing=QUICK, **settings)
        started.append(worker)
        worker.says("is ready")
        return worker

    try:
        yield start
    finally:
        for worker in started:
            worker.end()
            print(worker.output)  # noqa: T201 - pytest shows it if a test failed


@pytest.fixture
def intruder(server_url: str, bench: Bench) -> Iterator[Intruder]:
    intruder = Intruder(server_url, bench)
    yield intruder
    intruder.server.close()


@pytest.fixture
def client(server_url: str) -> Iterator[Dispatcher]:
    with Dispatcher(settings=Settings.load(url=server_url, signing_keys=json.dumps(KEYS))) as client:
        yield client
