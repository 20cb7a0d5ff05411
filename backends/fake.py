"""A container service of toys, and the backend on top of it: for tests of engines, and for trying things out.

The service is a folder. A container is a JSON file in it, made by a process of its own (:mod:`backends.fake_container`)
that then plays the node: it starts the real runner, waits for it and notes how it ended. So containers outlive the
worker that asked for them, and two workers see the same ones. ``ledger.jsonl`` is the service's own account of what
was created, ended and deleted; nothing of ours writes to it.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from backends.base import Attempt, Backend, Handle, Observation, Phase, Request
from dispatcher.environment import Environment
from dispatcher.errors import InvalidInput, Permanent, Transient
from dispatcher.executors import LocalExecutor
from dispatcher.runs.states import Cause

#: What a container may be told to play: the phase it stays in or ends with, and what is said of it.
SCRIPTS: Mapping[str, Observation | None] = {
    "run": None,
    "image_pull": Observation(phase=Phase.WAITING, cause=Cause.IMAGE_PULL, reason="ImagePullBackOff"),
    "unschedulable": Observation(phase=Phase.WAITING, cause=Cause.UNSCHEDULABLE, reason="Unschedulable"),
    "silent": Observation(phase=Phase.ENDED, reason="Completed", exit_code=0),
    "oom": Observation(phase=Phase.ENDED, cause=Cause.OOM_KILLED, reason="OOMKilled", exit_code=137),
    "lost_reply": None,
    "refused": None,
}


class FakeEnvironment(Environment):
    """Runs a flow in a toy container.

    Args:
        directory: folder that plays the service; it must exist.
        script: what the container plays, one of :data:`SCRIPTS`.
        labels, on_start, on_exit: as everywhere.
    """

    backend: ClassVar[str] = "fake"
    added: ClassVar[tuple[str, ...]] = ("directory", "script")

    directory: str
    script: str

    def __init__(
        self,
        directory: str | Path,
        script: str = "run",
        labels: Iterable[str] | None = None,
        on_start: Callable[[], Any] | None = None,
        on_exit: Callable[[], Any] | None = None,
    ) -> None:
        super().__init__(labels=labels, on_start=on_start, on_exit=on_exit)
        if script not in SCRIPTS:
            raise InvalidInput(f"script: {script!r} is none of {', '.join(SCRIPTS)}")
        self._set(directory=str(directory), script=script)

    def check(self) -> None:
        super().check()
        if not Path(self.directory).is_dir():
            raise InvalidInput(f"directory: {self.directory!r} is no folder; make it first")

    def _executor(self) -> LocalExecutor:
        return LocalExecutor()


class FakeBackend(Backend):
    """The backend of :class:`FakeEnvironment`."""

    name: ClassVar[str] = "fake"

    def prepare(self, attempt: Attempt) -> Request:
        return {
            "name": attempt.name,
            "directory": attempt.environment["directory"],
            "script": attempt.environment["script"],
            "instance": attempt.instance,
            "variables": dict(attempt.variables),
        }

    def submit(self, request: Request, secrets: Mapping[str, str]) -> Handle:
        if request["script"] == "refused":
            raise Permanent("the service refuses it", cause=Cause.CONFIG_ERROR, reason="Forbidden")
        file = _file(request)
        new = not file.exists()
        if new:
            _start(request, secrets)
        _wait_for(file)
        if new and request["script"] == "lost_reply":
            raise Transient("the reply was lost", retry_in=0.1)
        found = _read(file)
        if found["request"] != dict(request):
            raise Permanent(f"{file.stem} is somebody else's", cause=Cause.START_FAILED, reason="AlreadyExists")
        return {"directory": request["directory"], "name": request["name"], "uid": found["uid"]}

    def poll(self, handles: Sequence[Handle]) -> list[Observation]:
        return [_observe(_file(handle), str(handle["uid"])) for handle in handles]

    def cancel(self, handle: Handle | None, request: Request | None) -> bool:
        named = handle or request
        if named is None:
            return True
        file = _file(named)
        if not file.exists():
            return True
        file.with_suffix(".deleted").touch()
        return False


def _file(named: Mapping[str, Any]) -> Path:
    return Path(str(named["directory"])) / f"{named['name']}.json"


def _read(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(file.read_text())
    return found


#: Pids of nodes that this process started; reaped as they end.
_nodes: list[int] = []


def _start(request: Request, secrets: Mapping[str, str]) -> None:
    """Ask the service for a container: a process of its own, in no way a child that dies with us.

    Not by ``subprocess``: that waits for a pipe to close, which a pool process forked at the same moment by another
    thread holds open for as long as it lives.
    """
    _nodes[:] = [pid for pid in _nodes if not _reaped(pid)]
    arguments = [sys.executable, "-P", "-m", "backends.fake_container", json.dumps(dict(request))]
    nothing = [(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_RDWR, 0) for number in range(3)]
    environ = {**os.environ, **request["variables"], **secrets}
    _nodes.append(os.posix_spawn(sys.executable, arguments, environ, file_actions=nothing, setsid=True))


def _reaped(pid: int) -> bool:
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:  # the parent's, seen after a fork
        return True


def _wait_for(file: Path, *, timeout: float = 10.0) -> None:
    end = time.monotonic() + timeout
    while not file.exists():
        if time.monotonic() > end:
            raise Transient(f"the service did not answer for {file.stem} within {timeout:g} s")
        time.sleep(0.01)


def _observe(file: Path, uid: str) -> Observation:
    try:
        found = _read(file)
    except FileNotFoundError:
        return Observation(phase=Phase.GONE)
    if found["uid"] != uid:
        return Observation(phase=Phase.GONE)
    scripted = SCRIPTS[found["request"]["script"]]
    if scripted is not None:
        return scripted
    if found["exit_code"] is None:
        return Observation(phase=Phase.RUNNING)
    code = int(found["exit_code"])
    killed = Cause.KILLED if code > 128 else None
    log = file.with_suffix(".log")
    tail = tuple(log.read_text(errors="replace").splitlines()[-20:]) if log.exists() else ()
    return Observation(phase=Phase.ENDED, cause=killed, reason="Exited", exit_code=code, log_tail=tail)
