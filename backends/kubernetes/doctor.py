"""The checks of ``dispatcher doctor --backend kubernetes``: the API, our rights, quotas, and whether a pod starts.

The last check starts something: a Job of the runner image that ends at once, deleted afterwards.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from backends.base import Observation, Phase
from backends.container.runner import DIRECT_RUNNER
from backends.kubernetes.cluster.api import Api, ApiError, Unclear
from backends.kubernetes.cluster.connection import Unreachable
from backends.kubernetes.settings import KubernetesSettings
from dispatcher.errors import DispatcherError, Permanent, Transient
from dispatcher.inspection.finding import Finding, ok, problem, problem_of, warning
from dispatcher.runs.attempt import Attempt
from dispatcher.runs.states import Cause
from dispatcher.settings import Settings
from dispatcher.support.ids import new_id

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

_SETTLED = frozenset({Phase.RUNNING, Phase.ENDED, Phase.GONE})
_OLDEST = (1, 27)
_START_TIMEOUT = 60.0  # seconds that the pod of the last check gets
_POLL_INTERVAL = 0.2
_ERRORS = (ApiError, Unclear, Unreachable, DispatcherError)


def examine(
    backend: KubernetesBackend,
    api: Api,
    settings: Settings,
    *,
    within: float = _START_TIMEOUT,
    wait: Callable[[float], None],
) -> Iterator[Finding]:
    """Check everything, in an order in which the first problem explains later ones.

    Args:
        backend, api: of the cluster that the settings choose.
        settings: of the worker.
        within: seconds that a pod gets to start.
        wait: sleeps between two polls.
    """
    try:
        version = api.version()
    except _ERRORS as error:
        yield problem_of("api", error, "see `kubectl version` with the same kubeconfig")
        return
    yield _version(version)
    for namespace in settings.group(KubernetesSettings).namespaces:
        missing = yield from _rights(api, namespace)
        if "resourcequotas" not in missing:
            yield from _quotas(api, namespace)
        if not missing & {"jobs", "secrets", "pods"}:
            yield _start(backend, namespace, within=within, wait=wait)


def _version(version: Mapping[str, Any]) -> Finding:
    numbers = tuple(int("".join(filter(str.isdigit, str(version.get(part))))[:4] or 0) for part in ("major", "minor"))
    text = f"Kubernetes {version.get('gitVersion')}"
    if numbers < _OLDEST:
        return warning("api", f"{text} is older than what is tested", f"use {_OLDEST[0]}.{_OLDEST[1]} or later")
    return ok("api", f"{text} answers")


def _rights(api: Api, namespace: str) -> Generator[Finding, None, set[str]]:
    """Yield findings; return the resources of which a right is missing."""
    missing: dict[str, list[str]] = {}
    try:
        for kind, verbs in RIGHTS.items():
            denied = [verb for verb in verbs if not api.allowed(namespace, kind, verb)]
            if denied:
                missing[kind] = denied
    except _ERRORS as error:
        yield problem("rights", f"namespace {namespace}: {error}", "see the API server's log")
        return set(RIGHTS)
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


def _start(backend: KubernetesBackend, namespace: str, *, within: float, wait: Callable[[float], None]) -> Finding:
    """Check whether a pod of the runner image is pulled, scheduled and started."""
    run_id = new_id()
    attempt = Attempt(
        run_id=run_id,
        number=1,
        name=f"flow-{run_id}-doctor",
        instance=f"doctor-{run_id}",
        shard="",
        environment={"namespace": namespace},
        variables={},
        flow="dispatcher doctor",
    )
    remedy = "correct what the message names; the image is DISPATCHER__KUBERNETES__IMAGE"
    try:
        request = backend.request(attempt, module=DIRECT_RUNNER)
        image = request["job"]["spec"]["template"]["spec"]["containers"][0]["image"]
        handle = backend.submit(request, {})
    except (Permanent, Transient) as error:
        return problem("start", f"namespace {namespace}: {error}", remedy)
    try:
        observation = _observe(backend, handle, within, wait)
    finally:
        _delete(backend, handle)
    if observation.exit_code is not None or observation.phase is Phase.RUNNING:
        return ok("start", f"namespace {namespace}: {image} was pulled and started")
    text = f"{observation.cause or 'nothing started'} {observation.reason} {observation.message}".strip()
    return problem("start", f"namespace {namespace}: {image} within {within:g} s: {text}", remedy)


def _observe(
    backend: KubernetesBackend, handle: Mapping[str, Any], within: float, wait: Callable[[float], None]
) -> Observation:
    end = time.monotonic() + within
    while True:
        (observation,) = backend.poll([handle])
        settled = observation.phase in _SETTLED or observation.cause is Cause.IMAGE_PULL
        if settled or time.monotonic() >= end:
            return observation
        wait(_POLL_INTERVAL)


def _delete(backend: KubernetesBackend, handle: Mapping[str, Any]) -> None:
    try:
        backend.cancel(handle, None)
    except (Permanent, Transient):
        return  # the pod ends by itself, and the Job's time to live removes it
