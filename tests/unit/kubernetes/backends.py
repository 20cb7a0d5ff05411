"""Settings, observations and pod statuses that tests of the Kubernetes backend share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from backends.base import Observation, Phase
from backends.kubernetes.backend import KubernetesBackend
from backends.kubernetes.settings import ClusterSettings, KubernetesSettings
from dispatcher import Cause, Settings
from dispatcher.runs.attempt import object_name
from tests.kubernetes_api import kubeconfig
from tests.unit.kubernetes.jobs import RUN_ID
from tests.waiting import wait_until

T = TypeVar("T")

NAME = object_name(RUN_ID, 2)
SECRETS = {"DISPATCHER__URL": "redis://localhost/0", "DISPATCHER__RUN__TOKEN": "token-of-the-attempt"}


def eventually(predicate: Callable[[], T], description: str) -> T:
    """Wait for a condition, as long as a busy machine may need."""
    return wait_until(predicate, description, timeout=60)


def settings(folder: Path, port: int, **kubernetes: Any) -> Settings:
    """Return the settings of a worker whose cluster is at ``port``."""
    values = {
        "clusters": {"it": ClusterSettings(kubeconfig=kubeconfig(folder, port))},
        "url": "redis://records.svc/0",
        "request_timeout": 20.0,
        "silence": 5.0,
        **kubernetes,
    }
    return Settings.load(kubernetes=KubernetesSettings(**values))


def poll(backend: KubernetesBackend, handle: Any) -> Observation:
    """Return one observation of a run, once the first lists have arrived or their time is over."""

    def observed() -> list[Observation]:
        return [observation for observation in backend.poll([handle]) if observation.phase is not Phase.UNSEEN]

    return eventually(observed, "the first lists")[0]


def until(backend: KubernetesBackend, handle: Any, phase: Phase, cause: Cause | None = None) -> Observation:
    """Return the first observation of that phase and cause."""

    def matching() -> list[Observation]:
        observation = poll(backend, handle)
        return [observation] if (observation.phase, observation.cause) == (phase, cause) else []

    return eventually(matching, f"{phase} {cause}")[0]


def running(name: str = "flow") -> dict[str, Any]:
    """Return the status of a pod whose flow runs."""
    return {"phase": "Running", "containerStatuses": [{"name": name, "state": {"running": {}}}]}
