"""Modules that runs load into a process: which stay for all, which for runs of the same code, and which go."""

from __future__ import annotations

import sys
from collections.abc import Hashable
from types import ModuleType

from dispatcher.serialization.by_value import travels_by_value


class Modules:
    """The modules that were loaded before the first run, and those that stay loaded since."""

    def __init__(self) -> None:
        self._table = sys.modules
        self._kept = dict(sys.modules)
        self._brought: dict[str, ModuleType] = {}
        self._all = dict(self._kept)  # both
        self._code: Hashable = None

    def prepare(self, code: Hashable) -> None:
        """Before a run: take away the modules that other code brought."""
        if code != self._code:
            for name in self._brought:
                self._table.pop(name, None)
            self._brought = {}
            self._all = dict(self._table)
            self._code = code

    def restore(self) -> frozenset[str]:
        """After a run: put back what was replaced or removed, and keep what is installed.

        Returns:
            Names of installed packages of which modules were loaded.
        """
        if sys.modules is not self._table:
            sys.modules = self._table
        if self._table == self._all:
            return frozenset()
        for name, module in self._kept.items():
            if self._table.get(name) is not module:
                self._table[name] = module
        new = {name: module for name, module in self._table.items() if name not in self._kept}
        stay = {name: module for name, module in new.items() if _is_installed(name, module)}
        self._kept |= stay
        self._brought = {name: module for name, module in new.items() if name not in stay}
        self._all = dict(self._table)
        return frozenset(name.partition(".")[0] for name in stay)


def is_of_installed(value: object) -> bool:
    """Return True if a function, a class or an object is of an installed module: who loaded that set it up for good."""
    name = getattr(value, "__module__", None)
    name = name if isinstance(name, str) else type(value).__module__
    return name not in {"__main__", "builtins"} and name in sys.modules and not travels_by_value(name)


def _is_installed(name: str, module: object) -> bool:
    """Return True if it was imported from where the standard library and packages are; what was made at run time
    wasn't."""
    try:
        return (
            isinstance(name, str)
            and isinstance(module, ModuleType)
            and bool(module.__spec__)
            and not travels_by_value(name)
        )
    except Exception:  # a module of the flow's own making, with attributes of its own
        return False
