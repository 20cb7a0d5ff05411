"""The doctor's trial of a namespace: a Job like a run's, whose pod runs :mod:`dispatcher.runner.trial`.

Called by :mod:`backends.kubernetes.doctor`. The Job is deleted, also at an interruption; it has a deadline in case that
isn't possible.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from backends.base import Handle, Observation, Phase, Request, Static
from backends.container import server_address
from backends.container.runner import TRIAL_RUNNER
from backends.container.trial import Trial, judge, judge_failure, trial_attempt, trial_secrets
from backends.kubernetes import manifest
from backends.kubernetes.settings import KubernetesSettings
from dispatcher.connect import stored_instance
from dispatcher.errors import DispatcherError, InvalidSettings, Permanent, Transient
from dispatcher.inspection.finding import Finding, ok, problem, warning
from dispatcher.runner.settings import RunnerSettings
from dispatcher.runner.trial import TrialReport
from dispatcher.runs.states import Cause
from dispatcher.settings import Settings

if TYPE_CHECKING:
    from backends.kubernetes.backend import KubernetesBackend

_PREFIX = "DISPATCHER__KUBERNETES__"
_REMEDY = f"correct what the message names; the image is {_PREFIX}IMAGE"
_POLL_INTERVAL = 0.2
_DELETE_TIMEOUT = 5.0  # seconds in which the deletion is requested again, if it failed


def try_out(
    backend: KubernetesBackend,
    environment: Mapping[str, Any],
    settings: Settings,
    *,
    within: float,
    wait: Callable[[float], None],
    packages: tuple[str, ...] = (),
) -> Iterator[Finding]:
    """Yield whether a pod of the runner image starts in a namespace, has this release, and reaches the records.

    Args:
        backend: of the cluster.
        environment: JSON of the environment, with one of the namespaces that it serves.
        settings: the worker's.
        within: seconds that the pod gets to start and to end.
        wait: sleeps between two polls.
        packages: distributions that the image must have in the versions that are installed here.
    """
    variables = RunnerSettings.of(settings).variables()
    attempt = trial_attempt(environment, variables, start_within=within)
    where = f"namespace {environment['namespace']}"
    try:
        request = backend.request(attempt, module=TRIAL_RUNNER)
    except Permanent as error:
        yield problem("start", f"{where}: {error}", _REMEDY)
        return
    trial = _trial(request, settings, where, packages)
    secrets = trial_secrets() | ({server_address.URL: ""} if trial.variable else {})  # the backend fills in the address
    handle: Handle | None = None
    try:  # an interruption may come at any time after the Job's creation was requested
        if isinstance(backend, Static):
            backend.set_up(request)
        handle = backend.submit(request, secrets)
        findings = _judged(backend, handle, trial, _observe(backend, handle, within, wait), within)
    except (Permanent, Transient) as error:
        full = isinstance(error, Transient) and error.cause is Cause.QUOTA
        findings = [_not_tried(where, str(error)) if full else problem("start", f"{where}: {error}", _REMEDY)]
    finally:
        left = _delete(backend, handle, request, wait)
    yield from findings
    if left is not None:
        yield left


def _trial(request: Request, settings: Settings, place: str, packages: tuple[str, ...]) -> Trial:
    group = settings.group(KubernetesSettings)
    variable = server_address.source(group, variables=_PREFIX)
    try:
        server_address.server_url(settings, group, variables=_PREFIX, ca_path=manifest.CA)
        server_address.authority(group, variables=_PREFIX)
    except InvalidSettings:
        variable = ""  # reported with the settings; the image can be tried all the same
    installation: str | None = None
    with suppress(DispatcherError):  # reported with the server
        installation = stored_instance(settings)
    return Trial(
        place=place,
        image=str(request["job"]["spec"]["template"]["spec"]["containers"][0]["image"]),
        prefix=_PREFIX,
        variable=variable,
        installation=installation,
        own_users=settings.worker.runner_users,
        packages=packages,
    )


def _observe(
    backend: KubernetesBackend, handle: Mapping[str, Any], within: float, wait: Callable[[float], None]
) -> Observation:
    """Return the last observation: the pod's end, or how far it came in time."""
    end = time.monotonic() + within
    while True:
        (observation,) = backend.poll([handle])
        if _is_settled(observation) or time.monotonic() >= end:
            return observation
        wait(_POLL_INTERVAL)


def _is_settled(observation: Observation) -> bool:
    if observation.cause in {Cause.IMAGE_PULL, Cause.QUOTA}:
        return True
    if observation.exit_code == 0 and not observation.message:  # the Job's end was seen before the pod's
        return False
    return observation.phase in {Phase.ENDED, Phase.GONE}


def _judged(
    backend: KubernetesBackend, handle: Handle, trial: Trial, observation: Observation, within: float
) -> list[Finding]:
    if observation.cause is Cause.QUOTA:
        return [_not_tried(trial.place, observation.message)]
    tail = backend.logs(handle)
    # Of a container that failed, the message is in words; its last line is the report.
    reports = (TrialReport.parse(text) for text in (observation.message, *tail[-1:]))
    if (report := next(filter(None, reports), None)) is not None:
        return [ok("start", f"{trial.place}: {trial.image} was pulled and started"), *judge(trial, report)]
    if (failure := judge_failure(trial, tail)) is not None:
        return [failure]
    came = "it runs, and doesn't end" if observation.phase is Phase.RUNNING else "nothing started"
    words = (observation.cause or came, observation.reason, observation.message, *tail[-1:])
    text = " ".join(str(word) for word in words if word)
    return [problem("start", f"{trial.place}: {trial.image} within {within:g} s: {text}", _REMEDY)]


def _not_tried(place: str, quota: str) -> Finding:
    text = f"{place}: a quota is used up, so no pod was started: {quota}"
    return warning("start", text, "try again when runs have ended, or raise the quota")


def _delete(
    backend: KubernetesBackend, handle: Handle | None, request: Request, wait: Callable[[float], None]
) -> Finding | None:
    """Request the Job's deletion; return a finding if that fails for seconds."""
    end = time.monotonic() + _DELETE_TIMEOUT
    while True:
        try:
            backend.cancel(handle, request)
            if isinstance(backend, Static):
                for name in backend.shared(request):
                    backend.dismantle(name)
            return None
        except (Permanent, Transient) as error:
            if time.monotonic() >= end:
                name, namespace = request["job"]["metadata"]["name"], request["namespace"]
                text = f"namespace {namespace}: Job {name} wasn't deleted: {error}"
                return warning("start", text, f"kubectl delete job {name} -n {namespace}")
        wait(_POLL_INTERVAL)
