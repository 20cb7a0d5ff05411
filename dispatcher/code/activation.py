"""Import from bundles in this process, as a flow's program imported from its project.

A bundle's directories come first on ``sys.path``. Modules that bear the name of one of its modules, and were imported
by others before, step aside while it is active: the engine and its libraries keep the objects that they have imported,
and the flow's code imports its own.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from types import ModuleType

from dispatcher.code.cache import BundleCache, Unpacked
from dispatcher.errors import Permanent
from dispatcher.runs.states import Cause


@dataclass
class Active:
    """The bundles that a process imports from.

    Attributes:
        digests: of the bundles.
        paths: what they have put onto ``sys.path``.
    """

    digests: frozenset[str] = frozenset()
    paths: tuple[str, ...] = ()
    _stepped_aside: dict[str, ModuleType] = field(default_factory=dict)
    _modules: frozenset[str] = frozenset()

    def activate(self, digests: Iterable[str], cache: BundleCache, fetch: Callable[[str], bytes], python: str) -> None:
        """Import from these bundles, and from no others, from now on.

        Args:
            digests: of the bundles, the first first on ``sys.path``.
            cache: unpacks them.
            fetch: gives an archive by its digest.
            python: this interpreter, ``major.minor``.

        Raises:
            Permanent: one was packed under another minor version of Python.
            InvalidInput: one isn't kept any more.
            SealBroken: one was changed.
        """
        wanted = tuple(dict.fromkeys(digests))
        if frozenset(wanted) != self.digests:
            self.deactivate()
        if not wanted:
            return
        bundles = [cache.get(digest, fetch) for digest in wanted]
        for bundle in bundles:
            _check_python(bundle, python)
        if self.digests:
            self._put_onto_path()
            return
        self.digests = frozenset(wanted)
        self.paths = tuple(path for bundle in bundles for path in bundle.paths)
        self._modules = frozenset().union(*(bundle.modules for bundle in bundles))
        self._put_onto_path()
        self._step_aside()

    def deactivate(self) -> None:
        """Take the bundles' modules and directories away, and put back what had stepped aside."""
        paths = set(self.paths)
        sys.path[:] = [path for path in sys.path if path not in paths]
        for name in [name for name in sys.modules if name.partition(".")[0] in self._modules]:
            del sys.modules[name]
        sys.modules.update(self._stepped_aside)
        for path in self.paths:
            for cached in [entry for entry in sys.path_importer_cache if entry.startswith(path)]:
                del sys.path_importer_cache[cached]
        self.digests, self.paths, self._modules, self._stepped_aside = frozenset(), (), frozenset(), {}

    def is_from_bundle(self, name: str) -> bool:
        """Return True if a module of that name is imported from an active bundle."""
        return name.partition(".")[0] in self._modules

    def _put_onto_path(self) -> None:
        missing = [path for path in self.paths if path not in sys.path]
        sys.path[0:0] = missing
        if missing:
            importlib.invalidate_caches()

    def _step_aside(self) -> None:
        for name in [name for name in sys.modules if name.partition(".")[0] in self._modules]:
            module = sys.modules.pop(name)
            self._stepped_aside[name] = module


def _check_python(bundle: Unpacked, python: str) -> None:
    if bundle.python != python:
        raise Permanent(
            f"code bundle packed under Python {bundle.python}, but this process runs Python {python}: use the same "
            "minor version on both",
            cause=Cause.CONFIG_ERROR,
            reason="PythonVersion",
        )


#: This process's.
active = Active()
