"""The running watches of one cluster, by namespace and installation. The backend holds one registry of them."""

from __future__ import annotations

from backends.base import Changed
from backends.kubernetes.attempt_objects import JOB_ALONE, AttemptObjects
from backends.kubernetes.cluster.api import Api
from backends.kubernetes.cluster.cache import Cache
from backends.kubernetes.cluster.identity import ClusterIdentity
from backends.kubernetes.cluster.watch import NamespaceWatch
from backends.kubernetes.settings import KubernetesSettings


class Watches:
    """Starts a watch when it is first asked for, and keeps it until :meth:`stop`.

    Args:
        api: the cluster.
        settings: timeouts of the watches.
        identity: of the cluster.
        objects: what is watched.
    """

    def __init__(
        self, api: Api, settings: KubernetesSettings, identity: ClusterIdentity, objects: AttemptObjects = JOB_ALONE
    ) -> None:
        self._api = api
        self._settings = settings
        self._identity = identity
        self._objects = objects
        self._watches: dict[tuple[str, str], NamespaceWatch] = {}
        self.on_change: Changed = lambda uid, run_id: None  #: called by watches that start from now on

    def get(self, namespace: str, instance: str) -> NamespaceWatch:
        """Return the watch of an installation's objects in a namespace. Starts one if there is none of the cluster to
        which the address leads now."""
        key = (namespace, instance)
        watch = self._watches.get(key)
        if watch is None or watch.moved:
            selector = self._objects.of_instance(instance)
            watch = self._watches[key] = NamespaceWatch(
                self._api, namespace, selector, self._settings, self._identity, self.on_change
            )
            watch.start()
        return watch

    def current_cache(self, namespace: str, instance: str) -> Cache | None:
        """Return the cache of a running watch; None if there is no such watch, or its cache may be out of date."""
        watch = self._watches.get((namespace, instance))
        return None if watch is None or watch.stale_reason() else watch.cache

    def stop(self) -> None:
        """Stop all watches."""
        for watch in self._watches.values():
            watch.stop()
