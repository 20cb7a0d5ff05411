"""Checks of signing keys for ``dispatcher doctor``: those of the settings, and the laptop server's own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from dispatcher.errors import DispatcherError
from dispatcher.inspection.finding import Finding, ok, problem

if TYPE_CHECKING:
    from dispatcher.settings import Settings


def configured_keys(settings: Settings) -> Iterator[Finding]:
    """Check the keys that the settings name."""
    from dispatcher.serialization import KeyRing

    try:
        ring = KeyRing.from_settings(settings)
    except DispatcherError as error:
        yield problem("keys", str(error), "give clients and workers the same keys; `dispatcher keygen` makes one")
        return
    path = settings.signing_keys_file if settings.signing_keys is None else None
    yield ok("keys", f"{ring!r} signs with {ring.signing_key_id}{_access(path)}")


def laptop_keys(state: Path) -> Iterator[Finding]:
    """Check the laptop server's key file, if there is one yet. Its directory was found to be its owner's alone."""
    from dispatcher.laptop.paths import LaptopPaths
    from dispatcher.support import private_files

    path = LaptopPaths(state).keys
    try:
        private_files.read(path, mounted=False)
    except FileNotFoundError:
        return
    except OSError as error:
        yield problem("keys", f"{path} can't be read: {error.strerror}", f"chmod 600 {path}")
    except DispatcherError as error:
        yield problem("keys", str(error), "and make a new key, if others could read this one")
    else:
        yield ok("keys", f"no other user can read or change {path}")


def _access(path: Path | None) -> str:
    """Return who can read and change the file of keys, whose permissions were found good."""
    if path is None:
        return ""
    mode = path.stat().st_mode & 0o777
    if mode & 0o077:
        return f"; no other user can change {path}; as a mounted secret, it may be read by others (mode {mode:04o})"
    return f"; no other user can read or change {path}"
