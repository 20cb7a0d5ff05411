"""Make the bundle of a flow's project, and make it again only when a file has changed. Used by submits."""

from __future__ import annotations

import heapq
import logging
import os
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, cached_property, partial
from hashlib import sha256
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import TYPE_CHECKING

from dispatcher.code import archive
from dispatcher.code.chosen import File, LeftOut, Selection
from dispatcher.code.exclusions import Exclusions
from dispatcher.code.imports import same_code
from dispatcher.code.locations import locate
from dispatcher.code.patterns import NO_PATTERNS, Patterns
from dispatcher.code.selection import select
from dispatcher.errors import InvalidInput, InvalidSettings
from dispatcher.support.interpreter import PYTHON
from dispatcher.support.state_directory import state_directory

if TYPE_CHECKING:
    from dispatcher.settings import Settings

log = logging.getLogger(__name__)

#: Seconds for which files aren't looked at again: an edit is seen by submits after that.
LOOK_AGAIN_AFTER = 0.1

#: Bundles that are remembered: of as many flows that a program submits in turn.
_MOST_REMEMBERED = 32

#: Files that an error about a bundle's size names.
_MOST_NAMED = 5

_started = time.time()


@dataclass(frozen=True)
class Bundle:
    """The packed files of a project.

    Attributes:
        digest: the SHA-256 of ``data``, in hex.
        data: the archive.
        selection: the files, and what was left out.
    """

    digest: str
    data: bytes
    selection: Selection

    def has(self, module: str) -> bool:
        """Return True if a project's module is in this bundle."""
        place = locate(module)
        if place is None:
            return False
        if place.file is not None:
            return str(place.file) in self._paths
        return any(path.startswith(f"{directory}{os.sep}") for path in self._paths for directory in place.directories)

    @cached_property
    def _paths(self) -> frozenset[str]:
        return frozenset(file.path for file in self.selection.files)


#: What a bundle is made of: modules with their files, patterns, and the modules that count as installed.
_Request = tuple[frozenset[tuple[str, object]], Patterns, frozenset[str]]


class Bundler:
    """Makes bundles for one client.

    Args:
        python: this interpreter, ``major.minor``.
        limit: most bytes of a bundle's files.
        exclusions: what never travels.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        *,
        python: str,
        limit: int,
        exclusions: Exclusions | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._python = python
        self._limit = limit
        self._exclusions = exclusions or Exclusions()
        self._clock = clock
        self._made: OrderedDict[_Request, tuple[float, Bundle | None]] = OrderedDict()
        self._told: set[str] = set()  # warnings
        self._lock = threading.Lock()

    def bundle(
        self,
        modules: Collection[str],
        patterns: Patterns = NO_PATTERNS,
        *,
        installed: frozenset[str] = frozenset(),
    ) -> Bundle | None:
        """Return the bundle of the project files that modules need, as they lie on disk.

        Args:
            modules: names of modules, of any kind.
            patterns: what a person adds and takes away.
            installed: top-level modules that count as installed, wherever they are.

        Returns:
            The bundle; None if no module is a project's own.

        Raises:
            InvalidInput: the files are larger than the limit, or too many; names the largest and the remedy.
        """
        if not modules:
            self._note_unused(patterns)
            return None
        request = frozenset((name, _file_of(name)) for name in modules), patterns, installed
        with self._lock:
            now = self._clock()
            looked, before = self._made.get(request, (-LOOK_AGAIN_AFTER, None))
            if request in self._made:
                self._made.move_to_end(request)
                if now - looked < LOOK_AGAIN_AFTER:
                    return before
                if before is not None and before.selection.is_current():
                    self._made[request] = now, before
                    return before
            made = self._make(frozenset(modules), patterns, installed, before)
            self._made[request] = now, made
            if len(self._made) > _MOST_REMEMBERED:
                self._made.popitem(last=False)
            return made

    def covers(self, digests: Collection[str], modules: Collection[str]) -> bool:
        """Return True if one of some bundles that were made here holds all modules."""
        with self._lock:
            made = [bundle for _, bundle in self._made.values() if bundle is not None and bundle.digest in digests]
        return any(all(map(bundle.has, modules)) for bundle in made)

    def _make(
        self, modules: frozenset[str], patterns: Patterns, installed: frozenset[str], before: Bundle | None
    ) -> Bundle | None:
        selection = select(modules, patterns=patterns, exclusions=self._exclusions, installed=installed)
        if selection is None:
            self._note_unused(patterns)
            return None
        if before is not None and selection.files == before.selection.files:
            return Bundle(before.digest, before.data, selection)
        self._check_size(selection)
        for module in changed_since_import(selection):
            log.warning("Module %s has changed since it was imported; the run gets the file as it is now", module)
        left_out: list[LeftOut] = []
        data = archive.pack(selection, self._python, partial(self._read, left_out))
        for pattern in selection.unmatched:
            if pattern.is_mistake:
                self._warn_once(f"Code bundle: {pattern}")
        return Bundle(sha256(data).hexdigest(), data, selection.without(left_out) if left_out else selection)

    def _read(self, left_out: list[LeftOut], file: File) -> bytes | None:
        try:
            data = Path(file.path).read_bytes()
        except OSError as error:
            raise InvalidInput(
                f"code bundle: can't read {file.path} ({file.reason}): {error.strerror}: make it readable, or leave "
                "it out by @flow(exclude=[...]) or [tool.dispatcher] exclude in pyproject.toml"
            ) from error
        reason = self._exclusions.content(data, named=file.named)
        if reason is None:
            return data
        left_out.append(LeftOut(file.path, reason))
        remedy = "" if file.named or self._exclusions.content(data, named=True) else "; include lets it in by its name"
        self._warn_once(f"Code bundle: left out {file.path}, which {reason}{remedy}")
        return None

    def _note_unused(self, patterns: Patterns) -> None:
        if patterns.include:
            self._warn_once(
                f"Code bundle: @flow: include {list(patterns.include)} adds nothing, since the flow needs no file of a "
                "project: name the files relative to __file__ in it, or move it into a module"
            )

    def _warn_once(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            log.warning("%s", text)

    def _check_size(self, selection: Selection) -> None:
        size = sum(file.size for file in selection.files)
        if size <= self._limit:
            return
        largest = heapq.nlargest(_MOST_NAMED, selection.files, key=lambda file: file.size)
        names = ", ".join(f"{file.path} ({file.size:,})" for file in largest)
        raise InvalidInput(
            f"code bundle: its {len(selection.files):,} files have {size:,} bytes, at most {self._limit:,} may travel "
            f"(DISPATCHER__LIMITS__FLOW). The largest: {names}. Leave some out by @flow(exclude=[...]) or "
            "[tool.dispatcher] exclude in pyproject.toml, or give data as parameters"
        )


@cache
def bundler_of(python: str, limit: int, exclusions: Exclusions) -> Bundler:
    """Return this process's bundler for these settings, which remembers what it has made for any client."""
    return Bundler(python=python, limit=limit, exclusions=exclusions)


def bundler_for(settings: Settings) -> Bundler:
    """Return the maker of bundles that all users of the same settings share in this process."""
    return bundler_of(PYTHON, settings.limits.flow, Exclusions(_private(settings)))


def _private(settings: Settings) -> frozenset[Path]:
    """The key file and the state directory, also where no setting names them."""
    paths = set() if settings.signing_keys_file is None else {settings.signing_keys_file}
    with suppress(InvalidSettings):  # there is no home directory
        paths.add(state_directory(settings.state_dir))
    return frozenset(path.expanduser().absolute() for path in paths)


def _file_of(name: str) -> object:
    """The file of an imported module: a module of that name may be another one now, in another directory."""
    return getattr(sys.modules.get(name), "__file__", None)


def changed_since_import(selection: Selection) -> Iterator[str]:
    """Name the imported modules whose files, changed since this program began, define other functions by now."""
    files = {file.path: file for file in selection.files if file.changed > _started * 1e9}
    if not files:
        return
    for name, module in list(sys.modules.items()):
        path = getattr(module, "__file__", None)
        if isinstance(module, ModuleType) and isinstance(path, str) and path in files and _differs(name, module, path):
            yield name


def _differs(name: str, module: ModuleType, path: str) -> bool:
    try:
        code = compile(Path(path).read_bytes(), path, "exec", dont_inherit=True)
    except (OSError, SyntaxError, ValueError):
        return True
    on_disk = set(_functions_in(code))
    for value in list(vars(module).values()):
        function = getattr(value, "__wrapped__", value)
        own = isinstance(function, FunctionType) and function.__module__ == name
        if not own or function.__code__ in on_disk:  # most often; the other comparison is slow
            continue
        if not any(same_code(function.__code__, code) for code in on_disk):
            return True
    return False


def _functions_in(code: CodeType) -> Iterator[CodeType]:
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield constant
            yield from _functions_in(constant)
