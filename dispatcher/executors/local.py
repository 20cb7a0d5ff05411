"""The executor that computes tasks here, at once."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable
from typing import Any

from dispatcher.executors.base import Executor
from dispatcher.executors.futures import computed, dask_module, lazily, resolved
from dispatcher.support import signatures


class LocalExecutor(Executor):
    """Runs each task here, at once, one after the other. Its futures are done when they are given."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> concurrent.futures.Future[Any]:
        future: concurrent.futures.Future[Any] = concurrent.futures.Future()
        try:
            future.set_result(
                signatures.call(fn, *resolved(list(args), generator=lazily), **resolved(kwargs, generator=lazily))
            )
        except Exception as error:
            future.set_exception(error)
        return future

    def wait(self, value: Any) -> Any:
        return computed(resolved(value), lambda collections: dask_module().compute(*collections))

    def __repr__(self) -> str:
        return "LocalExecutor()"
