"""Table of the reasons that Kubernetes gives for the state of a pod or Job: cause of the attempt, and patience.

Every known reason is a row of :data:`TABLE`. :mod:`backends.kubernetes.reasons` applies it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from dispatcher.runs.states import Cause

QUOTA = "exceeded quota"  #: part of the API server's message where a quota is exhausted
MISSING = re.compile("not found|non-existent")  #: part of a node's message about an object that doesn't exist
EVENT_GRACE = 5.0  # seconds for which an event isn't reported: most are over by then
WARNING_GRACE = 8.0  # seconds for which a warning of no row isn't reported, as a start often outlives one
START_GRACE = 30.0  # seconds for which a start that makes no progress isn't reported, where nothing says why
MISSING_OBJECT_TIMEOUT = 60.0  # seconds after which a missing object counts as a mistake
IMAGE_NOT_FOUND_TIMEOUT = 90.0  # seconds after which an image that the registry lacks counts as a mistake


class Field(StrEnum):
    """The field of an object that gives a reason."""

    WAITING = "a container's state.waiting"
    TERMINATED = "a container's state.terminated"
    POD = "a pod's status"
    DISRUPTION = "a pod's condition DisruptionTarget"
    SCHEDULED = "a pod's condition PodScheduled"
    JOB = "a Job's condition"
    EVENT = "an event about a pod or Job that hasn't started"


@dataclass(frozen=True)
class Rule:
    """The meaning of a reason.

    ``final_after``: seconds on its clock after which the attempt ends; None: ``start_within`` decides.
    ``clock``: its clock, which several reasons may share; empty: one of its own.
    ``paused``: a quota queue holds the attempt.
    """

    cause: Cause | None
    final_after: float | None = None
    clock: str = ""
    paused: bool = False


_PULL = Rule(Cause.IMAGE_PULL, clock="image")
_NO_START = Rule(Cause.START_FAILED, MISSING_OBJECT_TIMEOUT, "start")  # a busy node may fail once and try again
_PREEMPTED = Rule(Cause.PREEMPTED)
_NO_ROOM = Rule(Cause.UNSCHEDULABLE)
_NOT_MADE = Rule(Cause.START_FAILED, clock="creation")  # volumes, network, sandbox: nodes try again

#: Replace the rule of an event by what its message says: a used-up quota, an object that doesn't exist.
QUOTA_USED = Rule(Cause.QUOTA, clock="quota")
OBJECT_MISSING = Rule(Cause.CONFIG_ERROR, MISSING_OBJECT_TIMEOUT, "missing")

#: The attempt's own Secret, which somebody deleted before its pod had mounted it. It is created again; a node that has
#: failed for long tries again every two minutes.
SECRET_MISSING = Rule(Cause.START_FAILED, 300.0, "secret")
SECRET_GRACE = 10.0  # seconds for which the Secret may be missing: it is created after its Job

#: A scheduling gate that no quota queue has set.
FOREIGN_GATE = Rule(Cause.UNSCHEDULABLE, clock="gate")

#: A node that a pod's spec names, and that hasn't taken the pod.
NO_NODE = Rule(Cause.UNSCHEDULABLE, clock="node")

#: An init container that runs, and a side-car that runs but hasn't started by its startup probe.
INIT_RUNNING = Rule(Cause.START_FAILED, clock="init")

TABLE: Mapping[tuple[Field, str], Rule] = {
    (Field.WAITING, "InvalidImageName"): Rule(Cause.CONFIG_ERROR, 0.0),
    (Field.WAITING, "ErrImageNeverPull"): Rule(Cause.CONFIG_ERROR, 0.0),
    (Field.WAITING, "ErrImagePull"): _PULL,
    (Field.WAITING, "ImagePullBackOff"): _PULL,
    (Field.WAITING, "RegistryUnavailable"): _PULL,
    (Field.WAITING, "SignatureValidationFailed"): _PULL,
    (Field.WAITING, "ImageInspectError"): _PULL,
    (Field.WAITING, "CreateContainerConfigError"): Rule(Cause.CONFIG_ERROR, MISSING_OBJECT_TIMEOUT, "config"),
    (Field.WAITING, "CreateContainerError"): _NO_START,
    (Field.WAITING, "RunContainerError"): _NO_START,
    (Field.WAITING, "CrashLoopBackOff"): Rule(Cause.START_FAILED, clock="crash loop"),  # of a native side-car
    (Field.TERMINATED, "StartError"): Rule(Cause.START_FAILED),
    (Field.TERMINATED, "ContainerCannotRun"): Rule(Cause.START_FAILED),
    (Field.TERMINATED, "OOMKilled"): Rule(Cause.OOM_KILLED),
    (Field.SCHEDULED, "Unschedulable"): Rule(Cause.UNSCHEDULABLE),
    (Field.SCHEDULED, "SchedulerError"): _NO_ROOM,
    (Field.SCHEDULED, "SchedulingGated"): Rule(None, paused=True),
    (Field.EVENT, "Pulling"): Rule(Cause.IMAGE_PULL, clock="pulling"),
    (Field.EVENT, "FailedMount"): _NOT_MADE,
    (Field.EVENT, "FailedMapVolume"): _NOT_MADE,
    (Field.EVENT, "FailedAttachVolume"): _NOT_MADE,
    (Field.EVENT, "FailedCreatePodSandBox"): _NOT_MADE,
    (Field.EVENT, "FailedResourceClaimCreation"): Rule(Cause.UNSCHEDULABLE, clock="claim"),
    (Field.EVENT, "FailedCreate"): Rule(Cause.CONFIG_ERROR, MISSING_OBJECT_TIMEOUT),
    (Field.JOB, "Suspended"): Rule(None, paused=True),
    (Field.POD, "Evicted"): Rule(Cause.EVICTED),
    (Field.POD, "Preempting"): _PREEMPTED,
    (Field.POD, "NodeShutdown"): _PREEMPTED,
    (Field.POD, "Terminated"): _PREEMPTED,
    (Field.POD, "NodeAffinity"): _NO_ROOM,
    (Field.POD, "TopologyAffinityError"): _NO_ROOM,
    (Field.POD, "PodOSNotSupported"): Rule(Cause.CONFIG_ERROR),
    (Field.POD, "PodOSSelectorNodeLabelDoesNotMatch"): Rule(Cause.CONFIG_ERROR),
    (Field.POD, "UnexpectedAdmissionError"): Rule(Cause.START_FAILED),
    (Field.POD, "NodeLost"): Rule(Cause.NODE_LOST),
    (Field.POD, "DeadlineExceeded"): Rule(Cause.DEADLINE),
    (Field.DISRUPTION, "PreemptionByScheduler"): _PREEMPTED,
    (Field.DISRUPTION, "EvictionByEvictionAPI"): Rule(Cause.EVICTED),
    (Field.DISRUPTION, "TerminationByKubelet"): Rule(Cause.EVICTED),
    (Field.DISRUPTION, "DeletionByTaintManager"): Rule(Cause.NODE_LOST),
    (Field.DISRUPTION, "DeletionByPodGC"): Rule(Cause.NODE_LOST),
    (Field.JOB, "DeadlineExceeded"): Rule(Cause.DEADLINE),
}


def rule_of(field: Field, reason: str) -> Rule | None:
    """Return the rule of a reason; None if it isn't known. A node that lacks a resource names it: ``OutOfcpu``."""
    return _NO_ROOM if field is Field.POD and reason.startswith("OutOf") else TABLE.get((field, reason))
