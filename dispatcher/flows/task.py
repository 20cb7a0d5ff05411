"""A task: a function whose calls a flow may give to the environment's executor. Called plainly it runs here."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Coroutine, Iterable
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, Protocol, TypeVar, cast, overload

from dispatcher.errors import InvalidInput
from dispatcher.support import signatures

if TYPE_CHECKING:
    from dispatcher.executors.base import Future

P = ParamSpec("P")
R = TypeVar("R")


class Task(Generic[P, R]):
    """A function that an executor can be given. Made by :func:`task`.

    Attributes:
        name: the task's name; the function's, unless told otherwise.
        fn: the function; ``async def`` runs under :func:`asyncio.run`.
    """

    name: str
    fn: Callable[P, R]
    __name__: str
    __wrapped__: Callable[P, R]

    def __init__(self, fn: Callable[P, R], *, name: str | None = None) -> None:
        _check_function(fn)
        functools.update_wrapper(self, fn)
        self.fn = fn
        self.name = name or fn.__name__

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run here."""
        return cast(R, signatures.call(self.fn, *args, **kwargs))

    def submit(self, /, *args: Any, **kwargs: Any) -> Future[R]:
        """Give one call to the flow's executor; outside a flow it runs here, at once.

        Futures among the arguments, also inside containers and objects, are waited for by the executor.

        Raises:
            InvalidInput: an argument can't travel, or can't be made anew with the results of futures in it.
        """
        from dispatcher.executors.current import current

        return cast("Future[R]", current.get().submit(self, *args, **kwargs))

    def map(self, /, *iterables: Iterable[Any], **constants: Any) -> list[Future[R]]:
        """Give one call per item to the flow's executor, as the builtin ``map`` would make them: the shortest iterable
        ends it. ``constants`` go to every call."""
        from dispatcher.executors.current import current

        if not iterables:
            raise InvalidInput(f"task {self.name!r}: map needs at least one iterable; submit makes one call")
        return current.get().map(self, *iterables, **constants)

    def __repr__(self) -> str:
        return f"<Task {self.name!r}: {signatures.shown_name(self.fn)}{signatures.shown(inspect.signature(self.fn))}>"

    def __reduce_ex__(self, protocol: Any) -> Any:
        # In its module the function's name means this task, so pickle would never find the function by it.
        return signatures.by_reference(self) or super().__reduce_ex__(protocol)


class _Decorator(Protocol):
    @overload
    def __call__(self, fn: Callable[P, Coroutine[Any, Any, R]], /) -> Task[P, R]: ...
    @overload
    def __call__(self, fn: Callable[P, R], /) -> Task[P, R]: ...


@overload
def task(fn: Callable[P, Coroutine[Any, Any, R]], /) -> Task[P, R]: ...
@overload
def task(fn: Callable[P, R], /) -> Task[P, R]: ...
@overload
def task(*, name: str | None = None) -> _Decorator: ...
def task(fn: Callable[..., Any] | None = None, /, *, name: str | None = None) -> Any:
    """Make a task of a function: ``@task``, or ``@task(name=...)``.

    Raises:
        InvalidInput: not a function, or a generator.
    """
    if fn is None:
        return lambda function: Task(function, name=name)
    return Task(fn, name=name)


T = TypeVar("T")


@overload
def gather(futures: Iterable[Future[T]]) -> list[T]: ...
@overload
def gather(futures: Any) -> Any: ...
def gather(futures: Any) -> Any:
    """Wait for futures and give their results in the same shape: one future, or containers and objects that hold
    some; another iterable gives a list.

    Raises:
        Exception: what the first of them that failed raised.
    """
    from dispatcher.executors.current import current

    known = isinstance(futures, list | tuple | dict) or not isinstance(futures, Iterable)
    return current.get().wait(futures if known else list(futures))


def _check_function(fn: Any) -> None:
    shown = signatures.shown_name(fn)
    if not inspect.isfunction(fn):
        raise InvalidInput(f"{shown} isn't a function: @task stands on one made by def, async def or lambda")
    if inspect.isgeneratorfunction(fn) or inspect.isasyncgenfunction(fn):
        raise InvalidInput(f"{shown} is a generator: a task returns its result; return list(...) instead of yielding")
