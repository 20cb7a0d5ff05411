"""The executor in force, where tasks find it: environments put it there around a flow."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

from dispatcher.executors.base import Executor
from dispatcher.executors.local import LocalExecutor


class _Current:
    """The executor in force where a task is given; outside a flow one that runs it at once."""

    def __init__(self) -> None:
        self._executor: ContextVar[Executor | None] = ContextVar("dispatcher_executor", default=None)
        self._outside = LocalExecutor()

    def get(self) -> Executor:
        """The executor in force."""
        return self._executor.get() or self._outside

    @contextlib.contextmanager
    def using(self, executor: Executor) -> Iterator[None]:
        """Have ``executor`` in force."""
        token = self._executor.set(executor)
        try:
            yield
        finally:
            self._executor.reset(token)


#: The one object.
current = _Current()
