"""Job, then its Secret: created, or found as an earlier call with the same request left them."""

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

_TRIES = 3
_PAUSE = 0.1  # seconds before a try that follows a conflict of others


def create(api: Api, request: Request, secret: Callable[[str], Mapping[str, Any]]) -> Json:
    """The Job of a request with its Secret beside it; no container starts before that is there.

    Raises:
        Permanent: the name belongs to something else, or the Job is being deleted.
        Transient: it isn't clear yet whether it exists.
        ApiError, Unclear, Unreachable: of the API.
    """
    job = _job(api, request)
    _secret(api, request["namespace"], secret(job["metadata"]["uid"]))
    return job


def _job(api: Api, request: Request) -> Json:
    namespace, name = request["namespace"], request["job"]["metadata"]["name"]
    for attempt in range(_TRIES):
        try:
            return api.create(namespace, "jobs", request["job"])
        except ApiError as error:
            if error.status != 409:
                raise
            if error.reason == "AlreadyExists":
                return _adopted(api, request)
            time.sleep(_PAUSE * (attempt + 1))  # Conflict: a quota was being updated by others too
        except Unclear:
            try:
                return _adopted(api, request)
            except ApiError as error:
                if error.status != 404:
                    raise
    raise Transient(f"Job {namespace}/{name}: not created yet, after {_TRIES} tries")


def _adopted(api: Api, request: Request) -> Json:
    """The Job of that name, if it is what this request asks for."""
    sent = request["job"]["metadata"]
    found = api.get(request["namespace"], "jobs", sent["name"])
    there = found["metadata"]
    if not manifest.is_made_of(there, request):
        raise Permanent(
            f"Job {request['namespace']}/{sent['name']} is somebody else's, or was made of another request",
            cause=Cause.START_FAILED,
            reason="AlreadyExists",
        )
    if there.get("deletionTimestamp"):
        message = f"Job {request['namespace']}/{sent['name']} is being deleted"
        raise Permanent(message, cause=Cause.KILLED, reason="deleted")
    return found


def _secret(api: Api, namespace: str, secret: Mapping[str, Any]) -> None:
    """Create the Secret; one that is there may be older, or another's: it makes room."""
    name = secret["metadata"]["name"]
    for _ in range(_TRIES):
        try:
            api.create(namespace, "secrets", secret)
            return
        except ApiError as error:
            if error.status != 409:
                raise
            _make_room(api, namespace, name)
        except Unclear:
            continue
    raise Transient(f"Secret {namespace}/{name}: not created yet, after {_TRIES} tries")


def _make_room(api: Api, namespace: str, name: str) -> None:
    try:
        api.delete(namespace, "secrets", name)
    except ApiError as error:
        if error.status != 404:
            raise
