"""Rules for what never travels in a bundle, each with the reason that ``dispatcher bundle`` shows."""

from __future__ import annotations

import fnmatch
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

from dispatcher.code import secret_files

#: Directories by name. Those whose name begins with a dot are left out anyway.
_DIRECTORIES = {
    "__pycache__": "a cache",
    "node_modules": "packages of another language",
    "appendonlydir": "a Redis server's data",
    "__pypackages__": "installed packages",
    "venv": "a virtual environment",
}
_DIRECTORY_PATTERNS = {"*.egg-info": "made by an installation", "*.dist-info": "made by an installation"}

#: Files by name, beside those of :mod:`.secret_files`. Those whose name begins with a dot are left out anyway.
_FILE_PATTERNS = {
    "*.pyc": "compiled code",
    "*.pyo": "compiled code",
    "dispatcher.toml": "settings of this machine",
    "*.rdb": "a Redis server's data",
    "*.aof": "a Redis server's data",
    "*~": "a backup of an editor",
    "*.flow": "a stored flow",
}

#: Files that tell a tool or a reader about the project. A flow that reads one has to include it.
_PROJECT_FILES = (
    "pyproject.toml", "setup.cfg", "manifest.in", "requirements*.txt", "constraints*.txt", "pipfile", "*.lock",
    "*-lock.json", "*-lock.yaml", "package.json", "tox.ini", "pytest.ini", "mypy.ini", "ruff.toml", "makefile", "*.mk",
    "justfile", "taskfile.y*ml", "procfile", "vagrantfile", "dockerfile", "dockerfile.*", "*.dockerfile",
    "containerfile", "docker-compose*.y*ml", "compose.y*ml", "compose.*.y*ml", "jenkinsfile", "azure-pipelines*.y*ml",
    "appveyor.yml", "bitbucket-pipelines.yml", "codecov.y*ml", "mkdocs.y*ml", "codeowners", "*.code-workspace",
)  # fmt: skip
_PROJECT_TEXTS = re.compile(
    r"(readme|licen[cs]e|copying|notice|authors|changelog|changes|contributing|code_of_conduct|security)"
    r"(\.(md|rst|txt|adoc))?"
)

#: The ids that ``dispatcher keygen`` makes.
_KEY_ID = re.compile(r"k[0-9a-f]{8}")

#: What the header of packed bytes says in any case (:mod:`dispatcher.serialization.pickles`).
_STORED_FLOW = frozenset({"python", "cloudpickle", "packages"})

#: Largest file that is looked into for signing keys, in bytes.
_LARGEST_KEY_FILE = 65536

_LONGEST_HEADER = 2**20  # bytes


@dataclass(frozen=True)
class Exclusions:
    """Decides by name, place and content.

    Attributes:
        private: files and directories of this machine that never travel: the key file, the state directory.
    """

    private: frozenset[Path] = frozenset()

    def directory(self, path: Path) -> str | None:
        """Return why a directory and all below it is left out, or None."""
        if path.name.startswith("."):
            return "hidden"
        if os.path.isfile(path / "pyvenv.cfg"):  # noqa: PTH113 - False where the directory is closed to this user
            return "a virtual environment"
        return _DIRECTORIES.get(path.name) or _matching(path.name, _DIRECTORY_PATTERNS)

    def file(self, path: Path) -> str | None:
        """Return why a file is left out, or None."""
        if path.name.startswith("."):
            return "hidden"
        return self.secret(path) or _matching(path.name, _FILE_PATTERNS)

    def secret(self, path: Path) -> str | None:
        """Return why a file may hold a secret by its name, or None. Only its own name in ``include`` lets it in."""
        return secret_files.by_name(path.name)

    def beside(self, path: Path) -> str | None:
        """Return why a file beside a module is no data of it, or None."""
        folded = path.name.lower()
        is_of_project = _PROJECT_TEXTS.fullmatch(folded) or any(
            fnmatch.fnmatchcase(folded, pattern) for pattern in _PROJECT_FILES
        )
        return "describes the project" if is_of_project else None

    def content(self, data: bytes, *, named: bool = False) -> str | None:
        """Return why a file is left out for what it holds, or None.

        Args:
            data: what it holds.
            named: whether ``include`` has its own name, which lets a secret in that isn't ours.
        """
        if data.startswith(b"{") and _header(data).keys() >= _STORED_FLOW:  # with a bundle of its own
            return "is a stored flow"
        if len(data) <= _LARGEST_KEY_FILE and _holds_signing_keys(data):
            return "holds signing keys"
        return None if named else secret_files.by_content(data)

    def place(self, path: Path) -> str | None:
        """Return why a file or directory is left out for its place, even if it is included by name, or None."""
        if self.private and (inode := _inode(path)) and inode in map(_inode, self.private):
            return "private to this machine"
        return None


def is_inside(path: Path, directory: Path) -> bool:
    """Return True if a path, its links followed, stays inside of a directory."""
    try:
        return path.resolve().is_relative_to(directory.resolve())
    except (OSError, RuntimeError):  # links that lead in a circle
        return False


def _inode(path: Path) -> tuple[int, int] | None:
    """The identity of a file or directory, whatever links lead to it; None if it isn't there."""
    try:
        info = path.stat()
    except OSError:
        return None
    return info.st_dev, info.st_ino


def _matching(name: str, patterns: dict[str, str]) -> str | None:
    folded = name.lower()
    return next((reason for pattern, reason in patterns.items() if fnmatch.fnmatchcase(folded, pattern)), None)


def _header(data: bytes) -> dict[str, object]:
    """The JSON object in the first line; empty if there is none."""
    end = data.find(b"\n", 0, _LONGEST_HEADER)
    try:
        header = json.loads(data[: max(end, 0)])
    except (ValueError, RecursionError):
        return {}
    return header if isinstance(header, dict) else {}


def _holds_signing_keys(data: bytes) -> bool:
    """Return True for what ``dispatcher keygen`` writes: a JSON object with the id and the secret of each key."""
    if not data.lstrip().startswith(b"{"):
        return False
    try:
        keys = json.loads(data)
    except (ValueError, RecursionError):
        return False
    return isinstance(keys, dict) and any(
        (isinstance(entry, dict) and isinstance(entry.get("secret"), str))
        or (isinstance(entry, str) and len(entry) >= 16 and _KEY_ID.fullmatch(name))
        for name, entry in keys.items()
    )
