"""Import from bundles in a program that opens a stored flow itself, beside the modules that the program has.

A worker imports from a run's bundles first (:mod:`.activation`). A program keeps its own modules, since its objects are
of their classes: the bundle's directories come last on ``sys.path``, and stay there. A bundle whose modules differ from
those of the program is refused.
"""

from __future__ import annotations

import atexit
import importlib
import sys
import threading
from collections.abc import Iterator
from hashlib import sha256
from importlib.machinery import all_suffixes
from pathlib import Path

from dispatcher.code import activation, archive
from dispatcher.code.archive import Description
from dispatcher.code.cache import BundleCache
from dispatcher.code.locations import locate, spec_of
from dispatcher.errors import InvalidInput

_SUFFIXES = tuple(all_suffixes())

_lock = threading.Lock()
_cache: BundleCache | None = None
_subjects: dict[str, str] = {}  # a directory on sys.path → the flow that brought it


def import_beside(data: bytes, *, subject: str) -> None:
    """Make the modules of a bundle importable in this process, unless they are.

    Args:
        data: the archive.
        subject: the flow in an error, as in ``file etl.flow``.

    Raises:
        InvalidInput: this process has another module of that name; names both.
        Malformed: it is no bundle.
        OSError: it can't be unpacked here.
    """
    digest = sha256(data).hexdigest()
    if any(bundle.digest == digest for bundle in activation.current_bundles()):
        return
    with _lock:
        description = archive.describe(data)
        missing = [module for module in description.modules if not _has(module, description, subject)]
        if missing:
            _append(digest, data, subject)


def _has(module: str, description: Description, subject: str) -> bool:
    """Return True if this process has the bundle's own module; False if it has none of that name.

    Raises:
        InvalidInput: it has another.
    """
    spec = spec_of(module)
    if spec is None:
        return False
    location = locate(module)
    if location is None:
        raise _another(module, subject, f"{spec.origin or 'built in'}, which is installed")
    brought_by = _subjects.get(str(location.root))
    place = str(location.root) if brought_by is None else f"the bundle of {brought_by}"
    for name, digest in _files(module, description):
        if _digest(location.root / name) != digest:
            raise _another(module, subject, f"{place}, where {name} differs")
    return True


def _files(module: str, description: Description) -> Iterator[tuple[str, str]]:
    """The importable files of a top-level module, by their names from its directory on ``sys.path``, with digests."""
    for path in description.paths:
        start = f"{path}/"
        for name, digest in description.digests.items():
            inside = name.removeprefix(start)
            if inside == name or not inside.endswith(_SUFFIXES):
                continue
            if inside.startswith(f"{module}/") or inside.partition(".")[0] == module:
                yield inside, digest


def _digest(path: Path) -> str:
    try:
        return sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""


def _another(module: str, subject: str, place: str) -> InvalidInput:
    return InvalidInput(
        f"{subject}: its module {module!r} isn't that of this process ({place}): store the flow again as it is now, or "
        "run it in a process of its own, in a worker or by the storage's get_env_runner"
    )


def _append(digest: str, data: bytes, subject: str) -> None:
    global _cache  # noqa: PLW0603 - one for the process, as sys.path
    if _cache is None:
        _cache = BundleCache()
        atexit.register(_cache.close)
    for path in _cache.get(digest, lambda _: data).paths:
        if path not in sys.path:
            sys.path.append(path)
            _subjects[path] = subject
    importlib.invalidate_caches()
