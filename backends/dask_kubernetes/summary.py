"""The facts of a request that people want to see, and the pages of its scheduler. Pure.

A request is part of a record, which anybody may have written: a part that isn't as a worker writes it is left out.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping

from backends.base import Request
from backends.kubernetes.summary import resources_of
from backends.kubernetes.summary import summary as summary_of_job

#: The port of the scheduler's pages, on the loopback interface of the flow's pod.
PAGES_PORT = 8787


def pages(request: Request, *, of: str = "job/{job}", page: str = "info/main/workers.html") -> dict[str, str]:
    """Return how people reach the scheduler's pages while the flow runs; nothing if a part of the request is wrong.

    Args:
        request: of the attempt.
        of: the object to which ports are forwarded; ``{job}`` is the name of its Job.
        page: the path of the first page.
    """
    job, namespace = summary_of_job(request).get("job"), request.get("namespace")
    if not job or not isinstance(namespace, str):
        return {}
    forward = ["kubectl", "port-forward", "-n", namespace, of.format(job=job), f"{PAGES_PORT}:{PAGES_PORT}"]
    return {"dask pages": shlex.join(forward), "then open": f"http://127.0.0.1:{PAGES_PORT}/{page}"}


def summary(request: Request) -> dict[str, str]:
    """Return the facts of a request by name, for people. Empty ones are left out."""
    facts = summary_of_job(request)
    workers = request.get("workers")
    if not isinstance(workers, Mapping):
        return facts
    least, most = workers.get("min"), workers.get("max")
    if isinstance(least, int) and isinstance(most, int):
        facts["workers allowed"] = f"{least} to {most}"
    if resources := resources_of(workers.get("pod"), workers.get("container")):
        facts["worker resources"] = resources
    return facts
