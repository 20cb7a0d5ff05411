"""Table of the reasons that Kubernetes gives for the state of a pod or Job: cause of the attempt, and patience.

Every known reason is a row of :data:`TABLE`. :mod:`backends.kubernetes.reasons` applies it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from dispatcher.runs.states import Cause

QUOTA = "exceeded quota"  #: part of the API server's message where a quota is exhausted
START_GRACE = 30.0  # seconds for which a missing pod, or a container being created, isn't reported
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
    (Field.TERMINATED, "StartError"): Rule(Cause.START_FAILED),
    (Field.TERMINATED, "ContainerCannotRun"): Rule(Cause.START_FAILED),
    (Field.TERMINATED, "OOMKilled"): Rule(Cause.OOM_KILLED),
    (Field.SCHEDULED, "Unschedulable"): Rule(Cause.UNSCHEDULABLE),
    (Field.SCHEDULED, "SchedulingGated"): Rule(None, paused=True),
    (Field.JOB, "Suspended"): Rule(None, paused=True),
    (Field.POD, "Evicted"): Rule(Cause.EVICTED),
    (Field.POD, "Preempting"): _PREEMPTED,
    (Field.POD, "NodeShutdown"): _PREEMPTED,
    (Field.POD, "Terminated"): _PREEMPTED,
    (Field.POD, "OutOfcpu"): _NO_ROOM,
    (Field.POD, "OutOfmemory"): _NO_ROOM,
    (Field.POD, "OutOfpods"): _NO_ROOM,
    (Field.POD, "OutOfephemeral-storage"): _NO_ROOM,
    (Field.POD, "NodeAffinity"): _NO_ROOM,
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
