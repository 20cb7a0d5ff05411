"""A cluster in this process, a proxy that fails before it, and the backend behind both."""

from __future__ import annotations

from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from backends.kubernetes.backend import KubernetesBackend
from tests.kubernetes_api import FakeApiServer, FakeCluster
from tests.kubernetes_proxy import FaultProxy
from tests.unit.kubernetes.backends import SECRETS, settings
from tests.unit.kubernetes.jobs import attempt


@pytest.fixture
def serving() -> Iterator[FakeApiServer]:
    with FakeApiServer() as found:
        yield found


@pytest.fixture
def cluster(serving: FakeApiServer) -> FakeCluster:
    return serving.cluster


@pytest.fixture
def proxy(serving: FakeApiServer) -> Iterator[FaultProxy]:
    with FaultProxy(lambda: HTTPConnection("127.0.0.1", serving.port)) as found:
        yield found


@pytest.fixture
def backend(proxy: FaultProxy, tmp_path: Path) -> Iterator[KubernetesBackend]:
    found = KubernetesBackend(settings(tmp_path, proxy.port))
    yield found
    found.close()


@pytest.fixture
def handle(backend: KubernetesBackend) -> Any:
    """Of a run that was submitted."""
    return backend.submit(backend.prepare(attempt()), SECRETS)
