"""Modules written for a test: part of a project, or installed."""

from __future__ import annotations

import importlib
import sys
import textwrap
from collections.abc import Iterator
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
