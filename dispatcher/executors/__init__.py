"""Executors: where the tasks of a flow run."""

from __future__ import annotations

from dispatcher.executors.dask import DaskExecutor, LocalExecutor

__all__ = ["DaskExecutor", "LocalExecutor"]
