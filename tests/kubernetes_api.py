"""A Kubernetes API server in this process: Jobs, pods, Secrets and the like, with lists, watches, bookmarks and 410.

It implements what the backend uses of the API, without controllers: tests play the node (:meth:`FakeCluster.add_pod`,
:meth:`FakeCluster.change`). Deleting a Job deletes what it owns, as the garbage collector does.
"""

from __future__ import annotations

import copy
import json
import ssl
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml

Json = dict[str, Any]
Key = tuple[str, str, str]  # kind, namespace, name

KINDS = {
    "jobs": ("batch/v1", "Job"),
    "pods": ("v1", "Pod"),
    "secrets": ("v1", "Secret"),
    "daskclusters": ("kubernetes.dask.org/v1", "DaskCluster"),
    "daskautoscalers": ("kubernetes.dask.org/v1", "DaskAutoscaler"),
    "networkpolicies": ("networking.k8s.io/v1", "NetworkPolicy"),
    "events": ("v1", "Event"),
    "resourcequotas": ("v1", "ResourceQuota"),
}


class StatusError(Exception):
    """A response whose status isn't 2xx."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status, self.reason = status, reason


@dataclass
class ReceivedRequest:
    """A request as it was received."""

    method: str
    path: str
    query: dict[str, str]
    headers: Mapping[str, str]
    body: Json | None


@dataclass
class FakeCluster:
    """Stored objects, their history, and the faults and rights that tests set.

    A watch by labels shows an object that loses them as DELETED, as the API server does.
    """

    objects: dict[Key, Json] = field(default_factory=dict)
    history: list[tuple[int, str, str, Json]] = field(default_factory=list)  # version, event, kind, object
    uid: str = field(default_factory=lambda: str(uuid.uuid4()))  #: of kube-system; ConfigMaps' UIDs derive from it
    earlier: dict[int, Json] = field(default_factory=dict)  #: by version: the object that was changed then
    version: int = 100
    forgotten: int = 0  #: watches from before this version get 410
    bookmarks: float = 0.2  #: seconds between two bookmarks; 0: none are sent
    tokens: set[str] = field(default_factory=lambda: {"token-1"})
    errors: dict[tuple[str, str], StatusError] = field(default_factory=dict)  #: responses by method and kind
    allowed: bool = True  #: result of a SelfSubjectAccessReview
    ready: bool = True  #: result of /readyz
    missing: set[str] = field(default_factory=set)  #: namespaces that don't exist
    warnings: list[str] = field(default_factory=list)  #: of each dry run
    denied: set[tuple[str, str]] = field(default_factory=set)  #: resources and verbs that it denies nevertheless
    log: bytes = b"line 1\nline 2\n"  #: of every container
    keep_pods: bool = False  #: deleted pods stay Terminating
    requests: list[ReceivedRequest] = field(default_factory=list)
    changed: threading.Condition = field(default_factory=lambda: threading.Condition(threading.RLock()))
    stopped: bool = False
    logs: dict[str, bytes] = field(default_factory=dict)  #: by container; else ``log``
    on_job: Callable[[Json], Any] | None = None  #: called with each new Job, in the place of controllers

    def count(self, method: str, kind: str) -> int:
        """Return the number of requests for a kind, without dry runs."""
        matching = (request for request in self.requests if request.method == method and f"/{kind}" in request.path)
        return sum("dryRun" not in request.query for request in matching)

    def lists(self, kind: str) -> int:
        """Return the number of complete lists of a kind that were requested."""
        requests = (request for request in self.requests if request.method == "GET")
        return sum(request.path.endswith(f"/{kind}") and "watch" not in request.query for request in requests)

    def get(self, kind: str, name: str, namespace: str = "default") -> Json:
        with self.changed:
            item = self.objects.get((kind, namespace, name))
            if item is None:
                raise StatusError(404, "NotFound", f'{kind} "{name}" not found')
            return copy.deepcopy(item)

    def create(self, kind: str, body: Json, namespace: str = "default") -> Json:
        with self.changed:
            key = (kind, namespace, body["metadata"]["name"])
            if key in self.objects:
                raise StatusError(409, "AlreadyExists", f'{kind} "{key[2]}" already exists')
            version, name = KINDS[kind]
            created = copy.deepcopy(body) | {"apiVersion": version, "kind": name}
            created["metadata"] |= {"uid": str(uuid.uuid4()), "namespace": namespace}
            created["metadata"].setdefault("creationTimestamp", f"2026-01-01T00:00:{len(self.objects) % 60:02d}Z")
            return self._store("ADDED", key, created)

    def change(self, kind: str, name: str, namespace: str = "default", **fields: Any) -> Json:
        """Set top-level fields of an object, such as ``status``."""
        with self.changed:
            key = (kind, namespace, name)
            return self._store("MODIFIED", key, {**copy.deepcopy(self.objects[key]), **fields})

    def add_pod(self, job: Json, name: str = "", **status: Any) -> Json:
        """Create a pod of a Job."""
        owner = {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "name": job["metadata"]["name"],
            "uid": job["metadata"]["uid"],
            "controller": True,
        }
        template = job["spec"]["template"]["metadata"]
        metadata = {
            "name": name or f"{job['metadata']['name']}-pod",
            "labels": {
                **template["labels"],
                "job-name": job["metadata"]["name"],
                "batch.kubernetes.io/controller-uid": job["metadata"]["uid"],
            },
            "annotations": template.get("annotations", {}),
            "ownerReferences": [owner],
        }
        body = {"metadata": metadata, "spec": {"nodeName": "node-1"}, "status": status or {"phase": "Pending"}}
        return self.create("pods", body, job["metadata"]["namespace"])

    def delete(self, kind: str, name: str, namespace: str = "default", *, uid: str | None = None) -> Json:
        with self.changed:
            deleted_uid = self.get(kind, name, namespace)["metadata"]["uid"]
            if uid is not None and deleted_uid != uid:
                raise StatusError(409, "Conflict", "the UID in the precondition does not match")
            for key, item in list(self.objects.items()):
                owners = [owner["uid"] for owner in item["metadata"].get("ownerReferences") or ()]
                if deleted_uid in owners and not self.get(kind, name, namespace)["metadata"].get("finalizers"):
                    self._remove(key)
            return self._remove((kind, namespace, name))

    def relabel(self, kind: str, name: str, namespace: str = "default", **labels: str | None) -> Json:
        """Set labels of an object; None takes one off."""
        with self.changed:
            metadata = self.get(kind, name, namespace)["metadata"]
            merged = {**metadata.get("labels", {}), **labels}
            kept = {key: value for key, value in merged.items() if value is not None}
            return self.change(kind, name, namespace, metadata={**metadata, "labels": kept})

    def orphan(self, kind: str, name: str, namespace: str = "default") -> None:
        """Delete an object with the orphan policy, as the garbage collector does: what it owns stays, without it."""
        with self.changed:
            uid = self.get(kind, name, namespace)["metadata"]["uid"]
            for key, item in list(self.objects.items()):
                owners = item["metadata"].get("ownerReferences") or ()
                if any(owner["uid"] == uid for owner in owners):
                    left = [owner for owner in owners if owner["uid"] != uid]
                    self._store("MODIFIED", key, {**item, "metadata": {**item["metadata"], "ownerReferences": left}})
            self.drop(kind, name, namespace)

    def drop(self, kind: str, name: str, namespace: str = "default") -> None:
        """Remove an object without its grace period, if it still exists."""
        with self.changed:
            key = (kind, namespace, name)
            if key in self.objects:
                self._store("DELETED", key, copy.deepcopy(self.objects[key]))

    def forget(self) -> None:
        """Compact the history: running watches, and new ones from earlier versions, get 410."""
        with self.changed:
            self.version += 1
            self.forgotten = self.version
            self.history.clear()
            self.changed.notify_all()

    def rebuild(self) -> None:
        """Become another cluster at the same address: nothing of the old one is left, and watches end."""
        with self.changed:
            self.uid = str(uuid.uuid4())
            self.objects.clear()
            self.forget()

    def _remove(self, key: Key) -> Json:
        item = self.objects[key]
        if (key[0] == "pods" and self.keep_pods) or item["metadata"].get("finalizers"):
            deleted = {**item["metadata"], "deletionTimestamp": "2026-01-01T01:00:00Z"}
            return self._store("MODIFIED", key, {**item, "metadata": deleted})
        return self._store("DELETED", key, copy.deepcopy(self.objects[key]))

    def _store(self, event: str, key: Key, item: Json) -> Json:
        self.version += 1
        item["metadata"]["resourceVersion"] = str(self.version)
        before = self.objects.get(key, item)
        if event == "DELETED":
            del self.objects[key]
        else:
            self.objects[key] = item
        self.earlier[self.version] = copy.deepcopy(before)
        self.history.append((self.version, event, key[0], copy.deepcopy(item)))
        self.changed.notify_all()
        return copy.deepcopy(item)

    def list(self, kind: str, namespace: str, query: Mapping[str, str]) -> Json:
        with self.changed:
            items = [
                copy.deepcopy(item)
                for key, item in sorted(self.objects.items())
                if key[:2] == (kind, namespace) and _is_selected(item, query)
            ]
            first = int(query.get("continue") or 0)
            last = first + int(query.get("limit") or len(items) + 1)
            metadata: Json = {"resourceVersion": str(self.version)}
            if last < len(items):
                metadata["continue"] = str(last)
            return {"kind": "List", "apiVersion": "v1", "metadata": metadata, "items": items[first:last]}

    def watch(self, kind: str, namespace: str, query: Mapping[str, str]) -> Iterator[Json]:
        at = int(query["resourceVersion"])
        ends_at = time.monotonic() + float(query.get("timeoutSeconds") or 3600)
        while not self.stopped and time.monotonic() < ends_at:
            with self.changed:
                if at < self.forgotten:
                    gone = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"}
                    yield {"type": "ERROR", "object": gone}
                    return
                events = [change for change in self.history if change[0] > at and change[2] == kind]
                at = max(at, self.version)
                if not events and not self.changed.wait(self.bookmarks or 0.1) and self.bookmarks:
                    bookmark = {"kind": KINDS[kind][1], "metadata": {"resourceVersion": str(at)}}
                    events = [(at, "BOOKMARK", kind, bookmark)]
            for version, event, _, item in events:
                if event == "BOOKMARK":
                    yield {"type": event, "object": item}
                elif item["metadata"].get("namespace") != namespace:
                    continue
                elif _is_selected(item, query):
                    yield {"type": event, "object": item}
                elif event == "MODIFIED" and _is_selected(last := self.earlier[version], query):
                    last["metadata"]["resourceVersion"] = str(version)
                    yield {"type": "DELETED", "object": last}


def _is_selected(item: Json, query: Mapping[str, str]) -> bool:
    labels = item["metadata"].get("labels") or {}
    wanted = [term.partition("=") for term in (query.get("labelSelector") or "").split(",") if term]
    fields = [term.rpartition("=") for term in (query.get("fieldSelector") or "").split(",") if term]
    return all(_is_labelled(labels, *term) for term in wanted) and all(
        (item.get(name.rstrip("!")) == value) is not name.endswith("!") for name, _, value in fields
    )


def _is_labelled(labels: Mapping[str, str], name: str, equals: str, value: str) -> bool:
    if equals:
        return labels.get(name) == value
    return (name.lstrip("!") in labels) is not name.startswith("!")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        self._respond()

    def do_POST(self) -> None:
        self._respond()

    def do_DELETE(self) -> None:
        self._respond()

    def log_message(self, format: str, *args: Any) -> None: ...

    def _respond(self) -> None:
        cluster = self.server.cluster
        parts = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        request = ReceivedRequest(self.command, parts.path, query, dict(self.headers), body)
        cluster.requests.append(request)
        try:
            self._dispatch(cluster, request)
        except StatusError as error:
            status = {"kind": "Status", "code": error.status, "reason": error.reason, "message": str(error)}
            self._send(error.status, json.dumps(status).encode())
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def _dispatch(self, cluster: FakeCluster, request: ReceivedRequest) -> None:
        if self.headers.get("Authorization", "").removeprefix("Bearer ") not in cluster.tokens:
            raise StatusError(401, "Unauthorized", "Unauthorized")
        if request.path.endswith("/selfsubjectaccessreviews"):
            attributes = (request.body or {})["spec"]["resourceAttributes"]
            resource = "/".join(filter(None, (attributes["resource"], attributes.get("subresource"))))
            allowed = cluster.allowed and (resource, attributes["verb"]) not in cluster.denied
            self._send(201, json.dumps({**(request.body or {}), "status": {"allowed": allowed}}).encode())
            return
        if request.path == "/version":
            self._send(200, json.dumps({"major": "1", "minor": "34", "gitVersion": "v1.34.1"}).encode())
            return
        if request.path == "/readyz":
            self._send(200 if cluster.ready else 500, b"ok" if cluster.ready else b"informer-sync failed")
            return
        namespace, kind, name, rest = _parts(request.path)
        kind = kind or "namespaces"
        if (error := cluster.errors.get((request.method, kind))) is not None:
            raise error
        if namespace in cluster.missing and (kind == "namespaces" or request.method == "POST"):
            raise StatusError(404, "NotFound", f'namespaces "{namespace}" not found')
        if "dryRun" in request.query:
            self._send(201, json.dumps(request.body).encode(), warnings=cluster.warnings)
        elif rest == "log":
            text = cluster.logs.get(str(request.query.get("container")), cluster.log)
            self._send(200, text, kind="text/plain")
        elif request.query.get("watch"):
            self._stream(cluster.watch(kind, namespace, request.query))
        else:
            self._send(
                201 if request.method == "POST" else 200,
                json.dumps(_handle(cluster, request, namespace, kind, name)).encode(),
            )

    def _send(self, status: int, data: bytes, kind: str = "application/json", warnings: Sequence[str] = ()) -> None:
        self.send_response(status)
        for warning in warnings:
            self.send_header("Warning", '299 - "{}"'.format(warning.replace('"', '\\"')))
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _stream(self, events: Iterator[Json]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for event in events:
            line = json.dumps(event).encode() + b"\n"
            self.wfile.write(b"%x\r\n%b\r\n" % (len(line), line))
            self.wfile.flush()
        self.wfile.write(b"0\r\n\r\n")


def _parts(path: str) -> tuple[str, str, str, str]:
    parts = [*path.split("/namespaces/", 1)[1].split("/"), "", "", ""]
    return parts[0], parts[1], parts[2], parts[3]


def _handle(cluster: FakeCluster, request: ReceivedRequest, namespace: str, kind: str, name: str) -> Json:
    match request.method:
        case "POST":
            created = cluster.create(kind, request.body or {}, namespace)
            if kind == "jobs" and cluster.on_job is not None:
                cluster.on_job(created)
            return created
        case "DELETE":
            uid = ((request.body or {}).get("preconditions") or {}).get("uid")
            return cluster.delete(kind, name, namespace, uid=uid)
    if (kind, namespace) == ("namespaces", "kube-system"):
        return {"metadata": {"name": namespace, "uid": cluster.uid}}
    if (kind, name) == ("configmaps", "kube-root-ca.crt"):
        return {"metadata": {"name": name, "namespace": namespace, "uid": f"{cluster.uid}-{namespace}"}}
    return cluster.get(kind, name, namespace) if name else cluster.list(kind, namespace, request.query)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, cluster: FakeCluster) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.cluster = cluster

    def handle_error(self, request: Any, client_address: Any) -> None: ...


class FakeApiServer:
    """A :class:`FakeCluster` behind HTTP on loopback."""

    def __init__(self) -> None:
        self.cluster = FakeCluster()
        self._server = _Server(self.cluster)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    def wrap(self, context: ssl.SSLContext) -> None:
        """Use TLS from now on."""
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)

    def __enter__(self) -> FakeApiServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.cluster.stopped = True
        with self.cluster.changed:
            self.cluster.changed.notify_all()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def kubeconfig(folder: Path, port: int, *, user: Json | None = None, **cluster: Any) -> Path:
    """Write a kubeconfig for a server on loopback, by default with the token that :class:`FakeCluster` accepts."""
    path = folder / "kubeconfig"
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "it",
        "clusters": [{"name": "it", "cluster": {"server": f"http://127.0.0.1:{port}", **cluster}}],
        "users": [{"name": "me", "user": {"token": "token-1"} if user is None else user}],
        "contexts": [{"name": "it", "context": {"cluster": "it", "user": "me"}}],
    }
    path.write_text(yaml.safe_dump(content))
    return path
