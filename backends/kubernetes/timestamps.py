"""Timestamps of an attempt, as its Kubernetes objects record them. Pure.

Kubernetes' times have whole seconds. Moments that no object records are left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from backends.kubernetes.reasons import Pod

Object = Mapping[str, Any]


def times(job: Object | None, pods: Sequence[Pod], events: Iterable[Object], container: str) -> dict[str, float]:
    """Return the :data:`~dispatcher.runs.infrastructure.MOMENTS` of the last pod, in seconds since the epoch."""
    texts: dict[str, Any] = {}
    if job is not None:
        texts["created"] = job.get("metadata", {}).get("creationTimestamp")
    if pods:
        pod = pods[-1].object
        status = pod.get("status", {})
        for condition in status.get("conditions") or ():
            if condition.get("type") == "PodScheduled" and condition.get("status") == "True":
                texts["scheduled"] = condition.get("lastTransitionTime")
        for entry in status.get("containerStatuses") or ():
            if entry.get("name") == container:
                state = entry.get("state") or {}
                terminated = state.get("terminated") or {}
                texts["started"] = (state.get("running") or terminated).get("startedAt")
                texts["finished"] = terminated.get("finishedAt")
        uid = pod.get("metadata", {}).get("uid")
        for event in events:
            if event.get("reason") == "Pulled" and event.get("involvedObject", {}).get("uid") == uid:
                texts["pulled"] = event.get("lastTimestamp") or event.get("eventTime")
    return {name: at for name, text in texts.items() if (at := seconds(text)) is not None}


def age(item: Object, now: float) -> float:
    """Return the seconds since an object was created; 0 if it has no timestamp."""
    created = seconds(item.get("metadata", {}).get("creationTimestamp"))
    return 0.0 if created is None else max(0.0, now - created)


def seconds(text: object) -> float | None:
    """Return a timestamp as seconds since the epoch; None if it can't be read."""
    try:
        return datetime.fromisoformat(str(text).replace("Z", "+00:00")).timestamp()
    except ValueError:
        return None
