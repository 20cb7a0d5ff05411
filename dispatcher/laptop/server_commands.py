"""Joining and leaving the laptop server, and the commands ``up``, ``down`` and ``status``.

Callers: the client (:func:`join`) and the command line.
"""

from __future__ import annotations

import sys
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from dispatcher.errors import InvalidInput, InvalidSettings
from dispatcher.laptop import daemon, members, server, signing_key
from dispatcher.laptop import worker as crew
from dispatcher.laptop.file_locks import locked
from dispatcher.laptop.members import Membership, Program
from dispatcher.laptop.paths import Places
from dispatcher.laptop.worker import Worker
from dispatcher.runs.routing import IN_PROCESS
from dispatcher.settings import Settings
from dispatcher.support.escaping import escaped

_JOIN_WITHIN = 60.0


class Embedded:
    """This program's place at the laptop server, from :func:`join` to :meth:`leave`.

    Attributes:
        url: the server's URL, ``unix://…``.
        scope: digest of this virtual environment; it stands in the names of its queues.
        places: the server's files.
        settings: those given, with URL, signing keys' file and the worker's scope filled in.
    """

    def __init__(self, places: Places, path: Path, membership: Membership, settings: Settings) -> None:
        self.places = places
        self._membership = membership
        self.url = server.url(path)
        self.scope = crew.scope()
        self.settings = _filled(settings, places, self.url, self.scope)

    def ensure_worker(self, leaving: Collection[int] = ()) -> Worker:
        """This virtual environment's worker; started if none lives, in this program's directory. Quick if one does.

        Args:
            leaving: process ids of workers that take nothing more, beside which another one is started.

        Raises:
            InvalidSettings: it can't be started.
            ServerUnavailable: the server was stopped meanwhile.
        """
        return crew.ensure(self.places, self.settings, leaving=leaving)

    def leave(self) -> None:
        """Leave; ends no run. The server stops once nobody is left and no run is open. Safe to call twice."""
        self._membership.end()

    def __enter__(self) -> Embedded:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.leave()

    def __repr__(self) -> str:
        return f"Embedded({self.url!r}, scope={self.scope!r})"


@dataclass(frozen=True, kw_only=True)
class Status:
    """The laptop server as it is now. ``open_runs`` is None if the server doesn't answer.

    ``stays`` says that it was started by ``up`` and stays when its last program has left.
    """

    running: bool
    state_dir: Path
    pid: int | None = None
    url: str | None = None
    stays: bool = False
    programs: tuple[Program, ...] = ()
    workers: tuple[Worker, ...] = ()
    open_runs: int | None = None


def join(settings: Settings) -> Embedded:
    """Join this user's laptop server, started if it doesn't run (then one line on stderr says so).

    Raises:
        InvalidSettings: its directories can't be used, or it is ruled out; names the variable to set.
        MissingExtra: the server's binary isn't installed.
        ServerUnavailable: it can't be started, or doesn't answer.
    """
    _check(settings)
    places = Places.of(settings)
    places.prepare()
    path, membership = _joined(places)
    return Embedded(places, path, membership, settings)


def up(settings: Settings) -> Status:
    """Start the laptop server, if it doesn't run, and let it stay until :func:`down`. Raises what :func:`join` does."""
    _check(settings)
    places = Places.of(settings)
    places.prepare()
    _, membership = _joined(places)
    places.up.touch(0o600)
    membership.end()
    return status(settings)


def down(settings: Settings, *, force: bool = False) -> bool:
    """Stop the laptop server and its workers; whether there was anything to stop. Data stay.

    Args:
        settings: they name the state directory.
        force: stop also while runs are open. Flows that run end as at a worker's SIGTERM, which is waited for.

    Raises:
        InvalidInput: runs are open, or the server doesn't say that none are.
        InvalidSettings: others could have written its state directory, or the settings rule the laptop server out.
        ServerUnavailable: it runs on another machine.
    """
    _check(settings)
    places = Places.of(settings)
    places.check()
    if not places.lock.exists():
        return False
    with locked(places.lock, within=_JOIN_WITHIN):
        ran = server.found(places) is not None or bool(crew.living(places))
        if ran and not force and (count := daemon.open_runs(places)) != 0:
            raise InvalidInput(_still_open(count))
        daemon.stop(places)
        crew.stop(places, within=longest_stop(settings) if force else daemon.WORKERS_WITHIN)
        server.stop(places)
        places.up.unlink(missing_ok=True)
    return ran


def status(settings: Settings) -> Status:
    """Return how the laptop server stands. Starts and creates nothing.

    Raises:
        InvalidSettings: others could have written its state directory, or the settings rule the laptop server out.
    """
    _check(settings)
    places = Places.of(settings)
    places.check()
    path = server.found(places)
    if path is None:
        return Status(running=False, state_dir=places.state, workers=tuple(crew.living(places)))
    process = server.process(places)
    return Status(
        running=True,
        state_dir=places.state,
        pid=process.pid if process else None,
        url=server.url(path),
        stays=places.up.exists(),
        programs=tuple(members.living(places)),
        workers=tuple(crew.living(places)),
        open_runs=daemon.open_runs(places),
    )


def _check(settings: Settings) -> None:
    """Refuse what the settings rule out.

    Raises:
        InvalidSettings: they do.
    """
    if not settings.embedded:
        raise InvalidSettings(
            "DISPATCHER__EMBEDDED=false rules out the laptop server: set DISPATCHER__URL to use another one, or "
            "DISPATCHER__EMBEDDED=true"
        )


def _joined(places: Places) -> tuple[Path, Membership]:
    with locked(places.lock, within=_JOIN_WITHIN):
        signing_key.ensure(places)
        path, started = server.ensure(places)
        if started:
            places.up.unlink(missing_ok=True)  # said of a server that died with its machine
        membership = Membership(places)
        daemon.ensure(places)
    if started:
        sys.stderr.write(f"dispatcher: started the laptop server; its data are in {escaped(str(places.state))}\n")
    return path, membership


def _filled(settings: Settings, places: Places, url: str, scope: str) -> Settings:
    worker = settings.worker.model_copy(
        update={"backends": IN_PROCESS, "labels": frozenset(), "every_label": True, "scope": scope}
    )
    return settings.but(
        url=url, signing_keys=None, signing_keys_file=places.keys, state_dir=places.state, worker=worker
    )


def longest_stop(settings: Settings) -> float:
    """Seconds that :func:`down` with ``force`` waits for workers, at most."""
    return settings.worker.drain + settings.timing.stop_grace + settings.timing.on_exit_timeout + 10.0


def _still_open(count: int | None) -> str:
    if count is None:
        return "the laptop server doesn't say whether runs are open; `dispatcher down --force` ends it all the same"
    runs = "1 run is open" if count == 1 else f"{count} runs are open"
    return f"{runs}: wait, cancel, or stop it all the same by `dispatcher down --force`"
