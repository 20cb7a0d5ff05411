"""A fake container service and the backend on top of it, for tests of workers and for trying things out.

The service is a folder. A container is a JSON file in it, created in one step. A process of its own
(:mod:`backends.fake_container`) plays the node: it starts the real runner, waits for it and notes its exit code. So
containers outlive the worker that created them, and all workers see the same ones. ``ledger.jsonl`` is the service's
own account of what was created, ended and deleted. Two files in the folder change what is observed: while ``suspend``
exists, containers of the script ``queued`` wait for a quota; while ``lost`` exists, the node of the script ``node``
doesn't answer. Workers of a container have no process: :mod:`backends.fake_workers`.
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
from backends.fake_ledger import note
from backends.fake_workers import PLAYS, FakeWorkers, container_file, worker_files
from dispatcher.environments.base import Environment
from dispatcher.environments.cluster import ClusterSpec
from dispatcher.errors import InvalidInput, Permanent, Transient
from dispatcher.runs.attempt import Attempt
from dispatcher.runs.states import Cause

if TYPE_CHECKING:
    from dispatcher.settings import Settings

#: The scripts that a container can play, with the observation that it stays in or ends with; None: it isn't fixed.
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

#: Scripts that start the runner.
RUNS = frozenset({"run", "lost_reply", "queued", "node"})
#: Exit code of the script ``talks``, which prints a line and starts no runner.
TALKS = 3

#: Variable with folders that play services, separated as in ``PATH``. A backend adds those of its requests and handles.
SERVICES = "DISPATCHER__FAKE__SERVICES"

#: Seconds after which a mistake in the request ends a container.
CONFIG_ERROR_PATIENCE = 1.0

#: Seconds between two polls of a watch.
POLL_INTERVAL = 0.05

#: Seconds that a deleted container gets between SIGTERM and SIGKILL.
GRACE = 5.0


class FakeEnvironment(Environment):
    """Runs a flow in a fake container.

    Args:
        directory: folder that plays the service; it must exist.
        script: the script that the container plays, one of :data:`SCRIPTS`.
        labels, on_start, on_exit: as everywhere.
        workers: the least and the most workers beside the container; None: it has none.
        worker_play: the state in which each worker is created, one of :data:`~backends.fake_workers.PLAYS`.
        scheduler: start a Dask scheduler beside the flow. Real workers are started by the test.
    """

    backend: ClassVar[str] = "fake"
    added: ClassVar[tuple[str, ...]] = ("directory", "script", "workers", "worker_play", "scheduler")

    directory: str
    script: str
    workers: tuple[int, ...] | None
    worker_play: str | None
    scheduler: bool | None

    def __init__(  # noqa: PLR0913 - one keyword per thing to play
        self,
        directory: str | Path,
        script: str = "run",
        labels: Iterable[str] | None = None,
        on_start: Callable[[], Any] | None = None,
        on_exit: Callable[[], Any] | None = None,
        *,
        workers: Sequence[int] | None = None,
        worker_play: str | None = None,
        scheduler: bool | None = None,
    ) -> None:
        super().__init__(labels=labels, on_start=on_start, on_exit=on_exit)
        if script not in SCRIPTS:
            raise InvalidInput(f"script: {script!r} is none of {', '.join(SCRIPTS)}")
        if worker_play is not None and worker_play not in PLAYS:
            raise InvalidInput(f"worker_play: {worker_play!r} is none of {', '.join(PLAYS)}")
        self.directory, self.script = str(directory), script
        self.workers, self.worker_play = None if workers is None else tuple(workers), worker_play
        self.scheduler = scheduler

    def check(self) -> None:
        super().check()
        if not Path(self.directory).is_dir():
            raise InvalidInput(f"directory: {self.directory!r} is no folder; make it first")

    def cluster(self) -> ClusterSpec | None:
        if not self.scheduler or self.workers is None:
            return None
        least, most = self.workers
        return ClusterSpec(min_workers=least, max_workers=most, work_stealing=None, scheduler_logs=False)


class FakeBackend(FakeWorkers, Backend):
    """The backend of :class:`FakeEnvironment`. It has every power."""

    name: ClassVar[str] = "fake"

    def __init__(self, settings: Settings | None = None) -> None:
        self._services = set(filter(None, os.environ.get(SERVICES, "").split(os.pathsep)))
        self._closed = threading.Event()

    def prepare(self, attempt: Attempt) -> Request:
        workers: dict[str, Any] = {}
        if (bounds := attempt.environment.get("workers")) is not None:
            play = attempt.environment.get("worker_play") or "run"
            workers["workers"] = {"min": bounds[0], "max": bounds[1], "play": play}
        return {
            "name": attempt.name,
            "directory": attempt.environment["directory"],
            "script": attempt.environment["script"],
            "instance": attempt.instance,
            "variables": {**attempt.variables, "DISPATCHER__RUN__GRACE": f"{GRACE:g}"},
            **workers,
        }

    def submit(self, request: Request, secrets: Mapping[str, str]) -> Handle:
        if request["script"] == "refused":
            raise Permanent("the service refuses it", cause=Cause.CONFIG_ERROR, reason="Forbidden")
        self._services.add(str(request["directory"]))
        file = _file(request)
        new = _create(file, request)
        container = _read(file)
        if container["pid"] is None:  # new, or its creator died before a node took it
            _play(file, {**request["variables"], **secrets})
        if new and request["script"] == "lost_reply":
            raise Transient("the reply was lost", retry_in=0.1)
        if container["request"] != dict(request):
            raise Permanent(
                f"{file.stem} was made of another request", cause=Cause.START_FAILED, reason="AlreadyExists"
            )
        return {"directory": request["directory"], "name": request["name"], "uid": container["uid"]}

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
        container = _read(file)
        made_by = container["uid"] == handle["uid"] if handle is not None else container["request"] == dict(named)
        if not made_by:
            return True
        deleted = file.with_suffix(".deleted")
        if not deleted.exists():
            deleted.touch()
            if container["pid"] is None:  # perhaps no node has it
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
        orphans = []
        for file in self._files():
            with contextlib.suppress(FileNotFoundError):
                container = _read(file)
                if container["request"]["instance"] == instance:
                    orphans.append(_found(file, container))
        return orphans

    def close(self) -> None:
        self._closed.set()

    def _files(self) -> list[Path]:
        return [file for service in sorted(self._services) for file in Path(service).glob("*.json")]

    def _watch(self, changed: Changed) -> None:
        before: dict[str, int] = {}
        runs: dict[str, str] = {}
        while not self._closed.wait(POLL_INTERVAL):
            now = {}
            workers = [file for service in sorted(self._services) for file in worker_files(service)]
            for file in [*self._files(), *workers]:
                with contextlib.suppress(FileNotFoundError):
                    now[str(file)] = file.stat().st_mtime_ns
            for name in before.keys() | now.keys():
                if before.get(name) != now.get(name):
                    container = name if name.endswith(".json") else str(container_file(Path(name)))
                    if container not in runs:
                        with contextlib.suppress(FileNotFoundError):
                            runs[container] = _run_of(_read(Path(container)))
                    changed(container, runs.get(container, ""))
            before, runs = now, {name: run_id for name, run_id in runs.items() if name in now}


def _run_of(container: Mapping[str, Any]) -> str:
    return str(container["request"]["variables"]["DISPATCHER__RUN__ID"])


def _found(file: Path, container: Mapping[str, Any]) -> Found:
    variables = container["request"]["variables"]
    return Found(
        run_id=_run_of(container),
        attempt=int(variables["DISPATCHER__RUN__ATTEMPT"]),
        age=time.time() - container["created"],
        handle={"directory": str(file.parent), "name": file.stem, "uid": container["uid"]},
    )


def _is_lost(file: Path) -> bool:
    return (file.parent / "lost").exists() and _read(file)["request"]["script"] == "node"


def _file(named: Mapping[str, Any]) -> Path:
    return Path(str(named["directory"])) / f"{named['name']}.json"


def _read(file: Path) -> dict[str, Any]:
    container: dict[str, Any] = json.loads(file.read_text())
    return container


#: Pids of the nodes that this process has started and not reaped yet.
_nodes: list[int] = []


def _create(file: Path, request: Request) -> bool:
    """Create a container. Return False if there is one of that name."""
    container = {"uid": uuid4().hex, "request": dict(request), "pid": None, "exit_code": None, "created": time.time()}
    draft = file.with_suffix(f".{container['uid']}")
    draft.write_text(json.dumps(container))
    try:
        os.link(draft, file)
    except FileExistsError:
        return False
    finally:
        draft.unlink()
    note(file, "created", container["uid"])
    return True


def _play(file: Path, variables: Mapping[str, str]) -> None:
    """Start a node for a container: a process that outlives this one.

    ``subprocess`` would wait for a pipe to close, which a pool process that another thread forks at that moment holds
    open for as long as it lives.
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
        container = _read(file)
    except FileNotFoundError:
        return Observation(phase=Phase.GONE)
    if container["uid"] != uid:
        return Observation(phase=Phase.GONE)
    script = container["request"]["script"]
    scripted = SCRIPTS[script]
    times = {name: float(container[name]) for name in ("created", "started", "finished") if container.get(name)}
    if scripted is not None:
        over = script == "config" and time.time() - container["created"] > CONFIG_ERROR_PATIENCE
        return replace(scripted, times=times, phase=Phase.ENDED if over else scripted.phase)
    if container["exit_code"] is not None:
        code = int(container["exit_code"])
        killed = Cause.KILLED if code > 128 else None
        return Observation(phase=Phase.ENDED, cause=killed, reason="Exited", exit_code=code, times=times)
    if _is_lost(file):
        message = "node toy doesn't answer"
        return Observation(phase=Phase.UNKNOWN, cause=Cause.NODE_LOST, reason="NodeLost", message=message)
    if script == "queued" and (file.parent / "suspend").exists():
        return Observation(phase=Phase.WAITING, reason="Suspended", paused=True, times=times)
    return Observation(phase=Phase.RUNNING if container.get("started") else Phase.WAITING, times=times)
