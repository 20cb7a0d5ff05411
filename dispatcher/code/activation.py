"""Import from bundles in this process, as a flow's program imported from its project.

While a run is under way, its bundles' directories come first on ``sys.path``. Modules that bear the name of one of
theirs, and were imported by others before, step aside: the engine and its libraries keep the objects that they have
imported, and the flow's code imports its own. Between two runs nothing of a bundle is importable.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Collection, Iterable
from types import ModuleType

from dispatcher.code.cache import BundleCache, Unpacked
from dispatcher.errors import Permanent
from dispatcher.runs.states import Cause

_current: list[Unpacked] = []


def current_bundles() -> tuple[Unpacked, ...]:
    """Return the bundles from which this process imports for the run that is under way."""
    return tuple(_current)


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
        self._names: frozenset[str] = frozenset()  # top-level
        self._modules: dict[str, ModuleType] = {}  # imported by runs of these bundles
        self._aside: dict[str, ModuleType] = {}  # of others, while a run is under way
        self._entered = False

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
            self._forget_paths()
            self._digests, self._modules = wanted, {}
            self._paths = tuple(path for bundle in bundles for path in bundle.paths)
            self._names = frozenset().union(*(bundle.modules for bundle in bundles))
        if not wanted:
            return
        self._entered = True
        _current[:] = bundles
        self._aside = take_modules(self._names)
        sys.modules.update(self._modules)
        sys.path[0:0] = self._paths
        importlib.invalidate_caches()

    def leave(self) -> None:
        """Import from no bundle any more; keep the modules for the next run of the same bundles."""
        if not self._entered:
            return
        self._entered = False
        _current.clear()
        paths = set(self._paths)
        sys.path[:] = [path for path in sys.path if path not in paths]
        self._modules = take_modules(self._names)
        sys.modules.update(self._aside)
        self._aside = {}

    def _forget_paths(self) -> None:
        for path in self._paths:
            for cached in [entry for entry in sys.path_importer_cache if entry.startswith(path)]:
                del sys.path_importer_cache[cached]


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


def take_modules(names: Collection[str]) -> dict[str, ModuleType]:
    """Remove the modules of some top-level names from ``sys.modules``, and return them."""
    taken = [name for name in sys.modules if name.partition(".")[0] in names]
    return {name: sys.modules.pop(name) for name in taken}
