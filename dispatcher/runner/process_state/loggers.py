"""Loggers as they were before the first run of a process."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from typing import Any, NamedTuple


class _Kept(NamedTuple):
    """A logger and its settings."""

    logger: logging.Logger
    level: int
    propagate: bool
    disabled: bool
    handlers: list[logging.Handler]
    filters: list[Any]

    @classmethod
    def of(cls, one: logging.Logger) -> _Kept:
        """As they are now."""
        return cls(one, one.level, one.propagate, one.disabled, list(one.handlers), list(one.filters))

    def restore(self) -> None:
        """Put them back, and close handlers that were added."""
        one = self.logger
        added = [handler for handler in one.handlers if handler not in self.handlers]
        one.propagate, one.disabled = self.propagate, self.disabled
        one.handlers[:], one.filters[:] = self.handlers, self.filters
        one.setLevel(self.level)
        for handler in added:
            with suppress(Exception):
                handler.close()


class Loggers:
    """All of them. One that a run made is put back to what a new one is like, but for those that installed packages
    made as they were loaded: these stay as they are."""

    def __init__(self) -> None:
        self._known = {name: _Kept.of(logger) for name, logger in _all()}
        self._met = len(logging.root.manager.loggerDict)
        self._disabled = logging.root.manager.disable
        self._class = logging.getLoggerClass()
        self._raises = logging.raiseExceptions
        self._factory = logging.getLogRecordFactory()
        self._names = dict(logging._levelToName), dict(logging._nameToLevel)

    def restore(self, loaded: Collection[str] = ()) -> None:
        """After a run.

        Args:
            loaded: names of installed packages that it was the first to load.
        """
        if logging.root.manager.disable != self._disabled:
            logging.disable(self._disabled)
        logging.raiseExceptions = self._raises
        logging.setLogRecordFactory(self._factory)
        names, levels = self._names
        if logging._levelToName != names or logging._nameToLevel != levels:
            logging._levelToName.clear()
            logging._levelToName.update(names)
            logging._nameToLevel.clear()
            logging._nameToLevel.update(levels)
        if logging.getLoggerClass() is not self._class:
            logging.setLoggerClass(self._class)
        for kept in _changed(self._known.values()):
            kept.restore()
        if len(logging.root.manager.loggerDict) != self._met:
            self._meet(loaded)
            self._met = len(logging.root.manager.loggerDict)

    def _meet(self, loaded: Collection[str]) -> None:
        """Loggers that weren't there before."""
        for name, logger in _all():
            if name in self._known:
                continue
            kept = _Kept.of(logger)
            if name.partition(".")[0] not in loaded:
                kept = _Kept(logger, logging.NOTSET, True, False, [], [])
                kept.restore()
            self._known[name] = kept


def _changed(known: Iterable[_Kept]) -> list[_Kept]:
    """In one expression: there are hundreds, and hardly ever one that has changed."""
    return [
        kept
        for kept in known
        for one, level, propagate, disabled, handlers, filters in (kept,)
        if one.level != level
        or one.propagate is not propagate
        or one.disabled is not disabled
        or one.handlers != handlers
        or one.filters != filters
    ]


def _all() -> Iterator[tuple[str, logging.Logger]]:
    yield "", logging.root
    for name, logger in list(logging.root.manager.loggerDict.items()):
        if isinstance(logger, logging.Logger):
            yield name, logger
