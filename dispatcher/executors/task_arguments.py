"""Packing of a task's arguments for Dask: one pickle, with a slot for each future in it.

The futures travel beside the pickle, where Dask waits for them and replaces them by their results. The slots are filled
while the pickle is opened. So futures are found wherever pickle looks: in keys of dicts, in sets, in objects and
arrays. Packed by :mod:`dispatcher.executors.dask_session`, unpacked on Dask workers by
:mod:`dispatcher.executors.dask_worker`.
"""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Any, NamedTuple

from dispatcher.errors import InvalidInput

_results: ContextVar[Sequence[Any]] = ContextVar("dispatcher_results")


class PackedValue(NamedTuple):
    """A pickle, and the cluster's futures in the order of its slots."""

    data: bytes
    futures: list[Any]


def pack_value(value: Any, *, subject: str, remote: Callable[[Any], bool], local: Callable[[Any], bool]) -> PackedValue:
    """Pack a value for a Dask worker.

    Args:
        value: the value.
        subject: the value's name in an error.
        remote: returns True for futures of the cluster that the value is sent to.
        local: returns True for other futures, whose results are sent.

    Raises:
        InvalidInput: the value can't be pickled; names the part that can't.
        Exception: the exception of a local future's task.
    """
    from dispatcher.serialization import pack

    unfinished: list[Any] = []
    slots: dict[Any, int] = {}
    futures: list[Any] = []

    def reducer(obj: Any) -> tuple[Any, ...] | None:
        if remote(obj):
            if obj.key not in slots:
                slots[obj.key] = len(futures)
                futures.append(obj)
            return _slot, (slots[obj.key],)
        if local(obj):
            if _has_result(obj):
                return identity, (obj.result(),)
            unfinished.append(obj)
            return identity, (None,)
        return None

    while True:
        data = pack(value, subject=subject, error=InvalidInput, reducer=reducer)
        if not unfinished:
            return PackedValue(data, futures)
        while unfinished:  # outside the pickler, which holds a lock of this process
            unfinished.pop().result()


def unpack_value(data: bytes, results: Sequence[Any]) -> Any:
    """Return the value, with ``results`` in its slots. This runs the code in it: a Dask worker trusts its scheduler."""
    from dispatcher.serialization import unpack

    token = _results.set(results)
    try:
        return unpack(data)
    finally:
        _results.reset(token)


def _slot(index: int) -> Any:
    return _results.get()[index]


def identity(value: Any) -> Any:
    """Return ``value``. Called by pickles and by Dask."""
    return value


def _has_result(future: Any) -> bool:
    if isinstance(future, concurrent.futures.Future):
        return future.done() and not future.cancelled() and future.exception() is None
    return bool(future.status == "finished")  # a future of another Dask client
