"""Last lines of the containers of an attempt's pod: the flow's, and the init containers that kept it from starting.

Used by the backend, on threads of the supervisor that may wait for a slow node.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from backends.base import Handle
from backends.kubernetes.cluster.api import Api, ApiError, Unclear
from backends.kubernetes.cluster.connection import Unreachable
from backends.kubernetes.handle import JobKey, Scope
from backends.kubernetes.jobs import Jobs
from backends.kubernetes.pod_state import failed_inits, has_started

logger = logging.getLogger(__name__)

Pod = Mapping[str, Any]


class LogReader:
    """Reads last lines, each container's by one request of at most 5 seconds.

    Args:
        api: the cluster.
        scope: the cluster and namespaces that are served.
        jobs: finds the pods.
    """

    def __init__(self, api: Api, scope: Scope, jobs: Jobs) -> None:
        self._api = api
        self._scope = scope
        self._jobs = jobs

    def of_flow(self, handle: Handle) -> tuple[str, ...]:
        """Return the last lines of the flow's container. Empty if they are gone, or if the container never started."""
        container = str(handle["container"])
        return self._read(handle, lambda pod: [container] if has_started(pod, container) else []).get(container, ())

    def of_failed_inits(self, handle: Handle) -> Mapping[str, tuple[str, ...]]:
        """Return the last lines of the init containers that failed, by their names."""
        return self._read(handle, lambda pod: [str(status["name"]) for status in failed_inits(pod)])

    def _read(self, handle: Handle, chosen: Callable[[Pod], Sequence[str]]) -> dict[str, tuple[str, ...]]:
        """Return the last lines of the containers chosen, of the newest pod that has some."""
        key = JobKey.of(handle)
        if exclusion := self._scope.exclusion(handle):
            logger.info("Logs of Job %s/%s aren't read: %s", key.namespace, key.name, exclusion)
            return {}
        try:
            for pod in reversed(self._jobs.pods(key, self._jobs.cache(handle))):
                if names := chosen(pod):
                    pod_name = str(pod["metadata"]["name"])
                    texts = {name: self._api.log(key.namespace, pod_name, name) for name in names}
                    return {name: tuple(text.splitlines()) for name, text in texts.items()}
        except (ApiError, Unclear, Unreachable) as error:
            logger.info("Logs of Job %s/%s can't be read: %s", key.namespace, key.name, error)
        return {}
