"""The project of a flow that submits another one: its files were unpacked from a bundle, and all of them go on.

What a person has included and excluded was decided when that bundle was made, and ``pyproject.toml`` needn't be in it.
Used by :mod:`.selection`; :mod:`.cache` unpacks bundles to such places.
"""

from __future__ import annotations

import re
from pathlib import Path

from dispatcher.code import archive

#: In a bundle's directory, which is named by its digest: the archive, and the directory of its files.
ARCHIVE, FILES = "bundle.zip", "files"

DIGEST = re.compile(r"[0-9a-f]{64}")


def is_bundled(directory: Path) -> bool:
    """Return True if a directory is a project in an unpacked bundle."""
    files = directory.parent
    return files.name == FILES and bool(DIGEST.fullmatch(files.parent.name)) and (files.parent / ARCHIVE).is_file()


def bundled_files(directory: Path) -> frozenset[str]:
    """Return the paths of a project's files, relative to it, that came in its bundle; empty if it came in none.

    Raises:
        Malformed: its archive was changed.
        OSError: it can't be read.
    """
    if not is_bundled(directory):
        return frozenset()
    description = archive.describe((directory.parents[1] / ARCHIVE).read_bytes())
    start = f"{directory.name}/"
    return frozenset(name.removeprefix(start) for name in description.digests if name.startswith(start))
