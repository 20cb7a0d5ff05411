"""DaskKubernetesEnvironment: Prefect 0.10's arguments, the added ones, and their validation."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import dispatcher
from dispatcher import DaskKubernetesEnvironment, InvalidInput, LocalStorage
from dispatcher.environments import base
from dispatcher.environments.cluster import ClusterSpec
from tests.unit.dask_kubernetes.pods import CUSTOM, SEED, custom
from tests.unit.kubernetes.jobs import CUSTOM as JOB
from tests.unit.kubernetes.jobs import custom as custom_job

STEALING = "DASK_DISTRIBUTED__SCHEDULER__WORK_STEALING"


def callback() -> None: ...


def test_it_is_registered_and_public() -> None:
    from dispatcher import registry

    assert dispatcher.DaskKubernetesEnvironment is registry.environment("DaskKubernetesEnvironment")
    assert DaskKubernetesEnvironment.backend == "dask-kubernetes"
    assert registry.backend("dask-kubernetes").name == "dask-kubernetes"


def test_it_needs_neither_dask_nor_the_sdk() -> None:
    program = (
        "import sys; from dispatcher import DaskKubernetesEnvironment; DaskKubernetesEnvironment(worker_spec={});"
        "sys.exit(str({'dask', 'distributed', 'kubernetes'} & set(sys.modules)))"
    ).replace("worker_spec={}", f"worker_spec={CUSTOM!r}")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == "set()"


def test_the_seeds_arguments_come_first_in_its_order_with_its_defaults() -> None:
    environment = DaskKubernetesEnvironment()
    assert (environment.min_workers, environment.max_workers) == (1, 2)
    assert (environment.work_stealing, environment.scheduler_logs, environment.private_registry) == (False,) * 3
    assert environment.docker_secret is None
    assert (environment.scheduler_spec_file, environment.worker_spec_file) == (None, None)
    job, pod = str(SEED / "job.yaml"), str(SEED / "worker_pod.yaml")
    environment = DaskKubernetesEnvironment(3, 4, True, True, True, "docker", ["eu"], callback, callback, job, pod)
    assert (environment.min_workers, environment.max_workers) == (3, 4)
    assert (environment.work_stealing, environment.scheduler_logs, environment.private_registry) == (True,) * 3
    assert environment.docker_secret == "docker"
    assert (environment.labels, environment.on_start, environment.on_exit) == (("eu",), callback, callback)
    assert (environment.scheduler_spec_file, environment.worker_spec_file) == (job, pod)
    with pytest.raises(TypeError):
        DaskKubernetesEnvironment(
            1, 2, False, False, False, None, None, None, None, None, None, JOB  # type: ignore[call-arg]
        )  # fmt: skip


def test_credentials_of_a_registry_have_the_seeds_name_by_default() -> None:
    assert DaskKubernetesEnvironment(private_registry=True).docker_secret == "DOCKER_REGISTRY_CREDENTIALS"
    assert DaskKubernetesEnvironment(docker_secret="unused").docker_secret is None  # as in the seed


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"min_workers": 0, "max_workers": 1},
        {"scheduler_spec": JOB, "worker_spec": CUSTOM},
        {
            "min_workers": 2,
            "max_workers": 30,
            "work_stealing": True,
            "scheduler_logs": True,
            "private_registry": True,
            "docker_secret": "docker",
            "worker_resources": {"limits": {"memory": "2Gi", "nvidia.com/gpu": 1}},
            "resources": {"requests": {"cpu": "2"}},
            "image": "registry:5000/flows:1",
            "image_pull_secrets": ["registry"],
            "image_pull_policy": "Always",
            "namespace": "team",
            "env": {"A": "1"},
            "secrets": {"B": "credentials/token"},
            "labels": ["eu"],
            "on_exit": callback,
        },
        {"worker_spec": custom(spec__brandNew=1), "allow_unknown_fields": True},
    ],
    ids=["nothing", "from none", "specs", "everything", "unknown fields"],
)
def test_it_is_a_value_that_round_trips_through_json(arguments: dict[str, Any]) -> None:
    environment = DaskKubernetesEnvironment(**arguments)
    data = environment.to_json()
    assert json.loads(json.dumps(data)) == data
    restored = base.from_json(data)
    assert restored == environment
    assert hash(restored) == hash(environment)
    assert restored.to_json() == data
    if "on_exit" not in arguments:  # else its callback is restored as a name
        assert repr(restored) == repr(environment)
    assert pickle.loads(pickle.dumps(environment)) == environment
    for name, value in arguments.items():
        expected = tuple(value) if name in {"labels", "image_pull_secrets"} else value
        assert getattr(environment, name) == expected
    environment.check()
    with pytest.raises(AttributeError, match="can't be changed"):
        environment.min_workers = 5


def test_the_files_are_part_of_the_environment(tmp_path: Path) -> None:
    job, pod = tmp_path / "job.yaml", tmp_path / "pod.yaml"
    job.write_text(yaml.safe_dump(JOB))
    pod.write_text(yaml.safe_dump(CUSTOM))
    environment = DaskKubernetesEnvironment(scheduler_spec_file=job, worker_spec_file=pod)
    job.unlink()
    pod.unlink()
    restored = base.from_json(environment.to_json())
    assert isinstance(restored, DaskKubernetesEnvironment)
    assert (restored.scheduler_spec, restored.worker_spec) == (JOB, CUSTOM)
    assert restored == environment
    assert restored.worker_spec_file is None


def test_a_copy_of_a_spec_changes_nothing() -> None:
    environment = DaskKubernetesEnvironment(worker_spec=CUSTOM)
    assert environment.worker_spec is not None
    environment.worker_spec["spec"]["containers"].clear()
    assert environment.worker_spec == CUSTOM


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"min_workers": -1}, "min_workers: must be a whole number, 0 or more, got -1"),
        ({"min_workers": 1.5}, "min_workers: must be a whole number, 0 or more, got 1.5"),
        ({"max_workers": True}, "max_workers: must be a whole number, 0 or more, got True"),
        ({"max_workers": "2"}, "max_workers: must be a whole number, 0 or more, got '2'"),
        ({"min_workers": 0, "max_workers": 0}, "max_workers: must be 1 or more, so that tasks can be computed, got 0"),
        ({"max_workers": 5001}, "max_workers: must be at most 5000, got 5001"),
        ({"min_workers": 3}, "min_workers: must be at most max_workers (2), got 3"),
        ({"work_stealing": "no"}, "work_stealing: must be True or False, got 'no'"),
        ({"scheduler_logs": 1}, "scheduler_logs: must be True or False, got 1"),
        ({"private_registry": "registry.example"}, "private_registry: must be True or False, got 'registry.example'"),
        ({"docker_secret": 3}, "docker_secret: must be the name of a "),
        ({"worker_resources": {"limits": {"cpu": "much"}}}, "worker_resources.limits.cpu: must be an amount"),
        ({"resources": {"limit": {}}}, "resources.limit: unknown field"),
        ({"namespace": "Team"}, "namespace: must be the name of a namespace, got 'Team'"),
        ({"secrets": {"A": "value"}}, "secrets: A must be 'secret/key', never a value; got 'va… (5 characters)'"),
        ({"image_pull_policy": "Sometimes"}, "image_pull_policy: must be one of Always, IfNotPresent, Never"),
        ({"scheduler_spec": {"kind": "Pod"}}, "scheduler_spec: apiVersion: must be batch/v1, got None; kind: must be"),
        ({"worker_spec": {"kind": "Job"}}, "worker_spec: kind: must be Pod, got 'Job'"),
        ({"worker_spec": [CUSTOM]}, "worker_spec: must be a mapping (a Pod), got list"),
        ({"worker_spec": CUSTOM, "worker_spec_file": "x"}, "worker_spec: can't be given beside worker_spec_file"),
        ({"scheduler_spec": JOB, "scheduler_spec_file": "x"}, "scheduler_spec: can't be given beside scheduler_spec_f"),
        ({"worker_spec_file": "/no/such.yaml"}, "worker_spec_file: can't read /no/such.yaml: No such file"),
        ({"worker_spec_file": 3}, "worker_spec_file: must be the path of a YAML file, got 3"),
        (
            {"worker_spec": custom(metadata__namespace="b"), "namespace": "team"},
            "worker_spec: metadata.namespace: b: workers are in the namespace of their Job, team; remove it",
        ),
        (
            {"worker_spec": custom(metadata__namespace="b"), "scheduler_spec": custom_job(metadata__namespace="a")},
            "worker_spec: metadata.namespace: b: workers are in the namespace of their Job, a; remove it",
        ),
        (
            {
                "scheduler_spec": custom_job(
                    spec__template__spec__containers__0__volumeMounts__0__mountPath="/var/run/flow-dispatcher-tls"
                )
            },
            "scheduler_spec: spec.template.spec.containers[0].volumeMounts[0].mountPath: /var/run/flow-dispatcher-tls",
        ),
        (
            {"scheduler_spec": JOB, "env": {f"BIG{number}": "x" * 100_000 for number in range(3)}},
            "its Job has",
        ),
    ],
)
def test_a_wrong_argument_is_named_with_its_value(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        DaskKubernetesEnvironment(**arguments)
    assert message in str(raised.value)
    assert not str(raised.value).startswith("KubernetesJobEnvironment")


def test_a_file_that_holds_another_kind_is_named(tmp_path: Path) -> None:
    file = tmp_path / "worker.yaml"
    file.write_text("- kind: Pod\n")
    with pytest.raises(InvalidInput, match=r"worker_spec_file .*worker.yaml: must hold a Pod \(kind: Pod\), got list"):
        DaskKubernetesEnvironment(worker_spec_file=file)
    file.write_text(yaml.safe_dump(JOB))
    with pytest.raises(InvalidInput, match=r"worker_spec_file .*worker.yaml: kind: must be Pod, got 'Job'"):
        DaskKubernetesEnvironment(worker_spec_file=file)


def test_what_the_runner_is_told_of_the_cluster() -> None:
    environment = DaskKubernetesEnvironment(0, 7, work_stealing=True, scheduler_logs=True)
    expected = ClusterSpec(min_workers=0, max_workers=7, work_stealing=True, scheduler_logs=True)
    assert environment.cluster() == expected
    assert DaskKubernetesEnvironment().cluster().work_stealing is False


@pytest.mark.parametrize(
    "arguments",
    [
        {"scheduler_spec": custom_job(spec__template__spec__containers__0__env=[{"name": STEALING, "value": "True"}])},
        {"env": {STEALING: "True"}},
        {"secrets": {STEALING: "a/b"}},
        {"scheduler_spec_file": SEED / "job.yaml"},
    ],
    ids=["spec", "env", "secrets", "the seed's file"],
)
def test_a_variable_of_the_scheduler_goes_before_work_stealing(arguments: dict[str, Any]) -> None:
    assert DaskKubernetesEnvironment(work_stealing=True, **arguments).cluster().work_stealing is None


def test_a_spec_from_another_release_is_accepted_where_it_is_read_and_refused_where_a_run_is_asked_for() -> None:
    data = DaskKubernetesEnvironment(worker_spec=CUSTOM, scheduler_spec=JOB).to_json()
    data["worker_spec"]["spec"]["brandNew"] = 1
    restored = base.from_json(data)
    assert restored.to_json() == data
    with pytest.raises(InvalidInput, match=r"worker_spec: spec.brandNew: unknown field"):
        restored.check()
    data["worker_spec"]["spec"]["containers"][0]["args"] = ["--host", "10.0.0.1"]
    with pytest.raises(InvalidInput, match=r"worker_spec: spec.containers\[0\].args\[0\]: --host: addresses"):
        base.from_json(data)


def test_only_storages_that_containers_reach_are_accepted(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="DaskKubernetesEnvironment runs flows in a container, which can't reach a Loc"):
        DaskKubernetesEnvironment().execute(LocalStorage(directory=tmp_path), "flow")
