"""Jobs without a run: what ``KubernetesJobEnvironment.execute`` creates. Nothing watches them.

What the container runs is :mod:`dispatcher.runner.direct`, which gets everything from the Job's Secret: parameters may
be large or confidential, and a storage in Redis needs the server's address.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dispatcher.errors import DispatcherError, InvalidInput, InvalidParameters, Permanent, ServerUnavailable, Transient
from dispatcher.runner.direct import JOB
from dispatcher.runs.attempt import Attempt
from dispatcher.storage.base import from_json
from dispatcher.support.ids import new_id

if TYPE_CHECKING:
    from backends.kubernetes.environment import KubernetesJobEnvironment

MODULE = "dispatcher.runner.direct"

#: What the API server takes in one Secret, less some room for names.
_MOST = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One direct execution: the storage's JSON (None: a file in the image) and the flow's address there."""

    location: str
    storage: Mapping[str, Any] | None = None
    image: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)


def create(environment: KubernetesJobEnvironment, asked: Asked) -> dict[str, Any]:
    """Create the Job and its Secret; the Job's handle.

    Raises:
        InvalidInput: the settings or the cluster refuse it, or there is no cluster.
        ServerUnavailable: the cluster can't be reached.
    """
    from backends.kubernetes.backend import KubernetesBackend
    from dispatcher.settings import Settings

    backend = KubernetesBackend(Settings.load())
    try:
        request = backend.request(attempt_of(environment, asked), module=MODULE)
        secrets = {JOB: _job_text(environment, asked)}
        if asked.storage is not None and from_json(asked.storage).shared_blob:
            secrets["DISPATCHER__URL"] = ""  # the backend knows it as pods reach it
        return dict(backend.submit(request, secrets))
    except Permanent as error:
        raise InvalidInput(f"{type(environment).__name__}: {error}") from error
    except Transient as error:
        if isinstance(error.__cause__, DispatcherError):  # no kubeconfig, no SDK, no server that pods reach
            raise error.__cause__ from None
        raise ServerUnavailable(f"Kubernetes: {error}", may_exist=True) from error
    finally:
        backend.close()


def attempt_of(environment: KubernetesJobEnvironment, asked: Asked) -> Attempt:
    """Return an attempt that stands for a run's: with a new id, so that each execution makes a Job of its own."""
    run_id = new_id()
    given = environment.to_json()
    if asked.image is not None:
        given["image"] = asked.image
    given["env"] = {**environment.env, **asked.env}
    return Attempt(
        run_id=run_id,
        number=1,
        name=f"flow-{run_id}-direct",
        instance="direct",
        shard="",
        environment=given,
        variables={},
        flow=asked.location,
        storage=asked.storage or {},
    )


def _job_text(environment: KubernetesJobEnvironment, asked: Asked) -> str:
    job = {
        "environment": environment.to_json(),
        "storage": asked.storage,
        "location": asked.location,
        "parameters": dict(asked.parameters),
    }
    try:
        text = json.dumps(job, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InvalidParameters(f"execute: parameters must be JSON values: {error}") from None
    if len(text) > _MOST:
        raise InvalidInput(
            f"execute: parameters and callbacks are {len(text):,} bytes, at most {_MOST:,} fit into a Secret: submit "
            "the flow with a Dispatcher, or pass large data by reference"
        )
    return text
