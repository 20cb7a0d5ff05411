"""Small projects on disk, and what this process remembers of them."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def write(directory: Path, files: Mapping[str, Any]) -> Path:
    """Write files by their names, with slashes."""
    for name, content in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return directory


@contextmanager
def on_path(*directories: Path) -> Iterator[None]:
    """Import from these directories first, also what others have imported, and forget it afterwards."""
    before, loaded = list(sys.path), dict(sys.modules)
    names = {path.stem for directory in directories for path in directory.iterdir()}
    for name in [name for name in loaded if name.partition(".")[0] in names]:
        del sys.modules[name]
    sys.path[0:0] = map(str, directories)
    try:
        yield
    finally:
        sys.path[:] = before
        for name in sys.modules.keys() - loaded.keys():
            del sys.modules[name]
        sys.modules.update(loaded)
