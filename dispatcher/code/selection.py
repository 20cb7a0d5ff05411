"""Choose the files of a bundle: the modules that a flow reaches, whole packages, and data files beside modules.

Reads directories and sources, and executes nothing. :mod:`.bundles` packs what is chosen here.
"""

from __future__ import annotations

import os
import stat
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from dispatcher.code.bundled import bundled_files, is_bundled
from dispatcher.code.chosen import File, LeftOut, Selection, changed_at
from dispatcher.code.exclusions import Exclusions, is_inside
from dispatcher.code.imports import imports_of_file
from dispatcher.code.locations import Location, locate
from dispatcher.code.patterns import NO_PATTERNS, Patterns, read_patterns
from dispatcher.code.unmatched import Matched, Unmatched, unmatched
from dispatcher.errors import InvalidInput

#: Files by which the directory of a project is known, from a module's directory upwards.
_PROJECT_FILES = ("pyproject.toml", "setup.py", "setup.cfg", ".git", ".hg")

#: Most files of a bundle, data files included.
MOST_FILES = 20_000

#: Most files and directories that are looked at, left out or not.
MOST_LOOKED_AT = 100_000


def select(
    modules: Iterable[str],
    *,
    patterns: Patterns = NO_PATTERNS,
    exclusions: Exclusions | None = None,
    installed: frozenset[str] = frozenset(),
) -> Selection | None:
    """Choose the files that modules need.

    Args:
        modules: names of the modules that a flow, its callbacks or its parameters name, and of those that its code
            imports. What is installed or isn't there is passed over.
        patterns: what a person adds and takes away, beside what the project's ``pyproject.toml`` says.
        exclusions: what never travels.
        installed: top-level modules that count as installed, wherever they are.

    Returns:
        The choice; None if no module is a project's own.

    Raises:
        InvalidInput: there are more than ``MOST_FILES`` files, or ``pyproject.toml`` can't be read.
    """
    collector = _Collector(patterns, exclusions or Exclusions(), installed)
    collector.reach(modules)
    return collector.selection()


def project_of(root: Path) -> Path:
    """Return the directory of the project to which a directory of modules belongs: the next one upwards that holds
    ``pyproject.toml`` or its like, below the home directory; else the directory itself."""
    home = Path.home()
    for directory in (root, *root.parents):
        if directory in {home, Path(directory.anchor)}:
            break
        if is_bundled(directory) or any((directory / name).exists() for name in _PROJECT_FILES):
            return directory
    return root


@dataclass(frozen=True)
class _Project:
    directory: str  #: on this machine
    prefix: str  #: its directory in the bundle
    patterns: Patterns  #: the flow's and its own
    own: Patterns = NO_PATTERNS
    bundled: frozenset[str] = frozenset()  #: its files, if it came in a bundle
    looked_at: list[str] = field(default_factory=list)  #: for the patterns that exclude it

    def relative(self, path: str) -> str | None:
        """The path within the project, with slashes; None if it isn't in it."""
        if path == self.directory:
            return ""
        start = self.directory.rstrip(os.sep) + os.sep
        return path[len(start) :].replace(os.sep, "/") if path.startswith(start) else None


class _Collector:
    """Follows imports from module to module, and takes files on the way."""

    def __init__(self, patterns: Patterns, exclusions: Exclusions, installed: frozenset[str]) -> None:
        self._patterns = patterns
        self._exclusions = exclusions
        self._installed = installed
        self._files: dict[str, File] = {}
        self._left_out: dict[str, LeftOut] = {}
        self._projects: dict[Path, _Project] = {}
        self._project_by_root: dict[Path, _Project] = {}
        self._paths: dict[str, None] = {}
        self._modules: set[str] = set()
        self._watched: dict[str, int] = {}
        self._looked_at = 0  # files and directories
        self._taken: set[str] = set()  # directories
        self._reached: set[str] = set()  # modules

    def reach(self, modules: Iterable[str]) -> None:
        """Take the modules, and those that they import."""
        waiting = deque(sorted(modules))
        while waiting:
            name = waiting.popleft()
            if name in self._reached:
                continue
            self._reached.add(name)
            place = None if name.partition(".")[0] in self._installed else locate(name)
            if place is not None:
                if parent := name.rpartition(".")[0]:
                    waiting.append(parent)
                waiting.extend(sorted(self._take(place) - self._reached))

    def selection(self) -> Selection | None:
        """Return the choice."""
        if not self._modules:
            return None
        for project in self._projects.values():
            if project.patterns.include:
                self._include(project)
            for name in project.bundled:
                self._add(project, f"{project.directory}/{name}", "in the bundle of this process")
        return Selection(
            tuple(sorted(self._files.values())),
            tuple(
                sorted((self._left_out[path] for path in self._left_out.keys() - self._files), key=lambda out: out.path)
            ),
            tuple(self._paths),
            frozenset(self._modules),
            tuple(self._watched.items()),
            self._unmatched(),
        )

    def _unmatched(self) -> tuple[Unmatched, ...]:
        if any(project.bundled for project in self._projects.values()):  # whoever made the bundle was told
            return ()
        return unmatched(self._patterns, map(self._matched, self._projects.values()))

    def _matched(self, project: _Project) -> Matched:
        start = f"{project.prefix}/"
        files = [file.name.removeprefix(start) for file in self._files.values() if file.name.startswith(start)]
        return Matched(os.path.join(project.directory, "pyproject.toml"), project.own, files, project.looked_at)  # noqa: PTH118

    def _take(self, place: Location) -> frozenset[str]:
        """Take the files of a module, and return the modules that they import."""
        self._modules.add(place.name.partition(".")[0])
        project = self._project_of(place.root)
        inside = project.relative(str(place.root))
        self._paths.setdefault(PurePosixPath(project.prefix, inside or "").as_posix())
        package = _outermost_package(place)
        if package is not None:
            return self._take_package(project, package, place.root)
        if place.file is None:  # a namespace package: its modules are reached one by one
            return frozenset()
        self._add(project, str(place.file), f"module {place.name}")
        self._take_data_beside(project, place)
        return imports_of_file(place.file, place.package) if place.is_source else frozenset()

    def _take_package(self, project: _Project, directory: Path, root: Path) -> frozenset[str]:
        if str(directory) in self._taken:
            return frozenset()
        self._taken.add(str(directory))
        dotted = ".".join(directory.relative_to(root).parts)
        imports: set[str] = set()
        for path in self._walk(project, str(directory)):
            self._add(project, path, f"package {dotted}")
            if path.endswith(".py") and path in self._files:
                above, _, name = path[len(str(root)) + 1 : -len(".py")].replace(os.sep, ".").rpartition(".")
                self._reached.add(above if name == "__init__" else f"{above}.{name}")
                imports |= imports_of_file(Path(path), above)
        return frozenset(imports)

    def _take_data_beside(self, project: _Project, place: Location) -> None:
        """Take data files in the directory of a module that is in no package, where ``Path(__file__).parent`` looks."""
        assert place.file is not None
        directory = str(place.file.parent)
        if directory in self._taken:
            return
        self._taken.add(directory)
        for entry in self._entries(directory):
            if _is_directory(entry) or entry.name.endswith(".py"):
                continue
            if reason := self._exclusions.beside(Path(entry.path)):
                self._leave_out(entry.path, reason)
            else:
                self._add(project, entry.path, f"data beside module {place.name}")

    def _include(self, project: _Project) -> None:
        for path in self._walk(project, project.directory, by_name=True):
            if project.patterns.includes(project.relative(path) or ""):
                self._add(project, path, "included by name")

    def _walk(self, project: _Project, directory: str, *, by_name: bool = False) -> Iterator[str]:
        """All files below a directory, but for those in directories that are left out. ``by_name`` looks into these as
        well, if a pattern leads there."""
        waiting = [directory]
        while waiting:
            for entry in self._entries(waiting.pop()):
                if not _is_directory(entry):
                    yield entry.path
                elif self._may_enter(project, entry, by_name=by_name):
                    waiting.append(entry.path)

    def _may_enter(self, project: _Project, entry: os.DirEntry[str], *, by_name: bool) -> bool:
        name = project.relative(entry.path) or ""
        path = Path(entry.path)
        project.looked_at.append(name)
        reason = "excluded by name" if project.patterns.excludes(name) else self._exclusions.place(path)
        if reason is None and not (project.patterns.includes(name) or (by_name and project.patterns.leads_into(name))):
            reason = self._exclusions.directory(path)
        if reason is not None:
            self._leave_out(entry.path, reason)
            return False
        if entry.is_symlink():
            self._leave_out(entry.path, "a link to a directory")
            return False
        return True

    def _entries(self, directory: str) -> list[os.DirEntry[str]]:
        self._watched.setdefault(directory, changed_at(directory))
        try:
            with os.scandir(directory) as entries:
                ordered = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            self._leave_out(directory, f"can't be read: {error.strerror}")
            return []
        self._looked_at += len(ordered)
        if self._looked_at > MOST_LOOKED_AT:
            raise InvalidInput(
                f"code bundle: looked at more than {MOST_LOOKED_AT:,} files, the last in {directory}: exclude large "
                "directories, in [tool.dispatcher] of pyproject.toml or by @flow(exclude=[...]), include by patterns "
                "that name a directory, or move the code to a directory of its own"
            )
        return ordered

    def _add(self, project: _Project, path: str, reason: str) -> None:
        if path in self._files:
            return
        name = project.relative(path)
        if name is None:  # a package of two directories, one of them elsewhere
            project = self._project_of(Path(path).parent)
            name = project.relative(path) or ""
        file = Path(path)
        if problem := self._problem(project, file, name):
            self._leave_out(path, problem)
            return
        info = file.stat()
        executable = bool(info.st_mode & stat.S_IXUSR)
        named = name in project.bundled or project.patterns.names(name)
        self._files[path] = File(
            f"{project.prefix}/{name}", path, info.st_size, info.st_ctime_ns, executable, named, reason
        )
        if len(self._files) > MOST_FILES:
            raise InvalidInput(
                f"code bundle: more than {MOST_FILES:,} files below {project.directory}: exclude some, in "
                "[tool.dispatcher] of pyproject.toml or by @flow(exclude=[...]), or move the code to a directory of "
                "its own"
            )

    def _problem(self, project: _Project, file: Path, name: str) -> str | None:
        """Why a file can't be taken."""
        if not _is_portable(name):
            return "its name isn't UTF-8 or has a backslash"
        project.looked_at.append(name)
        if project.patterns.excludes(name):
            return "excluded by name"
        if name not in project.bundled and not project.patterns.names(name):
            rule = self._exclusions.secret if project.patterns.includes(name) else self._exclusions.file
            of_target = rule(Path(os.path.realpath(file))) if file.is_symlink() else None
            if reason := rule(file) or of_target:
                return reason
        if reason := self._exclusions.place(file):
            return reason
        if file.is_symlink() and not is_inside(file, Path(project.directory)):
            return "a link that leads out of the project"
        try:
            return None if stat.S_ISREG(file.stat().st_mode) else "no ordinary file"
        except OSError as error:
            return f"can't be read: {error.strerror}"

    def _leave_out(self, path: str, reason: str) -> None:
        self._left_out.setdefault(path, LeftOut(path, reason))

    def _project_of(self, root: Path) -> _Project:
        if root not in self._project_by_root:
            self._project_by_root[root] = self._new_project_of(root)
        return self._project_by_root[root]

    def _new_project_of(self, root: Path) -> _Project:
        directory = project_of(root)
        if directory not in self._projects:
            self._watched.setdefault(str(directory / "pyproject.toml"), changed_at(str(directory / "pyproject.toml")))
            own = read_patterns(directory)
            self._projects[directory] = _Project(
                str(directory), str(len(self._projects)), self._patterns.plus(own), own, bundled_files(directory)
            )
        return self._projects[directory]


def _outermost_package(place: Location) -> Path | None:
    """The directory of the outermost regular package that holds a module: it is taken as a whole."""
    directory = place.root
    for part in place.name.split("."):
        directory = directory / part
        if (directory / "__init__.py").is_file():
            return directory
    return None


def _is_directory(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # links that lead in a circle
        return False


def _is_portable(name: str) -> bool:
    try:
        return "\\" not in name and bool(name.encode())
    except UnicodeEncodeError:
        return False
