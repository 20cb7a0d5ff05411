"""The executor that submits tasks to a Dask cluster. Dask itself is imported when an executor is started.

The tasks belong to a session (:mod:`dispatcher.executors.dask_session`), which ends with the flow.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any

from dispatcher.errors import ExecutorUnavailable, InvalidInput
from dispatcher.executors.base import Executor
from dispatcher.executors.dask_names import refuse_imported, refuse_own
from dispatcher.executors.futures import compute_collections, missing_dask, refuse_generator, resolve_futures
from dispatcher.support import signatures
from dispatcher.support.durations import Seconds, seconds_of
from dispatcher.support.escaping import shown

logger = logging.getLogger("dispatcher.executors")


class DaskExecutor(Executor):
    """Submits tasks to a Dask cluster.

    Args:
        address: a scheduler's address, such as ``tls://10.0.0.7:8786``.
        cluster_class: alternatively a cluster class or its import string. The cluster is created at the start and
            closed at the end.
        cluster_kwargs: the cluster's arguments. With neither address nor class they are
            ``distributed.LocalCluster``'s, which then uses TLS with its own certificates and serves no web pages,
            unless they set ``security`` or ``dashboard_address``.
        client_kwargs: arguments of ``distributed.Client``.
        connect_timeout: most seconds to connect, and to wait for other runs on the cluster whose projects have modules
            of the same names with other content; a number, or a timedelta.

    Raises:
        InvalidInput: both an address and a cluster class, or a wrong value.
        MissingExtra: at the start, if Dask isn't installed.
        ExecutorUnavailable: at the start; names the address or cluster, or both runs whose modules collide.
    """

    def __init__(
        self,
        address: str | None = None,
        cluster_class: type | Callable[..., Any] | str | None = None,
        cluster_kwargs: Mapping[str, Any] | None = None,
        client_kwargs: Mapping[str, Any] | None = None,
        connect_timeout: Seconds = 30.0,
        **unknown: Any,
    ) -> None:
        if unknown:
            raise InvalidInput(_unknown(unknown))
        if address is not None and (cluster_class is not None or cluster_kwargs):
            raise InvalidInput("DaskExecutor: give address, or cluster_class with cluster_kwargs, not both")
        if address is not None and (not isinstance(address, str) or not address):
            raise InvalidInput(f"DaskExecutor.address: must be text such as 'tcp://host:8786', got {shown(address)}")
        if (seconds := seconds_of(connect_timeout)) is None or not seconds > 0:
            raise InvalidInput(
                f"DaskExecutor.connect_timeout: must be more than 0 seconds, got {shown(connect_timeout)}"
            )
        self.address = address
        self.cluster_class = cluster_class
        self.cluster_kwargs = dict(cluster_kwargs or {})
        self.client_kwargs = dict(client_kwargs or {})
        self.connect_timeout = float(seconds)
        self._client: Any = None
        self._session: Any = None

    @classmethod
    def check_modules(cls, modules: Collection[str]) -> None:
        refuse_own(modules)

    @contextlib.contextmanager
    def start(self) -> Iterator[None]:
        if self._client is not None:  # a flow called inside a flow shares the connection
            yield
            return
        from dispatcher.code.activation import current_bundles

        if bundles := current_bundles():  # the submitter's default executor may be another one
            refuse_own({name for bundle in bundles for name in bundle.modules})
        else:
            refuse_imported()
        distributed = _distributed()
        with contextlib.ExitStack() as stack:
            target = self.address or self._cluster(distributed, stack)
            self._client = self._connect(distributed, target)
            stack.callback(self._disconnect)
            self._session = _session(
                self._client, self._cluster_name, shared=self.address is not None, timeout=self.connect_timeout
            )
            stack.callback(_quietly, "Ending the run's tasks", self._session.end)
            self._session.open_bundles()
            if not self._client.scheduler_info().get("workers"):
                logger.warning("The Dask cluster at %s has no worker yet; tasks wait for one", self._cluster_name)
            yield

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        return self._submit(fn, [list(args)], kwargs)[0]

    def map(self, fn: Callable[..., Any], /, *iterables: Iterable[Any], **constants: Any) -> list[Any]:
        return self._submit(fn, [list(items) for items in zip(*iterables, strict=False)], constants)

    def wait(self, value: Any) -> Any:
        client = self._started()
        value = resolve_futures(value, client, refuse_generator)
        return compute_collections(value, lambda collections: client.gather(client.compute(collections)))

    def __repr__(self) -> str:
        return f"DaskExecutor({self._cluster_name})"

    @property
    def _cluster_name(self) -> str:
        if self.address is not None:
            return self.address
        return signatures.shown_name(self.cluster_class) if self.cluster_class is not None else "a local cluster"

    def _submit(self, fn: Callable[..., Any], items: list[list[Any]], kwargs: dict[str, Any]) -> list[Any]:
        self._started()
        return self._session.submit(fn, items, kwargs) if items else []

    def _started(self) -> Any:
        if self._client is None:
            raise InvalidInput(f"{self!r} isn't started: use it inside `with executor.start():`")
        return self._client

    def _cluster(self, distributed: Any, stack: contextlib.ExitStack) -> Any:
        cluster_class = self.cluster_class
        if isinstance(cluster_class, str):
            cluster_class = signatures.resolve(cluster_class, subject="DaskExecutor.cluster_class")
        if cluster_class is None or cluster_class is distributed.LocalCluster:
            cluster_class = _private_cluster()
        if not callable(cluster_class):
            raise InvalidInput(f"DaskExecutor.cluster_class: must be a cluster class, got {shown(cluster_class)}")
        try:
            cluster = cluster_class(**self.cluster_kwargs)
        except Exception as error:
            raise ExecutorUnavailable(f"can't start {self._cluster_name} for Dask: {_describe(error)}") from error
        stack.callback(_quietly, "Closing the Dask cluster", cluster.close)
        return cluster

    def _connect(self, distributed: Any, target: Any) -> Any:
        try:
            return distributed.Client(target, **{"timeout": self.connect_timeout, **self.client_kwargs})
        except Exception as error:
            raise ExecutorUnavailable(
                f"can't connect to Dask at {self._cluster_name} within {self.connect_timeout:g} s: {_describe(error)}"
            ) from error

    def _disconnect(self) -> None:
        client, self._client, self._session = self._client, None, None
        _quietly("Closing the Dask client", client.close)


def _unknown(arguments: Collection[str]) -> str:
    """Return the error of arguments that don't exist: Prefect 0.10's executor took those of client and cluster."""
    name = min(arguments)
    places = {"local_processes": "cluster_kwargs={'processes': …}", "debug": "cluster_kwargs={'silence_logs': …}"}
    remedy = places.get(
        name, f"client_kwargs={{{name!r}: …}} for the client, cluster_kwargs={{{name!r}: …}} for the cluster"
    )
    parameters = "address, cluster_class, cluster_kwargs, client_kwargs, connect_timeout"
    return f"DaskExecutor has no argument {shown(name)} (known: {parameters}); write {remedy}"


def _distributed() -> Any:
    try:
        import distributed
    except ImportError as error:
        raise missing_dask(error) from error
    return distributed


def _session(client: Any, cluster_name: str, *, shared: bool, timeout: float) -> Any:
    from dispatcher.executors.dask_session import DaskSession

    return DaskSession(client, cluster_name, shared=shared, timeout=timeout)


def _private_cluster() -> Any:
    try:
        from dispatcher.executors.local_cluster import LocalCluster
    except ImportError as error:
        raise missing_dask(error) from error
    return LocalCluster


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _quietly(action: str, close: Callable[[], Any]) -> None:
    """Call ``close``. Log a failure, which must not hide how the flow ended."""
    try:
        close()
    except Exception:
        logger.warning("%s failed", action, exc_info=True)
