"""Import from bundles in this process, as a flow's program imported from its project.

While a run is under way, its bundles' directories come first on ``sys.path``. Modules that bear the name of one of
theirs, and were imported by others before, step aside: the engine and its libraries keep the objects that they have
imported, and the flow's code imports its own (:mod:`.shadowing`). Between two runs nothing of a bundle is importable.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from importlib.machinery import ExtensionFileLoader
from pathlib import Path
from types import ModuleType

from dispatcher.code.cache import BundleCache, Unpacked
from dispatcher.code.imported_modules import ImportedModules, forget_paths, remove_paths
from dispatcher.code.shadowing import OutsideFinder, OutsideImports, find_outside
from dispatcher.errors import Permanent
from dispatcher.runs.states import Cause

_current: tuple[Unpacked, ...] = ()


def current_bundles() -> tuple[Unpacked, ...]:
    """Return the bundles from which this process imports for the run that is under way."""
    return _current


def _note_current(bundles: Iterable[Unpacked]) -> None:
    global _current  # noqa: PLW0603 - sys.path and sys.modules are the process's, too
    _current = tuple(bundles)


@contextmanager
def importing(*archives: bytes | None, python: str, directory: Path | None = None) -> Iterator[None]:
    """Import from bundles first, in a process that runs one flow.

    Args:
        archives: the bundles, the first first on ``sys.path``; None for one that there isn't.
        python: this interpreter, ``major.minor``.
        directory: a private directory to unpack them in; by default a temporary one, which is removed at the end.

    Raises:
        Permanent: one was packed under another minor version of Python.
        Malformed: one is no bundle.
    """
    bundles = {sha256(archive).hexdigest(): archive for archive in archives if archive is not None}
    if not bundles:
        yield
        return
    cache = BundleCache(directory)
    importer = BundleImporter(cache, python)
    try:
        importer.enter(bundles, bundles.__getitem__)
        yield
    finally:
        importer.leave()
        cache.close()


@dataclass(frozen=True)
class _Names:
    """The top-level names of some bundles.

    Attributes:
        own: imported from the bundles.
        shared: namespace packages of which others have a part as well.
        shadowed: those of ``own`` that others import from elsewhere.
        foreign: names of files in the bundles that the program imported from elsewhere.
    """

    own: frozenset[str] = frozenset()
    shared: frozenset[str] = frozenset()
    shadowed: frozenset[str] = frozenset()
    foreign: frozenset[str] = frozenset()


@dataclass
class _Active:
    """Bundles from which this process imports now, and what leaves with them."""

    aside: dict[str, ModuleType] = field(default_factory=dict)  # modules of others
    imports: OutsideImports | None = None
    finder: OutsideFinder | None = None


class BundleImporter:
    """Makes the modules of bundles importable for one run after the other.

    Runs of the same bundles share the modules that they have imported, with their globals. Runs of others don't see
    them.

    Args:
        cache: unpacks bundles.
        python: this interpreter, ``major.minor``.
    """

    def __init__(self, cache: BundleCache, python: str) -> None:
        self._cache = cache
        self._python = python
        self._digests: tuple[str, ...] = ()
        self._paths: tuple[str, ...] = ()
        self._names = _Names()
        self._modules: dict[str, ModuleType] = {}  # imported by runs of these bundles
        self._imported = ImportedModules(frozenset())
        self._active: _Active | None = None

    def enter(self, digests: Iterable[str], fetch: Callable[[str], bytes]) -> None:
        """Import from these bundles, and from no others, until :meth:`leave`.

        Args:
            digests: of the bundles, the first first on ``sys.path``.
            fetch: gives an archive by its digest; its KeyError means that it isn't kept any more.

        Raises:
            Permanent: a bundle was packed under another minor version of Python.
            InvalidInput: one isn't kept any more.
            SealBroken: one was changed.
        """
        self.leave()
        wanted = tuple(dict.fromkeys(digests))
        bundles = [self._cache.get(digest, fetch) for digest in wanted]
        for bundle in bundles:
            check_python(bundle, self._python)
        if wanted != self._digests:
            self._cache.release(keep=frozenset(wanted))
            forget_paths(self._paths)
            self._digests, self._modules = wanted, {}
            self._paths = tuple(path for bundle in bundles for path in bundle.paths)
            self._names = _sorted_out(bundles)
            self._imported = ImportedModules(self._names.own)
            importlib.invalidate_caches()
        if wanted:
            _note_current(bundles)
            self._active = self._activated()

    def leave(self) -> None:
        """Import from no bundle any more; keep the modules for the next run of the same bundles."""
        active, self._active = self._active, None
        if active is None:
            return
        _note_current(())
        if active.imports is not None:
            active.imports.remove()
        if active.finder is not None:
            sys.meta_path[:] = [finder for finder in sys.meta_path if finder is not active.finder]
        remove_paths(self._paths)
        self._modules = self._imported.take() | self._take_shared()
        self._imported.put(active.aside)

    def leftovers(self) -> list[str]:
        """Return what a process can't forget of these bundles: reasons to replace it."""
        return [
            f"extension module {name} of the flow's project: it can't be unloaded"
            for name, module in self._modules.items()
            if isinstance(getattr(getattr(module, "__spec__", None), "loader", None), ExtensionFileLoader)
        ]

    def _activated(self) -> _Active:
        names, paths = self._names, self._paths
        active = _Active(self._imported.take())
        for name in [name for name in self._modules if name.partition(".")[0] in names.shared]:
            sys.modules[name] = module = self._modules.pop(name)
            parent, _, child = name.rpartition(".")
            setattr(sys.modules[parent], child, module)
        self._imported.put(self._modules)
        sys.path[0:0] = paths
        if names.shadowed:
            active.imports = OutsideImports(names.shadowed, active.aside, paths)
            active.imports.install()
        if names.foreign:
            active.finder = OutsideFinder(names.foreign, paths)
            sys.meta_path.insert(0, active.finder)
        return active

    def _take_shared(self) -> dict[str, ModuleType]:
        """Take the bundles' own modules out of namespace packages of which others have a part."""
        taken: dict[str, ModuleType] = {}
        if not self._names.shared:
            return taken
        for name in [name for name in sys.modules if name.partition(".")[0] in self._names.shared]:
            if self._is_own(sys.modules[name]):
                taken[name] = sys.modules.pop(name)
                parent, _, child = name.rpartition(".")
                with suppress(AttributeError, KeyError):
                    delattr(sys.modules[parent], child)
        return taken

    def _is_own(self, module: ModuleType) -> bool:
        file = getattr(module, "__file__", None)
        places = list(getattr(module, "__path__", ())) if file is None else [file]
        return bool(places) and all(place.startswith(tuple(f"{path}/" for path in self._paths)) for place in places)


def check_python(bundle: Unpacked, python: str) -> None:
    """Check that a bundle was packed under the minor version of this interpreter.

    Raises:
        Permanent: it wasn't.
    """
    if bundle.python != python:
        raise Permanent(
            f"code bundle packed under Python {bundle.python}, but this process runs Python {python}: use the same "
            "minor version on both",
            cause=Cause.CONFIG_ERROR,
            reason="PythonVersion",
        )


def _sorted_out(bundles: Iterable[Unpacked]) -> _Names:
    """Compare the names of bundles with what is importable without them. No bundle may be on ``sys.path``."""
    own, shared, shadowed, foreign = set(), set(), set(), set()
    for bundle in bundles:
        for name, regular in bundle.importable.items():
            outside = _is_regular_outside(name)
            if outside and name not in bundle.modules:
                foreign.add(name)
            elif not regular and outside is False:
                shared.add(name)
            else:
                own.add(name)
                shadowed |= set() if outside is None else {name}
    return _Names(frozenset(own), frozenset(shared - own), frozenset(shadowed), frozenset(foreign - own))


def _is_regular_outside(name: str) -> bool | None:
    """Return True for a module or regular package of this machine, False for a namespace package, None for nothing."""
    if name in sys.stdlib_module_names:
        return True
    spec = getattr(sys.modules.get(name), "__spec__", None) or find_outside(name, list(sys.path))
    return None if spec is None else spec.origin is not None
