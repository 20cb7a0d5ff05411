"""The Secrets with which images of a flow and its workers are pulled: a user's own, and that of a private registry.

Pure but for the worker's credentials, of which the name of the registry's Secret is made. The request keeps name and
source of the credentials, never the credentials themselves.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from backends.base import Request
from backends.container.secret_sources import REGISTRY_CREDENTIALS
from backends.dask_kubernetes import pull_secret
from backends.kubernetes import job_spec as specs
from backends.kubernetes.settings import KubernetesSettings
from dispatcher.errors import Permanent
from dispatcher.settings import Settings

_KEY = "pull_secret"


def of_registry(environment: Mapping[str, Any], *, instance: str, settings: Settings) -> dict[str, Any]:
    """Return what a request says of the Secret of its private registry; empty if it needs none.

    Args:
        environment: JSON of the environment.
        instance: the value of the installation's label.
        settings: of the worker that has the credentials.

    Raises:
        Transient: a source of credentials fails for a while.
    """
    if not environment.get("private_registry"):
        return {}
    source = environment.get("docker_secret") or REGISTRY_CREDENTIALS
    try:
        credentials = pull_secret.read_credentials(source, folder=settings.group(KubernetesSettings).secrets_folder)
    except Permanent as error:
        return {_KEY: {"name": pull_secret.UNKNOWN, "source": source, "problem": str(error)}}
    return {_KEY: {"name": pull_secret.secret_name(credentials, instance), "source": source}}


def add(
    pod: dict[str, Any], environment: Mapping[str, Any], request: Request, *, spec: Mapping[str, Any] | None
) -> None:
    """Add the Secrets of the environment and of its registry to those that a user's own Job has.

    Args:
        pod: of the Job, changed in place.
        environment: JSON of the environment.
        request: with what :func:`of_registry` returned.
        spec: the user's own Job; None if there is none.
    """
    own = specs.at(spec, "spec.template.spec.imagePullSecrets")
    named = [{"name": name} for name in environment.get("image_pull_secrets") or ()]
    ours = [{"name": request[_KEY]["name"]}] if _KEY in request else []
    if references := merged(own, named, ours):
        pod["imagePullSecrets"] = references


def merged(*lists: Iterable[Mapping[str, Any]] | None) -> list[dict[str, Any]]:
    """Return references to Secrets, each once, in their order."""
    by_name = {reference.get("name"): dict(reference) for references in lists for reference in references or ()}
    return list(by_name.values())


def problems(request: Request) -> list[str]:
    """Return why the Secret of a request's registry can't be made; empty if it can, or none is needed."""
    problem = _part(request).get("problem")
    return [str(problem)] if problem else []


def own_name(request: Request) -> str:
    """Return the name of the Secret that workers make for a request's registry; empty if they make none."""
    name = _part(request).get("name")
    return str(name) if pull_secret.is_pull_secret(name) else ""


def own_source(request: Request) -> str:
    """Return the name of the credentials of a request's registry; empty if it needs none."""
    source = _part(request).get("source")
    return source if isinstance(source, str) else ""


def _part(request: Request) -> Mapping[str, Any]:
    part = request.get(_KEY)
    return part if isinstance(part, Mapping) else {}
