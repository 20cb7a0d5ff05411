"""Code bundles in the processes of a Dask cluster: the scheduler keeps them, and every worker imports from them.

A session opens its bundles (:mod:`dispatcher.executors.dask_bundles`): the scheduler gets those that it doesn't have,
and each worker fetches from the scheduler what it doesn't have, a late one before its first task. They stay importable
until the session closes, or its client goes; afterwards they are only in a cache on disk, which is bounded. The
scheduler imports from them as well, since Dask opens the graphs of collections there.

Runs in the scheduler's and the workers' event loops. Imported only if Dask is installed.
"""

from __future__ import annotations

import asyncio
import functools
import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import distributed

from dispatcher.code.cache import BundleCache
from dispatcher.code.sharing import Prepared, SharedImporter, User
from dispatcher.errors import ExecutorUnavailable, InvalidInput, InvalidSettings
from dispatcher.support import private_files

#: Bytes of unpacked bundles that all Dask processes of a user keep on a machine, beside those in use.
MOST_BYTES = 2**28

_RETRY = 0.05  # seconds between two looks whether another run has ended
_HANDLER = "dispatcher_code"  # of the scheduler, for workers

#: Sessions of flows in this process, which imports from their bundles or their project anyway.
flows_here: set[str] = set()


@dataclass(frozen=True)
class Opening:
    """The bundles that a session opens.

    Attributes:
        session: its name.
        label: its name in errors.
        digests: of the bundles, the first first on ``sys.path``.
        timeout: most seconds to wait for others that use modules of the same names.
    """

    session: str
    label: str
    digests: tuple[str, ...]
    timeout: float


def plugin_name(opening: Opening) -> str:
    """Return the name of the plugin by which workers open a session's bundles."""
    return f"dispatcher-code-{opening.session}-{opening.digests[0][:16]}"


# -- on the scheduler


async def open_on_scheduler(
    scheduler: Any, client: str, opening: Opening, archives: Mapping[str, bytes]
) -> Sequence[str]:
    """Keep bundles for the workers, and import from them here, until the session closes or its client goes.

    Args:
        scheduler: the ``distributed.Scheduler``.
        client: the client's id.
        opening: the bundles.
        archives: those that the last call said were missing, by digest.

    Returns:
        The digests of those that are missing; nothing is opened then.

    Raises:
        ExecutorUnavailable: another session uses modules of the same names.
        InvalidInput: a module has the name of one that Dask uses.
    """
    prepared, missing = [], []
    for digest in opening.digests:
        try:
            prepared.append(await _prepare(digest, archives))
        except _Missing:
            missing.append(digest)
    if not missing:
        await _open_in_turn(opening, prepared)
        _served_by(scheduler).add(client, opening, prepared)
    return missing


async def close_on_scheduler(scheduler: Any, session: str) -> None:
    """End what :func:`open_on_scheduler` has begun, on the workers as well."""
    for plugin in _served_by(scheduler).discard(session):
        if plugin in scheduler.worker_plugins:
            await scheduler.unregister_worker_plugin(comm=None, name=plugin)


def _served_by(scheduler: Any) -> _Served:
    served = scheduler.plugins.get(_Served.name)
    if served is None:
        served = _Served()
        scheduler.add_plugin(served)
        scheduler.handlers[_HANDLER] = served.archive
    return served  # type: ignore[no-any-return]


class _Served(distributed.SchedulerPlugin):  # type: ignore[misc]
    """The bundles that a scheduler keeps for the sessions of its clients."""

    name = "dispatcher-code"

    def __init__(self) -> None:
        self._archives: dict[str, dict[str, str]] = {}  # by session, the archives' files by digest
        self._clients: dict[str, str] = {}  # by session
        self._plugins: dict[str, list[str]] = {}  # by session

    def add(self, client: str, opening: Opening, prepared: Sequence[Prepared]) -> None:
        """Keep a session's bundles."""
        files = {each.bundle.digest: each.bundle.archive for each in prepared}
        self._archives.setdefault(opening.session, {}).update(files)
        self._clients[opening.session] = client
        self._plugins.setdefault(opening.session, []).append(plugin_name(opening))

    def discard(self, session: str) -> Sequence[str]:
        """Keep them no longer, and return the names of the plugins by which workers opened them."""
        self._archives.pop(session, None)
        self._clients.pop(session, None)
        _importer().close(session)
        return self._plugins.pop(session, ())

    async def archive(self, digest: str) -> bytes | None:
        """Return an archive for a worker; None if no open session has it."""
        for files in self._archives.values():
            if digest in files:
                return await asyncio.to_thread(Path(files[digest]).read_bytes)
        return None

    def remove_client(self, scheduler: Any, client: str) -> None:
        """Close the sessions of a client that has gone. Called by Dask."""
        for session in [session for session, of in self._clients.items() if of == client]:
            scheduler.loop.add_callback(close_on_scheduler, scheduler, session)


# -- on workers


async def open_on_worker(worker: Any, opening: Opening) -> None:
    """Import from a session's bundles in a worker. Called by the plugin, before the worker's next task.

    Raises:
        ExecutorUnavailable: tasks of another session still use modules of the same names, or the bundle is gone.
        InvalidInput: a module has the name of one that the worker uses.
        SealBroken: a bundle was changed on the way.
    """
    if opening.session in flows_here:
        return
    prepared = []
    for digest in opening.digests:
        try:
            prepared.append(await _prepare(digest, {}))
        except _Missing:
            data = await getattr(worker.scheduler, _HANDLER)(digest=digest)
            if data is None:
                raise ExecutorUnavailable(f"code bundle {digest[:16]}: the Dask scheduler has it no longer") from None
            prepared.append(await _prepare(digest, {digest: data}))
    await _open_in_turn(opening, prepared)


def close_on_worker(session: str) -> None:
    """Import from them no longer, once the session's running tasks have returned."""
    if session not in flows_here:
        _importer().close(session)


@contextmanager
def held(session: str, has_bundles: bool) -> Iterator[None]:
    """Keep a session's bundles importable while one of its tasks runs in this process.

    Raises:
        InvalidInput: they aren't importable here.
    """
    if not has_bundles or session in flows_here:
        yield
        return
    if not _importer().is_open(session):
        raise InvalidInput(
            "the project's modules aren't importable in this process of the Dask cluster: its log says why, unless it "
            "is a process of an executor that the worker was given, which gets none"
        )
    with _importer().held(session):
        yield


# -- on both


@cache
def _importer() -> SharedImporter:
    """This process's importer, with a cache that all Dask processes of this user share on this machine."""
    from dispatcher.support.interpreter import PYTHON

    directory = Path(tempfile.gettempdir()) / f"dispatcher-dask-code-{os.geteuid()}"
    try:
        private_files.directory(directory)
    except InvalidSettings:  # another user has made it
        directory = private_files.temporary_directory("dispatcher-dask-code-")
    return SharedImporter(BundleCache(directory, most_bytes=MOST_BYTES), PYTHON)


async def _prepare(digest: str, archives: Mapping[str, bytes]) -> Prepared:
    """Unpack a bundle.

    Raises:
        _Missing: it is neither here nor among ``archives``.
    """
    return await asyncio.to_thread(_importer().prepare, digest, functools.partial(_archive, archives))


def _archive(archives: Mapping[str, bytes], digest: str) -> bytes:
    if digest not in archives:
        raise _Missing(digest)
    return archives[digest]


class _Missing(LookupError):
    """An archive isn't here."""


async def _open_in_turn(opening: Opening, prepared: Sequence[Prepared]) -> None:
    if opening.session in flows_here:
        return
    user, end = User(opening.session, opening.label), time.monotonic() + opening.timeout
    while problem := _importer().open(user, prepared):
        if time.monotonic() > end:
            raise ExecutorUnavailable(f"{problem} (waited {opening.timeout:g} s)")
        await asyncio.sleep(_RETRY)
