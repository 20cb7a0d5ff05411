"""The backend of flows that run in a pool process of the worker, their tasks where an executor computes them."""

from __future__ import annotations

import importlib.util
import inspect
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, cast

from backends.base import InProcess
from dispatcher.environments.base import Environment
from dispatcher.environments.callbacks import Callback
from dispatcher.errors import InvalidInput
from dispatcher.executors.base import Executor
from dispatcher.runs.routing import REMOTE
from dispatcher.support import prefect_names, signatures

_EXECUTOR = "RemoteEnvironment.executor"


class RemoteEnvironment(Environment):
    """Runs the flow in this process, its tasks by the executor that it names.

    Args:
        executor: an executor class or its import string, such as ``"dispatcher.executors.DaskExecutor"``; by default
            that of the settings, where the flow runs.
        executor_kwargs: its arguments, as JSON values.
        labels: only a worker that serves all of them takes the run.
        on_start: called without argument before the flow.
        on_exit: called without argument after the flow, however it ended.

    Raises:
        InvalidInput: an argument is wrong; names it.
    """

    backend: ClassVar[str] = REMOTE
    added: ClassVar[tuple[str, ...]] = ("executor", "executor_kwargs")

    executor: type[Executor] | Callback | str | None
    _kwargs: str

    def __init__(
        self,
        executor: type[Executor] | Callback | str | None = None,
        executor_kwargs: Mapping[str, Any] | None = None,
        labels: Iterable[str] | None = None,
        on_start: Callable[[], Any] | None = None,
        on_exit: Callable[[], Any] | None = None,
    ) -> None:
        super().__init__(labels=labels, on_start=on_start, on_exit=on_exit)
        self._set(executor=_named(executor), _kwargs=_as_json(executor_kwargs))

    @property
    def executor_kwargs(self) -> dict[str, Any]:
        """The executor's arguments; a copy."""
        return cast(dict[str, Any], json.loads(self._kwargs))

    def check(self) -> None:
        super().check()
        if isinstance(self.executor, str) and _is_here(self.executor):
            kind = _class(self.executor)
            if kind.__module__ == Executor.__module__:  # ours: making one does nothing yet
                self.make_executor()

    def make_executor(self) -> Executor:
        name: Any = self.executor
        defaults: dict[str, Any] = {}
        if name is None:
            from dispatcher.settings import Settings

            settings = Settings.load().defaults
            name, defaults = settings.executor, settings.executor_kwargs
        executor = _class(name)
        try:
            return executor(**{**defaults, **self.executor_kwargs})
        except TypeError as error:
            raise InvalidInput(
                f"RemoteEnvironment.executor_kwargs: {signatures.shown_name(executor)}: {error}"
            ) from error

    def _added_json(self) -> dict[str, Any]:
        data: dict[str, Any] = {"executor_kwargs": self.executor_kwargs}
        if self.executor is not None:
            if isinstance(self.executor, str):
                data["executor"] = self.executor
            else:
                data["executor"] = Callback.of(self.executor, subject=_EXECUTOR).to_json()
        return data

    @classmethod
    def _from_added(cls, data: Mapping[str, Any]) -> RemoteEnvironment:
        executor = data.get("executor")
        if isinstance(executor, Mapping):
            data = {**data, "executor": Callback.from_json(executor, subject=_EXECUTOR)}
        return cls(**data)


class RemoteBackend(InProcess):
    """The backend of :class:`RemoteEnvironment`."""

    name: ClassVar[str] = REMOTE


def _named(executor: Any) -> Any:
    """Return an executor's import string if others can import it too; else the class."""
    if executor is None or isinstance(executor, Callback):
        return executor
    if isinstance(executor, str):
        module = executor.partition(":")[0] if ":" in executor else executor.rpartition(".")[0]
        if successor := prefect_names.executor(executor):
            raise InvalidInput(f"{_EXECUTOR}: {executor!r} is Prefect's; write {successor!r}")
        if not module or module == "__main__" or not all(part.isidentifier() for part in module.split(".")):
            raise InvalidInput(f"{_EXECUTOR}: must be a class or 'package.module.Class', got {executor!r}")
        return executor
    kind = _subclass(executor)
    ref = Callback.of(kind, subject=_EXECUTOR).ref if signatures.importable_name(kind) else None
    return ref.replace(":", ".") if ref else kind


def _is_here(executor: str) -> bool:
    """Return True unless an executor's package is installed only where flows run, and is checked there."""
    return importlib.util.find_spec(executor.partition(":")[0].partition(".")[0]) is not None


def _class(executor: Any) -> type[Executor]:
    if isinstance(executor, str):
        return _subclass(signatures.resolve(executor, subject=_EXECUTOR), shown=repr(executor))
    return _subclass(executor.function() if isinstance(executor, Callback) else executor)


def _subclass(executor: Any, *, shown: str = "") -> type[Executor]:
    if not inspect.isclass(executor) or not issubclass(executor, Executor):
        raise InvalidInput(f"{_EXECUTOR}: {shown or repr(executor)} is no subclass of dispatcher.executors.Executor")
    return executor


def _as_json(kwargs: Any) -> str:
    if kwargs is None:
        return "{}"
    argument = "RemoteEnvironment.executor_kwargs"
    if not isinstance(kwargs, Mapping):
        raise InvalidInput(f"{argument}: must map names to JSON values, got {kwargs!r}")
    try:
        text = json.dumps(dict(kwargs), allow_nan=False, sort_keys=True)
    except RecursionError:
        raise InvalidInput(f"{argument}: must be JSON values, not nested so deep") from None
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"{argument}: must be JSON values: {error}; got {kwargs!r}") from None
    if json.loads(text) != kwargs:
        raise InvalidInput(f"{argument}: JSON gives them back changed ({text}): use lists, and strings as keys")
    return text
