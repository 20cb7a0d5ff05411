"""The connection to a cluster: its address, credential and sockets. The only module that uses the Kubernetes SDK.

The SDK finds and renews the credentials (pod's service account, kubeconfig, exec plugins, proxies, private CA) and
makes the connections. Its models aren't used: they reject fields of newer servers, and cost seconds for thousands of
pods. Nor are its requests, which take as much processor time as everything else of a request.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from backends.kubernetes.settings import ClusterSettings
from dispatcher.errors import InvalidSettings, MissingExtra
from dispatcher.support.mailbox import Mailbox

T = TypeVar("T")

CONNECT_TIMEOUT = 5.0  #: seconds
PLUGIN_TIMEOUT = 15.0  #: seconds that an exec plugin gets to return a credential
_CREDENTIAL_CHECK_INTERVAL = 10.0  # seconds
_SERVICE = "KUBERNETES_SERVICE_HOST"


class Unreachable(Exception):
    """The request was not sent: no connection, no credential."""


class Connection:
    """One process's connections to one cluster. Safe to share among threads.

    Args:
        configuration: the SDK's.
        plugin: seconds that an exec plugin gets to return a credential.
    """

    def __init__(self, configuration: Any, *, plugin: float) -> None:
        self.process = os.getpid()
        self.host = str(configuration.host)
        self._configuration = configuration
        self._plugin = plugin
        self._lock = threading.Lock()
        self._header: tuple[float, str | None] = (0.0, None)  # when it was read, and its value
        self.sockets = 0  #: opened so far
        self._sockets_lock = threading.Lock()
        self._manager = load_sdk().client.rest.RESTClientObject(configuration).pool_manager
        self._urlopen, self._prefix = _opener(self._manager, self.host)
        self._count_sockets()

    @classmethod
    def open(cls, cluster: ClusterSettings, *, plugin: float = PLUGIN_TIMEOUT) -> Connection:
        """Find the cluster and the credential; no request is sent.

        Raises:
            InvalidSettings, Unreachable, MissingExtra: as :func:`configure`.
        """
        return cls(configure(cluster, plugin=plugin), plugin=plugin)

    def send(self, method: str, target: str, headers: Mapping[str, str], body: bytes | None, *, read: float) -> Any:
        """Send a request once; return its response with the body unread.

        Args:
            target: path and query, quoted.
            read: seconds to wait for each part of the response.

        Raises:
            urllib3.exceptions.HTTPError, OSError: there is no response.
        """
        from urllib3 import Timeout

        return self._urlopen(
            method,
            f"{self._prefix}{target}",
            body=body,
            headers=headers,
            timeout=Timeout(connect=CONNECT_TIMEOUT, read=read),
            preload_content=False,
            redirect=False,
            retries=False,
        )

    def authorization(self) -> str | None:
        """Return the Authorization header. The SDK renews a token before it expires, maybe by an exec plugin.

        Raises:
            Unreachable: the plugin returned none in time.
        """
        with self._lock:
            read_at, header = self._header
            if not read_at or time.monotonic() - read_at > _CREDENTIAL_CHECK_INTERVAL:
                auth = _within(self._plugin, self._configuration.auth_settings, source="the credential's renewal")
                header = (auth.get("BearerToken") or {}).get("value")
                self._header = (time.monotonic(), header)
            return header

    def close(self) -> None:
        """Close the connections."""
        self._manager.clear()

    def _count_sockets(self) -> None:
        """Count each socket that is opened. A dropped one is replaced silently, maybe by one to another server."""
        pool = self._manager.connection_from_url(self.host)

        class Counted(pool.ConnectionCls):  # type: ignore[name-defined, misc]
            def connect(this) -> None:  # noqa: N805
                with self._sockets_lock:
                    self.sockets += 1
                super().connect()

        pool.ConnectionCls = Counted


def _opener(manager: Any, host: str) -> tuple[Callable[..., Any], str]:
    """Return the function that sends requests to ``host``, and the prefix of their targets.

    Requests go to the host's connection pool directly, except through a proxy that expects absolute URLs.
    """
    from urllib3.util import parse_url

    if manager.proxy is not None and parse_url(host).scheme != "https":
        return manager.urlopen, host
    return manager.connection_from_url(host).urlopen, parse_url(host).path or ""


def configure(cluster: ClusterSettings, *, plugin: float = PLUGIN_TIMEOUT) -> Any:
    """Return the SDK's configuration for one cluster; never its process-wide default.

    Raises:
        InvalidSettings: there is neither a pod's service account nor a usable kubeconfig.
        Unreachable: an exec plugin returned no credential.
        MissingExtra: the SDK isn't installed.
    """
    sdk = load_sdk()
    configuration = sdk.client.Configuration()
    if cluster.kubeconfig is None and cluster.context is None and os.environ.get(_SERVICE):
        load: Callable[[], Any] = lambda: sdk.config.load_incluster_config(client_configuration=configuration)  # noqa: E731
        source = "the pod's service account"
    else:
        file = _kubeconfig(cluster)
        source = f"kubeconfig {file}" + (f", context {cluster.context}" if cluster.context else "")
        load = lambda: sdk.config.load_kube_config(  # noqa: E731
            file, cluster.context, client_configuration=configuration, persist_config=False
        )
    try:
        errors = _within(plugin, lambda: _load_errors(load), source=source)
    except (sdk.config.ConfigException, *_malformed()) as error:
        raise InvalidSettings(f"Kubernetes: {source}: {' '.join(str(error).split())}") from None
    if errors and not configuration.api_key and not configuration.cert_file:
        raise Unreachable(f"{source}: {errors}")
    configuration.retries = False
    configuration.keep_alive = True
    configuration.connection_pool_maxsize = 32
    return configuration


def _malformed() -> tuple[type[Exception], ...]:
    """Return the exceptions that the SDK raises for a file that isn't a kubeconfig, or can't be read."""
    from yaml import YAMLError

    return YAMLError, OSError, ValueError, TypeError, AttributeError, LookupError


def _kubeconfig(cluster: ClusterSettings) -> str:
    setting = str(cluster.kubeconfig) if cluster.kubeconfig else os.environ.get("KUBECONFIG", "")
    files = [file for file in (setting or str(Path("~/.kube/config").expanduser())).split(os.pathsep) if file]
    if not any(Path(file).expanduser().is_file() for file in files):
        raise InvalidSettings(
            f"Kubernetes: this process isn't in a pod (no {_SERVICE}), and there is no kubeconfig "
            f"({', '.join(files)}): set KUBECONFIG, or name one in DISPATCHER__KUBERNETES__CLUSTERS"
        )
    return os.pathsep.join(str(Path(file).expanduser()) for file in files)


def _load_errors(load: Callable[[], Any]) -> str:
    """Load a configuration; return the errors logged meanwhile. The SDK only logs the failure of an exec plugin."""
    thread, errors = threading.get_ident(), []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.thread == thread:
                errors.append(record.getMessage())

    collector, root = Collector(level=logging.ERROR), logging.getLogger()
    root.addHandler(collector)
    try:
        load()
    finally:
        root.removeHandler(collector)
    return "; ".join(errors)


def _within(seconds: float, call: Callable[[], T], *, source: str) -> T:
    """Return the result of a call on a thread of its own, which is abandoned if it takes longer.

    Raises:
        Unreachable: it took longer; names ``source``.
    """
    outcomes: Mailbox[tuple[bool, Any]] = Mailbox()

    def run() -> None:
        try:
            outcomes.put((True, call()))
        except BaseException as error:
            outcomes.put((False, error))

    threading.Thread(target=run, name="kubernetes-credential", daemon=True).start()
    try:
        succeeded, outcome = outcomes.get(timeout=seconds)
    except queue.Empty:
        raise Unreachable(f"{source}: no answer within {seconds:g} s") from None
    if not succeeded:
        raise outcome
    result: T = outcome
    return result


def load_sdk() -> Any:
    """Return the SDK's package; its import takes a second.

    Raises:
        MissingExtra: the SDK isn't installed.
    """
    try:
        import kubernetes.client.rest
        import kubernetes.config
    except ImportError as error:
        raise MissingExtra(f"Kubernetes needs {error.name}: pip install 'flow-dispatcher[kubernetes]'") from None
    return kubernetes
