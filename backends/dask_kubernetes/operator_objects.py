"""The DaskClusters of one cluster's attempts: creation, deletion, and what keeps them.

The Dask operator makes scheduler and workers of them, and sets finalizers on them. Where it doesn't run, its pods are
deleted all the same, because what owns them is deleted in the foreground
(https://kubernetes.io/docs/concepts/architecture/garbage-collection/#foreground-deletion); the objects themselves stay
until it comes back.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from backends.base import Handle, Observation, Phase, Request, WorkerState
from backends.dask_kubernetes import operator_manifest as manifest
from backends.kubernetes import manifest as jobs
from backends.kubernetes.attempt_objects import CLUSTER
from backends.kubernetes.cluster.api import Api, ApiError
from backends.kubernetes.cluster.errors import translated
from backends.kubernetes.create import create_or_adopt
from backends.kubernetes.handle import JobKey
from dispatcher.errors import Permanent, Transient
from dispatcher.runs.cluster import worker_number
from dispatcher.runs.states import Cause
from dispatcher.support.failpoints import failpoint

Json = dict[str, Any]

#: Kinds, with their words: the owner of everything comes first, and is looked for last.
_KINDS = (("daskclusters", "DaskCluster"), ("daskautoscalers", "DaskAutoscaler"))

_FOREGROUND = "foregroundDeletion"
_RETRY_INTERVAL = 5.0  # seconds, while others keep something
_MOST_KNOWN = 10_000  # attempts whose clusters are known to exist


class OperatorClusters:
    """Requests about DaskClusters.

    Args:
        api: the cluster.
    """

    def __init__(self, api: Api) -> None:
        self._api = api
        self._lock = threading.Lock()
        self._names: dict[str, set[str]] = {}  # by the Job's UID: the workers for which its DaskCluster was created

    def states(self, handle: Handle) -> list[WorkerState]:
        """Return the workers of an attempt for which this process has created its DaskCluster.

        The operator gives its workers other names, so only their number means something.
        """
        with self._lock:
            names = sorted(self._names.get(str(handle["uid"]), ()), key=worker_number)
        return [WorkerState(name=name, observation=Observation(phase=Phase.RUNNING)) for name in names]

    def create(self, handle: Handle, request: Request, names: Sequence[str]) -> None:
        """Create the DaskCluster and the DaskAutoscaler of an attempt, unless they exist.

        Raises:
            MissingExtra: dask-kubernetes isn't installed.
            Permanent: the cluster doesn't know the operator's resources, refuses one, or has another one of its name.
            Transient: one isn't created yet.
        """
        key = JobKey.of(handle)
        bodies = (manifest.dask_cluster(request, key.uid), manifest.dask_autoscaler(request, key.uid))
        for (kind, word), body in zip(_KINDS, bodies, strict=True):
            with translated(self._api, key.namespace):
                self._create(key, kind, word, body)
            failpoint("cluster.operator_made", str(body["metadata"]["annotations"][jobs.RUN]), lost=Transient)
        self._know(key.uid, names)

    def delete(self, handle: Handle, names: Sequence[str]) -> bool:
        """Take it that these workers aren't wanted any more, and return True: the operator deletes them."""
        with self._lock:
            if (wanted := self._names.get(str(handle["uid"]))) is not None:
                wanted.difference_update(names)
        return True

    def logs(self, handle: Handle, name: str) -> tuple[str, ...]:
        """Return nothing: the operator's workers have names of its own."""
        return ()

    def delete_cluster(self, namespace: str, name: str, *, labels: Mapping[str, str]) -> bool:
        """Delete what is left of the DaskCluster of this name in the foreground; return True once it is gone.

        Args:
            namespace, name: of the DaskCluster.
            labels: that it must have; others' objects are left alone.

        Raises:
            Transient: the operator keeps it by a finalizer.
            ApiError, Unclear, Unreachable: of the API.
        """
        with self._lock:
            self._names.pop(labels.get(CLUSTER, ""), None)
        left = [
            (kind, word, metadata)
            for kind, word in reversed(_KINDS)
            if (metadata := self._read(namespace, kind, name)) is not None and _has(metadata, labels)
        ]
        for kind, _, metadata in left:
            if _FOREGROUND not in (metadata.get("finalizers") or ()):
                self._delete(namespace, kind, metadata)
        pods = self._has_pods(namespace, f"dask.org/cluster-name={name}", labels)
        for _, word, metadata in left:
            if metadata.get("deletionTimestamp") and not pods and (own := _foreign(metadata)):
                finalizers = f"finalizer{'s' if len(own) > 1 else ''} {', '.join(own)} on {word} {namespace}/{name}"
                remedy = "the Dask operator, which removes it, doesn't"
                raise Transient(f"teardown pending: it waits for {finalizers}: {remedy}", retry_in=_RETRY_INTERVAL)
        return not left and not pods

    def _create(self, key: JobKey, kind: str, word: str, body: Mapping[str, Any]) -> None:
        try:
            create_or_adopt(self._api, key.namespace, kind, body, partial(self._adopt, key, kind, word))
        except ApiError as error:
            if error.status == 404 and error.reason != "NotFound":  # not even the kind
                raise Permanent(missing_definition(kind), cause=Cause.CONFIG_ERROR, reason="NoOperator") from error
            raise

    def _adopt(self, key: JobKey, kind: str, word: str) -> Json:
        """Return the existing object of that name, if it was created for this Job."""
        item = self._api.get(key.namespace, kind, key.name)
        if not _has(item["metadata"], {CLUSTER: key.uid}):
            message = f"{word} {key.namespace}/{key.name} was created by somebody else"
            raise Permanent(message, cause=Cause.START_FAILED, reason="AlreadyExists")
        if item["metadata"].get("deletionTimestamp"):
            raise Transient(f"{word} {key.namespace}/{key.name} is being deleted")
        return item

    def _know(self, job_uid: str, names: Sequence[str]) -> None:
        with self._lock:
            self._names.setdefault(job_uid, set()).update(names)
            while len(self._names) > _MOST_KNOWN:
                self._names.pop(next(iter(self._names)))

    def _read(self, namespace: str, kind: str, name: str) -> Mapping[str, Any] | None:
        try:
            metadata: Mapping[str, Any] = self._api.get(namespace, kind, name)["metadata"]
        except ApiError as error:
            if error.status == 404:  # also if the cluster doesn't know the kind
                return None
            raise
        return metadata

    def _delete(self, namespace: str, kind: str, metadata: Mapping[str, Any]) -> None:
        try:
            self._api.delete(namespace, kind, metadata["name"], uid=metadata["uid"], foreground=True)
        except ApiError as error:
            if error.status not in {404, 409}:
                raise

    def _has_pods(self, namespace: str, selector: str, labels: Mapping[str, str]) -> bool:
        """Return True if the operator's pods still exist."""
        chosen = ",".join([selector, *(f"{label}={value}" for label, value in labels.items())])
        return any(page.get("items") for page in self._api.pages(namespace, "pods", {"labelSelector": chosen}, limit=1))


def missing_definition(kind: str) -> str:
    """Return the message about a cluster that doesn't have the operator's resources."""
    return (
        f"the cluster knows no {kind}.{manifest.GROUP}: install the Dask operator "
        "(https://kubernetes.dask.org/en/latest/installing.html), or leave out operator=True"
    )


def _foreign(metadata: Mapping[str, Any]) -> list[str]:
    return [name for name in metadata.get("finalizers") or () if name != _FOREGROUND]


def _has(metadata: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Return True if an object has labels: the operator keeps them, and replaces owner references."""
    own = metadata.get("labels") or {}
    return all(own.get(label) == value for label, value in labels.items())
