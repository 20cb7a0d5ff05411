"""The imported modules and paths of a bundle, taken out of ``sys.modules`` and ``sys.path``, and put back.

Used by :mod:`.activation`, :mod:`.shadowing` and :mod:`.sharing`.
"""

from __future__ import annotations

import sys
from collections.abc import Collection
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


def take_modules(names: Collection[str]) -> dict[str, ModuleType]:
    """Remove the modules of some top-level names from ``sys.modules``, and return them."""
    taken = [name for name in list(sys.modules) if name.partition(".")[0] in names]
    return {name: sys.modules.pop(name) for name in taken}


def remove_paths(paths: Collection[str]) -> None:
    """Remove directories from ``sys.path``."""
    sys.path[:] = [entry for entry in sys.path if entry not in paths]


def forget_paths(paths: Collection[str]) -> None:
    """Remove what the import system has remembered of directories, and all below them."""
    for path in paths:
        for cached in [entry for entry in sys.path_importer_cache if entry.startswith(path)]:
            del sys.path_importer_cache[cached]
