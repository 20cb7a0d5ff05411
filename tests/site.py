"""Modules that count as installed, made for a test."""

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
    place = directory / ("site-packages" if installed else "project")
    place.mkdir(exist_ok=True)
    (place / f"{name}.py").write_text(textwrap.dedent(source))
    sys.path.insert(0, str(place))
    importlib.invalidate_caches()
    try:
        yield importlib.import_module(name)
    finally:
        sys.path.remove(str(place))
        sys.modules.pop(name, None)
