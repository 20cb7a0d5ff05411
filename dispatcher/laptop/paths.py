"""Paths of the laptop server's files. A state directory belongs to one server; only its socket lies elsewhere.

The socket needs a short path on a local disk, and a directory that no other user can enter, since it has no password.
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
    """The files of a laptop server in its state directory."""

    state: Path

    @classmethod
    def of(cls, settings: Settings) -> LaptopPaths:
        """Return the paths that the settings and XDG variables name. Creates nothing.

        Raises:
            InvalidSettings: there is no home directory, and no setting names another one.
        """
        if settings.state_dir is not None:
            return cls(settings.state_dir.expanduser().absolute())
        base = os.environ.get("XDG_STATE_HOME", "")
        if base.startswith("/"):  # by the XDG specification, relative paths are ignored
            return cls(Path(base, "dispatcher"))
        try:
            return cls(Path.home().absolute() / ".local/state/dispatcher")
        except RuntimeError:
            raise InvalidSettings(f"there is no home directory; {_REMEDY}") from None

    @property
    def lock(self) -> Path:
        """Lock held while a program starts or stops anything."""
        return self.state / "lock"

    @property
    def server_lock(self) -> Path:
        """Lock held by the server."""
        return self.state / "server.lock"

    @property
    def server(self) -> Path:
        """Process, socket and host of the server."""
        return self.state / "server.json"

    @property
    def daemon_lock(self) -> Path:
        """Lock held by the daemon."""
        return self.state / "keeper.lock"

    @property
    def daemon(self) -> Path:
        """Process of the daemon."""
        return self.state / "keeper.json"

    @property
    def up(self) -> Path:
        """Exists while the server stays up without programs."""
        return self.state / "up"

    @property
    def data(self) -> Path:
        """Directory of the server's data."""
        return self.state / "data"

    @property
    def programs(self) -> Path:
        """Directory with a file per program, locked by it."""
        return self.state / "programs"

    @property
    def workers(self) -> Path:
        """Directory with a file per worker's scope, and its log."""
        return self.state / "workers"

    @property
    def keys(self) -> Path:
        """File of the signing keys."""
        return self.state / "signing-keys.json"

    def log(self, name: str) -> Path:
        """Return the path of the log of ``server`` or ``keeper``, the daemon."""
        return self.state / f"{name}.log"

    def prepare(self) -> None:
        """Create the directories, closed to other users.

        Raises:
            InvalidSettings: they can't be created, or belong to another user.
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
        """Say why these files can't be trusted, with a remedy; empty if they can, or if they don't exist."""
        try:
            for directory in (self.state, self.data, self.programs, self.workers):
                if problem := private_files.directory_problem(directory):
                    return f"{problem}; or {_REMEDY}"
        except OSError as error:
            return f"can't check {self.state}: {error.strerror}; {_REMEDY}"
        return ""

    def check(self) -> None:
        """Check that the files can be trusted. Creates nothing.

        Raises:
            InvalidSettings: other users could have written them; names the remedy.
        """
        if problem := self.problem():
            raise InvalidSettings(problem)

    def new_socket(self) -> Path:
        """Return a path for the socket, in a directory created for it that only this user can enter.

        Raises:
            InvalidSettings: no directory is suitable.
        """
        name = hashlib.sha256(os.fsencode(self.state.resolve())).hexdigest()[:8] + ".sock"
        rejected = []
        for directory in _runtime_directories():
            if len(os.fsencode(directory / name)) > LONGEST_SOCKET:
                continue
            problem = _create_private(directory)
            if not problem:
                return directory / name
            rejected.append(problem)
            if directory.parent != _session():
                break  # another user has taken our name: don't try a place where the same may happen
        raise InvalidSettings(
            f"no directory for the laptop server's socket: {'; '.join(rejected)}; "
            "set XDG_RUNTIME_DIR to a directory of yours with a short name (mode 0700)"
        )


_REMEDY = "set DISPATCHER__STATE_DIR or XDG_STATE_HOME to a directory of yours, or DISPATCHER__URL to a Redis"


def _runtime_directories() -> list[Path]:
    """Return candidates for the socket's directory, best first. The last has the shortest name."""
    ours = f"dispatcher-{os.geteuid()}"
    common = [Path(tempfile.gettempdir(), ours), Path("/tmp", ours)]
    session = _session()
    return common if session is None else [session / "dispatcher", *common]


def _session() -> Path | None:
    """Return the runtime directory of the user's session, if it is writable."""
    directory = os.environ.get("XDG_RUNTIME_DIR", "")
    return Path(directory) if directory.startswith("/") and os.access(directory, os.W_OK | os.X_OK) else None


def _create_private(directory: Path) -> str:
    """Create a directory. Say what is wrong with it or its path; empty if only this user can enter it."""
    try:
        if problem := private_files.directory_problem(directory):
            return problem
        directory.mkdir(mode=0o700, exist_ok=True)
        status = directory.lstat()
    except OSError as error:
        return f"{directory} can't be created: {error.strerror}"
    if not stat.S_ISDIR(status.st_mode):
        return f"{directory} is not a directory"
    if status.st_uid != os.geteuid():
        return f"{directory} belongs to another user"
    if stat.S_IMODE(status.st_mode) & 0o077:
        return f"{directory} is open to others (mode {stat.S_IMODE(status.st_mode):04o}, must be 0700)"
    return ""


def read(path: Path) -> dict[str, Any]:
    """Read a JSON object that :func:`write` wrote; empty if it is missing or damaged."""
    try:
        data = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}


def write(path: Path, data: dict[str, Any]) -> None:
    """Write a JSON object atomically, readable by its owner only."""
    write_atomically(path, json.dumps(data).encode(), mode=0o600)
