"""The backend of :class:`~backends.kubernetes.environment.KubernetesJobEnvironment`: runs as Jobs of one cluster.

Workers call it by the interface of :mod:`backends.base`. All state that it keeps is a cache of the cluster. Start with
:mod:`backends.kubernetes.manifest` (the Job), :mod:`backends.kubernetes.observer` (what becomes of it) and
:mod:`backends.kubernetes.reasons` (what that means).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from backends.base import Changed, CrashReport, Found, Handle, Observation, Request
from backends.container.backend import ContainerBackend
from backends.container.runner import RUNNER
from backends.kubernetes import manifest, reasons, submission
from backends.kubernetes.attempt_objects import JOB_ALONE, AttemptObjects
from backends.kubernetes.cluster.api import Api, ApiError
from backends.kubernetes.cluster.connection import load_sdk
from backends.kubernetes.cluster.errors import translated
from backends.kubernetes.cluster.identity import ClusterIdentity
from backends.kubernetes.cluster.watches import Watches
from backends.kubernetes.container_logs import last_lines
from backends.kubernetes.crash_report import crash_report
from backends.kubernetes.create import create, create_secret
from backends.kubernetes.delete import delete, delete_requested
from backends.kubernetes.first_stops import FirstStops
from backends.kubernetes.grace import Need
from backends.kubernetes.handle import JobKey, Scope, make_handle
from backends.kubernetes.init_logs import failed_init_logs
from backends.kubernetes.jobs import Jobs
from backends.kubernetes.observer import Observer
from backends.kubernetes.orphans import infrastructure
from backends.kubernetes.pod_security import restricted_violations
from backends.kubernetes.settings import ClusterSettings, KubernetesSettings
from backends.kubernetes.summary import summary
from backends.rate_limit import Pace, shared
from dispatcher.errors import InvalidSettings, Permanent, Transient
from dispatcher.runs.attempt import Attempt
from dispatcher.runs.place_identity import Identity, part_of
from dispatcher.runs.states import Cause
from dispatcher.settings import Settings
from dispatcher.support.escaping import escaped

if TYPE_CHECKING:
    from dispatcher.inspection.finding import Finding

logger = logging.getLogger(__name__)


class KubernetesBackend(ContainerBackend):
    """Runs flows on the cluster that the settings choose."""

    name: ClassVar[str] = "kubernetes"

    #: What an attempt has on the cluster.
    objects: ClassVar[AttemptObjects] = JOB_ALONE

    #: Builds the requests of attempts, and checks stored ones.
    _manifest: ClassVar[submission.Manifest] = manifest

    def __init__(self, settings: Settings | None = None) -> None:
        self._settings = settings or Settings.load()
        self._create: submission.Create = create
        kubernetes = self._settings.group(KubernetesSettings)
        self._scope = Scope(manifest.cluster_name(self._settings), kubernetes.namespaces)
        cluster = kubernetes.clusters.get(self._scope.cluster, ClusterSettings())
        pace = Pace(kubernetes.requests_per_second, bucket=shared(cluster))
        self._api = Api(cluster, timeout=kubernetes.request_timeout, pace=pace)
        self._identity = ClusterIdentity(self._api, kubernetes.namespaces)
        self._watches = Watches(self._api, kubernetes, self._identity, self.objects)
        self._jobs = Jobs(self._api, self._watches, self._identity, self.objects)
        self._first_stops = FirstStops(self._jobs)
        self._observer = Observer(self._scope, self._watches, self._jobs, self._identity)

    @property
    def place(self) -> str:
        return self._scope.cluster

    @classmethod
    def check_settings(cls, settings: Settings) -> None:
        try:
            manifest.cluster_name(settings)
        except Permanent as error:
            raise InvalidSettings(str(error)) from None
        submission.url(settings)
        submission.authority(settings)

    @classmethod
    def preload(cls) -> None:
        load_sdk()
        manifest.preload()

    def unreachable(self) -> str:
        try:
            with translated(self._api, self._scope.namespaces[0]):
                return "" if self._api.ready() else "the API server reports that it isn't ready"
        except (Permanent, Transient) as error:
            return str(error)

    @property
    def identity(self) -> Identity:
        return self._identity.last_read

    def identify(self) -> None:
        self._identity.refresh()

    def request(self, attempt: Attempt, *, module: str = RUNNER) -> Request:
        request = self._manifest.build(attempt, self._settings, module=module)
        identity = self._identity.of_namespace(request["namespace"])
        return {**request, "identity": identity} if identity else request

    def preview(self, attempt: Attempt) -> tuple[Request, Sequence[str]]:
        request = self._manifest.draft(attempt, self._settings)
        return request, self._manifest.objections(request, self._settings)

    @classmethod
    def remarks(cls, request: Request) -> Sequence[str]:
        """Return what a namespace that enforces Pod Security's ``restricted`` refuses."""
        violations = restricted_violations(request["job"]["spec"]["template"]["spec"])
        if not violations:
            return ()
        return (
            f"a namespace that enforces Pod Security `restricted` refuses its pod: {escaped('; '.join(violations))}",
        )

    def rendered(self, request: Request) -> str:
        """Return the Job as YAML, with its digest and cluster in a comment. The Secret isn't shown."""
        import yaml

        where = f"cluster {request['cluster']}, " if request["cluster"] else ""
        head = f"# {where}namespace {request['namespace']}; digest {request['digest']}\n"
        return head + str(yaml.safe_dump(request["job"], sort_keys=False, allow_unicode=True, width=120))

    @classmethod
    def summary(cls, request: Request) -> Mapping[str, str]:
        return summary(request)

    def submit(self, request: Request, secrets: Mapping[str, str]) -> Handle:
        return submission.submit(
            self._api,
            request,
            secrets,
            settings=self._settings,
            identity=self._identity,
            check=self._manifest.check_request,
            create=self._create,
        )

    def poll(self, handles: Sequence[Handle]) -> list[Observation]:
        return self._observer.poll(handles)

    def restore(self, handle: Handle, secrets: Mapping[str, str]) -> None:
        """Create the Secret of a Job again.

        Raises:
            Permanent: the Job is gone, or the worker may not.
            Transient: it can't be done now.
        """
        key = JobKey.of(handle)
        if exclusion := self._scope.exclusion(handle):
            raise Transient(exclusion, retry_in=30.0)
        with translated(self._api, key.namespace):
            metadata = self._api.get(key.namespace, "jobs", key.name)["metadata"]
            if metadata["uid"] != key.uid or metadata.get("deletionTimestamp"):
                raise Permanent(f"Job {key.namespace}/{key.name} is gone", cause=Cause.KILLED, reason="deleted")
            request = {"namespace": key.namespace, "job": {"metadata": metadata}}
            variables, ca = submission.variables(secrets, self._settings), submission.authority(self._settings)
            create_secret(self._api, key.namespace, manifest.secret(request, key.uid, variables, ca=ca))

    def cancel(self, handle: Handle | None, request: Request | None) -> bool:
        if handle is not None and not self._scope.exclusion(handle) and self._first_stops.waits(handle):
            return False
        return self._delete(handle, request, Need.WHOLE_GRACE)

    def discard(self, handle: Handle | None, request: Request | None, *, claimed: bool) -> bool:
        return self._delete(handle, request, Need.OWN_GRACE if claimed else Need.NOTHING)

    def _delete(self, handle: Handle | None, request: Request | None, need: Need) -> bool:
        target = handle if handle is not None else request
        if target is None:
            return True
        if exclusion := self._scope.exclusion(target):
            raise Transient(exclusion, retry_in=30.0)
        with translated(self._api, target["namespace"]):
            if handle is None:
                return delete_requested(self._jobs, target)
            return delete(self._jobs, handle, need)

    def logs(self, handle: Handle) -> tuple[str, ...]:
        """Return the last lines of the flow's container, by one request of at most 5 seconds. Empty if its pod is gone,
        or if the container never started.

        Raises:
            Permanent: the node doesn't have them any more.
            Transient: they can't be read now.
        """
        key = JobKey.of(handle)
        container = str(handle["container"])
        if exclusion := self._scope.exclusion(handle):
            logger.info("Logs of Job %s/%s aren't read: %s", key.namespace, key.name, exclusion)
            return ()
        with translated(self._api, key.namespace):
            try:
                pods = self._jobs.pods(handle, self._jobs.cache(handle))
            except ApiError as error:
                if error.status != 404:
                    raise
                return ()
        started = [pod for pod in pods if reasons.has_started(pod, container)]
        if not started:
            return ()
        return last_lines(self._api, key.namespace, str(started[-1]["metadata"]["name"]), container)

    def crash_report(self, handle: Handle, *, lines_known: bool) -> CrashReport:
        """Return what the cluster still tells: from the watches' caches, with one request per container at most."""
        key, cache = JobKey.of(handle), self._jobs.cache(handle)
        if self._scope.exclusion(handle) or cache is None:
            return CrashReport()
        pods = cache.pods(key.uid)
        events = cache.events([key.uid, *(str(pod.object["metadata"]["uid"]) for pod in pods)])
        container = str(handle["container"])
        return crash_report(self._api, key.namespace, pods, events, container=container, lines_known=lines_known)

    def init_logs(self, handle: Handle) -> Mapping[str, tuple[str, ...]]:
        if exclusion := self._scope.exclusion(handle):
            logger.info("Logs of Job %s/%s aren't read: %s", handle["namespace"], handle["name"], exclusion)
            return {}
        return failed_init_logs(self._api, self._jobs, handle)

    def examine(self, *, within: float = 60.0) -> Iterator[Finding]:
        """Yield the findings of ``dispatcher doctor``; start a pod, which gets ``within`` seconds."""
        from backends.kubernetes.doctor import examine

        return examine(self, self._api, self._settings, self._identity, within=within, wait=time.sleep)

    def watch(self, changed: Changed, instance: str) -> None:
        self._watches.on_change = changed
        for namespace in self._scope.namespaces:
            self._watches.get(namespace, manifest.label_value(instance))

    def key(self, handle: Handle) -> str:
        return str(handle["uid"])

    def orphans(self, instance: str) -> list[Found]:
        label = manifest.label_value(instance)
        listed: list[Found] = []
        for namespace in self._scope.namespaces:
            with translated(self._api, namespace):
                pods = self._jobs.all_pods(namespace, label)  # first: a Job may be created meanwhile, not lost
                jobs = self._jobs.all_jobs(namespace, label)
                identity = part_of(self._identity.current(), namespace)
            handle_of = partial(make_handle, cluster=self._scope.cluster, instance=label, identity=identity)
            listed += infrastructure(jobs, pods, namespace=namespace, handle_of=handle_of, now=time.time())
        return listed

    def close(self) -> None:
        self._watches.stop()
        self._observer.close()
        self._api.close()
