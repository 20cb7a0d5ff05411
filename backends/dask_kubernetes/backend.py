"""The backend of :class:`~backends.dask_kubernetes.environment.DaskKubernetesEnvironment`: Jobs with Dask workers."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Protocol

from backends.base import Handle, Request, WorkerState
from backends.dask_kubernetes import manifest
from backends.dask_kubernetes.create import create
from backends.dask_kubernetes.pull_secrets import PullSecrets
from backends.dask_kubernetes.rendering import rendered
from backends.dask_kubernetes.summary import pages, summary
from backends.dask_kubernetes.workers import WorkerPods
from backends.kubernetes.attempt_objects import BACKEND, AttemptObjects
from backends.kubernetes.backend import KubernetesBackend
from backends.kubernetes.cluster.errors import translated
from backends.kubernetes.jobs import MISMATCH_RETRY
from backends.kubernetes.settings import KubernetesSettings
from backends.kubernetes.submission import Manifest
from dispatcher.errors import Permanent, Transient
from dispatcher.executors.dask_cluster.certificates import make_certificate
from dispatcher.runs.states import Cause
from dispatcher.settings import Settings
from dispatcher.support.log_throttle import LogThrottle

if TYPE_CHECKING:
    from dispatcher.inspection.finding import Finding

logger = logging.getLogger(__name__)

#: Seconds that a flow that belongs to no run gets until its workers can be created.
ADDRESS_TIMEOUT = 60.0

_POLL_INTERVAL = 0.5  # seconds


class ClusterWorkers(Protocol):
    """The workers of an attempt's Dask cluster, as :class:`~backends.dask_kubernetes.workers.WorkerPods` has them."""

    def states(self, handle: Handle) -> list[WorkerState]:
        """Return the workers of an attempt, gone ones too."""

    def create(self, handle: Handle, request: Request, names: Sequence[str]) -> None:
        """Create workers of these names, unless they exist."""

    def delete(self, handle: Handle, names: Sequence[str]) -> bool:
        """Delete workers; return True once all of them are gone."""

    def logs(self, handle: Handle, name: str) -> tuple[str, ...]:
        """Return the last lines of a worker's container."""


class DaskKubernetesBackend(KubernetesBackend):
    """Runs flows, each with a Dask cluster of its own, on the Kubernetes cluster that the settings choose."""

    name: ClassVar[str] = manifest.NAME

    _manifest: ClassVar[Manifest] = manifest

    objects: ClassVar[AttemptObjects] = AttemptObjects(
        selector=f"{BACKEND}={manifest.NAME}",
        has_workers=True,
        dependents=(("secrets", ""), ("secrets", manifest.TLS_SUFFIX), ("networkpolicies", "")),
    )

    def __init__(self, settings: Settings | None = None) -> None:
        super().__init__(settings)
        self._workers: ClusterWorkers = WorkerPods(self._api, self._watches, self._jobs)
        self._create = partial(create, throttle=LogThrottle(logger))
        self._pull_secrets = PullSecrets(self._api, self._settings.group(KubernetesSettings))

    @classmethod
    def preload(cls) -> None:
        super().preload()
        manifest.preload()
        make_certificate()  # imports Dask

    def rendered(self, request: Request) -> str:
        """Return the Job and a worker's Pod as YAML documents. Secrets aren't shown."""
        return rendered(request)

    def examine(self, *, within: float = 60.0) -> Iterator[Finding]:
        from backends.dask_kubernetes.doctor import examine

        return examine(self, self._api, self._settings, self._identity, within=within, wait=time.sleep)

    def shared(self, request: Request) -> Sequence[str]:
        return self._pull_secrets.names(request)

    def set_up(self, request: Request) -> None:
        self._pull_secrets.create(request)

    def dismantle(self, name: str) -> bool:
        return self._pull_secrets.delete(name)

    @classmethod
    def summary(cls, request: Request) -> Mapping[str, str]:
        return summary(request)

    @classmethod
    def pages(cls, request: Request) -> Mapping[str, str]:
        return pages(request)

    def execute(self, request: Request, secrets: Mapping[str, str]) -> Handle:
        """Create a Job that belongs to no run, and the workers that it starts with; return its handle.

        Raises:
            Permanent: its pod has no address in time; the Job was deleted.
        """
        handle = self.submit(request, secrets)
        names = self.first_workers(request)
        if names:
            self._create_soon(handle, request, names)
        return handle

    def first_workers(self, request: Request) -> tuple[str, ...]:
        return tuple(f"w{number}" for number in range(1, int(request["workers"]["min"]) + 1))

    def max_workers(self, request: Request) -> int:
        return int(request["workers"]["max"])

    def workers(self, handle: Handle) -> list[WorkerState]:
        self._check_scope(handle)
        return self._workers.states(handle)

    def create_workers(self, handle: Handle, request: Request, names: Sequence[str]) -> None:
        self._check_scope(handle)
        self._manifest.check_request(request, self._settings)
        if (handle["namespace"], handle["name"]) != (request["namespace"], request["job"]["metadata"]["name"]):
            raise Permanent(f"Job {handle['name']} is of another request", cause=Cause.CONFIG_ERROR, reason="Refused")
        with translated(self._api, handle["namespace"]):
            self._identity.current()
        if doubt := self._identity.doubt(handle):
            raise Transient(f"no worker is created: {doubt}", retry_in=MISMATCH_RETRY)
        self._workers.create(handle, request, names)

    def delete_workers(self, handle: Handle, names: Sequence[str]) -> bool:
        self._check_scope(handle)
        return self._workers.delete(handle, names)

    def worker_logs(self, handle: Handle, name: str) -> tuple[str, ...]:
        self._check_scope(handle)
        return self._workers.logs(handle, name)

    def _check_scope(self, handle: Handle) -> None:
        if exclusion := self._scope.exclusion(handle):
            raise Transient(exclusion, retry_in=30.0)

    def _create_soon(self, handle: Handle, request: Request, names: Sequence[str]) -> None:
        """Create workers once the flow's pod has an address; delete its Job if that takes too long."""
        end = time.monotonic() + ADDRESS_TIMEOUT
        while True:
            try:
                return self.create_workers(handle, request, names)
            except (Permanent, Transient) as error:
                if isinstance(error, Permanent) or time.monotonic() >= end:
                    self.cancel(handle, request)
                    raise Permanent(
                        f"its workers weren't created within {ADDRESS_TIMEOUT:g} s, and its Job was deleted: {error}",
                        cause=error.cause or Cause.START_FAILED,
                    ) from error
            time.sleep(_POLL_INTERVAL)
