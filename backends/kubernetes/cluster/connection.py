"""The connection to a cluster: its address, credential and sockets. The only module that uses the Kubernetes SDK.

The SDK finds and keeps the credentials (pod's service account, kubeconfig, exec plugins, proxies, private CA) and makes
the connections. Its models are left out: they refuse what newer servers know, and cost seconds for thousands of pods;
so is its sending, which takes as much processor time as all the rest of a request.
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

CONNECT = 5.0  #: seconds
PLUGIN = 15.0  #: seconds that an exec plugin gets to give a credential
_FRESH = 10.0  # seconds for which a credential isn't looked at again
_SERVICE = "KUBERNETES_SERVICE_HOST"


class Unreachable(Exception):
    """The request was not sent: no connection, no credential."""


class Access:
    """One cluster as one process reaches it. Safe to share among threads.

    Args:
        configuration: the SDK's.
        plugin: seconds that an exec plugin gets to give a credential.
    """

    def __init__(self, configuration: Any, *, plugin: float) -> None:
        self.process = os.getpid()
        self.host = str(configuration.host)
        self._configuration = configuration
        self._plugin = plugin
        self._lock = threading.Lock()
        self._header: tuple[float, str | None] = (0.0, None)
        self._manager = load_sdk().client.rest.RESTClientObject(configuration).pool_manager
        self._urlopen, self._before = _opener(self._manager, self.host)

    @classmethod
    def open(cls, cluster: ClusterSettings, *, plugin: float = PLUGIN) -> Access:
        """Find it; no request is sent.

        Raises:
            InvalidSettings, Unreachable, MissingExtra: as :func:`configure`.
        """
        return cls(configure(cluster, plugin=plugin), plugin=plugin)

    def send(self, method: str, target: str, headers: Mapping[str, str], body: bytes | None, *, read: float) -> Any:
        """Send a request, once; its response with the body unread.

        Args:
            target: path and query, quoted.
            read: seconds to wait for each part of the response.

        Raises:
            urllib3.exceptions.HTTPError, OSError: there is none.
        """
        from urllib3 import Timeout

        return self._urlopen(
            method,
            f"{self._before}{target}",
            body=body,
            headers=headers,
            timeout=Timeout(connect=CONNECT, read=read),
            preload_content=False,
            redirect=False,
            retries=False,
        )

    def authorization(self) -> str | None:
        """The credential's header; the SDK renews a token before it expires, maybe by an exec plugin.

        Raises:
            Unreachable: the plugin gave none in time.
        """
        with self._lock:
            looked, header = self._header
            if not looked or time.monotonic() - looked > _FRESH:
                auth = _within(self._plugin, self._configuration.auth_settings, what="the credential's renewal")
                header = (auth.get("BearerToken") or {}).get("value")
                self._header = (time.monotonic(), header)
            return header

    def close(self) -> None:
        """Drop the connections."""
        self._manager.clear()


def _opener(manager: Any, host: str) -> tuple[Callable[..., Any], str]:
    """Return a function that sends a request to ``host``, and the prefix of its target: at once by the pool of its
    connections, but for a proxy that wants whole addresses."""
    from urllib3.util import parse_url

    if manager.proxy is not None and parse_url(host).scheme != "https":
        return manager.urlopen, host
    return manager.connection_from_url(host).urlopen, parse_url(host).path or ""


def configure(cluster: ClusterSettings, *, plugin: float = PLUGIN) -> Any:
    """The SDK's configuration for one cluster; never its process-wide default.

    Raises:
        InvalidSettings: there is neither a pod's service account nor a usable kubeconfig.
        Unreachable: an exec plugin gave no credential.
        MissingExtra: the SDK isn't installed.
    """
    sdk = load_sdk()
    configuration = sdk.client.Configuration()
    if cluster.kubeconfig is None and cluster.context is None and os.environ.get(_SERVICE):
        load: Callable[[], Any] = lambda: sdk.config.load_incluster_config(client_configuration=configuration)  # noqa: E731
        what = "the pod's service account"
    else:
        file = _kubeconfig(cluster)
        what = f"kubeconfig {file}" + (f", context {cluster.context}" if cluster.context else "")
        load = lambda: sdk.config.load_kube_config(  # noqa: E731
            file, cluster.context, client_configuration=configuration, persist_config=False
        )
    try:
        said = _within(plugin, lambda: _listening(load), what=what)
    except (sdk.config.ConfigException, *_malformed()) as error:
        raise InvalidSettings(f"Kubernetes: {what}: {' '.join(str(error).split())}") from None
    if said and not configuration.api_key and not configuration.cert_file:
        raise Unreachable(f"{what}: {said}")
    configuration.retries = False
    configuration.keep_alive = True
    configuration.connection_pool_maxsize = 32
    return configuration


def _malformed() -> tuple[type[Exception], ...]:
    """Return the exceptions that the SDK raises for a kubeconfig that is none, or can't be read."""
    from yaml import YAMLError

    return YAMLError, OSError, ValueError, TypeError, AttributeError, LookupError


def _kubeconfig(cluster: ClusterSettings) -> str:
    named = str(cluster.kubeconfig) if cluster.kubeconfig else os.environ.get("KUBECONFIG", "")
    files = [one for one in (named or str(Path("~/.kube/config").expanduser())).split(os.pathsep) if one]
    if not any(Path(one).expanduser().is_file() for one in files):
        raise InvalidSettings(
            f"Kubernetes: this process is in no pod (no {_SERVICE}), and there is no kubeconfig ({', '.join(files)}): "
            "set KUBECONFIG, or name one in DISPATCHER__KUBERNETES__CLUSTERS"
        )
    return os.pathsep.join(str(Path(one).expanduser()) for one in files)


def _listening(load: Callable[[], Any]) -> str:
    """Load a configuration; what was logged meanwhile: the SDK only logs what an exec plugin did wrong."""
    thread, said = threading.get_ident(), []

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.thread == thread:
                said.append(record.getMessage())

    ear, root = Ear(level=logging.ERROR), logging.getLogger()
    root.addHandler(ear)
    try:
        load()
    finally:
        root.removeHandler(ear)
    return "; ".join(said)


def _within(seconds: float, call: Callable[[], T], *, what: str) -> T:
    """The call's result, from a thread of its own, which is left behind if it takes longer."""
    answers: Mailbox[tuple[bool, Any]] = Mailbox()

    def run() -> None:
        try:
            answers.put((True, call()))
        except BaseException as error:
            answers.put((False, error))

    threading.Thread(target=run, name="kubernetes-credential", daemon=True).start()
    try:
        well, answer = answers.get(timeout=seconds)
    except queue.Empty:
        raise Unreachable(f"{what}: no answer within {seconds:g} s") from None
    if not well:
        raise answer
    found: T = answer
    return found


def load_sdk() -> Any:
    """The SDK's package; its import takes a second.

    Raises:
        MissingExtra: it isn't installed.
    """
    try:
        import kubernetes.client.rest
        import kubernetes.config
    except ImportError as error:
        raise MissingExtra(f"Kubernetes needs {error.name}: pip install 'flow-dispatcher[kubernetes]'") from None
    return kubernetes
