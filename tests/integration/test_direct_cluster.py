"""A flow that ``execute`` has started in a container computes on a Dask cluster of its own, too."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from backends.fake import FakeEnvironment
from dispatcher import LocalStorage, flow, gather, task
from dispatcher.runner.direct import own_cluster
from tests.dask_workers import Workers
from tests.integration.own_cluster import keeping_configuration

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]


@pytest.fixture
def workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workers]:
    (tmp_path / "cluster").mkdir()
    made = Workers(tmp_path / "cluster")
    for name, value in made.variables.items():
        monkeypatch.setenv(name, value)
    with keeping_configuration():
        yield made
    made.end()


@task
def where(_number: int) -> str:
    import distributed

    return str(distributed.get_worker().name)


@flow
def places() -> list[str]:
    return list(gather(where.map([1, 2])))


def test_a_direct_execution_computes_on_its_workers(workers: Workers, tmp_path: Path) -> None:
    environment = FakeEnvironment(tmp_path, workers=(1, 1), scheduler=True)
    storage = LocalStorage(tmp_path / "flows")
    location = storage.add_flow(places)
    workers.start("w1")
    with own_cluster(environment):
        assert environment.execute(storage, location) == ["w1", "w1"]


def test_a_direct_execution_without_a_cluster_needs_none(tmp_path: Path) -> None:
    environment = FakeEnvironment(tmp_path)
    storage = LocalStorage(tmp_path / "flows")
    with own_cluster(environment), pytest.raises(ValueError, match="No worker found"):
        environment.execute(storage, storage.add_flow(places))
