"""What computes the tasks of a flow: in this process, or on a Dask cluster. The only home of dask.

Environments make executors and start them around a flow; tasks find the one in force through :data:`current`.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
import logging
import sys
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar, cast

from dispatcher import functions
from dispatcher.errors import ExecutorUnavailable, InvalidInput, MissingExtra
from dispatcher.nested import replaced

T_co = TypeVar("T_co", covariant=True)

logger = logging.getLogger("dispatcher.executors")


class Future(Protocol[T_co]):
    """A result to come, whatever the executor: ``concurrent.futures`` and ``distributed`` both fit."""

    def result(self, timeout: float | None = None) -> T_co:
        """The result, or what the task raised."""

    def done(self) -> bool:
        """Whether it has ended."""


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
        """Compute one call; a future at once. Futures among the arguments, also in a list, tuple or dict, are waited
        for by the executor; if one failed, so does this call, with the same exception."""

    def map(self, fn: Callable[..., Any], /, *iterables: Iterable[Any], **constants: Any) -> list[Any]:
        """One :meth:`submit` per item of the iterables; the shortest ends it."""
        return [self.submit(fn, *items, **constants) for items in zip(*iterables, strict=False)]

    @abstractmethod
    def wait(self, value: Any) -> Any:
        """``value`` with every future in it, also in lists, tuples and dicts, replaced by its result, and every Dask
        collection computed. What holds none of them is given back as it is."""


class LocalExecutor(Executor):
    """Runs each task here, at once, one after the other. Its futures are done when they are given."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> concurrent.futures.Future[Any]:
        future: concurrent.futures.Future[Any] = concurrent.futures.Future()
        try:
            future.set_result(functions.call(fn, *_resolved(list(args)), **_resolved(kwargs)))
        except Exception as error:
            future.set_exception(error)
        return future

    def wait(self, value: Any) -> Any:
        return _computed(_resolved(value), lambda collections: _dask().compute(*collections))

    def __repr__(self) -> str:
        return "LocalExecutor()"


class DaskExecutor(Executor):
    """Gives tasks to a Dask cluster.

    Args:
        address: a scheduler's address, such as ``tls://10.0.0.7:8786``.
        cluster_class: or a cluster class, or its import string; made at the start, closed at the end.
        cluster_kwargs: the cluster's arguments. With neither address nor class they are
            ``distributed.LocalCluster``'s, which then speaks TLS with certificates of its own and serves no pages,
            unless they say otherwise (``security``, ``dashboard_address``).
        client_kwargs: arguments of ``distributed.Client``.
        connect_timeout: most seconds to connect.

    Raises:
        InvalidInput: both an address and a cluster class, or a wrong value.
        MissingExtra: at the start, where Dask isn't installed.
        ExecutorUnavailable: at the start; names the address or cluster.
    """

    def __init__(
        self,
        address: str | None = None,
        cluster_class: type | Callable[..., Any] | str | None = None,
        cluster_kwargs: Mapping[str, Any] | None = None,
        client_kwargs: Mapping[str, Any] | None = None,
        connect_timeout: float = 30.0,
    ) -> None:
        if address is not None and (cluster_class is not None or cluster_kwargs):
            raise InvalidInput("DaskExecutor: give address, or cluster_class with cluster_kwargs, not both")
        if address is not None and (not isinstance(address, str) or not address):
            raise InvalidInput(f"DaskExecutor.address: must be text such as 'tcp://host:8786', got {address!r}")
        if not isinstance(connect_timeout, int | float) or not connect_timeout > 0:
            raise InvalidInput(f"DaskExecutor.connect_timeout: must be more than 0 seconds, got {connect_timeout!r}")
        self.address = address
        self.cluster_class = cluster_class
        self.cluster_kwargs = dict(cluster_kwargs or {})
        self.client_kwargs = dict(client_kwargs or {})
        self.connect_timeout = float(connect_timeout)
        self._client: Any = None

    @contextlib.contextmanager
    def start(self) -> Iterator[None]:
        if self._client is not None:  # a flow called inside a flow shares the connection
            yield
            return
        distributed = _distributed()
        with contextlib.ExitStack() as stack:
            target = self.address or self._cluster(distributed, stack)
            self._client = self._connect(distributed, target)
            stack.callback(self._disconnect)
            if not self._client.scheduler_info().get("workers"):
                logger.warning("the Dask cluster at %s has no worker yet; tasks wait for one", self._place)
            yield

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        return self._give(fn, [list(args)], kwargs)[0]

    def map(self, fn: Callable[..., Any], /, *iterables: Iterable[Any], **constants: Any) -> list[Any]:
        return self._give(fn, [list(items) for items in zip(*iterables, strict=False)], constants)

    def wait(self, value: Any) -> Any:
        client = self._started()
        return _computed(_resolved(value, gather=client.gather), lambda found: client.gather(client.compute(found)))

    def __repr__(self) -> str:
        return f"DaskExecutor({self._place})"

    @property
    def _place(self) -> str:
        if self.address is not None:
            return self.address
        return functions.shown_name(self.cluster_class) if self.cluster_class is not None else "a local cluster"

    def _give(self, fn: Callable[..., Any], items: list[list[Any]], kwargs: dict[str, Any]) -> list[Any]:
        """One call per item, in one message to the scheduler."""
        client = self._started()
        if not items:
            return []
        many = len(items)
        code, fixed = _Sealed(_packed(fn), code=True), _sealed(kwargs)
        name = getattr(fn, "name", None) or getattr(fn, "__name__", None) or "task"
        # A key of its own gives each call a name for people, and keeps Dask from taking it for an equal one. Arguments
        # go as a list and a dict, so that none is taken for an option of Dask's.
        keys = [f"{name}-{uuid.uuid4().hex}" for _ in items]
        found = client.map(_call, [code] * many, [_sealed(one) for one in items], [fixed] * many, key=keys, pure=False)
        return cast(list[Any], found)

    def _started(self) -> Any:
        if self._client is None:
            raise InvalidInput(f"{self!r} isn't started: use it inside `with executor.start():`")
        return self._client

    def _cluster(self, distributed: Any, stack: contextlib.ExitStack) -> Any:
        maker = self.cluster_class
        if isinstance(maker, str):
            maker = functions.resolve(maker, what="DaskExecutor.cluster_class")
        if maker is None or maker is distributed.LocalCluster:
            maker = _private_cluster()
        if not callable(maker):
            raise InvalidInput(f"DaskExecutor.cluster_class: must be a cluster class, got {maker!r}")
        try:
            cluster = maker(**self.cluster_kwargs)
        except Exception as error:
            raise ExecutorUnavailable(f"can't start {self._place} for Dask: {_said(error)}") from error
        stack.callback(_quietly, "closing the Dask cluster", cluster.close)
        return cluster

    def _connect(self, distributed: Any, target: Any) -> Any:
        try:
            return distributed.Client(target, **{"timeout": self.connect_timeout, **self.client_kwargs})
        except Exception as error:
            raise ExecutorUnavailable(
                f"can't connect to Dask at {self._place} within {self.connect_timeout:g} s: {_said(error)}"
            ) from error

    def _disconnect(self) -> None:
        client, self._client = self._client, None
        _quietly("closing the Dask client", client.close)


class _Current:
    """The executor in force where a task is given; outside a flow one that runs it at once."""

    def __init__(self) -> None:
        self._executor: ContextVar[Executor | None] = ContextVar("dispatcher_executor", default=None)
        self._outside = LocalExecutor()

    def get(self) -> Executor:
        """The executor in force."""
        return self._executor.get() or self._outside

    @contextlib.contextmanager
    def using(self, executor: Executor) -> Iterator[None]:
        """Have ``executor`` in force."""
        token = self._executor.set(executor)
        try:
            yield
        finally:
            self._executor.reset(token)


#: The one object.
current = _Current()


@dataclass(frozen=True)
class _Sealed:
    """Code, or a value whose class isn't installed, on its way to a Dask worker.

    Dask's own pickling names what can be imported here; a worker elsewhere can't import what isn't installed there.
    """

    data: bytes = field(repr=False)
    code: bool = False

    def opened(self) -> Any:
        return _open_code(self.data) if self.code else _open(self.data)


def _packed(value: Any) -> bytes:
    from dispatcher.payload import pack

    return pack(value, what=f"{functions.shown_name(value)}, given to Dask", error=InvalidInput)


def _open(data: bytes) -> Any:
    from dispatcher.payload import unpack

    return unpack(data)


@functools.lru_cache(maxsize=64)
def _open_code(data: bytes) -> Any:
    """Code is opened once per worker, so that what its module remembers lasts; a value is new for each call."""
    return _open(data)


def _call(code: _Sealed, args: list[Any], kwargs: dict[str, Any]) -> Any:
    """What a Dask worker runs."""
    return functions.call(code.opened(), *_opened(args), **_opened(kwargs))


def _sealed(value: Any) -> Any:
    from dispatcher.payload import modules

    def by_value(one: Any) -> bool:
        return modules.by_value(type(one).__module__)

    return replaced(_resolved(value, _is_local), by_value, lambda one: _Sealed(_packed(one)))


def _opened(value: Any) -> Any:
    return replaced(value, lambda one: isinstance(one, _Sealed), lambda one: one.opened())


def _resolved(
    value: Any, matches: Callable[[Any], bool] | None = None, gather: Callable[[list[Any]], list[Any]] | None = None
) -> Any:
    """``value`` with the results of its futures; ``gather`` is given those of a cluster together."""
    matches = matches or _is_future
    local: list[Any] = []
    remote: list[Any] = []
    replaced(value, matches, lambda one: (local if _is_local(one) else remote).append(one))
    if not local and not remote:
        return value
    answers = {id(one): one.result() for one in local}
    results = gather(remote) if gather is not None else [one.result() for one in remote]
    answers |= {id(one): result for one, result in zip(remote, results, strict=True)}
    return replaced(value, matches, lambda one: answers[id(one)])


def _computed(value: Any, compute: Callable[[list[Any]], Iterable[Any]]) -> Any:
    """``value`` with its Dask collections computed together."""
    if "dask" not in sys.modules:
        return value
    is_collection = _dask().is_dask_collection
    found: list[Any] = []
    replaced(value, is_collection, found.append)
    if not found:
        return value
    answers = dict(zip(map(id, found), compute(found), strict=True))
    return replaced(value, is_collection, lambda one: answers[id(one)])


def _is_local(value: Any) -> bool:
    return isinstance(value, concurrent.futures.Future)


def _is_future(value: Any) -> bool:
    if _is_local(value):
        return True
    distributed = sys.modules.get("distributed")
    return distributed is not None and isinstance(value, distributed.Future)


def _dask() -> Any:
    try:
        import dask
    except ImportError as error:
        raise _missing(error) from error
    return dask


def _distributed() -> Any:
    try:
        import distributed
    except ImportError as error:
        raise _missing(error) from error
    return distributed


def _private_cluster() -> Any:
    try:
        from dispatcher.local_cluster import LocalCluster
    except ImportError as error:
        raise _missing(error) from error
    return LocalCluster


def _missing(error: ImportError) -> MissingExtra:
    return MissingExtra(f"DaskExecutor needs Dask ({error}): pip install 'flow-dispatcher[dask]'")


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _quietly(what: str, close: Callable[[], Any]) -> None:
    """Free something; a failure is logged, since it must not hide how the flow ended."""
    try:
        close()
    except Exception:
        logger.warning("%s failed", what, exc_info=True)
