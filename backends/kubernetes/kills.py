"""Signals that ended a flow's container although nobody deleted its pod: who sent them. Pure.

The kubelet stops a container whose liveness or startup probe fails, or whose ``postStart`` hook does. Only an event of
the pod says so. Without one, the signal came from within the pod, or from somebody on its node.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from backends.base import Observation
from dispatcher.runs.states import Cause

Object = Mapping[str, Any]

#: Seconds from a container's end for which such an event may still arrive.
EVENT_GRACE = 5.0

FROM_WITHIN = (
    "the container was told to stop (SIGTERM), and its pod was neither deleted nor evicted: the signal came from "
    "within the pod, or from somebody on its node"
)

_SIGTERM, _SIGKILL = 143, 137

#: Reasons of events, and the beginning of their message, with which the kubelet stops a container.
_STOPS = {
    "Unhealthy": re.compile(r"(Liveness|Startup) probe failed"),
    "FailedPostStartHook": re.compile(""),
}


class KillEvent(NamedTuple):
    """Why the kubelet stopped a container, in its words."""

    reason: str
    message: str


def was_told_to_stop(observation: Observation) -> bool:
    """Return True if a container ended because it was told to stop, or because of the SIGKILL that follows."""
    if observation.cause is Cause.PREEMPTED:  # as its runner says
        return True
    if observation.cause is not Cause.KILLED:
        return False
    return observation.exit_code == _SIGTERM or (observation.exit_code == _SIGKILL and not observation.message)


def kill_event(events: Iterable[Object], pod: Object, container: str) -> KillEvent | None:
    """Return the newest event with which the kubelet stopped a container of a pod; None if there is none."""
    uid, path = pod["metadata"].get("uid"), f"spec.containers{{{container}}}"
    stops = [
        event
        for event in events
        if (about := event.get("involvedObject") or {}).get("uid") == uid
        and about.get("fieldPath", path) == path
        and (pattern := _STOPS.get(str(event.get("reason")))) is not None
        and pattern.match(str(event.get("message") or ""))
    ]
    if not stops:
        return None
    newest = max(stops, key=lambda event: str(event.get("lastTimestamp") or event.get("eventTime") or ""))
    return KillEvent(str(newest["reason"]), str(newest.get("message") or ""))
