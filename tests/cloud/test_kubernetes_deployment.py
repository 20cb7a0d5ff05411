"""The worker in the cluster: the files of docs/kubernetes.md are applied as they are, but for names and images.

The doctor, too: in that worker's pod, and for addresses that pods can't use.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.cloud import k8s
from tests.cloud.flows import add, sleep
from tests.cloud.sandbox import Sandbox
from tests.conftest import PYTHON
from tests.integration.workers import KEYS, ROOT

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(600)]

RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}
DEPLOYMENT = "deployment/flow-dispatcher"


def secret(name: str, namespace: str, **data: str) -> k8s.Json:
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": data}


def renamed(value: Any, names: Mapping[str, str]) -> Any:
    """Return an object of the page in which these words are replaced."""
    if isinstance(value, dict):
        return {key: renamed(item, names) for key, item in value.items()}
    if isinstance(value, list):
        return [renamed(item, names) for item in value]
    return names.get(value, value) if isinstance(value, str) else value


@pytest.fixture(scope="module")
def workers(sandbox: Sandbox, image: str, worker_image: str) -> Iterator[str]:
    """Namespace of the page's Deployment, which serves the namespace ``…-flows``."""
    namespace, flows = f"{sandbox.name}-workers", f"{sandbox.name}-flows"
    names = {
        "flow-workers": namespace,
        "flows": flows,
        "registry.example/flow-dispatcher-worker:1": worker_image,
        "registry.example/flow-dispatcher-runner:1": image,
    }
    (role,) = k8s.manifests("role.yaml")
    role["metadata"]["namespace"] = "flows"  # `kubectl apply -n flows`
    for name in (namespace, flows):
        k8s.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": RESTRICTED}})
    try:
        url = sandbox.server.url
        k8s.apply(
            secret("flow-dispatcher-keys", namespace, **{"signing-keys.json": json.dumps(KEYS)}),
            secret("flow-dispatcher-urls", namespace, DISPATCHER__URL=url, DISPATCHER__KUBERNETES__URL=url),
            *(renamed(item, names) for item in (role, *k8s.manifests("worker.yaml"))),
        )
        rolled_out(namespace)
        yield namespace
    finally:
        print(k8s.kubectl("logs", "-n", namespace, DEPLOYMENT, "--tail=100", check=False))  # noqa: T201
        k8s.kubectl("delete", "namespace", "--wait=false", namespace, flows, check=False)


def rolled_out(namespace: str) -> None:
    """Wait until all workers of the present template are ready, and no others are left."""
    k8s.kubectl("rollout", "status", "-n", namespace, DEPLOYMENT, "--timeout=110s")


def test_a_run_completes(workers: str, sandbox: Sandbox) -> None:
    run = sandbox.submit(add, {"a": 1, "b": 2})
    assert run.result(timeout=120) == 3
    assert sandbox.server.count_of(run, "ran") == 1
    pods = k8s.items("pods", workers)
    assert {status["restartCount"] for pod in pods for status in pod["status"]["containerStatuses"]} == {0}


def test_a_restart_of_the_deployment_loses_nothing(workers: str, sandbox: Sandbox) -> None:
    """A run that ends while no former worker is left, and one that is submitted meanwhile."""
    former = {pod["metadata"]["name"] for pod in k8s.items("pods", workers)}
    running = sandbox.submit(sleep, {"seconds": 30.0})
    sandbox.wait_until_started(running)
    k8s.kubectl("rollout", "restart", "-n", workers, DEPLOYMENT)
    submitted = sandbox.submit(add, {"a": 1, "b": 2})
    rolled_out(workers)
    sandbox.wait_until(
        lambda: not former & {pod["metadata"]["name"] for pod in k8s.items("pods", workers)}, "no former worker"
    )
    assert submitted.result(timeout=120) == 3
    assert running.result(timeout=120) == "held"
    for run, event in ((running, "held"), (submitted, "ran")):
        assert [str(event.kind) for event in run.events()].count("exited") == 1
        assert sandbox.server.count_of(run, event) == 1
    sandbox.expect_nothing_left(running, namespace=f"{sandbox.name}-flows")


def test_the_doctor_in_the_worker_s_pod(workers: str) -> None:
    doctor = ("dispatcher", "doctor", "--backend", "kubernetes", "--json")
    findings = json.loads(k8s.kubectl("exec", "-n", workers, DEPLOYMENT, "--", *doctor))
    of_backend = {finding["subject"]: finding["level"] for finding in findings if finding["level"] != "warning"}
    assert {of_backend[subject] for subject in ("api", "rights", "start", "image", "address")} == {"ok"}


def doctor(sandbox: Sandbox, image: str, directory: Path, **variables: str) -> dict[str, dict[str, str]]:
    """Return the findings of the doctor with a worker's rights, by their subject."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "KUBECONFIG": str(k8s.worker_kubeconfig(sandbox.name, directory)),
        "KUBERNETES_SERVICE_HOST": "",
        "DISPATCHER__URL": sandbox.server.url,
        "DISPATCHER__SIGNING_KEYS": json.dumps(KEYS),
        "DISPATCHER__KUBERNETES__IMAGE": image,
        "DISPATCHER__KUBERNETES__NAMESPACES": sandbox.name,
        **variables,
    }
    done = subprocess.run(
        [PYTHON, "-c", "from dispatcher.cli import main; main()", "doctor", "--backend", "kubernetes", "--json"],
        env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode in {0, 1}, done.stderr
    return {finding["subject"]: finding for finding in json.loads(done.stdout)}


@pytest.mark.parametrize(
    ("url", "text", "remedy"),
    [
        ("redis://:secret@{host}/3", "no installation yet at redis://{host}/3, but ", "the same server and database"),
        ("redis://:wrong@{host}/0", "redis://{host}/0 refuses the user name or the password", "user, password"),
        ("redis://:secret@records.nowhere.svc:6379/0", "the host name of redis://records.nowhere.svc:6379/0", "URL to"),
    ],
    ids=["database", "password", "name"],
)
def test_an_address_that_pods_can_not_use(
    sandbox: Sandbox, image: str, tmp_path: Path, url: str, text: str, remedy: str
) -> None:
    host = sandbox.server.url.partition("@")[2].partition("/")[0]
    findings = doctor(sandbox, image, tmp_path, DISPATCHER__KUBERNETES__URL=url.format(host=host))
    assert findings["start"]["level"] == "ok", findings["start"]["text"]
    assert findings["image"]["level"] == "ok"
    assert findings["address"]["level"] == "problem"
    assert text.format(host=host) in findings["address"]["text"]
    assert remedy in findings["address"]["remedy"]
    assert not k8s.items("jobs", sandbox.name)
