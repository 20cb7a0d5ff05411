"""A user's own Pod for workers: what is refused where it is given, each with its path and the remedy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from dispatcher import DaskKubernetesEnvironment, InvalidInput
from tests.unit.dask_kubernetes.pods import CUSTOM, SEED, build, custom, options, variables, with_arguments, worker_of

#: Files as teams wrote them for Prefect 0.10.
TEAM_WITH_REPLICAS = """
kind: Pod
metadata: {labels: {app: dask}}
spec:
  replicas: 1
  restartPolicy: Always
  containers:
    - image: registry.example/dask:latest
      imagePullPolicy: Always
      name: dask-worker
      args: [dask-worker, --nthreads, '2', --no-dashboard, --memory-limit, 12GB, --death-timeout, '60']
      resources:
        limits: {cpu: "2", memory: 12G}
        requests: {cpu: "2", memory: 12G}
  imagePullSecrets:
    - name: team-registry
"""


def problem(spec: Any, **arguments: Any) -> str:
    with pytest.raises(InvalidInput) as raised:
        DaskKubernetesEnvironment(worker_spec=spec, **arguments)
    message = str(raised.value)
    assert message.startswith("worker_spec: ")
    return message.removeprefix("worker_spec: ")


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({}, "kind: must be Pod, got None; spec.containers: needs a container; the first is the Dask worker"),
        (custom(apiVersion="v2"), "apiVersion: must be v1, got 'v2'"),
        (custom(spec__containers=[]), "spec.containers: needs a container; the first is the Dask worker"),
        (custom(replicas=2), "replicas: unknown field; a Pod has apiVersion, kind, metadata, spec, status"),
        (
            custom(spec__replicas=1),
            "spec.replicas: unknown field: a Pod has no replicas; min_workers and max_workers say how many there are",
        ),
        (custom(spec__tolerations__0__keys="x"), "spec.tolerations[0].keys: unknown field (as of Kubernetes 1."),
        (custom(spec__containers__0__resources__limit={}), "spec.containers[0].resources.limit: unknown field"),
        (custom(spec__containers__0__args=[1]), "spec.containers[0].args[0]: must be a string (quote it), got 1"),
        (custom(spec__containers__0__args="x"), "spec.containers[0].args: must be a list, got 'x'"),
        (custom(metadata=[]), "metadata: must be a mapping, got []"),
        (custom(metadata__generateName="dask-"), "metadata.generateName: can't be given: a worker's name derives from"),
        (
            custom(metadata__ownerReferences=[{"apiVersion": "v1", "kind": "Pod", "name": "a", "uid": "b"}]),
            "metadata.ownerReferences: can't be given: the run's Job owns its workers; remove it",
        ),
        (custom(metadata__finalizers=["a/b"]), "metadata.finalizers: can't be given: a worker that has ended must be"),
        (custom(metadata__uid="a"), "metadata.uid: set by the cluster from which this Pod was exported; remove them"),
        (custom(status={"phase": "Running"}), "status: set by the cluster from which this Pod was exported"),
        (custom(metadata__labels={"job-name": "a"}), "metadata.labels.job-name: set by the cluster"),
        (custom(metadata__labels={"a b": "c"}), "metadata.labels.a b: must be a name like example.org/name"),
        (custom(spec__volumes__0__name="dispatcher-tls"), "spec.volumes[0].name: dispatcher-tls is the name of a vol"),
        (custom(spec__volumes__0__name="dispatcher-run"), "spec.volumes[0].name: dispatcher-run is the name of a vol"),
        (
            custom(spec__containers__0__volumeMounts__0__mountPath="/run/flow-dispatcher-tls/"),
            "spec.containers[0].volumeMounts[0].mountPath: /run/flow-dispatcher-tls is for a volume that is added",
        ),
        (
            custom(spec__containers__0__volumeMounts__0__name="x"),
            "spec.containers[0].volumeMounts[0].name: the pod has",
        ),
        (custom(spec__containers__1__image=""), "spec.containers[1].image: is required; only the first container"),
        (custom(spec__containers__1__name="worker"), "spec.containers[1].name: there is another container 'worker'"),
        (
            custom(spec__containers__0__imagePullPolicy="No"),
            "spec.containers[0].imagePullPolicy: must be one of Always",
        ),
        (custom(spec__containers__0__args=["--name", "a"]), "spec.containers[0].args[0]: --name: workers get their n"),
        (
            with_arguments("--nworkers", "2", command=["dask-worker"]),
            "spec.containers[0].args[1]: --nworkers must be 1",
        ),
    ],
)
def test_what_cannot_run_a_worker_is_named_with_its_path(spec: dict[str, Any], expected: str) -> None:
    assert problem(spec).startswith(expected)


def test_all_problems_are_named_at_once() -> None:
    spec = custom(spec__replicas=1, metadata__finalizers=["a/b"], spec__containers__0__nmae="x")
    assert all(path in problem(spec) for path in ("spec.replicas", "metadata.finalizers", "spec.containers[0].nmae"))


def test_values_that_json_does_not_give_back_are_refused() -> None:
    assert "must hold JSON values only" in problem(custom(spec__brandNew=(1,)), allow_unknown_fields=True)


def test_a_pod_that_contains_itself_is_refused() -> None:
    spec = custom()
    spec["spec"]["self"] = spec
    assert problem(spec) == "it contains itself"


def test_fields_of_newer_servers_are_accepted_on_request() -> None:
    spec = custom(spec__brandNew={"x": 1})
    pod = worker_of(build(DaskKubernetesEnvironment(worker_spec=spec, allow_unknown_fields=True)))
    assert pod["spec"]["brandNew"] == {"x": 1}


def test_words_of_others_are_escaped_in_messages() -> None:
    assert "\x1b" not in problem(custom(**{"spec__\x1b[31m": 1}))
    assert "\x1b" not in problem(with_arguments("--\x1b[31m"))


def test_the_seeds_own_files_run_unchanged() -> None:
    environment = DaskKubernetesEnvironment(
        scheduler_spec_file=SEED / "job.yaml", worker_spec_file=SEED / "worker_pod.yaml"
    )
    environment.check()
    request = build(environment)
    job = request["job"]
    assert job["metadata"]["labels"]["app"] == "prefect-dask-job"
    flow = job["spec"]["template"]["spec"]["containers"][0]
    assert flow["command"] == ["python3", "-P", "-m", "dispatcher.runner"]
    assert "args" not in flow
    assert variables(flow)["DASK_DISTRIBUTED__SCHEDULER__BLOCKED_HANDLERS"] == "['feed', 'run_function']"
    pod = worker_of(request)
    assert pod["apiVersion"] == "v1"
    assert pod["metadata"]["labels"]["app"] == "prefect-dask-worker"
    worker = pod["spec"]["containers"][0]
    assert (worker["name"], worker["resources"]["limits"]) == ("dask-worker", {"cpu": "500m"})
    assert worker["image"] == flow["image"]
    assert variables(worker)["PREFECT__DEBUG"] == "true"
    chosen = options(worker)
    assert (chosen["--death-timeout"], chosen["--nthreads"], chosen["--no-dashboard"]) == ("60", "1", "")
    assert "--no-bokeh" not in chosen


def test_a_team_s_file_runs_without_its_replicas(tmp_path: Path) -> None:
    file = tmp_path / "worker.yaml"
    file.write_text(TEAM_WITH_REPLICAS)
    with pytest.raises(InvalidInput, match=r"worker.yaml: spec.replicas: unknown field: a Pod has no replicas"):
        DaskKubernetesEnvironment(worker_spec_file=file)
    file.write_text(TEAM_WITH_REPLICAS.replace("  replicas: 1\n", ""))
    pod = worker_of(build(DaskKubernetesEnvironment(worker_spec_file=file)))
    assert pod["spec"]["restartPolicy"] == "Never"  # a new pod replaces a worker that died
    assert pod["spec"]["imagePullSecrets"] == [{"name": "team-registry"}]
    worker = pod["spec"]["containers"][0]
    assert options(worker)["--memory-limit"] == "12GB"
    assert worker["imagePullPolicy"] == "Always"
    assert worker["resources"] == yaml.safe_load(TEAM_WITH_REPLICAS)["spec"]["containers"][0]["resources"]


def test_the_name_of_a_pod_is_ignored_as_that_of_a_job() -> None:
    assert worker_of(build(DaskKubernetesEnvironment(worker_spec=CUSTOM)))["metadata"]["name"].endswith("-w1")
