"""The executor that computes tasks in this thread, at once. Used unless an environment names another."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable
from typing import Any

from dispatcher.executors.base import Executor
from dispatcher.executors.futures import compute_collections, dask_module, resolve_futures, resolve_lazily
from dispatcher.support import signatures


class LocalExecutor(Executor):
    """Runs each task in the calling thread, at once. Its futures are done when they are returned."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> concurrent.futures.Future[Any]:
        future: concurrent.futures.Future[Any] = concurrent.futures.Future()
        try:
            positional = resolve_futures(list(args), generator=resolve_lazily)
            named = resolve_futures(kwargs, generator=resolve_lazily)
            future.set_result(signatures.call(fn, *positional, **named))
        except Exception as error:
            future.set_exception(error)
        return future

    def wait(self, value: Any) -> Any:
        return compute_collections(resolve_futures(value), lambda collections: dask_module().compute(*collections))

    def __repr__(self) -> str:
        return "LocalExecutor()"
