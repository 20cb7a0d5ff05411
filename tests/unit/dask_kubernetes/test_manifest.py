"""The request of an attempt with a Dask cluster: its Job, its workers' pods, the TLS Secret and the network policy."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from backends.dask_kubernetes import manifest
from backends.kubernetes import manifest as jobs
from dispatcher import Cause, DaskKubernetesEnvironment, KubernetesJobEnvironment
from dispatcher.errors import Permanent
from dispatcher.runs.attempt import object_name
from tests.unit.dask_kubernetes.pods import (
    CUSTOM,
    UID,
    build,
    custom,
    options,
    settings,
    variables,
    with_arguments,
    worker_of,
)
from tests.unit.kubernetes.jobs import CUSTOM as JOB
from tests.unit.kubernetes.jobs import RUN_ID, attempt
from tests.unit.kubernetes.jobs import custom as custom_job

NAME = object_name(RUN_ID, 2)
CERT, KEY = "/var/run/flow-dispatcher-tls/cert.pem", "/var/run/flow-dispatcher-tls/key.pem"


def flow_pod(request: Any) -> Any:
    return request["job"]["spec"]["template"]["spec"]


def annotations_of(manifest: Any) -> Any:
    return manifest["metadata"]["annotations"]


def test_the_job_is_that_of_a_flow_with_the_clusters_certificate() -> None:
    request = build(DaskKubernetesEnvironment(scheduler_spec=JOB))
    plain = jobs.build(attempt(KubernetesJobEnvironment(job_spec=JOB)), settings())
    pod = copy.deepcopy(flow_pod(plain))
    pod["containers"][0]["env"] += [
        {"name": "DISPATCHER__RUN__TLS_CERT", "value": CERT},
        {"name": "DISPATCHER__RUN__TLS_KEY", "value": KEY},
        {"name": "DISPATCHER__RUN__NO_WORKERS_TIMEOUT", "value": "300"},
    ]
    mount = {"name": "dispatcher-tls", "mountPath": "/var/run/flow-dispatcher-tls", "readOnly": True}
    pod["containers"][0]["volumeMounts"].append(mount)
    secret = {"secretName": f"{NAME}-tls", "optional": False, "defaultMode": 0o444}
    pod["volumes"].append({"name": "dispatcher-tls", "secret": secret})
    assert flow_pod(request) == pod
    for field in ("namespace", "container", "cluster"):
        assert request[field] == plain[field]
    assert request["digest"] == jobs.digest(request["job"]) == annotations_of(request["job"])["flow-dispatcher/digest"]


def test_the_request_says_how_many_workers_there_are() -> None:
    workers = build(DaskKubernetesEnvironment(0, 5))["workers"]
    assert (workers["min"], workers["max"], workers["container"]) == (0, 5, "dask-worker")
    assert workers["digest"] == jobs.digest(workers["pod"])


def test_a_request_is_json_and_holds_no_secret() -> None:
    request = build(DaskKubernetesEnvironment(worker_spec=CUSTOM, secrets={"TOKEN": "credentials/token"}))
    assert json.loads(json.dumps(request)) == request
    assert request == build(DaskKubernetesEnvironment(worker_spec=CUSTOM, secrets={"TOKEN": "credentials/token"}))


def test_a_worker_is_owned_by_the_job_and_named_by_it() -> None:
    request = build(DaskKubernetesEnvironment(worker_spec=CUSTOM))
    pod = worker_of(request, "w12")
    metadata = pod["metadata"]
    assert (metadata["name"], metadata["namespace"]) == (f"{NAME}-w12", "default")
    assert metadata["ownerReferences"] == [{"apiVersion": "batch/v1", "kind": "Job", "name": NAME, "uid": UID}]
    for label in ("identifier", "flow_run_id", "attempt", "instance"):
        assert metadata["labels"][label] == request["job"]["metadata"]["labels"][label]
    assert (metadata["labels"]["app"], metadata["labels"]["dask-worker"]) == ("etl", "w12")
    assert metadata["annotations"]["note"] == "kept"
    assert metadata["annotations"]["flow-dispatcher/run"] == RUN_ID
    assert metadata["annotations"]["flow-dispatcher/digest"] == request["workers"]["digest"]
    assert options(pod["spec"]["containers"][0])["--name"] == "w12"
    assert len(manifest.worker_pod_name(request, "w999999")) <= 63


def test_workers_differ_by_name_alone() -> None:
    request = build()
    before = copy.deepcopy(request)
    texts = {json.dumps(worker_of(request, name)).replace(name, "NAME") for name in ("w1", "w2")}
    assert len(texts) == 1
    assert request == before


@pytest.mark.parametrize(("address", "url"), [("10.0.0.7", "tls://10.0.0.7:8786"), ("fd00::7", "tls://[fd00::7]:8786")])
def test_a_worker_is_told_the_address_of_the_flows_pod(address: str, url: str) -> None:
    spec = custom(spec__containers__0__env=[{"name": "DASK_SCHEDULER_ADDRESS", "value": "tcp://mine:1"}])
    request = build(DaskKubernetesEnvironment(worker_spec=spec))
    pod = manifest.worker_pod(request, name="w1", job_uid=UID, address=address)
    assert variables(pod["spec"]["containers"][0])["DASK_SCHEDULER_ADDRESS"] == url


def test_a_workers_connections_are_encrypted() -> None:
    pod = worker_of(build(DaskKubernetesEnvironment(worker_spec=CUSTOM)))
    worker = pod["spec"]["containers"][0]
    env = variables(worker)
    assert env["DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION"] == "True"
    assert env["DASK_DISTRIBUTED__COMM__TLS__CA_FILE"] == CERT
    for role in ("SCHEDULER", "WORKER", "CLIENT"):
        assert env[f"DASK_DISTRIBUTED__COMM__TLS__{role}__CERT"] == CERT
        assert env[f"DASK_DISTRIBUTED__COMM__TLS__{role}__KEY"] == KEY
    assert worker["volumeMounts"][-1] == {
        "name": "dispatcher-tls", "mountPath": "/var/run/flow-dispatcher-tls", "readOnly": True,
    }  # fmt: skip
    assert pod["spec"]["volumes"][-1]["secret"]["secretName"] == f"{NAME}-tls"


def test_a_worker_gets_no_credential_of_the_run() -> None:
    pod = worker_of(build())
    secrets = [volume["secret"]["secretName"] for volume in pod["spec"]["volumes"] if "secret" in volume]
    assert secrets == [f"{NAME}-tls"]
    names = variables(pod["spec"]["containers"][0])
    assert not {"DISPATCHER__RUN__SECRETS_FILE", "DISPATCHER__RUN__TOKEN", "DISPATCHER__URL"} & set(names)
    assert names["DISPATCHER__RUN__ID"] == RUN_ID


def test_the_command_of_a_worker() -> None:
    worker = worker_of(build(DaskKubernetesEnvironment(worker_spec=CUSTOM)))["spec"]["containers"][0]
    assert worker["command"] == [
        "python3", "-P", "-m", "distributed.cli.dask_worker", "--no-nanny", "--no-dashboard",
        "--dashboard-address", "127.0.0.1:0", "--preload", "dispatcher.executors.dask_cluster.worker_life",
        "--memory-limit", "4000000000", "--death-timeout", "60", "--local-directory", "/tmp/dask-worker",
        "--nthreads", "3", "--resources", "GPU=1",
        "--name", "w1",
    ]  # fmt: skip
    assert "args" not in worker


@pytest.mark.parametrize(
    ("resources", "threads", "memory"),
    [
        ({"limits": {"cpu": "2", "memory": "4Gi"}, "requests": {"cpu": "1", "memory": "1Gi"}}, "2", str(4 * 2**30)),
        ({"requests": {"cpu": "1500m", "memory": "1500M"}}, "2", "1500000000"),
        ({"limits": {"cpu": "100m"}, "requests": {"memory": "1Gi"}}, "1", str(2**30)),
        ({"limits": {"cpu": 4}}, "4", "auto"),
        ({"limits": {"cpu": 2.0, "memory": 2**31}}, "2", str(2**31)),
        ({"limits": {"cpu": "0", "memory": "0"}}, "1", "auto"),
        ({}, "1", "auto"),
        (None, "1", "auto"),
    ],
)
def test_threads_and_memory_are_the_containers(resources: Any, threads: str, memory: str) -> None:
    """Left alone, each worker would take all of its node. ``auto`` is the threads' share of the node's memory."""
    request = build(DaskKubernetesEnvironment(worker_spec=with_arguments("dask-worker", resources=resources)))
    chosen = options(worker_of(request)["spec"]["containers"][0])
    assert (chosen["--nthreads"], chosen["--memory-limit"]) == (threads, memory)


def test_threads_and_memory_of_a_whole_pod_count_where_its_container_has_none() -> None:
    spec = with_arguments("dask-worker")
    spec["spec"]["resources"] = {"limits": {"cpu": "2", "memory": "2Gi"}}
    chosen = options(worker_of(build(DaskKubernetesEnvironment(worker_spec=spec)))["spec"]["containers"][0])
    assert (chosen["--nthreads"], chosen["--memory-limit"]) == ("2", str(2 * 2**30))


def test_worker_resources_go_before_the_pods_and_leave_the_flow_alone() -> None:
    of_worker, of_flow = {"limits": {"cpu": "3", "memory": "2Gi"}}, {"requests": {"cpu": "2"}}
    request = build(DaskKubernetesEnvironment(worker_spec=CUSTOM, worker_resources=of_worker, resources=of_flow))
    worker = worker_of(request)["spec"]["containers"][0]
    assert worker["resources"] == of_worker
    assert options(worker)["--memory-limit"] == str(2 * 2**30)
    assert flow_pod(request)["containers"][0]["resources"] == of_flow


def test_the_users_options_go_before_ours() -> None:
    spec = with_arguments("--death-timeout", "30", "--local-directory", "/data", "--preload", "mine")
    worker = worker_of(build(DaskKubernetesEnvironment(worker_spec=spec)))["spec"]["containers"][0]
    chosen = options(worker)
    assert (chosen["--death-timeout"], chosen["--local-directory"]) == ("30", "/data")
    preloads = [worker["command"][i + 1] for i, word in enumerate(worker["command"]) if word == "--preload"]
    assert preloads == ["dispatcher.executors.dask_cluster.worker_life", "mine"]


def test_the_rest_of_a_pod_is_kept() -> None:
    pod = worker_of(build(DaskKubernetesEnvironment(worker_spec=CUSTOM)))["spec"]
    written = CUSTOM["spec"]
    assert (pod["tolerations"], pod["nodeSelector"]) == (written["tolerations"], written["nodeSelector"])
    assert pod["containers"][1]["image"] == "proxy:1"
    assert pod["volumes"][0] == written["volumes"][0]
    assert pod["containers"][0]["volumeMounts"][0] == written["containers"][0]["volumeMounts"][0]
    assert variables(pod["containers"][0])["MINE"] == "1"
    assert pod["initContainers"][0]["env"] == [
        {"name": "DISPATCHER__RUN__ID", "value": RUN_ID}, {"name": "DISPATCHER__RUN__ATTEMPT", "value": "2"},
    ]  # fmt: skip


def test_a_worker_computes_with_one_thread_per_task_unless_its_pod_says_otherwise() -> None:
    """``dask worker`` does so by its nanny, which isn't started."""
    env = variables(worker_of(build())["spec"]["containers"][0])
    assert env["OMP_NUM_THREADS"] == env["MKL_NUM_THREADS"] == env["OPENBLAS_NUM_THREADS"] == "1"
    assert env["MALLOC_TRIM_THRESHOLD_"] == "65536"
    env = variables(worker_of(build(DaskKubernetesEnvironment(worker_spec=CUSTOM)))["spec"]["containers"][0])
    assert (env["OMP_NUM_THREADS"], env["MKL_NUM_THREADS"]) == ("4", "1")
    env = variables(worker_of(build(DaskKubernetesEnvironment(env={"OMP_NUM_THREADS": "8"})))["spec"]["containers"][0])
    assert env["OMP_NUM_THREADS"] == "8"


def test_variables_reach_flow_and_workers() -> None:
    environment = DaskKubernetesEnvironment(
        worker_spec=CUSTOM, scheduler_spec=JOB, env={"MINE": "2"}, secrets={"TOKEN": "credentials/token"}
    )
    request = build(environment)
    for container in (flow_pod(request)["containers"][0], worker_of(request)["spec"]["containers"][0]):
        assert variables(container)["MINE"] == "2"
        assert variables(container)["TOKEN"] == {"secretKeyRef": {"name": "credentials", "key": "token"}}


@pytest.mark.parametrize("specs", [{}, {"worker_spec": CUSTOM, "scheduler_spec": JOB}], ids=["default", "custom"])
def test_image_pull_policy_and_pull_secrets_reach_flow_and_workers(specs: dict[str, Any]) -> None:
    environment = DaskKubernetesEnvironment(
        image="registry.example/flows:1", image_pull_secrets=["registry"], image_pull_policy="Always", **specs
    )
    request = build(environment)
    for pod in (flow_pod(request), worker_of(request)["spec"]):
        assert pod["imagePullSecrets"] == [{"name": "registry"}]
        assert pod["containers"][0]["image"] == "registry.example/flows:1"
        assert pod["containers"][0]["imagePullPolicy"] == "Always"


def test_pull_secrets_of_the_job_count_for_workers_whose_pod_has_none() -> None:
    job = custom_job(spec__template__spec__imagePullSecrets=[{"name": "of-job"}])
    request = build(DaskKubernetesEnvironment(scheduler_spec=job))
    assert worker_of(request)["spec"]["imagePullSecrets"] == [{"name": "of-job"}]
    own = custom(spec__imagePullSecrets=[{"name": "of-pod"}])
    request = build(DaskKubernetesEnvironment(scheduler_spec=job, worker_spec=own))
    assert worker_of(request)["spec"]["imagePullSecrets"][0] == {"name": "of-pod"}


def test_the_image_is_the_flows() -> None:
    job = custom_job(spec__template__spec__containers__0__image="of-job:1")
    request = build(DaskKubernetesEnvironment(scheduler_spec=job, worker_spec=CUSTOM), worker=settings(image="ours:1"))
    assert worker_of(request)["spec"]["containers"][0]["image"] == "of-job:1"
    request = build(DaskKubernetesEnvironment(worker_spec=CUSTOM), worker=settings(image="ours:1"))
    assert worker_of(request)["spec"]["containers"][0]["image"] == "ours:1"


@pytest.mark.parametrize(("written", "sent"), [(None, 10), (30, 10), (3, 3), (0, 0)])
def test_the_grace_of_a_worker_is_short(written: int | None, sent: int) -> None:
    spec = custom(spec__terminationGracePeriodSeconds=written)
    pod = worker_of(build(DaskKubernetesEnvironment(worker_spec=spec)))
    assert pod["spec"]["terminationGracePeriodSeconds"] == sent


@pytest.mark.parametrize(
    ("changes", "token"),
    [
        ({}, False),
        ({"spec__automountServiceAccountToken": True}, True),
        ({"spec__serviceAccountName": "etl"}, None),
        ({"spec__serviceAccount": "etl"}, None),
    ],
)
def test_a_worker_gets_a_token_only_where_its_pod_asks_for_one(changes: dict[str, Any], token: bool | None) -> None:
    pod = worker_of(build(DaskKubernetesEnvironment(worker_spec=custom(**changes))))
    assert pod["spec"].get("automountServiceAccountToken") is token


def test_temporary_files_have_a_place_where_the_root_is_read_only() -> None:
    pod = worker_of(build(DaskKubernetesEnvironment(worker_spec=CUSTOM)))["spec"]
    assert {"name": "dispatcher-scratch", "mountPath": "/tmp"} in pod["containers"][0]["volumeMounts"]
    assert {"name": "dispatcher-scratch", "emptyDir": {}} in pod["volumes"]
    own = custom(spec__containers__0__volumeMounts__0__mountPath="/tmp/")
    pod = worker_of(build(DaskKubernetesEnvironment(worker_spec=own)))["spec"]
    assert [mount["name"] for mount in pod["containers"][0]["volumeMounts"]] == ["models", "dispatcher-tls"]


def test_the_default_pods_pass_pod_security_restricted() -> None:
    request = build()
    for pod in (flow_pod(request), worker_of(request)["spec"]):
        context, container = pod["securityContext"], pod["containers"][0]
        assert context["runAsNonRoot"] is True
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert {next(kind for kind in volume if kind != "name") for volume in pod["volumes"]} <= {"emptyDir", "secret"}
        assert pod["automountServiceAccountToken"] is False
        mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
        assert {"/tmp", "/scratch/home"} <= mounts  # so that the root may be read-only
        assert variables(container)["HOME"] == "/scratch/home"
        assert "limits" not in container["resources"]


def test_the_tls_secret_holds_the_certificate_alone_and_belongs_to_the_job() -> None:
    request = build()
    secret = manifest.tls_secret(request, UID, "CERTIFICATE", "PRIVATE")
    assert secret["stringData"] == {"cert.pem": "CERTIFICATE", "key.pem": "PRIVATE"}
    assert secret["metadata"]["name"] == f"{NAME}-tls"
    assert secret["metadata"]["ownerReferences"] == [
        {"apiVersion": "batch/v1", "kind": "Job", "name": NAME, "uid": UID}
    ]
    assert secret["metadata"]["labels"]["instance"] == "inst"
    assert secret["immutable"] is True


def test_the_network_policy_lets_only_pods_of_the_attempt_in() -> None:
    request = build()
    policy = manifest.network_policy(request, UID)
    selector = {"podSelector": {"matchLabels": {"identifier": request["job"]["metadata"]["labels"]["identifier"]}}}
    assert policy["spec"] == {**selector, "policyTypes": ["Ingress"], "ingress": [{"from": [selector]}]}
    assert policy["metadata"]["ownerReferences"][0]["uid"] == UID
    assert (
        worker_of(request)["metadata"]["labels"]["identifier"] == selector["podSelector"]["matchLabels"]["identifier"]
    )


def test_workers_are_in_the_namespace_of_their_job() -> None:
    request = build(DaskKubernetesEnvironment(namespace="team", worker_spec=custom(metadata__namespace="team")))
    assert worker_of(request)["metadata"]["namespace"] == "team"
    with pytest.raises(Permanent, match=r"worker_spec: metadata.namespace: team: workers are in .* Job, default"):
        build(DaskKubernetesEnvironment(worker_spec=custom(metadata__namespace="team")))


@pytest.mark.parametrize(
    "numbers", [{"min_workers": "1"}, {"max_workers": None}, {"min_workers": 9}, {"min_workers": -1}]
)
def test_numbers_that_no_environment_has_are_refused(numbers: dict[str, Any]) -> None:
    with pytest.raises(Permanent, match="must be whole numbers, 0 ≤ min ≤ max"):
        build({**DaskKubernetesEnvironment().to_json(), **numbers})


def test_a_stored_request_is_checked_before_it_is_sent() -> None:
    request = build(DaskKubernetesEnvironment(worker_spec=CUSTOM))
    manifest.check_request(request, settings())
    for path in ("spec.containers.0.image", "metadata.labels.identifier", "metadata.namespace"):
        changed = copy.deepcopy(request)
        *parents, last = path.split(".")
        parent = changed["workers"]["pod"]
        for part in parents:
            parent = parent[int(part)] if part.isdigit() else parent[part]
        parent[last] = "other"
        with pytest.raises(Permanent, match="its workers' pod doesn't match the request") as raised:
            manifest.check_request(changed, settings())
        assert raised.value.cause is Cause.CONFIG_ERROR
    with pytest.raises(Permanent, match="its labels or digest don't match"):
        manifest.check_request({**request, "digest": "other"}, settings())
    with pytest.raises(Permanent, match=r"worker_spec: spec.containers\[1\].image: image proxy:1 isn't allowed"):
        manifest.check_request(request, settings(allowed_images={"flow-*", "busybox:1"}))


def test_a_pod_is_recognised_as_made_by_a_request() -> None:
    request = build()
    metadata = worker_of(request)["metadata"]
    assert manifest.was_created_by(metadata, request, name="w1", job_uid=UID)
    assert not manifest.was_created_by(metadata, request, name="w2", job_uid=UID)
    assert not manifest.was_created_by(metadata, request, name="w1", job_uid="another")
    assert not manifest.was_created_by(metadata, build(number=3), name="w1", job_uid=UID)
    for field in ("labels", "annotations", "ownerReferences"):
        assert not manifest.was_created_by({**metadata, field: None}, request, name="w1", job_uid=UID)


def test_the_setting_for_tasks_that_find_no_worker_reaches_the_runner() -> None:
    request = build(worker=settings(no_workers_timeout=2.5))
    assert variables(flow_pod(request)["containers"][0])["DISPATCHER__RUN__NO_WORKERS_TIMEOUT"] == "2.5"
