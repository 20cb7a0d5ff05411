"""Find the file of a module without importing it, and tell a project's own modules from installed ones.

What is installed (the standard library, site-packages, ``pip install --target``) and our own packages travel by
reference: the other end has them. Everything else that has a file travels in a bundle. What has none, such as
``__main__`` and modules made at run time, travels by value.
"""

from __future__ import annotations

import importlib.machinery
import sys
import sysconfig
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib import metadata
from pathlib import Path
from types import ModuleType

from dispatcher.support.own_packages import PACKAGES, ROOT

_INSTALLED_PARTS = frozenset({"site-packages", "dist-packages"})
_STDLIB = tuple(Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib"))
_STDLIB_DIRECTORIES = frozenset(_STDLIB) | {path.resolve() for path in _STDLIB}
_MAIN = frozenset({"__main__", "__mp_main__"})
_SOURCE_SUFFIXES = tuple(importlib.machinery.SOURCE_SUFFIXES)
_SUFFIXES = (*_SOURCE_SUFFIXES, *importlib.machinery.EXTENSION_SUFFIXES)


@dataclass(frozen=True)
class Location:
    """The place of a module.

    Attributes:
        name: the module's full name.
        root: the directory on ``sys.path`` below which it is found by that name.
        file: its source or extension file; None for a namespace package.
        directories: of a package, where its submodules are.
    """

    name: str
    root: Path
    file: Path | None
    directories: tuple[Path, ...] = ()

    @property
    def is_source(self) -> bool:
        """Return True if it has a Python source file."""
        return self.file is not None and self.file.name.endswith(_SOURCE_SUFFIXES)

    @property
    def package(self) -> str:
        """The package that its relative imports start from."""
        return self.name if self.directories else self.name.rpartition(".")[0]


def locate(name: str) -> Location | None:
    """Find a project's module by its name; None if it is installed, has no file of that name, or isn't there."""
    if name in _MAIN or name.partition(".")[0] in sys.builtin_module_names:
        return None
    spec = spec_of(name)
    if spec is None:
        return None
    file, directories = _origin(spec)
    if file is None and not directories:
        return None
    for place in (file, *directories):
        if place is not None and is_installed(name, place):
            return None
    root = _root(name, file, directories)
    return None if root is None else Location(name, root, file, directories)


def is_installed(name: str, path: Path) -> bool:
    """Return True if the file or directory of a module is installed, of the standard library, or ours."""
    return _is_installed(name.partition(".")[0], str(path))


@cache
def _is_installed(top: str, file: str) -> bool:
    path = Path(file).absolute()
    return bool(
        _INSTALLED_PARTS.intersection(path.parts)
        or any(parent in _STDLIB_DIRECTORIES for parent in path.parents)
        or any(path.resolve().is_relative_to(ROOT / package) for package in PACKAGES)
        or _is_target(path, top)
    )


def spec_of(name: str) -> importlib.machinery.ModuleSpec | None:
    """Return a module's spec, or None if it isn't found. Executes no code of the project."""
    module = sys.modules.get(name)
    if isinstance(module, ModuleType):
        return _spec_of_loaded(name, module)
    parent, _, _ = name.rpartition(".")
    if not parent:
        return _find_top_level(name)
    above = spec_of(parent)
    if above is None or not above.submodule_search_locations:
        return None
    return _find_below(name, above.submodule_search_locations)


def _spec_of_loaded(name: str, module: ModuleType) -> importlib.machinery.ModuleSpec | None:
    file = getattr(module, "__file__", None)
    spec = importlib.machinery.ModuleSpec(name, None, origin=file if isinstance(file, str) else None)
    with suppress(Exception):  # a module of the user's own making, with attributes of its own
        spec.submodule_search_locations = [str(path) for path in module.__path__]
    return spec


def _find_top_level(name: str) -> importlib.machinery.ModuleSpec | None:
    for finder in sys.meta_path:
        find = getattr(finder, "find_spec", None)
        if find is None:
            continue
        with suppress(Exception):  # somebody's finder, asked for a module that isn't there
            spec = find(name, None)
            if spec is not None:
                return spec  # type: ignore[no-any-return]
    return None


def _find_below(name: str, directories: Iterable[str]) -> importlib.machinery.ModuleSpec | None:
    """As the import system does, which would import the parent first."""
    portions: list[str] = []
    for directory in directories:
        spec = _finder(directory).find_spec(name)
        if spec is not None and spec.loader is not None:
            return spec
        if spec is not None:
            portions += spec.submodule_search_locations or []
    if not portions:
        return None
    namespace = importlib.machinery.ModuleSpec(name, None)
    namespace.submodule_search_locations = portions
    return namespace


@lru_cache(maxsize=5000)
def _finder(directory: str) -> importlib.machinery.FileFinder:
    return importlib.machinery.FileFinder(
        directory,
        (importlib.machinery.ExtensionFileLoader, importlib.machinery.EXTENSION_SUFFIXES),
        (importlib.machinery.SourceFileLoader, importlib.machinery.SOURCE_SUFFIXES),
    )


def _origin(spec: importlib.machinery.ModuleSpec) -> tuple[Path | None, tuple[Path, ...]]:
    file = Path(spec.origin).absolute() if spec.origin and spec.origin.endswith(_SUFFIXES) else None
    if file is not None and not file.is_file():
        file = None
    places: Iterable[str] = spec.submodule_search_locations or ()
    directories = tuple(path for place in places if (path := Path(place).absolute()).is_dir())
    return file, directories


def _root(name: str, file: Path | None, directories: tuple[Path, ...]) -> Path | None:
    """The directory from which the module is imported by its name; None if its place doesn't fit its name."""
    parts = name.split(".")
    place = directories[0] if directories else _without_suffix(file)
    if place is None or list(place.parts[-len(parts) :]) != parts:
        return None
    return place.parents[len(parts) - 1]


def _without_suffix(file: Path | None) -> Path | None:
    if file is None:
        return None
    for suffix in sorted(_SUFFIXES, key=len, reverse=True):
        if file.name.endswith(suffix):
            return file.with_name(file.name.removesuffix(suffix))
    return None


def _is_target(path: Path, top: str) -> bool:
    """Return True if the file was installed by ``pip install --target``, elsewhere than in site-packages."""
    return any(
        top in _installed_into(parent) for parent in path.parents if (parent / top) in {path, *path.parents}
    ) or (path.stem == top and top in _installed_into(path.parent))


@cache
def _installed_into(directory: Path) -> frozenset[str]:
    return frozenset(
        file.parts[0].removesuffix(".py")
        for distribution in metadata.distributions(path=[str(directory)])
        for file in distribution.files or ()
        if not _is_editable(distribution)
    )


def _is_editable(distribution: metadata.Distribution) -> bool:
    """Return True for an editable install, whose files are the project's own."""
    return '"editable": true' in (distribution.read_text("direct_url.json") or "")
