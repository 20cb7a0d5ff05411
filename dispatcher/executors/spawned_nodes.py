"""Processes that Dask spawns from a flow's process: they import Dask itself from what is installed.

A spawned process gets its parent's ``sys.path``, with the flow's code bundles first. Dask would find a project's
``yaml.py`` there, before anything could keep the two apart. The session opens the bundles in each worker anyway.
Imported by :mod:`.local_cluster`.
"""

from __future__ import annotations

from multiprocessing import spawn
from typing import Any

from dispatcher.code.activation import current_bundles

#: How Dask names the process of a worker.
_NAME = "Dask Worker process"

_inherited_data = spawn.get_preparation_data


def _preparation_data(name: str) -> dict[str, Any]:
    """Stand in for the function of :mod:`multiprocessing.spawn` that tells a new process what to set first."""
    data: dict[str, Any] = _inherited_data(name)
    if name.startswith(_NAME):
        of_bundles = {path for bundle in current_bundles() for path in bundle.paths}
        data["sys_path"] = [path for path in data["sys_path"] if path not in of_bundles]
    return data


def install() -> None:
    """Spawn Dask's processes without the paths of bundles, and all others as before."""
    spawn.get_preparation_data = _preparation_data
