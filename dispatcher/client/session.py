"""A client's session with one installation: records, signing keys, scope, and which queues have a worker.

A client and its runs share a :class:`LazySession`, which opens the session on first use.
"""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from dispatcher.client.watcher import Watcher
from dispatcher.connect import connect
from dispatcher.errors import InvalidInput, InvalidSettings, ServerUnavailable
from dispatcher.inspection.explain import unserved
from dispatcher.records.base import Records
from dispatcher.records.workers import serving
from dispatcher.runs.routing import IN_PROCESS, Route
from dispatcher.settings import Settings
from dispatcher.submission.blob_cache import BlobCache
from dispatcher.support.urls import MEMORY, shown

if TYPE_CHECKING:
    from dispatcher.laptop import LaptopSession
    from dispatcher.laptop.worker_watchdog import WorkerWatchdog
    from dispatcher.serialization import KeyRing

#: Seconds between two checks whether a live worker serves a queue.
CHECK_INTERVAL = 30.0


@dataclass(kw_only=True)
class ClientSession:
    """An open session. ``laptop`` is this program's membership of the laptop server, if that is the server."""

    settings: Settings
    records: Records
    laptop: LaptopSession | None = None
    inline: bool = False  #: ``memory://``: flows run in this process
    _checked: dict[str, float] = field(default_factory=dict)
    _watchdog: WorkerWatchdog | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def scope(self) -> str:
        """The scope of its queues: on the laptop server, and in flows there, the virtual environment's; else empty."""
        return self.laptop.scope if self.laptop is not None else self.settings.worker.scope

    @cached_property
    def keys(self) -> KeyRing:
        """The signing keys: the configured ones, the laptop server's own, or generated ones for ``memory://``.

        Raises:
            InvalidSettings: none is set; names ``dispatcher keygen``.
        """
        from dispatcher.serialization import KeyRing

        return KeyRing(KeyRing.generate()) if self.inline else KeyRing.from_settings(self.settings)

    @cached_property
    def blobs(self) -> BlobCache:
        """The records' blobs, behind a cache of what was sent."""
        return BlobCache(self.records.blobs)

    @cached_property
    def watcher(self) -> Watcher:
        """The watcher of runs. Its threads start with the first wait."""
        self.start_watchdog()
        return Watcher(self.records)

    @cached_property
    def clock_offset(self) -> float:
        """Seconds by which the server's clock is ahead of this machine's."""
        return self.records.runs.now() - time.time()

    @property
    def server_name(self) -> str:
        """The server as messages name it: its URL without credentials, or "the laptop server"."""
        if self.laptop is not None:
            return "the laptop server"
        return shown(self.settings.url or MEMORY)

    def ensure_worker(self) -> None:
        """On the laptop server, start this virtual environment's worker unless one lives, which is a quick check."""
        if self.laptop is not None:
            from dispatcher.laptop.worker_watchdog import leaving

            self.laptop.ensure_worker(leaving=leaving(self.records) if self._is_due("leaving") else ())
            self.start_watchdog()

    def start_watchdog(self) -> None:
        """On the laptop server, restart the worker from now on whenever runs wait for one."""
        if self.laptop is None:
            return
        from dispatcher.laptop.worker_watchdog import WorkerWatchdog

        with self._lock:
            if self._watchdog is None:
                self._watchdog = WorkerWatchdog(self.laptop, self.records)

    def missing_worker_warning(self, route: Route) -> str:
        """Return :meth:`missing_worker` for a submitted run; empty if that was checked a short while ago.

        The run was accepted, so nothing is raised if the server can't be reached any more.
        """
        if self.inline or self.laptop is not None or not self._is_due(route.queue):
            return ""
        try:
            return self.missing_worker(route)
        except ServerUnavailable:
            return ""

    def missing_worker(self, route: Route) -> str:
        """Return what to do if no live worker serves ``route``; empty if one does."""
        if self.inline:
            return ""
        workers = self.records.workers.live()
        return "" if serving(route, workers) else unserved(route, workers)

    def close(self) -> None:
        """Close connections and stop threads. Ends no run."""
        watcher = self.__dict__.pop("watcher", None)
        if watcher is not None:
            watcher.close()
        if self._watchdog is not None:
            self._watchdog.close()
        self.records.close()
        if self.laptop is not None:
            self.laptop.leave()

    def _is_due(self, name: str) -> bool:
        """Return True if a check was not made within the interval; it counts as made now."""
        with self._lock:
            now = time.monotonic()
            if now - self._checked.get(name, -CHECK_INTERVAL) < CHECK_INTERVAL:
                return False
            self._checked[name] = now
            return True


def open_session(settings: Settings) -> ClientSession:
    """Connect to the configured URL, or else to the laptop server.

    Raises:
        InvalidSettings: no URL is set and the laptop server is ruled out, or the URL is wrong.
        MissingExtra: the laptop server isn't installed.
        ServerUnavailable: the server can't be reached, or refuses the connection.
    """
    if settings.url is not None:
        return ClientSession(settings=settings, records=connect(settings), inline=settings.url.startswith(MEMORY))
    if not settings.embedded:
        raise InvalidSettings(
            "no server: set DISPATCHER__URL, or Dispatcher(url); "
            "DISPATCHER__EMBEDDED=false rules out the laptop server that would be used without one"
        )
    from dispatcher.laptop import join

    laptop = join(settings)
    try:
        return ClientSession(settings=laptop.settings, records=connect(laptop.settings), laptop=laptop)
    except BaseException:
        laptop.leave()
        raise


class LazySession:
    """A session that is opened on first use; usable from any thread."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._session: ClientSession | None = None
        self._closed = False

    def get(self) -> ClientSession:
        """Return the session, opened now if it wasn't.

        Raises:
            InvalidInput: it was closed.
            InvalidSettings: no server is set, or its URL is wrong.
            ServerUnavailable: the server can't be reached, or refuses the connection.
        """
        with self._lock:
            if self._closed:
                raise InvalidInput("this Dispatcher was closed; make another one: Dispatcher().get(run.id) finds a run")
            if self._session is None:
                self._session = open_session(self._settings)
            return self._session

    def check_backend(self, backend: str) -> None:
        """Check that runs of a backend can run where the session leads, by the settings alone: nothing is started.

        Raises:
            InvalidInput: the laptop server, or this process, can't start runs elsewhere.
        """
        url = self._settings.url
        on_laptop = url is None and self._settings.embedded
        inline = url is not None and url.startswith(MEMORY)
        if (inline or on_laptop) and backend not in IN_PROCESS:
            server = "the laptop server" if on_laptop else shown(url or MEMORY)
            raise InvalidInput(
                f"environment: runs of backend {backend!r} start elsewhere and can't report to {server}; "
                "give a server that they can reach, Dispatcher(url) or DISPATCHER__URL, and a worker: "
                f"`dispatcher worker --backend {backend}`"
            )

    def close(self) -> None:
        """Close the session, and open none any more. Safe to call twice."""
        with self._lock:
            session, self._session, self._closed = self._session, None, True
        if session is not None:
            session.close()

    def __str__(self) -> str:
        if self._closed:
            return "closed"
        return "not connected yet" if self._session is None else self._session.server_name


_default: tuple[int, LazySession] | None = None  # with the process's id
_default_lock = threading.Lock()


def default_session() -> LazySession:
    """Return this process's session by the settings alone, as an unpickled run uses it."""
    global _default  # noqa: PLW0603 - one per process
    with _default_lock:
        if _default is None or _default[0] != os.getpid():
            _default = os.getpid(), LazySession(Settings.load())
        return _default[1]
