"""Names of Prefect 0.10 that don't exist here, and what takes their place. See ``docs/from-prefect-0.md``."""

from __future__ import annotations

#: Modules that held Prefect's executors.
_EXECUTOR_MODULES = ("prefect.engine.executors", "prefect.executors")

_EXECUTORS = {
    "LocalExecutor": "dispatcher.executors.LocalExecutor",
    "SynchronousExecutor": "dispatcher.executors.LocalExecutor",
    "DaskExecutor": "dispatcher.executors.DaskExecutor",
    "LocalDaskExecutor": "dispatcher.executors.DaskExecutor",
}

_CLASSES = {
    "Azure": "no storage of ours keeps flows in Azure; RedisStorage needs no storage service",
    "Bytes": "use RedisStorage",
    "DaskCloudProviderEnvironment": "use RemoteEnvironment(executor='dispatcher.executors.DaskExecutor', "
    "executor_kwargs={'cluster_class': …})",
    "Docker": "use DockerStorage",
    "GCS": "no storage of ours keeps flows in a bucket of Google's; RedisStorage needs no storage service",
    "Local": "use LocalStorage",
    "Memory": "use Dispatcher('memory://')",
    "Parameter": "the parameters of a flow are those of its function",
    "RemoteDaskEnvironment": "use RemoteEnvironment(executor='dispatcher.executors.DaskExecutor', "
    "executor_kwargs={'address': …})",
    "S3": "use S3Storage",
}

_ATTRIBUTES = {
    "dependencies": "a missing package is an error that names its extra",
    "identifier_label": "each attempt has one of its own; `dispatcher render` shows it",
    "logger": "use context.logger in a flow, or logging.getLogger",
    "serialize": "use to_json()",
}


def executor(name: str) -> str | None:
    """Return the import string of the executor that takes the place of Prefect's; None if it isn't one of those."""
    module, _, kind = name.replace(":", ".").rpartition(".")
    if not module.startswith(_EXECUTOR_MODULES):
        return None
    return _EXECUTORS.get(kind, "dispatcher.executors.LocalExecutor")


def remedy(name: str) -> str:
    """Return what takes the place of a class of Prefect's; empty if it isn't one of those."""
    return _CLASSES.get(name, "")


def attribute_remedy(name: str) -> str:
    """Return what takes the place of an attribute of Prefect's environments; empty if it isn't one of those."""
    return _ATTRIBUTES.get(name, "")
