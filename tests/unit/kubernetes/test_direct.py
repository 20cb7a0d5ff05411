"""Settings that a worker checks at its start, and what ``execute`` creates without queue or record."""

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
    ("given", "said"),
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
def test_settings_with_which_no_pod_could_report_are_refused_at_the_workers_start(
    given: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DISPATCHER__URL", raising=False)
    with pytest.raises(InvalidSettings, match=said):
        KubernetesBackend.check_settings(Settings.load(**given))
    KubernetesBackend.check_settings(Settings.load(url="redis://records.svc/0"))


def test_pods_get_the_servers_authority(tmp_path: Path, serving: FakeApiServer) -> None:
    (tmp_path / "ca.pem").write_text("PEM")
    url = "rediss://user:pa%2Fss@records.svc/0?ssl_check_hostname=false"
    backend = KubernetesBackend(settings(tmp_path, serving.port, url=url, ca_file=tmp_path / "ca.pem"))
    backend.submit(backend.prepare(attempt()), SECRETS)
    data = serving.cluster.get("secrets", NAME)["stringData"]
    assert data["ca.pem"] == "PEM"
    told = json.loads(data["variables.json"])["DISPATCHER__URL"]
    assert told == f"{url}&ssl_ca_certs=%2Frun%2Fdispatcher%2Fca.pem"
    backend.close()


@pytest.fixture
def here(serving: FakeApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeCluster:
    """A process that uses a kubeconfig as a user does."""
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig(tmp_path, serving.port)))
    monkeypatch.delenv("DISPATCHER__URL", raising=False)
    return serving.cluster


def test_execute_creates_one_job_and_gives_its_handle(here: FakeCluster) -> None:
    one = KubernetesJobEnvironment(image="flows:1", env={"A": "1"})
    handles = [one.execute(ModuleStorage(), "m:f", parameters={"n": [1]}, env={"B": "2"}) for _ in range(2)]
    assert handles[0]["name"] != handles[1]["name"]
    job, secret = here.get("jobs", handles[0]["name"]), here.get("secrets", handles[0]["name"])
    assert job["metadata"]["uid"] == handles[0]["uid"]
    flow = job["spec"]["template"]["spec"]["containers"][0]
    assert flow["image"] == "flows:1"
    assert flow["command"][-1] == "dispatcher.runner.direct"
    assert {"name": "B", "value": "2"} in flow["env"]
    assert {"name": "A", "value": "1"} in flow["env"]
    told = json.loads(secret["stringData"]["variables.json"])
    asked = json.loads(told.pop("DISPATCHER__RUN__DIRECT"))
    assert told == {}
    assert (asked["location"], asked["parameters"], asked["storage"]) == ("m:f", {"n": [1]}, {"type": "ModuleStorage"})


def test_create_flow_run_job_runs_a_file_of_an_image(here: FakeCluster) -> None:
    handle = KubernetesJobEnvironment().create_flow_run_job("registry/flows:2", "/flows/etl.flow")
    assert here.get("jobs", handle["name"])["spec"]["template"]["spec"]["containers"][0]["image"] == "registry/flows:2"


def test_a_storage_in_redis_needs_its_address_as_pods_reach_it(
    here: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = KubernetesJobEnvironment()
    with pytest.raises(InvalidSettings, match="DISPATCHER__URL: no server is set"):
        one.execute(RedisStorage(), "digest")
    assert not here.objects
    monkeypatch.setenv("DISPATCHER__KUBERNETES__URL", "redis://records.svc/0")
    handle = one.execute(RedisStorage(), "digest")
    told = json.loads(here.get("secrets", handle["name"])["stringData"]["variables.json"])
    assert told["DISPATCHER__URL"] == "redis://records.svc/0"


def test_what_execute_is_refused_is_said(
    here: FakeCluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, serving: FakeApiServer
) -> None:
    one = KubernetesJobEnvironment()
    with pytest.raises(InvalidInput, match="parameters must be JSON values"):
        one.execute(ModuleStorage(), "m:f", parameters={"n": {1}})
    with pytest.raises(InvalidInput, match="fit into a container"):
        one.execute(ModuleStorage(), "m:f", parameters={"n": "x" * 10**6})
    here.errors["POST", "jobs"] = StatusError(422, "Invalid", "spec: Invalid value")
    with pytest.raises(InvalidInput, match="spec: Invalid value"):
        one.execute(ModuleStorage(), "m:f")
    here.errors["POST", "jobs"] = StatusError(503, "Unavailable", "starting")
    with pytest.raises(ServerUnavailable, match="starting"):
        one.execute(ModuleStorage(), "m:f")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    with pytest.raises(InvalidSettings, match="there is no kubeconfig"):
        one.execute(ModuleStorage(), "m:f")
    with pytest.raises(InvalidInput, match="DISPATCHER__KUBERNETES__NAMESPACES"):
        KubernetesJobEnvironment(namespace="other").execute(ModuleStorage(), "m:f")
