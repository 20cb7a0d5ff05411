"""A project's own packages that have the names of Dask's: nothing of Dask would work beside them.

Called by :class:`~dispatcher.executors.dask.DaskExecutor`. Doesn't import Dask.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from dispatcher.code.locations import Location, locate
from dispatcher.errors import InvalidInput

#: Dask's packages, and in each a file that hardly another one has.
_OF_DASK = {"dask": "highlevelgraph.py", "distributed": "comm/tcp.py"}


def refuse_own(modules: Collection[str]) -> None:
    """Refuse a project's modules that have Dask's names.

    Args:
        modules: top-level names of the project's modules.

    Raises:
        InvalidInput: one has; names it, its place and the distribution.
    """
    for name in _OF_DASK:
        if name in modules:
            raise _refused(name, locate(name))


def refuse_imported() -> None:
    """Refuse a program in which Python finds a project's module where Dask should be.

    Raises:
        InvalidInput: it does; names it, its place and the distribution.
    """
    for name in _OF_DASK:
        if (place := locate(name)) is not None and not _is_dask(name, place):
            raise _refused(name, place)


def _refused(name: str, place: Location | None) -> InvalidInput:
    path: Path | None = None if place is None else (place.file or place.directories[0])
    return InvalidInput(
        f"DaskExecutor: the project has a module of its own, {name!r}{f' ({path})' if path else ''}, and needs Dask's "
        f"package {name!r} as well: rename yours"
    )


def _is_dask(name: str, place: Location) -> bool:
    """Return True if Dask itself is imported from a directory that looks like a project, such as its sources."""
    return any((directory / _OF_DASK[name]).exists() for directory in place.directories)
