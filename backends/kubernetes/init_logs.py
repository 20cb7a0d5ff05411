"""Last lines of the init containers that failed, so that the flow's container was never started."""

from __future__ import annotations

import logging

from backends.base import Handle
from backends.kubernetes.cluster.api import Api, ApiError, Unclear
from backends.kubernetes.cluster.connection import Unreachable
from backends.kubernetes.handle import JobKey
from backends.kubernetes.jobs import Jobs
from backends.kubernetes.pod_state import failed_inits

logger = logging.getLogger(__name__)


def failed_init_logs(api: Api, jobs: Jobs, handle: Handle) -> dict[str, tuple[str, ...]]:
    """Return the last lines of the newest pod's init containers that failed, by their names; empty if they are gone.

    Each costs one request of at most 5 seconds.

    Args:
        api: the cluster.
        jobs: finds the pods.
        handle: names the Job, of a namespace that is served.
    """
    key = JobKey.of(handle)
    try:
        for pod in reversed(jobs.pods(handle, jobs.cache(handle))):
            if names := [str(status["name"]) for status in failed_inits(pod)]:
                texts = {name: api.log(key.namespace, str(pod["metadata"]["name"]), name) for name in names}
                return {name: tuple(text.splitlines()) for name, text in texts.items()}
    except (ApiError, Unclear, Unreachable) as error:
        logger.info("Logs of Job %s/%s can't be read: %s", key.namespace, key.name, error)
    return {}
