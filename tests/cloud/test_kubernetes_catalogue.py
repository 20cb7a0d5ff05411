"""Row 26 of the fault matrix: what a pod says of its end becomes cause, message and decision to repeat.

Real Jobs and real pods on the real API server, all at once; no scheduler takes the pods, and a driver writes their
status as a kubelet or a controller would. The table itself is tests/unit/kubernetes/test_reasons.py.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import pytest

from dispatcher import Cause, Retry, Run, State
from dispatcher.runs.events import Event
from tests.cloud import flows, k8s
from tests.cloud.sandbox import Estate

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(300), pytest.mark.row(26)]

#: Seconds after which what only waits has waited for too long.
PATIENT = 30.0

NOBODY: dict[str, Any] = {
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
    """A pod's status, the cause that it becomes, whether the usual policy repeats it, and what the message holds."""

    status: dict[str, Any]
    cause: Cause
    repeated: bool = False
    message: str = "because"


def container(state: dict[str, Any], name: str = "flow") -> list[dict[str, Any]]:
    return [{"name": name, "state": state, "image": "i", "imageID": "", "ready": False, "restartCount": 0}]


def waiting(reason: str, cause: Cause) -> Row:
    state = {"waiting": {"reason": reason, "message": f"{reason} because"}}
    return Row({"phase": "Pending", "conditions": [placed()], "containerStatuses": container(state)}, cause)


def ended(code: int, reason: str = "Error", message: str = "") -> dict[str, Any]:
    return {"terminated": {"exitCode": code, "reason": reason, "message": message}}


def placed(status: str = "True", **more: str) -> dict[str, str]:
    return {"type": "PodScheduled", "status": status, **more}


def died(code: int, reason: str, cause: Cause, *, repeated: bool = False) -> Row:
    phase = "Failed" if code else "Succeeded"
    status = {"phase": phase, "containerStatuses": container(ended(code, reason))}
    return Row(status, cause, repeated, "ended without a report")


def put_out(reason: str, cause: Cause, *, repeated: bool = False) -> Row:
    return Row({"phase": "Failed", "reason": reason, "message": "because"}, cause, repeated)


def disrupted(reason: str, cause: Cause) -> Row:
    target = {"type": "DisruptionTarget", "status": "True", "reason": reason, "message": "because"}
    return Row({"phase": "Failed", "conditions": [target], "containerStatuses": container(ended(143))}, cause, True)


NO_ROOM = placed("False", reason="Unschedulable", message="0/1 nodes are available, because")
INIT = {"phase": "Failed", "initContainerStatuses": container(ended(3), "prepare")}

ROWS = {
    **{one: waiting(one, Cause.CONFIG_ERROR) for one in ("InvalidImageName", "ErrImageNeverPull")},
    **{
        one: waiting(one, Cause.IMAGE_PULL)
        for one in (
            "ErrImagePull",
            "ImagePullBackOff",
            "RegistryUnavailable",
            "SignatureValidationFailed",
            "ImageInspectError",
        )
    },
    "CreateContainerConfigError": waiting("CreateContainerConfigError", Cause.CONFIG_ERROR),
    **{one: waiting(one, Cause.START_FAILED) for one in ("CreateContainerError", "RunContainerError")},
    "Unschedulable": Row({"phase": "Pending", "conditions": [NO_ROOM]}, Cause.UNSCHEDULABLE),
    "StartError": Row(
        {"phase": "Failed", "containerStatuses": container(ended(128, "StartError", "because"))}, Cause.START_FAILED
    ),
    "OOMKilled": died(137, "OOMKilled", Cause.OOM_KILLED),
    "exit code 137": died(137, "Error", Cause.KILLED, repeated=True),
    "exit code 0": died(0, "Completed", Cause.RESULT_MISSING),
    "an init container": Row(INIT, Cause.START_FAILED, message="init container prepare: "),
    "Evicted": put_out("Evicted", Cause.EVICTED, repeated=True),
    **{one: put_out(one, Cause.PREEMPTED, repeated=True) for one in ("Preempting", "NodeShutdown", "Terminated")},
    **{one: put_out(one, Cause.UNSCHEDULABLE) for one in ("OutOfcpu", "OutOfmemory", "NodeAffinity")},
    "UnexpectedAdmissionError": put_out("UnexpectedAdmissionError", Cause.START_FAILED),
    "DeadlineExceeded": put_out("DeadlineExceeded", Cause.DEADLINE),
    "PreemptionByScheduler": disrupted("PreemptionByScheduler", Cause.PREEMPTED),
    **{one: disrupted(one, Cause.EVICTED) for one in ("EvictionByEvictionAPI", "TerminationByKubelet")},
    **{one: disrupted(one, Cause.NODE_LOST) for one in ("DeletionByTaintManager", "DeletionByPodGC")},
}


@pytest.fixture(scope="module")
def runs(estate: Estate) -> dict[str, Run[Any]]:
    """One for each row, whose pod has been told."""
    estate.worker()
    driver = k8s.Driver(estate.name)
    policy = Retry(1, delay=3600.0)
    found = {
        name: estate.submit(
            flows.add,
            {"a": 1, "b": 2},
            environment={"job_spec": NOBODY},
            retries=policy,
            start_within=PATIENT if row.status["phase"] == "Pending" else None,
        )
        for name, row in ROWS.items()
    }
    began = time.monotonic()
    told: set[str] = set()

    def all_told() -> bool:
        pods = {one["metadata"]["labels"]["flow_run_id"]: one["metadata"]["name"] for one in driver.list("pods")}
        for name in ROWS.keys() - told:
            if (pod := pods.get(found[name].id)) is not None:
                driver.status(pod, **ROWS[name].status)
                told.add(name)
        return len(told) == len(ROWS)

    estate.until(all_told, "a pod for each row")
    print(f"{len(ROWS)} pods told after {time.monotonic() - began:.1f} s")  # noqa: T201
    return found


def exits(run: Run[Any]) -> list[Event]:
    """The ends of its attempts."""
    return [event for event in run.events() if event.kind == "exited"]


@pytest.mark.parametrize("name", ROWS)
def test_row_26(name: str, estate: Estate, runs: dict[str, Run[Any]]) -> None:
    row, run = ROWS[name], runs[name]
    (event,) = estate.until(lambda: exits(run), f"the end of {run.id}", timeout=90)
    assert (event.data["cause"], event.final) == (row.cause, not row.repeated), event.data
    assert row.message in str(event.data.get("message"))
    state = State.TIMED_OUT if row.cause is Cause.DEADLINE else State.CRASHED
    assert run.state is (State.AWAITING_RETRY if row.repeated else state)
    if row.repeated:
        run.cancel()
    estate.nothing_left(run)
