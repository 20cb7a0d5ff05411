"""The request of an attempt for people: its Job and the Pod of a worker as YAML. Pure; for ``dispatcher render``."""

from __future__ import annotations

from typing import Any

from backends.base import Request
from backends.dask_kubernetes import manifest

#: What isn't known before the attempt runs.
_JOB_UID = "UID-OF-THE-JOB"
_ADDRESS = "ADDRESS-OF-THE-FLOW-POD"


def rendered(request: Request) -> str:
    """Return two YAML documents: the Job, and the Pod of the first worker, each with its digest in a comment.

    The UID of the Job and the address of the flow's pod are named in capital letters.
    """
    workers = request["workers"]
    pod = manifest.worker_pod(request, name="w1", job_uid=_JOB_UID, address=_ADDRESS)
    where = f"cluster {request['cluster']}, " if request["cluster"] else ""
    numbers = f"{workers['min']} to {workers['max']} workers, each named like w1"
    return (
        f"# {where}namespace {request['namespace']}; digest {request['digest']}\n{_yaml(request['job'])}"
        f"---\n# {numbers}; digest {workers['digest']}\n{_yaml(pod)}"
    )


def _yaml(manifest: Any) -> str:
    import yaml

    return str(yaml.safe_dump(manifest, sort_keys=False, allow_unicode=True, width=120))
