"""Ends of runs with Dask clusters on a real cluster: stopped at any moment, or never complete. Nothing is left of any.

All are submitted at once; each test then waits for its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from dispatcher import Cause, Run, State
from tests.cloud import dask_flows, k8s
from tests.cloud.dask_sandbox import KILL, DaskSandbox, at_most, dask_sandbox
from tests.cloud.sandbox import PodServer

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(600)]

HUGE = {"requests": {"cpu": "1000"}}
HOLD = {"seconds": 600}

#: What an installed distribution says of itself.
OTHER_RELEASE = "Metadata-Version: 2.1\nName: cloudpickle\nVersion: 1.0.0\n"


def pod(**container: Any) -> dict[str, Any]:
    """Return a worker's Pod whose container has these fields."""
    volumes = container.pop("volumes", [])
    return {"kind": "Pod", "spec": {"containers": [{"name": "worker", **container}], "volumes": volumes}}


OTHER_PACKAGES = pod(
    env=[{"name": "PYTHONPATH", "value": "/other"}],
    volumeMounts=[{"name": "other", "mountPath": "/other/cloudpickle-1.0.0.dist-info"}],
    volumes=[{"name": "other", "configMap": {"name": "other"}}],
)
MISSING_SECRET = pod(env=[{"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "no-such-secret", "key": "token"}}}])


@pytest.fixture(scope="module")
def sandbox(
    cluster: str, worker_image: str, pod_server: PodServer, cluster_lock: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[DaskSandbox]:
    with dask_sandbox(pod_server, worker_image, tmp_path_factory.mktemp("sandbox")) as sandbox:
        quota = f"{sandbox.name}-quota"
        sandbox.add_namespace(quota)
        other = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "other", "namespace": sandbox.name}}
        limits = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "pods", "namespace": quota}}
        k8s.apply({**other, "data": {"METADATA": OTHER_RELEASE}}, {**limits, "spec": {"hard": {"pods": "1"}}})
        sandbox.start_worker()
        yield sandbox


@pytest.fixture(scope="module")
def runs(sandbox: DaskSandbox) -> dict[str, Run[Any]]:
    def submit(
        flow: Any = dask_flows.hold, parameters: Any = HOLD, options: Any = None, **environment: Any
    ) -> Run[Any]:
        return sandbox.submit(flow, parameters, environment=environment, **(options or {}))

    return {
        "at once": submit(),
        "no room for the flow": submit(resources=HUGE),
        "no room for workers": submit(worker_resources=HUGE),
        "no room for workers in time": submit(worker_resources=HUGE, options={"start_within": 20}),
        "no image": submit(worker_spec=pod(imagePullPolicy="Always"), options={"start_within": 20}),
        "no secret": submit(worker_spec=MISSING_SECRET),
        "other packages": submit(worker_spec=OTHER_PACKAGES),
        "no quota": submit(namespace=f"{sandbox.name}-quota", options={"start_within": 20}),
        "running": submit(),
        "timed out": submit(options={"timeout": 3}),
        "pod deleted": submit(),
        "job deleted": submit(),
        "scheduler killed": submit(),
    }


def explained(sandbox: DaskSandbox, run: Run[Any]) -> str:
    return "\n".join(sandbox.client.explain(run))


def test_a_cancel_at_once(sandbox: DaskSandbox, runs: dict[str, Run[Any]]) -> None:
    assert runs["at once"].cancel()
    sandbox.expect_end(runs["at once"], State.CANCELLED)


def test_a_cancel_while_the_flow_waits_creates_no_worker(sandbox: DaskSandbox, runs: dict[str, Run[Any]]) -> None:
    run = runs["no room for the flow"]
    sandbox.wait_until(lambda: "unschedulable" in explained(sandbox, run), "the reason", timeout=120)
    assert not sandbox.dask_workers(run)
    assert run.cancel()
    sandbox.expect_end(run, State.CANCELLED)


def test_a_cancel_while_workers_wait(sandbox: DaskSandbox, runs: dict[str, Run[Any]]) -> None:
    run = runs["no room for workers"]
    sandbox.wait_until(lambda: "Insufficient cpu" in explained(sandbox, run), "the reason", timeout=120)
    assert "w1" in explained(sandbox, run)
    assert run.cancel()
    sandbox.expect_end(run, State.CANCELLED)
    assert sandbox.server.count_of(run, "ran") == 0


@pytest.mark.parametrize(
    ("name", "cause", "text"),
    [
        ("no room for workers in time", Cause.UNSCHEDULABLE, "Insufficient cpu"),
        ("no image", Cause.IMAGE_PULL, "image"),
        ("no secret", Cause.CONFIG_ERROR, "no-such-secret"),
        ("no quota", Cause.QUOTA, "quota"),
    ],
)
def test_workers_that_do_not_start_end_the_run_with_the_cause_and_their_name(
    sandbox: DaskSandbox, runs: dict[str, Run[Any]], name: str, cause: Cause, text: str
) -> None:
    namespace = f"{sandbox.name}-quota" if name == "no quota" else None
    error = sandbox.expect_end(runs[name], State.CRASHED, cause, timeout=200, namespace=namespace)
    assert text in str(error)
    assert "w1" in str(error)
    assert sandbox.server.count_of(runs[name], "ran") == 0, "the flow doesn't start"


def test_other_packages_on_a_worker_end_the_run_before_the_flow_starts(
    sandbox: DaskSandbox, runs: dict[str, Run[Any]]
) -> None:
    import cloudpickle

    run = runs["other packages"]
    error = sandbox.expect_end(run, State.CRASHED, Cause.CONFIG_ERROR, timeout=120)
    assert "cloudpickle" in str(error)
    assert "1.0.0" in str(error)
    assert cloudpickle.__version__ in str(error)
    assert sandbox.server.count_of(run, "ran") == 0


def test_a_cancel_while_running(sandbox: DaskSandbox, runs: dict[str, Run[Any]]) -> None:
    run = runs["running"]
    sandbox.wait_until_started(run)
    assert run.cancel()
    sandbox.expect_end(run, State.CANCELLED)
    assert sandbox.server.count_of(run, "on_exit CANCELLED") == 1
    assert sandbox.server.count_of(run, "held") == 0


def test_a_timeout(sandbox: DaskSandbox, runs: dict[str, Run[Any]]) -> None:
    sandbox.expect_end(runs["timed out"], State.TIMED_OUT, timeout=120)
    assert sandbox.server.count_of(runs["timed out"], "on_exit TIMED_OUT") == 1


def test_the_flows_pod_is_deleted(sandbox: DaskSandbox, runs: dict[str, Run[Any]]) -> None:
    run = runs["pod deleted"]
    sandbox.wait_until_started(run)
    k8s.kubectl("delete", "pod", sandbox.flow_pod(run)["metadata"]["name"], "-n", sandbox.name, "--wait=false")
    sandbox.expect_end(run, State.CRASHED, Cause.KILLED)


def test_the_job_is_deleted(sandbox: DaskSandbox, runs: dict[str, Run[Any]]) -> None:
    run = runs["job deleted"]
    sandbox.wait_until_started(run)
    k8s.kubectl("delete", "job", "-n", sandbox.name, "-l", f"flow_run_id={run.id}", "--wait=false")
    sandbox.expect_end(run, State.CRASHED, Cause.KILLED)


def test_the_scheduler_is_killed(sandbox: DaskSandbox, runs: dict[str, Run[Any]]) -> None:
    run = runs["scheduler killed"]
    sandbox.wait_until_started(run)
    name = sandbox.flow_pod(run)["metadata"]["name"]
    killed = sandbox.execute(name, "python3", "-c", KILL, "scheduler", container="flow")
    assert int(killed) >= 1
    with at_most(5.0, "the end of the run"):
        error = run.exception(timeout=60)
    assert run.state is State.CRASHED
    assert getattr(error, "cause", None) is Cause.KILLED
    assert "scheduler" in str(error)
    sandbox.expect_end(run, State.CRASHED, Cause.KILLED)
