"""Import from bundles in this process, as a flow's program imported from its project.

While a run is under way, its bundles' directories come first on ``sys.path``. Modules that bear the name of one of
theirs, and were imported by others before, step aside: the engine and its libraries keep the objects that they have
imported, and the flow's code imports its own. Between two runs nothing of a bundle is importable.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterable
from types import ModuleType

from dispatcher.code.cache import BundleCache, Unpacked
from dispatcher.code.imported_modules import ImportedModules
from dispatcher.errors import Permanent
from dispatcher.runs.states import Cause


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
        self._modules: dict[str, ModuleType] = {}  # imported by runs of these bundles
        self._imported = ImportedModules(frozenset())
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
            self._check_python(bundle)
        if wanted != self._digests:
            self._cache.release(keep=frozenset(wanted))
            self._forget_paths()
            self._digests, self._modules = wanted, {}
            self._paths = tuple(path for bundle in bundles for path in bundle.paths)
            self._imported = ImportedModules(frozenset().union(*(bundle.modules for bundle in bundles)))
            importlib.invalidate_caches()
        if not wanted:
            return
        self._entered = True
        self._aside = self._imported.take()
        self._imported.put(self._modules)
        sys.path[0:0] = self._paths

    def leave(self) -> None:
        """Import from no bundle any more; keep the modules for the next run of the same bundles."""
        if not self._entered:
            return
        self._entered = False
        paths = set(self._paths)
        sys.path[:] = [path for path in sys.path if path not in paths]
        self._modules = self._imported.take()
        self._imported.put(self._aside)
        self._aside = {}

    def _forget_paths(self) -> None:
        for path in self._paths:
            for cached in [entry for entry in sys.path_importer_cache if entry.startswith(path)]:
                del sys.path_importer_cache[cached]

    def _check_python(self, bundle: Unpacked) -> None:
        if bundle.python != self._python:
            raise Permanent(
                f"code bundle packed under Python {bundle.python}, but this process runs Python {self._python}: use "
                "the same minor version on both",
                cause=Cause.CONFIG_ERROR,
                reason="PythonVersion",
            )
