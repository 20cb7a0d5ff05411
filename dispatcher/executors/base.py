"""The contract of an executor: it computes the tasks of a flow. See :mod:`dispatcher.executors.local` and ``dask``."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol, TypeVar

T_co = TypeVar("T_co", covariant=True)


class Future(Protocol[T_co]):
    """A result to come, whatever the executor: ``concurrent.futures`` and ``distributed`` both fit."""

    def result(self, timeout: float | None = None) -> T_co:
        """The result, or what the task raised."""

    def done(self) -> bool:
        """Return True if it has ended."""


class Executor(ABC):
    """Computes tasks. Its arguments are JSON values, so that an environment can carry them."""

    @contextlib.contextmanager
    def start(self) -> Iterator[None]:
        """Stand around a flow: connect before, free everything after.

        Raises:
            ExecutorUnavailable: what it computes with can't be reached.
        """
        yield

    @abstractmethod
    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Compute one call; a future at once. Futures among the arguments, also inside containers and objects,
        are waited for by the executor; if one failed, so does this call, with the same exception.

        Raises:
            InvalidInput: an argument can't travel, or can't be made anew with the results of futures in it.
        """

    def map(self, fn: Callable[..., Any], /, *iterables: Iterable[Any], **constants: Any) -> list[Any]:
        """One :meth:`submit` per item of the iterables; the shortest ends it."""
        return [self.submit(fn, *items, **constants) for items in zip(*iterables, strict=False)]

    @abstractmethod
    def wait(self, value: Any) -> Any:
        """``value`` with every future in it, also inside containers and objects, replaced by its result, and every
        Dask collection computed. What holds none of them is given back as it is.

        Raises:
            InvalidInput: something can't be made anew with the results of futures in it.
        """
