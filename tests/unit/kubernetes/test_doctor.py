"""``dispatcher doctor --backend kubernetes``: API, rights, quotas, and the start of a pod."""

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


def with_pod(cluster: FakeCluster, status: dict[str, Any]) -> Callable[[Any], Any]:
    """Return a controller that gives each Job a pod with this status."""
    return lambda job: cluster.add_pod(job, **status)


@pytest.fixture
def examine(backend: KubernetesBackend, cluster: FakeCluster) -> Callable[[], dict[str, Finding]]:
    cluster.on_job = with_pod(cluster, STARTED)
    return lambda: {finding.subject: finding for finding in backend.examine(within=5)}


def test_a_healthy_cluster(examine: Callable[[], dict[str, Finding]], cluster: FakeCluster) -> None:
    findings = examine()
    assert {subject: finding.level for subject, finding in findings.items()} == dict.fromkeys(
        ("api", "cluster", "rights", "quota", "start"), Level.OK
    )
    assert "v1.34.1" in findings["api"].text
    assert "was pulled and started" in findings["start"].text
    assert not cluster.objects  # cleaned up


def test_missing_rights_are_named(examine: Callable[[], dict[str, Finding]], cluster: FakeCluster) -> None:
    cluster.denied = {("secrets", "create"), ("pods/log", "get")}
    findings = examine()
    assert findings["rights"].level is Level.PROBLEM
    assert "namespace default: missing get pods/log; create secrets" in findings["rights"].text
    assert "start" not in findings
    assert not cluster.objects


def test_a_quota_that_is_used_up(examine: Callable[[], dict[str, Finding]], cluster: FakeCluster) -> None:
    status = {"hard": {"count/jobs.batch": "1", "pods": "5"}, "used": {"count/jobs.batch": "1", "pods": "2"}}
    cluster.create("resourcequotas", {"metadata": {"name": "jobs"}, "status": status})
    finding = examine()["quota"]
    assert (finding.level, "jobs: count/jobs.batch 1 of 1" in finding.text) == (Level.WARNING, True)


def test_an_image_that_cannot_be_pulled(examine: Callable[[], dict[str, Finding]], cluster: FakeCluster) -> None:
    waiting = {"waiting": {"reason": "ErrImagePull", "message": "x: not found"}}
    cluster.on_job = with_pod(cluster, {"phase": "Pending", "containerStatuses": [{"name": "flow", "state": waiting}]})
    finding = examine()["start"]
    assert finding.level is Level.PROBLEM
    assert "image_pull ErrImagePull x: not found" in finding.text
    assert "DISPATCHER__KUBERNETES__IMAGE" in finding.remedy
    assert not [key for key in cluster.objects if key[0] != "resourcequotas"]


def test_an_admission_that_denies(examine: Callable[[], dict[str, Finding]], cluster: FakeCluster) -> None:
    cluster.errors["POST", "jobs"] = StatusError(403, "Forbidden", "denied by policy")
    assert "denied by policy" in examine()["start"].text


def test_no_cluster(tmp_path: Path) -> None:
    with FakeApiServer() as stopped:
        port = stopped.port
    (finding,) = list(KubernetesBackend(settings(tmp_path, port)).examine())
    assert (finding.subject, finding.level) == ("api", Level.PROBLEM)


def test_the_command(serving: FakeApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    serving.cluster.on_job = with_pod(serving.cluster, STARTED)
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig(tmp_path, serving.port)))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setenv("DISPATCHER__KUBERNETES__URL", "redis://records.svc/0")
    result = call("doctor", "--backend", "kubernetes", "--url", "memory://")
    assert result.exit_code == 0, result.output
    assert "was pulled and started" in result.output
    assert "nothing to look at" in call("doctor", "--backend", "local", "--url", "memory://").output
    monkeypatch.setenv("DISPATCHER__KUBERNETES__URL", "redis://127.0.0.1/0")
    result = call("doctor", "--backend", "kubernetes", "--url", "memory://")
    assert result.exit_code == 1
    assert "containers can't reach redis://127.0.0.1:6379/0" in result.output


def test_the_role_of_the_docs_is_what_the_doctor_asks_for() -> None:
    page = Path(__file__).parents[3] / "docs" / "kubernetes.md"
    text = next(part for part in page.read_text(encoding="utf-8").split("```yaml\n")[1:] if "kind: Role" in part)
    role = yaml.safe_load(text.partition("```")[0])
    rights = {resource: tuple(rule["verbs"]) for rule in role["rules"] for resource in rule["resources"]}
    assert rights.pop("configmaps") == ("get",), "what identifies the cluster; the doctor reads it"
    assert rights == dict(RIGHTS)
    (rule,) = [rule for rule in role["rules"] if rule["resources"] == ["configmaps"]]
    assert rule["resourceNames"] == ["kube-root-ca.crt"], "no other ConfigMap"
    groups = {resource: rule["apiGroups"] for rule in role["rules"] for resource in rule["resources"]}
    assert groups.pop("jobs") == ["batch"]
    assert all(group == [""] for group in groups.values())
