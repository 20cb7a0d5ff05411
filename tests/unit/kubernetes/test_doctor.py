"""``dispatcher doctor --backend kubernetes`` names what is missing (issue 5)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from backends.kubernetes.backend import KubernetesBackend
from backends.kubernetes.doctor import RIGHTS
from dispatcher.inspection.finding import Finding, Level
from tests.kubernetes_api import FakeApiServer, FakeCluster, StatusError, kubeconfig
from tests.unit.command import call
from tests.unit.kubernetes.backends import running, settings

STARTED = running()


def pod(cluster: FakeCluster, status: dict[str, Any]) -> Callable[[Any], Any]:
    """Controllers that give each Job a pod with this status."""
    return lambda job: cluster.add_pod(job, **status)


@pytest.fixture
def look(backend: KubernetesBackend, cluster: FakeCluster) -> Callable[[], dict[str, Finding]]:
    cluster.on_job = pod(cluster, STARTED)
    return lambda: {one.subject: one for one in backend.examine(within=5)}


def test_all_well(look: Callable[[], dict[str, Finding]], cluster: FakeCluster) -> None:
    found = look()
    assert {name: one.level for name, one in found.items()} == dict.fromkeys(
        ("api", "rights", "quota", "start"), Level.OK
    )
    assert "v1.34.1" in found["api"].text
    assert "was pulled and started" in found["start"].text
    assert not cluster.objects  # it cleans up


def test_missing_rights_are_named(look: Callable[[], dict[str, Finding]], cluster: FakeCluster) -> None:
    cluster.denied = {("secrets", "create"), ("pods/log", "get")}
    found = look()
    assert found["rights"].level is Level.PROBLEM
    assert "namespace default: missing get pods/log; create secrets" in found["rights"].text
    assert "start" not in found
    assert not cluster.objects


def test_a_quota_that_is_used_up(look: Callable[[], dict[str, Finding]], cluster: FakeCluster) -> None:
    status = {"hard": {"count/jobs.batch": "1", "pods": "5"}, "used": {"count/jobs.batch": "1", "pods": "2"}}
    cluster.create("resourcequotas", {"metadata": {"name": "jobs"}, "status": status})
    found = look()["quota"]
    assert (found.level, "jobs: count/jobs.batch 1 of 1" in found.text) == (Level.WARNING, True)


def test_an_image_that_cannot_be_pulled(look: Callable[[], dict[str, Finding]], cluster: FakeCluster) -> None:
    waiting = {"waiting": {"reason": "ErrImagePull", "message": "x: not found"}}
    cluster.on_job = pod(cluster, {"phase": "Pending", "containerStatuses": [{"name": "flow", "state": waiting}]})
    found = look()["start"]
    assert found.level is Level.PROBLEM
    assert "image_pull ErrImagePull x: not found" in found.text
    assert "DISPATCHER__KUBERNETES__IMAGE" in found.remedy
    assert not [key for key in cluster.objects if key[0] != "resourcequotas"]


def test_an_admission_that_refuses(look: Callable[[], dict[str, Finding]], cluster: FakeCluster) -> None:
    cluster.errors["POST", "jobs"] = StatusError(403, "Forbidden", "denied by policy")
    assert "denied by policy" in look()["start"].text


def test_no_cluster(tmp_path: Path) -> None:
    with FakeApiServer() as gone:
        port = gone.port
    (found,) = list(KubernetesBackend(settings(tmp_path, port)).examine())
    assert (found.subject, found.level) == ("api", Level.PROBLEM)


def test_the_command(serving: FakeApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    serving.cluster.on_job = pod(serving.cluster, STARTED)
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig(tmp_path, serving.port)))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setenv("DISPATCHER__KUBERNETES__URL", "redis://records.svc/0")
    done = call("doctor", "--backend", "kubernetes", "--url", "memory://")
    assert done.exit_code == 0, done.output
    assert "was pulled and started" in done.output
    assert "nothing to look at" in call("doctor", "--backend", "local", "--url", "memory://").output
    monkeypatch.setenv("DISPATCHER__KUBERNETES__URL", "redis://127.0.0.1/0")
    done = call("doctor", "--backend", "kubernetes", "--url", "memory://")
    assert done.exit_code == 1
    assert "containers can't reach redis://127.0.0.1:6379/0" in done.output


def test_the_role_of_the_docs_is_what_the_doctor_asks_for() -> None:
    page = Path(__file__).parents[3] / "docs" / "kubernetes.md"
    text = next(part for part in page.read_text(encoding="utf-8").split("```yaml\n")[1:] if "kind: Role" in part)
    role = yaml.safe_load(text.partition("```")[0])
    found = {resource: tuple(rule["verbs"]) for rule in role["rules"] for resource in rule["resources"]}
    assert found == dict(RIGHTS)
    groups = {resource: rule["apiGroups"] for rule in role["rules"] for resource in rule["resources"]}
    assert groups.pop("jobs") == ["batch"]
    assert all(group == [""] for group in groups.values())
