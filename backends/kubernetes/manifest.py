"""Manifests of an attempt's Job and Secret: pure functions of the attempt and the settings.

The Job is the user's own, or ``job.yaml``. A few fields are set here (:func:`build`), everything else is kept. The
digest of the dict that is sent is stored in an annotation, and compared there: a server's defaults and webhooks change
the object, never the annotation.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
import re
import uuid
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

from backends.base import Request
from backends.container import runner
from backends.container.errors import refused
from backends.container.image import default_image, image_of
from backends.kubernetes import container_env, grace, job_policy
from backends.kubernetes import job_spec as specs
from backends.kubernetes.attempt_objects import BACKEND
from backends.kubernetes.job_policy import JobPolicy
from backends.kubernetes.job_rules import LONGEST
from backends.kubernetes.settings import KubernetesSettings
from dispatcher.errors import Permanent
from dispatcher.runs.attempt import Attempt
from dispatcher.settings import Settings
from dispatcher.support.escaping import escaped

DIGEST = "flow-dispatcher/digest"
RUN = "flow-dispatcher/run"
FLOW = "flow-dispatcher/flow"

#: The label by which all objects of one installation are listed and watched.
INSTANCE = "instance"

#: The file with the runner's secret variables, as one JSON object; only the flow's container mounts it.
CREDENTIALS = f"{specs.MOUNT}/variables.json"
CA = f"{specs.MOUNT}/ca.pem"
_TERMINATION_LOG = "/dev/termination-log"
_LABELS = ("identifier", "flow_run_id", "attempt", INSTANCE)
_IDENTIFIER_NAMESPACE = uuid.UUID("5f2c3c0e-7f0b-4d55-9a57-0d3f7a1c9b11")  # any constant
_DEADLINE_MARGIN = 60  # seconds, so that the worker's own timeouts come before the Job's


def build(attempt: Attempt, settings: Settings, *, module: str = runner.RUNNER) -> Request:
    """Return the request of an attempt: its Job with its digest, cluster and namespace. Contains no secret.

    Args:
        attempt: the attempt.
        settings: of the worker that claimed it.
        module: the Python module that the flow's container runs.

    Raises:
        Permanent: the settings don't allow what the run asks for, or its image isn't known.
    """
    request = draft(attempt, settings, module=module)
    _check_policy(request, settings)
    return request


def draft(attempt: Attempt, settings: Settings, *, module: str = runner.RUNNER, argument: str = "job_spec") -> Request:
    """Return the request of an attempt whether or not the settings allow what is in its Job (:func:`objections`).

    Args:
        attempt: the attempt.
        settings: of the worker that claimed it.
        module: the Python module that the flow's container runs.
        argument: the environment's argument that gave the Job.

    Raises:
        Permanent: its cluster or namespace isn't served, its image isn't known, or its Job can't run a flow.
    """
    environment = attempt.environment
    spec = environment.get(argument)
    if spec is not None and (problems := specs.structure_problems(spec)):
        raise refused(f"{argument}: {escaped('; '.join(problems))}")
    job: dict[str, Any] = copy.deepcopy(dict(spec if spec is not None else _default_job()))
    namespace = _namespace(environment, job, settings)
    seconds = _set_job(job, attempt, settings)
    pod = job["spec"]["template"]["spec"]
    container = _set_pod(pod, attempt, settings, module=module, seconds=seconds)
    job["metadata"].update({"name": attempt.name, "namespace": namespace})
    job_digest = digest(job)
    job["metadata"]["annotations"][DIGEST] = job_digest
    return {
        "cluster": cluster_name(settings),
        "namespace": namespace,
        "container": container,
        "digest": job_digest,
        "job": job,
    }


def secret(request: Request, uid: str, variables: Mapping[str, str], *, ca: str | None = None) -> dict[str, Any]:
    """Return the Secret of a created Job: the runner's secret variables, and the PEM text of a certificate authority.

    The Job owns it, so both are deleted together. It doesn't block the Job's deletion, which would take rights that
    some clusters withhold.
    """
    metadata = request["job"]["metadata"]
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": metadata["name"], "uid": uid}
    data = {CREDENTIALS.rpartition("/")[2]: json.dumps(dict(variables))}
    if ca is not None:
        data[CA.rpartition("/")[2]] = ca
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": metadata["name"],
            "namespace": request["namespace"],
            "labels": {name: metadata["labels"][name] for name in _LABELS if name in metadata["labels"]},
            "ownerReferences": [owner],
        },
        "type": "Opaque",
        "immutable": True,
        "stringData": data,
    }


def digest(job: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a Job as it is sent, without the annotation that stores it."""
    metadata = dict(job.get("metadata", {}))
    if "annotations" in metadata:
        metadata["annotations"] = {name: text for name, text in metadata["annotations"].items() if name != DIGEST}
    bare = {**job, "metadata": metadata} if metadata else job
    return hashlib.sha256(json.dumps(bare, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def was_created_by(metadata: Mapping[str, Any], request: Request) -> bool:
    """Return True if a request created the Job with this metadata: same digest, run, attempt and installation.

    A missing value matches nothing.
    """
    expected = [request.get("digest"), *_identity(request["job"]["metadata"])]
    return all(expected) and expected == [(metadata.get("annotations") or {}).get(DIGEST), *_identity(metadata)]


def _identity(metadata: Mapping[str, Any]) -> tuple[Any, Any, Any]:
    """Return run, attempt and installation of a Job."""
    annotations, labels = metadata.get("annotations") or {}, metadata.get("labels") or {}
    return annotations.get(RUN), labels.get("attempt"), labels.get(INSTANCE)


def check_request(
    request: Request, settings: Settings, *, argument: str = "job_spec", own_pull_secret: str = ""
) -> None:
    """Reject a stored request that these settings wouldn't have built.

    Args:
        request: as it was stored.
        settings: of the worker.
        argument: the environment's argument that gave the Job.
        own_pull_secret: the Secret that workers make for the Job's registry; empty if they make none.

    Raises:
        Permanent: its cluster or namespace isn't served, it names no installation, its digest isn't its Job's, or the
            policy refuses what is in its Job.
    """
    metadata = request["job"]["metadata"]
    if request["cluster"] != cluster_name(settings):
        raise refused(f"cluster {request['cluster']!r}: this worker serves {cluster_name(settings)!r}")
    served = settings.group(KubernetesSettings).namespaces
    if request["namespace"] not in served or metadata.get("namespace") != request["namespace"]:
        raise _unserved(str(request["namespace"]), settings)
    labels = metadata.get("labels") or {}
    if not labels.get(INSTANCE) or not labels.get("attempt") or request["digest"] != digest(request["job"]):
        raise refused(f"Job {metadata['name']!r}: its labels or digest don't match the request")
    _check_policy(request, settings, argument, own_pull_secret)


def cluster_name(settings: Settings) -> str:
    """Return the name of the cluster that a worker with these settings serves; empty for the default cluster.

    Raises:
        Permanent: several clusters are configured and none is chosen, or the chosen one isn't configured.
    """
    kubernetes = settings.group(KubernetesSettings)
    if not kubernetes.cluster and len(kubernetes.clusters) <= 1:
        return next(iter(kubernetes.clusters), "")
    if kubernetes.cluster in kubernetes.clusters:
        return kubernetes.cluster
    names = ", ".join(sorted(kubernetes.clusters)) or "none"
    variable = "DISPATCHER__KUBERNETES__CLUSTER" + (f"={kubernetes.cluster}" if kubernetes.cluster else "")
    raise refused(f"{variable}: must be one of those in DISPATCHER__KUBERNETES__CLUSTERS ({names})")


def preload() -> None:
    """Load the default Job, with the YAML parser, whose import takes a while."""
    _default_job()


@cache
def _default_job() -> Mapping[str, Any]:
    text = resources.files("backends.kubernetes").joinpath("job.yaml").read_text(encoding="utf-8")
    return specs.parse(text, source="job.yaml")


def _namespace(environment: Mapping[str, Any], job: Mapping[str, Any], settings: Settings) -> str:
    served = settings.group(KubernetesSettings).namespaces
    namespace = environment.get("namespace") or specs.at(job, "metadata.namespace") or served[0]
    if namespace not in served:
        raise _unserved(str(namespace), settings)
    return str(namespace)


def _unserved(namespace: str, settings: Settings) -> Permanent:
    served = ", ".join(settings.group(KubernetesSettings).namespaces)
    return refused(f"namespace {namespace}: this worker serves {served} (DISPATCHER__KUBERNETES__NAMESPACES)")


def objections(request: Request, settings: Settings, *, own_pull_secret: str = "") -> list[str]:
    """Return what a worker with these settings refuses in a request's Job, each with its path and the setting."""
    group = settings.group(KubernetesSettings)
    return job_policy.refusals(request["job"], JobPolicy.of(group, default_image(group), own_pull_secret))


def _check_policy(request: Request, settings: Settings, argument: str = "job_spec", own_pull_secret: str = "") -> None:
    if problems := objections(request, settings, own_pull_secret=own_pull_secret):
        raise refused(f"{argument}: {'; '.join(problems)}")


def _set_job(job: dict[str, Any], attempt: Attempt, settings: Settings) -> int:
    """Set the fields outside of the containers; return the seconds of grace that the runner may count on."""
    job["metadata"] = dict(job.get("metadata") or {})
    spec = job["spec"]
    spec.pop("suspend", None)
    template = spec["template"]
    template["metadata"] = dict(template.get("metadata") or {})
    labels = _labels(attempt)
    for metadata in (job["metadata"], template["metadata"]):
        metadata["labels"] = {**(metadata.get("labels") or {}), **labels}
        metadata["labels"].pop(BACKEND, None)  # tells the Jobs of other backends
        metadata["annotations"] = {**(metadata.get("annotations") or {}), RUN: attempt.run_id, FLOW: attempt.flow}
    pod = template["spec"]
    graces = grace.of_pod(pod, runner.grace_seconds(settings))
    template["metadata"]["annotations"].update(grace.annotations_of(pod, graces))
    pod.update({"restartPolicy": "Never", "terminationGracePeriodSeconds": graces.pod})
    ttl = spec.get("ttlSecondsAfterFinished")
    min_ttl = 3600 if ttl is not None else int(settings.group(KubernetesSettings).ttl)
    spec.update({
        "backoffLimit": 0,
        "podReplacementPolicy": "Failed",
        "ttlSecondsAfterFinished": max(ttl or 0, min_ttl),
    })  # fmt: skip
    _set_deadline(spec, attempt, graces.pod)
    return graces.runner


def _set_deadline(spec: dict[str, Any], attempt: Attempt, seconds: int) -> None:
    """Set the Job's deadline: the user's own, or the backstop of ours where that is earlier or the only one."""
    if attempt.start_within is None or attempt.timeout is None:
        return
    backstop = min(math.ceil(attempt.start_within + attempt.timeout + seconds + _DEADLINE_MARGIN), LONGEST)
    own = spec.get("activeDeadlineSeconds")
    spec["activeDeadlineSeconds"] = backstop if own is None else min(own, backstop)


def _labels(attempt: Attempt) -> dict[str, str]:
    identifier = uuid.uuid5(_IDENTIFIER_NAMESPACE, f"{attempt.run_id}/{attempt.number}")
    return {
        "identifier": str(identifier),
        "flow_run_id": label_value(attempt.run_id),
        "attempt": str(attempt.number),
        INSTANCE: label_value(attempt.instance),
    }


def label_value(text: str) -> str:
    """Return ``text`` if it is valid as a label's value, else a digest of it."""
    if len(text) <= 63 and re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?", text):
        return text
    return hashlib.sha256(text.encode()).hexdigest()[:40]


def _set_pod(pod: dict[str, Any], attempt: Attempt, settings: Settings, *, module: str, seconds: int) -> str:
    """Set the fields of the pod and its containers; return the name of the flow's container.

    ``seconds`` is the runner's grace.
    """
    environment = attempt.environment
    if environment.get("image_pull_secrets"):
        pod["imagePullSecrets"] = [{"name": name} for name in environment["image_pull_secrets"]]
    for container in (*pod["containers"], *(pod.get("initContainers") or ())):
        container["env"] = container_env.merged(container.get("env"), container_env.plain(attempt.variables))
    flow = pod["containers"][0]
    flow["name"] = flow.get("name") or "flow"
    flow["image"] = image_of(attempt, settings.group(KubernetesSettings), template=flow.get("image"))
    flow["command"] = runner.command(module)
    flow.pop("args", None)
    flow["terminationMessagePath"] = _TERMINATION_LOG
    flow.setdefault("terminationMessagePolicy", "FallbackToLogsOnError")  # the last lines of one that has no runner
    for argument, field in (("image_pull_policy", "imagePullPolicy"), ("resources", "resources")):
        if environment.get(argument):
            flow[field] = environment[argument]
    user_env = [
        *container_env.plain(environment.get("env") or {}),
        *container_env.of_secrets(environment.get("secrets") or {}),
    ]
    flow["env"] = container_env.merged(
        flow["env"], [*user_env, *container_env.plain(attempt.variables), *_runner_env(pod, seconds)]
    )
    mount = {"name": specs.VOLUME, "mountPath": specs.MOUNT, "readOnly": True}
    flow["volumeMounts"] = [*(flow.get("volumeMounts") or ()), mount]
    volume = {"name": specs.VOLUME, "secret": {"secretName": attempt.name, "optional": False, "defaultMode": 0o444}}
    pod["volumes"] = [*(pod.get("volumes") or ()), volume]
    return str(flow["name"])


def _runner_env(pod: Mapping[str, Any], seconds: int) -> list[dict[str, Any]]:
    linger = grace.LINGER if grace.has_native_side_cars(pod) else 0
    poll = grace.CANCEL_POLL if grace.has_company(pod) else 0
    variables = runner.variables(
        grace=seconds, linger=linger, cancel_poll=poll, secrets_file=CREDENTIALS, last_words=_TERMINATION_LOG
    )
    fields = {"POD": "metadata.name", "UID": "metadata.uid", "NODE": "spec.nodeName"}
    references = [
        {"name": f"DISPATCHER__RUN__{name}", "valueFrom": {"fieldRef": {"fieldPath": path}}}
        for name, path in fields.items()
    ]
    return [*container_env.plain(variables), *references]
