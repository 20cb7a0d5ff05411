"""Manifests of an attempt whose Dask cluster is made by the Dask operator: its Job, a DaskCluster and a DaskAutoscaler.

The Job is that of :mod:`backends.kubernetes.manifest`. It owns the other two, and the operator makes scheduler, Service
and workers of them. Pure functions of the attempt and the settings. See
https://kubernetes.dask.org/en/latest/operator_resources.html.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from typing import Any

from backends.base import Request
from backends.container import runner
from backends.container.errors import refused
from backends.dask_kubernetes import manifest
from backends.dask_kubernetes import worker_pod as pods
from backends.dask_kubernetes.manifest import check_request, objections
from backends.kubernetes import container_env
from backends.kubernetes import manifest as jobs
from backends.kubernetes.attempt_objects import BACKEND, CLUSTER, MAIN_CONTAINER
from backends.kubernetes.settings import KubernetesSettings
from dispatcher.errors import MissingExtra
from dispatcher.runs.attempt import Attempt
from dispatcher.settings import Settings

__all__ = ["build", "check_request", "dask_autoscaler", "dask_cluster", "draft", "objections"]

#: The backend's name, in a label of everything that it creates; also that of its extra.
NAME = "dask-operator"

#: The API group of the operator's resources.
GROUP = "kubernetes.dask.org"

#: What the name of the scheduler's Service has after the cluster's.
SCHEDULER_SUFFIX = "-scheduler"

PORT = 8786  #: of the scheduler

_MOST_NAME = 53  # letters of a DaskCluster's name that the operator accepts
_SCHEDULER = "DASK_DISTRIBUTED__SCHEDULER__"
_BLOCKED_HANDLERS = f"{_SCHEDULER}BLOCKED_HANDLERS"
_LABELS = ("identifier", "flow_run_id", "attempt", jobs.INSTANCE, BACKEND)

#: Fields of a pod that no Deployment may have, and those that the scheduler's pod doesn't get.
_NOT_OF_DEPLOYMENTS = ("restartPolicy", "activeDeadlineSeconds")
_OF_WORKERS = ("initContainers", "containers")

#: Fields of the worker's container that the scheduler's doesn't get.
_OF_WORKER_ALONE = frozenset({"ports", "startupProbe", "lifecycle"})


def build(attempt: Attempt, settings: Settings, *, module: str = runner.RUNNER) -> Request:
    """Return the request of an attempt; arguments and errors as :func:`backends.dask_kubernetes.manifest.build`."""
    request = draft(attempt, settings, module=module)
    if problems := objections(request, settings):
        raise refused("; ".join(problems))
    return request


def draft(attempt: Attempt, settings: Settings, *, module: str = runner.RUNNER) -> Request:
    """Return the request of an attempt whether or not the settings allow what is in it.

    It is that of :func:`backends.dask_kubernetes.manifest.draft` without TLS, and tells the flow where its scheduler
    will be. The pod in it is the model of scheduler and workers.

    Raises:
        Permanent: as there; or the name is too long for a DaskCluster.
    """
    request, spec = manifest.flow_request(attempt, settings, module=module, backend=NAME)
    if len(attempt.name) > _MOST_NAME:
        raise refused(f"DaskCluster {attempt.name}: the operator takes names of at most {_MOST_NAME} characters")
    job = request["job"]
    flow = job["spec"]["template"]["spec"]["containers"][0]
    address = {"DASK_SCHEDULER_ADDRESS": scheduler_address(attempt.name, request["namespace"])}
    flow["env"] = container_env.merged(flow["env"], container_env.plain(address))
    request["digest"] = job["metadata"]["annotations"][jobs.DIGEST] = jobs.digest(job)
    pod = pods.template(spec, attempt, job=job, dask_env=_dask_env(attempt.environment, spec, settings))
    container = pod["spec"]["containers"][0]
    container["command"] = ["dask", "worker", *pods.options_of(_written(spec, container))]
    digest = pod["metadata"]["annotations"][jobs.DIGEST] = jobs.digest(pod)
    numbers = manifest.numbers(attempt.environment)
    request["workers"] = {**numbers, "container": container["name"], "digest": digest, "pod": pod}
    return request


def cluster_name(request: Request) -> str:
    """Return the name of the DaskCluster and of its DaskAutoscaler: the Job's."""
    return str(request["job"]["metadata"]["name"])


def scheduler_address(name: str, namespace: str) -> str:
    """Return the address of the scheduler of a DaskCluster: its Service's."""
    return f"tcp://{name}{SCHEDULER_SUFFIX}.{namespace}.svc:{PORT}"


def dask_cluster(request: Request, uid: str) -> dict[str, Any]:
    """Return the DaskCluster of an attempt.

    Args:
        request: the attempt's.
        uid: the UID of its Job, which owns it and whose deletion in the foreground waits for it.

    Raises:
        MissingExtra: dask-kubernetes isn't installed.
    """
    pod = request["workers"]["pod"]
    worker = pod["spec"]["containers"][0]
    made = _make_cluster_spec(request, worker)
    spec = made["spec"]
    scheduler, group = spec["scheduler"], spec["worker"]
    (hosting,), (working,) = scheduler["spec"]["containers"], group["spec"]["containers"]
    hosting["args"][0:1] = ["dask", "scheduler"]  # distributed has no program of the name that is written there
    hosting["env"] = _scheduler_env(hosting["env"])
    working["args"] += ["--no-nanny", *worker["command"][2:]]
    common = {name: value for name, value in worker.items() if name not in _OF_WORKER_ALONE}
    scheduler["spec"] = _deployed(pod["spec"], _container(common, hosting), without=_OF_WORKERS)
    group["spec"] = _deployed(pod["spec"], _container(worker, working), *pod["spec"]["containers"][1:])
    group["metadata"] = _own(pod["metadata"])
    return {**made, "metadata": _metadata(request, uid)}


def dask_autoscaler(request: Request, uid: str) -> dict[str, Any]:
    """Return the DaskAutoscaler of an attempt; arguments as :func:`dask_cluster`.

    The operator makes it a child of the cluster only once it has seen it, so that the Job owns it from the start.
    """
    workers = request["workers"]
    return {
        "apiVersion": f"{GROUP}/v1",
        "kind": "DaskAutoscaler",
        "metadata": _metadata(request, uid),
        "spec": {"cluster": cluster_name(request), "minimum": workers["min"], "maximum": workers["max"]},
    }


def preload() -> None:
    """Load the default manifests and dask-kubernetes, whose import takes seconds.

    Raises:
        MissingExtra: dask-kubernetes isn't installed.
    """
    manifest.preload()
    _operator()


def _operator() -> Any:
    try:
        from dask_kubernetes import operator
    except ImportError as error:
        raise MissingExtra(f"operator=True needs {error.name}: pip install 'flow-dispatcher[dask-operator]'") from error
    return operator


def _make_cluster_spec(request: Request, worker: Mapping[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = _operator().make_cluster_spec(
        cluster_name(request),
        image=worker["image"],
        n_workers=request["workers"]["min"],
        resources=worker.get("resources") or {},
        env=worker["env"],
        worker_command="dask worker",
    )
    del made["spec"]["idleTimeout"]  # it would end a cluster under a flow that computes without Dask
    separate: dict[str, Any] = json.loads(json.dumps(made))  # its parts share lists
    return separate


def _written(spec: Mapping[str, Any], container: Mapping[str, Any]) -> dict[str, Any]:
    """Return the spec of the user's own pod, whose worker has the resources that it will have."""
    first, *others = spec["spec"]["containers"]
    resources = {"resources": container["resources"]} if "resources" in container else {}
    return {**spec["spec"], "containers": [{**first, **resources}, *others]}


def _dask_env(environment: Mapping[str, Any], spec: Mapping[str, Any], settings: Settings) -> dict[str, str]:
    """Return the scheduler's configuration. Variables that the user has set stand."""
    chosen = {
        f"{_SCHEDULER}WORK_STEALING": str(bool(environment.get("work_stealing"))),
        f"{_SCHEDULER}NO_WORKERS_TIMEOUT": f"{settings.group(KubernetesSettings).no_workers_timeout:g}s",
    }
    own = {str(entry.get("name")) for entry in spec["spec"]["containers"][0].get("env") or ()}
    own |= {*(environment.get("env") or {}), *(environment.get("secrets") or {})}
    own = {name.upper() for name in own}
    return {name: value for name, value in chosen.items() if name not in own}


def _scheduler_env(variables: Sequence[Mapping[str, Any]]) -> list[Any]:
    """Return the variables of the scheduler's container: the worker's, but for the calls that it blocks.

    A flow's code reaches it by ``run_function``, which the files of Prefect 0.10 block.
    """
    others = [variable for variable in variables if str(variable.get("name")).upper() != _BLOCKED_HANDLERS]
    return container_env.merged(others, container_env.plain({_BLOCKED_HANDLERS: "['feed']"}))


def _container(written: Mapping[str, Any], made: Mapping[str, Any]) -> dict[str, Any]:
    """Return a container of the operator's with the fields of one of ours that it doesn't have.

    The command replaces the entry point of the image, which could be anything.
    """
    ours = {name: copy.deepcopy(value) for name, value in written.items() if name not in {"command", "args"}}
    own = {name: value for name, value in made.items() if name != "args" and value is not None}
    return {**ours, **own, "command": list(made["args"])}


def _deployed(
    pod: Mapping[str, Any], first: Mapping[str, Any], *others: Mapping[str, Any], without: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Return the spec of a pod of a Deployment."""
    left_out = {*_NOT_OF_DEPLOYMENTS, *without}
    fields = {name: copy.deepcopy(value) for name, value in pod.items() if name not in left_out}
    return {**fields, "containers": [dict(first), *copy.deepcopy(list(others))]}


def _own(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return labels and annotations of workers that aren't the cluster's too."""
    labels = {name: value for name, value in (metadata.get("labels") or {}).items() if name not in _LABELS}
    annotations = {**(metadata.get("annotations") or {}), MAIN_CONTAINER: "worker"}
    return {"labels": labels, "annotations": annotations}


def _metadata(request: Request, uid: str) -> dict[str, Any]:
    """Return metadata whose labels the operator gives to all that it makes of the object."""
    job = request["job"]["metadata"]
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": job["name"], "uid": uid, "blockOwnerDeletion": True}
    return {
        "name": cluster_name(request),
        "namespace": request["namespace"],
        "labels": {**{name: job["labels"][name] for name in _LABELS}, CLUSTER: uid},
        "annotations": {jobs.RUN: job["annotations"][jobs.RUN]},
        "ownerReferences": [owner],
    }
