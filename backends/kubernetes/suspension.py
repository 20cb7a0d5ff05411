"""Suspension of a Job: by a quota queue, which admits it later, or by somebody who must resume it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: Label of the Jobs of Kueue, by which it finds them; its webhook sets it where a namespace has a default queue.
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"

#: Part of the names of the scheduling gates and field managers of Kueue.
QUEUE = "kueue"


def suspended_by(job: Mapping[str, Any]) -> str:
    """Return the field manager that suspended a Job, such as ``kubectl-patch``; empty if it isn't suspended, or if a
    quota queue holds it.

    A Job that was suspended when it was created is a quota queue's: we create none so, an admission webhook did.
    Without managed fields nobody can tell, and it counts as a quota queue's, too.
    """
    metadata = job.get("metadata") or {}
    if not (job.get("spec") or {}).get("suspend") or QUEUE_LABEL in (metadata.get("labels") or {}):
        return ""
    if metadata.get("generation") == 1:
        return ""
    managers = [
        (str(entry.get("time") or ""), str(entry.get("manager") or ""))
        for entry in metadata.get("managedFields") or ()
        if "f:suspend" in ((entry.get("fieldsV1") or {}).get("f:spec") or {})
    ]
    manager = max(managers, default=("", ""))[1]
    return "" if QUEUE in manager else manager
