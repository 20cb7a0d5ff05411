"""Levels of loggers in a process whose threads run tasks of several runs, each with levels of its own.

A logger has one level for its whole process. While tasks run it is the least that any of them asks for; what a task
didn't ask for is held back from it, and from handlers that were there before. Called by
:mod:`dispatcher.executors.task_logs`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping

#: Loggers of Dask itself, whose levels are its own affair.
_DASK = frozenset({"distributed", "dask", "tornado", "bokeh", "asyncio"})


def asked() -> dict[str, int]:
    """The levels that this process keeps: of the root logger (``""``) and of those that have one of their own."""
    loggers = list(logging.root.manager.loggerDict.items())
    own = {
        name: one.level
        for name, one in loggers
        if isinstance(one, logging.Logger) and one.level and name.partition(".")[0] not in _DASK
    }
    return {"": logging.root.level, **own}


class Levels:
    """Of one process. Not safe for threads: its caller has a lock."""

    def __init__(self) -> None:
        self._asked: list[Mapping[str, int]] = []  # one for each task
        self._before: dict[str, int] = {}
        self._set: dict[str, int] = {}
        self._quiet = _Quiet(self)

    def add(self, levels: Mapping[str, int]) -> None:
        """A task begins that asks for these."""
        known = levels in self._asked
        self._asked.append(levels)
        if not known:
            self._apply()

    def remove(self, levels: Mapping[str, int]) -> None:
        """One of them has ended."""
        self._asked.remove(levels)
        if levels not in self._asked:
            self._apply()

    def keeps(self, record: logging.LogRecord, levels: Mapping[str, int]) -> bool:
        """Return True if a task that asked for ``levels`` gets a record."""
        for name in _up(record.name):
            if level := self._changed(name) or levels.get(name) or self._before.get(name):
                return record.levelno >= level
        return True

    def was_kept(self, record: logging.LogRecord) -> bool:
        """Return True if it would have been made without tasks here."""
        for name in _up(record.name):
            if level := self._changed(name) or self._before.get(name):
                return record.levelno >= level
        return True

    def _changed(self, name: str) -> int:
        """The level that code here gave a logger, since tasks came or where they ask for none; 0 for none."""
        logger = logging.root.manager.loggerDict.get(name) if name else logging.root
        if not isinstance(logger, logging.Logger) or self._set.get(name) == logger.level:
            return 0
        return logger.level

    def _apply(self) -> None:
        wanted: dict[str, int] = {}
        for levels in self._asked:
            for name, level in levels.items():
                wanted[name] = min(level, wanted.get(name, level))
        for name in [*self._set]:
            if name not in wanted:
                self._put_back(name)
        for name, level in wanted.items():
            logger = logging.getLogger(name) if name else logging.root
            if name not in self._set:
                self._before[name] = logger.level
            before = self._before[name]
            self._set[name] = least = min(level, before) if before else level
            if logger.level != least:  # each change has all loggers forget what they know
                logger.setLevel(least)
        self._hush()

    def _put_back(self, name: str) -> None:
        logger = logging.getLogger(name) if name else logging.root
        before, ours = self._before.pop(name), self._set.pop(name)
        if logger.level == ours and ours != before:  # else a task has set another one
            logger.setLevel(before)

    def _hush(self) -> None:
        """Keep from the handlers that were there what is made for tasks alone."""
        for handler in logging.root.handlers:
            handler.removeFilter(self._quiet)
            if self._asked and type(handler).__module__ != "dispatcher.executors.task_logs":
                handler.addFilter(self._quiet)


def _up(name: str) -> Iterator[str]:
    """A logger and those above it, up to the root logger."""
    while name and name != "root":
        yield name
        name = name.rpartition(".")[0]
    yield ""


class _Quiet(logging.Filter):
    def __init__(self, levels: Levels) -> None:
        super().__init__()
        self._levels = levels

    def filter(self, record: logging.LogRecord) -> bool:
        return self._levels.was_kept(record)
