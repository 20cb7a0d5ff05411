"""Access to the cluster that ``KUBECONFIG`` names: kubectl, namespaces, a worker's rights, and its failures."""

from __future__ import annotations

import base64
import json
import os
import shlex
import signal
import socket
import ssl
import subprocess
from collections.abc import Callable, Mapping
from contextlib import suppress
from http.client import HTTPSConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.docs.blocks import blocks
from tests.waiting import wait_until

Json = dict[str, Any]

PAGE = Path(__file__).resolve().parents[2] / "docs" / "kubernetes.md"
DASK_PAGE = PAGE.with_name("dask-kubernetes.md")


def manifests(title: str, page: Path = PAGE) -> list[Json]:
    """Return the objects of the page's block with this title, such as ``role.yaml``."""
    import yaml

    (text,) = [block.code for block in blocks(page.name, page.read_text(encoding="utf-8")) if block.title == title]
    return list(yaml.safe_load_all(text))


def rules(page: Path = PAGE) -> list[Json]:
    """Return the rules of the page's Role for workers."""
    (role,) = manifests("role.yaml", page)
    role_rules: list[Json] = role["rules"]
    return role_rules


def kubectl(*arguments: str, stdin: Json | None = None, check: bool = True) -> str:
    """Run kubectl as the user that ``KUBECONFIG`` names; return its output."""
    text = None if stdin is None else json.dumps(stdin)
    result = subprocess.run(
        ["kubectl", *arguments], input=text, capture_output=True, text=True, timeout=120, check=False
    )
    assert not check or result.returncode == 0, f"kubectl {' '.join(arguments)}: {result.stderr}"
    return result.stdout


def apply(*objects: Json) -> None:
    """Create or update objects."""
    kubectl("apply", "-f", "-", stdin={"apiVersion": "v1", "kind": "List", "items": list(objects)})


def items(kind: str, namespace: str, selector: str = "") -> list[Json]:
    """Return the objects of a kind, or of several kinds separated by commas."""
    objects: list[Json] = json.loads(kubectl("get", kind, "-n", namespace, "-l", selector, "-o", "json"))["items"]
    return objects


def address() -> str:
    """Return the address of this machine as pods reach it: the variable, else that of its default route."""
    if configured := os.environ.get("DISPATCHER_TEST_NODE_IP"):
        return configured
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))
        return str(probe.getsockname()[0])


def break_cluster(*arguments: str) -> None:
    """Kill or start a component of the cluster: ``kill NAME`` or ``start NAME``."""
    command = shlex.split(os.environ["DISPATCHER_TEST_BREAKER"])
    result = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, f"{arguments}: {result.stdout}{result.stderr}"


def kill_container(run_id: str) -> int:
    """Kill all processes of a run's containers behind the kubelet's back; return their number.

    They are searched on this machine, where a cluster that tests may break has its node.
    """
    variable = f"\0DISPATCHER__RUN__ID={run_id}\0".encode()
    killed = 0
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if variable in b"\0" + (process / "environ").read_bytes():
                os.kill(int(process.name), signal.SIGKILL)
                killed += 1
    return killed


def create_namespace(name: str, *more: Json, labels: Mapping[str, str] | None = None, page: Path = PAGE) -> None:
    """Create a namespace with a worker's service account, and the page's Role for it."""
    role = "rbac.authorization.k8s.io"
    apply(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": dict(labels or {})}},
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "worker", "namespace": name}},
        {
            "apiVersion": f"{role}/v1",
            "kind": "Role",
            "metadata": {"name": "worker", "namespace": name},
            "rules": rules(page),
        },
        *more,
    )


def bind_roles(account_namespace: str, *namespaces: str) -> None:
    """Bind the Roles of some namespaces to the worker's service account in one of them."""
    role = "rbac.authorization.k8s.io"
    subject = {"kind": "ServiceAccount", "name": "worker", "namespace": account_namespace}
    apply(
        *(
            {
                "apiVersion": f"{role}/v1",
                "kind": "RoleBinding",
                "metadata": {"name": "worker", "namespace": name},
                "roleRef": {"apiGroup": role, "kind": "Role", "name": "worker"},
                "subjects": [subject],
            }
            for name in namespaces
        )
    )
    wait_until(
        lambda: kubectl("get", "serviceaccount", "default", "-n", account_namespace, check=False), "a service account"
    )


def worker_kubeconfig(account_namespace: str, directory: Path, *, proxy: int | None = None) -> Path:
    """Write a kubeconfig with a token of the worker's service account; ``proxy`` is the port of a proxy on loopback."""
    view = json.loads(kubectl("config", "view", "--minify", "--flatten", "-o", "json"))
    view["users"] = [{"name": "worker", "user": {"token": _token("worker", account_namespace)}}]
    if proxy is not None:
        view["clusters"][0]["cluster"] = {"server": f"http://127.0.0.1:{proxy}"}
    view["contexts"][0]["context"] = {"cluster": view["clusters"][0]["name"], "user": "worker"}
    path = directory / "worker.kubeconfig"
    path.write_text(json.dumps(view))
    path.chmod(0o600)
    return path


def _token(account: str, namespace: str) -> str:
    return kubectl("create", "token", account, "-n", namespace, "--duration", "2h").strip()


def connector() -> Callable[[], HTTPSConnection]:
    """Return a function that opens connections to the API server, verified by the kubeconfig's CA, no credential."""
    view = json.loads(kubectl("config", "view", "--minify", "--raw", "--flatten", "-o", "json"))
    cluster = view["clusters"][0]["cluster"]
    ca = cluster.get("certificate-authority-data")
    context = ssl.create_default_context(cadata=None if ca is None else base64.b64decode(ca).decode())
    server = urlsplit(cluster["server"])
    return lambda: HTTPSConnection(str(server.hostname), server.port or 443, context=context, timeout=120)


class NamespaceAdmin:
    """Client with all rights in one namespace, to play controllers and nodes there."""

    def __init__(self, namespace: str) -> None:
        role = "rbac.authorization.k8s.io"
        named = {"metadata": {"name": "admin", "namespace": namespace}}
        rule = {"apiGroups": ["", "batch"], "resources": ["*"], "verbs": ["*"]}
        subject = {"kind": "ServiceAccount", "name": "admin", "namespace": namespace}
        apply(
            {"apiVersion": "v1", "kind": "ServiceAccount", **named},
            {"apiVersion": f"{role}/v1", "kind": "Role", **named, "rules": [rule]},
            {
                "apiVersion": f"{role}/v1",
                "kind": "RoleBinding",
                **named,
                "roleRef": {"apiGroup": role, "kind": "Role", "name": "admin"},
                "subjects": [subject],
            },
        )
        self._namespace = namespace
        self._token = _token("admin", namespace)
        self._connect = connector()

    def request(self, method: str, path: str, body: Json | None = None) -> Json:
        """Send a request below the namespace, such as ``pods/x/status``; a patch is a merge patch.

        Raises:
            LookupError: the response isn't 2xx.
        """
        group = "apis/batch/v1" if path.startswith("jobs") else "api/v1"
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": kind}
        connection = self._connect()
        try:
            target = f"/{group}/namespaces/{self._namespace}/{path}"
            connection.request(method, target, None if body is None else json.dumps(body), headers)
            response = connection.getresponse()
            data: Json = json.loads(response.read())
        finally:
            connection.close()
        if response.status >= 300:
            raise LookupError(f"{method} {path}: {response.status} {data.get('message')}")
        return data

    def list(self, kind: str, selector: str = "") -> list[Json]:
        """Return the objects of a kind."""
        objects: list[Json] = self.request("GET", f"{kind}?labelSelector={selector}")["items"]
        return objects

    def set_pod_status(self, pod: str, **status: Any) -> None:
        """Set a pod's status, as its kubelet does."""
        self.request("PATCH", f"pods/{pod}/status", {"status": status})
