"""Runs on a real cluster, with exactly the rights of the documentation's Role. All are submitted at once;
each test then waits for its own."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from dispatcher import Cause, Flow, FlowFailed, Run, RunCrashed, State
from tests.cloud import flows, k8s
from tests.cloud.sandbox import SMALL, Sandbox

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(600)]

Test = Callable[..., None]


def submits(flow: Flow[..., Any], parameters: dict[str, Any] | None = None, **options: Any) -> Callable[[Test], Test]:
    """Mark a test with the run to submit for it: flow, parameters, and options with the environment's arguments."""

    def mark(test: Test) -> Test:
        test.__dict__["submits"] = (flow, parameters, options)
        return test

    return mark


@pytest.fixture(scope="module")
def runs(sandbox: Sandbox, image: str, request: pytest.FixtureRequest) -> dict[str, Run[Any]]:
    """Runs of the selected tests, by the tests' names."""
    sandbox.start_worker(variables={"DISPATCHER__WORKER__RUNNER_USERS": "true"})
    submitted = {}
    for item in request.session.items:
        test = getattr(item, "function", None)
        if test is not None and test.__module__ == __name__ and "submits" in test.__dict__:
            flow, parameters, options = test.__dict__["submits"]
            if callable(options.get("environment")):
                options = {**options, "environment": options["environment"](image)}
            submitted[item.name] = sandbox.submit(flow, parameters, **options)
    return submitted


@pytest.fixture
def run(runs: dict[str, Run[Any]], request: pytest.FixtureRequest) -> Run[Any]:
    """Run of this test."""
    return runs[request.node.name]


def expect_log_tail(sandbox: Sandbox, run: Run[Any], text: str) -> None:
    """Wait for a text among the run's last lines; they come after its end."""

    def lines() -> str:
        return "\n".join(cast("RunCrashed", sandbox.client.get(run.id).exception(timeout=0)).log_tail)

    sandbox.wait_until(lambda: text in lines(), f"{text!r} among the last lines")


@submits(flows.add, {"a": 1, "b": 2})
def test_success(sandbox: Sandbox, run: Run[int]) -> None:
    sandbox.expect_end(run, State.SUCCEEDED)
    assert run.result() == 3
    assert sandbox.server.count_of(run, "ran") == 1
    assert sandbox.server.count_of(run, "on_exit SUCCEEDED") == 1
    assert {"printed 1", "logged 2"} <= {line.text for line in run.logs()}
    kinds = [str(event.kind) for event in run.events()]
    assert sorted(kinds) == sorted(["queued", "claimed", "provisioning", "pending", "started", "exited"])
    moments = {"created", "scheduled", "pulled", "started", "first line", "finished", "torn down"}
    sandbox.wait_until(lambda: moments <= {phase.name for phase in run.timeline().phases}, f"all of {sorted(moments)}")


@submits(flows.fail)
def test_failure(sandbox: Sandbox, run: Run[None]) -> None:
    error = sandbox.expect_end(run, State.FAILED)
    assert isinstance(error, FlowFailed)
    assert isinstance(error.__cause__, ValueError)
    assert "no such luck" in str(error)
    assert sandbox.server.count_of(run, "on_exit FAILED") == 1


@submits(flows.sleep, {"seconds": 300})
def test_cancel_while_running(sandbox: Sandbox, run: Run[str]) -> None:
    sandbox.wait_until_started(run)
    assert sandbox.server.connected(run), "its container connects as the attempt's own user"
    assert run.cancel()
    sandbox.expect_end(run, State.CANCELLED)
    assert sandbox.server.count_of(run, "on_exit CANCELLED") == 1
    sandbox.wait_until(lambda: not sandbox.server.connected(run), "the end of its user")
    assert sandbox.server.count_of(run, "held") == 0


@submits(flows.sleep, {"seconds": 300}, timeout=3)
def test_timeout(sandbox: Sandbox, run: Run[str]) -> None:
    error = sandbox.expect_end(run, State.TIMED_OUT)
    assert "ran longer than its timeout" in str(error)
    assert sandbox.server.count_of(run, "on_exit TIMED_OUT") == 1


@submits(flows.exhaust_memory, environment={"resources": {**SMALL, "limits": {"memory": "128Mi"}}})
def test_out_of_memory(sandbox: Sandbox, run: Run[int]) -> None:
    error = cast("RunCrashed", sandbox.expect_end(run, State.CRASHED, Cause.OOM_KILLED))
    assert error.exit_code == 137
    assert KILLS_CONTAINER or "the container's limit of 128 MiB" in str(error)
    expect_log_tail(sandbox, run, "hungry")


#: With cgroups v2 the kubelet kills the whole container, with v1 only the process that took too much.
KILLS_CONTAINER = Path("/sys/fs/cgroup/cgroup.controllers").exists()

TIGHT = {"resources": {**SMALL, "limits": {"memory": "128Mi"}}}


@submits(flows.exhaust_pool_memory, {"careful": True}, environment=TIGHT)
def test_out_of_memory_in_a_pool_process_that_the_flow_goes_on_without(sandbox: Sandbox, run: Run[str]) -> None:
    """``OOMKilled`` with a valid report isn't a failure."""
    if KILLS_CONTAINER:
        sandbox.expect_end(run, State.CRASHED, Cause.OOM_KILLED)
    else:
        sandbox.expect_end(run, State.SUCCEEDED)
        assert run.result() == "went on"


@submits(flows.exhaust_pool_memory, {"careful": False}, environment=TIGHT)
def test_out_of_memory_in_a_pool_process_that_the_flow_needs(sandbox: Sandbox, run: Run[str]) -> None:
    if KILLS_CONTAINER:
        sandbox.expect_end(run, State.CRASHED, Cause.OOM_KILLED)
    else:
        error = sandbox.expect_end(run, State.CRASHED, Cause.OOM_KILLED)
        assert "the container's limit of 128 MiB" in str(error)
        assert "BrokenProcessPool" in str(error)


@submits(flows.exit_process, {"code": 3})
def test_an_exit_without_a_report(sandbox: Sandbox, run: Run[None]) -> None:
    error = cast("RunCrashed", sandbox.expect_end(run, State.CRASHED, Cause.RESULT_MISSING))
    assert error.exit_code == 3
    expect_log_tail(sandbox, run, "leaving")


@pytest.mark.row(27)
@submits(flows.sleep, {"seconds": 300})
def test_pod_deleted(sandbox: Sandbox, run: Run[str]) -> None:
    sandbox.wait_until_started(run)
    k8s.kubectl("delete", "pod", "-n", sandbox.name, "-l", f"flow_run_id={run.id}", "--wait=false")
    sandbox.expect_end(run, State.CRASHED, Cause.KILLED)
    assert sandbox.server.count_of(run, "ran") == 1


@submits(flows.sleep, {"seconds": 300})
def test_job_deleted(sandbox: Sandbox, run: Run[str]) -> None:
    sandbox.wait_until_started(run)
    k8s.kubectl("delete", "job", "-n", sandbox.name, "-l", f"flow_run_id={run.id}", "--wait=false")
    sandbox.expect_end(run, State.CRASHED, Cause.KILLED)


@submits(flows.add, {"a": 1, "b": 2}, environment={"image": "nowhere.invalid/flows:1"}, start_within=30)
def test_an_image_that_does_not_exist(sandbox: Sandbox, run: Run[int]) -> None:
    error = cast("RunCrashed", sandbox.expect_end(run, State.CRASHED, Cause.IMAGE_PULL))
    assert "nowhere.invalid" in str(error)


@submits(flows.add, {"a": 1, "b": 2}, environment={"image": "Not:A:Name"})
def test_an_image_that_is_no_name(sandbox: Sandbox, run: Run[int]) -> None:
    sandbox.expect_end(run, State.CRASHED, Cause.CONFIG_ERROR)


@submits(flows.add, {"a": 1, "b": 2}, environment={"resources": {"requests": {"cpu": "1000"}}}, start_within=8)
def test_no_room(sandbox: Sandbox, run: Run[int]) -> None:
    error = cast("RunCrashed", sandbox.expect_end(run, State.CRASHED, Cause.UNSCHEDULABLE))
    assert "Insufficient cpu" in str(error)


@submits(flows.add, {"a": 1, "b": 2}, environment={"secrets": {"TOKEN": "no-such-secret/key"}})
def test_a_missing_secret_as_variable(sandbox: Sandbox, run: Run[int]) -> None:
    error = sandbox.expect_end(run, State.CRASHED, Cause.CONFIG_ERROR, timeout=150)
    assert "no-such-secret" in str(error)


def job(pod: dict[str, Any], **container: Any) -> dict[str, Any]:
    """Return a user's own Job."""
    containers = [{"name": "mine", **container}, *pod.pop("sidecars", [])]
    spec = {"template": {"spec": {**pod, "containers": containers}}}
    return {"apiVersion": "batch/v1", "kind": "Job", "spec": spec}


ABSENT = job(
    {"volumes": [{"name": "keys", "secret": {"secretName": "no-such-secret"}}]},
    volumeMounts=[{"name": "keys", "mountPath": "/keys"}],
)


@submits(flows.add, {"a": 1, "b": 2}, environment={"job_spec": ABSENT})
def test_a_missing_secret_as_volume(sandbox: Sandbox, run: Run[int]) -> None:
    error = sandbox.expect_end(run, State.CRASHED, Cause.CONFIG_ERROR, timeout=150)
    assert "no-such-secret" in str(error)


SHARED_MOUNT = {"name": "shared", "mountPath": "/shared"}
CUSTOM_JOB = job(
    {
        "volumes": [{"name": "shared", "emptyDir": {}}],
        "initContainers": [
            {"name": "first", "command": ["sh", "-c", "echo -n open > /shared/word"], "volumeMounts": [SHARED_MOUNT]}
        ],
        "sidecars": [
            {"name": "sidecar", "command": ["sleep", "3600"], "terminationMessagePath": "/dev/termination-log"}
        ],
    },
    volumeMounts=[SHARED_MOUNT],
    env=[{"name": "GREETING", "value": "hello"}],
)


def custom_job(image: str) -> dict[str, Any]:
    """Return ``CUSTOM_JOB`` with its other containers on an image that the cluster has."""
    spec = copy.deepcopy(CUSTOM_JOB)
    pod = spec["spec"]["template"]["spec"]
    for container in (*pod["initContainers"], pod["containers"][1]):
        container["image"] = image
    return spec


@submits(flows.whoami, environment=lambda image: {"job_spec": custom_job(image), "env": {"EXTRA": "1"}})
def test_a_job_of_ones_own_with_two_containers_and_an_init_container(sandbox: Sandbox, run: Run[Any]) -> None:
    sandbox.expect_end(run, State.SUCCEEDED)
    result = run.result()
    assert (result["shared"], result["greeting"], result["run"]) == ("open", "hello", run.id)


@submits(flows.whoami)
def test_the_default_pod_has_few_rights(sandbox: Sandbox, run: Run[Any]) -> None:
    sandbox.expect_end(run, State.SUCCEEDED)
    result = run.result()
    assert (result["uid"], result["token"], result["secrets"]) == (10001, False, [])


@submits(flows.count_in_c)
def test_a_cancel_during_a_c_call(sandbox: Sandbox, run: Run[int]) -> None:
    sandbox.wait_until_started(run)
    assert run.cancel()
    sandbox.expect_end(run, State.CANCELLED)


@submits(flows.sleep, {"seconds": 300})
def test_the_jobs_deadline(sandbox: Sandbox, run: Run[str]) -> None:
    sandbox.wait_until_started(run)
    (item,) = k8s.items("jobs", sandbox.name, f"flow_run_id={run.id}")
    patch = '{"spec": {"activeDeadlineSeconds": 1}}'
    k8s.kubectl("patch", "job", "-n", sandbox.name, item["metadata"]["name"], "-p", patch)
    sandbox.expect_end(run, State.TIMED_OUT)


OWN_DEADLINE = {
    "apiVersion": "batch/v1",
    "kind": "Job",
    "spec": {"activeDeadlineSeconds": 15, "template": {"spec": {"containers": [{"name": "flow"}]}}},
}


@submits(flows.sleep, {"seconds": 300}, environment={"job_spec": OWN_DEADLINE}, timeout=200, start_within=200)
def test_a_deadline_of_ones_own(sandbox: Sandbox, run: Run[str]) -> None:
    """It comes before the run's ``timeout``, and ends the attempt as that would."""
    sandbox.expect_end(run, State.TIMED_OUT)


DISK = {"requests": {"cpu": "10m"}, "limits": {"ephemeral-storage": "20Mi"}}


@submits(flows.fill_disk, {"megabytes": 60}, environment={"resources": DISK})
def test_an_eviction(sandbox: Sandbox, run: Run[str]) -> None:
    error = cast("RunCrashed", sandbox.expect_end(run, State.CRASHED, Cause.EVICTED, timeout=150))
    assert "ephemeral" in str(error)
