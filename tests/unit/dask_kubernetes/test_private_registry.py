"""A private registry: the pull Secret in the manifests, in the cluster, and by a direct ``setup``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backends.container.secret_sources import REGISTRY_CREDENTIALS
from backends.dask_kubernetes import manifest, pull_secret
from backends.dask_kubernetes.backend import DaskKubernetesBackend
from backends.kubernetes import manifest as job_manifests
from backends.kubernetes.settings import KubernetesSettings
from dispatcher import DaskKubernetesEnvironment, InvalidInput, ModuleStorage
from dispatcher.errors import Permanent, Transient
from dispatcher.runs.attempt import Attempt
from dispatcher.runs.states import Cause
from dispatcher.settings import Settings
from tests.kubernetes_api import FakeApiServer, FakeCluster, StatusError, kubeconfig
from tests.unit.dask_kubernetes.test_pull_secret import GIVEN
from tests.unit.kubernetes import jobs

CREDENTIALS = json.dumps(GIVEN)


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCluster]:
    """A cluster, in a process that has the credentials, and finds a kubeconfig as a user's program does."""
    monkeypatch.setenv(REGISTRY_CREDENTIALS, CREDENTIALS)
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with FakeApiServer() as serving:
        monkeypatch.setenv("KUBECONFIG", str(kubeconfig(tmp_path, serving.port)))
        yield serving.cluster


@pytest.fixture
def backend(cluster: FakeCluster) -> Iterator[DaskKubernetesBackend]:
    backend = DaskKubernetesBackend(Settings.load(url="redis://records.svc/0"))
    yield backend
    backend.close()


def environment(**arguments: Any) -> DaskKubernetesEnvironment:
    return DaskKubernetesEnvironment(image="private/flows:1", private_registry=True, **arguments)


def attempt(of: DaskKubernetesEnvironment, **changes: Any) -> Attempt:
    return jobs.attempt(of, **changes)


def names(pod: Any) -> list[str]:
    return [reference["name"] for reference in pod["spec"].get("imagePullSecrets") or ()]


def both(request: Any) -> tuple[list[str], list[str]]:
    """Return the Secrets of the flow's pod and of a worker's."""
    return names(request["job"]["spec"]["template"]), names(request["workers"]["pod"])


def test_the_secret_reaches_flow_and_workers(backend: DaskKubernetesBackend) -> None:
    request = backend.prepare(attempt(environment()))
    name = request["pull_secret"]["name"]
    assert pull_secret.is_pull_secret(name)
    assert request["pull_secret"] == {"name": name, "source": REGISTRY_CREDENTIALS}
    assert both(request) == ([name], [name])
    assert backend.shared(request) == [f"default/{name}"]
    assert "hunter2" not in json.dumps(request)


def test_secrets_of_custom_specs_and_of_the_environment_stay_beside_it(backend: DaskKubernetesBackend) -> None:
    job = jobs.custom(spec__template__spec__imagePullSecrets=[{"name": "of-job"}, {"name": "shared"}])
    del job["metadata"]["namespace"]
    pod = {
        "kind": "Pod",
        "spec": {"containers": [{"name": "w"}], "imagePullSecrets": [{"name": "of-pod"}]},
    }
    request = backend.prepare(
        attempt(environment(scheduler_spec=job, worker_spec=pod, image_pull_secrets=["named", "shared"]))
    )
    name = request["pull_secret"]["name"]
    assert both(request) == (["of-job", "shared", "named", name], ["of-pod", "of-job", "shared", "named", name])
    assert request["digest"] == job_manifests.digest(request["job"])
    manifest.check_request(request, Settings.load(url="redis://records.svc/0"))


def test_without_a_private_registry_nothing_is_shared(backend: DaskKubernetesBackend, cluster: FakeCluster) -> None:
    request = backend.prepare(attempt(DaskKubernetesEnvironment(image="flows:1", image_pull_secrets=["named"])))
    assert "pull_secret" not in request
    assert both(request) == (["named"], ["named"])
    assert backend.shared(request) == []
    backend.set_up(request)
    assert cluster.count("POST", "secrets") == 0


def test_set_up_creates_it_once_and_a_new_password_another(
    backend: DaskKubernetesBackend, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = backend.prepare(attempt(environment()))
    for _ in range(2):  # 409 is success
        backend.set_up(request)
    secret = cluster.get("secrets", request["pull_secret"]["name"])
    assert secret["type"] == "kubernetes.io/dockerconfigjson"
    assert secret["metadata"]["labels"] == {"instance": "inst"}
    assert "ownerReferences" not in secret["metadata"]
    monkeypatch.setenv(REGISTRY_CREDENTIALS, CREDENTIALS.replace("hunter2", "hunter3"))
    renewed = backend.prepare(attempt(environment()))
    assert renewed["pull_secret"]["name"] != request["pull_secret"]["name"]
    backend.set_up(renewed)
    backend.set_up(request)  # made with the old password: it is there already
    assert len([kind for kind, _, _ in cluster.objects if kind == "secrets"]) == 2


def test_a_worker_without_the_credentials_refuses_the_run(
    backend: DaskKubernetesBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = {name: value for name, value in GIVEN.items() if name != "docker-password"}
    for text, problem in ((json.dumps(missing), "missing: docker-password"), ("", "this worker has no such secret")):
        monkeypatch.setenv(REGISTRY_CREDENTIALS, text)
        with pytest.raises(Permanent, match=problem) as caught:
            backend.prepare(attempt(environment()))
        assert caught.value.cause is Cause.CONFIG_ERROR
        assert str(caught.value).startswith(f"docker_secret: {REGISTRY_CREDENTIALS}: ")
        request, objections = backend.preview(attempt(environment()))
        assert problem in objections[0]
        assert both(request) == (["flow-dispatcher-pull-unknown"], ["flow-dispatcher-pull-unknown"])
        assert backend.shared(request) == []


def test_errors_of_the_cluster_are_told_apart(backend: DaskKubernetesBackend, cluster: FakeCluster) -> None:
    request = backend.prepare(attempt(environment()))
    cluster.errors["POST", "secrets"] = StatusError(503, "ServiceUnavailable", "starting")
    with pytest.raises(Transient):
        backend.set_up(request)
    cluster.errors["POST", "secrets"] = StatusError(403, "Forbidden", 'User "u" cannot create resource "secrets"')
    cluster.allowed = False
    with pytest.raises(Permanent, match="may not create secrets in namespace default"):
        backend.set_up(request)


def test_it_is_deleted_by_its_name_alone(backend: DaskKubernetesBackend, cluster: FakeCluster) -> None:
    request = backend.prepare(attempt(environment()))
    backend.set_up(request)
    (name,) = backend.shared(request)
    assert backend.dismantle(name)
    assert backend.dismantle(name)  # gone already
    assert not [kind for kind, _, _ in cluster.objects if kind == "secrets"]
    own = name.partition("/")[2]
    for other in (f"kube-system/{own}", "default/signing-keys", own, "default/", f"default/{own}/x"):
        with pytest.raises(Permanent, match="names no pull Secret in a namespace that is served"):
            backend.dismantle(other)


def test_a_policy_for_secrets_allows_it_for_pulling_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(REGISTRY_CREDENTIALS, CREDENTIALS)
    kubernetes = KubernetesSettings(allowed_secrets=frozenset({"team-*"}))
    limited = Settings.load(url="redis://records.svc/0", kubernetes=kubernetes)
    request = manifest.build(attempt(environment(image_pull_secrets=["team-a"])), limited)
    manifest.check_request(request, limited)
    own = request["pull_secret"]["name"]
    with pytest.raises(Permanent, match=f"Secret {own}"):  # another run can't name it
        manifest.build(attempt(DaskKubernetesEnvironment(image="flows:1", image_pull_secrets=[own])), limited)
    reading = environment(secrets={"CONFIG": f"{own}/.dockerconfigjson"})
    with pytest.raises(Permanent, match=f"Secret {own} holds a worker's credentials of a registry"):
        manifest.build(attempt(reading), Settings.load(url="redis://records.svc/0"))


def test_setup_creates_it_with_this_process_s_credentials(cluster: FakeCluster) -> None:
    environment().setup(ModuleStorage())
    environment().setup(ModuleStorage())
    (name,) = [name for kind, _, name in cluster.objects if kind == "secrets"]
    assert pull_secret.is_pull_secret(name)
    assert cluster.get("secrets", name)["metadata"]["labels"] == {"instance": "direct"}
    assert cluster.count("POST", "jobs") == 0


def test_setup_without_a_private_registry_needs_no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", "no-such-file")
    DaskKubernetesEnvironment(image="flows:1").setup(ModuleStorage())


def test_setup_names_what_is_missing(cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(REGISTRY_CREDENTIALS)
    with pytest.raises(InvalidInput, match=f"docker_secret: {REGISTRY_CREDENTIALS}: this worker has no such secret"):
        environment().setup(ModuleStorage())


@pytest.mark.parametrize("value", [CREDENTIALS, "", "a/b", 7, "DISPATCHER__SIGNING_KEYS"])
def test_docker_secret_is_a_name_and_never_a_value(value: Any) -> None:
    with pytest.raises(InvalidInput, match=r"DaskKubernetesEnvironment\.docker_secret: must be the name of") as caught:
        DaskKubernetesEnvironment(private_registry=True, docker_secret=value)
    assert "hunter2" not in str(caught.value)
