"""The pod of a Dask worker as all workers of an attempt have it: what is set, and what is kept of a user's own.

Pure; called by :mod:`backends.dask_kubernetes.manifest`, which adds what differs from worker to worker.
"""

from __future__ import annotations

import copy
import posixpath
from collections.abc import Mapping
from typing import Any

from backends.dask_kubernetes import image_pull, worker_options, worker_size
from backends.dask_kubernetes.worker_spec import CONTAINER
from backends.kubernetes import container_env
from backends.kubernetes import job_spec as specs
from backends.kubernetes import manifest as jobs
from backends.kubernetes.attempt_objects import BACKEND, MAIN_CONTAINER
from dispatcher.runs.attempt import Attempt

#: The module that every worker loads first.
PRELOAD = "dispatcher.executors.dask_cluster.worker_life"

#: Seconds between SIGTERM and SIGKILL, at most: a worker saves nothing, and its tasks run again elsewhere.
GRACE = 10

_DEATH_TIMEOUT = "60"  # seconds after which a worker without scheduler ends
_PAGES = "127.0.0.1:0"  # served without a dashboard too, and without TLS
_SCRATCH = "/tmp"
_LOCAL_DIRECTORY = "/tmp/dask-worker"

#: Variables of a worker, which dask worker's nanny would set: one thread per task, and memory that is given back.
_NANNY_ENV = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MALLOC_TRIM_THRESHOLD_": "65536",
}


def template(
    spec: Mapping[str, Any], attempt: Attempt, *, job: Mapping[str, Any], dask_env: Mapping[str, str]
) -> dict[str, Any]:
    """Return the Pod of an attempt's workers, without their names, owner and scheduler.

    Args:
        spec: the user's own Pod, checked, or the default.
        attempt: the attempt.
        job: its Job as it is sent.
        dask_env: variables that the worker gets beside the user's own, such as those of its certificate.
    """
    pod: dict[str, Any] = {"apiVersion": "v1", "kind": "Pod", **copy.deepcopy(dict(spec))}
    pod.pop("status", None)
    pod["metadata"] = _metadata(pod.get("metadata") or {}, job)
    _set_pod(pod["spec"], attempt, job["spec"]["template"]["spec"])
    _set_container(pod["spec"], attempt, job["spec"]["template"]["spec"], dask_env)
    pod["metadata"]["annotations"][MAIN_CONTAINER] = pod["spec"]["containers"][0]["name"]
    return pod


def _metadata(written: Mapping[str, Any], job: Mapping[str, Any]) -> dict[str, Any]:
    own = job["metadata"]
    labels = {name: own["labels"][name] for name in ("identifier", "flow_run_id", "attempt", jobs.INSTANCE, BACKEND)}
    annotations = {name: own["annotations"][name] for name in (jobs.RUN, jobs.FLOW)}
    return {
        **{name: value for name, value in written.items() if name not in {"name", "namespace"}},
        "labels": {**(written.get("labels") or {}), **labels},
        "annotations": {**(written.get("annotations") or {}), **annotations},
    }


def _set_pod(pod: dict[str, Any], attempt: Attempt, flow_pod: Mapping[str, Any]) -> None:
    grace = pod.get("terminationGracePeriodSeconds")
    pod.update(
        {"restartPolicy": "Never", "terminationGracePeriodSeconds": GRACE if grace is None else min(grace, GRACE)}
    )
    if not pod.get("serviceAccountName") and not pod.get("serviceAccount"):
        pod.setdefault("automountServiceAccountToken", False)
    if references := image_pull.merged(pod.get("imagePullSecrets"), flow_pod.get("imagePullSecrets")):
        pod["imagePullSecrets"] = references  # the image is the flow's
    variables = container_env.plain(attempt.variables)
    for container in (*pod["containers"], *(pod.get("initContainers") or ())):
        container["env"] = container_env.merged(container.get("env"), variables)


def _set_container(
    pod: dict[str, Any], attempt: Attempt, flow_pod: Mapping[str, Any], dask_env: Mapping[str, str]
) -> None:
    environment = attempt.environment
    worker = pod["containers"][0]
    worker["name"] = worker.get("name") or CONTAINER
    worker["image"] = flow_pod["containers"][0]["image"]
    for argument, field in (("image_pull_policy", "imagePullPolicy"), ("worker_resources", "resources")):
        if environment.get(argument):
            worker[field] = copy.deepcopy(environment[argument])
    worker["command"] = _command(pod)
    worker.pop("args", None)
    user_env = {entry.get("name") for entry in worker["env"]}
    defaults = {name: value for name, value in _NANNY_ENV.items() if name not in user_env}
    worker["env"] = container_env.merged(
        [*container_env.plain(defaults), *worker["env"]],
        [
            *container_env.plain(environment.get("env") or {}),
            *container_env.of_secrets(environment.get("secrets") or {}),
            *container_env.plain(attempt.variables),
            *container_env.plain({"DISPATCHER__EMBEDDED": "false", **dask_env}),
        ],
    )
    _mount_scratch(pod, worker)


def options_of(pod: Mapping[str, Any]) -> list[str]:
    """Return the options of ``dask worker`` for a user's own Pod. What is in it goes before what is chosen here.

    Args:
        pod: the pod's spec, whose first container has the user's command and arguments.
    """
    options = worker_options.parse(pod["containers"][0])
    chosen = {
        "--nthreads": str(worker_size.threads(pod)),
        "--memory-limit": worker_size.memory(pod),
        "--death-timeout": _DEATH_TIMEOUT,
        "--local-directory": _LOCAL_DIRECTORY,
    }
    names = options.names()
    words = [word for name, value in chosen.items() if name not in names for word in (name, value)]
    return [*words, *options.words]


def _command(pod: Mapping[str, Any]) -> list[str]:
    """Return the worker's command, without its name."""
    program = ["python3", "-P", "-m", "distributed.cli.dask_worker", "--no-nanny"]
    return [*program, "--no-dashboard", "--dashboard-address", _PAGES, "--preload", PRELOAD, *options_of(pod)]


def _mount_scratch(pod: dict[str, Any], worker: dict[str, Any]) -> None:
    """Give the worker a directory for temporary files, unless it has one: its root may be read-only."""
    mounts = worker.get("volumeMounts") or ()
    if any(posixpath.normpath(str(mount.get("mountPath"))) == _SCRATCH for mount in mounts):
        return
    worker["volumeMounts"] = [*mounts, {"name": specs.SCRATCH_VOLUME, "mountPath": _SCRATCH}]
    pod["volumes"] = [*(pod.get("volumes") or ()), {"name": specs.SCRATCH_VOLUME, "emptyDir": {}}]
