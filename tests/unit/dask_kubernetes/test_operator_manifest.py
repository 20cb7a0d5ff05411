"""The objects of a flow whose Dask cluster is the operator's, and the argument that asks for one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from backends.dask_kubernetes import manifest as dask_manifest
from backends.dask_kubernetes import operator_manifest as manifest
from dispatcher import DaskKubernetesEnvironment
from dispatcher.environments.base import from_json
from dispatcher.errors import InvalidInput, Permanent
from dispatcher.settings import Settings
from tests.unit.kubernetes import jobs
from tests.unit.kubernetes.backends import NAME, settings

LIMITS = {"limits": {"cpu": "2", "memory": "1Gi"}}
POD: dict[str, Any] = {
    "kind": "Pod",
    "metadata": {"labels": {"team": "a"}},
    "spec": {
        "containers": [
            {"name": "mine", "args": ["dask-worker", "--resources", "GPU=1"], "env": [{"name": "A", "value": "1"}]},
            {"name": "side-car", "image": "registry.example/side:1"},
        ],
        "nodeSelector": {"pool": "dask"},
    },
}


@pytest.fixture
def worker(tmp_path: Path) -> Settings:
    return settings(tmp_path, 1)


def environment(**arguments: Any) -> DaskKubernetesEnvironment:
    return DaskKubernetesEnvironment(
        **{"min_workers": 2, "max_workers": 4, "image": "i:1", "operator": True, **arguments}
    )


def request_of(worker: Settings, **arguments: Any) -> Any:
    return manifest.build(jobs.attempt(environment(**arguments)), worker)


def test_the_policy_of_the_settings_holds(worker: Settings) -> None:
    pod = {**POD, "spec": {**POD["spec"], "volumes": [{"name": "node", "hostPath": {"path": "/etc"}}]}}
    with pytest.raises(Permanent, match=r"worker_spec: spec[.]volumes\[0\][.]hostPath[.]path"):
        request_of(worker, worker_spec=pod)


def container_of(worker: Settings, part: str, **arguments: Any) -> Any:
    """Return the first container of the ``scheduler`` or of a ``worker``."""
    return manifest.dask_cluster(request_of(worker, **arguments), "uid")["spec"][part]["spec"]["containers"][0]


def test_the_environment_travels_and_names_its_own_backend() -> None:
    chosen = environment()
    assert chosen.backend == "dask-operator"
    assert from_json(chosen.to_json()) == chosen
    assert from_json(chosen.to_json()).backend == "dask-operator"
    assert chosen.cluster().has_operator


def test_without_it_nothing_changes() -> None:
    chosen = environment(operator=False)
    assert chosen.backend == "dask-kubernetes"
    assert "operator" not in chosen.to_json()
    assert not chosen.cluster().has_operator


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"operator": "yes"}, "operator: must be True or False, got 'yes'"),
        (
            {"scheduler_logs": True},
            "scheduler_logs: can't be given with operator=True: the log is in the scheduler's pod; leave it out",
        ),
    ],
)
def test_what_cannot_be_is_refused(arguments: dict[str, Any], problem: str) -> None:
    with pytest.raises(InvalidInput, match=problem):
        environment(**arguments)


def test_the_flow_knows_its_scheduler_and_has_no_certificate(worker: Settings) -> None:
    request = request_of(worker)
    flow = request["job"]["spec"]["template"]["spec"]["containers"][0]
    address = {"name": "DASK_SCHEDULER_ADDRESS", "value": f"tcp://{NAME}-scheduler.default.svc:8786"}
    assert address in flow["env"]
    assert "TLS" not in str(request)
    dask_manifest.check_request(request, worker)


def test_job_owns_cluster_and_autoscaler_and_its_deletion_waits_for_them(worker: Settings) -> None:
    request = request_of(worker)
    for made in (manifest.dask_cluster(request, "uid-1"), manifest.dask_autoscaler(request, "uid-1")):
        (owner,) = made["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["uid"], owner["blockOwnerDeletion"]) == ("Job", "uid-1", True)
        assert made["metadata"]["name"] == NAME
        assert made["metadata"]["labels"]["identifier"] == request["job"]["metadata"]["labels"]["identifier"]
    assert made["spec"] == {"cluster": NAME, "minimum": 2, "maximum": 4}


def test_programs_are_those_that_distributed_has_and_nothing_ends_an_idle_cluster(worker: Settings) -> None:
    made = manifest.dask_cluster(request_of(worker), "uid")
    assert container_of(worker, "scheduler")["command"][:2] == ["dask", "scheduler"]
    command = container_of(worker, "worker")["command"]
    assert command[:4] == ["dask", "worker", "--name", "$(DASK_WORKER_NAME)"]
    assert "args" not in container_of(worker, "worker")
    assert "idleTimeout" not in made["spec"]
    assert made["spec"]["worker"]["replicas"] == 2


def test_workers_and_scheduler_have_the_resources_of_workers(worker: Settings) -> None:
    command = container_of(worker, "worker", worker_resources=LIMITS)["command"]
    assert command[command.index("--nthreads") + 1] == "2"
    assert command[command.index("--memory-limit") + 1] == str(2**30)
    for part in ("scheduler", "worker"):
        assert container_of(worker, part, worker_resources=LIMITS)["resources"] == LIMITS


def test_a_pod_of_your_own_is_kept_but_for_what_a_deployment_cannot_have(worker: Settings) -> None:
    spec = manifest.dask_cluster(request_of(worker, worker_spec=POD), "uid")["spec"]
    first, second = spec["worker"]["spec"]["containers"]
    assert first["command"][-2:] == ["--resources", "GPU=1"]
    assert {"name": "A", "value": "1"} in first["env"]
    assert second["name"] == "side-car"
    assert [container["name"] for container in spec["scheduler"]["spec"]["containers"]] == ["scheduler"]
    assert spec["worker"]["metadata"]["labels"] == {"team": "a"}
    for part in ("scheduler", "worker"):
        assert spec[part]["spec"]["nodeSelector"] == {"pool": "dask"}
        assert "restartPolicy" not in spec[part]["spec"]


@pytest.mark.parametrize(("stealing", "value"), [(True, "True"), (False, "False")])
def test_the_scheduler_is_told_whether_to_steal_work(worker: Settings, stealing: bool, value: str) -> None:
    env = container_of(worker, "scheduler", work_stealing=stealing)["env"]
    assert {"name": "DASK_DISTRIBUTED__SCHEDULER__WORK_STEALING", "value": value} in env


def test_a_variable_of_your_own_stands(worker: Settings) -> None:
    name = "DASK_DISTRIBUTED__SCHEDULER__WORK_STEALING"
    env = container_of(worker, "scheduler", env={name: "auto"})["env"]
    assert [entry["value"] for entry in env if entry["name"] == name] == ["auto"]


def test_a_name_that_is_too_long_for_the_operator_is_refused(worker: Settings) -> None:
    with pytest.raises(Permanent, match="at most 53 characters"):
        manifest.build(jobs.attempt(environment(), name="flow-" + "x" * 49), worker)


@pytest.mark.parametrize("name", ["DASK_DISTRIBUTED__SCHEDULER__BLOCKED_HANDLERS", None])
def test_a_flow_s_code_reaches_the_scheduler_although_the_files_of_prefect_block_it(
    worker: Settings, name: str | None
) -> None:
    """They block ``run_function``, by which code gets there; workers keep the variable."""
    blocking = {"name": name, "value": "['feed', 'run_function']"}
    first = {**POD["spec"]["containers"][0], "env": [blocking] if name else []}
    pod = {**POD, "spec": {**POD["spec"], "containers": [first]}}
    variables = [
        (variable["name"], variable["value"])
        for variable in container_of(worker, "scheduler", worker_spec=pod)["env"]
        if "BLOCKED" in variable["name"]
    ]
    assert variables == [("DASK_DISTRIBUTED__SCHEDULER__BLOCKED_HANDLERS", "['feed']")]
    if name:
        assert blocking in container_of(worker, "worker", worker_spec=pod)["env"]
