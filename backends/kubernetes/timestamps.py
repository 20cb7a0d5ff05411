"""When an attempt's objects came to each moment, by their own timestamps. Pure.

Kubernetes' times have whole seconds. What no object tells is left out: it wasn't observed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from backends.kubernetes.reasons import Pod

Object = Mapping[str, Any]


def times(job: Object | None, pods: Sequence[Pod], events: Iterable[Object], container: str) -> dict[str, float]:
    """Moments of :data:`~dispatcher.runs.infrastructure.MOMENTS` in seconds since the epoch, of the last pod."""
    found: dict[str, Any] = {}
    if job is not None:
        found["created"] = job.get("metadata", {}).get("creationTimestamp")
    if pods:
        pod = pods[-1].object
        status = pod.get("status", {})
        for one in status.get("conditions") or ():
            if one.get("type") == "PodScheduled" and one.get("status") == "True":
                found["scheduled"] = one.get("lastTransitionTime")
        for one in status.get("containerStatuses") or ():
            if one.get("name") == container:
                state = one.get("state") or {}
                ended = state.get("terminated") or {}
                found["started"] = (state.get("running") or ended).get("startedAt")
                found["finished"] = ended.get("finishedAt")
        uid = pod.get("metadata", {}).get("uid")
        for event in events:
            if event.get("reason") == "Pulled" and event.get("involvedObject", {}).get("uid") == uid:
                found["pulled"] = event.get("lastTimestamp") or event.get("eventTime")
    return {name: at for name, text in found.items() if (at := _seconds(text)) is not None}


def age(thing: Object, now: float) -> float:
    """Seconds since an object was created; 0 where it doesn't say."""
    created = _seconds(thing.get("metadata", {}).get("creationTimestamp"))
    return 0.0 if created is None else max(0.0, now - created)


def _seconds(text: object) -> float | None:
    try:
        return datetime.fromisoformat(str(text).replace("Z", "+00:00")).timestamp()
    except ValueError:
        return None
