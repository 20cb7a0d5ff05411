"""Files and directories that other users of a machine must not read or change, checked as ssh checks its own.

A key file belongs to its user, is closed to everybody else, and every directory and link that leads to it is one that
no other user can exchange. A secret that somebody mounted is safe too, though it has another look: it belongs to root,
nobody else may write it, and it is read through a group; in a container, where all users are one, by anybody.
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

_LARGEST = 2**20
_LINKS = 40  # as many as the kernel follows
_TRIES = 5
_GROUP_WRITES, _OTHERS_READ, _OTHERS_WRITE = 0o020, 0o004, 0o002


@dataclass(frozen=True, kw_only=True)
class Reader:
    """The process that trusts a file. ``group`` tells the id of its user's private group, which has no other member."""

    uid: int
    group: Callable[[], int | None] = lambda: None  # asked seldom: users and groups may lie on a server
    contained: bool = False

    @classmethod
    def here(cls) -> Reader:
        """This process."""
        uid = os.geteuid()
        return cls(uid=uid, group=partial(_own_group, uid), contained=_contained())


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A file, directory or link as it was found. ``fixed`` says that it lies on a mount that can't be written."""

    path: Path
    mode: int
    uid: int
    gid: int
    fixed: bool = False

    @classmethod
    def of(cls, path: Path, status: os.stat_result, flags: int = 0) -> Seen:
        """Return what ``stat`` and ``statvfs`` tell of ``path``."""
        fixed = bool(flags & os.ST_RDONLY)
        return cls(path=path, mode=status.st_mode, uid=status.st_uid, gid=status.st_gid, fixed=fixed)

    def __str__(self) -> str:
        return f"{self.path} (mode {stat.S_IMODE(self.mode):04o}, owner {self.uid})"


def file_problem(file: Seen, reader: Reader, *, mounted: bool = True) -> str:
    """Why a file isn't safe to hold a secret of ``reader``, with a remedy; empty if it is. Pure.

    ``mounted`` says that it may be one that somebody mounted.
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


def _mounted(file: Seen, reader: Reader) -> bool:
    """Return True if this is a secret as container engines mount them, or as an administrator gives it to a group."""
    if file.mode & (_GROUP_WRITES | _OTHERS_WRITE):
        return False
    if reader.contained and file.fixed:  # who made the container put it there, whatever number its owner has in here
        return True
    return file.uid == 0 and (reader.contained or not file.mode & _OTHERS_READ)


def way_problem(step: Seen, reader: Reader) -> str:
    """Why a directory or link can't be trusted to lead where it leads, with a remedy; empty if it can. Pure."""
    if reader.contained and step.fixed:
        return ""
    if step.uid not in {reader.uid, 0}:
        return f"{step} belongs to another user, who may put something else there: chown {reader.uid} {step.path}"
    if not stat.S_ISDIR(step.mode) or step.mode & stat.S_ISVTX:
        return ""  # nobody else can exchange what lies in a directory with the sticky bit
    if _written_by_others(step, reader):
        return f"{step} can be written by others, who may put something else there: chmod go-w {step.path}"
    return ""


def _written_by_others(seen: Seen, reader: Reader) -> bool:
    if seen.mode & _OTHERS_WRITE:
        return True
    return bool(seen.mode & _GROUP_WRITES) and seen.gid not in {0, reader.group()}


def read(path: Path, *, mounted: bool = True) -> bytes:
    """The content of a file that no other user can read or change.

    Args:
        path: the file.
        mounted: whether it may be a secret that somebody mounted; else it must be this user's own.

    Raises:
        OSError: it can't be read.
        InvalidSettings: others can, or could exchange it; names the path, its mode and owner, and the remedy.
    """
    for _ in range(_TRIES):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe is refused, not waited for
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            reader = Reader.here()
            seen = Seen.of(path, status, os.statvfs(descriptor).f_flag)
            _refuse(file_problem(seen, reader, mounted=mounted) or _way_to(path, reader))
            if not os.path.samestat(status, path.stat()):
                continue  # exchanged meanwhile, as mounted secrets are when they change
            content = file.read(_LARGEST + 1)
        if len(content) > _LARGEST:
            raise InvalidSettings(f"{path} is larger than {_LARGEST} bytes")
        return content
    raise InvalidSettings(f"{path} changes all the time: write it once, beside the old one, and rename it")


def way_to_problem(path: Path) -> str:
    """Why what lies at ``path``, or will, could be exchanged by others, with a remedy; empty if it can't.

    Raises:
        OSError: it can't be looked at.
    """
    return _way_to(path, Reader.here())


def directory_problem(path: Path) -> str:
    """Why a directory isn't ours alone to write, with a remedy; empty if it is, or if nothing is there yet.

    Raises:
        OSError: it can't be looked at.
    """
    reader = Reader.here()
    if problem := _way_to(path, reader):
        return problem
    try:
        status = path.stat()
    except FileNotFoundError:
        return ""
    seen = Seen.of(path, status)
    if not stat.S_ISDIR(seen.mode):
        return f"{path} is not a directory"
    if seen.uid != reader.uid:
        return f"{seen} belongs to another user"
    if _written_by_others(seen, reader):
        return f"{seen} can be written by others, who may have put files there: look at them, then chmod 700 {path}"
    return ""


def directory(path: Path) -> None:
    """Make a directory, with those above it, that is closed to other users; close one that they can only read.

    Raises:
        OSError: it can't be made.
        InvalidSettings: it belongs to another user, or others could have put files there; names the remedy.
    """
    _refuse(directory_problem(path))
    for missing in reversed([path, *path.parents]):
        if not missing.exists():
            missing.mkdir(mode=0o700, exist_ok=True)
    _refuse(directory_problem(path))
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        path.chmod(0o700)


def temporary_directory(prefix: str) -> Path:
    """A new directory, closed to other users, that they can't exchange.

    Raises:
        InvalidSettings: the directory for temporary files isn't safe; names the remedy.
    """
    made = Path(tempfile.mkdtemp(prefix=prefix))  # 0700
    problem = directory_problem(made)
    if problem:
        made.rmdir()
        raise InvalidSettings(f"{problem}; or set TMPDIR to a directory of yours")
    return made


def _refuse(problem: str) -> None:
    if problem:
        raise InvalidSettings(problem)


def _way_to(path: Path, reader: Reader) -> str:
    return next((problem for step in _steps(path) if (problem := way_problem(step, reader))), "")


def _steps(path: Path) -> Iterator[Seen]:
    """The directories and links that lead to ``path``, from the root on, as far as they are there."""
    here, rest, links = Path("/"), list(reversed(path.absolute().parts)), 0
    while rest:
        step = here / rest.pop()  # an absolute part, the root, starts anew
        if step.name == "..":
            here = here.parent
            continue
        try:
            status = step.lstat()
        except FileNotFoundError:
            return
        if stat.S_ISLNK(status.st_mode):
            links += 1
            if links > _LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
            rest.extend(reversed(step.readlink().parts))
        else:
            here = step
            if not rest:
                return
        yield Seen.of(step, status, os.statvfs(step.parent if stat.S_ISLNK(status.st_mode) else step).f_flag)


def _own_group(uid: int) -> int | None:
    """The user's private group, which has no other member: its name is the user's."""
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
    """Return True if this process lives in a container, whose users are all one."""
    if "KUBERNETES_SERVICE_HOST" in os.environ:
        return True
    return any(Path(marker).exists() for marker in ("/.dockerenv", "/run/.containerenv"))
