"""Submission of an attempt's request: what is checked before anything is created, and the runner's Secret."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from backends.base import Handle, Request
from backends.container import server_address
from backends.kubernetes import manifest
from backends.kubernetes.cluster.api import Api
from backends.kubernetes.cluster.errors import translated
from backends.kubernetes.cluster.identity import ClusterIdentity
from backends.kubernetes.handle import JobKey, make_handle
from backends.kubernetes.jobs import MISMATCH_RETRY
from backends.kubernetes.settings import KubernetesSettings
from dispatcher.errors import Transient
from dispatcher.runs.attempt import Attempt
from dispatcher.runs.place_identity import part_of
from dispatcher.settings import Settings

VARIABLES = "DISPATCHER__KUBERNETES__"  #: prefix of the settings' variables

#: Rejects a stored request that these settings wouldn't have built; raises Permanent.
Check = Callable[[Request, Settings], None]


class Manifest(Protocol):
    """A module that builds and checks the requests of a backend, as :mod:`backends.kubernetes.manifest` does."""

    def build(self, attempt: Attempt, settings: Settings, *, module: str = ...) -> Request:
        """Return the request of an attempt; raises Permanent if the settings don't allow it."""

    def draft(self, attempt: Attempt, settings: Settings) -> Request:
        """Return the request of an attempt whether or not the settings allow it."""

    def objections(self, request: Request, settings: Settings) -> list[str]:
        """Return what the settings don't allow in a request."""

    def check_request(self, request: Request, settings: Settings) -> None:
        """Raise Permanent for a stored request that the settings wouldn't have built."""


#: Creates or adopts all that a request asks for, and returns the Job. Its third argument returns the manifest of the
#: runner's Secret for the Job's UID.
Create = Callable[[Api, Request, Callable[[str], Mapping[str, Any]]], Mapping[str, Any]]


def submit(
    api: Api,
    request: Request,
    secrets: Mapping[str, str],
    *,
    settings: Settings,
    identity: ClusterIdentity,
    check: Check,
    create: Create,
) -> Handle:
    """Create or adopt what a request asks for; return the handle of its Job.

    Args:
        api: the cluster.
        request: of the attempt.
        secrets: variables for the runner that may not be stored or shown.
        settings: of the worker.
        identity: of the cluster.
        check: checks the request.
        create: creates the objects.

    Raises:
        Permanent, Transient: as :meth:`backends.base.Backend.submit`.
    """
    check(request, settings)
    with translated(api, request["namespace"]):
        here = part_of(identity.current(), request["namespace"])
        if doubt := identity.doubt(request):
            raise Transient(f"nothing is created: {doubt}", retry_in=MISMATCH_RETRY)
        of_runner, ca = variables(secrets, settings), authority(settings)  # may be wrong settings
        job = create(api, request, lambda uid: manifest.secret(request, uid, of_runner, ca=ca))
    metadata = job["metadata"]
    return make_handle(
        JobKey(request["namespace"], metadata["name"], metadata["uid"]),
        cluster=request["cluster"],
        container=request["container"],
        instance=request["job"]["metadata"]["labels"][manifest.INSTANCE],
        identity=here,
    )


def variables(secrets: Mapping[str, str], settings: Settings) -> dict[str, str]:
    """Return the secret variables of a container. The address of the records is that for containers."""
    return {**secrets, server_address.URL: url(settings)} if server_address.URL in secrets else dict(secrets)


def url(settings: Settings) -> str:
    """Return the address of the records' server as pods reach it; raise InvalidSettings if there is none."""
    group = settings.group(KubernetesSettings)
    return server_address.server_url(settings, group, variables=VARIABLES, ca_path=manifest.CA)


def authority(settings: Settings) -> str | None:
    """Return the PEM text of the authority that pods check that server against; None if none is set."""
    return server_address.authority(settings.group(KubernetesSettings), variables=VARIABLES)
