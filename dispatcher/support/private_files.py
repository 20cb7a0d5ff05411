"""Files and directories that other users of the machine must not read or change, checked as ssh checks its own.

A key file must belong to its user and be closed to others, and no other user may be able to replace a directory or link
on the path to it. A mounted secret is safe, too, though its permissions differ: it belongs to root, only root may write
it, and it is readable by a group; in a container, where all users are one, by anybody.
"""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from dispatcher.errors import InvalidSettings

_MAX_SIZE = 2**20
_MAX_LINKS = 40  # the kernel's limit
_MAX_TRIES = 5
_GROUP_WRITES, _OTHERS_READ, _OTHERS_WRITE = 0o020, 0o004, 0o002


@dataclass(frozen=True, kw_only=True)
class Reader:
    """The process that reads a file. ``group`` returns the id of its user's private group, if it has one."""

    uid: int
    group: Callable[[], int | None] = lambda: None  # called only if needed: users and groups may be on a server
    contained: bool = False

    @classmethod
    def here(cls) -> Reader:
        """Return this process."""
        uid = os.geteuid()
        return cls(uid=uid, group=partial(_own_group, uid), contained=_contained())


@dataclass(frozen=True, kw_only=True)
class FileStatus:
    """Mode and owner of a file, directory or link. ``fixed`` is true on a read-only mount."""

    path: Path
    mode: int
    uid: int
    gid: int
    fixed: bool = False

    @classmethod
    def of(cls, path: Path, status: os.stat_result, flags: int = 0) -> FileStatus:
        """Make one of the results of ``stat`` and ``statvfs``."""
        fixed = bool(flags & os.ST_RDONLY)
        return cls(path=path, mode=status.st_mode, uid=status.st_uid, gid=status.st_gid, fixed=fixed)

    def __str__(self) -> str:
        return f"{self.path} (mode {stat.S_IMODE(self.mode):04o}, owner {self.uid})"


def file_problem(file: FileStatus, reader: Reader, *, mounted: bool = True) -> str:
    """Say why a file isn't safe to hold a secret of ``reader``, with a remedy; empty if it is. Pure.

    ``mounted`` allows a mounted secret.
    """
    if not stat.S_ISREG(file.mode):
        return f"{file.path} isn't a regular file"
    if file.uid == reader.uid and not file.mode & 0o077:
        return ""
    if mounted and _mounted(file, reader):
        return ""
    if file.uid not in {reader.uid, 0}:
        mount = ", or mount it read-only" if reader.contained else ""
        return f"{file} belongs to another user, who may change it: chown {reader.uid} {file.path}{mount}"
    if file.mode & (_GROUP_WRITES | _OTHERS_WRITE):
        return f"{file} can be written by others: chmod 600 {file.path}"
    return f"{file} can be read by others: chmod 600 {file.path}"


def change_problem(file: FileStatus, reader: Reader) -> str:
    """Say how others could change a file, whoever may read it, with a remedy; empty if they can't. Pure."""
    if not stat.S_ISREG(file.mode):
        return f"{file.path} isn't a regular file"
    if reader.contained and file.fixed:
        return ""
    if file.uid not in {reader.uid, 0}:
        return f"{file} belongs to another user, who may change it: chown {reader.uid} {file.path}"
    if _written_by_others(file, reader):
        return f"{file} can be written by others: chmod go-w {file.path}"
    return ""


def _mounted(file: FileStatus, reader: Reader) -> bool:
    """Return True if a file looks like a secret that a container engine mounted, or that root shares with a group."""
    if file.mode & (_GROUP_WRITES | _OTHERS_WRITE):
        return False
    if reader.contained and file.fixed:  # mounted by whoever started the container, whatever its owner
        return True
    return file.uid == 0 and (reader.contained or not file.mode & _OTHERS_READ)


def path_problem(step: FileStatus, reader: Reader) -> str:
    """Say how others could replace a directory or link on a path, with a remedy; empty if they can't. Pure."""
    if reader.contained and step.fixed:
        return ""
    if step.uid not in {reader.uid, 0}:
        return f"{step} belongs to another user, who may put something else there: chown {reader.uid} {step.path}"
    if not stat.S_ISDIR(step.mode) or step.mode & stat.S_ISVTX:
        return ""  # the sticky bit keeps others from replacing what lies in a directory
    if _written_by_others(step, reader):
        return f"{step} can be written by others, who may put something else there: chmod go-w {step.path}"
    return ""


def _written_by_others(entry: FileStatus, reader: Reader) -> bool:
    if entry.mode & _OTHERS_WRITE:
        return True
    return bool(entry.mode & _GROUP_WRITES) and entry.gid not in {0, reader.group()}


def read(path: Path, *, mounted: bool = True) -> bytes:
    """Read a file that no other user can read or change.

    Args:
        path: the file.
        mounted: allow a mounted secret; else the file must be this user's own.

    Raises:
        OSError: it can't be read.
        InvalidSettings: others can read, change or replace it; names the path, its mode and owner, and the remedy.
    """
    return _read(path, partial(file_problem, mounted=mounted))


def read_with_problem(path: Path) -> tuple[bytes, str]:
    """Read a file that no other user can change. Return as well why it may hold no secret; empty if it may.

    Raises:
        OSError, InvalidSettings: as :func:`read`.
    """
    secret_problem = ""

    def problem(file: FileStatus, reader: Reader) -> str:
        nonlocal secret_problem
        secret_problem = file_problem(file, reader)
        return change_problem(file, reader)

    return _read(path, problem), secret_problem


def _read(path: Path, problem: Callable[[FileStatus, Reader], str]) -> bytes:
    for _ in range(_MAX_TRIES):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # rejects a pipe without waiting
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            reader = Reader.here()
            entry = FileStatus.of(path, status, os.statvfs(descriptor).f_flag)
            _refuse(problem(entry, reader) or _first_problem(path, reader))
            if not os.path.samestat(status, path.stat()):
                continue  # replaced meanwhile, as mounted secrets are when they change
            content = file.read(_MAX_SIZE + 1)
        if len(content) > _MAX_SIZE:
            raise InvalidSettings(f"{path} is larger than {_MAX_SIZE} bytes")
        return content
    raise InvalidSettings(f"{path} keeps changing: write a new file beside it once, and rename that")


def location_problem(path: Path) -> str:
    """Say how others could replace a file at ``path``, with a remedy; empty if they can't. The file need not exist.

    Raises:
        OSError: its status can't be read.
    """
    return _first_problem(path, Reader.here())


def directory_problem(path: Path) -> str:
    """Say why others may write to a directory, with a remedy; empty if they can't, or if it doesn't exist yet.

    Raises:
        OSError: its status can't be read.
    """
    reader = Reader.here()
    if problem := _first_problem(path, reader):
        return problem
    try:
        status = path.stat()
    except FileNotFoundError:
        return ""
    entry = FileStatus.of(path, status)
    if not stat.S_ISDIR(entry.mode):
        return f"{path} is not a directory"
    if entry.uid != reader.uid:
        return f"{entry} belongs to another user"
    if _written_by_others(entry, reader):
        return f"{entry} can be written by others, who may have put files there: look at them, then chmod 700 {path}"
    return ""


def directory(path: Path) -> None:
    """Create a directory and its parents, closed to other users. Close an existing one that they can only read.

    Raises:
        OSError: it can't be created.
        InvalidSettings: it belongs to another user, or others could have put files there; names the remedy.
    """
    _refuse(directory_problem(path))
    for missing in reversed([path, *path.parents]):
        if not missing.exists():
            missing.mkdir(mode=0o700, exist_ok=True)
    _refuse(directory_problem(path))
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        path.chmod(0o700)


_alone = False


def be_alone() -> None:
    """Note that this process and its children are a container's own program: it has the temporary files to itself.

    Runners are, and a worker that is the container's process 1. Volumes of containers are often open to all users, of
    which a container has one.
    """
    global _alone  # noqa: PLW0603 - the process's, as its temporary files are
    _alone = True


def temporary_directory(prefix: str) -> Path:
    """Create a temporary directory, closed to other users, that they can't replace.

    Raises:
        InvalidSettings: the directory for temporary files isn't safe; names the remedy.
    """
    path = Path(tempfile.mkdtemp(prefix=prefix))  # mode 0700
    problem = directory_problem(path)
    if problem and not _alone:
        path.rmdir()
        raise InvalidSettings(f"{problem}; or set TMPDIR to a directory of yours")
    return path


def _refuse(problem: str) -> None:
    if problem:
        raise InvalidSettings(problem)


def _first_problem(path: Path, reader: Reader) -> str:
    return next((problem for step in _steps(path) if (problem := path_problem(step, reader))), "")


def _steps(path: Path) -> Iterator[FileStatus]:
    """Yield the existing directories and links on the path, from the root on."""
    here, rest, links = Path("/"), list(reversed(path.absolute().parts)), 0
    while rest:
        step = here / rest.pop()  # joining the absolute root starts again
        if step.name == "..":
            here = here.parent
            continue
        try:
            status = step.lstat()
        except FileNotFoundError:
            return
        if stat.S_ISLNK(status.st_mode):
            links += 1
            if links > _MAX_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
            rest.extend(reversed(step.readlink().parts))
        else:
            here = step
            if not rest:
                return
        yield FileStatus.of(step, status, os.statvfs(step.parent if stat.S_ISLNK(status.st_mode) else step).f_flag)


def _own_group(uid: int) -> int | None:
    """Return the user's private group, which has the user's name and no other member."""
    import grp
    import pwd

    try:
        user = pwd.getpwuid(uid)
        group = grp.getgrgid(user.pw_gid)
    except KeyError:
        return None
    alone = group.gr_name == user.pw_name and set(group.gr_mem) <= {user.pw_name}
    return group.gr_gid if alone else None


def _contained() -> bool:
    """Return True if this process runs in a container, where all users are one."""
    if "KUBERNETES_SERVICE_HOST" in os.environ:
        return True
    return any(Path(marker).exists() for marker in ("/.dockerenv", "/run/.containerenv"))
