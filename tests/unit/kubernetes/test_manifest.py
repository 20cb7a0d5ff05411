"""The Job of an attempt: fields set and fields kept, its digest, and its Secret."""

from __future__ import annotations

import copy
import json
import re
from typing import Any

import pytest

from backends.kubernetes import manifest
from backends.kubernetes.settings import ClusterSettings, KubernetesSettings
from dispatcher import Cause, KubernetesJobEnvironment, Settings
from dispatcher.errors import Permanent
from dispatcher.runs.attempt import object_name
from dispatcher.settings import TimingSettings
from tests.unit.kubernetes.jobs import CUSTOM, RUN_ID, attempt, custom


def settings(**kubernetes: Any) -> Settings:
    return Settings.load(kubernetes=KubernetesSettings(**{"namespaces": ("default", "team"), **kubernetes}))


def build(
    environment: KubernetesJobEnvironment | None = None, *, worker: Settings | None = None, **changes: Any
) -> Any:
    return manifest.build(attempt(environment, **changes), worker or settings())


def pod_of(request: Any) -> Any:
    return request["job"]["spec"]["template"]["spec"]


def variables(container: Any) -> dict[str, Any]:
    values = {entry["name"]: entry.get("value", entry.get("valueFrom")) for entry in container["env"]}
    assert len(values) == len(container["env"])  # each once
    return values


def test_names_labels_and_annotations() -> None:
    request = build()
    job = request["job"]
    assert job["metadata"]["name"] == object_name(RUN_ID, 2)
    assert "generateName" not in job["metadata"]
    for metadata in (job["metadata"], job["spec"]["template"]["metadata"]):
        labels = metadata["labels"]
        assert (labels["flow_run_id"], labels["attempt"], labels["instance"]) == (RUN_ID, "2", "inst")
        assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", labels["identifier"])
        assert metadata["annotations"]["flow-dispatcher/run"] == RUN_ID
        assert metadata["annotations"]["flow-dispatcher/flow"] == "word count, “quoted”"


def test_the_identifier_is_one_per_job() -> None:
    def identifier(**changes: Any) -> Any:
        return build(**changes)["job"]["metadata"]["labels"]["identifier"]

    assert identifier() == identifier()
    assert len({identifier(), identifier(number=3), identifier(run_id="another")}) == 3


@pytest.mark.parametrize("text", ["a" * 64, "with space", "-x", "x-", "ü", ""])
def test_an_invalid_label_value_is_replaced_by_a_digest(text: str) -> None:
    value = build(run_id=text)["job"]["metadata"]["labels"]["flow_run_id"]
    assert re.fullmatch(r"[0-9a-f]{40}", value)
    assert build(run_id=text)["job"]["metadata"]["annotations"]["flow-dispatcher/run"] == text


def test_fields_set_in_every_job() -> None:
    spec = build(KubernetesJobEnvironment(job_spec=CUSTOM))["job"]["spec"]
    assert "suspend" not in spec
    assert spec["backoffLimit"] == 0
    assert spec["podReplacementPolicy"] == "Failed"
    assert spec["template"]["spec"]["restartPolicy"] == "Never"


@pytest.mark.parametrize(("value", "expected"), [(None, 86400), (0, 3600), (60, 3600), (7200, 7200), (10**6, 10**6)])
def test_the_job_is_kept_for_an_hour_at_least(value: int | None, expected: int) -> None:
    spec = custom(spec__ttlSecondsAfterFinished=value)
    assert build(KubernetesJobEnvironment(job_spec=spec))["job"]["spec"]["ttlSecondsAfterFinished"] == expected
    worker = settings(ttl=7200)
    assert manifest.build(attempt(), worker)["job"]["spec"]["ttlSecondsAfterFinished"] == 7200


@pytest.mark.parametrize(("value", "expected"), [(None, 105), (30, 105), (600, 600)])
def test_the_grace_is_raised_where_it_is_lower(value: int | None, expected: int) -> None:
    spec = custom(spec__template__spec__terminationGracePeriodSeconds=value)
    pod = pod_of(build(KubernetesJobEnvironment(job_spec=spec)))
    assert pod["terminationGracePeriodSeconds"] == expected
    assert variables(pod["containers"][0])["DISPATCHER__RUN__GRACE"] == str(expected)
    worker = settings().but(timing=TimingSettings(stop_grace=1, on_exit_timeout=2))
    assert pod_of(build(worker=worker))["terminationGracePeriodSeconds"] == 5


@pytest.mark.parametrize(
    ("own", "timeout", "start_within", "deadline"),
    [
        (None, None, None, None),
        (None, 60, None, None),
        (None, None, 60, None),
        (None, 60, 30.5, 256),
        (10, None, None, 10),
        (10, 60, 30.5, 10),
        (1000, 60, 30.5, 256),
        (None, 9e9, 9e9, 2**63 // 10**9),  # the Job's controller counts nanoseconds in 64 bits
    ],
)
def test_the_deadline_is_the_users_or_a_backstop_that_comes_earlier(
    own: int | None, timeout: Any, start_within: Any, deadline: int | None
) -> None:
    spec = custom(spec__activeDeadlineSeconds=own)
    job = build(KubernetesJobEnvironment(job_spec=spec), timeout=timeout, start_within=start_within)["job"]
    assert job["spec"].get("activeDeadlineSeconds") == deadline


def test_a_variable_that_is_overridden_keeps_its_place() -> None:
    """Later variables of the Job may refer to it."""
    written = [
        {"name": "ROOT", "value": "/a"},
        {"name": "DATA", "value": "$(ROOT)/data"},
        {"name": "ROOT", "value": "b"},
    ]
    spec = custom(spec__template__spec__containers__0__env=written)
    flow = pod_of(build(KubernetesJobEnvironment(job_spec=spec, env={"NEW": "1", "ROOT": "/mine"})))["containers"][0]
    assert list(variables(flow).items())[:2] == [("ROOT", "/mine"), ("DATA", "$(ROOT)/data")]
    assert variables(flow)["NEW"] == "1"


def test_the_flows_container_is_the_first_and_is_ours() -> None:
    request = build(KubernetesJobEnvironment(job_spec=CUSTOM), worker=settings(image="runner:3"))
    flow = pod_of(request)["containers"][0]
    assert request["container"] == flow["name"] == "flow-container"
    assert flow["image"] == "runner:3"
    assert flow["command"] == ["python3", "-P", "-m", "dispatcher.runner"]
    assert "args" not in flow
    assert flow["terminationMessagePath"] == "/dev/termination-log"
    env = variables(flow)
    assert env["MY_ENV"] == "foo"
    assert env["DISPATCHER__RUN__ID"] == RUN_ID
    assert env["DISPATCHER__RUN__UID"] == {"fieldRef": {"fieldPath": "metadata.uid"}}
    assert env["DISPATCHER__RUN__LAST_WORDS"] == flow["terminationMessagePath"]


def test_all_containers_get_the_variables_that_are_not_secret() -> None:
    pod = pod_of(build(KubernetesJobEnvironment(job_spec=CUSTOM)))
    for container in (*pod["containers"], *pod["initContainers"]):
        assert variables(container)["DISPATCHER__RUN__ATTEMPT"] == "2"


def test_only_the_flows_container_gets_the_credential() -> None:
    request = build(KubernetesJobEnvironment(job_spec=CUSTOM))
    pod = pod_of(request)
    (volume,) = [volume for volume in pod["volumes"] if "secret" in volume]
    assert volume["secret"]["secretName"] == request["job"]["metadata"]["name"]
    assert volume["secret"]["optional"] is False
    holders = [
        container["name"]
        for container in (*pod["containers"], *pod["initContainers"])
        if any(mount["name"] == volume["name"] for mount in container.get("volumeMounts", ()))
    ]
    assert holders == ["flow-container"]
    (mount,) = [mount for mount in pod["containers"][0]["volumeMounts"] if mount["name"] == volume["name"]]
    assert variables(pod["containers"][0])["DISPATCHER__RUN__SECRETS_FILE"].startswith(mount["mountPath"] + "/")


def test_everything_else_is_kept() -> None:
    job = build(KubernetesJobEnvironment(job_spec=CUSTOM))["job"]
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "lq"
    assert job["metadata"]["annotations"]["note"] == "kept"
    assert job["spec"]["template"]["metadata"]["labels"]["app"] == "etl"
    pod = job["spec"]["template"]["spec"]
    own = CUSTOM["spec"]["template"]["spec"]
    assert pod["serviceAccountName"] == "etl"
    assert pod["tolerations"] == own["tolerations"]
    assert pod["volumes"][0] == own["volumes"][0]
    assert pod["containers"][0]["resources"] == own["containers"][0]["resources"]
    assert pod["containers"][0]["volumeMounts"][0] == own["containers"][0]["volumeMounts"][0]
    side_car = copy.deepcopy(pod["containers"][1])
    del side_car["env"]
    assert side_car == own["containers"][1]


def test_arguments_override_the_spec() -> None:
    environment = KubernetesJobEnvironment(
        job_spec=custom(spec__template__spec__imagePullSecrets=[{"name": "theirs"}]),
        image="mine:1",
        image_pull_secrets=["a", "b"],
        image_pull_policy="Always",
        namespace="default",
        resources={"requests": {"cpu": "3"}},
        env={"MY_ENV": "bar", "NEW": "1"},
        secrets={"TOKEN": "credentials/token.txt"},
    )
    request = build(environment)
    pod = pod_of(request)
    flow = pod["containers"][0]
    assert request["namespace"] == request["job"]["metadata"]["namespace"] == "default"
    assert pod["imagePullSecrets"] == [{"name": "a"}, {"name": "b"}]
    assert (flow["image"], flow["imagePullPolicy"], flow["resources"]) == (
        "mine:1",
        "Always",
        {"requests": {"cpu": "3"}},
    )
    env = variables(flow)
    assert (env["MY_ENV"], env["NEW"]) == ("bar", "1")
    assert env["TOKEN"] == {"secretKeyRef": {"name": "credentials", "key": "token.txt"}}
    assert "TOKEN" not in variables(pod["containers"][1])


@pytest.mark.parametrize(
    ("argument", "spec", "expected"), [("team", "default", "team"), (None, "team", "team"), (None, None, "default")]
)
def test_the_namespace_is_the_arguments_then_the_specs_then_the_workers_first(
    argument: str | None, spec: str | None, expected: str
) -> None:
    environment = KubernetesJobEnvironment(job_spec=custom(metadata__namespace=spec), namespace=argument)
    assert build(environment)["namespace"] == expected


@pytest.mark.parametrize(
    ("environment", "options", "setting"),
    [
        (KubernetesJobEnvironment(namespace="kube-system"), {}, "DISPATCHER__KUBERNETES__NAMESPACES"),
        (
            KubernetesJobEnvironment(job_spec=CUSTOM),
            {"service_accounts": frozenset({"runner"})},
            "DISPATCHER__KUBERNETES__SERVICE_ACCOUNTS",
        ),
        (
            KubernetesJobEnvironment(),
            {"clusters": {"eu": ClusterSettings(), "us": ClusterSettings()}},
            "DISPATCHER__KUBERNETES__CLUSTER:",
        ),
        (KubernetesJobEnvironment(), {"cluster": "asia"}, "DISPATCHER__KUBERNETES__CLUSTER=asia"),
    ],
)
def test_errors_about_what_a_worker_does_not_serve_name_the_setting(
    environment: KubernetesJobEnvironment, options: dict[str, Any], setting: str
) -> None:
    with pytest.raises(Permanent, match=setting) as raised:
        manifest.build(attempt(environment), settings(**options))
    assert raised.value.cause is Cause.CONFIG_ERROR


def test_the_cluster_is_the_one_named() -> None:
    both = {"eu": ClusterSettings(), "us": ClusterSettings()}
    assert build()["cluster"] == ""
    assert build(worker=settings(clusters={"eu": ClusterSettings()}))["cluster"] == "eu"
    assert build(worker=settings(clusters=both, cluster="us"))["cluster"] == "us"


def test_the_image_is_the_arguments_then_the_specs_then_the_settings() -> None:
    def image(environment: KubernetesJobEnvironment, **options: Any) -> Any:
        return pod_of(build(environment, worker=settings(**options)))["containers"][0]["image"]

    spec = custom(spec__template__spec__containers__0__image="theirs:1")
    assert image(KubernetesJobEnvironment(job_spec=spec, image="mine:1"), image="set:1") == "mine:1"
    assert image(KubernetesJobEnvironment(job_spec=spec), image="set:1") == "theirs:1"
    assert image(KubernetesJobEnvironment(job_spec=CUSTOM), image="set:1") == "set:1"
    assert re.fullmatch(r"flow-dispatcher-runner:\d+\.\d+\.\d+.*", image(KubernetesJobEnvironment()))


def test_the_default_pod_passes_pod_security_restricted() -> None:
    pod = pod_of(build())
    assert _violations(pod) == []
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False
    flow = pod["containers"][0]
    assert set(flow["resources"]["requests"]) == {"cpu", "memory"}
    assert flow["imagePullPolicy"] == "IfNotPresent"
    assert not flow["image"].endswith(":latest")
    scratch = {volume["name"] for volume in pod["volumes"] if "emptyDir" in volume}
    mount_paths = {mount["mountPath"] for mount in flow["volumeMounts"] if mount["name"] in scratch}
    assert {variables(flow)["HOME"], "/tmp"} <= mount_paths
    annotations = build()["job"]["spec"]["template"]["metadata"]["annotations"]
    assert annotations["cluster-autoscaler.kubernetes.io/safe-to-evict"] == "false"
    assert annotations["karpenter.sh/do-not-disrupt"] == "true"


def _violations(pod: Any) -> list[str]:
    """Return the rules of Pod Security's level "restricted" that a pod violates."""
    allowed = {
        "name",
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "persistentVolumeClaim",
        "projected",
        "secret",
    }
    violations = [name for name in ("hostNetwork", "hostPID", "hostIPC") if pod.get(name)]
    violations += [f"volume {volume['name']}" for volume in pod["volumes"] if set(volume) - allowed]
    context = pod.get("securityContext", {})
    for container in (*pod["containers"], *pod.get("initContainers", ())):
        own = container.get("securityContext", {})
        if own.get("privileged") or own.get("allowPrivilegeEscalation") is not False:
            violations.append("privileges")
        if own.get("capabilities", {}).get("drop") != ["ALL"] or own.get("capabilities", {}).get("add"):
            violations.append("capabilities")
        if (
            not own.get("runAsNonRoot", context.get("runAsNonRoot"))
            or own.get("runAsUser", context.get("runAsUser")) == 0
        ):
            violations.append("root")
        if own.get("seccompProfile", context.get("seccompProfile", {})).get("type") not in {
            "RuntimeDefault",
            "Localhost",
        }:
            violations.append("seccomp")
    return violations


def test_the_digest_is_of_the_dict_that_is_sent() -> None:
    request = build()
    sent = json.loads(json.dumps(request["job"]))
    assert sent["metadata"]["annotations"]["flow-dispatcher/digest"] == request["digest"] == manifest.digest(sent)
    assert build()["digest"] == request["digest"]
    assert build(number=3)["digest"] != request["digest"]
    assert build(KubernetesJobEnvironment(env={"A": "1"}))["digest"] != request["digest"]


def test_building_leaves_the_users_spec_and_the_default_alone() -> None:
    environment = KubernetesJobEnvironment(job_spec=CUSTOM)
    data = environment.to_json()
    before = copy.deepcopy(data)
    manifest.build(attempt(environment), settings())
    assert data == before
    assert build() == build()


def test_a_request_holds_no_secret_and_is_json() -> None:
    request = build(KubernetesJobEnvironment(job_spec=CUSTOM))
    assert json.loads(json.dumps(request)) == request
    assert "password" not in json.dumps(request)


def test_the_secret_belongs_to_the_job_and_does_not_block_its_deletion() -> None:
    request = build()
    secret = manifest.secret(request, "uid-1", {"DISPATCHER__RUN__TOKEN": "t"}, ca="PEM")
    metadata = secret["metadata"]
    assert (metadata["name"], metadata["namespace"]) == (request["job"]["metadata"]["name"], "default")
    assert metadata["ownerReferences"] == [
        {"apiVersion": "batch/v1", "kind": "Job", "name": metadata["name"], "uid": "uid-1"}
    ]
    assert metadata["labels"]["instance"] == "inst"
    assert json.loads(secret["stringData"]["variables.json"]) == {"DISPATCHER__RUN__TOKEN": "t"}
    assert secret["stringData"]["ca.pem"] == "PEM"
    assert secret["immutable"] is True


def test_an_unknown_storage_is_an_error() -> None:
    with pytest.raises(Permanent, match="unknown storage 'NoSuchStorage'"):
        manifest.build(attempt(storage={"type": "NoSuchStorage"}), settings())


def test_a_users_label_does_not_hide_the_job_from_its_backend() -> None:
    label = {"flow-dispatcher/backend": "mine", "team": "blue"}
    spec = custom(metadata__labels=label, spec__template__metadata__labels=label)
    job = manifest.build(attempt(KubernetesJobEnvironment(job_spec=spec)), settings())["job"]
    for metadata in (job["metadata"], job["spec"]["template"]["metadata"]):
        assert "flow-dispatcher/backend" not in metadata["labels"]
        assert metadata["labels"]["team"] == "blue"
