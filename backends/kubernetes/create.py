"""Creation of an attempt's Job and then its Secret, or adoption of what an earlier call with the same request created.

Counterpart of :mod:`backends.kubernetes.delete`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from backends.base import Request
from backends.kubernetes import manifest
from backends.kubernetes.cluster.api import Api, ApiError, Unclear
from dispatcher.errors import Permanent, Transient
from dispatcher.runs.states import Cause

Json = dict[str, Any]

MAX_TRIES = 3
CONFLICT_DELAY = 0.1  # seconds, times the number of tries


def create(api: Api, request: Request, secret: Callable[[str], Mapping[str, Any]]) -> Json:
    """Create a request's Job and Secret; return the Job. No container starts before the Secret exists.

    Args:
        api: the cluster.
        request: what is created.
        secret: returns the Secret's manifest for the Job's UID.

    Raises:
        Permanent: the name belongs to another Job, or the Job is being deleted.
        Transient: it isn't clear yet whether the Job or its Secret exists.
        ApiError, Unclear, Unreachable: of the API.
    """
    job = create_job(api, request)
    create_secret(api, request["namespace"], secret(job["metadata"]["uid"]))
    return job


def create_job(api: Api, request: Request) -> Json:
    """Create a request's Job, or return the one that it created earlier; raise as :func:`create`."""
    return create_or_adopt(api, request["namespace"], "jobs", request["job"], lambda: _adopt(api, request))


def create_or_adopt(api: Api, namespace: str, kind: str, body: Mapping[str, Any], adopt: Callable[[], Json]) -> Json:
    """Create an object and return it, or what ``adopt`` returns for one of its name that exists.

    Args:
        api: the cluster.
        namespace: of the object.
        kind: of it, such as ``jobs``.
        body: the object.
        adopt: reads the existing object by its name and checks it; raises ApiError 404 if there is none.

    Raises:
        Transient: it isn't clear yet whether it exists.
        ApiError, Unclear, Unreachable: of the API; and what ``adopt`` raises.
    """
    unclear = False
    for tries in range(MAX_TRIES):
        try:
            return api.create(namespace, kind, body)
        except ApiError as error:
            if error.status != 409:
                error.nothing_created = kind == "jobs" and not unclear  # all else is created after its Job
                raise
            if error.reason == "AlreadyExists":
                return adopt()
            time.sleep(CONFLICT_DELAY * (tries + 1))  # Conflict: others were updating the same quota
        except Unclear:
            unclear = True
            try:
                return adopt()
            except ApiError as error:
                if error.status != 404:
                    raise
    raise Transient(f"{body['kind']} {namespace}/{body['metadata']['name']}: not created yet, after {MAX_TRIES} tries")


def _adopt(api: Api, request: Request) -> Json:
    """Return the existing Job of that name, if this request created it."""
    name = request["job"]["metadata"]["name"]
    job = api.get(request["namespace"], "jobs", name)
    if not manifest.was_created_by(job["metadata"], request):
        raise Permanent(
            f"Job {request['namespace']}/{name} was created by somebody else, or by another request",
            cause=Cause.START_FAILED,
            reason="AlreadyExists",
        )
    if job["metadata"].get("deletionTimestamp"):
        message = f"Job {request['namespace']}/{name} is being deleted"
        raise Permanent(message, cause=Cause.KILLED, reason="deleted")
    return job


def create_secret(api: Api, namespace: str, secret: Mapping[str, Any]) -> None:
    """Create the Secret of a Job. An existing one of that name may be outdated or somebody else's: it is replaced.

    Raises:
        Transient: it isn't clear yet whether it exists.
        ApiError, Unreachable: of the API.
    """
    name = secret["metadata"]["name"]
    for _ in range(MAX_TRIES):
        try:
            api.create(namespace, "secrets", secret)
            return
        except ApiError as error:
            if error.status != 409:
                raise
            _delete_secret(api, namespace, name)
        except Unclear:
            continue
    raise Transient(f"Secret {namespace}/{name}: not created yet, after {MAX_TRIES} tries")


def _delete_secret(api: Api, namespace: str, name: str) -> None:
    try:
        api.delete(namespace, "secrets", name)
    except ApiError as error:
        if error.status != 404:
            raise
