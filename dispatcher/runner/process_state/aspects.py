"""The table of process-wide state that a flow can change, and how to restore it: one row of :data:`ASPECTS` each.

Called by :mod:`dispatcher.runner.process_state.baseline`; timers are also stopped before an outcome is written.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # signal.getsignal makes an enum of each result: 20 times as slow
import builtins
import copyreg
import faulthandler
import gc
import locale
import os
import random
import resource
import signal
import socket
import sys
import threading
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from dispatcher.runner.process_state import leftovers
from dispatcher.runner.process_state.modules import is_of_installed

_TIMERS = (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)
_SIGNALS = tuple(sorted(signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}))
_LIMITS = tuple(
    getattr(resource, f"RLIMIT_{name}")
    for name in ("AS", "CORE", "CPU", "DATA", "FSIZE", "MEMLOCK", "NOFILE", "NPROC", "STACK")
)

#: Open files that a flow may leave behind before the process is replaced.
MOST_FILES = 256

_HOOKS = ("excepthook", "displayhook", "unraisablehook", "breakpointhook", "stdin")


#: The variables as bytes, the internal form of :data:`os.environ`: to decode them would take longer than the rest of
#: the comparison.
_VARIABLES: dict[bytes, bytes] = os.environ._data  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Aspect:
    """Process-wide state that a flow can change.

    Args:
        name: for people.
        read: returns the present value.
        restore: restores an earlier value; None if that is impossible. An exception means that it failed.
        keep: adds to an earlier value what installed modules have registered when they were loaded, because modules
            are loaded only once.
    """

    name: str
    read: Callable[[], Any]
    restore: Callable[[Any], None] | None
    keep: Callable[[Any], Any] | None = None


def stop_timers() -> None:
    """Stop timers that would end the process while the outcome is written."""
    for timer in _TIMERS:
        signal.setitimer(timer, 0)
    faulthandler.cancel_dump_traceback_later()


def _restore_variables(before: dict[bytes, bytes]) -> None:
    for name in os.environb.keys() - before.keys():
        del os.environb[name]
    for name, value in before.items():
        if os.environb.get(name) != value:
            os.environb[name] = value
    time.tzset()


def _umask() -> int:
    before = os.umask(0o077)
    os.umask(before)
    return before


def _restore_umask(before: int) -> None:
    os.umask(before)


def _restore_locale(before: str) -> None:
    locale.setlocale(locale.LC_ALL, before)


def _handlers() -> list[Any]:
    return list(map(_signal.getsignal, _SIGNALS))


def _restore_handlers(before: list[Any]) -> None:
    for number, handler in zip(_SIGNALS, before, strict=True):
        if handler is not None and _signal.getsignal(number) is not handler:
            signal.signal(number, handler)


def _blocked() -> frozenset[str]:
    """Return the names of the signals that this thread blocks; those of other threads can't be read. They aren't
    unblocked, because one may be pending."""
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    return frozenset(getattr(number, "name", str(number)) for number in blocked)


def _limits() -> list[tuple[int, int]]:
    return [resource.getrlimit(limit) for limit in _LIMITS]


def _restore_limits(before: list[tuple[int, int]]) -> None:
    for limit, values in zip(_LIMITS, before, strict=True):
        if resource.getrlimit(limit) != values:
            resource.setrlimit(limit, values)


def _import_path() -> tuple[list[Any], list[Any], list[Any]]:
    return list(sys.path), list(sys.meta_path), list(sys.path_hooks)


def _restore_import_path(before: tuple[list[Any], list[Any], list[Any]]) -> None:
    sys.path[:], sys.meta_path[:], sys.path_hooks[:] = before
    sys.path_importer_cache.clear()


def _keep_finders(before: tuple[list[Any], list[Any], list[Any]]) -> tuple[list[Any], list[Any], list[Any]]:
    path, finders, hooks = before
    return path, finders + _added(sys.meta_path, finders), hooks + _added(sys.path_hooks, hooks)


def _added(now: list[Any], before: list[Any]) -> list[Any]:
    """Return the items that installed modules have added to a list."""
    return [item for item in now if not any(item is other for other in before) and is_of_installed(item)]


def _registries() -> tuple[dict[Any, Any], list[Any]]:
    return dict(copyreg.dispatch_table), list(gc.callbacks)


def _restore_registries(before: tuple[dict[Any, Any], list[Any]]) -> None:
    reducers, callbacks = before
    copyreg.dispatch_table.clear()
    copyreg.dispatch_table.update(reducers)
    gc.callbacks[:] = callbacks


def _keep_registries(before: tuple[dict[Any, Any], list[Any]]) -> tuple[dict[Any, Any], list[Any]]:
    reducers, callbacks = before
    added = {
        kind: reducer
        for kind, reducer in copyreg.dispatch_table.items()
        if kind not in reducers and is_of_installed(kind) and is_of_installed(reducer)
    }
    return reducers | added, callbacks + _added(gc.callbacks, callbacks)


def _scheduling() -> tuple[Any, ...]:
    priority: tuple[Any, ...] = (os.getpriority(os.PRIO_PROCESS, 0),)
    if not hasattr(os, "sched_getaffinity"):
        return priority
    return (*priority, os.sched_getscheduler(0), os.sched_getaffinity(0))


def _restore_scheduling(before: tuple[Any, ...]) -> None:
    priority, *linux_only = before
    if linux_only:
        policy, processors = linux_only
        if os.sched_getscheduler(0) != policy:
            os.sched_setscheduler(0, policy, os.sched_param(0))
        os.sched_setaffinity(0, processors)
    os.setpriority(os.PRIO_PROCESS, 0, priority)


def _standard_input() -> tuple[int, int]:
    try:
        status = os.fstat(0)
    except OSError:  # closed
        return 0, 0
    return status.st_dev, status.st_ino


def _restore_standard_input(before: tuple[int, int]) -> None:
    """Redirect it to the null device, as Celery does in its pool processes."""
    null_device = os.open(os.devnull, os.O_RDONLY)
    if null_device != 0:
        os.dup2(null_device, 0)
        os.close(null_device)


def _restore_fault_handler(before: bool) -> None:
    (faulthandler.enable if before else faulthandler.disable)()


def _interpreter() -> tuple[Any, ...]:
    return (
        sys.getrecursionlimit(),
        sys.getswitchinterval(),
        sys.get_int_max_str_digits(),
        sys.dont_write_bytecode,
        list(sys.argv),
        gc.isenabled(),
        gc.get_threshold(),
        sys.get_coroutine_origin_tracking_depth(),
        threading.stack_size(),
    )


def _restore_interpreter(before: tuple[Any, ...]) -> None:
    recursion, interval, digits, sys.dont_write_bytecode, sys.argv, gc_enabled, threshold, depth, stack = before
    sys.argv = list(sys.argv)
    sys.setrecursionlimit(recursion)
    sys.setswitchinterval(interval)
    sys.set_int_max_str_digits(digits)
    (gc.enable if gc_enabled else gc.disable)()
    gc.set_threshold(*threshold)
    sys.set_coroutine_origin_tracking_depth(depth)
    threading.stack_size(stack)


def _hooks() -> list[Any]:
    own = (sys.gettrace(), sys.getprofile(), threading.gettrace(), threading.getprofile())
    return [*(getattr(sys, name) for name in _HOOKS), threading.excepthook, *own]


def _restore_hooks(before: list[Any]) -> None:
    *hooks, threading.excepthook, trace, profile, of_threads, profile_of_threads = before
    for name, hook in zip(_HOOKS, hooks, strict=True):
        setattr(sys, name, hook)
    sys.settrace(trace)
    sys.setprofile(profile)
    threading.settrace(of_threads)
    threading.setprofile(profile_of_threads)


def _warnings() -> tuple[list[Any], Any]:
    return list(warnings.filters), warnings.showwarning


def _restore_warnings(before: tuple[list[Any], Any]) -> None:
    filters, warnings.showwarning = before
    warnings.resetwarnings()  # also forgets which warnings were shown
    warnings.filters[:] = filters  # type: ignore[index]


def _restore_builtins(before: dict[str, Any]) -> None:
    for name in vars(builtins).keys() - before.keys():
        delattr(builtins, name)
    vars(builtins).update(before)


def _wakeup_descriptor() -> int:
    descriptor = signal.set_wakeup_fd(-1)  # there is no other way to read it
    if descriptor != -1:
        signal.set_wakeup_fd(descriptor)
    return descriptor


def _restore_wakeup_descriptor(before: int) -> None:
    signal.set_wakeup_fd(before)


def _has_many_files() -> bool:
    """Return True if so many files are open that later runs may reach the limit. A new file gets the lowest free
    number, so one descriptor tells."""
    try:
        os.fstat(MOST_FILES)
    except OSError:
        return False
    return True


def _identity() -> tuple[Any, ...]:
    return os.getuid(), os.geteuid(), os.getgid(), os.getegid(), os.getpgid(0), os.getsid(0)


def reset_libraries() -> None:
    """Reset process-wide state of libraries, which a new process would have initialised. It isn't compared."""
    random.seed(int.from_bytes(os.urandom(16), "little"))  # seed() without an argument reads 2,500 bytes
    if (numpy := sys.modules.get("numpy.random")) is not None:
        with suppress(Exception):
            numpy.seed()
    if (tempfile := sys.modules.get("tempfile")) is not None:
        tempfile.tempdir = None  # type: ignore[attr-defined]
    if (asyncio := sys.modules.get("asyncio")) is not None:
        asyncio.set_event_loop_policy(None)
    if (class_loading := sys.modules.get("dispatcher.serialization.class_loading")) is not None:
        class_loading.forget_classes()


#: The state that is restored, in this order. Not the decimal context or context variables: a run gets a copy of them.
ASPECTS = (
    Aspect("traces and hooks", _hooks, _restore_hooks),
    Aspect(
        "timers",
        lambda: [signal.getitimer(timer) for timer in _TIMERS],
        lambda before: stop_timers(),
    ),
    Aspect("signal handlers", _handlers, _restore_handlers),
    Aspect("blocked signals", _blocked, None),
    Aspect("signal wakeup descriptor", _wakeup_descriptor, _restore_wakeup_descriptor),
    Aspect("working directory", os.getcwd, os.chdir),
    Aspect("variables", lambda: dict(_VARIABLES), _restore_variables),
    Aspect("umask", _umask, _restore_umask),
    Aspect("resource limits", _limits, _restore_limits),
    Aspect("import path", _import_path, _restore_import_path, keep=_keep_finders),
    Aspect("interpreter", _interpreter, _restore_interpreter),
    Aspect("builtins", lambda: dict(vars(builtins)), _restore_builtins),
    Aspect("warnings", _warnings, _restore_warnings),
    Aspect("locale", lambda: locale.setlocale(locale.LC_ALL), _restore_locale),
    Aspect("socket timeout", socket.getdefaulttimeout, socket.setdefaulttimeout),
    Aspect("priority and processors", _scheduling, _restore_scheduling),
    Aspect("standard input", _standard_input, _restore_standard_input),
    Aspect("registries", _registries, _restore_registries, keep=_keep_registries),
    Aspect("fault handler", faulthandler.is_enabled, _restore_fault_handler),
    Aspect("user, group and session", _identity, None),
    Aspect("open files", _has_many_files, None),
    Aspect("threads left", leftovers.threads, None),
    Aspect("processes left", leftovers.children, None),
)
