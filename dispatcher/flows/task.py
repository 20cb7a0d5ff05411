"""A task: a function whose calls a flow can submit to its executor. Called plainly, it runs here as a function."""

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
    """A function whose calls can be submitted to an executor. Made by :func:`task`.

    Attributes:
        name: the task's name; by default the function's.
        fn: the function; an ``async def`` one runs under :func:`asyncio.run`.
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
        """Run the function here."""
        return cast(R, signatures.call(self.fn, *args, **kwargs))

    def submit(self, /, *args: Any, **kwargs: Any) -> Future[R]:
        """Submit one call to the flow's executor, and return its future. Outside a flow the call runs here, at once.

        The executor waits for futures among the arguments, also inside containers and objects.

        Raises:
            InvalidInput: an argument can't travel, or can't be rebuilt with the results of its futures.
        """
        from dispatcher.executors.current import current

        return cast("Future[R]", current.get().submit(self, *args, **kwargs))

    def map(self, /, *iterables: Iterable[Any], **constants: Any) -> list[Future[R]]:
        """Submit one call per item to the flow's executor, and return the futures.

        Several iterables are combined as in the builtin ``map``, up to the end of the shortest. ``constants`` are
        passed to every call.

        Raises:
            InvalidInput: there is no iterable, or an argument can't travel.
        """
        from dispatcher.executors.current import current

        if not iterables:
            raise InvalidInput(f"task {self.name!r}: map needs at least one iterable; submit makes one call")
        return current.get().map(self, *iterables, **constants)

    def __repr__(self) -> str:
        return f"<Task {self.name!r}: {signatures.shown_name(self.fn)}{signatures.shown(inspect.signature(self.fn))}>"

    def __reduce_ex__(self, protocol: Any) -> Any:
        # In its module the function's name means this task, so pickle would never find the function by it.
        return signatures.by_reference(self) or super().__reduce_ex__(protocol)


class _TaskDecorator(Protocol):
    @overload
    def __call__(self, fn: Callable[P, Coroutine[Any, Any, R]], /) -> Task[P, R]: ...
    @overload
    def __call__(self, fn: Callable[P, R], /) -> Task[P, R]: ...


@overload
def task(fn: Callable[P, Coroutine[Any, Any, R]], /) -> Task[P, R]: ...
@overload
def task(fn: Callable[P, R], /) -> Task[P, R]: ...
@overload
def task(*, name: str | None = None) -> _TaskDecorator: ...
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
    """Wait for futures, and return their results in the same shape.

    Args:
        futures: one future, or a list, tuple, dict or object that holds some. Another iterable gives a list.

    Raises:
        Exception: the exception of the first future that failed.
    """
    from dispatcher.executors.current import current
    from dispatcher.executors.nested_values import NotReplaceable

    keeps_shape = isinstance(futures, list | tuple | dict) or not isinstance(futures, Iterable)
    try:
        return current.get().wait(futures if keeps_shape else list(futures))
    except NotReplaceable as error:
        raise InvalidInput(f"gather: {error}") from error


def _check_function(fn: Any) -> None:
    shown = signatures.shown_name(fn)
    if not inspect.isfunction(fn):
        raise InvalidInput(f"{shown} isn't a function: @task can decorate only those made by def, async def or lambda")
    if inspect.isgeneratorfunction(fn) or inspect.isasyncgenfunction(fn):
        raise InvalidInput(f"{shown} is a generator: a task returns its result; return list(...) instead of yielding")
