"""Pods, Jobs and requests for tests of the backend of Dask on Kubernetes."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from backends.dask_kubernetes import manifest
from backends.kubernetes.settings import KubernetesSettings
from dispatcher import DaskKubernetesEnvironment, Settings
from dispatcher.runs.attempt import Attempt
from tests.unit.kubernetes.jobs import attempt

#: The files of Prefect 0.10, ``src/prefect/environments/execution/dask`` (Apache License 2.0).
SEED = Path(__file__).parent / "seed"

UID = "6d5cf4c6-4c2c-4f0f-9f4a-2b0a2f0c8a01"

#: A Pod as its users write it, with a side-car, an init container and fields of their own.
CUSTOM: dict[str, Any] = {
    "kind": "Pod",
    "metadata": {"name": "mine", "labels": {"app": "etl", "identifier": ""}, "annotations": {"note": "kept"}},
    "spec": {
        "restartPolicy": "Always",
        "tolerations": [{"key": "gpu", "operator": "Exists"}],
        "nodeSelector": {"pool": "workers"},
        "initContainers": [{"name": "prepare", "image": "busybox:1"}],
        "containers": [
            {
                "name": "worker",
                "image": "other:1",
                "args": ["dask-worker", "--nthreads", "3", "--no-bokeh", "--resources", "GPU=1"],
                "env": [{"name": "MINE", "value": "1"}, {"name": "OMP_NUM_THREADS", "value": "4"}],
                "resources": {"limits": {"cpu": "2", "memory": "4G"}, "requests": {"cpu": 1}},
                "volumeMounts": [{"name": "models", "mountPath": "/models"}],
            },
            {"name": "side-car", "image": "proxy:1"},
        ],
        "volumes": [{"name": "models", "emptyDir": {}}],
    },
}


def custom(**changes: Any) -> dict[str, Any]:
    """Return :data:`CUSTOM` with other values at dotted paths; ``__`` stands for the dot."""
    spec = copy.deepcopy(CUSTOM)
    for path, value in changes.items():
        *parents, last = path.split("__")
        parent: Any = spec
        for part in parents:
            parent = parent[int(part)] if part.isdigit() else parent.setdefault(part, {})
        parent[last] = value
    return spec


def with_arguments(*arguments: str, **container: Any) -> dict[str, Any]:
    """Return a Pod whose container has these arguments."""
    return {"kind": "Pod", "spec": {"containers": [{"args": list(arguments), **container}]}}


def settings(**kubernetes: Any) -> Settings:
    return Settings.load(kubernetes=KubernetesSettings(**{"namespaces": ("default", "team"), **kubernetes}))


def attempt_in(environment: DaskKubernetesEnvironment | Mapping[str, Any], **changes: Any) -> Attempt:
    """Return an attempt of a run in an environment, or in what its JSON would be."""
    described = environment.to_json() if isinstance(environment, DaskKubernetesEnvironment) else environment
    return replace(attempt(**changes), environment=described)


def build(
    environment: DaskKubernetesEnvironment | Mapping[str, Any] | None = None,
    *,
    worker: Settings | None = None,
    **changes: Any,
) -> Any:
    """Return the request of an attempt."""
    return manifest.build(attempt_in(environment or DaskKubernetesEnvironment(), **changes), worker or settings())


def worker_of(request: Any, name: str = "w1") -> Any:
    """Return the Pod of a worker of a request."""
    return manifest.worker_pod(request, name=name, job_uid=UID, address="10.0.0.7")


def variables(container: Any) -> dict[str, Any]:
    """Return a container's variables; each stands once."""
    values = {entry["name"]: entry.get("value", entry.get("valueFrom")) for entry in container["env"]}
    assert len(values) == len(container["env"])
    return values


def options(container: Any) -> dict[str, str]:
    """Return the options of a worker's command with their values; flags are empty."""
    words = container["command"][container["command"].index("distributed.cli.dask_worker") + 1 :]
    pairs = zip(words, [*words[1:], "--"], strict=True)
    return {name: "" if value.startswith("--") else value for name, value in pairs if name.startswith("--")}
