"""A container service of toys, and the backend on top of it: for tests of engines, and for trying things out.

The service is a folder. A container is a JSON file in it, created in one step, as a service creates what it is asked
for; a process of its own (:mod:`backends.fake_container`) then plays the node: it starts the real runner, waits for it
and notes how it ended. So containers outlive the worker that asked for them, and two workers see the same ones.
``ledger.jsonl`` is the service's own account of what was created, ended and deleted; the engine doesn't write to it.
Two files in the folder change what is seen: while ``suspend`` is there, containers of the script ``queued`` wait for a
quota; while ``lost`` is there, the node of the script ``node`` doesn't answer.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar
from uuid import uuid4

from backends.base import Backend, Changed, Found, Handle, Observation, Phase, Request
from dispatcher.environments.base import Environment
from dispatcher.errors import InvalidInput, Permanent, Transient
from dispatcher.executors.local import LocalExecutor
from dispatcher.runs.attempt import Attempt
from dispatcher.runs.states import Cause

if TYPE_CHECKING:
    from dispatcher.settings import Settings

#: What a container may be told to play: the phase it stays in or ends with, and what is said of it.
SCRIPTS: Mapping[str, Observation | None] = {
    "run": None,
    "image_pull": Observation(phase=Phase.WAITING, cause=Cause.IMAGE_PULL, reason="ImagePullBackOff"),
    "unschedulable": Observation(phase=Phase.WAITING, cause=Cause.UNSCHEDULABLE, reason="Unschedulable"),
    "config": Observation(phase=Phase.WAITING, cause=Cause.CONFIG_ERROR, reason="CreateContainerConfigError"),
    "queued": None,
    "node": None,
    "talks": None,
    "silent": Observation(phase=Phase.ENDED, reason="Completed", exit_code=0),
    "oom": Observation(phase=Phase.ENDED, cause=Cause.OOM_KILLED, reason="OOMKilled", exit_code=137),
    "lost_reply": None,
    "refused": None,
}

#: Scripts that start the runner, and those that end with this exit code after they have printed a line.
RUNS = frozenset({"run", "lost_reply", "queued", "node"})
TALKS = 3

#: Folders that play services, besides those that a backend was asked about; as in ``PATH``.
SERVICES = "DISPATCHER__FAKE__SERVICES"

#: Seconds for which a mistake in the request is borne, and between two looks of a watch.
PATIENCE = 1.0
WATCH = 0.05

#: Seconds that a deleted container gets between SIGTERM and SIGKILL.
GRACE = 5.0


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
    """The backend of :class:`FakeEnvironment`. It has every power."""

    name: ClassVar[str] = "fake"

    def __init__(self, settings: Settings | None = None) -> None:
        self._services = {one for one in os.environ.get(SERVICES, "").split(os.pathsep) if one}
        self._closed = threading.Event()

    def prepare(self, attempt: Attempt) -> Request:
        return {
            "name": attempt.name,
            "directory": attempt.environment["directory"],
            "script": attempt.environment["script"],
            "instance": attempt.instance,
            "variables": {**attempt.variables, "DISPATCHER__RUN__GRACE": f"{GRACE:g}"},
        }

    def submit(self, request: Request, secrets: Mapping[str, str]) -> Handle:
        if request["script"] == "refused":
            raise Permanent("the service refuses it", cause=Cause.CONFIG_ERROR, reason="Forbidden")
        self._services.add(str(request["directory"]))
        file = _file(request)
        new = _create(file, request)
        found = _read(file)
        if found["pid"] is None:  # new, or whoever created it died before it was given to a node
            _play(file, {**request["variables"], **secrets})
        if new and request["script"] == "lost_reply":
            raise Transient("the reply was lost", retry_in=0.1)
        if found["request"] != dict(request):
            raise Permanent(f"{file.stem} is somebody else's", cause=Cause.START_FAILED, reason="AlreadyExists")
        return {"directory": request["directory"], "name": request["name"], "uid": found["uid"]}

    def poll(self, handles: Sequence[Handle]) -> list[Observation]:
        self._services.update(str(handle["directory"]) for handle in handles)
        return [_observe(_file(handle), str(handle["uid"])) for handle in handles]

    def cancel(self, handle: Handle | None, request: Request | None) -> bool:
        named = handle or request
        if named is None:
            return True
        file = _file(named)
        if not file.exists():
            return True
        found = _read(file)
        if handle is not None and found["uid"] != handle["uid"]:
            return True
        deleted = file.with_suffix(".deleted")
        if not deleted.exists():
            deleted.touch()
            if found["pid"] is None:  # perhaps no node has it
                _play(file, {})
        if _is_lost(file):
            raise Transient("teardown pending: node toy", retry_in=0.2)
        return False

    def watch(self, changed: Changed, instance: str) -> None:
        threading.Thread(target=self._watch, args=(changed,), name="fake-watch", daemon=True).start()

    def key(self, handle: Handle) -> str:
        return str(_file(handle))

    def logs(self, handle: Handle) -> tuple[str, ...]:
        log = _file(handle).with_suffix(".log")
        return tuple(log.read_text(errors="replace").splitlines()[-200:]) if log.exists() else ()

    def orphans(self, instance: str) -> list[Found]:
        found = []
        for file in self._files():
            with contextlib.suppress(FileNotFoundError):
                there = _read(file)
                if there["request"]["instance"] == instance:
                    found.append(_listed(file, there))
        return found

    def close(self) -> None:
        self._closed.set()

    def _files(self) -> list[Path]:
        return [file for service in sorted(self._services) for file in Path(service).glob("*.json")]

    def _watch(self, changed: Changed) -> None:
        known: dict[str, int] = {}
        runs: dict[str, str] = {}
        while not self._closed.wait(WATCH):
            seen = {}
            for file in self._files():
                with contextlib.suppress(FileNotFoundError):
                    seen[str(file)] = file.stat().st_mtime_ns
            for name in known.keys() | seen.keys():
                if known.get(name) != seen.get(name):
                    if name not in runs:
                        with contextlib.suppress(FileNotFoundError):
                            runs[name] = _run_of(_read(Path(name)))
                    changed(name, runs.get(name, ""))
            known, runs = seen, {name: run_id for name, run_id in runs.items() if name in seen}


def _run_of(there: Mapping[str, Any]) -> str:
    return str(there["request"]["variables"]["DISPATCHER__RUN__ID"])


def _listed(file: Path, there: Mapping[str, Any]) -> Found:
    variables = there["request"]["variables"]
    return Found(
        run_id=_run_of(there),
        attempt=int(variables["DISPATCHER__RUN__ATTEMPT"]),
        age=time.time() - there["created"],
        handle={"directory": str(file.parent), "name": file.stem, "uid": there["uid"]},
    )


def _is_lost(file: Path) -> bool:
    return (file.parent / "lost").exists() and _read(file)["request"]["script"] == "node"


def _file(named: Mapping[str, Any]) -> Path:
    return Path(str(named["directory"])) / f"{named['name']}.json"


def _read(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(file.read_text())
    return found


#: Pids of nodes that this process started; reaped as they end.
_nodes: list[int] = []


def _create(file: Path, request: Request) -> bool:
    """Return True if there was none of that name."""
    found = {"uid": uuid4().hex, "request": dict(request), "pid": None, "exit_code": None, "created": time.time()}
    draft = file.with_suffix(f".{found['uid']}")
    draft.write_text(json.dumps(found))
    try:
        os.link(draft, file)
    except FileExistsError:
        return False
    finally:
        draft.unlink()
    note(file, "created", found["uid"])
    return True


def note(file: Path, what: str, uid: Any) -> None:
    """A line of the service's own account."""
    line = json.dumps({"time": time.time(), "what": what, "name": file.stem, "uid": uid})
    with (file.parent / "ledger.jsonl").open("a") as ledger:
        ledger.write(line + "\n")


def _play(file: Path, variables: Mapping[str, str]) -> None:
    """Give a container to a node: a process of its own, in no way a child that dies with us.

    Not by ``subprocess``: that waits for a pipe to close, which a pool process forked at the same moment by another
    thread holds open for as long as it lives.
    """
    _nodes[:] = [pid for pid in _nodes if not _reaped(pid)]
    arguments = [sys.executable, "-P", "-m", "backends.fake_container", str(file)]
    nothing = [(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_RDWR, 0) for number in range(3)]
    environ = {**os.environ, **variables}
    _nodes.append(os.posix_spawn(sys.executable, arguments, environ, file_actions=nothing, setsid=True))


def _reaped(pid: int) -> bool:
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:  # the parent's, seen after a fork
        return True


def _observe(file: Path, uid: str) -> Observation:
    try:
        found = _read(file)
    except FileNotFoundError:
        return Observation(phase=Phase.GONE)
    if found["uid"] != uid:
        return Observation(phase=Phase.GONE)
    script = found["request"]["script"]
    scripted = SCRIPTS[script]
    times = {name: float(found[name]) for name in ("created", "started", "finished") if found.get(name)}
    if scripted is not None:
        over = script == "config" and time.time() - found["created"] > PATIENCE
        return replace(scripted, times=times, phase=Phase.ENDED if over else scripted.phase)
    if found["exit_code"] is not None:
        code = int(found["exit_code"])
        killed = Cause.KILLED if code > 128 else None
        return Observation(phase=Phase.ENDED, cause=killed, reason="Exited", exit_code=code, times=times)
    if _is_lost(file):
        message = "node toy doesn't answer"
        return Observation(phase=Phase.UNKNOWN, cause=Cause.NODE_LOST, reason="NodeLost", message=message)
    if script == "queued" and (file.parent / "suspend").exists():
        return Observation(phase=Phase.WAITING, reason="Suspended", paused=True, times=times)
    return Observation(phase=Phase.RUNNING if found.get("started") else Phase.WAITING, times=times)
