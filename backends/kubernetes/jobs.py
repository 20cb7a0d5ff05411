"""Jobs and their pods on one cluster: read from a current cache where there is one, else from the API server.

Used by whatever observes, lists or deletes Jobs. Only :mod:`backends.kubernetes.create` creates them.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from backends.base import Handle
from backends.kubernetes import manifest
from backends.kubernetes.cluster.api import Api, ApiError
from backends.kubernetes.cluster.cache import Cache, trim
from backends.kubernetes.cluster.identity import ClusterIdentity
from backends.kubernetes.cluster.watches import Watches
from backends.kubernetes.handle import JobKey
from dispatcher.errors import Transient
from dispatcher.support.log_throttle import LogThrottle

logger = logging.getLogger(__name__)

MISMATCH_RETRY = 30.0  #: seconds until a request about another cluster's Job is tried again


class Jobs:
    """Requests about Jobs. Methods raise what :class:`~backends.kubernetes.cluster.api.Api` raises.

    Args:
        api: the cluster.
        watches: its watches, whose caches save requests.
        identity: of the cluster.
    """

    def __init__(self, api: Api, watches: Watches, identity: ClusterIdentity) -> None:
        self._api = api
        self._watches = watches
        self._identity = identity
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

    def find(self, key: JobKey) -> Mapping[str, Any] | None:
        """Return the metadata of this very Job from the API server; None if it is gone."""
        metadata = self.read(key.namespace, key.name)
        return metadata if metadata is not None and metadata["uid"] == key.uid else None

    def exists(self, key: JobKey) -> bool:
        """Return True if the API server has this very Job; if not, the cluster's identity has been read again."""
        if self.find(key) is not None:
            return True
        self._identity.read()
        return False

    def check_cluster(self, target: Mapping[str, Any]) -> None:
        """Check that a handle or request whose Job wasn't found is of this cluster, whose identity is read now.

        Raises:
            Transient: it isn't, or that isn't sure.
        """
        if target.get("identity"):
            self._identity.read()
        if doubt := self._identity.doubt(target):
            raise Transient(doubt, retry_in=MISMATCH_RETRY)

    def list_all(self, namespace: str, instance: str) -> list[dict[str, Any]]:
        """Return all Jobs of an installation in a namespace, trimmed as the cache keeps them."""
        cache = self._watches.current_cache(namespace, instance)
        if cache is not None:
            return cache.jobs()
        pages = self._api.pages(namespace, "jobs", {"labelSelector": f"{manifest.INSTANCE}={instance}"})
        return [trim("jobs", job) for page in pages for job in page.get("items") or ()]

    def pods(self, key: JobKey, cache: Cache | None) -> Sequence[Mapping[str, Any]]:
        """Return the pods of a Job that still exist, oldest first. Without a cached Job, the API server is asked."""
        if cache is not None and cache.job(key.uid)[0] is not None:
            return [pod.object for pod in cache.pods(key.uid) if not pod.gone]
        pages = self._api.pages(key.namespace, "pods", {"labelSelector": f"job-name={key.name}"})
        return [
            pod
            for page in pages
            for pod in page.get("items") or ()
            if any(owner.get("uid") == key.uid for owner in pod["metadata"].get("ownerReferences") or ())
        ]

    def delete_pod(self, namespace: str, pod: Mapping[str, Any], *, grace: int) -> None:
        """Delete a pod with so many seconds of grace. Without the right to do so, leave it to its Job's deletion."""
        metadata = pod["metadata"]
        try:
            self._api.delete(namespace, "pods", metadata["name"], uid=metadata["uid"], grace=grace)
        except ApiError as error:
            if error.status == 403:
                self._throttle.warn(f"Pods of namespace {namespace} keep their whole grace", error, kind=namespace)
            elif error.status not in {404, 409}:
                raise

    def delete(self, key: JobKey) -> bool:
        """Ask for the deletion of this very Job and its pods; return True if the Job was gone already."""
        try:
            self._api.delete(key.namespace, "jobs", key.name, uid=key.uid)
        except ApiError as error:
            # 409: the Job of that name has another UID, so ours is gone
            if error.status in {404, 409}:
                return True
            raise
        return False
