"""The runner's side of a cluster that an operator makes, with a scheduler in this process."""

from __future__ import annotations

import pytest

from dispatcher.environments.cluster import ClusterSpec
from dispatcher.errors import InvalidSettings
from dispatcher.executors.dask_cluster.cluster import open_cluster
from dispatcher.runs.cluster import WorkerReport
from tests.waiting import wait_until

SPEC = ClusterSpec(min_workers=2, max_workers=3, work_stealing=False, scheduler_logs=False, has_operator=True)


def test_it_waits_for_workers_computes_and_reports_them() -> None:
    distributed = pytest.importorskip("distributed")
    reports: list[WorkerReport] = []
    local = {"processes": False, "threads_per_worker": 1, "dashboard_address": None}
    with distributed.LocalCluster(n_workers=2, **local) as operator:
        variables = {"DASK_SCHEDULER_ADDRESS": operator.scheduler_address}
        with open_cluster(SPEC, variables, on_report=reports.append, on_end=print) as cluster:
            assert cluster.report is None
            cluster.wait()
            assert (reports[-1].connected, reports[-1].ready) == (("w1", "w2"), True)
            executor = cluster.executor()
            with executor.start():
                assert executor.wait(executor.submit(pow, 3, 2)) == 9
            operator.scale(3)
            wait_until(lambda: len(reports[-1].connected) == 3, "the report of a third worker", timeout=30)


def test_a_container_that_knows_no_scheduler_is_an_error() -> None:
    with (
        pytest.raises(InvalidSettings, match="DASK_SCHEDULER_ADDRESS: not set"),
        open_cluster(SPEC, {}, on_report=lambda _report: None, on_end=print),
    ):
        pass
