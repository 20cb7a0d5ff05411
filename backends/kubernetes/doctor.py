"""The checks of ``dispatcher doctor --backend kubernetes``: the API, our rights, quotas, and whether a pod starts.

The last check (:mod:`backends.kubernetes.trial`) starts a Job, and deletes it.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from backends.kubernetes.cluster.api import Api, ApiError, Unclear
from backends.kubernetes.cluster.connection import Unreachable
from backends.kubernetes.cluster.identity import RIGHT, ClusterIdentity
from backends.kubernetes.pod_security import BARE_JOB
from backends.kubernetes.settings import KubernetesSettings
from backends.kubernetes.trial import try_out
from dispatcher.errors import DispatcherError
from dispatcher.inspection.finding import Finding, ok, problem, problem_of, warning
from dispatcher.runs.place_identity import part_of, shown
from dispatcher.settings import Settings

if TYPE_CHECKING:
    from backends.kubernetes.backend import KubernetesBackend

#: The rights that a worker needs in each of its namespaces: the Role of the documentation.
RIGHTS: Mapping[str, tuple[str, ...]] = {
    "jobs": ("create", "get", "list", "watch", "delete"),
    "pods": ("get", "list", "watch", "delete"),
    "pods/log": ("get",),
    "events": ("list", "watch"),
    "secrets": ("create", "delete"),
    "resourcequotas": ("list",),
}

_Namespace = Callable[[str], Iterator[Finding]]


def _nothing(_namespace: str) -> Iterator[Finding]:
    yield from ()


@dataclass(frozen=True, kw_only=True)
class Demands:
    """Demands on a cluster and on its trial.

    Attributes:
        rights: resources and verbs that a worker needs in each of its namespaces.
        environment: JSON of the trial's environment, without its namespace.
        packages: distributions that the image must have in the versions that are installed here.
        more: further checks of a namespace; may raise the errors of the API.
    """

    rights: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: RIGHTS)
    environment: Mapping[str, object] = field(default_factory=dict)
    packages: tuple[str, ...] = ()
    more: _Namespace = _nothing


_OLDEST = (1, 27)
_START_TIMEOUT = 60.0  # seconds that the pod of the last check gets
_ERRORS = (ApiError, Unclear, Unreachable, DispatcherError)


def examine(
    backend: KubernetesBackend,
    api: Api,
    settings: Settings,
    identity: ClusterIdentity,
    *,
    within: float = _START_TIMEOUT,
    wait: Callable[[float], None],
    demands: Demands = Demands(),
) -> Iterator[Finding]:
    """Check everything, in an order in which the first problem explains later ones.

    Args:
        backend, api: of the cluster that the settings choose.
        settings: of the worker.
        identity: of the cluster.
        within: seconds that a pod gets to start and to end.
        wait: sleeps between two polls.
        demands: what is demanded.
    """
    try:
        version = api.version()
    except _ERRORS as error:
        yield problem_of("api", error, "see `kubectl version` with the same kubeconfig")
        return
    yield _version(version)
    for namespace in settings.group(KubernetesSettings).namespaces:
        if _is_missing(api, namespace):
            remedy = f"`kubectl create namespace {namespace}`, or correct DISPATCHER__KUBERNETES__NAMESPACES"
            yield problem("namespace", f"namespace {namespace} doesn't exist", remedy)
            continue
        yield _identity(identity, namespace)
        missing = yield from _rights(api, namespace, demands.rights)
        yield from _more(demands, namespace)
        if "resourcequotas" not in missing:
            yield from _quotas(api, namespace)
        if "jobs" not in missing:
            yield from _pod_security(api, namespace)
        if not missing & {"jobs", "secrets", "pods"}:
            environment = {**demands.environment, "namespace": namespace}
            yield from try_out(backend, environment, settings, within=within, wait=wait, packages=demands.packages)


def _more(demands: Demands, namespace: str) -> Iterator[Finding]:
    try:
        yield from demands.more(namespace)
    except _ERRORS as error:
        yield problem("rights", f"namespace {namespace}: {error}", "see the API server's log")


def _version(version: Mapping[str, Any]) -> Finding:
    numbers = tuple(int("".join(filter(str.isdigit, str(version.get(part))))[:4] or 0) for part in ("major", "minor"))
    text = f"Kubernetes {version.get('gitVersion')}"
    if numbers < _OLDEST:
        return warning("api", f"{text} is older than what is tested", f"use {_OLDEST[0]}.{_OLDEST[1]} or later")
    return ok("api", f"{text} answers")


def _is_missing(api: Api, namespace: str) -> bool:
    """Return True if a namespace doesn't exist. Where the worker may not read it, other checks tell."""
    try:
        api.namespace(namespace)
    except ApiError as error:
        return error.status == 404
    except _ERRORS:
        return False
    return False


def _pod_security(api: Api, namespace: str) -> Iterator[Finding]:
    """Yield what the namespace demands of the pods of a user's own Job. The Job of a run that names none has it."""
    try:
        warnings = [text for text in api.dry_run(namespace, "jobs", BARE_JOB) if "PodSecurity" in text]
    except _ERRORS:
        return  # the start of a pod shows what is wrong
    for text in warnings[:1]:
        yield ok("security", f"namespace {namespace}: a Job of your own needs a securityContext: {text}")


def _identity(identity: ClusterIdentity, namespace: str) -> Finding:
    """Check whether the worker can tell on which cluster a namespace is."""
    try:
        anchors = part_of(identity.read(), namespace)
    except _ERRORS as error:
        return problem_of("cluster", error, "see the API server's log")
    if anchors:
        return ok("cluster", f"namespace {namespace} is on the one with {shown(anchors)}")
    text = f"namespace {namespace}: a worker can't tell its cluster from another one: missing {RIGHT}"
    return warning("cluster", text, "give the worker the Role of the docs in each namespace")


def _rights(api: Api, namespace: str, rights: Mapping[str, tuple[str, ...]]) -> Generator[Finding, None, set[str]]:
    """Yield findings; return the resources of which a right is missing."""
    missing: dict[str, list[str]] = {}
    try:
        for kind, verbs in rights.items():
            denied = [verb for verb in verbs if not api.allowed(namespace, kind, verb)]
            if denied:
                missing[kind] = denied
    except _ERRORS as error:
        yield problem("rights", f"namespace {namespace}: {error}", "see the API server's log")
        return set(rights)
    if missing:
        text = "; ".join(f"{', '.join(verbs)} {kind}" for kind, verbs in missing.items())
        yield problem("rights", f"namespace {namespace}: missing {text}", "give the worker the Role of the docs there")
    else:
        yield ok("rights", f"namespace {namespace}: all that a worker needs")
    return set(missing)


def _quotas(api: Api, namespace: str) -> Iterator[Finding]:
    try:
        quotas = [quota for page in api.pages(namespace, "resourcequotas", {}) for quota in page.get("items") or ()]
    except _ERRORS as error:
        yield warning("quota", f"namespace {namespace}: {error}", "see the API server's log")
        return
    full = []
    for quota in quotas:
        status, name = quota.get("status") or {}, quota["metadata"]["name"]
        hard, used = status.get("hard") or {}, status.get("used") or {}
        full += [f"{name}: {kind} {used[kind]} of {limit}" for kind, limit in hard.items() if used.get(kind) == limit]
    if full:
        text = f"namespace {namespace}: used up: {'; '.join(full)}"
        yield warning("quota", text, "runs wait until others have ended")
    else:
        yield ok("quota", f"namespace {namespace}: {len(quotas)} quotas, none used up")
