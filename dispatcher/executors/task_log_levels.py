"""Levels of loggers in a process whose threads run tasks of several flows, each with its own levels.

A logger has one level for its whole process. While tasks run, it is the lowest that any of them requests. Records below
a task's own level are kept from that task, and from the handlers that were there before. Called by
:mod:`dispatcher.executors.task_logs`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping

#: Loggers of Dask itself, whose levels stay as they are.
_DASK_LOGGERS = frozenset({"distributed", "dask", "tornado", "bokeh", "asyncio"})


def current_levels() -> dict[str, int]:
    """Return the levels of this process: the root logger's (``""``) and those of loggers with a level of their own."""
    loggers = list(logging.root.manager.loggerDict.items())
    own = {
        name: logger.level
        for name, logger in loggers
        if isinstance(logger, logging.Logger) and logger.level and name.partition(".")[0] not in _DASK_LOGGERS
    }
    return {"": logging.root.level, **own}


class TaskLogLevels:
    """The levels that the tasks of this process request. Not thread-safe: the caller holds a lock."""

    def __init__(self) -> None:
        self._requests: list[Mapping[str, int]] = []  # one per task
        self._original: dict[str, int] = {}
        self._applied: dict[str, int] = {}
        self._filter = _TaskRecordFilter(self)

    def add(self, levels: Mapping[str, int]) -> None:
        """Add the levels of a task that begins."""
        is_new = levels not in self._requests
        self._requests.append(levels)
        if is_new:
            self._apply()

    def remove(self, levels: Mapping[str, int]) -> None:
        """Remove the levels of a task that has ended."""
        self._requests.remove(levels)
        if levels not in self._requests:
            self._apply()

    def keeps(self, record: logging.LogRecord, levels: Mapping[str, int]) -> bool:
        """Return True if a task with these levels gets the record."""
        for name in _with_ancestors(record.name):
            if level := self._changed(name) or levels.get(name) or self._original.get(name):
                return record.levelno >= level
        return True

    def was_kept(self, record: logging.LogRecord) -> bool:
        """Return True if the record would have been made without any tasks."""
        for name in _with_ancestors(record.name):
            if level := self._changed(name) or self._original.get(name):
                return record.levelno >= level
        return True

    def _changed(self, name: str) -> int:
        """Return the level that code in this process has set, other than for tasks; 0 if none."""
        logger = logging.root.manager.loggerDict.get(name) if name else logging.root
        if not isinstance(logger, logging.Logger) or self._applied.get(name) == logger.level:
            return 0
        return logger.level

    def _apply(self) -> None:
        requested: dict[str, int] = {}
        for levels in self._requests:
            for name, level in levels.items():
                requested[name] = min(level, requested.get(name, level))
        for name in [*self._applied]:
            if name not in requested:
                self._restore(name)
        for name, level in requested.items():
            logger = logging.getLogger(name) if name else logging.root
            if name not in self._applied:
                self._original[name] = logger.level
            original = self._original[name]
            self._applied[name] = lowest = min(level, original) if original else level
            if logger.level != lowest:  # each change clears the caches of all loggers
                logger.setLevel(lowest)
        self._filter_handlers()

    def _restore(self, name: str) -> None:
        logger = logging.getLogger(name) if name else logging.root
        original, applied = self._original.pop(name), self._applied.pop(name)
        if logger.level == applied and applied != original:  # else a task has set another level
            logger.setLevel(original)

    def _filter_handlers(self) -> None:
        """Keep records that are made only for tasks from the handlers that were there before."""
        for handler in logging.root.handlers:
            handler.removeFilter(self._filter)
            if self._requests and type(handler).__module__ != "dispatcher.executors.task_logs":
                handler.addFilter(self._filter)


def _with_ancestors(name: str) -> Iterator[str]:
    """Yield the names of a logger and its ancestors, up to the root logger (``""``)."""
    while name and name != "root":
        yield name
        name = name.rpartition(".")[0]
    yield ""


class _TaskRecordFilter(logging.Filter):
    """Rejects records that are made only for tasks."""

    def __init__(self, levels: TaskLogLevels) -> None:
        super().__init__()
        self._levels = levels

    def filter(self, record: logging.LogRecord) -> bool:
        return self._levels.was_kept(record)
