"""Fixtures of tests with a stand-in of the API server, for the conftests and modules that import them."""

from __future__ import annotations

from collections.abc import Iterator
from http.client import HTTPConnection

import pytest

from tests.kubernetes_api import FakeApiServer, FakeCluster
from tests.kubernetes_proxy import FaultProxy


@pytest.fixture
def serving() -> Iterator[FakeApiServer]:
    """A stand-in of the API server, with an empty cluster."""
    with FakeApiServer() as serving:
        yield serving


@pytest.fixture
def cluster(serving: FakeApiServer) -> FakeCluster:
    """The objects of that server."""
    return serving.cluster


@pytest.fixture
def proxy(serving: FakeApiServer) -> Iterator[FaultProxy]:
    """A proxy before that server, which loses and delays what tests ask for."""
    with FaultProxy(lambda: HTTPConnection("127.0.0.1", serving.port)) as proxy:
        yield proxy
