"""Find threads and processes that a flow has left running in its process.

Called by :mod:`dispatcher.runner.process_state.aspects`.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

#: Threads of known libraries, which run no code of the user: by the package of their function or class, or by the
#: prefix of their name for thread pools. Threads that Python doesn't know of (BLAS, OpenMP) can't be listed.
PACKAGES = frozenset({"dispatcher", "distributed", "tornado", "tqdm"})
NAMES = (
    "Dask-",  # distributed: pools for callbacks and for blocking calls
    "TCP-Executor",  # distributed: address lookups
    "IO loop",  # distributed
    "fsspecIO",  # fsspec: the loop of asynchronous file systems
)

_DASK_WORKER = "dispatcher.executors.dask_worker"

# The threads at the last look, if all were of known libraries: mostly they are the same.
_known_threads: list[threading.Thread] = []

#: The pids of multiprocessing's own processes: module, object, attribute.
_HELPERS = (
    ("resource_tracker", "_resource_tracker", "_pid"),
    ("forkserver", "_forkserver", "_forkserver_pid"),
)


def threads() -> frozenset[str]:
    """Return the threads other than the main one and those of known libraries, each as ``'name' (function)``."""
    if threading.active_count() == 1:
        return frozenset()
    running, main = threading.enumerate(), threading.main_thread()
    if running == _known_threads and _DASK_WORKER not in sys.modules:
        return frozenset()
    left = frozenset(_describe(thread) for thread in running if thread is not main and not _is_known(thread))
    _known_threads[:] = running if not left else []
    return left


def children() -> frozenset[str]:
    """Return the running child processes other than those of known libraries, each as ``pid (command)``."""
    if not _has_children():
        return frozenset()
    return frozenset(f"{pid} ({name})" for pid, name in _running_children() if pid not in helpers())


def helpers() -> set[int]:
    """Return the pids of multiprocessing's own processes: the resource tracker and the fork server."""
    trackers = [
        getattr(getattr(sys.modules.get(f"multiprocessing.{module}"), name, None), attribute, None)
        for module, name, attribute in _HELPERS
    ]
    return {pid for pid in trackers if pid is not None}


def _is_known(thread: threading.Thread) -> bool:
    dask_worker = sys.modules.get(_DASK_WORKER)
    if dask_worker is not None and dask_worker.runs_here(thread.ident):  # one of Dask's threads, still running a task
        return False
    return _package(thread) in PACKAGES or thread.name.startswith(NAMES)


def _package(thread: threading.Thread) -> str:
    """Return the package of a thread's class, or of its function if the class is Python's own."""
    module: Any = type(thread).__module__
    if module == threading.__name__:
        target = getattr(thread, "_target", None)
        target = getattr(target, "func", target)  # functools.partial
        module = getattr(target, "__module__", "")
    return str(module).partition(".")[0]


def _describe(thread: threading.Thread) -> str:
    target = getattr(thread, "_target", None)
    function = getattr(target, "__qualname__", "")
    return ascii(str(thread.name)[:100]) + (f" ({ascii(str(function)[:100])[1:-1]})" if function else "")


def _has_children() -> bool:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def _running_children() -> Iterator[tuple[int, str]]:
    """Yield pid and command of the child processes, started by any thread, that haven't ended."""
    for task in Path("/proc/self/task").glob("*/children"):
        try:
            pids = [int(word) for word in task.read_text().split()]
        except OSError:  # the thread has ended
            continue
        for pid in pids:
            try:
                name, _, rest = Path(f"/proc/{pid}/stat").read_text(errors="replace").partition("(")[2].rpartition(")")
            except OSError:
                continue
            if rest.split()[0] not in {"Z", "X"}:
                yield pid, ascii(name)[1:-1]
