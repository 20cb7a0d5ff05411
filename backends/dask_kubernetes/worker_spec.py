"""Parsing and validation of a user's own Pod for Dask workers. It runs where the Pod is given.

A Pod is checked as the template of a Job is, by :mod:`backends.kubernetes.job_spec` and its tables. Nothing is changed
here; :mod:`backends.dask_kubernetes.manifest` sets the fields that every worker's pod gets.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from backends.dask_kubernetes import worker_options
from backends.kubernetes import job_bounds
from backends.kubernetes import job_spec as specs
from backends.kubernetes.job_fields import check_types
from backends.kubernetes.job_references import reference_problems
from dispatcher.errors import InvalidInput
from dispatcher.support.escaping import escaped, shown

#: The name of the worker's container where the user gives none.
CONTAINER = "dask-worker"

#: Where both the flow's container and the workers' get the certificate of their cluster.
TLS_MOUNT = "/var/run/flow-dispatcher-tls"

#: The same place in most images, where ``/var/run`` is a link.
RESERVED_MOUNTS = (TLS_MOUNT, TLS_MOUNT.removeprefix("/var"))

_FIELDS = ("apiVersion", "kind", "metadata", "spec", "status")
_TEMPLATE = "V1PodTemplateSpec"
_PREFIX = "spec.template."  # of paths in a Job, whose template a Pod is like
_OWNER = "the run's Job owns its workers; remove it"
_REFUSED = (
    ("metadata.generateName", "a worker's name derives from run and attempt; remove it"),
    ("metadata.ownerReferences", _OWNER),
    ("metadata.finalizers", "a worker that has ended must be gone at once; remove it"),
)
_REPLICAS = "a Pod has no replicas; min_workers and max_workers say how many there are"


def check(spec: Any, *, source: str, allow_unknown_fields: bool = False) -> None:
    """Validate a Pod as its user wrote it.

    Args:
        spec: the Pod.
        source: its argument or file, for messages.
        allow_unknown_fields: accept fields that the table lacks.

    Raises:
        InvalidInput: the Pod can't run a worker; names each wrong path with the reason.
    """
    _check_mapping(spec, source)
    problems = list(_problems(spec, allow_unknown_fields)) or list(_exported(spec))
    problems = problems or [
        *(() if allow_unknown_fields else map(_in_pod, specs.check_values(_template(spec), _TEMPLATE, _PREFIX[:-1]))),
        *map(_in_pod, reference_problems(_named(spec))),
    ]
    if problems:
        raise InvalidInput(f"{source}: " + escaped("; ".join(problems)))
    specs.check_json(spec, source=source)


def check_stored(spec: Any, *, source: str) -> None:
    """Validate a Pod that its submitter has checked, perhaps with another release, as far as it is read here.

    Raises:
        InvalidInput: the Pod can't run a worker; names each wrong path with the reason.
    """
    _check_mapping(spec, source)
    if problems := structure_problems(spec):
        raise InvalidInput(f"{source}: " + escaped("; ".join(problems)))


def structure_problems(spec: Mapping[str, Any]) -> list[str]:
    """Return why a worker's pod can't be built on a Pod, each with its path; a field that isn't known is accepted."""
    return list(_problems(spec, True))


def _check_mapping(spec: Any, source: str) -> None:
    if not isinstance(spec, Mapping):
        raise InvalidInput(f"{source}: must be a mapping (a Pod), got {type(spec).__name__}")
    job_bounds.check_value(spec, source=source)


def _problems(spec: Mapping[str, Any], allow_unknown: bool) -> list[str]:
    """Return what is wrong with kind, types, fields that would break a worker, and its command."""
    problems = [*_check_kind(spec), *(() if allow_unknown else _check_top(spec))]
    problems = problems or [*_check_types(spec, allow_unknown), *_check_refused(spec)]
    return problems or [*_check_reserved(spec), *_check_command(spec)]


def _check_kind(spec: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is wrong with a Pod's head. As in the seed's own file, ``apiVersion`` may be missing."""
    if spec.get("kind") != "Pod":
        yield f"kind: must be Pod, got {shown(spec.get('kind'))}"
    if spec.get("apiVersion") not in (None, "v1"):
        yield f"apiVersion: must be v1, got {shown(spec['apiVersion'])}"
    containers = specs.at(spec, "spec.containers")
    if not isinstance(containers, list) or not containers:
        yield "spec.containers: needs a container; the first is the Dask worker"


def _check_top(spec: Mapping[str, Any]) -> Iterator[str]:
    for name in spec:
        if name not in _FIELDS:
            yield f"{name}: unknown field; a Pod has {', '.join(_FIELDS)}"


def _check_types(spec: Mapping[str, Any], allow_unknown: bool) -> Iterator[str]:
    for problem in check_types(_template(spec), _TEMPLATE, _PREFIX[:-1], allow_unknown):
        path, _, reason = _in_pod(problem).partition(": ")
        if path == "spec.replicas":
            reason = f"unknown field: {_REPLICAS}"
        yield f"{path}: {reason}"


def _check_refused(spec: Mapping[str, Any]) -> Iterator[str]:
    for path, reason in _REFUSED:
        if specs.at(spec, path):
            yield f"{path}: can't be given: {reason}"


def _check_reserved(spec: Mapping[str, Any]) -> Iterator[str]:
    yield from map(_in_pod, specs.reserved_problems(spec["spec"], RESERVED_MOUNTS))


def _check_command(spec: Mapping[str, Any]) -> Iterator[str]:
    for problem in worker_options.parse(spec["spec"]["containers"][0]).problems:
        yield f"spec.containers[0].{problem}"


def _exported(spec: Mapping[str, Any]) -> Iterator[str]:
    exported = [*map(_in_pod, specs.exported_fields(spec.get("metadata"))), *(["status"] if spec.get("status") else [])]
    if exported:
        yield f"{', '.join(exported)}: set by the cluster from which this Pod was exported; remove them"


def _template(spec: Mapping[str, Any]) -> dict[str, Any]:
    return {name: spec[name] for name in ("metadata", "spec") if name in spec}


def _named(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return the pod's spec with the name of the worker's container."""
    first, *others = spec["spec"]["containers"]
    return {**spec["spec"], "containers": [{**first, "name": first.get("name") or CONTAINER}, *others]}


def _in_pod(problem: str) -> str:
    """Return a problem, or a path, in a Job as one in a Pod."""
    return problem.removeprefix(_PREFIX)
