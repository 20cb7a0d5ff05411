"""Patterns that do nothing: a person has mistyped them, or the files aren't there. Used by :mod:`.selection`."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from dispatcher.code.patterns import Patterns

#: The source of patterns that a flow's decorator has.
OF_FLOW = "@flow"


@dataclass(frozen=True, order=True)
class Unmatched:
    """A pattern that does nothing.

    Attributes:
        source: ``@flow``, or the path of a ``pyproject.toml``.
        field: ``include`` or ``exclude``.
        pattern: as the person gave it.
    """

    source: str
    field: str
    pattern: str

    @property
    def is_mistake(self) -> bool:
        """Return True unless it is a project's ``exclude``, which is for all flows and needn't concern each."""
        return self.source == OF_FLOW or self.field == "include"

    @property
    def reason(self) -> str:
        """Return why it does nothing."""
        if self.field == "include":
            return "matches no file of the project that may travel"
        return "matches nothing that would travel"

    def __str__(self) -> str:
        return f"{self.source}: {self.field} {self.pattern!r} {self.reason}"


@dataclass(frozen=True)
class Matched:
    """A project, and the paths to which its patterns were applied.

    Attributes:
        source: the path of its ``pyproject.toml``.
        patterns: those that stand there.
        files: the paths of files in the bundle, relative to the project.
        looked_at: the paths of files and directories that were looked at.
    """

    source: str
    patterns: Patterns
    files: Collection[str]
    looked_at: Collection[str]


def unmatched(of_flow: Patterns, projects: Iterable[Matched]) -> tuple[Unmatched, ...]:
    """Return the patterns that do nothing: a project's own there, and a flow's in any project."""
    projects = tuple(projects)
    files = [name for project in projects for name in project.files]
    looked_at = [name for project in projects for name in project.looked_at]
    useless = {*_unmatched(OF_FLOW, of_flow, files, looked_at)}
    for project in projects:
        useless |= {*_unmatched(project.source, project.patterns, project.files, project.looked_at)}
    return tuple(sorted(useless))


def _unmatched(
    source: str, patterns: Patterns, files: Collection[str], looked_at: Collection[str]
) -> Iterator[Unmatched]:
    for pattern in patterns.include:
        if not Patterns(include=(pattern,)).includes_any(files):
            yield Unmatched(source, "include", pattern)
    for pattern in patterns.exclude:
        if not Patterns(include=(pattern,)).includes_any(looked_at):
            yield Unmatched(source, "exclude", pattern)
