"""Atomic writes of files. Used by flows, storages, the laptop server and ``keygen``."""

from __future__ import annotations

import os
import secrets
from pathlib import Path


def write_atomically(path: Path, data: bytes, *, mode: int = 0o666) -> None:
    """Write a file so that readers see all of it or nothing: beside it first, then renamed.

    Args:
        path: the file; an existing one is replaced.
        data: its content.
        mode: permissions of the file, less those that the umask masks.

    Raises:
        OSError: it can't be written; nothing is left behind.
    """
    beside = path.with_name(f".{path.name[:100]}.{secrets.token_hex(4)}")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
