"""A flow: a named Python function with parameters, made by ``@flow``. Called plainly, it runs here as a function.

A submit checks where the flow may run and where its code is stored (:mod:`dispatcher.submission.request`).
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Coroutine, Iterable, Mapping
from functools import partial
from pathlib import Path
from types import FunctionType
from typing import TYPE_CHECKING, Any, ClassVar, Generic, ParamSpec, Protocol, TypeVar, cast, overload

from dispatcher.code.patterns import NO_PATTERNS, Patterns, using_patterns
from dispatcher.errors import InvalidFlow, InvalidInput
from dispatcher.flows.main_module import main_module_of
from dispatcher.runs.options import Options
from dispatcher.runs.retry import Retry
from dispatcher.support import signatures
from dispatcher.support.durations import Seconds
from dispatcher.support.escaping import shown
from dispatcher.support.similar_names import unknown_names

if TYPE_CHECKING:
    import os

    from dispatcher.executors.base import Executor
    from dispatcher.flows.bound_flow import BoundFlow

P = ParamSpec("P")
R = TypeVar("R")


#: Names of the decorator's options.
_OPTIONS = (
    "name", "environment", "storage", "tags", "timeout", "start_within", "result_ttl", "retries", "include", "exclude"
)  # fmt: skip


class DefaultEnvironment(Protocol):
    """The environment that a flow carries: a :class:`~dispatcher.environments.Environment`, of a layer above.

    A flow only carries it; a submit checks it.
    """

    backend: ClassVar[str]

    def to_json(self) -> dict[str, Any]: ...


class DefaultStorage(Protocol):
    """The storage that a flow carries: a :class:`~dispatcher.storage.base.Storage`, likewise."""

    def add_flow(self, flow: Flow[..., Any]) -> str: ...

    def get_flow(self, location: str) -> Flow[..., Any]: ...


class Flow(Generic[P, R]):
    """A function that can be dispatched. Made by :func:`flow`.

    Attributes:
        name: the flow's name; by default the function's.
        fn: the function.
        options: the run options of the decorator. Those of a submit override them.
        environment: the default environment of its runs, or its name.
        storage: the default storage of its code.
        patterns: files that are added to its code bundle, or taken away.
    """

    name: str
    fn: Callable[P, R]
    __name__: str
    __wrapped__: Callable[P, R]
    options: Options
    environment: DefaultEnvironment | str | None
    storage: DefaultStorage | None
    patterns: Patterns

    def __init__(
        self,
        fn: Callable[P, R],
        options: Options | None = None,
        *,
        environment: DefaultEnvironment | str | None = None,
        storage: DefaultStorage | None = None,
        patterns: Patterns = NO_PATTERNS,
    ) -> None:
        _check_function(fn)
        options = options or Options()
        functools.update_wrapper(self, fn)
        self.fn = fn
        self.name = (options if options.name else Options.of(name=fn.__name__)).name or ""
        self.options = options
        self.environment = environment
        self.storage = storage
        self.patterns = patterns

    @property
    def signature(self) -> inspect.Signature:
        """The function's signature."""
        return inspect.signature(self.fn)

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the function here; an ``async def`` one under :func:`asyncio.run`."""
        return cast(R, signatures.call(self.fn, *args, **kwargs))

    def bind(self, /, *args: P.args, **kwargs: P.kwargs) -> BoundFlow[R]:
        """Return the flow with these arguments, for ``submit`` and ``map``. It doesn't run.

        Raises:
            InvalidParameters: they don't fit the signature; shows it.
        """
        from dispatcher.flows.bound_flow import BoundFlow

        function = cast(FunctionType, self.fn)
        return BoundFlow(self, signatures.bind_call(function, args, kwargs, subject=f"flow {self.name!r}"))

    def run(self, parameters: Mapping[str, Any], executor: Executor) -> Any:
        """Run the flow here. Its tasks go to ``executor``, which is started before and closed after it.

        Returns:
            The function's result, with its futures gathered and its Dask collections computed.
        """
        from dispatcher.executors.current import current
        from dispatcher.executors.nested_values import NotReplaceable
        from dispatcher.runs.context import users_code

        function = cast(FunctionType, self.fn)
        shape = signatures.shape_of(function)
        bound = signatures.bind(function, parameters, subject=f"flow {self.name!r}", shape=shape)
        args, kwargs = signatures.spread(shape, bound)
        with (
            main_module_of(self.fn), using_patterns(self.patterns), executor.start(), current.using(executor),
            users_code(),
        ):  # fmt: skip
            result = signatures.call(self.fn, *args, **kwargs)
            try:
                return executor.wait(result)
            except NotReplaceable as error:
                raise InvalidInput(f"the result of flow {self.name!r}: {error}") from error

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the flow, with the files of its project as they are now, to a file atomically.

        Raises:
            InvalidFlow: the flow can't travel; names the object and where it is used.
            InvalidInput: the project's files are too large or too many.
            OSError: the file can't be written.
        """
        from dispatcher.flows.packing import pack_flow
        from dispatcher.support.atomic_files import write_atomically

        write_atomically(Path(path), pack_flow(self))

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Flow[..., Any]:
        """Read a flow that :meth:`save` wrote. This runs code from the file: open only files that you trust.

        Modules of its project that this process doesn't have are imported from the file.

        Raises:
            InvalidFlow: the file holds no flow.
            InvalidInput: this process has another module of the name of one of them; names both.
            Permanent: another Python minor version, or a package that is missing here.
            OSError: the file can't be read.
        """
        return unpack_flow(Path(path).read_bytes(), subject=f"file {path}")

    def __repr__(self) -> str:
        return f"<Flow {self.name!r}: {signatures.shown_name(self.fn)}{signatures.shown(self.signature)}>"

    def __reduce_ex__(self, protocol: Any) -> Any:
        # In its module the function's name means this flow, so pickle would never find the function by it.
        return signatures.by_reference(self) or super().__reduce_ex__(protocol)


class _FlowDecorator(Protocol):
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
    environment: DefaultEnvironment | str | None = None,
    storage: DefaultStorage | None = None,
    tags: Iterable[str] | None = None,
    timeout: Seconds | None = None,
    start_within: Seconds | None = None,
    result_ttl: Seconds | None = None,
    retries: int | Retry | None = None,
    include: Iterable[str] = (),
    exclude: Iterable[str] = (),
) -> _FlowDecorator: ...
def flow(
    fn: Callable[..., Any] | None = None,
    /,
    *,
    environment: DefaultEnvironment | str | None = None,
    storage: DefaultStorage | None = None,
    include: Iterable[str] = (),
    exclude: Iterable[str] = (),
    **options: Any,
) -> Any:
    """Make a flow of a function: ``@flow``, or ``@flow(...)`` with run options.

    Args:
        fn: the function; an ``async def`` one runs under :func:`asyncio.run`.
        environment: the default environment of its runs, or its name.
        storage: the default storage of its code.
        include: files of the project to add to its code bundle: patterns as of a shell, relative to the project.
        exclude: files to leave out; goes before ``include``.
        options: default options of its runs: ``name``, ``tags``; ``timeout``, ``start_within`` and ``result_ttl``
            (seconds or a timedelta); ``retries`` (an int or a :class:`Retry`).

    Raises:
        InvalidFlow: not a function, or one that can't be a flow: a generator, a class, a method.
        InvalidInput: an option has a wrong value.
    """
    checked = _options(options)
    patterns = Patterns.of(include, exclude, subject="@flow: ") if include or exclude else NO_PATTERNS
    make = partial(Flow, environment=environment, storage=storage, patterns=patterns)
    if fn is None:
        return lambda function: make(function, checked)
    return make(fn, checked)


def unpack_flow(data: bytes, *, subject: str) -> Flow[..., Any]:
    """Return the flow in sealed bytes. This runs the code in them: the caller must have verified them.

    Modules in a code bundle behind the flow are importable afterwards.

    Raises:
        InvalidFlow: the bytes hold no flow.
        InvalidInput: this process has another module of the name of one in the bundle; names both.
    """
    from dispatcher.code.programs import import_beside
    from dispatcher.serialization import pickles, unpack

    if (archive := pickles.bundle_in(data)) is not None:
        import_beside(archive, subject=subject)
    flow = unpack(data)
    if not isinstance(flow, Flow):
        raise InvalidFlow(f"{subject} holds no flow but {type(flow).__name__}")
    return flow


def as_flow(flow: object) -> Flow[..., Any]:
    """Return ``flow`` itself, checked.

    Raises:
        InvalidFlow: it isn't a flow.
    """
    if not isinstance(flow, Flow):
        raise InvalidFlow(f"not a flow: {shown(flow)}; put @flow on the function")
    return flow


def _options(options: Mapping[str, Any]) -> Options:
    if unknown := sorted(options.keys() - _OPTIONS):
        raise InvalidInput(f"@flow: no option is called {unknown_names(unknown, _OPTIONS)}")
    return Options.of(**options)


def _check_function(fn: Any) -> None:
    shown = signatures.shown_name(fn)
    if isinstance(fn, Flow):
        raise InvalidFlow(f"{fn.name!r} is a flow already")
    if inspect.isclass(fn):
        raise InvalidFlow(f"{shown} is a class: @flow can decorate only functions")
    if isinstance(fn, staticmethod | classmethod) or inspect.ismethod(fn):
        raise InvalidFlow(f"{shown} is a method: @flow can decorate only functions")
    if not inspect.isfunction(fn):
        raise InvalidFlow(f"{shown} isn't a function: @flow can decorate only those made by def, async def or lambda")
    if inspect.isgeneratorfunction(fn) or inspect.isasyncgenfunction(fn):
        raise InvalidFlow(f"{shown} is a generator: a flow returns its result; return list(...) instead of yielding")
    holder = fn.__qualname__.rpartition(".")[0]
    if (
        holder
        and not holder.endswith("<locals>")
        and next(iter(inspect.signature(fn).parameters), "") in {"self", "cls"}
    ):
        raise InvalidFlow(f"{shown} is a method: @flow can decorate only functions")
