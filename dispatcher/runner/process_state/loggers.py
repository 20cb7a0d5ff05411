"""The configuration of all loggers before the first run of a process, and its restoration after each run.

Used by :mod:`dispatcher.runner.process_state.baseline`.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from typing import Any, NamedTuple


class _LoggerState(NamedTuple):
    """A logger and its settings."""

    logger: logging.Logger
    level: int
    propagate: bool
    disabled: bool
    handlers: list[logging.Handler]
    filters: list[Any]

    @classmethod
    def of(cls, logger: logging.Logger) -> _LoggerState:
        """Return a logger with its present settings."""
        return cls(logger, logger.level, logger.propagate, logger.disabled, list(logger.handlers), list(logger.filters))

    def restore(self) -> None:
        """Restore the settings, and close handlers that were added."""
        logger = self.logger
        added = [handler for handler in logger.handlers if handler not in self.handlers]
        logger.propagate, logger.disabled = self.propagate, self.disabled
        logger.handlers[:], logger.filters[:] = self.handlers, self.filters
        logger.setLevel(self.level)
        for handler in added:
            with suppress(Exception):
                handler.close()


class LoggerBaseline:
    """The settings of all loggers. Loggers that a run creates are reset to a new logger's settings, except those that
    installed packages create when they are loaded, which keep theirs."""

    def __init__(self) -> None:
        self._states = {name: _LoggerState.of(logger) for name, logger in _all_loggers()}
        self._count = len(logging.root.manager.loggerDict)
        self._disabled = logging.root.manager.disable
        self._class = logging.getLoggerClass()
        self._raises = logging.raiseExceptions
        self._factory = logging.getLogRecordFactory()
        self._names = dict(logging._levelToName), dict(logging._nameToLevel)

    def restore(self, loaded: Collection[str] = ()) -> None:
        """Restore the settings after a run.

        Args:
            loaded: names of the installed packages that the run loaded for the first time.
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
        for state in _changed(self._states.values()):
            state.restore()
        if len(logging.root.manager.loggerDict) != self._count:
            self._add_new_loggers(loaded)
            self._count = len(logging.root.manager.loggerDict)

    def _add_new_loggers(self, loaded: Collection[str]) -> None:
        """Add the loggers that didn't exist before, and reset those that aren't of newly loaded packages."""
        for name, logger in _all_loggers():
            if name in self._states:
                continue
            state = _LoggerState.of(logger)
            if name.partition(".")[0] not in loaded:
                state = _LoggerState(logger, logging.NOTSET, True, False, [], [])
                state.restore()
            self._states[name] = state


def _changed(states: Iterable[_LoggerState]) -> list[_LoggerState]:
    """Return the states that differ from their loggers. One expression, for speed: there are hundreds of loggers."""
    return [
        state
        for state in states
        for logger, level, propagate, disabled, handlers, filters in (state,)
        if logger.level != level
        or logger.propagate is not propagate
        or logger.disabled is not disabled
        or logger.handlers != handlers
        or logger.filters != filters
    ]


def _all_loggers() -> Iterator[tuple[str, logging.Logger]]:
    yield "", logging.root
    for name, logger in list(logging.root.manager.loggerDict.items()):
        if isinstance(logger, logging.Logger):
            yield name, logger
