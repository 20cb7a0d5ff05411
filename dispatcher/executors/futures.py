"""Futures and Dask collections inside values, replaced by what they come to. For the executors."""

from __future__ import annotations

import concurrent.futures
import sys
from collections.abc import Callable, Iterable
from typing import Any

from dispatcher.errors import InvalidInput, MissingExtra
from dispatcher.executors.nested_values import replaced


def resolved(value: Any, client: Any = None, generator: Callable[[Any], Any] | None = None) -> Any:
    """``value`` with the results of its futures; those of ``client`` are gathered together."""
    found: dict[int, Any] = {}

    def note(one: Any) -> Any:
        return found.setdefault(id(one), one)

    replaced(value, is_future, note)
    remote = [one for one in found.values() if client is not None and getattr(one, "client", None) is client]
    answers = dict(zip(map(id, remote), client.gather(remote), strict=True)) if remote else {}
    answers |= {place: one.result() for place, one in found.items() if place not in answers}
    return replaced(value, is_future, lambda one: answers[id(one)], generator=generator)


def lazily(generator: Any) -> Any:
    """A generator goes on being one: its futures are asked for as they come."""
    return (resolved(one, generator=lazily) for one in generator)


def no_generator(generator: Any) -> Any:
    raise InvalidInput(f"generator {generator.__qualname__} can't be returned by a flow: return list(...) of it")


def computed(value: Any, compute: Callable[[list[Any]], Iterable[Any]]) -> Any:
    """``value`` with its Dask collections computed together."""
    if "dask" not in sys.modules:
        return value
    is_collection = dask_module().is_dask_collection
    found: dict[int, Any] = {}
    replaced(value, is_collection, lambda one: found.setdefault(id(one), one))
    if not found:
        return value
    answers = dict(zip(found, compute(list(found.values())), strict=True))
    return replaced(value, is_collection, lambda one: answers[id(one)])


def is_local(value: Any) -> bool:
    return isinstance(value, concurrent.futures.Future)


def is_future(value: Any) -> bool:
    if is_local(value):
        return True
    distributed = sys.modules.get("distributed")
    return distributed is not None and isinstance(value, distributed.Future)


def dask_module() -> Any:
    try:
        import dask
    except ImportError as error:
        raise missing(error) from error
    return dask


def missing(error: ImportError) -> MissingExtra:
    return MissingExtra(f"DaskExecutor needs Dask ({error}): pip install 'flow-dispatcher[dask]'")
