"""Replacement of the futures and Dask collections inside a value by their results. Used by the executors."""

from __future__ import annotations

import concurrent.futures
import sys
from collections.abc import Callable, Iterable
from typing import Any

from dispatcher.errors import InvalidInput, MissingExtra
from dispatcher.executors.nested_values import replace_nested


def resolve_futures(value: Any, client: Any = None, generator: Callable[[Any], Any] | None = None) -> Any:
    """Return ``value`` with the results of its futures. Those of ``client`` are gathered in one call."""
    futures: dict[int, Any] = {}

    def collect(future: Any) -> Any:
        return futures.setdefault(id(future), future)

    replace_nested(value, is_future, collect)
    remote = [future for future in futures.values() if client is not None and getattr(future, "client", None) is client]
    results = dict(zip(map(id, remote), client.gather(remote), strict=True)) if remote else {}
    results |= {key: future.result() for key, future in futures.items() if key not in results}
    return replace_nested(value, is_future, lambda future: results[id(future)], generator=generator)


def resolve_lazily(generator: Any) -> Any:
    """Return a generator of the same items, whose futures are resolved as they come."""
    return (resolve_futures(item, generator=resolve_lazily) for item in generator)


def refuse_generator(generator: Any) -> Any:
    """Raise InvalidInput: the items of a generator can't be resolved once the flow has ended."""
    raise InvalidInput(f"generator {generator.__qualname__} can't be returned by a flow: return list(...) of it")


def compute_collections(value: Any, compute: Callable[[list[Any]], Iterable[Any]]) -> Any:
    """Return ``value`` with its Dask collections computed in one call."""
    is_collection = _imported("dask.base", "is_dask_collection")
    if is_collection is None:
        return value
    collections: dict[int, Any] = {}
    replace_nested(value, is_collection, lambda collection: collections.setdefault(id(collection), collection))
    if not collections:
        return value
    results = dict(zip(collections, compute(list(collections.values())), strict=True))
    return replace_nested(value, is_collection, lambda collection: results[id(collection)])


def is_future(value: Any) -> bool:
    """Return True for a future of ``concurrent.futures`` or of Dask."""
    if isinstance(value, concurrent.futures.Future):
        return True
    kind = _imported("distributed.client", "Future")
    return kind is not None and isinstance(value, kind)


def _imported(module: str, name: str) -> Any:
    """An object of Dask; None if Dask isn't imported. A flow's project may have a module of Dask's name."""
    return getattr(sys.modules.get(module), name, None)


def dask_module() -> Any:
    try:
        import dask
    except ImportError as error:
        raise missing_dask(error) from error
    return dask


def missing_dask(error: ImportError) -> MissingExtra:
    return MissingExtra(f"DaskExecutor needs Dask ({error}): pip install 'flow-dispatcher[dask]'")
