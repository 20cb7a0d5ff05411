"""A user's module that bears the name of one that we, or a library of ours, import: it says why an import failed.

Imports nothing but what the interpreter itself has imported at its start, since any other module may be displaced.
Called by ``dispatcher/__init__.py`` and :mod:`dispatcher.registry`.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # typing's, without importing it
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

_INSTALLED_PARTS = ("site-packages", "dist-packages")
_STDLIB = os.path.dirname(os.path.abspath(os.__file__))  # noqa: PTH100, PTH120 - pathlib may be displaced
_PACKAGES = ("dispatcher", "backends", "workers")  # that of another is looked for by the registry


def displaced(error: BaseException) -> str:
    """Return which file stands in the place of a module, and the remedy, if that is why an import failed.

    Args:
        error: what was raised by the import, with its traceback.

    Returns:
        A sentence; empty if there is no such file on the way to the error.
    """
    for name in _names(error):
        module = sys.modules.get(name)
        file = _file_of(module) or _script(name)
        if name in _PACKAGES or not file or _is_installed(file):
            continue
        if name in sys.stdlib_module_names:
            kind = "the standard library's module"
        elif any(_is_installed(f"{entry}/") and _has(entry, name) for entry in sys.path):
            kind = "the installed package"
        else:
            continue
        return (
            f"Python finds {file} in place of {kind} {name!r}: rename yours, or keep its directory off the front of "
            "the import path (python -P, PYTHONPATH)"
        )
    return ""


def _names(error: BaseException | None) -> Iterator[str]:
    """The top-level modules that an error, or the errors before it, concern."""
    met: set[int] = set()
    while error is not None and id(error) not in met:
        met.add(id(error))
        yield _top(getattr(error, "name", None))
        yield _top(getattr(getattr(error, "obj", None), "__name__", None))
        filename = getattr(error, "filename", None)
        if isinstance(filename, str):  # of a SyntaxError
            yield os.path.basename(filename).partition(".")[0]  # noqa: PTH119
        trace = error.__traceback__
        while trace is not None:
            yield _top(trace.tb_frame.f_globals.get("__name__"))
            trace = trace.tb_next
        error = error.__cause__ or error.__context__


def _top(name: object) -> str:
    return name.partition(".")[0] if isinstance(name, str) else ""


def _file_of(module: ModuleType | None) -> str:
    file = getattr(module, "__file__", None)
    return file if isinstance(file, str) else ""


def _script(name: str) -> str:
    """The file of a module that failed while it was imported: it is in ``sys.modules`` no more."""
    for entry in sys.path:
        for file in (os.path.join(entry, f"{name}.py"), os.path.join(entry, name, "__init__.py")):  # noqa: PTH118
            if name and os.path.isfile(file):  # noqa: PTH113
                return file
    return ""


def _has(directory: str, name: str) -> bool:
    path = os.path.join(directory, name)  # noqa: PTH118
    return os.path.isdir(path) or os.path.isfile(f"{path}.py")  # noqa: PTH112, PTH113


def _is_installed(file: str) -> bool:
    path = os.path.abspath(file)  # noqa: PTH100
    return path.startswith(_STDLIB + os.sep) or any(
        f"{os.sep}{part}{os.sep}" in path + os.sep for part in _INSTALLED_PARTS
    )
