"""The interface of an executor, which computes the tasks of a flow.

Implemented by :mod:`dispatcher.executors.local` and :mod:`dispatcher.executors.dask`.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any, Protocol, TypeVar

T_co = TypeVar("T_co", covariant=True)


class Future(Protocol[T_co]):
    """A result that may not be there yet. The futures of ``concurrent.futures`` and ``distributed`` both fit."""

    def result(self, timeout: float | None = None) -> T_co:
        """Wait for the task; return its result or raise its exception."""

    def done(self) -> bool:
        """Return True if the task has ended."""


class Executor(ABC):
    """Computes tasks. Its arguments are JSON values, so that an environment can carry them."""

    @classmethod  # noqa: B027 - most need no check
    def check_modules(cls, modules: Collection[str]) -> None:
        """Check at a submit that the executor works beside the project's modules.

        Args:
            modules: top-level names of the modules in the flow's code bundle.

        Raises:
            InvalidInput: one has the name of a package that the executor needs; names both.
        """

    @contextlib.contextmanager
    def start(self) -> Iterator[None]:
        """Connect before a flow, and release everything after it.

        Raises:
            ExecutorUnavailable: the cluster can't be reached.
        """
        yield

    @abstractmethod
    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Compute one call, and return its future at once.

        The executor waits for futures among the arguments, also inside containers and objects. If one fails, this call
        fails with the same exception.

        Raises:
            InvalidInput: an argument can't travel, or can't be rebuilt with the results of its futures.
        """

    def map(self, fn: Callable[..., Any], /, *iterables: Iterable[Any], **constants: Any) -> list[Any]:
        """Submit one call per item of the iterables, up to the end of the shortest, and return the futures."""
        return [self.submit(fn, *items, **constants) for items in zip(*iterables, strict=False)]

    @abstractmethod
    def wait(self, value: Any) -> Any:
        """Return ``value`` with the results of its futures, and with its Dask collections computed.

        Futures and collections are also found inside containers and objects. A part without any is returned unchanged.

        Raises:
            InvalidInput: a part can't be rebuilt with the results of its futures.
        """
