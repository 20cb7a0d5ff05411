"""Join and leave the laptop server; the commands ``up``, ``down`` and ``status``.

Used by the client (:func:`join`) and the command line.
"""

from __future__ import annotations

import sys
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from dispatcher.errors import InvalidInput, InvalidSettings
from dispatcher.laptop import daemon, members, server, signing_key
from dispatcher.laptop import worker as workers
from dispatcher.laptop.file_locks import locked
from dispatcher.laptop.members import Membership, Program
from dispatcher.laptop.paths import LaptopPaths
from dispatcher.laptop.worker import Worker
from dispatcher.runs.routing import IN_PROCESS
from dispatcher.settings import Settings
from dispatcher.support.escaping import escaped

_LOCK_TIMEOUT = 60.0


class LaptopSession:
    """This program's use of the laptop server, from :func:`join` to :meth:`leave`.

    Attributes:
        url: the server's URL, ``unix://…``.
        scope: digest of this virtual environment; part of the names of its queues.
        paths: the server's files.
        settings: the settings of :func:`join` with URL, file of signing keys and the worker's scope.
    """

    def __init__(self, paths: LaptopPaths, path: Path, membership: Membership, settings: Settings) -> None:
        self.paths = paths
        self._membership = membership
        self.url = server.url(path)
        self.scope = workers.scope()
        self.settings = _settings_for(settings, paths, self.url, self.scope)

    def ensure_worker(self, leaving: Collection[int] = ()) -> Worker:
        """Return this virtual environment's worker. Start one in this program's directory if none lives.

        Args:
            leaving: process ids of workers that are shutting down, which don't count.

        Raises:
            InvalidSettings: it can't be started.
            ServerUnavailable: the server was stopped meanwhile.
        """
        return workers.ensure(self.paths, self.settings, leaving=leaving)

    def leave(self) -> None:
        """Leave. Ends no run. The server stops once no program uses it and no run is open. Safe to call twice."""
        self._membership.end()

    def __enter__(self) -> LaptopSession:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.leave()

    def __repr__(self) -> str:
        return f"LaptopSession({self.url!r}, scope={self.scope!r})"


@dataclass(frozen=True, kw_only=True)
class LaptopStatus:
    """The current state of the laptop server. ``open_runs`` is None if the server doesn't answer.

    ``stays`` is true if ``up`` started it, so that it stays up after its last program has left.
    """

    running: bool
    state_dir: Path
    pid: int | None = None
    url: str | None = None
    stays: bool = False
    programs: tuple[Program, ...] = ()
    workers: tuple[Worker, ...] = ()
    open_runs: int | None = None


def join(settings: Settings) -> LaptopSession:
    """Join this user's laptop server. Start it if it isn't running, and say so in one line on stderr.

    Raises:
        InvalidSettings: its directories can't be used, or settings disable it; names the variable to set.
        MissingExtra: the server's binary isn't installed.
        ServerUnavailable: it can't be started, or doesn't answer.
    """
    _check(settings)
    paths = LaptopPaths.of(settings)
    paths.prepare()
    path, membership = _start_and_join(paths)
    return LaptopSession(paths, path, membership, settings)


def up(settings: Settings) -> LaptopStatus:
    """Start the laptop server if it isn't running, and keep it up until :func:`down`. Raises as :func:`join` does."""
    _check(settings)
    paths = LaptopPaths.of(settings)
    paths.prepare()
    _, membership = _start_and_join(paths)
    paths.up.touch(0o600)
    membership.end()
    return status(settings)


def down(settings: Settings, *, force: bool = False) -> bool:
    """Stop the laptop server and its workers; data are kept. Return True if there was anything to stop.

    Args:
        settings: those that name the state directory.
        force: stop even while runs are open. Wait for running flows to end as at a worker's SIGTERM.

    Raises:
        InvalidInput: runs are open, or the server doesn't answer.
        InvalidSettings: other users could have written its state directory, or settings disable the laptop server.
        ServerUnavailable: it runs on another machine.
    """
    _check(settings)
    paths = LaptopPaths.of(settings)
    paths.check()
    if not paths.lock.exists():
        return False
    with locked(paths.lock, within=_LOCK_TIMEOUT):
        ran = server.live_socket(paths) is not None or bool(workers.living(paths))
        if ran and not force and (count := daemon.open_runs(paths)) != 0:
            raise InvalidInput(_open_runs_message(count))
        daemon.stop(paths)
        workers.stop(paths, within=longest_stop(settings) if force else daemon.WORKER_STOP_TIMEOUT)
        server.stop(paths)
        paths.up.unlink(missing_ok=True)
    return ran


def status(settings: Settings) -> LaptopStatus:
    """Return the state of the laptop server. Starts and creates nothing.

    Raises:
        InvalidSettings: other users could have written its state directory, or settings disable the laptop server.
    """
    _check(settings)
    paths = LaptopPaths.of(settings)
    paths.check()
    path = server.live_socket(paths)
    if path is None:
        return LaptopStatus(running=False, state_dir=paths.state, workers=tuple(workers.living(paths)))
    process = server.process(paths)
    return LaptopStatus(
        running=True,
        state_dir=paths.state,
        pid=process.pid if process else None,
        url=server.url(path),
        stays=paths.up.exists(),
        programs=tuple(members.living(paths)),
        workers=tuple(workers.living(paths)),
        open_runs=daemon.open_runs(paths),
    )


def _check(settings: Settings) -> None:
    """Check that the settings allow the laptop server.

    Raises:
        InvalidSettings: they don't.
    """
    if not settings.embedded:
        raise InvalidSettings(
            "DISPATCHER__EMBEDDED=false rules out the laptop server: set DISPATCHER__URL to use another one, or "
            "DISPATCHER__EMBEDDED=true"
        )


def _start_and_join(paths: LaptopPaths) -> tuple[Path, Membership]:
    with locked(paths.lock, within=_LOCK_TIMEOUT):
        signing_key.ensure(paths)
        path, started = server.ensure(paths)
        if started:
            paths.up.unlink(missing_ok=True)  # left by a server that died with its machine
        membership = Membership(paths)
        daemon.ensure(paths)
    if started:
        sys.stderr.write(f"dispatcher: started the laptop server; its data are in {escaped(str(paths.state))}\n")
    return path, membership


def _settings_for(settings: Settings, paths: LaptopPaths, url: str, scope: str) -> Settings:
    worker = settings.worker.model_copy(
        update={"backends": IN_PROCESS, "labels": frozenset(), "every_label": True, "scope": scope}
    )
    return settings.but(url=url, signing_keys=None, signing_keys_file=paths.keys, state_dir=paths.state, worker=worker)


def longest_stop(settings: Settings) -> float:
    """Return the most seconds that :func:`down` with ``force`` waits for workers."""
    return settings.worker.drain + settings.timing.stop_grace + settings.timing.on_exit_timeout + 10.0


def _open_runs_message(count: int | None) -> str:
    if count is None:
        return "the laptop server doesn't answer, so runs may be open; `dispatcher down --force` stops it anyway"
    runs = "1 run is open" if count == 1 else f"{count} runs are open"
    return f"{runs}: wait for them, cancel them, or stop the server anyway by `dispatcher down --force`"
