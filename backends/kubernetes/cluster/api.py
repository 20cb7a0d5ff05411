"""The Kubernetes API as this backend needs it: plain dicts over HTTP, on connections of :mod:`.access`.

Every request has a timeout and is sent once; whether it was carried out is told apart by two errors,
:class:`~backends.kubernetes.cluster.connection.Unreachable` and :class:`Unclear`.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator, Mapping
from typing import Any

from backends.kubernetes.cluster.connection import PLUGIN, Access, Unreachable
from backends.kubernetes.settings import ClusterSettings
from backends.rate_limit import Pace

Json = dict[str, Any]

_WATCH = 300  # seconds after which the server ends a watch by itself
_PAGE = 500

_CORE = "/api/v1"
_GROUPS = {"jobs": "/apis/batch/v1"}  # of the others the core's
_REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"


_compact = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


class ApiError(Exception):
    """The server answered, and said no. ``reason`` is its word for it, such as ``AlreadyExists``; ``retry_after`` is in
    seconds where it named a time."""

    def __init__(self, status: int, reason: str, message: str, retry_after: float | None = None) -> None:
        super().__init__(f"{status} {reason}: {message}" if reason else f"{status}: {message}")
        self.status = status
        self.reason = reason
        self.message = message
        self.retry_after = retry_after


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
        self._opened: Access | None = None

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
        """Yield the changes from ``version`` on: events with ``type`` and ``object``, bookmarks too. Ends when the
        server ends it; an error among the events is raised.

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
        """Return True if our credential may do this (SelfSubjectAccessReview); ``pods/log`` names a subresource."""
        resource, _, below = kind.partition("/")
        group = "batch" if kind == "jobs" else ""
        asked = {"namespace": namespace, "resource": resource, "verb": verb, "group": group, "subresource": below}
        body = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": asked},
        }
        return bool(self._ask("POST", _REVIEWS, {}, body).get("status", {}).get("allowed"))

    def ready(self) -> bool:
        """Return True if the server says that it is ready (https://kubernetes.io/docs/reference/using-api/health-checks/).
        One that doesn't show that counts as ready."""
        try:
            _body(self._send("GET", "/readyz", {}, None, read=self._timeout))
        except ApiError as error:
            if error.status == 429:
                raise
            return error.status < 500
        return True

    def close(self) -> None:
        """Drop the connections."""
        with self._lock:
            if self._opened is not None and self._opened.process == os.getpid():
                self._opened.close()
            self._opened = None

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
        encoded = "&".join(f"{name}={_quoted(value)}" for name, value in query.items())
        target = f"{path}?{encoded}" if encoded else path
        sent = None if body is None else _compact(body).encode(errors="backslashreplace")
        access = self._open()
        response = self._once(access, method, target, sent, read=read)
        if response.status == 401:
            response.drain_conn()
            response = self._once(self._open(anew=access), method, target, sent, read=read)
        if response.status < 400:
            self._pace.succeed()
            return response
        error = _error(response.status, _status_of(response), response.headers.get("Retry-After"))
        if error.status == 429:
            self._pace.slow(error.retry_after or 1.0)
        raise error

    def _once(self, access: Access, method: str, target: str, body: bytes | None, *, read: float) -> Any:
        from urllib3 import exceptions

        headers = {"Accept": "application/json", "Content-Type": "application/json", "User-Agent": "flow-dispatcher"}
        if authorization := access.authorization():
            headers["authorization"] = authorization
        try:
            return access.send(method, target, headers, body, read=read)
        except (exceptions.NewConnectionError, exceptions.ConnectTimeoutError, exceptions.ProxyError) as error:
            raise Unreachable(f"{access.host}: {error}") from error
        except exceptions.SSLError as error:  # nothing was sent
            raise Unreachable(f"{access.host}: {type(error).__name__}: {error}") from error
        except (exceptions.HTTPError, OSError) as error:
            raise Unclear(f"{method} {target}: {type(error).__name__}: {error}") from error

    def _open(self, *, anew: Access | None = None) -> Access:
        """The access of this process; made ``anew`` if that is still the current one."""
        with self._lock:
            if self._opened is None or self._opened.process != os.getpid() or self._opened is anew:
                self._opened = Access.open(self._cluster, plugin=self._plugin)
            return self._opened


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
