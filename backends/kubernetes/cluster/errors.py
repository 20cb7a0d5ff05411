"""The meaning of the API server's answers for a request of ours: ask again, or never. No error of the API leaves
here."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from backends.kubernetes.cluster.api import Api, ApiError, Unclear
from backends.kubernetes.cluster.connection import Unreachable
from backends.kubernetes.reasons import QUOTA
from dispatcher.errors import DispatcherError, Permanent, Transient
from dispatcher.runs.states import Cause

#: Answers to which asking again changes nothing.
_REFUSALS = {400, 404, 405, 409, 410, 413, 415, 422}

#: What a 403 says that passes by itself, and the cause while it doesn't. The second is said by a quota whose use wasn't
#: counted yet, the third by an admission plugin of a server that is starting.
_PASSING = {
    QUOTA: Cause.QUOTA,
    "status unknown for quota": Cause.QUOTA,
    "not yet ready to handle request": Cause.CONFIG_ERROR,
}
#: How an authorizer says no; an admission says anything else.
_UNAUTHORIZED = re.compile(r"cannot (?P<verb>\w+) resource \"(?P<kind>[\w/]+)\"")


@contextmanager
def translated(api: Api, namespace: str) -> Iterator[None]:
    """Turn what the API raises into the two errors of a backend."""
    try:
        yield
    except ApiError as error:
        raise meaning(api, namespace, error) from error
    except (Unclear, Unreachable) as error:
        raise Transient(str(error)) from error
    except DispatcherError as error:  # of settings: the kubeconfig may be on its way
        raise Transient(str(error), retry_in=5.0) from error


def meaning(api: Api, namespace: str, error: ApiError) -> Permanent | Transient:
    """The error of ours for one of the API server's."""
    if error.status == 403:
        return _forbidden(api, namespace, error)
    if error.status in _REFUSALS:
        return Permanent(error.message or str(error), cause=Cause.CONFIG_ERROR, reason=error.reason)
    # 401 after its one repetition: a token is being rotated; 429: busy; 500: etcd timed out; 503: starting
    return Transient(str(error), retry_in=error.retry_after or 1.0)


def _forbidden(api: Api, namespace: str, error: ApiError) -> Permanent | Transient:
    """An authorizer (RBAC), or an admission that said no. An authorizer is believed once the server says that it is
    ready, and says no again: one that starts doesn't know its rules yet, and refuses what they allow."""
    for text, cause in _PASSING.items():
        if text in error.message:
            return Transient(str(error), retry_in=5.0, cause=cause)
    unauthorized = _UNAUTHORIZED.search(error.message)
    kind, verb = (unauthorized["kind"], unauthorized["verb"]) if unauthorized else ("jobs", "create")
    try:
        if not api.ready():
            return Transient(f"{error} (the API server is starting)", retry_in=2.0, cause=Cause.CONFIG_ERROR)
        allowed = api.allowed(namespace, kind, verb)
    except (ApiError, Unclear, Unreachable) as trouble:
        said = f"{error} (and our rights can't be had: {trouble})"
        return Transient(said, retry_in=5.0, cause=Cause.CONFIG_ERROR)
    if not allowed:
        rights = f"the worker may not {verb} {kind} in namespace {namespace} (RBAC; the docs show the Role)"
        return Permanent(f"{rights}: {error.message}", cause=Cause.CONFIG_ERROR, reason="Forbidden")
    if unauthorized:
        said = f"{error} (though our rights, asked for since, allow it)"
        return Transient(said, retry_in=2.0, cause=Cause.CONFIG_ERROR)
    return Permanent(error.message, cause=Cause.CONFIG_ERROR, reason="AdmissionRefused")
