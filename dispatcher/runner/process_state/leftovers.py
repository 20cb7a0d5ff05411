"""Threads and processes that a flow leaves running in its process."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

#: Threads of known libraries, which hold no code of a user's: by the package that their function or class is of, or by
#: the beginning of their name where that is a pool's. Threads that Python doesn't know (BLAS, OpenMP) aren't looked at.
PACKAGES = frozenset({"dispatcher", "distributed", "tornado", "tqdm"})
NAMES = (
    "Dask-",  # distributed: pools for callbacks and for what would block its loop
    "TCP-Executor",  # distributed: address lookups
    "IO loop",  # distributed
    "fsspecIO",  # fsspec: the loop of asynchronous file systems
)

#: Where multiprocessing keeps the pids of its own: module, object, attribute.
_HELPERS = (
    ("resource_tracker", "_resource_tracker", "_pid"),
    ("forkserver", "_forkserver", "_forkserver_pid"),
)


def threads() -> frozenset[str]:
    """Threads, but for the main one and those of known libraries: each as ``'name' (function)``."""
    if threading.active_count() == 1:
        return frozenset()
    main = threading.main_thread()
    return frozenset(_told(one) for one in threading.enumerate() if one is not main and not _is_known(one))


def children() -> frozenset[str]:
    """Processes, but for those that have ended and those of known libraries: each as ``pid (command)``."""
    if not _has_children():
        return frozenset()
    return frozenset(f"{pid} ({name})" for pid, name in _living() if pid not in helpers())


def helpers() -> set[int]:
    """Pids of multiprocessing's own processes: one that counts semaphores, one that forks."""
    trackers = [
        getattr(getattr(sys.modules.get(f"multiprocessing.{module}"), one, None), pid, None)
        for module, one, pid in _HELPERS
    ]
    return {pid for pid in trackers if pid is not None}


def _is_known(thread: threading.Thread) -> bool:
    tasks = sys.modules.get(
        "dispatcher.executors.dask_worker"
    )  # in a thread of Dask's, a task may go on that can't be interrupted
    if tasks is not None and tasks.runs_here(thread.ident):
        return False
    return _package(thread) in PACKAGES or thread.name.startswith(NAMES)


def _package(thread: threading.Thread) -> str:
    """The package of a thread's class, or of its function if the class is Python's own."""
    module: Any = type(thread).__module__
    if module == threading.__name__:
        target = getattr(thread, "_target", None)
        target = getattr(target, "func", target)  # functools.partial
        module = getattr(target, "__module__", "")
    return str(module).partition(".")[0]


def _told(thread: threading.Thread) -> str:
    target = getattr(thread, "_target", None)
    function = getattr(target, "__qualname__", "")
    return ascii(str(thread.name)[:100]) + (f" ({ascii(str(function)[:100])[1:-1]})" if function else "")


def _has_children() -> bool:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def _living() -> Iterator[tuple[int, str]]:
    """Children, of whichever thread, that haven't ended: pid and name of the command."""
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
