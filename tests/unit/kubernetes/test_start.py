"""Each way in which a start can hang has its reason, cause and text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from backends.base import Observation, Phase
from backends.kubernetes.cluster.trim import trim
from backends.kubernetes.reasons import Pod, Snapshot, observe
from backends.kubernetes.suspension import QUEUE_LABEL, suspended_by
from dispatcher import Cause

JOB: dict[str, Any] = {"metadata": {"name": "flow-1", "uid": "job-uid"}, "spec": {}, "status": {"active": 1}}
READY = {"type": "PodReadyToStartContainers", "status": "True"}
SINCE = "2026-01-01T00:00:10Z"


def pod(
    *conditions: dict[str, Any], init: Sequence[dict[str, Any]] = (), scheduled: bool = True, **spec: Any
) -> dict[str, Any]:
    """Return a pod as the API server has it, whose flow container hasn't started."""
    placed = [{"type": "PodScheduled", "status": "True"}] if scheduled else []
    return {
        "metadata": {"name": "flow-1-abc", "uid": "pod-uid"},
        "spec": {"nodeName": "node-1", **spec} if scheduled else spec,
        "status": {
            "phase": "Pending",
            "conditions": [*placed, *conditions],
            "initContainerStatuses": list(init),
            "containerStatuses": [{"name": "flow", "state": {"waiting": {"reason": "PodInitializing"}}}],
        },
    }


def event(reason: str, message: str, *, about: str = "pod-uid", at: str = SINCE) -> dict[str, Any]:
    return {"reason": reason, "message": message, "involvedObject": {"uid": about}, "lastTimestamp": at}


def warning(reason: str, message: str, **more: Any) -> dict[str, Any]:
    return {**event(reason, message, **more), "type": "Warning"}


def observed(
    *pods: dict[str, Any], events: Sequence[Any] = (), after: float = 5.0, job: dict[str, Any] = JOB
) -> Observation:
    """Return the second of two observations, ``after`` seconds from the first, of objects as the cache keeps them."""
    snapshot = Snapshot(
        job=job,
        pods=[Pod(object=trim("pods", item)) for item in pods],
        events=[trim("events", item) for item in events],
    )
    _, clocks = observe(snapshot, {}, 1000.0)
    return observe(snapshot, clocks, 1000.0 + after)[0]


def gate(*names: str) -> dict[str, Any]:
    gated = {"type": "PodScheduled", "status": "False", "reason": "SchedulingGated", "message": "Scheduling is blocked"}
    return pod(gated, scheduled=False, schedulingGates=[{"name": name} for name in names])


def unscheduled(reason: str, message: str) -> dict[str, Any]:
    return pod({"type": "PodScheduled", "status": "False", "reason": reason, "message": message}, scheduled=False)


def running(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "state": {"running": {"startedAt": SINCE}}, **more}


def ended(code: int, reason: str = "Error", message: str = "") -> dict[str, Any]:
    return {"terminated": {"exitCode": code, "reason": reason, "message": message}}


MESH = [{"name": "mesh", "restartPolicy": "Always"}, {"name": "prepare"}]
BACK_OFF = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s restarting failed container=mesh"}}
DONE = {"name": "done", "state": ended(0, "Completed")}

ROWS: dict[str, tuple[Observation, str, Cause | None, str]] = {
    "an image is being pulled": (
        observed(pod(READY), events=[event("Pulling", 'Pulling image "flows:1"')]),
        "Pulling",
        Cause.IMAGE_PULL,
        "image flows:1 is being pulled since 2026-01-01 00:00:10 UTC",
    ),
    "the second image is being pulled": (
        observed(
            pod(READY),
            events=[
                event("Pulled", 'Successfully pulled image "mesh:1" in 2s'),
                event("Pulling", 'Pulling image "flows:1"'),
            ],
        ),
        "Pulling",
        Cause.IMAGE_PULL,
        "image flows:1 is being pulled since 2026-01-01 00:00:10 UTC",
    ),
    "an init container runs": (
        observed(pod(READY, init=[DONE, running("prepare", started=True)], initContainers=MESH)),
        "init/prepare",
        Cause.START_FAILED,
        "init container prepare runs since 2026-01-01 00:00:10 UTC",
    ),
    "a side-car's startup probe fails": (
        observed(
            pod(READY, init=[running("mesh", started=False)], initContainers=MESH),
            events=[event("Unhealthy", "Startup probe failed: connection refused\n")],
        ),
        "init/mesh",
        Cause.START_FAILED,
        "side-car mesh runs since 2026-01-01 00:00:10 UTC, and its startup probe hasn't succeeded "
        "(Startup probe failed: connection refused)",
    ),
    "an init container behind a side-car": (
        observed(pod(READY, init=[running("mesh", started=True), running("prepare")], initContainers=MESH)),
        "init/prepare",
        Cause.START_FAILED,
        "init container prepare runs since 2026-01-01 00:00:10 UTC",
    ),
    "a side-car in a crash loop": (
        observed(
            pod(READY, init=[{"name": "mesh", "state": BACK_OFF, "lastState": ended(3)}], initContainers=MESH)
        ),
        "CrashLoopBackOff",
        Cause.START_FAILED,
        "side-car mesh is started again and again, and ends with exit code 3 (Error); see its log",
    ),
    "a side-car between two crashes": (
        observed(
            pod(
                READY,
                init=[running("mesh", started=False, lastState=ended(1, "Error", "no config"))],
                initContainers=MESH,
            )
        ),
        "CrashLoopBackOff",
        Cause.START_FAILED,
        "side-car mesh is started again and again, and ends with exit code 1 (Error): no config",
    ),
    "a gate that no quota queue has set": (
        observed(gate("kueue.x-k8s.io/admission", "example.com/later")),
        "SchedulingGated",
        Cause.UNSCHEDULABLE,
        "its pod has scheduling gates, which must be taken away: example.com/later",
    ),
    "a gate of a quota queue": (
        observed(gate("kueue.x-k8s.io/admission")),
        "SchedulingGated",
        None,
        "a quota queue holds it: its pod has a scheduling gate",
    ),
    "no scheduler": (
        observed(pod(scheduled=False, schedulerName="nobody"), after=30),
        "PodInitializing",
        None,
        "no scheduler has looked at its pod: does one named nobody run?",
    ),
    "the scheduler fails": (
        observed(unscheduled("SchedulerError", 'running PreBind plugin "VolumeBinding": deadline exceeded')),
        "SchedulerError",
        Cause.UNSCHEDULABLE,
        'running PreBind plugin "VolumeBinding": deadline exceeded',
    ),
    **{
        name: (observed(unscheduled("Unschedulable", text)), "Unschedulable", Cause.UNSCHEDULABLE, text)
        for name, text in {
            "a claim that doesn't exist": '0/1 nodes are available: persistentvolumeclaim "nope" not found.',
            "a claim that isn't bound": "0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims.",
            "a node selector": "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector.",
            "a taint": "0/1 nodes are available: 1 node(s) had untolerated taint {gpu: true}.",
        }.items()
    },
    **{
        reason: (observed(pod(), events=[event(reason, "because")]), reason, Cause.START_FAILED, "because")
        for reason in ("FailedMount", "FailedMapVolume", "FailedAttachVolume", "FailedCreatePodSandBox")
    },
    **{
        text: (
            observed(events=[event("FailedCreate", text, about="job-uid")]), "FailedCreate", Cause.CONFIG_ERROR, text
        )
        for text in (
            'pods "x" is forbidden: violates PodSecurity "restricted:latest": runAsNonRoot != true',
            'pods "x" is forbidden: maximum cpu usage per Container is 1, but limit is 2',
            'pods "x" is forbidden: error looking up service account a/b: serviceaccount "b" not found',
            'pods "x" is forbidden: no PriorityClass with name p was found',
        )
    },
    "a resource claim that can't be made": (
        observed(pod(scheduled=False), events=[event("FailedResourceClaimCreation", "PodResourceClaim gpu: denied")]),
        "FailedResourceClaimCreation",
        Cause.UNSCHEDULABLE,
        "PodResourceClaim gpu: denied",
    ),
    "a resource claim without its template": (
        observed(
            pod(scheduled=False),
            events=[event("FailedResourceClaimCreation", 'resourceclaimtemplate "gpu" not found')],
        ),
        "FailedResourceClaimCreation",
        Cause.CONFIG_ERROR,
        'resourceclaimtemplate "gpu" not found',
    ),
    "a node that doesn't exist": (
        observed({**pod(scheduled=False), "spec": {"nodeName": "nowhere"}}),
        "NodeName",
        Cause.UNSCHEDULABLE,
        "its pod names node nowhere (spec.nodeName), which hasn't taken it: does that node exist?",
    ),
    "a warning that no row knows, before a node": (
        observed(pod(scheduled=False), events=[warning("SomethingNew", "no luck\n")], after=8),
        "PodInitializing",
        None,
        "its pod isn't on a node yet; its last warning: SomethingNew: no luck",
    ),
    "a warning that no row knows, on a node": (
        observed(pod(READY), events=[warning("SomethingNew", "no luck")], after=8),
        "PodInitializing",
        None,
        "node node-1 hasn't started its container yet; its last warning: SomethingNew: no luck",
    ),
    "a node that says nothing": (
        observed(pod(READY), after=30),
        "PodInitializing",
        None,
        "node node-1 hasn't started its container yet, and says nothing about it",
    ),
    "a Job controller that says nothing": (
        observed(after=30),
        "",
        None,
        "the Job controller hasn't created its pod yet, and says nothing about it",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ROWS)
def test_row_of_a_start_that_hangs(name: str) -> None:
    observation, reason, cause, text = ROWS[name]
    assert (observation.phase, observation.reason) == (Phase.WAITING, reason)
    assert (observation.cause, observation.message) == (cause, text)
    assert observation.paused == ("quota queue" in text)


@pytest.mark.parametrize(
    ("item", "events"),
    [
        (pod(READY), [event("Pulling", 'Pulling image "flows:1"')]),
        (pod(READY, init=[running("prepare")]), []),
        (pod(), [event("FailedMount", "because")]),
        (None, [event("FailedCreate", "because", about="job-uid")]),
        (pod(READY, init=[{"name": "mesh", "state": BACK_OFF}], initContainers=MESH), []),
    ],
)
def test_what_is_over_within_seconds_is_not_reported(item: Any, events: Any) -> None:
    observation = observed(*([item] if item else []), events=events, after=4.9)
    assert (observation.phase, observation.cause, observation.message) == (Phase.WAITING, None, "")


@pytest.mark.parametrize(
    "events",
    [
        [event("Pulling", 'Pulling image "flows:1"'), event("Pulled", 'Successfully pulled image "flows:1" in 1s')],
        [
            event("Pulling", 'Pulling image "flows:1"'),
            event("Pulled", 'Container image "mesh:1" already present on machine', at="2026-01-01T00:00:11Z"),
        ],
        [event("Pulling", 'Pulling image "flows:1"', about="another")],
        [],
    ],
)
def test_an_image_that_was_pulled_is_no_reason(events: Any) -> None:
    assert observed(pod(READY), events=events).reason == "PodInitializing"


def test_a_warning_is_over_once_the_node_got_further() -> None:
    """Servers before Kubernetes 1.29 don't tell when a pod's mounts and network are there."""
    late = "2026-01-01T00:00:20Z"
    for failure in (warning("FailedMount", 'secret "s" not found'), warning("SomethingNew", "no luck")):
        pulled = [event(name, 'Image "flows:1"', at=late) for name in ("Pulling", "Pulled")]
        observation = observed(pod(), events=[failure, *pulled], after=30)
        assert (observation.reason, observation.cause) == ("PodInitializing", None)
        assert observation.message == "node node-1 hasn't started its container yet, and says nothing about it"


def test_a_pod_collected_without_its_node_was_unschedulable() -> None:
    """Kubernetes collects the pods of nodes that don't exist: as those of nodes that are lost, but no node had it."""
    item = {**pod(scheduled=False), "spec": {"nodeName": "nowhere"}}
    collected = {
        "type": "DisruptionTarget",
        "status": "True",
        "reason": "DeletionByPodGC",
        "message": "PodGC: node not found",
    }
    item["status"] = {"phase": "Failed", "conditions": [collected]}
    observation = observed(item)
    assert (observation.phase, observation.cause) == (Phase.ENDED, Cause.UNSCHEDULABLE)
    assert "names node nowhere" in observation.message
    item["status"]["conditions"].append({"type": "PodScheduled", "status": "True"})
    assert observed(item).cause is Cause.NODE_LOST


def test_a_secret_of_ours_that_was_deleted_is_created_again() -> None:
    """It is created after its Job, so that a node may be too early."""
    text = 'MountVolume.SetUp failed for volume "dispatcher-run" : secret "flow-1" not found'
    events = [event("FailedMount", text)]
    early, late, end = (observed(pod(), events=events, after=after) for after in (9.9, 10.0, 300.0))
    assert (early.cause, early.incomplete, early.message) == (None, False, "")
    assert (late.phase, late.cause, late.incomplete) == (Phase.WAITING, Cause.START_FAILED, True)
    assert late.message == f"the Secret with its runner's credentials is missing, and is created again: {text}"
    assert (end.phase, end.cause, end.incomplete) == (Phase.ENDED, Cause.START_FAILED, False)


def test_a_step_that_has_just_begun_is_not_late() -> None:
    """Each step has its time, however long the one before took."""
    waits, placed = (Snapshot(job=JOB, pods=pods) for pods in ([], [Pod(object=pod(READY))]))
    _, clocks = observe(waits, {}, 0.0)
    observation, clocks = observe(waits, clocks, 100.0)
    assert observation.message
    observation, clocks = observe(placed, clocks, 101.0)
    assert not observation.message
    assert observe(placed, clocks, 131.0)[0].message


def test_an_init_container_that_runs_needs_no_pull() -> None:
    """The event that its image was pulled may be lost."""
    item = pod(READY, init=[running("prepare")])
    assert observed(item, events=[event("Pulling", 'Pulling image "flows:1"')]).reason == "init/prepare"


def test_a_quota_does_not_shorten_the_time_of_a_mistake() -> None:
    """Each has a clock of its own."""
    snapshots = [
        Snapshot(job=JOB, events=[event("FailedCreate", text, about="job-uid")])
        for text in ("exceeded quota: pods=1", 'serviceaccount "x" not found')
    ]
    _, clocks = observe(snapshots[0], {}, 0.0)
    _, clocks = observe(snapshots[0], clocks, 900.0)
    _, clocks = observe(snapshots[1], clocks, 901.0)
    assert observe(snapshots[1], clocks, 960.0)[0].phase is Phase.WAITING
    assert observe(snapshots[1], clocks, 961.0)[0].phase is Phase.ENDED


def test_a_side_car_that_ended_does_not_hide_the_init_container_that_failed() -> None:
    item = pod(READY, init=[{"name": "mesh", "state": ended(137)}, {"name": "prepare", "state": ended(3)}],
               initContainers=MESH)  # fmt: skip
    item["status"]["phase"] = "Failed"
    observation = observed(item)
    assert (observation.phase, observation.cause) == (Phase.ENDED, Cause.START_FAILED)
    assert observation.message == "init container prepare: ended with exit code 3"


def test_a_readiness_gate_is_no_reason() -> None:
    item = pod({"type": "Ready", "status": "False"}, readinessGates=[{"conditionType": "example.com/ready"}])
    item["status"]["containerStatuses"] = [{"name": "flow", "state": {"running": {}}}]
    assert observed(item) == Observation(phase=Phase.RUNNING)


def suspended(manager: str, *, generation: int = 2, labels: dict[str, str] | None = None) -> dict[str, Any]:
    """Return a suspended Job as the API server has it."""
    managed = [
        {"manager": "flow-dispatcher", "time": "2026-01-01T00:00:00Z", "fieldsV1": {"f:spec": {"f:template": {}}}},
        {"manager": "kueue", "time": "2026-01-01T00:00:01Z", "fieldsV1": {"f:spec": {"f:suspend": {}}}},
        {"manager": manager, "time": SINCE, "fieldsV1": {"f:spec": {"f:suspend": {}}}},
    ]
    metadata = {**JOB["metadata"], "generation": generation, "labels": labels or {}, "managedFields": managed}
    return {"metadata": metadata, "spec": {"suspend": True}, "status": {}}


@pytest.mark.parametrize(
    ("job", "manager"),
    [
        (suspended("kubectl-patch"), "kubectl-patch"),
        (suspended("kubectl-patch", labels={QUEUE_LABEL: "research"}), ""),
        (suspended("kueue"), ""),
        (suspended("flow-dispatcher", generation=1), ""),
        ({"metadata": {}, "spec": {"suspend": True}}, ""),
        ({**suspended("kubectl-patch"), "spec": {"suspend": False}}, ""),
    ],
)
def test_who_has_suspended_a_job(job: dict[str, Any], manager: str) -> None:
    assert suspended_by(job) == manager
    observation = observed(job=trim("jobs", job))
    if manager:
        assert (observation.paused, observation.suspended, observation.cause) == (False, True, None)
        assert "is suspended, not by a quota queue but by kubectl-patch: " in observation.message
    elif job["spec"]["suspend"]:
        assert (observation.paused, observation.suspended) == (True, False)
