"""The policy of a worker's settings holds for Jobs and for workers' pods alike."""

from __future__ import annotations

from typing import Any

import pytest

from backends.dask_kubernetes import manifest
from dispatcher import Cause, DaskKubernetesEnvironment, KubernetesJobEnvironment
from dispatcher.errors import InvalidInput, Permanent
from tests.unit.dask_kubernetes.pods import attempt_in, build, custom, settings
from tests.unit.kubernetes.jobs import custom as custom_job

WORKER = "spec.containers[0]"


def volume(**source: Any) -> dict[str, Any]:
    return custom(spec__volumes=[{"name": "models", **source}])


def security(**context: Any) -> dict[str, Any]:
    return custom(spec__containers__0__securityContext=context)


@pytest.mark.parametrize(
    ("spec", "path", "allowing"),
    [
        (custom(spec__hostNetwork=True), "spec.hostNetwork", {"allowed_privileges": ["hostNetwork"]}),
        (security(privileged=True), f"{WORKER}.securityContext.privileged", {"allowed_privileges": ["privileged"]}),
        (
            security(capabilities={"add": ["NET_ADMIN"]}),
            f"{WORKER}.securityContext.capabilities.add",
            {"allowed_capabilities": ["NET_ADMIN"]},
        ),
        (volume(hostPath={"path": "/etc"}), "spec.volumes[0].hostPath.path", {"allowed_host_paths": ["/etc"]}),
        (
            volume(nfs={"server": "s", "path": "/"}),
            "spec.volumes[0].nfs",
            {"allowed_volumes": ["nfs", "emptyDir", "secret"]},
        ),
    ],
)
def test_what_reaches_the_node_is_refused_with_path_and_setting(
    spec: dict[str, Any], path: str, allowing: dict[str, Any]
) -> None:
    environment = DaskKubernetesEnvironment(worker_spec=spec)
    with pytest.raises(Permanent) as raised:
        build(environment)
    assert str(raised.value).startswith(f"worker_spec: {path}: ")
    assert f"DISPATCHER__KUBERNETES__{next(iter(allowing)).upper()}" in str(raised.value)
    assert (raised.value.cause, raised.value.reason) == (Cause.CONFIG_ERROR, "Refused")
    build(environment, worker=settings(**allowing))


@pytest.mark.parametrize(
    ("spec", "problem", "limits"),
    [
        (custom(), "spec.initContainers[0].image: image busybox:1", {"allowed_images": ["proxy:*", "flow-*"]}),
        (
            custom(spec__containers__0__envFrom=[{"secretRef": {"name": "mine"}}]),
            f"{WORKER}.envFrom[0].secretRef.name: Secret mine",
            {"allowed_secrets": ["flows-*"]},
        ),
        (
            custom(spec__serviceAccountName="admin"),
            "spec.serviceAccountName: service account admin",
            {"service_accounts": ["flows"]},
        ),
        (
            custom(spec__automountServiceAccountToken=True),
            "spec.automountServiceAccountToken: service account default",
            {"service_accounts": ["flows"]},
        ),
    ],
)
def test_what_settings_limit_is_limited_for_workers(spec: dict[str, Any], problem: str, limits: dict[str, Any]) -> None:
    environment = DaskKubernetesEnvironment(worker_spec=spec)
    build(environment, worker=settings(service_accounts=["default", "admin"]))
    limits = {"service_accounts": ["default"], **limits}
    with pytest.raises(Permanent) as raised:
        build(environment, worker=settings(**limits))
    assert f"worker_spec: {problem} isn't allowed" in str(raised.value)


def test_a_default_pod_fits_the_strictest_settings() -> None:
    build(worker=settings(service_accounts=["flows"], allowed_images=["none"], allowed_secrets=["none"]))


@pytest.mark.parametrize("suffix", ["", "-tls"])
def test_no_pod_may_name_the_secret_of_a_run(suffix: str) -> None:
    name = f"flow-01jdzr6m8w4n5q7t9v2x3y4z5a-0123abcd-1{suffix}"
    environment = DaskKubernetesEnvironment(worker_spec=volume(secret={"secretName": name}))
    with pytest.raises(Permanent, match=rf"worker_spec: .*Secret {name} holds the credentials of a run's own"):
        build(environment, worker=settings())


def test_job_and_pod_are_judged_at_once() -> None:
    environment = DaskKubernetesEnvironment(
        scheduler_spec=custom_job(spec__template__spec__hostPID=True, metadata__namespace="default"),
        worker_spec=custom(spec__hostIPC=True),
    )
    with pytest.raises(Permanent) as raised:
        build(environment)
    assert "scheduler_spec: spec.template.spec.hostPID: True isn't allowed" in str(raised.value)
    assert "worker_spec: spec.hostIPC: True isn't allowed" in str(raised.value)
    request = manifest.draft(attempt_in(environment), settings())
    assert len(manifest.objections(request, settings())) == 2


@pytest.mark.parametrize("name", ["dispatcher-tls", "dispatcher-scratch", "dispatcher-run"])
def test_no_volume_of_a_job_hides_behind_the_name_of_ours(name: str) -> None:
    """The policy passes over these volumes."""
    job = custom_job(spec__template__spec__volumes=[{"name": name, "hostPath": {"path": "/"}}])
    with pytest.raises(InvalidInput, match=f"{name} is the name of a volume that is added to pods"):
        KubernetesJobEnvironment(job_spec=job)
    with pytest.raises(InvalidInput, match=f"{name} is the name of a volume that is added to pods"):
        DaskKubernetesEnvironment(scheduler_spec=job)
