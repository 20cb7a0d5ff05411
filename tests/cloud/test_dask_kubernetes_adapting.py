"""Dask clusters that grow, shrink and lose workers, on a real cluster."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from dispatcher import Cause, FlowFailed, Run, State
from dispatcher.runs.events import EventKind
from tests.cloud import dask_flows, k8s
from tests.cloud.dask_sandbox import DaskSandbox, at_most, dask_sandbox
from tests.cloud.sandbox import PodServer

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(600)]

#: The first failure of a task's worker is the task's last.
ONCE = {"name": "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES", "value": "0"}
FAIL_AT_ONCE = {
    "apiVersion": "batch/v1",
    "kind": "Job",
    "spec": {"template": {"spec": {"containers": [{"name": "flow", "env": [ONCE]}]}}},
}


@pytest.fixture(scope="module")
def sandbox(
    cluster: str, worker_image: str, pod_server: PodServer, cluster_lock: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[DaskSandbox]:
    with dask_sandbox(pod_server, worker_image, tmp_path_factory.mktemp("sandbox")) as sandbox:
        sandbox.start_worker()
        yield sandbox


def executions(sandbox: DaskSandbox, run: Run[Any], tasks: int) -> list[int]:
    """Return how often each task of a run was executed."""
    return [sandbox.server.count_of(run, f"task:{number}") for number in range(tasks)]


def test_a_cluster_grows_with_the_tasks_and_shrinks_after_them(sandbox: DaskSandbox) -> None:
    run = sandbox.submit(
        dask_flows.pauses, {"tasks": 40, "seconds": 1.0, "hold": 20.0}, environment={"min_workers": 1, "max_workers": 3}
    )
    sandbox.wait_until_started(run)
    with at_most(10.0, "three workers compute"):
        sandbox.wait_until(lambda: computing(sandbox, run) == 3, "three workers")
    sandbox.wait_until_started(run, event="computed")
    with at_most(15.0, "one worker is left"):
        sandbox.wait_until(lambda: len(sandbox.live_dask_workers(run)) == 1, "one worker")
    sandbox.expect_end(run, State.SUCCEEDED)
    assert len(run.result()) == 3
    assert executions(sandbox, run, 40) == [1] * 40, "no task runs twice"


def computing(sandbox: DaskSandbox, run: Run[Any]) -> int:
    """Return how many workers of a run have joined, by its record."""
    return len([name for name, pod in sandbox.dask_workers(run).items() if pod["status"]["phase"] == "Running"])


def test_a_cluster_starts_from_nothing_and_goes_back_to_it(sandbox: DaskSandbox) -> None:
    run = sandbox.submit(
        dask_flows.pauses, {"tasks": 4, "seconds": 0.5, "hold": 20.0}, environment={"min_workers": 0, "max_workers": 2}
    )
    sandbox.wait_until_started(run)
    sandbox.wait_until_started(run, event="computed")
    with at_most(20.0, "no worker is left"):
        sandbox.wait_until(lambda: not sandbox.live_dask_workers(run), "no worker")
    sandbox.expect_end(run, State.SUCCEEDED)
    assert executions(sandbox, run, 4) == [1] * 4


def test_a_worker_that_dies_is_replaced_and_its_tasks_run_again(sandbox: DaskSandbox) -> None:
    run = sandbox.submit(dask_flows.lose_worker, {"tasks": 40}, environment={"min_workers": 2, "max_workers": 2})
    sandbox.wait_until(lambda: sandbox.server.count_of(run, "task:7") == 1, "the end of a worker", timeout=120)
    with at_most(15.0, "the replacement"):
        sandbox.wait_until(lambda: {"w3"} <= set(sandbox.dask_workers(run)), "a third worker")
    sandbox.expect_end(run, State.SUCCEEDED)
    assert run.result() == sum(range(40))
    assert min(executions(sandbox, run, 40)) >= 1


def test_a_task_that_takes_all_memory_fails_and_an_event_names_its_worker(sandbox: DaskSandbox) -> None:
    resources = {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}}
    run = sandbox.submit(
        dask_flows.exhaust_worker,
        {"megabytes": 600},
        environment={"scheduler_spec": FAIL_AT_ONCE, "worker_resources": resources},
    )
    error = sandbox.expect_end(run, State.FAILED, timeout=150)
    assert isinstance(error, FlowFailed)
    assert "KilledWorker" in type(error.__cause__).__name__ or "KilledWorker" in str(error)
    [lost] = [event.data for event in run.events() if event.kind is EventKind.WORKERS and event.data.get("worker")]
    assert (lost["worker"], lost["cause"]) == ("w1", str(Cause.OOM_KILLED))


def test_a_worker_deleted_by_hand_is_replaced(sandbox: DaskSandbox) -> None:
    """As by an eviction: it may hand its results over before it ends."""
    run = sandbox.submit(
        dask_flows.pauses, {"tasks": 20, "seconds": 1.0}, environment={"min_workers": 2, "max_workers": 2}
    )
    sandbox.wait_until(lambda: sandbox.server.count_of(run, "task:3"), "its tasks", timeout=120)
    name = sandbox.dask_workers(run)["w2"]["metadata"]["name"]
    deleted = time.monotonic()
    k8s.kubectl("delete", "pod", name, "-n", sandbox.name, "--wait=false")
    sandbox.wait_until(lambda: "w3" in sandbox.dask_workers(run), "a third worker", timeout=15)
    print(f"replaced after {time.monotonic() - deleted:.1f} s")  # noqa: T201
    sandbox.expect_end(run, State.SUCCEEDED)
    assert min(executions(sandbox, run, 20)) >= 1
