"""The Dask cluster that an executor makes for one flow, closed to the other users of the machine.

Whoever reaches a Dask scheduler or worker has it run code. So all of them speak TLS, and take only peers that show the
certificate that was made for this cluster; its key lives in memory. None serves web pages unless asked to, and their
files lie in a directory of this user's alone. Imported by :mod:`dispatcher.executors.dask` where Dask is needed.
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

from dispatcher.support.private_files import temporary_directory

_logger = logging.getLogger("distributed")


class _Pages:
    """A node of a cluster that serves pages only where it is given an address for them.

    Dask itself serves them everywhere: without an address on a port of its own choice, and a scheduler's on every
    interface. They show logs and the arguments of tasks to whoever asks.
    """

    def start_http_server(self, routes: Any, dashboard_address: Any, *rest: Any, **options: Any) -> None:
        """Serve, if there is an address."""
        if dashboard_address is not None:
            super().start_http_server(routes, dashboard_address, *rest, **options)  # type: ignore[misc]


class Scheduler(_Pages, distributed.Scheduler):  # type: ignore[misc]
    """Dask's scheduler without pages."""


class Worker(_Pages, distributed.Worker):  # type: ignore[misc]
    """Dask's worker without pages."""


class Nanny(distributed.Nanny):  # type: ignore[misc]
    """A process of such a worker."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **{"worker_class": Worker, **options})


_OURS = {distributed.Scheduler: Scheduler, distributed.Worker: Worker, distributed.Nanny: Nanny}


class _Nodes(distributed.SpecCluster):  # type: ignore[misc]
    """Stands between ``LocalCluster``, which says which nodes there are to be, and what makes them."""

    def __init__(self, *, scheduler: Any, workers: Any, worker: Any, **options: Any) -> None:
        super().__init__(
            scheduler=_our_node(scheduler),
            workers={name: _our_node(node) for name, node in workers.items()},
            worker=_our_node(worker),
            **options,
        )


def _our_node(spec: dict[str, Any]) -> dict[str, Any]:
    return {**spec, "cls": _OURS.get(spec["cls"], spec["cls"])}


class LocalCluster(distributed.LocalCluster, _Nodes):  # type: ignore[misc]
    """``distributed.LocalCluster`` that only its maker can use. Its arguments are the same, and go before ours.

    Args:
        security: by default certificates for this cluster alone. Without processes, addresses and ports there is
            nothing to protect: all of it then talks inside this process.
        dashboard_address: by default None: no pages.
        local_directory: where workers keep what doesn't fit into memory; by default a new directory, removed by
            :meth:`close`.
        silence_logs: the level from which on Dask's own log lines are kept, as it does with those that it prints; by
            default warnings. False keeps all.
        options: the other arguments of ``distributed.LocalCluster``.
    """

    def __init__(self, **options: Any) -> None:
        ours: dict[str, Any] = {"dashboard_address": None}
        self._level = _logger.level
        if level := options.get("silence_logs", max(self._level, logging.WARNING)):
            # Dask does so with its own handler alone, and the log of a run hears past that.
            _logger.setLevel(level.upper() if isinstance(level, str) else level)
        if not _inside(options):
            ours["security"] = Security.temporary()
        self._scratch = None if "local_directory" in options else temporary_directory("dispatcher-dask-")
        if self._scratch is not None:
            ours["local_directory"] = str(self._scratch)
            scheduler = {"local_directory": str(self._scratch), **(options.get("scheduler_kwargs") or {})}
            options = {**options, "scheduler_kwargs": scheduler}
        try:
            super().__init__(**{**ours, **options})
        except BaseException:
            self._leave_nothing()
            raise

    def close(self, timeout: float | None = None) -> Any:
        """Close it, and remove its directory."""
        closed = super().close(timeout)
        self._leave_nothing()
        return closed

    def _leave_nothing(self) -> None:
        _logger.setLevel(self._level)
        if self._scratch is None:
            return
        # Dask puts it on the import path, where it must not stay: anybody may make a directory of that name later.
        sys.path[:] = [entry for entry in sys.path if not Path(entry).is_relative_to(self._scratch)]
        shutil.rmtree(self._scratch, ignore_errors=True)


def _inside(options: dict[str, Any]) -> bool:
    """Return True if Dask makes all of a cluster inside this process, without a socket."""
    outward = ("protocol", "host", "ip", "interface", "scheduler_port", "worker_class")
    return options.get("processes") is False and not any(options.get(name) for name in outward)
