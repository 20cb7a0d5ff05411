"""The cluster that ``KUBECONFIG`` names, as tests of runs on it need it: namespaces, a worker's rights, kubectl."""

from __future__ import annotations

import base64
import json
import os
import re
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

from tests.waiting import wait_until

Json = dict[str, Any]

PAGE = Path(__file__).resolve().parents[2] / "docs" / "kubernetes.md"


def rules() -> list[Json]:
    """What a worker may do: the Role of the documentation, and no more."""
    import yaml

    (text,) = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    found: list[Json] = yaml.safe_load(text)["rules"]
    return found


def kubectl(*arguments: str, stdin: Json | None = None, check: bool = True) -> str:
    """Run kubectl as whom ``KUBECONFIG`` names; what it printed."""
    given = None if stdin is None else json.dumps(stdin)
    done = subprocess.run(
        ["kubectl", *arguments], input=given, capture_output=True, text=True, timeout=120, check=False
    )
    assert not check or done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stderr}"
    return done.stdout


def apply(*things: Json) -> None:
    """Create objects."""
    kubectl("apply", "-f", "-", stdin={"apiVersion": "v1", "kind": "List", "items": list(things)})


def items(kind: str, namespace: str, selector: str = "") -> list[Json]:
    """Objects of a kind, or of several with commas between them."""
    found: list[Json] = json.loads(kubectl("get", kind, "-n", namespace, "-l", selector, "-o", "json"))["items"]
    return found


def address() -> str:
    """This machine as pods reach it: the variable, else the address of its default route."""
    if named := os.environ.get("DISPATCHER_TEST_NODE_IP"):
        return named
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))
        return str(probe.getsockname()[0])


def break_cluster(*words: str) -> None:
    """``kill NAME`` or ``start NAME`` of a component of the cluster."""
    command = shlex.split(os.environ["DISPATCHER_TEST_BREAKER"])
    done = subprocess.run([*command, *words], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"


def kill_container(run_id: str) -> int:
    """SIGKILL to all processes of a run's containers, which nobody tells its kubelet; how many there were.

    They are found on this machine, where the cluster that a test breaks has its node.
    """
    mark = f"\0DISPATCHER__RUN__ID={run_id}\0".encode()
    killed = 0
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if mark in b"\0" + (process / "environ").read_bytes():
                os.kill(int(process.name), signal.SIGKILL)
                killed += 1
    return killed


def namespace(name: str, *more: Json, labels: Mapping[str, str] | None = None) -> None:
    """A namespace with a worker's service account and Role."""
    role = "rbac.authorization.k8s.io"
    apply(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": dict(labels or {})}},
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "worker", "namespace": name}},
        {
            "apiVersion": f"{role}/v1",
            "kind": "Role",
            "metadata": {"name": "worker", "namespace": name},
            "rules": rules(),
        },
        *more,
    )


def allow(account_of: str, *namespaces: str) -> None:
    """Bind the Roles of some namespaces to the worker's service account of one of them."""
    role = "rbac.authorization.k8s.io"
    subject = {"kind": "ServiceAccount", "name": "worker", "namespace": account_of}
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
    wait_until(lambda: kubectl("get", "serviceaccount", "default", "-n", account_of, check=False), "a service account")


def kubeconfig_of(account_of: str, directory: Path, *, proxy: int | None = None) -> Path:
    """A kubeconfig whose user is the worker's service account, by a token; ``proxy`` is the port of one on loopback."""
    view = json.loads(kubectl("config", "view", "--minify", "--flatten", "-o", "json"))
    view["users"] = [{"name": "worker", "user": {"token": _token("worker", account_of)}}]
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
    """Makes connections to the API server, which it knows by the kubeconfig's authority; without a credential."""
    view = json.loads(kubectl("config", "view", "--minify", "--raw", "--flatten", "-o", "json"))
    cluster = view["clusters"][0]["cluster"]
    authority = cluster.get("certificate-authority-data")
    trusted = ssl.create_default_context(cadata=None if authority is None else base64.b64decode(authority).decode())
    server = urlsplit(cluster["server"])
    return lambda: HTTPSConnection(str(server.hostname), server.port or 443, context=trusted, timeout=120)


class Driver:
    """Plays controllers and nodes in one namespace, where it may do everything."""

    def __init__(self, namespace: str) -> None:
        role = "rbac.authorization.k8s.io"
        named = {"metadata": {"name": "driver", "namespace": namespace}}
        rule = {"apiGroups": ["", "batch"], "resources": ["*"], "verbs": ["*"]}
        subject = {"kind": "ServiceAccount", "name": "driver", "namespace": namespace}
        apply(
            {"apiVersion": "v1", "kind": "ServiceAccount", **named},
            {"apiVersion": f"{role}/v1", "kind": "Role", **named, "rules": [rule]},
            {
                "apiVersion": f"{role}/v1",
                "kind": "RoleBinding",
                **named,
                "roleRef": {"apiGroup": role, "kind": "Role", "name": "driver"},
                "subjects": [subject],
            },
        )
        self._namespace = namespace
        self._token = _token("driver", namespace)
        self._connect = connector()

    def ask(self, method: str, path: str, body: Json | None = None) -> Json:
        """One request below the namespace, such as ``pods/x/status``; a patch is a merge.

        Raises:
            LookupError: the answer isn't 2xx.
        """
        group = "apis/batch/v1" if path.startswith("jobs") else "api/v1"
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": kind}
        connection = self._connect()
        try:
            where = f"/{group}/namespaces/{self._namespace}/{path}"
            connection.request(method, where, None if body is None else json.dumps(body), headers)
            response = connection.getresponse()
            found: Json = json.loads(response.read())
        finally:
            connection.close()
        if response.status >= 300:
            raise LookupError(f"{method} {path}: {response.status} {found.get('message')}")
        return found

    def list(self, kind: str, selector: str = "") -> list[Json]:
        """Objects of a kind."""
        found: list[Json] = self.ask("GET", f"{kind}?labelSelector={selector}")["items"]
        return found

    def status(self, pod: str, **status: Any) -> None:
        """Say how a pod is, as its kubelet would."""
        self.ask("PATCH", f"pods/{pod}/status", {"status": status})
