"""The facts of a request that people want to see. Pure.

A request is part of a record, which anybody may have written: a part that isn't as a worker writes it is left out.
"""

from __future__ import annotations

from collections.abc import Mapping

from backends.base import Request
from backends.kubernetes.summary import resources_of
from backends.kubernetes.summary import summary as summary_of_job


def summary(request: Request) -> dict[str, str]:
    """Return the facts of a request by name, for people. Empty ones are left out."""
    facts = summary_of_job(request)
    workers = request.get("workers")
    if not isinstance(workers, Mapping):
        return facts
    least, most = workers.get("min"), workers.get("max")
    if isinstance(least, int) and isinstance(most, int):
        facts["workers"] = f"{least} to {most}"
    if resources := resources_of(workers.get("pod"), workers.get("container")):
        facts["worker resources"] = resources
    return facts
