"""Import from the bundles of several runs at once, in a process that they share, such as a Dask worker.

All of them import from one ``sys.modules``, so a bundle is let in only while no other one has a module of the same name
and other files. Used by :mod:`dispatcher.executors.dask_code`; a process that runs one flow at a time uses
:mod:`.activation`.
"""

from __future__ import annotations

import importlib
import sys
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from types import ModuleType

from dispatcher.code.activation import check_python
from dispatcher.code.archive import Description, describe
from dispatcher.code.cache import BundleCache, Unpacked
from dispatcher.code.imported_modules import forget_paths, remove_paths, take_modules
from dispatcher.code.locations import is_installed
from dispatcher.errors import InvalidInput


@dataclass(frozen=True)
class User:
    """Somebody who imports from bundles.

    Attributes:
        id: identifies it.
        label: its name in errors.
    """

    id: str
    label: str


@dataclass(frozen=True)
class Prepared:
    """An unpacked bundle.

    Attributes:
        bundle: where it is.
        contents: a digest of each top-level module's content.
    """

    bundle: Unpacked
    contents: Mapping[str, str]


@dataclass
class _Shared:
    """A bundle that is importable now."""

    prepared: Prepared
    holders: Counter[str] = field(default_factory=Counter)  #: by the user's id: it and its running calls
    labels: dict[str, str] = field(default_factory=dict)

    @property
    def bundle(self) -> Unpacked:
        return self.prepared.bundle


class SharedImporter:
    """Makes the modules of bundles importable for all who use them.

    Users of the same files share the modules, with their globals. When nobody uses a bundle any more, its modules are
    forgotten.

    Args:
        cache: unpacks bundles.
        python: this interpreter, ``major.minor``.
    """

    def __init__(self, cache: BundleCache, python: str) -> None:
        self._cache = cache
        self._python = python
        self._shared: dict[str, _Shared] = {}  # by digest
        self._users: dict[str, tuple[str, ...]] = {}  # the digests that each has opened
        self._aside: dict[str, ModuleType] = {}  # modules of others that bear the name of one of a bundle
        self._lock = threading.RLock()
        self._unpacking = threading.Lock()

    def prepare(self, digest: str, fetch: Callable[[str], bytes]) -> Prepared:
        """Unpack a bundle, so that :meth:`open` can make it importable. May take long.

        Args:
            digest: the SHA-256 of its archive, in hex.
            fetch: gives the archive by its digest, if it isn't here.

        Raises:
            Permanent: it was packed under another minor version of Python.
            SealBroken: it was changed.
            Exception: what ``fetch`` raises.
        """
        with self._unpacking:
            bundle = self._cache.get(digest, fetch)
        check_python(bundle, self._python)
        return Prepared(bundle, contents_of(describe(Path(bundle.archive).read_bytes())))

    def open(self, user: User, bundles: Collection[Prepared]) -> str:
        """Make bundles importable until :meth:`close`. A user may open more later.

        Returns:
            The reason why that is impossible as long as others use theirs, which names both; empty if it is done.

        Raises:
            InvalidInput: a module has the name of an installed one that this process has imported.
        """
        with self._lock:
            opened = self._users.get(user.id, ())
            new = [prepared for prepared in bundles if prepared.bundle.digest not in opened]
            for prepared in new:
                if problem := self._collision(user, prepared):
                    return problem
                self._check_names(prepared.bundle)
            for prepared in reversed(new):  # the first comes first on sys.path
                shared = self._begin(prepared)
                shared.holders[user.id] += 1
                shared.labels[user.id] = user.label
            self._users[user.id] = (*opened, *(prepared.bundle.digest for prepared in new))
            return ""

    def is_open(self, user_id: str) -> bool:
        """Return True between a user's :meth:`open` and :meth:`close`."""
        return user_id in self._users

    @contextmanager
    def held(self, user_id: str) -> Iterator[None]:
        """Keep a user's bundles importable during a call, though it closes them meanwhile.

        Raises:
            LookupError: it has opened none.
        """
        with self._lock:
            digests = self._users[user_id]
            for digest in digests:
                self._shared[digest].holders[user_id] += 1
        try:
            yield
        finally:
            self._release(user_id, digests)

    def close(self, user_id: str) -> None:
        """Give a user's bundles back. Closing twice does nothing."""
        with self._lock:
            self._release(user_id, self._users.pop(user_id, ()))

    def _release(self, user_id: str, digests: Collection[str]) -> None:
        with self._lock:
            for digest in digests:
                holders = self._shared[digest].holders
                holders[user_id] -= 1
                holders += Counter()  # drops those at zero
            self._forget_unused()

    def _collision(self, user: User, new: Prepared) -> str:
        """Say which bundle in use has a module of the same name as a new one, but other files."""
        for digest, shared in self._shared.items():
            if digest == new.bundle.digest or not shared.holders:
                continue
            for name in sorted(new.contents.keys() & shared.prepared.contents.keys()):
                if new.contents[name] != shared.prepared.contents[name]:
                    other = shared.labels[next(iter(shared.holders))]
                    return (
                        f"module {name!r} is in two code bundles with different files: {new.bundle.digest[:16]} of "
                        f"{user.label}, and {digest[:16]} of {other}, which still uses it. They can't be imported in "
                        "one process: wait until that has ended, rename one, or use another cluster"
                    )
        return ""

    def _check_names(self, bundle: Unpacked) -> None:
        """Refuse names of libraries that this process itself uses: they may import them again at any time."""
        for name in sorted(bundle.modules - self._names_in_use()):
            file = getattr(sys.modules.get(name), "__file__", None)
            builtin = name in sys.modules and name in sys.stdlib_module_names
            if builtin or (isinstance(file, str) and is_installed(name, Path(file))):
                raise InvalidInput(
                    f"code bundle {bundle.digest[:16]}: module {name!r} has the name of an installed one that "
                    "is in use here, where other runs import it, too: rename yours"
                )

    def _names_in_use(self) -> set[str]:
        return {name for shared in self._shared.values() for name in shared.bundle.modules}

    def _begin(self, prepared: Prepared) -> _Shared:
        bundle = prepared.bundle
        if bundle.digest not in self._shared:
            self._aside |= take_modules(bundle.modules - self._names_in_use())
            self._shared[bundle.digest] = _Shared(prepared)
            sys.path[0:0] = bundle.paths
            importlib.invalidate_caches()
        return self._shared[bundle.digest]

    def _forget_unused(self) -> None:
        """Forget the bundles that nobody uses, but for those that have a module in common with one in use.

        Of a common module there is one, which may be theirs.
        """
        used = [shared for shared in self._shared.values() if shared.holders]
        names = {name for shared in used for name in shared.bundle.modules}
        gone = [
            shared for shared in self._shared.values() if not shared.holders and names.isdisjoint(shared.bundle.modules)
        ]
        if not gone:
            return
        for shared in gone:
            del self._shared[shared.bundle.digest]
            remove_paths(shared.bundle.paths)
            forget_paths(shared.bundle.paths)
            take_modules(shared.bundle.modules)
        left = self._names_in_use()
        back = {name: module for name, module in self._aside.items() if name.partition(".")[0] not in left}
        sys.modules.update(back)
        self._aside = {name: module for name, module in self._aside.items() if name not in back}
        if self._unpacking.acquire(blocking=False):  # else at the next time
            try:
                self._cache.release(keep=frozenset(self._shared))
            finally:
                self._unpacking.release()


def contents_of(description: Description) -> dict[str, str]:
    """Return a digest of what each top-level module of a bundle imports and reads as its own.

    That is its files, and those in its directory that belong to no module.
    """
    lines: dict[str, list[str]] = {name: [] for name in description.modules}
    for path, names in _by_path(description).items():
        start = 0 if path in {"", "."} else len(path) + 1
        owners = {name: _owner(name[start:], lines) for name in names}
        here = {owner for owner in owners.values() if owner}
        for name, owner in owners.items():
            for module in [owner] if owner else here:
                lines[module].append(f"{name[start:]} {description.digests[name]}")
    return {name: sha256("\n".join(of).encode()).hexdigest() for name, of in lines.items()}


def _by_path(description: Description) -> dict[str, list[str]]:
    """The files below each entry of ``sys.path``, but for those below a deeper entry."""
    files: dict[str, list[str]] = {path: [] for path in sorted(description.paths, key=len, reverse=True)}
    for name in sorted(description.digests):
        path = next((path for path in files if path in {"", "."} or name.startswith(f"{path}/")), None)
        if path is not None:
            files[path].append(name)
    return files


def _owner(relative: str, modules: Collection[str]) -> str:
    """The top-level module to which a file belongs; empty for a data file beside modules."""
    top = relative.partition("/")[0]
    name = top if top != relative else top.partition(".")[0]
    return name if name in modules and (top != relative or relative.endswith((".py", ".so"))) else ""
