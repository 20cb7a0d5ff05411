"""A worker's unpacked bundles: private, bounded, shared by its processes, each unpacked once.

A bundle is unpacked beside its place and moved there whole, so that two processes never see half of one. It is checked
against its description before a process first uses it. A process holds a shared lock on what it uses; the least
recently used of the others go when there is not enough room.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from dispatcher.code import archive
from dispatcher.code.archive import Description
from dispatcher.errors import InvalidInput, SealBroken

log = logging.getLogger(__name__)

#: Bytes of unpacked bundles that a cache keeps beside those in use.
MOST_BYTES = 2**30

_DIGEST = re.compile(r"[0-9a-f]{64}")
_ARCHIVE, _FILES = "bundle.zip", "files"


@dataclass(frozen=True)
class Unpacked:
    """A bundle on disk.

    Attributes:
        digest: of its archive.
        paths: directories that go onto ``sys.path``, in order.
        modules: top-level names of the modules in them.
        python: the Python that packed it, ``major.minor``.
    """

    digest: str
    paths: tuple[str, ...]
    modules: frozenset[str]
    python: str


class BundleCache:
    """Unpacked bundles below one directory.

    Args:
        directory: made with mode 0700 if it isn't there; its parent must be private to this user.
        most_bytes: bytes of unpacked bundles, at most, beside those in use.
    """

    def __init__(self, directory: Path, *, most_bytes: int = MOST_BYTES) -> None:
        self._directory = directory
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
            OSError: it can't be written here.
        """
        if not _DIGEST.fullmatch(digest):
            raise InvalidInput(f"code bundle: {digest!r} is no SHA-256")
        if self._pid != os.getpid():  # a fork shares its parent's locks, and must not give them back
            self._pid, self._held = os.getpid(), {}
        if digest in self._held:
            return self._held[digest][1]
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        place = self._directory / digest
        lock = self._lock(digest)
        try:
            unpacked = self._usable(place, digest) or self._unpack(place, digest, fetch)
        except BaseException:
            os.close(lock)
            raise
        self._held[digest] = lock, unpacked
        os.utime(place)
        return unpacked

    def release(self, keep: frozenset[str] = frozenset()) -> None:
        """Give back all bundles but those to ``keep``: others may remove them."""
        for digest in self._held.keys() - keep:
            lock, _ = self._held.pop(digest)
            if self._pid == os.getpid():
                os.close(lock)

    def trim(self) -> None:
        """Remove the least recently used bundles, but for those in use, until the others fit."""
        if not self._directory.is_dir():
            return
        places = [path for path in self._directory.iterdir() if _DIGEST.fullmatch(path.name)]
        total = 0
        for place in sorted(places, key=_last_used, reverse=True):
            total += _size(place)
            if total > self._most_bytes and place.name not in self._held:
                self._remove(place)

    def _lock(self, digest: str, operation: int = fcntl.LOCK_SH) -> int:
        descriptor = os.open(
            self._directory / f"{digest}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
        )
        try:
            fcntl.flock(descriptor, operation)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def _usable(self, place: Path, digest: str) -> Unpacked | None:
        """The bundle at its place, if it is there and unchanged."""
        try:
            data = (place / _ARCHIVE).read_bytes()
        except OSError:
            return None
        if sha256(data).hexdigest() == digest:
            description = archive.describe(data)
            changed = next(iter(archive.changed_files(description, place / _FILES)), None)
            if changed is None:
                return _unpacked(digest, place, description)
            log.warning("Code bundle %s was changed on disk (%s); unpacking it again", digest[:16], changed)
        aside = self._aside(digest)
        with suppress(OSError):
            place.rename(aside)
        _remove_tree(aside)
        return None

    def _unpack(self, place: Path, digest: str, fetch: Callable[[str], bytes]) -> Unpacked:
        try:
            data = fetch(digest)
        except KeyError:
            raise InvalidInput(f"code bundle: none under {digest[:16]}…: no open run refers to it any more") from None
        if sha256(data).hexdigest() != digest:
            raise SealBroken(f"code bundle: what is kept under {digest[:16]}… was changed")
        aside = self._aside(digest)
        files = aside / _FILES
        try:
            files.mkdir(mode=0o700, parents=True)
            description = archive.extract(data, files)
            (aside / _ARCHIVE).write_bytes(data)
            with suppress(OSError):  # another process was quicker: its bundle is as good
                aside.rename(place)
        finally:
            _remove_tree(aside)
        if not (place / _FILES).is_dir():
            raise OSError(f"code bundle: can't be moved to {place}")
        self.trim()
        return _unpacked(digest, place, description)

    def _aside(self, digest: str) -> Path:
        return self._directory / f".{digest[:16]}-{secrets.token_hex(8)}"

    def _remove(self, place: Path) -> None:
        with suppress(OSError), self._unused(place.name):
            aside = self._aside(place.name)
            place.rename(aside)
            _remove_tree(aside)

    @contextmanager
    def _unused(self, digest: str) -> Iterator[None]:
        """Hold the lock of a bundle that no process uses.

        Raises:
            BlockingIOError: one does.
        """
        lock = self._lock(digest, fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            yield
        finally:
            os.close(lock)


def _unpacked(digest: str, place: Path, description: Description) -> Unpacked:
    files = place / _FILES
    paths = tuple(str(files / path) for path in description.paths)
    return Unpacked(digest, paths, frozenset(description.modules), description.python)


def _last_used(place: Path) -> float:
    try:
        return place.stat().st_mtime
    except OSError:
        return 0.0


def _size(place: Path) -> int:
    return sum(path.stat().st_size for path in place.rglob("*") if path.is_file())


def _remove_tree(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
