"""The Dask cluster that an executor creates for one flow, closed to other users of the machine.

Anybody who can connect to a Dask scheduler or worker can run code there. So all nodes use TLS, and accept only peers
with the certificate that was made for this cluster, whose key stays in memory. They serve web pages only on request,
and keep their files in a directory that only this user can read. Imported by :mod:`dispatcher.executors.dask` when it
is needed.
"""

from __future__ import annotations

import logging
import shutil
import sys
from pathlib import Path
from typing import Any

import cryptography  # noqa: F401 - Dask makes the certificates with it
import distributed
from distributed.security import Security

from dispatcher.executors import spawned_nodes
from dispatcher.support.private_files import temporary_directory

_logger = logging.getLogger("distributed")


class _PagesOnRequest:
    """A mixin for nodes that serve web pages only if they have an address for them.

    Dask's own nodes always serve them: without an address on any free port, the scheduler's on every interface. The
    pages show logs and the arguments of tasks to everybody.
    """

    def start_http_server(self, routes: Any, dashboard_address: Any, *rest: Any, **options: Any) -> None:
        """Serve the pages if there is an address."""
        if dashboard_address is not None:
            super().start_http_server(routes, dashboard_address, *rest, **options)  # type: ignore[misc]


class Scheduler(_PagesOnRequest, distributed.Scheduler):  # type: ignore[misc]
    """Dask's scheduler, without web pages by default."""


class Worker(_PagesOnRequest, distributed.Worker):  # type: ignore[misc]
    """Dask's worker, without web pages by default."""


class Nanny(distributed.Nanny):  # type: ignore[misc]
    """Dask's nanny, which runs such a worker in a process."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **{"worker_class": Worker, **options})


_REPLACEMENTS = {distributed.Scheduler: Scheduler, distributed.Worker: Worker, distributed.Nanny: Nanny}


class _Nodes(distributed.SpecCluster):  # type: ignore[misc]
    """Replaces Dask's classes by ours in the nodes that ``LocalCluster`` specifies to ``SpecCluster``."""

    def __init__(self, *, scheduler: Any, workers: Any, worker: Any, **options: Any) -> None:
        super().__init__(
            scheduler=_replace_class(scheduler),
            workers={name: _replace_class(node) for name, node in workers.items()},
            worker=_replace_class(worker),
            **options,
        )


def _replace_class(spec: dict[str, Any]) -> dict[str, Any]:
    return {**spec, "cls": _REPLACEMENTS.get(spec["cls"], spec["cls"])}


class LocalCluster(distributed.LocalCluster, _Nodes):  # type: ignore[misc]
    """A ``distributed.LocalCluster`` that only its creator can use. It takes the same arguments.

    Args:
        security: by default certificates for this cluster alone; none for a cluster without processes, addresses and
            ports, which communicates only inside this process.
        dashboard_address: by default None, which means no web pages.
        local_directory: where workers store data that doesn't fit into memory; by default a new directory, removed by
            :meth:`close`.
        silence_logs: the lowest level of Dask's own log lines that is kept; by default warnings. False keeps all.
        options: the other arguments of ``distributed.LocalCluster``.
    """

    def __init__(self, **options: Any) -> None:
        spawned_nodes.install()
        defaults: dict[str, Any] = {"dashboard_address": None}
        self._level = _logger.level
        if level := options.get("silence_logs", max(self._level, logging.WARNING)):
            # Dask silences only its own handler; the capture of a run's log would still see the lines.
            _logger.setLevel(level.upper() if isinstance(level, str) else level)
        if not _is_in_process(options):
            defaults["security"] = Security.temporary()
        self._scratch = None if "local_directory" in options else temporary_directory("dispatcher-dask-")
        if self._scratch is not None:
            defaults["local_directory"] = str(self._scratch)
            scheduler = {"local_directory": str(self._scratch), **(options.get("scheduler_kwargs") or {})}
            options = {**options, "scheduler_kwargs": scheduler}
        try:
            super().__init__(**{**defaults, **options})
        except BaseException:
            self._clean_up()
            raise

    def close(self, timeout: float | None = None) -> Any:
        """Close the cluster, and remove its directory."""
        closed = super().close(timeout)
        self._clean_up()
        return closed

    def _clean_up(self) -> None:
        _logger.setLevel(self._level)
        if self._scratch is None:
            return
        # Dask adds it to the import path. It must not stay there: another user might make a directory of that name
        # later.
        sys.path[:] = [entry for entry in sys.path if not Path(entry).is_relative_to(self._scratch)]
        shutil.rmtree(self._scratch, ignore_errors=True)


def _is_in_process(options: dict[str, Any]) -> bool:
    """Return True if the whole cluster runs inside this process, without sockets."""
    socket_options = ("protocol", "host", "ip", "interface", "scheduler_port", "worker_class")
    return options.get("processes") is False and not any(options.get(name) for name in socket_options)
