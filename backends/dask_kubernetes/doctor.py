"""The checks of ``dispatcher doctor --backend dask-kubernetes``: those for Jobs, and what a Dask cluster needs besides.

These are Dask at the worker, which makes the certificates, and in the image; the right to create pods; and whether a
network policy can be created.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING

from backends.container.secret_sources import REGISTRY_CREDENTIALS, find_secret
from backends.kubernetes import doctor
from backends.kubernetes.cluster.api import Api
from backends.kubernetes.cluster.identity import ClusterIdentity
from backends.kubernetes.settings import KubernetesSettings
from dispatcher.errors import DispatcherError, Permanent, Transient
from dispatcher.inspection.finding import Finding, ok, problem_of, warning
from dispatcher.settings import Settings

if TYPE_CHECKING:
    from backends.dask_kubernetes.backend import DaskKubernetesBackend

#: The rights that a worker needs in each of its namespaces: the Role of the documentation, without network policies.
RIGHTS: Mapping[str, tuple[str, ...]] = {**doctor.RIGHTS, "pods": ("create", *doctor.RIGHTS["pods"])}

#: Packages of the image whose versions count: flow, scheduler and workers exchange pickles.
PACKAGES = ("dask", "distributed", "cloudpickle", "cryptography")

_POLICY_VERBS = ("create", "delete")


def examine(
    backend: DaskKubernetesBackend,
    api: Api,
    settings: Settings,
    identity: ClusterIdentity,
    *,
    within: float = 60.0,
    wait: Callable[[float], None],
) -> Iterator[Finding]:
    """Check everything, in an order in which the first problem explains later ones. Arguments as those for Jobs."""
    yield _dask()
    demands = doctor.Demands(
        rights=RIGHTS,
        environment=_environment(settings.group(KubernetesSettings)),
        packages=PACKAGES,
        more=partial(_policy, api),
    )
    yield from doctor.examine(backend, api, settings, identity, within=within, wait=wait, demands=demands)


def _dask() -> Finding:
    """Check that this worker can make the certificates of clusters."""
    from dispatcher.executors.dask_cluster.certificates import make_certificate

    try:
        make_certificate()
    except DispatcherError as error:
        return problem_of("dask", error, "pip install 'flow-dispatcher[dask-kubernetes]'")
    return ok("dask", "this worker can make the certificates of clusters")


def _environment(group: KubernetesSettings) -> Mapping[str, object]:
    """Return the arguments of the trial's environment: with the credentials of a registry, if this worker has some."""
    try:
        find_secret(REGISTRY_CREDENTIALS, folder=group.secrets_folder)
    except (Permanent, Transient):
        return {}
    return {"private_registry": True}


def _policy(api: Api, namespace: str) -> Iterator[Finding]:
    """Check whether the pods of a run can be closed to all others."""
    denied = [verb for verb in _POLICY_VERBS if not api.allowed(namespace, "networkpolicies", verb)]
    if not denied:
        text = "pods of a run accept connections from each other alone, if the cluster enforces network policies"
        yield ok("policy", f"namespace {namespace}: {text}")
        return
    text = f"no network policy is created (missing {', '.join(denied)} networkpolicies): TLS alone protects a run"
    yield warning("policy", f"namespace {namespace}: {text}", "give the worker the Role of the docs there")
