"""Arguments of a task on their way to Dask: one pickle, with a slot for each future in it.

The futures travel beside the pickle, where Dask sees them, waits for them, and puts their results in their place; a
slot is filled as the pickle is opened. So a future is found wherever pickle looks: in keys of dicts, in sets, in
objects and arrays. Made by :mod:`dispatcher.executors.dask`, opened on Dask workers by
:mod:`dispatcher.executors.dask_worker`.
"""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Any, NamedTuple

from dispatcher.errors import InvalidInput

_results: ContextVar[Sequence[Any]] = ContextVar("dispatcher_results")


class Parcel(NamedTuple):
    """The answer of :func:`packed`: the pickle, and the cluster's futures in the order of its slots."""

    data: bytes
    futures: list[Any]


def packed(value: Any, *, subject: str, remote: Callable[[Any], bool], local: Callable[[Any], bool]) -> Parcel:
    """Pack a value for a Dask worker.

    Args:
        value: what travels.
        subject: its name in an error.
        remote: whether an object is a future of the cluster that the parcel goes to.
        local: whether it is another future; its result travels.

    Raises:
        InvalidInput: it can't be pickled; names the culprit.
        Exception: what the task of a local future raised.
    """
    from dispatcher.serialization import pack

    waiting: list[Any] = []
    places: dict[Any, int] = {}
    futures: list[Any] = []

    def reducer(obj: Any) -> tuple[Any, ...] | None:
        if remote(obj):
            if obj.key not in places:
                places[obj.key] = len(futures)
                futures.append(obj)
            return _slot, (places[obj.key],)
        if local(obj):
            if _has_result(obj):
                return itself, (obj.result(),)
            waiting.append(obj)
            return itself, (None,)
        return None

    while True:
        data = pack(value, subject=subject, error=InvalidInput, reducer=reducer)
        if not waiting:
            return Parcel(data, futures)
        while waiting:  # outside the pickler, which holds a lock of the whole process
            waiting.pop().result()


def opened(data: bytes, results: Sequence[Any]) -> Any:
    """The value, with ``results`` in its slots. This runs code: a Dask worker trusts its scheduler."""
    from dispatcher.serialization import unpack

    token = _results.set(results)
    try:
        return unpack(data)
    finally:
        _results.reset(token)


def _slot(place: int) -> Any:
    return _results.get()[place]


def itself(value: Any) -> Any:
    """For a value that is an argument by itself."""
    return value


def _has_result(future: Any) -> bool:
    if isinstance(future, concurrent.futures.Future):
        return future.done() and not future.cancelled() and future.exception() is None
    return bool(future.status == "finished")  # one of another Dask client
