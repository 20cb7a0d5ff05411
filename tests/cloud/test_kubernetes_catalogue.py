"""Row 26 of the fault matrix: a pod's status determines cause, message and retry.

Real Jobs and pods on a real API server, all at once. No scheduler handles the pods; the test writes their status as a
kubelet or a controller does. The table itself is tested by tests/unit/kubernetes/test_reasons.py.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import pytest

from dispatcher import Cause, Retry, Run, State
from dispatcher.runs.events import Event
from tests.cloud import flows, k8s
from tests.cloud.sandbox import Sandbox

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(300), pytest.mark.row(26)]

#: ``start_within`` of pods that only wait, in seconds.
START_WITHIN = 30.0

UNSCHEDULED_JOB: dict[str, Any] = {
    "apiVersion": "batch/v1",
    "kind": "Job",
    "spec": {
        "template": {
            "spec": {
                "schedulerName": "nobody",
                "initContainers": [{"name": "prepare", "image": "flows:1"}],
                "containers": [{"name": "flow"}],
            }
        }
    },
}


@dataclass(frozen=True)
class Row:
    """A pod's status, the expected cause, True if the usual policy retries, and a part of the message."""

    status: dict[str, Any]
    cause: Cause
    retried: bool = False
    message: str = "because"


def container(state: dict[str, Any], name: str = "flow") -> list[dict[str, Any]]:
    return [{"name": name, "state": state, "image": "i", "imageID": "", "ready": False, "restartCount": 0}]


def waiting(reason: str, cause: Cause) -> Row:
    state = {"waiting": {"reason": reason, "message": f"{reason} because"}}
    return Row({"phase": "Pending", "conditions": [scheduled()], "containerStatuses": container(state)}, cause)


def ended(code: int, reason: str = "Error", message: str = "") -> dict[str, Any]:
    return {"terminated": {"exitCode": code, "reason": reason, "message": message}}


def scheduled(status: str = "True", **more: str) -> dict[str, str]:
    return {"type": "PodScheduled", "status": status, **more}


def exited(code: int, reason: str, cause: Cause, *, retried: bool = False) -> Row:
    phase = "Failed" if code else "Succeeded"
    status = {"phase": phase, "containerStatuses": container(ended(code, reason))}
    return Row(status, cause, retried, "ended without a report")


def failed(reason: str, cause: Cause, *, retried: bool = False) -> Row:
    return Row({"phase": "Failed", "reason": reason, "message": "because"}, cause, retried)


def disrupted(reason: str, cause: Cause) -> Row:
    target = {"type": "DisruptionTarget", "status": "True", "reason": reason, "message": "because"}
    return Row({"phase": "Failed", "conditions": [target], "containerStatuses": container(ended(143))}, cause, True)


NO_ROOM = scheduled("False", reason="Unschedulable", message="0/1 nodes are available, because")
INIT = {"phase": "Failed", "initContainerStatuses": container(ended(3), "prepare")}

ROWS = {
    **{reason: waiting(reason, Cause.CONFIG_ERROR) for reason in ("InvalidImageName", "ErrImageNeverPull")},
    **{
        reason: waiting(reason, Cause.IMAGE_PULL)
        for reason in (
            "ErrImagePull",
            "ImagePullBackOff",
            "RegistryUnavailable",
            "SignatureValidationFailed",
            "ImageInspectError",
        )
    },
    "CreateContainerConfigError": waiting("CreateContainerConfigError", Cause.CONFIG_ERROR),
    **{reason: waiting(reason, Cause.START_FAILED) for reason in ("CreateContainerError", "RunContainerError")},
    "Unschedulable": Row({"phase": "Pending", "conditions": [NO_ROOM]}, Cause.UNSCHEDULABLE),
    "StartError": Row(
        {"phase": "Failed", "containerStatuses": container(ended(128, "StartError", "because"))}, Cause.START_FAILED
    ),
    "OOMKilled": exited(137, "OOMKilled", Cause.OOM_KILLED),
    "exit code 137": exited(137, "Error", Cause.KILLED, retried=True),
    "exit code 0": exited(0, "Completed", Cause.RESULT_MISSING),
    "an init container": Row(INIT, Cause.START_FAILED, message="init container prepare: "),
    "Evicted": failed("Evicted", Cause.EVICTED, retried=True),
    **{
        reason: failed(reason, Cause.PREEMPTED, retried=True) for reason in ("Preempting", "NodeShutdown", "Terminated")
    },
    **{reason: failed(reason, Cause.UNSCHEDULABLE) for reason in ("OutOfcpu", "OutOfmemory", "NodeAffinity")},
    "UnexpectedAdmissionError": failed("UnexpectedAdmissionError", Cause.START_FAILED),
    "DeadlineExceeded": failed("DeadlineExceeded", Cause.DEADLINE),
    "PreemptionByScheduler": disrupted("PreemptionByScheduler", Cause.PREEMPTED),
    **{reason: disrupted(reason, Cause.EVICTED) for reason in ("EvictionByEvictionAPI", "TerminationByKubelet")},
    **{reason: disrupted(reason, Cause.NODE_LOST) for reason in ("DeletionByTaintManager", "DeletionByPodGC")},
}


@pytest.fixture(scope="module")
def runs(sandbox: Sandbox) -> dict[str, Run[Any]]:
    """One run for each row, whose pod has the row's status."""
    sandbox.start_worker()
    admin = k8s.NamespaceAdmin(sandbox.name)
    policy = Retry(1, delay=3600.0)
    submitted = {
        name: sandbox.submit(
            flows.add,
            {"a": 1, "b": 2},
            environment={"job_spec": UNSCHEDULED_JOB},
            retries=policy,
            start_within=START_WITHIN if row.status["phase"] == "Pending" else None,
        )
        for name, row in ROWS.items()
    }
    started = time.monotonic()
    done: set[str] = set()

    def all_set() -> bool:
        pods = {pod["metadata"]["labels"]["flow_run_id"]: pod["metadata"]["name"] for pod in admin.list("pods")}
        for name in ROWS.keys() - done:
            if (pod := pods.get(submitted[name].id)) is not None:
                admin.set_pod_status(pod, **ROWS[name].status)
                done.add(name)
        return len(done) == len(ROWS)

    sandbox.wait_until(all_set, "a pod for each row")
    print(f"{len(ROWS)} pods have their status after {time.monotonic() - started:.1f} s")  # noqa: T201
    return submitted


def exits(run: Run[Any]) -> list[Event]:
    """Return the events of its attempts' ends."""
    return [event for event in run.events() if event.kind == "exited"]


@pytest.mark.parametrize("name", ROWS)
def test_row_26(name: str, sandbox: Sandbox, runs: dict[str, Run[Any]]) -> None:
    row, run = ROWS[name], runs[name]
    (event,) = sandbox.wait_until(lambda: exits(run), f"the end of {run.id}", timeout=90)
    assert (event.data["cause"], event.final) == (row.cause, not row.retried), event.data
    assert row.message in str(event.data.get("message"))
    state = State.TIMED_OUT if row.cause is Cause.DEADLINE else State.CRASHED
    assert run.state is (State.AWAITING_RETRY if row.retried else state)
    if row.retried:
        run.cancel()
    sandbox.expect_nothing_left(run)
