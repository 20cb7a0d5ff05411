"""A flow: a named Python function with parameters. ``@flow`` makes one; called plainly it runs here, as a function."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Coroutine, Iterable, Mapping
from pathlib import Path
from types import FunctionType
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, Protocol, TypeVar, cast, overload

from dispatcher.errors import InvalidFlow, InvalidInput
from dispatcher.runs.options import Options, Seconds
from dispatcher.runs.retry import Retry
from dispatcher.support import signatures

if TYPE_CHECKING:
    import os

    from dispatcher.environments.base import Environment
    from dispatcher.executors.base import Executor
    from dispatcher.storage.base import Storage

P = ParamSpec("P")
R = TypeVar("R")


class Flow(Generic[P, R]):
    """A function that can be dispatched. Made by :func:`flow`.

    Attributes:
        name: the flow's name; the function's, unless told otherwise.
        fn: the function.
        options: the run options given at decoration; those of a submit go before them.
        environment: where it runs unless the submit says otherwise.
        storage: where its code is kept unless the submit says otherwise.
    """

    name: str
    fn: Callable[P, R]
    __name__: str
    __wrapped__: Callable[P, R]
    options: Options
    environment: Environment | None
    storage: Storage | None

    def __init__(
        self,
        fn: Callable[P, R],
        options: Options | None = None,
        *,
        environment: Environment | None = None,
        storage: Storage | None = None,
    ) -> None:
        _check_function(fn)
        options = options or Options()
        functools.update_wrapper(self, fn)
        self.fn = fn
        self.name = (options if options.name else Options.of(name=fn.__name__)).name or ""
        self.options = options
        self.environment = environment
        self.storage = storage

    @property
    def signature(self) -> inspect.Signature:
        """The function's signature."""
        return inspect.signature(self.fn)

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run here, as a function; ``async def`` under :func:`asyncio.run`."""
        return cast(R, signatures.call(self.fn, *args, **kwargs))

    def bind(self, parameters: Mapping[str, Any] | None) -> dict[str, Any]:
        """Check parameters against the signature; defaults are not filled.

        Raises:
            InvalidParameters: names each unknown and each missing one, and shows the signature.
        """
        return signatures.bind(cast(FunctionType, self.fn), parameters, subject=f"flow {self.name!r}")

    def run(self, parameters: Mapping[str, Any], executor: Executor) -> Any:
        """Run here with ``executor`` started around it: its tasks go there.

        Returns:
            What the function returns, its futures gathered, its Dask collections computed.
        """
        from dispatcher.executors.current import current
        from dispatcher.runs.context import users_code

        function = cast(FunctionType, self.fn)
        shape = signatures.shape_of(function)
        bound = signatures.bind(function, parameters, subject=f"flow {self.name!r}", shape=shape)
        args, kwargs = signatures.spread(shape, bound)
        with executor.start(), current.using(executor), users_code():
            return executor.wait(signatures.call(self.fn, *args, **kwargs))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the flow to a file, whole or not at all.

        Raises:
            InvalidFlow: it can't travel; names the object and where it is used.
            OSError: the file can't be written.
        """
        from dispatcher.serialization import pack
        from dispatcher.support.atomic_files import write_atomically

        write_atomically(Path(path), pack(self, what=f"flow {self.name!r}"))

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Flow[..., Any]:
        """Read what :meth:`save` wrote. This runs code from the file: open only files that you trust.

        Raises:
            InvalidFlow: the file holds no flow.
            Permanent: another Python minor version, or a package that is missing here.
            OSError: the file can't be read.
        """
        return opened(Path(path).read_bytes(), what=f"file {path}")

    def __repr__(self) -> str:
        return f"<Flow {self.name!r}: {signatures.shown_name(self.fn)}{signatures.shown(self.signature)}>"

    def __reduce_ex__(self, protocol: Any) -> Any:
        # In its module the function's name means this flow, so pickle would never find the function by it.
        return signatures.by_reference(self) or super().__reduce_ex__(protocol)


class _Decorator(Protocol):
    @overload
    def __call__(self, fn: Callable[P, Coroutine[Any, Any, R]], /) -> Flow[P, R]: ...
    @overload
    def __call__(self, fn: Callable[P, R], /) -> Flow[P, R]: ...


@overload
def flow(fn: Callable[P, Coroutine[Any, Any, R]], /) -> Flow[P, R]: ...
@overload
def flow(fn: Callable[P, R], /) -> Flow[P, R]: ...
@overload
def flow(
    *,
    name: str | None = None,
    environment: Environment | None = None,
    storage: Storage | None = None,
    tags: Iterable[str] | None = None,
    timeout: Seconds | None = None,
    start_within: Seconds | None = None,
    result_ttl: Seconds | None = None,
    retries: int | Retry | None = None,
) -> _Decorator: ...
def flow(
    fn: Callable[..., Any] | None = None,
    /,
    *,
    environment: Environment | None = None,
    storage: Storage | None = None,
    **options: Any,
) -> Any:
    """Make a flow of a function: ``@flow``, or ``@flow(...)`` with run options.

    Args:
        fn: the function; ``async def`` runs under :func:`asyncio.run`.
        environment: where it runs unless the submit says otherwise.
        storage: where its code is kept unless the submit says otherwise.
        options: ``name``, ``tags``, ``timeout`` and ``start_within`` and ``result_ttl`` (seconds or a timedelta),
            ``retries`` (an int or a :class:`Retry`): defaults of its runs.

    Raises:
        InvalidFlow: not a function, or one that can't be a flow: a generator, a class, a method.
        InvalidInput: an option has a wrong value.
    """
    checked = _options(options)
    if fn is None:
        return lambda function: Flow(function, checked, environment=environment, storage=storage)
    return Flow(fn, checked, environment=environment, storage=storage)


def opened(data: bytes, *, what: str) -> Flow[..., Any]:
    """The flow in sealed bytes that its caller has verified.

    Raises:
        InvalidFlow: there is no flow in them.
    """
    from dispatcher.serialization import unpack

    found = unpack(data)
    if not isinstance(found, Flow):
        raise InvalidFlow(f"{what} holds no flow but {type(found).__name__}")
    return found


def _options(given: Mapping[str, Any]) -> Options:
    try:
        return Options.of(**given)
    except TypeError as error:
        known = "name, environment, storage, tags, timeout, start_within, result_ttl, retries"
        raise InvalidInput(f"@flow: {error}; its options are {known}") from None


def _check_function(fn: Any) -> None:
    shown = signatures.shown_name(fn)
    if isinstance(fn, Flow):
        raise InvalidFlow(f"{fn.name!r} is a flow already")
    if inspect.isclass(fn):
        raise InvalidFlow(f"{shown} is a class: @flow stands on a function")
    if isinstance(fn, staticmethod | classmethod) or inspect.ismethod(fn):
        raise InvalidFlow(f"{shown} is a method: @flow stands on a function")
    if not inspect.isfunction(fn):
        raise InvalidFlow(f"{shown} isn't a function: @flow stands on one made by def, async def or lambda")
    if inspect.isgeneratorfunction(fn) or inspect.isasyncgenfunction(fn):
        raise InvalidFlow(f"{shown} is a generator: a flow returns its result; return list(...) instead of yielding")
    holder = fn.__qualname__.rpartition(".")[0]
    if (
        holder
        and not holder.endswith("<locals>")
        and next(iter(inspect.signature(fn).parameters), "") in {"self", "cls"}
    ):
        raise InvalidFlow(f"{shown} is a method: @flow stands on a function")
