"""Accessors of the parts of Jobs and pods that observations read: conditions, and states of containers. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

Object = Mapping[str, Any]


def condition(about: Object, kind: str) -> Object:
    """Return a condition of an object unless its status is False; PodScheduled always. Empty if there is none."""
    for item in about.get("status", {}).get("conditions") or ():
        if item.get("type") == kind and (item.get("status") != "False" or kind == "PodScheduled"):
            match: Object = item
            return match
    return {}


def container_state(pod: Object, name: str) -> Object:
    """Return the state of a container of the pod by its name: injectors may put theirs first."""
    for status in pod.get("status", {}).get("containerStatuses") or ():
        if status.get("name") == name:
            state: Object = status.get("state") or {}
            return state
    return {}


def init_statuses(pod: Object) -> Iterator[Object]:
    """Yield the status of each init container, in the order in which they start."""
    yield from pod.get("status", {}).get("initContainerStatuses") or ()


def failed_inits(pod: Object) -> Iterator[Object]:
    """Yield the statuses of the init containers that failed, native side-cars left out: they are started again."""
    for status in init_statuses(pod):
        if ((status.get("state") or {}).get("terminated") or {}).get("exitCode") and not is_side_car(pod, status):
            yield status


def is_side_car(pod: Object, status: Object) -> bool:
    """Return True if the init container of this status is a native side-car, which runs beside the others."""
    for container in pod.get("spec", {}).get("initContainers") or ():
        if container.get("name") == status.get("name"):
            return bool(container.get("restartPolicy") == "Always")
    return False
