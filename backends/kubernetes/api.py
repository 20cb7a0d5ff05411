"""The Kubernetes API as this backend needs it: plain dicts over HTTP. The only module that uses the Kubernetes SDK.

The SDK finds and keeps the credentials (pod's service account, kubeconfig, exec plugins, proxies, private CA) and makes
the connections. Its models are left out: they refuse what newer servers know, and cost seconds for thousands of pods.
Every request has a timeout and is sent once; whether it was carried out is told apart by the two errors below.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from backends.kubernetes.pace import Pace
from dispatcher.errors import InvalidSettings, MissingExtra
from dispatcher.settings import ClusterSettings

T = TypeVar("T")
Json = dict[str, Any]

CONNECT = 5.0  # seconds
PLUGIN = 15.0  # seconds that an exec plugin gets to give a credential
_FRESH = 10.0  # seconds for which a credential isn't looked at again
_WATCH = 300  # seconds after which the server ends a watch by itself
_PAGE = 500

_CORE = "/api/v1"
_GROUPS = {"jobs": "/apis/batch/v1"}  # of the others the core's
_REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
_SERVICE = "KUBERNETES_SERVICE_HOST"


class ApiError(Exception):
    """The server answered, and said no. ``reason`` is its word for it, such as ``AlreadyExists``; ``retry_after`` is in
    seconds where it named a time."""

    def __init__(self, status: int, reason: str, message: str, retry_after: float | None = None) -> None:
        super().__init__(f"{status} {reason}: {message}" if reason else f"{status}: {message}")
        self.status = status
        self.reason = reason
        self.message = message
        self.retry_after = retry_after


class Unreachable(Exception):
    """The request was not sent: no connection, no credential."""


class Unclear(Exception):
    """The request was sent, and no whole answer came: it may have been carried out."""


class Api:
    """One cluster. Opened at the first request, in each process anew; safe to share among threads.

    Args:
        cluster: how it is reached.
        timeout: seconds that the server gets to answer.
        plugin: seconds that an exec plugin gets to give a credential.
        pace: how fast it may be asked.
    """

    def __init__(
        self, cluster: ClusterSettings, *, timeout: float = 30.0, plugin: float = PLUGIN, pace: Pace | None = None
    ) -> None:
        self._cluster = cluster
        self._timeout = timeout
        self._plugin = plugin
        self._pace = pace or Pace()
        self._lock = threading.RLock()
        self._connected: tuple[int, Any, Any] | None = None  # process, configuration, client
        self._header: tuple[float, str | None] = (0.0, None)

    def create(self, namespace: str, kind: str, body: Mapping[str, Any]) -> Json:
        """Create an object; a field that the server doesn't know is an error.

        Raises:
            ApiError, Unreachable, Unclear: see there; so in all that follow.
        """
        return self._ask("POST", _path(namespace, kind), {"fieldValidation": "Strict"}, body)

    def get(self, namespace: str, kind: str, name: str) -> Json:
        """Read an object, as it is now and not as some cache has it."""
        return self._ask("GET", _path(namespace, kind, name))

    def delete(self, namespace: str, kind: str, name: str, *, uid: str | None = None) -> Json:
        """Delete an object, and what belongs to it after it; with ``uid`` only that very object."""
        body: Json = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
        if uid is not None:
            body["preconditions"] = {"uid": uid}
        return self._ask("DELETE", _path(namespace, kind, name), {}, body)

    def pages(self, namespace: str, kind: str, selectors: Mapping[str, str], *, limit: int = _PAGE) -> Iterator[Json]:
        """All objects of a kind that ``labelSelector`` and ``fieldSelector`` select, page by page. The first page's
        ``resourceVersion`` is where a watch may begin."""
        query: dict[str, str] = {"limit": str(limit), **selectors}
        while True:
            page = self._ask("GET", _path(namespace, kind), query)
            yield page
            token = page.get("metadata", {}).get("continue")
            if not token:
                return
            query["continue"] = token

    def watch(
        self, namespace: str, kind: str, version: str, selectors: Mapping[str, str], *, silence: float
    ) -> Iterator[Json]:
        """What changes from ``version`` on: events with ``type`` and ``object``, bookmarks too. Ends when the server
        ends it; an error among the events is raised.

        Args:
            silence: seconds without a byte after which it is given up; bookmarks come each minute.
        """
        query = {
            "watch": "1",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(_WATCH),
            **selectors,
        }
        response = self._send("GET", _path(namespace, kind), query, None, read=silence)
        try:
            for line in _lines(response):
                event = _parsed(line)
                if event.get("type") == "ERROR":
                    raise _error(int(event["object"].get("code") or 500), event["object"], None)
                yield event
        finally:
            response.close()

    def log(self, namespace: str, pod: str, container: str, *, lines: int = 200, most: int = 65536) -> str:
        """The last lines of a container's log, read within 5 seconds."""
        query = {"container": container, "tailLines": str(lines), "limitBytes": str(most)}
        response = self._send("GET", f"{_path(namespace, 'pods', pod)}/log", query, None, read=5.0)
        return _body(response).decode(errors="replace")

    def version(self) -> Json:
        """The server's version: ``gitVersion``, ``major``, ``minor``."""
        return self._ask("GET", "/version")

    def allowed(self, namespace: str, kind: str, verb: str) -> bool:
        """Whether our credential may do this (SelfSubjectAccessReview); ``pods/log`` names a subresource."""
        resource, _, below = kind.partition("/")
        group = "batch" if kind == "jobs" else ""
        asked = {"namespace": namespace, "resource": resource, "verb": verb, "group": group, "subresource": below}
        body = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": asked},
        }
        return bool(self._ask("POST", _REVIEWS, {}, body).get("status", {}).get("allowed"))

    def close(self) -> None:
        """Drop the connections."""
        with self._lock:
            if self._connected is not None and self._connected[0] == os.getpid():
                self._connected[2].close()
            self._connected = None

    def _ask(
        self, method: str, path: str, query: Mapping[str, str] | None = None, body: Mapping[str, Any] | None = None
    ) -> Json:
        return _parsed(_body(self._send(method, path, query or {}, body, read=self._timeout)))

    def _send(
        self, method: str, path: str, query: Mapping[str, str], body: Mapping[str, Any] | None, *, read: float
    ) -> Any:
        """The response to a request, its body unread; where the credential is refused, it is read anew once."""
        if not self._pace.take(within=self._timeout):
            raise ApiError(429, "TooManyRequests", "the API server asked us to wait", self._timeout)
        configuration, client = self._open()
        response = self._once(configuration, client, (method, path, query, body), read)
        if response.status == 401:
            response.drain_conn()
            configuration, client = self._open(anew=configuration)
            response = self._once(configuration, client, (method, path, query, body), read)
        if response.status < 400:
            self._pace.succeed()
            return response
        error = _error(response.status, _status_of(response), response.headers.get("Retry-After"))
        if error.status == 429:
            self._pace.slow(error.retry_after or 1.0)
        raise error

    def _once(self, configuration: Any, client: Any, request: tuple[str, str, Any, Any], read: float) -> Any:
        from urllib3 import exceptions
        from urllib3.util import url as urls

        method, path, query, body = request
        headers = {"Accept": "application/json", "Content-Type": "application/json", "User-Agent": "flow-dispatcher"}
        if authorization := self._authorization(configuration):
            headers["authorization"] = authorization
        encoded = "&".join(f"{name}={_quoted(value)}" for name, value in query.items())
        where = urls.parse_url(f"{configuration.host}{path}{'?' + encoded if encoded else ''}").url
        try:
            return client.request(method, where, headers=headers, body=body, _request_timeout=(CONNECT, read)).response
        except (exceptions.NewConnectionError, exceptions.ConnectTimeoutError, exceptions.ProxyError) as error:
            raise Unreachable(f"{configuration.host}: {error}") from error
        except (exceptions.HTTPError, OSError) as error:
            raise Unclear(f"{method} {path}: {type(error).__name__}: {error}") from error
        except load_sdk().client.exceptions.ApiException as error:  # of TLS: nothing was sent
            raise Unreachable(f"{configuration.host}: {error.reason}") from error

    def _open(self, *, anew: Any = None) -> tuple[Any, Any]:
        """Configuration and client of this process; made ``anew`` if that configuration is still the current one."""
        with self._lock:
            if self._connected is not None and self._connected[0] == os.getpid() and self._connected[1] is not anew:
                return self._connected[1:]
            configuration = configure(self._cluster, plugin=self._plugin)
            client = load_sdk().client.rest.RESTClientObject(configuration)
            self._connected = (os.getpid(), configuration, client)
            self._header = (0.0, None)
            return configuration, client

    def _authorization(self, configuration: Any) -> str | None:
        """The credential's header; the SDK renews a token before it expires, maybe by an exec plugin."""
        with self._lock:
            looked, header = self._header
            if not looked or time.monotonic() - looked > _FRESH:
                auth = _within(self._plugin, configuration.auth_settings, what="the credential's renewal")
                header = (auth.get("BearerToken") or {}).get("value")
                self._header = (time.monotonic(), header)
            return header


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
    except sdk.config.ConfigException as error:
        raise InvalidSettings(f"Kubernetes: {what}: {error}") from None
    if said and not configuration.api_key and not configuration.cert_file:
        raise Unreachable(f"{what}: {said}")
    configuration.retries = False
    configuration.keep_alive = True
    configuration.connection_pool_maxsize = 32
    return configuration


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
    answers: queue.SimpleQueue[tuple[bool, Any]] = queue.SimpleQueue()

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


def _path(namespace: str, kind: str, name: str = "") -> str:
    path = f"{_GROUPS.get(kind, _CORE)}/namespaces/{_quoted(namespace)}/{kind}"
    return f"{path}/{_quoted(name)}" if name else path


def _quoted(text: str) -> str:
    from urllib.parse import quote

    return quote(text, safe="")


def _body(response: Any) -> bytes:
    from urllib3 import exceptions

    try:
        data: bytes = response.data
        return data
    except (exceptions.HTTPError, OSError) as error:
        raise Unclear(f"the answer broke off: {type(error).__name__}: {error}") from error


def _parsed(data: bytes) -> Json:
    try:
        found = json.loads(data)
    except ValueError as error:
        raise Unclear(f"the answer isn't JSON: {error}") from None
    if not isinstance(found, dict):
        raise Unclear("the answer isn't a JSON object")
    return found


def _lines(response: Any) -> Iterator[bytes]:
    """Whole lines; one that was cut off by the end of the stream is no line."""
    from urllib3 import exceptions

    rest = b""
    try:
        for chunk in response.stream(65536):
            *lines, rest = (rest + chunk).split(b"\n")
            yield from filter(None, lines)
    except (exceptions.HTTPError, OSError) as error:
        raise Unclear(f"the watch broke off: {type(error).__name__}: {error}") from error


def _status_of(response: Any) -> Json:
    """The body of an error: a Status object, or what some proxy said."""
    try:
        data = _body(response)
    except Unclear as error:
        return {"message": str(error)}
    try:
        found = json.loads(data)
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {"message": data.decode(errors="replace")[:500]}


def _error(status: int, said: Json, retry_after: str | None) -> ApiError:
    seconds = (said.get("details") or {}).get("retryAfterSeconds") or retry_after
    try:
        wait = None if seconds is None else float(seconds)
    except ValueError:  # a date
        wait = None
    return ApiError(status, str(said.get("reason") or ""), str(said.get("message") or ""), wait)
