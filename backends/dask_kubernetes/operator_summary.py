"""The request of an attempt whose Dask cluster is the operator's, for people: its objects and its pages. Pure."""

from __future__ import annotations

from typing import Any

from backends.base import Request
from backends.dask_kubernetes import operator_manifest as manifest
from backends.dask_kubernetes import summary

#: What isn't known before the attempt runs.
_JOB_UID = "UID-OF-THE-JOB"


def rendered(request: Request) -> str:
    """Return three YAML documents: the Job, its DaskCluster and its DaskAutoscaler, the first with its digest.

    The UID of the Job is named in capital letters.

    Raises:
        MissingExtra: dask-kubernetes isn't installed.
    """
    where = f"cluster {request['cluster']}, " if request["cluster"] else ""
    head = f"# {where}namespace {request['namespace']}; digest {request['digest']}\n"
    made = (manifest.dask_cluster(request, _JOB_UID), manifest.dask_autoscaler(request, _JOB_UID))
    return head + "---\n".join(map(_yaml, (request["job"], *made)))


def pages(request: Request) -> dict[str, str]:
    """Return how people reach the scheduler's pages while the flow runs; nothing if a part of the request is wrong."""
    return summary.pages(request, of=f"service/{{job}}{manifest.SCHEDULER_SUFFIX}", page="status")


def _yaml(document: Any) -> str:
    import yaml

    return str(yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=120))
