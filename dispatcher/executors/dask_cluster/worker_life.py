"""The preload of a cluster's workers: ``dask worker --preload dispatcher.executors.dask_cluster.worker_life``.

A worker is alone in its container. It sends its tasks' lines to the run's log, and its process ends soon after the
worker does. Dask closes a worker that can't reach its scheduler: at the start after ``--death-timeout``, later when the
system gives up the connection (``distributed.comm.timeouts.tcp``), also if the network was cut.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from typing import Any

from dispatcher.executors.dask_cluster import worker_lines
from dispatcher.support import private_files

_CLOSING = frozenset({"closing", "closed", "failed"})
_CHECK_INTERVAL = 1.0  # seconds
_CLOSE_TIMEOUT = 10.0  # seconds for a worker to close; Dask would wait longer for its tasks


def dask_setup(worker: Any) -> None:
    """Prepare a worker, before it connects. Called by Dask."""
    private_files.be_alone()
    worker_lines.install(worker)
    threading.Thread(target=_exit_after, args=(worker,), name="dispatcher-exit", daemon=True).start()


def _exit_after(worker: Any) -> None:
    """End this process if it goes on after its worker: a task may not return."""
    while worker.status.name not in _CLOSING:
        time.sleep(_CHECK_INTERVAL)
    time.sleep(_CLOSE_TIMEOUT)
    sys.stderr.write("the worker has closed, and its tasks go on: its process ends\n")
    sys.stderr.flush()
    os._exit(1)
