"""The files that were chosen for a bundle, and those that were left out. Made by :mod:`.selection`."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass, field, replace

from dispatcher.code.unmatched import Unmatched


@dataclass(frozen=True, order=True)
class File:
    """A file of a bundle.

    Attributes:
        name: its path in the bundle, with slashes.
        path: its place on this machine.
        size: in bytes.
        changed: its time of change, in nanoseconds; a copy that keeps the time of its original is a change, too.
        executable: whether its owner may execute it.
        named: whether ``include`` has its exact name, so that it may hold a secret.
        reason: why it is in the bundle.
    """

    name: str
    path: str
    size: int
    changed: int
    executable: bool = False
    named: bool = False
    reason: str = field(default="", compare=False)


@dataclass(frozen=True)
class LeftOut:
    """A file or directory that isn't in the bundle, though it lies among those that are."""

    path: str
    reason: str


@dataclass(frozen=True)
class Selection:
    """The files of a bundle.

    Attributes:
        files: sorted by name.
        left_out: what was not taken, and why; sorted by path.
        paths: directories of the bundle that go onto ``sys.path``, in order.
        modules: top-level names that are imported from them.
        watched: directories and files on which the choice depends beside ``files``, with their times of change, in
            nanoseconds; 0 for one that isn't there.
        unmatched: patterns that do nothing.
    """

    files: tuple[File, ...]
    left_out: tuple[LeftOut, ...]
    paths: tuple[str, ...]
    modules: frozenset[str]
    watched: tuple[tuple[str, int], ...]
    unmatched: tuple[Unmatched, ...] = ()

    def without(self, left_out: Collection[LeftOut]) -> Selection:
        """Return the choice without files that are left out after all. An edit of one of them is a change."""
        paths = {each.path for each in left_out}
        return replace(
            self,
            files=tuple(file for file in self.files if file.path not in paths),
            left_out=tuple(sorted((*self.left_out, *left_out), key=lambda each: each.path)),
            watched=(*self.watched, *((path, changed_at(path)) for path in sorted(paths))),
        )

    def is_current(self) -> bool:
        """Return True if nothing has changed on disk since: the same choice would be made again."""
        if any(changed_at(path) != changed for path, changed in self.watched):
            return False
        try:
            for file in self.files:
                info = os.stat(file.path)  # noqa: PTH116 - thousands of them at a submit
                if info.st_ctime_ns != file.changed or info.st_size != file.size:
                    return False
        except OSError:
            return False
        return True


def changed_at(path: str) -> int:
    """Return the time of change of a file or directory, in nanoseconds; 0 if it isn't there."""
    try:
        return os.stat(path).st_mtime_ns  # noqa: PTH116 - thousands of them at a submit
    except OSError:
        return 0
