"""The workers of fake containers: one JSON file per worker beside the container's, without a process.

A test plays what becomes of a worker with :func:`play`. While a file ``no_address`` exists in the service's folder no
worker can be created, while ``quota`` exists it allows none, and while ``stuck`` exists none that is deleted goes. The
ledger has lines ``worker created`` and ``worker deleted`` with the names of container and worker: ``flow-a-1.w1``.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

from backends.base import Handle, Observation, Phase, Request, WorkerState
from backends.fake_ledger import note
from dispatcher.errors import Permanent, Transient
from dispatcher.runs.states import Cause

#: The states that a worker can be in, by the words of :func:`play`.
PLAYS: Mapping[str, Observation] = {
    "run": Observation(phase=Phase.RUNNING),
    "waiting": Observation(phase=Phase.WAITING),
    "image_pull": Observation(phase=Phase.WAITING, cause=Cause.IMAGE_PULL, reason="ImagePullBackOff"),
    "unschedulable": Observation(phase=Phase.WAITING, cause=Cause.UNSCHEDULABLE, reason="Unschedulable"),
    "config": Observation(phase=Phase.ENDED, cause=Cause.CONFIG_ERROR, reason="CreateContainerConfigError"),
    "node": Observation(phase=Phase.UNKNOWN, cause=Cause.NODE_LOST, reason="NodeLost", message="node toy is lost"),
    "oom": Observation(phase=Phase.ENDED, cause=Cause.OOM_KILLED, reason="OOMKilled", exit_code=137),
    "failed": Observation(phase=Phase.ENDED, cause=Cause.START_FAILED, reason="Error", exit_code=1),
    "done": Observation(phase=Phase.ENDED, reason="Completed", exit_code=0),
}

_SUFFIX = ".worker"


def worker_file(directory: str | Path, container: str, name: str) -> Path:
    """Return the file of a worker of a container."""
    return Path(directory) / f"{container}.{name}{_SUFFIX}"


def worker_files(directory: str | Path, container: str = "*") -> list[Path]:
    """Return the files of the workers of a container, or of all, in the order of their numbers."""
    return sorted(Path(directory).glob(f"{container}.w*{_SUFFIX}"), key=lambda file: (_container(file), _number(file)))


def container_file(file: Path) -> Path:
    """Return the file of a worker's container."""
    return file.with_name(f"{_container(file)}.json")


def play(directory: str | Path, container: str, name: str, state: str, *, log: Sequence[str] = ()) -> None:
    """Let a worker be in one of :data:`PLAYS` from now on, with the last lines of its log.

    Raises:
        FileNotFoundError: there is no such worker.
    """
    file = worker_file(directory, container, name)
    worker = _read(file)
    worker.update(play=state, log=list(log))
    draft = file.with_suffix(f".{uuid4().hex}")
    draft.write_text(json.dumps(worker))
    draft.replace(file)


def remove_workers(container: Path) -> bool:
    """Delete all workers of a container by its file. Return True if none is left."""
    files = worker_files(container.parent, container.stem)
    for file in files:
        _remove(file)
    return not worker_files(container.parent, container.stem)


class FakeWorkers:
    """The part of the fake backend that makes it :class:`~backends.base.Scaled`.

    Requests have ``workers`` with ``min``, ``max`` and ``play``, the state in which each is created.
    """

    def first_workers(self, request: Request) -> tuple[str, ...]:
        return tuple(f"w{number}" for number in range(1, request.get("workers", {}).get("min", 0) + 1))

    def max_workers(self, request: Request) -> int:
        return int(request.get("workers", {}).get("max", 0))

    def workers(self, handle: Handle) -> list[WorkerState]:
        states = []
        for file in worker_files(str(handle["directory"]), str(handle["name"])):
            with contextlib.suppress(FileNotFoundError):
                worker = _read(file)
                if worker["of"] == handle["uid"]:
                    times = {"created": float(worker["created"])}
                    observation = PLAYS[worker["play"]]
                    states.append(WorkerState(name=_name(file), observation=replace(observation, times=times)))
        return states

    def create_workers(self, handle: Handle, request: Request, names: Sequence[str]) -> None:
        directory = Path(str(handle["directory"]))
        if not (directory / f"{handle['name']}.json").exists():
            raise Permanent(f"container {handle['name']} is gone", cause=Cause.KILLED, reason="deleted")
        for name in names:
            file = worker_file(directory, str(handle["name"]), name)
            if not file.exists():
                _create(file, handle, str(request["workers"]["play"]))
            elif _read(file)["of"] != handle["uid"]:
                message = f"worker {name}: {file.stem} belongs to another container"
                raise Permanent(message, cause=Cause.START_FAILED, reason="AlreadyExists")

    def delete_workers(self, handle: Handle, names: Sequence[str]) -> bool:
        directory, container = str(handle["directory"]), str(handle["name"])
        files = [worker_file(directory, container, name) for name in names]
        for file in files:
            with contextlib.suppress(FileNotFoundError):
                if _read(file)["of"] == handle["uid"]:
                    _remove(file)
        return not any(state.name in names for state in self.workers(handle))

    def worker_logs(self, handle: Handle, name: str) -> tuple[str, ...]:
        with contextlib.suppress(FileNotFoundError):
            return tuple(_read(worker_file(str(handle["directory"]), str(handle["name"]), name))["log"])
        return ()


def _create(file: Path, handle: Handle, state: str) -> None:
    if (file.parent / "no_address").exists():
        raise Transient(f"worker {_name(file)}: the flow's container has no address yet", retry_in=0.2)
    if (file.parent / "quota").exists():
        raise Transient(f"worker {_name(file)}: exceeded quota: toys", retry_in=0.2, cause=Cause.QUOTA)
    worker = {"uid": uuid4().hex, "of": handle["uid"], "created": time.time(), "play": state, "log": []}
    draft = file.with_suffix(f".{worker['uid']}")
    draft.write_text(json.dumps(worker))
    with contextlib.suppress(FileExistsError):
        os.link(draft, file)
        note(file, "worker created", worker["uid"])
    draft.unlink()


def _remove(file: Path) -> None:
    if (file.parent / "stuck").exists():
        return
    with contextlib.suppress(FileNotFoundError):
        uid = _read(file)["uid"]
        file.unlink()
        note(file, "worker deleted", uid)


def _read(file: Path) -> dict[str, Any]:
    worker: dict[str, Any] = json.loads(file.read_text())
    return worker


def _container(file: Path) -> str:
    return file.name.removesuffix(_SUFFIX).rpartition(".")[0]


def _name(file: Path) -> str:
    return file.name.removesuffix(_SUFFIX).rpartition(".")[2]


def _number(file: Path) -> int:
    return int(_name(file)[1:])
