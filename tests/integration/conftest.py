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
from tests.integration.acl_server import Guarded, guarded_server
from tests.integration.intruder import Intruder
from tests.integration.laptop import User
from tests.integration.workers import KEYS, QUICK, Bench, Worker


@pytest.fixture
def bench(server_url: str) -> Iterator[Bench]:
    """Submits runs and watches them."""
    one = Bench(server_url, timing=QUICK)
    try:
        yield one
    finally:
        one.close()


@pytest.fixture
def start_worker(server_url: str, tmp_path: Path) -> Iterator[Callable[..., Worker]]:
    """Starts workers with quick timings, and ends them after the test; on failure their output is shown."""
    started: list[Worker] = []

    def start(*, ready: bool = True, timing: dict[str, float] | None = None, **given: Any) -> Worker:
        worker = Worker(server_url, tmp_path, timing={**QUICK, **(timing or {})}, **given)
        started.append(worker)
        if ready:
            worker.says("is ready")
        return worker

    try:
        yield start
    finally:
        for worker in started:
            worker.end()
            print(worker.output)  # noqa: T201 - pytest shows it where a test failed


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Path]:
    """The folder that plays the container service; what a test leaves in it ends with the test."""
    directory = tmp_path / "service"
    directory.mkdir()
    yield directory
    for file in directory.glob("*.json"):
        file.with_suffix(".deleted").touch()


@pytest.fixture
def user(monkeypatch: pytest.MonkeyPatch) -> Iterator[User]:
    """A user whose directories have short names: a socket lies in one."""
    with tempfile.TemporaryDirectory(prefix="dsp-") as directory:
        one = User(Path(directory))
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(one.run))
        try:
            yield one
        finally:
            one.leaves()


@pytest.fixture(params=SERVERS, ids=lambda path: Path(path).name)
def guarded(request: pytest.FixtureRequest) -> Iterator[Guarded]:
    """A server of this test alone, once of each product that is here."""
    with guarded_server(request.param) as one:
        yield one


@pytest.fixture(scope="module", params=SERVERS, ids=lambda path: Path(path).name)
def standing(request: pytest.FixtureRequest) -> Iterator[Guarded]:
    """One for all tests that change nothing."""
    with guarded_server(request.param) as one:
        yield one


@pytest.fixture
def start_guarded(guarded: Guarded) -> Iterator[Callable[..., Worker]]:
    """Starts a worker as the user ``worker``, with settings of workers."""
    started: list[Worker] = []

    def one(**settings: Any) -> Worker:
        worker = Worker(guarded.url("worker"), guarded.directory, timing=QUICK, **settings)
        started.append(worker)
        worker.says("is ready")
        return worker

    try:
        yield one
    finally:
        for worker in started:
            worker.end()
            print(worker.output)  # noqa: T201 - pytest shows it where a test failed


@pytest.fixture
def intruder(server_url: str, bench: Bench) -> Iterator[Intruder]:
    found = Intruder(server_url, bench)
    yield found
    found.server.close()


@pytest.fixture
def client(server_url: str) -> Iterator[Dispatcher]:
    with Dispatcher(settings=Settings.load(url=server_url, signing_keys=json.dumps(KEYS))) as found:
        yield found
