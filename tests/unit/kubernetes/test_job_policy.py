"""A worker's settings refuse, by default, what reaches the node, each with its path and its setting."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest

from backends.kubernetes import manifest
from backends.kubernetes.settings import VOLUMES, KubernetesSettings
from dispatcher import Cause, KubernetesJobEnvironment, Settings
from dispatcher.errors import Permanent
from dispatcher.runs.attempt import object_name
from tests.unit.kubernetes.jobs import RUN_ID, attempt

POD = "spec.template.spec"
FLOW = f"{POD}.containers[0]"


def job(pod: dict[str, Any] | None = None, flow: dict[str, Any] | None = None, **template: Any) -> dict[str, Any]:
    """Return a Job with these fields of the pod and of the flow's container."""
    containers = [{"name": "flow", **(flow or {})}]
    spec = {"template": {**template, "spec": {"containers": containers, **(pod or {})}}}
    return {"apiVersion": "batch/v1", "kind": "Job", "spec": spec}


def volume(**source: Any) -> dict[str, Any]:
    return job({"volumes": [{"name": "v", **source}]})


def problem(spec: dict[str, Any] | KubernetesJobEnvironment, **settings: Any) -> str:
    """Return why a worker refuses a run with this Job; empty if it doesn't."""
    environment = spec if isinstance(spec, KubernetesJobEnvironment) else KubernetesJobEnvironment(job_spec=spec)
    try:
        manifest.build(attempt(environment), Settings.load(kubernetes=KubernetesSettings(**settings)))
    except Permanent as error:
        return str(error) if (error.cause, error.reason) == (Cause.CONFIG_ERROR, "Refused") else repr(error)
    return ""


def security(**context: Any) -> dict[str, Any]:
    return job(flow={"securityContext": context})


@pytest.mark.parametrize(
    ("spec", "path", "allowing"),
    [
        (job({"hostNetwork": True}), f"{POD}.hostNetwork", {"allowed_privileges": ["hostNetwork"]}),
        (job({"hostPID": True}), f"{POD}.hostPID", {"allowed_privileges": ["hostPID"]}),
        (job({"hostIPC": True}), f"{POD}.hostIPC", {"allowed_privileges": ["hostIPC"]}),
        (
            job(flow={"ports": [{"containerPort": 80, "hostPort": 80}]}),
            f"{FLOW}.ports[0].hostPort",
            {"allowed_privileges": ["hostPort"]},
        ),
        (security(privileged=True), f"{FLOW}.securityContext.privileged", {"allowed_privileges": ["privileged"]}),
        (
            security(allowPrivilegeEscalation=True),
            f"{FLOW}.securityContext.allowPrivilegeEscalation",
            {"allowed_privileges": ["allowPrivilegeEscalation"]},
        ),
        (
            security(capabilities={"add": ["CAP_NET_ADMIN"]}),
            f"{FLOW}.securityContext.capabilities.add",
            {"allowed_capabilities": ["net_admin"]},
        ),
        (
            security(seccompProfile={"type": "Unconfined"}),
            f"{FLOW}.securityContext.seccompProfile.type",
            {"allowed_privileges": ["unconfined"]},
        ),
        (
            job({"securityContext": {"appArmorProfile": {"type": "Unconfined"}}}),
            f"{POD}.securityContext.appArmorProfile.type",
            {"allowed_privileges": ["unconfined"]},
        ),
        (
            job(metadata={"annotations": {"container.apparmor.security.beta.kubernetes.io/flow": "unconfined"}}),
            "spec.template.metadata.annotations.container.apparmor.security.beta.kubernetes.io/flow",
            {"allowed_privileges": ["unconfined"]},
        ),
        (
            security(seLinuxOptions={"type": "spc_t"}),
            f"{FLOW}.securityContext.seLinuxOptions",
            {"allowed_privileges": ["seLinuxOptions"]},
        ),
        (
            job({"hostUsers": False, "containers": [{"name": "a", "securityContext": {"procMount": "Unmasked"}}]}),
            f"{FLOW}.securityContext.procMount",
            {"allowed_privileges": ["procMount"]},
        ),
        (
            job({"securityContext": {"sysctls": [{"name": "kernel.msgmax", "value": "1"}]}}),
            f"{POD}.securityContext.sysctls[0].name",
            {"allowed_privileges": ["sysctls"]},
        ),
        (
            job({"securityContext": {"windowsOptions": {"hostProcess": True}}}),
            f"{POD}.securityContext.windowsOptions.hostProcess",
            {"allowed_privileges": ["hostProcess"]},
        ),
        (
            job(flow={"livenessProbe": {"httpGet": {"port": 80, "host": "10.0.0.1"}}}),
            f"{FLOW}.livenessProbe.httpGet.host",
            {"allowed_privileges": ["probeHost"]},
        ),
        (
            job(flow={"lifecycle": {"preStop": {"tcpSocket": {"port": 80, "host": "10.0.0.1"}}}}),
            f"{FLOW}.lifecycle.preStop.tcpSocket.host",
            {"allowed_privileges": ["probeHost"]},
        ),
        (volume(hostPath={"path": "/var/run"}), f"{POD}.volumes[0].hostPath.path", {"allowed_host_paths": ["/var"]}),
        (volume(nfs={"server": "s", "path": "/"}), f"{POD}.volumes[0].nfs", {"allowed_volumes": ["nfs", "secret"]}),
        (volume(flexVolume={"driver": "d"}), f"{POD}.volumes[0].flexVolume", {"allowed_volumes": ["flexVolume"]}),
    ],
)
def test_by_default_nothing_reaches_the_node(spec: dict[str, Any], path: str, allowing: dict[str, Any]) -> None:
    """Each is refused with its path and its setting, in every container, and allowed by that setting alone."""
    refusal = problem(spec)
    (setting,) = allowing
    assert refusal.startswith(f"job_spec: {path}: ")
    assert f"DISPATCHER__KUBERNETES__{setting.upper()}" in refusal
    assert not problem(spec, **allowing)
    if "securityContext" in path and path.startswith(FLOW):
        elsewhere = copy.deepcopy(spec)
        pod = elsewhere["spec"]["template"]["spec"]
        pod["initContainers"] = [{**pod["containers"][0], "name": "first", "image": "a:1"}]
        pod["containers"] = [{"name": "flow"}]
        assert problem(elsewhere).startswith(f"job_spec: {path.replace('containers', 'initContainers')}: ")


def test_all_refusals_are_told_at_once() -> None:
    text = problem(job({"hostPID": True, "volumes": [{"name": "v", "hostPath": {"path": "/"}}]}))
    assert f"{POD}.hostPID: " in text
    assert f"{POD}.volumes[0].hostPath.path: '/' isn't allowed: " in text


@pytest.mark.parametrize("kind", ["configMap", "emptyDir", "persistentVolumeClaim", "secret", "projected", "image"])
def test_volumes_that_dont_reach_the_node_are_allowed(kind: str) -> None:
    source = {"persistentVolumeClaim": {"claimName": "c"}, "secret": {"secretName": "s"}, "configMap": {"name": "c"}}
    assert not problem(volume(**{kind: source.get(kind, {})}))


@pytest.mark.parametrize(
    ("path", "allowed"),
    [("/mnt/data", True), ("/mnt/data/", True), ("/mnt/data/a", True), ("//mnt/data", True),
     ("/mnt", False), ("/mnt/database", False), ("/", False), ("mnt/other", False)],
)  # fmt: skip
def test_paths_of_the_node_are_allowed_with_all_below_them(path: str, allowed: bool) -> None:
    assert bool(problem(volume(hostPath={"path": path}), allowed_host_paths=["/mnt/data/"])) is not allowed


def test_a_path_that_leaves_the_allowed_one_is_refused() -> None:
    """The API server refuses ``..`` in any case; a worker doesn't rely on it."""
    spec = volume(hostPath={"path": "/mnt/data/../../etc"})
    environment = {**KubernetesJobEnvironment(image="a:1").to_json(), "job_spec": spec}
    settings = Settings.load(kubernetes=KubernetesSettings(allowed_host_paths=["/mnt/data"]))
    with pytest.raises(Permanent, match="ALLOWED_HOST_PATHS allows /mnt/data"):
        manifest.build(replace(attempt(), environment=environment), settings)


def test_images_are_those_of_the_patterns_and_the_workers_own() -> None:
    images = {"allowed_images": ["registry.example/flows/*"], "image": "runner:1"}
    sidecar = job({"containers": [{"name": "flow"}, {"name": "proxy", "image": "evil:1"}]})
    assert not problem(job(), **images)
    assert not problem(KubernetesJobEnvironment(image="registry.example/flows/etl:1"), **images)
    text = problem(KubernetesJobEnvironment(image="elsewhere/flows/etl:1"), **images)
    assert text == (
        f"job_spec: {FLOW}.image: image elsewhere/flows/etl:1 isn't allowed: "
        "DISPATCHER__KUBERNETES__ALLOWED_IMAGES allows registry.example/flows/*"
    )
    assert f"{POD}.containers[1].image: image evil:1 isn't allowed" in problem(sidecar, **images)
    assert f"{POD}.volumes[0].image.reference: " in problem(volume(image={"reference": "evil:1"}), **images)
    assert not problem(KubernetesJobEnvironment(image="any:1"))


SECRETS: dict[str, dict[str, Any] | KubernetesJobEnvironment] = {
    f"{FLOW}.env[0].valueFrom.secretKeyRef.name": job(
        flow={"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "S", "key": "k"}}}]}
    ),
    f"{FLOW}.envFrom[0].secretRef.name": job(flow={"envFrom": [{"secretRef": {"name": "S"}}]}),
    f"{POD}.volumes[0].secret.secretName": volume(secret={"secretName": "S"}),
    f"{POD}.volumes[0].projected.sources[0].secret.name": volume(projected={"sources": [{"secret": {"name": "S"}}]}),
    f"{POD}.volumes[0].csi.nodePublishSecretRef.name": volume(
        csi={"driver": "d", "nodePublishSecretRef": {"name": "S"}}
    ),
    f"{POD}.volumes[0].azureFile.secretName": volume(azureFile={"secretName": "S", "shareName": "s"}),
    f"{POD}.volumes[0].cephfs.secretRef.name": volume(cephfs={"monitors": ["m"], "secretRef": {"name": "S"}}),
    f"{POD}.imagePullSecrets[0].name": job({"imagePullSecrets": [{"name": "S"}]}),
}


def named(spec: Any, name: str) -> Any:
    """Return the Job with another name of its Secret."""
    if isinstance(spec, dict):
        return {key: named(value, name) for key, value in spec.items()}
    if isinstance(spec, list):
        return [named(value, name) for value in spec]
    return name if spec == "S" else spec


@pytest.mark.parametrize("path", SECRETS)
def test_secrets_are_any_of_the_namespace_or_those_of_the_patterns(path: str) -> None:
    spec = named(SECRETS[path], "team-a")
    volumes = {"allowed_volumes": VOLUMES | {"azureFile", "cephfs"}}
    assert not problem(spec, **volumes)
    assert not problem(spec, allowed_secrets=["team-*"], **volumes)
    refusal = problem(spec, allowed_secrets=["team-b", "registry"], **volumes)
    expected = "Secret team-a isn't allowed: DISPATCHER__KUBERNETES__ALLOWED_SECRETS allows registry, team-b"
    assert refusal == f"job_spec: {path}: {expected}"


@pytest.mark.parametrize("path", SECRETS)
def test_the_credentials_of_other_runs_are_never_allowed(path: str) -> None:
    """Whoever may create Jobs could read them otherwise, and sign results of other people's runs."""
    name = object_name(RUN_ID, 1)
    volumes = {"allowed_volumes": VOLUMES | {"azureFile", "cephfs"}}
    refusal = problem(named(SECRETS[path], name), allowed_secrets=["*"], **volumes)
    assert refusal.startswith(f"job_spec: {path}: Secret {name} holds the credentials of a run's own container")


def test_the_argument_secrets_is_checked_too() -> None:
    environment = KubernetesJobEnvironment(image="a:1", secrets={"TOKEN": "other/token"})
    assert "Secret other isn't allowed" in problem(environment, allowed_secrets=["mine"])


SIGNED = {"signerName": "example.com/a", "keyType": "ED25519", "credentialBundlePath": "c"}
CERTIFICATE = {
    "automountServiceAccountToken": False,
    "volumes": [{"name": "c", "projected": {"sources": [{"podCertificate": SIGNED}]}}],
}

TOKEN = {
    "automountServiceAccountToken": False,
    "volumes": [{"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}],
}


@pytest.mark.parametrize(
    ("pod", "path"),
    [
        ({"serviceAccountName": "etl"}, f"{POD}.serviceAccountName: service account etl"),
        ({"serviceAccount": "etl"}, f"{POD}.serviceAccount: service account etl"),
        ({}, f"{POD}.automountServiceAccountToken: service account default"),
        ({"automountServiceAccountToken": True}, f"{POD}.automountServiceAccountToken: service account default"),
        (TOKEN, f"{POD}.volumes[0].projected.sources[0].serviceAccountToken: service account default"),
        (CERTIFICATE, f"{POD}.volumes[0].projected.sources[0].podCertificate: service account default"),
    ],
)
def test_service_accounts_and_their_tokens_are_those_of_the_setting(pod: dict[str, Any], path: str) -> None:
    assert not problem(job(pod))
    refusal = problem(job(pod), service_accounts=["runner"])
    assert refusal == f"job_spec: {path} isn't allowed: DISPATCHER__KUBERNETES__SERVICE_ACCOUNTS allows runner"
    assert not problem(job(pod), service_accounts=["etl", "default"])


@pytest.mark.parametrize("pod", [{"automountServiceAccountToken": False}, {**TOKEN, "serviceAccountName": "runner"}])
def test_a_pod_without_a_token_uses_no_account(pod: dict[str, Any]) -> None:
    assert not problem(job(pod), service_accounts=["runner"])
    assert not problem(KubernetesJobEnvironment(image="a:1"), service_accounts=["runner"]), "the default pod"


def test_a_stored_request_is_checked_by_the_worker_that_sends_it() -> None:
    """It may be another one than the worker that stored it."""
    spec = job({"hostNetwork": True})
    stored = manifest.build(
        attempt(KubernetesJobEnvironment(job_spec=spec)),
        Settings.load(kubernetes=KubernetesSettings(allowed_privileges=["hostNetwork"])),
    )
    with pytest.raises(Permanent, match=r"hostNetwork: True isn't allowed: DISPATCHER__KUBERNETES__ALLOWED_PRIVILEGES"):
        manifest.check_request(stored, Settings.load())


@pytest.mark.parametrize(
    ("spec", "path"),
    [
        (job({"initContainers": [None]}), f"{POD}.initContainers[0]: must not be null"),
        (job({"volumes": "all"}), f"{POD}.volumes: must be a list"),
        ({"apiVersion": "batch/v1", "kind": "Job", "spec": 3}, f"{POD}.containers: needs a container"),
        (job(flow={"securityContext": True}), f"{FLOW}.securityContext: must be a mapping"),
    ],
)
def test_a_job_that_its_submitter_did_not_check_ends_with_its_path(spec: dict[str, Any], path: str) -> None:
    environment = {**KubernetesJobEnvironment(image="a:1").to_json(), "job_spec": spec}
    with pytest.raises(Permanent, match="job_spec: ") as raised:
        manifest.build(replace(attempt(), environment=environment), Settings.load())
    assert path in str(raised.value)
    assert raised.value.cause is Cause.CONFIG_ERROR
