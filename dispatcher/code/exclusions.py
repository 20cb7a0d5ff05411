"""Rules for what never travels in a bundle, each with the reason that ``dispatcher bundle`` shows."""

from __future__ import annotations

import fnmatch
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

#: Directories by name. Those whose name begins with a dot are left out anyway.
_DIRECTORIES = {
    "__pycache__": "a cache",
    "node_modules": "packages of another language",
    "appendonlydir": "a Redis server's data",
    "__pypackages__": "installed packages",
    "venv": "a virtual environment",
}
_DIRECTORY_PATTERNS = {"*.egg-info": "made by an installation", "*.dist-info": "made by an installation"}

#: Files by name. Those whose name begins with a dot, ``.env`` among them, are left out anyway.
_FILE_PATTERNS = {
    "*.pyc": "compiled code",
    "*.pyo": "compiled code",
    "*.pem": "may hold a private key",
    "*.key": "may hold a private key",
    "*.p12": "may hold a private key",
    "*.pfx": "may hold a private key",
    "*.jks": "may hold a private key",
    "*.keystore": "may hold a private key",
    "*.ppk": "may hold a private key",
    "*.kdbx": "may hold passwords",
    "id_*": "may hold a private key",
    "*.env": "may hold passwords",
    "credentials": "may hold passwords",
    "credentials.json": "may hold passwords",
    "service-account*.json": "may hold a private key",
    "kubeconfig": "may hold passwords",
    "secrets.json": "may hold passwords",
    "secrets.toml": "may hold passwords",
    "secrets.y*ml": "may hold passwords",
    "*.tfstate": "may hold passwords",
    "dispatcher.toml": "settings of this machine",
    "redis.conf": "a server's settings, which may hold passwords",
    "valkey.conf": "a server's settings, which may hold passwords",
    "users.acl": "a server's settings, which may hold passwords",
    "*.rdb": "a Redis server's data",
    "*.aof": "a Redis server's data",
    "*~": "a backup of an editor",
    "*.flow": "a stored flow",
}

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
        return None if path.suffix == ".py" else _matching(path.name, _FILE_PATTERNS)  # id_numbers.py is code

    def content(self, data: bytes) -> str | None:
        """Return why a file is left out for what it holds, even if it is included by name, or None."""
        if data.startswith(b"{") and _header(data).keys() >= _STORED_FLOW:  # with a bundle of its own
            return "is a stored flow"
        if len(data) <= _LARGEST_KEY_FILE and _holds_signing_keys(data):
            return "holds signing keys"
        return None

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
