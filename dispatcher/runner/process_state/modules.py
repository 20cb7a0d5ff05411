"""Modules that runs load into a process: installed ones stay for all runs, a flow's own for runs of the same code.

Used by :mod:`dispatcher.runner.process_state.baseline`.
"""

from __future__ import annotations

import sys
from collections.abc import Hashable
from types import ModuleType

from dispatcher.serialization.by_value import travels_by_value, travels_in_bundle


class ModuleBaseline:
    """The modules that were loaded before the first run, and those that have stayed loaded since."""

    def __init__(self) -> None:
        self._table = sys.modules
        self._permanent = dict(sys.modules)
        self._of_code: dict[str, ModuleType] = {}
        self._code: Hashable = None
        self._note_all()

    def prepare(self, code: Hashable) -> None:
        """Remove the modules of other code, before a run."""
        if code != self._code:
            for name in self._of_code:
                self._table.pop(name, None)
            self._of_code = {}
            self._code = code
            self._note_all()

    def restore(self) -> frozenset[str]:
        """Restore replaced and removed modules after a run, and make newly installed ones permanent.

        Returns:
            Names of the installed packages whose modules the run loaded.
        """
        if sys.modules is not self._table:
            sys.modules = self._table
        if self._is_unchanged():
            return frozenset()
        for name, module in self._permanent.items():
            if self._table.get(name) is not module:
                self._table[name] = module
        new = {name: module for name, module in self._table.items() if name not in self._permanent}
        installed = {name: module for name, module in new.items() if _is_installed(name, module)}
        self._permanent |= installed
        self._of_code = {name: module for name, module in new.items() if name not in installed}
        self._note_all()
        return frozenset(name.partition(".")[0] for name in installed)

    def _note_all(self) -> None:
        self._modules = list(self._table.values())
        self._last_name = next(reversed(self._table), None)

    def _is_unchanged(self) -> bool:
        """Return True if the table has the same modules under the same names.

        A name that is added comes last, so the names needn't be compared, which would take twice as long.
        """
        return next(reversed(self._table), None) == self._last_name and list(self._table.values()) == self._modules


def is_of_installed(value: object) -> bool:
    """Return True if a function, a class or an object comes from an installed module, which stays loaded."""
    name = getattr(value, "__module__", None)
    name = name if isinstance(name, str) else type(value).__module__
    return name not in {"__main__", "builtins"} and name in sys.modules and not _is_of_code(name)


def _is_of_code(name: str) -> bool:
    """Return True if a module belongs to a flow's own code."""
    return travels_by_value(name) or travels_in_bundle(name)


def _is_installed(name: str, module: object) -> bool:
    """Return True if a module was imported from the standard library or an installed package. One that was created at
    run time wasn't."""
    try:
        return (
            isinstance(name, str) and isinstance(module, ModuleType) and bool(module.__spec__) and not _is_of_code(name)
        )
    except Exception:  # a module object that the flow made, whose attributes may raise
        return False
