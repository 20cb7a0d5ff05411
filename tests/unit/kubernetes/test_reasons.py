"""Each row of the failure catalogue yields its cause, with reason, message and exit code."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from backends.base import Observation, Phase
from backends.kubernetes.reasons import Clocks, Pod, Snapshot, observe
from dispatcher import Cause
from dispatcher.runner.container.termination_message import TerminationMessage
from dispatcher.runs.outcome import Outcome

#: The retry decisions, and the same on a real API server: tests/cloud/test_kubernetes_catalogue.py.
pytestmark = pytest.mark.row(26)

JOB: dict[str, Any] = {"metadata": {"name": "flow-1", "uid": "job-uid"}, "spec": {}, "status": {"active": 1}}
SCHEDULED = {"type": "PodScheduled", "status": "True"}
READY_TO_START = {"type": "PodReadyToStartContainers", "status": "True"}


def pod(state: dict[str, Any] | None = None, *conditions: dict[str, Any], **status: Any) -> dict[str, Any]:
    """Return a pod whose flow container is in ``state``. A side-car that never ends comes before it."""
    containers = [
        {"name": "mesh", "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}},
        {"name": "flow", "state": state or {"waiting": {"reason": "ContainerCreating"}}},
    ]
    return {
        "metadata": {"name": "flow-1-abc", "uid": "pod-uid"},
        "spec": {"nodeName": "node-1"},
        "status": {
            "phase": "Running",
            "containerStatuses": containers,
            "conditions": [SCHEDULED, *conditions],
            **status,
        },
    }


def waiting(reason: str, message: str = "") -> dict[str, Any]:
    return {"waiting": {"reason": reason, "message": message}}


def ended(code: int, reason: str = "Error", message: str = "") -> dict[str, Any]:
    return {"terminated": {"exitCode": code, "reason": reason, "message": message}}


def event(reason: str, message: str, uid: str = "pod-uid", at: str = "2026-01-01T00:00:00Z") -> dict[str, Any]:
    return {"reason": reason, "message": message, "involvedObject": {"uid": uid}, "lastTimestamp": at}


def observed(
    *pods: dict[str, Any],
    job: Any = JOB,
    gone: bool = False,
    events: Iterable[Any] = (),
    after: float = 0.0,
    deleted: bool = False,
) -> Observation:
    """Return the second of two observations, ``after`` seconds from the first."""
    snapshot = Snapshot(
        job=job, deleted=deleted, pods=[Pod(object=item, gone=gone) for item in pods], events=list(events)
    )
    _, clocks = observe(snapshot, {}, 1000.0)
    return observe(snapshot, clocks, 1000.0 + after)[0]


def summary(observation: Observation) -> tuple[Phase, Cause | None]:
    return observation.phase, observation.cause


@pytest.mark.parametrize("reason", ["InvalidImageName", "ErrImageNeverPull"])
def test_row_a_wrong_image_is_a_config_error_at_once(reason: str) -> None:
    observation = observed(pod(waiting(reason, "couldn't parse image reference")))
    assert summary(observation) == (Phase.ENDED, Cause.CONFIG_ERROR)
    assert (observation.reason, observation.message) == (reason, "couldn't parse image reference")


@pytest.mark.parametrize(
    "reason",
    ["ErrImagePull", "ImagePullBackOff", "RegistryUnavailable", "SignatureValidationFailed", "ImageInspectError"],
)
@pytest.mark.parametrize(
    ("text", "after", "phase"),
    [
        ("dial tcp: i/o timeout", 10_000, Phase.WAITING),
        ("x:1: not found", 89, Phase.WAITING),
        ("x:1: not found", 90, Phase.ENDED),
    ],
)
def test_row_image_pull(reason: str, text: str, after: float, phase: Phase) -> None:
    observation = observed(pod(waiting(reason, text)), after=after)
    assert summary(observation) == (phase, Cause.IMAGE_PULL)
    assert (observation.reason, observation.message) == (reason, text)


def test_row_image_pull_alternates_on_one_clock_and_keeps_the_text() -> None:
    clocks: Clocks = {}
    turns = [("ErrImagePull", "x:1: not found"), ("ImagePullBackOff", 'Back-off pulling image "x:1"')] * 5
    for turn, (reason, text) in enumerate(turns):
        observation, clocks = observe(
            Snapshot(job=JOB, pods=[Pod(object=pod(waiting(reason, text)))]), clocks, 10.0 * turn
        )
        assert (observation.reason, observation.message) == ("ErrImagePull", "x:1: not found")
        assert observation.phase is (Phase.ENDED if turn == 9 else Phase.WAITING)


@pytest.mark.parametrize(("after", "phase"), [(59, Phase.WAITING), (60, Phase.ENDED)])
def test_row_create_container_config_error(after: float, phase: Phase) -> None:
    observation = observed(pod(waiting("CreateContainerConfigError", 'secret "s" not found')), after=after)
    assert summary(observation) == (phase, Cause.CONFIG_ERROR)
    assert observation.message == 'secret "s" not found'


@pytest.mark.parametrize("reason", ["CreateContainerError", "RunContainerError"])
def test_row_a_container_that_cannot_be_made(reason: str) -> None:
    assert summary(observed(pod(waiting(reason, "no such device")))) == (Phase.WAITING, Cause.START_FAILED)
    assert summary(observed(pod(waiting(reason, "no such device")), after=60)) == (Phase.ENDED, Cause.START_FAILED)


def test_row_start_error() -> None:
    observation = observed(pod(ended(128, "StartError", 'exec: "python": executable file not found'), phase="Failed"))
    assert summary(observation) == (Phase.ENDED, Cause.START_FAILED)
    assert (observation.exit_code, observation.reason) == (128, "StartError")
    assert "executable file not found" in observation.message


@pytest.mark.parametrize(
    ("reason", "text", "after", "expected"),
    [
        ("FailedMount", 'MountVolume.SetUp failed: secret "s" not found', 4, (Phase.WAITING, None)),
        ("FailedMount", 'MountVolume.SetUp failed: secret "s" not found', 5, (Phase.WAITING, Cause.CONFIG_ERROR)),
        ("FailedMount", 'MountVolume.SetUp failed: secret "s" not found', 60, (Phase.ENDED, Cause.CONFIG_ERROR)),
        ("FailedMount", "references non-existent secret key: k", 60, (Phase.ENDED, Cause.CONFIG_ERROR)),
        ("FailedMount", "timed out waiting for the condition", 10_000, (Phase.WAITING, Cause.START_FAILED)),
        ("FailedCreatePodSandBox", "cni: no IP", 10_000, (Phase.WAITING, Cause.START_FAILED)),
    ],
)
def test_row_container_creating(reason: str, text: str, after: float, expected: Any) -> None:
    observation = observed(pod(phase="Pending"), events=[event(reason, text)], after=after)
    assert summary(observation) == expected
    assert observation.message == ("" if expected[1] is None else text)


def test_row_container_creating_is_patient_without_an_event_and_once_the_mounts_are_there() -> None:
    assert summary(observed(pod(phase="Pending"), after=10_000)) == (Phase.WAITING, None)
    late = [event("FailedMount", 'secret "s" not found')]
    assert summary(observed(pod(None, READY_TO_START, phase="Pending"), events=late, after=10_000)) == (
        Phase.WAITING,
        None,
    )
    others = [event("FailedMount", 'secret "s" not found', uid="another")]
    assert summary(observed(pod(phase="Pending"), events=others, after=10_000)) == (Phase.WAITING, None)


@pytest.mark.parametrize(
    ("text", "after", "expected"),
    [
        ("exceeded quota: pods=1", 4, (Phase.WAITING, None)),
        ("exceeded quota: pods=1", 10_000, (Phase.WAITING, Cause.QUOTA)),
        ('violates PodSecurity "restricted:latest"', 5, (Phase.WAITING, Cause.CONFIG_ERROR)),
        ('violates PodSecurity "restricted:latest"', 60, (Phase.ENDED, Cause.CONFIG_ERROR)),
        ('serviceaccount "x" not found', 60, (Phase.ENDED, Cause.CONFIG_ERROR)),
        ("no PriorityClass with name p was found", 60, (Phase.ENDED, Cause.CONFIG_ERROR)),
    ],
)
def test_row_a_job_without_a_pod(text: str, after: float, expected: Any) -> None:
    old = event("FailedCreate", "older", "job-uid", "2025-01-01T00:00:00Z")
    observation = observed(events=[event("FailedCreate", text, "job-uid"), old], after=after)
    assert summary(observation) == expected
    assert summary(observed(after=10_000)) == (Phase.WAITING, None)  # no event: the controller is slow


@pytest.mark.parametrize(
    ("state", "after", "expected"),
    [
        (waiting("ErrImagePull", "x: not found"), 90, (Phase.ENDED, Cause.IMAGE_PULL)),
        (waiting("CreateContainerConfigError", "no key"), 60, (Phase.ENDED, Cause.CONFIG_ERROR)),
        (ended(137, "OOMKilled"), 0, (Phase.ENDED, Cause.OOM_KILLED)),
        (ended(137), 0, (Phase.ENDED, Cause.KILLED)),
        (ended(3), 0, (Phase.ENDED, Cause.START_FAILED)),
    ],
)
def test_row_the_same_in_an_init_container_keeps_its_name(state: Any, after: float, expected: Any) -> None:
    phase = "Failed" if "terminated" in state else "Pending"
    inits = [{"name": "fine", "state": ended(0, "Completed")}, {"name": "prepare", "state": state}]
    observation = observed(pod(waiting("PodInitializing"), phase=phase, initContainerStatuses=inits), after=after)
    assert summary(observation) == expected
    assert observation.message.startswith("init container prepare: ")


def test_row_unschedulable() -> None:
    text = "0/1 nodes are available: 1 Insufficient cpu."
    unplaced = pod(phase="Pending", containerStatuses=None)
    unplaced["status"]["conditions"] = [
        {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": text}
    ]
    observation = observed(unplaced, after=10_000)
    assert summary(observation) == (Phase.WAITING, Cause.UNSCHEDULABLE)
    assert (observation.reason, observation.message) == ("Unschedulable", text)


def test_row_quota_queues_pause() -> None:
    gated = pod(phase="Pending", containerStatuses=None)
    gated["status"]["conditions"] = [{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}]
    suspended = {**JOB, "spec": {"suspend": True}}
    for observation in (
        observed(gated, after=10_000),
        observed(job=suspended, after=10_000),
        observed(pod(), job=suspended),
    ):
        assert summary(observation) == (Phase.WAITING, None)
        assert observation.paused
    assert not observed(pod()).paused


@pytest.mark.parametrize("code", [137, 0])
def test_row_oom(code: int) -> None:
    observation = observed(pod(ended(code, "OOMKilled"), phase="Failed"))
    assert summary(observation) == (Phase.ENDED, Cause.OOM_KILLED)
    assert (observation.exit_code, observation.reason) == (code, "OOMKilled")


def test_row_137_without_oom() -> None:
    observation = observed(pod(ended(137), phase="Failed"))
    assert summary(observation) == (Phase.ENDED, Cause.KILLED)
    assert observation.exit_code == 137


@pytest.mark.parametrize(
    ("reason", "cause"),
    [
        ("Evicted", Cause.EVICTED),
        ("Preempting", Cause.PREEMPTED),
        ("NodeShutdown", Cause.PREEMPTED),
        ("Terminated", Cause.PREEMPTED),
        ("OutOfcpu", Cause.UNSCHEDULABLE),
        ("OutOfmemory", Cause.UNSCHEDULABLE),
        ("OutOfnvidia.com/gpu", Cause.UNSCHEDULABLE),
        ("TopologyAffinityError", Cause.UNSCHEDULABLE),
        ("PodOSNotSupported", Cause.CONFIG_ERROR),
        ("NodeAffinity", Cause.UNSCHEDULABLE),
        ("UnexpectedAdmissionError", Cause.START_FAILED),
        ("DeadlineExceeded", Cause.DEADLINE),
    ],
)
@pytest.mark.parametrize("state", [None, ended(137), ended(0, "Completed")])
def test_row_a_pods_own_reason(reason: str, cause: Cause, state: Any) -> None:
    observation = observed(pod(state, phase="Failed", reason=reason, message="because"))
    assert summary(observation) == (Phase.ENDED, cause)
    assert (observation.reason, observation.message) == (reason, "because")
    assert observation.exit_code == (state or {}).get("terminated", {}).get("exitCode")


@pytest.mark.parametrize(
    ("reason", "cause"),
    [
        ("PreemptionByScheduler", Cause.PREEMPTED),
        ("EvictionByEvictionAPI", Cause.EVICTED),
        ("TerminationByKubelet", Cause.EVICTED),
        ("DeletionByTaintManager", Cause.NODE_LOST),
        ("DeletionByPodGC", Cause.NODE_LOST),
    ],
)
def test_row_disruption_target(reason: str, cause: Cause) -> None:
    target = {"type": "DisruptionTarget", "status": "True", "reason": reason, "message": "because"}
    observation = observed(pod(ended(143), target, phase="Failed"))
    assert summary(observation) == (Phase.ENDED, cause)
    assert (observation.reason, observation.message, observation.exit_code) == (reason, "because", 143)
    assert observed(pod({"running": {}}, target), gone=True).cause is cause


def test_row_the_jobs_deadline() -> None:
    for kind in ("Failed", "FailureTarget"):
        late = {"type": kind, "status": "True", "reason": "DeadlineExceeded", "message": "Job was active too long"}
        job = {**JOB, "status": {"conditions": [late]}}
        assert summary(observed(pod(ended(137), phase="Failed"), job=job)) == (Phase.ENDED, Cause.DEADLINE)
    assert summary(observed(job=job | {"status": {"conditions": [late | {"type": "Failed"}]}})) == (
        Phase.ENDED,
        Cause.DEADLINE,
    )


def test_row_backoff_limit_exceeded_looks_at_the_last_pod() -> None:
    failed = {"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded", "message": "backoff limit"}
    job = {**JOB, "status": {"conditions": [failed]}}
    assert summary(observed(pod(ended(137, "OOMKilled")), job=job, gone=True)) == (Phase.ENDED, Cause.OOM_KILLED)
    observation = observed(job=job)
    assert summary(observation) == (Phase.ENDED, Cause.UNKNOWN)
    assert observation.reason == "BackoffLimitExceeded"


def test_a_job_that_is_ending_has_not_ended() -> None:
    """While a pod is Terminating, the Job stays at FailureTarget."""
    target = {"type": "FailureTarget", "status": "True", "reason": "BackoffLimitExceeded"}
    assert summary(observed(job={**JOB, "status": {"conditions": [target]}})) == (Phase.WAITING, None)


def test_row_deleted_while_running() -> None:
    for job in (JOB, None):
        observation = observed(pod({"running": {}}), job=job, gone=True)
        assert summary(observation) == (Phase.GONE, Cause.KILLED)
        assert observation.reason == "deleted"
    observation = observed(job=None, deleted=True)
    assert (*summary(observation), observation.reason) == (Phase.GONE, Cause.KILLED, "deleted")


def test_a_node_that_refuses_a_pod_for_an_unknown_reason() -> None:
    refused = pod(phase="Failed", reason="SomethingNew", message="Pod was rejected", containerStatuses=None)
    observation = observed(refused)
    assert summary(observation) == (Phase.ENDED, Cause.START_FAILED)
    assert (observation.reason, observation.message) == ("SomethingNew", "Pod was rejected")


def test_a_job_deleted_while_unwatched_has_an_unknown_cause() -> None:
    assert summary(observed(job=None)) == (Phase.GONE, Cause.UNKNOWN)


def test_row_a_lost_node_alone_ends_nothing() -> None:
    unknown = {"type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown"}
    observation = observed(pod({"running": {}}, unknown))
    assert summary(observation) == (Phase.UNKNOWN, Cause.NODE_LOST)
    assert "node-1" in observation.message
    assert summary(observed(pod({"running": {}}, unknown), gone=True)) == (Phase.GONE, Cause.NODE_LOST)


def test_an_unready_pod_with_ready_containers_is_on_a_lost_node() -> None:
    """The node controller sets this also where it evicts nothing: pods tolerate it, or all nodes are silent."""

    def with_conditions(ready: str, containers: str, **spec: object) -> tuple[Phase, Cause | None]:
        item = pod(
            {"running": {}}, {"type": "Ready", "status": ready}, {"type": "ContainersReady", "status": containers}
        )
        return summary(observed({**item, "spec": {**item["spec"], **spec}}))

    assert with_conditions("False", "True") == (Phase.UNKNOWN, Cause.NODE_LOST)
    assert with_conditions("False", "False") == with_conditions("True", "True") == (Phase.RUNNING, None)
    gates = [{"conditionType": "tests.example/open"}]
    assert with_conditions("False", "True", readinessGates=gates) == (Phase.RUNNING, None), "its gate may be closed"


def test_row_exit_0_without_a_report_is_not_a_success() -> None:
    observation = observed(pod(ended(0, "Completed"), phase="Succeeded"))
    assert (*summary(observation), observation.exit_code) == (Phase.ENDED, None, 0)  # the engine's: result_missing
    done = {**JOB, "status": {"conditions": [{"type": "Complete", "status": "True"}]}}
    assert (*summary(observed(job=done)), observed(job=done).exit_code) == (Phase.ENDED, None, 0)


def test_an_attempt_ends_with_the_flows_container() -> None:
    assert observed(pod({"running": {}})).phase is Phase.RUNNING
    assert observed(pod(ended(0, "Completed"))).phase is Phase.ENDED  # the pod stays Running: its mesh never ends
    other = pod({"running": {}})
    assert observed(pod(ended(1)), other).phase is Phase.RUNNING  # a second pod of the attempt may be the rightful one


def test_the_termination_message_holds_the_cause() -> None:
    def termination_message(outcome: Outcome) -> str:
        return TerminationMessage.of(outcome, run="r", attempt=1).to_json()

    failed = Outcome(cause=Cause.USER_ERROR, reason="ValueError", message="no such luck")
    observation = observed(pod(ended(3, message=termination_message(failed))))
    assert (*summary(observation), observation.message) == (Phase.ENDED, Cause.USER_ERROR, "ValueError: no such luck")
    observation = observed(pod(ended(3, message=termination_message(Outcome()))))
    assert summary(observation) == (Phase.ENDED, Cause.RESULT_MISSING)
    for text in ("{", "[]", '{"state": 1}', '{"state": "X", "cause": "no such cause"}', "null"):
        assert observed(pod(ended(3, message=text))).message.endswith(f"; its last line: {text}")


def test_an_exit_without_a_termination_message() -> None:
    observation = observed(pod(ended(1)))
    assert (*summary(observation), observation.exit_code) == (Phase.ENDED, Cause.START_FAILED, 1)


def test_a_pod_deleted_before_its_flow_started_is_ignored() -> None:
    assert summary(observed(pod(phase="Pending"), gone=True)) == (Phase.WAITING, None)
