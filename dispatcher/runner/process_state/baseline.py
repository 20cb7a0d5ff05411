"""The state of a process before its first run, which is restored after each run, so that no run affects the next.

If something can't be restored, the reasons are returned, and the worker replaces the process. Called by the worker's
pool processes after an outcome was written; a container runs one attempt and exits.
"""

from __future__ import annotations

from collections.abc import Hashable
from contextlib import suppress
from typing import Any

from dispatcher.runner.process_state.aspects import ASPECTS, Aspect, reset_libraries
from dispatcher.runner.process_state.loggers import LoggerBaseline
from dispatcher.runner.process_state.modules import ModuleBaseline


class Baseline:
    """The state of this process before its first run. Use it only in the main thread.

    Modules of a flow's own code stay loaded, with their globals, for the next run of the same code. Installed modules
    stay loaded for all runs.
    """

    def __init__(self) -> None:
        self._before = [aspect.read() for aspect in ASPECTS]
        self._modules = ModuleBaseline()
        self._loggers = LoggerBaseline()

    def prepare(self, code: Hashable) -> None:
        """Remove the modules of other code, before a run's code is loaded.

        Args:
            code: identifies the run's code.
        """
        self._modules.prepare(code)

    def restore(self) -> list[str]:
        """Restore the state after a run. Return what couldn't be restored, as reasons to replace the process."""
        reasons = []
        loaded = self._modules.restore()
        for index, aspect in enumerate(() if self._is_unchanged() else ASPECTS):
            if not _is_unchanged(aspect, self._before[index]):
                self._before[index] = _with_additions(aspect, self._before[index])
                if reason := _restore(aspect, self._before[index]):
                    reasons.append(reason)
        self._loggers.restore(loaded)
        reset_libraries()
        return reasons

    def _is_unchanged(self) -> bool:
        """Return True if no aspect has changed. Compares all at once, which is fast: they rarely change."""
        with suppress(Exception):
            return [aspect.read() for aspect in ASPECTS] == self._before
        return False


def _is_unchanged(aspect: Aspect, before: Any) -> bool:
    try:
        return bool(aspect.read() == before)
    except Exception:  # a removed directory, an object of the flow that can't be compared
        return False


def _with_additions(aspect: Aspect, before: Any) -> Any:
    """Return the value to restore: the earlier one, with the additions of installed modules."""
    with suppress(Exception):
        if aspect.keep is not None:
            return aspect.keep(before)
    return before


def _restore(aspect: Aspect, before: Any) -> str:
    """Restore one aspect. Return the reason if that fails, otherwise an empty text."""
    if _is_unchanged(aspect, before):
        return ""
    if aspect.restore is None:
        return f"{aspect.name}: {_describe_change(aspect.read(), before)}"
    with suppress(Exception):
        aspect.restore(before)
    return "" if _is_unchanged(aspect, before) else f"{aspect.name}: can't be put back"


def _describe_change(now: Any, before: Any) -> str:
    return ", ".join(sorted(now - before)) if isinstance(now, frozenset) else "changed"
