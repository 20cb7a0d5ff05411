"""Manifests of an attempt with a Dask cluster: its Job, its workers' pods, the TLS Secret and the network policy.

The Job is that of :mod:`backends.kubernetes.manifest`, whose flow container hosts the scheduler. Workers are pods that
the Job owns but doesn't control: it would count them as its own. Pure functions of the attempt and the settings.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

from backends.base import Request
from backends.container import runner
from backends.container.errors import refused
from backends.container.image import default_image
from backends.dask_kubernetes import image_pull, worker_spec
from backends.dask_kubernetes import worker_pod as pods
from backends.dask_kubernetes.worker_spec import TLS_MOUNT
from backends.kubernetes import container_env, job_policy
from backends.kubernetes import job_spec as specs
from backends.kubernetes import manifest as jobs
from backends.kubernetes.attempt_objects import BACKEND, CLUSTER, WORKER
from backends.kubernetes.job_policy import JobPolicy
from backends.kubernetes.settings import KubernetesSettings
from dispatcher.executors.dask_cluster.tls import Tls
from dispatcher.runs.attempt import Attempt
from dispatcher.settings import Settings
from dispatcher.support.escaping import escaped, shown

#: The label of workers' pods; its value is the worker's name, such as ``w1``.
WORKER_LABEL = WORKER

#: Files of the cluster's certificate, which is its own authority, and of its key.
CERT = f"{TLS_MOUNT}/cert.pem"
KEY = f"{TLS_MOUNT}/key.pem"

#: What the name of the Secret with them has after the Job's.
TLS_SUFFIX = "-tls"

#: The scheduler's port in the flow's pod.
PORT = 8786

_JOB, _WORKER = "scheduler_spec", "worker_spec"
_OWN_LABELS = ("identifier", "flow_run_id", "attempt", jobs.INSTANCE, BACKEND)

#: The backend's name, in a label of everything that it creates.
NAME = "dask-kubernetes"


def build(attempt: Attempt, settings: Settings, *, module: str = runner.RUNNER) -> Request:
    """Return the request of an attempt: that of its Job, and under ``workers`` their number and their pod.

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


def draft(attempt: Attempt, settings: Settings, *, module: str = runner.RUNNER) -> Request:
    """Return the request of an attempt whether or not the settings allow what is in it (:func:`objections`).

    Raises:
        Permanent: its cluster or namespace isn't served, its image isn't known, or its Job or Pod can't be used.
    """
    request, spec = flow_request(attempt, settings, module=module, backend=NAME)
    job = request["job"]
    _set_cluster(job["spec"]["template"]["spec"], attempt.name, settings.group(KubernetesSettings))
    request["digest"] = job["metadata"]["annotations"][jobs.DIGEST] = jobs.digest(job)
    pod = pods.template(spec, attempt, job=job, dask_env=Tls(cert=CERT, key=KEY).variables())
    _mount_tls(pod["spec"], attempt.name)
    pod_digest = pod["metadata"]["annotations"][jobs.DIGEST] = jobs.digest(pod)
    request["workers"] = {
        **numbers(attempt.environment),
        "container": pod["spec"]["containers"][0]["name"],
        "digest": pod_digest,
        "pod": pod,
    }
    return request


def flow_request(
    attempt: Attempt, settings: Settings, *, module: str, backend: str
) -> tuple[dict[str, Any], Mapping[str, Any]]:
    """Return the request of an attempt's Job, which has no cluster yet, and the Pod of workers: the user's own, checked
    as far as it is read here, or the default.

    Args:
        attempt: the attempt.
        settings: of the worker that claimed it.
        module: the Python module that the flow's container runs.
        backend: the name in the label of the backend's objects.

    Raises:
        Permanent: as :func:`draft`.
    """
    environment = attempt.environment
    spec = environment.get(_WORKER)
    if spec is not None and (problems := worker_spec.structure_problems(spec)):
        raise refused(f"{_WORKER}: {escaped('; '.join(problems))}")
    request = dict(jobs.draft(attempt, settings, module=module, argument=_JOB))
    _check_namespace(spec, request["namespace"])
    job = request["job"]
    for metadata in (job["metadata"], job["spec"]["template"]["metadata"]):
        metadata["labels"][BACKEND] = backend
    request |= image_pull.of_registry(environment, instance=job["metadata"]["labels"][jobs.INSTANCE], settings=settings)
    image_pull.add(job["spec"]["template"]["spec"], environment, request, spec=environment.get(_JOB))
    return request, spec if spec is not None else _default_pod()


def check_request(request: Request, settings: Settings) -> None:
    """Reject a stored request that these settings wouldn't have built.

    Raises:
        Permanent: its cluster or namespace isn't served, it names no installation, a digest isn't that of its Job or
            Pod, or the policy refuses what is in them.
    """
    jobs.check_request(request, settings, argument=_JOB, own_pull_secret=image_pull.own_name(request))
    pod = request["workers"]["pod"]
    labels, own = pod["metadata"]["labels"], request["job"]["metadata"]["labels"]
    same = all(labels.get(name) == own.get(name) for name in _OWN_LABELS)
    if not same or request["workers"]["digest"] != jobs.digest(pod) or "namespace" in pod["metadata"]:
        raise refused(f"Job {request['job']['metadata']['name']!r}: its workers' pod doesn't match the request")
    _check_policy(request, settings)


def objections(request: Request, settings: Settings) -> list[str]:
    """Return what a worker with these settings refuses in a request's Job and Pod, each with its path and setting; and
    why it can't make the Secret of their registry."""
    of_job = jobs.objections(request, settings, own_pull_secret=image_pull.own_name(request))
    return [
        *image_pull.problems(request),
        *(f"{_JOB}: {problem}" for problem in of_job),
        *(f"{_WORKER}: {problem}" for problem in _worker_objections(request, settings)),
    ]


def preload() -> None:
    """Load the default manifests, with the YAML parser, whose import takes a while."""
    jobs.preload()
    _default_pod()


def worker_pod(request: Request, *, name: str, job_uid: str, address: str) -> dict[str, Any]:
    """Return the Pod of one worker.

    Args:
        request: the attempt's.
        name: of the worker, such as ``w1``.
        job_uid: UID of the attempt's Job, which owns the Pod.
        address: IP address of the flow's pod.
    """
    pod: dict[str, Any] = copy.deepcopy(dict(request["workers"]["pod"]))
    metadata = pod["metadata"]
    metadata["name"] = worker_pod_name(request, name)
    metadata["namespace"] = request["namespace"]
    metadata["labels"].update({WORKER_LABEL: name, CLUSTER: job_uid})
    metadata["ownerReferences"] = [_owner(request, job_uid)]
    container = pod["spec"]["containers"][0]
    container["command"] += ["--name", name]
    host = f"[{address}]" if ":" in address else address
    scheduler = {"DASK_SCHEDULER_ADDRESS": f"tls://{host}:{PORT}"}
    container["env"] = container_env.merged(container["env"], container_env.plain(scheduler))
    return pod


def worker_pod_name(request: Request, name: str) -> str:
    """Return the name of the Pod of a worker, at most 63 characters."""
    return f"{request['job']['metadata']['name']}-{name}"


def was_created_by(metadata: Mapping[str, Any], request: Request, *, name: str, job_uid: str) -> bool:
    """Return True if a request created the Pod with this metadata for a worker: same digest, attempt and owner."""
    labels, annotations = metadata.get("labels") or {}, metadata.get("annotations") or {}
    expected = {**request["workers"]["pod"]["metadata"]["labels"], WORKER_LABEL: name}
    owners = [reference.get("uid") for reference in metadata.get("ownerReferences") or ()]
    return (
        metadata.get("name") == worker_pod_name(request, name)
        and annotations.get(jobs.DIGEST) == request["workers"]["digest"]
        and all(labels.get(label) == expected[label] for label in (*_OWN_LABELS, WORKER_LABEL))
        and owners == [job_uid]
    )


def tls_secret(request: Request, uid: str, pem_certificate: str, pem_key: str) -> dict[str, Any]:
    """Return the Secret with the cluster's certificate and key, and nothing else; the Job owns it.

    Args:
        request: the attempt's.
        uid: the Job's.
        pem_certificate: PEM text of the certificate, which is its own authority.
        pem_key: PEM text of its key.
    """
    files = {CERT.rpartition("/")[2]: pem_certificate, KEY.rpartition("/")[2]: pem_key}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": _metadata(request, uid, tls_secret_name(request["job"]["metadata"]["name"])),
        "type": "Opaque",
        "immutable": True,
        "stringData": files,
    }


def tls_secret_name(job_name: str) -> str:
    """Return the name of the Secret with the certificate of an attempt's cluster."""
    return f"{job_name}{TLS_SUFFIX}"


def network_policy(request: Request, uid: str) -> dict[str, Any]:
    """Return the network policy of an attempt: its pods accept connections only from each other. The Job owns it."""
    metadata = _metadata(request, uid, str(request["job"]["metadata"]["name"]))
    pods_of_attempt = {"matchLabels": {"identifier": metadata["labels"]["identifier"]}}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata,
        "spec": {
            "podSelector": pods_of_attempt,
            "policyTypes": ["Ingress"],
            "ingress": [{"from": [{"podSelector": copy.deepcopy(pods_of_attempt)}]}],
        },
    }


@cache
def _default_pod() -> Mapping[str, Any]:
    text = resources.files("backends.dask_kubernetes").joinpath("worker_pod.yaml").read_text(encoding="utf-8")
    return specs.parse(text, source="worker_pod.yaml", kind="Pod")


def numbers(environment: Mapping[str, Any]) -> dict[str, int]:
    """Return the least and greatest number of workers."""
    least, most = environment.get("min_workers", 1), environment.get("max_workers", 2)
    if not isinstance(least, int) or not isinstance(most, int) or not 0 <= least <= most:
        raise refused(f"min_workers {shown(least)}, max_workers {shown(most)}: must be whole numbers, 0 ≤ min ≤ max")
    return {"min": least, "max": most}


def _check_namespace(spec: Mapping[str, Any] | None, namespace: str) -> None:
    own = specs.at(spec, "metadata.namespace")
    if own and own != namespace:
        raise refused(f"{_WORKER}: metadata.namespace: {own}: workers are in the namespace of their Job, {namespace}")


def _set_cluster(pod: dict[str, Any], job_name: str, settings: KubernetesSettings) -> None:
    """Give the flow's container the certificate, and variables with what the runner has to know of the cluster."""
    flow = pod["containers"][0]
    variables = {
        "DISPATCHER__RUN__TLS_CERT": CERT,
        "DISPATCHER__RUN__TLS_KEY": KEY,
        "DISPATCHER__RUN__NO_WORKERS_TIMEOUT": f"{settings.no_workers_timeout:g}",
    }
    flow["env"] = container_env.merged(flow["env"], container_env.plain(variables))
    _mount_tls(pod, job_name)


def _mount_tls(pod: dict[str, Any], job_name: str) -> None:
    container = pod["containers"][0]
    mount = {"name": specs.TLS_VOLUME, "mountPath": TLS_MOUNT, "readOnly": True}
    container["volumeMounts"] = [*(container.get("volumeMounts") or ()), mount]
    source = {"secretName": tls_secret_name(job_name), "optional": False, "defaultMode": 0o444}
    pod["volumes"] = [*(pod.get("volumes") or ()), {"name": specs.TLS_VOLUME, "secret": source}]


def _metadata(request: Request, uid: str, name: str) -> dict[str, Any]:
    """Return the metadata of an object that the Job owns."""
    labels = request["job"]["metadata"]["labels"]
    return {
        "name": name,
        "namespace": request["namespace"],
        "labels": {label: labels[label] for label in _OWN_LABELS},
        "ownerReferences": [_owner(request, uid)],
    }


def _owner(request: Request, uid: str) -> dict[str, Any]:
    """Return the reference to the Job: what it owns is deleted with it, and doesn't block its deletion."""
    return {"apiVersion": "batch/v1", "kind": "Job", "name": request["job"]["metadata"]["name"], "uid": uid}


def _worker_objections(request: Request, settings: Settings) -> list[str]:
    group = settings.group(KubernetesSettings)
    policy = JobPolicy.of(group, default_image(group), image_pull.own_name(request))
    return job_policy.pod_refusals(request["workers"]["pod"], policy)


def _check_policy(request: Request, settings: Settings) -> None:
    if problems := objections(request, settings):
        raise refused("; ".join(problems))
