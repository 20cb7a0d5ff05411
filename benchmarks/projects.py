"""Projects on disk, each a package of many small modules with one flow, for the part on code bundles."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dispatcher import Flow

#: The flow's module. It returns the seconds that its imports took, and is as long as any other.
_FLOWS = """import time

from dispatcher import flow

_begin = time.perf_counter()
from {name} import {modules}
_SECONDS = time.perf_counter() - _begin


@flow(name="{name}")
def imports() -> float:
    return _SECONDS
"""

#: A module as people write them.
_FUNCTION = '''

def step_{number}(rows: list[dict[str, float]], *, limit: float = {number}.5) -> dict[str, float]:
    """Return the sum of each column, without the values above a limit."""
    sums: dict[str, float] = {{}}
    for row in rows:
        for column, value in sorted(row.items()):
            if value <= limit and not column.startswith("_"):
                sums[column] = sums.get(column, 0.0) + value * {number}
    return sums
'''


def write(directory: Path, name: str, *, files: int = 50, size: int = 4096) -> None:
    """Write a package.

    Args:
        directory: the project's.
        name: of the package; ``name.flows`` has its flow, of that name.
        files: number of its modules.
        size: bytes of each, about.
    """
    package = directory / name
    package.mkdir(parents=True)
    functions = max(size // len(_FUNCTION), 1)
    source = "import dataclasses\nimport json\n" + "".join(_FUNCTION.format(number=n) for n in range(functions))
    modules = [f"part_{number}" for number in range(files - 2)]
    for number, module in enumerate(modules):
        (package / f"{module}.py").write_text(f'"""Part {number} of {name}."""\n\n{source}')
    (package / "__init__.py").write_text(f'"""{name}."""\n')
    (package / "flows.py").write_text(_FLOWS.format(name=name, modules=", ".join(modules)))


@contextmanager
def importable(directory: Path) -> Iterator[None]:
    """Import from a directory inside the context, and leave no compiled code in it."""
    before = sys.dont_write_bytecode
    sys.path.insert(0, str(directory))
    sys.dont_write_bytecode = True
    try:
        yield
    finally:
        sys.path.remove(str(directory))
        sys.dont_write_bytecode = before


def flow_of(name: str) -> Flow[[], float]:
    """Import the flow of a package."""
    importlib.invalidate_caches()
    module: Any = importlib.import_module(f"{name}.flows")
    flow: Flow[[], float] = module.imports
    return flow
