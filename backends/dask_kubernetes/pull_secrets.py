"""Creation and deletion of pull Secrets in a cluster, for all runs with the same credentials of a registry.

A worker may create and delete Secrets, and neither read nor list them. So an existing one of the same name counts as
ours: the name is made of its content, and nobody can change that.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from functools import partial

from backends.base import Request
from backends.container.errors import refused
from backends.dask_kubernetes import image_pull, pull_secret
from backends.kubernetes.cluster.api import Api, ApiError, Unclear
from backends.kubernetes.cluster.errors import translated
from backends.kubernetes.manifest import INSTANCE
from backends.kubernetes.settings import KubernetesSettings
from dispatcher.errors import Transient

logger = logging.getLogger(__name__)

_MAX_TRIES = 3


class PullSecrets:
    """The pull Secrets of the namespaces that a worker serves. Their names are ``namespace/name``.

    Args:
        api: the cluster.
        settings: the worker's.
    """

    def __init__(self, api: Api, settings: KubernetesSettings) -> None:
        self._api = api
        self._settings = settings

    def names(self, request: Request) -> list[str]:
        """Return the name of the Secret that a request needs; empty if it needs none."""
        name, namespace = image_pull.own_name(request), request.get("namespace")
        return [f"{namespace}/{name}"] if name and namespace in self._settings.namespaces else []

    def create(self, request: Request) -> None:
        """Create the Secret that a request needs, unless it exists.

        Raises:
            Permanent: this worker has no such credentials, or may not create Secrets.
            Transient: it isn't clear yet whether it exists.
        """
        name, namespace = image_pull.own_name(request), str(request.get("namespace"))
        if not self.names(request):
            return
        source = image_pull.own_source(request)
        credentials = pull_secret.read_credentials(source, folder=self._settings.secrets_folder)
        instance = str(request["job"]["metadata"]["labels"][INSTANCE])
        if pull_secret.secret_name(credentials, instance) != name:
            logger.warning("Pull Secret %s/%s: %s has changed since; it is left as it is", namespace, name, source)
            return
        secret = pull_secret.manifest(credentials, name=name, namespace=namespace, instance=instance)
        with translated(self._api, namespace):
            self._tried(partial(self._api.create, namespace, "secrets", secret), passing={409}, name=name)

    def delete(self, name: str) -> bool:
        """Delete a Secret by ``namespace/name``. Return True once it is confirmed to be gone.

        Raises:
            Permanent: it is in a namespace that isn't served, or isn't a pull Secret; or this worker may not delete it.
            Transient: it isn't clear yet whether it is gone.
        """
        namespace, _, secret = name.partition("/")
        if namespace not in self._settings.namespaces or not pull_secret.is_pull_secret(secret):
            raise refused(f"{name!r} names no pull Secret in a namespace that is served")
        with translated(self._api, namespace):
            self._tried(partial(self._api.delete, namespace, "secrets", secret), passing={404}, name=secret)
        return True

    def _tried(self, send: Callable[[], object], *, passing: Collection[int], name: str) -> None:
        """Send a request, again if its answer was lost; an error of these statuses is success."""
        for _ in range(_MAX_TRIES):
            try:
                send()
                return
            except ApiError as error:
                if error.status in passing:
                    return
                raise
            except Unclear:
                continue
        raise Transient(f"Secret {name}: no clear answer after {_MAX_TRIES} tries")
