"""List-and-watch of one namespace: three threads, for Jobs, pods and events, that keep a :class:`Cache` current.

Nothing depends on one event arriving: a watch that stays silent is opened anew, a version that the server has forgotten
(410) means a complete list, and complete lists come now and then all the same. The threads only store what they hear.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from dataclasses import dataclass, field

from backends.base import Changed
from backends.kubernetes.cluster.api import Api, ApiError, Unclear
from backends.kubernetes.cluster.cache import Cache, Json, cut, job_of
from backends.kubernetes.cluster.connection import Unreachable
from backends.kubernetes.manifest import RUN
from backends.kubernetes.settings import KubernetesSettings
from dispatcher.errors import DispatcherError
from dispatcher.support.ids import is_run_id
from dispatcher.support.log_throttle import Seldom

logger = logging.getLogger(__name__)

#: Kinds without which nothing can be said; events only give texts.
NEEDED = ("jobs", "pods")
_GONE = 410

#: All events but the normal ones that tell nothing that a Job or pod doesn't; what stays is trouble, and ``Pulled``.
_EVENTS = ",".join(
    f"reason!={reason}"
    for reason in ("SuccessfulCreate", "Scheduled", "Pulling", "Created", "Started", "Killing", "Completed")
)
_FIRST = 10.0  # seconds that the first lists may take before their absence means anything
_LONGEST = 30.0  # seconds between two tries to reach a server that doesn't answer


@dataclass
class Health:
    """The currency of one watch. ``heard``: when the server last answered or said something, monotonic."""

    synced: threading.Event = field(default_factory=threading.Event)
    heard: float = 0.0
    trouble: str = ""
    version: str = ""  # up to which everything was heard; empty: a list is needed
    listed: float = 0.0
    lists: int = 0
    watches: int = 0


class Watching:
    """Watches one namespace of one cluster for the objects of one installation. Threads start at :meth:`start`.

    Args:
        api: the cluster.
        namespace: where.
        instance: whose objects, by their label.
        settings: silence and relist, in seconds.
        changed: told the UID and the run of a Job whose objects have changed, nothing of either if any may have.
    """

    def __init__(
        self,
        api: Api,
        namespace: str,
        instance: str,
        settings: KubernetesSettings,
        changed: Changed = lambda uid, run_id: None,
    ) -> None:
        self.cache = Cache()
        self.health = {kind: Health() for kind in (*NEEDED, "events")}
        self._api = api
        self._namespace = namespace
        self._settings = settings
        self._changed = changed
        self._seldom = {kind: Seldom(logger) for kind in self.health}
        self._stopped = threading.Event()
        self._began = 0.0
        ours = {"labelSelector": f"instance={instance}"}
        self._selectors = {"jobs": ours, "pods": ours, "events": {"fieldSelector": _EVENTS}}

    def start(self) -> None:
        """Begin; returns at once."""
        self._began = time.monotonic()
        for kind in self.health:
            name = f"kubernetes-{self._namespace}-{kind}"
            threading.Thread(target=self._run, args=(kind,), name=name, daemon=True).start()

    @property
    def early(self) -> bool:
        """Return True if the first complete lists are still on their way: nobody was to be seen yet."""
        return time.monotonic() - self._began < _FIRST and not self.synced

    @property
    def synced(self) -> bool:
        """Return True if the first complete lists have come."""
        return all(self.health[kind].synced.is_set() for kind in NEEDED)

    def blind(self) -> str:
        """Why nothing can be said now; empty if the cache is current."""
        for kind in NEEDED:
            health = self.health[kind]
            if not health.synced.is_set():
                return health.trouble or f"the first list of {kind} hasn't come yet"
            if time.monotonic() - health.heard > self._settings.silence + self._settings.request_timeout:
                return health.trouble or f"the watch of {kind} is silent"
        return ""

    def stop(self) -> None:
        """End soon; the threads are daemons and may still wait for the server."""
        self._stopped.set()

    def _run(self, kind: str) -> None:
        health = self.health[kind]
        pause = 0.0
        while not self._stopped.is_set():
            try:
                if not health.version or time.monotonic() - health.listed >= self._settings.relist:
                    self._list(kind)
                self._watch(kind)
                pause = 0.0
            except ApiError as error:
                if error.status == _GONE:
                    health.version = ""
                pause = self._trouble(kind, error, pause, error.retry_after)
            except (Unclear, Unreachable, DispatcherError) as error:
                pause = self._trouble(kind, error, pause)
            except Exception as error:
                logger.exception("watch of %s in %s: %s", kind, self._namespace, error)
                health.version = ""
                pause = self._trouble(kind, error, pause)
            self._stopped.wait(pause)

    def _trouble(self, kind: str, error: Exception, pause: float, asked: float | None = None) -> float:
        """Note what went wrong; the seconds until the next try, few if something was heard since the last one."""
        health = self.health[kind]
        if not health.trouble:  # the first since something was heard
            self._seldom[kind].warn(f"watch of {kind} in {self._namespace} is opened again", error)
            pause = 0.0
        health.trouble = str(error) or type(error).__name__
        return asked or min(_LONGEST, max(0.2, pause * 2)) * random.uniform(0.7, 1.0)

    def _list(self, kind: str) -> None:
        """A complete list, page by page; the watch goes on from its version."""
        found: list[Json] = []
        version = ""
        for page in self._api.pages(self._namespace, kind, self._selectors[kind]):
            version = version or str(page["metadata"]["resourceVersion"])
            found += [cut(kind, one) for one in page.get("items") or ()]
            self._heard(kind)
        self.cache.replace(kind, found)
        health = self.health[kind]
        health.version, health.listed = version, time.monotonic()
        health.lists += 1
        health.synced.set()
        self._changed(None, "")

    def _watch(self, kind: str) -> None:
        """Store what happens, until the server ends the watch or it's time for a list. A watch that breaks off begins
        again where it was; only the server can say that it doesn't remember."""
        health = self.health[kind]
        health.watches += 1
        selectors, silence = self._selectors[kind], self._settings.silence
        stream = self._api.watch(self._namespace, kind, health.version, selectors, silence=silence)
        for event in stream:
            self._heard(kind)
            thing = event["object"]
            if event["type"] != "BOOKMARK":
                self._take(kind, thing, deleted=event["type"] == "DELETED")
            health.version = str(thing["metadata"]["resourceVersion"])
            if self._stopped.is_set() or time.monotonic() - health.listed >= self._settings.relist:
                return

    def _take(self, kind: str, thing: Json, *, deleted: bool) -> None:
        kept = cut(kind, thing)
        if deleted:
            self.cache.remove(kind, kept)
        else:
            self.cache.put(kind, kept)
        if kind in NEEDED:
            run_id = (thing["metadata"].get("annotations") or {}).get(RUN)
            self._changed(job_of(kind, kept), run_id if is_run_id(run_id) else "")

    def _heard(self, kind: str) -> None:
        health = self.health[kind]
        health.heard, health.trouble = time.monotonic(), ""
