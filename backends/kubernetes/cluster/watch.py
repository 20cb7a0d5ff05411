"""List and watch of one namespace: three threads, for Jobs, pods and events, that keep a
:class:`~backends.kubernetes.cluster.cache.Cache` current. What client-go calls an informer.

Correctness never depends on a single event: a silent watch is reopened, an expired version (410) leads to a complete
list, and complete lists are repeated from time to time. The threads only store what they receive.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from dataclasses import dataclass, field

from backends.base import Changed
from backends.kubernetes.cluster.api import Api, ApiError, Unclear
from backends.kubernetes.cluster.cache import Cache, Json
from backends.kubernetes.cluster.connection import Unreachable
from backends.kubernetes.cluster.identity import RIGHT, ClusterIdentity
from backends.kubernetes.cluster.trim import job_uid, trim
from backends.kubernetes.manifest import RUN
from backends.kubernetes.settings import KubernetesSettings
from dispatcher.errors import DispatcherError
from dispatcher.runs.place_identity import Agreement, Identity, compare, part_of, shown
from dispatcher.support.ids import is_run_id
from dispatcher.support.log_throttle import LogThrottle

logger = logging.getLogger(__name__)

#: Kinds without which nothing can be observed; events only add texts.
REQUIRED = ("jobs", "pods")
_GONE = 410

#: Leaves out normal events that repeat what a Job or pod shows. Warnings stay, and ``Pulling`` and
#: ``Pulled``: no state tells that an image is being pulled.
_EVENTS = ",".join(
    f"reason!={reason}" for reason in ("SuccessfulCreate", "Scheduled", "Created", "Started", "Killing", "Completed")
)
_START_TIMEOUT = 10.0  # seconds for the first lists, before their absence counts as an outage
_EMPTY_WATCH_DELAY = 0.2  # seconds until a watch is reopened that the server ended without an event
_MAX_RETRY_DELAY = 30.0  # seconds between two attempts to reach a server that doesn't answer


@dataclass
class Health:
    """State of one watch. ``last_contact``: when the server last sent anything, monotonic."""

    synced: threading.Event = field(default_factory=threading.Event)
    last_contact: float = 0.0
    error: str = ""
    version: str = ""  # up to which everything was received; empty: a list is needed
    connections: int = 0  # of the API at the last list
    listed_at: float = 0.0
    lists: int = 0
    watches: int = 0


class ClusterChanged(Exception):
    """The address leads to another cluster than before."""


class NamespaceWatch:
    """Watches one namespace of one cluster for one backend's objects of one installation. Threads start at
    :meth:`start`.

    The identity of the cluster is read with each list, before anything is concluded from what the list lacks. Once it
    is another one the watch has :attr:`moved`: it ends, and what it has cached says nothing any more.

    Args:
        api: the cluster.
        namespace: the namespace.
        selector: of the labels of the objects.
        settings: silence and relist, in seconds.
        identity: of the cluster.
        on_change: called with the UID and the run of a Job whose objects have changed; with neither if any may have.
    """

    def __init__(
        self,
        api: Api,
        namespace: str,
        selector: str,
        settings: KubernetesSettings,
        identity: ClusterIdentity,
        on_change: Changed = lambda uid, run_id: None,
    ) -> None:
        self.cache = Cache()
        self.health = {kind: Health() for kind in (*REQUIRED, "events")}
        self._api = api
        self._namespace = namespace
        self._settings = settings
        self._identity = identity
        self._identified: Identity | None = None
        self._identity_lock = threading.Lock()
        self.moved = False  #: another watch has to take over
        self._on_change = on_change
        self._warnings = {kind: LogThrottle(logger) for kind in self.health}
        self._stopped = threading.Event()
        self._started_at = 0.0
        by_label = {"labelSelector": selector}
        self._selectors = {"jobs": by_label, "pods": by_label, "events": {"fieldSelector": _EVENTS}}

    def start(self) -> None:
        """Start the threads; return at once."""
        self._started_at = time.monotonic()
        for kind in self.health:
            name = f"kubernetes-{self._namespace}-{kind}"
            threading.Thread(target=self._run, args=(kind,), name=name, daemon=True).start()

    @property
    def starting(self) -> bool:
        """Return True if the first complete lists may still be under way, so that nothing was observed yet."""
        return time.monotonic() - self._started_at < _START_TIMEOUT and not self.synced

    @property
    def synced(self) -> bool:
        """Return True if the first complete lists have arrived."""
        return all(self.health[kind].synced.is_set() for kind in REQUIRED)

    def stale_reason(self) -> str:
        """Return the reason why the cache may be out of date; empty if it is current."""
        if self.moved:
            return "the address of its API server leads to another cluster than before"
        for kind in REQUIRED:
            health = self.health[kind]
            if not health.synced.is_set():
                return health.error or f"the first list of {kind} hasn't arrived yet"
            if time.monotonic() - health.last_contact > self._settings.silence + self._settings.request_timeout:
                return health.error or f"the watch of {kind} is silent"
        return ""

    def stop(self) -> None:
        """Stop soon. The threads are daemons and may still wait for the server."""
        self._stopped.set()

    def _run(self, kind: str) -> None:
        health = self.health[kind]
        delay = 0.0
        while not self._stopped.is_set():
            try:
                if self._needs_list(health):
                    self._list(kind)
                delay = 0.0 if self._watch(kind) else _EMPTY_WATCH_DELAY
            except ClusterChanged:
                return
            except ApiError as error:
                if error.status == _GONE:
                    health.version = ""
                delay = self._retry_delay(kind, error, delay, error.retry_after)
            except (Unclear, Unreachable, DispatcherError) as error:
                delay = self._retry_delay(kind, error, delay)
            except Exception as error:
                logger.exception("Watch of %s in %s failed: %s", kind, self._namespace, error)
                health.version = ""
                delay = self._retry_delay(kind, error, delay)
            self._stopped.wait(delay)

    def _needs_list(self, health: Health) -> bool:
        """Return True at first, after 410, after a new connection, and from time to time."""
        due = time.monotonic() - health.listed_at >= self._settings.relist
        return not health.version or health.connections != self._api.connections or due

    def _retry_delay(self, kind: str, error: Exception, delay: float, retry_after: float | None = None) -> float:
        """Note an error; return the seconds until the next attempt, few if the server has answered since the last."""
        health = self.health[kind]
        if not health.error:  # the first since the last contact
            if isinstance(error, ApiError) and error.status == _GONE:
                logger.info("Watch of %s in %s: its version has expired; listing again", kind, self._namespace)
            else:
                self._warnings[kind].warn(f"Watch of {kind} in {self._namespace} broke off; reopening", error)
            delay = 0.0
        health.error = str(error) or type(error).__name__
        return retry_after or min(_MAX_RETRY_DELAY, max(0.2, delay * 2)) * random.uniform(0.7, 1.0)

    def _list(self, kind: str) -> None:
        """Store a complete list, page by page. The watch continues from its version."""
        objects: list[Json] = []
        version = ""
        for page in self._api.pages(self._namespace, kind, self._selectors[kind]):
            version = version or str(page["metadata"]["resourceVersion"])
            objects += [trim(kind, item) for item in page.get("items") or ()]
            self._note_contact(kind)
        self._identify()
        self.cache.replace(kind, objects)
        health = self.health[kind]
        health.connections = self._api.connections
        health.version, health.listed_at = version, time.monotonic()
        health.lists += 1
        health.synced.set()
        self._on_change(None, "")

    def _identify(self) -> None:
        """Read the cluster's identity; raise :class:`ClusterChanged` if it isn't the one of the earlier lists."""
        with self._identity_lock:
            identity, before = self._identity.read(), self._identified
            self._identified = identity
            if before is None:
                self._log_identity(identity)
            elif before != identity and compare(before, identity) is not Agreement.SAME:
                self.moved = True
                self._stopped.set()
                logger.warning("Namespace %s: the cluster with %s has become the one with %s; watching anew, and what "
                               "isn't found there isn't taken for gone", self._namespace, shown(before),
                               shown(identity))  # fmt: skip
        if self.moved:
            self._on_change(None, "")
            raise ClusterChanged

    def _log_identity(self, identity: Identity) -> None:
        if here := part_of(identity, self._namespace):
            logger.info("Namespace %s is on the cluster with %s", self._namespace, shown(here))
        else:
            logger.warning("Namespace %s: it can't be told which cluster it is on, because the worker lacks %s: a run "
                           "of an identified cluster is out of sight once its Job isn't found, and runs created now "
                           "could be mistaken for another cluster's", self._namespace, RIGHT)  # fmt: skip

    def _watch(self, kind: str) -> bool:
        """Store events until the server ends the watch, as it does after a while, or a list is due. Return True if it
        has sent any. A watch that broke off continues from its version; only the server can declare that expired."""
        health = self.health[kind]
        received = False
        health.watches += 1
        selectors, silence = self._selectors[kind], self._settings.silence
        stream = self._api.watch(self._namespace, kind, health.version, selectors, silence=silence)
        for event in stream:
            self._note_contact(kind)
            received = True
            changed = event["object"]
            if event["type"] != "BOOKMARK":
                self._store(kind, changed, deleted=event["type"] == "DELETED")
            health.version = str(changed["metadata"]["resourceVersion"])
            if self._stopped.is_set() or time.monotonic() - health.listed_at >= self._settings.relist:
                return True
        self._note_contact(kind)
        return received

    def _store(self, kind: str, changed: Json, *, deleted: bool) -> None:
        trimmed = trim(kind, changed)
        if deleted:
            self.cache.remove(kind, trimmed)
        else:
            self.cache.put(kind, trimmed)
        if kind in REQUIRED:
            run_id = (changed["metadata"].get("annotations") or {}).get(RUN)
            self._on_change(job_uid(kind, trimmed), run_id if is_run_id(run_id) else "")

    def _note_contact(self, kind: str) -> None:
        health = self.health[kind]
        health.last_contact, health.error = time.monotonic(), ""
