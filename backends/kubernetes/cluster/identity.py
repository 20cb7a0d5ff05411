"""The identity of the cluster that an API client leads to, by the UIDs of two objects that each cluster has.

The UID of the namespace ``kube-system`` identifies the cluster. Few credentials may read it, so that of the ConfigMap
``kube-root-ca.crt`` in each namespace served is read as well: its controller creates it once. Both are stored where
both can be read, so that workers with different rights can compare what they know. Address and CA identify nothing: a
cluster has several addresses, its CA is rotated, and a new cluster may get the address of an old one.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from backends.kubernetes.cluster.api import Api, ApiError, Unclear
from backends.kubernetes.cluster.connection import Unreachable
from dispatcher.errors import DispatcherError
from dispatcher.runs.place_identity import Agreement, Identity, compare, part_of, read_identity, shown

SYSTEM = "kube-system"
ROOT_CA = "kube-root-ca.crt"

#: What a worker lacks that can't tell which cluster it serves.
RIGHT = f"`get` of ConfigMap {ROOT_CA} in its namespaces, or of namespace {SYSTEM}"

_TIMEOUT = 5.0  # seconds for each object
_UNREADABLE = frozenset({403, 404})
_RETRY_INTERVAL = 30.0  # seconds until objects that couldn't be read are tried again
_FAILURE_INTERVAL = 5.0  # seconds for which a server that couldn't be asked isn't asked again before a request
_MAX_READS = 3  # if each of them finds new sockets


class ClusterIdentity:
    """Identity of one cluster: kept in memory, and read again after each new socket. Safe to share among threads.

    Args:
        api: the cluster.
        namespaces: those served.
    """

    def __init__(self, api: Api, namespaces: Sequence[str]) -> None:
        self._api = api
        self._namespaces = namespaces
        self._lock = threading.Lock()
        self._identity: Identity = {}
        self._read_through: tuple[int, int] | None = None  # the sockets, if the last reading succeeded
        self._read_at = 0.0
        self._failed_at = 0.0

    @property
    def last_read(self) -> Identity:
        """The identity as last read; empty if it isn't known. No request."""
        return self._identity

    def current(self) -> Identity:
        """Return the identity, by no request unless there are new sockets since the last reading.

        Raises:
            ApiError, Unreachable, Unclear, DispatcherError: the server can't be asked. One that denies both objects
                or has neither has an empty identity.
        """
        with self._lock:
            outdated = not self._identity and time.monotonic() - self._read_at > _RETRY_INTERVAL
            for _ in range(_MAX_READS):
                if self._read_through == self._api.sockets and not outdated:
                    break
                outdated = False
                self._store()
            return self._identity

    def read(self) -> Identity:
        """Read the identity now, and return it. Raises what :meth:`current` raises."""
        with self._lock:
            self._store()
            return self._identity

    def refresh(self) -> None:
        """Make :meth:`of_namespace` current, unless the server couldn't be asked a moment ago."""
        if self._read_through is None and 0 < time.monotonic() - self._failed_at < _FAILURE_INTERVAL:
            return
        with suppress(ApiError, Unreachable, Unclear, DispatcherError):
            self.current()

    def of_namespace(self, namespace: str) -> dict[str, str]:
        """Return what is stored with requests of a namespace; nothing if the last reading failed, since the cluster may
        be another one once it answers."""
        return {} if self._read_through is None else part_of(self._identity, namespace)

    def doubt(self, target: Mapping[str, Any]) -> str:
        """Return why a handle or request may be of another cluster than the one known; empty if it is of this one.

        One without an identity is that of an earlier release, or of a worker that could read none. Nothing tells it
        apart, so it counts as this cluster's.
        """
        theirs, ours = read_identity(target.get("identity")), self._identity
        where = f"it is on the cluster with {shown(theirs)}, and this worker"
        match compare(ours, theirs):
            case Agreement.DIFFERENT:
                return f"{where} serves the one with {shown(ours)}"
            case Agreement.UNCLEAR if theirs and ours:
                return f"{where} knows the one that it serves only by {shown(ours)}"
            case Agreement.UNCLEAR if theirs:
                return f"{where} can't tell which one it serves: it lacks {RIGHT}"
        return ""

    def _store(self) -> None:
        sockets = self._api.sockets
        try:
            self._identity = self._read()
        except Exception:
            self._read_through, self._failed_at = None, time.monotonic()
            raise
        self._read_through, self._read_at = sockets, time.monotonic()

    def _read(self) -> Identity:
        """Read one object that was read before; all if its UID is another, or there is none."""
        previous = self._identity
        for anchor, read in self._anchors():
            if anchor in previous:
                if _uid(read) == previous[anchor]:
                    return previous
                break
        uids = {anchor: _uid(read) for anchor, read in self._anchors()}
        new = {anchor: uid for anchor, uid in uids.items() if uid}
        return {**previous, **new} if compare(previous, new) is Agreement.SAME else new

    def _anchors(self) -> list[tuple[str, Callable[[], Mapping[str, Any]]]]:
        def config_map(namespace: str) -> Callable[[], Mapping[str, Any]]:
            return lambda: self._api.get(namespace, "configmaps", ROOT_CA, timeout=_TIMEOUT)

        system = (SYSTEM, lambda: self._api.namespace(SYSTEM, timeout=_TIMEOUT))
        return [system, *((f"{ROOT_CA}/{namespace}", config_map(namespace)) for namespace in self._namespaces)]


def _uid(read: Callable[[], Mapping[str, Any]]) -> str:
    """Return an object's UID; empty if there is no such object or it may not be read."""
    try:
        return str(read()["metadata"]["uid"])
    except ApiError as error:
        if error.status in _UNREADABLE:
            return ""
        raise
    except (LookupError, TypeError) as error:
        raise Unclear(f"the answer isn't an object with a UID: {error!r}") from None
