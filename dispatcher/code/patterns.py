"""Patterns by which a person adds files to a bundle or takes some away: ``@flow(include=…)`` and ``pyproject.toml``."""

from __future__ import annotations

import fnmatch
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dispatcher.errors import InvalidInput

_LONGEST, _MOST = 500, 200


@dataclass(frozen=True)
class Patterns:
    """Files that are added (``include``) and taken away (``exclude``, which goes before).

    A pattern is that of a shell, relative to the project's directory, with slashes. One without a slash is compared
    with a file's own name; one that names a directory stands for all below it.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    @classmethod
    def of(cls, include: Any = (), exclude: Any = (), *, subject: str) -> Patterns:
        """Check patterns that a person gave.

        Raises:
            InvalidInput: they are no list of relative patterns; names ``subject`` and the pattern.
        """
        return cls(_checked(include, f"{subject}include"), _checked(exclude, f"{subject}exclude"))

    def plus(self, other: Patterns) -> Patterns:
        """Return the patterns of both."""
        return Patterns(self.include + other.include, self.exclude + other.exclude)

    def includes(self, name: str) -> bool:
        """Return True if a path, relative to the project, is added by name."""
        return _matches(name, self.include)

    def includes_any(self, names: Collection[str]) -> bool:
        """Return True if one of some paths is added by name."""
        return any(_matches(name, self.include) for name in names)

    def names(self, name: str) -> bool:
        """Return True if ``include`` has the exact name of a file, with no wildcard and no directory that stands for
        it."""
        return bool({name, name.rpartition("/")[2]} & {_stem(pattern) for pattern in self.include})

    def leads_into(self, name: str) -> bool:
        """Return True if a file below a directory is added by a pattern that begins with the directory's path."""
        return any(_stem(pattern).startswith(f"{name}/") for pattern in self.include)

    def excludes(self, name: str) -> bool:
        """Return True if a path, relative to the project, is taken away by name."""
        return _matches(name, self.exclude)


#: Nothing added, nothing taken away.
NO_PATTERNS = Patterns()

#: Those of the flow that this process runs directly.
_of_flow: ContextVar[Patterns] = ContextVar("patterns", default=NO_PATTERNS)


def flow_patterns() -> Patterns:
    """Return the patterns of the flow that runs in this context; none outside of one."""
    return _of_flow.get()


@contextmanager
def using_patterns(patterns: Patterns) -> Iterator[None]:
    """Run a flow with these patterns in this context."""
    token = _of_flow.set(patterns)
    try:
        yield
    finally:
        _of_flow.reset(token)


def read_patterns(project: Path) -> Patterns:
    """Read ``[tool.dispatcher]`` of a project's ``pyproject.toml``; none if there is no such table.

    Raises:
        InvalidInput: the file can't be parsed, or the table holds something else than ``include`` and ``exclude``.
    """
    import tomllib

    path = project / "pyproject.toml"
    try:
        tool = tomllib.loads(path.read_text(encoding="utf-8")).get("tool", {})
    except OSError:
        return NO_PATTERNS
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"{path} can't be read: {error}") from None
    table = tool.get("dispatcher", {}) if isinstance(tool, Mapping) else {}
    if not isinstance(table, Mapping) or (unknown := sorted(table.keys() - {"include", "exclude"})):
        problem = f"unknown {', '.join(map(repr, unknown))}" if isinstance(table, Mapping) else "must be a table"
        raise InvalidInput(f"{path}: [tool.dispatcher]: {problem}; it has include and exclude, lists of patterns")
    return Patterns.of(table.get("include", ()), table.get("exclude", ()), subject=f"{path}: [tool.dispatcher] ")


def _checked(patterns: Any, subject: str) -> tuple[str, ...]:
    if isinstance(patterns, str) or not isinstance(patterns, Iterable):
        raise InvalidInput(f"{subject}: must be a list of patterns such as ['data/*.csv'], got {patterns!r}")
    checked = tuple(patterns)
    if len(checked) > _MOST:
        raise InvalidInput(f"{subject}: {len(checked)} patterns, at most {_MOST}")
    for pattern in checked:
        if not isinstance(pattern, str) or not 0 < len(pattern) <= _LONGEST:
            raise InvalidInput(f"{subject}: must be patterns of 1 to {_LONGEST} characters, got {pattern!r}")
        if pattern.startswith("/") or ".." in pattern.split("/"):
            raise InvalidInput(f"{subject}: {pattern!r} leads out of the project; patterns are relative to it")
    return checked


def _stem(pattern: str) -> str:
    return pattern.rstrip("/").removeprefix("./")


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    last = name.rpartition("/")[2]
    for pattern in patterns:
        stem = _stem(pattern)
        if fnmatch.fnmatchcase(name if "/" in stem else last, stem) or fnmatch.fnmatchcase(name, f"{stem}/*"):
            return True
    return False
