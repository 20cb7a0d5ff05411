"""The worker pods of one cluster's attempts: creation, deletion, observation and logs.

Each is named after its Job and its worker, and belongs to that Job alone: a pod that only carries the labels of one is
left alone.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from backends.base import Handle, Request, WorkerState
from backends.dask_kubernetes import manifest
from backends.dask_kubernetes.worker_state import observe
from backends.kubernetes import manifest as job_manifests
from backends.kubernetes import reasons
from backends.kubernetes.attempt_objects import is_worker_of, worker_name
from backends.kubernetes.cluster.api import Api, ApiError
from backends.kubernetes.cluster.errors import translated
from backends.kubernetes.cluster.trim import trim
from backends.kubernetes.cluster.watches import Watches
from backends.kubernetes.container_logs import last_lines
from backends.kubernetes.create import create_or_adopt
from backends.kubernetes.handle import JobKey
from backends.kubernetes.jobs import Jobs
from backends.kubernetes.remains import Remains
from dispatcher.errors import Permanent, Transient
from dispatcher.runs.states import Cause
from dispatcher.support.failpoints import failpoint

Json = dict[str, Any]
Object = Mapping[str, Any]

_RETRY_INTERVAL = 5.0  # seconds, while others keep a pod
_FORGET_AFTER = 600.0  # seconds after which the clocks of a pod that is no longer looked at are dropped
_MOST_CLOCKS = 10_000  # pods whose clocks are kept without such a look


class WorkerPods:
    """Requests about worker pods.

    Args:
        api: the cluster.
        watches: its watches, which show the pods.
        jobs: reads Jobs and pods.
        clock: seconds, monotonic.
    """

    def __init__(self, api: Api, watches: Watches, jobs: Jobs, clock: Callable[[], float] = time.monotonic) -> None:
        self._api = api
        self._watches = watches
        self._jobs = jobs
        self._clock = clock
        self._lock = threading.Lock()
        self._clocks: dict[str, tuple[float, reasons.Clocks]] = {}  # by the pod's UID, with the time of the last look

    def states(self, handle: Handle) -> list[WorkerState]:
        """Return the workers of an attempt as the watch shows them, in the order of their numbers; gone ones, too.

        Raises:
            Transient: the watch isn't current.
        """
        key = JobKey.of(handle)
        watch = self._watches.get(key.namespace, str(handle["instance"]))
        if stale := watch.stale_reason():
            raise Transient(f"its workers aren't in sight: {stale}")
        newest: dict[str, reasons.Pod] = {}
        for pod in watch.cache.workers(key.uid):
            name = worker_name(pod.object)
            if is_worker_of(pod.object, key.name) and (name not in newest or newest[name].gone or not pod.gone):
                newest[name] = pod
        states = []
        for name, pod in newest.items():
            uid = str(pod.object["metadata"]["uid"])
            now = self._clock()
            with self._lock:
                _, clocks = self._clocks.get(uid, (now, {}))
            observation, clocks = observe(pod, watch.cache.events([uid]), clocks, now)
            self._keep(uid, clocks, now)
            states.append(WorkerState(name=name, observation=observation))
        return sorted(states, key=lambda state: (len(state.name), state.name))

    def create(self, handle: Handle, request: Request, names: Sequence[str]) -> None:
        """Create workers of these names, unless they exist.

        Raises:
            Permanent: one is refused, or its name belongs to another pod.
            Transient: the flow's pod has no address, or one isn't created yet, with the cause if there is one.
        """
        key = JobKey.of(handle)
        with translated(self._api, key.namespace):
            address = self.address(handle)
            existing = self._existing(handle)
        leaving = []
        for name in names:
            if (pod := existing.get(name)) is None:
                leaving += [] if self._create(key, request, name, address) else [name]
            elif pod["metadata"].get("deletionTimestamp"):
                leaving.append(name)
        if leaving:
            raise Transient(f"worker {leaving[0]}: its former pod is being deleted")

    def delete(self, handle: Handle, names: Sequence[str]) -> bool:
        """Delete workers; return True once all of them are gone.

        Raises:
            Transient: one can't go yet, since its node doesn't answer, or others keep it by a finalizer.
        """
        key = JobKey.of(handle)
        with translated(self._api, key.namespace):
            existing = {name: pod for name, pod in self._existing(handle).items() if name in names}
            for name in self._unknown(handle, names):
                if (pod := self._read(key, name)) is not None:
                    existing[name] = pod
            for pod in existing.values():
                if not pod["metadata"].get("deletionTimestamp"):
                    self._jobs.delete_pod(key.namespace, pod)
                    failpoint("cluster.worker_deleted", str(pod["metadata"]["run"]), lost=Transient)
        if reason := Remains(None, list(existing.values())).keeper(key.namespace, time.time()):
            raise Transient(reason, retry_in=_RETRY_INTERVAL)
        return not existing

    def logs(self, handle: Handle, name: str) -> tuple[str, ...]:
        """Return the last lines of a worker's container; empty if its pod is gone, or hasn't started.

        Raises:
            Permanent: the node doesn't have them any more.
            Transient: they can't be read now.
        """
        key = JobKey.of(handle)
        with translated(self._api, key.namespace):
            pod = self._existing(handle).get(name)
        container = "" if pod is None else str(pod["spec"].get("container") or "")
        if pod is None or not reasons.has_started(pod, container):
            return ()
        return last_lines(self._api, key.namespace, str(pod["metadata"]["name"]), container)

    def address(self, handle: Handle) -> str:
        """Return the IP address of the flow's pod.

        Raises:
            Transient: it has none yet, or has ended.
            ApiError, Unclear, Unreachable: of the API.
        """
        container = str(handle["container"])
        for pod in reversed(self._jobs.pods(handle, self._jobs.cache(handle))):
            is_over = bool(pod["metadata"].get("deletionTimestamp")) or reasons.has_ended(pod, container)
            if not is_over and (address := pod["status"].get("podIP")):
                return str(address)
        raise Transient("the flow's pod has no address yet, or has ended", retry_in=0.5)

    def _create(self, key: JobKey, request: Request, name: str, address: str) -> bool:
        """Create a worker, or adopt its pod; return False if a former one of its name still has to go."""
        pod = manifest.worker_pod(request, name=name, job_uid=key.uid, address=address)
        try:
            with translated(self._api, key.namespace):
                adopt = partial(self._adopt, key, request, name)
                created = create_or_adopt(self._api, key.namespace, "pods", pod, adopt)
        except Transient as error:
            raise Transient(f"worker {name}: {error}", retry_in=error.retry_in, cause=error.cause) from error
        except Permanent as error:
            raise Permanent(f"worker {name}: {error}", cause=error.cause, reason=error.reason) from error
        failpoint("cluster.worker_made", str(pod["metadata"]["annotations"][job_manifests.RUN]), lost=Transient)
        return not created["metadata"].get("deletionTimestamp")

    def _adopt(self, key: JobKey, request: Request, name: str) -> Json:
        """Return the existing pod of a worker's name, if this request created it, or if it is about to go."""
        pod = self._api.get(key.namespace, "pods", manifest.worker_pod_name(request, name))
        is_own = manifest.was_created_by(pod["metadata"], request, name=name, job_uid=key.uid)
        if not is_own and not pod["metadata"].get("deletionTimestamp"):
            raise Permanent(
                f"pod {key.namespace}/{pod['metadata']['name']} was created by somebody else, or by another request",
                cause=Cause.START_FAILED,
                reason="AlreadyExists",
            )
        return pod

    def _existing(self, handle: Handle) -> dict[str, Object]:
        return {worker_name(pod): pod for pod in self._jobs.workers(handle, self._jobs.cache(handle))}

    def _unknown(self, handle: Handle, names: Sequence[str]) -> list[str]:
        """Return the names of which the watch has shown no pod: theirs may have been created a moment ago."""
        cache = self._jobs.cache(handle)
        if cache is None:
            return []
        shown = {worker_name(pod.object) for pod in cache.workers(str(handle["uid"]))}
        return [name for name in names if name not in shown]

    def _read(self, key: JobKey, name: str) -> Object | None:
        """Return the pod of a worker from the API server; None if there is none, or it isn't this Job's."""
        try:
            pod = trim("pods", self._api.get(key.namespace, "pods", f"{key.name}-{name}"))
        except ApiError as error:
            if error.status == 404:
                return None
            raise
        return pod if pod["metadata"]["job"] == key.uid and is_worker_of(pod, key.name) else None

    def _keep(self, uid: str, clocks: reasons.Clocks, now: float) -> None:
        with self._lock:
            self._clocks[uid] = (now, clocks)
            if len(self._clocks) > _MOST_CLOCKS:
                late = now - _FORGET_AFTER
                self._clocks = {key: entry for key, entry in self._clocks.items() if entry[0] >= late}
