"""Client of the Kubernetes API: plain dicts over HTTP, sent by :mod:`backends.kubernetes.cluster.connection`.

Every request has a timeout and is sent once. Two errors tell whether it may have been carried out:
:class:`~backends.kubernetes.cluster.connection.Unreachable` (it was not) and :class:`Unclear` (it may have been).
"""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Iterator, Mapping
from typing import Any

from backends.kubernetes.cluster.connection import PLUGIN_TIMEOUT, Connection, Unreachable
from backends.kubernetes.settings import ClusterSettings
from backends.rate_limit import Pace

Json = dict[str, Any]

_WATCH_DURATION = 300  # seconds after which the server ends a watch by itself, at most
_PAGE_SIZE = 500
_LOG_TIMEOUT = 5.0  # seconds to wait for each part of a container's log

_CORE = "/api/v1"

#: API groups with their versions; all other kinds are of the core group.
_GROUPS = {
    "daskautoscalers": "kubernetes.dask.org/v1",
    "daskclusters": "kubernetes.dask.org/v1",
    "jobs": "batch/v1",
    "networkpolicies": "networking.k8s.io/v1",
}
_REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"

_JSON = "application/json"

#: Asks for the metadata of an object alone, of which most is otherwise the list of who manages which field
#: (https://kubernetes.io/docs/reference/using-api/api-concepts/#receiving-resources-as-tables). A server that can't do
#: that answers with the whole object.
_METADATA = f"{_JSON};as=PartialObjectMetadata;g=meta.k8s.io;v=v1,{_JSON}"

_compact = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


class ApiError(Exception):
    """The server answered with an error.

    ``reason`` is its code, such as ``AlreadyExists``. ``retry_after`` is in seconds, None unless the server named it.
    ``nothing_created``: set by the caller, if the requests before this one have created nothing either.
    """

    def __init__(self, status: int, reason: str, message: str, retry_after: float | None = None) -> None:
        super().__init__(f"{status} {reason}: {message}" if reason else f"{status}: {message}")
        self.status = status
        self.reason = reason
        self.message = message
        self.retry_after = retry_after
        self.nothing_created = False


class Unclear(Exception):
    """The request was sent, but no complete response came: it may have been carried out."""


class Api:
    """Client of one cluster. Connects at the first request, in each process separately. Safe to share among threads.

    Args:
        cluster: the connection's settings.
        timeout: seconds that the server gets to answer.
        plugin: seconds that an exec plugin gets to return a credential.
        pace: rate limit of the requests.
    """

    def __init__(
        self,
        cluster: ClusterSettings,
        *,
        timeout: float = 30.0,
        plugin: float = PLUGIN_TIMEOUT,
        pace: Pace | None = None,
    ) -> None:
        self._cluster = cluster
        self._timeout = timeout
        self._plugin = plugin
        self._pace = pace or Pace()
        self._lock = threading.RLock()
        self._connection: Connection | None = None
        self._connections = 0

    @property
    def sockets(self) -> tuple[int, int]:
        """Counts of the connections that this process has opened, and of the sockets of the last one. They grow when a
        later request may be answered by another server."""
        connection = self._connection
        return self._connections, 0 if connection is None else connection.sockets

    @property
    def connections(self) -> int:
        """Count of the connections that this process has opened: at first, and after each refused credential."""
        return self._connections

    def create(self, namespace: str, kind: str, body: Mapping[str, Any]) -> Json:
        """Create an object, and return its metadata; from some servers all of it. A field that the server doesn't know
        is an error.

        Raises:
            ApiError, Unreachable, Unclear: as all methods below.
        """
        return self._request("POST", _path(namespace, kind), {"fieldValidation": "Strict"}, body, accept=_METADATA)

    def dry_run(self, namespace: str, kind: str, body: Mapping[str, Any]) -> list[str]:
        """Have the server check an object as if it were to be created; return its warnings.

        Raises:
            ApiError: it would refuse the object.
        """
        response = self._send("POST", _path(namespace, kind), {"dryRun": "All"}, body, read=self._timeout)
        _body(response)
        return [_unquoted(text) for text in response.headers.getlist("Warning")]

    def get(self, namespace: str, kind: str, name: str, *, timeout: float | None = None) -> Json:
        """Return an object in its current state, never from a cache of the server. ``timeout`` is in seconds."""
        return self._request("GET", _path(namespace, kind, name), timeout=timeout)

    def namespace(self, name: str, *, timeout: float | None = None) -> Json:
        """Return a namespace; ``timeout`` is in seconds."""
        return self._request("GET", f"{_CORE}/namespaces/{_quoted(name)}", timeout=timeout)

    def delete(
        self,
        namespace: str,
        kind: str,
        name: str,
        *,
        uid: str | None = None,
        grace: int | None = None,
        foreground: bool = False,
    ) -> Json:
        """Delete an object and what it owns.

        Args:
            namespace, kind, name: of the object.
            uid: delete only that very object.
            grace: seconds that a pod's containers get after SIGTERM; by default as its spec says.
            foreground: what it owns is deleted before it; else afterwards, in the background.
        """
        policy = "Foreground" if foreground else "Background"
        body: Json = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": policy}
        if uid is not None:
            body["preconditions"] = {"uid": uid}
        if grace is not None:
            body["gracePeriodSeconds"] = grace
        return self._request("DELETE", _path(namespace, kind, name), {}, body, accept=_METADATA)

    def pages(
        self, namespace: str, kind: str, selectors: Mapping[str, str], *, limit: int = _PAGE_SIZE
    ) -> Iterator[Json]:
        """Yield the objects of a kind that ``labelSelector`` and ``fieldSelector`` select, page by page. A watch may
        start from the first page's ``resourceVersion``."""
        query: dict[str, str] = {"limit": str(limit), **selectors}
        while True:
            page = self._request("GET", _path(namespace, kind), query)
            yield page
            token = page.get("metadata", {}).get("continue")
            if not token:
                return
            query["continue"] = token

    def watch(
        self, namespace: str, kind: str, version: str, selectors: Mapping[str, str], *, silence: float
    ) -> Iterator[Json]:
        """Yield the events after ``version``, with ``type`` and ``object``; bookmarks, too. Ends when the server ends
        the watch; an error event is raised.

        Args:
            silence: seconds without a byte after which the watch is given up. The server ends it before that, since
                it sends no bookmarks of kinds that it doesn't cache, such as events.
        """
        duration = min(_WATCH_DURATION, max(1, int(silence / 2)))
        query = {
            "watch": "1",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(duration),
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

    def log(self, namespace: str, pod: str, container: str, *, lines: int = 200, max_bytes: int = 65536) -> str:
        """Return the last lines of a container's log; wait at most 5 seconds for each part of it."""
        query = {"container": container, "tailLines": str(lines), "limitBytes": str(max_bytes)}
        response = self._send("GET", f"{_path(namespace, 'pods', pod)}/log", query, None, read=_LOG_TIMEOUT)
        return _body(response).decode(errors="replace")

    def version(self) -> Json:
        """Return the server's version: ``gitVersion``, ``major``, ``minor``."""
        return self._request("GET", "/version")

    def allowed(self, namespace: str, kind: str, verb: str) -> bool:
        """Return True if our credential allows a verb (SelfSubjectAccessReview); ``pods/log`` names a subresource."""
        resource, _, subresource = kind.partition("/")
        group = _GROUPS.get(resource, "").partition("/")[0]
        attributes = {
            "namespace": namespace,
            "resource": resource,
            "verb": verb,
            "group": group,
            "subresource": subresource,
        }
        body = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": attributes},
        }
        return bool(self._request("POST", _REVIEWS, {}, body).get("status", {}).get("allowed"))

    def ready(self) -> bool:
        """Return True unless the server reports that it isn't ready. A server that hides its health counts as ready.

        See https://kubernetes.io/docs/reference/using-api/health-checks/.
        """
        try:
            _body(self._send("GET", "/readyz", {}, None, read=self._timeout))
        except ApiError as error:
            if error.status == 429:
                raise
            return error.status < 500
        return True

    def close(self) -> None:
        """Close the connections of this process."""
        with self._lock:
            if self._connection is not None and self._connection.process == os.getpid():
                self._connection.close()
            self._connection = None

    def _request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        *,
        timeout: float | None = None,
        accept: str = _JSON,
    ) -> Json:
        read = self._timeout if timeout is None else min(timeout, self._timeout)
        return _parsed(_body(self._send(method, path, query or {}, body, read=read, accept=accept)))

    def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: Mapping[str, Any] | None,
        *,
        read: float,
        accept: str = _JSON,
    ) -> Any:
        """Return the response to a request, its body unread. A refused credential is reloaded once."""
        if not self._pace.take(within=self._timeout):
            raise ApiError(429, "TooManyRequests", "the API server asked for a pause", self._timeout)
        encoded = "&".join(f"{name}={_quoted(value)}" for name, value in query.items())
        target = f"{path}?{encoded}" if encoded else path
        data = None if body is None else _compact(body).encode(errors="backslashreplace")
        headers = {"Accept": accept, "Content-Type": _JSON, "User-Agent": "flow-dispatcher"}
        connection = self._connect()
        response = self._send_once(connection, method, target, headers, data, read=read)
        if response.status == 401:
            response.drain_conn()
            response = self._send_once(self._connect(replacing=connection), method, target, headers, data, read=read)
        if response.status < 400:
            self._pace.succeed()
            return response
        error = _error(response.status, _status_of(response), response.headers.get("Retry-After"))
        if error.status == 429:
            self._pace.slow(error.retry_after or 1.0)
        raise error

    def _send_once(
        self,
        connection: Connection,
        method: str,
        target: str,
        headers: dict[str, str],
        body: bytes | None,
        *,
        read: float,
    ) -> Any:
        from urllib3 import exceptions

        if authorization := connection.authorization():
            headers["authorization"] = authorization
        try:
            return connection.send(method, target, headers, body, read=read)
        except (exceptions.NewConnectionError, exceptions.ConnectTimeoutError, exceptions.ProxyError) as error:
            raise Unreachable(f"{connection.host}: {error}") from error
        except exceptions.SSLError as error:  # nothing was sent
            raise Unreachable(f"{connection.host}: {type(error).__name__}: {error}") from error
        except (exceptions.HTTPError, OSError) as error:
            raise Unclear(f"{method} {target}: {type(error).__name__}: {error}") from error

    def _connect(self, *, replacing: Connection | None = None) -> Connection:
        """Return this process's connection. Opens one if there is none, or if ``replacing`` is the current one."""
        with self._lock:
            current = self._connection
            if current is None or current.process != os.getpid() or current is replacing:
                current = self._connection = Connection.open(self._cluster, plugin=self._plugin)
                self._connections += 1
            return current


def _path(namespace: str, kind: str, name: str = "") -> str:
    root = f"/apis/{_GROUPS[kind]}" if kind in _GROUPS else _CORE
    path = f"{root}/namespaces/{_quoted(namespace)}/{kind}"
    return f"{path}/{_quoted(name)}" if name else path


def _quoted(text: str) -> str:
    from urllib.parse import quote

    return quote(text, safe="")


def _unquoted(warning: str) -> str:
    """Return the text of a ``Warning`` header: ``299 - "text"``, in which quotes and backslashes are escaped."""
    return re.sub(r"\\(.)", r"\1", warning.partition('"')[2].rpartition('"')[0])


def _body(response: Any) -> bytes:
    from urllib3 import exceptions

    try:
        data: bytes = response.data
        return data
    except (exceptions.HTTPError, OSError) as error:
        raise Unclear(f"the response broke off: {type(error).__name__}: {error}") from error


def _parsed(data: bytes) -> Json:
    try:
        value = json.loads(data)
    except ValueError as error:
        raise Unclear(f"the response isn't JSON: {error}") from None
    if not isinstance(value, dict):
        raise Unclear("the response isn't a JSON object")
    return value


def _lines(response: Any) -> Iterator[bytes]:
    """Yield the complete lines of a response. A last line without its end is dropped."""
    from urllib3 import exceptions

    rest = b""
    try:
        for chunk in response.stream(65536):
            *lines, rest = (rest + chunk).split(b"\n")
            yield from filter(None, lines)
    except (exceptions.HTTPError, OSError) as error:
        raise Unclear(f"the watch broke off: {type(error).__name__}: {error}") from error


def _status_of(response: Any) -> Json:
    """Return the body of an error response: a Status object, or the text of some proxy as its message."""
    try:
        data = _body(response)
    except Unclear as error:
        return {"message": str(error)}
    try:
        value = json.loads(data)
    except ValueError:
        value = None
    return value if isinstance(value, dict) else {"message": data.decode(errors="replace")[:500]}


def _error(code: int, status: Json, retry_after: str | None) -> ApiError:
    seconds = (status.get("details") or {}).get("retryAfterSeconds") or retry_after
    try:
        wait = None if seconds is None else float(seconds)
    except ValueError:  # a date
        wait = None
    return ApiError(code, str(status.get("reason") or ""), str(status.get("message") or ""), wait)
