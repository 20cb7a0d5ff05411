"""The exact Job of an attempt, and its Secret: pure functions of what was asked for and of the settings.

The Job is the user's own, or ``job.yaml``; a few fields are ours and set here (:func:`build`), everything else is kept.
The digest is of the dict that is sent, kept in an annotation of it and compared there: a server's defaults and webhooks
change the object, never the annotation.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
import re
import uuid
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import resources
from importlib.metadata import version
from typing import Any

from backends.base import Request
from backends.kubernetes import job_spec as specs
from backends.kubernetes.settings import KubernetesSettings
from dispatcher.errors import DispatcherError, Permanent
from dispatcher.runs.attempt import Attempt
from dispatcher.runs.states import Cause
from dispatcher.settings import Settings

DIGEST = "flow-dispatcher/digest"
RUN = "flow-dispatcher/run"
FLOW = "flow-dispatcher/flow"

#: The label by which all objects of one installation are listed and watched.
INSTANCE = "instance"

#: The file with the runner's secret variables, as one JSON object; only the flow's container mounts it.
CREDENTIALS = f"{specs.MOUNT}/variables.json"
CA = f"{specs.MOUNT}/ca.pem"
_TERMINATION_LOG = "/dev/termination-log"
_IDENTIFIERS = uuid.UUID("5f2c3c0e-7f0b-4d55-9a57-0d3f7a1c9b11")  # makes ids of attempts; any other would do
_SPARE = 60  # seconds that the backstop waits longer than the engine's own clocks


def build(attempt: Attempt, settings: Settings, *, module: str = "dispatcher.runner") -> Request:
    """The request of one attempt: its Job with its digest, and where it goes. Holds no secret.

    Args:
        attempt: the attempt.
        settings: of the worker that claimed it.
        module: what the flow's container runs.

    Raises:
        Permanent: these settings don't allow what the run asks for, or its image isn't known.
    """
    given = attempt.environment
    own = given.get("job_spec")
    job: dict[str, Any] = copy.deepcopy(dict(own if own is not None else _default()))
    namespace = _namespace(given, job, settings)
    grace = _set_job(job, attempt, settings)
    pod = job["spec"]["template"]["spec"]
    _check_service_account(pod, settings)
    container = _set_pod(pod, attempt, settings, module=module, grace=grace)
    job["metadata"].update({"name": attempt.name, "namespace": namespace})
    found = digest(job)
    job["metadata"]["annotations"][DIGEST] = found
    return {
        "cluster": cluster_name(settings),
        "namespace": namespace,
        "container": container,
        "digest": found,
        "job": job,
    }


def secret(request: Request, uid: str, variables: Mapping[str, str], *, ca: str | None = None) -> dict[str, Any]:
    """The Secret of a Job that was created: the runner's secret variables, and the PEM text of an authority.

    It belongs to the Job, and goes with it; it doesn't block the Job's deletion, as that takes rights that some
    clusters withhold.
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
            "labels": {name: metadata["labels"][name] for name in ("identifier", "flow_run_id", "attempt", INSTANCE)},
            "ownerReferences": [owner],
        },
        "type": "Opaque",
        "immutable": True,
        "stringData": data,
    }


def digest(job: Mapping[str, Any]) -> str:
    """SHA-256 of a Job as it is sent, without the annotation that holds it."""
    metadata = dict(job.get("metadata", {}))
    if "annotations" in metadata:
        metadata["annotations"] = {name: text for name, text in metadata["annotations"].items() if name != DIGEST}
    bare = {**job, "metadata": metadata} if metadata else job
    return hashlib.sha256(json.dumps(bare, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def is_made_of(metadata: Mapping[str, Any], request: Request) -> bool:
    """True if a Job with this metadata was made of a request: the same digest, run, attempt and installation.

    What is missing matches nothing.
    """
    sent = request["job"]["metadata"]
    asked = [
        request.get("digest"),
        (sent.get("annotations") or {}).get(RUN),
        *((sent.get("labels") or {}).get(name) for name in ("attempt", INSTANCE)),
    ]
    annotations, labels = metadata.get("annotations") or {}, metadata.get("labels") or {}
    found = [annotations.get(DIGEST), annotations.get(RUN), labels.get("attempt"), labels.get(INSTANCE)]
    return all(asked) and asked == found


def check_ours(request: Request, settings: Settings) -> None:
    """Refuse a request that these settings wouldn't have made, whoever stored it.

    Raises:
        Permanent: its cluster or namespace isn't served, it names no installation, or its digest isn't that of its Job.
    """
    metadata = request["job"]["metadata"]
    if request["cluster"] != cluster_name(settings):
        raise _refused(f"cluster {request['cluster']!r}: this worker serves {cluster_name(settings)!r}")
    served = settings.group(KubernetesSettings).namespaces
    if request["namespace"] not in served or metadata.get("namespace") != request["namespace"]:
        raise _unserved(str(request["namespace"]), settings)
    labels = metadata.get("labels") or {}
    if not labels.get(INSTANCE) or not labels.get("attempt") or request["digest"] != digest(request["job"]):
        raise _refused(f"Job {metadata['name']!r}: its labels or its digest aren't those of what is to be sent")


def cluster_name(settings: Settings) -> str:
    """The cluster that a worker with these settings serves; empty for the one that is found.

    Raises:
        Permanent: several are named, and none of them chosen; or the chosen one isn't among them.
    """
    ours = settings.group(KubernetesSettings)
    if not ours.cluster and len(ours.clusters) <= 1:
        return next(iter(ours.clusters), "")
    if ours.cluster in ours.clusters:
        return ours.cluster
    names = ", ".join(sorted(ours.clusters)) or "none"
    said = f"DISPATCHER__KUBERNETES__CLUSTER={ours.cluster}" if ours.cluster else "DISPATCHER__KUBERNETES__CLUSTER"
    raise _refused(f"{said}: must be one of those in DISPATCHER__KUBERNETES__CLUSTERS ({names})")


def grace_seconds(settings: Settings) -> int:
    """The least time between SIGTERM and SIGKILL: half as much again as a flow and its ``on_exit`` may take."""
    return math.ceil(1.5 * (settings.timing.stop_grace + settings.timing.on_exit_timeout))


def preload() -> None:
    """Read the default Job, by a parser of YAML that takes a while to import."""
    _default()


@cache
def _default() -> Mapping[str, Any]:
    text = resources.files("backends.kubernetes").joinpath("job.yaml").read_text(encoding="utf-8")
    return specs.parse(text, what="job.yaml")


def _refused(message: str) -> Permanent:
    return Permanent(message, cause=Cause.CONFIG_ERROR, reason="Refused")


def _namespace(given: Mapping[str, Any], job: Mapping[str, Any], settings: Settings) -> str:
    served = settings.group(KubernetesSettings).namespaces
    asked = given.get("namespace") or specs.at(job, "metadata.namespace") or served[0]
    if asked not in served:
        raise _unserved(str(asked), settings)
    return str(asked)


def _unserved(namespace: str, settings: Settings) -> Permanent:
    served = ", ".join(settings.group(KubernetesSettings).namespaces)
    return _refused(f"namespace {namespace}: this worker serves {served} (DISPATCHER__KUBERNETES__NAMESPACES)")


def _check_service_account(pod: Mapping[str, Any], settings: Settings) -> None:
    allowed = settings.group(KubernetesSettings).service_accounts
    for name in ("serviceAccountName", "serviceAccount"):
        asked = pod.get(name)
        if asked and allowed and asked not in allowed:
            raise _refused(
                f"service account {asked}: this worker allows {', '.join(sorted(allowed))} "
                "(DISPATCHER__KUBERNETES__SERVICE_ACCOUNTS)"
            )


def _set_job(job: dict[str, Any], attempt: Attempt, settings: Settings) -> int:
    """Set what is ours outside of the containers; the grace of the pod, in seconds."""
    job["metadata"] = dict(job.get("metadata") or {})
    spec = job["spec"]
    spec.pop("suspend", None)
    template = spec["template"]
    template["metadata"] = dict(template.get("metadata") or {})
    labels = _labels(attempt)
    for metadata in (job["metadata"], template["metadata"]):
        metadata["labels"] = {**(metadata.get("labels") or {}), **labels}
        metadata["annotations"] = {**(metadata.get("annotations") or {}), RUN: attempt.run_id, FLOW: attempt.flow}
    pod = template["spec"]
    grace = max(pod.get("terminationGracePeriodSeconds") or 0, grace_seconds(settings))
    pod.update({"restartPolicy": "Never", "terminationGracePeriodSeconds": grace})
    ttl = spec.get("ttlSecondsAfterFinished")
    least = 3600 if ttl is not None else int(settings.group(KubernetesSettings).ttl)
    spec.update({"backoffLimit": 0, "podReplacementPolicy": "Failed", "ttlSecondsAfterFinished": max(ttl or 0, least)})
    spec.pop("activeDeadlineSeconds", None)
    if attempt.start_within is not None and attempt.timeout is not None:
        spec["activeDeadlineSeconds"] = math.ceil(attempt.start_within + attempt.timeout + grace + _SPARE)
    return int(grace)


def _labels(attempt: Attempt) -> dict[str, str]:
    identifier = uuid.uuid5(_IDENTIFIERS, f"{attempt.run_id}/{attempt.number}")
    return {
        "identifier": str(identifier),
        "flow_run_id": label_value(attempt.run_id),
        "attempt": str(attempt.number),
        INSTANCE: label_value(attempt.instance),
    }


def label_value(text: str) -> str:
    """``text`` where it may be a label's value, else a digest of it."""
    if len(text) <= 63 and re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?", text):
        return text
    return hashlib.sha256(text.encode()).hexdigest()[:40]


def _set_pod(pod: dict[str, Any], attempt: Attempt, settings: Settings, *, module: str, grace: int) -> str:
    """Set what is ours in the pod and its containers; the name of the flow's container."""
    given = attempt.environment
    if given.get("image_pull_secrets"):
        pod["imagePullSecrets"] = [{"name": name} for name in given["image_pull_secrets"]]
    for one in (*pod["containers"], *(pod.get("initContainers") or ())):
        one["env"] = _merged(one.get("env"), _plain(attempt.variables))
    flow = pod["containers"][0]
    flow.setdefault("name", "flow")
    flow["image"] = image_of(attempt, flow, settings)
    flow["command"] = ["python3", "-P", "-m", module]
    flow.pop("args", None)
    flow["terminationMessagePath"] = _TERMINATION_LOG
    for argument, field in (("image_pull_policy", "imagePullPolicy"), ("resources", "resources")):
        if given.get(argument):
            flow[field] = given[argument]
    wanted = [*_plain(given.get("env") or {}), *_references(given.get("secrets") or {})]
    flow["env"] = _merged(flow["env"], [*wanted, *_plain(attempt.variables), *_of_the_runner(grace)])
    mount = {"name": specs.VOLUME, "mountPath": specs.MOUNT, "readOnly": True}
    flow["volumeMounts"] = [*(flow.get("volumeMounts") or ()), mount]
    volume = {"name": specs.VOLUME, "secret": {"secretName": attempt.name, "optional": False, "defaultMode": 0o444}}
    pod["volumes"] = [*(pod.get("volumes") or ()), volume]
    return str(flow["name"])


def image_of(attempt: Attempt, flow: Mapping[str, Any], settings: Settings) -> str:
    """The image that runs the flow: the storage's or the environment's, else the spec's, else the settings'.

    Raises:
        Permanent: the storage's image isn't known, or both storage and environment name one.
    """
    given = attempt.environment.get("image")
    stored = _stored_image(attempt.storage)
    if stored and given:
        raise _refused(f"image {given}: the flow's storage brings its own image ({stored}); give one of them")
    settled = settings.group(KubernetesSettings).image or f"flow-dispatcher-runner:{version('flow-dispatcher')}"
    return str(stored or given or flow.get("image") or settled)


def _stored_image(storage: Mapping[str, Any]) -> str | None:
    if not storage:
        return None
    from dispatcher.storage.base import from_json

    try:
        return from_json(storage, stored=True).image
    except DispatcherError as error:
        raise _refused(f"storage: {error}") from None


def _of_the_runner(grace: int) -> list[dict[str, Any]]:
    plain = {
        "DISPATCHER__EMBEDDED": "false",
        "DISPATCHER__RUN__SECRETS_FILE": CREDENTIALS,
        "DISPATCHER__RUN__LAST_WORDS": _TERMINATION_LOG,
        "DISPATCHER__RUN__GRACE": str(grace),
    }
    fields = {"POD": "metadata.name", "UID": "metadata.uid", "NODE": "spec.nodeName"}
    own = [
        {"name": f"DISPATCHER__RUN__{name}", "valueFrom": {"fieldRef": {"fieldPath": path}}}
        for name, path in fields.items()
    ]
    return [*_plain(plain), *own]


def _plain(variables: Mapping[str, str]) -> list[dict[str, Any]]:
    return [{"name": name, "value": value} for name, value in variables.items()]


def _references(secrets: Mapping[str, str]) -> list[dict[str, Any]]:
    found = []
    for variable, reference in secrets.items():
        name, _, key = reference.partition("/")
        found.append({"name": variable, "valueFrom": {"secretKeyRef": {"name": name, "key": key}}})
    return found


def _merged(there: Iterable[Mapping[str, Any]] | None, ours: Iterable[dict[str, Any]]) -> list[Any]:
    """A container's variables with ours in the place of those of the same name."""
    mine = {one["name"]: one for one in ours}
    return [*(one for one in there or () if one.get("name") not in mine), *mine.values()]
