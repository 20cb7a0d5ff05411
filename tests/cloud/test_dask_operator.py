"""Flows whose Dask clusters the Dask operator runs, on a real cluster, with exactly the rights of the documentation.

The operator runs in a pod of the sandbox's namespace. Runs share it, and the last test stops it.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from typing import Any

import pytest

from benchmarks import dask_operator
from dispatcher import Run, State
from tests.cloud import dask_flows, k8s
from tests.cloud.dask_sandbox import DaskSandbox, at_most
from tests.cloud.sandbox import PodServer

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(600)]

#: Kinds of which nothing is left once a run has ended.
_KINDS = "jobs,pods,secrets,services,deployments,daskclusters,daskautoscalers,daskworkergroups"

_RESOURCES = {"requests": {"cpu": "10m", "memory": "64Mi"}}


class OperatorSandbox(DaskSandbox):
    """Sandbox of clusters of the operator, whose workers have the rights of docs/dask-operator.md."""

    backend = "dask-operator"
    page = k8s.PAGE.with_name("dask-operator.md")
    kinds = _KINDS

    def environment(self, **arguments: Any) -> Any:
        return super().environment(operator=True, **arguments)

    def members(self, run: Run[Any], component: str) -> list[str]:
        """Return the names of the pods that the operator has made for a run and that aren't being deleted."""
        pods = k8s.items("pods", self.name, f"flow_run_id={run.id},dask.org/component={component}")
        return [pod["metadata"]["name"] for pod in pods if "deletionTimestamp" not in pod["metadata"]]

    def start_operator(self) -> None:
        dask_operator.start(self.name, self._image, _RESOURCES)

    def stop_operator(self) -> None:
        dask_operator.stop(self.name)


@pytest.fixture(scope="module")
def sandbox(
    cluster: str, worker_image: str, pod_server: PodServer, cluster_lock: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[OperatorSandbox]:
    name = f"dsp-{secrets.token_hex(3)}"
    sandbox = OperatorSandbox(pod_server, worker_image, tmp_path_factory.mktemp("sandbox"), name)
    try:
        sandbox.open()
        with dask_operator.installed(name, worker_image):
            sandbox.start_operator()
            sandbox.start_worker()
            yield sandbox
    finally:
        sandbox.close()


def test_an_array_is_summed_over_two_workers(sandbox: OperatorSandbox) -> None:
    size = 4_000
    run = sandbox.submit(
        dask_flows.array_sum, {"size": size}, environment={"min_workers": 2, "max_workers": 2}, start_within=120
    )
    sandbox.wait_until_started(run)
    sandbox.expect_end(run, State.SUCCEEDED)
    counts = [event.data.get("running") for event in run.events() if event.kind == "workers"]
    assert 2 in counts, counts
    assert run.result()["sum"] == sum(number * number for number in range(size))
    assert len(run.result()["workers"]) == 2


def test_a_cluster_grows_with_the_tasks_and_goes_when_its_run_is_cancelled(sandbox: OperatorSandbox) -> None:
    run = sandbox.submit(
        dask_flows.pauses, {"tasks": 200, "seconds": 1.0}, environment={"min_workers": 1, "max_workers": 2}
    )
    sandbox.wait_until_started(run)
    with at_most(30.0, "two workers"):
        sandbox.wait_until(lambda: len(sandbox.members(run, "worker")) == 2, "a second worker")
    run.cancel()
    with at_most(60.0, "nothing left"):
        sandbox.expect_end(run, State.CANCELLED)


def test_pods_go_without_a_living_operator_and_what_its_finalizers_hold_is_shown(sandbox: OperatorSandbox) -> None:
    run = sandbox.submit(dask_flows.hold, {"seconds": 600.0}, environment={"min_workers": 1, "max_workers": 1})
    sandbox.wait_until_started(run)
    sandbox.stop_operator()
    try:
        run.cancel()
        begin = time.monotonic()
        run.exception(timeout=60)
        assert run.state is State.CANCELLED
        pods = f"flow_run_id={run.id}"
        sandbox.wait_until(lambda: not k8s.items("pods,deployments", sandbox.name, pods), "the end of its pods")
        assert time.monotonic() - begin <= 60
        words = sandbox.wait_until(lambda: pending(sandbox, run), "the reason")
        assert f"on DaskAutoscaler {sandbox.name}/" in words
        assert "kopf.zalando.org" in words
    finally:
        sandbox.start_operator()
    sandbox.expect_nothing_left(run)


def pending(sandbox: OperatorSandbox, run: Run[Any]) -> str:
    """Return why the teardown of a run is open; empty if nothing is said."""
    return "".join(line for line in sandbox.client.explain(run) if "teardown pending: it waits for finalizer" in line)
