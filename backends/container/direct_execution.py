"""Containers without a run: what ``execute`` of their environments creates. Nothing watches them.

The container runs :mod:`dispatcher.runner.direct`, which gets everything as a secret variable: parameters may be large
or confidential, and a storage in Redis needs the server's address.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from backends.base import Static
from backends.container.backend import ContainerBackend
from backends.container.runner import DIRECT_RUNNER
from backends.container.server_address import URL
from dispatcher import registry
from dispatcher.code.archive import describe
from dispatcher.code.bundles import bundler_for
from dispatcher.environments.callbacks import modules_of
from dispatcher.errors import DispatcherError, InvalidInput, InvalidParameters, Permanent, ServerUnavailable, Transient
from dispatcher.runner.direct import JOB
from dispatcher.runs.attempt import Attempt
from dispatcher.settings import Settings
from dispatcher.storage.base import bundle_with, from_json
from dispatcher.support.ids import new_id

if TYPE_CHECKING:
    from backends.container.environment import ContainerEnvironment


@dataclass(frozen=True, kw_only=True)
class DirectExecution:
    """One direct execution: the storage's JSON (None: a file in the image) and the flow's address there."""

    location: str
    storage: Mapping[str, Any] | None = None
    image: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)


def create(environment: ContainerEnvironment, execution: DirectExecution) -> dict[str, Any]:
    """Create the container and return its handle.

    Raises:
        InvalidInput: the settings or the service refuse it, or there is no service.
        ServerUnavailable: the service can't be reached.
    """
    settings = Settings.load()
    with _opened(environment, settings) as backend:
        request = backend.request(attempt_of(environment, execution), module=DIRECT_RUNNER)
        secrets = {JOB: _job(environment, execution, settings, limit=backend.secrets_limit)}
        if execution.storage is not None and from_json(execution.storage).shared_blob:
            secrets[URL] = ""  # the backend fills in the address as containers reach it
        if isinstance(backend, Static):
            backend.set_up(request)
        return dict(backend.execute(request, secrets))


def set_up(environment: ContainerEnvironment, storage: Mapping[str, Any]) -> None:
    """Create what containers of an environment share, such as the Secret of an image registry.

    Args:
        environment: of the containers.
        storage: JSON of the storage of their flows.

    Raises:
        InvalidInput: the settings or the service refuse it, or there is no service.
        ServerUnavailable: the service can't be reached.
    """
    with _opened(environment, Settings.load()) as backend:
        if isinstance(backend, Static):
            backend.set_up(backend.request(attempt_of(environment, DirectExecution(location="", storage=storage))))


@contextmanager
def _opened(environment: ContainerEnvironment, settings: Settings) -> Iterator[ContainerBackend]:
    """Open an environment's backend; raise its errors as those of a call by a user."""
    backend = registry.backend(environment.backend)(settings)
    if not isinstance(backend, ContainerBackend):
        raise InvalidInput(f"{type(environment).__name__}: backend {environment.backend!r} can't execute directly")
    try:
        yield backend
    except Permanent as error:
        raise InvalidInput(f"{type(environment).__name__}: {error}") from error
    except Transient as error:
        if isinstance(error.__cause__, DispatcherError):  # no credentials, no SDK, no server that containers reach
            raise error.__cause__ from None
        raise ServerUnavailable(f"{backend.name}: {error}", may_exist=True) from error
    finally:
        backend.close()


def attempt_of(environment: ContainerEnvironment, execution: DirectExecution) -> Attempt:
    """Return an attempt in the place of a run's, with a new id: each execution makes a container of its own."""
    run_id = new_id()
    described = environment.to_json()
    if execution.image is not None:
        described["image"] = execution.image
    described["env"] = {**environment.env, **execution.env}
    return Attempt(
        run_id=run_id,
        number=1,
        name=f"flow-{run_id}-direct",
        instance="direct",
        shard="",
        environment=described,
        variables={},
        flow=execution.location,
        storage=execution.storage or {},
    )


def _job(environment: ContainerEnvironment, execution: DirectExecution, settings: Settings, *, limit: int) -> str:
    described = environment.to_json()
    bundle = _callbacks_bundle(described, execution, settings)
    job = {
        "environment": described,
        "storage": execution.storage,
        "location": execution.location,
        "parameters": dict(execution.parameters),
        **({} if bundle is None else {"bundle": base64.b64encode(bundle).decode()}),
    }
    try:
        text = json.dumps(job, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InvalidParameters(f"execute: parameters must be JSON values: {error}") from None
    if len(text) > limit:
        raise InvalidInput(
            f"execute: parameters and callbacks with their modules are {len(text):,} bytes, at most {limit:,} fit into "
            "a container's secrets: submit the flow with a Dispatcher, or pass large data by reference"
        )
    return text


def _callbacks_bundle(environment: Mapping[str, Any], execution: DirectExecution, settings: Settings) -> bytes | None:
    """Pack the project's modules that callbacks need; None if they need none, or the flow's own bundle has them."""
    modules = modules_of(environment)
    if not modules:
        return None
    storage = None if execution.storage is None else from_json(execution.storage)
    stored = None if storage is None else bundle_with(storage, execution.location)
    if stored is not None and {name.partition(".")[0] for name in modules} <= set(describe(stored).modules):
        return None
    installed = frozenset[str]() if storage is None else storage.installed(execution.location)
    bundle = bundler_for(settings).bundle(modules, installed=installed)
    return None if bundle is None else bundle.data
