"""All infrastructure of an installation in a namespace, as its Jobs and pods show it. Pure.

Labels and annotations are data that anybody in the namespace may have copied. So a Job counts only under the name of
the attempt that it claims to be of, a worker only under that of its Job, and pods without their Job only if they all
name one attempt.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from backends.base import Found, Handle
from backends.kubernetes.attempt_objects import is_worker_of, worker_name
from backends.kubernetes.handle import JobKey
from backends.kubernetes.remains import Remains
from backends.kubernetes.timestamps import age
from dispatcher.runs.attempt import object_name
from dispatcher.support.ids import is_run_id

Object = Mapping[str, Any]


def infrastructure(
    jobs: Iterable[Object],
    pods: Iterable[Object],
    *,
    namespace: str,
    handle_of: Callable[..., Handle],
    now: float,
) -> Iterator[Found]:
    """Yield the infrastructure of each attempt: a Job, or pods without one. Jobs that are suspended are left out: a
    quota queue holds them, which may take any time.

    Args:
        jobs, pods: of the installation, trimmed.
        namespace: theirs.
        handle_of: makes the handle of a Job's key and ``container``.
        now: seconds since the epoch.
    """
    by_job: dict[str, list[Object]] = {}
    for pod in pods:
        if worker_name(pod) and not is_worker_of(pod, _name(pod["metadata"])):
            continue
        by_job.setdefault(str(pod["metadata"].get("job") or ""), []).append(pod)
    for job in jobs:
        metadata = job["metadata"]
        remains = Remains(job, by_job.pop(metadata["uid"], []))
        if not _names_attempt(metadata) or job["spec"]["suspend"] or metadata["name"] != _name(metadata):
            continue
        key = JobKey(namespace, metadata["name"], metadata["uid"])
        handle = handle_of(key, container=job["spec"]["container"])
        yield _found(metadata, handle, age(job, now), remains.keeper(namespace, now))
    by_job.pop("", None)
    for uid, alone in by_job.items():
        metadata = alone[0]["metadata"]
        attempts = {(pod["metadata"]["run"], pod["metadata"]["attempt"]) for pod in alone}
        if len(attempts) > 1 or not _names_attempt(metadata):  # somebody's copy: nothing tells which one is true
            continue
        key = JobKey(namespace, _name(metadata), uid)
        handle = handle_of(key, container=alone[0]["spec"].get("container", ""))
        keeper = Remains(None, alone).keeper(namespace, now)
        yield _found(metadata, handle, min(age(pod, now) for pod in alone), keeper)


def _names_attempt(metadata: Mapping[str, Any]) -> bool:
    return is_run_id(metadata["run"]) and metadata["attempt"].isdecimal()


def _name(metadata: Mapping[str, Any]) -> str:
    """Return the name of the Job of the attempt that an object claims to be of; empty if it claims none."""
    return object_name(metadata["run"], int(metadata["attempt"])) if _names_attempt(metadata) else ""


def _found(metadata: Mapping[str, Any], handle: Mapping[str, Any], seconds: float, keeper: str) -> Found:
    return Found(run_id=metadata["run"], attempt=int(metadata["attempt"]), age=seconds, handle=handle, kept_by=keeper)
