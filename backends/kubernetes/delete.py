"""Deletion of an attempt's Job, by its handle or by the request that may have created it. Counterpart of
:mod:`backends.kubernetes.create`; called again until it is confirmed."""

from __future__ import annotations

import logging

from backends.base import Handle, Request
from backends.kubernetes import manifest, reasons
from backends.kubernetes.cluster.cache import Cache
from backends.kubernetes.grace import Need, shortened
from backends.kubernetes.handle import JobKey
from backends.kubernetes.jobs import Jobs
from dispatcher.errors import Transient

logger = logging.getLogger(__name__)


def delete(jobs: Jobs, handle: Handle, need: Need = Need.WHOLE_GRACE) -> bool:
    """Delete the Job of a handle; return True once the Job and its pods are gone.

    A Job that was seen, by its UID, is on this cluster. The absence of another one says something only if the identity
    of its cluster is that of this one.
    Pods that need less than their whole grace are deleted first: a node doesn't shorten a grace that has begun.

    Raises:
        Transient: it may be on another cluster; or a pod can't go yet, because its node doesn't answer.
        ApiError, Unclear, Unreachable: of the API.
    """
    key = JobKey.of(handle)
    cache = jobs.cache(handle)
    for seen in cache.pods(key.uid) if cache is not None else ():
        seconds = None if seen.gone else shortened(seen.object, str(handle["container"]), need)
        if seconds is not None:
            jobs.delete_pod(key.namespace, seen.object, grace=seconds)
    if not _is_gone(jobs, handle, cache):
        return False
    pods = jobs.pods(key, cache)
    for pod in pods:
        if reasons.node_lost_reason(pod) is not None:
            raise Transient(f"teardown pending: node {pod['spec'].get('nodeName')}", retry_in=5.0)
    return not pods


def delete_requested(jobs: Jobs, request: Request) -> bool:
    """Delete what a request has created, if anything; return True if nothing of it is left.

    For attempts without a stored handle: the Job is found by its name, and deleted only if the request made it.

    Raises:
        Transient: it may have created something on another cluster.
        ApiError, Unclear, Unreachable: of the API.
    """
    namespace = request["namespace"]
    metadata = jobs.read(namespace, request["job"]["metadata"]["name"])
    if metadata is None or not manifest.was_created_by(metadata, request):
        jobs.check_cluster(request)
        return True
    jobs.delete(JobKey(namespace, metadata["name"], metadata["uid"]))
    return False


def _is_gone(jobs: Jobs, handle: Handle, cache: Cache | None) -> bool:
    """Return True if the Job is gone or another installation's. Requests its deletion if that wasn't done yet."""
    key = JobKey.of(handle)
    job, gone = cache.job(key.uid) if cache is not None else (None, False)
    if gone:
        return True
    if job is not None and job["metadata"].get("deletionTimestamp"):
        return False
    if job is None and not _is_ours(jobs, handle):
        return True
    was_gone = jobs.delete(key)
    return job is None and (was_gone or not jobs.exists(key))  # a Job in the cache: the watch will see its end


def _is_ours(jobs: Jobs, handle: Handle) -> bool:
    """Return True if a Job that isn't in the cache exists and carries the installation's label."""
    key = JobKey.of(handle)
    metadata = jobs.find(key)
    if metadata is None:
        jobs.check_cluster(handle)
        return False
    if (metadata.get("labels") or {}).get(manifest.INSTANCE) == handle["instance"]:
        return True
    logger.warning("Job %s/%s belongs to another installation; leaving it alone", key.namespace, key.name)
    return False
