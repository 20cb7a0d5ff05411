"""Runs of :class:`~backends.kubernetes.environment.KubernetesJobEnvironment`: create, see, delete. Remembers nothing
that it couldn't see again: what it keeps is a cache of the cluster."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import urlencode

from backends.base import Backend, Changed, Found, Handle, Observation, Phase, Request
from backends.kubernetes import manifest, reasons
from backends.kubernetes.cluster.api import Api, ApiError, Unclear
from backends.kubernetes.cluster.cache import Cache, cut
from backends.kubernetes.cluster.connection import Unreachable, load_sdk
from backends.kubernetes.cluster.errors import translated
from backends.kubernetes.cluster.lookup import Asking
from backends.kubernetes.cluster.watch import Watching
from backends.kubernetes.create import create
from backends.kubernetes.settings import ClusterSettings, KubernetesSettings
from backends.kubernetes.timestamps import age, times
from backends.rate_limit import Pace, shared
from dispatcher.errors import InvalidSettings, Permanent, Transient
from dispatcher.runs.attempt import Attempt
from dispatcher.settings import Settings
from dispatcher.support import urls
from dispatcher.support.ids import is_run_id

if TYPE_CHECKING:
    from dispatcher.inspection.finding import Finding

logger = logging.getLogger(__name__)

_LATE = 5.0  # seconds after which a Job that no watch has shown is asked for by name
_FORGET = 600.0  # seconds after which an attempt that nobody asks for is forgotten
_URL = "DISPATCHER__URL"
_LOOPBACK = ("localhost", "127.", "::1", "0.0.0.0")

Names = tuple[str, str, str]  # namespace, name, UID


class KubernetesBackend(Backend):
    """One cluster: the one that the settings choose."""

    name: ClassVar[str] = "kubernetes"

    def __init__(self, settings: Settings | None = None) -> None:
        self._settings = settings or Settings.load()
        self._ours = self._settings.group(KubernetesSettings)
        self._cluster = manifest.cluster_name(self._settings)
        cluster = self._ours.clusters.get(self._cluster, ClusterSettings())
        pace = Pace(self._ours.requests_per_second, bucket=shared(cluster))
        self._api = Api(cluster, timeout=self._ours.request_timeout, pace=pace)
        self._changed: Changed = lambda uid, run_id: None
        self._asking = Asking(self._there, self._answered)
        self._watched: dict[tuple[str, str], Watching] = {}
        self._memories: dict[Names, tuple[float, reasons.Memory]] = {}  # when it was looked at, and its clocks

    @property
    def place(self) -> str:
        return self._cluster

    @classmethod
    def check_settings(cls, settings: Settings) -> None:
        try:
            manifest.cluster_name(settings)
        except Permanent as error:
            raise InvalidSettings(str(error)) from None
        _pod_url(settings)
        _ca(settings)

    @classmethod
    def preload(cls) -> None:
        load_sdk()
        manifest.preload()

    def unreachable(self) -> str:
        try:
            with translated(self._api, self._ours.namespaces[0]):
                return "" if self._api.ready() else "the API server says that it isn't ready"
        except (Permanent, Transient) as error:
            return str(error)

    def prepare(self, attempt: Attempt) -> Request:
        return self.request(attempt)

    def request(self, attempt: Attempt, *, module: str = "dispatcher.runner") -> Request:
        """As :meth:`prepare`, for another program in the flow's container."""
        return manifest.build(attempt, self._settings, module=module)

    def rendered(self, request: Request) -> str:
        """The Job as YAML, its digest and cluster in a comment. Its Secret isn't shown: it is made with the Job."""
        import yaml

        where = f"cluster {request['cluster']}, " if request["cluster"] else ""
        head = f"# {where}namespace {request['namespace']}; digest {request['digest']}\n"
        return head + str(yaml.safe_dump(request["job"], sort_keys=False, allow_unicode=True, width=120))

    def submit(self, request: Request, secrets: Mapping[str, str]) -> Handle:
        manifest.check_ours(request, self._settings)
        with translated(self._api, request["namespace"]):
            ca = _ca(self._settings)
            variables = dict(secrets)
            if _URL in secrets:
                variables[_URL] = _pod_url(self._settings)
            job = create(self._api, request, lambda uid: manifest.secret(request, uid, variables, ca=ca))
        return {
            "cluster": request["cluster"],
            "namespace": request["namespace"],
            "name": job["metadata"]["name"],
            "uid": job["metadata"]["uid"],
            "container": request["container"],
            "instance": request["job"]["metadata"]["labels"][manifest.INSTANCE],
        }

    def poll(self, handles: Sequence[Handle]) -> list[Observation]:
        now = time.monotonic()
        seen = [self._look(handle, now) for handle in handles]
        if len(self._memories) > 1000 + len(handles):
            for names in [names for names, (looked, _) in self._memories.items() if now - looked > _FORGET]:
                del self._memories[names]
                self._asking.forget(names)
        return seen

    def cancel(self, handle: Handle | None, request: Request | None) -> bool:
        named = handle if handle is not None else request
        if named is None:
            return True
        if elsewhere := self._elsewhere(named):
            raise Transient(elsewhere, retry_in=30.0)
        with translated(self._api, named["namespace"]):
            return self._cancel_known(named) if handle is not None else self._cancel_unknown(named)

    def logs(self, handle: Handle) -> tuple[str, ...]:
        """The last lines of the flow's container, one request of at most 5 seconds; empty where they are gone, and
        where it has never begun."""
        namespace, name, _ = names = _names(handle)
        container = str(handle["container"])
        if elsewhere := self._elsewhere(handle):
            logger.info("logs of %s/%s aren't read: %s", namespace, name, elsewhere)
            return ()
        try:
            pods = [pod for pod in self._left(names, self._current(handle)) if reasons.began(pod, container)]
            if not pods:
                return ()
            text = self._api.log(namespace, str(pods[-1]["metadata"]["name"]), container)
        except (ApiError, Unclear, Unreachable) as error:
            logger.info("logs of %s/%s are gone: %s", namespace, name, error)
            return ()
        return tuple(text.splitlines())

    def examine(self, *, within: float = 60.0) -> Iterator[Finding]:
        """Yield the findings of ``dispatcher doctor``; start a pod, which gets ``within`` seconds."""
        from backends.kubernetes.doctor import examine

        return examine(self, self._api, self._settings, within=within, wait=time.sleep)

    def watch(self, changed: Changed, instance: str) -> None:
        self._changed = changed
        for namespace in self._ours.namespaces:
            self._watching(namespace, manifest.label_value(instance))

    def _answered(self, names: Names) -> None:
        self._changed(names[2], "")

    def key(self, handle: Handle) -> str:
        return str(handle["uid"])

    def orphans(self, instance: str) -> list[Found]:
        now, label = time.time(), manifest.label_value(instance)
        found = []
        for namespace in self._ours.namespaces:
            for job in self._jobs(namespace, label):
                metadata, spec = job["metadata"], job["spec"]
                if not is_run_id(metadata["run"]) or not metadata["attempt"].isdecimal() or spec["suspend"]:
                    continue  # not ours, or a quota queue holds it, for as long as it likes
                handle = {
                    "cluster": self._cluster,
                    "namespace": namespace,
                    "name": metadata["name"],
                    "uid": metadata["uid"],
                    "container": spec["container"],
                    "instance": label,
                }
                attempt = int(metadata["attempt"])
                found.append(Found(run_id=metadata["run"], attempt=attempt, age=age(job, now), handle=handle))
        return found

    def _jobs(self, namespace: str, label: str) -> list[dict[str, Any]]:
        """All Jobs of an installation, as :func:`~backends.kubernetes.cluster.cache.cut` keeps them: as a current watch
        has seen them, else from a list."""
        watching = self._watched.get((namespace, label))
        if watching is not None and not watching.blind():
            return watching.cache.jobs()
        with translated(self._api, namespace):
            pages = self._api.pages(namespace, "jobs", {"labelSelector": f"{manifest.INSTANCE}={label}"})
            return [cut("jobs", job) for page in pages for job in page.get("items") or ()]

    def close(self) -> None:
        for watching in self._watched.values():
            watching.stop()
        self._asking.stop()
        self._api.close()

    def _look(self, handle: Handle, now: float) -> Observation:
        if elsewhere := self._elsewhere(handle):
            return _unseen(elsewhere)
        namespace, _, uid = names = _names(handle)
        watching = self._watching(namespace, str(handle["instance"]))
        if blind := watching.blind():
            return Observation(phase=Phase.UNSEEN) if watching.early else _unseen(blind)
        job, gone = watching.cache.job(uid)
        _, memory = self._memories.get(names, (now, {}))
        if job is None:
            return self._missed(names, memory, now)
        pods = watching.cache.pods(uid)
        about = [uid, *(str(pod.object["metadata"]["uid"]) for pod in pods)]
        sight = reasons.Sight(
            job=None if gone else job,
            deleted=gone,
            pods=pods,
            events=watching.cache.events(about),
            container=str(handle["container"]),
        )
        seen, memory = reasons.observe(sight, memory, now)
        self._memories[names] = (now, memory)
        return replace(seen, times=times(job, pods, sight.events, sight.container))

    def _missed(self, names: Names, memory: reasons.Memory, now: float) -> Observation:
        """No watch has shown this Job: it is very new, or it went while nobody looked. Never decided by a cache: the
        server is asked, and meanwhile it waits."""
        began, _ = memory.get("missed", (now, ""))
        self._memories[names] = (now, {**memory, "missed": (began, "")})
        if now - began < _LATE:
            return Observation(phase=Phase.WAITING)
        found = self._asking.ask(names)
        if found is None:
            return Observation(phase=Phase.WAITING)
        if isinstance(found, Exception):
            return _unseen(str(found))
        self._memories[names] = (now, {**memory, "missed": (now, "")})
        if found:
            return Observation(phase=Phase.WAITING)
        return reasons.observe(reasons.Sight(job=None), {}, now)[0]

    def _elsewhere(self, named: Mapping[str, Any]) -> str:
        """Why nothing is read or deleted there, or nothing."""
        if named["cluster"] != self._cluster:
            return f"it is on cluster {named['cluster']!r}, and this worker serves {self._cluster!r}"
        if named["namespace"] not in self._ours.namespaces:
            served = ", ".join(self._ours.namespaces)
            return f"it is in namespace {named['namespace']!r}, and this worker serves {served}"
        return ""

    def _there(self, names: Names) -> bool:
        """Return True if this very Job exists, by the server's own word."""
        return self._read(names) is not None

    def _read(self, names: Names) -> Mapping[str, Any] | None:
        """The metadata of this very Job, by the server's own word; None if there is none."""
        namespace, name, uid = names
        try:
            metadata: Mapping[str, Any] = self._api.get(namespace, "jobs", name)["metadata"]
        except ApiError as error:
            if error.status == 404:
                return None
            raise
        return metadata if metadata["uid"] == uid else None

    def _watching(self, namespace: str, instance: str) -> Watching:
        key = (namespace, instance)
        if key not in self._watched:
            watching = self._watched[key] = Watching(self._api, namespace, instance, self._ours, self._changed)
            watching.start()
        return self._watched[key]

    def _cancel_known(self, handle: Handle) -> bool:
        names = _names(handle)
        cache = self._current(handle)
        if not self._job_gone(handle, cache):
            return False
        left = self._left(names, cache)
        for pod in left:
            if reasons.lost(pod) is not None:
                raise Transient(f"teardown pending: node {pod['spec'].get('nodeName')}", retry_in=5.0)
        return not left

    def _current(self, handle: Handle) -> Cache | None:
        """Return the watches' cache of an attempt's namespace if it is current."""
        watching = self._watched.get((str(handle["namespace"]), str(handle["instance"])))
        return None if watching is None or watching.blind() else watching.cache

    def _left(self, names: Names, cache: Cache | None) -> Sequence[Mapping[str, Any]]:
        """The pods of a Job that are still there, oldest first; asked for where no watch has shown the Job."""
        namespace, name, uid = names
        if cache is not None and cache.job(uid)[0] is not None:
            return [pod.object for pod in cache.pods(uid) if not pod.gone]
        return self._pods(namespace, name, uid)

    def _job_gone(self, handle: Handle, cache: Cache | None) -> bool:
        """Return True if a Job is gone, or not ours; asks for its end where that wasn't done yet."""
        namespace, name, uid = names = _names(handle)
        job, gone = cache.job(uid) if cache is not None else (None, False)
        if gone:
            return True
        if job is not None and job["metadata"].get("deletionTimestamp"):
            return False
        if job is None and not self._is_ours(names, str(handle["instance"])):
            return True
        if self._delete(namespace, name, uid):
            return True
        return job is None and not self._there(names)  # else the watch will tell

    def _is_ours(self, names: Names, instance: str) -> bool:
        """Return True if a Job that no watch has shown is there and carries the installation's label."""
        metadata = self._read(names)
        if metadata is None:
            return False
        if (metadata.get("labels") or {}).get(manifest.INSTANCE) == instance:
            return True
        logger.warning("Job %s/%s isn't this installation's: it is left alone", *names[:2])
        return False

    def _cancel_unknown(self, request: Request) -> bool:
        """No handle was stored: what the request would have created goes by its name, if it is ours."""
        namespace, metadata = request["namespace"], request["job"]["metadata"]
        try:
            found: Mapping[str, Any] = self._api.get(namespace, "jobs", metadata["name"])["metadata"]
        except ApiError as error:
            if error.status == 404:
                return True
            raise
        if not manifest.is_made_of(found, request):
            return True
        self._delete(namespace, found["name"], found["uid"])
        return False

    def _delete(self, namespace: str, name: str, uid: str) -> bool:
        """Ask for a Job to go, and its pods after it; True if it was gone already."""
        try:
            self._api.delete(namespace, "jobs", name, uid=uid)
        except ApiError as error:
            # 409: one of that name has another UID, so ours is gone
            if error.status in {404, 409}:
                return True
            raise
        return False

    def _pods(self, namespace: str, name: str, uid: str) -> list[dict[str, Any]]:
        pages = self._api.pages(namespace, "pods", {"labelSelector": f"job-name={name}"})
        return [
            pod
            for page in pages
            for pod in page.get("items") or ()
            if any(owner.get("uid") == uid for owner in pod["metadata"].get("ownerReferences") or ())
        ]


def _names(handle: Handle) -> Names:
    return str(handle["namespace"]), str(handle["name"]), str(handle["uid"])


def _unseen(message: str) -> Observation:
    return Observation(phase=Phase.UNKNOWN, reason="Unseen", message=message)


def _pod_url(settings: Settings) -> str:
    """The server of the records as pods reach it.

    Raises:
        InvalidSettings: none is set, or pods can't reach it.
    """
    variable = "DISPATCHER__KUBERNETES__URL" if settings.group(KubernetesSettings).url else "DISPATCHER__URL"
    url = settings.group(KubernetesSettings).url or settings.url or ""
    remedy = "set DISPATCHER__KUBERNETES__URL to its address as pods reach it"
    if not url:
        raise InvalidSettings(f"{variable}: no server is set; {remedy}")
    address = urls.parse(url) if not url.startswith(urls.MEMORY) else None
    hosts = [host for host, _ in address.hosts] if address else []
    if not hosts or any(host.startswith(_LOOPBACK) for host in hosts):
        raise InvalidSettings(f"{variable}: pods can't reach {urls.shown(url)}; {remedy}")
    if settings.group(KubernetesSettings).ca_file is not None and address is not None and address.tls:
        given = urlencode({"ssl_ca_certs": manifest.CA})
        url = f"{url}{'&' if address.options else '?'}{given}"
    return url


def _ca(settings: Settings) -> str | None:
    file = settings.group(KubernetesSettings).ca_file
    if file is None:
        return None
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidSettings(f"DISPATCHER__KUBERNETES__CA_FILE: {file}: {error}") from None
