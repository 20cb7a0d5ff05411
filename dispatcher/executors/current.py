"""The current executor, set while a flow runs (:meth:`dispatcher.flows.flow.Flow.run`) and used by its tasks."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

from dispatcher.executors.base import Executor
from dispatcher.executors.local import LocalExecutor


class _Current:
    """The current executor of a context; outside a flow a :class:`LocalExecutor`."""

    def __init__(self) -> None:
        self._executor: ContextVar[Executor | None] = ContextVar("dispatcher_executor", default=None)
        self._default = LocalExecutor()

    def get(self) -> Executor:
        """Return the current executor."""
        return self._executor.get() or self._default

    @contextlib.contextmanager
    def using(self, executor: Executor) -> Iterator[None]:
        """Make ``executor`` the current one."""
        token = self._executor.set(executor)
        try:
            yield
        finally:
            self._executor.reset(token)


#: The only instance.
current = _Current()


class _ClusterExecutor:
    """The executor of the temporary cluster that the runner has opened around a run; without one the default."""

    def __init__(self) -> None:
        self._executor: ContextVar[Executor | None] = ContextVar("dispatcher_cluster_executor", default=None)

    def get(self) -> Executor:
        """Return it, for a flow whose environment asks for a cluster."""
        return self._executor.get() or LocalExecutor()

    @contextlib.contextmanager
    def using(self, executor: Executor) -> Iterator[None]:
        """Make ``executor`` the one of flows that are loaded in this context."""
        token = self._executor.set(executor)
        try:
            yield
        finally:
            self._executor.reset(token)


#: The only instance.
cluster_executor = _ClusterExecutor()
