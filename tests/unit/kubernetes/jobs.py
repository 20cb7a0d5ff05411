"""Jobs and attempts for tests of the Kubernetes backend."""

from __future__ import annotations

import copy
from typing import Any

from dispatcher import KubernetesJobEnvironment
from dispatcher.environments.base import Environment
from dispatcher.runs.attempt import Attempt, object_name

RUN_ID = "01jdzr6m8w4n5q7t9v2x3y4z5a"

#: A Job as Prefect's documentation writes it, with a side-car, an init container and fields of the user's own.
CUSTOM: dict[str, Any] = {
    "apiVersion": "batch/v1",
    "kind": "Job",
    "metadata": {
        "name": "my-prefect-job",
        "namespace": "team",
        "labels": {"identifier": "", "kueue.x-k8s.io/queue-name": "lq", "team": "blue"},
        "annotations": {"note": "kept"},
    },
    "spec": {
        "suspend": True,
        "backoffLimit": 0,
        "ttlSecondsAfterFinished": 0,
        "activeDeadlineSeconds": 10,
        "template": {
            "metadata": {"labels": {"identifier": "", "app": "etl"}},
            "spec": {
                "restartPolicy": "OnFailure",
                "serviceAccountName": "etl",
                "tolerations": [{"key": "gpu", "operator": "Exists"}],
                "initContainers": [{"name": "prepare", "image": "busybox:1", "command": ["true"]}],
                "containers": [
                    {
                        "name": "flow-container",
                        "image": "",
                        "command": ["sleep"],
                        "args": ["1"],
                        "env": [{"name": "MY_ENV", "value": "foo"}, {"name": "DISPATCHER__RUN__ID", "value": "mine"}],
                        "resources": {"limits": {"cpu": "2", "nvidia.com/gpu": 1}, "requests": {"cpu": 1}},
                        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
                    },
                    {"name": "side-car", "image": "proxy:1", "args": ["--port", "80"]},
                ],
                "volumes": [{"name": "data", "emptyDir": {"sizeLimit": "1Gi"}}],
            },
        },
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


def attempt(environment: Environment | None = None, **changes: Any) -> Attempt:
    """Return an attempt of a run in ``environment``."""
    values: dict[str, Any] = {
        "run_id": RUN_ID,
        "number": 2,
        "name": object_name(RUN_ID, 2),
        "instance": "inst",
        "shard": "kubernetes/3",
        "environment": (environment or KubernetesJobEnvironment()).to_json(),
        "variables": {"DISPATCHER__RUN__ID": RUN_ID, "DISPATCHER__RUN__ATTEMPT": "2"},
        "flow": "word count, “quoted”",
        "storage": {"type": "RedisStorage"},
    }
    return Attempt(**{**values, **changes})
