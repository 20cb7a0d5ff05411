"""Settings that a worker checks at its start, and direct execution: Jobs without queue or record."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from backends.kubernetes.backend import KubernetesBackend
from backends.kubernetes.settings import KubernetesSettings
from dispatcher import InvalidInput, KubernetesJobEnvironment, ModuleStorage, RedisStorage, Settings
from dispatcher.errors import InvalidSettings, ServerUnavailable
from tests.kubernetes_api import FakeApiServer, FakeCluster, StatusError, kubeconfig
from tests.unit.kubernetes.backends import NAME, SECRETS, settings
from tests.unit.kubernetes.jobs import attempt


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"url": "redis://localhost/0"},
            "DISPATCHER__URL: containers can't reach redis://localhost:6379/0; set DISPATCHER__KUB",
        ),
        ({"url": "unix:///run/redis.sock"}, "DISPATCHER__URL: containers can't reach"),
        ({"url": None}, "DISPATCHER__URL: no server is set"),
        (
            {"kubernetes": KubernetesSettings(url="redis://127.0.0.1:1/0")},
            "DISPATCHER__KUBERNETES__URL: containers can't",
        ),
        (
            {"kubernetes": KubernetesSettings(url="rediss://r/0", ca_file=Path("no-such.pem"))},
            "DISPATCHER__KUBERNETES__CA_FILE: no-such.pem",
        ),
        (
            {"kubernetes": KubernetesSettings(url="redis://r/0", cluster="x")},
            "DISPATCHER__KUBERNETES__CLUSTER=x: must be one of",
        ),
    ],
)
def test_a_worker_refuses_settings_with_which_pods_cannot_report(
    options: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DISPATCHER__URL", raising=False)
    with pytest.raises(InvalidSettings, match=message):
        KubernetesBackend.check_settings(Settings.load(**options))
    KubernetesBackend.check_settings(Settings.load(url="redis://records.svc/0"))


def test_pods_get_the_certificate_authority_of_the_server(tmp_path: Path, serving: FakeApiServer) -> None:
    (tmp_path / "ca.pem").write_text("PEM")
    url = "rediss://user:pa%2Fss@records.svc/0?ssl_check_hostname=false"
    backend = KubernetesBackend(settings(tmp_path, serving.port, url=url, ca_file=tmp_path / "ca.pem"))
    backend.submit(backend.prepare(attempt()), SECRETS)
    data = serving.cluster.get("secrets", NAME)["stringData"]
    assert data["ca.pem"] == "PEM"
    pod_url = json.loads(data["variables.json"])["DISPATCHER__URL"]
    assert pod_url == f"{url}&ssl_ca_certs=%2Frun%2Fdispatcher%2Fca.pem"
    backend.close()


@pytest.fixture
def cluster(serving: FakeApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeCluster:
    """Cluster of a process that finds its kubeconfig as a user's program does."""
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig(tmp_path, serving.port)))
    monkeypatch.delenv("DISPATCHER__URL", raising=False)
    return serving.cluster


def test_execute_creates_one_job_and_gives_its_handle(cluster: FakeCluster) -> None:
    environment = KubernetesJobEnvironment(image="flows:1", env={"A": "1"})
    handles = [environment.execute(ModuleStorage(), "m:f", parameters={"n": [1]}, env={"B": "2"}) for _ in range(2)]
    assert handles[0]["name"] != handles[1]["name"]
    job, secret = cluster.get("jobs", handles[0]["name"]), cluster.get("secrets", handles[0]["name"])
    assert job["metadata"]["uid"] == handles[0]["uid"]
    flow = job["spec"]["template"]["spec"]["containers"][0]
    assert flow["image"] == "flows:1"
    assert flow["command"][-1] == "dispatcher.runner.direct"
    assert {"name": "B", "value": "2"} in flow["env"]
    assert {"name": "A", "value": "1"} in flow["env"]
    variables = json.loads(secret["stringData"]["variables.json"])
    job_text = json.loads(variables.pop("DISPATCHER__RUN__DIRECT"))
    assert variables == {}
    assert (job_text["location"], job_text["parameters"], job_text["storage"]) == (
        "m:f",
        {"n": [1]},
        {"type": "ModuleStorage"},
    )


def test_create_flow_run_job_runs_a_file_of_an_image(cluster: FakeCluster) -> None:
    handle = KubernetesJobEnvironment().create_flow_run_job("registry/flows:2", "/flows/etl.flow")
    assert (
        cluster.get("jobs", handle["name"])["spec"]["template"]["spec"]["containers"][0]["image"] == "registry/flows:2"
    )


def test_a_storage_in_redis_needs_its_address_as_pods_reach_it(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = KubernetesJobEnvironment()
    with pytest.raises(InvalidSettings, match="DISPATCHER__URL: no server is set"):
        environment.execute(RedisStorage(), "digest")
    assert not cluster.objects
    monkeypatch.setenv("DISPATCHER__KUBERNETES__URL", "redis://records.svc/0")
    handle = environment.execute(RedisStorage(), "digest")
    variables = json.loads(cluster.get("secrets", handle["name"])["stringData"]["variables.json"])
    assert variables["DISPATCHER__URL"] == "redis://records.svc/0"


def test_errors_of_execute(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, serving: FakeApiServer
) -> None:
    environment = KubernetesJobEnvironment()
    with pytest.raises(InvalidInput, match="parameters must be JSON values"):
        environment.execute(ModuleStorage(), "m:f", parameters={"n": {1}})
    with pytest.raises(InvalidInput, match="fit into a container"):
        environment.execute(ModuleStorage(), "m:f", parameters={"n": "x" * 10**6})
    cluster.errors["POST", "jobs"] = StatusError(422, "Invalid", "spec: Invalid value")
    with pytest.raises(InvalidInput, match="spec: Invalid value"):
        environment.execute(ModuleStorage(), "m:f")
    cluster.errors["POST", "jobs"] = StatusError(503, "Unavailable", "starting")
    with pytest.raises(ServerUnavailable, match="starting"):
        environment.execute(ModuleStorage(), "m:f")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    with pytest.raises(InvalidSettings, match="there is no kubeconfig"):
        environment.execute(ModuleStorage(), "m:f")
    with pytest.raises(InvalidInput, match="DISPATCHER__KUBERNETES__NAMESPACES"):
        KubernetesJobEnvironment(namespace="other").execute(ModuleStorage(), "m:f")
