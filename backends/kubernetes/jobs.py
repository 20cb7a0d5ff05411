"""Jobs and their pods on one cluster: read from a current cache where there is one, else from the API server.

Used by whatever observes, lists or deletes Jobs. Only :mod:`backends.kubernetes.create` creates them. The pods that
work for a Job's flow are read apart from those that run it (:meth:`Jobs.workers`).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from backends.base import Handle, Request
from backends.kubernetes import manifest
from backends.kubernetes.attempt_objects import CLUSTER, JOB_ALONE, WORKER, AttemptObjects, is_worker_of
from backends.kubernetes.cluster.api import Api, ApiError
from backends.kubernetes.cluster.cache import Cache
from backends.kubernetes.cluster.identity import ClusterIdentity
from backends.kubernetes.cluster.trim import trim
from backends.kubernetes.cluster.watches import Watches
from backends.kubernetes.handle import JobKey
from dispatcher.errors import Transient
from dispatcher.support.log_throttle import LogThrottle

logger = logging.getLogger(__name__)

MISMATCH_RETRY = 30.0  #: seconds until a request about another cluster's Job is tried again

Json = dict[str, Any]


class Jobs:
    """Requests about Jobs. Methods raise what :class:`~backends.kubernetes.cluster.api.Api` raises.

    Args:
        api: the cluster.
        watches: its watches, whose caches save requests.
        identity: of the cluster.
        objects: what belongs to an attempt.
    """

    def __init__(
        self, api: Api, watches: Watches, identity: ClusterIdentity, objects: AttemptObjects = JOB_ALONE
    ) -> None:
        self._api = api
        self._watches = watches
        self._identity = identity
        self.objects = objects
        self._throttle = LogThrottle(logger)

    def cache(self, handle: Handle) -> Cache | None:
        """Return the cache that covers a handle's Job; None if none is current."""
        return self._watches.current_cache(str(handle["namespace"]), str(handle["instance"]))

    def read(self, namespace: str, name: str) -> Mapping[str, Any] | None:
        """Return the metadata of the Job of that name from the API server; None if there is none."""
        try:
            metadata: Mapping[str, Any] = self._api.get(namespace, "jobs", name)["metadata"]
        except ApiError as error:
            if error.status == 404:
                return None
            raise
        return metadata

    def check_cluster(self, target: Mapping[str, Any]) -> None:
        """Check that a handle or request whose Job wasn't found is of this cluster, whose identity is read now.

        Raises:
            Transient: it isn't, or that isn't sure.
        """
        if target.get("identity"):
            self._identity.read()
        if doubt := self._identity.doubt(target):
            raise Transient(doubt, retry_in=MISMATCH_RETRY)

    def job(self, handle: Handle, cache: Cache | None, *, was_here: bool = False) -> Mapping[str, Any] | None:
        """Return this very Job, trimmed as the cache keeps it; None if it is gone.

        Args:
            handle: names it.
            cache: the one that covers it.
            was_here: it was on this cluster a moment ago, so that its absence is its end.

        Raises:
            Transient: it wasn't found, and may be on another cluster.
        """
        key = JobKey.of(handle)
        if cache is not None:
            job, gone = cache.job(key.uid)
            is_hidden = any(hidden.kind == "jobs" for hidden in cache.hidden(key.uid))
            if gone or (job is not None and not is_hidden):
                return None if gone else job
        job = self._find(handle, "jobs", key.name, key.uid, was_here=was_here)
        if cache is not None:
            self._settle(cache, key.namespace, "jobs", key.name, key.uid, job)
        return job

    def pods(self, handle: Handle, cache: Cache | None) -> Sequence[Mapping[str, Any]]:
        """Return the pods of a Job that still exist, oldest first, trimmed as the cache keeps them. If the cache knows
        neither Job nor pods, the API server is asked.

        Raises:
            Transient: one that watches stopped to show wasn't found, and may be on another cluster.
        """
        key = JobKey.of(handle)
        if cache is None or (cache.job(key.uid)[0] is None and not cache.pods(key.uid)):
            listed = self._listed(key.namespace, "pods", f"job-name={key.name}")
            named = [pod for pod in listed if pod["metadata"]["job"] == key.uid]
            named.sort(key=lambda pod: str(pod["metadata"].get("creationTimestamp") or ""))
            return [pod for pod in named if not pod["metadata"].get("orphaned")] or named[:1]  # as the cache does
        self._settle_pods(handle, cache)
        return [pod.object for pod in cache.pods(key.uid) if not pod.gone]

    def pods_requested(self, request: Request) -> list[Json]:
        """Return the pods that carry the name of a request's Job, whose UID isn't known, from the API server, trimmed
        as the cache keeps them: workers, too."""
        namespace, metadata = request["namespace"], request["job"]["metadata"]
        pods = list(self._listed(namespace, "pods", f"job-name={metadata['name']}"))
        if self.objects.has_workers:
            listed = self._listed(namespace, "pods", f"{WORKER},identifier={metadata['labels']['identifier']}")
            pods += [pod for pod in listed if is_worker_of(pod, metadata["name"])]
        return pods

    def workers(self, handle: Handle, cache: Cache | None) -> Sequence[Mapping[str, Any]]:
        """Return the pods that work for the flow of a Job and still exist, trimmed. If the cache knows neither Job nor
        workers, the API server is asked.

        Raises:
            Transient: one that watches stopped to show wasn't found, and may be on another cluster.
        """
        if not self.objects.has_workers:
            return []
        key = JobKey.of(handle)
        if cache is None or (cache.job(key.uid)[0] is None and not cache.workers(key.uid)):
            listed = list(self._listed(key.namespace, "pods", f"{CLUSTER}={key.uid}"))
        else:
            self._settle_pods(handle, cache)
            listed = [dict(pod.object) for pod in cache.workers(key.uid) if not pod.gone]
        return [pod for pod in listed if pod["metadata"]["job"] == key.uid and is_worker_of(pod, key.name)]

    def look_up(self, handle: Handle, cache: Cache) -> None:
        """Read the hidden ones among a Job and its pods by name, and store what is found. If the cache never had the
        Job, and not because a watch is late, its pods are listed by its name: they may have lost our labels, too.

        Raises:
            Transient: something wasn't found, and may be on another cluster.
        """
        key = JobKey.of(handle)
        if cache.job(key.uid) == (None, False):
            job = self.job(handle, cache)
            is_late = job is not None and job["metadata"]["instance"]
            if not is_late and not cache.pods(key.uid):
                for pod in self.pods(handle, None):
                    self._settle(cache, key.namespace, "pods", pod["metadata"]["name"], pod["metadata"]["uid"], pod)
            return
        for hidden in cache.hidden(key.uid):
            self._settle(cache, key.namespace, *hidden, self._find(handle, *hidden))

    def all_jobs(self, namespace: str, instance: str) -> list[Json]:
        """Return all Jobs of an installation in a namespace, trimmed as the cache keeps them."""
        cache = self._watches.current_cache(namespace, instance)
        selector = self.objects.of_instance(instance)
        return cache.jobs() if cache is not None else list(self._listed(namespace, "jobs", selector))

    def all_pods(self, namespace: str, instance: str) -> list[Json]:
        """Return all pods of an installation in a namespace, trimmed as the cache keeps them."""
        cache = self._watches.current_cache(namespace, instance)
        selector = self.objects.of_instance(instance)
        return cache.all_pods() if cache is not None else list(self._listed(namespace, "pods", selector))

    def delete(self, key: JobKey, cache: Cache | None = None) -> bool:
        """Request the deletion of this very Job and of all that it owns; return True if the Job was gone already."""
        if cache is not None:
            cache.note_deletion(key.uid, requested=True)  # before a watch shows its effect
        was_gone = True
        try:
            was_gone = self._delete(key.namespace, "jobs", key.name, key.uid, foreground=self.objects.deleted_first)
        finally:
            if was_gone and cache is not None:
                cache.note_deletion(key.uid, requested=False)
        return was_gone

    def delete_pod(self, namespace: str, pod: Mapping[str, Any]) -> None:
        """Request the deletion of this very pod, within its own grace."""
        self._delete(namespace, "pods", str(pod["metadata"]["name"]), str(pod["metadata"]["uid"]))

    def delete_dependents(self, namespace: str, name: str) -> None:
        """Delete what the Job of that name owned beside its pods. What isn't there is left alone, and what may not be
        deleted is left to the Job's deletion: a worker without the right can have created none."""
        for kind, suffix in self.objects.dependents:
            try:
                self._delete(namespace, kind, f"{name}{suffix}", None)
            except ApiError as error:
                if error.status != 403:
                    raise
                text = f"{kind.capitalize()} of namespace {namespace} are left to the cluster"
                self._throttle.warn(text, error, kind=f"{kind} of {namespace}")

    def shorten_grace(self, namespace: str, pod: Mapping[str, Any], seconds: int) -> None:
        """Delete a pod with so many seconds of grace. Without the right to do so, leave it to its Job's deletion."""
        metadata = pod["metadata"]
        try:
            self._delete(namespace, "pods", metadata["name"], metadata["uid"], grace=seconds)
        except ApiError as error:
            if error.status != 403:
                raise
            self._throttle.warn(f"Pods of namespace {namespace} keep their whole grace", error, kind=namespace)

    def _delete(self, namespace: str, kind: str, name: str, uid: str | None, **options: Any) -> bool:
        try:
            self._api.delete(namespace, kind, name, uid=uid, **options)
        except ApiError as error:
            # 409: the object of that name has another UID, so ours is gone
            if error.status in {404, 409}:
                return True
            raise
        return False

    def _find(self, handle: Handle, kind: str, name: str, uid: str, *, was_here: bool = False) -> Json | None:
        """Return this very object from the API server, trimmed; None if it is gone, and not on another cluster."""
        try:
            item: Json | None = self._api.get(str(handle["namespace"]), kind, name)
        except ApiError as error:
            if error.status != 404:
                raise
            item = None
        if item is not None and item["metadata"]["uid"] == uid:
            return trim(kind, item)
        if not was_here:
            self.check_cluster(handle)
        return None

    def _settle_pods(self, handle: Handle, cache: Cache) -> None:
        """Read the hidden ones among a Job's pods by name."""
        key = JobKey.of(handle)
        for hidden in cache.hidden(key.uid):
            if hidden.kind == "pods":
                self._settle(cache, key.namespace, *hidden, self._find(handle, *hidden))

    def _settle(
        self, cache: Cache, namespace: str, kind: str, name: str, uid: str, item: Mapping[str, Any] | None
    ) -> None:
        if cache.settle(kind, uid, item) and item is not None and not item["metadata"]["instance"]:
            logger.warning(
                "%s %s/%s has lost its label %r, so no watch shows it; it is read by name until it ends",
                *("Job" if kind == "jobs" else "Pod", namespace, name, manifest.INSTANCE),
            )

    def _listed(self, namespace: str, kind: str, selector: str) -> Iterator[Json]:
        for page in self._api.pages(namespace, kind, {"labelSelector": selector}):
            for item in page.get("items") or ():
                yield trim(kind, item)
