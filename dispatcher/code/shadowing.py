"""Names that both a bundle and this machine have: each importer gets its own module.

A project may have a ``yaml.py`` or a package ``kubernetes``. Its own code imports those, as in its program. The engine,
installed libraries and the standard library import the installed ones, also late, while the flow runs. Used by
:mod:`.activation` for such names alone: imports of a bundle without any are left as they are.
"""

from __future__ import annotations

import builtins
import importlib
import sys
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

from dispatcher.code.imported_modules import take_modules
from dispatcher.code.locations import is_installed

#: Seconds to wait for another thread's import. Longer means that the two wait for each other, as import locks may.
_PATIENCE = 10.0

_STDLIB = sys.stdlib_module_names | {"_frozen_importlib", "_frozen_importlib_external"}

_bootstrap: Any = importlib._bootstrap  # where import_module looks, however it was imported


class OutsideImports:
    """Gives installed code the installed modules, while those of a bundle have their names.

    Args:
        names: top-level names that both have.
        aside: the outside modules of these names, by full name; grows by those that are imported later.
        paths: the bundle's directories on ``sys.path``.
    """

    def __init__(self, names: frozenset[str], aside: dict[str, ModuleType], paths: tuple[str, ...]) -> None:
        self._names = names
        self._aside = aside
        self._paths = paths
        self._lock = threading.RLock()
        self._depth = 0
        self._import: Callable[..., Any] = builtins.__import__
        self._import_module: Callable[..., Any] = _bootstrap._gcd_import

    def install(self) -> None:
        """Take part in all imports of this process."""
        builtins.__import__ = self._statement
        _bootstrap._gcd_import = self._call

    def remove(self) -> None:
        """Take no part any more, whatever the flow has put in place."""
        builtins.__import__ = self._import
        _bootstrap._gcd_import = self._import_module

    def _statement(
        self,
        name: str,
        globals: Mapping[str, Any] | None = None,
        locals: Mapping[str, Any] | None = None,
        fromlist: Any = (),
        level: int = 0,
    ) -> Any:
        """Stand in for ``__import__``."""
        package = (globals or {}).get("__package__") or "" if level else name
        if package.partition(".")[0] not in self._names:
            return self._import(name, globals, locals, fromlist, level)
        # The interpreter's own C code, such as that of pickle, gives a list, and then looks into sys.modules.
        if globals is None or type(fromlist) is list or not _is_installed_code(globals):
            with self._waiting():
                return self._import(name, globals, locals, fromlist, level)
        if not level and (loaded := self._loaded(name, fromlist or ())) is not None:
            return loaded
        with self._outside():
            return self._import(name, globals, locals, fromlist, level)

    def _call(self, name: str, package: str | None = None, level: int = 0) -> Any:
        """Stand in for what ``import_module`` calls, for whoever calls it, the standard library's helpers left out."""
        if ((package or "") if level else name).partition(".")[0] not in self._names:
            return self._import_module(name, package, level)
        caller = sys._getframe(1)
        while caller.f_back is not None and _is_stdlib_code(caller.f_globals):
            caller = caller.f_back
        installed = _is_installed_code(caller.f_globals)
        with self._outside() if installed else self._waiting():
            return self._import_module(name, package, level)

    def _loaded(self, name: str, members: Collection[str]) -> ModuleType | None:
        """The module that an import statement gives, if nothing has to be loaded for it."""
        module = self._aside.get(name)
        if module is None or not all(hasattr(module, member) for member in members):
            return None
        return module if members else self._aside.get(name.partition(".")[0])

    @contextmanager
    def _waiting(self) -> Iterator[None]:
        taken = self._lock.acquire(timeout=_PATIENCE)
        try:
            yield
        finally:
            if taken:
                self._lock.release()

    @contextmanager
    def _outside(self) -> Iterator[None]:
        """Import as if there was no bundle."""
        with self._waiting():
            if self._depth:  # an import within an import
                yield
                return
            of_bundle = take_modules(self._names)
            sys.modules.update(self._aside)
            sys.path[:] = [path for path in sys.path if path not in self._paths]
            self._depth += 1
            try:
                yield
            finally:
                self._depth -= 1
                self._aside.update(take_modules(self._names))
                sys.modules.update(of_bundle)
                sys.path[0:0] = self._paths


class OutsideFinder:
    """Finds names outside of a bundle, although it has files of these names: its program didn't import those.

    Args:
        names: top-level names.
        paths: the bundle's directories on ``sys.path``.
    """

    def __init__(self, names: frozenset[str], paths: tuple[str, ...]) -> None:
        self._names = names
        self._paths = paths

    def find_spec(self, name: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Find a top-level module elsewhere; None for all others."""
        if path is not None or name not in self._names:
            return None
        return find_outside(name, [entry for entry in sys.path if entry not in self._paths])


def find_outside(name: str, path: list[str]) -> ModuleSpec | None:
    """Find a top-level module on a path, or where other finders know it; None if it isn't there."""
    for finder in sys.meta_path:
        if isinstance(finder, OutsideFinder):
            continue
        spec = finder.find_spec(name, path)
        if spec is not None:
            return spec
    return None


def _is_installed_code(importer: Mapping[str, Any]) -> bool:
    name, file = importer.get("__name__"), importer.get("__file__")
    return isinstance(name, str) and isinstance(file, str) and _is_installed_file(name, file)


def _is_stdlib_code(importer: Mapping[str, Any]) -> bool:
    return str(importer.get("__name__")).partition(".")[0] in _STDLIB and _is_installed_code(importer)


@cache
def _is_installed_file(name: str, file: str) -> bool:
    return name != "__main__" and is_installed(name, Path(file))
