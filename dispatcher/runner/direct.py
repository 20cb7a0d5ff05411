"""``python -m dispatcher.runner.direct``: run one flow in a container that an environment's ``execute`` started.

There is no run, no record and no report: only the exit code tells if the flow raised. The environment's ``run_flow``
calls :func:`opened`.
"""

from __future__ import annotations

import base64
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dispatcher.code.activation import importing
from dispatcher.environments import base as environments
from dispatcher.environments.base import Environment
from dispatcher.errors import DispatcherError, InvalidSettings
from dispatcher.flows.flow import Flow
from dispatcher.storage import base
from dispatcher.storage.base import Storage
from dispatcher.support import private_files
from dispatcher.support.escaping import escaped
from dispatcher.support.interpreter import PYTHON

if TYPE_CHECKING:
    from dispatcher.executors.dask_cluster.cluster import SchedulerEnd

SECRETS_FILE = "DISPATCHER__RUN__SECRETS_FILE"

#: The secret variable with the execution's description.
JOB = "DISPATCHER__RUN__DIRECT"

_LOST_GRACE = 3.0  # seconds for a flow to end once its own Dask cluster has died


@dataclass(frozen=True, kw_only=True)
class DirectExecution:
    """The flow of this container, with its storage opened."""

    storage: Storage
    location: str
    parameters: Mapping[str, Any]


class FileStorage(Storage):
    """Flows in files of this container, by path, in the format of ``LocalStorage``."""

    def add_flow(self, flow: Flow[..., Any]) -> str:
        raise InvalidSettings("an image's files can only be added when it is built")

    def get_flow(self, location: str) -> Flow[..., Any]:
        from dispatcher.flows.flow import unpack_flow

        return unpack_flow(self._read(location), subject=f"file {location}")

    def kept_bundle(self, location: str) -> bytes | None:
        from dispatcher.serialization import pickles

        return pickles.bundle_in(self._read(location))

    def _read(self, location: str) -> bytes:
        try:
            return Path(location).read_bytes()
        except OSError as error:
            raise InvalidSettings(f"{location}: can't be read in this image: {error.strerror or error}") from None


@contextmanager
def opened(variables: Mapping[str, str]) -> Iterator[DirectExecution]:
    """Yield the flow that this container runs. Until the context ends, a storage in Redis stays connected, and this
    process imports from the code bundles of the flow and its callbacks.

    Raises:
        InvalidSettings: this process isn't in such a container.
    """
    secrets = _secrets(variables)
    description = _description(secrets)
    storage = FileStorage() if description["storage"] is None else base.from_json(description["storage"])
    execution = DirectExecution(storage=storage, location=description["location"], parameters=description["parameters"])
    of_callbacks = base64.b64decode(description["bundle"]) if "bundle" in description else None
    with (
        _connected(storage, secrets),
        importing(base.bundle_with(storage, execution.location), of_callbacks, python=PYTHON),
    ):
        yield execution


@contextmanager
def _connected(storage: Storage, secrets: Mapping[str, str]) -> Iterator[None]:
    if not storage.shared_blob:
        yield
        return
    from dispatcher.records.redis import open_redis

    records = open_redis(secrets["DISPATCHER__URL"])
    try:
        storage.bind(records.blobs)
        yield
    finally:
        records.close()


def _secrets(variables: Mapping[str, str]) -> dict[str, str]:
    path = variables.get(SECRETS_FILE)
    if not path:
        raise InvalidSettings(f"{SECRETS_FILE}: not set; only a Job that execute() made can run this, not a person")
    try:
        secrets: dict[str, str] = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidSettings(f"{SECRETS_FILE}: {path} can't be read: {error}") from None
    return secrets


def _description(secrets: Mapping[str, str]) -> dict[str, Any]:
    if JOB not in secrets:
        raise InvalidSettings("this container runs an attempt of a run, not a direct execution")
    description: dict[str, Any] = json.loads(secrets[JOB])
    return description


def main() -> int:
    """Run the flow and return the exit code: 0; 2 if this process isn't in such a container.

    An exception of the flow or of a callback ends the process with exit code 1.
    """
    private_files.be_alone()
    try:
        description = _description(_secrets(os.environ))
        environment = environments.from_json(description["environment"])
    except DispatcherError as error:
        sys.stderr.write(f"runner: {escaped(str(error))}\n")
        return 2
    with own_cluster(environment):
        environment.run_flow()  # type: ignore[attr-defined]  # environments with containers have it
    return 0


@contextmanager
def own_cluster(environment: Environment) -> Iterator[None]:
    """Open the Dask cluster that an environment asks for, if it does, and wait for its workers. Nobody adapts it."""
    if (spec := environment.cluster()) is None:
        yield
        return
    from dispatcher.executors.current import cluster_executor
    from dispatcher.executors.dask_cluster.cluster import open_cluster
    from dispatcher.runner.container.memory import oom_kills
    from dispatcher.runner.scheduler_end import outcome_of

    kills = oom_kills()

    def end_process(end: SchedulerEnd) -> None:
        sys.stderr.write(f"runner: {escaped(outcome_of(end, kills).message)}\n")
        time.sleep(_LOST_GRACE)  # a flow that waits for the cluster fails by itself
        os._exit(1)

    with (
        open_cluster(spec, os.environ, on_report=lambda _report: None, on_end=end_process) as cluster,
        cluster_executor.using(cluster.executor()),
    ):
        cluster.wait()
        yield


if __name__ == "__main__":
    sys.exit(main())
