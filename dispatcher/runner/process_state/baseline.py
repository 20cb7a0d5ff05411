"""The state of a process before its first run, which is restored after each: two runs of one process are strangers.

What can't be put back is told, and the process ends. Called by the worker's pool processes, after an outcome was
written; a container runs one attempt and ends.
"""

from __future__ import annotations

from collections.abc import Hashable
from contextlib import suppress
from typing import Any

from dispatcher.runner.process_state.aspects import ASPECTS, Aspect, reset_libraries
from dispatcher.runner.process_state.loggers import Loggers
from dispatcher.runner.process_state.modules import Modules


class Baseline:
    """The state of this process before its first run. For its main thread.

    Modules that a flow's code brought stay loaded, with their globals, for the next run of the same code. What is
    installed stays for all.
    """

    def __init__(self) -> None:
        self._before = [aspect.read() for aspect in ASPECTS]
        self._modules = Modules()
        self._loggers = Loggers()

    def prepare(self, code: Hashable) -> None:
        """Before a run's code is opened: take away what other code brought.

        Args:
            code: what tells one code from another.
        """
        self._modules.prepare(code)

    def restore(self) -> list[str]:
        """After a run: put everything back; what couldn't be, which is a reason for a fresh process."""
        reasons = []
        loaded = self._modules.restore()
        for place, aspect in enumerate(() if self._holds() else ASPECTS):
            if not _holds(aspect, self._before[place]):
                self._before[place] = _wanted(aspect, self._before[place])
                if reason := _restored(aspect, self._before[place]):
                    reasons.append(reason)
        self._loggers.restore(loaded)
        reset_libraries()
        return reasons

    def _holds(self) -> bool:
        """Return True if every aspect is as before: by one comparison of all, since hardly ever one has changed."""
        with suppress(Exception):
            return [aspect.read() for aspect in ASPECTS] == self._before
        return False


def _holds(aspect: Aspect, before: Any) -> bool:
    try:
        return bool(aspect.read() == before)
    except Exception:  # a directory that is gone, a value of the flow's own that can't be compared
        return False


def _wanted(aspect: Aspect, before: Any) -> Any:
    """Return the state that an aspect is to have from now on: as before, with what installed modules have added."""
    with suppress(Exception):
        if aspect.keep is not None:
            return aspect.keep(before)
    return before


def _restored(aspect: Aspect, before: Any) -> str:
    """Put one aspect back; why that can't be done, or nothing."""
    if _holds(aspect, before):
        return ""
    if aspect.restore is None:
        return f"{aspect.name}: {_added(aspect.read(), before)}"
    with suppress(Exception):
        aspect.restore(before)
    return "" if _holds(aspect, before) else f"{aspect.name}: can't be put back"


def _added(now: Any, before: Any) -> str:
    return ", ".join(sorted(now - before)) if isinstance(now, frozenset) else "changed"
