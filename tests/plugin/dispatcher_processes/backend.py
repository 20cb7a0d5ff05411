"""Runs of :class:`~dispatcher_processes.environment.ProcessEnvironment`: created, observed, deleted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from backends.base import Found, Handle, Observation, Phase, Request
from backends.container import runner, server_address
from backends.container.backend import ContainerBackend
from dispatcher.errors import InvalidSettings, Permanent, Transient
from dispatcher.inspection.finding import Finding
from dispatcher.runs.attempt import Attempt
from dispatcher.runs.states import Cause
from dispatcher.settings import Settings
from dispatcher_processes.process import SECRETS, Process
from dispatcher_processes.settings import ProcessSettings

_VARIABLES = "DISPATCHER__PROCESSES__"


class ProcessBackend(ContainerBackend):
    """Runs flows in processes of this machine. It keeps what they print, and lists what it has created."""

    name: ClassVar[str] = "processes"

    def __init__(self, settings: Settings | None = None) -> None:
        self._settings = settings or Settings.load()
        self._group = self._settings.group(ProcessSettings)

    @classmethod
    def check_settings(cls, settings: Settings) -> None:
        if settings.group(ProcessSettings).directory is None:
            raise InvalidSettings(f"{_VARIABLES}DIRECTORY: must be set to a folder for processes")
        _url(settings)

    def examine(self) -> Iterator[Finding]:
        from dispatcher_processes.doctor import examine

        return examine(self._group)

    def request(self, attempt: Attempt, *, module: str = runner.RUNNER) -> Request:
        environment = attempt.environment
        grace = runner.grace_seconds(self._settings)
        niceness = environment.get("niceness")
        return {
            "name": attempt.name,
            "run_id": attempt.run_id,
            "attempt": attempt.number,
            "instance": attempt.instance,
            "command": [str(self._group.python), *runner.command(module)[1:]],
            "variables": {
                **environment.get("env", {}),
                **attempt.variables,
                **runner.variables(grace=grace, secrets_file=str(self._directory / attempt.name / SECRETS)),
            },
            "references": dict(environment.get("secrets", {})),
            "niceness": self._group.niceness if niceness is None else niceness,
            "grace": grace,
        }

    def submit(self, request: Request, secrets: Mapping[str, str]) -> Handle:
        process = self._process(request)
        variables = dict(secrets)
        if server_address.URL in variables:
            variables[server_address.URL] = _url(self._settings)
        try:
            Process.create(process.folder, request, variables)
        except OSError as error:
            raise Transient(f"{process.folder}: {error.strerror}", retry_in=1.0) from error
        if process.request != dict(request):
            message = f"{process.folder.name} was made of another request"
            raise Permanent(message, cause=Cause.START_FAILED, reason="AlreadyExists")
        if not process.started:
            process.start()
        return {"name": request["name"], "uid": process.uid}

    def poll(self, handles: Sequence[Handle]) -> list[Observation]:
        return [_observe(self._process(handle), str(handle["uid"])) for handle in handles]

    def cancel(self, handle: Handle | None, request: Request | None) -> bool:
        named = handle or request
        if named is None:
            return True
        process = self._process(named)
        made_it = process.uid == handle["uid"] if handle else process.request == dict(named)
        return process.delete() if made_it else True  # another one of its name is not ours to delete

    def logs(self, handle: Handle) -> tuple[str, ...]:
        return self._process(handle).lines()[-200:]

    def orphans(self, instance: str) -> list[Found]:
        orphans = []
        for uid in self._directory.glob("[!.]*/uid"):
            process = Process(uid.parent)
            request = process.request
            if request.get("instance") == instance:
                handle = {"name": request["name"], "uid": process.uid}
                orphans.append(
                    Found(run_id=request["run_id"], attempt=request["attempt"], age=process.age, handle=handle)
                )
        return orphans

    def _process(self, named: Mapping[str, object]) -> Process:
        return Process(self._directory / str(named["name"]))

    @property
    def _directory(self) -> Path:
        if self._group.directory is None:
            raise Permanent(f"{_VARIABLES}DIRECTORY: isn't set", cause=Cause.CONFIG_ERROR, reason="Refused")
        return self._group.directory


def _url(settings: Settings) -> str:
    """Return the server's address: that of the worker, whose network the processes share."""
    group = settings.group(ProcessSettings)
    return server_address.server_url(
        settings, group, variables=_VARIABLES, ca_path=str(group.ca_file or ""), loopback=True
    )


def _observe(process: Process, uid: str) -> Observation:
    if process.uid != uid:
        return Observation(phase=Phase.GONE)
    abandoned = process.abandoned
    code = process.exit_code
    if code is not None:
        cause = Cause.KILLED if code > 128 else None
        return Observation(phase=Phase.ENDED, cause=cause, reason="Exited", exit_code=code)
    if abandoned:
        return Observation(phase=Phase.ENDED, cause=Cause.KILLED, reason="Killed")
    return Observation(phase=Phase.RUNNING if process.started else Phase.WAITING)
