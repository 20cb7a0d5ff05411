"""The Dask operator in a pod, and ``KubeCluster`` by hand in a pod: what users have without this project.

The operator runs in a pod because outside of the cluster it can't resolve the names of Services.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from benchmarks.cluster import Json, kubectl
from benchmarks.machine import until

#: Prints the definitions of the operator's resources, which are in its package, as a JSON array.
_DEFINITIONS = """
import json, pathlib, dask_kubernetes, yaml
folder = pathlib.Path(dask_kubernetes.__file__).parent / "operator/deployment/helm/dask-kubernetes-operator/crds"
texts = [path.read_text() for path in sorted(folder.glob("*.yaml"))]
print(json.dumps([document for text in texts for document in yaml.safe_load_all(text)]))
"""

#: A Dask cluster by hand: writes the times of its steps and of its first task to the container's termination message.
_BY_HAND = """
import json, os, time
ticks = int(open("/proc/1/stat").read().rpartition(")")[2].split()[19])
steps = {"process": time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + ticks / 100}
from dask_kubernetes.operator import KubeCluster, make_cluster_spec
from distributed import Client
def first_task():
    import time
    return time.time()
name, image, workers, resources = json.loads(os.environ["CLUSTER"])
spec = make_cluster_spec(name, image=image, n_workers=workers, resources=resources, worker_command="dask worker")
# distributed has no program of the name that make_cluster_spec writes any more.
spec["spec"]["scheduler"]["spec"]["containers"][0]["args"][0:1] = ["dask", "scheduler"]
with KubeCluster(custom_cluster_spec=spec, namespace=os.environ["NAMESPACE"], quiet=True) as cluster:
    steps["scheduler"] = time.time()
    with Client(cluster) as client:
        client.wait_for_workers(workers)
        steps["workers"] = time.time()
        steps["task"] = client.submit(first_task, pure=False).result()
        open("/dev/termination-log", "w").write(json.dumps(steps))
"""

#: Label of the operator's pod, as its Helm chart sets it.
_LABEL = {"app.kubernetes.io/name": "dask-kubernetes-operator"}
_ACCOUNT = "dask"
_POD = "dask-operator"


class TimedOut(Exception):
    """A ``KubeCluster`` didn't get ready in time."""


@dataclass(frozen=True, kw_only=True)
class ByHand:
    """Dask clusters by hand in one namespace, whose operator runs."""

    namespace: str
    image: str
    resources: Json

    def first_task(self, *, workers: int, timeout: float = 120.0) -> dict[str, float]:
        """Create a pod that makes a ``KubeCluster`` and computes one task; delete all of it.

        Returns:
            The times at which the pod's process began, the scheduler and the workers were there, and the task ran.

        Raises:
            TimedOut: it failed, or took longer than ``timeout`` seconds.
        """
        name = f"by-hand-{secrets.token_hex(3)}"
        variables = {
            "CLUSTER": json.dumps([name, self.image, workers, self.resources]),
            "NAMESPACE": self.namespace,
            "USER": "dask",
        }
        container = _container("client", self.image, ["python3", "-c", _BY_HAND], variables, self.resources)
        kubectl("create", "-n", self.namespace, "-f", "-", stdin=_pod(name, container))
        try:
            until(lambda: _phase(self.namespace, name) in {"Succeeded", "Failed"}, "KubeCluster", timeout=timeout)
            message = _message(self.namespace, name)
            if not message:
                log = kubectl("logs", name, "-n", self.namespace, "--tail=3")
                raise TimedOut(log.strip())
            steps: dict[str, float] = json.loads(message)
            return steps
        except TimeoutError as error:
            raise TimedOut(f"not ready within {timeout:g} s") from error
        finally:
            self._delete(name)

    def _delete(self, name: str) -> None:
        kubectl("delete", "pod", name, "-n", self.namespace, "--grace-period=1", "--ignore-not-found")
        kubectl("delete", "daskcluster", name, "-n", self.namespace, "--ignore-not-found", "--wait=false")
        until(lambda: not self._left(name), f"the deletion of DaskCluster {name}", timeout=120, interval=0.5)

    def _left(self, name: str) -> str:
        return kubectl("get", "pods", "-n", self.namespace, "-l", f"dask.org/cluster-name={name}", "-o", "name")


@contextlib.contextmanager
def by_hand(namespace: str, image: str, resources: Json) -> Iterator[ByHand]:
    """Install the operator's resource definitions, which stay, and its pod for one namespace; yield clusters by hand.

    If an operator runs already, it is used.

    Args:
        namespace: an existing namespace.
        image: an image with dask-kubernetes, in the cluster and in the Docker engine.
        resources: of every container.
    """
    with installed(namespace, image):
        if not _operators():
            start(namespace, image, resources)
        yield ByHand(namespace=namespace, image=image, resources=resources)


@contextlib.contextmanager
def installed(namespace: str, image: str) -> Iterator[None]:
    """Install the operator's resource definitions, which stay, and the rights of its pod in a namespace. At the end
    delete its resources there, for which it must run.

    Args:
        namespace: an existing namespace.
        image: an image with dask-kubernetes, in the Docker engine.
    """
    kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=_list(_definitions(image)))
    role = f"{namespace}-{_ACCOUNT}"
    kubectl("create", "serviceaccount", _ACCOUNT, "-n", namespace)
    kubectl("create", "clusterrolebinding", role, "--clusterrole=cluster-admin",
            f"--serviceaccount={namespace}:{_ACCOUNT}")  # fmt: skip
    try:
        yield
    finally:
        kubectl("delete", "daskclusters,daskworkergroups,daskautoscalers", "--all", "-n", namespace, "--timeout=60s")
        kubectl("delete", "clusterrolebinding", role)


def stop(namespace: str) -> None:
    """Kill the operator's pod of a namespace."""
    kubectl("delete", "pod", _POD, "-n", namespace, "--grace-period=0", "--force", "--ignore-not-found")


def start(namespace: str, image: str, resources: Json) -> None:
    """Start the operator's pod for one namespace, and wait until it is ready.

    Args:
        namespace: one with its rights.
        image: an image with dask-kubernetes, in the cluster.
        resources: of its container.
    """
    module = "dask_kubernetes.operator.controller"
    command = ["kopf", "run", "-m", module, "--namespace", namespace, "--liveness=http://0.0.0.0:8080/healthz"]
    probe = {"httpGet": {"path": "/healthz", "port": 8080}, "periodSeconds": 1}
    container = {**_container("operator", image, command, {"USER": "dask"}, resources), "readinessProbe": probe}
    pod = _pod(_POD, container)
    pod["metadata"]["labels"] = _LABEL
    kubectl("create", "-n", namespace, "-f", "-", stdin=pod)
    kubectl("wait", "--for=condition=Ready", f"pod/{_POD}", "-n", namespace, "--timeout=100s")


def _operators() -> str:
    selector = ",".join(f"{name}={value}" for name, value in _LABEL.items())
    return kubectl("get", "pods", "--all-namespaces", "-l", selector, "-o", "name")


def _definitions(image: str) -> list[Json]:
    done = subprocess.run(
        ["docker", "run", "--rm", image, "python3", "-c", _DEFINITIONS],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    definitions: list[Json] = json.loads(done.stdout)
    return definitions


def _list(objects: list[Json]) -> Json:
    return {"apiVersion": "v1", "kind": "List", "items": objects}


def _container(name: str, image: str, command: list[str], variables: dict[str, str], resources: Json) -> Json:
    env = [{"name": variable, "value": value} for variable, value in variables.items()]
    return {"name": name, "image": image, "imagePullPolicy": "IfNotPresent", "command": command, "env": env,
            "resources": resources}  # fmt: skip


def _pod(name: str, container: Json) -> dict[str, Any]:
    spec = {"serviceAccountName": _ACCOUNT, "restartPolicy": "Never", "containers": [container]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


def _phase(namespace: str, pod: str) -> str:
    return kubectl("get", "pod", pod, "-n", namespace, "-o", "jsonpath={.status.phase}")


def _message(namespace: str, pod: str) -> str:
    path = "jsonpath={.status.containerStatuses[0].state.terminated.message}"
    return kubectl("get", "pod", pod, "-n", namespace, "-o", path)
