"""The imported modules of a bundle, taken out of ``sys.modules`` and put back. Used by :mod:`.activation`."""

from __future__ import annotations

import sys
from types import ModuleType


class ImportedModules:
    """The modules in ``sys.modules`` that bear, or are below, one of some top-level names.

    All of ``sys.modules`` is searched only if a module came or went since: that takes as long as a tenth of a run.
    """

    def __init__(self, names: frozenset[str]) -> None:
        self._names = names
        self._found: tuple[str, ...] = ()
        self._stamp: tuple[int, str] | None = None

    def take(self) -> dict[str, ModuleType]:
        """Remove them, and return them."""
        if self._stamp is None or self._stamp != _stamp():
            self._found = tuple(name for name in list(sys.modules) if self._has(name))
        return {name: sys.modules.pop(name) for name in self._found if name in sys.modules}

    def put(self, modules: dict[str, ModuleType]) -> None:
        """Add modules of these names, after :meth:`take`."""
        sys.modules.update(modules)
        self._found, self._stamp = tuple(modules), _stamp()

    def _has(self, name: object) -> bool:
        return isinstance(name, str) and name.partition(".")[0] in self._names


def _stamp() -> tuple[int, str] | None:
    """A value that differs when a module was imported or removed; None if a flow has replaced ``sys.modules``."""
    modules = sys.modules
    return (len(modules), next(reversed(modules))) if type(modules) is dict else None
