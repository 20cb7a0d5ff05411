"""The places of the laptop server's files. One state directory is one server; only its socket lies elsewhere.

The socket needs a short path on a local disk, and a directory that nobody else can enter: it has no password.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dispatcher.errors import InvalidSettings
from dispatcher.settings import Settings
from dispatcher.support import private_files
from dispatcher.support.atomic_files import write_atomically

#: Most bytes of a socket's path; the kernel's limit is 108 on Linux and 104 on macOS, its final NUL included.
LONGEST_SOCKET = 100


@dataclass(frozen=True)
class LaptopPaths:
    """The files of one laptop server, in its state directory."""

    state: Path

    @classmethod
    def of(cls, settings: Settings) -> LaptopPaths:
        """Those that the settings and XDG variables name. Creates nothing.

        Raises:
            InvalidSettings: there is no home directory, and nothing else is named.
        """
        if settings.state_dir is not None:
            return cls(settings.state_dir.expanduser().absolute())
        base = os.environ.get("XDG_STATE_HOME", "")
        if base.startswith("/"):  # the specification: others are ignored
            return cls(Path(base, "dispatcher"))
        try:
            return cls(Path.home().absolute() / ".local/state/dispatcher")
        except RuntimeError:
            raise InvalidSettings(f"there is no home directory; {_REMEDY}") from None

    @property
    def lock(self) -> Path:
        """Held by who starts or stops anything, for that long."""
        return self.state / "lock"

    @property
    def server_lock(self) -> Path:
        """Held by the server."""
        return self.state / "server.lock"

    @property
    def server(self) -> Path:
        """Process, socket and host of the server."""
        return self.state / "server.json"

    @property
    def keeper_lock(self) -> Path:
        """Held by the keeper."""
        return self.state / "keeper.lock"

    @property
    def keeper(self) -> Path:
        """Process of the keeper."""
        return self.state / "keeper.json"

    @property
    def up(self) -> Path:
        """There while the server stays without programs."""
        return self.state / "up"

    @property
    def data(self) -> Path:
        """The server's data."""
        return self.state / "data"

    @property
    def programs(self) -> Path:
        """A file per program, held by it."""
        return self.state / "programs"

    @property
    def workers(self) -> Path:
        """A file per worker's scope, and its log."""
        return self.state / "workers"

    @property
    def keys(self) -> Path:
        """The signing keys."""
        return self.state / "signing-keys.json"

    def log(self, name: str) -> Path:
        """The log of ``server`` or ``keeper``."""
        return self.state / f"{name}.log"

    def prepare(self) -> None:
        """Make the directories, closed to others.

        Raises:
            InvalidSettings: they can't be made or belong to somebody else.
        """
        try:
            for directory in (self.state, self.data, self.programs, self.workers):
                private_files.directory(directory)
            probe = self.state / f".probe-{os.getpid()}"
            probe.touch(0o600)
            probe.unlink()
        except OSError as error:
            raise InvalidSettings(f"can't write to {self.state}: {error.strerror}; {_REMEDY}") from error
        except InvalidSettings as error:
            raise InvalidSettings(f"{error}; or {_REMEDY}") from None

    def problem(self) -> str:
        """Why these files can't be believed, with a remedy; empty if they can, or aren't there."""
        try:
            for directory in (self.state, self.data, self.programs, self.workers):
                if problem := private_files.directory_problem(directory):
                    return f"{problem}; or {_REMEDY}"
        except OSError as error:
            return f"can't look at {self.state}: {error.strerror}; {_REMEDY}"
        return ""

    def check(self) -> None:
        """Look before anything there is believed. Creates nothing.

        Raises:
            InvalidSettings: somebody else could have written it; names the remedy.
        """
        if problem := self.problem():
            raise InvalidSettings(problem)

    def new_socket(self) -> Path:
        """A path for the socket, in a directory made for it that is ours alone.

        Raises:
            InvalidSettings: there is no place for it.
        """
        name = hashlib.sha256(os.fsencode(self.state.resolve())).hexdigest()[:8] + ".sock"
        refused = []
        for directory in _runtime_directories():
            if len(os.fsencode(directory / name)) > LONGEST_SOCKET:
                continue
            problem = _made_private(directory).removeprefix(f"{directory} ")
            if not problem:
                return directory / name
            refused.append(f"{directory} {problem}")
            if directory.parent != _session():
                break  # somebody took our name: don't look for the next place where somebody might
        raise InvalidSettings(
            f"no place for the laptop server's socket: {'; '.join(refused)}; "
            "set XDG_RUNTIME_DIR to a directory with a short name that is yours alone (mode 0700)"
        )


_REMEDY = "set DISPATCHER__STATE_DIR or XDG_STATE_HOME to a directory of yours, or DISPATCHER__URL to a Redis"


def _runtime_directories() -> list[Path]:
    """Candidates for the socket's directory, best first; the last is there where the others' names are too long."""
    ours = f"dispatcher-{os.geteuid()}"
    common = [Path(tempfile.gettempdir(), ours), Path("/tmp", ours)]
    session = _session()
    return common if session is None else [session / "dispatcher", *common]


def _session() -> Path | None:
    """The directory of the user's session, if there is one to write to."""
    directory = os.environ.get("XDG_RUNTIME_DIR", "")
    return Path(directory) if directory.startswith("/") and os.access(directory, os.W_OK | os.X_OK) else None


def _made_private(directory: Path) -> str:
    """Make a directory; what is wrong with it, empty if it is ours alone."""
    try:
        if problem := private_files.directory_problem(directory):
            return problem
        directory.mkdir(mode=0o700, exist_ok=True)
        found = directory.lstat()
    except OSError as error:
        return f"can't be made: {error.strerror}"
    if not stat.S_ISDIR(found.st_mode):
        return "is not a directory"
    if found.st_uid != os.geteuid():
        return "belongs to another user"
    if stat.S_IMODE(found.st_mode) & 0o077:
        return f"is open to others (mode {stat.S_IMODE(found.st_mode):04o}, must be 0700)"
    return ""


def read(path: Path) -> dict[str, Any]:
    """A JSON object that :func:`write` wrote; empty if there is none, or it isn't one."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def write(path: Path, data: dict[str, Any]) -> None:
    """Write a JSON object at once: nobody reads half of it. Readable by its owner alone."""
    write_atomically(path, json.dumps(data).encode(), mode=0o600)
