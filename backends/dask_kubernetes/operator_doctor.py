"""The checks of ``dispatcher doctor --backend dask-operator``: those for Jobs, and what the Dask operator needs.

These are dask-kubernetes at the worker, which writes the DaskClusters; Dask in the image; the operator's definitions on
the cluster; and the right to create and delete its resources.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING

from backends.dask_kubernetes import operator_manifest as manifest
from backends.dask_kubernetes.operator_objects import missing_definition
from backends.kubernetes import doctor
from backends.kubernetes.cluster.api import Api, ApiError
from backends.kubernetes.cluster.identity import ClusterIdentity
from dispatcher.errors import DispatcherError
from dispatcher.inspection.finding import Finding, ok, problem, problem_of
from dispatcher.settings import Settings

if TYPE_CHECKING:
    from backends.dask_kubernetes.operator_backend import DaskOperatorBackend

_VERBS = ("create", "get", "delete")

#: The rights that a worker needs in each of its namespaces: the Role of the documentation.
RIGHTS: Mapping[str, tuple[str, ...]] = {**doctor.RIGHTS, "daskclusters": _VERBS, "daskautoscalers": _VERBS}

#: Packages of the image whose versions count: flow, scheduler and workers exchange pickles.
PACKAGES = ("dask", "distributed", "cloudpickle")

#: A name that no object has: the answer tells whether the kind is known.
_NOBODY = "flow-dispatcher-doctor"


def examine(
    backend: DaskOperatorBackend,
    api: Api,
    settings: Settings,
    identity: ClusterIdentity,
    *,
    within: float = 60.0,
    wait: Callable[[float], None],
) -> Iterator[Finding]:
    """Check everything, in an order in which the first problem explains later ones. Arguments as those for Jobs."""
    try:
        manifest.preload()
    except DispatcherError as error:
        yield problem_of("dask", error, "pip install 'flow-dispatcher[dask-operator]'")
        return
    yield ok("dask", "this worker can write DaskClusters")
    demands = doctor.Demands(
        rights=RIGHTS, environment={"operator": True}, packages=PACKAGES, more=partial(_definitions, api)
    )
    yield from doctor.examine(backend, api, settings, identity, within=within, wait=wait, demands=demands)


def _definitions(api: Api, namespace: str) -> Iterator[Finding]:
    """Check that the cluster knows the operator's resources. Whether the operator runs is seen only by a cluster."""
    unknown = [kind for kind in ("daskclusters", "daskautoscalers") if not _is_known(api, namespace, kind)]
    if not unknown:
        yield ok("operator", f"namespace {namespace}: the cluster knows the Dask operator's resources")
    for kind in unknown:
        text, _, remedy = missing_definition(kind).partition(": ")
        yield problem("operator", f"namespace {namespace}: {text}", remedy)


def _is_known(api: Api, namespace: str, kind: str) -> bool:
    try:
        api.get(namespace, kind, _NOBODY)
    except ApiError as error:
        if error.status == 404:
            return error.reason == "NotFound"
        if error.status == 403:  # its right is missing, which is a finding of its own
            return True
        raise
    return True
