"""``python -m dispatcher.runner.direct``: runs one flow in a container that an environment's ``execute`` started.

There is no run, no record and no report: the exit code tells whether the flow raised.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dispatcher.environments import base as environment
from dispatcher.errors import DispatcherError, InvalidSettings
from dispatcher.flows.flow import Flow
from dispatcher.storage import base
from dispatcher.storage.base import Storage
from dispatcher.support.escaping import escaped

SECRETS_FILE = "DISPATCHER__RUN__SECRETS_FILE"

#: The name of the job's description among the secret variables.
JOB = "DISPATCHER__RUN__DIRECT"


@dataclass(frozen=True, kw_only=True)
class DirectExecution:
    """The flow of this container, its storage opened."""

    storage: Storage
    location: str
    parameters: Mapping[str, Any]


class FileStorage(Storage):
    """Flows in files of this container, by their paths, as ``LocalStorage`` writes them."""

    def add_flow(self, flow: Flow[..., Any]) -> str:
        raise InvalidSettings("the files of an image are made when it is built")

    def get_flow(self, location: str) -> Flow[..., Any]:
        from dispatcher.flows.flow import opened as opened_flow

        try:
            data = Path(location).read_bytes()
        except OSError as error:
            raise InvalidSettings(f"{location}: can't be read in this image: {error.strerror or error}") from None
        return opened_flow(data, what=f"file {location}")


@contextmanager
def opened(variables: Mapping[str, str]) -> Iterator[DirectExecution]:
    """The flow that this container is to run; a storage in Redis is connected until the end.

    Raises:
        InvalidSettings: this process is no such container.
    """
    secret = _secrets(variables)
    job = _described(secret)
    storage = FileStorage() if job["storage"] is None else base.from_json(job["storage"])
    if not storage.shared_blob:
        yield DirectExecution(storage=storage, location=job["location"], parameters=job["parameters"])
        return
    from dispatcher.records.redis import open_redis

    records = open_redis(secret["DISPATCHER__URL"])
    try:
        storage.bind(records.blobs)
        yield DirectExecution(storage=storage, location=job["location"], parameters=job["parameters"])
    finally:
        records.close()


def _secrets(variables: Mapping[str, str]) -> dict[str, str]:
    path = variables.get(SECRETS_FILE)
    if not path:
        raise InvalidSettings(f"{SECRETS_FILE}: not set; a DirectExecution that execute() made runs this, not a person")
    try:
        found: dict[str, str] = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidSettings(f"{SECRETS_FILE}: {path} can't be read: {error}") from None
    return found


def _described(secret: Mapping[str, str]) -> dict[str, Any]:
    if JOB not in secret:
        raise InvalidSettings("this container runs an attempt of a run, not a direct execution")
    found: dict[str, Any] = json.loads(secret[JOB])
    return found


def main() -> int:
    """Run the flow; 1 if it, or a callback, raised."""
    try:
        job = _described(_secrets(os.environ))
        where = environment.from_json(job["environment"])
    except DispatcherError as error:
        sys.stderr.write(f"runner: {escaped(str(error))}\n")
        return 2
    where.run_flow()  # type: ignore[attr-defined]  # only environments with containers are executed so
    return 0


if __name__ == "__main__":
    sys.exit(main())
