"""The Job of an attempt (kubernetes.md §2): what is ours in it, what is kept, its digest, and its Secret."""

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
from dispatcher.settings import TimingSettings
from tests.unit.kubernetes.jobs import CUSTOM, RUN_ID, attempt, custom


def settings(**kubernetes: Any) -> Settings:
    return Settings.load(kubernetes=KubernetesSettings(**{"namespaces": ("default", "team"), **kubernetes}))


def built(one: KubernetesJobEnvironment | None = None, *, known: Settings | None = None, **changes: Any) -> Any:
    return manifest.build(attempt(one, **changes), known or settings())


def pod_of(request: Any) -> Any:
    return request["job"]["spec"]["template"]["spec"]


def variables(container: Any) -> dict[str, Any]:
    found = {one["name"]: one.get("value", one.get("valueFrom")) for one in container["env"]}
    assert len(found) == len(container["env"])  # each once
    return found


def test_names_labels_and_annotations() -> None:
    request = built()
    job = request["job"]
    assert job["metadata"]["name"] == f"flow-{RUN_ID}-2"
    assert "generateName" not in job["metadata"]
    for metadata in (job["metadata"], job["spec"]["template"]["metadata"]):
        labels = metadata["labels"]
        assert (labels["flow_run_id"], labels["attempt"], labels["instance"]) == (RUN_ID, "2", "inst")
        assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", labels["identifier"])
        assert metadata["annotations"]["flow-dispatcher/run"] == RUN_ID
        assert metadata["annotations"]["flow-dispatcher/flow"] == "word count, “quoted”"


def test_the_identifier_is_one_per_job() -> None:
    def identifier(**changes: Any) -> Any:
        return built(**changes)["job"]["metadata"]["labels"]["identifier"]

    assert identifier() == identifier()
    assert len({identifier(), identifier(number=3), identifier(run_id="another")}) == 3


@pytest.mark.parametrize("text", ["a" * 64, "with space", "-x", "x-", "ü", ""])
def test_what_is_no_label_value_is_a_digest_there(text: str) -> None:
    value = built(run_id=text)["job"]["metadata"]["labels"]["flow_run_id"]
    assert re.fullmatch(r"[0-9a-f]{40}", value)
    assert built(run_id=text)["job"]["metadata"]["annotations"]["flow-dispatcher/run"] == text


def test_what_is_ours_in_the_job() -> None:
    spec = built(KubernetesJobEnvironment(job_spec=CUSTOM))["job"]["spec"]
    assert "suspend" not in spec
    assert spec["backoffLimit"] == 0
    assert spec["podReplacementPolicy"] == "Failed"
    assert spec["template"]["spec"]["restartPolicy"] == "Never"
    assert "activeDeadlineSeconds" not in spec


@pytest.mark.parametrize(("given", "found"), [(None, 86400), (0, 3600), (60, 3600), (7200, 7200), (10**6, 10**6)])
def test_the_job_is_kept_for_an_hour_at_least(given: int | None, found: int) -> None:
    spec = custom(spec__ttlSecondsAfterFinished=given)
    assert built(KubernetesJobEnvironment(job_spec=spec))["job"]["spec"]["ttlSecondsAfterFinished"] == found
    known = settings(ttl=7200)
    assert manifest.build(attempt(), known)["job"]["spec"]["ttlSecondsAfterFinished"] == 7200


@pytest.mark.parametrize(("given", "found"), [(None, 105), (30, 105), (600, 600)])
def test_the_grace_is_raised_where_it_is_lower(given: int | None, found: int) -> None:
    spec = custom(spec__template__spec__terminationGracePeriodSeconds=given)
    pod = pod_of(built(KubernetesJobEnvironment(job_spec=spec)))
    assert pod["terminationGracePeriodSeconds"] == found
    assert variables(pod["containers"][0])["DISPATCHER__RUN__GRACE"] == str(found)
    known = settings().but(timing=TimingSettings(stop_grace=1, on_exit_timeout=2))
    assert pod_of(built(known=known))["terminationGracePeriodSeconds"] == 5


@pytest.mark.parametrize(
    ("timeout", "start_within", "deadline"), [(None, None, None), (60, None, None), (None, 60, None), (60, 30.5, 256)]
)
def test_the_deadline_is_a_backstop_only(timeout: Any, start_within: Any, deadline: int | None) -> None:
    job = built(KubernetesJobEnvironment(job_spec=CUSTOM), timeout=timeout, start_within=start_within)["job"]
    assert job["spec"].get("activeDeadlineSeconds") == deadline


def test_the_flows_container_is_the_first_and_is_ours() -> None:
    request = built(KubernetesJobEnvironment(job_spec=CUSTOM), known=settings(image="runner:3"))
    flow = pod_of(request)["containers"][0]
    assert request["container"] == flow["name"] == "flow-container"
    assert flow["image"] == "runner:3"
    assert flow["command"] == ["python3", "-P", "-m", "dispatcher.runner"]
    assert "args" not in flow
    assert flow["terminationMessagePath"] == "/dev/termination-log"
    found = variables(flow)
    assert found["MY_ENV"] == "foo"
    assert found["DISPATCHER__RUN__ID"] == RUN_ID
    assert found["DISPATCHER__RUN__UID"] == {"fieldRef": {"fieldPath": "metadata.uid"}}
    assert found["DISPATCHER__RUN__LAST_WORDS"] == flow["terminationMessagePath"]


def test_all_containers_get_the_variables_that_are_no_secret() -> None:
    pod = pod_of(built(KubernetesJobEnvironment(job_spec=CUSTOM)))
    for container in (*pod["containers"], *pod["initContainers"]):
        assert variables(container)["DISPATCHER__RUN__ATTEMPT"] == "2"


def test_only_the_flows_container_gets_the_credential() -> None:
    request = built(KubernetesJobEnvironment(job_spec=CUSTOM))
    pod = pod_of(request)
    (volume,) = [one for one in pod["volumes"] if "secret" in one]
    assert volume["secret"]["secretName"] == request["job"]["metadata"]["name"]
    assert volume["secret"]["optional"] is False
    holders = [
        one["name"]
        for one in (*pod["containers"], *pod["initContainers"])
        if any(mount["name"] == volume["name"] for mount in one.get("volumeMounts", ()))
    ]
    assert holders == ["flow-container"]
    (mount,) = [mount for mount in pod["containers"][0]["volumeMounts"] if mount["name"] == volume["name"]]
    assert variables(pod["containers"][0])["DISPATCHER__RUN__SECRETS_FILE"].startswith(mount["mountPath"] + "/")


def test_everything_else_is_kept() -> None:
    job = built(KubernetesJobEnvironment(job_spec=CUSTOM))["job"]
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "lq"
    assert job["metadata"]["annotations"]["note"] == "kept"
    assert job["spec"]["template"]["metadata"]["labels"]["app"] == "etl"
    pod = job["spec"]["template"]["spec"]
    theirs = CUSTOM["spec"]["template"]["spec"]
    assert pod["serviceAccountName"] == "etl"
    assert pod["tolerations"] == theirs["tolerations"]
    assert pod["volumes"][0] == theirs["volumes"][0]
    assert pod["containers"][0]["resources"] == theirs["containers"][0]["resources"]
    assert pod["containers"][0]["volumeMounts"][0] == theirs["containers"][0]["volumeMounts"][0]
    side_car = copy.deepcopy(pod["containers"][1])
    del side_car["env"]
    assert side_car == theirs["containers"][1]


def test_arguments_go_before_the_spec() -> None:
    one = KubernetesJobEnvironment(
        job_spec=custom(spec__template__spec__imagePullSecrets=[{"name": "theirs"}]),
        image="mine:1",
        image_pull_secrets=["a", "b"],
        image_pull_policy="Always",
        namespace="default",
        resources={"requests": {"cpu": "3"}},
        env={"MY_ENV": "bar", "NEW": "1"},
        secrets={"TOKEN": "credentials/token.txt"},
    )
    request = built(one)
    pod = pod_of(request)
    flow = pod["containers"][0]
    assert request["namespace"] == request["job"]["metadata"]["namespace"] == "default"
    assert pod["imagePullSecrets"] == [{"name": "a"}, {"name": "b"}]
    assert (flow["image"], flow["imagePullPolicy"], flow["resources"]) == (
        "mine:1",
        "Always",
        {"requests": {"cpu": "3"}},
    )
    found = variables(flow)
    assert (found["MY_ENV"], found["NEW"]) == ("bar", "1")
    assert found["TOKEN"] == {"secretKeyRef": {"name": "credentials", "key": "token.txt"}}
    assert "TOKEN" not in variables(pod["containers"][1])


@pytest.mark.parametrize(
    ("asked", "spec", "found"), [("team", "default", "team"), (None, "team", "team"), (None, None, "default")]
)
def test_the_namespace_is_the_arguments_then_the_specs_then_the_workers_first(
    asked: str | None, spec: str | None, found: str
) -> None:
    one = KubernetesJobEnvironment(job_spec=custom(metadata__namespace=spec), namespace=asked)
    assert built(one)["namespace"] == found


@pytest.mark.parametrize(
    ("one", "known", "setting"),
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
def test_what_the_worker_does_not_serve_is_refused_by_the_name_of_the_setting(
    one: KubernetesJobEnvironment, known: dict[str, Any], setting: str
) -> None:
    with pytest.raises(Permanent, match=setting) as raised:
        manifest.build(attempt(one), settings(**known))
    assert raised.value.cause is Cause.CONFIG_ERROR


def test_the_cluster_is_the_one_named() -> None:
    both = {"eu": ClusterSettings(), "us": ClusterSettings()}
    assert built()["cluster"] == ""
    assert built(known=settings(clusters={"eu": ClusterSettings()}))["cluster"] == "eu"
    assert built(known=settings(clusters=both, cluster="us"))["cluster"] == "us"


def test_the_image_is_the_arguments_then_the_specs_then_the_settings() -> None:
    def image(one: KubernetesJobEnvironment, **known: Any) -> Any:
        return pod_of(built(one, known=settings(**known)))["containers"][0]["image"]

    spec = custom(spec__template__spec__containers__0__image="theirs:1")
    assert image(KubernetesJobEnvironment(job_spec=spec, image="mine:1"), image="set:1") == "mine:1"
    assert image(KubernetesJobEnvironment(job_spec=spec), image="set:1") == "theirs:1"
    assert image(KubernetesJobEnvironment(job_spec=CUSTOM), image="set:1") == "set:1"
    assert re.fullmatch(r"flow-dispatcher-runner:\d+\.\d+\.\d+.*", image(KubernetesJobEnvironment()))


def test_the_default_pod_passes_pod_security_restricted() -> None:
    pod = pod_of(built())
    assert _restricted(pod) == []
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False
    flow = pod["containers"][0]
    assert set(flow["resources"]["requests"]) == {"cpu", "memory"}
    assert flow["imagePullPolicy"] == "IfNotPresent"
    assert not flow["image"].endswith(":latest")
    scratch = {one["name"] for one in pod["volumes"] if "emptyDir" in one}
    places = {mount["mountPath"] for mount in flow["volumeMounts"] if mount["name"] in scratch}
    assert {variables(flow)["HOME"], "/tmp"} <= places
    annotations = built()["job"]["spec"]["template"]["metadata"]["annotations"]
    assert annotations["cluster-autoscaler.kubernetes.io/safe-to-evict"] == "false"
    assert annotations["karpenter.sh/do-not-disrupt"] == "true"


def _restricted(pod: Any) -> list[str]:
    """The rules of Pod Security's level "restricted" that a pod breaks."""
    volumes = {
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
    broken = [name for name in ("hostNetwork", "hostPID", "hostIPC") if pod.get(name)]
    broken += [f"volume {one['name']}" for one in pod["volumes"] if set(one) - volumes]
    whole = pod.get("securityContext", {})
    for one in (*pod["containers"], *pod.get("initContainers", ())):
        own = one.get("securityContext", {})
        if own.get("privileged") or own.get("allowPrivilegeEscalation") is not False:
            broken.append("privileges")
        if own.get("capabilities", {}).get("drop") != ["ALL"] or own.get("capabilities", {}).get("add"):
            broken.append("capabilities")
        if not own.get("runAsNonRoot", whole.get("runAsNonRoot")) or own.get("runAsUser", whole.get("runAsUser")) == 0:
            broken.append("root")
        if own.get("seccompProfile", whole.get("seccompProfile", {})).get("type") not in {
            "RuntimeDefault",
            "Localhost",
        }:
            broken.append("seccomp")
    return broken


def test_the_digest_is_of_the_dict_that_is_sent() -> None:
    request = built()
    sent = json.loads(json.dumps(request["job"]))
    assert sent["metadata"]["annotations"]["flow-dispatcher/digest"] == request["digest"] == manifest.digest(sent)
    assert built()["digest"] == request["digest"]
    assert built(number=3)["digest"] != request["digest"]
    assert built(KubernetesJobEnvironment(env={"A": "1"}))["digest"] != request["digest"]


def test_building_leaves_the_users_spec_and_the_default_alone() -> None:
    one = KubernetesJobEnvironment(job_spec=CUSTOM)
    data = one.to_json()
    before = copy.deepcopy(data)
    manifest.build(attempt(one), settings())
    assert data == before
    assert built() == built()


def test_a_request_holds_no_secret_and_is_json() -> None:
    request = built(KubernetesJobEnvironment(job_spec=CUSTOM))
    assert json.loads(json.dumps(request)) == request
    assert "password" not in json.dumps(request)


def test_the_secret_belongs_to_the_job_and_does_not_block_its_deletion() -> None:
    request = built()
    made = manifest.secret(request, "uid-1", {"DISPATCHER__RUN__TOKEN": "t"}, ca="PEM")
    metadata = made["metadata"]
    assert (metadata["name"], metadata["namespace"]) == (request["job"]["metadata"]["name"], "default")
    assert metadata["ownerReferences"] == [
        {"apiVersion": "batch/v1", "kind": "Job", "name": metadata["name"], "uid": "uid-1"}
    ]
    assert metadata["labels"]["instance"] == "inst"
    assert json.loads(made["stringData"]["variables.json"]) == {"DISPATCHER__RUN__TOKEN": "t"}
    assert made["stringData"]["ca.pem"] == "PEM"
    assert made["immutable"] is True


def test_a_storage_that_is_unknown_here_is_said() -> None:
    with pytest.raises(Permanent, match="unknown storage 'NoSuchStorage'"):
        manifest.build(attempt(storage={"type": "NoSuchStorage"}), settings())
