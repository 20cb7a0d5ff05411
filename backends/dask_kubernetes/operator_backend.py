"""The backend of ``DaskKubernetesEnvironment(operator=True)``: Jobs whose Dask clusters the Dask operator runs.

The Job runs the flow alone. Once it is claimed, a DaskCluster and a DaskAutoscaler are created, which it owns. The Job
is deleted in the foreground, so that they go before it, and what they consist of goes before them.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, ClassVar

from backends.base import Handle, Request
from backends.dask_kubernetes import operator_manifest as manifest
from backends.dask_kubernetes.backend import DaskKubernetesBackend
from backends.dask_kubernetes.operator_objects import OperatorClusters
from backends.dask_kubernetes.operator_summary import pages, rendered
from backends.kubernetes.attempt_objects import BACKEND, CLUSTER, AttemptObjects
from backends.kubernetes.cluster.connection import load_sdk
from backends.kubernetes.cluster.errors import translated
from backends.kubernetes.create import create
from backends.kubernetes.grace import Need
from backends.kubernetes.submission import Manifest
from dispatcher.settings import Settings

if TYPE_CHECKING:
    from dispatcher.inspection.finding import Finding


class DaskOperatorBackend(DaskKubernetesBackend):
    """Runs flows, each with a cluster of the Dask operator's, on the Kubernetes cluster that the settings choose."""

    name: ClassVar[str] = manifest.NAME

    _manifest: ClassVar[Manifest] = manifest

    objects: ClassVar[AttemptObjects] = AttemptObjects(selector=f"{BACKEND}={manifest.NAME}", deleted_first=True)

    def __init__(self, settings: Settings | None = None) -> None:
        super().__init__(settings)
        self._workers = self._clusters = OperatorClusters(self._api)
        self._create = create

    @classmethod
    def preload(cls) -> None:
        load_sdk()
        manifest.preload()

    def rendered(self, request: Request) -> str:
        """Return the Job, the DaskCluster and the DaskAutoscaler as YAML documents. Secrets aren't shown."""
        return rendered(request)

    def examine(self, *, within: float = 60.0) -> Iterator[Finding]:
        from backends.dask_kubernetes.operator_doctor import examine

        return examine(self, self._api, self._settings, self._identity, within=within, wait=time.sleep)

    @classmethod
    def pages(cls, request: Request) -> Mapping[str, str]:
        return pages(request)

    def first_workers(self, request: Request) -> tuple[str, ...]:
        """Return the names of the least workers, and of at least one, which stands for the cluster."""
        return super().first_workers(request) or ("w1",)

    def _delete(self, handle: Handle | None, request: Request | None, need: Need) -> bool:
        gone = super()._delete(handle, request, need)
        target = handle if handle is not None else request
        if target is None:
            return gone
        if handle is not None:
            name, labels = str(handle["name"]), {CLUSTER: str(handle["uid"])}
        else:
            name = manifest.cluster_name(target)
            labels = {"identifier": str(target["job"]["metadata"]["labels"]["identifier"])}
        with translated(self._api, target["namespace"]):
            return self._clusters.delete_cluster(str(target["namespace"]), name, labels=labels) and gone
