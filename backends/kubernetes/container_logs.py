"""Last lines of a container, and whether they are the container's own words or the node's about a missing log."""

from __future__ import annotations

import re

from backends.kubernetes.cluster.api import Api, ApiError, Unclear
from backends.kubernetes.cluster.connection import Unreachable
from dispatcher.errors import Permanent, Transient
from dispatcher.runs.states import Cause

#: What a kubelet answers, with status 200 and in place of a log, if the log's file or its container is gone.
_MISSING = re.compile(
    r"unable to retrieve container logs for \S+"
    r"|failed to try resolving symlinks in path .+"
    r"|failed to create fsnotify watcher: .+"
)


def last_lines(
    api: Api, namespace: str, pod: str, container: str, *, lines: int = 200, max_bytes: int = 65536
) -> tuple[str, ...]:
    """Return the last lines of a container, by one request. Empty if its pod is gone.

    Args:
        api: the cluster.
        namespace: of the pod.
        pod: its name.
        container: its container's name.
        lines: most lines to return.
        max_bytes: most bytes to read.

    Raises:
        Permanent: the node doesn't have the log any more; the message is the node's.
        Transient: the request failed.
    """
    try:
        text = api.log(namespace, pod, container, lines=lines, max_bytes=max_bytes)
    except ApiError as error:
        if error.status == 404:
            return ()
        raise Transient(str(error)) from error
    except (Unclear, Unreachable) as error:
        raise Transient(str(error)) from error
    if _MISSING.fullmatch(text.strip()):
        raise Permanent(text.strip(), cause=Cause.UNKNOWN)
    return tuple(text.splitlines())
