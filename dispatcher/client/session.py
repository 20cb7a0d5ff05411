"""A client's way to one installation: records, keys, scope, and what is known of its workers. For the client alone."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from dispatcher.client.watcher import Watcher
from dispatcher.connect import connect
from dispatcher.errors import InvalidInput, InvalidSettings, ServerUnavailable
from dispatcher.inspection.explain import serving, unserved
from dispatcher.records.base import Records
from dispatcher.runs.routing import IN_PROCESS, Route
from dispatcher.settings import Settings
from dispatcher.support.urls import MEMORY, shown

if TYPE_CHECKING:
    from dispatcher.laptop import Embedded
    from dispatcher.laptop.worker_minder import Minder
    from dispatcher.serialization import KeyRing

#: Seconds between two looks at whether a live worker serves a queue.
LOOK = 30.0


@dataclass(kw_only=True)
class Link:
    """An open way. ``laptop`` is this program's place at the laptop server, if it is that one."""

    settings: Settings
    records: Records
    laptop: Embedded | None = None
    inline: bool = False
    _looked: dict[str, float] = field(default_factory=dict)
    _minder: Minder | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def scope(self) -> str:
        """The scope of our queues: the virtual environment's on the laptop server, in its flows too; else empty."""
        return self.laptop.scope if self.laptop is not None else self.settings.worker.scope

    @cached_property
    def keys(self) -> KeyRing:
        """The signing keys; generated for ``memory://``, the laptop server's own there.

        Raises:
            InvalidSettings: none is set; names ``dispatcher keygen``.
        """
        from dispatcher.serialization import KeyRing

        return KeyRing(KeyRing.generate()) if self.inline else KeyRing.from_settings(self.settings)

    @cached_property
    def watcher(self) -> Watcher:
        """Hears of runs; its threads start with the first wait."""
        self.mind()
        return Watcher(self.records)

    @cached_property
    def clock_offset(self) -> float:
        """Seconds by which the server's clock is before ours."""
        return self.records.runs.now() - time.time()

    @property
    def shown(self) -> str:
        """The place that it leads to, for people; without credentials."""
        if self.laptop is not None:
            return "the laptop server"
        return shown(self.settings.url or MEMORY)

    def check_backend(self, route: Route) -> None:
        """Refuse what can't run where this leads.

        Raises:
            InvalidInput: the laptop server, or this process, can't start runs elsewhere.
        """
        if (self.inline or self.laptop is not None) and route.backend not in IN_PROCESS:
            raise InvalidInput(
                f"environment: runs of backend {route.backend!r} start elsewhere and can't report to {self.shown}; "
                "give a server that they can reach, Dispatcher(url) or DISPATCHER__URL, and a worker: "
                f"`dispatcher worker --backend {route.backend}`"
            )

    def provide(self) -> None:
        """On the laptop server, start this virtual environment's worker if none lives; quick if one does."""
        if self.laptop is not None:
            from dispatcher.laptop.worker_minder import leaving

            self.laptop.ensure_worker(leaving=leaving(self.records) if self._due("leaving") else ())
            self.mind()

    def mind(self) -> None:
        """On the laptop server, bring the worker back from here on, while runs wait for one."""
        if self.laptop is None:
            return
        from dispatcher.laptop.worker_minder import Minder

        with self._lock:
            if self._minder is None:
                self._minder = Minder(self.laptop, self.records)

    def advice(self, route: Route) -> str:
        """Return what to do if no live worker serves ``route``; empty if one does, or if we looked a moment ago.

        It comes after a submit that was accepted: where the server can't be asked any more, nothing is said.
        """
        if self.inline or self.laptop is not None or not self._due(route.queue):
            return ""
        try:
            return self.missing(route)
        except ServerUnavailable:
            return ""

    def missing(self, route: Route) -> str:
        """Return what to do if no live worker serves ``route``; empty if one does."""
        if self.inline:
            return ""
        workers = self.records.workers.live()
        return "" if serving(route, workers) else unserved(route, workers)

    def close(self) -> None:
        """Close connections and threads; ends no run."""
        watcher = self.__dict__.pop("watcher", None)
        if watcher is not None:
            watcher.close()
        if self._minder is not None:
            self._minder.close()
        self.records.close()
        if self.laptop is not None:
            self.laptop.leave()

    def _due(self, what: str) -> bool:
        with self._lock:
            now = time.monotonic()
            if now - self._looked.get(what, -LOOK) < LOOK:
                return False
            self._looked[what] = now
            return True


def open_link(settings: Settings) -> Link:
    """Connect to the URL set, else to the laptop server.

    Raises:
        InvalidSettings: no URL is set and the laptop server is ruled out, or the URL is wrong.
        MissingExtra: the laptop server isn't installed.
        ServerUnavailable: the server can't be reached, or refuses us.
    """
    if settings.url is not None:
        return Link(settings=settings, records=connect(settings), inline=settings.url.startswith(MEMORY))
    if not settings.embedded:
        raise InvalidSettings(
            "no server: set DISPATCHER__URL, or Dispatcher(url); "
            "DISPATCHER__EMBEDDED=false rules out the laptop server that would be used without one"
        )
    from dispatcher.laptop import join

    laptop = join(settings)
    try:
        return Link(settings=laptop.settings, records=connect(laptop.settings), laptop=laptop)
    except BaseException:
        laptop.leave()
        raise
