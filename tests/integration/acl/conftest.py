"""A server of one product with the users of ``docs/security.md``, and legitimate clients and workers of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.integration.acl_server import AclServer, start_acl_server
from tests.integration.workers import QUICK, Bench, Worker

#: Characters of a worker's output that are shown where a test failed: a flood may have filled it.
_SHOWN = 20_000


@pytest.fixture
def acl_server() -> Iterator[AclServer]:
    """A server for this test only."""
    with start_acl_server() as server:
        yield server


@pytest.fixture
def bench(acl_server: AclServer) -> Iterator[Bench]:
    """Legitimate submits and reads, as the workers' user, who may use every queue."""
    bench = Bench(acl_server.url("worker"))
    yield bench
    bench.close()


@pytest.fixture
def start(acl_server: AclServer) -> Iterator[Callable[..., Worker]]:
    """Starts a worker as the Redis user ``worker``, with options of :class:`Worker`."""
    started: list[Worker] = []

    def launch(**options: Any) -> Worker:
        worker = Worker(acl_server.url("worker"), acl_server.directory, timing={**QUICK, "poll": 0.2}, **options)
        started.append(worker)
        worker.says("is ready")
        return worker

    yield launch
    for worker in started:
        worker.end()
        print(worker.output[-_SHOWN:])  # noqa: T201 - pytest shows it where a test failed
