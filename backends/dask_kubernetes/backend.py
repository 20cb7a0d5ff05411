"""The backend of :class:`~backends.dask_kubernetes.environment.DaskKubernetesEnvironment`: Jobs with Dask workers."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from backends.base import Request
from backends.container.runner import RUNNER
from backends.dask_kubernetes import manifest
from backends.dask_kubernetes.pull_secrets import PullSecrets
from backends.dask_kubernetes.rendering import rendered
from backends.dask_kubernetes.summary import summary
from backends.kubernetes.backend import KubernetesBackend
from backends.kubernetes.settings import KubernetesSettings
from dispatcher.runs.attempt import Attempt
from dispatcher.settings import Settings

if TYPE_CHECKING:
    from dispatcher.inspection.finding import Finding


class DaskKubernetesBackend(KubernetesBackend):
    """Runs flows, each with a Dask cluster of its own, on the Kubernetes cluster that the settings choose."""

    name: ClassVar[str] = "dask-kubernetes"

    def __init__(self, settings: Settings | None = None) -> None:
        super().__init__(settings)
        self._pull_secrets = PullSecrets(self._api, self._settings.group(KubernetesSettings))

    @classmethod
    def preload(cls) -> None:
        super().preload()
        manifest.preload()

    def request(self, attempt: Attempt, *, module: str = RUNNER) -> Request:
        request = manifest.build(attempt, self._settings, module=module)
        identity = self._identity.of_namespace(request["namespace"])
        return {**request, "identity": identity} if identity else request

    def preview(self, attempt: Attempt) -> tuple[Request, Sequence[str]]:
        request = manifest.draft(attempt, self._settings)
        return request, manifest.objections(request, self._settings)

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
