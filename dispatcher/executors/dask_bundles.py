"""The code bundles of a flow's tasks on a Dask cluster, from the flow's side.

A flow that came in a bundle gives its tasks the same one. A flow that runs in its program gives them a bundle of the
program's modules. Used by :mod:`dispatcher.executors.dask_session`; the other end is
:mod:`dispatcher.executors.dask_code`.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import distributed

from dispatcher.code.activation import current_bundles
from dispatcher.code.bundles import Bundle, Bundler
from dispatcher.code.patterns import flow_patterns
from dispatcher.errors import DispatcherError, ExecutorUnavailable, InvalidInput
from dispatcher.executors import dask_code, scheduler_calls
from dispatcher.executors.dask_code import Opening
from dispatcher.serialization.by_value import travels_in_bundle

logger = logging.getLogger("dispatcher.executors")

_ANSWER_TIMEOUT = 60.0  # seconds for the cluster to unpack bundles


@dataclass(frozen=True)
class Cluster:
    """A Dask cluster, and the session that gives it bundles.

    Attributes:
        client: a connected ``distributed.Client``.
        name: the cluster's name in errors.
        session: the session's name.
        label: the session's name in errors.
        timeout: most seconds to wait for others that use modules of the same names.
    """

    client: Any
    name: str
    session: str
    label: str
    timeout: float


class SessionBundles:
    """The bundles that a session has opened on its cluster.

    Args:
        cluster: the cluster.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._openings: list[Opening] = []
        self._covered: set[str] = set()  # modules
        self._bundler: Bundler | None = None  # only where this process is the flow's program
        self._patterns = flow_patterns()

    def __bool__(self) -> bool:
        """Return True if the session has opened any."""
        return bool(self._openings)

    def open(self) -> None:
        """Open the bundles that are known when the session starts.

        Raises:
            ExecutorUnavailable: another session uses modules of the same names, or the cluster can't take bundles.
            InvalidInput: a module has the name of one that Dask uses.
        """
        if _is_in_process(self._cluster.client):
            return
        if bundles := current_bundles():
            archives = {bundle.digest: Path(bundle.archive) for bundle in bundles}
            self._open(tuple(archives), lambda digest: archives[digest].read_bytes())
        elif not _imports_as_this_process(self._cluster.client):
            self._bundler = _bundler()
            self._open_imported()

    def cover(self, modules: Collection[str]) -> None:
        """Open a bundle with modules that packed objects name, unless one has them.

        Raises:
            InvalidInput: their files can't travel; names the remedy.
            ExecutorUnavailable: as :meth:`open`.
        """
        if self._bundler is not None and not self._covered.issuperset(modules):
            self._open_made(self._bundler.bundle({*self._covered, *modules}, self._patterns), modules)

    def close(self) -> None:
        """Close them all on the cluster."""
        if self._openings:
            self._openings.clear()
            scheduler_calls.close_code(self._cluster.client, self._cluster.session)

    def _open_imported(self) -> None:
        """Open a bundle with all that this program has imported: Dask's collections name modules as well."""
        assert self._bundler is not None
        modules = [name for name in list(sys.modules) if travels_in_bundle(name)]
        try:
            bundle = self._bundler.bundle(modules, self._patterns)
        except InvalidInput as error:  # not all may be needed
            logger.debug("The program's modules don't go to Dask together: %s", error)
        else:
            self._open_made(bundle, modules)

    def _open_made(self, bundle: Bundle | None, modules: Collection[str]) -> None:
        if bundle is not None and bundle.digest not in {opening.digests[0] for opening in self._openings}:
            self._open((bundle.digest,), lambda _digest: bundle.data)
        self._covered.update(modules)

    def _open(self, digests: tuple[str, ...], archive: Callable[[str], bytes]) -> None:
        cluster = self._cluster
        opening = Opening(cluster.session, cluster.label, digests, cluster.timeout)
        self._openings.append(opening)
        try:
            if missing := self._open_on_scheduler(opening, {}):
                self._open_on_scheduler(opening, {digest: archive(digest) for digest in missing})
            self._register(opening)
        except DispatcherError:
            raise
        except Exception as error:
            raise ExecutorUnavailable(
                f"Dask at {cluster.name} can't take the project's code: {type(error).__name__}: {error}"
            ) from error

    def _open_on_scheduler(self, opening: Opening, archives: Mapping[str, bytes]) -> Collection[str]:
        return scheduler_calls.open_code(
            self._cluster.client, opening, archives, timeout=opening.timeout + _ANSWER_TIMEOUT
        )

    def _register(self, opening: Opening) -> None:
        client = self._cluster.client
        try:
            client.sync(
                client._register_worker_plugin, _plugin(scheduler_calls.fields(opening)),
                dask_code.plugin_name(opening), False, callback_timeout=opening.timeout + _ANSWER_TIMEOUT,
            )  # fmt: skip
        except DispatcherError:
            raise
        except OSError as error:  # a worker has ended meanwhile; its successor gets the plugin
            logger.debug("A Dask worker didn't answer: %s", error)


def _bundler() -> Bundler:
    from dispatcher.code.bundles import bundler_for
    from dispatcher.settings import Settings

    return bundler_for(Settings.load())


def _is_in_process(client: Any) -> bool:
    """Return True if the whole cluster runs inside this process."""
    return str(client.scheduler.address).startswith("inproc://")


def _imports_as_this_process(client: Any) -> bool:
    """Return True if this process starts the workers, which inherit its ``sys.path``."""
    return isinstance(client.cluster, distributed.LocalCluster)


def _plugin(fields: tuple[Any, ...]) -> Any:
    """Return the plugin by which workers open bundles.

    Its class travels by value: Dask ends a worker that can't open a plugin, and a worker may lack this package.
    """

    class CodeBundles(distributed.WorkerPlugin):  # type: ignore[misc]
        def __init__(self, fields: tuple[Any, ...]) -> None:
            self.fields = fields

        async def setup(self, worker: Any) -> None:
            try:
                from dispatcher.executors import dask_code
            except ImportError as error:
                raise RuntimeError(
                    f"the worker at {worker.address} has another release of flow-dispatcher, or none: install the "
                    f"flow's ({error})"
                ) from None
            await dask_code.open_on_worker(worker, dask_code.Opening(*self.fields))

        def teardown(self, worker: Any) -> None:
            from dispatcher.executors import dask_code

            dask_code.close_on_worker(self.fields[0])

    CodeBundles.__module__ = "__main__"
    return CodeBundles(fields)
