"""Dispatch Python flows to execution environments, with exactly one outcome per run.

These are the public names; all others may change. They are imported on first use, so that ``import dispatcher`` is
quick.
"""

from __future__ import annotations

from importlib import import_module

TYPE_CHECKING = False  # typing's, without importing it
if TYPE_CHECKING:
    from typing import Any

    from backends.dask_kubernetes.environment import DaskKubernetesEnvironment
    from backends.kubernetes.environment import KubernetesJobEnvironment
    from backends.local import LocalEnvironment
    from backends.remote import RemoteEnvironment
    from dispatcher.client.client import Dispatcher
    from dispatcher.client.run import Run
    from dispatcher.errors import (
        DispatcherError,
        DispatcherWarning,
        ExecutorUnavailable,
        FlowFailed,
        IdempotencyConflict,
        InvalidFlow,
        InvalidInput,
        InvalidParameters,
        InvalidSettings,
        Malformed,
        MissingExtra,
        NotFinished,
        RunCancelled,
        RunCrashed,
        RunError,
        RunTimedOut,
        SealBroken,
        ServerUnavailable,
        UnknownRun,
        UnreadableRun,
    )
    from dispatcher.executors.dask import DaskExecutor
    from dispatcher.executors.local import LocalExecutor
    from dispatcher.flows.flow import Flow, flow
    from dispatcher.flows.task import Task, gather, task
    from dispatcher.runs.context import context
    from dispatcher.runs.events import Event
    from dispatcher.runs.retry import Retry
    from dispatcher.runs.states import Cause, State
    from dispatcher.settings import Settings
    from dispatcher.storage.docker.storage import DockerStorage
    from dispatcher.storage.local import LocalStorage
    from dispatcher.storage.module import ModuleStorage
    from dispatcher.storage.redis import RedisStorage
    from dispatcher.storage.s3.storage import S3Storage

    __version__: str

__all__ = [
    "Cause",
    "DaskExecutor",
    "DaskKubernetesEnvironment",
    "Dispatcher",
    "DispatcherError",
    "DispatcherWarning",
    "DockerStorage",
    "Event",
    "ExecutorUnavailable",
    "Flow",
    "FlowFailed",
    "IdempotencyConflict",
    "InvalidFlow",
    "InvalidInput",
    "InvalidParameters",
    "InvalidSettings",
    "KubernetesJobEnvironment",
    "LocalEnvironment",
    "LocalExecutor",
    "LocalStorage",
    "Malformed",
    "MissingExtra",
    "ModuleStorage",
    "NotFinished",
    "RedisStorage",
    "RemoteEnvironment",
    "Retry",
    "Run",
    "RunCancelled",
    "RunCrashed",
    "RunError",
    "RunTimedOut",
    "S3Storage",
    "SealBroken",
    "ServerUnavailable",
    "Settings",
    "State",
    "Task",
    "UnknownRun",
    "UnreadableRun",
    "context",
    "flow",
    "gather",
    "task",
]

_HOMES = {
    "backends.dask_kubernetes.environment": ("DaskKubernetesEnvironment",),
    "backends.kubernetes.environment": ("KubernetesJobEnvironment",),
    "backends.local": ("LocalEnvironment",),
    "backends.remote": ("RemoteEnvironment",),
    "dispatcher.client.client": ("Dispatcher",),
    "dispatcher.runs.context": ("context",),
    "dispatcher.errors": (
        "DispatcherError",
        "DispatcherWarning",
        "ExecutorUnavailable",
        "FlowFailed",
        "IdempotencyConflict",
        "InvalidFlow",
        "InvalidInput",
        "InvalidParameters",
        "InvalidSettings",
        "Malformed",
        "MissingExtra",
        "NotFinished",
        "RunCancelled",
        "RunCrashed",
        "RunError",
        "RunTimedOut",
        "SealBroken",
        "ServerUnavailable",
        "UnknownRun",
        "UnreadableRun",
    ),
    "dispatcher.executors": ("DaskExecutor", "LocalExecutor"),
    "dispatcher.flows.flow": ("Flow", "flow"),
    "dispatcher.client.run": ("Run",),
    "dispatcher.runs.events": ("Event",),
    "dispatcher.runs.retry": ("Retry",),
    "dispatcher.runs.states": ("Cause", "State"),
    "dispatcher.settings": ("Settings",),
    "dispatcher.storage.docker.storage": ("DockerStorage",),
    "dispatcher.storage.local": ("LocalStorage",),
    "dispatcher.storage.module": ("ModuleStorage",),
    "dispatcher.storage.redis": ("RedisStorage",),
    "dispatcher.storage.s3.storage": ("S3Storage",),
    "dispatcher.flows.task": ("Task", "gather", "task"),
}
#: Packages that pages name in full, so that ``import dispatcher`` is enough for ``dispatcher.storage.from_json``.
_PACKAGES = frozenset({"environments", "errors", "executors", "runs", "storage", "testing"})
_HOME = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        value: Any = version("flow-dispatcher")
    elif name in _HOME:
        value = getattr(_imported(_HOME[name]), name)
    elif name in _PACKAGES:
        value = _imported(f"{__name__}.{name}")
    else:
        from dispatcher.support.prefect_names import remedy

        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(f"{message}: {text}" if (text := remedy(name)) else message)
    globals()[name] = value
    return value


def _imported(module: str) -> Any:
    try:
        return import_module(module)
    except Exception as error:
        from dispatcher.support.displaced_modules import displaced

        message = displaced(error)
        if not message and isinstance(error, ModuleNotFoundError):
            from dispatcher.registry import shadowed

            message = shadowed(error)
        if message:
            raise ImportError(f"{message} ({error})", name=module) from error
        if isinstance(error, AttributeError):  # Python would say only that there is no such name here
            raise ImportError(f"{module} can't be imported: {error}", name=module) from error
        raise


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})
