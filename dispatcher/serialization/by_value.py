"""The choice between modules that travel by reference, in a bundle and by value, and the versions of installed ones.

Called by :mod:`dispatcher.serialization.pickles` for each module that a pickle names. Installed modules, the standard
library and our own packages travel by reference: the other end has them. A project's own modules travel by reference as
well, and their files in a bundle (:mod:`dispatcher.code`). Everything else travels by value: ``__main__``, modules made
at run time, and what was given to ``cloudpickle.register_pickle_by_value``.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from functools import cache
from importlib import metadata
from pathlib import Path
from types import ModuleType

import cloudpickle

from dispatcher.code.locations import is_installed, locate
from dispatcher.support.own_packages import PACKAGES

_MAIN = frozenset({"__main__", "__mp_main__"})


def travels_by_value(name: str) -> bool:
    """Return True if the definitions of module ``name`` must travel by value.

    Those of ``__main__`` do so anyway, and aren't asked for.
    """
    module = sys.modules.get(name)
    if module is None or name == "__main__":
        return False
    return _is_registered(name) or _travels(name, _file_of(module))


def travels_in_bundle(name: str) -> bool:
    """Return True if module ``name``, imported or not, is a project's own and has a file."""
    if name in _MAIN or _is_registered(name):
        return False
    module = sys.modules.get(name)
    return locate(name) is not None if module is None else _is_of_project(name, _file_of(module))


def package_of(name: str) -> tuple[str, str] | None:
    """Return the top-level package of a module and its installed version (``""`` if unknown).

    Returns:
        None for modules whose version doesn't matter: those of the project, the standard library, our own.
    """
    top = name.partition(".")[0]
    if top in sys.stdlib_module_names or top in _MAIN or top == "cloudpickle" or top in PACKAGES:
        return None
    return None if travels_by_value(top) or travels_in_bundle(name) else (top, version_of(top))


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


def _file_of(module: ModuleType | None) -> str:
    file = getattr(module, "__file__", None)
    if file is None:
        file = next(iter(getattr(module, "__path__", ())), "")
    return str(file)


def _is_registered(name: str) -> bool:
    registered = cloudpickle.list_registry_pickle_by_value()
    return bool(registered) and any(name == module or name.startswith(f"{module}.") for module in registered)


@cache
def _travels(name: str, file: str) -> bool:
    if not file:
        # Made at run time, or built in: as its parent travels. The other end can't import one without a parent.
        parent = name.rpartition(".")[0]
        return travels_by_value(parent) if parent else name not in sys.stdlib_module_names
    return not is_installed(name, Path(file)) and locate(name) is None


@cache
def _is_of_project(name: str, _file: str) -> bool:
    return locate(name) is not None
