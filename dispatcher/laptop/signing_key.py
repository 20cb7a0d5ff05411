"""The laptop server's signing key: made once, in a file that only its owner can read."""

from __future__ import annotations

from dispatcher.errors import InvalidSettings
from dispatcher.laptop.paths import LaptopPaths, write
from dispatcher.serialization import KeyRing
from dispatcher.support import private_files


def ensure(paths: LaptopPaths) -> None:
    """Create the key file if it is missing. The caller holds :attr:`LaptopPaths.lock`.

    Raises:
        InvalidSettings: other users may read it, and so could sign in its owner's name.
    """
    try:
        private_files.read(paths.keys, mounted=False)
    except FileNotFoundError:
        write(paths.keys, dict(KeyRing.generate()))
    except OSError as error:
        raise InvalidSettings(f"{paths.keys} can't be read: {error.strerror}") from error
