"""Executors: they compute the tasks of a flow. Read :mod:`dispatcher.executors.base` next.

Settings, environments and pickled flows name the classes by this package.
"""

from __future__ import annotations

from dispatcher.executors.base import Executor
from dispatcher.executors.dask import DaskExecutor
from dispatcher.executors.local import LocalExecutor

__all__ = ["DaskExecutor", "Executor", "LocalExecutor"]

for _class in (DaskExecutor, Executor, LocalExecutor):
    _class.__module__ = __name__
