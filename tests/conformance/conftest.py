"""Records in memory and on a server, with a clock that tests can move."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from dispatcher.records.base import Records
from dispatcher.records.bell import Bell
from dispatcher.records.memory import open_memory
from dispatcher.records.redis import open_redis
from dispatcher.runs.change import Ring
from tests.conformance.proxy import Proxy
from tests.conftest import Server


class Rings(Bell):
    """A bell that lists the published doorbells."""

    def __init__(self) -> None:
        self.published: list[Ring] = []

    def message(self, ring: Ring) -> tuple[str, bytes] | None:
        return None

    def publish(self, rings: Sequence[Ring]) -> None:
        self.published += rings

    def depth(self, queue: str) -> int:
        return 0


class Store:
    """One implementation of the records: :attr:`records`, and the same records at a later time."""

    def __init__(self, kind: str, url: str, *, bell: Bell | None = None) -> None:
        self.kind = kind
        self.bell = bell or Rings()
        self.url = url
        self._ahead = 0.0
        self._opened: list[Records] = []
        self.records = self._open(0.0)

    @property
    def rings(self) -> list[Ring]:
        """The doorbells published so far."""
        assert isinstance(self.bell, Rings)
        return self.bell.published

    def later(self, seconds: float) -> Records:
        """Return the same records with a clock ``seconds`` ahead."""
        if self.kind == "memory":
            self._ahead += seconds
            return self.records
        return self._open(seconds)

    def another(self) -> Records:
        """Return the same records as another process would open them."""
        return self.records if self.kind == "memory" else self._open(0.0)

    def close(self) -> None:
        """Close all opened records."""
        for records in self._opened:
            records.close()

    def _open(self, ahead: float) -> Records:
        if self.kind == "memory":
            records = open_memory(clock=lambda: time.time() + self._ahead, bell=self.bell)
        else:
            records = open_redis(self.url, bell=self.bell, clock_offset=ahead)
        records.runs.check = lambda record, now: None  # every signature holds
        self._opened.append(records)
        return records


@pytest.fixture(params=["memory", "redis"])
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    """Empty records of each implementation."""
    url = request.getfixturevalue("server_url") if request.param == "redis" else ""
    store = Store(request.param, url)
    yield store
    store.close()


@pytest.fixture
def records(store: Store) -> Records:
    """The records of :func:`store`."""
    return store.records


@pytest.fixture
def proxy(server: Server, server_url: str, tmp_path: Path) -> Iterator[Proxy]:
    """A proxy of the server that can fail."""
    proxy = Proxy(server.socket, tmp_path / "p")
    yield proxy
    proxy.close()
