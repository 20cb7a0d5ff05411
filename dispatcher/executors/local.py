"""The executor that computes tasks in this thread, at once. Used unless an environment names another."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable
from functools import partial
from typing import Any

from dispatcher.errors import InvalidInput
from dispatcher.executors.base import Executor
from dispatcher.executors.futures import compute_collections, dask_module, resolve_futures, resolve_lazily
from dispatcher.executors.nested_values import NotReplaceable
from dispatcher.support import signatures


class LocalExecutor(Executor):
    """Runs each task in the calling thread, at once. Its futures are done when they are returned."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> concurrent.futures.Future[Any]:
        future: concurrent.futures.Future[Any] = concurrent.futures.Future()
        try:
            positional, named = _resolved(fn, args, kwargs)
            future.set_result(signatures.call(fn, *positional, **named))
        except Exception as error:
            future.set_exception(error)
        return future

    def wait(self, value: Any) -> Any:
        return compute_collections(resolve_futures(value), lambda collections: dask_module().compute(*collections))

    def __repr__(self) -> str:
        return "LocalExecutor()"


def _resolved(
    fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[list[Any], dict[str, Any]]:
    """Return a call's arguments with the results of the futures in them.

    Raises:
        InvalidInput: an argument can't be rebuilt with them; names it.
        Exception: of a future.
    """
    resolve = partial(resolve_futures, generator=resolve_lazily)
    try:
        return resolve(list(args)), resolve(kwargs)
    except NotReplaceable:
        arguments: list[tuple[int | str, Any]] = [*enumerate(args), *kwargs.items()]
        for key, argument in arguments:  # resolve each, to name the one that fails
            try:
                resolve(argument)
            except NotReplaceable as error:
                raise InvalidInput(f"{signatures.argument_name(fn, key, argument)}: {error}") from error
        raise
