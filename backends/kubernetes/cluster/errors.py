"""Translation of the API's errors into the two errors of a backend: try again later, or never."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from backends.kubernetes.cluster.api import Api, ApiError, Unclear
from backends.kubernetes.cluster.connection import Unreachable
from backends.kubernetes.reason_table import QUOTA
from dispatcher.errors import DispatcherError, Permanent, Transient
from dispatcher.runs.states import Cause

#: Status codes that a repetition doesn't change.
_PERMANENT = {400, 404, 405, 409, 410, 413, 415, 422}

#: Messages of a 403 that passes by itself, with the cause meanwhile. The second comes from a quota whose use wasn't
#: counted yet, the third from an admission plugin of a server that is starting.
_TEMPORARY = {
    QUOTA: Cause.QUOTA,
    "status unknown for quota": Cause.QUOTA,
    "not yet ready to handle request": Cause.CONFIG_ERROR,
}
#: The message of an authorizer's denial; an admission plugin's message is anything else.
_UNAUTHORIZED = re.compile(r"cannot (?P<verb>\w+) resource \"(?P<kind>[\w/]+)\"")


@contextmanager
def translated(api: Api, namespace: str) -> Iterator[None]:
    """Raise the errors of the API as Permanent or Transient."""
    try:
        yield
    except ApiError as error:
        raise translate(api, namespace, error) from error
    except (Unclear, Unreachable) as error:
        raise Transient(str(error)) from error
    except DispatcherError as error:  # of settings: the kubeconfig may appear later
        raise Transient(str(error), retry_in=5.0) from error


def translate(api: Api, namespace: str, error: ApiError) -> Permanent | Transient:
    """Return the backend's error for an error response."""
    if error.status == 403:
        return _forbidden(api, namespace, error)
    if error.status in _PERMANENT:
        return _refused(error, error.message or str(error), error.reason)
    # 401 after the reload: a token is being rotated; 429: busy; 500: etcd timed out; 503: starting
    return Transient(str(error), retry_in=error.retry_after or 1.0)


def _forbidden(api: Api, namespace: str, error: ApiError) -> Permanent | Transient:
    """Return the error for a denial by an authorizer (RBAC) or an admission plugin.

    An authorizer's denial is final only if the server is ready and denies again: a starting server doesn't know its
    rules yet, and denies what they allow.
    """
    for text, cause in _TEMPORARY.items():
        if text in error.message:
            return Transient(str(error), retry_in=5.0, cause=cause)
    unauthorized = _UNAUTHORIZED.search(error.message)
    kind, verb = (unauthorized["kind"], unauthorized["verb"]) if unauthorized else ("jobs", "create")
    try:
        if not api.ready():
            return Transient(f"{error} (the API server is starting)", retry_in=2.0, cause=Cause.CONFIG_ERROR)
        allowed = api.allowed(namespace, kind, verb)
    except (ApiError, Unclear, Unreachable) as failure:
        message = f"{error} (and the worker's rights can't be checked: {failure})"
        return Transient(message, retry_in=5.0, cause=Cause.CONFIG_ERROR)
    if not allowed:
        rights = f"the worker may not {verb} {kind} in namespace {namespace} (RBAC; the docs show the Role)"
        return _refused(error, f"{rights}: {error.message}", "Forbidden")
    if unauthorized:
        message = f"{error} (though the worker's rights, checked since, allow it)"
        return Transient(message, retry_in=2.0, cause=Cause.CONFIG_ERROR)
    return _refused(error, error.message, "AdmissionRefused")


def _refused(error: ApiError, message: str, reason: str) -> Permanent:
    return Permanent(message, cause=Cause.CONFIG_ERROR, reason=reason, nothing_created=error.nothing_created)
