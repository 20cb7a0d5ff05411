"""``dispatcher doctor --backend kubernetes``: API, rights, quotas, and the start of a pod."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from backends.kubernetes.backend import KubernetesBackend
from backends.kubernetes.doctor import RIGHTS
from backends.kubernetes.trial import try_out
from dispatcher.inspection.finding import Finding, Level
from dispatcher.runner.trial import TrialReport
from dispatcher.support.interpreter import PYTHON
from tests.cloud.k8s import manifests
from tests.conftest import PYTHON as PROGRAM
from tests.kubernetes_api import FakeApiServer, FakeCluster, StatusError, kubeconfig
from tests.unit.command import call
from tests.unit.kubernetes.backends import running, settings
from tests.unit.kubernetes.jobs import attempt
from tests.waiting import wait_until

STARTED = running()
FOUND = TrialReport(
    version=version("flow-dispatcher"), python=PYTHON, address="redis://records.svc:6379/0", instance="ab"
)


def ended(message: str = "", *, code: int = 0) -> dict[str, Any]:
    """Return the status of a pod whose flow's container has ended."""
    terminated = {"exitCode": code, "reason": "Error" if code else "Completed", "message": message}
    statuses = [{"name": "flow", "state": {"terminated": terminated}}]
    return {"phase": "Failed" if code else "Succeeded", "containerStatuses": statuses}


def left(cluster: FakeCluster) -> list[Any]:
    """Return the keys of objects that a trial left behind."""
    return [key for key in cluster.objects if key[0] != "resourcequotas"]


def with_pod(cluster: FakeCluster, status: dict[str, Any]) -> Callable[[Any], Any]:
    """Return a controller that gives each Job a pod with this status."""
    return lambda job: cluster.add_pod(job, **status)


@pytest.fixture
def examine(backend: KubernetesBackend, cluster: FakeCluster) -> Callable[[], dict[str, Finding]]:
    cluster.on_job = with_pod(cluster, ended(FOUND.to_json()))
    return lambda: {finding.subject: finding for finding in backend.examine(within=5)}


def test_a_healthy_cluster(examine: Callable[[], dict[str, Finding]], cluster: FakeCluster) -> None:
    findings = examine()
    assert {subject: finding.level for subject, finding in findings.items()} == dict.fromkeys(
        ("api", "cluster", "rights", "quota", "start", "image", "address"), Level.OK
    )
    assert "v1.34.1" in findings["api"].text
    assert "was pulled and started" in findings["start"].text
    assert "redis://records.svc:6379/0 answers, installation ab" in findings["address"].text
    assert not cluster.objects  # cleaned up


def test_its_pod_is_a_run_s_without_credentials_of_a_run(
    examine: Callable[[], dict[str, Finding]], backend: KubernetesBackend, cluster: FakeCluster
) -> None:
    """Of a run's Job it differs in the names, the module, and the deadline."""
    examine()
    created = {
        request.path.rpartition("/")[2]: request.body for request in cluster.requests if request.method == "POST"
    }
    job, secret = created["jobs"], created["secrets"]
    assert job is not None
    assert secret is not None
    run = backend.prepare(attempt())["job"]
    pod, expected = job["spec"]["template"]["spec"], run["spec"]["template"]["spec"]
    assert pod["securityContext"] == expected["securityContext"]
    trial, flow = pod["containers"][0], expected["containers"][0]
    assert trial["command"][:-1] == flow["command"][:-1]
    assert {key: trial[key] for key in trial.keys() - {"command", "env"}} == {
        key: flow[key] for key in flow.keys() - {"command", "env"}
    }
    assert {entry["name"] for entry in trial["env"]} >= {"DISPATCHER__RUN__ID", "DISPATCHER__RUN__SECRETS_FILE"}
    assert job["spec"]["activeDeadlineSeconds"] < 3600
    variables = json.loads(secret["stringData"]["variables.json"])
    assert variables["DISPATCHER__URL"] == "redis://records.svc/0"
    assert set(variables) == {f"DISPATCHER__{name}" for name in ("URL", "RUN__SEAL", "RUN__SPEC", "RUN__TOKEN")}


@pytest.mark.parametrize(
    ("log", "text"),
    [
        (b"python3: No module named dispatcher\n", "flow-dispatcher isn't installed in it"),
        (b"ModuleNotFoundError: No module named 'dispatcher'\n", "flow-dispatcher isn't installed in it"),
        (b"python3: No module named dispatcher.runner.trial\n", "another release's flow-dispatcher"),
    ],
)
def test_an_image_without_this_release(
    examine: Callable[[], dict[str, Finding]], cluster: FakeCluster, log: bytes, text: str
) -> None:
    cluster.on_job, cluster.log = with_pod(cluster, ended(code=1)), log
    finding = examine()["image"]
    assert (finding.level, text in finding.text) == (Level.PROBLEM, True), finding
    assert "compose/Dockerfile" in finding.remedy
    assert not cluster.objects


def test_a_pod_that_ends_without_a_report(examine: Callable[[], dict[str, Finding]], cluster: FakeCluster) -> None:
    """Exit code 0 alone proves nothing: the image's own entry point may ignore the command."""
    cluster.on_job, cluster.log = with_pod(cluster, ended("hello")), b"hello from the image\n"
    finding = examine()["start"]
    assert (finding.level, "hello from the image" in finding.text) == (Level.PROBLEM, True), finding
    assert not cluster.objects


def test_a_pod_that_does_not_end(backend: KubernetesBackend, cluster: FakeCluster) -> None:
    cluster.on_job = with_pod(cluster, STARTED)
    finding = list(backend.examine(within=1))[-1]
    assert (finding.level, "it runs, and doesn't end" in finding.text) == (Level.PROBLEM, True), finding
    assert not cluster.objects


def test_a_job_without_its_secret_is_deleted(examine: Callable[[], dict[str, Finding]], cluster: FakeCluster) -> None:
    cluster.errors["POST", "secrets"] = StatusError(403, "Forbidden", "denied by policy")
    assert "denied by policy" in examine()["start"].text
    assert not cluster.objects


class Interrupted(BaseException):
    """In the place of a KeyboardInterrupt."""


def test_at_an_interruption_its_job_is_deleted(
    backend: KubernetesBackend, cluster: FakeCluster, serving: FakeApiServer, tmp_path: Path
) -> None:
    cluster.on_job = with_pod(cluster, STARTED)
    own = settings(tmp_path, serving.port)

    def interrupt(_: float) -> None:
        raise Interrupted

    with pytest.raises(Interrupted):
        list(try_out(backend, {"namespace": "default"}, own, within=5, wait=interrupt))
    assert cluster.count("POST", "jobs") == 1
    assert not cluster.objects


def test_a_job_that_can_not_be_deleted_is_named(
    examine: Callable[[], dict[str, Finding]], backend: KubernetesBackend, cluster: FakeCluster
) -> None:
    cluster.errors["DELETE", "jobs"] = StatusError(422, "Invalid", "no")
    *_, finding = backend.examine(within=5)
    assert finding.level is Level.WARNING
    assert finding.remedy.startswith("kubectl delete job flow-")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_the_command_that_is_stopped_deletes_its_job(
    serving: FakeApiServer, tmp_path: Path, number: signal.Signals
) -> None:
    serving.cluster.on_job = with_pod(serving.cluster, STARTED)
    environ = {
        **os.environ,
        "KUBECONFIG": str(kubeconfig(tmp_path, serving.port)),
        "KUBERNETES_SERVICE_HOST": "",
        "DISPATCHER__KUBERNETES__URL": "redis://records.svc/0",
    }
    # a program in the background may have inherited that signals are ignored
    defaults = "from signal import *; signal(SIGINT, default_int_handler), signal(SIGHUP, SIG_DFL)"
    command = [PROGRAM, "-c", f"{defaults}; from dispatcher.cli import main; main()", "--url", "memory://", "doctor"]
    process = subprocess.Popen([*command, "--backend", "kubernetes"], env=environ, stdout=subprocess.DEVNULL)
    try:
        wait_until(lambda: serving.cluster.count("GET", "pods"), "a look at the pod", timeout=60)
        process.send_signal(number)
        assert process.wait(60) != 0
    finally:
        process.kill()
        process.wait()
    assert serving.cluster.count("POST", "jobs") == 1
    assert not left(serving.cluster)


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


QUOTA = 'jobs.batch "flow-1" is forbidden: exceeded quota: jobs, requested: count/jobs.batch=1'


def test_a_full_quota_of_jobs_is_no_problem_of_the_image(
    examine: Callable[[], dict[str, Finding]], cluster: FakeCluster
) -> None:
    cluster.errors["POST", "jobs"] = StatusError(403, "Forbidden", QUOTA)
    finding = examine()["start"]
    assert (finding.level, "exceeded quota" in finding.text) == (Level.WARNING, True)
    assert "raise the quota" in finding.remedy
    assert not cluster.objects


def test_a_full_quota_of_pods_is_no_problem_of_the_image(backend: KubernetesBackend, cluster: FakeCluster) -> None:
    def refuse(job: Any) -> None:
        about = {"uid": job["metadata"]["uid"], "kind": "Job", "name": job["metadata"]["name"]}
        body = {"metadata": {"name": "refused"}, "involvedObject": about, "reason": "FailedCreate", "message": QUOTA}
        cluster.create("events", {**body, "type": "Warning", "lastTimestamp": "2026-01-01T00:00:00Z"})

    cluster.on_job = refuse
    finding = {finding.subject: finding for finding in backend.examine(within=30)}["start"]
    assert (finding.level, "exceeded quota" in finding.text) == (Level.WARNING, True), finding
    assert [key[0] for key in cluster.objects] == ["events"]


def test_a_namespace_that_does_not_exist(examine: Callable[[], dict[str, Finding]], cluster: FakeCluster) -> None:
    cluster.missing = {"default"}
    findings = examine()
    assert findings["namespace"].level is Level.PROBLEM
    assert findings["namespace"].remedy.startswith("`kubectl create namespace default`, or correct DISPATCHER__")
    assert set(findings) == {"api", "namespace"}


def test_what_a_namespace_demands_of_pods_is_told(
    examine: Callable[[], dict[str, Finding]], cluster: FakeCluster
) -> None:
    cluster.warnings = ["unknown field", 'would violate PodSecurity "restricted:latest": runAsNonRoot != true']
    finding = examine()["security"]
    assert (finding.level, 'violate PodSecurity "restricted' in finding.text) == (Level.OK, True), finding
    assert not cluster.objects, "a dry run creates nothing"


def test_an_image_that_cannot_be_pulled(examine: Callable[[], dict[str, Finding]], cluster: FakeCluster) -> None:
    waiting = {"waiting": {"reason": "ErrImagePull", "message": "x: not found"}}
    cluster.on_job = with_pod(cluster, {"phase": "Pending", "containerStatuses": [{"name": "flow", "state": waiting}]})
    finding = examine()["start"]
    assert finding.level is Level.PROBLEM
    assert "image_pull ErrImagePull x: not found" in finding.text
    assert "DISPATCHER__KUBERNETES__IMAGE" in finding.remedy
    assert not left(cluster)


def test_an_admission_that_denies(examine: Callable[[], dict[str, Finding]], cluster: FakeCluster) -> None:
    cluster.errors["POST", "jobs"] = StatusError(403, "Forbidden", "denied by policy")
    assert "denied by policy" in examine()["start"].text


def test_no_cluster(tmp_path: Path) -> None:
    with FakeApiServer() as stopped:
        port = stopped.port
    (finding,) = list(KubernetesBackend(settings(tmp_path, port)).examine())
    assert (finding.subject, finding.level) == ("api", Level.PROBLEM)


def test_the_command(serving: FakeApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    serving.cluster.on_job = with_pod(serving.cluster, ended(FOUND.to_json()))
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
    assert "was pulled and started" in result.output  # all the same
    monkeypatch.setenv("DISPATCHER__KUBERNETES__CLUSTER", "eu")
    result = call("doctor", "--backend", "kubernetes", "--url", "memory://")
    assert result.exit_code == 1
    assert "problem  kubernetes   DISPATCHER__KUBERNETES__CLUSTER=eu: must be one of" in result.output


def test_the_role_of_the_docs_is_what_the_doctor_asks_for() -> None:
    (role,) = manifests("role.yaml")
    rights = {resource: tuple(rule["verbs"]) for rule in role["rules"] for resource in rule["resources"]}
    assert rights.pop("configmaps") == ("get",), "what identifies the cluster; the doctor reads it"
    assert rights == dict(RIGHTS)
    (rule,) = [rule for rule in role["rules"] if rule["resources"] == ["configmaps"]]
    assert rule["resourceNames"] == ["kube-root-ca.crt"], "no other ConfigMap"
    groups = {resource: rule["apiGroups"] for rule in role["rules"] for resource in rule["resources"]}
    assert groups.pop("jobs") == ["batch"]
    assert all(group == [""] for group in groups.values())
