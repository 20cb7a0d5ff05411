"""``dispatcher doctor --backend dask-kubernetes``: what a Dask cluster needs beside a Job."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest

from backends.container.secret_sources import REGISTRY_CREDENTIALS
from backends.dask_kubernetes.backend import DaskKubernetesBackend
from backends.dask_kubernetes.doctor import PACKAGES, RIGHTS
from backends.kubernetes import doctor
from dispatcher.inspection.finding import Finding, Level
from tests.cloud import k8s
from tests.kubernetes_api import FakeApiServer, FakeCluster
from tests.unit.dask_kubernetes.test_pull_secret import GIVEN
from tests.unit.kubernetes.backends import settings
from tests.unit.kubernetes.test_doctor import FOUND, ended, with_pod

REPORT = replace(FOUND, packages={name: version(name) for name in PACKAGES})


@pytest.fixture
def serving(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeApiServer]:
    monkeypatch.delenv(REGISTRY_CREDENTIALS, raising=False)
    with FakeApiServer() as serving:
        serving.cluster.on_job = with_pod(serving.cluster, ended(REPORT.to_json()))
        yield serving


@pytest.fixture
def cluster(serving: FakeApiServer) -> FakeCluster:
    return serving.cluster


@pytest.fixture
def examine(serving: FakeApiServer, tmp_path: Path) -> Iterator[Callable[[], dict[str, Finding]]]:
    backend = DaskKubernetesBackend(settings(tmp_path, serving.port))
    yield lambda: {finding.subject: finding for finding in backend.examine(within=5)}
    backend.close()


def test_a_healthy_cluster(examine: Callable[[], dict[str, Finding]], cluster: FakeCluster) -> None:
    findings = examine()
    assert {subject: finding.level for subject, finding in findings.items()} == dict.fromkeys(
        ("dask", "api", "cluster", "rights", "policy", "quota", "start", "image", "packages", "address"), Level.OK
    )
    assert f"distributed {version('distributed')}" in findings["packages"].text
    assert not cluster.objects


def test_a_missing_right_to_create_pods_is_a_problem(
    examine: Callable[[], dict[str, Finding]], cluster: FakeCluster
) -> None:
    cluster.denied.add(("pods", "create"))
    finding = examine()["rights"]
    assert finding.level is Level.PROBLEM
    assert finding.text == "namespace default: missing create pods"


def test_without_the_right_to_network_policies_tls_alone_protects(
    examine: Callable[[], dict[str, Finding]], cluster: FakeCluster
) -> None:
    cluster.denied.add(("networkpolicies", "create"))
    findings = examine()
    assert findings["policy"].level is Level.WARNING
    assert "missing create networkpolicies): TLS alone protects a run" in findings["policy"].text
    assert findings["rights"].level is Level.OK
    assert findings["start"].level is Level.OK


@pytest.mark.parametrize(
    ("packages", "level", "text", "remedy"),
    [
        ({}, Level.PROBLEM, "dask, distributed, cloudpickle, cryptography isn't installed", "EXTRAS=[dask-kubernetes]"),
        ({"distributed": "2024.1.0"}, Level.WARNING, f"2024.1.0.*; here: distributed {version('distributed')}", "same"),
    ],
)
def test_the_image_needs_dask_in_the_versions_of_the_worker(
    examine: Callable[[], dict[str, Finding]],
    cluster: FakeCluster,
    packages: dict[str, str],
    level: Level,
    text: str,
    remedy: str,
) -> None:
    installed = {**REPORT.packages, **packages} if packages else {}
    cluster.on_job = with_pod(cluster, ended(replace(REPORT, packages=installed).to_json()))
    finding = examine()["packages"]
    assert finding.level is level
    assert re.search(text, finding.text), finding.text
    assert remedy in finding.remedy


def test_the_trial_pulls_with_the_worker_s_credentials_and_leaves_no_secret(
    examine: Callable[[], dict[str, Finding]], cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(REGISTRY_CREDENTIALS, json.dumps(GIVEN))
    assert examine()["start"].level is Level.OK
    posts = [request for request in cluster.requests if request.method == "POST" and "dryRun" not in request.query]
    bodies = [request.body for request in posts if request.body]
    (pull,) = [body for body in bodies if body.get("type") == "kubernetes.io/dockerconfigjson"]
    (job,) = [body for body in bodies if body["kind"] == "Job"]
    references = job["spec"]["template"]["spec"]["imagePullSecrets"]
    assert references == [{"name": pull["metadata"]["name"]}]
    assert not cluster.objects


def test_the_rights_are_those_of_jobs_and_the_creation_of_pods() -> None:
    added = {kind: set(verbs) - set(doctor.RIGHTS.get(kind, ())) for kind, verbs in RIGHTS.items()}
    assert {kind: verbs for kind, verbs in added.items() if verbs} == {"pods": {"create"}}


def test_the_role_of_the_docs_is_what_the_doctor_asks_for() -> None:
    rules = k8s.rules(k8s.DASK_PAGE)
    rights = {resource: tuple(rule["verbs"]) for rule in rules for resource in rule["resources"]}
    assert rights.pop("configmaps") == ("get",), "what identifies the cluster"
    assert rights.pop("networkpolicies") == ("create", "delete")
    assert rights == dict(RIGHTS)
    groups = {resource: rule["apiGroups"] for rule in rules for resource in rule["resources"]}
    assert (groups.pop("jobs"), groups.pop("networkpolicies")) == (["batch"], ["networking.k8s.io"])
    assert all(group == [""] for group in groups.values())
