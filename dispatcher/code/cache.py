"""A worker's unpacked bundles: private, bounded, shared by its processes, each unpacked once.

A bundle is unpacked beside its place and moved there whole, so that two processes never see half of one. It is checked
against its description before a process first uses it. A process holds a shared lock on what it uses; the least
recently used of the others go when there is not enough room.
"""

from __future__ import annotations

import fcntl
import logging
import os
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from dispatcher.code import archive, bundle_modules
from dispatcher.code.archive import Description
from dispatcher.code.bundle_modules import BundleFiles
from dispatcher.code.bundled import ARCHIVE, DIGEST, FILES
from dispatcher.code.bytecode import BytecodeStore
from dispatcher.errors import InvalidInput, InvalidSettings, SealBroken
from dispatcher.support import private_files

log = logging.getLogger(__name__)

#: Bytes of unpacked bundles that a cache keeps beside those in use.
MOST_BYTES = 2**30

#: Seconds after which a bundle that no process uses is removed.
UNUSED_FOR = 3600.0

_SIZE, _BYTECODE = "size", "bytecode"


@dataclass(frozen=True)
class Unpacked:
    """A bundle on disk.

    Attributes:
        digest: of its archive.
        paths: directories that go onto ``sys.path``, in order.
        modules: top-level names that its program imported from them.
        python: the Python that packed it, ``major.minor``.
        archive: the file that holds its archive.
        importable: top-level names of all files in them, and whether each is a module or a regular package.
        digests: each file's SHA-256, by its name.
    """

    digest: str
    paths: tuple[str, ...]
    modules: frozenset[str]
    python: str
    archive: str
    importable: Mapping[str, bool] = field(default_factory=dict)
    digests: Mapping[str, str] = field(default_factory=dict)


class BundleCache:
    """Unpacked bundles below one directory.

    Args:
        directory: made with mode 0700 if it isn't there; its parent must be private to this user. By default a
            temporary one, which is made for the first bundle and removed by :meth:`close`.
        most_bytes: bytes of unpacked bundles, at most, beside those in use.
        clock: seconds since the epoch.
        bytecode_key: authenticates compiled code that is kept for other processes with this key; by default each
            process compiles for itself.
    """

    def __init__(
        self,
        directory: Path | None = None,
        *,
        most_bytes: int = MOST_BYTES,
        clock: Callable[[], float] = time.time,
        bytecode_key: bytes | None = None,
    ) -> None:
        bundle_modules.install()
        self._clock = clock
        self._bytecode_key = bytecode_key
        self._place = directory
        self._made_by: int | None = None  # the process that made a temporary one
        self._most_bytes = most_bytes
        self._held: dict[str, tuple[int, Unpacked]] = {}
        self._pid = os.getpid()

    def get(self, digest: str, fetch: Callable[[str], bytes]) -> Unpacked:
        """Return a bundle, unpacked and unchanged. It stays at least until :meth:`release`.

        Args:
            digest: the SHA-256 of its archive, in hex.
            fetch: gives the archive by its digest.

        Raises:
            InvalidInput: the digest is none, or nothing is kept under it any more.
            SealBroken: what is kept under the digest was changed.
            Malformed: it is no bundle.
            InvalidSettings: others can write to the cache's directory.
            OSError: it can't be written here.
        """
        if not DIGEST.fullmatch(digest):
            raise InvalidInput(f"code bundle: {digest!r} is no SHA-256")
        if self._pid != os.getpid():  # a fork shares its parent's locks, and must not give them back
            self._pid, self._held = os.getpid(), {}
        if digest in self._held:
            return self._held[digest][1]
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not _is_private(self._directory):
            raise InvalidSettings(
                f"{self._directory}: others may write to the directory of code bundles: remove it, or chmod 700"
            )
        place = self._directory / digest
        lock = self._lock(digest)
        try:
            unpacked = self._usable(place, digest) or self._unpack(place, digest, fetch)
        except BaseException:
            os.close(lock)
            raise
        self._held[digest] = lock, unpacked
        self._import_checked(place, unpacked.digests)
        os.utime(place)
        return unpacked

    def _import_checked(self, place: Path, digests: Mapping[str, str]) -> None:
        key = self._bytecode_key
        store = None if key is None else BytecodeStore(place / _BYTECODE, key)
        bundle_modules.use(BundleFiles(str(place / FILES), digests, store))

    def close(self) -> None:
        """Give back all bundles, and remove the directory if it is a temporary one that this process has made: a fork
        that ends leaves it to its parent."""
        self.release()
        if self._place is not None and self._made_by == os.getpid():
            _remove_tree(self._place)
            self._place = None

    def release(self, keep: frozenset[str] = frozenset()) -> None:
        """Give back all bundles but those to ``keep``: others may remove them."""
        for digest in self._held.keys() - keep:
            lock, _ = self._held.pop(digest)
            bundle_modules.forget(str(self._directory / digest / FILES))
            if self._pid == os.getpid():
                with suppress(OSError):
                    os.utime(self._directory / digest)
                os.close(lock)

    def trim(self) -> None:
        """Remove bundles that no process has used for an hour, then the least recently used until the others fit.
        Those in use stay."""
        if self._place is None or not self._place.is_dir():
            return
        now, total = self._clock(), 0
        entries = [(_last_used(path), path) for path in self._directory.iterdir()]
        for used, path in sorted(entries, reverse=True):
            unused = now - used > UNUSED_FOR
            if DIGEST.fullmatch(path.name):
                total += _size(path)
                if (unused or total > self._most_bytes) and path.name not in self._held:
                    self._remove(path)
            elif unused and path.name.startswith("."):  # of a process that was killed while it unpacked
                _remove_tree(path)
            elif unused and not path.with_suffix("").exists():  # the lock of a bundle that couldn't be fetched
                self._remove(path.with_suffix(""))

    @property
    def _directory(self) -> Path:
        if self._place is None:
            self._place = private_files.temporary_directory("dispatcher-code-")
            self._made_by = os.getpid()
        return self._place

    def _lock(self, digest: str, operation: int = fcntl.LOCK_SH) -> int:
        """Return the descriptor of a bundle's lock file, which goes with the bundle."""
        path = self._directory / f"{digest}.lock"
        while True:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                fcntl.flock(descriptor, operation)
                with suppress(FileNotFoundError):  # it was removed while this process waited
                    if os.path.samestat(os.fstat(descriptor), path.stat()):
                        return descriptor
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)

    def _usable(self, place: Path, digest: str) -> Unpacked | None:
        """The bundle at its place, if it is there and unchanged."""
        try:
            data = (place / ARCHIVE).read_bytes()
            is_private = all(map(_is_private, (place, place / ARCHIVE, place / FILES)))
        except OSError:
            return None
        changed: str | None = ARCHIVE
        if is_private and sha256(data).hexdigest() == digest:
            _remove_compiled(place / FILES)
            description = archive.describe(data)
            changed = next(iter(archive.changed_files(description, place / FILES)), None)
            if changed is None:
                return _unpacked(digest, place, description)
        log.warning("Code bundle %s was changed on disk (%s); unpacking it again", digest[:16], changed)
        return None

    def _unpack(self, place: Path, digest: str, fetch: Callable[[str], bytes]) -> Unpacked:
        try:
            data = fetch(digest)
        except KeyError:
            raise InvalidInput(f"code bundle: none under {digest[:16]}…: no open run refers to it any more") from None
        if sha256(data).hexdigest() != digest:
            raise SealBroken(f"code bundle: what is kept under {digest[:16]}… was changed")
        aside = self._aside(digest)
        files = aside / FILES
        try:
            for directory in (aside, files):
                directory.mkdir(mode=0o700)
            description = archive.extract(data, files)
            (aside / ARCHIVE).write_bytes(data)
            (aside / _SIZE).write_text(str(_size_on_disk(aside)))
            self._put(aside, place, digest)
        finally:
            _remove_tree(aside)
        self.trim()
        return _unpacked(digest, place, description)

    def _put(self, unpacked: Path, place: Path, digest: str) -> None:
        """Move a directory to its place, unless another process was quicker; replace what was changed there."""
        with suppress(OSError):
            unpacked.rename(place)
            return
        if self._usable(place, digest) is None:
            changed = self._aside(digest)
            with suppress(OSError):  # another process does the same
                place.rename(changed)
            with suppress(OSError):
                unpacked.rename(place)  # processes that use it find its files under the same names
            _remove_tree(changed)
        if not (place / FILES).is_dir():
            raise OSError(f"code bundle: can't be moved to {place}")

    def _aside(self, digest: str) -> Path:
        return self._directory / f".{digest[:16]}-{secrets.token_hex(8)}"

    def _remove(self, place: Path) -> None:
        """Remove a bundle and its lock file, unless a process uses it."""
        with suppress(OSError):
            lock = self._lock(place.name, fcntl.LOCK_EX | fcntl.LOCK_NB)
            try:
                aside = self._aside(place.name)
                with suppress(FileNotFoundError):
                    place.rename(aside)
                (self._directory / f"{place.name}.lock").unlink()
                _remove_tree(aside)
            finally:
                os.close(lock)


def _unpacked(digest: str, place: Path, description: Description) -> Unpacked:
    files = place / FILES
    paths = tuple(str(files / path) for path in description.paths)
    modules, archived = frozenset(description.modules), str(place / ARCHIVE)
    return Unpacked(digest, paths, modules, description.python, archived, description.importable(), description.digests)


def _is_private(path: Path) -> bool:
    """Return True if a file or directory is this user's own and no link, and no other may write to it."""
    info = path.lstat()
    return info.st_uid == os.geteuid() and not info.st_mode & 0o022 and not stat.S_ISLNK(info.st_mode)


def _remove_compiled(files: Path) -> None:
    """Remove bytecode, which only processes that a flow has started could take: nobody knows who has made it."""
    for directory, names, _ in os.walk(files):
        if "__pycache__" in names:
            names.remove("__pycache__")
            _remove_tree(Path(directory, "__pycache__"))


def _last_used(place: Path) -> float:
    try:
        return place.stat().st_mtime
    except OSError:
        return 0.0


def _size(place: Path) -> int:
    """The bytes of a bundle's files, compiled ones apart, as they were counted when it was unpacked."""
    try:
        return int((place / _SIZE).read_text())
    except (OSError, ValueError):
        return _size_on_disk(place)


def _size_on_disk(place: Path) -> int:
    return sum(_file_size(Path(directory, name)) for directory, _, names in os.walk(place) for name in names)


def _file_size(path: Path) -> int:
    try:
        return path.lstat().st_size
    except OSError:  # a process has just removed it
        return 0


def _remove_tree(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
