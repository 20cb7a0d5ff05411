"""What the API server's answers mean for a request of ours: ask again, or never. No error of the API leaves here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from backends.kubernetes.access import Unreachable
from backends.kubernetes.api import Api, ApiError, Unclear
from dispatcher.errors import DispatcherError, Permanent, Transient
from dispatcher.runs.states import Cause

#: Answers to which asking again changes nothing.
_REFUSALS = {400, 404, 405, 409, 410, 413, 415, 422}
QUOTA = "exceeded quota"


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
    """RBAC, or an admission that said no; of these only a quota passes by itself."""
    if QUOTA in error.message:
        return Transient(str(error), retry_in=5.0, cause=Cause.QUOTA)
    verb, kind = _asked_for(error.message)
    try:
        allowed = api.allowed(namespace, kind, verb)
    except (ApiError, Unclear, Unreachable) as trouble:
        return Transient(f"{error} (and our rights can't be had: {trouble})", retry_in=5.0)
    if allowed:
        return Permanent(error.message, cause=Cause.CONFIG_ERROR, reason="AdmissionRefused")
    message = (
        f"the worker may not {verb} {kind} in namespace {namespace} (RBAC; the docs show the Role): {error.message}"
    )
    return Permanent(message, cause=Cause.CONFIG_ERROR, reason="Forbidden")


def _asked_for(message: str) -> tuple[str, str]:
    """Verb and kind of which a 403 speaks; creating a Job where it doesn't say."""
    kind = next((kind for kind in ("secrets", "pods", "jobs") if kind in message), "jobs")
    verb = next((verb for verb in ("delete", "list", "get", "create") if f"cannot {verb}" in message), "create")
    return verb, kind
