"""A run's own Dask cluster in a test's process: a real scheduler, and real workers that the test starts as asked."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dask

from dispatcher.environments.cluster import ClusterSpec
from dispatcher.executors.dask_cluster.cluster import DaskCluster, SchedulerEnd, open_cluster
from tests.dask_workers import Workers
from tests.waiting import wait_until

_UNSET = {f"distributed.comm.tls.{name}": None for name in ("ca-file", "client.cert", "client.key")}


class OwnCluster:
    """A cluster, the executor of its flow and its workers."""

    def __init__(self, cluster: DaskCluster, workers: Workers, ends: list[SchedulerEnd]) -> None:
        self.cluster = cluster
        self.workers = workers
        self.ends = ends
        self.executor = cluster.executor()

    def wait_for(self, *names: str) -> None:
        """Wait until exactly these workers are connected."""
        wait_until(lambda: set(self.workers.connected) == set(names), f"workers {names}", timeout=90)


@contextmanager
def keeping_configuration() -> Iterator[None]:
    """Undo what a cluster adds to Dask's configuration."""
    with dask.config.set(_UNSET):
        yield


@contextmanager
def own_cluster(
    directory: Path,
    least: int = 1,
    most: int = 1,
    *options: str,
    spec: dict[str, Any] | None = None,
    variables: dict[str, str] | None = None,
    environ: dict[str, str] | None = None,
) -> Iterator[OwnCluster]:
    """Yield a cluster whose workers have joined, with its executor started.

    Args:
        directory: an empty directory.
        least, most: numbers of workers.
        options: of each worker.
        spec: other fields of the :class:`ClusterSpec`.
        variables: of the flow's container, for the scheduler.
        environ: variables of each worker.
    """
    with opened(directory, least, most, *options, spec=spec, variables=variables, environ=environ) as made:
        made.cluster.wait()
        with made.executor.start():
            yield made


@contextmanager
def opened(
    directory: Path,
    least: int = 1,
    most: int = 1,
    *options: str,
    spec: dict[str, Any] | None = None,
    variables: dict[str, str] | None = None,
    environ: dict[str, str] | None = None,
) -> Iterator[OwnCluster]:
    """Yield such a cluster at once; its executor isn't started."""
    fields = {"work_stealing": False, "scheduler_logs": False, **(spec or {})}
    ends: list[SchedulerEnd] = []
    workers = Workers(directory, *options, environ=environ)
    of_container = {**os.environ, **workers.variables, "TMPDIR": str(workers.temporary), **(variables or {})}
    try:
        with (
            keeping_configuration(),
            open_cluster(
                ClusterSpec(min_workers=least, max_workers=most, **fields), of_container,
                on_report=workers.follow, on_end=ends.append,
            ) as cluster,
        ):  # fmt: skip
            assert isinstance(cluster, DaskCluster)
            yield OwnCluster(cluster, workers, ends)
    finally:
        workers.end()
