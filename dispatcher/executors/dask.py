"""What computes the tasks of a flow: in this process, or on a Dask cluster. The only home of dask.

Environments make executors and start them around a flow; tasks find the one in force through :data:`current`.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import logging
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any, Protocol, TypeVar

from dispatcher.errors import ExecutorUnavailable, InvalidInput, MissingExtra
from dispatcher.executors.nested_values import replaced
from dispatcher.support import signatures

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


class LocalExecutor(Executor):
    """Runs each task here, at once, one after the other. Its futures are done when they are given."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> concurrent.futures.Future[Any]:
        future: concurrent.futures.Future[Any] = concurrent.futures.Future()
        try:
            future.set_result(
                signatures.call(fn, *_resolved(list(args), generator=_lazily), **_resolved(kwargs, generator=_lazily))
            )
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
        self._session: Any = None

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
            self._session = _session(self._client, self._place, shared=self.address is not None)
            stack.callback(_quietly, "ending the run's tasks", self._session.end)
            if not self._client.scheduler_info().get("workers"):
                logger.warning("the Dask cluster at %s has no worker yet; tasks wait for one", self._place)
            yield

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        return self._give(fn, [list(args)], kwargs)[0]

    def map(self, fn: Callable[..., Any], /, *iterables: Iterable[Any], **constants: Any) -> list[Any]:
        return self._give(fn, [list(items) for items in zip(*iterables, strict=False)], constants)

    def wait(self, value: Any) -> Any:
        client = self._started()
        value = _resolved(value, client, _no_generator)
        return _computed(value, lambda found: client.gather(client.compute(found)))

    def __repr__(self) -> str:
        return f"DaskExecutor({self._place})"

    @property
    def _place(self) -> str:
        if self.address is not None:
            return self.address
        return signatures.shown_name(self.cluster_class) if self.cluster_class is not None else "a local cluster"

    def _give(self, fn: Callable[..., Any], items: list[list[Any]], kwargs: dict[str, Any]) -> list[Any]:
        self._started()
        return self._session.give(fn, items, kwargs) if items else []

    def _started(self) -> Any:
        if self._client is None:
            raise InvalidInput(f"{self!r} isn't started: use it inside `with executor.start():`")
        return self._client

    def _cluster(self, distributed: Any, stack: contextlib.ExitStack) -> Any:
        maker = self.cluster_class
        if isinstance(maker, str):
            maker = signatures.resolve(maker, what="DaskExecutor.cluster_class")
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
        client, self._client, self._session = self._client, None, None
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


def _resolved(value: Any, client: Any = None, generator: Callable[[Any], Any] | None = None) -> Any:
    """``value`` with the results of its futures; those of ``client`` are gathered together."""
    found: dict[int, Any] = {}

    def note(one: Any) -> Any:
        return found.setdefault(id(one), one)

    replaced(value, _is_future, note)
    remote = [one for one in found.values() if client is not None and getattr(one, "client", None) is client]
    answers = dict(zip(map(id, remote), client.gather(remote), strict=True)) if remote else {}
    answers |= {place: one.result() for place, one in found.items() if place not in answers}
    return replaced(value, _is_future, lambda one: answers[id(one)], generator=generator)


def _lazily(generator: Any) -> Any:
    """A generator goes on being one: its futures are asked for as they come."""
    return (_resolved(one, generator=_lazily) for one in generator)


def _no_generator(generator: Any) -> Any:
    raise InvalidInput(f"generator {generator.__qualname__} can't be returned by a flow: return list(...) of it")


def _computed(value: Any, compute: Callable[[list[Any]], Iterable[Any]]) -> Any:
    """``value`` with its Dask collections computed together."""
    if "dask" not in sys.modules:
        return value
    is_collection = _dask().is_dask_collection
    found: dict[int, Any] = {}
    replaced(value, is_collection, lambda one: found.setdefault(id(one), one))
    if not found:
        return value
    answers = dict(zip(found, compute(list(found.values())), strict=True))
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


def _session(client: Any, place: str, *, shared: bool) -> Any:
    from dispatcher.executors.dask_session import Session

    return Session(client, place, shared=shared)


def _private_cluster() -> Any:
    try:
        from dispatcher.executors.local_cluster import LocalCluster
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
