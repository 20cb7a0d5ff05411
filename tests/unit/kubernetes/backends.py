"""What tests of the Kubernetes backend say alike."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from backends.base import Observation, Phase
from backends.kubernetes.backend import KubernetesBackend
from backends.kubernetes.settings import ClusterSettings, KubernetesSettings
from dispatcher import Cause, Settings
from tests.kubernetes_api import kubeconfig
from tests.unit.kubernetes.jobs import RUN_ID
from tests.waiting import wait_until

T = TypeVar("T")

NAME = f"flow-{RUN_ID}-2"
SECRETS = {"DISPATCHER__URL": "redis://localhost/0", "DISPATCHER__RUN__TOKEN": "token-of-the-attempt"}


def eventually(predicate: Callable[[], T], description: str) -> T:
    """Wait as long as a busy machine may need."""
    return wait_until(predicate, description, timeout=60)


def settings(folder: Path, port: int, **kubernetes: Any) -> Settings:
    """Of a worker whose cluster is at ``port``."""
    given = {
        "clusters": {"it": ClusterSettings(kubeconfig=kubeconfig(folder, port))},
        "url": "redis://records.svc/0",
        "request_timeout": 20.0,
        "silence": 5.0,
        **kubernetes,
    }
    return Settings.load(kubernetes=KubernetesSettings(**given))


def poll(backend: KubernetesBackend, handle: Any) -> Observation:
    """One look at one run, once the first lists have come or their time is over."""

    def looked() -> list[Observation]:
        return [seen for seen in backend.poll([handle]) if seen.phase is not Phase.UNSEEN]

    return eventually(looked, "the first lists")[0]


def until(backend: KubernetesBackend, handle: Any, phase: Phase, cause: Cause | None = None) -> Observation:
    """The first observation of that phase and cause."""

    def seen() -> list[Observation]:
        found = poll(backend, handle)
        return [found] if (found.phase, found.cause) == (phase, cause) else []

    return eventually(seen, f"{phase} {cause}")[0]


def running(name: str = "flow") -> dict[str, Any]:
    """The status of a pod whose flow runs."""
    return {"phase": "Running", "containerStatuses": [{"name": name, "state": {"running": {}}}]}
