"""Our rules for workers' Pods beside the API server's own answers to hundreds of them, by a dry run."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest

from backends.dask_kubernetes import manifest, worker_spec
from dispatcher import DaskKubernetesEnvironment, InvalidInput
from tests.cloud import k8s
from tests.cloud.sandbox import Sandbox
from tests.unit.dask_kubernetes.pods import attempt_in, settings, worker_of
from tests.unit.kubernetes.job_variants import Json
from tests.unit.kubernetes.job_variants import variants as job_variants

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(600)]

_TEMPLATE = "spec.template."

#: Fields that are judged by the cluster's own objects: accounts, priority classes and runtime classes.
_ADMISSION = ("spec.serviceAccount", "spec.preemptionPolicy", "spec.overhead")

#: Where the server doesn't look at what we refuse: a worker's command is ours.
_COMMAND = ("spec.containers.0.command", "spec.containers.0.args")


def variants() -> Iterator[tuple[str, Json]]:
    """Yield the pods of the variants of Jobs, by what is different in them."""
    for name, job in job_variants():
        place = name.removeprefix(_TEMPLATE)
        if place == name or place.startswith((*_ADMISSION, *_COMMAND)):
            continue
        pod = {"kind": "Pod", **copy.deepcopy(job["spec"]["template"])}
        pod["spec"].pop("serviceAccountName", None)
        first = (pod["spec"].get("containers") or [{}])[0]
        if isinstance(first, dict):
            first.pop("command", None)
            first.pop("args", None)
        yield place, pod


def test_what_the_server_refuses_is_refused_and_nothing_else(sandbox: Sandbox) -> None:
    admin, differences, count = k8s.NamespaceAdmin(sandbox.name), [], 0
    for name, pod in variants():
        count += 1
        ours, theirs = _our_problem(pod), _server_problem(admin, sandbox.name, pod)
        if bool(ours) != bool(theirs):
            differences.append(f"{name}: we say {ours or 'nothing'}; the server says {theirs or 'nothing'}")
    assert not differences
    assert count > 300


def _our_problem(pod: Json) -> str:
    try:
        worker_spec.check(pod, source="worker_spec")
    except InvalidInput as error:
        return str(error)
    return ""


def _server_problem(admin: k8s.NamespaceAdmin, namespace: str, pod: Json) -> str:
    """Return why a server refuses a worker's Pod as it would be sent."""
    environment = {**DaskKubernetesEnvironment(image="a:1").to_json(), "worker_spec": pod}
    request = manifest.draft(attempt_in(environment), settings(namespaces=(namespace,)))
    try:
        admin.request("POST", "pods?dryRun=All&fieldValidation=Strict", worker_of(request))
    except LookupError as error:
        return str(error)
    return ""
