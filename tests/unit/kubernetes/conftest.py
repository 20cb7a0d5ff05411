"""A fake API server, a fault proxy before it, and a backend that connects through the proxy."""

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
    with FakeApiServer() as serving:
        yield serving


@pytest.fixture
def cluster(serving: FakeApiServer) -> FakeCluster:
    return serving.cluster


@pytest.fixture
def proxy(serving: FakeApiServer) -> Iterator[FaultProxy]:
    with FaultProxy(lambda: HTTPConnection("127.0.0.1", serving.port)) as proxy:
        yield proxy


@pytest.fixture
def backend(proxy: FaultProxy, tmp_path: Path) -> Iterator[KubernetesBackend]:
    backend = KubernetesBackend(settings(tmp_path, proxy.port))
    yield backend
    backend.close()


@pytest.fixture
def handle(backend: KubernetesBackend) -> Any:
    """Handle of a submitted run."""
    return backend.submit(backend.prepare(attempt()), SECRETS)
