"""A fake API server, a fault proxy before it, and a backend that connects through the proxy."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backends.kubernetes.backend import KubernetesBackend
from tests.kubernetes_proxy import FaultProxy
from tests.unit.kubernetes.backends import SECRETS, settings
from tests.unit.kubernetes.jobs import attempt


@pytest.fixture
def backend(proxy: FaultProxy, tmp_path: Path) -> Iterator[KubernetesBackend]:
    backend = KubernetesBackend(settings(tmp_path, proxy.port))
    yield backend
    backend.close()


@pytest.fixture
def handle(backend: KubernetesBackend) -> Any:
    """Handle of a submitted run."""
    return backend.submit(backend.prepare(attempt()), SECRETS)
