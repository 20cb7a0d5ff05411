"""The grace of pods: the seconds between SIGTERM and SIGKILL. Pure.

A pod's grace is raised for its flow, which is to call ``on_exit`` and report. What its author gave is kept in an
annotation of the pod, and counts again once the flow has ended: for side-cars that ignore SIGTERM. Used where the Job
is built, and where it is deleted.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from enum import Enum
from typing import Any, NamedTuple

from backends.kubernetes import reasons

#: Annotation of a pod: the grace that its author gave, in seconds.
OWN_GRACE = "flow-dispatcher/own-grace"

#: Annotation of a pod whose runner looks for a cancel by itself.
STOPS_FIRST = "flow-dispatcher/stops-first"

#: The annotations that a cache keeps.
ANNOTATIONS = (OWN_GRACE, STOPS_FIRST)

#: Seconds between two looks of such a runner, and for which a cancel waits for it before the pod is deleted.
CANCEL_POLL = 1
STOP_FIRST = 5.0

#: The grace of a pod whose author gave none; the default of Kubernetes.
DEFAULT = 30

#: Seconds for which a runner whose end was reported waits for the deletion of its pod, where its node would otherwise
#: begin to end the pod with the whole grace. A worker waits less long for the container's own end.
LINGER = 15

#: The grace of a pod in which nothing is worth waiting for. 0 would forget it while its containers may still run.
AT_ONCE = 1


class Need(Enum):
    """The use that a pod which is to be deleted still has for its grace."""

    WHOLE_GRACE = "its flow is to stop, call on_exit and report"
    OWN_GRACE = "its flow has ended; other containers are to stop"
    NOTHING = "no flow ran in it, or will"


class Graces(NamedTuple):
    """The graces of one pod, in seconds: its author's, the one that is sent, and the share of that for the runner."""

    own: int
    pod: int
    runner: int


def of_pod(pod: Mapping[str, Any], needed: int) -> Graces:
    """Return the graces of a pod.

    Args:
        pod: its spec, whose first container runs the flow.
        needed: seconds that the runner needs at least.
    """
    written = pod.get("terminationGracePeriodSeconds")
    own = DEFAULT if written is None else int(written)
    runner = max(own if written is not None else 0, needed)
    return Graces(own=own, pod=runner + _before_sigterm(pod["containers"][0], own), runner=runner)


def shortened(pod: Mapping[str, Any], container: str, need: Need) -> int | None:
    """Return the seconds of grace with which to delete a pod; None if the deletion of its Job does as well.

    Args:
        pod: the pod, as the API server or the cache has it.
        container: the name of the container that runs the flow.
        need: what is still worth waiting for.
    """
    if need is Need.WHOLE_GRACE or pod["metadata"].get("deletionTimestamp") is not None:
        return None
    if reasons.node_lost_reason(pod) is not None:
        return None
    if need is Need.NOTHING:
        return AT_ONCE
    return max(AT_ONCE, _own(pod)) if _has_others(pod, container) else None


def annotations_of(pod: Mapping[str, Any], graces: Graces) -> dict[str, str]:
    """Return the annotations of a pod, by its spec."""
    stops_first = {STOPS_FIRST: "true"} if has_company(pod) else {}
    return {OWN_GRACE: str(graces.own), **stops_first}


def stops_first(pod: Mapping[str, Any], container: str) -> bool:
    """Return True if a cancel may leave the pod alone for :data:`STOP_FIRST`: its runner stops the flow by itself, and
    its other containers then get only the pod's own grace.

    Only claimed attempts are cancelled so: if the flow's container isn't seen as started, that is seen late.
    """
    metadata = pod["metadata"]
    if metadata.get("deletionTimestamp") is not None or (metadata.get("annotations") or {}).get(STOPS_FIRST) is None:
        return False
    return not reasons.has_ended(pod, container)


def has_company(pod: Mapping[str, Any]) -> bool:
    """Return True if a pod, by its spec, runs other containers beside the flow's."""
    return len(pod["containers"]) > 1 or has_native_side_cars(pod)


def has_native_side_cars(pod: Mapping[str, Any]) -> bool:
    """Return True if a pod, by its spec, has init containers that run beside the flow: its node ends them after it."""
    return any(container.get("restartPolicy") == "Always" for container in pod.get("initContainers") or ())


def _before_sigterm(container: Mapping[str, Any], own: int) -> int:
    """Return the seconds that a hook may take before SIGTERM is sent: Kubernetes counts them as part of the grace."""
    hook = (container.get("lifecycle") or {}).get("preStop")
    if not hook:
        return 0
    asleep = (hook.get("sleep") or {}).get("seconds")
    return own if asleep is None else int(asleep)


def _own(pod: Mapping[str, Any]) -> int:
    with suppress(ValueError):
        return int((pod["metadata"].get("annotations") or {}).get(OWN_GRACE, DEFAULT))
    return DEFAULT


def _has_others(pod: Mapping[str, Any], container: str) -> bool:
    """Return True if containers run beside the flow's."""
    status = pod.get("status", {})
    statuses = [*(status.get("containerStatuses") or ()), *(status.get("initContainerStatuses") or ())]
    return any(
        (entry.get("state") or {}).get("running") is not None for entry in statuses if entry.get("name") != container
    )
