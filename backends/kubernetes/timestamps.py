"""Timestamps of an attempt, as its Kubernetes objects record them. Pure.

Kubernetes' times have whole seconds. Moments that no object records are left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from backends.kubernetes.reasons import Pod, has_ended, has_started
from dispatcher.runner.container.parent import FLOW_SHARE
from dispatcher.runs.infrastructure import STOP_DUE

Object = Mapping[str, Any]


def times(job: Object | None, pods: Sequence[Pod], events: Iterable[Object], container: str) -> dict[str, float]:
    """Return the :data:`~dispatcher.runs.infrastructure.MOMENTS` of the last pod, in seconds since the epoch, and
    :data:`~dispatcher.runs.infrastructure.STOP_DUE` if it is being deleted while its flow runs."""
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
    moments = {name: at for name, text in texts.items() if (at := seconds(text)) is not None}
    due = _stop_due(pods[-1].object, container) if pods else None
    return moments if due is None else {**moments, STOP_DUE: due}


def _stop_due(pod: Object, container: str) -> float | None:
    """Return when the runner kills a flow that ignores the deletion of its pod; None if nothing like that is due.

    ``deletionTimestamp`` is the end of the pod's grace, of which the runner keeps the last third for its report.
    """
    metadata = pod.get("metadata", {})
    over = seconds(metadata.get("deletionTimestamp"))
    if over is None or not has_started(pod, container) or has_ended(pod, container):
        return None
    return over - float(metadata.get("deletionGracePeriodSeconds") or 0.0) * (1 - FLOW_SHARE)


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
