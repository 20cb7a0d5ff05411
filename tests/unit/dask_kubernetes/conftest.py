"""A fake API server, a fault proxy before it, and backends of Dask clusters that connect through the proxy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from backends.dask_kubernetes.backend import DaskKubernetesBackend
from dispatcher.support.failpoints import arm
from tests.kubernetes_api import FakeCluster
from tests.kubernetes_proxy import FaultProxy
from tests.unit.dask_kubernetes.clusters import attempt, start_flow
from tests.unit.kubernetes.backends import SECRETS, settings


@pytest.fixture
def backend_class() -> type[DaskKubernetesBackend]:
    """The backend's class."""
    return DaskKubernetesBackend


@pytest.fixture
def make_backend(
    backend_class: type[DaskKubernetesBackend], proxy: FaultProxy, tmp_path: Path
) -> Iterator[Callable[[], DaskKubernetesBackend]]:
    """Makes backends as workers in other processes have them."""
    backends: list[DaskKubernetesBackend] = []

    def make() -> DaskKubernetesBackend:
        backends.append(backend_class(settings(tmp_path, proxy.port)))
        return backends[-1]

    yield make
    for backend in backends:
        backend.close()


@pytest.fixture
def backend(make_backend: Callable[[], DaskKubernetesBackend]) -> DaskKubernetesBackend:
    return make_backend()


@pytest.fixture
def request_(backend: DaskKubernetesBackend) -> Any:
    """Request of an attempt with two to four workers."""
    backend.identify()
    return backend.prepare(attempt())


@pytest.fixture
def handle(backend: DaskKubernetesBackend, request_: Any, cluster: FakeCluster) -> Any:
    """Handle of that attempt, whose flow has begun."""
    handle = backend.submit(request_, SECRETS)
    start_flow(cluster)
    return handle


@pytest.fixture(autouse=True)
def disarmed() -> Iterator[None]:
    """No failpoint stays armed."""
    yield
    arm("")
