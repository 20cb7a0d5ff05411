"""Modules and projects written for a test."""

from __future__ import annotations

import importlib
import shutil
import sys
import textwrap
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType


@contextmanager
def module(directory: Path, name: str, source: str, *, installed: bool = True) -> Iterator[ModuleType]:
    """Write a module, in a ``site-packages`` if it is to count as installed, and import it."""
    folder = directory / ("site-packages" if installed else "project")
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.py").write_text(textwrap.dedent(source))
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        yield importlib.import_module(name)
    finally:
        sys.path.remove(str(folder))
        sys.modules.pop(name, None)


@contextmanager
def project(directory: Path, files: Mapping[str, str]) -> Iterator[Path]:
    """Write the files of a project, import from it meanwhile, and remove all of it at the end.

    Args:
        directory: where the project's directory is made.
        files: their contents, by path.
    """
    root = directory / "project"
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(content))
    tops = {name.partition("/")[0].removesuffix(".py") for name in files}
    before = list(sys.path)
    sys.path.insert(0, str(root))
    importlib.invalidate_caches()
    try:
        yield root
    finally:
        sys.path[:] = before
        forget(tops)
        shutil.rmtree(root)


def forget(tops: Collection[str]) -> None:
    """Forget that the modules of some top-level names were imported."""
    for name in [name for name in sys.modules if name.partition(".")[0] in tops]:
        del sys.modules[name]
