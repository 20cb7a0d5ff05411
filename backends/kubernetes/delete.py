"""Deletion of what an attempt has on the cluster, by its handle or by the request that may have created it.

Counterpart of :mod:`backends.kubernetes.create`; called again until it is confirmed. The Job owns its pods, the workers
of its flow and its Secrets, so deleting it deletes them. What somebody cut off from it, such as by deleting it with the
orphan policy, is deleted here by name (:mod:`backends.kubernetes.remains`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any

from backends.base import Handle, Request
from backends.kubernetes import manifest
from backends.kubernetes.attempt_objects import worker_name
from backends.kubernetes.cluster.cache import Cache
from backends.kubernetes.grace import Need, shortened
from backends.kubernetes.handle import JobKey, make_handle
from backends.kubernetes.jobs import Jobs
from backends.kubernetes.remains import Remains
from dispatcher.errors import Transient
from dispatcher.runs.attempt import is_object_name

logger = logging.getLogger(__name__)

_RETRY_INTERVAL = 5.0  # seconds, while others keep something


def delete(jobs: Jobs, handle: Handle, need: Need = Need.WHOLE_GRACE) -> bool:
    """Delete the Job of a handle with its pods and its Secret; return True once they are gone.

    A Job that was seen, by its UID, is on this cluster. The absence of another one says something only if the identity
    of its cluster is that of this one. Pods that need less than their whole grace are deleted first: a node doesn't
    shorten a grace that has begun.

    Raises:
        Transient: it may be on another cluster; or something can't go yet, since its node doesn't answer, or others
            keep it by a finalizer.
        ApiError, Unclear, Unreachable: of the API.
    """
    key = JobKey.of(handle)
    cache = jobs.cache(handle)
    if cache is not None:
        _shorten_graces(jobs, handle, cache, need)
    job = jobs.job(handle, cache)
    if job is not None and job["metadata"]["instance"] not in {"", handle["instance"]}:
        logger.warning("Job %s/%s belongs to another installation; leaving it alone", key.namespace, key.name)
        return True
    deleted_here = cache is not None and cache.was_deleted_here(key.uid)
    if job is not None and not job["metadata"].get("deletionTimestamp"):
        deleted_here = not jobs.delete(key, cache)
        if deleted_here and cache is not None and cache.job(key.uid)[0] is not None:
            return False  # the watch will see its end
        job = jobs.job(handle, None, was_here=True) if deleted_here else None
    remains = Remains(job, [*jobs.pods(handle, cache), *jobs.workers(handle, cache)])
    if remains.is_blocked and not jobs.objects.deleted_first:
        jobs.delete(key)
    return _delete_remains(jobs, key.namespace, key.name, remains, with_secret=not deleted_here)


def delete_requested(jobs: Jobs, request: Request) -> bool:
    """Delete what a request has created, if anything; return True if nothing of it is left.

    For attempts without a stored handle: the Job is found by its name, and deleted only if the request made it.

    Raises:
        Transient: it may have created something on another cluster.
        ApiError, Unclear, Unreachable: of the API.
    """
    namespace, name = request["namespace"], request["job"]["metadata"]["name"]
    metadata = jobs.read(namespace, name)
    if metadata is not None and manifest.was_created_by(metadata, request):
        key = JobKey(namespace, metadata["name"], metadata["uid"])
        if metadata.get("deletionTimestamp"):
            return delete(jobs, _handle(key, request, metadata["labels"][manifest.INSTANCE]))
        jobs.delete(key)
        return False
    jobs.check_cluster(request)
    if metadata is not None:
        return True
    remains = Remains(None, [pod for pod in jobs.pods_requested(request) if _is_of(pod["metadata"], request)])
    return _delete_remains(jobs, namespace, name, remains, with_secret=True)


def _handle(key: JobKey, request: Request, instance: str) -> Handle:
    return make_handle(
        key,
        cluster=request["cluster"],
        container=request["container"],
        instance=instance,
        identity=request.get("identity"),
    )


def _shorten_graces(jobs: Jobs, handle: Handle, cache: Cache, need: Need) -> None:
    """Delete the pods that need less than their whole grace."""
    for pod in cache.pods(str(handle["uid"])):
        seconds = None if pod.gone else shortened(pod.object, str(handle["container"]), need)
        if seconds is not None:
            jobs.shorten_grace(str(handle["namespace"]), pod.object, seconds)


def _delete_remains(jobs: Jobs, namespace: str, name: str, remains: Remains, *, with_secret: bool) -> bool:
    """Delete what doesn't go with the Job; return True if nothing is left.

    Args:
        jobs: sends the requests.
        namespace, name: of the Job.
        remains: what is left.
        with_secret: its Secrets may not have gone with the Job. Nobody can tell: workers can't read Secrets.
    """
    abandoned = remains.abandoned
    for pod in abandoned:
        level = logging.DEBUG if worker_name(pod) and not pod["metadata"].get("orphaned") else logging.INFO
        logger.log(level, "Deleting pod %s/%s, which doesn't go with its Job", namespace, pod["metadata"]["name"])
        jobs.delete_pod(namespace, pod)
    loses_secret = remains.job is None and (abandoned or (with_secret and not remains.pods)) and is_object_name(name)
    if loses_secret and jobs.read(namespace, name) is None:  # else the Secret is another Job's, whatever a pod claims
        jobs.delete_dependents(namespace, name)
    if abandoned:
        return False
    if reason := remains.keeper(namespace, time.time()):
        raise Transient(reason, retry_in=_RETRY_INTERVAL)
    return remains.job is None and not remains.pods


def _is_of(metadata: Mapping[str, Any], request: Request) -> bool:
    """Return True if a trimmed pod carries run, attempt and installation of a request."""
    job = request["job"]["metadata"]
    expected = (job["annotations"][manifest.RUN], job["labels"]["attempt"], job["labels"][manifest.INSTANCE])
    return expected == (metadata["run"], metadata["attempt"], metadata["instance"])
