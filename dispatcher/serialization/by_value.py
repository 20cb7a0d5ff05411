"""The choice between modules that travel by reference and modules that travel by value, and the package of a module.

Called by :mod:`dispatcher.serialization.pickles` for each module that a pickle names, so every answer is cached.
Installed packages, the standard library and our own packages are expected at the other end; everything else must
travel.
"""

from __future__ import annotations

import sys
import sysconfig
from contextlib import suppress
from functools import cache
from importlib import metadata
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from types import ModuleType

from dispatcher.support.own_packages import PACKAGES, ROOT

_INSTALLED_PARTS = frozenset({"site-packages", "dist-packages"})
_STDLIB = tuple(Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib"))
_STDLIB_FOLDERS = frozenset(_STDLIB) | {path.resolve() for path in _STDLIB}


def travels_by_value(name: str) -> bool:
    """Return True if the definitions of module ``name`` must travel by value.

    Not meant for ``__main__``, whose definitions always do: the answer is False.
    """
    module = sys.modules.get(name)
    if module is None or name == "__main__":
        return False
    return _travels(name, _file_of(module))


def package_of(name: str) -> tuple[str, str] | None:
    """Return the top-level package of a module and its installed version (``""`` if unknown).

    Returns:
        None for modules whose version doesn't matter: those that travel by value, the standard library, our own.
    """
    top = name.partition(".")[0]
    if top in sys.stdlib_module_names or top in {"__main__", "__mp_main__", "cloudpickle"} or top in PACKAGES:
        return None
    return None if travels_by_value(top) else (top, version_of(top))


@cache
def version_of(top: str) -> str:
    """Return the version of the distribution that installed top-level package ``top``, or ``""``."""
    try:
        return metadata.version(top)
    except (metadata.PackageNotFoundError, ValueError):
        for distribution in _distributions().get(top, ()):
            with suppress(metadata.PackageNotFoundError, ValueError):  # it was uninstalled meanwhile
                return metadata.version(distribution)
        return str(getattr(sys.modules.get(top), "__version__", ""))


@cache
def _distributions() -> dict[str, list[str]]:
    return dict(metadata.packages_distributions())


def _file_of(module: ModuleType) -> str:
    file = getattr(module, "__file__", None)
    if file is None:
        file = next(iter(getattr(module, "__path__", ())), "")
    return str(file)


@cache
def _travels(name: str, file: str) -> bool:
    top = name.partition(".")[0]
    if not file:
        # Made at run time, or built in: as its parent travels. The other end can't import one without a parent.
        parent = name.rpartition(".")[0]
        return travels_by_value(parent) if parent else name not in sys.stdlib_module_names
    if file.endswith(tuple(EXTENSION_SUFFIXES)):
        return False
    path = Path(file).absolute()
    return not (_INSTALLED_PARTS.intersection(path.parts) or _is_stdlib(path) or _is_own(path) or _is_target(path, top))


def _is_stdlib(path: Path) -> bool:
    return any(parent in _STDLIB_FOLDERS for parent in path.parents)


def _is_own(path: Path) -> bool:
    """Return True if the file is ours, by its path: a user's project may have a package ``workers`` of its own."""
    return any(path.resolve().is_relative_to(ROOT / name) for name in PACKAGES)


def _is_target(path: Path, top: str) -> bool:
    """Return True if the file was installed outside of site-packages, by ``pip install --target``."""
    return any(
        top in _installed_into(parent) for parent in path.parents if (parent / top) in {path, *path.parents}
    ) or (path.stem == top and top in _installed_into(path.parent))


@cache
def _installed_into(directory: Path) -> frozenset[str]:
    return frozenset(
        file.parts[0].removesuffix(".py")
        for distribution in metadata.distributions(path=[str(directory)])
        for file in distribution.files or ()
    )
