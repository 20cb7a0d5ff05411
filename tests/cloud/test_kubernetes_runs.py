"""Runs on a real cluster, under exactly the documentation's Role: issue 5, "Real parts and tests". All are submitted
at once, each test then waits for its own."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from dispatcher import Cause, Flow, FlowFailed, Run, RunCrashed, State
from tests.cloud import flows, k8s
from tests.cloud.sandbox import SMALL, Estate

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(600)]

Test = Callable[..., None]


def submits(flow: Flow[..., Any], parameters: dict[str, Any] | None = None, **given: Any) -> Callable[[Test], Test]:
    """The run of a test, submitted with those of all others: environment's arguments, and options."""

    def mark(test: Test) -> Test:
        test.__dict__["submits"] = (flow, parameters, given)
        return test

    return mark


@pytest.fixture(scope="module")
def runs(estate: Estate, image: str, request: pytest.FixtureRequest) -> dict[str, Run[Any]]:
    """The runs of the tests that were chosen, by the tests' names."""
    estate.worker(variables={"DISPATCHER__WORKER__RUNNER_USERS": "true"})
    found = {}
    for item in request.session.items:
        test = getattr(item, "function", None)
        if test is not None and test.__module__ == __name__ and "submits" in test.__dict__:
            flow, parameters, given = test.__dict__["submits"]
            if callable(given.get("environment")):
                given = {**given, "environment": given["environment"](image)}
            found[item.name] = estate.submit(flow, parameters, **given)
    return found


@pytest.fixture
def run(runs: dict[str, Run[Any]], request: pytest.FixtureRequest) -> Run[Any]:
    """This test's run."""
    return runs[request.node.name]


def tail(estate: Estate, run: Run[Any], text: str) -> None:
    """The last lines come; no state waits for them."""

    def lines() -> str:
        return "\n".join(cast("RunCrashed", estate.client.get(run.id).exception(timeout=0)).log_tail)

    estate.until(lambda: text in lines(), f"{text!r} among the last lines")


@submits(flows.add, {"a": 1, "b": 2})
def test_success(estate: Estate, run: Run[int]) -> None:
    estate.ended(run, State.SUCCEEDED)
    assert run.result() == 3
    assert estate.server.noted(run, "ran") == 1
    assert estate.server.noted(run, "on_exit SUCCEEDED") == 1
    assert {"printed 1", "logged 2"} <= {line.text for line in run.logs()}
    kinds = [str(event.kind) for event in run.events()]
    assert sorted(kinds) == sorted(["queued", "claimed", "provisioning", "pending", "started", "exited"])
    moments = {"created", "scheduled", "pulled", "started", "first line", "finished", "torn down"}
    estate.until(lambda: moments <= {one.name for one in run.timeline().phases}, f"all of {sorted(moments)}")


@submits(flows.fail)
def test_failure(estate: Estate, run: Run[None]) -> None:
    error = estate.ended(run, State.FAILED)
    assert isinstance(error, FlowFailed)
    assert isinstance(error.__cause__, ValueError)
    assert "no such luck" in str(error)
    assert estate.server.noted(run, "on_exit FAILED") == 1


@submits(flows.hold, {"seconds": 300})
def test_cancel_while_running(estate: Estate, run: Run[str]) -> None:
    estate.begun(run)
    assert estate.server.connected(run), "its container connects as the attempt's own user"
    assert run.cancel()
    estate.ended(run, State.CANCELLED)
    assert estate.server.noted(run, "on_exit CANCELLED") == 1
    estate.until(lambda: not estate.server.connected(run), "its user to be gone with it")
    assert estate.server.noted(run, "held") == 0


@submits(flows.hold, {"seconds": 300}, timeout=3)
def test_timeout(estate: Estate, run: Run[str]) -> None:
    error = estate.ended(run, State.TIMED_OUT)
    assert "ran longer than its timeout" in str(error)
    assert estate.server.noted(run, "on_exit TIMED_OUT") == 1


@submits(flows.eat, environment={"resources": {**SMALL, "limits": {"memory": "128Mi"}}})
def test_out_of_memory(estate: Estate, run: Run[int]) -> None:
    error = cast("RunCrashed", estate.ended(run, State.CRASHED, Cause.OOM_KILLED))
    assert error.exit_code == 137
    tail(estate, run, "hungry")


#: With version 2 of cgroups a kubelet lets the whole container die, with version 1 the process that took too much.
TOGETHER = Path("/sys/fs/cgroup/cgroup.controllers").exists()

TIGHT = {"resources": {**SMALL, "limits": {"memory": "128Mi"}}}


@submits(flows.feed_a_pool, {"careful": True}, environment=TIGHT)
def test_out_of_memory_in_a_pool_process_that_the_flow_goes_on_without(estate: Estate, run: Run[str]) -> None:
    """``OOMKilled`` with a valid report is no failure."""
    if TOGETHER:
        estate.ended(run, State.CRASHED, Cause.OOM_KILLED)
    else:
        estate.ended(run, State.SUCCEEDED)
        assert run.result() == "went on"


@submits(flows.feed_a_pool, {"careful": False}, environment=TIGHT)
def test_out_of_memory_in_a_pool_process_that_the_flow_needs(estate: Estate, run: Run[str]) -> None:
    if TOGETHER:
        estate.ended(run, State.CRASHED, Cause.OOM_KILLED)
    else:
        error = estate.ended(run, State.FAILED)
        assert "BrokenProcessPool" in repr(getattr(error, "__cause__", None)) + str(error)


@submits(flows.leave, {"code": 3})
def test_an_exit_without_a_report(estate: Estate, run: Run[None]) -> None:
    error = cast("RunCrashed", estate.ended(run, State.CRASHED, Cause.RESULT_MISSING))
    assert error.exit_code == 3
    tail(estate, run, "leaving")


@pytest.mark.row(27)
@submits(flows.hold, {"seconds": 300})
def test_pod_deleted(estate: Estate, run: Run[str]) -> None:
    estate.begun(run)
    k8s.kubectl("delete", "pod", "-n", estate.name, "-l", f"flow_run_id={run.id}", "--wait=false")
    estate.ended(run, State.CRASHED, Cause.KILLED)
    assert estate.server.noted(run, "ran") == 1


@submits(flows.hold, {"seconds": 300})
def test_job_deleted(estate: Estate, run: Run[str]) -> None:
    estate.begun(run)
    k8s.kubectl("delete", "job", "-n", estate.name, "-l", f"flow_run_id={run.id}", "--wait=false")
    estate.ended(run, State.CRASHED, Cause.KILLED)


@submits(flows.add, {"a": 1, "b": 2}, environment={"image": "nowhere.invalid/flows:1"}, start_within=30)
def test_an_image_that_does_not_exist(estate: Estate, run: Run[int]) -> None:
    error = cast("RunCrashed", estate.ended(run, State.CRASHED, Cause.IMAGE_PULL))
    assert "nowhere.invalid" in str(error)


@submits(flows.add, {"a": 1, "b": 2}, environment={"image": "Not:A:Name"})
def test_an_image_that_is_no_name(estate: Estate, run: Run[int]) -> None:
    estate.ended(run, State.CRASHED, Cause.CONFIG_ERROR)


@submits(flows.add, {"a": 1, "b": 2}, environment={"resources": {"requests": {"cpu": "1000"}}}, start_within=8)
def test_no_room(estate: Estate, run: Run[int]) -> None:
    error = cast("RunCrashed", estate.ended(run, State.CRASHED, Cause.UNSCHEDULABLE))
    assert "Insufficient cpu" in str(error)


@submits(flows.add, {"a": 1, "b": 2}, environment={"secrets": {"TOKEN": "no-such-secret/key"}})
def test_a_missing_secret_as_variable(estate: Estate, run: Run[int]) -> None:
    error = estate.ended(run, State.CRASHED, Cause.CONFIG_ERROR, timeout=150)
    assert "no-such-secret" in str(error)


def job(pod: dict[str, Any], **container: Any) -> dict[str, Any]:
    """A Job of a user's own."""
    containers = [{"name": "mine", **container}, *pod.pop("beside", [])]
    spec = {"template": {"spec": {**pod, "containers": containers}}}
    return {"apiVersion": "batch/v1", "kind": "Job", "spec": spec}


ABSENT = job(
    {"volumes": [{"name": "keys", "secret": {"secretName": "no-such-secret"}}]},
    volumeMounts=[{"name": "keys", "mountPath": "/keys"}],
)


@submits(flows.add, {"a": 1, "b": 2}, environment={"job_spec": ABSENT})
def test_a_missing_secret_as_volume(estate: Estate, run: Run[int]) -> None:
    error = estate.ended(run, State.CRASHED, Cause.CONFIG_ERROR, timeout=150)
    assert "no-such-secret" in str(error)


WORD = {"name": "shared", "mountPath": "/shared"}
RICH = job(
    {
        "volumes": [{"name": "shared", "emptyDir": {}}],
        "initContainers": [
            {"name": "first", "command": ["sh", "-c", "echo -n open > /shared/word"], "volumeMounts": [WORD]}
        ],
        "beside": [{"name": "beside", "command": ["sleep", "3600"], "terminationMessagePath": "/dev/termination-log"}],
    },
    volumeMounts=[WORD],
    env=[{"name": "GREETING", "value": "hello"}],
)


def rich(image: str) -> dict[str, Any]:
    """``RICH`` with its other containers on an image that the cluster has."""
    spec = copy.deepcopy(RICH)
    pod = spec["spec"]["template"]["spec"]
    for one in (*pod["initContainers"], pod["containers"][1]):
        one["image"] = image
    return spec


@submits(flows.whoami, environment=lambda image: {"job_spec": rich(image), "env": {"EXTRA": "1"}})
def test_a_job_of_ones_own_with_two_containers_and_an_init_container(estate: Estate, run: Run[Any]) -> None:
    estate.ended(run, State.SUCCEEDED)
    seen = run.result()
    assert (seen["shared"], seen["greeting"], seen["run"]) == ("open", "hello", run.id)


@submits(flows.whoami)
def test_the_default_pod_has_few_rights(estate: Estate, run: Run[Any]) -> None:
    estate.ended(run, State.SUCCEEDED)
    seen = run.result()
    assert (seen["uid"], seen["token"], seen["secrets"]) == (10001, False, [])


@submits(flows.count_in_c)
def test_a_cancel_during_a_c_call(estate: Estate, run: Run[int]) -> None:
    estate.begun(run)
    assert run.cancel()
    estate.ended(run, State.CANCELLED)


@submits(flows.hold, {"seconds": 300})
def test_the_jobs_deadline(estate: Estate, run: Run[str]) -> None:
    estate.begun(run)
    (found,) = k8s.items("jobs", estate.name, f"flow_run_id={run.id}")
    patch = '{"spec": {"activeDeadlineSeconds": 1}}'
    k8s.kubectl("patch", "job", "-n", estate.name, found["metadata"]["name"], "-p", patch)
    estate.ended(run, State.TIMED_OUT)


DISK = {"requests": {"cpu": "10m"}, "limits": {"ephemeral-storage": "20Mi"}}


@submits(flows.fill, {"megabytes": 60}, environment={"resources": DISK})
def test_an_eviction(estate: Estate, run: Run[str]) -> None:
    error = cast("RunCrashed", estate.ended(run, State.CRASHED, Cause.EVICTED, timeout=150))
    assert "ephemeral" in str(error)
